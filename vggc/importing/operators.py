"""An operator of a foreign net: what it is, what it reads, and its attributes as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, numpy_helper

MAX_TEXT = 60
"""Characters of a foreign name in a message."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A node of a foreign net, the `number`th of `total`. `attributes` are numbers, texts, lists of
    them and arrays; those of other kinds, such as nets within a net, are left out.
    """

    kind: str
    name: str
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    attributes: Mapping[str, Any]
    number: int
    total: int

    def attribute(self, key: str, default: Any) -> Any:
        """An attribute of the type of `default`. Raises: TypeError where it is of another."""
        found = self.attributes.get(key, default)
        if default is not None and type(found) is not type(default):
            raise TypeError(f"its attribute `{key}` is of the wrong type")
        return found

    @property
    def place(self) -> str:
        """Where the operator stands, in words: `node 12 of 40, `/head/nms``."""
        name = short(self.name or next(filter(None, self.gives), ""))
        return f"node {self.number} of {self.total}, `{name}`"

    @property
    def inputs(self) -> str:
        """What the operator reads, in words."""
        names = [f"`{short(name)}`" for name in self.reads[:4] if name]
        return ", ".join(names) + (", …" if len(self.reads) > 4 else "") or "nothing"


def operator_of(node: onnx.NodeProto, number: int, total: int) -> Operator:
    """A node of a model as plain data."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    return Operator(
        kind=domain + node.op_type,
        name=node.name,
        reads=tuple(node.input),
        gives=tuple(node.output),
        attributes={each.name: value for each in node.attribute for value in _values(each)},
        number=number,
        total=total,
    )


def names_read(graph: onnx.GraphProto) -> set[str]:
    """All names that the nodes of a graph read, those of nets within the net included."""
    found: set[str] = set()
    graphs = [graph]
    while graphs:
        for node in graphs.pop().node:
            found.update(node.input)
            for attribute in node.attribute:
                graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
    return found


def short(text: str) -> str:
    """A foreign name in a message: the end of it where it is long."""
    text = text.replace("`", "'")
    return text if len(text) <= MAX_TEXT else f"…{text[-MAX_TEXT:]}"


def _values(attribute: onnx.AttributeProto) -> tuple[Any, ...]:
    """The value of an attribute; nothing where it is of a kind that no operator of ours has."""
    match attribute.type:
        case AttributeProto.FLOAT:
            return (float(attribute.f),)
        case AttributeProto.INT:
            return (int(attribute.i),)
        case AttributeProto.STRING:
            return (attribute.s.decode("utf-8", "replace"),)
        case AttributeProto.INTS:
            return ([*attribute.ints],)
        case AttributeProto.FLOATS:
            return ([*attribute.floats],)
        case AttributeProto.TENSOR:
            return (_array(attribute.t),)
        case _:
            return ()


def _array(tensor: onnx.TensorProto) -> NDArray[Any]:
    """A small tensor within a node. Raises: ValueError where it is damaged."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError("a constant within a node lies in another file")
    return np.asarray(numpy_helper.to_array(tensor))
