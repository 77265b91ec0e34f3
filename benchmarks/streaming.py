"""The next hour of 12 series when one more hour has come: ``python -m benchmarks.streaming``.

A stream carries the state on by one step. Beside it, the same network's pass over a window of 90 hours for
all series, which is what a forecaster without a state does each hour, and the network's own part of a step.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.records import append
from benchmarks.timing import interleaved, quantiles
from gatedcells.forecast.fast import FastForecaster, table_of
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.features import FeatureTable
from gatedcells.forecast.scaling import LogScale
from gatedcells.forecast.simulate import simulate_regions
from gatedcells.forecast.stream import Stream

SERIES, WINDOW = 12, 90


def main() -> None:
    """Time and append rows."""
    argparse.ArgumentParser(description=__doc__).parse_args()  # or --help would measure, and write rows
    torch.set_num_threads(1)
    one = simulate_regions()[0]
    load = one.load_mw[: 24 * 60]
    series = [_named(one, f"REGION{number}", load) for number in range(SERIES)]
    rows: list[dict[str, Any]] = []
    for cell in ("gru", "lstm"):
        torch.manual_seed(0)
        forecaster = FastForecaster(
            FastRecipe(cell=cell), {s.region: LogScale.fit(s.load_mw) for s in series}
        )
        stream = Stream(forecaster, series)
        loads = stream.forecast_mw
        end = len(load)
        table = FeatureTable.join(
            (table_of(forecaster.recipe, forecaster.scales, s, s.load_mw, end - WINDOW, end) for s in series),
            SERIES * WINDOW,
        )
        window = table.inputs(torch.arange(SERIES) * WINDOW + torch.arange(WINDOW)[:, None])
        network, state = forecaster.network.eval(), stream._state
        now = window[-1]

        def whole(network: Any = network, window: Any = window) -> object:
            with torch.no_grad():
                return network(window)

        def own(network: Any = network, now: Any = now, state: Any = state) -> object:
            with torch.no_grad():
                return network.step(now, state)

        timed = {
            "update": lambda stream=stream, loads=loads: stream.update(loads),
            "the network's step": own,
            "a window of 90": whole,
        }
        for what, seconds in interleaved(timed, budget_s=5).items():
            sizes = {"series": SERIES, "H": forecaster.recipe.hidden_size, "I": now.shape[-1]}
            rows.append({"cell": cell, "what": what} | sizes | quantiles(seconds))
            print(rows[-1])
    print(append("streaming", rows))


def _named(series: Any, region: str, load: np.ndarray[Any, Any]) -> Any:
    return replace(series, region=region, load_mw=load)


if __name__ == "__main__":
    main()
