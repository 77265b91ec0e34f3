"""Analysis of an ONNX graph: which inputs of its GRU and LSTM operators are constant, and which operator
reads another's output.

Exporters write weights as constants or compute them from constants: ``torch.onnx.export`` leaves the
reordering of large weights' gates to the graph. Whatever depends on constants only is computed here by
ONNX's reference evaluator.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gatedcells.interop.weights import library

# sizes of time and batch where a graph computes with shapes: no others are likely to be the same
_T, _B = 61, 67


class Graph:
    """A graph, its constants by name and its nodes by what they give out."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self._helper = onnx.helper
        self._to_array = onnx.numpy_helper.to_array
        self._opsets = model.opset_import
        self._given: dict[str, Any] = {one.name: one for one in model.graph.initializer}
        self._from: dict[str, Any] = {name: one for one in model.graph.node for name in one.output if name}
        self._computed: dict[str, Any] = {}
        self.nodes: Sequence[Any] = model.graph.node

    def option(self, node: Any, name: str, default: Any) -> Any:
        """An attribute of a node."""
        get = self._helper.get_attribute_value
        return next((get(one) for one in node.attribute if one.name == name), default)

    def constant(self, name: str) -> Any:
        """The array of this name if it depends on constants alone, else None."""
        if name in self._given:
            return self._to_array(self._given[name])
        if name not in self._computed:
            self._computed[name] = self._compute(name, {})
        return self._computed[name]

    def is_fixed(self, name: str) -> bool:
        """Whether a state is other than zeros and nothing that the model is given has a part in it but by its
        shape."""
        found = self.constant(name)
        if found is not None:
            return bool(found.any())
        passed, outside = self._sources(name, (), stop=("Shape", "Size"))
        if outside:
            return False
        fillings = [self._filling(node) for one in passed if (node := self._from.get(one)) is not None]
        numbers = [*fillings, *(self._to_array(self._given[one]) for one in passed & self._given.keys())]
        return any(one is not None and one.dtype.kind not in "iub" and one.any() for one in numbers)

    def reads(self, above: Any, below: Any, D: int, H: int) -> bool:
        """Whether an operator's X is the Y of another, with D directions of H units, its directions side by
        side."""
        found, between = above.input[0], list[Any]()
        while (node := self._from.get(found)) is not None and node is not below:
            if not node.input:
                return False
            between.append(node)
            found = node.input[0]
        if node is not below or found != below.output[0]:
            return False
        is_batch_first = [bool(self.option(one, "layout", 0)) for one in (below, above)]
        axes = ["B", "T", "D", "H"] if is_batch_first[0] else ["T", "D", "B", "H"]
        for node in reversed(between):
            axes = self._moved(axes, node, D, H)
        wanted = ["B", "T"] if is_batch_first[1] else ["T", "B"]
        return axes == [*wanted, "DH"] or (D == 1 and axes == [*wanted, "H"])

    def _moved(self, axes: list[str], node: Any, D: int, H: int) -> list[str]:
        """The axes after a node that moves them, squeezes or merges directions, or does nothing in inference;
        no axes after any other."""
        if node.op_type in ("Identity", "Dropout"):
            return axes
        if node.op_type == "Transpose":
            order = list(self.option(node, "perm", range(len(axes))[::-1]))
            return [axes[k] for k in order] if sorted(order) == list(range(len(axes))) else []
        if node.op_type == "Squeeze":
            gone = self._whole_numbers(node, "axes")
            at = axes.index("D") if "D" in axes and D == 1 else None
            return axes[:at] + axes[at + 1 :] if at is not None and gone in ([at], [at - len(axes)]) else []
        if node.op_type == "Reshape" and len(axes) == 4:
            if axes[2:] != ["D", "H"] and D != 1:
                return []
            merged = [*axes[:2], "DH"] if axes[2:] == ["D", "H"] else [one for one in axes if one != "D"]
            sizes = {"T": _T, "B": _B, "D": D, "H": H, "DH": D * H}
            shape = self._whole_numbers(node, "shape", [sizes[one] for one in axes])
            # a shape that is constant may have any time and batch
            is_free = len(node.input) < 2 or self.constant(node.input[1]) is not None
            fits = [
                size in (-1, sizes[one])
                or (size == 0 and axes[k] == one)
                or (size > 0 and one in "TB" and is_free)
                for k, (size, one) in enumerate(zip(shape, merged))  # noqa: B905 (a shape of any length)
            ]
            return merged if len(shape) == len(merged) and all(fits) else []
        return []

    def _whole_numbers(self, node: Any, option: str, shape: Sequence[int] = ()) -> list[int]:
        """Axes or a shape: an attribute of old operators, an input of new ones, perhaps computed from the
        shape of the node's data."""
        if len(node.input) < 2:
            return list(self.option(node, option, []))
        found = self.constant(node.input[1])
        if found is None and shape:
            numpy = library("numpy")
            data = numpy.broadcast_to(numpy.zeros((), "float32"), shape)  # takes no memory
            found = self._compute(node.input[1], {node.input[0]: data})
        return [] if found is None else [int(number) for number in found.flatten()]

    def _compute(self, name: str, known: Mapping[str, Any]) -> Any:
        """The array of this name if it depends on constants and on what is known alone, else None."""
        passed, outside = self._sources(name, known)
        if outside:
            return None
        untyped = self._helper.make_empty_tensor_value_info
        graph = self._helper.make_graph(
            [one for one in self.nodes if passed.intersection(one.output)],
            "constants", [untyped(one) for one in known], [untyped(name)],
            [self._given[one] for one in passed & self._given.keys()],
        )  # fmt: skip
        model = self._helper.make_model(graph, opset_imports=self._opsets)
        return library("onnx.reference").ReferenceEvaluator(model).run(None, dict(known))[0]

    def _sources(
        self, name: str, known: Collection[str], *, stop: Sequence[str] = ()
    ) -> tuple[set[str], list[str]]:
        """All that a value is computed from, up to what is known and to operators to stop at: the names, and
        those among them that are not constant."""
        passed, outside, ahead = set[str](), list[str](), [name]
        while ahead:
            name = ahead.pop()
            if not name or name in passed or name in known:
                continue
            passed.add(name)
            node = self._from.get(name)
            if name in self._given or (node is not None and node.op_type in stop):
                continue
            if node is None or not self._is_determined(node):
                outside.append(name)
            else:
                ahead += node.input
        return passed, outside

    def _is_determined(self, node: Any) -> bool:
        """Whether a node of ONNX's own computes from its inputs alone: no loops, branches or random
        numbers."""
        inside = any(one.HasField("g") or one.graphs for one in node.attribute)
        return (
            node.domain in ("", "ai.onnx") and not inside and (node.op_type == "Constant" or bool(node.input))
        )

    def _filling(self, node: Any) -> Any:
        """The numbers of a node that makes some up, as an array, else None."""
        if node.op_type not in ("Constant", "ConstantOfShape"):
            return None
        value = self.option(node, "value", None)
        return None if value is None else self._to_array(value)
