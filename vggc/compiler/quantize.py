"""The weights of a float32 net as a plan in fewer bits takes them, not packed yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.compiler import diagnostics
from vggc.ir.weights import Weights
from vggc.kernels.workloads import LARGEST_FINITE, Conv, Convert, Format, Map
from vggc.plan.low_precision import ZERO, scale_name
from vggc.plan.plan import Plan, Step
from vggc.support.diagnostics import UserError

Tensors: TypeAlias = dict[str, NDArray[Any]]

LARGEST = 127
"""The largest int8 weight; -128 is not used, so that both signs are alike."""

AT_ONCE = 1 << 21
"""Weights that are rounded at once, in float64."""

LEAST_SCALE = 1e-30
"""The scale of what is always zero: any serves it, and the reciprocal of this one is finite."""


@dataclass(frozen=True)
class ValueRange:
    """What calibration found of a value: the size at which to cut it off, its channels' means."""

    limit: float
    means: NDArray[np.float64]


def levels(map_: Map) -> int:
    """The steps of scale from zero to the largest value that a uint8 map holds."""
    return LARGEST if map_.zero == ZERO else 255


def scaled(plan: Plan) -> dict[str, Map]:
    """The maps that a plan writes as uint8, by the name of their node."""
    return {
        step.name: step.output
        for step in plan.steps
        if isinstance(step.workload, Conv | Convert)
        and isinstance(step.output, Map)
        and step.output.format == "uint8"
    }


def averaged(plan: Plan) -> set[str]:
    """The names of the nodes whose values are multiplied by int8 weights, and whose means
    calibration finds.
    """
    return {
        plan.steps[step.reads[0]].name
        for step in plan.steps
        if isinstance(step.workload, Conv) and step.workload.input.format == "uint8"
    }


def require_finite_weights(plan: Plan, weights: Weights) -> None:
    """Refuses weights of the folded net that the plan's formats hold as infinity.

    Raises: UserError naming the first of them.
    """
    for step in plan.steps:
        for number, name in enumerate(each for each in step.weights if each in weights):
            # Products alone are of fewer bits: a bias, a slope or a scale is float32.
            form = _format_of_weight(step) if number == 0 else "float32"
            most, largest = LARGEST_FINITE[form], _largest(weights[name])
            if largest <= most:  # no NaN is
                continue
            raise UserError(
                diagnostics.WeightTooLarge(
                    name=name,
                    precision=form,
                    largest=f"{largest:,.7g}",
                    most=f"{most:,.7g}",
                    hint=_wider(form),
                )
            )


def _format_of_weight(step: Step) -> Format:
    """What a step's weight is held in, but for int8, whose scales take any weight."""
    match step.workload:
        case Conv(input=Map(format="tf32" | "bfloat16" | "float16" as form), groups=1):
            return form
        case _:
            return "float32"


def _largest(weight: NDArray[np.float32]) -> float:
    """The size of the largest element, NaN where there is one, found in little memory."""
    return float(max(-weight.min(initial=0), weight.max(initial=0)))


def _wider(form: Format) -> str:
    """What to do where a format holds no such weight."""
    if form == "float16":
        return "compile with `--precision bfloat16` or `--precision tf32`, which hold it"
    return "give the weights of a training that did not diverge"


def converted_weights(plan: Plan, weights: Weights, ranges: Mapping[str, ValueRange]) -> Tensors:
    """The weights that a plan takes, by name, from those of the folded net.

    `ranges` hold the range of each value that `scaled` or `averaged` names.
    """
    found: Tensors = {}
    for name, map_ in scaled(plan).items():
        scale = max(ranges[name].limit / levels(map_), LEAST_SCALE)
        found[f"{name}.scale"] = np.array([scale], np.float32)
    for step in plan.steps:
        match step.workload:
            case Conv(input=Map(format="uint8")):
                found |= _int8(plan, step, step.workload, weights, found, ranges)
            case Conv(input=Map(format="tf32" | "bfloat16" | "float16"), groups=1):
                # Packing rounds: what a kernel rounds may be transformed first.
                weight, bias = step.weights
                found[weight] = weights[weight].reshape(step.workload.weight_shape)
                found[bias] = weights[bias]
            case _:
                found |= {name: weights[name] for name in step.weights if name not in found}
    return found


def _int8(
    plan: Plan,
    step: Step,
    conv: Conv,
    weights: Weights,
    scales: Tensors,
    ranges: Mapping[str, ValueRange],
) -> Tensors:
    """Weight, scales of the sums and bias of a convolution in int8.

    Each output channel has a scale of its own. The bias takes back what the zero of the input
    adds to every sum, and what rounding the weights adds to the mean of the sums over the
    images of the calibration.
    Source: Nagel et al. 2021, "A White Paper on Neural Network Quantization", sections 2.2
    and 3.3.
    """
    weight_name, rescale_name, bias_name, *_ = step.weights
    (read,) = step.reads
    weight = weights[weight_name].reshape(conv.weight_shape)
    means = ranges[plan.steps[read].name].means
    whole = np.empty(conv.weight_shape, np.int8)
    weight_scale, sums, shift = (np.empty(len(weight)) for _ in range(3))
    count = max(1, AT_ONCE // max(1, weight[:1].size))
    for start in range(0, len(weight), count):
        rows = slice(start, start + count)
        exact = weight[rows].astype(np.float64)
        largest = np.abs(exact).max((1, 2, 3))
        weight_scale[rows] = np.where(largest > 0, largest / LARGEST, 1.0)
        scale = weight_scale[rows, None, None, None]
        numbers = np.rint(exact / scale)
        whole[rows], sums[rows] = numbers, numbers.sum((1, 2, 3))
        shift[rows] = (numbers * scale - exact).sum((2, 3)) @ means
    rescale = (float(scales[scale_name(plan, read)][0]) * weight_scale).astype(np.float32)
    zero_sum = conv.input.zero * sums * rescale
    return {
        weight_name: whole,
        rescale_name: rescale,
        bias_name: (weights[bias_name] - zero_sum - shift).astype(np.float32),
    }
