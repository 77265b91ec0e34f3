"""Scores that a run folder holds: of forecasters whose forecasts are not there any more, and by region."""

from typing import Any

from gatedcells.forecast.cells import CELLS
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.evaluate import Result
from gatedcells.forecast.files import read_json
from gatedcells.forecast.metrics import Scores
from gatedcells.forecast.runs import RunFolder

_NOTHING: dict[str, Any] = {"by_region": {}}
_WRONG = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


def scored_before(run: RunFolder, regions: list[str]) -> list[Result]:
    """Every result that was written, without forecasts; none if the run has not been scored.

    Raises:
        ForecastError: the file is something else, or of other regions.
    """
    if not run.metrics.exists():
        return []
    try:
        models = read_json(run.metrics)["models"]
        return [
            Result(
                str(name), [], {region: _scores(model["by_region"][region]) for region in regions},
                _scores(model["mean"]), None, _seconds(model["train_seconds"]),
            )
            for name, model in models.items()
        ]  # fmt: skip
    except _WRONG as error:
        raise ForecastError(f"{run.metrics}: not the scores of this run ({error!r})") from error


def smape_of(run: RunFolder, *, alone: bool) -> dict[tuple[str, str], float]:
    """Test sMAPE by (cell, region), NaN where it is not defined, as far as the run has been scored.

    Args:
        run: its folder.
        alone: of the forecasts without the neighbours' correction.

    Raises:
        ForecastError: the file is something else.
    """
    if not run.metrics.exists():
        return {}
    try:
        models = read_json(run.metrics)["models"]
        found: dict[tuple[str, str], float] = {}
        for cell in CELLS:
            own = models.get(cell.upper(), _NOTHING)
            own = own.get("alone", _NOTHING) if alone else own
            for region, scores in own["by_region"].items():
                found[cell, str(region)] = _number(scores["smape"])
        return found
    except _WRONG as error:
        raise ForecastError(f"{run.metrics}: not the scores of a run ({error!r})") from error


def _seconds(content: Any) -> float | None:
    return None if content is None else float(content)


def _number(content: Any) -> float:
    return float("nan") if content is None else float(content)


def _scores(content: dict[str, Any]) -> Scores:
    return Scores(**{name: _number(value) for name, value in content.items()})
