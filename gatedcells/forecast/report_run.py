"""The report of a run that was made before, from its folder and the data it was made of."""

from pathlib import Path

import torch
from rich.console import Console

from gatedcells.forecast import page
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.kept_scores import scored_before
from gatedcells.forecast.pipeline import findings_of, regions_of, score_formulas, score_networks
from gatedcells.forecast.runs import Config, RunFolder
from gatedcells.forecast.sources import Source

HAVE_REPORTS = "runs of the recipes fast, best and article have reports"


def config_of(run: RunFolder) -> Config:
    """The settings of a run that a report can be made of.

    Raises:
        ForecastError: the folder is of something else, and what has reports.
    """
    if (run.path / "settings.json").exists() and not (run.path / "config.json").exists():
        raise ForecastError(f"{run.path}: is a backtest, which has no report; {HAVE_REPORTS}")
    config = run.config()
    if config.recipe_name == "bitcoin":
        raise ForecastError(
            f"{run.path}: is a run of the bitcoin recipe, which has no report; {HAVE_REPORTS}"
        )
    return config


def write_report(run: RunFolder, config: Config, source: Source, out: Path, console: Console) -> None:
    """Forecast the test hours once more with the trained networks and write the page; the run stays as it is.

    Raises:
        ForecastError: a network is not trained, the data do not fit, or the page cannot be written.
    """
    torch.set_num_threads(config.threads)
    regions = regions_of(config, source)
    results, *_ = score_networks(run, config, regions, console)
    results += score_formulas(config, regions, console)
    known = {result.name for result in results}
    results += [one for one in scored_before(run, [r.name for r in regions]) if one.name not in known]
    page.write(out, findings_of(run, config, source, regions, results))
