"""What only a GPU can show of Triton's kernels: programs that meet, graphs, real sizes (``-m gpu``).

Each test compiles kernels of its own, for which many processes are quicker: ``-m gpu -n 12``.
"""

import faulthandler
import warnings

import pytest
import torch
from torch import nn

import gatedcells
from gatedcells.testing import assert_within_budget

launch = pytest.importorskip("gatedcells_kernels.triton.launch")
library = pytest.importorskip("gatedcells_kernels.triton.library")

pytestmark = [
    pytest.mark.gpu,
    # torch about make_graphed_callables, which keeps alive what it made on a stream of its own
    pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream"),
]
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
    faulthandler.dump_traceback_later(150, exit=True)
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


@pytest.mark.parametrize("kernel", launch.KERNELS)
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_kernels_run_on_the_current_stream_after_what_was_put_there(name, kernel):
    T, B, H = 9, 5, 100
    ours, _ = both(name, H, torch.bfloat16)
    x = torch.randn(T, B, H, device="cuda", dtype=torch.bfloat16)
    with launch.prefer(kernel):
        expected = everything(ours, x)
        side, late = torch.cuda.Stream(), torch.full_like(x, torch.nan)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.cuda._sleep(50_000_000)  # some 25 ms
            late.copy_(x)
            found = everything(ours, late)
        torch.cuda.current_stream().wait_stream(side)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("options", [{}, TWICE], ids=["once", "twice"])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_grids_of_four_streams_that_do_not_fit_at_once_do_not_wait_for_one_another(name, options):
    T, B, H = 32, 32, 512
    ours, _ = both(name, H, torch.bfloat16, **options.get(name, {}))
    x = torch.randn(T, B, H, device="cuda", dtype=torch.bfloat16)
    streams = [torch.cuda.Stream() for _ in range(4)]
    with launch.prefer("slices"), torch.no_grad():
        expected = ours(x)[0]
        torch.cuda.synchronize()
        for _ in range(50):
            found = []
            for stream in streams:
                with torch.cuda.stream(stream):
                    found.append(ours(x)[0])
            torch.cuda.synchronize()
            assert all(torch.equal(output, expected) for output in found)


def moved_by_one(tensor):
    """The same numbers at an address that is no multiple of 16 bytes."""
    moved = tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape).copy_(tensor)
    assert moved.data_ptr() % 16
    return moved


@pytest.mark.parametrize("kernel", ["whole", "slices", "steps"])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_numbers_at_any_address_yield_the_same_bits(name, kernel):
    """Of what our kernels read; a library's product may be another one there."""
    T, B, H = 6, 20, 64
    ours, _ = both(name, H, torch.bfloat16)
    x = torch.randn(T, B, H, device="cuda", dtype=torch.bfloat16)
    states = [torch.randn(1, B, H, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    lengths, resets = torch.arange(B, device="cuda") % (T + 1), torch.rand(T, B, device="cuda") < 0.3
    found = []
    with launch.prefer(kernel):
        for place in (torch.clone, moved_by_one):
            for parameter in (ours.weight_hh_l0, ours.bias_hh_l0):
                parameter.data = place(parameter.data)
            first = [place(state) for state in states]
            given = first[0] if name == "GRU" else tuple(first)
            output = ours(x, given, lengths=lengths, resets=place(resets))[0]
            gradients = torch.autograd.grad(output.square().sum(), list(ours.parameters()))
            found.append((output, *gradients))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_rows_beyond_two_to_the_31_numbers_are_as_exact_as_alone(name):
    """A tape of more numbers than 32 bits count; in one test, for the memory that it takes."""
    T, B, I, H, few = 10, 1 << 20, 8, 64, 16
    ours = getattr(gatedcells, name)(I, H, device="cuda", dtype=torch.bfloat16, backend="triton")
    exact = getattr(nn, name)(I, H, device="cuda", dtype=torch.float64)
    exact.load_state_dict({key: value.double() for key, value in ours.state_dict().items()})
    x = torch.randn(T, B, I, device="cuda", dtype=torch.bfloat16)
    for kernel in ("whole", "steps", "library"):
        found = []
        with launch.prefer(kernel):
            for module, given in ((ours, x), (ours, x[:, -few:]), (exact, x[:, -few:].double())):
                given = given.clone().requires_grad_()
                output = module(given)[0]
                (gradient,) = torch.autograd.grad(output, given, torch.ones_like(output))
                found.append((output[:, -few:].detach().clone(), gradient[:, -few:].clone()))
                del output, gradient
        for far, alone, right in zip(*found, strict=True):
            assert_within_budget(far, exact=right, rival=alone, name=kernel)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_compiled_layer_trains_with_the_layers_numbers(name):
    T, B, H = 16, 8, 100
    ours, _ = both(name, H, torch.bfloat16, num_layers=2, bidirectional=True)
    x = torch.randn(T, B, H, device="cuda", dtype=torch.bfloat16)
    expected = everything(ours, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler about the speed of float32
        found = everything(torch.compile(ours, fullgraph=True), x)
        graphed = torch.compile(ours, fullgraph=True, mode="reduce-overhead")
        with torch.no_grad():  # warmed up, recorded, replayed
            outputs = [graphed(x)[0].clone() for _ in range(3)]
    for actual, eager in zip(found, expected, strict=True):
        assert_within_budget(actual, exact=eager.double(), rival=eager)
    for output in outputs:
        assert_within_budget(output, exact=expected[0].double(), rival=expected[0])


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_in_mixed_precision_a_scaler_leaves_out_a_step_of_infinities(name):
    T, B, H = 12, 6, 100
    ours, theirs = both(name, H, torch.float32)
    x = torch.randn(T, B, H, device="cuda")
    exact = getattr(nn, name)(H, H, device="cuda", dtype=torch.float64)
    exact.load_state_dict(theirs.state_dict())
    with torch.autocast("cuda", torch.float16):
        output = ours(x)[0]
    assert_within_budget(output, exact=exact(x.double())[0], rival=theirs.half()(x.half())[0])
    scaler, optimizer = torch.amp.GradScaler("cuda", 2.0**10), torch.optim.SGD(ours.parameters(), 0.1)
    for factor, steps in ((1.0, True), (torch.inf, False)):
        before = [parameter.detach().clone() for parameter in ours.parameters()]
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = ours(x)[0].float().square().mean() * factor
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert all(map(torch.equal, before, ours.parameters())) != steps


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_gradients_of_gradients_are_as_exact_as_the_references(name):
    T, B, H = 5, 3, 20
    options = {"device": "cuda"} | (TWICE["GRU"] if name == "GRU" else {})
    ours, rival = (getattr(gatedcells, name)(H, H, backend=b, **options) for b in ("triton", "reference"))
    exact = getattr(gatedcells, name)(H, H, dtype=torch.float64, backend="reference", **options)
    x, found = torch.randn(T, B, H, device="cuda"), []
    for module in (ours, rival, exact):
        module.load_state_dict(ours.state_dict())
        given = x.to(module.weight_hh_l0.dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(module(given)[0].square().sum(), given, create_graph=True)
        second = torch.autograd.grad(gradient.square().sum(), list(module.parameters()))
        found.append(torch.cat([number.flatten() for number in second]))
    actual, other, right = found
    assert_within_budget(actual, exact=right, rival=other)
