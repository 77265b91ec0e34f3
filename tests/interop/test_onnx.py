"""ONNX files: run by ONNX Runtime and by ONNX's own reference, read back bit for bit; torch's files."""

import io
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gatedcells
from gatedcells import interop
from gatedcells.interop import LossyConversion
from gatedcells.testing import assert_golden, assert_within_budget, golden_cases
from tests.support.exchange import assert_same, golden_layer, layers, randomised, run_golden
from tests.support.inputs import exactly_representable

GOLDEN = [case for case in golden_cases() if "weight_hr_l0" not in case.weights]


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what it cannot do it also raises
    source = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def feed_of(case, dtype):
    feed = {"input": case.input.to(dtype).numpy()}
    if case.lengths is not None:
        feed["lengths"] = case.lengths.int().numpy()
    return feed | {
        name: part.to(dtype).numpy() for name, part in zip(("h_0", "c_0"), case.initial or (), strict=False)
    }


def model_of(case, **options):
    given = {"lengths": case.lengths is not None, "initial_state": case.initial is not None}
    return interop.onnx.to_model(golden_layer(case), **given, **options)


def everything(results):
    return torch.cat([torch.as_tensor(part).flatten() for part in results])


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_onnx_runtime_is_as_near_to_the_golden_vectors_as_we_are(cell):
    found, exact, ours = [], [], []
    for case in (case for case in GOLDEN if case.cell == cell):
        results = session(model_of(case, dtype=torch.float32)).run(None, feed_of(case, torch.float32))
        assert [part.shape for part in results] == [part.shape for part in (case.output, *case.last)]
        found.append(everything(results))  # zeros beyond a row's length in both
        exact.append(everything((case.output, *case.last)))
        output, last = run_golden(case, golden_layer(case, torch.float32))
        ours.append(everything((output.detach(), *(part.detach() for part in last))))
    assert_within_budget(torch.cat(found), exact=torch.cat(exact), rival=torch.cat(ours))


SIMPLE = [case for case in GOLDEN if not case.bidirectional and case.lengths is None]


@pytest.mark.parametrize("case", SIMPLE, ids=lambda case: case.name)
def test_onnxs_own_reference_gives_the_golden_vectors_in_float64(case):
    """It knows one direction and no lengths; ONNX Runtime knows no float64."""
    output, *last = ReferenceEvaluator(model_of(case)).run(None, feed_of(case, torch.float64))
    assert_golden(case, torch.from_numpy(output), [torch.from_numpy(part) for part in last])


CONFIGURATIONS = [
    ("GRU", {}),
    ("GRU", {"num_layers": 3, "bidirectional": True, "batch_first": True}),
    ("GRU", {"num_layers": 2, "reset_after": False, "bias": False}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"num_layers": 3, "batch_first": True, "dropout": 0.5}),
]


@pytest.mark.parametrize(("name", "options"), CONFIGURATIONS)
@pytest.mark.parametrize("with_lengths", [False, True])
def test_one_file_runs_at_any_length_and_batch(name, options, with_lengths, tmp_path):
    layer = randomised(getattr(gatedcells, name)(3, 4, **options)).eval()
    path = interop.onnx.export(layer, tmp_path / "layer.onnx", lengths=with_lengths, initial_state=True)
    running = session(str(path))
    generator = torch.Generator().manual_seed(1)
    found, exact, ours = [], [], []
    for T, B in ((1, 1), (5, 2), (17, 3)):
        x = exactly_representable(generator, T, B, 3)
        rows = layer.num_layers * (2 if layer.bidirectional else 1)
        states = [exactly_representable(generator, rows, B, 4) for _ in range(1 if name == "GRU" else 2)]
        lengths = torch.randint(1, T + 1, (B,), generator=generator) if with_lengths else None
        if lengths is not None:
            lengths[0] = T
        feed = {"input": (x.transpose(0, 1) if layer.batch_first else x).float().contiguous().numpy()}
        feed |= {n: s.float().numpy() for n, s in zip(("h_0", "c_0"), states, strict=False)}
        if lengths is not None:
            feed["lengths"] = lengths.int().numpy()
        found.append(everything(running.run(None, feed)))
        for dtype, results in ((torch.float64, exact), (torch.float32, ours)):
            results.append(everything(run_layer(layer.to(dtype), x.to(dtype), states, lengths)))
    assert_within_budget(torch.cat(found), exact=torch.cat(exact), rival=torch.cat(ours))


@torch.no_grad()
def run_layer(layer, x, states, lengths):
    """Outputs and last states as the file gives them."""
    states = tuple(state.to(x.dtype) for state in states)
    hx = states[0] if len(states) == 1 else states
    if lengths is None:
        output, last = layer(x.transpose(0, 1) if layer.batch_first else x, hx)
    else:
        output, last = layer(pack_padded_sequence(x, lengths, enforce_sorted=False), hx)
        output = pad_packed_sequence(output, total_length=len(x))[0]
        output = output.transpose(0, 1) if layer.batch_first else output
    return [output.contiguous(), *((last,) if len(states) == 1 else last)]


@settings(max_examples=50)
@given(ours=layers(projections=False))
def test_a_layer_comes_back_from_a_model_bit_for_bit(ours):
    model = interop.onnx.to_model(ours, lengths=True, initial_state=ours.bias)
    assert_same(interop.onnx.load(model, batch_first=ours.batch_first, dropout=ours.dropout).eval(), ours)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precisions_come_back_bit_for_bit(dtype):
    layer = randomised(gatedcells.LSTM(3, 4, dtype=dtype))
    assert_same(interop.onnx.load(interop.onnx.to_model(layer, opset=22)), layer)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"num_layers": 2, "bidirectional": True}, {"num_layers": 3, "batch_first": True}],
)
def test_files_of_torchs_exporter_are_read(kind, options):
    theirs = kind(3, 4, **options).eval()
    file = io.BytesIO()
    with warnings.catch_warnings():  # it says that it is the old exporter, and that batches are constants
        warnings.simplefilter("ignore")
        torch.onnx.export(theirs, (torch.randn(5, 2, 3),), file, dynamo=False)
    found = interop.onnx.load(onnx.load_from_string(file.getvalue()), batch_first=theirs.batch_first)
    assert_same(interop.torch_nn.to_module(found).eval(), theirs)


def single(op="GRU", *, D=1, layout=0, inputs=(), constants=None, name="it", **attributes):
    """A model of one operator, weights random, further inputs and attributes as given."""
    G, H = (3, 2) if op == "GRU" else (4, 2)
    weights = {"W": torch.randn(D, G * H, 3), "R": torch.randn(D, G * H, H), "B": torch.randn(D, 2 * G * H)}
    weights |= constants or {}
    node = helper.make_node(op, ["X", "W", "R", "B", *inputs], ["Y"], name, hidden_size=H, **attributes)
    if layout:
        node.attribute.append(helper.make_attribute("layout", layout))
    shape = ["batch", "time", 3] if layout else ["time", "batch", 3]
    graph = helper.make_graph(
        [node], "graph", [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.numpy(), key) for key, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def test_the_default_of_linear_before_reset_is_the_gate_before_the_product():
    assert interop.onnx.load(single()).reset_after is False
    assert interop.onnx.load(single(linear_before_reset=1)).reset_after is True


def test_batches_first_is_read_off_the_layout():
    assert interop.onnx.load(single(layout=1)).batch_first is True
    assert interop.onnx.load(single(layout=0)).batch_first is False
    assert interop.onnx.load(single(layout=1), batch_first=False).batch_first is False


REFUSED = [
    (single(activations=["Sigmoid", "Relu"]), r"activations \['sigmoid', 'relu'\], expected"),
    (single("LSTM", clip=3.0), "clips its gates' pre-activations"),
    (single("LSTM", input_forget=1), "couples its input and forget gates"),
    (single(direction="reverse"), "has direction='reverse'"),
    (
        single("LSTM", inputs=("", "", "", "P"), constants={"P": torch.ones(1, 6)}),
        "constant peepholes other than zeros",
    ),
    (single("LSTM", inputs=("", "", "", "X")), "has peepholes"),
    (single(inputs=("", "h"), constants={"h": torch.ones(1, 1, 2)}), "constant initial_h other than zeros"),
]


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=[message[:20] for _, message in REFUSED])
def test_what_our_cells_do_not_do_is_refused(model, message):
    with pytest.raises(LossyConversion, match=f"the (GRU|LSTM) operator 'it'.*{message}"):
        interop.onnx.load(model)


def test_spelt_out_defaults_and_zeros_are_not_refused():
    model = single(
        "LSTM", D=2, direction="bidirectional", activations=["sigmoid", "Tanh", "Tanh"] * 2,
        inputs=("", "h", "", "P"),
        constants={"P": torch.zeros(2, 6), "h": torch.zeros(2, 1, 2)},
    )  # fmt: skip
    assert interop.onnx.load(model).bidirectional


def test_several_operators_that_make_no_stack_are_asked_for_by_name():
    one, two = single(name="first"), single(name="second")
    for tensor in two.graph.initializer:
        one.graph.initializer.add().CopyFrom(tensor)
        one.graph.initializer[-1].name += "2"
    one.graph.node.append(two.graph.node[0])
    one.graph.node[1].input[1:] = ["W2", "R2", "B2"]
    one.graph.node[1].output[0] = "Y2"
    with pytest.raises(ValueError, match=r"\['first', 'second'\] are not one stack: 'second' does not read"):
        interop.onnx.load(one)
    assert_same(interop.onnx.load(one, node="second"), interop.onnx.load(two))
    assert_same(interop.onnx.load(one, node="Y2"), interop.onnx.load(two))
    with pytest.raises(ValueError, match="has no GRU or LSTM operator 'third'; it has"):
        interop.onnx.load(one, node="third")


def test_files_that_are_no_models_of_ours_say_so(tmp_path):
    (tmp_path / "text.onnx").write_text("not protobuf")
    with pytest.raises(ValueError, match=r"text\.onnx is not an ONNX file"):
        interop.onnx.load(tmp_path / "text.onnx")
    with pytest.raises(FileNotFoundError):
        interop.onnx.load(tmp_path / "none.onnx")
    empty = single()
    del empty.graph.node[:]
    with pytest.raises(ValueError, match="no GRU or LSTM operator"):
        interop.onnx.load(empty)
    computed = single()
    del computed.graph.initializer[0]
    with pytest.raises(
        ValueError, match="its weight 'W' must be constant, but the model computes it from its inputs"
    ):
        interop.onnx.load(computed)


def test_what_an_onnx_file_cannot_hold_is_refused(tmp_path):
    with pytest.raises(LossyConversion, match="ONNX has no LSTM with a projection"):
        interop.onnx.to_model(gatedcells.LSTM(3, 4, proj_size=2))
    with pytest.raises(LossyConversion, match=r"in training with dropout=0\.3: call eval\(\) first"):
        interop.onnx.export(gatedcells.GRU(3, 4, num_layers=2, dropout=0.3), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="torch.bfloat16 needs opset 22 or later, got 14"):
        interop.onnx.to_model(gatedcells.GRU(3, 4, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="needs opset 14 or later, got 7"):
        interop.onnx.to_model(gatedcells.GRU(3, 4), opset=7)
    with pytest.raises(ValueError, match=r"onnx .* knows opsets up to \d+, got 999"):
        interop.onnx.to_model(gatedcells.GRU(3, 4), opset=999)
    with pytest.raises(LossyConversion, match="real floating point numbers, got torch.complex64"):
        interop.onnx.to_model(gatedcells.GRU(3, 4, dtype=torch.complex64))
    with pytest.raises(TypeError, match="expected a GRU or LSTM, got gatedcells.*GRUCell"):
        interop.onnx.to_model(gatedcells.GRUCell(3, 4))


def test_onnx_runtime_differs_on_rows_without_steps_and_has_no_float64():
    """What docs/exchange.md says of ONNX Runtime, so that the page is looked at when it changes."""
    layer = gatedcells.GRU(3, 4)
    x, h_0 = torch.randn(2, 2, 3), torch.randn(1, 2, 4)
    model = interop.onnx.to_model(layer, lengths=True, initial_state=True)
    feed = {"input": x.numpy(), "lengths": np.array([2, 0], dtype=np.int32), "h_0": h_0.numpy()}
    _, h_n = session(model).run(None, feed)
    assert not h_n[0, 1].any()
    weights = [parameter.detach() for parameter in layer.parameters()]
    _, ours = gatedcells.gru_sequence(x, h_0[0], *weights, lengths=torch.tensor([2, 0]))
    assert torch.equal(ours[1], h_0[0, 1])
    running = session(interop.onnx.to_model(layer.double()))
    with pytest.raises(Exception, match="GRU operator does not support double yet"):
        running.run(None, {"input": x.double().numpy()})
    with pytest.raises(Exception, match="Batchwise recurrent operations .layout == 1. are not supported"):
        session(single(layout=1))


def test_onnx_runtime_ends_the_process_for_a_gru_without_steps(tmp_path):
    """So does no LSTM; docs/exchange.md says it."""
    script = (
        "import sys, numpy, onnxruntime as o\n"
        "s = o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "print(s.run(None, {'input': numpy.zeros((0, 2, 3), 'float32')})[0].shape)\n"
    )
    for kind, ends in ((gatedcells.GRU, True), (gatedcells.LSTM, False)):
        path = interop.onnx.export(kind(3, 4), tmp_path / "layer.onnx")
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
        assert (done.returncode < 0) == ends, done.stderr


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_model_of_ours_goes_to_onnx_by_torchs_exporter_once_it_is_reverted(kind):
    model, x = nn.Sequential(getattr(gatedcells, kind)(3, 4, num_layers=2)).eval(), torch.randn(5, 2, 3)
    file = io.BytesIO()
    refused = "gatedcells::"
    if torch.__version__ < "2.13":  # torch 2.8 forgets to put the operator's name in: an f is missing there
        refused += r"|unrecognized namespace \{op_name\}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its exporter
        with pytest.raises(torch.onnx.errors.UnsupportedOperatorError, match=refused):
            torch.onnx.export(model, (x,), io.BytesIO(), dynamo=False)
        torch.onnx.export(gatedcells.revert(model, inplace=False, report=None), (x,), file, dynamo=False)
    written = onnx.load_from_string(file.getvalue())
    found = session(written).run(None, {written.graph.input[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found[0]), model(x)[0].detach())
