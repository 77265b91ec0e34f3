"""What only a GPU can show of Triton's kernels: programs that meet, graphs, real sizes (``-m gpu``)."""

import faulthandler

import pytest
import torch
from torch import nn

import gatedcells
from gatedcells.testing import assert_within_budget

launch = pytest.importorskip("gatedcells_kernels.triton.launch")
library = pytest.importorskip("gatedcells_kernels.triton.library")

pytestmark = pytest.mark.gpu
# the forms with one product in a step after another, which meet twice
TWICE = {"GRU": {"reset_after": False}, "LSTM": {"proj_size": 40}}
SIZES = [
    (64, 32, 128),
    (33, 17, 200),
    (64, 64, 256),
    (16, 130, 512),
    (20, 5, 1000),
    (8, 1024, 256),
    (5, 3, 2000),
]


@pytest.fixture(autouse=True)
def _watchdog():
    """A program that waits for ever is killed, with the stack of whoever waits."""
    if library.interprets():
        pytest.skip("TRITON_INTERPRET is set")
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=["bfloat16", "float16", "tf32", "float32"])
def dtype(request):
    allowed = request.param == "tf32"
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, allowed
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=allowed):
        yield torch.float32 if allowed else getattr(torch, request.param)
    torch.backends.cuda.matmul.allow_tf32 = before


def both(name, H, dtype, **options):
    """Ours, and torch's where it has such a form."""
    other = {"backend": "reference"} if "reset_after" in options else {}
    theirs = getattr(gatedcells if other else nn, name)(H, H, device="cuda", dtype=dtype, **options, **other)
    ours = getattr(gatedcells, name)(H, H, device="cuda", dtype=dtype, backend="triton", **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def everything(module, x):
    module.zero_grad()
    output = module(x)[0]
    output.backward(torch.ones_like(output) / len(output))
    gradients = [p.grad.flatten() for p in module.parameters()]
    return output.detach(), torch.cat(gradients)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_layers_are_as_exact_as_cudnn(name, sizes, dtype):
    T, B, H = sizes
    ours, theirs = both(name, H, dtype, num_layers=2, bidirectional=True)
    x = torch.randn(T, B, H, device="cuda", dtype=dtype)
    exact = getattr(nn, name)(H, H, 2, bidirectional=True, device="cuda", dtype=torch.float64)
    exact.load_state_dict({key: value.double() for key, value in theirs.state_dict().items()})
    results = [everything(module, value) for module, value in ((ours, x), (theirs, x), (exact, x.double()))]
    for actual, rival, right in zip(*results, strict=True):
        assert_within_budget(actual, exact=right, rival=rival)


@pytest.mark.parametrize("sizes", [(33, 17, 200), (16, 64, 512), (5, 1024, 256), (1, 3, 300)])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_two_meetings_a_step_are_as_exact_as_the_rival(name, sizes, dtype):
    T, B, H = sizes
    options = TWICE[name] | {"bidirectional": True}
    ours, theirs = both(name, H, dtype, **options)
    x = torch.randn(T, B, H, device="cuda", dtype=dtype)
    exact = getattr(gatedcells, name)(
        H, H, device="cuda", dtype=torch.float64, backend="reference", **options
    )
    exact.load_state_dict({key: value.double() for key, value in theirs.state_dict().items()})
    results = [everything(module, value) for module, value in ((ours, x), (theirs, x), (exact, x.double()))]
    for actual, rival, right in zip(*results, strict=True):
        assert_within_budget(actual, exact=right, rival=rival)


@pytest.mark.parametrize("kernel", ["steps", "slices"])
@pytest.mark.parametrize("options", [{}, TWICE], ids=["once", "twice"])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_thousand_runs_beside_another_streams_load_have_the_same_bits(name, options, kernel):
    T, B, H = 24, 32, 512
    ours, _ = both(name, H, torch.bfloat16, **options.get(name, {}))
    x = torch.randn(T, B, H, device="cuda", dtype=torch.bfloat16)
    load, busy = torch.randn(4096, 4096, device="cuda"), torch.cuda.Stream()
    with launch.prefer(kernel):
        first = everything(ours, x)
        for turn in range(1000):
            if turn % 2:
                with torch.cuda.stream(busy):
                    load @ load
            assert all(map(torch.equal, everything(ours, x), first)), turn


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_captured_graph_replays_with_new_numbers(name, sizes):
    T, B, H = sizes
    ours, _ = both(name, H, torch.bfloat16)
    x = torch.randn(T, B, H, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            ours(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = ours(x)[0]
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.equal(output, ours(x)[0])


@pytest.mark.parametrize("kernel", ["whole", "slices", "steps", "library"])
@pytest.mark.parametrize("options", [{}, TWICE], ids=["once", "twice"])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_layer_in_torchs_graphs_trains_with_the_bits_of_the_layer(name, options, kernel):
    """As docs/kernels.md says."""
    T, B, H = 16, 8, 100
    ours, _ = both(name, H, torch.bfloat16, **options.get(name, {}))
    x = torch.randn(T, B, H, device="cuda", dtype=torch.bfloat16)
    with launch.prefer(kernel):
        expected = everything(ours, x)
        graphed = torch.cuda.make_graphed_callables(ours, (torch.randn_like(x),))
        assert all(map(torch.equal, everything(graphed, x), expected))


@pytest.mark.parametrize("kernel", ["whole", "slices", "steps", "library"])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_on_a_second_gpu_the_current_device_changes_no_bit(name, kernel, dtype):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    T, B, H = 9, 5, 50
    ours, _ = both(name, H, dtype)
    ours, x = ours.to("cuda:1"), torch.randn(T, B, H, device="cuda:1", dtype=dtype)
    with launch.prefer(kernel):
        with torch.cuda.device(1):
            expected = everything(ours, x)
        assert all(map(torch.equal, everything(ours, x), expected))
        assert torch.cuda.current_device() == 0


def test_a_grid_larger_than_the_device_is_refused_before_it_is_launched():
    ours, _ = both("GRU", 256, torch.bfloat16)
    x = torch.randn(4, 1 << 16, 256, device="cuda", dtype=torch.bfloat16)
    with launch.prefer("slices"), pytest.raises(ValueError, match="run at once"):
        ours(x)
