"""What belongs together: items of a foreign net put together to the layers that people write.

A pass goes through the items in order and makes new ones; what nothing reads any more is left out
at the end. Tensors are changed when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.importing.foreign import ForeignTensor
from vggc.importing.items import EITHER, TRAINED, ForeignItem, ForeignItems
from vggc.ir.activations import ACTIVATIONS

NORMS = {"batchnorm": "batch", "groupnorm": "group", "layernorm": "layer"}
"""The words for normalisations, and what `norm=` calls them."""
NEVER_NEGATIVE = ("relu", "relu6", "sigmoid", "softmax", "softmax2d", "hardsigmoid", "softplus")
MAX_DENSE = 512
"""Paths of the longest join that is looked for in others."""
CLOSE = 1e-5
"""How far a number may be from the one that a pattern has, relatively."""


def fused(net: ForeignItems) -> ForeignItems:
    """The net with what belongs together in one item each."""
    for step in PASSES:
        net = _Pass(net, step).run()
    return _rounded(_nested(net))


PassStep: TypeAlias = "Callable[[_Pass, ForeignItem], int | ForeignItem | None]"


@dataclass
class _Pass:
    """A way through the items: `step` says of each what takes its place: a new item, one of those
    already made, by its index, or None for the item as it is.
    """

    net: ForeignItems
    step: PassStep
    items: list[ForeignItem] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """The new item for each old one."""
    counts: list[int] = field(default_factory=list)
    """How often each new item is read, as far as that is known."""

    def run(self) -> ForeignItems:
        """The net that the pass makes."""
        readers = self.net.readers()
        for item, count in zip(self.net.items, readers, strict=True):
            item = _reading(item, self.places)
            found = self.step(self, item)
            if isinstance(found, int):
                self.places.append(found)
                self.counts[found] = max(0, self.counts[found] - 1) + count
            else:
                self.places.append(len(self.items))
                self.items.append(found or item)
                self.counts.append(count)
        outputs = tuple(replace(o, item=self.places[o.item]) for o in self.net.outputs)
        return _living(replace(self.net, items=tuple(self.items), outputs=outputs))

    def alone(self, index: int) -> bool:
        """Whether an item is read once."""
        return self.counts[index] == 1

    def add(self, item: ForeignItem) -> int:
        """Adds a further item that is read once."""
        self.items.append(item)
        self.counts.append(1)
        return len(self.items) - 1


def _living(net: ForeignItems) -> ForeignItems:
    """The net without items that nothing needs."""
    needed = {0, *(output.item for output in net.outputs)}
    for index in range(len(net.items) - 1, -1, -1):
        if index in needed:
            needed.update(net.items[index].reads)
    if len(needed) == len(net.items):
        return net
    kept = [index for index in range(len(net.items)) if index in needed]
    new = {index: place for place, index in enumerate(kept)}
    items = tuple(_reading(net.items[index], new) for index in kept)
    outputs = tuple(replace(output, item=new[output.item]) for output in net.outputs)
    return replace(net, items=items, outputs=outputs)


def _reading(item: ForeignItem, places: Sequence[int] | Mapping[int, int]) -> ForeignItem:
    """An item with what it reads by its new places; itself where these are the old ones."""
    reads = tuple([places[read] for read in item.reads])
    return item if reads == item.reads else replace(item, reads=reads)


# ---------------------------------------------------------------- numbers


def _scalar(item: ForeignItem, role: str, default: float) -> float | None:
    """The number that an affine item has for a role; None where it has several."""
    tensor = item.tensors.get(role)
    if tensor is None:
        return default
    return float(tensor.read().reshape(-1)[0]) if tensor.size == 1 else None


def _line(work: _Pass, index: int) -> tuple[int, float, float]:
    """An item as `a·x + b` of another, with one number each: x, a and b; itself where it is nothing
    such.
    """
    item = work.items[index]
    if item.word != "affine":
        return index, 1.0, 0.0
    factor, shift = _scalar(item, "weight", 1.0), _scalar(item, "bias", 0.0)
    if factor is None or shift is None:
        return index, 1.0, 0.0
    return item.reads[0], factor, shift


def _near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= CLOSE * abs(wanted)


def _combined(
    left: ForeignTensor,
    right: ForeignTensor,
    function: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]],
) -> ForeignTensor:
    """What a function makes of two tensors of which one has one number, or as many as the other."""
    shape = max(left.shape, right.shape, key=lambda shape: (len(shape), shape))
    return ForeignTensor(
        shape,
        left.dtype,
        lambda: np.asarray(function(left.read(), right.read())),
        left.steps + right.steps,
    )


def _after(
    tensors: Mapping[str, ForeignTensor], more: Mapping[str, ForeignTensor]
) -> dict[str, ForeignTensor]:
    """Weight and bias of one affine item behind another."""
    found = dict(tensors)
    if weight := more.get("weight"):
        for role in ("weight", "bias"):
            if role in found:
                found[role] = _combined(found[role], weight, np.multiply)
        found.setdefault("weight", weight)
    if bias := more.get("bias"):
        before = found.get("bias")
        found["bias"] = bias if before is None else _combined(before, bias, np.add)
    return found


# ---------------------------------------------------------------- order of channels


def _orders(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """Another order of channels, as of pictures in BGR, goes behind what is done to each channel
    by itself, and into the weight of the convolution that reads it.
    """
    if not item.reads or work.items[item.reads[0]].word != "reorder":
        return None
    order = work.items[item.reads[0]]
    places = np.argsort(order.tensors["order"].read())
    if item.word == "conv" and item.options["groups"] == 1:
        weight = item.tensors["weight"]
        turned = weight.changed(weight.shape, lambda v: v[:, places])
        return replace(item, reads=order.reads, tensors={**item.tensors, "weight": turned})
    if item.word not in ("affine", "batchnorm", "pad"):
        return None
    tensors = {
        role: tensor if tensor.size == 1 else tensor.changed(tensor.shape, lambda v: v[places])
        for role, tensor in item.tensors.items()
    }
    before = work.add(replace(item, reads=order.reads, tensors=tensors))
    return replace(order, reads=(before,), shape=item.shape)


# ---------------------------------------------------------------- arithmetic


def _lines(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """`a·x + b` behind another is one; with 1 and 0 it is nothing."""
    if item.word != "affine":
        return None
    before = item.reads[0]
    first = work.items[before]
    if first.word == "affine" and work.alone(before) and not _is_layer_scale(work, first, item):
        item = replace(item, reads=first.reads, tensors=_after(first.tensors, item.tensors))
        before = item.reads[0]
    factor, shift = _scalar(item, "weight", 1.0), _scalar(item, "bias", 0.0)
    if factor is not None and shift == 0 and abs(factor - 1) <= 1e-6:
        return before
    return item


def _is_layer_scale(work: _Pass, bias: ForeignItem, factor: ForeignItem) -> bool:
    """Whether a factor for each channel, a layer by itself, stands behind a layer's bias."""
    if work.items[bias.reads[0]].word not in TRAINED:
        return False
    is_vector = all(tensor.size > 1 for each in (bias, factor) for tensor in each.tensors.values())
    return [*bias.tensors] == ["bias"] and [*factor.tensors] == ["weight"] and is_vector


def _products(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """Activations that are products of a value with a function of it."""
    if item.word != "mul" or item.reads[0] == item.reads[1]:
        return None
    for value, gate in (item.reads, item.reads[::-1]):
        for outer in dict.fromkeys([(value, 1.0, 0.0), _line(work, value)]):
            found = _gated(work, item, outer, gate) if work.alone(gate) else None
            if found is not None:
                return found
    return None


def _gated(
    work: _Pass, item: ForeignItem, outer: tuple[int, float, float], gate: int
) -> ForeignItem | None:
    """The activation that the product of a line of x with a function of x is, if it is one."""
    (x, factor, offset), (core, scale, shift) = outer, _line(work, gate)
    function = work.items[core]
    if offset != 0 or not function.reads:
        return None
    read = function.reads[0]
    under = _line(work, read)
    word, whole = "", 1.0
    match function.word:
        case "erf" if under[0] == x and under[2] == 0:
            if _near(under[1], sqrt(0.5)) and _near(scale, shift):
                word, whole = "gelu", 2 * factor * scale
        case "sigmoid" if shift == 0 and read == x:
            word, whole = "silu", factor * scale
        case "hardsigmoid" if shift == 0 and read == x:
            word, whole = "hardswish", factor * scale
        case "relu6" if shift == 0 and under == (x, 1.0, 3.0):
            word, whole = "hardswish", 6 * factor * scale
        case "tanh" if shift == 0 and work.items[read].word == "softplus":
            if work.items[read].reads[0] == x:
                word, whole = "mish", factor * scale
        case _:
            pass
    if not word:
        return None
    found = replace(item, word=word, reads=(x,))
    if _near(whole, 1.0):
        return found
    weight = ForeignTensor.of(np.asarray(whole, np.float32))
    return replace(item, word="affine", reads=(work.add(found),), tensors={"weight": weight})


def _gates(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """The hard sigmoid, which is written as a clipped line, or a line of relu6."""
    if item.word == "clip" and item.options == {"min": 0.0, "max": 1.0}:
        under = _line(work, item.reads[0])
        if _near(under[1], 1 / 6) and under[2] == 0.5:
            return replace(item, word="hardsigmoid", reads=(under[0],), options={})
    if item.word == "affine" and item.tensors.keys() == {"weight"}:
        clipped = work.items[item.reads[0]]
        factor = _scalar(item, "weight", 1.0)
        if clipped.word == "relu6" and factor is not None and _near(factor, 1 / 6):
            under = _line(work, clipped.reads[0])
            if under[1:] == (1.0, 3.0):
                return replace(item, word="hardsigmoid", reads=(under[0],), tensors={})
    return None


def _layernorms(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """A normalisation over channels that is written out: what a value differs from its mean by,
    divided by the root of the mean of the squares of that.
    """
    if item.word != "div":
        return None
    centred, root = (work.items[read] for read in item.reads)
    if centred.word != "sub" or root.word != "sqrt":
        return None
    x, mean = centred.reads
    variance = _line(work, root.reads[0])
    if variance[1] != 1 or work.items[mean].word != "mean":
        return None
    squares = work.items[variance[0]]
    if squares.word != "mean" or work.items[mean].reads != (x,):
        return None
    squared = work.items[squares.reads[0]]
    of_itself = squared.word == "mul" and squared.reads == (item.reads[0],) * 2
    if not of_itself and not (squared.word == "square" and squared.reads == (item.reads[0],)):
        return None
    width = item.shape[0]
    tensors = {
        "weight": ForeignTensor.of(np.ones(width, np.float32)),
        "bias": ForeignTensor.of(np.zeros(width, np.float32)),
    }
    eps = float(str(np.float32(variance[2])))
    return replace(item, word="layernorm", reads=(x,), options={"eps": eps}, tensors=tensors)


def _stochastic_pools(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """A mean of windows weighted by their own values, as vggc exports it: the mean of the squares
    of what is above zero, divided by its mean or, where that is zero, by next to nothing.
    """
    if item.word != "div":
        return None
    weighted, divisor = (work.items[read] for read in item.reads)
    least = divisor.options.get("min")
    if (
        divisor.word != "clip"
        or divisor.options.keys() != {"min"}
        or not _is_next_to_nothing(least)
    ):
        return None
    means = work.items[divisor.reads[0]]
    if not weighted.word == means.word == "avgpool":
        return None
    if (weighted.size, weighted.options) != (means.size, means.options):
        return None
    squares, values = work.items[weighted.reads[0]], work.items[means.reads[0]]
    if squares.word != "mul" or squares.reads != means.reads * 2 or values.word != "relu":
        return None
    options = {key: value for key, value in means.options.items() if key != "border"}
    word = "stochasticpool"
    return replace(item, word=word, reads=values.reads, size=means.size, options=options)


def _is_next_to_nothing(number: object) -> bool:
    return isinstance(number, float) and 0 < number < 1e-30


# ---------------------------------------------------------------- layers


def _lines_into_layers(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """`a·x + b` into the layer or normalisation whose output x is."""
    if item.word != "affine" or not work.alone(item.reads[0]):
        return None
    index = item.reads[0]
    before = work.items[index]
    width = before.shape[0]
    spread = {role: _spread(tensor, width) for role, tensor in item.tensors.items()}
    if before.word in NORMS:
        work.items[index] = replace(before, tensors={**before.tensors, **_of_norm(before, spread)})
        return index
    if before.word not in TRAINED or not _is_bare(before) or "bias" not in spread:
        return None
    tensors = dict(before.tensors)
    if weight := spread.get("weight"):
        tensors["weight"] = _scaled(before, tensors["weight"], weight)
        if "bias" in tensors:
            tensors["bias"] = _combined(tensors["bias"], weight, np.multiply)
    bias = spread["bias"]
    tensors["bias"] = _combined(tensors["bias"], bias, np.add) if "bias" in tensors else bias
    options = {**before.options, "bias": True}
    work.items[index] = replace(before, tensors=tensors, options=options)
    return index


def _is_bare(layer: ForeignItem) -> bool:
    """Whether nothing follows yet on what a layer computes."""
    return layer.options["act"] == "none" and layer.options["norm"] == "none"


def _of_norm(norm: ForeignItem, spread: Mapping[str, ForeignTensor]) -> dict[str, ForeignTensor]:
    both = {role: norm.tensors[role] for role in ("weight", "bias")}
    return _after(both, spread)


def _spread(tensor: ForeignTensor, width: int) -> ForeignTensor:
    if tensor.shape == (width,):
        return tensor
    return tensor.changed((width,), lambda v: np.broadcast_to(v.reshape(-1), (width,)))


def _scaled(layer: ForeignItem, weight: ForeignTensor, factors: ForeignTensor) -> ForeignTensor:
    """A layer's weight with the rows of each output multiplied."""

    def read() -> NDArray[Any]:
        values, rows = weight.read(), factors.read()
        if layer.word != "deconv":
            return np.asarray(values * rows.reshape(-1, *[1] * (values.ndim - 1)))
        groups = layer.options["groups"]
        assert isinstance(groups, int)
        parts = values.reshape(groups, values.shape[0] // groups, *values.shape[1:])
        scaled = parts * rows.reshape(groups, 1, -1, 1, 1)
        return np.asarray(scaled.reshape(values.shape))

    return ForeignTensor(weight.shape, weight.dtype, read, weight.steps + factors.steps)


def _pads(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """Rows above and below and columns left and right, one behind the other, at once."""
    first = work.items[item.reads[0]] if item.reads else item
    if item.word != "pad" or first.word != "pad" or not work.alone(item.reads[0]):
        return None
    sides, before = item.options["padding"], first.options["padding"]
    assert isinstance(sides, tuple)
    assert isinstance(before, tuple)
    rows, columns = ({bool(each[i] or each[i + 2]) for each in (sides, before)} for i in (0, 1))
    if first.options["border"] != item.options["border"] or len(rows) + len(columns) < 4:
        return None
    both = tuple(a + b for a, b in zip(sides, before, strict=True))
    return replace(item, reads=first.reads, options={**item.options, "padding": both})


def _pads_into_windows(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """Padding by itself into the convolution or pool that reads it."""
    if item.word not in ("conv", "avgpool", "pool"):
        return None
    pad = work.items[item.reads[0]]
    if pad.word != "pad" or not work.alone(item.reads[0]):
        return None
    sides, own = pad.options["padding"], item.options["padding"]
    assert isinstance(sides, tuple)
    assert isinstance(own, tuple)
    border = pad.options["border"]
    options = dict(item.options)
    if item.word == "conv":
        if border != "zeros" and any(own):
            return None
        if border != "zeros":
            options["border"] = border
    elif border != "zeros" or any(own) or options["round"] == "up":
        return None
    elif item.word == "avgpool":
        options["border"] = "zeros"
    elif work.items[pad.reads[0]].word not in NEVER_NEGATIVE and not _rectified(work, pad):
        return None
    options["padding"] = tuple(a + b for a, b in zip(own, sides, strict=True))
    if "round" in options:
        options["round"] = "down"
    return replace(item, reads=pad.reads, options=options)


def _rectified(work: _Pass, pad: ForeignItem) -> bool:
    """Whether what is padded is never below zero, so that zeros beside it change no maximum."""
    before = work.items[pad.reads[0]]
    return before.word in ("pool", "dropout") and all(
        work.items[read].word in NEVER_NEGATIVE for read in before.reads
    )


def _norms_into_layers(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """A normalisation into the layer before it."""
    if item.word not in NORMS or not work.alone(item.reads[0]):
        return None
    index = item.reads[0]
    before = work.items[index]
    if before.word not in TRAINED or not _is_bare(before) or item.options.get("groups", 32) != 32:
        return None
    tensors = {f"norm.{role}": tensor for role, tensor in item.tensors.items()}
    options = {**before.options, "norm": NORMS[item.word], "eps": item.options["eps"]}
    work.items[index] = replace(before, tensors={**before.tensors, **tensors}, options=options)
    return index


def _acts_into_layers(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """An activation into the layer before it."""
    is_act = item.word in ACTIVATIONS or item.word == "prelu"
    if not is_act or not work.alone(item.reads[0]):
        return None
    index = item.reads[0]
    before = work.items[index]
    if before.word not in TRAINED or before.options["act"] != "none":
        return None
    tensors = {f"prelu.{role}": tensor for role, tensor in item.tensors.items()}
    options = {**before.options, "act": item.word, **item.options}
    work.items[index] = replace(before, tensors={**before.tensors, **tensors}, options=options)
    return index


def _scales(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """What is left of `a·x + b` is the word `scale`, with numbers for each channel."""
    if item.word != "affine":
        return None
    width = item.shape[0]
    tensors = {role: _spread(tensor, width) for role, tensor in item.tensors.items()}
    tensors.setdefault("weight", ForeignTensor.of(np.ones(width, np.float32)))
    return replace(item, word="scale", tensors=tensors, options={"bias": "bias" in tensors})


def _flattened(work: _Pass, item: ForeignItem) -> int | ForeignItem | None:
    """A fully-connected layer flattens maps by itself."""
    if item.word != "fc" or work.items[item.reads[0]].word != "flatten":
        return None
    return replace(item, reads=work.items[item.reads[0]].reads)


def _nested(net: ForeignItems) -> ForeignItems:
    """The net with channels put behind those that were put together before, as in dense blocks,
    where each layer reads all before it.
    """
    made: dict[tuple[int, ...], int] = {}
    items = [*net.items]
    for index, item in enumerate(items):
        if item.word != "concat" or len(item.reads) > MAX_DENSE:
            continue
        for length in range(len(item.reads) - 1, 1, -1):
            if (before := made.get(item.reads[:length])) is not None:
                items[index] = replace(item, reads=(before, *item.reads[length:]))
                break
        made.setdefault(item.reads, index)
    return replace(net, items=tuple(items))


def _rounded(net: ForeignItems) -> ForeignItems:
    """The net with pools rounded alike where both ways are the same: up if any must be."""
    up = {item.word for item in net.items if item.options.get("round") == "up"}

    def decided(item: ForeignItem) -> ForeignItem:
        if item.options.get("round") != EITHER:
            return item
        how = "up" if item.word in up and item.options["stride"] != (1, 1) else "down"
        return replace(item, options={**item.options, "round": how})

    return replace(net, items=tuple(map(decided, net.items)))


PASSES: tuple[PassStep, ...] = (
    _orders,
    _lines,
    _gates,
    _products,
    _lines,
    _stochastic_pools,
    _layernorms,
    _lines_into_layers,
    _pads,
    _pads_into_windows,
    _norms_into_layers,
    _acts_into_layers,
    _scales,
    _flattened,
)
"""What is put together, in this order."""
