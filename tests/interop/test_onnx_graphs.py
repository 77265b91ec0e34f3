"""What leads into an ONNX file's operators and from one to the next, as exporters write it."""

import io
import warnings

import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from gatedcells import interop
from gatedcells.interop import LossyConversion
from tests.support.exchange import assert_same

T, B, I, H = 5, 2, 3, 4


def constant(name, values, dtype=torch.int64):
    return numpy_helper.from_array(torch.as_tensor(values, dtype=dtype).numpy(), name)


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


def model(nodes, constants, opset=17):
    given = [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["time", "batch", I])]
    graph = helper.make_graph(nodes, "graph", given, [], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def operator(name, X, D, I, *inputs, **attributes):
    """A GRU operator's node and weights."""
    shapes = {f"W_{name}": (D, 3 * H, I), f"R_{name}": (D, 3 * H, H), f"B_{name}": (D, 6 * H)}
    options = {"hidden_size": H, "direction": "bidirectional" if D == 2 else "forward"} | attributes
    made = node("GRU", [X, *shapes, *inputs], f"Y_{name}", name=name, **options)
    return made, [constant(n, torch.randn(shape), torch.float32) for n, shape in shapes.items()]


def stack(D, between, constants=(), **attributes):
    """Two operators with these nodes between them, from Y_0 to X_1."""
    first, weights = operator("0", "X", D, I, **attributes)
    second, others = operator("1", "X_1", D, D * H, **attributes)
    return model([first, *between, second], [*weights, *others, *constants])


TURNED = node("Transpose", ["Y_0"], "turned", perm=[0, 2, 1, 3])
# torch.onnx.export writes this where time and batch are free
SHAPED = [
    node("Shape", ["turned"], "sizes"),
    node("Slice", ["sizes", "zero", "two"], "steps"),
    node("Slice", ["sizes", "two", "three"], "directions"),
    node("Slice", ["sizes", "three", "four"], "units"),
    node("Mul", ["directions", "units"], "width"),
    node("Concat", ["steps", "width"], "shape", axis=0),
    node("Reshape", ["turned", "shape"], "X_1"),
]
NUMBERS = [constant(name, [k]) for k, name in enumerate(("zero", "one", "two", "three", "four"))]


def reshaped(data, *shape):
    return [node("Reshape", [data, "shape"], "X_1")], [constant("shape", shape)]


JOINED = {
    "time and batch fixed": (2, [TURNED, *reshaped("turned", T, B, 2 * H)[0]], reshaped("", T, B, 2 * H)[1]),
    "one direction the same way": (1, [TURNED, *reshaped("turned", T, B, H)[0]], reshaped("", T, B, H)[1]),
    "one of them free": (2, [TURNED, *reshaped("turned", T, -1, 2 * H)[0]], reshaped("", T, -1, 2 * H)[1]),
    "a shape that is computed": (2, [TURNED, *SHAPED], NUMBERS),
    "an axis from the end": (1, [node("Squeeze", ["Y_0", "axis"], "X_1")], [constant("axis", [-3])]),
    "batches first and back": (
        1,
        [
            node("Squeeze", ["Y_0", "one"], "a"),
            node("Transpose", ["a"], "b", perm=[1, 0, 2]),
            node("Transpose", ["b"], "X_1", perm=[1, 0, 2]),
        ],
        NUMBERS,
    ),
}


@pytest.mark.parametrize("case", JOINED)
def test_a_stack_is_known_by_where_its_axes_go(case):
    D, between, constants = JOINED[case]
    found = interop.onnx.load(stack(D, between, constants))
    assert repr(found) == f"GRU(3, 4, num_layers=2{', bidirectional=True' * (D == 2)}, reset_after=False)"


def test_a_stack_with_batches_first_needs_no_turning():
    between, constants = reshaped("Y_0", 0, 0, -1)
    found = interop.onnx.load(stack(2, between, constants, layout=1))
    assert (found.num_layers, found.batch_first) == (2, True)


SCRAMBLED = {
    "directions among the steps": (2, *reshaped("Y_0", T, B, 2 * H)),
    "batch and time exchanged": (
        2, [node("Transpose", ["Y_0"], "turned", perm=[2, 0, 1, 3]), *reshaped("turned", B, T, -1)[0]],
        reshaped("", B, T, -1)[1],
    ),
    "other numbers": (1, [node("Squeeze", ["Y_0", "one"], "a"), node("Tanh", ["a"], "X_1")], NUMBERS),
    "the direction left in": (1, [node("Squeeze", ["Y_0", "zero"], "X_1")], NUMBERS),
}  # fmt: skip


@pytest.mark.parametrize("case", SCRAMBLED)
def test_what_is_turned_otherwise_is_no_stack(case):
    D, between, constants = SCRAMBLED[case]
    with pytest.raises(
        ValueError, match=r"are not one stack: '1' does not read the output of the one before it"
    ):
        interop.onnx.load(stack(D, between, constants))


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_weights_that_torchs_exporter_leaves_to_the_graph_are_computed(kind):
    """The newer exporter does so with all but the smallest."""
    theirs, file = kind(3, 4, num_layers=2, bidirectional=True).eval(), io.BytesIO()
    with warnings.catch_warnings():  # it says that it is the old exporter, and that batches are constants
        warnings.simplefilter("ignore")
        torch.onnx.export(theirs, (torch.randn(T, B, 3),), file, dynamo=False, do_constant_folding=False)
    written = onnx.load_from_string(file.getvalue())
    assert {"Slice", "Concat", "Unsqueeze"} <= {one.op_type for one in written.graph.node}
    assert_same(interop.torch_nn.to_module(interop.onnx.load(written)).eval(), theirs)


def with_state(*nodes, constants=()):
    """A GRU whose initial state is what these nodes make, with the batch of X."""
    made, weights = operator("0", "X", 1, I, "", "state")
    sizes = [node("Shape", ["X"], "sizes"), node("Slice", ["sizes", "one", "two"], "batch")]
    sizes += [node("Concat", ["one", "batch", "four"], "shape", axis=0)]
    return model([*sizes, *nodes, made], [*weights, *NUMBERS, *constants])


def filled(value):
    return node("ConstantOfShape", ["shape"], "state", value=constant("", [value], torch.float32))


def learnt(value):
    return constant("learnt", torch.full((1, 1, H), value), torch.float32)


EXPANDED = node("Expand", ["learnt", "shape"], "state")


@pytest.mark.parametrize(
    "made", [with_state(EXPANDED, constants=[learnt(0.5)]), with_state(filled(1.0))], ids=["learnt", "ones"]
)
def test_an_initial_state_of_any_batch_that_the_layer_would_not_have_is_refused(made):
    with pytest.raises(LossyConversion, match="constant initial_h other than zeros, which are not converted"):
        interop.onnx.load(made)


def test_zeros_of_any_batch_and_states_that_the_model_is_given_are_not_refused():
    given = [node("ReduceMean", ["X"], "mean", axes=[0, 2]), node("Mul", ["mean", "learnt"], "state")]
    for made in (
        with_state(EXPANDED, constants=[learnt(0.0)]),
        with_state(filled(0.0)),
        with_state(node("ConstantOfShape", ["shape"], "state")),
        with_state(*given, constants=[learnt(0.5)]),
    ):
        assert interop.onnx.load(made).hidden_size == H


def test_lengths_that_differ_and_are_constant_are_refused():
    for lengths, refused in (([2, 5], True), ([5, 5], False)):
        made, weights = operator("0", "X", 1, I, "lengths")
        file = model([made], [*weights, constant("lengths", lengths, torch.int32)])
        if refused:
            with pytest.raises(LossyConversion, match=r"the constant sequence_lens \[2, 5\]"):
                interop.onnx.load(file)
        else:
            assert interop.onnx.load(file).hidden_size == H


def test_weights_of_other_shapes_are_told():
    made, weights = operator("0", "X", 1, I, direction="bidirectional")
    with pytest.raises(ValueError, match=r"operator '0': expected W, R and B of shapes \[\[2, 12, 3\]"):
        interop.onnx.load(model([made], weights))
    made, (W, R, _) = operator("0", "X", 1, I)
    with pytest.raises(ValueError, match=r"\[1, 24\]\], got \[\[1, 12, 3\], \[1, 12, 4\], \[1, 12\]\]"):
        interop.onnx.load(model([made], [W, R, constant("B_0", torch.zeros(1, 12), torch.float32)]))
