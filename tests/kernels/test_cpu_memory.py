"""Memory that is kept from one training step to the next is used again, and never while somebody has it."""

import gc
import math
import os
import signal
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gatedcells
from gatedcells_kernels.cpu import library, memory
from gatedcells_kernels.cpu.memory import Blocks

pytestmark = pytest.mark.usefixtures("native")
PAGE = 4096
CELLS = ["GRU", "LSTM"]


@pytest.fixture
def kept(monkeypatch):
    """Blocks of which nothing is known yet, for tensors of every size."""
    blocks = Blocks()
    monkeypatch.setattr(memory, "BLOCKS", blocks)
    monkeypatch.setattr(memory, "KEPT", 1)
    return blocks


def step(layer, x):
    output, _ = layer(x)
    output.square().sum().backward()


def gradients(layer):
    return [weight.grad.clone() for weight in layer.parameters()]


def bytes_of_a_step(cell, T, B, H, layers=1):
    """The tapes of all layers and the gates' gradients of one, in float32."""
    slots = {"GRU": 4, "LSTM": 5}[cell]
    return 4 * T * B * H * (slots * layers + 4)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 3}, {"batch_first": True}])
def test_every_step_after_the_first_uses_the_same_memory(cell, options, kept):
    layer, x = getattr(gatedcells, cell)(8, 8, **options), torch.randn(6, 6, 8)
    for _ in range(5):
        step(layer, x)
        assert kept.sizes() == (0, bytes_of_a_step(cell, 6, 6, 8, options.get("num_layers", 1)))


@pytest.mark.parametrize("cell", CELLS)
def test_memory_of_a_graph_that_lives_is_nobody_elses(cell, kept):
    torch.manual_seed(3)
    layer, x, other = getattr(gatedcells, cell)(5, 7), torch.randn(9, 3, 5), torch.randn(9, 3, 5)
    for _ in range(3):
        step(layer, other)
    layer.zero_grad()
    alone = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
    loss = layer(x)[0].square().sum()
    for _ in range(3):
        step(layer, other)
    in_use, _ = kept.sizes()
    assert in_use == bytes_of_a_step(cell, 9, 3, 7) - 4 * 9 * 3 * 7 * 4
    for _ in range(2):
        again = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
        assert all(map(torch.equal, again, alone))
        step(layer, other)
    del loss
    gc.collect()
    assert kept.sizes()[0] == 0


@pytest.mark.parametrize("cell", CELLS)
def test_gates_that_were_returned_stay_what_they_were(cell, kept):
    layer, x = getattr(gatedcells, cell)(5, 7), torch.randn(9, 3, 5)
    with torch.no_grad():
        *_, gates = layer(x, return_gates=True)
    before = {name: value.clone() for name, value in gates.items()}
    for _ in range(3):
        step(layer, torch.randn(9, 3, 5))
    assert all(torch.equal(gates[name], value) for name, value in before.items())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_have_the_bits_of_those_in_memory_of_their_own(cell, recompute, kept, monkeypatch):
    layer = getattr(gatedcells, cell)(5, 7, num_layers=2, bidirectional=True, recompute=recompute)
    # the longest one neither first nor last
    inputs = [torch.randn(T, B, 5) for T, B in ((4, 3), (9, 3), (9, 3), (9, 2), (2, 8), (4, 3))]

    def all_gradients():
        found = []
        for x in inputs * 2:
            layer.zero_grad()
            step(layer, x)
            found += gradients(layer)
        return found

    here = all_gradients()
    assert sum(kept.sizes())
    monkeypatch.setattr(memory, "KEPT", math.inf)
    assert all(map(torch.equal, here, all_gradients()))


@given(st.lists(st.tuples(st.integers(1, 9 * PAGE), st.integers(0, 3)), max_size=40))
def test_there_are_never_more_bytes_than_were_in_use_at_once(asked):
    blocks, held, most = Blocks(), [], 0
    for size, gone in asked:
        del held[: min(gone, len(held))]
        block = blocks.take(size)
        assert size <= len(block) <= 2 * size
        assert all(block is not other for other in held)
        held.append(block)
        del block
        most = max(most, sum(map(len, held)))
        in_use, idle = blocks.sizes()
        assert in_use == sum(map(len, held))
        assert in_use + idle <= most
    held.clear()
    blocks.release()
    assert blocks.sizes() == (0, 0)


def test_of_the_blocks_that_fit_the_smallest_is_taken():
    blocks = Blocks()
    held = [blocks.take(size * PAGE) for size in (5, 3, 4)]
    held.clear()
    block = blocks.take(2 * PAGE + 1)
    assert len(block) == 3 * PAGE


def test_empty_cache_gives_back_what_is_idle_alone(kept, monkeypatch):
    from gatedcells_kernels.cpu import sequence

    monkeypatch.setattr(sequence, "BLOCKS", kept)
    layer, x = gatedcells.GRU(8, 8), torch.randn(6, 6, 8)
    step(layer, x)
    loss = layer(x)[0].sum()
    gatedcells.empty_cache()
    assert kept.sizes() == (4 * 6 * 6 * 4 * 8, 0)
    loss.backward()
    gatedcells.empty_cache()
    assert kept.sizes() == (0, 0)
    step(layer, x)


def test_threads_get_blocks_of_their_own():
    blocks, begin, wrong = Blocks(), threading.Barrier(4), []

    def work(number):
        begin.wait()
        for round in range(300):
            block = blocks.take((1 + round % 3) * PAGE)
            block[0] = number
            block[len(block) - 1] = number
            if block[0] != number or block[len(block) - 1] != number:
                wrong.append(number)
            del block

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert blocks.sizes()[0] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_writes_to_memory_of_its_own():
    blocks = Blocks()
    block = blocks.take(PAGE)
    block[0] = 1
    child = os.fork()
    if child == 0:
        block[0] = 2
        os._exit(len(blocks.take(PAGE)) != PAGE)
    assert os.waitpid(child, 0)[1] == 0
    assert block[0] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_while_another_thread_takes_memory_does_not_wait_for_it():
    with memory.BLOCKS._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # instead of waiting for ever
            os._exit(len(memory.BLOCKS.take(PAGE)) != PAGE)
        assert os.waitpid(child, 0)[1] == 0


def test_where_there_is_no_memory_torch_says_so(kept):
    like = torch.empty(1)
    block = kept.take(PAGE)
    del block
    with pytest.raises(RuntimeError, match="memory"):
        memory.working(like, 1 << 30, 1 << 27)
    assert kept.sizes() == (0, 0)


def test_memory_that_the_system_refuses_to_map_comes_from_torch(kept, monkeypatch):
    def refused(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(memory.mmap, "mmap", refused)
    layer = gatedcells.LSTM(8, 8)
    step(layer, torch.randn(6, 6, 8))
    assert layer.weight_hh_l0.grad.isfinite().all()
    assert kept.sizes() == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_tensor_in_kept_memory_is_one_like_any_other(dtype, kept):
    like = torch.empty(1, dtype=dtype)
    made = memory.working(like, 3, 4, 5)
    usual = library.empty(like, 3, 4, 5)
    for one in (made, usual):
        assert one.isnan().all()  # as conftest.py asks for
    assert (made.dtype, made.shape, made.stride()) == (usual.dtype, usual.shape, usual.stride())
    assert (made.device, made.requires_grad) == (usual.device, usual.requires_grad)
    assert made.data_ptr() % 64 == 0


def test_small_tensors_lie_in_torchs_own_memory(monkeypatch):
    blocks = Blocks()
    monkeypatch.setattr(memory, "BLOCKS", blocks)
    like = torch.empty(1, dtype=torch.float64)
    memory.working(like, memory.KEPT // 8 - 1)
    assert blocks.sizes() == (0, 0)
    held = memory.working(like, memory.KEPT // 8)
    assert blocks.sizes() == (held.nbytes, 0)


@pytest.mark.parametrize("cell", CELLS)
def test_another_default_device_is_no_matter(cell, kept):
    layer, x = getattr(gatedcells, cell)(5, 7), torch.randn(9, 3, 5)
    step(layer, x)
    usual = gradients(layer)
    layer.zero_grad()
    with torch.device("meta"):
        step(layer, x)
    assert all(map(torch.equal, gradients(layer), usual))


@pytest.mark.parametrize("cell", CELLS)
def test_operators_and_second_derivatives_take_kept_memory_too(cell, kept):
    layer = getattr(gatedcells, cell)(3, 2, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x)
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], x)
    states = tuple(torch.randn(2, 2, dtype=torch.float64) for _ in range({"GRU": 1, "LSTM": 2}[cell]))
    weights = [*layer.parameters()]
    run = getattr(torch.ops.gatedcells, f"{cell.lower()}_sequence")
    rest = (None,) * {"GRU": 2, "LSTM": 3}[cell]
    options = {"GRU": (False, True, 2, "cpu"), "LSTM": (False, 2, "cpu")}[cell]
    found = run(x, *states, *weights, *rest, *options)[0]
    given = states[0] if cell == "GRU" else states
    function = getattr(gatedcells, f"{cell.lower()}_sequence")
    assert torch.equal(found, function(x, given, *weights)[0])
