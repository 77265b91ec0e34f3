"""Which Triton and which of several GPUs the kernels run on, shown without any of them.

Tensors say that they are on a second GPU, and kernels note where they would have been launched. Whether a
launch reaches that GPU, only a machine with two can show.
"""

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gatedcells import backends
from gatedcells_kernels.tape import Keep

triton = pytest.importorskip("triton")
calls = pytest.importorskip("gatedcells_kernels.triton.calls")
gru = pytest.importorskip("gatedcells_kernels.triton.gru")
launch = pytest.importorskip("gatedcells_kernels.triton.launch")
library = pytest.importorskip("gatedcells_kernels.triton.library")
lstm = pytest.importorskip("gatedcells_kernels.triton.lstm")
sequence = pytest.importorskip("gatedcells_kernels.triton.sequence")
tf32 = pytest.importorskip("gatedcells_kernels.triton.tf32")

H100 = launch.Device("H100", 132, 227 << 10)
T, B, I, H = 3, 5, 4, 40


class OnFirstGPU(torch.Tensor):
    """In this machine's memory, but says otherwise."""

    device = torch.device("cuda:0")


class OnSecondGPU(torch.Tensor):
    """In this machine's memory, but says otherwise, and so does all that is made from it."""

    device = torch.device("cuda:1")
    is_cuda = True

    def get_device(self):
        return 1


class Launches(list):
    """What was launched: the kernel's name, torch's current device then, and the tensors' devices."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.current = 0

        def exchange(index):
            before = self.current
            self.current = before if index < 0 else index
            return before if index >= 0 else -1

        monkeypatch.setattr(torch.cuda, "_exchange_device", exchange)
        monkeypatch.setattr(torch.cuda, "_maybe_exchange_device", exchange)
        for module in (gru, lstm, tf32):
            for name, kernel in list(vars(module).items()):
                if hasattr(kernel, "arg_names"):
                    monkeypatch.setattr(module, name, self.instead_of(name, kernel))

    def instead_of(self, name, kernel):
        def launched(*positional, **named):
            tensors = [v for v in (*positional, *named.values()) if isinstance(v, torch.Tensor)]
            self.append((name, self.current, {tensor.get_device() for tensor in tensors}))

        class Recorded:
            arg_names = kernel.arg_names

            def __getitem__(self, grid):
                return launched

        return Recorded()


@pytest.fixture
def launches(monkeypatch):
    monkeypatch.setattr(launch, "device", lambda index: H100)
    monkeypatch.setattr(calls, "interprets", lambda: False)
    monkeypatch.setattr(calls, "float32_on_cuda", lambda: "tf32")
    return Launches(monkeypatch)


def train(cell, both, projected, reset_after):
    """A forward and a backward pass of tensors on the second GPU."""
    P = 8 if projected else H

    def new(*shape):
        return torch.zeros((2, *shape) if both else shape).as_subclass(OnSecondGPU)

    name = f"{cell.lower()}{'_both' if both else ''}"
    gates, states = (3, [new(B, H)]) if cell == "GRU" else (4, [new(B, P), new(B, H)])
    weights = [new(gates * H, I), new(gates * H, P), new(gates * H), new(gates * H)]
    options, direction = ([reset_after] if cell == "GRU" else []), ([] if both else [False])
    read = [states[0], *states[1:], weights[1]]
    if cell == "LSTM":
        weights.append(new(P, H) if projected else None)
        read.append(weights[-1])
    lengths = torch.arange(B).as_subclass(OnSecondGPU)
    resets = new(T, B).bool()
    forward = getattr(sequence, f"{name}_forward")
    input = torch.zeros(T, B, I).as_subclass(OnSecondGPU)
    shown, *_, tape = forward(input, *states, *weights, lengths, resets, *direction, *options, Keep.TAPE)
    given = [torch.empty_like(shown), *(torch.empty_like(state) for state in states)]
    backward = getattr(sequence, f"{name}_backward")
    backward(*given, *read, lengths, resets, shown, tape, *direction, *options)


@pytest.mark.parametrize("kernel", launch.KERNELS)
@pytest.mark.parametrize("both", [False, True], ids=["one direction", "both"])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_every_launch_is_on_the_tensors_device_and_the_current_one_stays(cell, twice, both, kernel, launches):
    with launch.prefer(kernel):
        train(cell, both, projected=twice and cell == "LSTM", reset_after=not twice)
    names = {name for name, *_ in launches}
    assert {name.rsplit("_", 1)[1] for name in names if name != "_round"} == {"forward", "backward"}
    assert ("_round" in names) == (kernel != "library")
    assert {(current, *on) for _, current, on in launches} == {(1, 1)}
    assert launches.current == 0


@pytest.fixture
def capabilities(monkeypatch):
    """Those of two GPUs, of which the first is current."""
    monkeypatch.setattr(backends, "_chosen", {})
    found = [(9, 0), (7, 0)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=0: found[index])
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(library, "version", lambda: "3.6.0")  # one that serves, whichever is here
    for module in (library, launch):
        monkeypatch.setattr(module, "interprets", lambda: False)
    library.why_not.cache_clear()
    yield found
    library.why_not.cache_clear()


def test_a_gpu_that_is_too_old_is_refused_though_another_one_is_current(capabilities):
    assert library.why_not() is None
    assert library.why_not(0) is None
    assert library.why_not(1) == "needs compute capability 8.0 or higher, got 7.0"
    with pytest.raises(RuntimeError, match="cannot run on cuda:1: needs compute capability 8.0"):
        calls.device(torch.empty(0).as_subclass(OnSecondGPU))
    like = torch.empty(0).as_subclass(OnSecondGPU)
    explained = sequence.explain("GRU", like, 3, 5, 40, 40, True, 1)
    assert explained == "cannot run on cuda:1: needs compute capability 8.0 or higher, got 7.0"


def test_such_a_gpu_is_refused_before_anything_is_launched(capabilities):
    first, second = (torch.empty(0).as_subclass(kind) for kind in (OnFirstGPU, OnSecondGPU))
    refusal = "needs compute capability 8.0 or higher, got 7.0"
    assert backends.resolve("GRU", "sequence", (first,), "triton").backend == "triton"
    with pytest.raises(backends.BackendUnavailable, match=refusal):
        backends.resolve("GRU", "sequence", (second,), "triton")
    assert f"triton     cannot run: {refusal}" in backends.explain("GRU", "sequence", (second,), "triton")


def test_a_gpu_that_serves_is_taken_though_one_that_is_too_old_is_current(capabilities):
    capabilities.reverse()
    assert library.why_not() is None
    assert library.why_not(1) is None


def test_where_all_gpus_are_too_old_the_newest_is_named(capabilities):
    capabilities[:] = (7, 0), (7, 5)
    assert library.why_not() == "needs compute capability 8.0 or higher, got 7.5"


def test_tritons_version_is_known_whatever_its_distribution_is_called(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    library.why_not.cache_clear()
    reason = library.why_not()
    too_old = f"needs Triton 3.6 or newer, got {triton.__version__}"
    assert reason is None or reason == too_old or reason.startswith("no GPU here")
    assert library.version() == triton.__version__


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("__version__ = '3.5.1'\n", "needs Triton 3.6 or newer, got 3.5.1"),
        ('"""A build."""\n__version__ = "3.10.0+rocm7"\n', None),
        ("from triton.version import __version__\n", "needs Triton 3.6 or newer, got unknown"),
        (None, "Triton is not installed (`pip install gatedcells[triton]`)"),
    ],
)
def test_a_triton_that_does_not_serve_is_refused_with_the_reason(source, reason, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "interprets", lambda: True)
    origin = tmp_path / "__init__.py"
    if source is not None:
        origin.write_text(source)
    # a folder that happens to be called triton has no origin
    found = SimpleNamespace(origin=None if source is None else str(origin))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    assert library.why_not.__wrapped__() == reason


def test_asking_whether_triton_serves_does_not_import_it():
    program = (
        "import sys\nfrom gatedcells_kernels.triton import library\nlibrary.why_not()\n"
        "sys.exit('triton' in sys.modules)"
    )
    kernels = Path(__file__).parent.parent.parent / "kernels"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=kernels)
    assert done.returncode == 0, done.stderr
