// The LSTM over a sequence. The equations are those of gatedcells/reference/lstm.py:
//
//   i, f, o = sigmoid(x_* + h_*),  g = tanh(x_g + h_g),  c' = f c + i g,  m = o tanh(c'),  h' = m or V m
#pragma once
#include "calls.h"
#include "lstm_gates.h"
#include "pack.h"
#include "share.h"

namespace GATEDCELLS_LEVEL {

// One member's rows and units, through all steps. Packed weights are of type W.
template <class N, class W>
void lstm_walk(const GatedcellsLSTM& call, const Share& share) {
  typedef RealOf<N> Real;
  constexpr int64_t L = Lanes<Real>::count;
  constexpr bool coarse = sizeof(N) < sizeof(Real);
  const int64_t T = call.T, B = call.B, I = call.I, H = call.H, P = call.P, S = share.rows.count();
  const int64_t panels = panel_count<Real>(H), width = 4 * L;
  const Range rows = share.rows, units = share.panels(panels), outputs = share.panels(panel_count<Real>(P));
  const int64_t mine = units.count() * width;
  const bool packed = call.form != 0, projects = call.w_p != nullptr;
  const int ahead = fetches(packed, S, mine * (I + P) * static_cast<int64_t>(sizeof(W)));
  const Weights<W> w_x = {static_cast<const W*>(call.w_x), I, H, packed, ahead},
                   w_p = {static_cast<const W*>(call.w_p), H, P, packed};
  Weights<W> w_h = {static_cast<const W*>(call.w_h), P, H, packed, ahead};
  const int64_t chunk = steps_at_once(S, B, T), shown_stride = panels * L;
  const int64_t group = panels_at_once<4>(S), h_stride = least(group, units.count()) * width;
  // of a single step the inputs' sums are finished with a group's, of several they are all made before
  const int64_t x_stride = chunk == 1 ? h_stride : mine;

  const int64_t kept_size = call.resets ? S * P : 0, carried_size = coarse ? S * H : 0;
  const int64_t room_x_size = room_for<N>(w_x, chunk * S, I), room_h_size = room_for<N>(w_h, S, P);
  const int64_t room_p_size = projects ? room_for<N>(w_p, S, H) : 0;
  Scratch<Real> scratch(2 * panels * width + chunk * S * x_stride + S * h_stride + S * outputs.count() * L +
                        kept_size + carried_size + room_x_size + room_h_size + room_p_size);
  if (!share.agree(scratch.next != nullptr)) return;
  Real *bias_x = scratch.take(panels * width), *bias_h = scratch.take(panels * width);
  Real *x = scratch.take(chunk * S * x_stride), *h = scratch.take(S * h_stride);
  Real* projected = scratch.take(S * outputs.count() * L);
  N* kept = scratch.template take_as<N>(kept_size);
  W *room_x = scratch.template take_as<W>(room_x_size), *room_h = scratch.template take_as<W>(room_h_size),
    *room_p = scratch.template take_as<W>(room_p_size);
  N* shown = projects ? static_cast<N*>(share.team->shared) + rows.first * shown_stride : nullptr;
  spread_bias<N>(static_cast<const N*>(call.bias_x), H, 4, bias_x);
  spread_bias<N>(static_cast<const N*>(call.bias_h), H, 4, bias_h);
  // the cell state is carried on in full precision, which of coarse numbers the output is not
  N* last_cell = static_cast<N*>(call.last_cell) + rows.first * H;
  Real* cell;
  if constexpr (coarse)
    cell = scratch.take(carried_size);
  else
    cell = last_cell;
  carry_over<N, Real>(static_cast<const N*>(call.cell) + rows.first * H, cell, S, units, H);
  const Clock clock = {T, call.reverse != 0};
  const int64_t turn = turned(T);
  const N* initial = static_cast<const N*>(call.hidden);
  N* all_states = static_cast<N*>(call.states);

  for (int64_t start = 0; start < T; start += chunk) {
    const int64_t steps = least(chunk, T - start);
    // where the chunk lies in memory: a reversed walk goes through it backwards
    const int64_t t_first = call.reverse ? clock.time(start + steps - 1) : start;
    if (chunk > 1) {
      const N* inputs = static_cast<const N*>(call.input) + t_first * B * I;
      const Left<W> left = left_of<W>(inputs, steps * S, I, I, room_x);
      multiply<W, 4>(steps * S, left.rows, left.stride, w_x, bias_x, x, mine, units.first, units.last);
    }
    for (int64_t i = start; i < start + steps; ++i) {
      const int64_t t = clock.time(i), at = t * B + rows.first;
      const N* inputs = static_cast<const N*>(call.input) + at * I;
      const Left<W> input = left_of<W>(inputs, chunk == 1 ? S : 0, I, I, room_x);
      LSTMStep<N> step;
      step.rows = rows_at(call.lengths, call.resets, t, B, rows);
      const N* last = (i == 0 ? initial : all_states + clock.time(i - 1) * B * P) + rows.first * P;
      const N* previous = remembered<N>(step.rows, last, kept, P);
      forget<Real>(step.rows, cell, units, H);
      step.previous = previous;
      step.shown = projects ? shown : all_states + at * H;
      step.shown_stride = projects ? shown_stride : H;
      step.cell = cell;
      step.tape = call.tape ? static_cast<N*>(call.tape) + at * LSTM_TAPE * H : nullptr;
      step.cells = call.cells ? static_cast<N*>(call.cells) + at * H : nullptr;
      step.H = H;
      step.projected = projects;
      const Left<W> state = left_of<W>(previous, S, P, P, room_h);
      const bool backwards = (i + turn) % 2 != 0;
      w_h.ahead = backwards ? -ahead : ahead;
      to_and_fro(units, group, backwards, [&](int64_t p, int64_t end) {
        Real* xs = x;
        if (!packed) {
          multiply_plain<W, 4>(S, {{input.rows, I, &w_x}, {state.rows, P, &w_h}}, bias_h, h, h_stride, p, end);
          lstm_gates<N>(step, bias_x + p * width, 0, h, h_stride, p, end);  // all of x is in h but the bias
          return;
        }
        if (chunk == 1) {
          multiply<W, 4>(S, input.rows, input.stride, w_x, bias_x, xs, x_stride, p, end);
        } else {
          xs = x + (t - t_first) * S * mine + (p - units.first) * width;
        }
        multiply<W, 4>(S, state.rows, state.stride, w_h, bias_h, h, h_stride, p, end);
        lstm_gates<N>(step, xs, x_stride, h, h_stride, p, end);
      });
      share.meet();
      if (projects) {
        const int64_t stride = outputs.count() * L;
        const Left<W> left = left_of<W>(shown, S, H, shown_stride, room_p);
        multiply<W, 1>(S, left.rows, left.stride, w_p, nullptr, projected, stride, outputs.first,
                       outputs.last);
        for (int64_t row = 0; row < S; ++row) {
          for (int64_t p = outputs.first; p < outputs.last; ++p) {
            const int64_t lanes = P - p * L;
            const Vector<Real> now = step.rows.ended(row)
                                         ? load_part<N>(previous + row * P + p * L, lanes)
                                         : load<Real>(projected + row * stride + (p - outputs.first) * L);
            store_part<N>(all_states + (at + row) * P + p * L, now, lanes);
          }
        }
        share.meet();
      }
    }
  }
  if constexpr (coarse) carry_over<Real, N>(cell, last_cell, S, units, H);
  hand_over<N>(share, all_states + clock.time(T - 1) * B * P, static_cast<N*>(call.last), P);
}

template <class N, class W>
void lstm_walk_backward(const GatedcellsLSTMBackward& call, const Share& share) {
  typedef RealOf<N> Real;
  constexpr int64_t L = Lanes<Real>::count;
  constexpr bool coarse = sizeof(N) < sizeof(Real);
  const int64_t T = call.T, B = call.B, H = call.H, P = call.P, S = share.rows.count();
  const Range rows = share.rows, units = share.panels(panel_count<Real>(H)),
              outputs = share.panels(panel_count<Real>(P));
  const bool projects = call.w_p != nullptr;
  const Weights<W> w_h = {static_cast<const W*>(call.w_h), 4 * H, P, call.form != 0},
                   w_p = {static_cast<const W*>(call.w_p), P, H, call.form != 0};
  const int64_t unit_stride = units.count() * L, output_stride = outputs.count() * L;
  const int64_t room_size = room_for<N>(w_h, S, most(w_h.K, w_p.K));
  Scratch<Real> scratch(S * (unit_stride + output_stride) + (coarse ? S * (H + P) : 0) + room_size);
  if (!share.agree(scratch.next != nullptr)) return;
  Real *d_shown = scratch.take(S * unit_stride), *product = scratch.take(S * output_stride);
  W* room = scratch.template take_as<W>(room_size);
  const Clock clock = {T, call.reverse != 0};
  const N *d_states = static_cast<const N*>(call.d_states), *tape = static_cast<const N*>(call.tape),
          *d_last_hidden = static_cast<const N*>(call.d_last_hidden),
          *d_last_cell = static_cast<const N*>(call.d_last_cell);
  N *d_initial = static_cast<N*>(call.d_hidden) + rows.first * P,
    *d_initial_cell = static_cast<N*>(call.d_cell) + rows.first * H;
  Real *d_hidden, *d_cell;
  if constexpr (coarse) {
    d_hidden = scratch.take(S * P);
    d_cell = scratch.take(S * H);
  } else {
    d_hidden = d_initial;
    d_cell = d_initial_cell;
  }
  carry_over<N, Real>(d_last_hidden ? d_last_hidden + rows.first * P : nullptr, d_hidden, S, outputs, P);
  carry_over<N, Real>(d_last_cell ? d_last_cell + rows.first * H : nullptr, d_cell, S, units, H);

  for (int64_t i = T - 1; i >= 0; --i) {
    const int64_t t = clock.time(i), at = t * B + rows.first;
    LSTMBackwardStep<N> step;
    step.rows = rows_at(call.lengths, call.resets, t, B, rows);
    step.d_shown = projects ? d_shown : nullptr;
    step.d_states = d_states ? d_states + at * P : nullptr;
    // the cell state before the step is a slot of the tape of the step before, or the initial one
    step.previous_cell = i == 0 ? static_cast<const N*>(call.cell) + rows.first * H
                                : tape + ((clock.time(i - 1) * B + rows.first) * LSTM_TAPE + 4) * H;
    step.previous_stride = i == 0 ? H : LSTM_TAPE * H;
    step.tape = tape + at * LSTM_TAPE * H;
    step.d_gates = static_cast<N*>(call.d_gates) + at * LSTM_GRADS * H;
    step.d_hidden = d_hidden;
    step.d_cell = d_cell;
    step.H = H;
    step.shown_stride = unit_stride;
    if (projects) {
      N* d_projected = static_cast<N*>(call.d_projected) + at * P;
      for (int64_t row = 0; row < S; ++row) {
        for (int64_t p = outputs.first; p < outputs.last; ++p) {
          const int64_t unit = p * L, lanes = P - unit;
          Real* total = d_hidden + row * P + unit;
          Vector<Real> d = load_part<Real>(total, lanes);
          if (step.d_states) d += load_part<N>(step.d_states + row * P + unit, lanes);
          store_part<Real>(total, d, lanes);
          store_part<N>(d_projected + row * P + unit, step.rows.ended(row) ? Vector<Real>{} : d, lanes);
        }
      }
      share.meet();
      const Left<W> left = left_of<W>(d_projected, S, P, P, room);
      multiply_back<W>(S, left.rows, left.stride, w_p, d_shown, unit_stride, units.first, units.last);
    }
    lstm_gates_backward<N>(step, units.first, units.last);
    share.meet();
    if (i == 0 && !call.initial) break;
    const Left<W> left = left_of<W>(step.d_gates, S, 4 * H, LSTM_GRADS * H, room);
    multiply_back<W>(S, left.rows, left.stride, w_h, product, output_stride, outputs.first, outputs.last);
    for (int64_t row = 0; row < S; ++row) {
      if (step.rows.ended(row)) continue;
      for (int64_t p = outputs.first; p < outputs.last; ++p)
        store_part<Real>(d_hidden + row * P + p * L,
                         load<Real>(product + row * output_stride + (p - outputs.first) * L), P - p * L);
    }
    forget<Real>(step.rows, d_hidden, outputs, P);
    forget<Real>(step.rows, d_cell, units, H);
  }
  if constexpr (coarse) {
    carry_over<Real, N>(d_hidden, d_initial, S, outputs, P);
    carry_over<Real, N>(d_cell, d_initial_cell, S, units, H);
  }
}

template <class N>
INLINE Plan lstm_plan(int threads, int64_t T, int64_t B, int64_t inputs, int64_t H) {
  return plan<N>(threads, T, B, panel_count<RealOf<N>>(H), 4 * H * inputs);
}

template <class N, class W>
void lstm_forward_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsLSTM& call = *static_cast<const GatedcellsLSTM*>(given);
  const Plan how = lstm_plan<W>(call.threads, call.T, call.B, call.I + call.P, call.H);
  share_out(how, team, rank, call.B, [&](const Share& share) { lstm_walk<N, W>(call, share); });
}

template <class N, class W>
int lstm_forward(const GatedcellsLSTM& call) {
  const Plan how = lstm_plan<W>(call.threads, call.T, call.B, call.I + call.P, call.H);
  // what the projection reads, from all members
  const int64_t units = panel_count<RealOf<N>>(call.H) * Lanes<RealOf<N>>::count;
  const int64_t shared = call.w_p ? call.B * units * static_cast<int64_t>(sizeof(N)) : 0;
  return gatedcells_run_team(lstm_forward_member<N, W>, &call, how.threads, shared);
}

template <class N, class W>
void lstm_backward_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsLSTMBackward& call = *static_cast<const GatedcellsLSTMBackward*>(given);
  const Plan how = lstm_plan<W>(call.threads, call.T, call.B, call.P, call.H);
  share_out(how, team, rank, call.B, [&](const Share& share) { lstm_walk_backward<N, W>(call, share); });
}

template <class N, class W>
int lstm_backward(const GatedcellsLSTMBackward& call) {
  const Plan how = lstm_plan<W>(call.threads, call.T, call.B, call.P, call.H);
  return gatedcells_run_team(lstm_backward_member<N, W>, &call, how.threads, 0);
}

}  // namespace GATEDCELLS_LEVEL
