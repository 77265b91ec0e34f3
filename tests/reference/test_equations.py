"""The reference is the equations: against a plain numpy transcription, torch's cells and autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gatedcells.reference import gru, lstm
from gatedcells.reference.time import previous_states
from gatedcells.testing import assert_close_in_float64

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def numpy_gru(x, h, W, U, b, c, reset_after):
    """The GRU of the docstring, one gate at a time, in numpy."""
    H = h.shape[-1]
    (W_r, W_z, W_n), (U_r, U_z, U_n) = (np.split(m, [H, 2 * H]) for m in (W, U))
    (b_r, b_z, b_n), (c_r, c_z, c_n) = (np.split(m, [H, 2 * H]) for m in (b, c))
    r = sigmoid(x @ W_r.T + b_r + h @ U_r.T + c_r)
    z = sigmoid(x @ W_z.T + b_z + h @ U_z.T + c_z)
    recurrent = r * (h @ U_n.T + c_n) if reset_after else (r * h) @ U_n.T + c_n
    n = np.tanh(x @ W_n.T + b_n + recurrent)
    return {"reset": r, "update": z, "candidate": n, "hidden": (1 - z) * n + z * h}


def numpy_lstm(x, h, c, W, U, b, d, V):
    """The LSTM of the docstring, one gate at a time, in numpy."""
    H = c.shape[-1]
    (W_i, W_f, W_g, W_o), (U_i, U_f, U_g, U_o) = (np.split(m, 4) for m in (W, U))
    (b_i, b_f, b_g, b_o), (d_i, d_f, d_g, d_o) = (np.split(m, 4) for m in (b, d))
    assert W_i.shape[0] == H
    i = sigmoid(x @ W_i.T + b_i + h @ U_i.T + d_i)
    f = sigmoid(x @ W_f.T + b_f + h @ U_f.T + d_f)
    g = np.tanh(x @ W_g.T + b_g + h @ U_g.T + d_g)
    o = sigmoid(x @ W_o.T + b_o + h @ U_o.T + d_o)
    new_c = f * c + i * g
    m = o * np.tanh(new_c)
    return {
        "input": i, "forget": f, "candidate": g, "output": o, "cell": new_c,
        "tanh_cell": np.tanh(new_c), "shown": m, "hidden": m if V is None else m @ V.T,
    }  # fmt: skip


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def gru_tensors(B, I, H):
    return draw(B, I), draw(B, H), draw(3 * H, I), draw(3 * H, H), draw(3 * H), draw(3 * H)


def lstm_tensors(B, I, H, P):
    hidden = P or H
    return (
        draw(B, I), draw(B, hidden), draw(B, H), draw(4 * H, I), draw(4 * H, hidden), draw(4 * H),
        draw(4 * H), draw(P, H) if P else None,
    )  # fmt: skip


@given(sizes=SIZES, reset_after=st.booleans())
def test_gru_step_is_the_equations_in_both_conventions(sizes, reset_after):
    x, h, W, U, b, c = gru_tensors(*sizes)
    step = gru.step(nn.functional.linear(x, W, b), h, U, c, reset_after=reset_after)
    expected = numpy_gru(*(t.numpy() for t in (x, h, W, U, b, c)), reset_after)
    for name, value in expected.items():
        assert_close_in_float64(getattr(step, name), torch.from_numpy(value), name)


@given(sizes=SIZES, projected=st.booleans())
def test_lstm_step_is_the_equations(sizes, projected):
    B, I, H = sizes
    x, h, c, W, U, b, d, V = lstm_tensors(B, I, H + 1, H if projected else 0)
    step = lstm.step(nn.functional.linear(x, W, b), h, c, U, d, V)
    expected = numpy_lstm(*(None if t is None else t.numpy() for t in (x, h, c, W, U, b, d, V)))
    for name, value in expected.items():
        assert_close_in_float64(getattr(step, name), torch.from_numpy(value), name)


def test_reset_after_is_the_gru_of_torch_and_reset_before_is_not():
    torch.manual_seed(1)
    cell = nn.GRUCell(3, 5, dtype=torch.float64)
    x, h = draw(4, 3), draw(4, 5)
    projection = nn.functional.linear(x, cell.weight_ih, cell.bias_ih)
    after, before = (
        gru.step(projection, h, cell.weight_hh, cell.bias_hh, reset_after=convention).hidden
        for convention in (True, False)
    )
    assert_close_in_float64(after, cell(x, h))
    assert (before - after).abs().max() > 1e-3


def test_a_pre_activation_is_the_sum_of_its_named_halves():
    x, h, W, U, b, c = gru_tensors(2, 3, 4)
    step = gru.step(nn.functional.linear(x, W, b), h, U, c)
    assert torch.equal(step.reset, torch.sigmoid(step.x_reset + step.h_reset))
    assert torch.equal(step.update, torch.sigmoid(step.x_update + step.h_update))
    assert torch.equal(step.candidate, torch.tanh(step.x_candidate + step.reset * step.h_candidate))
    before = gru.step(nn.functional.linear(x, W, b), h, U, c, reset_after=False)
    assert torch.equal(before.candidate, torch.tanh(before.x_candidate + before.h_candidate))


@given(sizes=SIZES, reset_after=st.booleans())
def test_hand_derived_gru_backward_is_that_of_autograd(sizes, reset_after):
    x, h, W, U, b, c = gru_tensors(*sizes)
    H = h.shape[-1]
    projection = nn.functional.linear(x, W, b).requires_grad_()
    h.requires_grad_()
    bias = c.requires_grad_()
    step = gru.step(projection, h, U, bias, reset_after=reset_after)
    d_new = draw(*h.shape)
    d_projection, d_h, d_bias = torch.autograd.grad(step.hidden, (projection, h, bias), d_new)
    saved = (step.reset, step.update, step.candidate, step.h_candidate)
    grads = gru.step_backward(d_new, *saved, h, U, reset_after=reset_after)
    by_hand = torch.cat([grads.reset, grads.update, grads.x_candidate], -1)
    assert_close_in_float64(by_hand, d_projection, "input half")
    by_hand = torch.cat([grads.reset, grads.update, grads.h_candidate], -1)
    assert_close_in_float64(by_hand.sum(0), d_bias, "hidden half")
    assert_close_in_float64(grads.hidden, d_h, "hidden")
    assert by_hand.shape[-1] == 3 * H


@given(sizes=SIZES, projected=st.booleans())
def test_hand_derived_lstm_backward_is_that_of_autograd(sizes, projected):
    B, I, H = sizes
    x, h, c, W, U, b, d, V = lstm_tensors(B, I, H + 1, H if projected else 0)
    projection = nn.functional.linear(x, W, b).requires_grad_()
    h.requires_grad_()
    c.requires_grad_()
    step = lstm.step(projection, h, c, U, d, V)
    d_hidden, d_cell = draw(*h.shape), draw(*c.shape)
    exact = torch.autograd.grad((step.hidden, step.cell), (projection, h, c), (d_hidden, d_cell))
    saved = (step.input, step.forget, step.candidate, step.output, step.cell)
    grads = lstm.step_backward(d_hidden, d_cell, *saved, c, U, V)
    assert_close_in_float64(torch.cat(grads[:4], -1), exact[0], "gates")
    assert_close_in_float64(grads.hidden, exact[1], "hidden")
    assert_close_in_float64(grads.cell, exact[2], "cell")


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_is_its_steps_with_every_intermediate(reverse):
    T, B, I, H = 5, 3, 2, 4
    x, h = draw(T, B, I), draw(B, H)
    _, _, W, U, b, c = gru_tensors(B, I, H)
    lengths = torch.tensor([5, 0, 2])
    sequence = gru.sequence(x, h, W, U, b, c, lengths=lengths, reverse=reverse)
    for row, length in enumerate(lengths.tolist()):
        state = h[row : row + 1]
        for t in range(T - 1, -1, -1) if reverse else range(T):
            if t < length:
                step = gru.step(nn.functional.linear(x[t, row : row + 1], W, b), state, U, c)
                state = step.hidden
                for name in gru.GRUStep._fields:
                    assert_close_in_float64(getattr(sequence, name)[t, row], getattr(step, name)[0], name)
            assert_close_in_float64(sequence.hidden[t, row], state[0], "state beyond the length is kept")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("projected", [False, True])
def test_an_lstm_sequence_is_its_steps_with_every_intermediate(reverse, projected):
    T, B, I, H = 4, 3, 2, 4
    P = 3 if projected else 0
    x = draw(T, B, I)
    _, h, c, W, U, b, d, V = lstm_tensors(B, I, H, P)
    sequence = lstm.sequence(x, h, c, W, U, b, d, V, reverse=reverse)
    for t in range(T - 1, -1, -1) if reverse else range(T):
        step = lstm.step(nn.functional.linear(x[t], W, b), h, c, U, d, V)
        h, c = step.hidden, step.cell
        for name in lstm.LSTMStep._fields:
            assert_close_in_float64(getattr(sequence, name)[t], getattr(step, name), name)
    states, last_hidden, last_cell = lstm.unroll(x, *lstm_start(x, P, H), W, U, b, d, V, reverse=reverse)
    assert states.shape == (T, B, P or H)
    assert torch.equal(last_hidden, states[0 if reverse else -1])
    assert last_cell.shape == (B, H)


def lstm_start(x, P, H):
    return torch.zeros(x.shape[1], P or H, dtype=x.dtype), torch.zeros(x.shape[1], H, dtype=x.dtype)


def test_previous_states_shift_by_one_step_in_visiting_order():
    states, initial = draw(3, 2, 4), draw(2, 4)
    forward, backward = (previous_states(states, initial, reverse) for reverse in (False, True))
    assert torch.equal(forward[0], initial)
    assert torch.equal(forward[1:], states[:-1])
    assert torch.equal(backward[-1], initial)
    assert torch.equal(backward[:-1], states[1:])


def test_extreme_inputs_saturate_without_nan():
    for value in (1e4, -1e4, torch.inf, -torch.inf):
        projection = torch.full((1, 3), value, dtype=torch.float32)
        step = gru.step(projection, torch.zeros(1, 1), torch.zeros(3, 1))
        assert torch.isfinite(step.hidden).all()
        assert step.update.item() in (0.0, 1.0)
