"""A run's folder: its settings, weights, scales and scores; what `predict` and `--resume` read.

::

    RUN/config.json                 recipe, seed, data, versions
    RUN/scales.json                 by region, fitted on the training part
    RUN/gru/weights.safetensors     a trained network (likewise lstm/)
    RUN/gru/neighbours.json         what the regions' errors say of one another, if the recipe asks for it
    RUN/gru/checkpoint.safetensors  an unfinished training
    RUN/calibration.json            errors of the test hours, for intervals of later ones
    RUN/metrics.json                scores, once all is done
    RUN/test_forecasts.csv, *.png   forecasts of the test hours and plots
    RUN/report.html                 all of it for a reader

Everything is safetensors, JSON, CSV, PNG or HTML: nothing in it is executed when it is read.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from gatedcells.forecast.article import ArticleForecaster, ArticleRecipe
from gatedcells.forecast.bitcoin import BitcoinRecipe, PriceForecaster
from gatedcells.forecast.cells import CELLS
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import BestRecipe, FastForecaster, FastRecipe
from gatedcells.forecast.files import read_json, read_tensors, write_json, write_tensors
from gatedcells.forecast.intervals import Calibrator
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
# settings that runs of before do not have, and what these did
_ADDED: dict[str, Any] = {"members": 1, "precision": "float32", "neighbours": False, "loss_in": "percent"}
_LARGEST = 1_000_000  # no size in a recipe is larger


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
    """

    recipe_name: str
    recipe: Recipe
    cells: tuple[str, ...]
    seed: int
    threads: int
    data: dict[str, Any]
    versions: dict[str, str]
    policy: Policy = DEFAULT

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

    @property
    def metrics(self) -> Path:
        """Scores."""
        return self.path / "metrics.json"

    def checkpoint(self, cell: str) -> Path:
        """Of a training under way."""
        return self.path / cell / "checkpoint.safetensors"

    def weights(self, cell: str) -> Path:
        """Of a trained network."""
        return self.path / cell / "weights.safetensors"

    def _neighbours(self, cell: str) -> Path:
        return self.path / cell / "neighbours.json"

    def create(self, config: Config) -> None:
        """Make the folder and write its settings.

        Raises:
            ForecastError: it exists and is not empty, or cannot be written.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ForecastError(f"{self.path}: exists already; choose another folder, or go on with --resume")
        content = {"format": FORMAT, **asdict(config)}
        write_json(self.path / "config.json", content)

    def config(self) -> Config:
        """Read the settings.

        Raises:
            ForecastError: not a run folder, one of another version, or settings that make no sense.
        """
        path = self.path / "config.json"
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else None
            raise ForecastError(
                f"{path}: is of format {found!r}; this version of gatedcells reads format {FORMAT}"
            )
        try:
            recipe_name = content["recipe_name"]
            recipe = _recipe(RECIPES[recipe_name], content["recipe"])
            cells = tuple(cell for cell in content["cells"] if cell in CELLS)
            if not cells or len(cells) != len(content["cells"]):
                raise ValueError(f"cells {content['cells']!r}")
            return Config(
                recipe_name, recipe, cells, int(content["seed"]), int(content["threads"]),
                dict(content["data"]), dict(content["versions"]), _policy(recipe, content),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ForecastError(f"{path}: settings that this version cannot read ({error})") from error

    def save_scales(self, scales: dict[str, Any]) -> None:
        """Write the regions' scales."""
        write_json(self.path / "scales.json", {name: scale.to_json() for name, scale in scales.items()})

    def save_calibration(self, calibrators: dict[str, dict[str, Calibrator]]) -> None:
        """Write what is known of the errors: by cell and region."""
        content = {
            cell: {region: one.to_json() for region, one in regions.items()}
            for cell, regions in calibrators.items()
        }
        write_json(self.path / "calibration.json", content)

    def calibrator(self, cell: str, region: str) -> Calibrator | None:
        """What is known of a network's errors in a region; None if the run has not been scored.

        Raises:
            ForecastError: the file is something else.
        """
        path = self.path / "calibration.json"
        if not path.exists():
            return None
        try:
            return Calibrator.from_json(read_json(path)[cell][region])
        except (KeyError, TypeError, ValueError) as error:
            raise ForecastError(f"{path}: not the calibration of {cell} in {region} ({error})") from error

    def save_forecaster(self, cell: str, forecaster: Any, seconds: float) -> None:
        """Write a trained network's weights, with its seconds of training, and drop its checkpoint."""
        notes = {"train_seconds": repr(seconds)}
        neighbours: Neighbours | None = getattr(forecaster, "neighbours", None)
        if neighbours is not None:
            write_json(self._neighbours(cell), neighbours.to_json())
        write_tensors(self.weights(cell), forecaster.network.state_dict(), notes)
        self.checkpoint(cell).unlink(missing_ok=True)

    def forecaster(self, config: Config, cell: str) -> tuple[Any, float]:
        """Rebuild a trained forecaster; also its seconds of training.

        Raises:
            ForecastError: the network is not trained (yet), or its files do not fit together.
        """
        if cell not in config.cells:
            raise ForecastError(f"{self.path}: has no {cell}, only {', '.join(config.cells)}")
        if not self.weights(cell).exists():
            raise ForecastError(f"{self.path}: its {cell} is not trained yet; go on with --resume")
        path = self.path / "scales.json"
        content = read_json(path)
        make, scale_type = _MAKERS[config.recipe_name]
        try:
            scales = {str(name): scale_type(**_scale_fields(value)) for name, value in content.items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise ForecastError(f"{path}: not the scales of a {config.recipe_name} run ({error})") from error
        tensors, notes = read_tensors(self.weights(cell))
        with torch.device("meta"):  # no memory for what the settings claim before the weights bear it out
            forecaster = make(config.recipe_for(cell), scales)
        try:
            forecaster.network.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ForecastError(
                f"{self.weights(cell)}: does not fit the run's settings ({reason})"
            ) from error
        if getattr(forecaster.recipe, "neighbours", False):
            forecaster.neighbours = self._read_neighbours(cell, tuple(scales))
        try:
            return forecaster, float(notes.get("train_seconds", "nan"))
        except ValueError as error:
            raise ForecastError(f"{self.weights(cell)}: train_seconds is not a number") from error

    def _read_neighbours(self, cell: str, regions: tuple[str, ...]) -> Neighbours:
        path = self._neighbours(cell)
        try:
            neighbours = Neighbours.from_json(read_json(path))
        except (KeyError, TypeError, ValueError) as error:
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


def _recipe(kind: type[Recipe], content: dict[str, Any]) -> Recipe:
    """Settings from JSON, each of the type and size that the recipe expects."""
    default = kind()
    known = {field.name for field in fields(kind)}
    content = {name: value for name, value in _ADDED.items() if name in known} | content
    if set(content) != known:
        raise ValueError(f"settings {sorted(set(content) ^ known)} are unknown or missing")
    checked: dict[str, Any] = {}
    for name in known:
        value, like = content[name], getattr(default, name)
        if isinstance(like, tuple):
            value = tuple(_checked_size(name, int(part)) for part in value)
        elif not isinstance(value, (int, float, str)) or isinstance(value, bool) != isinstance(like, bool):
            raise ValueError(f"{name} is {value!r}")
        elif isinstance(like, int) and not isinstance(like, bool):
            value = value if name == "steps" else _checked_size(name, value)
        elif type(value) is not type(like) and not (isinstance(like, float) and isinstance(value, int)):
            raise ValueError(f"{name} is {value!r}")
        checked[name] = value
    return kind(**checked)


def _policy(recipe: Recipe, content: dict[str, Any]) -> Policy:
    """What a run makes of flaws; runs of before have no word of it, and the article's left spikes in."""
    as_published = isinstance(recipe, ArticleRecipe) and recipe.scaled_on == "all"
    before = {"on_gap": "fill", "on_outlier": "keep" if as_published else "repair"}
    return Policy(**content.get("policy", before))


def _checked_size(name: str, value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise ValueError(f"{name} is {value!r}")
    return value


def _scale_fields(value: Any) -> dict[str, Any]:
    return {
        str(name): tuple(float(v) for v in part) if isinstance(part, list) else float(part)
        for name, part in value.items()
    }
