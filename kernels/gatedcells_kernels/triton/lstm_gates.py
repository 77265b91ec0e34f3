"""The gates of an LSTM in Triton: the equations of gatedcells/reference/lstm.py on tiles in float32."""

import triton
import triton.language as tl

from gatedcells_kernels.triton.activations import sigmoid, tanh


@triton.jit
def gates(a_input, a_forget, a_candidate, a_output, cell, APPROXIMATE: tl.constexpr):
    """i, f, o = σ(a), g = tanh(a), c' = f ⊙ c + i ⊙ g and m = o ⊙ tanh(c'), from the whole
    pre-activations."""
    input = sigmoid(a_input, APPROXIMATE)
    forget = sigmoid(a_forget, APPROXIMATE)
    candidate = tanh(a_candidate, APPROXIMATE)
    output = sigmoid(a_output, APPROXIMATE)
    new_cell = forget * cell + input * candidate
    shown = output * tanh(new_cell, APPROXIMATE)
    return input, forget, candidate, output, new_cell, shown


@triton.jit
def gates_backward(
    d_shown, d_new_cell, input, forget, candidate, output, new_cell, cell, APPROXIMATE: tl.constexpr
):
    """From dL/dm and dL/dc' to the four pre-activations and dL/dc."""
    tanh_cell = tanh(new_cell, APPROXIMATE)
    d_output = d_shown * tanh_cell * output * (1.0 - output)
    d_new_cell = d_new_cell + d_shown * output * (1.0 - tanh_cell * tanh_cell)
    d_forget = d_new_cell * cell * forget * (1.0 - forget)
    d_input = d_new_cell * candidate * input * (1.0 - input)
    d_candidate = d_new_cell * input * (1.0 - candidate * candidate)
    return d_input, d_forget, d_candidate, d_output, d_new_cell * forget
