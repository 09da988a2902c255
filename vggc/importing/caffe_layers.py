"""What each kind of Caffe's layers computes, as ONNX operators.

Source: caffe.proto and src/caffe/layers of Caffe 1.0, https://github.com/BVLC/caffe
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.importing.assembly import MAX_SIDE, Wire, swept
from vggc.importing.caffe_net import MOST, CaffeLayer, CaffeNet, Normed, Wanted, sides_text
from vggc.importing.definitions import no_word, wrong
from vggc.importing.foreign import ForeignTensor
from vggc.importing.prototext import Message
from vggc.ir.ops import Pair


def made(net: CaffeNet, layer: CaffeLayer) -> Wire | Normed:
    """What a layer gives.

    Raises: UserError where it cannot be built, or said.
    """
    return RULES.get(layer.kind, _activation)(net, layer)


def sliced(net: CaffeNet, layer: CaffeLayer) -> list[Wire]:
    """The channels that each top of a Slice layer holds: as many each, or as its points say.

    Source: src/caffe/layers/slice_layer.cpp.

    Raises: UserError where the points do not cut the channels in as many parts.
    """
    settings = layer.settings("slice_param")
    (read,) = net.read(layer, 1)
    net.require_axis(layer, settings, "slice_dim" if settings.has("slice_dim") else "axis", read)
    channels, parts = read.shape[1], len(layer.tops)
    points = settings.wholes("slice_point", 1, MAX_SIDE)
    if not points:
        if channels % parts:
            reason = f"{channels} channels come in"
            raise wrong(layer.place, f"`{layer.name}` cannot cut {parts} equal parts", reason)
        points = [index * channels // parts for index in range(1, parts)]
    limits = [0, *points, channels]
    if len(limits) != parts + 1 or any(end <= first for first, end in pairwise(limits)):
        reason = f"{channels} channels come in, and it has {parts} tops"
        raise wrong(layer.place, f"`{layer.name}` cannot be cut at its points", reason)
    if parts == 1:
        return [read]
    cuts = zip(layer.tops, pairwise(limits), strict=True)
    return [net.graph.part(read, first, end, top) for top, (first, end) in cuts]


def _convolution(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("convolution_param")
    read = net.map(layer)
    _, channels, *size = read.shape
    width = settings.whole("num_output", 0, 1, MAX_SIDE)
    depthwise = layer.kind != "Convolution"
    groups = settings.whole("group", channels if depthwise else 1, 1, MAX_SIDE)
    kernel, stride, pad, dilation = net.window(layer, settings)
    if not width or channels % groups or width % groups:
        reason = f"{channels} channels to {width}, in {groups} groups"
        raise wrong(layer.place, f"`{layer.name}` cannot be built", reason)
    rows, columns = swept(_pair(size), kernel, stride, (*pad, *pad), dilation)
    shape = (1, width, rows, columns)
    net.require_sensible(layer, shape)
    weights: list[Wanted] = [("weight", (width, channels // groups, *kernel))]
    reads = net.weights(layer, [*weights, *_bias_of(settings, width)])
    return net.graph.node(
        "Conv", [read, *reads], shape, layer.name, kernel_shape=kernel, strides=stride,
        pads=(*pad, *pad), dilations=dilation, group=groups,
    )  # fmt: skip


def _deconvolution(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("convolution_param")
    read = net.map(layer)
    _, channels, *size = read.shape
    width = settings.whole("num_output", 0, 1, MAX_SIDE)
    groups = settings.whole("group", 1, 1, MAX_SIDE)
    kernel, stride, pad, dilation = net.window(layer, settings)
    if not width or channels % groups or width % groups:
        reason = f"{channels} channels to {width}, in {groups} groups"
        raise wrong(layer.place, f"`{layer.name}` cannot be built", reason)
    parts = zip(size, kernel, stride, pad, dilation, strict=True)
    rows, columns = ((n - 1) * s + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in parts)
    shape = (1, width, rows, columns)
    net.require_sensible(layer, shape)
    weights: list[Wanted] = [("weight", (channels, width // groups, *kernel))]
    reads = net.weights(layer, [*weights, *_bias_of(settings, width)])
    return net.graph.node(
        "ConvTranspose", [read, *reads], shape, layer.name, kernel_shape=kernel,
        strides=stride, pads=(*pad, *pad), dilations=dilation, group=groups,
    )  # fmt: skip


def _inner_product(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("inner_product_param")
    (read,) = net.read(layer, 1)
    net.require_axis(layer, settings, "axis", read)
    width = settings.whole("num_output", 0, 1, MAX_SIDE)
    if not width:
        raise wrong(layer.place, f"`{layer.name}` has no `num_output`", "nothing tells its width")
    is_transposed = settings.flag("transpose", False)
    read = net.graph.flat(read, layer.name)
    features = read.shape[1]
    weight = (features, width) if is_transposed else (width, features)
    net.require_sensible(layer, weight)
    reads = net.weights(layer, [("weight", weight), *_bias_of(settings, width)])
    return net.graph.node(
        "Gemm", [read, *reads], (1, width), layer.name, transB=int(not is_transposed)
    )


def _pooling(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("pooling_param")
    read = net.map(layer)
    _, channels, *size = read.shape
    pool = settings.word("pool", {"MAX": 0, "AVE": 1, "STOCHASTIC": 2}, "MAX")
    if pool == "STOCHASTIC":
        raise no_word(layer.place, "stochastic pooling of Caffe's", f"`{layer.name}` pools so")
    kind = "MaxPool" if pool == "MAX" else "AveragePool"
    if settings.flag("global_pooling", False):
        shape = (1, channels, 1, 1)
        return net.graph.node(f"Global{kind}", [read], shape, layer.name)
    kernel, stride, pad, _ = net.window(layer, settings)
    rounding = settings.word("round_mode", {"CEIL": 0, "FLOOR": 1}, "CEIL")
    is_up = settings.flag("ceil_mode", rounding == "CEIL")
    for n, k, s, p in zip(size, kernel, stride, pad, strict=True):
        if p >= k or (not p and is_up and s > k and -(-(n - k) // s) * s >= n):
            reason = f"{k} wide, {s} apart, over {n} and {p} on each side"
            raise wrong(layer.place, f"`{layer.name}` has windows beyond the map", reason)
    rows, columns = (
        _windows(n, k, s, p, is_up) for n, k, s, p in zip(size, kernel, stride, pad, strict=True)
    )
    shape = (1, channels, rows, columns)
    net.require_sensible(layer, shape)
    reaches_beyond = (rows, columns) != swept(_pair(size), kernel, stride, (*pad, *pad))
    counting = {} if pool == "MAX" else {"count_include_pad": 1}
    return net.graph.node(
        kind, [read], shape, layer.name, kernel_shape=kernel, strides=stride,
        pads=(*pad, *pad), ceil_mode=int(reaches_beyond), **counting,
    )  # fmt: skip


def _batch_norm(net: CaffeNet, layer: CaffeLayer) -> Wire | Normed:
    settings = layer.settings("batch_norm_param")
    if not settings.flag("use_global_stats", True):
        reason = f"`{layer.name}` takes the statistics of each batch"
        raise no_word(layer.place, "BatchNorm with `use_global_stats: false`", reason)
    epsilon = settings.real("eps", 1e-5)
    (read,) = net.read(layer, 1)
    channels = read.shape[1]
    mean, variance, factor = net.tensors(
        layer, [("mean", (channels,)), ("variance", (channels,)), ("factor", (1,))]
    )
    normed = Normed(read, _divided(mean, factor), _divided(variance, factor), epsilon)
    match net.readers[layer.index]:
        case [CaffeLayer(kind="Scale", bottoms=[_]) as scale] if _is_per_channel(scale):
            return normed
        case _:
            pass
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    return _normalised(net, layer, normed, ForeignTensor.of(ones), ForeignTensor.of(zeros))


def _normalised(
    net: CaffeNet, layer: CaffeLayer, normed: Normed, scale: ForeignTensor, bias: ForeignTensor
) -> Wire:
    named = {"scale": scale, "bias": bias, "mean": normed.mean, "variance": normed.variance}
    reads = [net.graph.tensor(f"{layer.name}.{role}", tensor) for role, tensor in named.items()]
    return net.graph.node(
        "BatchNormalization", [normed.read, *reads], normed.read.shape, layer.name,
        epsilon=normed.epsilon,
    )  # fmt: skip


def _scale(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("scale_param")
    if len(layer.bottoms) == 2:
        return _with_other(net, layer, settings, "Mul")
    made = net.wires.get(layer.bottoms[0])
    read = made.read if isinstance(made, Normed) else net.read(layer, 1)[0]
    channels = _channels_covered(net, layer, settings, read)
    has_bias = settings.flag("bias_term", False)
    wanted: list[Wanted] = [
        ("weight", (channels,)),
        *([("bias", (channels,))] if has_bias else []),
    ]
    tensors = net.tensors(layer, wanted)
    if isinstance(made, Normed):
        net.read_once(layer.bottoms[0])
        zeros = ForeignTensor.of(np.zeros(channels, np.float32))
        return _normalised(net, layer, made, tensors[0], tensors[1] if has_bias else zeros)
    read = _by_channel(net, layer, "Mul", read, "weight", tensors[0])
    return _by_channel(net, layer, "Add", read, "bias", tensors[1]) if has_bias else read


def _bias(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("bias_param")
    if len(layer.bottoms) == 2:
        return _with_other(net, layer, settings, "Add")
    (read,) = net.read(layer, 1)
    channels = _channels_covered(net, layer, settings, read)
    (bias,) = net.tensors(layer, [("bias", (channels,))])
    return _by_channel(net, layer, "Add", read, "bias", bias)


def _with_other(net: CaffeNet, layer: CaffeLayer, settings: Message, op: str) -> Wire:
    """One bottom times, or plus, a second one, which has a number for each channel."""
    read, other = net.read(layer, 2)
    channels = read.shape[1]
    fitting = (read.shape, (1, channels), (1, channels, 1, 1))
    if settings.whole("axis", 1, -4, 3) % len(read.shape) or other.shape not in fitting:
        reason = f"`{layer.name}` reads {sides_text(read.shape)} and {sides_text(other.shape)}"
        raise no_word(layer.place, f"{layer.kind} of two that differ so", reason)
    if len(other.shape) == 2 and read.is_map:
        sides = net.graph.numbers(f"{layer.name}.shape", (1, channels, 1, 1), np.int64)
        shape = (1, channels, 1, 1)
        other = net.graph.node("Reshape", [other, sides], shape, f"{layer.name}.map")
    return net.graph.node(op, [read, other], read.shape, layer.name)


def _channels_covered(net: CaffeNet, layer: CaffeLayer, settings: Message, read: Wire) -> int:
    """The channels of what a layer has a number for each."""
    net.require_axis(layer, settings, "axis", read)
    if settings.whole("num_axes", 1, -1, 4) != 1:
        reason = f"`{layer.name}` covers other axes"
        raise no_word(layer.place, f"{layer.kind} but of each channel", reason)
    return read.shape[1]


def _by_channel(
    net: CaffeNet, layer: CaffeLayer, op: str, read: Wire, role: str, tensor: ForeignTensor
) -> Wire:
    shape = (tensor.size, 1, 1) if read.is_map else (tensor.size,)
    spread = tensor.changed(shape, lambda values: values.reshape(shape))
    name = net.graph.tensor(f"{layer.name}.{role}", spread)
    return net.graph.node(op, [read, name], read.shape, layer.name)


def _lrn(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("lrn_param")
    read = net.map(layer)
    regions = {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1}
    if settings.word("norm_region", regions, "ACROSS_CHANNELS") != "ACROSS_CHANNELS":
        raise no_word(layer.place, "LRN within channels", f"`{layer.name}` sums over places")
    size = settings.whole("local_size", 5, 1, MAX_SIDE)
    if size % 2 == 0:
        place = settings.places("local_size")[0]
        raise wrong(place, "`local_size` is odd", "Caffe refuses this, too")
    return net.graph.node(
        "LRN", [read], read.shape, layer.name, size=size, alpha=settings.real("alpha", 1.0),
        beta=settings.real("beta", 0.75), bias=settings.real("k", 1.0),
    )  # fmt: skip


def _concat(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("concat_param")
    reads = net.read(layer)
    first = reads[0]
    key = "concat_dim" if settings.has("concat_dim") else "axis"
    net.require_axis(layer, settings, key, first)
    if any(each.shape[2:] != first.shape[2:] for each in reads):
        reason = ", ".join(sides_text(each.shape) for each in reads)
        raise wrong(layer.place, f"`{layer.name}` concatenates maps of several sizes", reason)
    shape = (1, sum(each.shape[1] for each in reads), *first.shape[2:])
    net.require_sensible(layer, shape)
    if len(reads) == 1:
        return first
    return net.graph.node("Concat", reads, shape, layer.name, axis=1)


def _eltwise(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("eltwise_param")
    reads = net.read(layer)
    operation = settings.word("operation", {"PROD": 0, "SUM": 1, "MAX": 2}, "SUM")
    if len(reads) < 2 or any(each.shape != reads[0].shape for each in reads):
        reason = ", ".join(sides_text(each.shape) for each in reads)
        raise wrong(layer.place, f"`{layer.name}` wants several of one shape", reason)
    if operation == "MAX":
        raise no_word(layer.place, "Eltwise MAX", f"`{layer.name}` takes the larger")
    if operation == "SUM":
        if any(factor != 1 for factor in settings.reals("coeff")):
            place = settings.places("coeff")[0]
            raise no_word(
                place, "Eltwise SUM with coefficients", f"`{layer.name}` has other than 1"
            )
        return net.graph.node("Sum", reads, reads[0].shape, layer.name)
    product, *others = reads
    for each in others:
        product = net.graph.node("Mul", [product, each], each.shape, layer.name)
    return product


def _softmax(net: CaffeNet, layer: CaffeLayer) -> Wire:
    (read,) = net.read(layer, 1)
    net.require_axis(layer, layer.settings("softmax_param"), "axis", read)
    if read.shape[2:] == (1, 1):
        read = net.graph.flat(read, layer.name)
    return net.graph.node("Softmax", [read], read.shape, layer.name, axis=1)


def _flatten(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("flatten_param")
    (read,) = net.read(layer, 1)
    net.require_axis(layer, settings, "axis", read)
    if settings.whole("end_axis", -1, -4, 3) % len(read.shape) != len(read.shape) - 1:
        raise no_word(layer.place, "Flatten of some axes", f"`{layer.name}` keeps others")
    return net.graph.flat(read, layer.name)


def _reshape(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("reshape_param")
    (read,) = net.read(layer, 1)
    given = (net.batch, *read.shape[1:])
    whole = (settings.whole("axis", 0, -5, 4), settings.whole("num_axes", -1, -1, 4))
    sides = settings.message("shape").wholes("dim", -1, MOST)
    wanted = [given[at] if side == 0 and at < 4 else side for at, side in enumerate(sides[:4])]
    if -1 in wanted:
        known = prod(side for side in wanted if side != -1)
        wanted[wanted.index(-1)] = prod(given) // max(1, known)
    if tuple(wanted) == given and whole == (0, -1):
        return read
    if wanted != [net.batch, prod(read.shape)] or len(sides) != 2 or whole != (0, -1):
        text = f"{sides_text(read.shape)} to {sides_text(sides)}"
        raise no_word(layer.place, "Reshape but to a vector", f"`{layer.name}` makes {text}")
    return net.graph.flat(read, layer.name)


def _dropout(net: CaffeNet, layer: CaffeLayer) -> Wire:
    settings = layer.settings("dropout_param")
    (read,) = net.read(layer, 1)
    share = settings.real("dropout_ratio", 0.5)
    if not 0 <= share < 1:
        place = settings.places("dropout_ratio")[0]
        raise wrong(place, "`dropout_ratio` is from 0 to less than 1", "this is not")
    ratio = net.graph.numbers(f"{layer.name}.ratio", share)
    return net.graph.node("Dropout", [read, ratio], read.shape, layer.name)


def _power(net: CaffeNet, layer: CaffeLayer) -> Wire:
    """(shift + scale·x) to a power."""
    settings = layer.settings("power_param")
    (read,) = net.read(layer, 1)
    power = settings.real("power", 1.0)
    if power != 1:
        raise no_word(layer.place, f"Power with `power: {power:g}`", f"`{layer.name}` is no line")
    for op, value, idle in (
        ("Mul", settings.real("scale", 1.0), 1.0),
        ("Add", settings.real("shift", 0.0), 0.0),
    ):
        if value != idle:
            number = net.graph.numbers(f"{layer.name}.{op.lower()}", value)
            read = net.graph.node(op, [read, number], read.shape, layer.name)
    return read


def _activation(net: CaffeNet, layer: CaffeLayer) -> Wire:
    (read,) = net.read(layer, 1)
    name, shape = layer.name, read.shape
    match layer.kind:
        case "ReLU":
            slope = layer.settings("relu_param").real("negative_slope", 0.0)
            if slope:
                return net.graph.node("LeakyRelu", [read], shape, name, alpha=slope)
            return net.graph.node("Relu", [read], shape, name)
        case "PReLU":
            is_shared = layer.settings("prelu_param").flag("channel_shared", False)
            (slopes,) = net.tensors(layer, [("slope", (1 if is_shared else shape[1],))])
            return _by_channel(net, layer, "PRelu", read, "slope", slopes)
        case "ELU":
            alpha = layer.settings("elu_param").real("alpha", 1.0)
            return net.graph.node("Elu", [read], shape, name, alpha=alpha)
        case "Sigmoid" | "TanH" as kind:
            layer.settings(f"{kind.lower()}_param")
            return net.graph.node(kind.capitalize(), [read], shape, name)
        case "BNLL":
            return net.graph.node("Softplus", [read], shape, name)
        case "ReLU6":
            return _clipped(net, layer, read, 0.0, 6.0)
        case "Clip":
            settings = layer.settings("clip_param")
            if not settings.has("min") or not settings.has("max"):
                raise wrong(layer.place, f"`{name}` has no `min` or no `max`", "Caffe wants both")
            low, high = settings.real("min", 0.0), settings.real("max", 0.0)
            return _clipped(net, layer, read, low, high)
        case "Swish":
            if layer.settings("swish_param").real("beta", 1.0) != 1:
                raise no_word(layer.place, "Swish with another `beta`", f"`{name}` has one")
            gate = net.graph.node("Sigmoid", [read], shape, f"{name}.gate")
            return net.graph.node("Mul", [read, gate], shape, name)
        case _:
            raise no_word(layer.place, f"layers of type {layer.kind}", f"`{name}` is one")


def _clipped(net: CaffeNet, layer: CaffeLayer, read: Wire, low: float, high: float) -> Wire:
    limits = [
        net.graph.numbers(f"{layer.name}.{role}", value)
        for role, value in (("min", low), ("max", high))
    ]
    return net.graph.node("Clip", [read, *limits], read.shape, layer.name)


def _is_per_channel(scale: CaffeLayer) -> bool:
    settings = scale.settings("scale_param")
    return settings.whole("axis", 1, -4, 3) == 1 and settings.whole("num_axes", 1, -1, 4) == 1


def _bias_of(settings: Message, width: int) -> list[Wanted]:
    """The bias of a layer, which it has unless it says otherwise."""
    return [("bias", (width,))] if settings.flag("bias_term", True) else []


def _divided(sums: ForeignTensor, factor: ForeignTensor) -> ForeignTensor:
    """Statistics, of which Caffe keeps a sum and what it is to be divided by; 0 means nothing."""

    def change(values: NDArray[np.float32]) -> NDArray[np.float32]:
        (by,) = factor.read()
        return np.zeros_like(values) if by == 0 else values * (np.float32(1) / by)

    return sums.changed(sums.shape, change)


def _windows(size: int, kernel: int, stride: int, pad: int, is_up: bool) -> int:
    """Windows in a row of pooling. Source: PoolingLayer::Reshape in pooling_layer.cpp."""
    room = size + 2 * pad - kernel
    count = (-(-room // stride) if is_up else room // stride) + 1
    return count - 1 if pad and (count - 1) * stride >= size + pad else count


def _pair(sides: Iterable[int]) -> Pair:
    rows, columns = sides
    return rows, columns


CaffeRule: TypeAlias = Callable[[CaffeNet, CaffeLayer], Wire | Normed]

RULES: Mapping[str, CaffeRule] = {
    "BatchNorm": _batch_norm,
    "Bias": _bias,
    "Concat": _concat,
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "Deconvolution": _deconvolution,
    "DepthwiseConvolution": _convolution,
    "Dropout": _dropout,
    "Eltwise": _eltwise,
    "Flatten": _flatten,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "Pooling": _pooling,
    "Power": _power,
    "Reshape": _reshape,
    "Scale": _scale,
    "Softmax": _softmax,
}
"""What each kind of layer computes, but those that `_activation` knows."""
