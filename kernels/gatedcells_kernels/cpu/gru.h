// The GRU over a sequence. The equations are those of gatedcells/reference/gru.py:
//
//   r = sigmoid(x_r + h_r),  z = sigmoid(x_z + h_z),  n = tanh(x_n + r h_n),  h' = n + z (h - n)
//
// with x_* = W_* x + b_i* and h_* = U_* h + b_h*; reset before: h_n = U_n (r h) + b_hn and n = tanh(x_n + h_n).
#pragma once
#include "calls.h"
#include "gru_gates.h"
#include "pack.h"
#include "share.h"

namespace GATEDCELLS_LEVEL {

// One member's rows and units, through all steps. Packed weights are of type W.
template <class N, class W>
void gru_walk(const GatedcellsGRU& call, const Share& share) {
  typedef RealOf<N> Real;
  constexpr int64_t L = Lanes<Real>::count;
  constexpr bool coarse = sizeof(N) < sizeof(Real);
  const int64_t T = call.T, B = call.B, I = call.I, H = call.H, S = share.rows.count();
  const int64_t panels = panel_count<Real>(H), width = 3 * L;
  const Range rows = share.rows, units = share.panels(panels);
  const int64_t mine = units.count() * width;
  const bool packed = call.form != 0;
  const int ahead = fetches(packed, S, mine * (I + H) * static_cast<int64_t>(sizeof(W)));
  const Weights<W> w_x = {static_cast<const W*>(call.w_x), I, H, packed, ahead},
                   w_n = {static_cast<const W*>(call.w_n), H, H, packed};
  Weights<W> w_h = {static_cast<const W*>(call.w_h), H, H, packed, ahead};
  const bool before = !call.reset_after;
  const int64_t chunk = steps_at_once(S, B, T);
  const int64_t group = before ? units.count() : panels_at_once<3>(S);
  const int64_t h_stride = least(group, units.count()) * width;
  // of a single step the inputs' sums are finished with a group's, of several they are all made before
  const int64_t x_stride = chunk == 1 ? h_stride : mine;

  const int64_t kept_size = call.resets ? S * H : 0, carried_size = coarse ? S * H : 0;
  const int64_t room_x_size = room_for<N>(w_x, chunk * S, I), room_h_size = room_for<N>(w_h, S, H);
  Scratch<Real> scratch(2 * panels * width + chunk * S * x_stride + S * h_stride + kept_size + carried_size +
                        room_x_size + room_h_size);
  if (!share.agree(scratch.next != nullptr)) return;
  Real *bias_x = scratch.take(panels * width), *bias_h = scratch.take(panels * width);
  Real *x = scratch.take(chunk * S * x_stride), *h = scratch.take(S * h_stride);
  N* kept = scratch.template take_as<N>(kept_size);
  W *room_x = scratch.template take_as<W>(room_x_size), *room_h = scratch.template take_as<W>(room_h_size);
  Real* carried = coarse ? scratch.take(carried_size) : nullptr;
  const int64_t reset_stride = panels * L;
  N* reset_hidden = before ? static_cast<N*>(share.team->shared) + rows.first * reset_stride : nullptr;
  Real* bias_n = bias_h + 2 * panels * L;
  const N* given_bias_h = static_cast<const N*>(call.bias_h);
  spread_bias<N>(static_cast<const N*>(call.bias_x), H, 3, bias_x);
  if (before) {
    spread_bias<N>(given_bias_h, H, 2, bias_h);
    spread_bias<N>(given_bias_h ? given_bias_h + 2 * H : nullptr, H, 1, bias_n);
  } else {
    spread_bias<N>(given_bias_h, H, 3, bias_h);
  }

  const Clock clock = {T, call.reverse != 0};
  const int64_t turn = turned(T);
  const N* initial = static_cast<const N*>(call.hidden);
  N* all_states = static_cast<N*>(call.states);
  if (coarse) carry_over<N, Real>(initial + rows.first * H, carried, S, units, H);

  for (int64_t start = 0; start < T; start += chunk) {
    const int64_t steps = least(chunk, T - start);
    // where the chunk lies in memory: a reversed walk goes through it backwards
    const int64_t t_first = call.reverse ? clock.time(start + steps - 1) : start;
    if (chunk > 1) {
      const N* inputs = static_cast<const N*>(call.input) + t_first * B * I;
      const Left<W> left = left_of<W>(inputs, steps * S, I, I, room_x);
      multiply<W, 3>(steps * S, left.rows, left.stride, w_x, bias_x, x, mine, units.first, units.last);
    }
    for (int64_t i = start; i < start + steps; ++i) {
      const int64_t t = clock.time(i);
      const N* inputs = static_cast<const N*>(call.input) + (t * B + rows.first) * I;
      const Left<W> input = left_of<W>(inputs, chunk == 1 ? S : 0, I, I, room_x);
      GRUStep<N> step;
      step.rows = rows_at(call.lengths, call.resets, t, B, rows);
      const N* last = (i == 0 ? initial : all_states + clock.time(i - 1) * B * H) + rows.first * H;
      const N* previous = remembered<N>(step.rows, last, kept, H);
      if constexpr (coarse) {
        forget<Real>(step.rows, carried, units, H);
        step.old = carried;
      } else {
        step.old = previous;
      }
      step.carried = carried;
      step.states = all_states + (t * B + rows.first) * H;
      step.tape = call.tape ? static_cast<N*>(call.tape) + (t * B + rows.first) * GRU_TAPE * H : nullptr;
      step.H = H;
      const Left<W> state = left_of<W>(previous, S, H, H, room_h);
      const bool backwards = (i + turn) % 2 != 0;
      w_h.ahead = backwards ? -ahead : ahead;
      to_and_fro(units, group, backwards, [&](int64_t p, int64_t end) {
        Real* xs = x;
        if (chunk == 1) {
          multiply<W, 3>(S, input.rows, input.stride, w_x, bias_x, xs, x_stride, p, end);
        } else {
          xs = x + (t - t_first) * S * mine + (p - units.first) * width;
        }
        if (before) {
          multiply<W, 2>(S, state.rows, state.stride, w_h, bias_h, h, h_stride, p, end);
          gru_reset_gates<N>(step, xs, x_stride, h, h_stride, reset_hidden, reset_stride, p, end);
          share.meet();
          const Left<W> left = left_of<W>(reset_hidden, S, H, reset_stride, room_h);
          multiply<W, 1>(S, left.rows, left.stride, w_n, bias_n, h, h_stride, p, end);
          gru_candidate<N>(step, xs, x_stride, h, h_stride, p, end);
        } else {
          multiply<W, 3>(S, state.rows, state.stride, w_h, bias_h, h, h_stride, p, end);
          gru_gates<N>(step, xs, x_stride, h, h_stride, p, end);
        }
      });
      share.meet();
    }
  }
  hand_over<N>(share, all_states + clock.time(T - 1) * B * H, static_cast<N*>(call.last), H);
}

template <class N, class W>
void gru_walk_backward(const GatedcellsGRUBackward& call, const Share& share) {
  typedef RealOf<N> Real;
  constexpr int64_t L = Lanes<Real>::count;
  constexpr bool coarse = sizeof(N) < sizeof(Real);
  const int64_t T = call.T, B = call.B, H = call.H, S = share.rows.count();
  const Range rows = share.rows, units = share.panels(panel_count<Real>(H));
  const int64_t mine = units.count() * L;
  const bool before = !call.reset_after;
  const Weights<W> w_h = {static_cast<const W*>(call.w_h), before ? 2 * H : 3 * H, H, call.form != 0},
                   w_n = {static_cast<const W*>(call.w_n), H, H, call.form != 0};
  const int64_t room_size = room_for<N>(w_h, S, w_h.K);
  Scratch<Real> scratch(S * mine + (coarse ? S * H : 0) + room_size);
  if (!share.agree(scratch.next != nullptr)) return;
  Real* product = scratch.take(S * mine);
  W* room = scratch.template take_as<W>(room_size);
  const Clock clock = {T, call.reverse != 0};
  const N *d_states = static_cast<const N*>(call.d_states), *states = static_cast<const N*>(call.states),
          *d_last = static_cast<const N*>(call.d_last), *initial = static_cast<const N*>(call.hidden);
  N* d_initial = static_cast<N*>(call.d_hidden) + rows.first * H;
  Real* d_hidden;
  if constexpr (coarse)
    d_hidden = scratch.take(S * H);
  else
    d_hidden = d_initial;
  carry_over<N, Real>(d_last ? d_last + rows.first * H : nullptr, d_hidden, S, units, H);

  for (int64_t i = T - 1; i >= 0; --i) {
    const int64_t t = clock.time(i), at = t * B + rows.first;
    GRUBackwardStep<N> step;
    step.rows = rows_at(call.lengths, call.resets, t, B, rows);
    step.d_states = d_states ? d_states + at * H : nullptr;
    step.previous = (i == 0 ? initial : states + clock.time(i - 1) * B * H) + rows.first * H;
    step.tape = static_cast<const N*>(call.tape) + at * GRU_TAPE * H;
    step.d_gates = static_cast<N*>(call.d_gates) + at * GRU_GRADS * H;
    step.carry = d_hidden;
    step.H = H;
    step.before = before;
    gru_gates_backward<N>(step, units.first, units.last);
    share.meet();
    const int64_t stride = GRU_GRADS * H;
    if (before) {
      const Left<W> left = left_of<W>(step.d_gates + 3 * H, S, H, stride, room);
      multiply_back<W>(S, left.rows, left.stride, w_n, product, mine, units.first, units.last);
      gru_reset_backward<N>(step, product, mine, units.first, units.last);
      share.meet();
    }
    if (i == 0 && !call.initial) break;
    const Left<W> left = left_of<W>(step.d_gates + H, S, w_h.K, stride, room);
    multiply_back<W>(S, left.rows, left.stride, w_h, product, mine, units.first, units.last);
    for (int64_t row = 0; row < S; ++row) {
      for (int64_t p = units.first; p < units.last; ++p) {
        Real* to = d_hidden + row * H + p * L;
        const int64_t lanes = H - p * L;
        const Real* through = product + row * mine + (p - units.first) * L;
        store_part<Real>(to, load_part<Real>(to, lanes) + load<Real>(through), lanes);
      }
    }
    forget<Real>(step.rows, d_hidden, units, H);
  }
  if constexpr (coarse) carry_over<Real, N>(d_hidden, d_initial, S, units, H);
}

template <class N>
INLINE Plan gru_plan(int threads, int64_t T, int64_t B, int64_t inputs, int64_t H) {
  return plan<N>(threads, T, B, panel_count<RealOf<N>>(H), 3 * H * inputs);
}

template <class N, class W>
void gru_forward_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsGRU& call = *static_cast<const GatedcellsGRU*>(given);
  const Plan how = gru_plan<W>(call.threads, call.T, call.B, call.I + call.H, call.H);
  share_out(how, team, rank, call.B, [&](const Share& share) { gru_walk<N, W>(call, share); });
}

template <class N, class W>
int gru_forward(const GatedcellsGRU& call) {
  const Plan how = gru_plan<W>(call.threads, call.T, call.B, call.I + call.H, call.H);
  // the product of reset gate and state, which all members read
  const int64_t units = panel_count<RealOf<N>>(call.H) * Lanes<RealOf<N>>::count;
  const int64_t shared = call.reset_after ? 0 : call.B * units * static_cast<int64_t>(sizeof(N));
  return gatedcells_run_team(gru_forward_member<N, W>, &call, how.threads, shared);
}

template <class N, class W>
void gru_backward_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsGRUBackward& call = *static_cast<const GatedcellsGRUBackward*>(given);
  const Plan how = gru_plan<W>(call.threads, call.T, call.B, call.H, call.H);
  share_out(how, team, rank, call.B, [&](const Share& share) { gru_walk_backward<N, W>(call, share); });
}

template <class N, class W>
int gru_backward(const GatedcellsGRUBackward& call) {
  const Plan how = gru_plan<W>(call.threads, call.T, call.B, call.H, call.H);
  return gatedcells_run_team(gru_backward_member<N, W>, &call, how.threads, 0);
}

}  // namespace GATEDCELLS_LEVEL
