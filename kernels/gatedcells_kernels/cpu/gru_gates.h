// The gates of one GRU step, forward and backward, for some rows and some panels of hidden units.
//
// The equations are those of gatedcells/reference/gru.py; x_* = W_* x + b_i* and h_* = U_* h + b_h* come from
// multiply.h.
#pragma once
#include "activations.h"
#include "share.h"

namespace GATEDCELLS_LEVEL {

constexpr int64_t GRU_TAPE = 4;  // reset, update, candidate, h_candidate
constexpr int64_t GRU_GRADS = 4; // x_candidate, reset, update, h_candidate

// What one step of some rows reads and writes; pointers are at the first of the rows, all units.
template <class N>
struct GRUStep {
  typedef RealOf<N> Real;
  const Real* old;  // [rows, H]: the states before
  N* states;        // [rows, H]: after
  Real* carried;    // [rows, H]: the states after, where N is too coarse to carry them on; else null
  N* tape;          // [rows, 4, H] or null
  Rows rows;
  int64_t H;

  INLINE void finish(int64_t row, int64_t unit, int64_t lanes, Vector<Real> old_state, Vector<Real> update,
                     Vector<Real> candidate) const {
    const Vector<Real> stepped = multiply_add(update, old_state - candidate, candidate);
    const Vector<Real> now = rows.ended(row) ? old_state : stepped;
    store_part<N>(states + row * H + unit, now, lanes);
    if (carried) store_part<Real>(carried + row * H + unit, now, lanes);
  }

  INLINE void record(int64_t row, int64_t unit, int64_t lanes, Vector<Real> reset, Vector<Real> update,
                     Vector<Real> candidate, Vector<Real> h_candidate) const {
    if (!tape) return;
    N* at = tape + row * GRU_TAPE * H + unit;
    store_part<N>(at, reset, lanes);
    store_part<N>(at + H, update, lanes);
    store_part<N>(at + 2 * H, candidate, lanes);
    store_part<N>(at + 3 * H, h_candidate, lanes);
  }
};

// The gates of the panels first <= p < last from the two halves of their pre-activations.
template <class N>
NOINLINE void gru_gates(const GRUStep<N>& step, const RealOf<N>* x, int64_t x_stride, const RealOf<N>* h,
                        int64_t h_stride, int64_t first, int64_t last) {
  typedef RealOf<N> Real;
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  in_pairs(step.rows.count, first, last, [&](const auto& places) __attribute__((always_inline)) {
    constexpr int PLACES = sizeof(places) / sizeof(Place);
    V reset[PLACES], update[PLACES], h_candidate[PLACES], candidate[PLACES];
#pragma GCC unroll 2
    for (int i = 0; i < PLACES && step.tape; ++i)
      fetch_to_write<GRU_TAPE>(step.tape + places[i].row * GRU_TAPE * step.H + places[i].panel * L, step.H);
    const auto part = [&](const Real* from, int64_t stride, int i, int64_t gate) __attribute__((always_inline)) {
      const auto [row, panel] = places[i];
      return load<Real>(from + row * stride + (panel - first) * 3 * L + gate * lanes_of<Real>(panel, step.H));
    };
    const auto sum = [&](int i, int64_t gate) __attribute__((always_inline)) {
      return part(x, x_stride, i, gate) + part(h, h_stride, i, gate);
    };
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) reset[i] = sigmoid<N>(sum(i, 0));
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) update[i] = sigmoid<N>(sum(i, 1));
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) {
      h_candidate[i] = part(h, h_stride, i, 2);
      candidate[i] = hyperbolic_tangent<N>(multiply_add(reset[i], h_candidate[i], part(x, x_stride, i, 2)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) {
      const auto [row, panel] = places[i];
      const int64_t unit = panel * L, lanes = lanes_of<Real>(panel, step.H);
      const V old = load_part<Real>(step.old + row * step.H + unit, lanes);
      step.finish(row, unit, lanes, old, update[i], candidate[i]);
      step.record(row, unit, lanes, reset[i], update[i], candidate[i], h_candidate[i]);
    }
  });
}

// Reset before, first half: r, z and r h. The gates' values replace their x halves, for the second half.
template <class N>
NOINLINE void gru_reset_gates(const GRUStep<N>& step, RealOf<N>* x, int64_t x_stride, const RealOf<N>* h,
                              int64_t h_stride, N* reset_hidden, int64_t reset_stride, int64_t first,
                              int64_t last) {
  typedef RealOf<N> Real;
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  for (int64_t row = 0; row < step.rows.count; ++row) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t unit = p * L, lanes = lanes_of<Real>(p, step.H);
      Real* xs = x + row * x_stride + (p - first) * 3 * L;
      const Real* hs = h + row * h_stride + (p - first) * 2 * L;
      const V reset = sigmoid<N>(load<Real>(xs) + load<Real>(hs));
      const V update = sigmoid<N>(load<Real>(xs + lanes) + load<Real>(hs + lanes));
      const V old = load_part<Real>(step.old + row * step.H + unit, lanes);
      store_part<Real>(xs, reset, lanes);
      store_part<Real>(xs + lanes, update, lanes);
      store_part<N>(reset_hidden + row * reset_stride + unit, reset * old, L);
    }
  }
}

// Reset before, second half: the candidate and the new state.
template <class N>
NOINLINE void gru_candidate(const GRUStep<N>& step, const RealOf<N>* x, int64_t x_stride, const RealOf<N>* h,
                            int64_t h_stride, int64_t first, int64_t last) {
  typedef RealOf<N> Real;
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  for (int64_t row = 0; row < step.rows.count; ++row) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t unit = p * L, lanes = lanes_of<Real>(p, step.H);
      const Real* xs = x + row * x_stride + (p - first) * 3 * L;
      const V h_candidate = load<Real>(h + row * h_stride + (p - first) * L);
      const V reset = load<Real>(xs), update = load<Real>(xs + lanes);
      const V candidate = hyperbolic_tangent<N>(load<Real>(xs + 2 * lanes) + h_candidate);
      const V old = load_part<Real>(step.old + row * step.H + unit, lanes);
      step.finish(row, unit, lanes, old, update, candidate);
      step.record(row, unit, lanes, reset, update, candidate, h_candidate);
    }
  }
}

// Backward through the gates of one step: the gates' gradients, and in `carry` the part of dL/dh that does
// not go through a product. With the reset gate before, its own gradient comes later (gru_reset_backward).
template <class N>
struct GRUBackwardStep {
  typedef RealOf<N> Real;
  const N* d_states;  // [rows, H] or null
  const N* previous;  // [rows, H]
  const N* tape;      // [rows, 4, H]
  N* d_gates;         // [rows, 4, H]
  Real* carry;        // [rows, H]: dL/dh' before, the part of dL/dh after
  Rows rows;
  int64_t H;
  bool before;

  INLINE Vector<Real> old(int64_t row, int64_t unit, int64_t lanes) const {
    return rows.forgets(row) ? Vector<Real>{} : load_part<N>(previous + row * H + unit, lanes);
  }
};

template <class N>
NOINLINE void gru_gates_backward(const GRUBackwardStep<N>& step, int64_t first, int64_t last) {
  typedef RealOf<N> Real;
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t H = step.H;
  const V one = splat<Real>(1);
  for (int64_t row = 0; row < step.rows.count; ++row) {
    const bool ended = step.rows.ended(row);
    for (int64_t unit = first * L; unit < least(last * L, H); unit += L) {
      const int64_t lanes = H - unit;
      const N* tape = step.tape + row * GRU_TAPE * H + unit;
      N* d_gates = step.d_gates + row * GRU_GRADS * H + unit;
      Real* carry = step.carry + row * H + unit;
      V d = load_part<Real>(carry, lanes);
      if (step.d_states) d += load_part<N>(step.d_states + row * H + unit, lanes);
      V da_candidate{}, da_reset{}, da_update{}, da_h_candidate{};
      if (!ended) {
        const V reset = load_part<N>(tape, lanes), update = load_part<N>(tape + H, lanes);
        const V candidate = load_part<N>(tape + 2 * H, lanes);
        const V h_candidate = load_part<N>(tape + 3 * H, lanes);
        const V old = step.old(row, unit, lanes);
        const V kept = d * update;
        da_candidate = (d - kept) * multiply_add(-candidate, candidate, one);
        da_update = d * (old - candidate) * update * (Real(1) - update);
        if (step.before) {
          da_h_candidate = da_candidate;
        } else {
          da_reset = da_candidate * h_candidate * reset * (Real(1) - reset);
          da_h_candidate = da_candidate * reset;
        }
        d = kept;
      }
      store_part<N>(d_gates, da_candidate, lanes);
      store_part<N>(d_gates + H, da_reset, lanes);
      store_part<N>(d_gates + 2 * H, da_update, lanes);
      store_part<N>(d_gates + 3 * H, da_h_candidate, lanes);
      store_part<Real>(carry, d, lanes);
    }
  }
}

// Reset before: from dL/d(r h) to the reset gate's gradient and to the state's.
template <class N>
NOINLINE void gru_reset_backward(const GRUBackwardStep<N>& step, const RealOf<N>* d_reset_hidden,
                                 int64_t stride, int64_t first, int64_t last) {
  typedef RealOf<N> Real;
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t H = step.H;
  for (int64_t row = 0; row < step.rows.count; ++row) {
    if (step.rows.ended(row)) continue;
    for (int64_t p = first; p < last; ++p) {
      const int64_t unit = p * L, lanes = H - unit;
      const V d = load<Real>(d_reset_hidden + row * stride + (p - first) * L);
      const V reset = load_part<N>(step.tape + row * GRU_TAPE * H + unit, lanes);
      const V old = step.old(row, unit, lanes);
      Real* carry = step.carry + row * H + unit;
      N* d_reset = step.d_gates + row * GRU_GRADS * H + H + unit;
      store_part<N>(d_reset, d * old * reset * (Real(1) - reset), lanes);
      store_part<Real>(carry, multiply_add(d, reset, load_part<Real>(carry, lanes)), lanes);
    }
  }
}

}  // namespace GATEDCELLS_LEVEL
