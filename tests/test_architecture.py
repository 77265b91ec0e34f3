"""The house is in order: imports point down, the core is light, the wheel is whole, the checkers pass."""

import contextlib
import importlib
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import gatedcells
from gatedcells_kernels.cpu import build

ROOT = Path(__file__).parent.parent
HEAVY = (
    "pandas",
    "matplotlib",
    "rich",
    "click",
    "pooch",
    "requests",
    "holidays",
    "safetensors",
    "triton",
    "onnx",
    "onnxruntime",
    "keras",
    "jax",
    "flax",
    "equinox",
)


def run(*command, **options):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, **options)


def test_imports_point_down():
    done = run(
        "-c",
        "import sys; sys.argv = ['lint-imports']; import importlinter.cli as c; c.lint_imports_command()",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_import_gatedcells_loads_torch_and_nothing_else_heavy():
    script = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import gatedcells\n"
        "print(' '.join(sorted(set(sys.modules) - before)))\n"
    )
    done = run("-W", "error", "-c", script)
    assert done.returncode == 0, done.stderr
    new = done.stdout.split()
    assert "gatedcells.layers.gru" in new
    strangers = {name.split(".")[0] for name in new} - {"gatedcells", "gatedcells_kernels"}
    assert strangers == set()


@pytest.mark.parametrize("name", ["forecast", "interop", "testing"])
def test_what_the_pages_call_by_its_full_name_needs_no_import_of_its_own(name, monkeypatch):
    module = importlib.import_module(f"gatedcells.{name}")
    monkeypatch.delattr(gatedcells, name)  # as after `import gatedcells` alone
    assert getattr(gatedcells, name) is module
    assert name in dir(gatedcells)
    with pytest.raises(AttributeError, match="module 'gatedcells' has no attribute 'forcast'"):
        gatedcells.forcast  # noqa: B018
    # which would hide a misspelt name from type checkers
    assert "def __getattr__" not in Path(gatedcells.__file__).read_text("utf-8")


@pytest.mark.parametrize("absent", [HEAVY])
def test_the_core_works_where_nothing_but_torch_is_installed(absent):
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in absent)
    script = (
        f"import sys\n{blocked}import torch, gatedcells, gatedcells.interop\n"
        "layer = gatedcells.LSTM(3, 4, num_layers=2)\n"
        "layer(torch.randn(5, 2, 3))[0].sum().backward()\n"
        "print(gatedcells.explain_backend(layer, torch.zeros(5, 2, 3)))\n"
    )
    done = run("-W", "error", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "CHOSEN" in done.stdout


def test_kernels_is_a_source_root_and_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert (ROOT / "kernels" / "gatedcells_kernels" / "__init__.py").exists()


def test_the_wheel_holds_both_packages_with_their_type_marks_and_the_library(tmp_path):
    copy = tmp_path / "copy"  # the library is built beside the sources, and others use that one
    others = shutil.ignore_patterns(".git", ".venv", "*cache*", build.LIBRARY, build.WHY_NOT)
    shutil.copytree(ROOT, copy, ignore=others)
    quick = tmp_path / "quick-c++"
    quick.write_text(f'#!/bin/sh\nexec {shlex.join(build.compiler())} "$@" -O0\n')
    quick.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        capture_output=True, text=True, cwd=copy, env=os.environ | {"CXX": str(quick)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"gatedcells/py.typed", "gatedcells_kernels/py.typed", "gatedcells/layers/gru.py"} <= names
    assert f"gatedcells_kernels/cpu/{build.LIBRARY}" in names
    assert not any(name.startswith(("tests", "benchmarks", "docs")) for name in names)
    sources = {
        str(path.relative_to(base))
        for base in (ROOT, ROOT / "kernels")
        for package in ("gatedcells", "gatedcells_kernels")
        for path in (base / package).rglob("*.py")
    }
    assert sources <= names


def test_the_readmes_commands_are_those_of_the_project():
    tomllib = pytest.importorskip("tomllib", reason="from Python 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text()
    assert "pip install -e . -c constraints.txt && gatedcells forecast" in readme
    assert "pip install -e '.[test]' -c constraints.txt && pytest" in readme
    assert "gatedcells" in project["scripts"]
    assert {"test", "triton", "onnx", "keras", "jax", "docs"} <= set(project["optional-dependencies"])
    torch_requirement = next(d for d in project["dependencies"] if d.startswith("torch"))
    assert torch_requirement == "torch>=2.6"


def test_what_the_constraints_pin_installs_on_every_python_that_the_project_takes():
    tomllib = pytest.importorskip("tomllib", reason="from Python 3.11 on")
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    oldest = oldest.removeprefix(">=")
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    there = {"python_version": oldest, "python_full_version": oldest}
    pinned_there = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(there)]
    assert "torch" in {pin.name for pin in pinned_there}
    too_new = {}
    for pin in pinned_there:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # not in this environment
            metadata = importlib.metadata.metadata(pin.name)
            needs = metadata.get("Requires-Python")
            # an environment without the constraints says nothing of what they pin
            if needs and metadata["Version"] in pin.specifier and oldest not in SpecifierSet(needs):
                too_new[pin.name] = needs
    assert too_new == {}


def test_the_source_distribution_holds_what_its_tests_read(tmp_path):
    command = ["-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {".importlinter", "constraints.txt", "README.md", "LICENSE", "docs/mkdocs/mkdocs.yml"} <= names
    assert {"kernels/build_hook.py", "kernels/gatedcells_kernels/cpu/level.cpp"} <= names
    assert not {name for name in names if name.endswith((build.LIBRARY, build.WHY_NOT, ".pyc"))}


@pytest.mark.parametrize(
    "checker", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("pyright",)]
)
def test_the_checkers_have_nothing_to_say(checker):
    done = run("-m", *checker)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_longer_than_it_should_be():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("gatedcells", "kernels")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 330
    }
    assert long == {}
