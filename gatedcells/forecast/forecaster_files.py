"""A fitted forecaster's folder.

::

    FOLDER/forecaster.json            parameters, series, grid, report; the digest of the other file
    FOLDER/forecaster.safetensors     weights, scales, margins, and the values that forecasts go on from
    FOLDER/checkpoint.safetensors     of a training that was stopped, as ``forecast fit`` leaves it

Written over, the tensors come to lie in ``forecaster-again.safetensors``, and so back and forth: whatever
stops the writing, ``forecaster.json`` names a file that is whole. Nothing in it is executed when it is
read, and nothing is believed before the tensors bear it out.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatedcells._files import is_free
from gatedcells.forecast.conformal import WIDEST, Margins
from gatedcells.forecast.covariates import Covariates
from gatedcells.forecast.data import Clock
from gatedcells.forecast.direct import DirectForecaster, DirectRecipe, Sizes
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.files import (
    drop,
    of_format,
    read_json,
    read_tensors,
    sha256_of,
    write_json,
    write_tensors,
)
from gatedcells.forecast.fitting import check
from gatedcells.forecast.forecaster_parameters import LARGEST, written
from gatedcells.forecast.forecaster_parameters import read as read_parameter
from gatedcells.forecast.frames import KINDS, Names, Style
from gatedcells.forecast.grid import Grid
from gatedcells.forecast.panel import Panel
from gatedcells.forecast.panel_inputs import input_sizes
from gatedcells.forecast.panel_model import Fit, PanelModel, in_units
from gatedcells.forecast.panel_report import FrameReport
from gatedcells.forecast.scaling import SeriesScales

FORMAT = 1
JSON = "forecaster.json"
MADE = "a folder that forecast fit made (from a run, forecast predict goes on)"
_TENSORS = ("forecaster.safetensors", "forecaster-again.safetensors")
CHECKPOINT = "checkpoint.safetensors"  # of a training under way
_ADDED = {"device": "cpu"}  # parameters that folders of before do not have
_FAR = 1e30
_OF_FITTED = ("text", "zoned")  # of the names; what the rest of the folder says
_BLANKS = ("y", "known", "past")  # of the context; may have blanks
_UNITS = ("s", "ms", "us", "ns", "day")


@dataclass(frozen=True)
class Saved:
    """What a folder holds."""

    parameters: dict[str, Any]
    model: PanelModel
    context: Panel
    names: Names
    style: Style
    report: FrameReport
    loss: float
    train_seconds: float


def write(folder: Path, saved: Saved, defaults: dict[str, Any]) -> None:
    """Write a folder, or write over one of a forecaster; ``defaults`` are those of the parameters.

    Raises:
        ForecastError: it holds something else, or cannot be written.
    """
    check_folder(folder)
    before: str | None = None
    if holds_one(folder):
        with suppress(ForecastError):  # a damaged one is written over
            before = _tensors_named(read_json(folder / JSON))
    path = folder / _TENSORS[before == _TENSORS[0]]
    model, context = saved.model, saved.context
    static = {name: [_plain(value) for value in values] for name, values in context.static.items()}
    tensors = {f"network.{name}": value for name, value in model.network.network.state_dict().items()}
    numbers = {f"scales.{name}": getattr(model.scales, name) for name in ("level", "spread", "change")}
    numbers |= {f"margins.{name}": getattr(model.margins, name) for name in ("pooled", "own", "widths")}
    numbers |= {"context.first": context.first, "context.offsets": context.offsets}
    for name in _BLANKS:
        values = getattr(context, name)
        numbers |= {f"context.{name}": np.nan_to_num(values), f"context.{name}_has": np.isfinite(values)}
    numbers["context.filled"] = in_units(context, model.scales.log)[np.isnan(context.y)]
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in numbers.items()}
    write_tensors(path, tensors)
    content = {
        "format": FORMAT,
        "tensors": path.name,
        "tensors_sha256": sha256_of(path),
        "parameters": written(saved.parameters, defaults),
        "recipe": asdict(model.recipe),
        "sizes": model.network.sizes._asdict(),
        "fit": asdict(model.fit),
        "grid": model.grid.to_json(),
        "ids": list(model.ids),
        "log": model.scales.log,
        "covariates": asdict(model.covariates),
        "windows": model.margins.windows,
        "context": {"ids": list(context.ids), "static": static},
        "names": {name: value for name, value in asdict(saved.names).items() if name not in _OF_FITTED},
        "style": asdict(saved.style),
        "report": asdict(saved.report),
        "loss": saved.loss if np.isfinite(saved.loss) else None,
        "train_seconds": saved.train_seconds,
    }
    write_json(folder / JSON, content)
    if before is not None:
        drop(folder / before)


def _tensors_named(content: Any) -> str:
    """The file that a folder's JSON goes with; of what is none, the first name."""
    found = content.get("tensors") if isinstance(content, dict) else None
    return found if found in _TENSORS else _TENSORS[0]


def check_folder(folder: Path) -> None:
    """Refuse to write into what is something else, which a stopped training or writing is not.

    Raises:
        ForecastError: it is.
    """
    # tensors that no JSON names yet: their writer was killed
    if not holds_one(folder) and not is_free(folder, but=(CHECKPOINT, *_TENSORS)):
        raise ForecastError(f"{folder}: exists already and is no forecaster; choose another folder")


def holds_one(folder: Path) -> bool:
    """Whether a forecaster is in the folder."""
    return (folder / JSON).exists()


def read(folder: Path, defaults: dict[str, Any]) -> Saved:
    """Read a folder; ``defaults`` are those of the parameters.

    Raises:
        ForecastError: it is something else, or its files do not fit together.
    """
    path = folder / JSON
    content = of_format(path, read_json(path, MADE), FORMAT)
    beside = folder / _tensors_named(content)
    try:
        if beside.is_file() and sha256_of(beside) != content.get("tensors_sha256"):
            raise ForecastError(f"{folder}: its two files were not written together")
        tensors, _ = read_tensors(beside)
    except (ForecastError, FileNotFoundError):
        if read_json(path) != content:  # written over in between
            return read(folder, defaults)
        raise
    try:
        given = content["parameters"] = _ADDED | content["parameters"]
        if set(given) != set(defaults):
            raise ValueError(f"parameters {sorted(set(given) ^ set(defaults))} are unknown or missing")
        return _saved(content, tensors, defaults)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ForecastError(f"{folder}: not a forecaster that this version can read ({reason})") from error


def _saved(content: dict[str, Any], tensors: dict[str, Tensor], defaults: dict[str, Any]) -> Saved:
    recipe, fit = _filled(DirectRecipe, content["recipe"]), _filled(Fit, {"season": True} | content["fit"])
    names = _filled(Names, content["names"] | dict.fromkeys(_OF_FITTED))
    style = _filled(Style, content["style"])
    if style.kind not in KINDS or style.unit not in _UNITS:
        raise ValueError(f"frames of {style.kind!r} with stamps in {style.unit!r}")
    if style.tz is not None:
        Clock(style.tz)  # is known
    check(recipe, fit)
    grid, ids = Grid.from_json(content["grid"]), _ids(content["ids"])
    if not ids:
        raise ValueError("no series")
    covariates = _covariates(content["covariates"], names)
    expected = Sizes(
        *input_sizes(grid, covariates, len(names.known), len(names.past)), len(ids) if fit.identity else 0
    )
    if content["sizes"] != expected._asdict():
        raise ValueError(f"sizes {content['sizes']}, expected {expected._asdict()}")
    with torch.device("meta"):  # no memory for what the settings claim before the weights bear it out
        network = DirectForecaster(recipe, expected)
    own = {
        name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")
    }
    for name, like in network.network.state_dict().items():
        if name in own and own[name].dtype != like.dtype:
            raise ValueError(f"{name} is of {own[name].dtype}, expected {like.dtype}")
    network.network.load_state_dict(own, assign=True)
    many, levels, horizon = len(ids), len(fit.level), recipe.horizon
    scales = SeriesScales(
        content["log"] is True,
        *(_array(tensors, f"scales.{name}", (many,)) for name in ("level", "spread", "change")),
    )
    if (scales.spread <= 0).any() or (scales.change <= 0).any():
        raise ValueError("a spread that is not positive")
    tensors.setdefault("margins.widths", torch.ones(many, levels, dtype=torch.float64))  # added later
    margins = Margins(
        _array(tensors, "margins.pooled", (levels, horizon)),
        _array(tensors, "margins.own", (many, levels, horizon)),
        int(content["windows"]),
        _array(tensors, "margins.widths", (many, levels)),
    )
    if not ((margins.widths >= 1 / WIDEST) & (margins.widths <= WIDEST)).all():
        raise ValueError("widths of intervals that no values can have taught")
    model = PanelModel(network, fit, grid, ids, scales, covariates, margins)
    context = _context(content["context"], tensors, grid, names)
    holes = np.isnan(context.y)
    if "context.filled" in tensors:
        filled = _array(tensors, "context.filled", (int(holes.sum()),))
    else:  # added later: of what is there
        filled = in_units(context, scales.log)[holes]
    context = replace(context, filled={scales.log: filled})
    model.inputs(context)  # the series are those of the model
    saved = {name: read_parameter(name, content["parameters"][name], like) for name, like in defaults.items()}
    report = FrameReport(**{str(name): value for name, value in content["report"].items()})
    loss = float("nan" if content["loss"] is None else content["loss"])  # a checkpoint of before had none
    return Saved(saved, model, context, names, style, report, loss, float(content["train_seconds"]))


def _context(content: Any, tensors: dict[str, Tensor], grid: Grid, names: Names) -> Panel:
    ids = _ids(content["ids"])
    offsets = _array(tensors, "context.offsets", (len(ids) + 1,), torch.int64)
    sizes = np.diff(offsets)
    first = _array(tensors, "context.first", (len(ids),), torch.int64)
    if not ids or offsets[0] != 0 or (sizes < 1).any() or (np.abs(first) > 1 << 40).any():
        raise ValueError("values that do not lie in series")
    if int((first + sizes).max() - first.min()) > LARGEST * 100:
        raise ValueError("series that span too long a time")
    n = int(offsets[-1])
    y = _with_blanks(tensors, "context.y", (n,))
    if np.isnan(y[offsets[:-1]]).any():
        raise ValueError("a series that begins without a value")
    known = _with_blanks(tensors, "context.known", (n, len(names.known)))
    past = _with_blanks(tensors, "context.past", (n, len(names.past)))
    static: dict[str, Any] = {}
    for name in names.static:
        values = content["static"][name]
        if len(values) != len(ids) or not all(isinstance(v, (str, float, int)) for v in values):
            raise ValueError(f"the static covariate {name} of {len(ids)} series")
        text = any(isinstance(v, str) for v in values)
        static[name] = np.asarray(values, dtype=object if text else np.float64)
    return Panel(grid, ids, first, offsets, y, known, 0, past, static)


def _array(
    tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> Any:
    tensor = tensors[name]
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"{name} is {tensor.dtype} of {tuple(tensor.shape)}, expected {dtype} of {shape}")
    return tensor.numpy()


def _with_blanks(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Any:
    """Numbers, NaN where the file says that there is none."""
    return np.where(_array(tensors, f"{name}_has", shape, torch.bool), _array(tensors, name, shape), np.nan)


def _covariates(content: Any, names: Names) -> Covariates:
    static = {str(name): tuple(fitted) for name, fitted in content["static"].items()}
    center, spread = (tuple(float(one) for one in content[name]) for name in ("center", "spread"))
    beside = len(names.known) + len(names.past)
    if set(static) != set(names.static) or (len(center), len(spread)) != (beside, beside):
        raise ValueError("covariates that are not those named")
    if not all(abs(one) < _FAR for one in center) or not all(1 / _FAR < one < _FAR for one in spread):
        raise ValueError("covariates whose scale is no number")
    for fitted in static.values():
        text = all(isinstance(one, str) for one in fitted)
        if not fitted or not (text or _is_scale(fitted)):
            raise ValueError(f"a static covariate fitted as {fitted}")
    return Covariates(center, spread, static)


def _is_scale(fitted: tuple[Any, ...]) -> bool:
    numbers = len(fitted) == 2 and all(isinstance(one, (int, float)) for one in fitted)
    return numbers and abs(fitted[0]) < _FAR and 1 / _FAR < fitted[1] < _FAR


def _filled(kind: Any, content: Any) -> Any:
    """Settings from JSON, each of the type that it has by default."""
    default = kind()
    if set(content) != {field.name for field in fields(kind)}:
        raise ValueError(f"settings {sorted(content)}")
    checked: dict[str, Any] = {}
    for name, value in content.items():
        like = getattr(default, name)
        if isinstance(like, tuple):
            value = tuple(value)
            of_text = kind is Names
            if not all(isinstance(one, str if of_text else (int, float)) for one in value):
                raise ValueError(f"{name} is {value!r}")
        elif like is None:
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name} is {value!r}")
        elif isinstance(like, float):
            value = float(value)
        elif type(value) is not type(like) or (
            isinstance(value, int) and not 0 <= value <= LARGEST and name not in ("seed", "steps")
        ):
            raise ValueError(f"{name} is {value!r}")
        checked[name] = value
    return kind(**checked)


def _ids(content: Any) -> tuple[Any, ...]:
    ids = tuple(content)
    of_text = all(isinstance(one, str) for one in ids)
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in ids)
    if not (of_text or whole) or len(set(ids)) < len(ids):
        raise ValueError("names of series that are not text or numbers, each once")
    return ids


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)
