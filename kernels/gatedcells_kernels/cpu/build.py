"""Build the shared library of the CPU kernels with the system's C++ compiler.

``python -m gatedcells_kernels.cpu.build [--sanitize]``; an installation does the same by itself. Needs no
package but the standard library, for the installer runs it where there is nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
LIBRARY = "_native.dll" if os.name == "nt" else "_native.so"
X86 = ("x86_64", "amd64", "i386", "i686")

# name, vector bytes, vector registers, compiler flags
BASELINE = {"x86": ("baseline", 16, 16, []), "other": ("baseline", 16, 32, [])}
WIDER = [
    ("avx2", 32, 16, ["-mavx2", "-mfma"]),
    ("avx512", 64, 32, ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma",
                        "-mprefer-vector-width=512"]),
    ("avx512_bf16", 64, 32, ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx512bf16", "-mfma",
                             "-mprefer-vector-width=512"]),
]  # fmt: skip
# Not -ffast-math: it would delete the rounding trick of the exponential and the care for NaN.
COMMON = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math",
          "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-psabi", "-Wno-ignored-attributes",
          "-pthread"]  # fmt: skip
SANITIZE = [
    "-O1",  # -O3 takes several minutes here
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
    "-g",
]


class NoCompiler(RuntimeError):
    """There is no C++ compiler; the message says where it was looked for."""


def digest() -> str:
    """A digest of everything that the library is made from."""
    sums = hashlib.sha256()
    for path in sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h"), FOLDER / "build.py"]):
        sums.update(path.name.encode() + b"\0" + path.read_bytes())
    return sums.hexdigest()[:16]


def compiler() -> str:
    """The C++ compiler: ``$CXX``, else ``c++``, ``g++`` or ``clang++``.

    Raises:
        NoCompiler: none of them is there.
    """
    asked = os.environ.get("CXX")
    for name in [asked] if asked else ["c++", "g++", "clang++"]:
        found = shutil.which(name.split()[0])
        if found:
            return found
    raise NoCompiler(f"CXX={asked} is not a program" if asked else "no c++, g++ or clang++ on the PATH")


def build(target: Path | None = None, *, sanitize: bool = False) -> Path:
    """Compile and link the library, beside its target first, so that a failure leaves the old one.

    From the first instruction set on that the compiler does not know, the library goes without.

    Raises:
        NoCompiler: see `compiler`.
        RuntimeError: the compiler failed; with what it said.
    """
    target = target or FOLDER / LIBRARY
    cxx = compiler()
    x86 = platform.machine().lower() in X86
    wider = [*itertools.takewhile(lambda level: _knows(cxx, level[3]), WIDER if x86 else [])]
    levels = [BASELINE["x86" if x86 else "other"], *wider]
    flags = [*COMMON, *(["-DGATEDCELLS_X86"] if x86 else []), *(SANITIZE if sanitize else [])]
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [
            (f"level_{name}.o", "level.cpp", [f"-DGATEDCELLS_LEVEL={name}",
             f"-DGATEDCELLS_VECTOR_BYTES={width}", f"-DGATEDCELLS_REGISTERS={registers}", *extra])
            for name, width, registers, extra in levels
        ] + [
            ("native.o", "native.cpp", [f'-DGATEDCELLS_SOURCES="{digest()}"',
             f"-DGATEDCELLS_LEVELS={len(levels)}"]),
            ("team.o", "team.cpp", []),
        ]  # fmt: skip
        objects = [str(Path(scratch) / name) for name, _, _ in jobs]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(
                pool.map(
                    lambda job: _run([cxx, *flags, *job[2], "-c", str(FOLDER / job[1]), "-o",
                                      str(Path(scratch) / job[0])]),
                    jobs,
                )
            )  # fmt: skip
        beside = target.with_name(target.name + ".new")
        dl = [] if platform.system() in ("Darwin", "Windows") else ["-ldl"]
        _run([cxx, *flags, "-shared", *objects, *dl, "-o", str(beside)])
        os.replace(beside, target)
    return target


def _knows(cxx: str, flags: list[str]) -> bool:
    """Whether the compiler takes these flags: an old one does not know the newest instruction sets."""
    with tempfile.TemporaryDirectory() as scratch:
        empty = Path(scratch) / "empty.cpp"
        empty.touch()
        command = [cxx, *flags, "-fsyntax-only", str(empty)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\nfailed:\n{done.stderr}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UBSan")
    parser.add_argument("--target", type=Path, default=None)
    options = parser.parse_args()
    print(build(options.target, sanitize=options.sanitize))
