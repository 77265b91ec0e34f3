// Gradients of weights and biases, sums over the rows of all steps: d^T read and d^T 1; and of the input: d W_x.
//
// One side of a product is packed in vectors, panels of up to three as multiply.h reads them, and the other is read
// number by number where it lies. Many terms are summed ROWS_SUMMED at a time, and those sums are added up in their
// order, whatever the number of threads: as exact as the products of libraries, which do the same.
#pragma once
#include "calls.h"
#include "share.h"

namespace GATEDCELLS_LEVEL {

constexpr int64_t ROWS_SUMMED = 256;
constexpr int64_t PANEL_VECTORS = 3;
constexpr int64_t NUMBERS_AT_ONCE = 512;  // of few rows: as many sums as stay in cache until they are stored

// Columns of d that belong to rows of weights, and to numbers of biases, from these on; -1: to none.
struct Gates {
  Range columns;
  int64_t rows_x, rows_h;
};

// The GRU's d is n (input half), r, z, n (hidden half), its weights r, z, n; the LSTM's are in one order.
struct AllGates {
  Gates list[3];
  int count;
  INLINE explicit AllGates(const GatedcellsWeightGradients& call) {
    const int64_t H = call.H;
    count = call.gru ? 3 : 1;
    if (call.gru) {
      list[0] = {{0, H}, 2 * H, -1};
      list[1] = {{H, 3 * H}, 0, 0};
      list[2] = {{3 * H, 4 * H}, -1, 2 * H};
    } else {
      list[0] = {{0, 4 * H}, 0, 0};
    }
  }
};

// Rows that follow each other in memory on all sides.
template <class N>
struct Some {
  const N *d, *input, *states;
  int64_t rows;
  bool first, last;
};

// The rows [row, row + some.rows) of a call, as many as can be.
template <class N>
INLINE Some<N> some_from(const GatedcellsWeightGradients& call, int64_t row) {
  const bool early = row < call.split;
  Some<N> some;
  some.rows = least(ROWS_SUMMED, (early ? call.split : call.n) - row);
  some.d = static_cast<const N*>(call.d) + row * 4 * call.H;
  some.input = static_cast<const N*>(call.input) + row * call.I;
  some.states = early ? static_cast<const N*>(call.first) + row * call.P
                      : static_cast<const N*>(call.second) + (row - call.split) * call.P;
  some.first = row == 0;
  some.last = row + some.rows == call.n;
  return some;
}

// Columns of some rows in vectors: to[row][vector][lane], zeros beyond the last column.
template <class N, int V>
NOINLINE void line_up(const N* from, int64_t stride, int64_t rows, int64_t columns, N* to) {
  constexpr int64_t L = Lanes<N>::count;
  for (int64_t k = 0; k < rows; ++k, to += V * L, from += stride) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      if (k + 16 < rows) __builtin_prefetch(from + 16 * stride + v * L);
      store<N>(to + v * L, load_part<N>(from + v * L, columns - v * L));
    }
  }
}

// sums[number][vector][lane], and `more` of them where there are any, to out, whose rows are the vectors' lanes.
template <class N, int V>
NOINLINE void deliver_turned(const N* sums, const N* more, int64_t numbers, int64_t lanes, N* out) {
  constexpr int64_t L = Lanes<N>::count, width = V * L, block = 16;
  for (int64_t first = 0; first < numbers; first += block) {
    const int64_t some = least(block, numbers - first);
    N turned[width][block];
    for (int64_t i = 0; i < some; ++i) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) {
        const int64_t at = (first + i) * width + v * L;
        const Vector<N> sum = more ? load<N>(more + at) + load<N>(sums + at) : load<N>(sums + at);
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) turned[v * L + l][i] = sum[l];
      }
    }
    for (int64_t lane = 0; lane < lanes; ++lane)
      memcpy(out + lane * numbers + first, turned[lane], sizeof(N) * static_cast<size_t>(some));
  }
}

// kept += sums, or after the last rows both of them to out.
template <class N, int V>
INLINE void keep(const Some<N>& some, const N* sums, N* kept, int64_t numbers, int64_t lanes, N* out) {
  constexpr int64_t L = Lanes<N>::count;
  if (some.last) return deliver_turned<N, V>(sums, some.first ? nullptr : kept, numbers, lanes, out);
  for (int64_t i = 0; i < numbers * V * L; i += L) {
    const Vector<N> sum = load<N>(sums + i);
    store<N>(kept + i, some.first ? sum : load<N>(kept + i) + sum);
  }
}

// What a panel of d adds to the gradients of the weights with these numbers for each row.
template <class N, int V>
INLINE void multiply_panel(const Some<N>& some, const N* panel, const N* numbers, int64_t count, N* sums, N* kept,
                           int64_t lanes, N* out) {
  rows_by_panels<N, V, 1, false, true>(count, numbers, count, some.rows, panel, nullptr, sums,
                                       V * Lanes<N>::count);
  keep<N, V>(some, sums, kept, count, lanes, out);
}

// The sums down a panel, 32 rows at a time and those in four parts: short sums are more exact.
template <class N, int V>
NOINLINE void sum_panel(const N* panel, int64_t rows, N* sums) {
  constexpr int64_t L = Lanes<N>::count, at_once = 32;
  Vector<N> total[V] = {};
  for (int64_t first = 0; first < rows; first += at_once) {
    const int64_t last = least(first + at_once, rows);
    Vector<N> parts[4][V] = {};
    int64_t k = first;
    for (; k + 4 <= last; k += 4) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) parts[i][v] += load<N>(panel + ((k + i) * V + v) * L);
      }
    }
    for (; k < last; ++k) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) parts[0][v] += load<N>(panel + (k * V + v) * L);
    }
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) total[v] += (parts[0][v] + parts[1][v]) + (parts[2][v] + parts[3][v]);
  }
#pragma GCC unroll 3
  for (int v = 0; v < V; ++v) store<N>(sums + v * L, total[v]);
}

// Whether d is the side that is read number by number: else the sums of wide weights have to be turned at the end, which
// few rows do not pay for.
INLINE bool is_across(int64_t n, int64_t width, int64_t lanes) {
  return n <= ROWS_SUMMED && width >= PANEL_VECTORS * lanes;
}

template <class N>
struct WeightSums {
  const GatedcellsWeightGradients& call;
  N *panel, *sums, *kept;  // working memory; `kept` moves on from one panel to the next
  N *d_w_x, *d_w_h;        // what is made here, or null

  // A panel of d, some rows of it.
  template <int V>
  NOINLINE void along(const Gates& gates, const Some<N>& some, int64_t column, int64_t lanes) {
    const int64_t at = column - gates.columns.first, I = call.I, P = call.P;
    line_up<N, V>(some.d + column, 4 * call.H, some.rows, lanes, panel);
    if (d_w_x && gates.rows_x >= 0)
      multiply_panel<N, V>(some, panel, some.input, I, sums, take(I), lanes, d_w_x + (gates.rows_x + at) * I);
    if (d_w_h && gates.rows_h >= 0)
      multiply_panel<N, V>(some, panel, some.states, P, sums, take(P), lanes, d_w_h + (gates.rows_h + at) * P);
    if (!call.d_bias_x) return;
    sum_panel<N, V>(panel, some.rows, sums);
    N* total = take(1);
    N *to_x = static_cast<N*>(call.d_bias_x), *to_h = static_cast<N*>(call.d_bias_h);
    if (gates.rows_x >= 0) keep<N, V>(some, sums, total, 1, lanes, to_x + gates.rows_x + at);
    if (gates.rows_h >= 0 && (some.last || gates.rows_x < 0))
      keep<N, V>(some, sums, total, 1, lanes, to_h + gates.rows_h + at);
  }

  INLINE N* take(int64_t numbers) {
    N* taken = kept;
    kept += numbers * PANEL_VECTORS * Lanes<N>::count;
    return taken;
  }

  // A panel of what was read, for few rows: no sum has to be turned.
  template <int V>
  NOINLINE void across(const AllGates& all, bool is_input, int64_t width, int64_t column, int64_t lanes) {
    constexpr int64_t L = Lanes<N>::count;
    const int64_t early = is_input ? call.n : call.split;
    const N* first = static_cast<const N*>(is_input ? call.input : call.first);
    line_up<N, V>(first + column, width, early, lanes, panel);
    if (early < call.n)
      line_up<N, V>(static_cast<const N*>(call.second) + column, width, call.n - early, lanes, panel + early * V * L);
    for (int i = 0; i < all.count; ++i) {
      const Gates& gates = all.list[i];
      const int64_t rows = is_input ? gates.rows_x : gates.rows_h;
      if (rows < 0) continue;
      N* out = static_cast<N*>(is_input ? call.d_w_x : call.d_w_h) + rows * width + column;
      for (int64_t g = gates.columns.first; g < gates.columns.last; g += NUMBERS_AT_ONCE) {
        const int64_t count = least(NUMBERS_AT_ONCE, gates.columns.last - g);
        const N* d = static_cast<const N*>(call.d) + g;
        rows_by_panels<N, V, 1, false, true>(count, d, 4 * call.H, call.n, panel, nullptr, sums, V * L);
        for (int64_t one = 0; one < count; ++one, out += width)
          for (int v = 0; v < V; ++v)
            if (lanes > v * L) store_part<N>(out + v * L, load<N>(sums + (one * V + v) * L), lanes - v * L);
      }
    }
  }
};

// The number of vectors of a panel, known when it is compiled.
template <int V>
struct Vectors {
  static constexpr int count = V;
};

// work(vectors, first column, columns) for a member's part of some columns, in panels as even as they can be.
template <class N, class Work>
INLINE void in_panels(Range columns, int64_t rank, int64_t size, const Work& work) {
  constexpr int64_t L = Lanes<N>::count;
  const int64_t vectors = ceil_div(columns.count(), L), panels = ceil_div(vectors, PANEL_VECTORS);
  const Range mine = part(panels, rank, size);
  for (int64_t p = mine.first; p < mine.last; ++p) {
    const Range of = part(vectors, p, panels);
    const int64_t column = columns.first + of.first * L, lanes = least(of.count() * L, columns.last - column);
    if (of.count() == 1) work(Vectors<1>{}, column, lanes);
    if (of.count() == 2) work(Vectors<2>{}, column, lanes);
    if (of.count() == 3) work(Vectors<3>{}, column, lanes);
  }
}

template <class N>
void weight_gradients_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsWeightGradients& call = *static_cast<const GatedcellsWeightGradients*>(given);
  constexpr int64_t L = Lanes<N>::count, widest = PANEL_VECTORS * L;
  const int size = __atomic_load_n(&team->size, __ATOMIC_RELAXED);
  const AllGates all(call);
  const bool x_across = is_across(call.n, call.I, L), h_across = is_across(call.n, call.P, L);
  N *d_w_x = static_cast<N*>(call.d_w_x), *d_w_h = static_cast<N*>(call.d_w_h);
  WeightSums<N> sums = {call, nullptr, nullptr, nullptr, x_across ? nullptr : d_w_x, h_across ? nullptr : d_w_h};
  const int64_t numbers = (sums.d_w_x ? call.I : 0) + (sums.d_w_h ? call.P : 0) + (call.d_bias_x ? 1 : 0);
  int64_t panels = 0;
  for (int i = 0; i < all.count; ++i)
    in_panels<N>(all.list[i].columns, rank, size, [&](auto, int64_t, int64_t) { ++panels; });
  Scratch<N> scratch((ROWS_SUMMED + most(NUMBERS_AT_ONCE, numbers) + panels * numbers) * widest);
  if (scratch.next == nullptr) {
    __atomic_store_n(&team->failed, 1, __ATOMIC_RELAXED);
    return;
  }
  sums.panel = scratch.take(ROWS_SUMMED * widest);
  sums.sums = scratch.take(most(NUMBERS_AT_ONCE, numbers) * widest);
  N* kept = scratch.take(panels * numbers * widest);
  for (int64_t row = 0; numbers && row < call.n;) {
    const Some<N> some = some_from<N>(call, row);
    row += some.rows;
    sums.kept = kept;
    for (int i = 0; i < all.count; ++i) {
      const Gates& gates = all.list[i];
      in_panels<N>(gates.columns, rank, size, [&](auto vectors, int64_t column, int64_t lanes) {
        sums.template along<decltype(vectors)::count>(gates, some, column, lanes);
      });
    }
  }
  const auto across = [&](bool is_input, int64_t width) {
    in_panels<N>({0, width}, rank, size, [&](auto vectors, int64_t column, int64_t lanes) {
      sums.template across<decltype(vectors)::count>(all, is_input, width, column, lanes);
    });
  };
  if (d_w_x && x_across) across(true, call.I);
  if (d_w_h && h_across) across(false, call.P);
}

template <class N>
int weight_gradients(const GatedcellsWeightGradients& call) {
  const int64_t multiplications = call.n * 4 * call.H * (call.I + call.P);
  const int threads = multiplications < 200000 ? 1 : static_cast<int>(call.threads);
  return gatedcells_run_team(weight_gradients_member<N>, &call, threads, 0);
}

// Some rows of d times a panel of the weights, G terms to a sum, of which many too are added up some at a time.
template <class N, int V>
NOINLINE void multiply_weights(const N* d, int64_t stride, int64_t rows, int64_t G, const N* panel, int64_t lanes,
                               N* sums, N* kept, N* out, int64_t out_stride) {
  constexpr int64_t L = Lanes<N>::count, width = V * L;
  const int64_t pieces = ceil_div(G, ROWS_SUMMED);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const Range terms = part(G, piece, pieces);
    N* into = piece == 0 && pieces > 1 ? kept : sums;
    rows_by_panels<N, V, 1>(rows, d + terms.first, stride, terms.count(), panel + terms.first * width, nullptr, into,
                            width);
    if (piece == 0 || piece == pieces - 1) continue;
    for (int64_t i = 0; i < rows * width; i += L) store<N>(kept + i, load<N>(kept + i) + load<N>(sums + i));
  }
  for (int64_t row = 0; row < rows; ++row) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      const int64_t at = row * width + v * L;
      const Vector<N> sum = pieces > 1 ? load<N>(kept + at) + load<N>(sums + at) : load<N>(sums + at);
      if (lanes > v * L) store_part<N>(out + row * out_stride + v * L, sum, lanes - v * L);
    }
  }
}

template <class N>
void input_gradient_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsInputGradient& call = *static_cast<const GatedcellsInputGradient*>(given);
  constexpr int64_t L = Lanes<N>::count, rows_at_once = 96;
  const int size = __atomic_load_n(&team->size, __ATOMIC_RELAXED);
  const int64_t I = call.I, H = call.H, G = (call.gru ? 3 : 4) * H;
  const Range rows = part(call.n, rank, size);
  Scratch<N> scratch(G * ceil_div(I, L) * L + 2 * rows_at_once * PANEL_VECTORS * L);
  if (scratch.next == nullptr) {
    __atomic_store_n(&team->failed, 1, __ATOMIC_RELAXED);
    return;
  }
  N* panels = scratch.take(G * ceil_div(I, L) * L);
  N *sums = scratch.take(rows_at_once * PANEL_VECTORS * L), *kept = scratch.take(rows_at_once * PANEL_VECTORS * L);
  const N* w = static_cast<const N*>(call.w_x);
  // in d the GRU's candidate comes first
  const int64_t early = call.gru ? H : G, late = call.gru ? 2 * H : 0;
  in_panels<N>({0, I}, 0, 1, [&](auto vectors, int64_t column, int64_t lanes) {
    constexpr int V = decltype(vectors)::count;
    N* panel = panels + column * G;
    line_up<N, V>(w + late * I + column, I, early, lanes, panel);
    line_up<N, V>(w + column, I, G - early, lanes, panel + early * V * L);
  });
  for (int64_t row = rows.first; row < rows.last; row += rows_at_once) {
    const int64_t some = least(rows_at_once, rows.last - row);
    const N* d = static_cast<const N*>(call.d) + row * 4 * H;
    N* out = static_cast<N*>(call.d_input) + row * I;
    in_panels<N>({0, I}, 0, 1, [&](auto vectors, int64_t column, int64_t lanes) {
      constexpr int V = decltype(vectors)::count;
      multiply_weights<N, V>(d, 4 * H, some, G, panels + column * G, lanes, sums, kept, out + column, I);
    });
  }
}

template <class N>
int input_gradient(const GatedcellsInputGradient& call) {
  const int64_t multiplications = call.n * 4 * call.H * call.I;
  const int threads = multiplications < 200000 ? 1 : static_cast<int>(least(call.threads, ceil_div(call.n, ROWS)));
  return gatedcells_run_team(input_gradient_member<N>, &call, threads, 0);
}

}  // namespace GATEDCELLS_LEVEL
