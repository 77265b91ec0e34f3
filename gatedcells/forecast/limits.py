"""What the settings in a run folder may be: a folder from elsewhere shall not ask for more than there is."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from gatedcells.forecast.calendar import check_country
from gatedcells.forecast.cells import CELLS
from gatedcells.forecast.data import Clock
from gatedcells.forecast.distributed import DEVICES
from gatedcells.forecast.networks import PRECISIONS
from gatedcells.forecast.weighting import LOSSES

# settings that runs of before do not have, and what these did
ADDED: dict[str, Any] = {
    "members": 1, "precision": "float32", "neighbours": False, "loss_in": "percent", "head_size": 0,
    "season": True,
}  # fmt: skip
_LARGEST_SEED = 2**63 - 1
_MOST_THREADS = 1024
_MANY = 1_000_000_000
_WHOLE = {
    "hidden_size": (1, 4096), "first_size": (1, 4096), "second_size": (1, 4096), "layers": (1, 16),
    "members": (1, 64), "head_size": (0, 4096),
    "steps": (1, _MANY), "epochs": (1, _MANY), "warmup_steps": (1, _MANY),
    "burn_in_hours": (0, 100_000), "lags_hours": (1, 100_000), "chunk_hours": (1, 100_000),
    "lookback_hours": (1, 100_000), "lookback_days": (1, 100_000),
}  # fmt: skip
_OTHERS = (1, 1_000_000)
_REAL = {
    "learning_rate": (0, 1), "dropout": (0, 1), "fraction": (0, 1), "test_share": (0, 1),
    "weight_decay": (0, 1_000), "clip_norm": (0, 1_000_000),
}  # fmt: skip
_WORDS = {"cell": CELLS, "precision": PRECISIONS, "loss_in": LOSSES, "scaled_on": ("train", "all")}
_MOST_LAGS = 168
_KEPT_A_STEP = 2**29  # hidden values of a training step, all its hours, rows and layers together


def check_recipe(recipe: Any) -> None:
    """Refuse settings that make no sense or would take more memory than machines have.

    Args:
        recipe: a dataclass of settings.

    Raises:
        ValueError: a setting is of another type or size; the message names it, and what was expected.
        ForecastError: the holidays of no country.
    """
    for one in fields(recipe):
        value = getattr(recipe, one.name)
        if isinstance(value, tuple):
            if len(value) > _MOST_LAGS:
                raise ValueError(f"{one.name} has {len(value)} numbers; expected at most {_MOST_LAGS}")
            for part in value:
                _check_whole(one.name, part)
        elif one.name in _WORDS:
            if value not in _WORDS[one.name]:
                raise ValueError(f"{one.name} is {value!r}; expected one of {', '.join(_WORDS[one.name])}")
        elif one.name == "holidays":
            check_country(value)
        elif one.name in _REAL:
            low, high = _REAL[one.name]
            if not low <= value <= high:  # nor is it NaN
                raise ValueError(f"{one.name} is {value!r}; expected a number from {low} to {high}")
        elif type(value) is int:
            _check_whole(one.name, value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{one.name} is {value!r}; expected a number")
    kept = _kept(recipe)
    if kept > _KEPT_A_STEP:
        raise ValueError(
            f"a training step keeps {kept:,} values of hidden units; expected at most {_KEPT_A_STEP:,}: take"
            " fewer units, members, layers or a smaller batch"
        )


def _check_whole(name: str, value: Any) -> None:
    read_whole(name, value, *_WHOLE.get(name, _OTHERS))


def read_whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number.

    Raises:
        ValueError: it is something else, or beyond ``low`` and ``high``.
    """
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {_short(value)}; expected a whole number from {low:,} to {high:,}")
    return value


def _kept(recipe: Any) -> int:
    units = getattr(recipe, "hidden_size", 0) * getattr(recipe, "layers", 1) + getattr(recipe, "head_size", 0)
    units *= getattr(recipe, "members", 1)
    units += getattr(recipe, "first_size", 0) + getattr(recipe, "second_size", 0)
    lengths = ("chunk_hours", "lookback_hours", "lookback_days")
    return units * recipe.batch_size * max(getattr(recipe, name, 1) for name in lengths)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_recipe(kind: type[Any], content: Any) -> Any:
    """Settings from JSON, each of the type and size that the recipe expects.

    Raises:
        ValueError, TypeError: they are not.
    """
    default = kind()
    known = {field.name for field in fields(kind)}
    content = {name: value for name, value in ADDED.items() if name in known} | content
    if set(content) != known:
        raise ValueError(f"settings {sorted(set(content) ^ known)} are unknown or missing")
    checked: dict[str, Any] = {}
    for name in known:
        value, like = content[name], getattr(default, name)
        if isinstance(like, tuple):
            fits, value = isinstance(value, list), tuple(value) if isinstance(value, list) else value
        elif isinstance(like, float):
            fits = type(value) in (int, float)
        else:
            fits = type(value) is type(like)
        if not fits:
            raise ValueError(f"{name} is {value!r}; expected one like {like!r}")
        checked[name] = value
    recipe = kind(**checked)
    check_recipe(recipe)
    return recipe


def check_run(seed: Any, threads: Any) -> None:
    """Refuse what torch would not take.

    Raises:
        ValueError: it is of another type or size.
    """
    for name, value, low, high in (("seed", seed, 0, _LARGEST_SEED), ("threads", threads, 1, _MOST_THREADS)):
        read_whole(name, value, low, high)


def read_trees(trees: Any) -> int | None:
    """How many trees of LightGBM there are beside the networks, if any.

    Raises:
        ValueError: no such number.
    """
    return None if trees is None else read_whole("trees", trees, 1, _MANY)


def read_device(name: Any) -> str:
    """What networks are trained on.

    Raises:
        ValueError: no such device.
    """
    if name not in DEVICES:
        raise ValueError(f"device is {name!r}; expected one of {', '.join(DEVICES)}")
    return name


def read_data(content: Any, recipe_name: str) -> dict[str, Any]:
    """What a run remembers of its data, as far as it is used.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
        ForecastError: there is no such clock.
    """
    sums = read_texts("data's sha256", content["sha256"])
    for name in sums:
        if Path(name).name != name:
            raise ValueError(f"data's file is {name!r}; expected a name without a folder")
    names = ("kind", "place") + (("tz", "stamp") if recipe_name != "bitcoin" else ())
    named = read_texts("data", {name: content[name] for name in names})
    if recipe_name != "bitcoin":
        Clock(named["tz"], named["stamp"])
    return content | named | {"sha256": sums}


def read_texts(name: str, content: Any) -> dict[str, str]:
    """Texts by name.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError(f"{name}: expected texts by name")
    return {str(key): str(value) for key, value in content.items()}


def read_numbers(name: str, content: Any) -> dict[str, float]:
    """Numbers by name.

    Raises:
        ValueError: it is something else, or a name cannot be printed.
    """
    if not isinstance(content, dict) or not all(str(one).isprintable() for one in content):
        raise ValueError(f"{name}: expected numbers by name")
    if any(type(value) not in (int, float) or not math.isfinite(value) for value in content.values()):
        raise ValueError(f"{name}: expected numbers that are finite")
    return {str(one): float(value) for one, value in content.items()}
