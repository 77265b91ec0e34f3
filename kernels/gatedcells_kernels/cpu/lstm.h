// The LSTM over a sequence. The equations are those of gatedcells/reference/lstm.py:
//
//   i, f, o = sigmoid(x_* + h_*),  g = tanh(x_g + h_g),  c' = f c + i g,  m = o tanh(c'),  h' = m or V m
#pragma once
#include "activations.h"
#include "calls.h"
#include "multiply.h"
#include "share.h"

namespace GATEDCELLS_LEVEL {

constexpr int64_t LSTM_TAPE = 5;   // input, forget, candidate, output, cell
constexpr int64_t LSTM_GRADS = 4;  // input, forget, candidate, output

// What one step of some rows reads and writes; pointers are at the first of the rows, all units.
template <class Real>
struct LSTMStep {
  const Real* previous;    // [rows, H]: h, where there is no projection
  Real* shown;             // [rows, shown_stride]: m
  Real* cell;              // [rows, H]: c before, c' after
  Real* tape;              // [rows, 5, H] or null
  const int64_t* lengths;
  int64_t t, rows, H, shown_stride;
  bool projected;

  INLINE bool ended(int64_t row) const { return lengths && t >= lengths[row]; }
};

template <class Real>
NOINLINE void lstm_gates(const LSTMStep<Real>& step, const Real* x, int64_t x_stride, const Real* h,
                         int64_t h_stride, int64_t first, int64_t last) {
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t H = step.H;
  for (int64_t row = 0; row < step.rows; ++row) {
    const bool ended = step.ended(row);
    for (int64_t p = first; p < last; ++p) {
      const int64_t unit = p * L, lanes = H - unit;
      const Real* xs = x + row * x_stride + (p - first) * 4 * L;
      const Real* hs = h + row * h_stride + (p - first) * 4 * L;
      const V input = sigmoid<Real>(load<Real>(xs) + load<Real>(hs));
      const V forget = sigmoid<Real>(load<Real>(xs + L) + load<Real>(hs + L));
      const V candidate = hyperbolic_tangent<Real>(load<Real>(xs + 2 * L) + load<Real>(hs + 2 * L));
      const V output = sigmoid<Real>(load<Real>(xs + 3 * L) + load<Real>(hs + 3 * L));
      Real* cell = step.cell + row * H + unit;
      const V old = load_part<Real>(cell, lanes);
      const V now = ended ? old : multiply_add(forget, old, input * candidate);
      store_part<Real>(cell, now, lanes);
      V shown = output * hyperbolic_tangent<Real>(now);
      if (ended && !step.projected) shown = load_part<Real>(step.previous + row * H + unit, lanes);
      store_part<Real>(step.shown + row * step.shown_stride + unit, shown, step.projected ? L : lanes);
      if (step.tape) {
        Real* tape = step.tape + row * LSTM_TAPE * H + unit;
        store_part<Real>(tape, input, lanes);
        store_part<Real>(tape + H, forget, lanes);
        store_part<Real>(tape + 2 * H, candidate, lanes);
        store_part<Real>(tape + 3 * H, output, lanes);
        store_part<Real>(tape + 4 * H, now, lanes);
      }
    }
  }
}

// One member's rows and units, through all steps.
template <class Real>
void lstm_walk(const GatedcellsLSTM& call, const Share& share) {
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t T = call.T, B = call.B, I = call.I, H = call.H, P = call.P, S = share.rows.count();
  const int64_t panels = panel_count<Real>(H), width = 4 * L;
  const Range rows = share.rows, units = share.panels(panels), outputs = share.panels(panel_count<Real>(P));
  const int64_t mine = units.count() * width;
  const bool packed = call.packed != 0, projects = call.w_p != nullptr;
  const Weights<Real> w_x = {static_cast<const Real*>(call.w_x), I, H, packed},
                      w_h = {static_cast<const Real*>(call.w_h), P, H, packed},
                      w_p = {static_cast<const Real*>(call.w_p), H, P, packed};
  const int64_t chunk = steps_at_once(S, B, T), shown_stride = panels * L;

  Scratch<Real> scratch(2 * panels * width + (chunk + 1) * S * mine + S * outputs.count() * L);
  if (!share.agree(scratch.next != nullptr)) return;
  Real *bias_x = scratch.take(panels * width), *bias_h = scratch.take(panels * width);
  Real *x = scratch.take(chunk * S * mine), *h = scratch.take(S * mine);
  Real* projected = scratch.take(S * outputs.count() * L);
  Real* shown = projects ? static_cast<Real*>(share.team->shared) + rows.first * shown_stride : nullptr;
  spread_bias<Real>(static_cast<const Real*>(call.bias_x), H, 4, bias_x);
  spread_bias<Real>(static_cast<const Real*>(call.bias_h), H, 4, bias_h);
  start_gradient<Real>(call.cell, static_cast<Real*>(call.last_cell), rows, units, H);
  const int64_t group = panels_at_once<4>(S);
  const Clock clock = {T, call.reverse != 0};
  Real* all_states = static_cast<Real*>(call.states);

  for (int64_t start = 0; start < T; start += chunk) {
    const int64_t steps = least(chunk, T - start);
    // where the chunk lies in memory: a reversed walk goes through it backwards
    const int64_t t_first = call.reverse ? clock.time(start + steps - 1) : start;
    if (chunk > 1) {
      const Real* inputs = static_cast<const Real*>(call.input) + t_first * B * I;
      multiply<Real, 4>(steps * S, inputs, I, w_x, bias_x, x, mine, units.first, units.last);
    }
    for (int64_t i = start; i < start + steps; ++i) {
      const int64_t t = clock.time(i), at = t * B + rows.first;
      const Real* input = static_cast<const Real*>(call.input) + at * I;
      const Real* previous = i == 0 ? static_cast<const Real*>(call.hidden) : all_states + clock.time(i - 1) * B * P;
      previous += rows.first * P;
      LSTMStep<Real> step;
      step.previous = previous;
      step.shown = projects ? shown : all_states + at * H;
      step.shown_stride = projects ? shown_stride : H;
      step.cell = static_cast<Real*>(call.last_cell) + rows.first * H;
      step.tape = call.tape ? static_cast<Real*>(call.tape) + at * LSTM_TAPE * H : nullptr;
      step.lengths = call.lengths ? call.lengths + rows.first : nullptr;
      step.t = t;
      step.rows = S;
      step.H = H;
      step.projected = projects;
      to_and_fro(units, group, i % 2 != 0, [&](int64_t p, int64_t end) {
        Real* xs = x;
        if (chunk == 1) {
          multiply<Real, 4>(S, input, I, w_x, bias_x, xs, mine, p, end);
        } else {
          xs = x + (t - t_first) * S * mine + (p - units.first) * width;
        }
        multiply<Real, 4>(S, previous, P, w_h, bias_h, h, mine, p, end);
        lstm_gates<Real>(step, xs, mine, h, mine, p, end);
      });
      share.meet();
      if (projects) {
        const int64_t stride = outputs.count() * L;
        multiply<Real, 1>(S, shown, shown_stride, w_p, nullptr, projected, stride, outputs.first, outputs.last);
        for (int64_t row = 0; row < S; ++row) {
          for (int64_t p = outputs.first; p < outputs.last; ++p) {
            const int64_t lanes = P - p * L;
            const Vector<Real> now = step.ended(row)
                                         ? load_part<Real>(previous + row * P + p * L, lanes)
                                         : load<Real>(projected + row * stride + (p - outputs.first) * L);
            store_part<Real>(all_states + (at + row) * P + p * L, now, lanes);
          }
        }
        share.meet();
      }
    }
  }
}

// Backward through the gates of one step.
template <class Real>
struct LSTMBackwardStep {
  const Real* d_shown;        // [rows, shown_stride] from the projection; null without one
  const Real* d_states;       // [rows, H] or null; not read with a projection
  const Real* previous_cell;  // [rows, previous_stride]
  const Real* tape;           // [rows, 5, H]
  const int64_t* lengths;
  Real* d_gates;              // [rows, 4, H]
  Real* d_hidden;             // [rows, H]: without a projection, where a row has ended it keeps its gradient
  Real* d_cell;               // [rows, H]: dL/dc' before, dL/dc after
  int64_t t, rows, H, shown_stride, previous_stride;

  INLINE bool ended(int64_t row) const { return lengths && t >= lengths[row]; }
};

template <class Real>
NOINLINE void lstm_gates_backward(const LSTMBackwardStep<Real>& step, int64_t first, int64_t last) {
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t H = step.H;
  const V one = splat<Real>(1);
  for (int64_t row = 0; row < step.rows; ++row) {
    const bool ended = step.ended(row);
    for (int64_t p = first; p < last; ++p) {
      const int64_t unit = p * L, lanes = H - unit;
      const Real* tape = step.tape + row * LSTM_TAPE * H + unit;
      Real* d_gates = step.d_gates + row * LSTM_GRADS * H + unit;
      V d_shown;
      if (step.d_shown) {
        d_shown = load<Real>(step.d_shown + row * step.shown_stride + (p - first) * L);
      } else {
        d_shown = load_part<Real>(step.d_hidden + row * H + unit, lanes);
        if (step.d_states) d_shown += load_part<Real>(step.d_states + row * H + unit, lanes);
      }
      V da_input{}, da_forget{}, da_candidate{}, da_output{};
      if (!ended) {
        const V input = load_part<Real>(tape, lanes), forget = load_part<Real>(tape + H, lanes);
        const V candidate = load_part<Real>(tape + 2 * H, lanes), output = load_part<Real>(tape + 3 * H, lanes);
        const V tanh_cell = hyperbolic_tangent<Real>(load_part<Real>(tape + 4 * H, lanes));
        const V old = load_part<Real>(step.previous_cell + row * step.previous_stride + unit, lanes);
        Real* d_cell_at = step.d_cell + row * H + unit;
        const V d_cell = multiply_add(d_shown * output, multiply_add(-tanh_cell, tanh_cell, one), load_part<Real>(d_cell_at, lanes));
        da_output = d_shown * tanh_cell * output * (one - output);
        da_forget = d_cell * old * forget * (one - forget);
        da_input = d_cell * candidate * input * (one - input);
        da_candidate = d_cell * input * multiply_add(-candidate, candidate, one);
        store_part<Real>(d_cell_at, d_cell * forget, lanes);
      } else if (!step.d_shown) {
        store_part<Real>(step.d_hidden + row * H + unit, d_shown, lanes);
      }
      store_part<Real>(d_gates, da_input, lanes);
      store_part<Real>(d_gates + H, da_forget, lanes);
      store_part<Real>(d_gates + 2 * H, da_candidate, lanes);
      store_part<Real>(d_gates + 3 * H, da_output, lanes);
    }
  }
}

template <class Real>
void lstm_walk_backward(const GatedcellsLSTMBackward& call, const Share& share) {
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t T = call.T, B = call.B, H = call.H, P = call.P, S = share.rows.count();
  const Range rows = share.rows, units = share.panels(panel_count<Real>(H)),
              outputs = share.panels(panel_count<Real>(P));
  const bool projects = call.w_p != nullptr;
  const Weights<Real> w_h = {static_cast<const Real*>(call.w_h), 4 * H, P, true},
                      w_p = {static_cast<const Real*>(call.w_p), P, H, true};
  const int64_t unit_stride = units.count() * L, output_stride = outputs.count() * L;
  Scratch<Real> scratch(S * (unit_stride + output_stride));
  if (!share.agree(scratch.next != nullptr)) return;
  Real *d_shown = scratch.take(S * unit_stride), *product = scratch.take(S * output_stride);
  const Clock clock = {T, call.reverse != 0};
  const Real* d_states = static_cast<const Real*>(call.d_states);
  const Real* tape = static_cast<const Real*>(call.tape);
  Real* d_hidden = static_cast<Real*>(call.d_hidden);
  start_gradient<Real>(call.d_last_hidden, d_hidden, rows, outputs, P);
  start_gradient<Real>(call.d_last_cell, static_cast<Real*>(call.d_cell), rows, units, H);
  d_hidden += rows.first * P;

  for (int64_t i = T - 1; i >= 0; --i) {
    const int64_t t = clock.time(i), at = t * B + rows.first;
    LSTMBackwardStep<Real> step;
    step.d_shown = projects ? d_shown : nullptr;
    step.d_states = d_states ? d_states + at * P : nullptr;
    // the cell state before the step is a slot of the tape of the step before, or the initial one
    step.previous_cell = i == 0 ? static_cast<const Real*>(call.cell) + rows.first * H
                                : tape + ((clock.time(i - 1) * B + rows.first) * LSTM_TAPE + 4) * H;
    step.previous_stride = i == 0 ? H : LSTM_TAPE * H;
    step.tape = tape + at * LSTM_TAPE * H;
    step.lengths = call.lengths ? call.lengths + rows.first : nullptr;
    step.d_gates = static_cast<Real*>(call.d_gates) + at * LSTM_GRADS * H;
    step.d_hidden = d_hidden;
    step.d_cell = static_cast<Real*>(call.d_cell) + rows.first * H;
    step.t = t;
    step.rows = S;
    step.H = H;
    step.shown_stride = unit_stride;
    if (projects) {
      Real* d_projected = static_cast<Real*>(call.d_projected) + at * P;
      for (int64_t row = 0; row < S; ++row) {
        for (int64_t p = outputs.first; p < outputs.last; ++p) {
          const int64_t unit = p * L, lanes = P - unit;
          Real* total = d_hidden + row * P + unit;
          Vector<Real> d = load_part<Real>(total, lanes);
          if (step.d_states) d += load_part<Real>(step.d_states + row * P + unit, lanes);
          store_part<Real>(total, d, lanes);
          store_part<Real>(d_projected + row * P + unit, step.ended(row) ? Vector<Real>{} : d, lanes);
        }
      }
      share.meet();
      multiply<Real, 1>(S, d_projected, P, w_p, nullptr, d_shown, unit_stride, units.first, units.last);
    }
    lstm_gates_backward<Real>(step, units.first, units.last);
    share.meet();
    multiply<Real, 1>(S, step.d_gates, LSTM_GRADS * H, w_h, nullptr, product, output_stride, outputs.first,
                      outputs.last);
    for (int64_t row = 0; row < S; ++row) {
      if (step.ended(row)) continue;
      for (int64_t p = outputs.first; p < outputs.last; ++p)
        store_part<Real>(d_hidden + row * P + p * L,
                         load<Real>(product + row * output_stride + (p - outputs.first) * L), P - p * L);
    }
  }
}

template <class Real>
INLINE Plan lstm_plan(int threads, int64_t T, int64_t B, int64_t inputs, int64_t H) {
  return plan<Real>(threads, T, B, panel_count<Real>(H), 4 * H * inputs);
}

template <class Real>
void lstm_forward_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsLSTM& call = *static_cast<const GatedcellsLSTM*>(given);
  const Plan how = lstm_plan<Real>(call.threads, call.T, call.B, call.I + call.P, call.H);
  share_out(how, team, rank, call.B, [&](const Share& share) { lstm_walk<Real>(call, share); });
}

template <class Real>
int lstm_forward(const GatedcellsLSTM& call) {
  const Plan how = lstm_plan<Real>(call.threads, call.T, call.B, call.I + call.P, call.H);
  // what the projection reads, from all members
  const int64_t shared = call.w_p ? call.B * panel_count<Real>(call.H) * Lanes<Real>::count : 0;
  return gatedcells_run_team(lstm_forward_member<Real>, &call, how.threads,
                             shared * static_cast<int64_t>(sizeof(Real)));
}

template <class Real>
void lstm_backward_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsLSTMBackward& call = *static_cast<const GatedcellsLSTMBackward*>(given);
  const Plan how = lstm_plan<Real>(call.threads, call.T, call.B, call.P, call.H);
  share_out(how, team, rank, call.B, [&](const Share& share) { lstm_walk_backward<Real>(call, share); });
}

template <class Real>
int lstm_backward(const GatedcellsLSTMBackward& call) {
  const Plan how = lstm_plan<Real>(call.threads, call.T, call.B, call.P, call.H);
  return gatedcells_run_team(lstm_backward_member<Real>, &call, how.threads, 0);
}

}  // namespace GATEDCELLS_LEVEL
