"""What ``gatedcells forecast`` does with its options: a run begins, or one goes on, to its end."""

from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from gatedcells.forecast.calendar import check_country
from gatedcells.forecast.cells import CELLS
from gatedcells.forecast.console import plain_console, stoppable
from gatedcells.forecast.data import Clock
from gatedcells.forecast.distributed import device, share
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.policy import Policy, check
from gatedcells.forecast.runs import RECIPES, Config, RunFolder

_OPTIONS_OF = {
    "fast": ("steps", "holidays", "precision", "neighbours"),
    "best": ("steps", "holidays", "precision", "neighbours"),
    "article": ("epochs", "fraction", "layers", "dropout"),
    "bitcoin": ("epochs", "dropout"),
}
# nothing that the bitcoin recipe has
_OF_LOAD = ("hidden_size", "tz", "stamp", "trees", "on_gap", "on_outlier", "device")
_NOT_BITCOIN = "belongs to the recipes for load, not to bitcoin"


def check_options(context: click.Context, options: dict[str, Any]) -> None:
    """Refuse options that belong to another recipe than the one asked for.

    Raises:
        click.UsageError: there is one.
    """
    name = "article" if options["as_published"] else options["recipe"]
    for other, names in _OPTIONS_OF.items():
        for option in names:
            if other != name and option not in _OPTIONS_OF[name] and options[option] is not None:
                raise click.UsageError(f"--{option} belongs to the {other} recipe, not to {name}", context)
    for option in _OF_LOAD if name == "bitcoin" else ():
        if context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE:
            shown = {"trees": "lightgbm"}.get(option, option.replace("_", "-"))
            raise click.UsageError(f"--{shown} {_NOT_BITCOIN}", context)


def start_or_resume(context: click.Context, options: dict[str, Any]) -> None:
    """Do what the options of `check_options` ask for, or go on with the run that they name.

    Raises:
        ForecastError: as the parts say.
        click.UsageError: an option that a run which goes on has already.
    """
    console = plain_console()
    if options["resume"] is None:
        _check_lightgbm(options["trees"])
        name, recipe = _recipe(options)
        if name == "bitcoin":
            _start_bitcoin(name, recipe, options, console)
        else:
            _start(name, recipe, options, console)
        return
    _check_resumed(context, options)
    run = RunFolder(options["resume"])
    config = run.config()
    if config.recipe_name == "bitcoin":
        if options["trees"] is not None:
            raise ForecastError(f"{run.path}: --lightgbm {_NOT_BITCOIN}")
        _resume_bitcoin(run, config, options["data"], console)
    else:
        _resume(run, config, options, console)


def _check_lightgbm(trees: int | None) -> None:
    if trees is not None:
        from gatedcells.forecast.trees import lightgbm_module

        lightgbm_module()


def _recipe(options: dict[str, Any]) -> tuple[str, Any]:
    name = "article" if options["as_published"] else options["recipe"]
    common = ("learning_rate", "batch_size") + (("hidden_size",) if name != "bitcoin" else ())
    chosen = {key: options[key] for key in (*common, *_OPTIONS_OF[name]) if options[key] is not None}
    if "holidays" in chosen:
        check_country(chosen["holidays"])
    if options["as_published"]:
        chosen["scaled_on"] = "all"
    return name, RECIPES[name](**chosen)


def _start(name: str, recipe: Any, options: dict[str, Any], console: Console) -> None:
    from gatedcells.forecast.pipeline import new_config, read_data, recipe_for

    device(options["device"])  # is there, before anything is read
    source = read_data(options["data"], Clock(options["tz"], options["stamp"]), console)
    usual = "keep" if options["as_published"] else "repair"
    policy = Policy(options["on_gap"], options["on_outlier"] or usual)
    for series in source.series:
        check(series, policy)  # before there is a folder
    fewer = options["steps"] is None and options["batch_size"] is None
    recipe = recipe_for(recipe, source, policy, console, fewer=fewer)
    config = new_config(
        name, recipe, _cells(options), options["seed"], options["threads"], source.to_json(), policy,
        options["device"], options["trees"],
    )  # fmt: skip
    _finish(_new_folder(options, config), config, source, console)


def _resume(run: RunFolder, config: Config, options: dict[str, Any], console: Console) -> None:
    from gatedcells.forecast.pipeline import data_of

    trees = options["trees"] if config.trees is None else config.trees
    if options["trees"] not in (None, trees):
        raise ForecastError(
            f"{run.path}: began with --lightgbm {trees}, got --lightgbm {options['trees']}; leave it out"
        )
    _check_lightgbm(trees)
    source = data_of(run, config, options["data"], console)
    if trees != config.trees:
        config = replace(config, trees=trees)
        if share().first:
            run.save_config(config)
    _finish(run, config, source, console)


def _finish(run: RunFolder, config: Config, source: Any, console: Console) -> None:
    from gatedcells.forecast.page import NAME
    from gatedcells.forecast.pipeline import execute

    _to_its_end(run, execute, config, source, console)
    console.print(f"Run folder: {run.path}", soft_wrap=True)
    console.print(f"Report: {run.path / NAME}", soft_wrap=True)
    example = next(iter(config.data["sha256"]), "FILE.csv")
    file = Path(config.data["place"]) / example
    console.print(
        f"Next hours of a file: gatedcells forecast predict {run.path} --data {file}",
        soft_wrap=True,
    )


def _start_bitcoin(name: str, recipe: Any, options: dict[str, Any], console: Console) -> None:
    from gatedcells.forecast.bitcoin_run import data_of, find_prices
    from gatedcells.forecast.pipeline import new_config

    prices, path = find_prices(options["data"])
    config = new_config(
        name, recipe, _cells(options), options["seed"], options["threads"], data_of(prices, path)
    )
    _finish_bitcoin(_new_folder(options, config), config, prices, path, console)


def _resume_bitcoin(run: RunFolder, config: Config, data: Path | None, console: Console) -> None:
    from gatedcells.forecast.bitcoin_run import data_of, find_prices

    prices, path = find_prices(data or Path(config.data["place"]))
    if data_of(prices, path)["sha256"] != config.data["sha256"]:
        raise ForecastError(f"{run.path}: began with other prices than {path} holds now")
    _finish_bitcoin(run, config, prices, path, console)


def _finish_bitcoin(run: RunFolder, config: Config, prices: Any, path: Path, console: Console) -> None:
    from gatedcells.forecast.bitcoin_run import execute

    _to_its_end(run, execute, config, prices, console)
    console.print(f"Run folder: {run.path}", soft_wrap=True)
    console.print(f"Next day: gatedcells forecast predict {run.path} --data {path}", soft_wrap=True)


def _to_its_end(run: RunFolder, execute: Any, config: Config, data: Any, console: Console) -> None:
    with stoppable(f"Stopped. Go on with: gatedcells forecast --resume {run.path}"):
        execute(run, config, data, console)


def _cells(options: dict[str, Any]) -> tuple[str, ...]:
    return CELLS if options["cell"] == "both" else (options["cell"],)


def _new_folder(options: dict[str, Any], config: Config) -> RunFolder:
    run = RunFolder(options["out"] or _dated_folder())
    if share().first:
        run.create(config)
    return run


def _dated_folder() -> Path:
    """A folder that is called as this second is, made here; if another run of this second has it, a number
    is added."""
    dated = Path("forecast-runs") / f"{datetime.now():%Y%m%d-%H%M%S}"
    for number in count(1) if share().first else ():
        path = dated if number == 1 else dated.with_name(f"{dated.name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ForecastError(f"{path}: cannot be made a run folder ({error})") from error
        return path
    return dated


def _check_resumed(context: click.Context, options: dict[str, Any]) -> None:
    given = [
        f"--{name.replace('_', '-')}"
        for name in options
        if name not in ("resume", "data", "trees")
        and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"a resumed run has its own settings; leave out {', '.join(given)}", context)
