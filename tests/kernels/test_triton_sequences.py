"""Triton's kernels beside the reference: every kernel, forward and all gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gatedcells import _reference_kernel as reference
from gatedcells.testing import assert_within_budget
from gatedcells_kernels.tape import Keep
from tests.support.cell_tensors import gru_tensors, lstm_tensors
from tests.support.triton_device import device as device
from tests.support.triton_device import one_program

library = pytest.importorskip("gatedcells_kernels.triton.library")
launch = pytest.importorskip("gatedcells_kernels.triton.launch")
triton = pytest.importorskip("gatedcells_kernels.triton.sequence")

# beyond 16 more than one tile of rows, or more than one slice of units; beyond 64 more than one chunk
SIZES = st.tuples(
    st.integers(1, 5), st.integers(0, 20), st.integers(0, 5), st.sampled_from([1, 7, 16, 17, 33, 70])
)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def kernels_for(width, T, twice):
    """The kernels that can run such a sequence."""
    names = ["library", "steps"]
    if width <= 64:
        names.append("whole")
    if T > 1 or twice:
        names.append("slices")
    return names


def run(kernel, cell, width, call, *arguments):
    """One kernel."""
    if kernel == "slices" and library.interprets():
        with one_program(cell, width):
            return call(*arguments)
    with launch.prefer(kernel):
        return call(*arguments)


def on(device, tensor):
    return None if tensor is None else tensor.to(device)


def as_exact(values, dtype, device):
    """Drawn in float64; as numbers that ``dtype`` has, in that dtype and in float64."""
    rounded = [None if v is None else v.to(device, dtype) for v in values]
    return rounded, [None if v is None else v.double() for v in rounded]


def pooled(found):
    return torch.cat([number.flatten() for draw in found for number in draw])


# A rival's roundings may cancel by luck in the few numbers of a small case: errors are compared over several.
DRAWS = 3


class Compared:
    """Ours, the reference in the same dtype and the reference in float64, over several draws."""

    def __init__(self):
        self.runs = {"ours": [], "rival": [], "exact": []}

    def add(self, **found):
        for who, numbers in found.items():
            self.runs[who].append(numbers)

    def check(self, name):
        ours, rival, exact = (pooled(found) for found in self.runs.values())
        assert_within_budget(ours, exact=exact, rival=rival, name=name)


@settings(max_examples=25)
@given(
    sizes=SIZES, bias=st.booleans(), reverse=st.booleans(), reset_after=st.booleans(),
    dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**16), data=st.data(),
)  # fmt: skip
def test_gru_kernels_are_as_exact_as_the_reference(
    device, sizes, bias, reverse, reset_after, dtype, seed, data
):
    T, B, _, H = sizes
    kernel = data.draw(st.sampled_from(kernels_for(H, T, not reset_after)))
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    lengths = None if lengths is None else torch.tensor(lengths, dtype=torch.int64, device=device)
    often = data.draw(st.sampled_from([None, 0.0, 0.2, 1.0]))
    some = data.draw(st.sampled_from(["both", "states", "last"]))
    forward, backward = Compared(), Compared()
    for draw in range(DRAWS):
        torch.manual_seed(seed + draw)
        resets = None if often is None else on(device, torch.rand(T, B) < often)
        options = (lengths, resets, reverse, reset_after)
        given_, exactly = as_exact(gru_tensors(*sizes, bias=bias), dtype, device)
        ours = run(kernel, "GRU", H, triton.gru_forward, *given_, *options, Keep.TAPE)
        rival = reference.gru_forward(*given_, *options, Keep.TAPE)
        forward.add(ours=ours, rival=rival, exact=reference.gru_forward(*exactly, *options, Keep.TAPE))
        without = run(kernel, "GRU", H, triton.gru_forward, *given_, *options, Keep.NOTHING)
        assert torch.equal(without[0], ours[0])
        assert without[1].numel() == 0

        d_states = torch.randn(T, B, H) if some != "last" else None
        d_last = torch.randn(B, H) if some != "states" else None
        # all three go backward from the same tape
        rounded, exactly = as_exact((d_states, d_last, given_[1], given_[3], *rival), dtype, device)

        def back(call, t, options=options):
            return call(*t[:4], *options[:2], *t[4:], *options[2:])

        backward.add(
            ours=back(lambda *a: run(kernel, "GRU", H, triton.gru_backward, *a), rounded),
            rival=back(reference.gru_backward, rounded),
            exact=back(reference.gru_backward, exactly),
        )
    forward.check("forward")
    backward.check("backward")


@settings(max_examples=25)
@given(
    sizes=SIZES, P=st.sampled_from([0, 0, 1, 9]), bias=st.booleans(), reverse=st.booleans(),
    dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**16), data=st.data(),
)  # fmt: skip
def test_lstm_kernels_are_as_exact_as_the_reference(device, sizes, P, bias, reverse, dtype, seed, data):
    T, B, _, H = sizes
    width = max(H, P)
    kernel = data.draw(st.sampled_from(kernels_for(width, T, P > 0)))
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    lengths = None if lengths is None else torch.tensor(lengths, dtype=torch.int64, device=device)
    often = data.draw(st.sampled_from([None, 0.0, 0.2, 1.0]))
    some = data.draw(st.sampled_from(["all", "states", "last", "cell"]))
    forward, backward = Compared(), Compared()
    for draw in range(DRAWS):
        torch.manual_seed(seed + draw)
        resets = None if often is None else on(device, torch.rand(T, B) < often)
        options = (lengths, resets, reverse)
        given_, exactly = as_exact(lstm_tensors(*sizes, P=P, bias=bias), dtype, device)
        ours = run(kernel, "LSTM", width, triton.lstm_forward, *given_, *options, Keep.TAPE)
        rival = reference.lstm_forward(*given_, *options, Keep.TAPE)
        forward.add(ours=ours, rival=rival, exact=reference.lstm_forward(*exactly, *options, Keep.TAPE))
        only = run(kernel, "LSTM", width, triton.lstm_forward, *given_, *options, Keep.STATES)
        states, last_cell, cells = only
        assert torch.equal(states, ours[0])
        assert torch.equal(last_cell, ours[1])
        assert torch.equal(cells, ours[2][:, :, 4:])

        d_states = torch.randn(T, B, P or H) if some in ("all", "states") else None
        d_last = torch.randn(B, P or H) if some in ("all", "last") else None
        d_cell = torch.randn(B, H) if some in ("all", "cell") else None
        _, hidden, cell, _, weight_hh, _, _, weight_hr = given_
        read = (d_states, d_last, d_cell, hidden, cell, weight_hh, weight_hr, rival[0], rival[2])
        rounded, exactly = as_exact(read, dtype, device)

        def back(call, t, options=options):
            return call(*t[:7], *options[:2], *t[7:], options[2])

        backward.add(
            ours=back(lambda *a: run(kernel, "LSTM", width, triton.lstm_backward, *a), rounded),
            rival=back(reference.lstm_backward, rounded),
            exact=back(reference.lstm_backward, exactly),
        )
    forward.check("forward")
    backward.check("backward")


@pytest.mark.parametrize("kernel", ["whole", "slices", "steps", "library"])
@pytest.mark.parametrize("form", ["GRU", "GRU, reset before", "LSTM", "LSTM, projected"])
def test_every_number_is_written(device, form, kernel):
    """New memory is NaN, see conftest.py."""
    T, B, H, P = 3, 18, 17, 5 if form == "LSTM, projected" else 0
    cell, lengths = form[:4].rstrip(","), torch.randint(0, T + 1, (B,), device=device)
    drawn = gru_tensors(T, B, 2, H) if cell == "GRU" else lstm_tensors(T, B, 2, H, P)
    tensors = [t if t is None else t.float().to(device) for t in drawn]
    if cell == "GRU":
        after = form == "GRU"
        options = (lengths, None, False, after)
        states, tape = run(kernel, cell, H, triton.gru_forward, *tensors, *options, Keep.TAPE)
        found = run(kernel, cell, H, triton.gru_backward, states, states[-1], tensors[1], tensors[3],
                    lengths, None, states, tape, False, after)  # fmt: skip
    else:
        _, hidden, cell_state, _, weight_hh, _, _, weight_hr = tensors
        states, last, tape = run(
            kernel, cell, H, triton.lstm_forward, *tensors, lengths, None, False, Keep.TAPE
        )
        found = run(
            kernel, cell, H, triton.lstm_backward, states, states[-1], last, hidden, cell_state, weight_hh,
            weight_hr, lengths, None, states, tape, False,
        )  # fmt: skip
        found = [*found, last]
    for number in (states, tape, *found):
        assert torch.isfinite(number).all()


def turned(tensor):
    """The same numbers in another order in memory."""
    return None if tensor is None else tensor.transpose(0, -1).contiguous().transpose(0, -1)


@pytest.mark.parametrize("kernel", ["whole", "steps", "library"])
@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_tensors_may_lie_in_any_order_in_memory(device, cell, kernel):
    tensors = (gru_tensors if cell == "GRU" else lstm_tensors)(2, 3, 2, 5)
    tensors = [t if t is None else t.float().to(device) for t in tensors]
    found = []
    for order in (lambda tensor: tensor, turned):
        given_ = [order(t) for t in tensors]
        if cell == "GRU":
            options = (None, None, False, True)
            states, tape = run(kernel, cell, 5, triton.gru_forward, *given_, *options, Keep.TAPE)
            read = order(states), order(states[-1]), given_[1], given_[3], None, None
            back = run(kernel, cell, 5, triton.gru_backward, *read, order(states), tape, False, True)
            found.append((states, tape, *back))
        else:
            options = (None, None, False)
            states, last, tape = run(kernel, cell, 5, triton.lstm_forward, *given_, *options, Keep.TAPE)
            read = order(states), order(states[-1]), order(last), *given_[1:3], given_[4], None, None, None
            back = run(kernel, cell, 5, triton.lstm_backward, *read, order(states), tape, False)
            found.append((states, last, tape, *back))
    for number, other in zip(*found, strict=True):
        torch.testing.assert_close(number, other)


class Asked(TorchDispatchMode):
    """What brings a number from the device to the host, which a CUDA graph being captured forbids."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            self.found.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kernel", ["whole", "slices", "steps", "library"])
@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_the_host_asks_for_no_number(device, cell, kernel):
    T, B, H = 2, 2, 5
    tensors = gru_tensors(T, B, 2, H) if cell == "GRU" else lstm_tensors(T, B, 2, H, 3)
    tensors = [t.float().to(device) if t is not None else None for t in tensors]
    rows = torch.tensor([2, 1], device=device), torch.rand(T, B, device=device) < 0.5
    with Asked() as asked:
        if cell == "GRU":
            states, tape = run(kernel, cell, H, triton.gru_forward, *tensors, *rows, False, False, Keep.TAPE)
            read = states, None, tensors[1], tensors[3], *rows, states, tape
            run(kernel, cell, H, triton.gru_backward, *read, False, False)
        else:
            states, last, tape = run(kernel, cell, H, triton.lstm_forward, *tensors, *rows, False, Keep.TAPE)
            read = states, None, last, *tensors[1:3], tensors[4], tensors[7], *rows, states, tape
            run(kernel, cell, H, triton.lstm_backward, *read, False)
        assert not asked.found
        states[0, 0, 0].item()
    assert asked.found == {"aten._local_scalar_dense.default"}


@pytest.fixture
def _tf32_is_allowed():
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    yield
    matmul.allow_tf32 = before


def forward_error(kernel, H, device):
    given_, exactly = as_exact(gru_tensors(4, 3, 2, H), torch.float32, device)
    options = (None, None, False, True, Keep.TAPE)
    found = run(kernel, "GRU", H, triton.gru_forward, *given_, *options)[0]
    return float((found.double() - reference.gru_forward(*exactly, *options)[0]).abs().max())


@pytest.mark.parametrize("kernel", ["whole", "slices", "steps"])
@pytest.mark.usefixtures("_tf32_is_allowed")
def test_tf32_has_the_error_of_ten_digits_where_torch_is_allowed_it(device, kernel):
    assert 2**-16 < forward_error(kernel, 24, device) < 2**-9


@pytest.mark.parametrize("kernel", ["whole", "slices", "steps"])
def test_float32_has_its_own_digits_where_tf32_is_not_allowed(device, kernel):
    assert forward_error(kernel, 24, device) < 2**-20
