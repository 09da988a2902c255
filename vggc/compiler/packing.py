"""The weights of plans as their kernels read them, and back."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import numpy as np

from vggc.compiler.quantize import Tensors
from vggc.compiler.relax import Lowered
from vggc.ir.weights import Weights
from vggc.kernels.workloads import Packing
from vggc.plan.plan import Plan
from vggc.support.tensors import Pieces


def packings(plans: Collection[Plan], code: Lowered) -> dict[str, Packing]:
    """How the kernels of plans want each weight packed that they do not take as it is.

    Raises: ValueError where two want one weight packed otherwise.
    """
    found: dict[str, Packing | None] = {}
    for step in (step for plan in plans for step in plan.steps):
        for number, name in enumerate(step.weights):
            wanted = None if number else code.kernels[step.workload].packing
            if found.setdefault(name, wanted) != wanted:
                raise ValueError(f"{name} is packed in two ways")
    return {name: packing for name, packing in found.items() if packing is not None}


def pack(plans: Collection[Plan], code: Lowered, weights: Tensors) -> dict[str, Pieces]:
    """The weights of plans as the kernels want them, packed while they are written.

    Raises: ValueError as `packings`.
    """
    packed = {name: Pieces.of(weights[name]) for plan in plans for name in plan.weights}
    for name, packing in packings(plans, code).items():
        make = partial(packing.pieces, weights[name])
        packed[name] = Pieces(np.dtype(packing.packed_type), packing.packed_shape, make)
    return packed


def unpack(plans: Collection[Plan], code: Lowered, packed: Weights) -> Weights:
    """The weights as they were before `pack`, up to rounding.

    Raises: ValueError as `packings`.
    """
    weights = {name: packed[name] for plan in plans for name in plan.weights}
    for name, packing in packings(plans, code).items():
        weights[name] = packing.unpack(packed[name])
    return weights
