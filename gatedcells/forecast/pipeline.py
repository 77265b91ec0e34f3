"""A whole run: data, training of each cell, scores, tables, plots, files."""

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import gatedcells
from gatedcells.forecast import distributed, page
from gatedcells.forecast.article import ArticleRecipe, ArticleTask
from gatedcells.forecast.baselines import baselines
from gatedcells.forecast.bitcoin import BitcoinRecipe
from gatedcells.forecast.data import Clock, FloatArray
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.evaluate import Result, score_baselines, scored, with_intervals
from gatedcells.forecast.fast import FastTask, suited
from gatedcells.forecast.fast_recipe import FastRecipe, told
from gatedcells.forecast.files import in_digits, read_json, write_json, written_csv
from gatedcells.forecast.intervals import Calibrator
from gatedcells.forecast.kept_scores import scored_before
from gatedcells.forecast.page.findings import Findings, shown
from gatedcells.forecast.page.gates import typical_days
from gatedcells.forecast.plots import plot_all_regions, plot_four_regions
from gatedcells.forecast.policy import DEFAULT, Policy
from gatedcells.forecast.progress import progress_bar, train_shown
from gatedcells.forecast.provenance import commit
from gatedcells.forecast.report import flaw_table, interval_table, region_table, score_table
from gatedcells.forecast.runs import FORMAT, Config, RunFolder
from gatedcells.forecast.sources import Source, locate, simulated
from gatedcells.forecast.trees import PooledTrees
from gatedcells.forecast.windows import LOOKBACK, Region, count_windows, prepare


def read_data(given: Path | None, clock: Clock, console: Console) -> Source:
    """Locate and read the data, with a bar and a line that says what it is."""
    with progress_bar(console) as progress:
        bar = progress.add_task("reading", total=None)
        source = locate(
            given, clock, on_file=lambda name: progress.update(bar, description=f"reading {name}")
        )
    loud = "bold white on red" if source.kind == "simulated" else "bold"
    console.print(source.note, style=loud, soft_wrap=True)
    return source


def data_of(run: RunFolder, config: Config, given: Path | None, console: Console) -> Source:
    """The data that a run began with, from where they were or from another place.

    Raises:
        ForecastError: there are none, or other ones.
    """
    clock = Clock(config.data["tz"], config.data["stamp"])
    if config.data["kind"] == "simulated" and given is None:
        source = simulated(clock, "the run began with them")
        console.print(source.note, style="bold white on red")
    else:
        source = read_data(given or Path(config.data["place"]), clock, console)
    if source.to_json()["sha256"] != config.data["sha256"]:
        raise ForecastError(f"{run.path}: began with other data than {source.place} holds now")
    return source.named_as_before(_regions(run))


def _regions(run: RunFolder) -> list[str]:
    """Those that the run has scales of, if any yet."""
    path = run.file("scales.json")
    content = read_json(path) if path.exists() else {}
    return list(content) if isinstance(content, dict) else []


def execute(run: RunFolder, config: Config, source: Source, console: Console) -> list[Result]:
    """Do whatever of a run is not done yet, and write and print its results; what was scored before and is
    not now keeps its scores.

    Raises:
        gatedcells.forecast.training.Interrupted: Ctrl-C during training; the run can be resumed.
        ForecastError: as the parts say.
    """
    torch.set_num_threads(config.threads)
    recipe, trees = config.recipe, _trees(config)
    lookback = recipe.lookback_hours if isinstance(recipe, ArticleRecipe) else LOOKBACK
    regions = regions_of(config, source)
    before = scored_before(run, [region.name for region in regions])
    console.print(flaw_table(source.series, config.policy, regions))
    train_windows, test_windows = count_windows(regions)
    console.print(
        f"{len(regions)} regions, lookback {lookback} h: {train_windows:,} training windows,"
        f" {test_windows:,} test hours",
    )
    if config.as_published:
        console.print(
            "As in the article, scales are fitted on all rows, including the test part"
            + (", and spikes are kept." if config.policy.on_outlier == "keep" else "."),
            style="yellow",
        )
    for cell in config.cells:
        if distributed.as_first_says(not run.is_trained(cell)):
            _train(run, config, cell, regions, console)
    if not distributed.share().first:
        return []
    results, calibrators, alone = score_networks(run, config, regions, console)
    run.save_calibration(calibrators)
    if alone:
        run.save_calibration(alone, alone=True)
    results += score_formulas(config, regions, console)
    if trees is not None:
        results.append(_boosted(trees, regions, getattr(recipe, "season", True), console))
    known = {result.name for result in results}
    for result in before:
        if result.name not in known:
            console.print(f"{result.name}: as scored before, it is not a setting of the run", style="dim")
            results.append(result)
    _write(run, config, source, regions, results)
    page.write(run.path / page.NAME, findings_of(run, config, source, regions, results))
    title = f"Forecasting the next hour: {config.recipe_name} recipe"
    if source.kind == "simulated":
        title += ", SIMULATED DATA"
    console.print(region_table([r for r in results if r.parameters] + results[-2:]))
    console.print(interval_table([r for r in results if r.interval_scores]))
    console.print(score_table(results, title, pjm=source.kind == "pjm"))
    return results


def new_config(
    recipe_name: str,
    recipe: Any,
    cells: tuple[str, ...],
    seed: int,
    threads: int | None,
    data: dict[str, Any],
    policy: Policy = DEFAULT,
    device: str = "cpu",
    trees: int | None = None,
) -> Config:
    """The settings of a run that starts now."""
    versions = {
        "gatedcells": gatedcells.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "commit": commit(),
    }
    threads = threads or torch.get_num_threads()
    return Config(recipe_name, recipe, cells, seed, threads, data, versions, policy, device, trees)


def recipe_for(recipe: Any, source: Source, policy: Policy, console: Console, *, fewer: bool) -> Any:
    """The recipe for these data, see `FastRecipe.suited`; a line says what became of it.

    Raises:
        ForecastError: a series is too short, or the policy refuses it.
    """
    if not isinstance(recipe, FastRecipe):
        return recipe
    regions = prepare(source.series, LOOKBACK, policy, recipe.hours_needed)
    found = suited(recipe, regions, fewer=fewer)
    if found != recipe:
        console.print(told(recipe, found), style="yellow", soft_wrap=True)
    return found


def regions_of(config: Config, source: Source) -> list[Region]:
    """The series, split and filled as a run of load has them.

    Raises:
        ForecastError: a series is too short, or the run's policy refuses it.
    """
    recipe = config.recipe
    if isinstance(recipe, BitcoinRecipe):
        raise ForecastError("a run of the bitcoin recipe has no regions")
    lookback = recipe.lookback_hours if isinstance(recipe, ArticleRecipe) else LOOKBACK
    return prepare(source.series, lookback, config.policy, recipe.hours_needed)


Calibrators = dict[str, dict[str, Calibrator]]  # by cell and region


def score_networks(
    run: RunFolder, config: Config, regions: Sequence[Region], console: Console
) -> tuple[list[Result], Calibrators, Calibrators]:
    """Every network's forecasts of the test hours with intervals; what is then known of its errors; and what
    of those without the neighbours' correction, of networks that have one."""
    results: list[Result] = []
    calibrators: Calibrators = {}
    alone: Calibrators = {}
    for cell in config.cells:
        scored_network = _network(run, config, cell, regions, console)
        result, calibrators[cell] = with_intervals(scored_network, regions)
        if result.alone is not None:
            _, alone[cell] = with_intervals(result.alone, regions)
        results.append(result)
    return results, calibrators, alone


def _network(
    run: RunFolder, config: Config, cell: str, regions: Sequence[Region], console: Console
) -> Result:
    forecaster, seconds = run.forecaster(config, cell)
    known = list(forecaster.scales)
    if known != [r.name for r in regions]:
        raise ForecastError(f"{run.path}: was trained on {', '.join(known)}, not on these data")
    alone: list[FloatArray] | None = None
    with progress_bar(console) as progress:
        bar = progress.add_task(f"{cell.upper()} test", total=sum(len(r.test) for r in regions))
        if getattr(forecaster, "neighbours", None) is None:
            forecasts = forecaster.forecast_test(regions, lambda hours: progress.advance(bar, hours))
        else:
            both = forecaster.forecast_test_twice(regions, lambda hours: progress.advance(bar, hours))
            forecasts, alone = both
    parameters = sum(p.numel() for p in forecaster.network.parameters())
    result = scored(cell.upper(), regions, forecasts, parameters, seconds)
    return result if alone is None else replace(result, alone=scored(cell.upper(), regions, alone))


def _train(run: RunFolder, config: Config, cell: str, regions: Sequence[Region], console: Console) -> None:
    recipe = config.recipe_for(cell)
    task: FastTask | ArticleTask
    if isinstance(recipe, FastRecipe):
        task = FastTask(recipe, regions)
    else:
        task = ArticleTask(recipe, regions, config.seed)
    first = distributed.share().first
    if first:
        run.save_scales(task.scales)
    name = f"{cell.upper()} training"
    forecaster, done = train_shown(
        task, name, console, seed=config.seed, checkpoint=run.checkpoint(cell), device=config.device
    )
    if not first:
        return
    started = time.perf_counter()
    if isinstance(recipe, FastRecipe) and recipe.neighbours:
        with progress_bar(console) as progress:
            bar = progress.add_task(f"{cell.upper()} neighbours", total=sum(len(r.test) for r in regions))
            forecaster.fit_neighbours(regions, lambda hours: progress.advance(bar, hours))
    done.seconds += time.perf_counter() - started
    run.save_forecaster(cell, forecaster, done.seconds)
    console.print(
        f"{cell.upper()}: {done.step} steps, {done.epoch:.1f} epochs, loss {done.loss:.5f},"
        f" {done.seconds:.1f} s",
    )


def score_formulas(config: Config, regions: Sequence[Region], console: Console) -> list[Result]:
    """The baselines' forecasts of the test hours."""
    models = baselines(config.recipe.holidays if isinstance(config.recipe, FastRecipe) else "US")
    with progress_bar(console) as progress:
        bar = progress.add_task("baselines", total=len(models) * len(regions))
        started = time.perf_counter()
        results = score_baselines(regions, models, lambda _: progress.advance(bar))
        progress.update(bar, description=f"baselines {time.perf_counter() - started:.0f} s")
    return results


def _trees(config: Config) -> PooledTrees | None:
    """LightGBM as the run's settings ask for it.

    Raises:
        ForecastError: it is not installed.
    """
    if config.trees is None:
        return None
    holidays = getattr(config.recipe, "holidays", "US")
    return PooledTrees(config.trees, threads=config.threads, seed=config.seed, holidays=holidays)


def _boosted(trees: PooledTrees, regions: Sequence[Region], season: bool, console: Console) -> Result:
    with progress_bar(console) as progress:
        bar = progress.add_task("LightGBM", total=trees.trees)
        started = time.perf_counter()
        forecasts = trees.forecast(regions, lambda done: progress.update(bar, completed=done), season=season)
    return scored(trees.name, regions, forecasts, seconds=time.perf_counter() - started)


def findings_of(
    run: RunFolder, config: Config, source: Source, regions: Sequence[Region], results: Sequence[Result]
) -> Findings:
    """What the page tells of a run that was scored."""
    charted = [regions[number] for number in shown(regions, results[0])]
    days = [
        day for cell in config.cells for day in typical_days(run.forecaster(config, cell)[0], cell, charted)
    ]
    return Findings(run.path.name, config, source.kind, source.note, regions, results, days)


def _write(
    run: RunFolder, config: Config, source: Source, regions: Sequence[Region], results: Sequence[Result]
) -> None:
    networks = [r for r in results if r.parameters]
    write_json(
        run.metrics,
        {
            "format": FORMAT,
            "data": source.kind,
            "recipe": config.recipe_name,
            "windows": dict(zip(("train", "test"), count_windows(regions), strict=True)),
            "policy": asdict(config.policy),
            "flaws": {one.region: one.flaws.counts() for one in source.series},
            "models": {r.name: r.to_json() for r in results},
        },
    )
    with written_csv(run.path / "test_forecasts.csv") as table:
        heads: list[str] = []
        for network in networks:
            name = network.name.lower()
            heads.append(f"{name}_mw")
            for level in network.intervals[0].levels if network.intervals else ():
                heads += [f"{name}_low_{100 * level:.0f}", f"{name}_high_{100 * level:.0f}"]
        table.writerow(["region", "Datetime", "actual_mw", *heads])
        for number, region in enumerate(regions):
            stamps = region.series.local_stamps()[region.test].strftime("%Y-%m-%d %H:%M:%S")
            columns = [region.actual_mw]
            for network in networks:
                columns.append(network.forecasts_mw[number])
                if network.intervals:
                    found = network.intervals[number]
                    columns += [b for pair in zip(found.lower, found.upper, strict=True) for b in pair]
            cells = [in_digits(c) for c in columns]
            table.writerows(zip([region.name] * len(stamps), stamps, *cells, strict=True))
    subtitle = "SIMULATED DATA" if source.kind == "simulated" else f"{config.recipe_name} recipe"
    plot_four_regions(run.path / "predicted_vs_actual.png", regions, networks, subtitle)
    plot_all_regions(run.path / "all_regions.png", regions, networks, subtitle)
