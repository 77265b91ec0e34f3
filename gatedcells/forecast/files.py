"""Reading and writing a run's files, with errors in the user's words."""

import csv
import hashlib
import json
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from gatedcells import _files
from gatedcells.forecast.errors import ForecastError

_LARGEST_JSON = 256 * 2**20  # bytes; the errors of a thousand regions are a third of it
_NOTES = 16 * 2**20  # bytes beside the tensors


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


@contextmanager
def written_csv(path: Path) -> Generator[Any]:
    """A ``csv.writer`` for the file, which appears whole or not at all.

    Raises:
        ForecastError: as `written_beside`.
    """
    with written_beside(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        yield csv.writer(file)


def drop(path: Path) -> None:
    """Delete a file that has done its service, if it is there.

    Raises:
        ForecastError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ForecastError(f"{path}: cannot be deleted ({error})") from error


def write_json(path: Path, content: Any) -> None:
    """Write plain JSON, indented; NaN is refused."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


def in_digits(numbers: npt.NDArray[np.float64]) -> Any:
    """Numbers as CSV files have them: eight significant digits, whatever their size; NaN is blank."""
    return np.where(np.isfinite(numbers), np.char.mod("%.8g", numbers), "")


def read_json(path: Path, expected: str = "a run folder") -> Any:
    """Read JSON; where there is no such file, the message says what was ``expected`` around it.

    Raises:
        ForecastError: no such file, not JSON (which has no NaN), or more of it than a run writes.
    """
    try:
        _check_size(path, _LARGEST_JSON)
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ForecastError(f"{path}: no such file; expected {expected}") from error
    except (OSError, ValueError) as error:
        raise ForecastError(f"{path}: not readable as JSON ({error})") from error


def of_format(path: Path, content: Any, version: int) -> dict[str, Any]:
    """What was read of a file, if it says that it is of this format.

    Raises:
        ForecastError: it is of another one.
    """
    found = content.get("format") if isinstance(content, dict) else None
    if found != version:
        raise ForecastError(
            f"{path}: is of format {found!r}; this version of gatedcells reads format {version}"
        )
    return content


def parse_json(text: str) -> Any:
    """The content of JSON.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _check_size(path: Path, at_most: int) -> None:
    """Before anything is read: a file as large as expected, and a file."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ForecastError(f"{path}: is not a file")
    if found.st_size > at_most:
        raise ForecastError(f"{path}: has {found.st_size:,} bytes; expected at most {at_most:,}")


def write_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """Write tensors and short notes as one safetensors file."""
    with written_beside(path) as beside:
        beside.touch()
        mode = beside.stat().st_mode  # of all files here; safetensors' own lets nobody else read
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, beside, notes)
        beside.chmod(mode)


def read_tensors(path: Path, at_most: int | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_tensors` wrote.

    Args:
        path: the file.
        at_most: bytes of all tensors together, as far as that is known before.

    Raises:
        ForecastError: no such file, not a whole safetensors file, a larger one, or one with numbers that are
            none.
    """
    if not path.is_file():
        raise ForecastError(f"{path}: no such file")
    try:
        if at_most is not None:
            _check_size(path, at_most + _NOTES)
        with safetensors.safe_open(path, framework="pt") as file:  # pyright: ignore[reportPrivateImportUsage]
            notes = dict(file.metadata() or {})
        # copies, aligned as torch aligns its own: how a product is summed may depend on it
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (safetensors.SafetensorError, OSError) as error:
        raise ForecastError(f"{path}: not a whole safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ForecastError(f"{path}: {name} holds numbers that are not finite")
    return tensors, notes


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of all together; of tensors without memory those that they would take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def sha256_of(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
