"""A run's folder: its settings, weights, scales and scores; what `predict` and `--resume` read.

::

    RUN/config.json                 recipe, seed, data, versions
    RUN/scales.json                 by region, fitted on the training part
    RUN/gru/weights.safetensors     a trained network (likewise lstm/)
    RUN/gru/neighbours.json         what the regions' errors say of one another, if the recipe asks for it
    RUN/gru/checkpoint.safetensors  an unfinished training
    RUN/calibration.json            errors of the test hours, for intervals of later ones
    RUN/calibration_alone.json      the same without the neighbours' correction, if the recipe asks for it
    RUN/metrics.json                scores, once all is done
    RUN/test_forecasts.csv, *.png   forecasts of the test hours and plots
    RUN/report.html                 all of it for a reader

Everything is safetensors, JSON, CSV, PNG or HTML: nothing in it is executed when it is read.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gatedcells._files import is_free
from gatedcells.forecast.article import ArticleForecaster, ArticleRecipe
from gatedcells.forecast.bitcoin import BitcoinRecipe, PriceForecaster
from gatedcells.forecast.cells import CELLS, settled
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastForecaster
from gatedcells.forecast.fast_recipe import BestRecipe, FastRecipe
from gatedcells.forecast.files import (
    drop,
    of_format,
    parse_json,
    read_json,
    read_tensors,
    size_of,
    write_json,
    write_tensors,
)
from gatedcells.forecast.intervals import Calibrator
from gatedcells.forecast.limits import (
    check_recipe,
    check_run,
    read_data,
    read_device,
    read_recipe,
    read_texts,
    read_trees,
)
from gatedcells.forecast.neighbours import Neighbours
from gatedcells.forecast.policy import DEFAULT, Policy
from gatedcells.forecast.scaling import LogScale, MinMax

FORMAT = 1
Recipe = FastRecipe | ArticleRecipe | BitcoinRecipe
RECIPES: dict[str, type[FastRecipe] | type[ArticleRecipe] | type[BitcoinRecipe]] = {
    "fast": FastRecipe,
    "best": BestRecipe,
    "article": ArticleRecipe,
    "bitcoin": BitcoinRecipe,
}
_CALIBRATION = {False: "calibration.json", True: "calibration_alone.json"}


@dataclass(frozen=True)
class Config:
    """What a run was asked to do.

    Attributes:
        recipe_name: ``"fast"``, ``"best"``, ``"article"`` or ``"bitcoin"``.
        recipe: its settings; the cell in it is the first of ``cells``.
        cells: which networks are trained.
        seed: of everything random.
        threads: of torch; results are the same bits only for the same number.
        data: as `gatedcells.forecast.sources.Source.to_json` gives it; of prices the file and its digest.
        versions: of gatedcells, torch and Python, and the commit where it is known.
        policy: what is made of holes and spikes in load files.
        device: that networks are trained on.
        trees: of LightGBM beside the networks; None for no LightGBM.
    """

    recipe_name: str
    recipe: Recipe
    cells: tuple[str, ...]
    seed: int
    threads: int
    data: dict[str, Any]
    versions: dict[str, str]
    policy: Policy = DEFAULT
    device: str = "cpu"
    trees: int | None = None

    @property
    def as_published(self) -> bool:
        """Whether scales are fitted on all rows, as the article does."""
        return isinstance(self.recipe, ArticleRecipe) and self.recipe.scaled_on == "all"

    def recipe_for(self, cell: str) -> Any:
        """The settings with that cell."""
        return replace(self.recipe, cell=cell)


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    path: Path

    def file(self, *names: str) -> Path:
        """A path in the folder.

        Raises:
            ForecastError: a link on the way leads out of the folder.
        """
        path = self.path.joinpath(*names)
        try:
            target = path.resolve()
            if target.is_symlink():  # from Python 3.13 on resolve() leaves a circle as it is
                raise OSError(f"links in a circle at {target}")
            inside = target.is_relative_to(self.path.resolve())
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle
            raise ForecastError(f"{path}: cannot be read ({error})") from error
        if not inside:
            raise ForecastError(f"{path}: is a link to {target}; expected a file in the run folder itself")
        return path

    @property
    def metrics(self) -> Path:
        """Scores."""
        return self.file("metrics.json")

    def checkpoint(self, cell: str) -> Path:
        """Of a training under way."""
        return self.file(cell, "checkpoint.safetensors")

    def weights(self, cell: str) -> Path:
        """Of a trained network."""
        return self.file(cell, "weights.safetensors")

    def is_trained(self, cell: str) -> bool:
        """Whether the weights are there; of a run that was stopped right behind them the checkpoint goes."""
        found = self.weights(cell).exists()
        if found:
            drop(self.checkpoint(cell))
        return found

    def _neighbours(self, cell: str) -> Path:
        return self.file(cell, "neighbours.json")

    def create(self, config: Config) -> None:
        """Make the folder and write its settings.

        Raises:
            ForecastError: it exists and is not empty, or cannot be written; or a setting makes no sense.
        """
        try:
            check_recipe(config.recipe)
            check_run(config.seed, config.threads)
            read_trees(config.trees)
            free = is_free(self.path)
        except ValueError as error:
            raise ForecastError(str(error)) from error
        except OSError as error:
            raise ForecastError(f"{self.path}: cannot be made a run folder ({error})") from error
        if not free:
            raise ForecastError(f"{self.path}: exists already; choose another folder, or go on with --resume")
        self.save_config(config)

    def save_config(self, config: Config) -> None:
        """Write the settings."""
        write_json(self.path / "config.json", {"format": FORMAT, **asdict(config)})

    def config(self) -> Config:
        """Read the settings.

        Raises:
            ForecastError: not a run folder, one of another version, or settings that make no sense.
        """
        path = self.file("config.json")
        content = of_format(path, read_json(path), FORMAT)
        try:
            recipe_name = content["recipe_name"]
            recipe = read_recipe(RECIPES[recipe_name], content["recipe"])
            cells = content["cells"]
            if not isinstance(cells, list) or not cells or not set(cells) <= set(CELLS):
                raise ValueError(f"cells are {cells!r}; expected some of {', '.join(CELLS)}")
            check_run(content["seed"], content["threads"])
            return Config(
                recipe_name, recipe, tuple(dict.fromkeys(cells)), content["seed"], content["threads"],
                read_data(content["data"], recipe_name), read_texts("versions", content["versions"]),
                _policy(recipe, content), read_device(content.get("device", "cpu")),
                read_trees(content.get("trees")),
            )  # fmt: skip
        except ForecastError as error:
            raise ForecastError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ForecastError(f"{path}: settings that this version cannot read ({error})") from error

    def save_scales(self, scales: dict[str, Any]) -> None:
        """Write the regions' scales."""
        write_json(self.path / "scales.json", {name: scale.to_json() for name, scale in scales.items()})

    def save_calibration(self, calibrators: dict[str, dict[str, Calibrator]], *, alone: bool = False) -> None:
        """Write what is known of the errors, by cell and region; ``alone``: of those that the networks make
        without the neighbours' correction."""
        content = {
            cell: {region: one.to_json() for region, one in regions.items()}
            for cell, regions in calibrators.items()
        }
        write_json(self.path / _CALIBRATION[alone], content)

    def calibrator(self, cell: str, region: str, *, alone: bool = False) -> Calibrator | None:
        """What is known of a network's errors in a region, ``alone`` as of `save_calibration`; None if they
        have not been scored.

        Raises:
            ForecastError: the file is something else.
        """
        path = self.file(_CALIBRATION[alone])
        if not path.exists():
            return None
        try:
            return Calibrator.from_json(read_json(path)[cell][region])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ForecastError(f"{path}: not the calibration of {cell} in {region} ({error})") from error

    def save_forecaster(self, cell: str, forecaster: Any, seconds: float) -> None:
        """Write a trained network's weights, with its seconds of training, and drop its checkpoint."""
        notes = {"train_seconds": repr(seconds), "trained": json.dumps(_trained(forecaster))}
        neighbours: Neighbours | None = getattr(forecaster, "neighbours", None)
        if neighbours is not None:
            write_json(self._neighbours(cell), neighbours.to_json())
        write_tensors(self.weights(cell), forecaster.network.state_dict(), notes)
        drop(self.checkpoint(cell))

    def forecaster(self, config: Config, cell: str) -> tuple[Any, float]:
        """Rebuild a trained forecaster; also its seconds of training.

        Raises:
            ForecastError: the network is not trained (yet), or its files do not fit together.
        """
        if cell not in config.cells:
            raise ForecastError(f"{self.path}: has no {cell}, only {', '.join(config.cells)}")
        if not self.weights(cell).exists():
            raise ForecastError(f"{self.path}: its {cell} is not trained yet; go on with --resume")
        path = self.file("scales.json")
        content = read_json(path)
        make, scale_type = _MAKERS[config.recipe_name]
        try:
            scales = {str(name): scale_type(**_scale_fields(value)) for name, value in content.items()}
            with (
                settled(),
                torch.device("meta"),
            ):  # no memory for what settings claim before the weights bear it out
                forecaster = make(config.recipe_for(cell), scales)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ForecastError(f"{path}: not the scales of a {config.recipe_name} run ({error})") from error
        path, expected = self.weights(cell), forecaster.network.state_dict()
        tensors, notes = read_tensors(path, size_of(expected.values()))
        try:
            _check_trained(forecaster, parse_json(notes.get("trained", "{}")))
            for name, tensor in tensors.items():
                if name in expected and tensor.dtype != expected[name].dtype:
                    raise ValueError(f"{name} is {tensor.dtype}; expected {expected[name].dtype}")
            forecaster.network.load_state_dict(tensors, assign=True)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ForecastError(f"{path}: does not fit the run's settings ({reason})") from error
        if getattr(forecaster.recipe, "neighbours", False):
            forecaster.neighbours = self._read_neighbours(cell, tuple(scales))
        try:
            seconds = float(notes.get("train_seconds", "nan"))
        except ValueError as error:
            raise ForecastError(f"{path}: train_seconds is not a number") from error
        return forecaster, seconds

    def _read_neighbours(self, cell: str, regions: tuple[str, ...]) -> Neighbours:
        path = self._neighbours(cell)
        try:
            neighbours = Neighbours.from_json(read_json(path))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ForecastError(f"{path}: not what errors say of one another ({error})") from error
        if neighbours.regions != regions:
            found = ", ".join(neighbours.regions)
            raise ForecastError(f"{path}: is of {found}; expected {', '.join(regions)}")
        return neighbours


_MAKERS: dict[str, tuple[Callable[[Any, Any], Any], Callable[..., Any]]] = {
    "fast": (FastForecaster, LogScale),
    "best": (FastForecaster, LogScale),
    "article": (ArticleForecaster, MinMax),
    "bitcoin": (PriceForecaster, MinMax),
}


def _trained(forecaster: Any) -> dict[str, Any]:
    """What a network's forecasts depend on beside its weights."""
    scales = {name: scale.to_json() for name, scale in forecaster.scales.items()}
    return json.loads(json.dumps({"recipe": asdict(forecaster.recipe), "scales": scales}))


def _check_trained(forecaster: Any, kept: Any) -> None:
    """Settings and scales are those that the weights were trained with, as far as the weights say so."""
    found = _trained(forecaster)
    for name, value in kept.get("recipe", {}).items():
        if found["recipe"].get(name) != value:
            given = found["recipe"].get(name)
            raise ValueError(f"{name} was {value!r} in training, and is {given!r} in config.json")
    if kept.get("scales", found["scales"]) != found["scales"]:
        raise ValueError("scales.json is not the one of the training")


def _policy(recipe: Recipe, content: dict[str, Any]) -> Policy:
    """What a run makes of flaws; runs of before have no word of it, and the article's left spikes in."""
    as_published = isinstance(recipe, ArticleRecipe) and recipe.scaled_on == "all"
    before = {"on_gap": "fill", "on_outlier": "keep" if as_published else "repair"}
    return Policy(**read_texts("policy", content.get("policy", before)))


def _scale_fields(value: Any) -> dict[str, Any]:
    return {
        str(name): tuple(float(v) for v in part) if isinstance(part, list) else float(part)
        for name, part in value.items()
    }
