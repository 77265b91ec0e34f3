// The gradient of the input from those of the gates: d W_x, for all rows of all steps.
#pragma once
#include "products.h"

namespace GATEDCELLS_LEVEL {

// Some rows of d times a panel of the weights, G terms to a sum, of which many too are added up some at a time.
template <class S, class N, int V>
NOINLINE void multiply_weights(const Left<N>& d, int64_t rows, int64_t G, const N* panel, int64_t lanes,
                               RealOf<N>* sums, RealOf<N>* kept, S* out, int64_t out_stride) {
  typedef RealOf<N> Real;
  constexpr int64_t L = Lanes<Real>::count, width = V * L, together = Operand<N>::numbers;
  const int64_t pieces = ceil_div(G, ROWS_SUMMED<N>);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const Range of = part(ceil_div(G, together), piece, pieces);
    const Range terms = {of.first * together, least(of.last * together, G)};
    Real* into = piece == 0 && pieces > 1 ? kept : sums;
    rows_by_panels<N, V, 1>(rows, d.rows + terms.first, d.stride, terms.count(), panel + terms.first * width, nullptr,
                            into, width);
    if (piece == 0 || piece == pieces - 1) continue;
    for (int64_t i = 0; i < rows * width; i += L) store<Real>(kept + i, load<Real>(kept + i) + load<Real>(sums + i));
  }
  for (int64_t row = 0; row < rows; ++row) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      const int64_t at = row * width + v * L;
      const Vector<Real> sum = pieces > 1 ? load<Real>(kept + at) + load<Real>(sums + at) : load<Real>(sums + at);
      if (lanes > v * L) store_part<S>(out + row * out_stride + v * L, sum, lanes - v * L);
    }
  }
}

template <class S, class N>
void input_gradient_member(const void* given, GatedcellsTeam* team, int rank) {
  typedef RealOf<N> Real;
  const GatedcellsInputGradient& call = *static_cast<const GatedcellsInputGradient*>(given);
  constexpr int64_t L = Lanes<Real>::count, rows_at_once = 96;
  const int size = __atomic_load_n(&team->size, __ATOMIC_RELAXED);
  const int64_t I = call.I, H = call.H, G = (call.gru ? 3 : 4) * H;
  const int64_t terms = ceil_div(G, Operand<N>::numbers) * Operand<N>::numbers, width = lined_up_width<N>(I);
  const int64_t room = IN_PLACE<S, N> || Operand<N>::numbers > 1 ? 0 : rows_at_once * lined_up_width<N>(G);
  const Range rows = part(call.n, rank, size);
  Scratch<Real> scratch(terms * width + 2 * rows_at_once * PANEL_VECTORS * L + room);
  if (scratch.next == nullptr) {
    __atomic_store_n(&team->failed, 1, __ATOMIC_RELAXED);
    return;
  }
  N* panels = scratch.template take_as<N>(terms * width);
  Real *sums = scratch.take(rows_at_once * PANEL_VECTORS * L), *kept = scratch.take(rows_at_once * PANEL_VECTORS * L);
  N* wide = scratch.template take_as<N>(room);
  const S* w = static_cast<const S*>(call.w_x);
  // in d the GRU's candidate comes first
  const Lines<S> weights = call.gru ? Lines<S>{w + 2 * H * I, w, H, G, I} : lines(w, G, I);
  in_panels<N>({0, I}, 0, 1, [&](auto, int64_t column, int64_t lanes) {
    line_up<N, S>(weights, column, lanes, {0, G}, panels + column * terms);
  });
  for (int64_t row = rows.first; row < rows.last; row += rows_at_once) {
    const int64_t some = least(rows_at_once, rows.last - row);
    const S* from = static_cast<const S*>(call.d) + row * 4 * H;
    S* out = static_cast<S*>(call.d_input) + row * I;
    Left<N> d;
    if constexpr (sizeof(S) == sizeof(N)) {
      d = {from, 4 * H};
    } else {
      const Columns<N> widened = columns_of<N, S>(from, 4 * H, G, some, wide);
      d = {widened.data, widened.stride};
    }
    in_panels<N>({0, I}, 0, 1, [&](auto vectors, int64_t column, int64_t lanes) {
      constexpr int V = decltype(vectors)::count;
      multiply_weights<S, N, V>(d, some, G, panels + column * terms, lanes, sums, kept, out + column, I);
    });
  }
}

template <class S, class N>
int input_gradient(const GatedcellsInputGradient& call) {
  const int64_t multiplications = call.n * 4 * call.H * call.I;
  const int threads = multiplications < 200000 ? 1 : static_cast<int>(least(call.threads, ceil_div(call.n, ROWS)));
  return gatedcells_run_team(input_gradient_member<S, N>, &call, threads, 0);
}

}  // namespace GATEDCELLS_LEVEL
