// The gates of one LSTM step, forward and backward, for some rows and some panels of hidden units.
//
// The equations are those of gatedcells/reference/lstm.py; x_* = W_* x + b_i* and h_* = U_* h + b_h* come from
// multiply.h.
#pragma once
#include "activations.h"
#include "share.h"

namespace GATEDCELLS_LEVEL {

constexpr int64_t LSTM_TAPE = 5;   // input, forget, candidate, output, cell
constexpr int64_t LSTM_GRADS = 4;  // input, forget, candidate, output

// What one step of some rows reads and writes; pointers are at the first of the rows, all units.
template <class N>
struct LSTMStep {
  typedef RealOf<N> Real;
  const N* previous;  // [rows, H]: h, where there is no projection
  N* shown;           // [rows, shown_stride]: m
  Real* cell;         // [rows, H]: c before, c' after
  N* tape;            // [rows, 5, H] or null
  N* cells;           // [rows, H]: c' again, or null
  Rows rows;
  int64_t H, shown_stride;
  bool projected;
};

// The gates of the panels first <= p < last from the two halves of their pre-activations; `h` is overwritten. The
// output gate waits there for tanh(c') of all rows: one after another, each would wait for its own c'.
template <class N>
NOINLINE void lstm_gates(const LSTMStep<N>& step, const RealOf<N>* x, int64_t x_stride, RealOf<N>* h,
                         int64_t h_stride, int64_t first, int64_t last) {
  typedef RealOf<N> Real;
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t H = step.H;
  in_pairs(step.rows.count, first, last, [&](const auto& places) __attribute__((always_inline)) {
    constexpr int PLACES = sizeof(places) / sizeof(Place);
    V input[PLACES], forget[PLACES], candidate[PLACES], output[PLACES];
#pragma GCC unroll 2
    for (int i = 0; i < PLACES && step.tape; ++i)
      fetch_to_write<LSTM_TAPE>(step.tape + places[i].row * LSTM_TAPE * H + places[i].panel * L, H);
    const auto sum = [&](int i, int64_t gate) __attribute__((always_inline)) {
      const int64_t at = (places[i].panel - first) * 4 * L + gate * lanes_of<Real>(places[i].panel, H);
      return load<Real>(x + places[i].row * x_stride + at) + load<Real>(h + places[i].row * h_stride + at);
    };
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) input[i] = sigmoid<N>(sum(i, 0));
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) forget[i] = sigmoid<N>(sum(i, 1));
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) candidate[i] = hyperbolic_tangent<N>(sum(i, 2));
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) output[i] = sigmoid<N>(sum(i, 3));
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) {
      const auto [row, panel] = places[i];
      const int64_t unit = panel * L, lanes = lanes_of<Real>(panel, H);
      Real* cell = step.cell + row * H + unit;
      const V old = load_part<Real>(cell, lanes);
      const V now = step.rows.ended(row) ? old : multiply_add(forget[i], old, input[i] * candidate[i]);
      store_part<Real>(cell, now, lanes);
      store<Real>(h + row * h_stride + (panel - first) * 4 * L, output[i]);
      if (step.cells) store_part<N>(step.cells + row * H + unit, now, lanes);
      if (step.tape) {
        N* tape = step.tape + row * LSTM_TAPE * H + unit;
        store_part<N>(tape, input[i], lanes);
        store_part<N>(tape + H, forget[i], lanes);
        store_part<N>(tape + 2 * H, candidate[i], lanes);
        store_part<N>(tape + 3 * H, output[i], lanes);
        store_part<N>(tape + 4 * H, now, lanes);
      }
    }
  });
  in_pairs(step.rows.count, first, last, [&](const auto& places) __attribute__((always_inline)) {
    constexpr int PLACES = sizeof(places) / sizeof(Place);
#pragma GCC unroll 2
    for (int i = 0; i < PLACES; ++i) {
      const auto [row, panel] = places[i];
      const int64_t unit = panel * L, lanes = lanes_of<Real>(panel, H);
      const V output = load<Real>(h + row * h_stride + (panel - first) * 4 * L);
      V shown = output * hyperbolic_tangent<N>(load_part<Real>(step.cell + row * H + unit, lanes));
      if (step.rows.ended(row) && !step.projected) shown = load_part<N>(step.previous + row * H + unit, lanes);
      store_part<N>(step.shown + row * step.shown_stride + unit, shown, step.projected ? L : lanes);
    }
  });
}

// Backward through the gates of one step.
template <class N>
struct LSTMBackwardStep {
  typedef RealOf<N> Real;
  const Real* d_shown;     // [rows, shown_stride] from the projection; null without one
  const N* d_states;       // [rows, H] or null; not read with a projection
  const N* previous_cell;  // [rows, previous_stride]
  const N* tape;           // [rows, 5, H]
  N* d_gates;              // [rows, 4, H]
  Real* d_hidden;          // [rows, H]: without a projection, where a row has ended it keeps its gradient
  Real* d_cell;            // [rows, H]: dL/dc' before, dL/dc after
  Rows rows;
  int64_t H, shown_stride, previous_stride;
};

template <class N>
NOINLINE void lstm_gates_backward(const LSTMBackwardStep<N>& step, int64_t first, int64_t last) {
  typedef RealOf<N> Real;
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t H = step.H;
  const V one = splat<Real>(1);
  for (int64_t row = 0; row < step.rows.count; ++row) {
    const bool ended = step.rows.ended(row), forgets = step.rows.forgets(row);
    for (int64_t p = first; p < last; ++p) {
      const int64_t unit = p * L, lanes = H - unit;
      const N* tape = step.tape + row * LSTM_TAPE * H + unit;
      N* d_gates = step.d_gates + row * LSTM_GRADS * H + unit;
      V d_shown;
      if (step.d_shown) {
        d_shown = load<Real>(step.d_shown + row * step.shown_stride + (p - first) * L);
      } else {
        d_shown = load_part<Real>(step.d_hidden + row * H + unit, lanes);
        if (step.d_states) d_shown += load_part<N>(step.d_states + row * H + unit, lanes);
      }
      V da_input{}, da_forget{}, da_candidate{}, da_output{};
      if (!ended) {
        const V input = load_part<N>(tape, lanes), forget = load_part<N>(tape + H, lanes);
        const V candidate = load_part<N>(tape + 2 * H, lanes), output = load_part<N>(tape + 3 * H, lanes);
        const V tanh_cell = hyperbolic_tangent<N>(load_part<N>(tape + 4 * H, lanes));
        const V old =
            forgets ? V{} : load_part<N>(step.previous_cell + row * step.previous_stride + unit, lanes);
        Real* d_cell_at = step.d_cell + row * H + unit;
        const V slope = multiply_add(-tanh_cell, tanh_cell, one);
        const V d_cell = multiply_add(d_shown * output, slope, load_part<Real>(d_cell_at, lanes));
        da_output = d_shown * tanh_cell * output * (one - output);
        da_forget = d_cell * old * forget * (one - forget);
        da_input = d_cell * candidate * input * (one - input);
        da_candidate = d_cell * input * multiply_add(-candidate, candidate, one);
        store_part<Real>(d_cell_at, d_cell * forget, lanes);
      } else if (!step.d_shown) {
        store_part<Real>(step.d_hidden + row * H + unit, d_shown, lanes);
      }
      store_part<N>(d_gates, da_input, lanes);
      store_part<N>(d_gates + H, da_forget, lanes);
      store_part<N>(d_gates + 2 * H, da_candidate, lanes);
      store_part<N>(d_gates + 3 * H, da_output, lanes);
    }
  }
}

}  // namespace GATEDCELLS_LEVEL
