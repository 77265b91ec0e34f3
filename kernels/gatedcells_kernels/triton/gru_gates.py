"""The gates of a GRU in Triton: the equations of gatedcells/reference/gru.py on tiles in float32."""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import sigmoid, tanh


@triton.jit
def reset_and_update(x_reset, x_update, h_reset, h_update, APPROXIMATE: tl.constexpr):
    """r = σ(x_r + h_r), z = σ(x_z + h_z)."""
    return sigmoid(x_reset + h_reset, APPROXIMATE), sigmoid(x_update + h_update, APPROXIMATE)


@triton.jit
def combine(candidate, hidden, update):
    """h' = (1 − z) ⊙ n + z ⊙ h."""
    return candidate + update * (hidden - candidate)


@triton.jit
def candidate_after(x_candidate, h_candidate, reset, APPROXIMATE: tl.constexpr):
    """n = tanh(x_n + r ⊙ (U_n h + b_hn)): the reset gate after the matrix product."""
    return tanh(x_candidate + reset * h_candidate, APPROXIMATE)


@triton.jit
def candidate_before(x_candidate, h_candidate, APPROXIMATE: tl.constexpr):
    """n = tanh(x_n + U_n (r ⊙ h) + b_hn): the reset gate before the matrix product."""
    return tanh(x_candidate + h_candidate, APPROXIMATE)


@triton.jit
def combine_backward(d_new, update, candidate, hidden):
    """From dL/dh' to the pre-activations of candidate and update gate, and the direct part of dL/dh."""
    direct = d_new * update
    d_candidate = (d_new - direct) * (1.0 - candidate * candidate)
    d_update = d_new * (hidden - candidate) * update * (1.0 - update)
    return d_candidate, d_update, direct


@triton.jit
def reset_backward(d_reset, reset):
    """From dL/dr to its pre-activation."""
    return d_reset * reset * (1.0 - reset)
