"""Graph to an ONNX model, opset 17."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_never

import onnx
from onnx import TensorProto, helper, numpy_helper

from vggc import __version__
from vggc.ir.graph import Graph, Node
from vggc.ir.ops import (
    Conv2d,
    Dropout,
    Flatten,
    Input,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Softmax,
)
from vggc.passes.inference import drop_dropout
from vggc.weights import Weights

OPSET = 17
IR_VERSION = 8
BATCH = "N"
"""The name of the batch's free dimension."""


def to_onnx(graph: Graph, weights: Weights) -> onnx.ModelProto:
    """The graph for inference: input `input` `(N, C, H, W)`, output `output`, N free.

    Raises: onnx.checker.ValidationError where the model is unsound; a bug in vggc.
    """
    graph = drop_dropout(graph)
    names = [node.name for node in graph.nodes]
    names[0], names[-1] = "input", "output"
    nodes = [
        _node(node, [names[i] for i in node.inputs], names[index], list(graph.weights(node)))
        for index, node in enumerate(graph.nodes)
        if not isinstance(node.op, Input)
    ]
    if not nodes:
        names[0] = "input"
        nodes = [helper.make_node("Identity", ["input"], ["output"])]
    body = helper.make_graph(
        nodes,
        graph.name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [BATCH, *graph.input])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [BATCH, *graph.output])],
        [numpy_helper.from_array(weights[name], name) for name in graph.all_weights],
    )
    model: onnx.ModelProto = helper.make_model(
        body,
        producer_name="vggc",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def save_onnx(graph: Graph, weights: Weights, path: Path) -> None:
    """Writes `to_onnx` to a file."""
    onnx.save(to_onnx(graph, weights), path)


def _node(node: Node, reads: list[str], output: str, weights: list[str]) -> onnx.NodeProto:
    def make(kind: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, [*reads, *weights], [output], node.name, **attributes)

    match node.op:
        case Conv2d(kernel=kernel, stride=stride, padding=padding):
            return make("Conv", kernel_shape=kernel, strides=stride, pads=[*padding, *padding])
        case Linear():
            return make("Gemm", transB=1)
        case MaxPool2d(kernel=kernel, stride=stride):
            return make("MaxPool", kernel_shape=kernel, strides=stride)
        case LocalResponseNorm(size=size, alpha=alpha, beta=beta, k=k):
            # ONNX divides alpha by the size; the paper does not.
            return make("LRN", size=size, alpha=alpha * size, beta=beta, bias=k)
        case ReLU():
            return make("Relu")
        case Flatten():
            return make("Flatten", axis=1)
        case Softmax():
            return make("Softmax", axis=1)
        case Input() | Dropout():
            raise AssertionError(f"{node.name} has no place in a graph for inference")
        case _:
            assert_never(node.op)
