"""What happens where the library cannot be built or loaded."""

import ctypes
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from gatedcells_kernels.cpu import build, library

ROOT = Path(__file__).parent.parent.parent
ASK = (
    "import torch, gatedcells\n"
    "layer, x = gatedcells.GRU(3, 4), torch.randn(5, 2, 3)\n"
    "layer(x)\n"
    "print(gatedcells.explain_backend(layer, x))\n"
    "try: gatedcells.GRU(3, 4, backend='cpu')(x)\n"
    "except gatedcells.BackendUnavailable as error: print('refused:', error)\n"
)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True)


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    assert "cpu        cannot run: GATEDCELLS_CPU_LIBRARY=" in said
    assert "nothing.so': there is no such file" in said
    assert "refused: backend='cpu' cannot run" in said


def test_a_checkout_that_was_never_built_is_told_how(monkeypatch, tmp_path):
    monkeypatch.setattr(library.build, "FOLDER", tmp_path)
    monkeypatch.delenv(library.LIBRARY_VARIABLE, raising=False)
    with pytest.raises(
        library.Unavailable, match=r"were not built: run python -m gatedcells_kernels\.cpu\.build"
    ):
        library.load.__wrapped__()


def test_a_file_that_is_no_library_is_refused_with_the_reason(tmp_path):
    broken = tmp_path / "_native.so"
    broken.write_bytes(b"not a library")
    assert "cannot run: _native.so cannot be loaded" in ask(GATEDCELLS_CPU_LIBRARY=str(broken))


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
    assert "GATEDCELLS_CPU_LEVEL must be one of baseline" in ask(GATEDCELLS_CPU_LEVEL="avx9000")


def test_no_compiler_is_an_error_that_the_installation_knows(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.NoCompiler, match="no-such-compiler"):
        build.compiler()


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_behind_a_launcher_or_with_arguments_gets_all_of_them(monkeypatch, tmp_path):
    noted, target = tmp_path / "noted", tmp_path / "_native.so"
    # writes down what it is called with, and makes an empty file of what it was asked for
    launcher = script(tmp_path / "launcher", f'echo "$*" >> {noted}; for last; do :; done; : > "$last"')
    monkeypatch.setenv("CXX", f"{launcher} some-c++ '--sysroot=/a folder'")
    assert build.compiler() == [launcher, "some-c++", "--sysroot=/a folder"]
    build.build(target)
    calls = noted.read_text().splitlines()
    assert len([call for call in calls if "level.cpp" in call]) >= 1
    assert all(call.startswith("some-c++ --sysroot=/a folder ") for call in calls)


def test_a_compiler_in_a_folder_with_a_space_is_one_word(monkeypatch, tmp_path):
    (tmp_path / "a folder").mkdir()
    compiler = script(tmp_path / "a folder" / "c++", "")
    monkeypatch.setenv("CXX", compiler)
    assert build.compiler() == [compiler]


def test_a_backslash_is_a_part_of_a_path_on_windows(monkeypatch):
    monkeypatch.setattr(build.platform, "system", lambda: "Windows")
    monkeypatch.setattr(build.shutil, "which", lambda name: name if name.endswith(".exe") else None)
    monkeypatch.setenv("CXX", r'C:\tools\ccache.exe "C:\my tools\g++.exe" -m64')
    assert build.compiler() == [r"C:\tools\ccache.exe", r"C:\my tools\g++.exe", "-m64"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("c++ '--sysroot=", "No closing quotation"), ("no-launcher c++", "there is no program no-launcher")],
)
def test_what_cxx_says_that_is_no_command_is_said(asked, said, monkeypatch):
    monkeypatch.setenv("CXX", asked)
    with pytest.raises(build.NoCompiler) as caught:
        build.compiler()
    assert f"CXX={asked}" in str(caught.value)
    assert said in str(caught.value)


def test_an_empty_cxx_is_none(monkeypatch, tmp_path):
    compiler = script(tmp_path / "c++", "")
    monkeypatch.setenv("CXX", " ")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.compiler() == [compiler]


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
        f'exec {shlex.join(build.compiler())} "$@" -O0\n'  # what is asked is which, not how fast
    )
    old.chmod(0o755)
    target = tmp_path / "_native.so"
    command = [sys.executable, "-m", "gatedcells_kernels.cpu.build", "--target", str(target)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT / "kernels", env=os.environ | {"CXX": str(old)}
    )
    assert done.returncode == 0, done.stderr
    levels = ctypes.CDLL(str(target))
    levels.gatedcells_level_name.restype = ctypes.c_char_p
    names = [levels.gatedcells_level_name(i).decode() for i in range(levels.gatedcells_levels())]
    assert "avx512_bf16" not in names
    assert names[0] == "baseline"
    assert "cpu        CHOSEN" in ask(GATEDCELLS_CPU_LIBRARY=str(target))


def test_an_old_assembler_drops_the_instruction_sets_that_only_the_compiler_knows(monkeypatch, tmp_path):
    gcc = shutil.which("g++")
    if gcc is None or "Free Software Foundation" not in run(gcc, "--version").stdout:
        pytest.skip("no GCC, whose assembler is a program of its own")
    if not build.X86.count(platform.machine().lower()):
        pytest.skip("one instruction set only")
    (tmp_path / "old").mkdir()
    real = run(gcc, "-print-prog-name=as").stdout.strip()
    script(
        tmp_path / "old" / "as",
        'for last; do :; done; if grep -q vdpbf16ps "$last"; then'
        f" echo 'Error: no such instruction: vdpbf16ps' >&2; exit 1; fi; exec {real} \"$@\"",
    )
    noted = tmp_path / "noted"
    # compiles what it is asked about, and of the sources, which takes long, only takes notes
    fake = script(
        tmp_path / "g++",
        f'case "$*" in *level.cpp*|*native.cpp*|*team.cpp*|*-shared*) echo "$*" >> {noted};'
        ' for last; do :; done; : > "$last"; exit 0;; esac\n'
        f'exec {gcc} -B{tmp_path}/old/ "$@"',
    )
    monkeypatch.setenv("CXX", fake)
    build.build(tmp_path / "_native.so")
    built = noted.read_text()
    assert "GATEDCELLS_LEVEL=avx512 " in built
    assert "GATEDCELLS_LEVEL=avx512_bf16" not in built
    assert "GATEDCELLS_LEVELS=3" in built


FAILS = "echo \"team.cpp:24: error: 'aligned_alloc' is not a member of 'std'\" >&2; exit 1"


@pytest.fixture
def failing_compiler(monkeypatch, tmp_path):
    """The only compiler on the PATH, which fails on every source."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return script(tmp_path / "bin" / "c++", FAILS)


def test_on_windows_a_compiler_that_nobody_named_may_fail(failing_compiler, monkeypatch, tmp_path):
    monkeypatch.setattr(build.platform, "system", lambda: "Windows")
    with pytest.raises(build.NoCompiler) as caught:
        build.build(tmp_path / "_native.dll")
    assert str(caught.value) == (
        f"{failing_compiler} cannot compile the sources:"
        " team.cpp:24: error: 'aligned_alloc' is not a member of 'std'"
    )
    assert "-std=c++17" in str(caught.value.__cause__)


@pytest.mark.parametrize(("system", "named"), [("Windows", True), ("Linux", False), ("Darwin", False)])
def test_any_other_compiler_that_fails_stops_the_installation(
    system, named, failing_compiler, monkeypatch, tmp_path
):
    monkeypatch.setattr(build.platform, "system", lambda: system)
    if named:
        monkeypatch.setenv("CXX", failing_compiler)
    with pytest.raises(RuntimeError, match="failed:\nteam.cpp:24: error") as caught:
        build.build(tmp_path / "_native.so")
    assert not isinstance(caught.value, build.NoCompiler)


def test_an_installation_without_kernels_leaves_the_reason_for_the_doctor(failing_compiler, tmp_path):
    pytest.importorskip("hatchling")
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "kernels", root / "kernels", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    hook = load(root / "kernels" / "build_hook.py", "build_hook")
    said, data = [], {"artifacts": [], "pure_python": True}
    app = SimpleNamespace(display_warning=said.append)
    with patch.object(platform, "system", lambda: "Windows"):
        hook.CompileKernels(str(root), {}, None, None, "", "wheel", app).initialize("standard", data)
    complaint = "team.cpp:24: error: 'aligned_alloc' is not a member"
    reason = f"{failing_compiler} cannot compile the sources: {complaint}"
    assert [reason in line for line in said] == [True]
    note = "kernels/gatedcells_kernels/cpu/_native.txt"
    assert data == {"artifacts": [note], "pure_python": True}
    answer = ask(GATEDCELLS_CPU_LIBRARY=str((root / note).with_name("_native.so")))
    assert f"cpu        cannot run: its kernels were not built: {reason}" in answer
    assert "reference  CHOSEN" in answer


def test_an_installation_with_kernels_takes_the_reason_of_before_away(monkeypatch, tmp_path):
    pytest.importorskip("hatchling")
    folder = tmp_path / "kernels" / "gatedcells_kernels" / "cpu"
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("*.so"))
    (folder / "_native.txt").write_text("no compiler yesterday\n")
    monkeypatch.setenv("CXX", script(tmp_path / "c++", 'for last; do :; done; : > "$last"'))
    hook = load(tmp_path / "kernels" / "build_hook.py", "build_hook")
    data = {"artifacts": []}
    hook.CompileKernels(str(tmp_path), {}, None, None, "", "wheel", None).initialize("standard", data)
    assert data["artifacts"] == [f"kernels/gatedcells_kernels/cpu/{build.LIBRARY}"]
    assert not (folder / "_native.txt").exists()
