"""Gradient-boosted trees beside the networks: what an analyst would use instead.

LightGBM (Ke et al. 2017), one model for all regions, on the same inputs as the network of the fast recipe and
the same target, the change in log load, with L1 loss. It is not needed for anything else, and so it is not
installed with the library: ``pip install 'gatedcells[lightgbm]'``.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import table_of
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.scaling import LogScale
from gatedcells.forecast.windows import Region

# what recurrent networks see through their state, trees need as columns
LAGS = (2, 3, 4, 5, 6, 12, 23, 24, 25, 48, 72, 96, 120, 144, 167, 168, 169, 336)
LEAVES, LEARNING_RATE = 127, 0.05


def lightgbm_module() -> Any:
    """LightGBM.

    Raises:
        ForecastError: it is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ForecastError("--lightgbm needs LightGBM: pip install lightgbm") from error
    return lightgbm


def tree_settings(threads: int, seed: int) -> dict[str, Any]:
    """Settings of all trees here; the same for the same seed, whatever the number of threads."""
    return {
        "objective": "l1", "num_leaves": LEAVES, "learning_rate": LEARNING_RATE, "min_data_in_leaf": 100,
        "feature_fraction": 0.7, "bagging_fraction": 0.8, "bagging_freq": 1, "seed": seed,
        "num_threads": threads, "verbose": -1, "deterministic": True, "force_row_wise": True,
    }  # fmt: skip


class PooledTrees:
    """LightGBM on all regions' training parts together.

    Args:
        trees: how many.
        threads, seed: of LightGBM.
        holidays: country whose public holidays are inputs, or "none".

    Raises:
        ForecastError: LightGBM is not installed.
    """

    def __init__(self, trees: int = 2000, *, threads: int = 1, seed: int = 0, holidays: str = "US") -> None:
        self._lightgbm = lightgbm_module()
        self.trees, self._threads, self._seed = trees, threads, seed
        self._recipe = FastRecipe(lags_hours=LAGS, holidays=holidays)
        self.name = f"LightGBM, {trees} trees"

    def forecast(
        self, regions: Sequence[Region], progress: Callable[[int], None], *, season: bool = True
    ) -> list[FloatArray]:
        """Fit on the training targets, and forecast every region's test targets, MW.

        Args:
            regions: split.
            progress: told the number of each tree.
            season: whether the day of the year is an input, as it is of the network beside.
        """
        scales = {region.name: LogScale.fit(region.load_mw[: region.train_end]) for region in regions}
        recipe = replace(self._recipe, season=season)
        columns = [_columns(recipe, region, scales) for region in regions]
        train = [region.train[region.usable[region.train]] for region in regions]
        changes = [
            np.diff(np.log(region.load_mw), prepend=np.log(region.load_mw[0])) / scales[region.name].change
            for region in regions
        ]
        # an error in log load counts the same in every region, as in the network's loss
        weights = [np.full(len(rows), scales[r.name].change) for r, rows in zip(regions, train, strict=True)]
        data = self._lightgbm.Dataset(
            np.concatenate([table[rows] for table, rows in zip(columns, train, strict=True)]),
            np.concatenate([change[rows] for change, rows in zip(changes, train, strict=True)]),
            weight=np.concatenate(weights),
            categorical_feature=[columns[0].shape[1] - 1],
            free_raw_data=True,
        )
        model = self._lightgbm.train(
            tree_settings(self._threads, self._seed),
            data,
            num_boost_round=self.trees,
            callbacks=[lambda now: progress(now.iteration + 1)],
        )
        found: list[FloatArray] = []
        for region, table in zip(regions, columns, strict=True):
            change = np.asarray(model.predict(table[region.test], num_threads=self._threads))
            before = np.log(region.load_mw[region.test - 1])
            found.append(np.exp(before + change * scales[region.name].change))
        return found


def _columns(
    recipe: FastRecipe, region: Region, scales: dict[str, LogScale]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """``[n, C]``: the network's numbers, the hour and weekday as numbers, and the region's number."""
    table = table_of(recipe, scales, region.series, region.load_mw, 0, len(region.load_mw))
    return torch.cat([table.numbers, table.codes.float(), table.region[:, None].float()], dim=1).numpy()
