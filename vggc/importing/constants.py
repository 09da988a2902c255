"""What a foreign net computes of constants alone, such as the shapes that it reshapes to.

Small results are computed at once, those of the size of weights when somebody reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from vggc.importing.foreign import ForeignTensor
from vggc.importing.operators import Operator
from vggc.ir.ops import Shape

MOST_AT_ONCE = 1 << 16
"""Values of a tensor that is computed at once."""
MOST_FILLED = 1 << 28
"""Values of a tensor that are all one number."""
SLICED = ("starts", "ends", "axes", "steps")
"""What an operator of type Slice is told, in the order of its inputs."""
MOST_STEPS = 64
"""Tensors that are read and computed for one that is written."""

ConstantArrays: TypeAlias = list[NDArray[Any]]


class CannotFoldError(Exception):
    """Constants that nothing can be computed of, with the reason."""


def fold(node: Operator, reads: Sequence[ForeignTensor | None]) -> list[ForeignTensor] | None:
    """What an operator makes of constants; None where its arithmetic is not known.

    Raises: CannotFoldError where the constants do not fit the operator.
    """
    try:
        with np.errstate(all="ignore"):
            return _folded(node, [each for each in reads if each is not None])
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, ArithmeticError) as fault:
        reason = str(fault).splitlines() or [type(fault).__name__]
        raise CannotFoldError(reason[0][:100]) from None


def _folded(node: Operator, reads: list[ForeignTensor]) -> list[ForeignTensor] | None:
    if node.kind == "Constant":
        return [ForeignTensor.of(_constant(node))]
    if node.kind == "Shape":
        return [ForeignTensor.of(shape_of(node, reads[0].shape))]
    if node.kind == "ConstantOfShape":
        return [_filled(node, reads[0])]
    if any(each.size > MOST_AT_ONCE for each in reads):
        rule = LATER.get(node.kind)
        return None if rule is None else [_later(rule(node, reads), reads)]
    compute = AT_ONCE.get(node.kind)
    if compute is None:
        return None
    return [ForeignTensor.of(np.asarray(each)) for each in compute(node, [t.read() for t in reads])]


def _later(result: ForeignTensor, reads: list[ForeignTensor]) -> ForeignTensor:
    """What is computed when somebody reads it, unless that would take too long."""
    steps = 1 + sum(each.steps for each in reads)
    if steps > MOST_STEPS:
        raise ValueError("its weights are computed in too many steps")
    return replace(result, steps=steps)


def _constant(node: Operator) -> NDArray[Any]:
    for key in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if key in node.attributes:
            value = node.attributes[key]
            if isinstance(value, np.ndarray):
                return value
            return np.asarray(value, np.float32 if "float" in key else np.int64)
    raise ValueError("it is of no number")


def shape_of(node: Operator, shape: Shape) -> NDArray[np.int64]:
    """What an operator of type Shape gives for a tensor."""
    start, end = node.attribute("start", 0), node.attribute("end", len(shape))
    return np.asarray(shape[start:end], np.int64)


def target_shape(node: Operator, shape: Shape, wanted: Sequence[int]) -> Shape:
    """The shape that an operator of type Reshape makes of another, -1 being what is left and 0 what
    there is.

    Raises: ValueError where there is none.
    """
    keep = not node.attribute("allowzero", 0)
    sizes = [shape[i] if size == 0 and keep else size for i, size in enumerate(wanted)]
    if sizes.count(-1) == 1:
        rest = prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = prod(shape) // rest if rest else 0
    if prod(sizes) != prod(shape) or any(size < 0 for size in sizes):
        raise ValueError(f"{list(shape)} cannot be reshaped to {list(wanted)}")
    return tuple(sizes)


def flat_shape(node: Operator, shape: Shape) -> Shape:
    """The shape that an operator of type Flatten makes of another."""
    axis = node.attribute("axis", 1)
    axis += len(shape) if axis < 0 else 0
    return (prod(shape[:axis]), prod(shape[axis:]))


def axes_of(node: Operator, given: NDArray[Any] | None, rank: int) -> list[int] | None:
    """The axes that an operator names, as an input or an attribute, from the front."""
    named = node.attributes.get("axes") if given is None else given.reshape(-1).tolist()
    return None if named is None else [int(axis) + (rank if axis < 0 else 0) for axis in named]


def slices_of(node: Operator, given: Sequence[NDArray[Any] | None]) -> Iterator[tuple[int, slice]]:
    """What an operator of type Slice takes of each axis that it names, as inputs or attributes."""
    told: dict[str, list[int]] = {
        key: node.attributes[key] for key in SLICED if key in node.attributes
    }
    for key, numbers in zip(SLICED, given, strict=False):
        if numbers is not None:
            told[key] = numbers.tolist()
    starts, ends = told["starts"], told["ends"]
    axes = told.get("axes", [*range(len(starts))])
    steps = told.get("steps", [1] * len(starts))
    for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
        yield axis, slice(*bounds)


def squeezed(shape: Shape, axes: list[int] | None) -> Shape:
    """A shape without these axes of size 1, or without all of them."""
    gone = [i for i, size in enumerate(shape) if size == 1] if axes is None else axes
    if any(shape[axis] != 1 for axis in gone):
        raise ValueError(f"{list(shape)} has no axis of size 1 at each of {gone}")
    return tuple(size for i, size in enumerate(shape) if i not in gone)


def unsqueezed(shape: Shape, axes: list[int]) -> Shape:
    """A shape with axes of size 1 at these places of the new one."""
    sizes = [*shape]
    for axis in sorted(axes):
        sizes.insert(axis, 1)
    return tuple(sizes)


# ---------------------------------------------------------------- at once


def _bounded(size: int) -> int:
    if not 0 <= size <= MOST_AT_ONCE:
        raise ValueError(f"{size:,} values are too many")
    return size


def _spread(node: Operator, x: ConstantArrays) -> ConstantArrays:
    shape = np.broadcast_shapes(x[0].shape, tuple(x[1].tolist()))
    _bounded(prod(shape))
    return [np.broadcast_to(x[0], shape)]


def _filled(node: Operator, sizes: ForeignTensor) -> ForeignTensor:
    """One number in a shape; it takes no memory before somebody changes it."""
    shape = tuple(map(int, sizes.read().reshape(-1)))
    if not 0 <= prod(shape) <= MOST_FILLED or min(shape, default=0) < 0:
        raise ValueError(f"{prod(shape):,} values are too many")
    value = node.attributes.get("value", np.zeros(1, np.float32)).reshape(-1)[0]
    return ForeignTensor(shape, value.dtype, lambda: np.broadcast_to(value, shape), steps=2)


def _counted(node: Operator, x: ConstantArrays) -> ConstantArrays:
    start, end, step = (float(each.reshape(-1)[0]) for each in x)
    _bounded(int(max(0, (end - start) / step)) + 1)
    return [np.arange(start, end, step).astype(x[0].dtype)]


def _tiled(node: Operator, x: ConstantArrays) -> ConstantArrays:
    _bounded(x[0].size * prod(x[1].tolist()))
    return [np.tile(x[0], x[1].tolist())]


def _cut(node: Operator, x: ConstantArrays) -> ConstantArrays:
    where = [slice(None)] * x[0].ndim
    for axis, part in slices_of(node, [each.reshape(-1) for each in x[1:]]):
        where[axis] = part
    return [x[0][tuple(where)]]


def _divided(node: Operator, x: ConstantArrays) -> ConstantArrays:
    if np.issubdtype(x[0].dtype, np.integer):
        return [np.trunc(np.divide(x[0], x[1])).astype(x[0].dtype)]
    return [x[0] / x[1]]


def _reduced(function: Callable[..., Any]) -> Callable[[Operator, ConstantArrays], ConstantArrays]:
    def compute(node: Operator, x: ConstantArrays) -> ConstantArrays:
        axes = axes_of(node, x[1] if len(x) > 1 else None, x[0].ndim)
        keep = bool(node.attribute("keepdims", 1))
        over = None if axes is None else tuple(axes)
        return [function(x[0], axis=over, keepdims=keep).astype(x[0].dtype)]

    return compute


def _each(function: Callable[..., Any]) -> Callable[[Operator, ConstantArrays], ConstantArrays]:
    def compute(node: Operator, x: ConstantArrays) -> ConstantArrays:
        _bounded(prod(np.broadcast_shapes(*(each.shape for each in x))))
        return [function(*x)]

    return compute


def _picked(node: Operator, x: ConstantArrays) -> ConstantArrays:
    axis = node.attribute("axis", 0)
    _bounded(x[1].size * x[0].size // max(1, x[0].shape[axis]))
    return [np.take(x[0], x[1], axis)]


def _behind_another(node: Operator, x: ConstantArrays) -> ConstantArrays:
    _bounded(sum(each.size for each in x))
    return [np.concatenate(x, node.attribute("axis", 0))]


def _parts(node: Operator, x: ConstantArrays) -> ConstantArrays:
    axis = node.attribute("axis", 0)
    sizes = x[1].tolist() if len(x) > 1 else node.attributes.get("split")
    if sizes is None:
        return list(np.array_split(x[0], _bounded(len(node.gives)), axis))
    return list(np.split(x[0], np.cumsum(sizes)[:-1], axis))


AT_ONCE: Mapping[str, Callable[[Operator, ConstantArrays], ConstantArrays]] = {
    "Add": _each(np.add),
    "Sub": _each(np.subtract),
    "Mul": _each(np.multiply),
    "Div": _divided,
    "Mod": _each(np.mod),
    "Pow": _each(np.power),
    "Max": _each(lambda *x: reduce(np.maximum, x)),
    "Min": _each(lambda *x: reduce(np.minimum, x)),
    "Equal": _each(np.equal),
    "Less": _each(np.less),
    "Greater": _each(np.greater),
    "And": _each(np.logical_and),
    "Or": _each(np.logical_or),
    "Not": _each(np.logical_not),
    "Where": _each(np.where),
    "Neg": _each(np.negative),
    "Abs": _each(np.abs),
    "Sqrt": _each(np.sqrt),
    "Exp": _each(np.exp),
    "Log": _each(np.log),
    "Floor": _each(np.floor),
    "Ceil": _each(np.ceil),
    "Reciprocal": _each(np.reciprocal),
    "Identity": lambda _, x: x,
    "Cast": lambda node, x: [x[0].astype(_cast(node))],
    "Size": lambda _, x: [np.asarray(x[0].size, np.int64)],
    "Gather": _picked,
    "Unsqueeze": lambda node, x: [x[0].reshape(unsqueezed(x[0].shape, _new_axes(node, x)))],
    "Squeeze": lambda node, x: [
        x[0].reshape(squeezed(x[0].shape, axes_of(node, x[1] if x[1:] else None, x[0].ndim)))
    ],
    "Concat": _behind_another,
    "Slice": _cut,
    "Split": _parts,
    "Reshape": lambda node, x: [x[0].reshape(target_shape(node, x[0].shape, x[1].tolist()))],
    "Transpose": lambda node, x: [x[0].transpose(node.attributes.get("perm"))],
    "Flatten": lambda node, x: [x[0].reshape(flat_shape(node, x[0].shape))],
    "Expand": _spread,
    "Tile": _tiled,
    "Range": _counted,
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceMean": _reduced(np.mean),
    "ReduceL2": _reduced(lambda v, **over: np.sqrt(np.sum(v * v, **over))),
    "DequantizeLinear": lambda node, x: [_dequantised(node, *x)],
}
"""The operators that small constants go through."""


def _new_axes(node: Operator, x: ConstantArrays) -> list[int]:
    given = x[1].reshape(-1) if len(x) > 1 else np.asarray(node.attributes["axes"])
    rank = x[0].ndim + len(given)
    return [int(axis) + (rank if axis < 0 else 0) for axis in given]


def _cast(node: Operator) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(node.attribute("to", 1)))


def _dequantised(
    node: Operator, x: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None = None
) -> NDArray[Any]:
    shape = [1] * x.ndim
    if scale.size > 1 and scale.size != x.shape[node.attribute("axis", 1)]:
        raise ValueError("its scales are not one for each place of its axis")
    if scale.size > 1:
        shape[node.attribute("axis", 1)] = scale.size
    shift = 0 if zero is None else zero.astype(np.int32).reshape(-1)
    whole = x.astype(np.int32) - np.asarray(shift).reshape(shape if np.size(shift) > 1 else -1)
    factors = scale.reshape(shape if scale.size > 1 else [1] * x.ndim)
    return np.asarray(whole.astype(scale.dtype) * factors)


# ---------------------------------------------------------------- later


def _cast_later(node: Operator, x: list[ForeignTensor]) -> ForeignTensor:
    dtype, source = _cast(node), x[0]
    return ForeignTensor(source.shape, dtype, lambda: source.read().astype(dtype))


def _turned_later(node: Operator, x: list[ForeignTensor]) -> ForeignTensor:
    order = node.attributes.get("perm") or [*range(len(x[0].shape))][::-1]
    if sorted(order) != [*range(len(x[0].shape))]:
        raise ValueError(f"{order} is no order of its axes")
    return x[0].changed(tuple(x[0].shape[i] for i in order), lambda v: v.transpose(order))


def _reshaped_later(
    find: Callable[[Operator, Shape, list[ForeignTensor]], Shape],
) -> Callable[[Operator, list[ForeignTensor]], ForeignTensor]:
    def rule(node: Operator, x: list[ForeignTensor]) -> ForeignTensor:
        if any(each.size > MOST_AT_ONCE for each in x[1:]):
            raise ValueError("its shape is no list of sizes")
        shape = find(node, x[0].shape, x)
        if prod(shape) != x[0].size:
            raise ValueError("its shape does not fit")
        return x[0].changed(shape, lambda v: v.reshape(shape))

    return rule


def _each_later(
    function: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]],
) -> Callable[[Operator, list[ForeignTensor]], ForeignTensor]:
    def rule(node: Operator, x: list[ForeignTensor]) -> ForeignTensor:
        left, right = x
        shape = np.broadcast_shapes(left.shape, right.shape)
        if prod(shape) > max(left.size, right.size):
            raise ValueError("the result would be larger than what it is made of")
        return ForeignTensor(shape, left.dtype, lambda: function(left.read(), right.read()))

    return rule


def _dequantised_later(node: Operator, x: list[ForeignTensor]) -> ForeignTensor:
    def read() -> NDArray[Any]:
        return _dequantised(node, *(each.read() for each in x))

    return ForeignTensor(x[0].shape, x[1].dtype, read)


def _axes_read(node: Operator, x: list[ForeignTensor], rank: int) -> list[int] | None:
    return axes_of(node, x[1].read() if len(x) > 1 else None, rank)


LATER: Mapping[str, Callable[[Operator, list[ForeignTensor]], ForeignTensor]] = {
    "Identity": lambda _, x: x[0],
    "Cast": _cast_later,
    "Transpose": _turned_later,
    "Reshape": _reshaped_later(
        lambda node, shape, x: target_shape(node, shape, x[1].read().reshape(-1).tolist())
    ),
    "Flatten": _reshaped_later(lambda node, shape, _: flat_shape(node, shape)),
    "Squeeze": _reshaped_later(
        lambda node, shape, x: squeezed(shape, _axes_read(node, x, len(shape)))
    ),
    "Unsqueeze": _reshaped_later(
        lambda node, shape, x: unsqueezed(
            shape, _axes_read(node, x, len(shape) + _count_new(node, x)) or []
        )
    ),
    "Add": _each_later(np.add),
    "Sub": _each_later(np.subtract),
    "Mul": _each_later(np.multiply),
    "Div": _each_later(np.divide),
    "DequantizeLinear": _dequantised_later,
}
"""The operators that tensors of the size of weights go through."""


def _count_new(node: Operator, x: list[ForeignTensor]) -> int:
    return x[1].size if len(x) > 1 else len(node.attributes.get("axes", ()))
