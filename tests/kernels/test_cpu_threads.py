"""The CPU kernels called from several Python threads at once, each with a shape of its own."""

import os
import sys
import threading

import pytest
import torch

import gatedcells
from gatedcells_kernels.cpu import sequence
from gatedcells_kernels.tape import Keep
from tests.support.cell_tensors import gru_tensors, lstm_tensors

pytestmark = pytest.mark.usefixtures("native")
# T, B, I, H: rows or hidden units to share, few panels and many, a single step, memory that has to grow
SHAPES = [(9, 3, 5, 17), (4, 40, 7, 33), (1, 2, 30, 70), (12, 1, 3, 130)]
ROUNDS = 20


def gru(T, B, I, H, weights=None):
    input, hidden, *own = gru_tensors(T, B, I, H, dtype=torch.float32)
    weights = weights or own
    lengths, resets = torch.randint(0, T + 1, (B,)), torch.rand(T, B) < 0.2

    def call():
        states, tape = sequence.gru_forward(input, hidden, *weights, lengths, resets, False, True, Keep.TAPE)
        read = torch.ones_like(states), None, hidden, weights[1], lengths, resets
        return states, tape, *sequence.gru_backward(*read, states, tape, False, True)

    return call


def lstm(T, B, I, H, weights=None):
    input, hidden, cell, *own = lstm_tensors(T, B, I, H, dtype=torch.float32)
    weights = weights or own
    lengths, resets = torch.randint(0, T + 1, (B,)), torch.rand(T, B) < 0.2

    def call():
        found = sequence.lstm_forward(input, hidden, cell, *weights, lengths, resets, False, Keep.TAPE)
        read = torch.ones_like(found[0]), None, None, hidden, cell, weights[1], None, lengths, resets
        return *found, *sequence.lstm_backward(*read, found[0], found[2], False)

    return call


def at_once(calls):
    """What every call returns in each of its rounds, each call on a thread of its own."""
    found, begin = [[] for _ in calls], threading.Barrier(len(calls))

    def repeat(call, kept):
        begin.wait()
        kept.extend(call() for _ in range(ROUNDS))

    threads = [threading.Thread(target=repeat, args=pair) for pair in zip(calls, found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture(params=[1, 2])
def teams(request):
    """How many threads of the kernel's each Python thread has."""
    yield request.param
    torch.set_num_threads(1)


def drawn(make, shared):
    """A call for every shape, the same at every drawing; the weights are new, so nobody has packed them."""
    torch.manual_seed(0)
    if not shared:
        return [make(*shape) for shape in SHAPES]
    one, first = (gru_tensors, 2) if make is gru else (lstm_tensors, 3)
    weights = one(1, 1, 6, 48, dtype=torch.float32)[first:]
    return [make(T, B, 6, 48, weights) for T, B, *_ in SHAPES]


@pytest.mark.parametrize("shared", [False, True], ids=["weights of their own", "shared weights"])
@pytest.mark.parametrize("make", [gru, lstm])
def test_sequences_of_different_shapes_at_once_have_the_bits_of_each_alone(make, shared, teams):
    alone = [call() for call in drawn(make, shared)]
    torch.set_num_threads(teams)
    for expected, rounds in zip(alone, at_once(drawn(make, shared)), strict=True):
        assert len(rounds) == ROUNDS
        for found in rounds:
            assert all(map(torch.equal, found, expected))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread cannot be kept on one core")
@pytest.mark.parametrize("teams", [2], indirect=True)
def test_members_of_a_team_that_wait_long_give_up_their_core(teams):
    """Else each of many processes on a machine spins at every step while nobody computes."""
    import resource

    torch.set_num_threads(teams)
    T, layer, slept = 300, gatedcells.GRU(5, 256, backend="cpu"), []

    def on_one_core():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of this thread and of those that it starts
        with torch.no_grad():
            layer(torch.zeros(T, 1, 5))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
            layer(torch.zeros(T, 1, 5))
        slept.append(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before)

    alone = threading.Thread(target=on_one_core)
    alone.start()
    alone.join()
    assert slept[0] > T / 2  # the units of a step are shared by two, of whom one waits for the other
