"""A whole backtest: folds, training, scores, a table, files; it goes on where it was stopped."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from gatedcells._files import is_free
from gatedcells.forecast.backtest import Fold, Plan, folds
from gatedcells.forecast.baselines import baselines
from gatedcells.forecast.begun import check_begun
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.evaluate import Result, score_baselines, scored
from gatedcells.forecast.fast import FastForecaster, FastTask, suited
from gatedcells.forecast.fast_recipe import FastRecipe, told
from gatedcells.forecast.files import read_json, write_json
from gatedcells.forecast.limits import ADDED, read_numbers, read_whole
from gatedcells.forecast.policy import DEFAULT, Policy
from gatedcells.forecast.progress import progress_bar, train_shown
from gatedcells.forecast.sources import Source
from gatedcells.forecast.trees import PooledTrees

_MOST = 1_000_000_000  # hours, or steps
_AS_GIVEN = "no"  # neither steps nor season suited to the training part
_CHANGED = ("steps", "batch_size", "season")  # by `FastRecipe.suited`


def run(
    folder: Path,
    source: Source,
    plan: Plan,
    recipe: FastRecipe,
    seed: int,
    console: Console,
    policy: Policy = DEFAULT,
    trees: PooledTrees | None = None,
    *,
    fewer: bool = False,
) -> dict[str, list[float]]:
    """Train, forecast and score every fold that the folder does not hold yet; print and write the rest; with
    ``trees``, theirs beside; ``fewer`` as for `FastRecipe.suited`, at each date.

    Returns:
        for each model its mean sMAPE over the regions, a fold each.

    Raises:
        ForecastError: the folder is of another backtest, or a fold has nothing to test.
        gatedcells.forecast.training.Interrupted: Ctrl-C; the same command goes on.
    """
    cut = folds(source.series, plan, policy, recipe.hours_needed)
    settings = _settings(source, plan, recipe, seed, policy) | {
        "trees": trees.trees if trees else None, "suited": "steps and season" if fewer else "season",
    }  # fmt: skip
    settings = _begin(folder, settings)
    found: list[dict[str, Any]] = []
    forecaster: FastForecaster | None = None
    for number, fold in enumerate(cut):
        path = folder / f"fold-{number}.json"
        if path.exists():
            found.append(_checked(path, fold.origin.isoformat()))
            continue
        if forecaster is None or plan.refit:
            # without refitting all folds are forecast by the network of the first
            trained_on = fold if plan.refit else cut[0]
            mine = recipe
            if settings["suited"] != _AS_GIVEN:
                mine = suited(recipe, trained_on.regions, fewer=fewer)
            forecaster = _train(folder, number if plan.refit else 0, trained_on, mine, seed, console)
        found.append(_scored(fold, forecaster, console, trees))
        write_json(path, found[-1])
    if len({tuple(one["smape"]) for one in found}) > 1:
        raise ForecastError(f"{folder}: its folds are scores of different forecasters")
    console.print(_table(found))
    _left_out(cut, console)
    _changed(found, recipe, console)
    write_json(folder / "backtest.json", {"settings": settings, "folds": found})
    return {name: [one["smape"][name] for one in found] for name in found[0]["smape"]}


def _checked(path: Path, origin: str) -> dict[str, Any]:
    """A fold that was scored before.

    Raises:
        ForecastError: the file holds something else.
    """
    content = read_json(path)
    try:
        if content["origin"] != origin:
            raise ValueError(f"its origin is {str(content['origin'])[:40]!r}, expected {origin!r}")
        scores = {name: read_numbers(name, content[name]) for name in ("smape", "mase")}
        if not scores["smape"]:
            raise ValueError("it has no scores")
        regions = content["by_region"]
        return {
            "origin": origin,
            **{name: read_whole(name, content[name], 0, _MOST) for name in ("train_hours", "test_hours")},
            "recipe": _read_changed(content.get("recipe", {})),
            **scores,
            "by_region": {model: read_numbers("by_region", regions[model]) for model in scores["smape"]},
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ForecastError(f"{path}: not a fold of this backtest ({error})") from error


def _read_changed(content: Any) -> dict[str, Any]:
    """What a fold's recipe has instead of the backtest's."""
    if not isinstance(content, dict) or not set(content) <= set(_CHANGED):
        raise ValueError(f"its recipe is not {', '.join(_CHANGED)}")
    if type(content.get("season", True)) is not bool:
        raise ValueError("season is neither true nor false")
    for name in {"steps", "batch_size"} & set(content):
        read_whole(name, content[name], 1, _MOST)
    return dict(content)


def _settings(source: Source, plan: Plan, recipe: FastRecipe, seed: int, policy: Policy) -> dict[str, Any]:
    dates = asdict(plan) | {"end": None if plan.end is None else plan.end.isoformat()}
    settings = {"plan": dates, "recipe": asdict(recipe), "seed": seed, "data": source.to_json()}
    settings["policy"] = asdict(policy)
    return json.loads(json.dumps(settings))  # as it will be read


def _begin(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that hold: where the folder was begun before recipes were suited to short data, they are
    not."""
    path = folder / "settings.json"
    if not path.exists():
        if not is_free(folder):
            raise ForecastError(f"{folder}: exists already and is no backtest; choose another folder")
        write_json(path, settings)
        return settings
    before = _of_before(read_json(path))
    if isinstance(before, dict) and before["suited"] == _AS_GIVEN:
        settings = settings | {"suited": _AS_GIVEN}
    check_begun(folder, "a backtest", before, settings)
    return settings


def _of_before(settings: Any) -> Any:
    """Settings of a backtest from before there were some of them, with what it did."""
    if not isinstance(settings, dict):
        return settings
    recipe = settings.get("recipe")
    if isinstance(recipe, dict):
        settings = settings | {"recipe": ADDED | recipe}
    return {"policy": asdict(DEFAULT), "trees": None, "suited": _AS_GIVEN} | settings


def _train(
    folder: Path, number: int, fold: Fold, recipe: FastRecipe, seed: int, console: Console
) -> FastForecaster:
    forecaster, _ = train_shown(
        FastTask(recipe, fold.regions), f"{fold.origin:%Y-%m-%d}", console,
        seed=seed, checkpoint=folder / f"fold-{number}.safetensors",
    )  # fmt: skip
    return forecaster


def _scored(
    fold: Fold, forecaster: FastForecaster, console: Console, trees: PooledTrees | None
) -> dict[str, Any]:
    recipe = forecaster.recipe
    with progress_bar(console) as progress, torch.no_grad():
        bar = progress.add_task("forecasting", total=sum(len(region.test) for region in fold.regions))
        forecasts = forecaster.forecast_test(fold.regions, lambda hours: progress.advance(bar, hours))
    results: list[Result] = [scored(recipe.cell.upper(), fold.regions, forecasts)]
    results += score_baselines(fold.regions, baselines(recipe.holidays), lambda _: None)
    if trees is not None:
        with progress_bar(console) as progress:
            bar = progress.add_task("LightGBM", total=trees.trees)
            forecasts = trees.forecast(
                fold.regions, lambda done: progress.update(bar, completed=done), season=recipe.season
            )
        results.append(scored(trees.name, fold.regions, forecasts))
    return {
        "origin": fold.origin.isoformat(),
        "train_hours": sum(len(region.train) for region in fold.regions),
        "test_hours": sum(len(region.test) for region in fold.regions),
        "recipe": {name: getattr(recipe, name) for name in _CHANGED},
        "smape": {result.name: result.mean.smape for result in results},
        "mase": {result.name: result.mean.mase for result in results},
        "by_region": {
            result.name: {name: scores.smape for name, scores in result.by_region.items()}
            for result in results
        },
    }


def _table(found: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="sMAPE % by origin (UTC)", title_justify="left", title_style="bold", box=None)
    table.add_column("")
    for one in found:
        table.add_column(f"{one['origin'][:10]}\n{one['test_hours']:,} h", justify="right")
    table.add_column("mean", justify="right")
    means = {name: float(np.mean([one["smape"][name] for one in found])) for name in found[0]["smape"]}
    for name, mean in means.items():
        style = "bold green" if mean == min(means.values()) else ""
        table.add_row(name, *(f"{one['smape'][name]:.3f}" for one in found), f"{mean:.3f}", style=style)
    return table


def _left_out(cut: Sequence[Fold], console: Console) -> None:
    for fold in cut:
        for name, why in fold.left_out.items():
            console.print(f"{fold.origin:%Y-%m-%d}: without {name}, {why}", style="dim", soft_wrap=True)


def _changed(found: Sequence[dict[str, Any]], recipe: FastRecipe, console: Console) -> None:
    for one in found:
        changed = replace(recipe, **one["recipe"])
        if changed != recipe:
            console.print(f"{one['origin'][:10]}: {told(recipe, changed)}", style="dim", soft_wrap=True)
