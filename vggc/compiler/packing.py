"""The weights of a plan as its kernels read them, and back."""

from __future__ import annotations

from functools import partial

import numpy as np

from vggc.compiler.quantize import Tensors
from vggc.compiler.relax import weight_types
from vggc.ir.weights import Weights
from vggc.kernels.workloads import Kernel
from vggc.plan.plan import Plan
from vggc.support.tensors import Pieces


def pack(plan: Plan, kernels: tuple[Kernel, ...], weights: Tensors) -> dict[str, Pieces]:
    """The weights of a plan as the kernels want them, packed while they are written."""
    packed: dict[str, Pieces] = {}
    for step, kernel in zip(plan.steps, kernels, strict=True):
        packed |= {name: Pieces.of(weights[name]) for name in step.weights}
        if kernel.packing is not None:
            first = step.weights[0]
            shape, dtype = weight_types(step, kernel)[first]
            make = partial(kernel.packing.pieces, weights[first])
            packed[first] = Pieces(np.dtype(dtype), shape, make)
    return packed


def unpack(plan: Plan, kernels: tuple[Kernel, ...], packed: Weights) -> Weights:
    """The weights as they were before `pack`, up to rounding."""
    weights: Weights = {}
    for step, kernel in zip(plan.steps, kernels, strict=True):
        weights |= {name: packed[name] for name in step.weights}
        if kernel.packing is not None:
            first = step.weights[0]
            weights[first] = kernel.packing.unpack(packed[first])
    return weights
