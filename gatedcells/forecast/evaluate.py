"""Scoring models and baselines on the same test hours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gatedcells.forecast.baselines import Baseline
from gatedcells.forecast.calendar import local_starts
from gatedcells.forecast.data import FloatArray
from gatedcells.forecast.intervals import Calibrator, Intervals, IntervalScores, intervals, score_intervals
from gatedcells.forecast.metrics import Scores, mean_of, naive_mae, score
from gatedcells.forecast.windows import Region


@dataclass(frozen=True)
class Result:
    """One model's forecasts of every region's test hours, with their scores.

    Attributes:
        name: what the table calls it.
        forecasts_mw: for each region, ``[len(region.test)]``.
        by_region: scores by region, in order.
        mean: over regions, each counting the same.
        parameters: trainable numbers, 0 for a formula, None where they are fitted in closed form.
        seconds: of training; None if there is none.
        intervals: for each region, of a network's forecasts; None if there are none.
        interval_scores: their scores by region.
        alone: of a network that its neighbours' errors correct: without that.
    """

    name: str
    forecasts_mw: list[FloatArray]
    by_region: dict[str, Scores]
    mean: Scores
    parameters: int | None = None
    seconds: float | None = None
    intervals: list[Intervals] | None = None
    interval_scores: dict[str, IntervalScores] | None = None
    alone: "Result | None" = None

    def to_json(self) -> dict[str, Any]:
        """Scores without the forecasts."""
        found = self.interval_scores or {}
        beside = {} if self.alone is None else {"alone": self.alone.to_json()}
        return {
            "intervals": {name: scores.to_json() for name, scores in found.items()},
            "mean": self.mean.to_json(),
            "by_region": {name: scores.to_json() for name, scores in self.by_region.items()},
            "parameters": self.parameters,
            "train_seconds": self.seconds,
            **beside,
        }


def undefined_in(results: Sequence[Result]) -> list[str]:
    """The regions in which some score is not defined, as without a load in the test part: it counts in no
    mean."""
    every = [(name, scores) for result in results for name, scores in result.by_region.items()]
    return list(dict.fromkeys(name for name, scores in every if None in scores.to_json().values()))


def scored(
    name: str,
    regions: Sequence[Region],
    forecasts_mw: list[FloatArray],
    parameters: int | None = None,
    seconds: float | None = None,
) -> Result:
    """Score forecasts of every region's test hours."""
    by_region = {
        region.name: score(forecast, region.actual_mw, naive_mae(region.series.load_mw[: region.train_end]))
        for region, forecast in zip(regions, forecasts_mw, strict=True)
    }
    return Result(name, forecasts_mw, by_region, mean_of(list(by_region.values())), parameters, seconds)


def score_baselines(
    regions: Sequence[Region], models: Sequence[Baseline], progress: Callable[[str], None]
) -> list[Result]:
    """Score formulas and closed-form fits; ``progress`` is told each region as it is done."""
    found: list[Result] = []
    for model in models:
        forecasts: list[FloatArray] = []
        for region in regions:
            forecasts.append(model.forecast(region))
            progress(region.name)
        found.append(scored(model.name, regions, forecasts))
    return found


def with_intervals(result: Result, regions: Sequence[Region]) -> tuple[Result, dict[str, Calibrator]]:
    """The result with an interval around every forecast, each calibrated on the test hours before it; and
    what the calibrators have learnt by the end."""
    found: list[Intervals] = []
    scores: dict[str, IntervalScores] = {}
    calibrators: dict[str, Calibrator] = {}
    for region, forecast in zip(regions, result.forecasts_mw, strict=True):
        calibrators[region.name] = Calibrator()
        hours = local_starts(region.series).hour.to_numpy()[region.test]
        found.append(intervals(calibrators[region.name], forecast, region.actual_mw, hours))
        scores[region.name] = score_intervals(found[-1], region.actual_mw)
    return replace(result, intervals=found, interval_scores=scores), calibrators
