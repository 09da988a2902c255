"""What an artifact computes, without its kernels: each step in float32, then rounded as it is
stored.

Weights are those that kernels hold, and values lie between steps in the format of their map, so
that all that fewer bits cost is there. Sums are PyTorch's, in float32; kernels have another order,
which changes some 1e-7 a layer: nothing beside float16's 3e-4, and all there is in float32, of
which this says little.

It runs as fast as PyTorch convolves, so that it says of hundreds of images what `emulated_gpu.py`
says of one in minutes. `tests/ir/test_ops_cuda.py` holds the one to the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from vggc.backends.torch import activated
from vggc.compiler.quantize import Tensors
from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.cuda.packing import restored, stored, to_tf32
from vggc.kernels.reference import reference
from vggc.kernels.workloads import Conv, Dense, Layout, Map, Workload
from vggc.plan.low_precision import as_conv, scale_name
from vggc.plan.plan import INPUT, Plan, Step

Real: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class RoundedNet:
    """A plan with the weights that it takes, not packed (`converted_weights`).

    Steps in `exact`, by their number, round neither their weight, where it is not int8, nor what
    they give.
    """

    plan: Plan
    weights: Tensors
    exact: Collection[int] = ()
    held: Mapping[int, tuple[Real, ...]] = field(init=False)

    def __post_init__(self) -> None:
        held = {index: self._weights(index, step) for index, step in enumerate(self.plan.steps)}
        object.__setattr__(self, "held", held)

    def values(self, images: NDArray[np.float32]) -> Iterator[Real]:
        """The numbers that each step's value stands for, of a batch `(N, C, H, W)`: maps
        `(N, H, W, C)` without halo.
        """
        found: list[Real] = []
        for index, step in enumerate(self.plan.steps):
            reads = (images if read == INPUT else found[read] for read in step.reads)
            inputs = [
                _in_shape(value, layout)
                for value, layout in zip(reads, step.workload.inputs, strict=True)
            ]
            value = _computed(step.workload, inputs, self.held[index])
            if index not in self.exact:
                value = _rounded(value, step.output, self._scale(index))
            found.append(value)
            yield value

    def outputs(self, images: NDArray[np.float32]) -> dict[str, Real]:
        """What each step gives, by its name; of one that is converted, both are the same."""
        names = (step.name for step in self.plan.steps)
        return dict(zip(names, self.values(images), strict=True))

    def _scale(self, index: int) -> float:
        """What a step of a value in uint8 stands for; 1 in other formats."""
        match self.plan.steps[index].output:
            case Map(format="uint8"):
                return float(self.weights[scale_name(self.plan, index)][0])
            case _:
                return 1.0

    def _weights(self, index: int, step: Step) -> tuple[Real, ...]:
        """What the weights of a step stand for."""
        match step.workload:
            case Conv(input=Map(format="uint8", zero=zero)):
                weight, rescale, bias = (self.weights[name] for name in step.weights[:3])
                whole = weight.astype(np.float32)
                scales = rescale / np.float32(self._scale(step.reads[0]))
                zero_sum = zero * whole.sum((1, 2, 3), np.float64) * rescale
                scaled = (whole * scales[:, None, None, None]).astype(np.float32)
                return scaled, (bias + zero_sum).astype(np.float32)
            case Conv(groups=1) as conv if index not in self.exact:
                weight, bias = (self.weights[name] for name in step.weights)
                form = conv.input.format
                return restored(form, stored(form, weight)), bias
            case _:
                return tuple(self.weights[name] for name in step.weights)


def _in_shape(value: NDArray[Any], layout: Layout) -> Real:
    """A value as a step reads it: a map of one pixel may be rows, and the reverse."""
    if not isinstance(layout, Map):
        return value.reshape(layout)
    return value.reshape(layout.batch, layout.height, layout.width, layout.channels)


def _computed(workload: Workload, inputs: Sequence[Real], weights: tuple[Real, ...]) -> Real:
    """What a workload gives: `reference`, with the products by PyTorch."""
    match workload:
        case Conv():
            return _convolved(workload, inputs[0], *weights)
        case Dense(source=source):
            conv = as_conv(workload)
            x = inputs[0] if source else inputs[0][:, None, None]
            weight, bias = weights
            return _convolved(conv, x, weight.reshape(conv.weight_shape), bias)[:, 0, 0]
        case _:
            return reference(workload, inputs, weights).astype(np.float32)


def _convolved(conv: Conv, x: Real, weight: Real, bias: Real) -> Real:
    top, left, bottom, right = conv.beyond
    planes = F.pad(torch.from_numpy(x.transpose(0, 3, 1, 2)), (left, right, top, bottom))
    kernels, offsets = torch.from_numpy(weight), torch.from_numpy(bias)
    y = F.conv2d(planes, kernels, offsets, conv.stride, dilation=conv.dilation, groups=conv.groups)
    y = y if conv.act is None else activated(conv.act, y)
    pooled = F.max_pool2d(y, 2) if conv.pool else y
    result: Real = pooled.permute(0, 2, 3, 1).numpy()
    return result


def _rounded(value: Real, layout: Layout, scale: float) -> Real:
    """A value as it lies in memory, as the numbers that it stands for there."""
    match layout:
        case Map(format="tf32"):
            return to_tf32(value)
        case Map(format="float16"):
            with np.errstate(over="ignore"):
                return value.astype(np.float16).astype(np.float32)
        case Map(format="bfloat16"):
            return from_bfloat16(to_bfloat16(value))
        case Map(format="uint8", zero=zero):
            step = np.float32(scale)
            numbers: Real = np.clip(np.rint(value / step), -zero, 255 - zero)
            return numbers * step
        case _:
            return value
