"""Reading and writing a run's files, with errors in the user's words."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from gatedcells import _files
from gatedcells.forecast.errors import ForecastError


@contextmanager
def written_beside(path: Path) -> Generator[Path]:
    """A temporary path in the folder of ``path``; on success it takes its name, on failure it goes.

    Raises:
        ForecastError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ForecastError(f"{path.parent}: cannot be made ({error})") from error
    try:
        with _files.written_beside(path) as beside:
            yield beside
    except (OSError, safetensors.SafetensorError) as error:
        raise ForecastError(f"{path}: cannot be written ({error})") from error


def write_json(path: Path, content: Any) -> None:
    """Write plain JSON, indented; NaN is refused."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ForecastError: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ForecastError(f"{path}: no such file; expected a run folder") from error
    except (OSError, ValueError) as error:
        raise ForecastError(f"{path}: not readable as JSON ({error})") from error


def write_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """Write tensors and short notes as one safetensors file."""
    with written_beside(path) as beside:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, beside, notes)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_tensors` wrote.

    Raises:
        ForecastError: no such file, or not a whole safetensors file.
    """
    if not path.is_file():
        raise ForecastError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # pyright: ignore[reportPrivateImportUsage]
            notes = dict(file.metadata() or {})
        # copies, aligned as torch aligns its own: how a product is summed may depend on it
        return {name: tensor.clone() for name, tensor in load_file(path).items()}, notes
    except (safetensors.SafetensorError, OSError) as error:
        raise ForecastError(f"{path}: not a whole safetensors file ({error})") from error
