"""Small ONNX nets for tests, written operator by operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vggc.importing.compare import compare
from vggc.importing.net import ImportedNet, import_foreign
from vggc.importing.onnx_file import read_onnx


class NetMaker:
    """Gathers operators; each method `Conv(...)` adds one and gives the name of what it gives."""

    def __init__(self, *shape: int | str) -> None:
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.draw = np.random.default_rng(len(shape))

    def op(self, kind: str, *reads: str | NDArray[Any], **attributes: Any) -> str:
        """Adds an operator, whose arrays become initialisers."""
        names = [each if isinstance(each, str) else self.constant(each) for each in reads]
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [name], f"n{name}", **attributes))
        return name

    def parts(self, kind: str, *reads: str | NDArray[Any], **attributes: Any) -> tuple[str, str]:
        """Adds an operator that gives two values."""
        first = self.op(kind, *reads, **attributes)
        second = f"{first}b"
        self.nodes[-1].output.append(second)
        return first, second

    def constant(self, values: NDArray[Any]) -> str:
        """Adds an initialiser."""
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def random(self, *shape: int, low: float = -1.0) -> NDArray[np.float32]:
        """Numbers from `low` to 1."""
        return self.draw.uniform(low, 1, shape).astype(np.float32)

    def model(self, *outputs: str, opset: int = 17) -> onnx.ModelProto:
        """The net that gives these."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.tensors,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )


def imported(folder: Path, model: onnx.ModelProto) -> ImportedNet:
    """The net of ours that a model becomes, by way of a file."""
    path = folder / "net.onnx"
    onnx.save(model, path)
    return import_foreign(read_onnx(path))


def layers(net: ImportedNet) -> str:
    """The text of a net behind its head, in one line."""
    return " ".join(net.text.partition("\n\n")[2].split())


def agrees(net: ImportedNet) -> bool:
    """Whether ONNX Runtime gives what the net does, on noise."""
    noise = np.random.default_rng(1).standard_normal((1, *net.graph.input), dtype=np.float32)
    found = compare(net, net.weights, {"noise": noise})
    assert found is not None
    return found.agrees
