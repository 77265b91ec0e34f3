// The GRU over a sequence. The equations are those of gatedcells/reference/gru.py:
//
//   r = sigmoid(x_r + h_r),  z = sigmoid(x_z + h_z),  n = tanh(x_n + r h_n),  h' = n + z (h - n)
//
// with x_* = W_* x + b_i* and h_* = U_* h + b_h*; reset before: h_n = U_n (r h) + b_hn and n = tanh(x_n + h_n).
#pragma once
#include "calls.h"
#include "gru_gates.h"
#include "multiply.h"
#include "share.h"

namespace GATEDCELLS_LEVEL {

// One member's rows and units, through all steps.
template <class Real>
void gru_walk(const GatedcellsGRU& call, const Share& share) {
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t T = call.T, B = call.B, I = call.I, H = call.H, S = share.rows.count();
  const int64_t panels = panel_count<Real>(H), width = 3 * L;
  const Range rows = share.rows, units = share.panels(panels);
  const int64_t mine = units.count() * width;
  const bool packed = call.packed != 0;
  const Weights<Real> w_x = {static_cast<const Real*>(call.w_x), I, H, packed},
                      w_h = {static_cast<const Real*>(call.w_h), H, H, packed},
                      w_n = {static_cast<const Real*>(call.w_n), H, H, packed};
  const bool before = !call.reset_after;
  const int64_t chunk = steps_at_once(S, B, T);

  Scratch<Real> scratch(2 * panels * width + (chunk + 1) * S * mine);
  if (!share.agree(scratch.next != nullptr)) return;
  Real *bias_x = scratch.take(panels * width), *bias_h = scratch.take(panels * width);
  Real *x = scratch.take(chunk * S * mine), *h = scratch.take(S * mine);
  const int64_t reset_stride = panels * L;
  Real* reset_hidden = before ? static_cast<Real*>(share.team->shared) + rows.first * reset_stride : nullptr;
  Real* bias_n = bias_h + 2 * panels * L;
  const Real* given_bias_h = static_cast<const Real*>(call.bias_h);
  spread_bias<Real>(static_cast<const Real*>(call.bias_x), H, 3, bias_x);
  if (before) {
    spread_bias<Real>(given_bias_h, H, 2, bias_h);
    spread_bias<Real>(given_bias_h ? given_bias_h + 2 * H : nullptr, H, 1, bias_n);
  } else {
    spread_bias<Real>(given_bias_h, H, 3, bias_h);
  }
  const int64_t group = before ? units.count() : panels_at_once<3>(S);

  const Clock clock = {T, call.reverse != 0};
  Real* all_states = static_cast<Real*>(call.states);

  for (int64_t start = 0; start < T; start += chunk) {
    const int64_t steps = least(chunk, T - start);
    // where the chunk lies in memory: a reversed walk goes through it backwards
    const int64_t t_first = call.reverse ? clock.time(start + steps - 1) : start;
    if (chunk > 1) {
      const Real* inputs = static_cast<const Real*>(call.input) + t_first * B * I;
      multiply<Real, 3>(steps * S, inputs, I, w_x, bias_x, x, mine, units.first, units.last);
    }
    for (int64_t i = start; i < start + steps; ++i) {
      const int64_t t = clock.time(i);
      const Real* input = static_cast<const Real*>(call.input) + (t * B + rows.first) * I;
      const Real* previous =
          i == 0 ? static_cast<const Real*>(call.hidden) : all_states + clock.time(i - 1) * B * H;
      GRUStep<Real> step;
      step.previous = previous + rows.first * H;
      step.states = all_states + (t * B + rows.first) * H;
      step.tape = call.tape ? static_cast<Real*>(call.tape) + (t * B + rows.first) * GRU_TAPE * H : nullptr;
      step.lengths = call.lengths ? call.lengths + rows.first : nullptr;
      step.t = t;
      step.rows = S;
      step.H = H;
      to_and_fro(units, group, i % 2 != 0, [&](int64_t p, int64_t end) {
        Real* xs = x;
        if (chunk == 1) {
          multiply<Real, 3>(S, input, I, w_x, bias_x, xs, mine, p, end);
        } else {
          xs = x + (t - t_first) * S * mine + (p - units.first) * width;
        }
        if (before) {
          multiply<Real, 2>(S, step.previous, H, w_h, bias_h, h, mine, p, end);
          gru_reset_gates<Real>(step, xs, mine, h, mine, reset_hidden, reset_stride, p, end);
          share.meet();
          multiply<Real, 1>(S, reset_hidden, reset_stride, w_n, bias_n, h, mine, p, end);
          gru_candidate<Real>(step, xs, mine, h, mine, p, end);
        } else {
          multiply<Real, 3>(S, step.previous, H, w_h, bias_h, h, mine, p, end);
          gru_gates<Real>(step, xs, mine, h, mine, p, end);
        }
      });
      share.meet();
    }
  }
}

template <class Real>
void gru_walk_backward(const GatedcellsGRUBackward& call, const Share& share) {
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t T = call.T, B = call.B, H = call.H, S = share.rows.count();
  const Range rows = share.rows, units = share.panels(panel_count<Real>(H));
  const int64_t mine = units.count() * L;
  const bool before = !call.reset_after;
  const Weights<Real> w_h = {static_cast<const Real*>(call.w_h), before ? 2 * H : 3 * H, H, true},
                      w_n = {static_cast<const Real*>(call.w_n), H, H, true};
  Scratch<Real> scratch(S * mine);
  if (!share.agree(scratch.next != nullptr)) return;
  Real* product = scratch.take(S * mine);
  const Clock clock = {T, call.reverse != 0};
  const Real *d_states = static_cast<const Real*>(call.d_states),
             *states = static_cast<const Real*>(call.states);
  Real* d_hidden = static_cast<Real*>(call.d_hidden) + rows.first * H;
  start_gradient<Real>(call.d_last, static_cast<Real*>(call.d_hidden), rows, units, H);

  for (int64_t i = T - 1; i >= 0; --i) {
    const int64_t t = clock.time(i), at = t * B + rows.first;
    const Real* previous = i == 0 ? static_cast<const Real*>(call.hidden) : states + clock.time(i - 1) * B * H;
    GRUBackwardStep<Real> step;
    step.d_states = d_states ? d_states + at * H : nullptr;
    step.previous = previous + rows.first * H;
    step.tape = static_cast<const Real*>(call.tape) + at * GRU_TAPE * H;
    step.lengths = call.lengths ? call.lengths + rows.first : nullptr;
    step.d_gates = static_cast<Real*>(call.d_gates) + at * GRU_GRADS * H;
    step.carry = d_hidden;
    step.t = t;
    step.rows = S;
    step.H = H;
    step.before = before;
    gru_gates_backward<Real>(step, units.first, units.last);
    share.meet();
    const int64_t stride = GRU_GRADS * H;
    if (before) {
      multiply<Real, 1>(S, step.d_gates + 3 * H, stride, w_n, nullptr, product, mine, units.first, units.last);
      gru_reset_backward<Real>(step, product, mine, units.first, units.last);
      share.meet();
      multiply<Real, 1>(S, step.d_gates + H, stride, w_h, nullptr, product, mine, units.first, units.last);
    } else {
      multiply<Real, 1>(S, step.d_gates + H, stride, w_h, nullptr, product, mine, units.first, units.last);
    }
    for (int64_t row = 0; row < S; ++row) {
      for (int64_t p = units.first; p < units.last; ++p) {
        Real* at = d_hidden + row * H + p * L;
        const int64_t lanes = H - p * L;
        const Real* through = product + row * mine + (p - units.first) * L;
        store_part<Real>(at, load_part<Real>(at, lanes) + load<Real>(through), lanes);
      }
    }
  }
}

template <class Real>
INLINE Plan gru_plan(int threads, int64_t T, int64_t B, int64_t inputs, int64_t H) {
  return plan<Real>(threads, T, B, panel_count<Real>(H), 3 * H * inputs);
}

template <class Real>
void gru_forward_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsGRU& call = *static_cast<const GatedcellsGRU*>(given);
  const Plan how = gru_plan<Real>(call.threads, call.T, call.B, call.I + call.H, call.H);
  share_out(how, team, rank, call.B, [&](const Share& share) { gru_walk<Real>(call, share); });
}

template <class Real>
int gru_forward(const GatedcellsGRU& call) {
  const Plan how = gru_plan<Real>(call.threads, call.T, call.B, call.I + call.H, call.H);
  // the product of reset gate and state, which all members read
  const int64_t shared = call.reset_after ? 0 : call.B * panel_count<Real>(call.H) * Lanes<Real>::count;
  return gatedcells_run_team(gru_forward_member<Real>, &call, how.threads,
                             shared * static_cast<int64_t>(sizeof(Real)));
}

template <class Real>
void gru_backward_member(const void* given, GatedcellsTeam* team, int rank) {
  const GatedcellsGRUBackward& call = *static_cast<const GatedcellsGRUBackward*>(given);
  const Plan how = gru_plan<Real>(call.threads, call.T, call.B, call.H, call.H);
  share_out(how, team, rank, call.B, [&](const Share& share) { gru_walk_backward<Real>(call, share); });
}

template <class Real>
int gru_backward(const GatedcellsGRUBackward& call) {
  const Plan how = gru_plan<Real>(call.threads, call.T, call.B, call.H, call.H);
  return gatedcells_run_team(gru_backward_member<Real>, &call, how.threads, 0);
}

}  // namespace GATEDCELLS_LEVEL
