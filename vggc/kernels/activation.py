"""Activations as arithmetic, for CPUs and GPUs alike.

A call of the C library would be made lane by lane on a CPU, and CUDA's fast functions are
too coarse; sums, products and quotients are vector code everywhere. All functions are
within 4 units in the last place of the exact value, gelu within 10; values below 1e-30 may
become zero. A NaN stays one, except where it is clipped, as by relu: it becomes a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import isfinite

from tvm.ir import Expr
from tvm.tirx import Let, Var
from tvm.tirx.script import builder as T

from vggc.ir.ops import Activation, Clip

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
"""ln 2 in two parts; the first has few bits, so that its product with an exponent is exact."""
SHIFTER = 1.5 * 2**23
"""Added to a whole float below 2²² it leaves the whole number in the low bits."""
EXPONENT_BITS, EXPONENT_BIAS = 23, 127
LOWEST_POWER = -87.33654
"""The exponential of any smaller number is no normal float32."""
EXPM1 = (0.49999998, 0.16666544, 0.041667200, 0.0083665206, 0.0013882523)
"""Polynomial for (eʳ - 1 - r) / r², |r| <= ln 2 / 2, lowest power first; eʳ - 1 then errs by 1.3e-8
of itself.
"""
TWICE_ATANH = (2.0, 0.66666323, 0.40024596, 0.27965158, 0.28157780)
"""Polynomial for 2·atanh(s) / s in powers of s², |s| <= ⅓, lowest power first; it errs by 4e-9 of
itself.
"""
TAIL_END = 13.27
"""The argument at which the density of a standard normal is zero, as `_normal_tail` computes it."""
TAIL_ABOVE = (49.64957525, 43.25633664, 17.99848934, 3.96867583, 0.39894798)
TAIL_BELOW = (99.29915, 165.74196739, 118.58995144, 46.09906571, 9.94873059, 1.0)
"""Polynomials, lowest power first, whose quotient is Q(t)·exp(t²/2) for 0 <= t <= TAIL_END, where Q
is the tail of a standard normal; it errs by 2.6e-8 of itself.
"""


def is_long(act: Activation | None) -> bool:
    """Whether an activation takes so many instructions that they are not to be written out for each
    pixel.
    """
    match act:
        case None | Clip():
            return False
        case Activation():
            return EMITTERS[act.function].is_long


def activate(act: Activation | None, value: Expr) -> Expr:
    """The activation of `value`."""
    match act:
        case None:
            return value
        case Clip():
            return _clip(value, act)
        case Activation():
            return EMITTERS[act.function].emit(value, act.slope)


@dataclass(frozen=True)
class ActivationCode:
    """Writes the code of an activation: `emit(value, slope)` gives the expression of its result.

    It `is_long` where written out for each pixel it would take LLVM seconds a kernel.
    """

    emit: Callable[[Expr, float], Expr]
    is_long: bool = True


def _relu(value: Expr, _: float) -> Expr:
    return T.max(value, T.float32(0))


def _relu6(value: Expr, _: float) -> Expr:
    return T.min(T.max(value, T.float32(0)), T.float32(6))


def _clip(value: Expr, act: Clip) -> Expr:
    if isfinite(act.low):
        value = T.max(value, T.float32(act.low))
    return T.min(value, T.float32(act.high)) if isfinite(act.high) else value


def _hard_sigmoid(value: Expr) -> Expr:
    """`x/6 + ½` within 0 and 1, as `(x + 3)/6`, which cancels nothing near -3."""
    within = T.min(T.max(value + T.float32(3), T.float32(0)), T.float32(6))
    return within * T.float32(1 / 6)


def leaky(value: Expr, slope: Expr) -> Expr:
    """`x` or, below zero, `slope·x`, as an expression."""
    return _let(value, lambda x: T.Select(x < T.float32(0), slope * x, x))


def _elu(value: Expr, slope: float) -> Expr:
    below = T.float32(slope)
    return _let(value, lambda x: T.Select(x < T.float32(0), below * _expm1(_negative(x)), x))


EMITTERS: dict[str, ActivationCode] = {
    "relu": ActivationCode(_relu, is_long=False),
    "relu6": ActivationCode(_relu6, is_long=False),
    "leaky": ActivationCode(lambda value, slope: leaky(value, T.float32(slope)), is_long=False),
    "elu": ActivationCode(_elu),
    "gelu": ActivationCode(lambda value, _: _let(value, lambda x: x * _normal(x))),
    "silu": ActivationCode(lambda value, _: _let(value, lambda x: x * _sigmoid(x))),
    "sigmoid": ActivationCode(lambda value, _: _let(value, _sigmoid)),
    "tanh": ActivationCode(lambda value, _: _let(value, _tanh)),
    "hardsigmoid": ActivationCode(lambda value, _: _hard_sigmoid(value), is_long=False),
    "hardswish": ActivationCode(
        lambda value, _: _let(value, lambda x: x * _hard_sigmoid(x)), is_long=False
    ),
    "softplus": ActivationCode(lambda value, _: _let(value, _softplus)),
    "mish": ActivationCode(lambda value, _: _let(value, _mish)),
}
"""The code of each activation, by its name in `vggc/ir/activations.py`."""


def _let(value: Expr, use: Callable[[Expr], Expr]) -> Expr:
    """`use(value)`, with `value` computed once."""
    name = Var("value", "float32")
    return Let(name, value, use(name))


class _SharedValues:
    """Values that are computed once for an expression, in their order."""

    def __init__(self) -> None:
        self.values: list[tuple[Expr, Expr]] = []

    def __call__(self, value: Expr) -> Expr:
        """What stands for the value of a float32 in the expression."""
        name = Var("value", "float32")
        self.values.append((name, value))
        return name

    def within(self, result: Expr) -> Expr:
        """The expression, which knows the values."""
        return reduce(lambda inner, pair: Let(*pair, inner), reversed(self.values), result)


def _negative(x: Expr) -> Expr:
    """The smaller of `x` and zero; NaN where `x` is."""
    return T.Select(x > T.float32(0), T.float32(0), x)


def _magnitude(x: Expr) -> Expr:
    return T.Select(x < T.float32(0), -x, x)


def _sigmoid(x: Expr) -> Expr:
    one = T.float32(1)
    return _let(
        exponential(-_magnitude(x)),
        lambda power: T.Select(x < T.float32(0), power, one) / (one + power),
    )


def _tanh(x: Expr) -> Expr:
    return _let(
        _expm1(T.float32(-2) * _magnitude(x)),
        lambda power: T.Select(x < T.float32(0), power, -power) / (T.float32(2) + power),
    )


def _softplus(x: Expr) -> Expr:
    zero = T.float32(0)
    above = T.Select(x < zero, zero, x)
    return _let(exponential(-_magnitude(x)), lambda power: above + _log1p(power))


def _mish(x: Expr) -> Expr:
    """`x·tanh(ln(1 + eˣ))`, a quotient of sums of powers of eˣ or, above zero, of e⁻ˣ."""
    one, two = T.float32(1), T.float32(2)

    def quotient(power: Expr) -> Expr:
        below, above = power * (power + two), one + two * power
        numerator = T.Select(x < T.float32(0), below, above)
        rest = T.Select(x < T.float32(0), two, two * power * power)
        return _let(numerator, lambda upper: x * (upper / (upper + rest)))

    return _let(exponential(-_magnitude(x)), quotient)


def _log1p(y: Expr) -> Expr:
    """`ln(1 + y)` for `0 <= y <= 1`, without cancellation near zero: 2·atanh(y / (2 + y))."""
    return _let(
        y / (T.float32(2) + y), lambda s: s * _let(s * s, lambda t: _polynomial(TWICE_ATANH, t))
    )


def _normal(x: Expr) -> Expr:
    """The probability below `x` of a standard normal."""
    return _let(
        _normal_tail(_magnitude(x)),
        lambda tail: T.Select(x < T.float32(0), tail, T.float32(1) - tail),
    )


def _normal_tail(magnitude: Expr) -> Expr:
    """The probability above `magnitude >= 0` of a standard normal: `exp(-t²/2)` times a rational
    function of t.

    With t² as `h - 2n·ln 2` the exponential is 2ⁿ·exp(-h/2), and that a quotient of polynomials, so
    that one division does for all. Were t² rounded, a large t would have few correct digits left:
    the upper half of its bits has an exact square, and what the lower half adds is little.

    Source: the reduction of Cody & Waite 1980, chapter 6, and Padé's approximant of the exponential
    of degree [3/3]; the rational function is fitted to the relative error.
    """
    shared = _SharedValues()
    t = shared(T.min(magnitude, T.float32(TAIL_END)))
    upper_half = T.bitwise_and(T.reinterpret("int32", t), T.int32(~0xFFF))
    upper = shared(T.reinterpret("float32", upper_half))
    square = shared(upper * upper)

    shifter = T.float32(SHIFTER + EXPONENT_BIAS)
    shifted = shared(square * T.float32(-LOG2_E / 2) + shifter)
    exponent = T.shift_left(T.reinterpret("int32", shifted), T.int32(EXPONENT_BITS))
    scale = T.reinterpret("float32", exponent)
    n = shared(shifted - shifter)
    lower = (t - upper) * (t + upper)
    h = shared(square + n * T.float32(2 * LN2_HIGH) + n * T.float32(2 * LN2_LOW) + lower)

    h_square = shared(h * h)
    even = shared(T.float32(24) * h_square + T.float32(960))
    odd = shared(h * (h_square + T.float32(240)))
    above = (even - odd) * scale * _polynomial(TAIL_ABOVE, t)
    below = (even + odd) * _polynomial(TAIL_BELOW, t)
    return shared.within(above / below)


def exponential(x: Expr) -> Expr:
    """The exponential of `x <= 0`, zero where no normal float32 is near it."""
    low = T.float32(LOWEST_POWER)
    return _let(
        x,
        lambda x: T.Select(
            x < low, T.float32(0), _power(x, lambda scale, rest: scale * rest + scale)
        ),
    )


def _expm1(x: Expr) -> Expr:
    """The exponential of `x <= 0` less one, without cancellation near zero."""
    return _power(x, lambda scale, rest: scale * rest + (scale - T.float32(1)))


def _expm1_near_zero(r: Expr) -> Expr:
    """`eʳ - 1` for `|r| <= ln 2 / 2`."""
    return r + r * r * _polynomial(EXPM1, r)


def _power(x: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """`combine(2ⁿ, eʳ - 1)` where `x` is `n·ln 2 + r`, for `x <= 0`.

    Source: the reduction of Cody & Waite 1980, chapter 6.
    """
    low = T.float32(LOWEST_POWER)

    def reduced(x: Expr, n: Expr) -> Expr:
        exponent = T.shift_left(
            T.reinterpret("int32", n + T.float32(SHIFTER)), T.int32(EXPONENT_BITS)
        )
        scale = T.reinterpret("float32", exponent + T.int32(EXPONENT_BIAS << EXPONENT_BITS))
        rest = _let(
            x - n * T.float32(LN2_HIGH) - n * T.float32(LN2_LOW),
            _expm1_near_zero,
        )
        return _let(scale, lambda scale: _let(rest, lambda rest: combine(scale, rest)))

    return _let(
        _let(x, lambda x: T.Select(x < low, low, x)),
        lambda x: _let(T.nearbyint(x * T.float32(LOG2_E)), lambda n: reduced(x, n)),
    )


def _polynomial(coefficients: tuple[float, ...], x: Expr) -> Expr:
    first, *others = map(T.float32, reversed(coefficients))
    return reduce(lambda total, coefficient: total * x + coefficient, others, first)
