"""The kernels under the names that every backend has."""

from torch import Tensor

from gatedcells_kernels.triton import calls, launch, library
from gatedcells_kernels.triton.gru import gru_backward as gru_backward
from gatedcells_kernels.triton.gru import gru_both_backward as gru_both_backward
from gatedcells_kernels.triton.gru import gru_both_forward as gru_both_forward
from gatedcells_kernels.triton.gru import gru_forward as gru_forward
from gatedcells_kernels.triton.lstm import lstm_backward as lstm_backward
from gatedcells_kernels.triton.lstm import lstm_both_backward as lstm_both_backward
from gatedcells_kernels.triton.lstm import lstm_both_forward as lstm_both_forward
from gatedcells_kernels.triton.lstm import lstm_forward as lstm_forward


def explain(
    cell: str, like: Tensor, T: int, B: int, H: int, P: int, reset_after: bool, directions: int
) -> str:
    """Which kernel a layer of this size would run on, and why not those before it, one a line."""
    refusal = library.why_not(like.device.index)
    if refusal is not None:  # another GPU here can
        return f"cannot run on {like.device}: {refusal}"
    request = launch.Request(cell, T, B, H, P, calls.numbers(like), reset_after, directions, P != H)
    device = calls.device(like)
    if directions == 1:
        return str(launch.plan(request, device))
    together = launch.in_one_grid(request, device)
    if together is not None:
        return f"{together}, both directions in one grid"
    alone = launch.plan(request._replace(directions=1), device)
    return f"{alone}, one direction after the other"
