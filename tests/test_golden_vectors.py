"""Torch, our equations and our kernels all agree with vectors that an independent program made."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gatedcells
from gatedcells.reference import gru, lstm
from gatedcells.testing import assert_golden, golden_cases
from tests.reference import make_golden_vectors
from tests.support.triton_device import device as device

CASES = golden_cases()
NAMES = [case.name for case in CASES]


def run(case, layer, dtype=torch.float64, where="cpu"):
    """The case through a layer with torch's interface; output and last states."""
    layer.load_state_dict({name: value.to(where, dtype) for name, value in case.weights.items()})
    x = case.input.to(where, dtype)
    state = None if case.initial is None else tuple(part.to(where, dtype) for part in case.initial)
    hx = None if state is None else state[0] if case.cell == "GRU" else state
    if case.lengths is None:
        return layer(x, hx)
    output, last = layer(pack_padded_sequence(x, case.lengths), hx)
    return pad_packed_sequence(output)[0], last


def build(case, package, **options):
    if case.cell == "LSTM" and "weight_hr_l0" in case.weights:
        options["proj_size"] = len(case.weights["weight_hr_l0"])
    if case.cell == "GRU" and package is gatedcells:
        options["reset_after"] = case.reset_after
    bias = "bias_ih_l0" in case.weights
    sizes = case.input.shape[-1], case.weights["weight_hh_l0"].shape[0] // (3 if case.cell == "GRU" else 4)
    return getattr(package, case.cell)(*sizes, bias=bias, bidirectional=case.bidirectional, **options)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_our_layers_agree(case, backend):
    assert_golden(case, *run(case, build(case, gatedcells, backend=backend, dtype=torch.float64)))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_torch_agrees(case):
    if case.cell == "GRU" and not case.reset_after:
        pytest.skip("torch's GRU has the reset gate after the product only")
    assert_golden(case, *run(case, build(case, nn, dtype=torch.float64)))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_tritons_kernels_agree_in_float32(case, device):
    layer = build(case, gatedcells, backend="triton", device=device)
    assert_golden(case, *run(case, layer, torch.float32, device), tolerance=2e-6)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_intermediate_of_the_reference_agrees(case):
    for number, (direction, exact) in enumerate(case.steps.items()):
        suffix = "_l0_reverse" if direction == "reverse" else "_l0"
        weights = {n.removesuffix(suffix): w for n, w in case.weights.items() if n.endswith(suffix)}
        B, H = case.input.shape[1], exact["x_candidate"].shape[-1]
        widths = [exact["hidden"].shape[-1]] + ([H] if case.cell == "LSTM" else [])
        initial = case.initial or tuple(torch.zeros(2, B, width, dtype=torch.float64) for width in widths)
        state = [part[number] for part in initial]
        options = {"lengths": case.lengths, "reverse": direction == "reverse"}
        if case.cell == "GRU":
            found = gru.sequence(case.input, *state, **weights, **options, reset_after=case.reset_after)
        else:
            found = lstm.sequence(case.input, *state, **weights, **options)
        for name, right in exact.items():
            step = ~torch.isnan(right)
            torch.testing.assert_close(getattr(found, name)[step], right[step], rtol=0, atol=1e-14, msg=name)


def test_a_wrong_implementation_is_found_out():
    case = next(case for case in CASES if case.name == "gru-before-h0")
    output, last = run(case, build(case, nn, dtype=torch.float64))  # the other convention
    with pytest.raises(AssertionError, match=r"gru-before-h0: output\[\d, \d, \d\] is off by"):
        assert_golden(case, output, last)
    with pytest.raises(AssertionError, match=r"output is \[3, 2, 3\], expected \[4, 2, 3\]"):
        assert_golden(case, output[:3], last)
    with pytest.raises(AssertionError, match="h_n.* is off by nan"):
        assert_golden(case, case.output, torch.full_like(last, torch.nan))
    with pytest.raises(ValueError, match="cell must be 'GRU', 'LSTM' or None, got 'RNN'"):
        golden_cases("RNN")


def test_the_vectors_are_what_the_script_makes(tmp_path, monkeypatch):
    monkeypatch.setattr(make_golden_vectors, "FOLDER", tmp_path)
    make_golden_vectors.main()
    kept = Path(gatedcells.__file__).parent / "testing" / "vectors"
    assert len(NAMES) >= 20
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        p.name: p.read_text() for p in kept.iterdir()
    }


def test_the_script_knows_nothing_of_torch_or_of_us():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; import tests.reference.make_golden_vectors;"
         "print([m for m in ('torch', 'numpy', 'gatedcells') if m in sys.modules])"],
        capture_output=True, text=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr
