"""How many floating-point operations an operator takes, for `torch.utils.flop_counter`.

A counter sees one operator where torch's layers show it a product for every step. As torch's own formulas
do, these count two for each multiplication of a matrix product and nothing else, rows beyond their lengths
included. Where the reference computes in plain torch the counter sees its products by itself.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


def tell_counters() -> None:
    """Give the formulas to every counter that is looking on, which has torch's of when it was made."""
    # not imported for this: it brings Triton in, and who counts has imported it
    counting = sys.modules.get("torch.utils.flop_counter")
    if counting is None:
        return
    for mode in _get_current_dispatch_mode_stack():
        counter: Any = getattr(mode, "counter", None)
        if isinstance(counter, counting.FlopCounterMode):
            for name, formula in _FORMULAS.items():
                counter.flop_registry.setdefault(getattr(torch.ops.gatedcells, name), formula)


def _of(steps: int, rows: int, *weights: Tensor | None) -> int:
    """Of multiplying each row of each step by each weight (of both directions, where there are both)."""
    return 2 * steps * rows * sum(weight.numel() for weight in weights if weight is not None)


def _gru(input: Tensor, _hidden: Tensor, ih: Tensor, hh: Tensor, *_: Any, out_val: Any) -> int:
    T, B = input.shape[:2]
    return _of(T, B, ih, hh)


def _lstm(
    input: Tensor, _hidden: Tensor, _cell: Tensor, ih: Tensor, hh: Tensor, _bias_ih: Tensor | None,
    _bias_hh: Tensor | None, hr: Tensor | None, *_: Any, out_val: Any,
) -> int:  # fmt: skip
    T, B = input.shape[:2]
    return _of(T, B, ih, hh, hr)


def _gru_back(
    _d_states: Any, _d_last: Any, _hidden: Tensor, hh: Tensor, _lengths: Any, _resets: Any, states: Tensor,
    _tape: Tensor, _reverse: bool, _reset_after: bool, _backend: str = "", initial: bool = True,
    *, out_val: Any,
) -> int:  # fmt: skip
    T, B, _ = states.shape
    return _of(T if initial else T - 1, B, hh)


def _gru_both_back(
    _d_states: Any, _d_last: Any, _hidden: Tensor, hh: Tensor, _lengths: Any, _resets: Any, states: Tensor,
    *_: Any, out_val: Any,
) -> int:  # fmt: skip
    T, B = states.shape[-3:-1]
    return _of(T, B, hh)


def _lstm_back(
    _d_states: Any, _d_last_hidden: Any, _d_last_cell: Any, _hidden: Tensor, _cell: Tensor, hh: Tensor,
    hr: Tensor | None, _lengths: Any, _resets: Any, states: Tensor, _tape: Tensor, _reverse: bool,
    _backend: str = "", initial: bool = True, *, out_val: Any,
) -> int:  # fmt: skip
    T, B, _ = states.shape
    return _of(T if initial else T - 1, B, hh) + _of(T, B, hr)


def _lstm_both_back(
    _d_states: Any, _d_last_hidden: Any, _d_last_cell: Any, _hidden: Tensor, _cell: Tensor, hh: Tensor,
    hr: Tensor | None, _lengths: Any, _resets: Any, states: Tensor, *_: Any, out_val: Any,
) -> int:  # fmt: skip
    T, B = states.shape[-3:-1]
    return _of(T, B, hh, hr)


def _gru_again(
    _d_states: Any, _d_last: Any, input: Tensor, _hidden: Tensor, ih: Tensor, hh: Tensor, _bias_ih: Any,
    _bias_hh: Any, _lengths: Any, _resets: Any, _states: Tensor, _reverse: bool, _reset_after: bool,
    needed: Sequence[bool], _backend: str, *, out_val: Any,
) -> int:  # fmt: skip
    T, B = input.shape[:2]
    to_input, _, to_ih, to_hh, *_ = needed
    return _of(T, B, ih, hh, hh, *[ih] * (to_input + to_ih), *[hh] * to_hh)


def _lstm_again(
    _d_states: Any, _d_last_hidden: Any, _d_last_cell: Any, input: Tensor, _hidden: Tensor, _cell: Tensor,
    ih: Tensor, hh: Tensor, _bias_ih: Any, _bias_hh: Any, hr: Tensor | None, _lengths: Any, _resets: Any,
    _states: Tensor, _cells: Tensor, _reverse: bool, needed: Sequence[bool], _backend: str, *, out_val: Any,
) -> int:  # fmt: skip
    T, B = input.shape[:2]
    to_input, _, _, to_ih, to_hh, _, _, to_hr = needed
    gradients = [*[ih] * (to_input + to_ih), *[hh] * to_hh, *[hr] * to_hr]
    return _of(T, B, ih, hh, hr, hh, hr, *gradients)


_FORMULAS: dict[str, Any] = {
    "gru_sequence": _gru,
    "gru_both": _gru,
    "gru_sequence_backward": _gru_back,
    "gru_both_backward": _gru_both_back,
    "gru_sequence_recompute": _gru_again,
    "lstm_sequence": _lstm,
    "lstm_both": _lstm,
    "lstm_sequence_backward": _lstm_back,
    "lstm_both_backward": _lstm_both_back,
    "lstm_sequence_recompute": _lstm_again,
}
