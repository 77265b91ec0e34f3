"""``lengths=`` and ``mask=``: rows of different lengths, steps without a part, in one call on the device."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gatedcells
from gatedcells.layers.rows import Masked
from gatedcells.testing import assert_close_in_float64

CELLS = (gatedcells.GRU, gatedcells.LSTM)


def layer_of(cls, **options):
    torch.manual_seed(0)
    return cls(3, 5, dtype=torch.float64, **options)


def states_of(layer, B):
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    widths = [layer.proj_size or 5] + [5] * (layer.mode == "LSTM")
    return tuple(torch.randn(rows, B, w, dtype=torch.float64, requires_grad=True) for w in widths)


def call(layer, x, state, **asked):
    """Output and last states as one flat tuple."""
    output, last = layer(x, state if layer.mode == "LSTM" else state[0], **asked)
    return (output, *last) if layer.mode == "LSTM" else (output, last)


def gradients(layer, found, x, state):
    torch.manual_seed(5)
    loss = sum((value * torch.randn(value.shape, dtype=value.dtype)).sum() for value in found)
    return torch.autograd.grad(loss, [x, *state, *layer.parameters()], materialize_grads=True)


def assert_same(layer, x, state, found, exact):
    for f, e in zip(found, exact, strict=True):
        assert_close_in_float64(f, e)
    for f, e in zip(gradients(layer, found, x, state), gradients(layer, exact, x, state), strict=True):
        assert_close_in_float64(f, e)


configurations = st.fixed_dictionaries(
    {
        "num_layers": st.integers(1, 3),
        "bidirectional": st.booleans(),
        "batch_first": st.booleans(),
        "bias": st.booleans(),
        "recompute": st.booleans(),
    }
)


@settings(max_examples=20)
@given(
    cls=st.sampled_from(CELLS),
    options=configurations,
    projected=st.booleans(),
    T=st.integers(1, 7),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
)
def test_lengths_give_what_packing_and_padding_give(cls, options, projected, T, lengths):
    if cls is gatedcells.LSTM and projected:
        options["proj_size"] = 2
    layer = layer_of(cls, **options)
    lengths, B = torch.tensor([min(n, T) for n in lengths]), len(lengths)
    x = torch.randn((B, T, 3) if layer.batch_first else (T, B, 3), dtype=torch.float64, requires_grad=True)
    state = states_of(layer, B)
    found = call(layer, x, state, lengths=lengths)
    packed = pack_padded_sequence(x, lengths, layer.batch_first, enforce_sorted=False)
    output, *last = call(layer, packed, state)
    padded, _ = pad_packed_sequence(output, layer.batch_first, total_length=T)
    assert_same(layer, x, state, found, (padded, *last))


@pytest.mark.parametrize("cls", CELLS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_a_row_of_length_zero_keeps_its_initial_states_where_packing_raises(cls, options):
    layer = layer_of(cls, **options)
    x, state = torch.randn(4, 3, 3, dtype=torch.float64), states_of(layer, 3)
    lengths = torch.tensor([4, 0, 2])
    output, *last = call(layer, x, state, lengths=lengths)
    assert torch.equal(output[:, 1], torch.zeros_like(output[:, 1]))
    for first, end in zip(state, last, strict=True):
        assert torch.equal(end[:, 1], first[:, 1])
    with pytest.raises(RuntimeError, match="Length of all samples has to be greater than 0"):
        pack_padded_sequence(x, lengths, enforce_sorted=False)
    (only,) = torch.autograd.grad(sum(part[:, 1].sum() for part in last), state[:1])
    assert torch.equal(only[:, 1], torch.ones_like(only[:, 1]))
    assert torch.equal(only[:, ::2], torch.zeros_like(only[:, ::2]))


@pytest.mark.parametrize("cls", CELLS)
@pytest.mark.parametrize("asked", ["lengths", "mask", "gates"])
def test_nan_in_the_padding_reaches_no_result_and_no_gradient(cls, asked):
    layer = layer_of(cls, num_layers=2, bidirectional=True)
    lengths = torch.tensor([5, 0, 2])
    part = torch.arange(5)[:, None] < lengths
    clean = torch.randn(5, 3, 3, dtype=torch.float64)
    state = states_of(layer, 3)
    results = []
    for hole in (0.0, torch.nan):
        x = clean.masked_fill(~part[:, :, None], hole).requires_grad_()
        given_ = {"mask": part} if asked == "mask" else {"lengths": lengths}
        if asked == "gates":
            hx = state if layer.mode == "LSTM" else state[0]
            output, _, steps = layer(x, hx, return_gates=True, **given_)
            found = (output, *steps.values())
        else:
            found = call(layer, x, state, **given_)
        results.append((*found, *gradients(layer, found, x, state)))
    for without, with_nan in zip(*results, strict=True):
        assert torch.equal(with_nan, without)


@settings(max_examples=20)
@given(
    cls=st.sampled_from(CELLS),
    options=configurations,
    T=st.integers(1, 7),
    B=st.integers(1, 4),
    often=st.sampled_from([0.0, 0.4, 0.8, 1.0]),
    with_resets=st.booleans(),
)
def test_a_mask_is_each_row_run_alone_on_the_steps_that_take_part(cls, options, T, B, often, with_resets):
    layer = layer_of(cls, **options)
    mask, resets = torch.rand(T, B) < often, torch.rand(T, B) < 0.4
    x = torch.randn(T, B, 3, dtype=torch.float64, requires_grad=True)
    state = states_of(layer, B)
    turn = (lambda t: t.transpose(0, 1)) if layer.batch_first else (lambda t: t)
    asked = {"resets": turn(resets)} if with_resets else {}
    output, *last = call(layer, turn(x), state, mask=turn(mask), **asked)
    rows = []
    for row in range(B):
        times = mask[:, row].nonzero()[:, 0]
        hx = tuple(part[:, row : row + 1] for part in state)
        exact = torch.zeros(T, output.shape[-1], dtype=torch.float64)
        if len(times):
            # a beginning in a gap is that of the next step that takes part
            begun = resets[:, row].cumsum(0)[times]
            begins = begun > torch.cat((torch.zeros(1, dtype=torch.int64), begun[:-1]))
            alone = {"resets": turn(begins[:, None])} if with_resets else {}
            part, *hx = call(layer, turn(x[times, row : row + 1]), hx, **alone)
            exact = exact.index_copy(0, times, turn(part)[:, 0])
        rows.append((exact, *(one[:, 0] for one in hx)))
    expected = tuple(torch.stack(one, dim=1) for one in zip(*rows, strict=True))
    assert_same(layer, x, state, (turn(output), *last), expected)


@pytest.mark.parametrize("cls", CELLS)
def test_a_mask_that_is_true_up_to_a_length_is_that_length(cls):
    layer = layer_of(cls, num_layers=2, bidirectional=True)
    x, lengths = torch.randn(5, 3, 3, dtype=torch.float64), torch.tensor([3, 5, 0])
    state = states_of(layer, 3)
    mask = torch.arange(5)[:, None] < lengths
    for f, e in zip(call(layer, x, state, mask=mask), call(layer, x, state, lengths=lengths), strict=True):
        assert torch.equal(f, e)


@pytest.mark.parametrize("cls", CELLS)
def test_dropout_between_layers_is_drawn_over_the_padded_steps(cls):
    layer = layer_of(cls, num_layers=2, dropout=0.5)
    first, second = layer_of(cls), cls(5, 5, dtype=torch.float64)
    for number, single in enumerate((first, second)):
        single.load_state_dict(
            {f"{n.split('_l')[0]}_l0": p for n, p in layer.named_parameters() if n.endswith(str(number))}
        )
    x, lengths = torch.randn(6, 3, 3, dtype=torch.float64), torch.tensor([2, 6, 4])
    torch.manual_seed(9)
    found = layer(x, lengths=lengths)[0]
    torch.manual_seed(9)
    between = torch.nn.functional.dropout(first(x, lengths=lengths)[0], 0.5)
    exact = second(between, lengths=lengths)[0]
    assert_close_in_float64(found, exact)
    layer.dropout = 1.0
    assert_close_in_float64(
        layer(x, lengths=lengths)[0], second(torch.zeros(6, 3, 5, dtype=torch.float64), lengths=lengths)[0]
    )


def test_lengths_compile_and_export_where_packing_cannot(backend):
    if backend == "reference":
        pytest.skip("the compiler sees one operator, whoever computes it")
    layer = layer_of(gatedcells.GRU).eval()
    x, lengths = torch.randn(6, 2, 3, dtype=torch.float64), torch.tensor([4, 0])
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, n, m: (layer(x, lengths=n)[0], layer(x, mask=m)[0]), fullgraph=True, backend="eager"
    )
    mask = torch.rand(6, 2) < 0.5
    for f, e in zip(
        compiled(x, lengths, mask), (layer(x, lengths=lengths)[0], layer(x, mask=mask)[0]), strict=True
    ):
        assert_close_in_float64(f, e)
    T = torch.export.Dim("T")
    program = torch.export.export(
        layer, (x,), {"lengths": lengths}, dynamic_shapes={"input": {0: T}, "lengths": None}
    ).module()
    longer = torch.randn(9, 2, 3, dtype=torch.float64)
    assert_close_in_float64(program(longer, lengths=lengths)[0], layer(longer, lengths=lengths)[0])
    theirs = torch.nn.GRU(3, 5, dtype=torch.float64)
    with pytest.raises(Exception):  # noqa: B017 the compiler's own
        torch.compile(
            lambda x, n: theirs(pack_padded_sequence(x, n, enforce_sorted=False))[0].data,
            fullgraph=True,
            backend="eager",
        )(x, torch.tensor([4, 1]))


class Rows(torch.nn.Module):
    """What a layer makes of a mask and resets before it runs."""

    def forward(self, mask, resets):
        return Masked.of(mask).resets(resets)


def test_a_mask_with_resets_is_exported_for_any_number_of_steps():
    sizes = {0: torch.export.Dim("T"), 1: torch.export.Dim("B")}
    given = (torch.rand(4, 3) < 0.6, torch.rand(4, 3) < 0.4)
    program = torch.export.export(Rows(), given, dynamic_shapes=(sizes, sizes)).module()
    for T, B in ((1, 1), (2, 3), (7, 2)):
        given = (torch.rand(T, B) < 0.6, torch.rand(T, B) < 0.4)
        assert torch.equal(program(*given), Rows()(*given))


def test_no_steps_and_unbatched_input_take_lengths_too():
    layer = layer_of(gatedcells.GRU, allow_empty=True)
    h = torch.randn(1, 2, 5, dtype=torch.float64)
    output, last = layer(torch.zeros(0, 2, 3, dtype=torch.float64), h, lengths=torch.tensor([0, 0]))
    assert output.shape == (0, 2, 5)
    assert torch.equal(last, h)
    x = torch.randn(6, 3, dtype=torch.float64)
    output, last = layer(x, lengths=torch.tensor(4))
    assert_close_in_float64(output[:4], layer(x[:4])[0])
    assert torch.equal(output[4:], torch.zeros(2, 5, dtype=torch.float64))
    assert_close_in_float64(last, layer(x[:4])[1])


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"lengths": [3, 1]}, TypeError, r"lengths must be a tensor of integers \[B\] .*, got list"),
        ({"lengths": torch.tensor([3, 1, 1])}, RuntimeError, r"lengths must be \[B=2\], got \[3\]"),
        (
            {"lengths": torch.tensor([3.0, 1])},
            ValueError,
            "lengths must be int32 or int64, got torch.float32",
        ),
        ({"lengths": torch.tensor([7, 1])}, ValueError, r"lengths must lie in 0..T=6, got 1..7"),
        ({"lengths": torch.tensor([-1, 1])}, ValueError, r"lengths must lie in 0..T=6, got -1..1"),
        ({"mask": torch.ones(2, 6).bool()}, RuntimeError, r"mask must be \[T, B\]=\[6, 2\], got \[2, 6\]"),
        ({"mask": torch.ones(6, 2)}, ValueError, "mask must be bool, got torch.float32"),
        (
            {"mask": torch.ones(6, 2, dtype=torch.bool, device="meta")},
            RuntimeError,
            "must be on the same device",
        ),
        (
            {"mask": torch.ones(6, 2).bool(), "lengths": torch.tensor([3, 1])},
            ValueError,
            "give lengths or mask, not both",
        ),
    ],
)
def test_wrong_lengths_and_masks_are_named(asked, error, message):
    layer = layer_of(gatedcells.LSTM)
    with pytest.raises(error, match=message):
        layer(torch.randn(6, 2, 3, dtype=torch.float64), **asked)


def test_packed_and_unbatched_input_say_what_they_do_not_take():
    layer = layer_of(gatedcells.GRU)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([6, 2]))
    for asked in ({"lengths": torch.tensor([6, 2])}, {"mask": torch.ones(6, 2).bool()}):
        with pytest.raises(ValueError, match=f"{next(iter(asked))}= needs a padded input"):
            layer(packed, **asked)
    with pytest.raises(RuntimeError, match="of an unbatched input must be a single number, got"):
        layer(x[:, 0], lengths=torch.tensor([6]))


@pytest.mark.parametrize("cls", CELLS)
def test_lengths_and_masks_are_mapped(cls):
    layer = layer_of(cls)
    xs = torch.randn(3, 6, 2, 3, dtype=torch.float64)
    lengths = torch.tensor([[6, 2], [0, 5], [3, 3]])
    found = torch.vmap(lambda x, n: layer(x, lengths=n)[0])(xs, lengths)
    masks = torch.rand(3, 6, 2) > 0.4
    held = torch.vmap(lambda x, m: layer(x, mask=m)[0])(xs, masks)
    for x, n, m, a, b in zip(xs, lengths, masks, found, held, strict=True):
        torch.testing.assert_close(a, layer(x, lengths=n)[0])
        torch.testing.assert_close(b, layer(x, mask=m)[0])


@pytest.mark.parametrize("cls", CELLS)
def test_per_sample_gradients_take_lengths(cls):
    layer = layer_of(cls)
    x, lengths = torch.randn(6, 4, 3, dtype=torch.float64), torch.tensor([6, 1, 4, 0])
    weights = dict(layer.named_parameters())

    def loss(weights, x, n):
        given = (x.unsqueeze(1),)
        return (
            torch.func.functional_call(layer, weights, given, {"lengths": n.unsqueeze(0)})[0].square().sum()
        )

    found = torch.vmap(torch.func.grad(loss), (None, 1, 0))(weights, x, lengths)
    for row, n in enumerate(lengths):
        alone = torch.func.grad(loss)(weights, x[:, row], n)
        for name, gradient in alone.items():
            torch.testing.assert_close(found[name][row], gradient)


@pytest.mark.parametrize("cls", CELLS)
@pytest.mark.parametrize("asked", [{}, {"return_states": True}, {"return_gates": True}])
def test_wrong_lengths_are_refused_whatever_is_returned(cls, asked):
    layer, x = layer_of(cls), torch.randn(6, 2, 3, dtype=torch.float64)
    for lengths, message in (
        (torch.tensor([7, 1]), "must lie in 0..T=6"),
        (torch.tensor([3.5, 1.0]), "int32 or int64"),
        (torch.tensor([3]), "lengths must be"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=message):
            layer(x, lengths=lengths, **asked)
        with pytest.raises((ValueError, RuntimeError), match=message):
            layer.trace(x, lengths=lengths)
    with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0"):
        layer(x[:0], **asked)
    with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0"):
        layer.trace(x[:0])


@pytest.mark.parametrize("cls", CELLS)
def test_packed_input_goes_with_another_default_device(cls):
    layer, x = layer_of(cls), torch.randn(4, 2, 3, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([4, 2]))
    expected = layer(packed)[0].data
    with torch.device("meta"):
        found = layer(packed)[0].data
    assert torch.equal(found, expected)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_a_packed_batch_of_one_length_gives_what_torchs_layer_gives(cell, rows):
    """Also dropout, drawn for the packed steps in their order, and a result that is nobody's view."""
    options = {"num_layers": 2, "bidirectional": True, "dropout": 0.4, "dtype": torch.float64}
    theirs = getattr(torch.nn, cell)(4, 5, **options)
    ours = getattr(gatedcells, cell)(4, 5, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(6, rows, 4, dtype=torch.float64)
    found = []
    for layer in (ours, theirs):
        torch.manual_seed(3)
        packed, last = layer(pack_padded_sequence(x, [6] * rows, enforce_sorted=False))
        grads = torch.autograd.grad(packed.data.square().sum(), [*layer.parameters()])
        found.append([packed.data, *(last if cell == "LSTM" else (last,)), *grads])
        packed.data.detach_()
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
