"""A graph of ONNX operators in the making, whose weights stay in their file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from vggc.importing.foreign import ForeignTensor
from vggc.ir.ops import Pair, Shape

OPERATORS = 21
"""The version of the operators that nodes are of."""
MAX_LAYERS = 10_000
MAX_SIDE = 1 << 20
"""The most rows, columns and channels of a map."""
MAX_VALUES = 1 << 31
"""The most numbers of a map, and of a layer's weight."""


@dataclass(frozen=True)
class Wire:
    """What a node writes: its name in the graph, and its shape with a batch of 1 before it."""

    name: str
    shape: Shape

    @property
    def is_map(self) -> bool:
        """Whether it has rows and columns."""
        return len(self.shape) == 4


class Assembly:
    """Nodes in order, and the tensors that they read."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[Wire] = []
        self.tensors: dict[str, ForeignTensor] = {}
        self._taken: dict[str, int] = {}

    def image(self, name: str, shape: Shape) -> Wire:
        """A further input."""
        value = Wire(self._free(name), shape)
        self.inputs.append(value)
        return value

    def tensor(self, name: str, tensor: ForeignTensor) -> str:
        """The name in the graph of a tensor."""
        name = self._free(name)
        self.tensors[name] = tensor
        return name

    def numbers(self, name: str, values: Any, dtype: type = np.float32) -> str:
        """The name in the graph of a few numbers."""
        return self.tensor(name, ForeignTensor.of(np.asarray(values, dtype)))

    def node(
        self, op: str, reads: Sequence[Wire | str], shape: Shape, name: str, **attributes: Any
    ) -> Wire:
        """What a further node writes. `name` is that of the layer that it is of."""
        value = Wire(self._free(name), shape)
        names = [each.name if isinstance(each, Wire) else each for each in reads]
        self.nodes.append(helper.make_node(op, names, [value.name], name=value.name, **attributes))
        return value

    def part(self, value: Wire, first: int, end: int, name: str) -> Wire:
        """The channels of a value from `first` up to `end`, which is not among them."""
        limits = [
            self.numbers(f"{name}.{key}", [number], np.int64)
            for key, number in (("first", first), ("end", end), ("axis", 1))
        ]
        shape = (value.shape[0], end - first, *value.shape[2:])
        return self.node("Slice", [value, *limits], shape, name)

    def flat(self, value: Wire, name: str) -> Wire:
        """A map as a vector, channels first; a vector as it is."""
        if not value.is_map:
            return value
        return self.node("Flatten", [value], (1, prod(value.shape)), f"{name}.flat", axis=1)

    def read_tensors(self) -> dict[str, ForeignTensor]:
        """The tensors that nodes read."""
        read = {name for node in self.nodes for name in node.input}
        return {name: tensor for name, tensor in self.tensors.items() if name in read}

    def model(self, outputs: Sequence[Wire]) -> onnx.ModelProto:
        """The graph, which gives these values."""
        graph = helper.make_graph(
            self.nodes, "net", [_described(each) for each in self.inputs],
            [_described(each) for each in outputs],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPERATORS)])

    def _free(self, name: str) -> str:
        name = name or "layer"
        free = name
        while free in self._taken:
            self._taken[name] += 1
            free = f"{name}.{self._taken[name]}"
        self._taken[free] = 1
        return free


def _described(value: Wire) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, value.shape)


def is_sensible(shape: Shape) -> bool:
    """Whether a map or a weight of this shape is one that a computer might hold."""
    return all(1 <= side <= MAX_SIDE for side in shape) and prod(shape) <= MAX_VALUES


def swept(
    size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: tuple[int, int, int, int],
    dilation: Pair = (1, 1),
) -> Pair:
    """The rows and columns of windows that fit as a whole; 0 or less where none does. `padding` is
    what lies at the top, the left, the bottom and the right.
    """
    top, left, bottom, right = padding
    sides = zip(size, (top + bottom, left + right), kernel, stride, dilation, strict=True)
    rows, columns = ((n + p - d * (k - 1) - 1) // s + 1 for n, p, k, s, d in sides)
    return rows, columns
