"""What each operator of a foreign net means: its items, or how it turns what it reads.

Source: the operators' own documentation, https://onnx.ai/onnx/operators, opset 7 to 25.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from vggc.importing.constants import (
    axes_of,
    flat_shape,
    shape_of,
    slices_of,
    squeezed,
    target_shape,
    unsqueezed,
)
from vggc.importing.diagnostics import ForeignUnreadable
from vggc.importing.foreign import Foreign, ForeignTensor
from vggc.importing.items import EITHER, ForeignItems, OptionValue
from vggc.importing.operators import Operator, names_read, operator_of, short
from vggc.importing.translation import (
    MAX_NODES,
    MAX_OUTPUTS,
    MISFITS,
    ORDERS,
    Live,
    Rule,
    Translation,
    flattened,
)
from vggc.importing.views import TensorView, view_of
from vggc.ir.ops import Pair, Shape, Sides
from vggc.support.diagnostics import UserError

NO_SIDES: Sides = (0, 0, 0, 0)
FRACTIONAL = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
)
"""Types of numbers that are not whole."""
INPUT_TYPES: Mapping[int, str] = {
    TensorProto.FLOAT16: "f2",
    TensorProto.DOUBLE: "f8",
    TensorProto.UINT8: "u1",
    TensorProto.INT8: "i1",
    TensorProto.UINT16: "u2",
    TensorProto.INT16: "i2",
    TensorProto.INT32: "i4",
    TensorProto.INT64: "i8",
}
"""Types of numbers that nets of pictures take beside float32."""
OF_MAPS = ("Conv", "MaxPool", "AveragePool", "BatchNormalization", "LRN")
"""Operators that read maps N, C, H, W."""
MOST_PARTS = 4
"""Parts of equal size that are told as such; of more a range tells better what is taken."""
MOST_PICKED = 1 << 16
"""Values of an axis whose order is looked at."""
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""What ONNX has for Selu."""
NEXT = 1.2e-7
"""How far the next number of float32 is, relatively."""


def translate(foreign: Foreign, size: Pair | None = None) -> ForeignItems:
    """The items of a foreign net; `size` is (H, W) of its input, where the net leaves that open.

    Raises: UserError with the first operator that there is no word for, or that does not fit.
    """
    graph, path = foreign.model.graph, foreign.files[0]
    if len(graph.node) > MAX_NODES or len(graph.output) > MAX_OUTPUTS:
        reason = f"it has more than {MAX_NODES:,} nodes, or {MAX_OUTPUTS} outputs"
        raise UserError(ForeignUnreadable(path, reason))
    opset = next((o.version for o in foreign.model.opset_import if o.domain in ("", "ai.onnx")), 1)
    work = Translation(
        path=path, opset=opset, places=dict(foreign.tensors), rules=RULES, hints=HINTS
    )
    given = _sole_input(path, graph)
    is_map = any(node.op_type in OF_MAPS and given.name in node.input for node in graph.node)
    work.has_whole_input = _input_type(given).kind in "iu"
    work.begin(given, size, is_map, _channels_read(foreign, given.name))
    begun = work.places[given.name]
    assert isinstance(begun, Live)
    for number, node in enumerate(graph.node, start=1):
        try:
            operator = operator_of(node, number, len(graph.node))
        except MISFITS:
            raise UserError(ForeignUnreadable(path, f"its node {number} is damaged")) from None
        work.step(operator)
    outputs = tuple(work.output(each.name) for each in graph.output)
    if not outputs:
        raise UserError(ForeignUnreadable(path, "it has no output"))
    return ForeignItems(
        items=tuple(work.items),
        outputs=outputs,
        input_view=begun.view,
        batch=work.batch,
        notes=tuple(work.notes),
        input_type=_input_type(given),
    )


def _input_type(given: onnx.ValueInfoProto) -> np.dtype[Any]:
    """The type of an input's numbers; float32 where it is none that pictures have."""
    kind = given.type.tensor_type.elem_type
    return np.dtype(INPUT_TYPES.get(kind, "f4"))


def _channels_read(foreign: Foreign, name: str) -> int:
    """How many channels a convolution reads of the input of this name; 3 where none tells."""
    for node in foreign.model.graph.node:
        if node.op_type == "Conv" and [*node.input[:1]] == [name]:
            groups = next((each.i for each in node.attribute if each.name == "group"), 1)
            weight = foreign.tensors.get(node.input[1]) if len(node.input) > 1 else None
            if weight is not None and len(weight.shape) > 1:
                return weight.shape[1] * max(1, groups)
    return 3


def _sole_input(path: str, graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    read = names_read(graph)
    inputs = [each for each in graph.input if each.name in read]
    if len(inputs) != 1:
        names = ", ".join(f"`{short(each.name)}`" for each in inputs[:6])
        reason = f"it has {len(inputs)} inputs ({names})" if inputs else "it has no input"
        hint = "a net of ours reads one image, and what it tells follows from that alone"
        raise UserError(ForeignUnreadable(path, reason, hint))
    found: onnx.ValueInfoProto = inputs[0]
    return found


# ---------------------------------------------------------------- turning and reshaping


def _same(t: Translation, node: Operator) -> None:
    t.give(node, t.live(node))


def _cast(t: Translation, node: Operator) -> None:
    """Another type for the same numbers; what would round them is refused."""
    live = t.live(node)
    whole = node.attribute("to", TensorProto.FLOAT) not in FRACTIONAL
    if whole and not live.after and not (live.item == 0 and t.has_whole_input):
        t.refuse(node, "rounding to whole numbers", "")
    t.give(node, live)


def _shape(t: Translation, node: Operator) -> None:
    t.give(node, ForeignTensor.of(shape_of(node, t.live(node).view.shape)))


def _size(t: Translation, node: Operator) -> None:
    t.give(node, ForeignTensor.of(np.asarray(prod(t.live(node).view.shape), np.int64)))


def _transpose(t: Translation, node: Operator) -> None:
    live = t.live(node)
    rank = len(live.view.dims)
    order = node.attributes.get("perm") or [*range(rank)][::-1]
    if sorted(order) != [*range(rank)]:
        raise ValueError(f"{order} is no order of {rank} axes")
    t.give(node, replace(live, view=live.view.turned(order)))


def _reshape(t: Translation, node: Operator) -> None:
    live = t.live(node)
    shape = live.view.shape
    match node.kind:
        case "Flatten":
            wanted = flat_shape(node, shape)
        case "Squeeze":
            wanted = squeezed(shape, axes_of(node, t.numbers(node, 1), len(shape)))
        case "Unsqueeze":
            given = t.numbers(node, 1)
            count = len(node.attributes["axes"] if given is None else given)
            wanted = unsqueezed(shape, axes_of(node, given, len(shape) + count) or [])
        case _:
            sizes = t.numbers(node, 1)
            told = node.attributes["shape"] if sizes is None else sizes.tolist()
            wanted = target_shape(node, shape, told)
    view = live.view.reshaped(wanted)
    if view is None:
        sizes_told = "×".join(map(str, wanted))
        t.refuse(node, f"a reshape to {sizes_told} across channels, rows and columns", "")
    found = replace(live, view=view)
    t.give(node, t.as_map(node, found) if t.shuffled(found) else found)


def _slice(t: Translation, node: Operator) -> None:
    """A slice that takes everything is nothing; one of some channels takes those; one of some rows
    or columns may be a part of what wraps around a map, and one of all channels backwards is their
    other order.
    """
    live = t.live(node)
    shape = live.view.shape
    given = [t.numbers(node, position) for position in range(1, len(node.reads))]
    cuts = [(axis % len(shape), part) for axis, part in slices_of(node, given)]
    cuts = [(axis, part) for axis, part in cuts if part.indices(shape[axis]) != _all(shape[axis])]
    if not cuts:
        t.give(node, live)
        return
    (axis, part), *others = cuts
    picked = range(shape[axis])[part]
    if not others and picked == range(shape[axis])[::-1]:
        t.give(node, _reordered(t, node, live, axis, picked))
        return
    start, end, step = part.indices(shape[axis])
    if others or step != 1 or start >= end:
        t.refuse(node, "a `Slice`", HINTS["Slice"])
    if (found := _taken(t, node, live, axis, (start, end))) is not None:
        t.give(node, found)
        return
    along = t.order(live)[axis : axis + 1] if len(t.shape(live)) == 3 else ""
    if along not in ("h", "w"):
        t.refuse(node, "a `Slice`", HINTS["Slice"])
    size = [*t.shape(live)]
    size["chw".index(along)] = end - start
    options: dict[str, OptionValue] = {"along": along, "start": start, "end": end}
    view = view_of(tuple(size), t.batch, t.order(live))
    t.give(node, t.emit(node, "cut", [live], tuple(size), view, options=options))


def _taken(t: Translation, node: Operator, live: Live, axis: int, cut: Pair) -> Live | None:
    """The channels of a map, or features of a vector, from the first number of `cut` to before the
    second; None where what lies along the axis is neither.
    """
    if len(t.shape(live)) == 3:
        if len(live.view.dims) == 2 and axis == 1:
            live = t.vector(node, live)
        elif t.shuffled(live):
            live = t.as_map(node, live)
    lies, (width, *size) = t.order(live), t.shape(live)
    if not lies or lies[axis] != "c":
        return None
    first, end = cut
    count = end - first
    options: dict[str, OptionValue]
    if count * MOST_PARTS >= width and width % count == first % count == 0:
        options = {"part": first // count + 1, "of": width // count}
    else:
        options = {"channels": f"{first}..{end - 1}" if count > 1 else str(first)}
    shape = (count, *size)
    found = t.emit(node, "take", [live], shape, options=options)
    return replace(found, view=_lying(t, shape, lies))


def _lying(t: Translation, shape: Shape, order: str) -> TensorView:
    """A value whose axes lie as `Translation.order` has told of another."""
    dims = view_of(shape, t.batch, order if len(shape) == 3 else "nc").dims
    known = {"nc11": (*dims, (), ()), "n11c": (dims[0], (), (), dims[-1])}
    return TensorView(known.get(order, dims))


def _split(t: Translation, node: Operator) -> None:
    """Parts of the channels behind one another, as many as the operator gives, each by itself."""
    live = t.live(node)
    shape, axis = live.view.shape, node.attribute("axis", 0)
    axis += len(shape) if axis < 0 else 0
    told = t.numbers(node, 1)
    sizes = node.attributes.get("split") if told is None else told.tolist()
    if sizes is None:
        parts = node.attribute("num_outputs", len(node.gives))
        size = -(-shape[axis] // parts)
        sizes = [*[size] * (parts - 1), shape[axis] - (parts - 1) * size]
    if len(sizes) < len(node.gives) or sum(sizes) != shape[axis] or min(sizes) < 1:
        raise ValueError(f"{shape[axis]} values are not split into {sizes}")
    first = 0
    for position, size in enumerate(sizes[: len(node.gives)]):
        cut = first, first + size
        first += size
        if not node.gives[position]:
            continue
        whole = size == shape[axis]
        found = live if whole else _taken(t, node, live, axis, cut)
        if found is None:
            t.refuse(node, "a `Split`", HINTS["Split"])
        t.give(node, found, position)


def _all(size: int) -> tuple[int, int, int]:
    """The start, the end and the step of a slice that takes everything."""
    return 0, size, 1


def _reordered(t: Translation, node: Operator, live: Live, axis: int, order: Sequence[int]) -> Live:
    """The channels of a map in another order, as of pictures in BGR."""
    lies = t.order(live)
    if lies not in ("nchw", "nhwc") or lies[axis] != "c":
        t.refuse(node, f"a `{node.kind}`", HINTS[node.kind])
    tensors = {"order": ForeignTensor.of(np.asarray(order, np.int64))}
    return t.emit(node, "reorder", [live], t.shape(live), live.view, tensors=tensors)


def _gather(t: Translation, node: Operator) -> None:
    """Picking all values of an axis is a reshape, and perhaps another order of channels; picking
    neighbours takes some channels.
    """
    live, indices = t.live(node), t.weight(node, 1)
    shape, axis = live.view.shape, node.attribute("axis", 0)
    axis += len(shape) if axis < 0 else 0
    wanted = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    if not 0 < indices.size <= min(shape[axis], MOST_PICKED):
        t.refuse(node, "a `Gather`", HINTS["Gather"])
    order = [*map(int, indices.read().reshape(-1) % shape[axis])]
    first, count = min(order), len(order)
    if sorted(order) != [*range(first, first + count)] or (
        count < shape[axis] and order != sorted(order)
    ):
        t.refuse(node, "a `Gather`", HINTS["Gather"])
    if count < shape[axis]:
        taken = _taken(t, node, live, axis, (first, first + count))
        if taken is None:
            t.refuse(node, "a `Gather`", HINTS["Gather"])
        live = taken
    elif order != sorted(order):
        live = _reordered(t, node, live, axis, order)
    view = live.view.reshaped(wanted)
    if view is None:
        t.refuse(node, "a `Gather`", HINTS["Gather"])
    t.give(node, replace(live, view=view))


# ---------------------------------------------------------------- windows


def _pads(node: Operator, size: Sequence[int], kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    """Top, left, bottom and right of what a window reads beyond a map of this height and width."""
    match node.attribute("auto_pad", "NOTSET"):
        case "NOTSET" | "":
            top, left, bottom, right = node.attribute("pads", [0, 0, 0, 0])
            return top, left, bottom, right
        case "VALID":
            return NO_SIDES
        case "SAME_UPPER" | "SAME_LOWER" as which:
            total = [
                max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
                for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
            ]
            less, more = ([n // 2 for n in total], [n - n // 2 for n in total])
            before, after = (less, more) if which == "SAME_UPPER" else (more, less)
            return before[0], before[1], after[0], after[1]
        case other:
            raise ValueError(f"auto_pad={other} is not known")


def _pair(node: Operator, key: str, default: Pair = (1, 1)) -> Pair:
    """An attribute of two whole numbers above 0, one for rows and one for columns."""
    first, second = node.attribute(key, [*default])
    if not (0 < first < 1 << 20 and 0 < second < 1 << 20):
        raise ValueError(f"{key} is {first}×{second}")
    return first, second


def _positions(size: Sequence[int], reach: Sequence[int], stride: Pair, sides: Sides) -> list[int]:
    """How many windows of a reach fit, along each axis, the rest rounded down."""
    spare = [
        n + sides[i] + sides[i + 2] - r for i, (n, r) in enumerate(zip(size, reach, strict=True))
    ]
    if min(spare) < 0:
        raise ValueError(f"its window is larger than the {size[0]}×{size[1]} map")
    return [n // s + 1 for n, s in zip(spare, stride, strict=True)]


def _conv(t: Translation, node: Operator) -> None:
    weight, bias = t.weight(node, 1), t.constant(node, 2)
    if len(weight.shape) != 4:
        t.refuse(node, f"a convolution in {len(weight.shape) - 2} dimensions", "maps have two")
    live = t.spatial(node)
    x, (width, inner, *sizes) = t.shape(live), weight.shape
    kernel = (sizes[0], sizes[1])
    groups = node.attribute("group", 1)
    if inner * groups != x[0] or width % groups:
        raise ValueError(f"its weight is {weight.shape}, and {x[0]} channels come in")
    tensors = {"weight": weight} | ({"bias": bias} if bias else {})
    if len(x) == 1:
        _conv_of_vector(t, node, live, tensors, groups)
        return
    stride, dilation = _pair(node, "strides"), _pair(node, "dilations")
    sides = _pads(node, x[1:], kernel, stride, dilation)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    options: dict[str, OptionValue] = {
        "stride": stride,
        "padding": sides,
        "dilation": dilation,
        "groups": groups,
        "bias": bias is not None,
        "norm": "none",
        "act": "none",
    }
    shape = (width, *_positions(x[1:], reach, stride, sides))
    found = t.emit(
        node, "conv", [live], shape, size=kernel, width=width, options=options, tensors=tensors
    )
    t.give(node, found)


def _conv_of_vector(
    t: Translation, node: Operator, live: Live, tensors: dict[str, ForeignTensor], groups: int
) -> None:
    """A 1×1 convolution of what is one pixel is a fully-connected layer."""
    weight = tensors["weight"]
    if weight.shape[2:] != (1, 1) or groups != 1:
        kernel = "×".join(map(str, weight.shape[2:]))
        t.refuse(node, f"a {kernel} convolution, of {groups} groups, of a vector", "")
    flat = weight.changed(weight.shape[:2], lambda v: v.reshape(v.shape[:2]))
    found = _fc(t, node, live, {**tensors, "weight": flat})
    t.give(node, replace(found, view=TensorView((*found.view.dims, (), ()))))


def _fc(t: Translation, node: Operator, live: Live, tensors: dict[str, ForeignTensor]) -> Live:
    width = tensors["weight"].shape[0]
    options: dict[str, OptionValue] = {
        "bias": "bias" in tensors,
        "norm": "none",
        "act": "none",
    }
    return t.emit(node, "fc", [live], (width,), width=width, options=options, tensors=tensors)


def _deconv(t: Translation, node: Operator) -> None:
    weight, bias = t.weight(node, 1), t.constant(node, 2)
    live = t.spatial(node)
    x = t.shape(live)
    if len(weight.shape) != 4 or len(x) != 3:
        t.refuse(node, "a transposed convolution of what is no map", "maps have two dimensions")
    groups, kernel = node.attribute("group", 1), (weight.shape[2], weight.shape[3])
    stride, dilation = _pair(node, "strides"), _pair(node, "dilations")
    if dilation != (1, 1):
        t.refuse(node, "a dilated transposed convolution", "")
    if weight.shape[0] != x[0] or x[0] % groups:
        raise ValueError(f"its weight is {weight.shape}, and {x[0]} channels come in")
    more = node.attribute("output_padding", [0, 0])
    whole = [(n - 1) * s + k + m for n, s, k, m in zip(x[1:], stride, kernel, more, strict=True)]
    sides = _deconv_sides(node, x[1:], stride, whole)
    size = [n - sides[i] - sides[i + 2] for i, n in enumerate(whole)]
    options: dict[str, OptionValue] = {
        "stride": stride,
        # What output_padding adds stands behind: so much less is taken away there.
        "padding": (sides[0], sides[1], sides[2] - more[0], sides[3] - more[1]),
        "groups": groups,
        "bias": bias is not None,
        "norm": "none",
        "act": "none",
    }
    width = weight.shape[1] * groups
    found = t.emit(
        node,
        "deconv",
        [live],
        (width, *size),
        size=kernel,
        width=width,
        options=options,
        tensors={"weight": weight} | ({"bias": bias} if bias else {}),
    )
    t.give(node, found)


def _deconv_sides(node: Operator, size: Sequence[int], stride: Pair, whole: list[int]) -> Sides:
    """What is taken away on each side of the output of a transposed convolution."""
    wanted = node.attributes.get("output_shape")
    same = node.attribute("auto_pad", "NOTSET")
    if wanted is None and not same.startswith("SAME"):
        top, left, bottom, right = node.attribute("pads", [0, 0, 0, 0])
        return top, left, bottom, right
    ends = wanted[-2:] if wanted is not None else [n * s for n, s in zip(size, stride, strict=True)]
    total = [n - end for n, end in zip(whole, ends, strict=True)]
    less, more = [n // 2 for n in total], [n - n // 2 for n in total]
    before, after = (less, more) if same == "SAME_UPPER" else (more, less)
    return before[0], before[1], after[0], after[1]


def _pool(t: Translation, node: Operator) -> None:
    live = t.spatial(node)
    x = t.shape(live)
    if len(x) != 3:
        t.refuse(node, f"a `{node.kind}` of a vector", "")
    kernel, stride = _pair(node, "kernel_shape", (0, 0)), _pair(node, "strides")
    if len(node.gives) > 1 and node.gives[1]:
        t.refuse(node, "a pool that gives the places of its maxima", "")
    if _pair(node, "dilations") != (1, 1):
        t.refuse(node, "a dilated pool", "")
    sides = _pads(node, x[1:], kernel, stride, (1, 1))
    up = bool(node.attribute("ceil_mode", 0))
    size = _pooled(x[1:], kernel, stride, sides, up)
    if kernel == stride == (1, 1) and not any(sides):
        t.give(node, live)  # what an adaptive pool is on a map that has the size already
        return
    counts = node.kind == "AveragePool" and bool(node.attribute("count_include_pad", 0))
    word = "pool" if node.kind == "MaxPool" else "avgpool"
    is_whole = size == [1, 1] and all(
        k >= n + b for k, n, b in zip(kernel, x[1:], sides, strict=False)
    )
    of_one = tuple(x[1:]) == (1, 1) and any(sides)  # which leaves a map of one pixel as it is
    if word == "avgpool" and is_whole and not of_one and not (counts and any(sides)):
        _give_means(t, node, live)
        return
    options: dict[str, OptionValue] = {"stride": stride}
    plain: Sides = (sides[0], sides[1], sides[0], sides[1])
    inside = 2 * sides[0] <= kernel[0] and 2 * sides[1] <= kernel[1]
    if counts and any(sides):
        if up and _pooled(x[1:], kernel, stride, sides, False) != size:
            t.refuse(node, "a mean over windows that counts zeros beyond its padding", "")
        options |= {"padding": sides, "border": "zeros", "round": "down"}
    elif inside and size == _pooled(x[1:], kernel, stride, plain, False):
        is_both = size == _pooled(x[1:], kernel, stride, plain, True)
        options |= {"padding": plain, "round": EITHER if is_both else "down"}
    elif inside and size == _pooled(x[1:], kernel, stride, plain, True):
        options |= {"padding": plain, "round": "up"}
    else:
        options |= {"padding": sides, "round": "up" if up else "down"}
    t.give(node, t.emit(node, word, [live], (x[0], *size), size=kernel, options=options))


def _pooled(size: Sequence[int], kernel: Pair, stride: Pair, sides: Sides, up: bool) -> list[int]:
    """The height and width that a pool gives: with `up`, a last window that begins inside the map
    or what lies before it counts.
    """
    down = _positions(size, kernel, stride, sides)
    if not up:
        return down
    found = []
    for i, (n, k, s) in enumerate(zip(size, kernel, stride, strict=True)):
        count = -(-(n + sides[i] + sides[i + 2] - k) // s) + 1
        found.append(count - 1 if (count - 1) * s >= n + sides[i] else count)
    return found


def _give_means(t: Translation, node: Operator, live: Live, keep: bool = True) -> None:
    """The mean of each channel of a map, whose rows and columns lie in dimensions of their own."""
    shape = t.shape(live)
    found = t.emit(node, "gap", [live], shape[:1])
    gone = [any(part.axis in "hw" for part in dim) for dim in live.view.dims]
    # A map of one row has no part for it: of what pooling leaves, only the shape tells.
    dims = tuple(() if is_gone else dim for dim, is_gone in zip(live.view.dims, gone, strict=True))
    t.give(node, replace(found, view=TensorView(dims)))


def _global_pool(t: Translation, node: Operator) -> None:
    live = t.spatial(node)
    x = t.shape(live)
    if len(x) != 3:
        t.give(node, live)
    elif node.kind == "GlobalAveragePool":
        _give_means(t, node, live)
    else:
        size = (x[1], x[2])
        options: dict[str, OptionValue] = {
            "stride": size, "padding": NO_SIDES, "round": "down"
        }  # fmt: skip
        t.give(node, t.emit(node, "pool", [live], (x[0], 1, 1), size=size, options=options))


def _reduce(t: Translation, node: Operator) -> None:
    """A mean over rows and columns is `gap`; one over channels may be part of a normalisation."""
    live = t.live(node)
    dims = live.view.dims
    axes = axes_of(node, t.numbers(node, 1), len(dims))
    over = sorted(axes if axes is not None else range(len(dims)))
    keep = bool(node.attribute("keepdims", 1))
    shape = t.shape(live)
    gone = [part for axis in over for part in dims[axis]]
    rest = [part for axis, dim in enumerate(dims) if axis not in over for part in dim]
    rest_axes = {part.axis for part in rest}
    if len(shape) == 3 and all(p.axis in "hw" for p in gone) and not rest_axes & {"h", "w"}:
        kept = [() if axis in over else dim for axis, dim in enumerate(dims)]
        view = TensorView(tuple(d for axis, d in enumerate(kept) if keep or axis not in over))
        if node.kind == "ReduceMean":
            found = t.emit(node, "gap", [live], shape[:1])
            t.give(node, replace(found, view=view))
            return
        if node.kind == "ReduceMax":
            size = (shape[1], shape[2])
            options: dict[str, OptionValue] = {
                "stride": size, "padding": NO_SIDES, "round": "down"
            }  # fmt: skip
            found = t.emit(node, "pool", [live], (shape[0], 1, 1), size=size, options=options)
            t.give(node, replace(found, view=view))
            return
    channels_only = gone and all(part.axis == "c" for part in gone) and "c" not in rest_axes
    if node.kind == "ReduceMean" and channels_only and keep:
        kept = [() if axis in over else dim for axis, dim in enumerate(dims)]
        found = t.emit(node, "mean", [live], (1, *shape[1:]))
        t.give(node, replace(found, view=TensorView(tuple(kept))))
        return
    told = "×".join(str(live.view.shape[axis]) for axis in over)
    hint = "`gap` is the mean over all rows and columns"
    t.refuse(node, f"a `{node.kind}` over {told or 'no'} values", hint)


def _pad(t: Translation, node: Operator) -> None:
    live = t.live(node)
    told = node.attributes.get("pads")
    pads = told if told is not None else t.weight(node, 1).read().reshape(-1).tolist()
    rank = len(live.view.dims)
    axes = t.numbers(node, 3) if len(node.reads) > 3 else None
    if axes is not None:
        spread = [0] * (2 * rank)
        for place, axis in enumerate(axes.tolist()):
            spread[axis % rank] = pads[place]
            spread[axis % rank + rank] = pads[place + len(axes)]
        pads = spread
    if not any(pads):
        t.give(node, live)
        return
    order = t.order(live)
    if order not in ("nchw", "nhwc"):
        t.refuse(node, "padding of what is no map", "")
    before, after = (dict(zip(order, pads[i : i + 4], strict=True)) for i in (0, 4))
    sides = (before["h"], before["w"], after["h"], after["w"])
    if before["n"] or after["n"] or before["c"] or after["c"] or min(sides) < 0:
        t.refuse(node, "padding of channels, or padding that takes away", "")
    value = t.numbers(node, 2) if len(node.reads) > 2 else None
    filled = node.attribute("value", 0.0) if value is None or not len(value) else float(value[0])
    modes = {"constant": "zeros", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}
    mode = node.attribute("mode", "constant")
    if mode not in modes or (mode == "constant" and filled != 0):
        t.refuse(
            node, f"padding by `{mode}` with {filled:g}", "zeros are padded with, or what is there"
        )
    x = t.shape(live)
    shape = (x[0], x[1] + sides[0] + sides[2], x[2] + sides[1] + sides[3])
    options: dict[str, OptionValue] = {"padding": sides, "border": modes[mode]}
    found = t.emit(node, "pad", [live], shape, view_of(shape, t.batch, order), options=options)
    t.give(node, found)


def _resize(t: Translation, node: Operator) -> None:
    live = t.spatial(node)
    x = t.shape(live)
    if len(x) != 3:
        t.refuse(node, f"a `{node.kind}` of a vector", "")
    position = {"Upsample": 1}.get(node.kind, 1 if t.opset < 11 else 2)
    scales = t.numbers(node, position)
    sizes = t.numbers(node, 3) if node.kind == "Resize" and len(node.reads) > 3 else None
    if sizes is not None and len(sizes):
        target = [int(n) for n in sizes[-2:]]
    else:
        told = node.attributes["scales"] if scales is None else scales.tolist()
        target = [int(np.floor(n * f)) for n, f in zip(x[1:], told[-2:], strict=True)]
    factors = [(m // n, m % n) for m, n in zip(target, x[1:], strict=True)]
    if any(rest or not factor for factor, rest in factors):
        hint = "`upsample2` and the like make maps a whole number of times as large"
        t.refuse(node, f"resizing {x[1]}×{x[2]} to {target[0]}×{target[1]}", hint)
    scale = (factors[0][0], factors[1][0])
    mode = node.attribute("mode", "nearest")
    usual = "asymmetric" if t.opset < 11 else "half_pixel"
    place = node.attribute("coordinate_transformation_mode", usual)
    rounding = node.attribute("nearest_mode", "floor" if t.opset < 11 else "round_prefer_floor")
    ours = {
        "nearest": (place, rounding) == ("asymmetric", "floor")
        or (place in ("half_pixel", "pytorch_half_pixel") and rounding == "round_prefer_floor"),
        "linear": place in ("half_pixel", "pytorch_half_pixel"),
    }
    if not ours.get(mode) and scale != (1, 1):
        hint = "`upsample2` takes half-pixel centres, bilinear or nearest"
        t.refuse(node, f"resizing by `{mode}` with {place} places", hint)
    word = {"nearest": "nearest", "linear": "bilinear"}[mode]
    shape = (x[0], *target)
    found = t.emit(node, "upsample", [live], shape, size=scale, options={"mode": word})
    t.give(node, live if scale == (1, 1) else found)


# ---------------------------------------------------------------- arithmetic


def _gemm(t: Translation, node: Operator) -> None:
    if node.attribute("transA", 0):
        t.refuse(node, "a `Gemm` of what is turned", "")
    weight = t.weight(node, 1)
    if not node.attribute("transB", 0):
        weight = _turned(weight)
    tensors = {"weight": _times(weight, node.attribute("alpha", 1.0))}
    bias = t.constant(node, 2)
    if bias is not None:
        width = weight.shape[0]
        if bias.size not in (1, width):
            raise ValueError(f"its bias is {bias.shape}, and it gives {width} values")
        bias = bias.changed((width,), lambda v: np.broadcast_to(v.reshape(-1), (width,)))
        tensors["bias"] = _times(bias, node.attribute("beta", 1.0))
    t.give(node, _dense(t, node, t.live(node), tensors))


def _matmul(t: Translation, node: Operator) -> None:
    live, weight = t.live(node), t.weight(node, 1)
    if len(weight.shape) != 2:
        t.refuse(node, f"a `MatMul` with {len(weight.shape)} dimensions", "")
    weight = _turned(weight)
    if t.order(live) == "nhwc":
        x, width = t.shape(live), weight.shape[0]
        if weight.shape[1] != x[0]:
            raise ValueError(f"its weight is {weight.shape}, and {x[0]} channels come in")
        kernel = weight.changed((*weight.shape, 1, 1), lambda v: v[:, :, None, None])
        options: dict[str, OptionValue] = {
            "stride": (1, 1),
            "padding": NO_SIDES,
            "dilation": (1, 1),
            "groups": 1,
            "bias": False,
            "norm": "none",
            "act": "none",
        }
        shape = (width, *x[1:])
        view = view_of(shape, t.batch, "nhwc")
        found = t.emit(
            node,
            "conv",
            [live],
            shape,
            view,
            size=(1, 1),
            width=width,
            options=options,
            tensors={"weight": kernel},
        )
        t.give(node, found)
        return
    t.give(node, _dense(t, node, live, {"weight": weight}))


def _dense(t: Translation, node: Operator, live: Live, tensors: dict[str, ForeignTensor]) -> Live:
    """A fully-connected layer of a value that lies in one row for each image, in any order."""
    x, weight, dims = t.shape(live), tensors["weight"], live.view.dims
    rows = [part for dim in dims[:-1] for part in dim]
    if len(weight.shape) != 2 or not dims or any(part.axis != "n" for part in rows):
        sizes = _sizes(live.view.shape)
        t.refuse(node, f"a `{node.kind}` of {sizes}", "a layer reads one row for each image")
    if weight.shape[1] != prod(x):
        raise ValueError(f"its weight is {weight.shape}, and {prod(x)} values come in")
    view = flattened(live.view, x) if len(x) == 3 else live.view
    if len(view.dims[-1]) > 1:
        weight = weight.changed(weight.shape, lambda v: in_our_order(v, view.dims[-1]))
    found = _fc(t, node, live, {**tensors, "weight": weight})
    return replace(found, view=TensorView((*dims[:-1], *found.view.dims[-1:])))


def in_our_order(values: NDArray[Any], parts: Sequence[Any]) -> NDArray[Any]:
    """Values whose last axis lies as these parts of a vector, in the vector's order."""
    order = sorted(range(len(parts)), key=lambda i: -parts[i].step)
    lead = values.shape[:-1]
    split = values.reshape(*lead, *(part.size for part in parts))
    turned = split.transpose(*range(len(lead)), *(len(lead) + i for i in order))
    return turned.reshape(values.shape)


def _turned(tensor: ForeignTensor) -> ForeignTensor:
    if len(tensor.shape) != 2:
        raise ValueError(f"its weight is {tensor.shape}, which is no matrix")
    return tensor.changed(tensor.shape[::-1], lambda v: v.T)


def _times(tensor: ForeignTensor, factor: float) -> ForeignTensor:
    if factor == 1:
        return tensor
    return tensor.changed(tensor.shape, lambda v: v * np.float32(factor))


def _arithmetic(t: Translation, node: Operator) -> None:
    """A sum, difference, product or quotient, of the image twice or with a constant."""
    if len(node.reads) != 2:
        raise ValueError(f"it reads {len(node.reads)} values")
    constants = [
        position
        for position, name in enumerate(node.reads)
        if isinstance(t.places[name], ForeignTensor)
    ]
    if not constants:
        _of_two(t, node)
        return
    (position,) = constants
    live, tensor = t.live(node, 1 - position), t.weight(node, position)
    live, along = _along_channels(t, node, live, tensor)
    match node.kind:
        case "Add":
            tensors = {"bias": along}
        case "Mul":
            tensors = {"weight": along}
        case "Sub" if position == 1:
            tensors = {"bias": along.changed(along.shape, np.negative)}
        case "Sub":
            minus = ForeignTensor.of(np.asarray(-1, np.float32))
            tensors = {"weight": minus, "bias": along}
        case "Div" if position == 1:
            tensors = {"weight": along.changed(along.shape, np.reciprocal)}
        case _:
            t.refuse(node, "a constant divided by what depends on the image", "")
    _give_affine(t, node, live, tensors)


def _give_affine(
    t: Translation, node: Operator, live: Live, tensors: dict[str, ForeignTensor]
) -> None:
    found = t.emit(node, "affine", [live], t.shape(live), live.view, tensors=tensors)
    t.give(node, found)


def _along_channels(
    t: Translation, node: Operator, live: Live, tensor: ForeignTensor
) -> tuple[Live, ForeignTensor]:
    """A constant as one number, shape (), or as one for each channel or feature, (C,); and what it
    goes with, flattened where the constant has a number for each value of a map.
    """
    whole = [axis for axis, size in enumerate(tensor.shape[::-1], start=1) if size > 1]
    if not tensor.size:
        raise ValueError("its constant holds no number")
    if not whole:
        return live, tensor.changed((), lambda v: v.reshape(()))
    dims = live.view.dims
    if len(whole) > 1 or whole[0] > len(dims):
        hint = "`scale` has a number for each channel"
        t.refuse(node, f"a `{node.kind}` with a constant of {_sizes(tensor.shape)}", hint)
    if any(part.axis in "hw" for part in dims[-whole[0]]):
        live = t.vector(node, live)
    parts, width = live.view.dims[-whole[0]], t.shape(live)[0]
    if any(part.axis != "c" for part in parts) or prod(p.size for p in parts) != width:
        t.refuse(node, f"a `{node.kind}` with a constant of {_sizes(tensor.shape)}", "")
    if tensor.size != width:
        raise ValueError(f"a constant of {_sizes(tensor.shape)} beside {width} channels")
    return live, tensor.changed((width,), lambda v: in_our_order(v.reshape(-1), parts))


def _sizes(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "1"


def _of_two(t: Translation, node: Operator) -> None:
    words = {"Add": "add", "Mul": "mul", "Sub": "sub", "Div": "div"}
    left, right = t.lives(node)
    word = words[node.kind]
    if left.view == right.view and t.shape(left) == t.shape(right):
        t.give(node, t.emit(node, word, [left, right], t.shape(left), left.view))
        return
    if word == "mul":
        for large, small in ((left, right), (right, left)):
            if _is_gate(t, large, small):
                found = t.emit(node, word, [left, right], t.shape(large), large.view)
                t.give(node, found)
                return
    for large, small in ((left, right), (right, left)):
        # What stands for a normalisation subtracts and divides by one number for each place.
        if t.shape(small) == (1, *t.shape(large)[1:]) and _lies_under(small.view, large.view):
            t.give(node, t.emit(node, word, [left, right], t.shape(large), large.view))
            return
    sizes = " and ".join(_sizes(each.view.shape) for each in (left, right))
    t.refuse(node, f"a `{node.kind}` of {sizes}", "")


def _is_gate(t: Translation, large: Live, small: Live) -> bool:
    """Whether one value has a number for each channel of the other, a map."""
    if len(t.shape(large)) != 3 or t.shape(small)[0] != t.shape(large)[0]:
        return False
    return (
        prod(t.shape(small)) == t.shape(large)[0]
        and all(
            not dim or dim == other
            for dim, other in zip(small.view.dims, large.view.dims, strict=False)
        )
        and len(small.view.dims) == len(large.view.dims)
    )


def _lies_under(small: TensorView, large: TensorView) -> bool:
    return len(small.dims) == len(large.dims) and all(
        not dim or dim == other for dim, other in zip(small.dims, large.dims, strict=True)
    )


def _sum(t: Translation, node: Operator) -> None:
    """A sum of any number of values."""
    if len(node.reads) == 2:
        _arithmetic(t, replace(node, kind="Add"))
        return
    lives = t.lives(node)
    if (
        any(each.view != lives[0].view for each in lives)
        or len({t.shape(each) for each in lives}) > 1
    ):
        t.refuse(node, "a `Sum` of values of several shapes", "")
    if len(lives) == 1:
        t.give(node, lives[0])
        return
    t.give(node, t.emit(node, "add", lives, t.shape(lives[0]), lives[0].view))


def _concat(t: Translation, node: Operator) -> None:
    lives = t.lives(node)
    if len(lives) == 1:
        t.give(node, lives[0])
        return
    rank = len(lives[0].view.dims)
    axis = node.attribute("axis", 1)
    axis += rank if axis < 0 else 0
    if (wrapped := _wrapped(t, node, lives, axis)) is not None:
        t.give(node, wrapped)
        return
    if len(lives[0].view.dims) == 2:
        lives = [t.vector(node, each) for each in lives]
    orders = [t.order(each) for each in lives]
    order = orders[0]
    is_vector = len(t.shape(lives[0])) == 1
    place = "nc11".find("c") if order in ("nc", "nc11") else order.find("c")
    if len({*orders}) > 1 or not order or axis != place:
        shuffled = [t.spatial(node, i) for i in range(len(lives))] if not is_vector else lives
        orders = [t.order(each) for each in shuffled]
        lives, order = shuffled, orders[0]
        if len({*orders}) > 1 or not order or axis != order.find("c"):
            hint = "`concat` puts channels behind channels"
            t.refuse(node, f"a `Concat` along axis {axis}", hint)
    first = t.shape(lives[0])
    if any(t.shape(each)[1:] != first[1:] for each in lives):
        raise ValueError("its inputs are of several sizes")
    shape = (sum(t.shape(each)[0] for each in lives), *first[1:])
    found = t.emit(node, "concat", lives, shape)
    t.give(node, replace(found, view=_lying(t, shape, order)))


def _wrapped(t: Translation, node: Operator, lives: Sequence[Live], axis: int) -> Live | None:
    """A map between its own last rows or columns and its first ones, which is padding that wraps
    around; None where the values are nothing such.
    """
    whole = next((each for each in lives if t.items[each.item].word != "cut"), None)
    if whole is None or len(t.shape(whole)) != 3:
        return None
    order, shape = t.order(whole), t.shape(whole)
    along = order[axis : axis + 1]
    if along not in ("h", "w"):
        return None
    size = shape["chw".index(along)]
    ends = [0, 0]
    at = lives.index(whole)
    for place, live in enumerate(lives):
        if place == at:
            continue
        cut = t.items[live.item]
        start, end = cut.options.get("start"), cut.options.get("end")
        is_last, is_first = place < at and end == size, place > at and start == 0
        of_it = cut.reads == (whole.item,) and cut.options.get("along") == along
        if not of_it or not (is_last or is_first) or ends[place > at]:
            return None
        ends[place > at] = cut.shape["chw".index(along)]
    before, behind = ends
    sides = (before, 0, behind, 0) if along == "h" else (0, before, 0, behind)
    wider = tuple(n + sum(ends) * (name == along) for name, n in zip("chw", shape, strict=True))
    options: dict[str, OptionValue] = {"padding": sides, "border": "wrap"}
    return t.emit(node, "pad", [whole], wider, view_of(wider, t.batch, order), options=options)


# ---------------------------------------------------------------- each value by itself


def _each(word: str, **options: OptionValue) -> Rule:
    """An operator that is a word of ours, for each value by itself."""

    def rule(t: Translation, node: Operator) -> None:
        live = t.live(node)
        t.give(node, t.emit(node, word, [live], t.shape(live), live.view, options=options))

    return rule


def _sloped(word: str, default: float) -> Rule:
    def rule(t: Translation, node: Operator) -> None:
        live, slope = t.live(node), shortest(node.attribute("alpha", default))
        if slope < 0:
            t.refuse(node, f"a `{node.kind}` with a slope below zero", "")
        options: dict[str, OptionValue] = {"slope": slope}
        t.give(node, t.emit(node, word, [live], t.shape(live), live.view, options=options))

    return rule


def shortest(number: float) -> float:
    """A number of float32 as a person has written it: with the fewest digits that give it, or one
    next to it.
    """
    for digits in range(1, 9):
        short = float(f"{number:.{digits}g}")
        if abs(short - number) <= NEXT * abs(number):
            return short
    return number


def _selu(t: Translation, node: Operator) -> None:
    """An ELU, and a factor behind it."""
    _sloped("elu", SELU_ALPHA)(t, node)
    live, gamma = t.places[node.gives[0]], node.attribute("gamma", SELU_GAMMA)
    assert isinstance(live, Live)
    _give_affine(t, node, live, {"weight": ForeignTensor.of(np.asarray(gamma, np.float32))})


def _celu(t: Translation, node: Operator) -> None:
    if node.attribute("alpha", 1.0) != 1:
        t.refuse(node, "a `Celu` with another alpha than 1", "`elu` is the one with 1")
    _each("elu", slope=1.0)(t, node)


def _swish(t: Translation, node: Operator) -> None:
    if node.attribute("alpha", 1.0) != 1:
        t.refuse(node, "a `Swish` with another alpha than 1", "`silu` is the one with 1")
    _each("silu")(t, node)


def _dropout(t: Translation, node: Operator) -> None:
    live, given = t.live(node), t.numbers(node, 1)
    ratio = node.attribute("ratio", 0.5) if given is None else float(given[0])
    options: dict[str, OptionValue] = {"p": shortest(ratio)}
    if not 0 < ratio <= 0.99:
        t.give(node, live)
        return
    t.give(node, t.emit(node, "dropout", [live], t.shape(live), live.view, options=options))


def _clip(t: Translation, node: Operator) -> None:
    live = t.live(node)
    bounds = []
    for position, key in ((1, "min"), (2, "max")):
        given = t.numbers(node, position)
        bounds.append(float(given[0]) if given is not None else node.attributes.get(key))
    _give_clip(t, node, live, *bounds)


def _give_clip(
    t: Translation, node: Operator, live: Live, low: float | None, high: float | None
) -> None:
    options: dict[str, OptionValue] = {}
    if low is not None and isfinite(low) and low > np.finfo(np.float32).min:
        options["min"] = shortest(low)
    if high is not None and isfinite(high) and high < np.finfo(np.float32).max:
        options["max"] = shortest(high)
    if not options:
        t.give(node, live)
        return
    if options == {"min": 0.0}:
        word, options = "relu", {}
    elif options == {"min": 0.0, "max": 6.0}:
        word, options = "relu6", {}
    else:
        word = "clip"
    t.give(node, t.emit(node, word, [live], t.shape(live), live.view, options=options))


def _bound(t: Translation, node: Operator) -> None:
    """Min or Max with one constant number."""
    constants = [
        i for i, name in enumerate(node.reads) if isinstance(t.places[name], ForeignTensor)
    ]
    if len(node.reads) != 2 or len(constants) != 1:
        t.refuse(node, f"a `{node.kind}` of several paths", "")
    numbers = t.numbers(node, constants[0])
    if numbers is None or len(numbers) != 1:
        t.refuse(node, f"a `{node.kind}` with a constant of several numbers", "")
    live, number = t.live(node, 1 - constants[0]), float(numbers[0])
    _give_clip(t, node, live, *((number, None) if node.kind == "Max" else (None, number)))


def _hard_sigmoid(t: Translation, node: Operator) -> None:
    alpha, beta = shortest(node.attribute("alpha", 0.2)), shortest(node.attribute("beta", 0.5))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        _each("hardsigmoid")(t, node)
        return
    tensors = {
        role: ForeignTensor.of(np.asarray(value, np.float32))
        for role, value in (("weight", alpha), ("bias", beta))
    }
    live = t.live(node)
    scaled = t.emit(node, "affine", [live], t.shape(live), live.view, tensors=tensors)
    _give_clip(t, node, scaled, 0.0, 1.0)


def _gelu(t: Translation, node: Operator) -> None:
    if node.attribute("approximate", "none") != "none":
        t.refuse(node, "a GELU by its tanh approximation", "`gelu` is the one with erf")
    _each("gelu")(t, node)


def _prelu(t: Translation, node: Operator) -> None:
    live, slopes = t.live(node), t.weight(node, 1)
    if slopes.size == 1:
        slope = shortest(float(slopes.read().reshape(-1)[0]))
        if slope >= 0:
            options: dict[str, OptionValue] = {"slope": slope}
            found = t.emit(node, "leaky", [live], t.shape(live), live.view, options=options)
            t.give(node, found)
            return
        width = t.shape(live)[0]
        slopes = slopes.changed((width,), lambda v: np.broadcast_to(v.reshape(-1), (width,)))
    else:
        live, slopes = _along_channels(t, node, live, slopes)
    found = t.emit(node, "prelu", [live], t.shape(live), live.view, tensors={"weight": slopes})
    t.give(node, found)


def _power(t: Translation, node: Operator) -> None:
    """A square, which may be part of a normalisation; and a square root."""
    live, numbers = t.live(node), t.numbers(node, 1)
    if numbers is None or len(numbers) != 1 or float(numbers[0]) not in (2.0, 0.5):
        t.refuse(node, "a power", "")
    word = "square" if float(numbers[0]) == 2 else "sqrt"
    t.give(node, t.emit(node, word, [live], t.shape(live), live.view))


def _softmax(t: Translation, node: Operator) -> None:
    live = t.live(node)
    rank = len(live.view.dims)
    axis = node.attribute("axis", 1 if t.opset < 13 else -1)
    axis += rank if axis < 0 else 0
    dims = live.view.dims
    over = dims[axis:] if t.opset < 13 else dims[axis : axis + 1]
    parts = [part for dim in over for part in dim]
    others = [part for dim in dims for part in dim if part not in parts]
    if all(part.axis == "n" for part in others) and all(part.axis != "n" for part in parts):
        found = t.vector(node, live)
        given = t.emit(node, "softmax", [found], t.shape(found), found.view)
    elif (order := t.order(live)) in ORDERS and parts == [*dims[order.find("c")]]:
        given = t.emit(node, "softmax2d", [live], t.shape(live), live.view)
    else:
        t.refuse(node, f"a `{node.kind}` along axis {axis}", "ours is over all channels")
    if node.kind == "LogSoftmax":
        given = replace(given, after="log")
        t.notes.append("the original gives logarithms of what `softmax` gives here")
    t.give(node, given)


def _argmax(t: Translation, node: Operator) -> None:
    t.notes.append("the original tells the class with the highest score, this net the scores")
    t.give(node, replace(t.live(node), after="argmax"))


# ---------------------------------------------------------------- normalisations


def _batchnorm(t: Translation, node: Operator) -> None:
    if node.attribute("training_mode", 0):
        t.refuse(node, "a batch normalisation that is trained", "export the net for inference")
    live = t.live(node)
    if len(live.view.dims) == 2:
        live = t.vector(node, live)
    order = t.order(live)
    if order not in ("nchw", "nc", "nc11"):
        live, order = t.spatial(node), "nchw"
    width = t.shape(live)[0]
    roles = ("weight", "bias", "running_mean", "running_var")
    tensors = {role: t.weight(node, i) for i, role in enumerate(roles, start=1)}
    if any(tensor.shape != (width,) for tensor in tensors.values()):
        raise ValueError(f"its weights are not one number for each of {width} channels")
    options: dict[str, OptionValue] = {"eps": shortest(node.attribute("epsilon", 1e-5))}
    found = t.emit(
        node, "batchnorm", [live], t.shape(live), live.view, options=options, tensors=tensors
    )
    t.give(node, found)


def _instancenorm(t: Translation, node: Operator) -> None:
    """A normalisation over each channel, or over groups, as PyTorch writes `GroupNorm`."""
    live = t.live(node)
    shape, dims = t.shape(live), live.view.dims
    parts = dims[1] if len(dims) > 1 else ()
    groups = prod(part.size for part in parts)
    inner = shape[0] // groups if groups else 0
    whole = not parts or (
        len(parts) == 1 and parts[0].axis == "c" and parts[0].step == max(1, inner)
    )
    rest = {part.axis for dim in dims[2:] for part in dim}
    if not whole or groups * inner != shape[0] or "n" in rest:
        t.refuse(node, "an `InstanceNormalization` of this shape", "")
    eps = shortest(node.attribute("epsilon", 1e-5))
    scale, bias = t.weight(node, 1), t.weight(node, 2)
    if scale.size != groups or bias.size != groups:
        raise ValueError(f"its weights are not one number for each of {groups} groups")

    def spread(tensor: ForeignTensor) -> ForeignTensor:
        return tensor.changed((shape[0],), lambda v: np.repeat(v.reshape(-1), inner))

    options: dict[str, OptionValue] = {"groups": groups, "eps": eps}
    tensors = {"weight": spread(scale), "bias": spread(bias)}
    found = t.emit(node, "groupnorm", [live], shape, live.view, options=options, tensors=tensors)
    t.give(node, found)


def _groupnorm(t: Translation, node: Operator) -> None:
    live, groups = t.spatial(node), node.attribute("num_groups", 1)
    shape = t.shape(live)
    scale, bias = t.weight(node, 1), t.weight(node, 2)
    if len(shape) != 3 or shape[0] % groups or {scale.size, bias.size} - {groups, shape[0]}:
        t.refuse(node, "a `GroupNormalization` of this shape", "")

    def spread(tensor: ForeignTensor) -> ForeignTensor:
        times = shape[0] // tensor.size
        return tensor.changed((shape[0],), lambda v: np.repeat(v.reshape(-1), times))

    eps = shortest(node.attribute("epsilon", 1e-5))
    options: dict[str, OptionValue] = {"groups": groups, "eps": eps}
    tensors = {"weight": spread(scale), "bias": spread(bias)}
    found = t.emit(node, "groupnorm", [live], shape, live.view, options=options, tensors=tensors)
    t.give(node, found)


def _layernorm(t: Translation, node: Operator) -> None:
    live = t.live(node)
    if len(live.view.dims) == 2:
        live = t.vector(node, live)
    dims, shape = live.view.dims, t.shape(live)
    axis = node.attribute("axis", -1)
    axis += len(dims) if axis < 0 else 0
    over = [part for dim in dims[axis:] for part in dim]
    if t.order(live) not in ("nhwc", "nc", "n11c") or {part.axis for part in over} != {"c"}:
        hint = "`layernorm` is over the channels at each place"
        t.refuse(node, f"a `LayerNormalization` from axis {axis} on", hint)
    width = shape[0]
    scale = t.weight(node, 1)
    bias = t.constant(node, 2) or ForeignTensor.of(np.zeros(width, np.float32))
    if scale.size != width or bias.size != width:
        raise ValueError(f"its weights are not one number for each of {width} channels")
    tensors = {
        role: tensor.changed((width,), lambda v: v.reshape(-1))
        for role, tensor in (("weight", scale), ("bias", bias))
    }
    options: dict[str, OptionValue] = {"eps": shortest(node.attribute("epsilon", 1e-5))}
    found = t.emit(node, "layernorm", [live], shape, live.view, options=options, tensors=tensors)
    t.give(node, found)


def _lrn(t: Translation, node: Operator) -> None:
    live, size = t.spatial(node), node.attribute("size", 0)
    if size < 1:
        raise ValueError(f"its size is {size}")
    options: dict[str, OptionValue] = {
        # ONNX divides alpha by the size; the language does not.
        "alpha": shortest(node.attribute("alpha", 1e-4) / size),
        "beta": shortest(node.attribute("beta", 0.75)),
        "k": shortest(node.attribute("bias", 1.0)),
        "size": size,
    }
    t.give(node, t.emit(node, "lrn", [live], t.shape(live), live.view, options=options))


def _mean(t: Translation, node: Operator) -> None:
    """The mean of several values is their sum, and a factor."""
    _sum(t, node)
    live, share = t.places[node.gives[0]], 1 / len(node.reads)
    assert isinstance(live, Live)
    _give_affine(t, node, live, {"weight": ForeignTensor.of(np.asarray(share, np.float32))})


RULES: Mapping[str, Rule] = {
    "Identity": _same,
    "Cast": _cast,
    "Shape": _shape,
    "Size": _size,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Conv": _conv,
    "ConvTranspose": _deconv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Div": _arithmetic,
    "Sum": _sum,
    "Concat": _concat,
    "Mean": _mean,
    "Relu": _each("relu"),
    "Sigmoid": _each("sigmoid"),
    "Tanh": _each("tanh"),
    "Softplus": _each("softplus"),
    "Mish": _each("mish"),
    "HardSwish": _each("hardswish"),
    "Erf": _each("erf"),
    "Sqrt": _each("sqrt"),
    "LeakyRelu": _sloped("leaky", 0.01),
    "Elu": _sloped("elu", 1.0),
    "Selu": _selu,
    "Celu": _celu,
    "Swish": _swish,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "PRelu": _prelu,
    "Pow": _power,
    "Clip": _clip,
    "Min": _bound,
    "Max": _bound,
    "Dropout": _dropout,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "ArgMax": _argmax,
    "BatchNormalization": _batchnorm,
    "InstanceNormalization": _instancenorm,
    "GroupNormalization": _groupnorm,
    "LayerNormalization": _layernorm,
    "LRN": _lrn,
}
"""What each operator means that reads what depends on the image."""

HINTS: Mapping[str, str] = {
    "LSTM": "nets of ours have no recurrence",
    "GRU": "nets of ours have no recurrence",
    "RNN": "nets of ours have no recurrence",
    "Loop": "nets of ours have no loops",
    "Scan": "nets of ours have no loops",
    "If": "nets of ours have no conditions: export the net with that decided",
    "QuantizeLinear": "give the net before that; `vggc compile --precision int8` quantises",
    "QLinearConv": "give the net before that; `vggc compile --precision int8` quantises",
    "ConvInteger": "give the net before that; `vggc compile --precision int8` quantises",
    "DynamicQuantizeLinear": "give the net before it was quantised",
    "SequenceConstruct": "nets of ours have no sequences",
    "SplitToSequence": "nets of ours have no sequences",
    "NonMaxSuppression": "export the net without what it makes of boxes",
    "TopK": "export the net up to its scores",
    "Split": "`take` takes some of the channels; no word takes some rows or columns",
    "Slice": "`take` takes neighbouring channels; no word takes some rows or columns",
    "Gather": "`take` takes neighbouring channels; no word picks others",
}
"""What can be done where there is no word for an operator."""
