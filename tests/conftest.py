"""What every test runs under: uninitialised memory is NaN, one thread, a fixed seed."""

import gc
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

# here alone: a second browser in a process would find the first one's loop running
from tests.support.browser import browser as browser

# before anything imports Triton: where there is no GPU its kernels run in its interpreter
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# without it the GPU's products raise below torch 2.10, where algorithms are to be deterministic as here
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

OURS = ("gatedcells", "gatedcells_kernels", "tests", "benchmarks")

if find_spec("hypothesis"):  # a machine with a GPU seldom has all of the extra `test`
    from hypothesis import HealthCheck, settings

    settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("thorough", deadline=None, max_examples=1000)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser):
    if not find_spec("xdist"):  # or pyproject's own options would be unknown
        parser.addoption("--numprocesses", help="one process: pytest-xdist is not installed")
        parser.addoption("--dist", help="one process: pytest-xdist is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported stays: the garbage collector need not go through it again in every test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure():
    """What is imported is freed at the end, or Triton tells of each object that is left."""
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """With ``-m gpu`` a file that imports a package which is not here is skipped, and named."""
    report = yield
    if report.failed and collector.config.option.markexpr == "gpu":
        error = report.call.excinfo.value
        cause = getattr(error, "cause", None) or error.__cause__ or error
        if isinstance(cause, ModuleNotFoundError) and cause.name.split(".")[0] not in OURS:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), None, f"Skipped: needs {cause.name}, not installed")
    return report


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """torch.empty and its kin return NaN, so an element that nobody writes fails the test."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_backend_in_environment(monkeypatch):
    monkeypatch.delenv("GATEDCELLS_BACKEND", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with ``pjm/`` and ``bitcoin/``, or a skip."""
    root = os.environ.get("GATEDCELLS_DATA")
    if not root:
        pytest.skip("GATEDCELLS_DATA is not set: the real data are not at hand")
    return Path(root)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)
