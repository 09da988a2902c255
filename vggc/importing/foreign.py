"""A net of another framework in one neutral form: ONNX operators, whose tensors stay where they lie
until somebody wants them.

Each reader of a framework's files makes one; what becomes of it is one way for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from vggc.ir.ops import Shape
from vggc.weight_files.facts import WeightFacts

NOTHING = WeightFacts()


@dataclass(frozen=True)
class ForeignTensor:
    """A tensor that is read when somebody wants its values, and not kept.

    `read` gives numbers of `dtype` in this shape; its reader has checked that there are as many.
    `steps` counts the tensors of the file that are read for it and what is computed of them, so
    that no chain of arithmetic takes for ever.
    """

    shape: Shape
    dtype: np.dtype[Any]
    read: Callable[[], NDArray[Any]]
    steps: int = 1

    @classmethod
    def of(cls, values: NDArray[Any]) -> ForeignTensor:
        """A tensor whose values are in memory already."""
        return cls(values.shape, values.dtype, lambda: values)

    @property
    def size(self) -> int:
        """The number of values."""
        return prod(self.shape)

    def changed(
        self, shape: Shape, change: Callable[[NDArray[Any]], NDArray[Any]]
    ) -> ForeignTensor:
        """What `change` makes of the tensor when it is read, of `shape` and the same type."""
        return ForeignTensor(shape, self.dtype, lambda: change(self.read()), self.steps + 1)


class OwnEngine(Protocol):
    """A foreign net, computed by the engine that it was made for."""

    @property
    def title(self) -> str:
        """The engine's name and version."""

    def run(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        """Each output of the net by its name, for an input of the shape that the net's graph
        tells, an open batch being 1.
        """


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A net as a graph of ONNX operators.

    `model` holds the nodes in an order in which each reads only what stands before it, and at
    least one input, of the images. It holds no initialisers: those are `tensors`, by their names.
    What is small enough may stand in a node of type Constant as well. The version of the operators
    is that of the model's `opset_import`, 7 at least.

    `name` is what the net is to be called, `files` what it was read from, and `sha256` the hash of
    the first of them, in hexadecimal; all are told in a comment. `facts` is what the files say of
    pictures and classes. `engine` starts the net in its own engine, to compare with; where it is
    None, `no_engine` says why, as the end of the sentence "not compared with the original: ".
    `notes` are sentences on what its reader assumed and what it left out, for the user to see.
    Where only a definition was read, `has_weights` is False: tensors have shapes, and cannot be
    read.
    """

    model: onnx.ModelProto
    tensors: Mapping[str, ForeignTensor]
    name: str
    files: tuple[str, ...]
    sha256: str = ""
    facts: WeightFacts = NOTHING
    engine: Callable[[], OwnEngine] | None = None
    no_engine: str = "its engine is not known"
    notes: tuple[str, ...] = ()
    has_weights: bool = True

    @classmethod
    def of(
        cls,
        model: onnx.ModelProto,
        tensors: Mapping[str, NDArray[Any] | ForeignTensor] | None = None,
        *,
        name: str = "net",
        files: tuple[str, ...] = ("memory",),
        **more: Any,
    ) -> Foreign:
        """A net whose model may hold initialisers of its own; `tensors` are further ones."""
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(model)
        del skeleton.graph.initializer[:]
        found = {
            each.name: ForeignTensor.of(numpy_helper.to_array(each))
            for each in model.graph.initializer
        }
        for key, values in (tensors or {}).items():
            if not isinstance(values, ForeignTensor):
                values = ForeignTensor.of(np.asarray(values))
            found[key] = values
        return cls(model=skeleton, tensors=found, name=name, files=files, **more)
