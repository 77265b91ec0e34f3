"""To and from ONNX files with the GRU and LSTM operators.

An operator holds one layer with one or both directions; a stack is a chain of operators. Per direction, ``W``
is ``weight_ih`` and ``R`` is ``weight_hh``, with the gates in the order z, r, h or i, o, f, c; ``B`` is
``bias_ih`` followed by ``bias_hh``. The GRU's ``linear_before_reset`` is `gatedcells.GRU`'s ``reset_after``:
1 is torch's GRU, and 0, the operator's default, is that of arXiv:1406.1078v3. A layer that is exported and
loaded again has bit-identical weights.

Sources: onnx.ai/onnx/operators/onnx__GRU.html and onnx__LSTM.html. Files are read by
`gatedcells.interop.onnx_reading`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatedcells._files import written_beside
from gatedcells.interop.gate_order import ONNX_GRU, ONNX_LSTM, reorder
from gatedcells.interop.onnx_reading import load as load
from gatedcells.interop.weights import (
    AnyLayer,
    Direction,
    LossyConversion,
    Weights,
    library,
)

OPSET = 14
_BFLOAT16_OPSET = 22
_ORDERS = {"GRU": ONNX_GRU, "LSTM": ONNX_LSTM}


def export(
    layer: AnyLayer,
    path: str | Path,
    *,
    lengths: bool = False,
    initial_state: bool = False,
    dtype: torch.dtype | None = None,
    opset: int = OPSET,
) -> Path:
    """Write a layer to an ONNX file with free time and batch dimensions, for inference.

    The file is replaced atomically: an interrupted or failed export leaves no partial file.

    Args:
        layer, lengths, initial_state, dtype, opset: as for `to_model`.
        path: the file to write.

    Returns:
        the file's path.

    Raises:
        OSError: the file cannot be written.
        TypeError, LossyConversion, ValueError, ModuleNotFoundError: as `to_model`.
    """
    model = to_model(layer, lengths=lengths, initial_state=initial_state, dtype=dtype, opset=opset)
    target = Path(path)
    with written_beside(target) as beside:
        beside.write_bytes(model.SerializeToString())
    return target


def to_model(
    layer: AnyLayer,
    *,
    lengths: bool = False,
    initial_state: bool = False,
    dtype: torch.dtype | None = None,
    opset: int = OPSET,
) -> Any:
    """Make an ``onnx.ModelProto`` of a layer, checked by ``onnx.checker``.

    Inputs of the model:

    - ``input`` ``[time, batch, I]``; with ``batch_first``, ``[batch, time, I]``, transposed in the graph;
    - with ``lengths``: ``lengths`` ``[batch]``, int32;
    - with ``initial_state``: ``h_0`` and for the LSTM ``c_0``, ``[L*D, batch, H]``.

    Outputs, as the layer returns them:

    - ``output`` ``[time, batch, D*H]`` (batch first as the input), zeros beyond a row's length;
    - ``h_n`` and for the LSTM ``c_n``, ``[L*D, batch, H]``.

    Args:
        layer: a GRU or LSTM of gatedcells or torch; in ``eval()`` if it has dropout.
        lengths: whether the model takes the rows' lengths (the operator's ``sequence_lens``).
        initial_state: whether the model takes initial states; otherwise they are zeros.
        dtype: of the weights in the file, None for the layer's own. ONNX Runtime's GRU and LSTM on the CPU
            take float32 only.
        opset: the operator set's version, from 14 (22 for bfloat16) to the newest that onnx knows.

    Raises:
        TypeError: ``layer`` is not a GRU or LSTM.
        LossyConversion: a projection, which the operator does not have; a layer in training with dropout; a
            dtype that the operator does not take.
        ValueError: an opset without these operators, or one that onnx does not know.
        ModuleNotFoundError: onnx is not installed.
    """
    onnx = library("onnx")
    weights = Weights.of_layer(layer).cast(dtype)
    weights.refuse_projection("ONNX")
    if layer.training and layer.dropout:
        raise LossyConversion(
            f"ONNX files are for inference, got a layer in training with dropout={layer.dropout}: call eval()"
            " first"
        )
    least = _BFLOAT16_OPSET if weights.first.weight_ih.dtype == torch.bfloat16 else OPSET
    if opset < least:
        raise ValueError(f"{weights.first.weight_ih.dtype} needs opset {least} or later, got {opset}")
    if opset > (newest := onnx.defs.onnx_opset_version()):
        raise ValueError(f"onnx {onnx.__version__} knows opsets up to {newest}, got {opset}")
    graph = _Graph(onnx.helper, _element_type(onnx, weights.first.weight_ih.dtype))
    shapes = _Shapes(len(weights.layers), len(weights.layers[0]), weights.hidden_size)
    states = ("h", "c") if weights.cell == "LSTM" else ("h",)

    time_batch = ["batch", "time"] if layer.batch_first else ["time", "batch"]
    graph.takes("input", [*time_batch, weights.input_size])
    if lengths:
        graph.takes("lengths", ["batch"], onnx.TensorProto.INT32)
    initial = {name: _initial(graph, f"{name}_0", shapes) if initial_state else None for name in states}

    found = "input"
    if layer.batch_first:
        found = graph.node("Transpose", [found], "by_time", perm=[1, 0, 2])
    last: dict[str, list[str]] = {name: [] for name in states}
    for k, row in enumerate(weights.layers):
        before = [given[k] if given is not None else "" for given in initial.values()]
        outputs = [f"Y_{k}", *(f"{name}_n_{k}" if shapes.L > 1 else f"{name}_n" for name in states)]
        inputs = [found, *_constants(graph, weights.cell, row, k), "lengths" if lengths else "", *before]
        options = {"linear_before_reset": int(weights.reset_after)} if weights.cell == "GRU" else {}
        graph.nodes(
            weights.cell, inputs, outputs, f"{weights.cell}_{k}", hidden_size=shapes.H,
            direction="bidirectional" if shapes.D == 2 else "forward", **options,
        )  # fmt: skip
        for name, output in zip(states, outputs[1:], strict=True):
            last[name].append(output)
        is_last = k + 1 == shapes.L and not layer.batch_first
        found = _side_by_side(graph, outputs[0], shapes, "output" if is_last else f"output_{k}", k)
    if layer.batch_first:
        graph.node("Transpose", [found], "output", perm=[1, 0, 2])
    graph.gives("output", [*time_batch, shapes.D * shapes.H])
    for name, parts in last.items():
        if shapes.L > 1:
            graph.node("Concat", parts, f"{name}_n", axis=0)
        graph.gives(f"{name}_n", [shapes.L * shapes.D, "batch", shapes.H])
    return graph.model(onnx, opset)


class _Shapes(NamedTuple):
    L: int
    D: int
    H: int


class _Graph:
    """A graph in the making."""

    def __init__(self, helper: Any, element_type: int) -> None:
        self.helper, self.element_type = helper, element_type
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._constants: list[Any] = []

    def takes(self, name: str, shape: list[str | int], element_type: int | None = None) -> None:
        info = self.helper.make_tensor_value_info(name, element_type or self.element_type, shape)
        self._inputs.append(info)

    def gives(self, name: str, shape: list[str | int]) -> None:
        self._outputs.append(self.helper.make_tensor_value_info(name, self.element_type, shape))

    def nodes(self, kind: str, inputs: list[str], outputs: list[str], name: str, **options: Any) -> None:
        while inputs[-1] == "":  # what is left out at the end is not named
            inputs = inputs[:-1]
        self._nodes.append(self.helper.make_node(kind, inputs, outputs, name=name, **options))

    def node(self, kind: str, inputs: list[str], output: str, **options: Any) -> str:
        self.nodes(kind, inputs, [output], f"{kind}_{output}", **options)
        return output

    def constant(self, name: str, tensor: Tensor) -> str:
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        kind = self.element_type if tensor.is_floating_point() else 7  # TensorProto.INT64
        self._constants.append(self.helper.make_tensor(name, kind, list(tensor.shape), raw, raw=True))
        return name

    def model(self, onnx: Any, opset: int) -> Any:
        graph = self.helper.make_graph(
            self._nodes, "gatedcells", self._inputs, self._outputs, self._constants
        )
        versions = [self.helper.make_opsetid("", opset)]
        model = self.helper.make_model(
            graph, opset_imports=versions, ir_version=self.helper.find_min_ir_version_for(versions),
            producer_name="gatedcells",
        )  # fmt: skip
        onnx.checker.check_model(model, full_check=True)
        return model


def _element_type(onnx: Any, dtype: torch.dtype) -> int:
    names = {
        torch.float64: "DOUBLE", torch.float32: "FLOAT", torch.float16: "FLOAT16", torch.bfloat16: "BFLOAT16",
    }  # fmt: skip
    if dtype not in names:
        raise LossyConversion(f"ONNX's GRU and LSTM take real floating point numbers, got {dtype}")
    return getattr(onnx.TensorProto, names[dtype])


def _constants(graph: _Graph, cell: str, row: tuple[Direction, ...], k: int) -> list[str]:
    """The names of W ``[D, GH, I]``, R ``[D, GH, H]`` and B ``[D, 2GH]`` (empty without biases)."""
    source, target = Weights(cell, (row,)).order, _ORDERS[cell]
    matrices = {
        f"W_{k}": [reorder(one.weight_ih, source, target) for one in row],
        f"R_{k}": [reorder(one.weight_hh, source, target) for one in row],
    }
    biases = [
        torch.cat([reorder(one.bias_ih, source, target), reorder(one.bias_hh, source, target)])
        for one in row
        if one.bias_ih is not None and one.bias_hh is not None
    ]
    names = [graph.constant(name, torch.stack(parts)) for name, parts in matrices.items()]
    return [*names, graph.constant(f"B_{k}", torch.stack(biases)) if biases else ""]


def _initial(graph: _Graph, name: str, shapes: _Shapes) -> list[str]:
    """The names of each layer's states ``[D, batch, H]``, parts of the model's input ``[L*D, batch, H]``."""
    graph.takes(name, [shapes.L * shapes.D, "batch", shapes.H])
    if shapes.L == 1:
        return [name]
    parts = [f"{name}_{k}" for k in range(shapes.L)]
    sizes = graph.constant(f"{name}_sizes", torch.full((shapes.L,), shapes.D))
    graph.nodes("Split", [name, sizes], parts, f"Split_{name}", axis=0)
    return parts


def _side_by_side(graph: _Graph, found: str, shapes: _Shapes, output: str, k: int) -> str:
    """The operator's ``[time, D, batch, H]`` as ``[time, batch, D*H]``."""
    if shapes.D == 1:
        return graph.node(
            "Squeeze", [found, graph.constant(f"direction_axis_{k}", torch.tensor([1]))], output
        )
    turned = graph.node("Transpose", [found], f"turned_{k}", perm=[0, 2, 1, 3])
    shape = graph.constant(f"shape_{k}", torch.tensor([0, 0, shapes.D * shapes.H]))
    return graph.node("Reshape", [turned, shape], output)
