"""The activations: what each computes, and what is known of it, a row an activation.

Everything that passes, words of the language and other frameworks need to know of one stands
here; `vggc/kernels/activation.py` has the code of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Slope:
    """The number that an activation takes, and its value where none is given.

    `doc` says what it is for the activation's own word; `doc_of_act` for `act=`, where several may
    be meant.
    """

    doc: str
    doc_of_act: str
    default: float


@dataclass(frozen=True)
class ActivationFunction:
    """An activation, a function of each value by itself, and what is known of it.

    `meaning(x, slope)` is its value in float64. The facts hold whatever the slope: a function
    `rises` that never falls, so that the largest input gives the largest output; it is
    `homogeneous` where `f(c·x) = c·f(x)` for every positive `c`. `gradient_by_output` says that
    PyTorch's gradient follows from the output, which training then keeps in the place of the input.
    `torch` is its place in that package; `onnx` the operator of opset 17, if there is one, whose
    attribute `alpha` is the slope.
    """

    name: str
    doc: str
    meaning: Callable[[float, float], float]
    torch: str
    onnx: str | None = None
    slope: Slope | None = None
    rises: bool = False
    never_negative: bool = False
    homogeneous: bool = False
    gradient_by_output: bool = False
    aliases: tuple[str, ...] = ()
    example: str = ""


def _sigmoid(x: float) -> float:
    power = math.exp(-abs(x))
    return (power if x < 0 else 1) / (1 + power)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _hard_sigmoid(x: float) -> float:
    return min(max(x + 3, 0.0), 6.0) / 6


ACTIVATIONS: dict[str, ActivationFunction] = {
    row.name: row
    for row in (
        ActivationFunction(
            name="relu",
            doc="Rectifier, max(x, 0), where a layer's own activation is not enough.",
            meaning=lambda x, _: max(x, 0.0),
            torch="nn.functional.relu",
            onnx="Relu",
            rises=True,
            never_negative=True,
            homogeneous=True,
            gradient_by_output=True,
        ),
        ActivationFunction(
            name="relu6",
            doc="Rectifier that ends at 6.",
            meaning=lambda x, _: min(max(x, 0.0), 6.0),
            torch="nn.functional.relu6",
            rises=True,
            never_negative=True,
        ),
        ActivationFunction(
            name="leaky",
            aliases=("lrelu",),
            doc="Leaky rectifier: x or, below zero, slope·x.",
            example="leaky slope=0.1",
            slope=Slope("the slope below zero", "the slope of leaky below zero", 0.01),
            meaning=lambda x, slope: slope * x if x < 0 else x,
            torch="nn.functional.leaky_relu",
            onnx="LeakyRelu",
            homogeneous=True,
        ),
        ActivationFunction(
            name="elu",
            doc="Exponential linear unit: x or, below zero, slope·(eˣ - 1).",
            slope=Slope("the scale below zero", "the scale of elu", 1.0),
            meaning=lambda x, slope: slope * math.expm1(x) if x < 0 else x,
            torch="nn.functional.elu",
            onnx="Elu",
        ),
        ActivationFunction(
            # With erf, not its tanh approximation.
            name="gelu",
            doc="Gaussian error linear unit, x·Φ(x).",
            meaning=lambda x, _: x * math.erfc(-x / math.sqrt(2)) / 2,
            torch="nn.functional.gelu",
        ),
        ActivationFunction(
            name="silu",
            aliases=("swish",),
            doc="Sigmoid linear unit, x·sigmoid(x).",
            meaning=lambda x, _: x * _sigmoid(x),
            torch="nn.functional.silu",
        ),
        ActivationFunction(
            name="sigmoid",
            doc="1/(1 + e⁻ˣ).",
            meaning=lambda x, _: _sigmoid(x),
            torch="sigmoid",
            onnx="Sigmoid",
            rises=True,
            never_negative=True,
            gradient_by_output=True,
        ),
        ActivationFunction(
            name="tanh",
            doc="Hyperbolic tangent.",
            meaning=lambda x, _: math.tanh(x),
            torch="tanh",
            onnx="Tanh",
            rises=True,
            gradient_by_output=True,
        ),
        ActivationFunction(
            name="hardsigmoid",
            doc="A sigmoid of straight lines, x/6 + ½ within 0 and 1.",
            meaning=lambda x, _: _hard_sigmoid(x),
            torch="nn.functional.hardsigmoid",
            rises=True,
            never_negative=True,
        ),
        ActivationFunction(
            name="hardswish",
            doc="A SiLU of straight lines, x·hardsigmoid(x).",
            meaning=lambda x, _: x * _hard_sigmoid(x),
            torch="nn.functional.hardswish",
            onnx="HardSwish",
        ),
        ActivationFunction(
            name="softplus",
            doc="ln(1 + eˣ).",
            meaning=lambda x, _: _softplus(x),
            torch="nn.functional.softplus",
            onnx="Softplus",
            rises=True,
            never_negative=True,
        ),
        ActivationFunction(
            name="mish",
            doc="x·tanh(softplus(x)).",
            meaning=lambda x, _: x * math.tanh(_softplus(x)),
            torch="nn.functional.mish",
        ),
    )
}
"""Every activation by its name, in the order in which they are told."""
