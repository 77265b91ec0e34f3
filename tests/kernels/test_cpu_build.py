"""What happens where the library cannot be built or loaded."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatedcells_kernels.cpu import build

ROOT = Path(__file__).parent.parent.parent
ASK = (
    "import torch, gatedcells\n"
    "layer, x = gatedcells.GRU(3, 4), torch.randn(5, 2, 3)\n"
    "layer(x)\n"
    "print(gatedcells.explain_backend(layer, x))\n"
    "try: gatedcells.GRU(3, 4, backend='cpu')(x)\n"
    "except gatedcells.BackendUnavailable as error: print('refused:', error)\n"
)


def ask(**environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_library_the_reference_runs_and_says_why(tmp_path):
    said = ask(GATEDCELLS_CPU_LIBRARY=str(tmp_path / "nothing.so"))
    assert "reference  CHOSEN" in said
    assert "cpu        cannot run: its kernels were not built" in said
    assert "refused: backend='cpu' cannot run" in said


def test_a_file_that_is_no_library_is_refused_with_the_reason(tmp_path):
    broken = tmp_path / "_native.so"
    broken.write_bytes(b"not a library")
    assert "cannot run: _native.so does not load" in ask(GATEDCELLS_CPU_LIBRARY=str(broken))


def test_a_library_of_other_sources_is_refused(native, tmp_path):
    stale = tmp_path / "_native.so"
    digest = native.c.gatedcells_sources()
    content = Path(native.path).read_bytes()
    assert content.count(digest) == 1
    stale.write_bytes(content.replace(digest, b"0" * len(digest)))
    assert "was built from other sources" in ask(GATEDCELLS_CPU_LIBRARY=str(stale))


def test_a_library_too_old_for_a_function_is_refused(native, tmp_path):
    old = tmp_path / "_native.so"
    content = Path(native.path).read_bytes()
    assert b"gatedcells_large_pages" in content
    old.write_bytes(content.replace(b"gatedcells_large_pages", b"gatedcells_large_sheet"))
    assert "was built from other sources" in ask(GATEDCELLS_CPU_LIBRARY=str(old))


def test_an_instruction_set_can_be_asked_for(native):
    assert "cpu        CHOSEN" in ask(GATEDCELLS_CPU_LEVEL="baseline")
    assert "this CPU runs baseline" in ask(GATEDCELLS_CPU_LEVEL="avx9000")


def test_no_compiler_is_an_error_that_the_installation_knows(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.NoCompiler, match="no-such-compiler"):
        build.compiler()


def test_a_failing_compiler_leaves_the_old_library(monkeypatch, tmp_path):
    target = tmp_path / "_native.so"
    target.write_text("old")
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match="failed"):
        build.build(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_old_compiler_builds_all_but_the_instruction_sets_it_does_not_know(tmp_path):
    old = tmp_path / "old-c++"
    old.write_text(
        "#!/bin/sh\ncase \"$*\" in *avx512bf16*) echo 'unrecognized -mavx512bf16' >&2; exit 1;; esac\n"
        f'exec {build.compiler()} "$@"\n'
    )
    old.chmod(0o755)
    library = tmp_path / "_native.so"
    command = [sys.executable, "-m", "gatedcells_kernels.cpu.build", "--target", str(library)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT / "kernels", env=os.environ | {"CXX": str(old)}
    )
    assert done.returncode == 0, done.stderr
    levels = ctypes.CDLL(str(library))
    levels.gatedcells_level_name.restype = ctypes.c_char_p
    names = [levels.gatedcells_level_name(i).decode() for i in range(levels.gatedcells_levels())]
    assert "avx512_bf16" not in names
    assert names[0] == "baseline"
    assert "cpu        CHOSEN" in ask(GATEDCELLS_CPU_LIBRARY=str(library))
