"""The weights of plans as their kernels read them, and back."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from vggc.compiler.quantize import Tensors
from vggc.compiler.relax import PlannedCalls
from vggc.ir.ops import Shape
from vggc.ir.weights import Weights
from vggc.kernels.workloads import Packing
from vggc.runtime.artifact import plain_weight
from vggc.support.tensors import Pieces


def packings(calls: Iterable[PlannedCalls]) -> dict[str, Packing | None]:
    """How the kernels of plans want each weight packed; None for one that they take as it is.

    Raises: ValueError where two want one weight packed otherwise.
    """
    found: dict[str, Packing | None] = {}
    for step, kernel in (each for one in calls for each in one.steps):
        for number, name in enumerate(step.weights):
            wanted = None if number else kernel.packing
            if found.setdefault(name, wanted) != wanted:
                raise ValueError(f"{name} is packed in two ways")
    return found


def pack(calls: Iterable[PlannedCalls], weights: Tensors) -> dict[str, Pieces]:
    """The weights of plans as the kernels want them, packed while they are written.

    Raises: ValueError as `packings`.
    """
    calls = [*calls]
    shapes = {
        step.weights[0]: next(iter(step.workload.weights.values()))
        for step, kernel in (each for one in calls for each in one.steps)
        if kernel.packing
    }
    return {
        name: _packed(weights[plain_weight(name)], packing, shapes.get(name))
        for name, packing in packings(calls).items()
    }


def _packed(weight: np.ndarray, packing: Packing | None, shape: Shape | None) -> Pieces:
    if packing is None:
        return Pieces.of(weight)
    # Of a net that is applied densely it may come as that of a dense layer.
    make = partial(packing.pieces, weight.reshape(shape or weight.shape))
    return Pieces(np.dtype(packing.packed_type), packing.packed_shape, make)


def unpack(calls: Iterable[PlannedCalls], packed: Weights) -> Weights:
    """The weights as they were before `pack`, up to rounding; that of a dense layer may be that of
    the convolution which covers its map.

    Raises: ValueError as `packings`.
    """
    return {
        plain_weight(name): packed[name] if packing is None else packing.unpack(packed[name])
        for name, packing in packings(calls).items()
    }
