"""Reading GRU and LSTM operators from ONNX files; see `gatedcells.interop.onnx` for the equations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gatedcells.interop.arrays import from_numpy
from gatedcells.interop.cells import stacked
from gatedcells.interop.gate_order import ONNX_GRU, ONNX_LSTM, OURS, reorder
from gatedcells.interop.onnx_graph import Graph
from gatedcells.interop.weights import Direction, Layer, LossyConversion, Weights, kind_of, library

_ORDERS = {"GRU": ONNX_GRU, "LSTM": ONNX_LSTM}
_ACTIVATIONS = {"GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"]}
# where the inputs stand after X, W and R
_B, _LENGTHS, _H_0, _C_0, _PEEPHOLES = 3, 4, 5, 6, 7


def load(
    source: str | Path | Any,
    *,
    node: str | None = None,
    batch_first: bool | None = None,
    dropout: float = 0.0,
) -> Layer:
    """Make a layer from the GRU or LSTM operators of an ONNX model.

    A chain of operators, each reading the output of the one before, becomes one layer with that many
    ``num_layers``; `gatedcells.interop.onnx.export` and ``torch.onnx.export`` write such chains. Weights may
    be constants or computed from constants. Other operators of the model are ignored.

    Args:
        source: a path, or an ``onnx.ModelProto``.
        node: the name of one operator or of one of its outputs; None for all of them.
        batch_first: of the layer; None for the operator's ``layout``. Transpositions around the operators
            (which `export` writes for ``batch_first=True``) are ignored, so pass True for such a model.
        dropout: of the layer, for training; a file does not contain it.

    Returns:
        a `gatedcells.GRU` or `gatedcells.LSTM`.

    Raises:
        LossyConversion: activations other than sigmoid and tanh, ``clip``, coupled input and forget gates,
            peepholes, constant initial states other than zeros, constant lengths that differ, or a reverse
            direction without a forward one.
        ValueError: there is no such operator; there are several that are not one stack; weights depend on
            the model's inputs or have unexpected shapes; the file is not an ONNX file.
        FileNotFoundError: there is no such file.
        TypeError: ``source`` is neither a path nor a model.
        ModuleNotFoundError: onnx is not installed.
    """
    onnx = library("onnx")
    model = _read(onnx, Path(source)) if isinstance(source, (str, Path)) else source
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(f"expected a path or an onnx.ModelProto, got {kind_of(model)}")
    reader = _Reader(Graph(onnx, model))
    chosen = reader.choose(node)
    if batch_first is None:
        batch_first = all(map(reader.is_batch_first, chosen))
    rows = [reader.directions(one) for one in chosen]
    return stacked(rows, batch_first=batch_first, dropout=dropout)


def _read(onnx: Any, path: Path) -> Any:
    decode_error = library("google.protobuf.message").DecodeError
    try:
        return onnx.load(path)
    except decode_error as error:
        raise ValueError(f"{path} is not an ONNX file: {error}") from error


class _Reader:
    """The recurrent operators of a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._recurrent: list[Any] = [one for one in graph.nodes if one.op_type in _ORDERS]

    def choose(self, name: str | None) -> list[Any]:
        """The operators that are meant, from the first layer to the last."""
        known = [one.name or one.output[0] for one in self._recurrent]
        if name is not None:
            found = [one for one in self._recurrent if name == one.name or name in one.output]
            if len(found) != 1:
                raise ValueError(f"the model has no GRU or LSTM operator {name!r}; it has {known}")
            return found
        if not self._recurrent:
            raise ValueError("the model has no GRU or LSTM operator")
        for above, below in zip(self._recurrent[1:], self._recurrent[:-1], strict=True):
            R = self._weight(below, 2)
            assert R is not None
            if not self._graph.reads(above, below, len(R), R.shape[-1]):
                raise ValueError(
                    f"the model's operators {known} are not one stack: {above.name or above.output[0]!r}"
                    " does not read the output of the one before it; choose one with node="
                )
        return self._recurrent

    def is_batch_first(self, node: Any) -> bool:
        """The operator's ``layout``."""
        return bool(self._graph.option(node, "layout", 0))

    def directions(self, node: Any) -> list[Weights]:
        """Each direction of an operator, with its convention."""
        cell = node.op_type
        direction = self._graph.option(node, "direction", b"forward").decode()
        if direction == "reverse":
            raise LossyConversion(
                f"{_called(node)} has direction='reverse'; gatedcells has 'forward' and 'bidirectional'"
            )
        D = 2 if direction == "bidirectional" else 1
        self._refuse(node, cell, D)
        source, target = _ORDERS[cell], OURS[cell]
        W, R, B = (self._weight(node, k) for k in (1, 2, _B))
        assert W is not None
        assert R is not None
        _check_shapes(node, D, len(target.gates), W, R, B)
        biases: Sequence[Any] = [(None, None)] * len(W) if B is None else [one.chunk(2) for one in B]
        reset_after = cell == "LSTM" or bool(self._graph.option(node, "linear_before_reset", 0))
        return [
            Weights(
                cell,
                ((
                    Direction(
                        *(None if one is None else reorder(one, source, target) for one in (w, r, *both)),  # pyright: ignore[reportArgumentType]
                    ),
                ),),
                reset_after,
            )
            for w, r, both in zip(W, R, biases, strict=True)
        ]  # fmt: skip

    def _refuse(self, node: Any, cell: str, D: int) -> None:
        """Raise LossyConversion for what gatedcells' cells do not compute."""
        option = self._graph.option
        activations = [name.decode().lower() for name in option(node, "activations", [])]
        if activations not in ([], _ACTIVATIONS[cell] * D):
            raise LossyConversion(
                f"{_called(node)} has the activations {activations}, expected {_ACTIVATIONS[cell] * D}"
            )
        if option(node, "clip", 0.0):
            raise LossyConversion(
                f"{_called(node)} clips its gates' pre-activations (clip={option(node, 'clip', 0.0)}), which"
                " gatedcells does not do"
            )
        if option(node, "input_forget", 0):
            raise LossyConversion(
                f"{_called(node)} couples its input and forget gates (input_forget=1); in gatedcells they are"
                " separate"
            )
        for k, what in ((_H_0, "initial_h"), (_C_0, "initial_c"), (_PEEPHOLES, "peepholes")):
            name = node.input[k] if len(node.input) > k else ""
            if name and self._graph.is_fixed(name):
                raise LossyConversion(
                    f"{_called(node)} has constant {what} other than zeros, which are not converted"
                )
            if name and k == _PEEPHOLES and self._graph.constant(name) is None:
                raise LossyConversion(f"{_called(node)} has peepholes, which are not converted")
        # of equal ones a converter has written down how many steps there are
        name = node.input[_LENGTHS] if len(node.input) > _LENGTHS else ""
        lengths = self._graph.constant(name) if name else None
        if lengths is not None and (lengths != lengths[0]).any():
            raise LossyConversion(
                f"{_called(node)} has the constant sequence_lens {lengths.tolist()}; a layer takes lengths"
                " with each call"
            )

    def _weight(self, node: Any, k: int) -> Tensor | None:
        if len(node.input) <= k or not node.input[k]:
            return None
        found = self._graph.constant(node.input[k])
        if found is None:
            raise ValueError(
                f"{_called(node)}: its weight {node.input[k]!r} must be constant, but the model computes it"
                " from its inputs"
            )
        return from_numpy(found)


def _check_shapes(node: Any, D: int, G: int, W: Tensor, R: Tensor, B: Tensor | None) -> None:
    """Raise ValueError unless an operator's weights are of its directions and fit together."""
    given = [list(one.shape) for one in (W, R, B) if one is not None]
    I, H = W.shape[-1], R.shape[-1]
    expected = [[D, G * H, I], [D, G * H, H], [D, 2 * G * H]][: len(given)]
    if given != expected:
        raise ValueError(f"{_called(node)}: expected W, R and B of shapes {expected}, got {given}")


def _called(node: Any) -> str:
    return f"the {node.op_type} operator {node.name or node.output[0]!r}"
