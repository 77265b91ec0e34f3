"""Writing files so that a reader finds the old one or the new one, never half of one."""

import os
import re
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_BESIDE = re.compile(r"\..*-[0-9a-f]{12}(\.\w+)?")


@contextmanager
def written_beside(path: Path) -> Generator[Path]:
    """A temporary path in the folder of ``path``; on success it takes its name, on failure it goes.

    A link stays, and what it leads to is replaced. What is no file, such as ``/dev/stdout`` or a pipe, is
    written to as it is: nothing may take its name.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    # /dev/stdout may lead to a file, which the shell has open and would not see replaced
    if path.exists() and not path.is_dir() and (not path.is_file() or path.parent.resolve() == Path("/dev")):
        yield path
        return
    path = path.resolve() if path.is_symlink() else path
    beside = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:12]}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())  # on disk before it takes the name
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def is_free(folder: Path, *, but: tuple[str, ...] = ()) -> bool:
    """Whether nothing is there yet, or a folder that holds nothing, or what is under way beside files (or
    was, where a process was killed) and files called as ``but`` says.

    Raises:
        OSError: it cannot be read.
    """
    if not folder.is_dir():
        return not folder.exists()
    return all(path.name in but or _BESIDE.fullmatch(path.name) for path in folder.iterdir())
