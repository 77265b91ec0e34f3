"""A trace is the forward pass, by name; its explanation and its check say what is in it."""

import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import gatedcells
from gatedcells.testing import golden_cases
from tests.support.inputs import Case, layer_cases
from tests.test_golden_vectors import build


def given_to(case: Case, dtype):
    x, state = case.input(dtype), case.state(dtype)
    if case.lengths is not None:
        x = pack_padded_sequence(
            x, torch.tensor(case.lengths), case.options["batch_first"], enforce_sorted=False
        )
    return x, None if state is None else state[0] if len(state) == 1 else state


def flat(result):
    output, last = result
    return [
        output.data if isinstance(output, PackedSequence) else output,
        *torch.utils._pytree.tree_leaves(last),
    ]


@settings(max_examples=60)
@given(case=layer_cases())
def test_the_outputs_are_those_of_the_forward_pass(case: Case):
    layer, _ = case.modules(torch.float64)
    layer.backend = "reference"
    x, hx = given_to(case, torch.float64)
    torch.manual_seed(1)
    expected = flat(layer(x, hx))
    torch.manual_seed(1)
    trace = layer.trace(x, hx)
    assert all(map(torch.equal, flat((trace.output, trace.last)), expected))
    assert (trace.layers, trace.directions) == (layer.num_layers, 1 + layer.bidirectional)


def test_the_rows_of_a_packed_input_are_traced_in_the_order_in_which_they_were_packed():
    torch.manual_seed(0)
    layer = gatedcells.LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    x, hx = torch.randn(6, 3, 3, dtype=torch.float64), torch.randn(2, 2, 3, 4, dtype=torch.float64)
    lengths = [2, 6, 4]
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    trace = layer.trace(packed, (hx[0], hx[1]), retain_grad=True)
    assert trace[0].lengths.tolist() == lengths
    trace.output.data.square().sum().backward()
    for row, length in enumerate(lengths):
        state = (hx[0][:, row : row + 1], hx[1][:, row : row + 1])
        alone = layer.trace(x[:length, row : row + 1], state, retain_grad=True)
        alone.output.square().sum().backward()
        for way in (0, 1):
            ours, expected = trace[0, way], alone[0, way]
            for name in ("x_input", "found_cell", "forget", "hidden"):
                torch.testing.assert_close(ours[name][:length, row], expected[name][:, 0], rtol=0, atol=1e-14)
            torch.testing.assert_close(ours.x[:length, row], x[:length, row])
            torch.testing.assert_close(
                ours.gradient("cell")[:length, row], expected.gradient("cell")[:, 0], rtol=0, atol=1e-14
            )


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def derived_by_numpy(d):
    """The intermediates from input, weights and the states found, by numpy alone."""
    w = {name: weight.detach().numpy() for name, weight in d.weights.items()}
    x, h = d.x.detach().numpy(), d["found_hidden"].detach().numpy()
    gates = (
        ("reset", "update", "candidate") if d.kind == "GRU" else ("input", "forget", "candidate", "output")
    )
    H = len(w["weight_hh"]) // len(gates)
    found = {}
    for number, gate in enumerate(gates):
        rows = slice(number * H, (number + 1) * H)
        found[f"x_{gate}"] = x @ w["weight_ih"][rows].T + (w["bias_ih"][rows] if "bias_ih" in w else 0)
        read = h
        if gate == "candidate" and d.kind == "GRU" and not d.reset_after:
            read = found["reset"] * h
        found[f"h_{gate}"] = read @ w["weight_hh"][rows].T + (w["bias_hh"][rows] if "bias_hh" in w else 0)
        inside = found[f"x_{gate}"] + found[f"h_{gate}"]
        if gate == "candidate" and d.kind == "GRU" and d.reset_after:
            inside = found["x_candidate"] + found["reset"] * found["h_candidate"]
        found[gate] = np.tanh(inside) if gate == "candidate" else sigmoid(inside)
    if d.kind == "GRU":
        found["hidden"] = (1 - found["update"]) * found["candidate"] + found["update"] * h
        return found
    found["cell"] = found["forget"] * d["found_cell"].detach().numpy() + found["input"] * found["candidate"]
    found["tanh_cell"] = np.tanh(found["cell"])
    found["shown"] = found["output"] * found["tanh_cell"]
    found["hidden"] = found["shown"] @ w["weight_hr"].T if "weight_hr" in w else found["shown"]
    return found


@pytest.mark.parametrize("reset_after", [True, False])
@settings(max_examples=40)
@given(case=layer_cases())
def test_every_line_follows_from_the_lines_before(reset_after, case: Case):
    layer, _ = case.modules(torch.float64)
    if case.name == "GRU":
        layer.reset_after = reset_after
    trace = layer.trace(*given_to(case, torch.float64))
    for number in range(trace.layers):
        for direction in range(trace.directions):
            d = trace[number, direction]
            part = d.takes_part().numpy()
            for name, right in derived_by_numpy(d).items():
                assert np.abs(d[name].detach().numpy() - right)[part].max() < 1e-12, name
    assert set(trace.check()) == set(trace[0].names)
    assert max(trace.check().values()) < 1e-12


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.name)
def test_a_trace_has_the_golden_numbers(case):
    layer = build(case, gatedcells, dtype=torch.float64)
    layer.load_state_dict(case.weights)
    hx = case.initial if case.initial is None or case.cell == "LSTM" else case.initial[0]
    x = case.input if case.lengths is None else pack_padded_sequence(case.input, case.lengths)
    trace = layer.trace(x, hx)
    for number, exact in enumerate(case.steps.values()):
        d = trace[0, number]
        assert set(d.names) == set(exact)
        for name, right in exact.items():
            step = ~torch.isnan(right)
            torch.testing.assert_close(d[name][step], right[step], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_holds_in_every_precision(dtype):
    for options in ({}, {"bidirectional": True, "num_layers": 2}):
        torch.manual_seed(2)
        gatedcells.GRU(7, 9, dtype=dtype, **options).trace(torch.randn(11, 4, 7, dtype=dtype)).check()
        gatedcells.LSTM(7, 9, dtype=dtype, proj_size=4, **options).trace(
            torch.randn(11, 4, 7, dtype=dtype)
        ).check()


@pytest.mark.parametrize("name", ["reset", "h_candidate", "hidden"])
def test_the_check_finds_a_number_that_is_wrong(name):
    trace = gatedcells.GRU(3, 4).trace(torch.randn(5, 2, 3))
    steps = trace[0]._steps
    wrong = getattr(steps[2], name).detach().clone()
    wrong[1, 3] += 1e-3
    steps[2] = steps[2]._replace(**{name: wrong})
    with pytest.raises(AssertionError, match="does not follow from the lines before"):
        trace.check()


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_gradients_at_the_intermediates_make_up_those_of_the_weights(kind):
    layer = getattr(gatedcells, kind)(3, 4, dtype=torch.float64)
    trace = layer.trace(torch.randn(6, 2, 3, dtype=torch.float64), retain_grad=True)
    with pytest.raises(RuntimeError, match="there are no gradients yet"):
        trace[0].gradient("hidden")
    trace.output.square().sum().backward()
    d = trace[0]
    gates = ("reset", "update", "candidate") if kind == "GRU" else ("input", "forget", "candidate", "output")
    through = torch.cat([d.gradient(f"h_{gate}") for gate in gates], dim=-1)
    expected = torch.einsum("tbg,tbh->gh", through, d["found_hidden"])
    torch.testing.assert_close(layer.weight_hh_l0.grad, expected)
    with pytest.raises(RuntimeError, match="retain_grad=True"):
        layer.trace(torch.randn(2, 1, 3, dtype=torch.float64))[0].gradient("hidden")


EQUATION = re.compile(r"= (sigmoid|tanh)\(([-+*(). 0-9]+)\) = (-?[0-9.]+)  \((\w+)\)$")
COMBINED = re.compile(r"= ([-+*(). 0-9]+) = (-?[0-9.]+)$")


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"reset_after": False}, {"lstm": True}])
def test_the_numbers_in_an_explanation_add_up(options):
    torch.manual_seed(4)
    kind = gatedcells.LSTM if options.pop("lstm", False) else gatedcells.GRU
    layer = kind(3, 4, dtype=torch.float64, **options)
    trace = layer.trace(torch.randn(5, 2, 3, dtype=torch.float64))
    for t in range(5):
        for unit in range(4):
            lines = trace.explain(t, unit=unit, row=1).splitlines()
            assert lines[0].startswith(kind.__name__)
            found = [match for line in lines if (match := EQUATION.search(line))]
            assert len(found) == (3 if kind is gatedcells.GRU else 4)
            for function, inside, value, gate in (match.groups() for match in found):
                a = eval(inside)
                assert float(value) == pytest.approx(
                    math.tanh(a) if function == "tanh" else sigmoid(a), abs=3e-4
                )
                assert float(value) == pytest.approx(float(trace[0][gate].detach()[t, 1, unit]), abs=6e-5)
            combined = [match for line in lines if (match := COMBINED.search(line))]
            assert combined
            for inside, value in (match.groups() for match in combined):
                assert float(value) == pytest.approx(eval(inside), abs=3e-4)
            keeps = "update" if kind is gatedcells.GRU else "forget"
            share = 100 * float(trace[0][keeps].detach()[t, 1, unit])
            assert f"keeps {share:.0f}% of" in lines[-1]


def test_a_row_that_has_ended_is_said_to_have():
    layer = gatedcells.GRU(3, 4)
    trace = layer.trace(pack_padded_sequence(torch.randn(4, 2, 3), [4, 2]))
    assert trace.explain(3, row=1).startswith("row 1 has 2 steps: at t = 3 nothing is computed")
    assert "a new sequence begins" not in trace.explain(1)
    resets = torch.zeros(4, 2, dtype=torch.bool)
    resets[1, 0] = True
    said = layer.trace(torch.randn(4, 2, 3), resets=resets).explain(1)
    assert "a new sequence begins, the state before is zero" in said


def test_an_empty_batch_has_no_row_to_show():
    trace = gatedcells.LSTM(3, 4).trace(torch.randn(5, 0, 3))
    for show in (trace.to_html, trace.plot, lambda: trace.explain(0)):
        with pytest.raises(IndexError, match="there is no row 0: the trace is of an empty batch"):
            show()
    assert trace._repr_html_() == "<p>The batch is empty: there is nothing to show.</p>"


def test_what_is_not_there_is_named():
    trace = gatedcells.GRU(3, 4).trace(torch.randn(5, 2, 3))
    with pytest.raises(KeyError, match="no intermediate value 'forget'; the names are x_reset, x_update"):
        trace[0]["forget"]
    with pytest.raises(
        IndexError, match=r"no layer 1, direction 0: there are 1 layer\(s\) in 1 direction\(s\)"
    ):
        trace[1]
    with pytest.raises(IndexError, match=r"unit must lie in 0..3, got 4"):
        trace.explain(0, unit=4)
    with pytest.raises(IndexError, match=r"t must lie in 0..4, got 5"):
        trace.explain(5)
    with pytest.raises(RuntimeError, match="input.size\\(-1\\) must be equal to input_size"):
        gatedcells.GRU(3, 4).trace(torch.randn(5, 2, 2))


def test_json_has_every_number_and_null_beyond_the_end():
    layer = gatedcells.LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    trace = layer.trace(pack_padded_sequence(torch.randn(4, 2, 3, dtype=torch.float64), [4, 2]))
    (directions,) = json.loads(trace.to_json())["layers"]
    for number, found in enumerate(directions):
        assert found["reverse"] == (number == 1)
        assert found["steps"]["cell"][3][1] is None
        for name in trace[0, number].names:
            rows = [row for now in found["steps"][name] for row in now if row is not None]
            kept = trace[0, number][name][trace[0, number].takes_part()]
            assert torch.equal(torch.tensor(rows, dtype=torch.float64), kept)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_what_is_not_finite_follows_where_the_equations_say_so_and_is_json(kind, number):
    torch.manual_seed(0)
    layer, x = getattr(gatedcells, kind)(3, 4), torch.randn(4, 2, 3)
    x[2, 0, 1] = number
    with torch.no_grad():
        trace = layer.trace(x)
    assert all(math.isfinite(error) for error in trace.check().values())

    def refused(name):
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(trace.to_json(), parse_constant=refused)["layers"][0][0]
    assert torch.tensor(float(found["x"][2][0][1])).equal(torch.tensor(number)) or math.isnan(number)
    for name in trace[0].names:
        shown = torch.tensor([[[float(v) for v in row] for row in now] for now in found["steps"][name]])
        assert torch.equal(shown.nan_to_num(7), trace[0][name].nan_to_num(7)), name
    trace[0].values("x_candidate")[1][0, 0] = math.nan  # which no line before it says
    with pytest.raises(AssertionError, match="x_candidate does not follow from the lines before: off by nan"):
        trace.check()


def test_a_trace_without_gradients_says_what_they_need():
    with torch.no_grad():
        trace = gatedcells.GRU(3, 4).trace(torch.randn(5, 2, 3), retain_grad=True)
    with pytest.raises(RuntimeError, match="retain_grad=True, with gradients enabled"):
        trace[0].gradient("hidden")


def test_a_trace_leaves_the_layer_as_it_was():
    layer, theirs = gatedcells.GRU(3, 4), nn.GRU(3, 4)
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(5, 2, 3)
    layer.trace(x)
    assert list(layer.state_dict()) == list(theirs.state_dict())
    output, _ = layer(x)
    assert isinstance(output, Tensor)
    torch.testing.assert_close(output, theirs(x)[0])


@pytest.mark.parametrize("options", [{"layer_norm": True}, {"peephole": True}, {"zoneout": (0.1, 0.2)}])
def test_the_gradient_at_a_variants_cell_is_refused_where_rows_have_lengths(options):
    layer, x = gatedcells.LSTM(3, 4, **options), torch.randn(5, 2, 3)
    trace = layer.trace(x, lengths=torch.tensor([5, 3]), retain_grad=True)
    trace.output.sum().backward()
    with pytest.raises(RuntimeError, match="'cell' is available for the plain LSTM only, got "):
        trace[0].gradient("cell")
    assert trace[0].gradient("hidden").abs().sum() > 0


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_with_a_mask_what_is_traced_are_the_steps_that_take_part(kind):
    torch.manual_seed(0)
    layer = getattr(gatedcells, kind)(3, 4, 2, bidirectional=True, batch_first=True, backend="reference")
    x = torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 0, 1, 0, 1], [0, 1, 0, 0, 1]]).bool()
    trace = layer.trace(x.masked_fill(~mask[:, :, None], torch.nan), mask=mask)
    assert all(map(torch.equal, flat((trace.output, trace.last)), flat(layer(x, mask=mask))))
    for row, times in enumerate(([0, 2, 4], [1, 4])):
        alone = layer.trace(x[row : row + 1, times])
        for where in ((0, 0), (0, 1), (1, 0), (1, 1)):
            for name in trace[where].names:
                torch.testing.assert_close(trace[where][name][: len(times), row], alone[where][name][:, 0])
    assert trace[1].lengths.tolist() == [3, 2]
    assert trace.check()


def test_masks_of_a_trace_come_from_its_generator():
    layer = gatedcells.GRU(3, 4, zoneout=0.5)
    x = torch.randn(6, 2, 3)

    def run(call, seed):
        return call(x, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(run(layer.trace, 1).output, run(layer, 1)[0])
    assert not torch.equal(run(layer.trace, 1).output, run(layer.trace, 2).output)
