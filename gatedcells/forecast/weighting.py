"""How much a region's errors count in the loss of all."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gatedcells.forecast.baselines import DayWeekRatio
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.windows import Region

LOSSES = ("percent", "usual errors")


def region_weights(loss_in: str, regions: Sequence[Region]) -> Tensor:
    """``[R]``, 1 in the mean: equal for a loss in ``"percent"``; for one in ``"usual errors"`` the inverse
    square of each region's usual error, so that a network that fits for long fits the regions that can be
    forecast rather than the noise of one that cannot.

    Raises:
        ForecastError: no such loss.
    """
    if loss_in not in LOSSES:
        raise ForecastError(f"loss_in must be one of {', '.join(LOSSES)}, got {loss_in!r}")
    if loss_in == "percent":
        return torch.ones(len(regions))
    usual = np.array([DayWeekRatio().usual_error(region) for region in regions])
    return torch.from_numpy((usual**-2 / np.mean(usual**-2)).astype(np.float32))
