"""Checks of what a user passes, before anything runs; each message names what was expected and given."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_shape(name: str, tensor: Tensor, legend: str, expected: tuple[int, ...]) -> None:
    """Raise RuntimeError unless ``tensor`` has the shape ``expected``; ``legend`` spells it in letters."""
    if tensor.shape != expected:
        spelled = ", ".join(
            f"{letters}={size}" for letters, size in zip(legend.split(), expected, strict=True)
        )
        raise RuntimeError(f"{name} must be [{spelled}], got {list(tensor.shape)}")


def is_autocast_enabled(device: str) -> bool:
    """Whether autocast is on for a device type; False on ``meta``, for which torch has none."""
    return device != "meta" and torch.is_autocast_enabled(device)


def check_same_dtype_and_device(names: Sequence[str], tensors: Sequence[Tensor | None]) -> None:
    """Raise RuntimeError, as torch does, unless all given tensors agree with the first.

    Under autocast dtypes may differ: autocast brings them together.
    """
    first_name, first = names[0], tensors[0]
    assert first is not None
    dtype, device = first.dtype, first.device
    if all(t is None or (t.dtype is dtype and t.device == device) for t in tensors):
        return
    autocast = is_autocast_enabled(device.type)
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is None:
            continue
        if tensor.device != first.device:
            raise RuntimeError(
                f"{name} and {first_name} must be on the same device, got {tensor.device} and {first.device}"
            )
        if tensor.dtype != first.dtype and not autocast:
            raise RuntimeError(
                f"{name} and {first_name} must have the same dtype, got {tensor.dtype} and {first.dtype}"
            )


def check_gates(
    gates: int,
    hidden_size: int,
    state_size: int,
    input_size: int,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
) -> None:
    """Raise RuntimeError unless weights and biases fit G gates of ``hidden_size`` units."""
    rows = gates * hidden_size
    check_shape("weight_ih", weight_ih, f"{gates}H I", (rows, input_size))
    check_shape("weight_hh", weight_hh, f"{gates}H H", (rows, state_size))
    for name, bias in (("bias_ih", bias_ih), ("bias_hh", bias_hh)):
        if bias is not None:
            check_shape(name, bias, f"{gates}H", (rows,))


def check_gru(
    input: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
) -> None:
    """Raise unless the tensors of a GRU's step (input ``[B, I]``) or sequence (``[T, B, I]``) fit
    together."""
    B, features = input.shape[-2:]
    H = weight_hh.shape[-1]
    check_shape("hidden", hidden, "B H", (B, H))
    check_gates(3, H, H, features, weight_ih, weight_hh, bias_ih, bias_hh)
    check_same_dtype_and_device(
        ("input", "hidden", "weight_ih", "weight_hh", "bias_ih", "bias_hh"),
        (input, hidden, weight_ih, weight_hh, bias_ih, bias_hh),
    )


def check_lstm(
    input: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
) -> None:
    """Raise unless the tensors of an LSTM's step (input ``[B, I]``) or sequence (``[T, B, I]``) fit
    together."""
    B, features = input.shape[-2:]
    P, H = weight_hh.shape[-1], cell.shape[-1]
    check_shape("hidden", hidden, "B H" if weight_hr is None else "B P", (B, P))
    check_shape("cell", cell, "B H", (B, P if weight_hr is None else weight_hr.shape[-1]))
    check_gates(4, H, P, features, weight_ih, weight_hh, bias_ih, bias_hh)
    if weight_hr is not None:
        check_shape("weight_hr", weight_hr, "P H", (P, H))
    check_same_dtype_and_device(
        ("input", "hidden", "cell", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"),
        (input, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr),
    )


def check_sequence(input: Tensor, lengths: Tensor | None, resets: Tensor | None) -> None:
    """Raise RuntimeError unless ``input`` is ``[T, B, I]`` with at least one step; and unless its lengths and
    resets fit it, as `check_lengths` and `check_resets`."""
    if input.dim() != 3:
        raise RuntimeError(f"input must be [T, B, I], got {input.dim()} dimensions: {list(input.shape)}")
    if input.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    check_lengths(lengths, input)
    check_resets(resets, input)


def check_lengths(lengths: Tensor | None, input: Tensor) -> None:
    """Raise unless ``lengths`` is None or ``[B]`` integers in 0..T on the device of ``input`` ``[T, B, I]``.

    The values are checked where they can be seen without waiting for a device: on the CPU, outside of
    torch.func's transforms.
    """
    if lengths is None:
        return
    T, B, _ = input.shape
    check_shape("lengths", lengths, "B", (B,))
    if lengths.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"lengths must be int32 or int64, got {lengths.dtype}")
    if lengths.device != input.device:
        raise RuntimeError(
            f"lengths and input must be on the same device, got {lengths.device} and {input.device}"
        )
    mapped = torch._C._are_functorch_transforms_active()  # vmap shows no values
    if lengths.device.type == "cpu" and not torch.compiler.is_compiling() and not mapped and B:
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > T:
            raise ValueError(f"lengths must lie in 0..T={T}, got {low}..{high}")


def check_resets(resets: Tensor | None, input: Tensor) -> None:
    """Raise unless ``resets`` is None or ``[T, B]`` bool on the device of ``input`` ``[T, B, I]``."""
    if resets is None:
        return
    check_shape("resets", resets, "T B", tuple(input.shape[:2]))
    check_bool("resets", resets, input)


def check_bool(name: str, given: Tensor, input: Tensor) -> None:
    """Raise ValueError unless ``given`` is bool, RuntimeError unless it is on the device of ``input``."""
    if given.dtype != torch.bool:
        raise ValueError(f"{name} must be bool, got {given.dtype}")
    if given.device != input.device:
        raise RuntimeError(
            f"{name} and input must be on the same device, got {given.device} and {input.device}"
        )


def check_rows(lengths: Tensor | None, resets: Tensor | None, T: int, B: int) -> None:
    """Raise unless what a forward pass was told of its rows fits a backward pass of T steps and B rows."""
    if lengths is not None:
        check_shape("lengths", lengths, "B", (B,))
    if resets is not None:
        check_shape("resets", resets, "T B", (T, B))
        if resets.dtype != torch.bool:
            raise ValueError(f"resets must be bool, got {resets.dtype}")
