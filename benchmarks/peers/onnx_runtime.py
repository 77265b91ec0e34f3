"""ONNX Runtime's GRU and LSTM nodes, inference only."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from benchmarks.registry import Case, Run, Unsupported
from gatedcells.interop.gate_order import ONNX_GRU, ONNX_LSTM, OURS, reorder

ORDER = {"gru": ONNX_GRU, "lstm": ONNX_LSTM}


def run_onnxruntime(case: Case) -> Run:
    """A model of the one node, its weights constants of the model, with as many threads as torch."""
    if case.mode == "training":
        raise Unsupported("ONNX Runtime does not train")
    if case.dtype != "float32":
        raise Unsupported("ONNX Runtime's GRU and LSTM on the CPU take float32")
    module = case.module()
    weights = {name.removesuffix("_l0"): p.detach() for name, p in module.named_parameters()}
    H = case.H

    def in_order(matrix: Tensor) -> np.ndarray:
        return reorder(matrix, OURS[case.op.upper()], ORDER[case.op]).numpy()

    bias = np.concatenate([in_order(weights["bias_ih"]), in_order(weights["bias_hh"])])
    constants = {"W": in_order(weights["weight_ih"]), "R": in_order(weights["weight_hh"]), "B": bias}
    initializers = [numpy_helper.from_array(value[None], name) for name, value in constants.items()]
    states = case.state() if case.mode == "step" else tuple(torch.zeros(case.B, H) for _ in case.state())
    names = ("h0", "c0")[: len(states)]
    attributes = {"hidden_size": H} | ({"linear_before_reset": 1} if case.op == "gru" else {})
    node = helper.make_node(
        case.op.upper(), ["X", "W", "R", "B", "", *names], ["Y"], **attributes,
    )  # fmt: skip
    shape_of_state = [1, case.B, H]
    graph = helper.make_graph(
        [node], "cell",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [case.T, case.B, case.I])]
        + [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape_of_state) for name in names],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [case.T, 1, case.B, H])],
        initializers,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = case.input().reshape(case.T, case.B, case.I).numpy()
    feed = {"X": x} | {name: s[None].numpy() for name, s in zip(names, states, strict=True)}

    def numbers() -> list[Tensor]:
        states_after = torch.from_numpy(session.run(None, feed)[0])[:, 0]
        return [states_after[0] if case.mode == "step" else states_after]

    return Run(lambda: session.run(None, feed), numbers, f"onnxruntime {onnxruntime.__version__}")
