"""Caffe's nets: a definition (`deploy.prototxt`) and its weights (`.caffemodel`), both generations.

Source: caffe.proto and the layers of Caffe 1.0, https://github.com/BVLC/caffe
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.importing.assembly import MAX_LAYERS, MAX_SIDE, Assembly, Wire, is_sensible, swept
from vggc.importing.caffe_wire import Blob, blobs_in
from vggc.importing.definitions import NumbersUnfit, no_word, wrong
from vggc.importing.foreign import Foreign, ForeignTensor
from vggc.importing.numbers_file import FLOAT32, NumbersFile, absent
from vggc.importing.prototext import Message, Scalar, read_message
from vggc.ir.ops import Pair, Shape
from vggc.preprocessing.presets import CAFFE, COLOURS
from vggc.support.diagnostics import UserError, did_you_mean, listed
from vggc.support.source import Span
from vggc.weight_files.facts import WeightFacts
from vggc_runtime.files import sha256
from vggc_runtime.preprocessing import Preprocessing

V1_WORDS = """
ABSVAL ACCURACY ARGMAX BNLL CONCAT CONTRASTIVE_LOSS CONVOLUTION DATA DECONVOLUTION DROPOUT
DUMMY_DATA EUCLIDEAN_LOSS ELTWISE EXP FLATTEN HDF5_DATA HDF5_OUTPUT HINGE_LOSS IM2COL IMAGE_DATA
INFOGAIN_LOSS INNER_PRODUCT LRN MEMORY_DATA MULTINOMIAL_LOGISTIC_LOSS MVN POOLING POWER RELU SIGMOID
SIGMOID_CROSS_ENTROPY_LOSS SILENCE SLICE SOFTMAX SOFTMAX_LOSS SPLIT TANH THRESHOLD WINDOW_DATA
""".split()  # noqa: SIM905
V1_KINDS = {word: word.title().replace("_", "") for word in V1_WORDS} | {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
"""The kinds of layers of the first generation, and what the second calls them."""

SOURCES = ("Data", "ImageData", "MemoryData", "HDF5Data", "WindowData", "DummyData")
"""Layers that give pictures in training."""
FOR_TRAINING = (
    *("Accuracy", "ContrastiveLoss", "EuclideanLoss", "HingeLoss", "InfogainLoss"),
    *("MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss", "Silence"),
    "HDF5Output",
)
"""Layers that nothing is taken from where a net is used."""

PHASES = {"TRAIN": 0, "TEST": 1}
ENGINES = {"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2}
FILLED = ("bias_filler", "bias_term", "weight_filler")
SQUARES = ("kernel_size", "kernel_h", "kernel_w", "pad", "pad_h", "pad_w")
STEPS = ("stride", "stride_h", "stride_w", "engine")
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "batch_norm_param": ("use_global_stats", "moving_average_fraction", "eps", "engine"),
    "bias_param": ("axis", "num_axes", "filler"),
    "clip_param": ("min", "max"),
    "concat_param": ("axis", "concat_dim"),
    "convolution_param": (
        *("num_output", "group", "dilation", "axis", "force_nd_im2col"),
        *(*FILLED, *SQUARES, *STEPS),
    ),
    "dropout_param": ("dropout_ratio", "scale_train"),
    "eltwise_param": ("operation", "coeff", "stable_prod_grad"),
    "elu_param": ("alpha",),
    "flatten_param": ("axis", "end_axis"),
    "inner_product_param": (*FILLED, "num_output", "axis", "transpose"),
    "input_param": ("shape",),
    "lrn_param": ("local_size", "alpha", "beta", "norm_region", "k", "engine"),
    "pooling_param": (*SQUARES, *STEPS, "pool", "global_pooling", "round_mode", "ceil_mode"),
    "power_param": ("power", "scale", "shift"),
    "prelu_param": ("filler", "channel_shared"),
    "relu_param": ("negative_slope", "engine"),
    "reshape_param": ("shape", "axis", "num_axes"),
    "scale_param": (*FILLED, "axis", "num_axes", "filler"),
    "sigmoid_param": ("engine",),
    "softmax_param": ("engine", "axis"),
    "swish_param": ("beta",),
    "tanh_param": ("engine",),
}
"""The fields of each layer's settings that are known."""

MOST = (1 << 31) - 1

Wanted: TypeAlias = tuple[str, Shape]
"""An array that a layer has: what it is to the layer, and its shape."""


@dataclass(frozen=True)
class CaffeLayer:
    """A layer of the net as it is used, of the kind that the second generation calls it."""

    index: int
    name: str
    kind: str
    message: Message
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]

    @property
    def place(self) -> Span:
        """Where it begins in the text."""
        return self.message.place

    def settings(self, key: str) -> Message:
        """One of its messages of settings, whose fields are all known.

        Raises: UserError where one is not.
        """
        found = self.message.message(key)
        found.require_known(SETTINGS[key], f"`{key}`")
        return found


@dataclass(frozen=True)
class Normed:
    """A normalisation whose trained scale stands in the next layer."""

    read: Wire
    mean: ForeignTensor
    variance: ForeignTensor
    epsilon: float


def read_caffe(definition: Path, weights: Path | None = None) -> Foreign:
    """The net that a prototxt defines, as it is used (phase TEST), with the weights of a
    caffemodel, or without any.

    Raises: UserError where a file is broken, the two do not belong together, or a layer is none
    that nets of the language have.
    """
    net = read_message(definition)
    numbers = None if weights is None else NumbersFile.at(weights)
    reader = _CaffeNet(net, numbers)
    outputs = reader.built()
    return Foreign(
        model=reader.graph.model(outputs),
        tensors=reader.graph.read_tensors(),
        name=net.text("name") or definition.stem,
        files=tuple(str(each) for each in (definition, weights) if each is not None),
        sha256=sha256(definition),
        facts=reader.facts(),
        no_engine="Caffe is not at hand",
        notes=tuple(reader.notes),
        has_weights=weights is not None,
    )


class _CaffeNet:
    """Makes a graph of one definition, layer by layer."""

    def __init__(self, net: Message, numbers: NumbersFile | None) -> None:
        self.net = net
        self.numbers = numbers
        self.blobs = {} if numbers is None else blobs_in(numbers)
        self.graph = Assembly()
        self.notes: list[str] = []
        self.wires: dict[str, Wire | Normed] = {}
        self.makers: dict[str, CaffeLayer] = {}
        self.unread: dict[str, None] = {}
        self.labels: set[str] = set()
        self.batch = 1
        layers = list(self._all_layers())
        self.layers = self._used(layers)
        self.transform = _transform(layers, self.layers)
        self.readers = self._readers()

    def built(self) -> list[Wire]:
        """The net's outputs, once all layers are in the graph."""
        self._declare_inputs()
        for layer in self.layers:
            self._add(layer)
        if not self.graph.inputs:
            raise wrong(self.net.place, "no layer gives pictures", "a net has an input")
        made = [found for top in self.unread if isinstance(found := self.wires[top], Wire)]
        outputs = [each for each in made if each not in self.graph.inputs]
        if not self.graph.nodes or not outputs:
            raise wrong(self.net.place, "the net has no layers", "nothing is computed")
        others = sorted(self.blobs.keys() - {layer.name for layer in self.layers})
        if others:
            self.notes.append(f"weights of layers that the definition has not: {listed(others)}")
        return outputs

    def facts(self) -> WeightFacts:
        """How pictures are prepared, as `transform_param` tells, or as most nets of Caffe have it.

        Source: DataTransformer::Transform in data_transformer.cpp: (value − mean) · scale, of
        values from 0 to 255, in BGR.
        """
        _, channels, height, width = self.graph.inputs[0].shape
        told = self.transform
        if told.has("mean_file"):
            self.notes.append(f"the mean in {told.text('mean_file')} is not read")
        means, scale = told.reals("mean_value"), told.real("scale", 1.0)
        if not means and not told.has("scale"):
            if channels != COLOURS:
                return WeightFacts()
            self.notes.append("nothing tells how pictures are prepared: BGR less ImageNet's mean")
            return WeightFacts(CAFFE.at((channels, height, width)))
        if len(means) not in (0, 1, channels):
            place = told.places("mean_value")[0]
            raise wrong(place, f"{len(means)} `mean_value`", f"there are {channels} channels")
        if scale <= 0:
            raise wrong(told.places("scale")[0], "`scale` is above 0", "this is not")
        means = (means or [0.0]) * (channels if len(means) < 2 else 1)
        how = Preprocessing(
            size=(height, width),
            scale=CAFFE.at((COLOURS, height, width)).scale,
            mean=tuple(mean / 255 for mean in means),
            std=(1 / (255 * scale),) * channels,
            order="bgr" if channels == COLOURS else "rgb",
        )
        if problem := how.problem((channels, height, width)):
            raise wrong(told.place, "`transform_param` is out of range", problem)
        return WeightFacts(how)

    # -- which layers there are

    def _all_layers(self) -> Iterable[CaffeLayer]:
        old, new = self.net.messages("layers"), self.net.messages("layer")
        if not old and not new:
            known = "a definition of Caffe's has `layer { … }`"
            raise wrong(self.net.place, "there is no layer in this text", "expected a net", known)
        if old and new:
            reason = "the others are `layer`" if old[0].place.start > new[0].place.start else ""
            raise wrong(
                old[0].place, "`layer` and `layers` in one net", reason or "one of each kind"
            )
        if len(old or new) > MAX_LAYERS:
            place = (old or new)[MAX_LAYERS].place
            raise wrong(place, f"a net of more than {MAX_LAYERS:,} layers", "this is one too many")
        for index, each in enumerate(old or new):
            yield CaffeLayer(
                index=index,
                name=each.text("name"),
                kind=_kind(each, is_old=bool(old)),
                message=each,
                bottoms=tuple(each.texts("bottom")),
                tops=tuple(each.texts("top")),
            )

    def _used(self, layers: list[CaffeLayer]) -> list[CaffeLayer]:
        """The layers of phase TEST but those that only train; the others are told."""
        used = [each for each in layers if _is_included(each.message)]
        kept = [each for each in used if each.kind not in FOR_TRAINING]
        there = {each.index for each in kept}
        gone = [each.name or each.kind for each in layers if each.index not in there]
        if gone:
            self.notes.append(f"left out, as they serve training only: {listed(gone)}")
        names = Counter(each.name for each in kept)
        for each in kept:
            if names[each.name] > 1 and each.name in self.blobs:
                raise wrong(
                    each.place, f"two layers are called `{each.name}`", "this is one of them"
                )
        return kept

    def _readers(self) -> dict[int, list[CaffeLayer]]:
        """Who reads what each layer makes, by the layer's index."""
        makers: dict[str, int] = {}
        found: dict[int, list[CaffeLayer]] = {each.index: [] for each in self.layers}
        for layer in self.layers:
            for bottom in layer.bottoms:
                if bottom in makers:
                    found[makers[bottom]].append(layer)
            makers |= dict.fromkeys(layer.tops, layer.index)
        return found

    # -- inputs

    def _declare_inputs(self) -> None:
        names = self.net.texts("input")
        sides = self.net.wholes("input_dim", 0, MOST)
        shapes = [each.wholes("dim", 0, MOST) for each in self.net.messages("input_shape")]
        shapes = shapes or [sides[at : at + 4] for at in range(0, len(sides), 4)]
        for index, name in enumerate(names):
            place = self.net.places("input")[index]
            if index >= len(shapes):
                raise wrong(place, f"the input `{name}` has no shape", "expected four `input_dim`")
            self._give(name, self._input(name, shapes[index], place))

    def _input(self, name: str, sides: list[int], place: Span) -> Wire:
        """An input of pictures, of which one is computed at a time."""
        if self.graph.inputs:
            raise no_word(place, "a net of several inputs", f"`{name}` is a second one")
        shape = (1, *sides[1:])
        if len(sides) != 4 or not is_sensible(shape):
            text = "×".join(map(str, sides))
            reason = "expected images, channels, rows and columns, each 1 at least"
            raise wrong(place, f"the input `{name}` is of {text or 'no'} numbers", reason)
        self.batch = max(1, sides[0])
        return self.graph.image(name, shape)

    def _source(self, layer: CaffeLayer) -> None:
        """A layer that gives pictures and labels."""
        if layer.kind == "Input":
            shapes = layer.settings("input_param").messages("shape")
            if not shapes:
                raise wrong(
                    layer.place, f"the input `{layer.name}` has no shape", "expected `shape`"
                )
            for index, top in enumerate(layer.tops):
                sides = shapes[min(index, len(shapes) - 1)].wholes("dim", 0, MOST)
                self._give(top, self._input(top, sides, layer.place))
            return
        if not layer.tops:
            raise wrong(layer.place, f"`{layer.name}` gives nothing", "expected `top`")
        crop = layer.message.message("transform_param").whole("crop_size", 0, 0, MAX_SIDE)
        if not crop:
            reason = "no `crop_size` tells it"
            hint = "a deploy.prototxt has the shape: `input_param { shape: { dim: 1 dim: 3 … } }`"
            raise wrong(layer.place, f"the size of the pictures of `{layer.name}`", reason, hint)
        top, *labels = layer.tops
        self.labels.update(labels)
        sides = [1, self._channels_of(top), crop, crop]
        self.notes.append(f"pictures are of {sides[1]} × {crop} × {crop}, as `crop_size` tells")
        self._give(top, self._input(top, sides, layer.place))

    def _channels_of(self, top: str) -> int:
        """The channels of pictures whose layer does not tell them: what their first reader's
        weights have; 3 without any.
        """
        for layer in self.layers:
            if top in layer.bottoms and layer.kind == "Convolution" and layer.name in self.blobs:
                shape = self.blobs[layer.name][0].shape
                settings = layer.settings("convolution_param")
                if len(shape) == 4:
                    return shape[1] * settings.whole("group", 1, 1, MAX_SIDE)
        return 3

    # -- layers

    def _add(self, layer: CaffeLayer) -> None:
        if layer.kind == "Input" or layer.kind in SOURCES:
            self._source(layer)
            return
        if not layer.bottoms or not layer.tops:
            missing = "top" if layer.bottoms else "bottom"
            raise wrong(
                layer.place, f"`{layer.name}` has no `{missing}`", "nothing tells what it reads"
            )
        if layer.kind == "Split":
            (read,) = self._read(layer, 1)
            for top in layer.tops:
                self._give(top, read, layer)
            return
        if layer.kind == "Slice":
            raise no_word(layer.place, "Slice", f"`{layer.name}` takes channels apart")
        if len(layer.tops) > 1:
            raise no_word(
                layer.place, f"{layer.kind} with several tops", f"`{layer.name}` has such a layer"
            )
        self._give(layer.tops[0], self._made(layer), layer)

    def _made(self, layer: CaffeLayer) -> Wire | Normed:
        match layer.kind:
            case "Convolution" | "DepthwiseConvolution" | "ConvolutionDepthwise":
                return self._convolution(layer)
            case "Deconvolution":
                return self._deconvolution(layer)
            case "InnerProduct":
                return self._inner_product(layer)
            case "Pooling":
                return self._pooling(layer)
            case "BatchNorm":
                return self._batch_norm(layer)
            case "Scale":
                return self._scale(layer)
            case "Bias":
                return self._bias(layer)
            case "LRN":
                return self._lrn(layer)
            case "Concat":
                return self._concat(layer)
            case "Eltwise":
                return self._eltwise(layer)
            case "Softmax":
                return self._softmax(layer)
            case "Flatten":
                return self._flatten(layer)
            case "Reshape":
                return self._reshape(layer)
            case "Dropout":
                return self._dropout(layer)
            case "Power":
                return self._power(layer)
            case _:
                return self._activation(layer)

    def _convolution(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("convolution_param")
        read = self._map(layer)
        _, channels, *size = read.shape
        width = settings.whole("num_output", 0, 1, MAX_SIDE)
        depthwise = layer.kind != "Convolution"
        groups = settings.whole("group", channels if depthwise else 1, 1, MAX_SIDE)
        kernel, stride, pad, dilation = self._window(layer, settings)
        if not width or channels % groups or width % groups:
            reason = f"{channels} channels to {width}, in {groups} groups"
            raise wrong(layer.place, f"`{layer.name}` cannot be built", reason)
        rows, columns = swept(_pair(size), kernel, stride, (*pad, *pad), dilation)
        shape = (1, width, rows, columns)
        self._require_sensible(layer, shape)
        weights: list[Wanted] = [("weight", (width, channels // groups, *kernel))]
        reads = self._weights(layer, [*weights, *_bias(settings, width)])
        return self.graph.node(
            "Conv", [read, *reads], shape, layer.name, kernel_shape=kernel, strides=stride,
            pads=(*pad, *pad), dilations=dilation, group=groups,
        )  # fmt: skip

    def _deconvolution(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("convolution_param")
        read = self._map(layer)
        _, channels, *size = read.shape
        width = settings.whole("num_output", 0, 1, MAX_SIDE)
        groups = settings.whole("group", 1, 1, MAX_SIDE)
        kernel, stride, pad, dilation = self._window(layer, settings)
        if not width or channels % groups or width % groups:
            reason = f"{channels} channels to {width}, in {groups} groups"
            raise wrong(layer.place, f"`{layer.name}` cannot be built", reason)
        parts = zip(size, kernel, stride, pad, dilation, strict=True)
        rows, columns = ((n - 1) * s + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in parts)
        shape = (1, width, rows, columns)
        self._require_sensible(layer, shape)
        weights: list[Wanted] = [("weight", (channels, width // groups, *kernel))]
        reads = self._weights(layer, [*weights, *_bias(settings, width)])
        return self.graph.node(
            "ConvTranspose", [read, *reads], shape, layer.name, kernel_shape=kernel,
            strides=stride, pads=(*pad, *pad), dilations=dilation, group=groups,
        )  # fmt: skip

    def _inner_product(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("inner_product_param")
        (read,) = self._read(layer, 1)
        self._require_axis(layer, settings, "axis", read)
        width = settings.whole("num_output", 0, 1, MAX_SIDE)
        if not width:
            raise wrong(
                layer.place, f"`{layer.name}` has no `num_output`", "nothing tells its width"
            )
        is_transposed = settings.flag("transpose", False)
        read = self.graph.flat(read, layer.name)
        features = read.shape[1]
        weight = (features, width) if is_transposed else (width, features)
        self._require_sensible(layer, weight)
        reads = self._weights(layer, [("weight", weight), *_bias(settings, width)])
        return self.graph.node(
            "Gemm", [read, *reads], (1, width), layer.name, transB=int(not is_transposed)
        )

    def _pooling(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("pooling_param")
        read = self._map(layer)
        _, channels, *size = read.shape
        pool = settings.word("pool", {"MAX": 0, "AVE": 1, "STOCHASTIC": 2}, "MAX")
        if pool == "STOCHASTIC":
            raise no_word(layer.place, "stochastic pooling of Caffe's", f"`{layer.name}` pools so")
        kind = "MaxPool" if pool == "MAX" else "AveragePool"
        if settings.flag("global_pooling", False):
            shape = (1, channels, 1, 1)
            return self.graph.node(f"Global{kind}", [read], shape, layer.name)
        kernel, stride, pad, _ = self._window(layer, settings)
        rounding = settings.word("round_mode", {"CEIL": 0, "FLOOR": 1}, "CEIL")
        is_up = settings.flag("ceil_mode", rounding == "CEIL")
        for n, k, s, p in zip(size, kernel, stride, pad, strict=True):
            if p >= k or (not p and is_up and s > k and -(-(n - k) // s) * s >= n):
                reason = f"{k} wide, {s} apart, over {n} and {p} on each side"
                raise wrong(layer.place, f"`{layer.name}` has windows beyond the map", reason)
        rows, columns = (
            _windows(n, k, s, p, is_up)
            for n, k, s, p in zip(size, kernel, stride, pad, strict=True)
        )
        shape = (1, channels, rows, columns)
        self._require_sensible(layer, shape)
        reaches_beyond = (rows, columns) != swept(_pair(size), kernel, stride, (*pad, *pad))
        counting = {} if pool == "MAX" else {"count_include_pad": 1}
        return self.graph.node(
            kind, [read], shape, layer.name, kernel_shape=kernel, strides=stride,
            pads=(*pad, *pad), ceil_mode=int(reaches_beyond), **counting,
        )  # fmt: skip

    def _batch_norm(self, layer: CaffeLayer) -> Wire | Normed:
        settings = layer.settings("batch_norm_param")
        if not settings.flag("use_global_stats", True):
            reason = f"`{layer.name}` takes the statistics of each batch"
            raise no_word(layer.place, "BatchNorm with `use_global_stats: false`", reason)
        epsilon = settings.real("eps", 1e-5)
        (read,) = self._read(layer, 1)
        channels = read.shape[1]
        mean, variance, factor = self._tensors(
            layer, [("mean", (channels,)), ("variance", (channels,)), ("factor", (1,))]
        )
        normed = Normed(read, _divided(mean, factor), _divided(variance, factor), epsilon)
        match self.readers[layer.index]:
            case [CaffeLayer(kind="Scale", bottoms=[_]) as scale] if _is_per_channel(scale):
                return normed
            case _:
                pass
        ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        return self._normalised(layer, normed, ForeignTensor.of(ones), ForeignTensor.of(zeros))

    def _normalised(
        self, layer: CaffeLayer, normed: Normed, scale: ForeignTensor, bias: ForeignTensor
    ) -> Wire:
        named = {"scale": scale, "bias": bias, "mean": normed.mean, "variance": normed.variance}
        reads = [
            self.graph.tensor(f"{layer.name}.{role}", tensor) for role, tensor in named.items()
        ]
        return self.graph.node(
            "BatchNormalization", [normed.read, *reads], normed.read.shape, layer.name,
            epsilon=normed.epsilon,
        )  # fmt: skip

    def _scale(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("scale_param")
        if len(layer.bottoms) == 2:
            return self._with_other(layer, settings, "Mul")
        made = self.wires.get(layer.bottoms[0])
        read = made.read if isinstance(made, Normed) else self._read(layer, 1)[0]
        channels = self._channels_covered(layer, settings, read)
        has_bias = settings.flag("bias_term", False)
        wanted: list[Wanted] = [
            ("weight", (channels,)),
            *([("bias", (channels,))] if has_bias else []),
        ]
        tensors = self._tensors(layer, wanted)
        if isinstance(made, Normed):
            self._read_once(layer.bottoms[0])
            zeros = ForeignTensor.of(np.zeros(channels, np.float32))
            return self._normalised(layer, made, tensors[0], tensors[1] if has_bias else zeros)
        read = self._by_channel(layer, "Mul", read, "weight", tensors[0])
        return self._by_channel(layer, "Add", read, "bias", tensors[1]) if has_bias else read

    def _bias(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("bias_param")
        if len(layer.bottoms) == 2:
            return self._with_other(layer, settings, "Add")
        (read,) = self._read(layer, 1)
        channels = self._channels_covered(layer, settings, read)
        (bias,) = self._tensors(layer, [("bias", (channels,))])
        return self._by_channel(layer, "Add", read, "bias", bias)

    def _with_other(self, layer: CaffeLayer, settings: Message, op: str) -> Wire:
        """One bottom times, or plus, a second one, which has a number for each channel."""
        read, other = self._read(layer, 2)
        channels = read.shape[1]
        fitting = (read.shape, (1, channels), (1, channels, 1, 1))
        if settings.whole("axis", 1, -4, 3) % len(read.shape) or other.shape not in fitting:
            reason = f"`{layer.name}` reads {_text(read.shape)} and {_text(other.shape)}"
            raise no_word(layer.place, f"{layer.kind} of two that differ so", reason)
        if len(other.shape) == 2 and read.is_map:
            sides = self.graph.numbers(f"{layer.name}.shape", (1, channels, 1, 1), np.int64)
            shape = (1, channels, 1, 1)
            other = self.graph.node("Reshape", [other, sides], shape, f"{layer.name}.map")
        return self.graph.node(op, [read, other], read.shape, layer.name)

    def _channels_covered(self, layer: CaffeLayer, settings: Message, read: Wire) -> int:
        """The channels of what a layer has a number for each."""
        self._require_axis(layer, settings, "axis", read)
        if settings.whole("num_axes", 1, -1, 4) != 1:
            reason = f"`{layer.name}` covers other axes"
            raise no_word(layer.place, f"{layer.kind} but of each channel", reason)
        return read.shape[1]

    def _by_channel(
        self, layer: CaffeLayer, op: str, read: Wire, role: str, tensor: ForeignTensor
    ) -> Wire:
        shape = (tensor.size, 1, 1) if read.is_map else (tensor.size,)
        spread = tensor.changed(shape, lambda values: values.reshape(shape))
        name = self.graph.tensor(f"{layer.name}.{role}", spread)
        return self.graph.node(op, [read, name], read.shape, layer.name)

    def _lrn(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("lrn_param")
        read = self._map(layer)
        regions = {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1}
        if settings.word("norm_region", regions, "ACROSS_CHANNELS") != "ACROSS_CHANNELS":
            raise no_word(layer.place, "LRN within channels", f"`{layer.name}` sums over places")
        size = settings.whole("local_size", 5, 1, MAX_SIDE)
        if size % 2 == 0:
            place = settings.places("local_size")[0]
            raise wrong(place, "`local_size` is odd", "Caffe refuses this, too")
        return self.graph.node(
            "LRN", [read], read.shape, layer.name, size=size, alpha=settings.real("alpha", 1.0),
            beta=settings.real("beta", 0.75), bias=settings.real("k", 1.0),
        )  # fmt: skip

    def _concat(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("concat_param")
        reads = self._read(layer)
        first = reads[0]
        key = "concat_dim" if settings.has("concat_dim") else "axis"
        self._require_axis(layer, settings, key, first)
        if any(each.shape[2:] != first.shape[2:] for each in reads):
            reason = ", ".join(_text(each.shape) for each in reads)
            raise wrong(layer.place, f"`{layer.name}` concatenates maps of several sizes", reason)
        shape = (1, sum(each.shape[1] for each in reads), *first.shape[2:])
        self._require_sensible(layer, shape)
        if len(reads) == 1:
            return first
        return self.graph.node("Concat", reads, shape, layer.name, axis=1)

    def _eltwise(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("eltwise_param")
        reads = self._read(layer)
        operation = settings.word("operation", {"PROD": 0, "SUM": 1, "MAX": 2}, "SUM")
        if len(reads) < 2 or any(each.shape != reads[0].shape for each in reads):
            reason = ", ".join(_text(each.shape) for each in reads)
            raise wrong(layer.place, f"`{layer.name}` wants several of one shape", reason)
        if operation == "MAX":
            raise no_word(layer.place, "Eltwise MAX", f"`{layer.name}` takes the larger")
        if operation == "SUM":
            if any(factor != 1 for factor in settings.reals("coeff")):
                place = settings.places("coeff")[0]
                raise no_word(
                    place, "Eltwise SUM with coefficients", f"`{layer.name}` has other than 1"
                )
            return self.graph.node("Sum", reads, reads[0].shape, layer.name)
        product, *others = reads
        for each in others:
            product = self.graph.node("Mul", [product, each], each.shape, layer.name)
        return product

    def _softmax(self, layer: CaffeLayer) -> Wire:
        (read,) = self._read(layer, 1)
        self._require_axis(layer, layer.settings("softmax_param"), "axis", read)
        if read.shape[2:] == (1, 1):
            read = self.graph.flat(read, layer.name)
        return self.graph.node("Softmax", [read], read.shape, layer.name, axis=1)

    def _flatten(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("flatten_param")
        (read,) = self._read(layer, 1)
        self._require_axis(layer, settings, "axis", read)
        if settings.whole("end_axis", -1, -4, 3) % len(read.shape) != len(read.shape) - 1:
            raise no_word(layer.place, "Flatten of some axes", f"`{layer.name}` keeps others")
        return self.graph.flat(read, layer.name)

    def _reshape(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("reshape_param")
        (read,) = self._read(layer, 1)
        given = (self.batch, *read.shape[1:])
        whole = (settings.whole("axis", 0, -5, 4), settings.whole("num_axes", -1, -1, 4))
        sides = settings.message("shape").wholes("dim", -1, MOST)
        wanted = [given[at] if side == 0 and at < 4 else side for at, side in enumerate(sides[:4])]
        if -1 in wanted:
            known = prod(side for side in wanted if side != -1)
            wanted[wanted.index(-1)] = prod(given) // max(1, known)
        if tuple(wanted) == given and whole == (0, -1):
            return read
        if wanted != [self.batch, prod(read.shape)] or len(sides) != 2 or whole != (0, -1):
            text = f"{_text(read.shape)} to {_text(sides)}"
            raise no_word(layer.place, "Reshape but to a vector", f"`{layer.name}` makes {text}")
        return self.graph.flat(read, layer.name)

    def _dropout(self, layer: CaffeLayer) -> Wire:
        settings = layer.settings("dropout_param")
        (read,) = self._read(layer, 1)
        share = settings.real("dropout_ratio", 0.5)
        if not 0 <= share < 1:
            place = settings.places("dropout_ratio")[0]
            raise wrong(place, "`dropout_ratio` is from 0 to less than 1", "this is not")
        ratio = self.graph.numbers(f"{layer.name}.ratio", share)
        return self.graph.node("Dropout", [read, ratio], read.shape, layer.name)

    def _power(self, layer: CaffeLayer) -> Wire:
        """(shift + scale·x) to a power."""
        settings = layer.settings("power_param")
        (read,) = self._read(layer, 1)
        power = settings.real("power", 1.0)
        if power != 1:
            raise no_word(
                layer.place, f"Power with `power: {power:g}`", f"`{layer.name}` is no line"
            )
        for op, value, idle in (
            ("Mul", settings.real("scale", 1.0), 1.0),
            ("Add", settings.real("shift", 0.0), 0.0),
        ):
            if value != idle:
                number = self.graph.numbers(f"{layer.name}.{op.lower()}", value)
                read = self.graph.node(op, [read, number], read.shape, layer.name)
        return read

    def _activation(self, layer: CaffeLayer) -> Wire:
        (read,) = self._read(layer, 1)
        name, shape = layer.name, read.shape
        match layer.kind:
            case "ReLU":
                slope = layer.settings("relu_param").real("negative_slope", 0.0)
                if slope:
                    return self.graph.node("LeakyRelu", [read], shape, name, alpha=slope)
                return self.graph.node("Relu", [read], shape, name)
            case "PReLU":
                is_shared = layer.settings("prelu_param").flag("channel_shared", False)
                (slopes,) = self._tensors(layer, [("slope", (1 if is_shared else shape[1],))])
                return self._by_channel(layer, "PRelu", read, "slope", slopes)
            case "ELU":
                alpha = layer.settings("elu_param").real("alpha", 1.0)
                return self.graph.node("Elu", [read], shape, name, alpha=alpha)
            case "Sigmoid" | "TanH" as kind:
                layer.settings(f"{kind.lower()}_param")
                return self.graph.node(kind.capitalize(), [read], shape, name)
            case "BNLL":
                return self.graph.node("Softplus", [read], shape, name)
            case "ReLU6":
                return self._clipped(layer, read, 0.0, 6.0)
            case "Clip":
                settings = layer.settings("clip_param")
                if not settings.has("min") or not settings.has("max"):
                    raise wrong(
                        layer.place, f"`{name}` has no `min` or no `max`", "Caffe wants both"
                    )
                low, high = settings.real("min", 0.0), settings.real("max", 0.0)
                return self._clipped(layer, read, low, high)
            case "Swish":
                if layer.settings("swish_param").real("beta", 1.0) != 1:
                    raise no_word(layer.place, "Swish with another `beta`", f"`{name}` has one")
                gate = self.graph.node("Sigmoid", [read], shape, f"{name}.gate")
                return self.graph.node("Mul", [read, gate], shape, name)
            case _:
                raise no_word(layer.place, f"layers of type {layer.kind}", f"`{name}` is one")

    def _clipped(self, layer: CaffeLayer, read: Wire, low: float, high: float) -> Wire:
        limits = [
            self.graph.numbers(f"{layer.name}.{role}", value)
            for role, value in (("min", low), ("max", high))
        ]
        return self.graph.node("Clip", [read, *limits], read.shape, layer.name)

    # -- what layers read

    def _give(self, top: str, made: Wire | Normed, layer: CaffeLayer | None = None) -> None:
        is_in_place = layer is not None and top in layer.bottoms
        if top in self.wires and not is_in_place:
            place = layer.place if layer else self.net.place
            raise wrong(place, f"two layers make `{top}`", "this is the second one")
        self.wires[top] = made
        self.unread[top] = None

    def _read(self, layer: CaffeLayer, count: int | None = None) -> list[Wire]:
        """What a layer's bottoms hold.

        Raises: UserError where nothing made one of them yet, or they are not `count`.
        """
        if count is not None and len(layer.bottoms) != count:
            what = f"`{layer.name}` reads {len(layer.bottoms)} bottoms"
            raise wrong(layer.place, what, f"{layer.kind} reads {count}")
        found = []
        for index, bottom in enumerate(layer.bottoms):
            wire = self.wires.get(bottom)
            if wire is None:
                place = layer.message.places("bottom")[index]
                if bottom in self.labels:
                    raise no_word(place, "a layer that reads labels", f"`{layer.name}` does")
                hint = did_you_mean(bottom, [*self.wires]) if self.wires else ""
                raise wrong(place, f"no layer before makes `{bottom}`", "it is read here", hint)
            assert isinstance(wire, Wire), "what waits for its scale is read by that alone"
            self._read_once(bottom)
            found.append(wire)
        return found

    def _read_once(self, bottom: str) -> None:
        self.unread.pop(bottom, None)

    def _map(self, layer: CaffeLayer) -> Wire:
        (read,) = self._read(layer, 1)
        if not read.is_map:
            raise wrong(layer.place, f"`{layer.name}` reads a vector", f"{layer.kind} wants a map")
        return read

    def _require_axis(self, layer: CaffeLayer, settings: Message, key: str, read: Wire) -> None:
        """Raises: UserError where a layer works along another axis than that of the channels."""
        if settings.whole(key, 1, -4, 3) % len(read.shape) != 1:
            reason = f"`{layer.name}` does"
            raise no_word(settings.places(key)[0], f"{layer.kind} along another axis", reason)

    def _require_sensible(self, layer: CaffeLayer, shape: Shape) -> None:
        if not is_sensible(shape):
            raise wrong(layer.place, f"`{layer.name}` would be of {_text(shape)}", "no net is so")

    def _window(self, layer: CaffeLayer, settings: Message) -> tuple[Pair, Pair, Pair, Pair]:
        """Kernel, stride, padding and dilation of a layer, rows and columns each."""

        def pair(name: str, square: str, default: int, low: int) -> Pair:
            one = settings.wholes(square, low, MAX_SIDE)
            if settings.has(f"{name}_h") or settings.has(f"{name}_w"):
                if one:
                    place = settings.places(square)[0]
                    raise wrong(
                        place, f"`{square}` beside `{name}_h` or `{name}_w`", "one is too much"
                    )
                missing = default if name == "pad" else 0
                sides = [settings.whole(f"{name}_{end}", missing, low, MAX_SIDE) for end in "hw"]
                if 0 in sides and low:
                    raise wrong(
                        layer.place, f"`{layer.name}` has one side of `{name}`", "two are told"
                    )
                return sides[0], sides[1]
            if not one and name == "kernel":
                raise wrong(layer.place, f"`{layer.name}` has no `kernel_size`", "nothing tells it")
            if len(one) > 2:
                raise wrong(
                    settings.places(square)[2], f"`{square}` has two sides", "this is a third"
                )
            one = one or [default]
            return one[0], one[-1]

        return (
            pair("kernel", "kernel_size", 1, 1),
            pair("stride", "stride", 1, 1),
            pair("pad", "pad", 0, 0),
            pair("dilation", "dilation", 1, 1),
        )

    # -- weights

    def _weights(self, layer: CaffeLayer, wanted: Sequence[Wanted]) -> list[str]:
        """The names in the graph of a layer's arrays, whose roles and shapes are told."""
        return [
            self.graph.tensor(f"{layer.name}.{role}", tensor)
            for (role, _), tensor in zip(wanted, self._tensors(layer, wanted), strict=True)
        ]

    def _tensors(self, layer: CaffeLayer, wanted: Sequence[Wanted]) -> list[ForeignTensor]:
        """A layer's arrays, of the shapes that are told.

        Raises: UserError where the file of weights has others.
        """
        numbers = self.numbers
        if numbers is None:
            return [ForeignTensor(shape, FLOAT32, absent) for _, shape in wanted]
        blobs = self.blobs.get(layer.name)
        if blobs is None:
            hint = did_you_mean(layer.name, sorted(self.blobs)) if self.blobs else ""
            raise self._unfit(f"nothing in it is called `{layer.name}`", hint)
        if len(blobs) != len(wanted):
            of = f"`{layer.name}`, a layer of type {layer.kind}"
            raise self._unfit(f"it has {len(blobs)} arrays of {of}, which takes {len(wanted)}")
        return [
            self._tensor(numbers, layer, role, blob, shape)
            for blob, (role, shape) in zip(blobs, wanted, strict=True)
        ]

    def _tensor(
        self, numbers: NumbersFile, layer: CaffeLayer, role: str, blob: Blob, shape: Shape
    ) -> ForeignTensor:
        if _without_ones(blob.shape) != _without_ones(shape):
            own = f"the {role} of `{layer.name}` is of {_text(blob.shape)}"
            raise self._unfit(f"{own} there, of {_text(shape)} in the definition")
        return numbers.tensor(shape, blob.runs)

    def _unfit(self, reason: str, hint: str = "") -> UserError:
        assert self.numbers is not None
        return UserError(NumbersUnfit(str(self.numbers.path), reason, hint))


def _kind(layer: Message, *, is_old: bool) -> str:
    """What the second generation calls a layer's type."""
    if is_old and layer.has("layer"):
        hint = "Caffe's upgrade_net_proto_text makes a text of today of it"
        raise wrong(layer.place, "a layer of Caffe of 2013 (V0)", "it has a `layer` inside", hint)
    kind, *others = layer.fields.get("type", (None,))
    if others or not isinstance(kind, Scalar):
        raise wrong(layer.place, "a layer without one `type`", "nothing tells what it computes")
    if not is_old:
        return layer.text("type")
    if kind.text not in V1_KINDS:
        raise wrong(
            kind.place,
            f"Caffe has no layers of type `{kind.text}`",
            "in a net of `layers`, types are words in capitals",
            did_you_mean(kind.text, V1_WORDS),
        )
    return V1_KINDS[kind.text]


def _is_included(layer: Message) -> bool:
    """Whether a layer is there where the net is used. Source: Net::FilterNet in net.cpp."""

    def met(rule: Message) -> bool:
        phase = rule.word("phase", PHASES, "TEST")
        least, most = (
            rule.whole("min_level", 0, -MOST, MOST),
            rule.whole("max_level", 0, -MOST, MOST),
        )
        return phase == "TEST" and least <= 0 <= most and not rule.has("stage")

    if layer.has("include"):
        return any(met(rule) for rule in layer.messages("include"))
    return not any(met(rule) for rule in layer.messages("exclude"))


def _transform(layers: list[CaffeLayer], used: list[CaffeLayer]) -> Message:
    """What a layer tells of its pictures: one of those that are used, or else one of training."""
    messages = [each.message for each in (*used, *layers) if each.message.has("transform_param")]
    return messages[0].message("transform_param") if messages else Message(layers[0].place)


def _is_per_channel(scale: CaffeLayer) -> bool:
    settings = scale.settings("scale_param")
    return settings.whole("axis", 1, -4, 3) == 1 and settings.whole("num_axes", 1, -1, 4) == 1


def _bias(settings: Message, width: int) -> list[Wanted]:
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


def _without_ones(shape: Shape) -> Shape:
    """A shape but for the leading ones, which Caffe ignores in weights."""
    first = next((at for at, side in enumerate(shape) if side != 1), len(shape))
    return shape[first:]


def _pair(sides: Iterable[int]) -> Pair:
    rows, columns = sides
    return rows, columns


def _text(sides: Iterable[int]) -> str:
    return "×".join(map(str, sides))
