"""Random inputs, states and weights of one direction, in the order in which kernels take them."""

import torch


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def gru_tensors(T, B, I, H, bias=True, dtype=torch.float64):
    weights = draw(3 * H, I, dtype=dtype) / max(I, 1) ** 0.5, draw(3 * H, H, dtype=dtype) / H**0.5
    biases = (draw(3 * H, dtype=dtype), draw(3 * H, dtype=dtype)) if bias else (None, None)
    return draw(T, B, I, dtype=dtype), draw(B, H, dtype=dtype), *weights, *biases


def lstm_tensors(T, B, I, H, P=0, bias=True, dtype=torch.float64):
    Q = P or H
    weights = draw(4 * H, I, dtype=dtype) / max(I, 1) ** 0.5, draw(4 * H, Q, dtype=dtype) / Q**0.5
    biases = (draw(4 * H, dtype=dtype), draw(4 * H, dtype=dtype)) if bias else (None, None)
    projection = draw(P, H, dtype=dtype) / H**0.5 if P else None
    return (
        draw(T, B, I, dtype=dtype),
        draw(B, Q, dtype=dtype),
        draw(B, H, dtype=dtype),
        *weights,
        *biases,
        projection,
    )
