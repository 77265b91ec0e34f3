"""Build the shared library of the CPU kernels with the system's C++ compiler.

Installing gatedcells runs this; by hand: ``python -m gatedcells_kernels.cpu.build [--sanitize]``. It uses the
standard library only, because the installer runs it in an environment without other packages.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
LIBRARY = "_native.dll" if os.name == "nt" else "_native.so"
WHY_NOT = "_native.txt"  # in the library's place: why it was not built
X86 = ("x86_64", "amd64", "i386", "i686")


class Level(NamedTuple):
    """An instruction set that the library is compiled for."""

    name: str
    vector_bytes: int
    registers: int
    flags: list[str]
    line: str  # of C++ that comes to its instructions


BASELINE = {"x86": Level("baseline", 16, 16, [], ""), "other": Level("baseline", 16, 32, [], "")}
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"]
WIDER = [
    Level("avx2", 32, 16, ["-mavx2", "-mfma"],
          "__m256i f(__m256i a) { return _mm256_add_epi32(a, a); }\n"
          "__m256 g(__m256 a) { return _mm256_fmadd_ps(a, a, a); }"),
    Level("avx512", 64, 32, AVX512,
          "__m512d f(__m512d a) { return _mm512_maskz_loadu_pd(1, &a) + _mm512_scalef_pd(a, a); }\n"
          "__m512d g(__m512d a) { return _mm512_xor_pd(a, a); }\n"
          "__m256i h(void* a) { return _mm256_maskz_loadu_epi16(1, a); }"),
    Level("avx512_bf16", 64, 32, [*AVX512, "-mavx512bf16"],
          "__m512 f(__m512 a, __m512bh b) { return _mm512_dpbf16_ps(a, b, b); }"),
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
    """There is no C++ compiler that can build the library; the message gives the reason in one line."""


class CompilerFailed(RuntimeError):
    """The compiler failed on the sources; the message holds the command and its output."""


def digest() -> str:
    """A digest of everything that the library is made from."""
    sums = hashlib.sha256()
    for path in sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h"), FOLDER / "build.py"]):
        sums.update(path.name.encode() + b"\0" + path.read_bytes())
    return sums.hexdigest()[:16]


def compiler() -> list[str]:
    """The C++ compiler: ``$CXX``, a program or a command with arguments; else ``c++``, ``g++``, ``clang++``.

    Raises:
        NoCompiler: none of them is found, or ``$CXX`` is not a command.
    """
    asked = os.environ.get("CXX", "").strip()
    for name in [asked] if asked else ["c++", "g++", "clang++"]:
        found = shutil.which(name)  # before it is cut: a path may have spaces
        if found:
            return [found]
    if not asked:
        raise NoCompiler("no C++ compiler found (c++, g++ or clang++ on the PATH, or $CXX)")
    try:
        program, *arguments = _words(asked)
    except ValueError as error:
        raise NoCompiler(f"CXX={asked} is not a command: {error}") from error
    found = shutil.which(program)
    if found is None:
        raise NoCompiler(f"CXX={asked}: there is no program {program}")
    return [found, *arguments]


def _words(command: str) -> list[str]:
    """A command's words; on Windows a backslash is a part of a path."""
    if platform.system() != "Windows":
        return shlex.split(command)
    return [word.strip("\"'") for word in shlex.split(command, posix=False)]


def build(target: Path | None = None, *, sanitize: bool = False) -> Path:
    """Compile and link the library, and replace ``target`` only when that has succeeded.

    The first instruction set that the compiler or its assembler does not know, and all wider ones, are left
    out of the library.

    Args:
        target: the file to write; None for the library's place in the package.
        sanitize: build with AddressSanitizer and UndefinedBehaviorSanitizer.

    Raises:
        NoCompiler: see `compiler`; on Windows also if a compiler that is not named in ``$CXX`` fails, because
            not every one there can build the sources.
        CompilerFailed: the compiler failed in any other case.
    """
    cxx = compiler()
    try:
        return _built(cxx, target or FOLDER / LIBRARY, sanitize)
    except CompilerFailed as error:
        if platform.system() != "Windows" or os.environ.get("CXX", "").strip():
            raise
        raise NoCompiler(f"{cxx[0]} cannot compile the sources: {_complaint(str(error))}") from error


def _complaint(said: str) -> str:
    """The line of a compiler's output that states the error."""
    lines = [line.strip() for line in said.splitlines()[1:] if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1])


def _built(cxx: list[str], target: Path, sanitize: bool) -> Path:
    x86 = platform.machine().lower() in X86
    wider = [*itertools.takewhile(lambda level: _knows(cxx, level), WIDER if x86 else [])]
    levels = [BASELINE["x86" if x86 else "other"], *wider]
    flags = [*COMMON, *(["-DGATEDCELLS_X86"] if x86 else []), *(SANITIZE if sanitize else [])]
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [
            (f"level_{level.name}.o", "level.cpp", [f"-DGATEDCELLS_LEVEL={level.name}",
             f"-DGATEDCELLS_VECTOR_BYTES={level.vector_bytes}",
             f"-DGATEDCELLS_REGISTERS={level.registers}", *level.flags])
            for level in levels
        ] + [
            ("native.o", "native.cpp", [f'-DGATEDCELLS_SOURCES="{digest()}"',
             f"-DGATEDCELLS_LEVELS={len(levels)}"]),
            ("team.o", "team.cpp", []),
        ]  # fmt: skip
        objects = [str(Path(scratch) / name) for name, _, _ in jobs]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(
                pool.map(
                    lambda job: _run([*cxx, *flags, *job[2], "-c", str(FOLDER / job[1]), "-o",
                                      str(Path(scratch) / job[0])]),
                    jobs,
                )
            )  # fmt: skip
        beside = target.with_name(target.name + ".new")
        dl = [] if platform.system() in ("Darwin", "Windows") else ["-ldl"]
        _run([*cxx, *flags, "-shared", *objects, *dl, "-o", str(beside)])
        os.replace(beside, target)
    return target


def _knows(cxx: list[str], level: Level) -> bool:
    """Whether the compiler takes a level's flags and its assembler the instructions: an old one does not know
    the newest, and one need not be as old as the other."""
    with tempfile.TemporaryDirectory() as scratch:
        asked = Path(scratch) / "asked.cpp"
        asked.write_text(f"#include <immintrin.h>\n{level.line}\n", encoding="utf-8")
        command = [*cxx, *level.flags, "-c", str(asked), "-o", str(asked.with_suffix(".o"))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise CompilerFailed(f"{' '.join(command)}\nfailed:\n{done.stderr}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m gatedcells_kernels.cpu.build",
        description="Build the shared library of gatedcells' CPU kernels and print its path.",
    )
    parser.add_argument(
        "--sanitize",
        action="store_true",
        help="build with AddressSanitizer and UndefinedBehaviorSanitizer",
    )
    parser.add_argument(
        "--target", type=Path, default=None, help="the file to write (default: its place in the package)"
    )
    options = parser.parse_args()
    print(build(options.target, sanitize=options.sanitize))
