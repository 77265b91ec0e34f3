"""The CPU kernels' products over all rows of a sequence: gradients of weights, biases and input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gatedcells
from gatedcells.testing import assert_close_in_float64, assert_within_budget
from gatedcells_kernels.cpu import library, products, sequence
from tests.support.cell_tensors import draw

CELLS = ("GRU", "LSTM")
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "input")
SIZES = st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))


def drawn(cell, T, B, I, H, P=None, dtype=torch.float64, reverse=False):
    """The gates' gradients, the input, what the steps have found and the weight."""
    P = P or H
    states, initial = draw(T, B, P, dtype=dtype), draw(1, B, P, dtype=dtype)
    previous = (states[1:], initial) if reverse else (initial, states[:-1])
    weight = draw({"GRU": 3, "LSTM": 4}[cell] * H, I, dtype=dtype)
    previous = tuple(piece for piece in previous if len(piece))
    return draw(T, B, 4, H, dtype=dtype), draw(T, B, I, dtype=dtype), previous, weight


def as_written(cell, d_gates, input, previous, weight):
    """The equations: sums over time and batch of the gates' gradients times what their weights have read."""
    d_n, d_r, d_z, d_hn = d_gates.unbind(2)
    if cell == "GRU":
        d_x, d_h = torch.cat([d_r, d_z, d_n], 2), torch.cat([d_r, d_z, d_hn], 2)
    else:
        d_x = d_h = d_gates.reshape(*d_gates.shape[:2], -1)
    before = torch.cat(previous)
    weights = [torch.einsum("tbg,tbk->gk", d, read) for d, read in ((d_x, input), (d_h, before))]
    return [*weights, d_x.sum((0, 1)), d_h.sum((0, 1)), d_x @ weight]


def computed(cell, d_gates, input, previous, weight):
    found = sequence.weight_gradients(cell, d_gates, input, previous, (True,) * 4)
    if found is None:
        assert d_gates.shape[:2] == (1, 1)  # no sum: left to torch
        found = [None] * 4
    return [*found, sequence.input_gradient(cell, d_gates, weight)]


@settings(max_examples=60)
@given(cell=st.sampled_from(CELLS), sizes=SIZES, P=st.none() | st.integers(1, 60), reverse=st.booleans())
def test_they_are_the_sums_that_the_equations_say(level, cell, sizes, P, reverse):
    given = drawn(cell, *sizes, P=None if cell == "GRU" else P, reverse=reverse)
    for name, ours, exact in zip(NAMES, computed(cell, *given), as_written(cell, *given), strict=True):
        if ours is None:
            assert sizes[0] * sizes[1] < (8 if name == "input" else 2)
            continue
        assert_close_in_float64(ours, exact, name)


# many rows and few, with wide weights and narrow, and terms to a sum that are more than are summed at a time
SHAPES = [
    (90, 1, 5, 64),
    (60, 64, 50, 100),
    (30, 9, 33, 37),
    (257, 1, 60, 16),
    (16, 16, 64, 200),
    (1, 9, 7, 300),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_in_float32_they_are_as_exact_as_torch(native, cell, shape):
    torch.manual_seed(0)
    given = drawn(cell, *shape, dtype=torch.float32)
    doubled = [part.double() if torch.is_tensor(part) else [p.double() for p in part] for part in given]
    exact, rival = as_written(cell, *doubled), as_written(cell, *given)
    for name, *numbers in zip(NAMES, computed(cell, *given), exact, rival, strict=True):
        assert_within_budget(numbers[0], exact=numbers[1], rival=numbers[2], name=name)


@pytest.fixture
def every_size(monkeypatch):
    """bfloat16 by these kernels also where torch's products are faster."""
    monkeypatch.setattr(products, "_MANY_ROWS", 1 << 30)
    monkeypatch.setattr(products, "_LARGE_WEIGHT", 1 << 30)
    monkeypatch.setattr(products, "_has_tiles", lambda: False)


@pytest.mark.parametrize("shape", [*SHAPES, (90, 7, 50, 30), (600, 1, 5, 8), (1, 30, 64, 70)], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_in_bfloat16_they_are_as_exact_as_torch(level, every_size, cell, shape):
    torch.manual_seed(0)
    given = drawn(cell, *shape, dtype=torch.bfloat16)
    doubled = [part.double() if torch.is_tensor(part) else [p.double() for p in part] for part in given]
    exact, rival = as_written(cell, *doubled), as_written(cell, *given)
    for name, *numbers in zip(NAMES, computed(cell, *given), exact, rival, strict=True):
        assert numbers[0].dtype == torch.bfloat16
        assert_within_budget(numbers[0], exact=numbers[1], rival=numbers[2], name=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_they_have_the_same_bits_on_any_number_of_threads(native, every_size, cell, shape, dtype):
    given, found = drawn(cell, *shape, dtype=dtype), []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        found.append(computed(cell, *given))
    torch.set_num_threads(1)
    for others in found[1:]:
        assert all(map(torch.equal, others, found[0]))


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_a_whole_layer_do_not_depend_on_the_number_of_threads(native, cell):
    layer, found = getattr(gatedcells, cell)(20, 50, num_layers=2, backend="cpu"), []
    x = torch.randn(40, 16, 20, requires_grad=True)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        output, _ = layer(x)
        found.append(torch.autograd.grad(output.square().sum(), [x, *layer.parameters()]))
    torch.set_num_threads(1)
    for others in found[1:]:
        assert all(map(torch.equal, others, found[0]))


@pytest.mark.parametrize("needed", [(True, False, False, False), (False, True, False, True), (False,) * 4])
@pytest.mark.parametrize("cell", CELLS)
def test_only_what_is_needed_is_made(native, cell, needed):
    given = drawn(cell, 9, 40, 5, 20)
    every = sequence.weight_gradients(cell, *given[:3], (True,) * 4)
    some = sequence.weight_gradients(cell, *given[:3], needed)
    for need, ours, whole in zip(needed, some, every, strict=True):
        assert ours is None if not need else torch.equal(ours, whole)


@pytest.mark.parametrize("cell", CELLS)
def test_every_number_of_the_gradients_is_written(native, cell, monkeypatch):
    given = drawn(cell, 50, 6, 50, 33)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()  # what is not written shows
        found = computed(cell, *given)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, ours, exact in zip(NAMES, found, as_written(cell, *given), strict=True):
        assert_close_in_float64(ours, exact, name)


def test_tensors_that_lie_otherwise_give_the_same(native):
    d_gates, input, previous, weight = drawn("LSTM", 12, 7, 9, 21)
    expected = computed("LSTM", d_gates, input, previous, weight)
    spread = torch.empty(12, 7, 18, dtype=torch.float64)[:, :, ::2].copy_(input)
    turned = weight.T.contiguous().T
    batch_first = [piece.transpose(0, 1).contiguous().transpose(0, 1) for piece in previous]
    assert all(map(torch.equal, computed("LSTM", d_gates, spread, batch_first, turned), expected))


@pytest.mark.parametrize(
    "changed",
    [
        lambda d, x, previous: (d, x[:-1], previous),
        lambda d, x, previous: (d, x.float(), previous),
        lambda d, x, previous: (d, x, previous[:1]),
        lambda d, x, previous: (d, x, (previous[0], previous[1][:, :-1])),
        lambda d, x, previous: (d, x, (previous[0][:, :, :-1], previous[1])),
        lambda d, x, previous: (d.half(), x.half(), [p.half() for p in previous]),
    ],
    ids=["fewer steps", "another type", "states of one step", "fewer rows", "narrower states", "float16"],
)
def test_what_does_not_fit_is_left_to_torch(native, changed):
    *given, _ = drawn("LSTM", 6, 5, 4, 8)
    assert sequence.weight_gradients("LSTM", *given, (True,) * 4) is not None
    assert sequence.weight_gradients("LSTM", *changed(*given), (True,) * 4) is None


def test_bfloat16_is_left_to_torch_where_its_products_use_tiles(native, monkeypatch):
    given = {dtype: drawn("GRU", 6, 5, 4, 8, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    for tiles in (False, True):
        monkeypatch.setattr(products, "_has_tiles", lambda tiles=tiles: tiles)
        for dtype, (d_gates, input, previous, weight) in given.items():
            left = tiles and dtype == torch.bfloat16
            assert (sequence.weight_gradients("GRU", d_gates, input, previous, (True,) * 4) is None) == left
            assert (sequence.input_gradient("GRU", d_gates, weight) is None) == left


@pytest.mark.parametrize("shape", [(52, 5, 4, 8), (2, 5, 300, 300)], ids=["many rows", "a large weight"])
def test_large_input_gradients_in_bfloat16_are_left_to_torch_where_the_cpu_multiplies_pairs(
    level, monkeypatch, shape
):
    monkeypatch.setattr(products, "_has_tiles", lambda: False)
    d_gates, _, _, weight = drawn("GRU", *shape, dtype=torch.bfloat16)
    found = sequence.input_gradient("GRU", d_gates, weight)
    assert (found is None) == library.load().multiplies_pairs
    assert sequence.input_gradient("GRU", d_gates.float(), weight.float()) is not None


def test_a_weight_that_was_changed_is_left_to_torch(native):
    d_gates, _, _, weight = drawn("LSTM", 6, 5, 4, 8)
    assert sequence.input_gradient("LSTM", d_gates, weight) is not None
    for other in (weight.float(), weight[:-1], weight[:, :0], weight.flatten()):
        assert sequence.input_gradient("LSTM", d_gates, other) is None


@pytest.mark.parametrize("cell", CELLS)
def test_a_nan_in_one_row_of_the_gates_is_in_that_rows_input_gradient_alone(native, cell):
    d_gates, _, _, weight = drawn(cell, 5, 9, 11, 40)
    clean = sequence.input_gradient(cell, d_gates, weight)
    d_gates[2, 3] = torch.nan
    found = sequence.input_gradient(cell, d_gates, weight)
    assert found[2, 3].isnan().all()
    found[2, 3] = clean[2, 3]
    assert torch.equal(found, clean)
