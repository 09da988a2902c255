"""Darknet's nets: a definition (`.cfg`) and its weights (`.weights`).

Source: parser.c and the layers of https://github.com/pjreddie/darknet and, for what that has not,
https://github.com/AlexeyAB/darknet
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggc.importing.assembly import MAX_LAYERS, MAX_SIDE, Assembly, Wire, is_sensible, swept
from vggc.importing.definitions import NumbersUnfit, no_word, wrong
from vggc.importing.foreign import Foreign, ForeignTensor
from vggc.importing.numbers_file import FLOAT32, NumberRun, NumbersFile, absent
from vggc.importing.prototext import MAX_TEXT, read_text, real_in
from vggc.ir.ops import Pair, Shape
from vggc.preprocessing.presets import DARKNET
from vggc.support.diagnostics import UserError, listed, nearest
from vggc.support.source import Source, Span
from vggc.weight_files.facts import WeightFacts
from vggc_runtime.files import sha256
from vggc_runtime.preprocessing import Preprocessing

KINDS = {
    "avg": "avgpool",
    "conn": "connected",
    "conv": "convolutional",
    "deconv": "deconvolutional",
    "local_avg": "local_avgpool",
    "lrn": "normalization",
    "max": "maxpool",
    "network": "net",
    "silence": "empty",
    "soft": "softmax",
}
"""Short names of sections."""

REFUSED = {
    **dict.fromkeys(("yolo", "Gaussian_yolo", "region", "detection"), "it finds objects"),
    **dict.fromkeys(("rnn", "crnn", "gru", "lstm", "conv_lstm", "history"), "it has a memory"),
    "batchnorm": "as a layer by itself, its bias is in the files of some Darknets only",
    "contrastive": "it compares pictures with one another",
    "implicit": "it reads nothing",
    "iseg": "it finds objects",
    "l2norm": "it divides by the length of the channels at each place",
    "local": "it has other weights at each place",
    "normalization": "Darknet's sums skip the channel in the middle of the first window",
    "reorg": "it moves rows and columns to channels",
    "reorg3d": "it moves rows and columns to channels",
}
"""Sections that no layer of the language stands for, and why."""

UNUSUAL = {
    **dict.fromkeys(("binary", "xnor", "bin_output"), "its weights are bits"),
    **dict.fromkeys(("sway", "rotate", "stretch", "stretch_sway"), "its kernels are turned"),
    **dict.fromkeys(("dontload", "dontloadscales", "numload"), "its file holds less"),
    "antialiasing": "it is followed by a blur",
    "coordconv": "it reads the places of pixels, too",
    "share_index": "it has the weights of another layer",
}
"""Settings of convolutions that are refused unless they are 0, and why."""

ACTIVATIONS: Mapping[str, tuple[str, Mapping[str, float | str]] | None] = {
    "linear": None,
    "elu": ("Elu", {"alpha": 1.0}),
    "gelu": ("Gelu", {"approximate": "tanh"}),
    "leaky": ("LeakyRelu", {"alpha": 0.1}),
    "logistic": ("Sigmoid", {}),
    "mish": ("Mish", {}),
    "relie": ("LeakyRelu", {"alpha": 0.01}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}
"""Activations that an operator stands for; None where there is nothing to do."""
LIMITS = {"hardtan": (-1.0, 1.0), "relu6": (0.0, 6.0)}
"""Activations that limit values."""

EPSILON = 1e-5
"""What is added to the variance, below the root. Source: `normalize_kernel` in blas_kernels.cu of
both Darknets, by which nets are trained, and `normalize_cpu` in blas.c of AlexeyAB's."""
ORIGINAL_EPSILON = 1e-6
"""What pjreddie's Darknet adds to the root where it has no GPU. Source: `normalize_cpu`, blas.c."""

HEADER = struct.Struct("<iii")
MOST = 1 << 30


@dataclass(frozen=True)
class CfgOption:
    """What stands behind a key, and where."""

    text: str
    place: Span


@dataclass(frozen=True)
class CfgSection:
    """A part of a definition: the net's own, or a layer. Where a key is repeated, its first value
    counts, as in Darknet.
    """

    kind: str
    place: Span
    options: Mapping[str, CfgOption]

    def whole(self, key: str, default: int, low: int = 0, high: int = MOST) -> int:
        """A whole number, from `low` to `high`."""
        option = self.options.get(key)
        if option is None:
            return default
        digits = option.text.removeprefix("-").removeprefix("+")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20) or not (
            low <= int(option.text) <= high
        ):
            what = f"`{key}` is a whole number from {low:,} to {high:,}"
            raise wrong(option.place, what, "this is none of them")
        return int(option.text)

    def real(self, key: str, default: float) -> float:
        """A finite number."""
        option = self.options.get(key)
        if option is None:
            return default
        number = real_in(option.text)
        if number is None or not isfinite(number):
            raise wrong(option.place, f"`{key}` is a number", "this is none")
        return number

    def wholes(self, key: str) -> list[int]:
        """Whole numbers with commas between them."""
        option = self.options.get(key)
        if option is None:
            raise wrong(self.place, f"[{self.kind}] has no `{key}`", "nothing tells what it reads")
        try:
            found = [int(each) for each in option.text.strip(",").split(",")]
        except ValueError:
            raise wrong(
                option.place, f"`{key}` is whole numbers", "this is something else"
            ) from None
        return found

    def text(self, key: str, default: str = "") -> str:
        """A word."""
        return self.options[key].text if key in self.options else default

    def place_of(self, key: str) -> Span:
        """Where a key stands; the section where it does not."""
        return self.options[key].place if key in self.options else self.place


def read_darknet(
    definition: Path, weights: Path | None = None, *, beside_the_root: bool = False
) -> Foreign:
    """The net that a cfg defines, with its weights, or without any.

    `beside_the_root` normalises as pjreddie's Darknet does on a CPU, by √v + 1e-6.

    Raises: UserError where a file is broken, the two do not belong together, or a layer is none
    that nets of the language have.
    """
    net, layers = sections_in(Source(str(definition), read_text(definition, MAX_TEXT)))
    numbers = None if weights is None else _Numbers(NumbersFile.at(weights))
    reader = _DarknetNet(net, numbers, beside_the_root)
    output = reader.built(layers)
    if numbers is not None:
        numbers.require_all_taken()
    return Foreign(
        model=reader.graph.model([output]),
        tensors=reader.graph.read_tensors(),
        name=definition.stem,
        files=tuple(str(each) for each in (definition, weights) if each is not None),
        sha256=sha256(definition),
        facts=WeightFacts(reader.preprocessing()),
        no_engine="Darknet is not at hand",
        notes=tuple(reader.notes),
        has_weights=weights is not None,
    )


def sections_in(source: Source) -> tuple[CfgSection, list[CfgSection]]:
    """The section of the net, and those of its layers.

    Raises: UserError at the first line that is none of a cfg.
    """
    found: list[tuple[str, Span, dict[str, CfgOption]]] = []
    for place, text in _lines(source):
        if text.startswith("["):
            kind = text[1:-1]
            if not text.endswith("]") or not kind:
                raise wrong(place, "expected a section", "this is none, such as [convolutional]")
            found.append((KINDS.get(kind, kind), place, {}))
            if len(found) > MAX_LAYERS:
                raise wrong(
                    place, f"a net of more than {MAX_LAYERS:,} sections", "this is too many"
                )
            continue
        key, sign, value = text.partition("=")
        if not sign or not key or not value or not found:
            example = "a section, such as [net], stands first" if not found else "`key=value`"
            raise wrong(place, "this is no definition of Darknet's", f"expected {example}")
        found[-1][2].setdefault(key, CfgOption(value, place))
    sections = [CfgSection(kind, place, options) for kind, place, options in found]
    if not sections or sections[0].kind != "net":
        place = sections[0].place if sections else Span(source, 0, 0)
        raise wrong(place, "a definition begins with [net]", "expected this section")
    return sections[0], sections[1:]


def _lines(source: Source) -> Iterator[tuple[Span, str]]:
    """Each line that says something, without its spaces and comments."""
    start = 0
    for line in source.text.split("\n"):
        text = "".join(line.split("#", 1)[0].split())
        if text and not text.startswith(";"):
            first = start + len(line) - len(line.lstrip())
            yield Span(source, first, start + len(line.rstrip())), text
        start += len(line) + 1


class _Numbers:
    """A file of weights, whose numbers are taken in the order of the layers."""

    def __init__(self, file: NumbersFile) -> None:
        self.file = file
        with file.open() as opened:
            head = opened.read(HEADER.size)
        if len(head) < HEADER.size:
            raise self.broken("it has no header of Darknet's weights")
        major, minor, _ = HEADER.unpack(head)
        if major < 0 or minor < 0:
            raise self.broken("it has no header of Darknet's weights")
        is_new = major * 10 + minor >= 2 and major < 1000 and minor < 1000
        self.is_transposed = major > 1000 or minor > 1000
        self.at = HEADER.size + (8 if is_new else 4)
        if self.at > file.size:
            raise self.broken("it has no header of Darknet's weights")

    def take(self, shape: Shape, layer: str) -> ForeignTensor:
        """The next numbers, as many as a shape has."""
        run = NumberRun(self.at, prod(shape), 4, FLOAT32)
        if run.end > self.file.size:
            missing = run.end - self.file.size
            raise self.broken(f"it ends in {layer}, {missing:,} bytes too early")
        self.at = run.end
        return self.file.tensor(shape, [run])

    def require_all_taken(self) -> None:
        """Raises: UserError where numbers are left over: the definition is of another net."""
        left = self.file.size - self.at
        if left:
            raise self.broken(f"{left:,} bytes are left over behind the last layer")

    def broken(self, reason: str) -> UserError:
        hint = "is the definition that of these weights?"
        return UserError(NumbersUnfit(str(self.file.path), reason, hint))


class _DarknetNet:
    """Makes a graph of one definition, layer by layer."""

    def __init__(self, net: CfgSection, numbers: _Numbers | None, beside_the_root: bool) -> None:
        self.net = net
        self.numbers = numbers
        self.beside_the_root = beside_the_root
        self.graph = Assembly()
        self.notes: list[str] = []
        self.made: list[Wire] = []
        self.is_normalised = False
        self.crop: CfgSection | None = None

    def built(self, layers: Sequence[CfgSection]) -> Wire:
        """The net's output, once all layers are in the graph."""
        sides = [self.net.whole(key, 0, 0, MAX_SIDE) for key in ("channels", "height", "width")]
        if not is_sensible((1, *sides)):
            reason = "expected `channels`, `height` and `width`, each 1 at least"
            raise wrong(self.net.place, "the net reads no pictures", reason)
        layers = list(layers)
        if not layers:
            raise wrong(self.net.place, "the net has no layers", "nothing is computed")
        if layers[0].kind == "crop":
            self.crop = layers[0]
            sides = self._cropped(layers[0], sides)
        wire = self.graph.image("data", (1, *sides))
        for index, layer in enumerate(layers):
            wire = self._add(index, layer, wire)
            self.made.append(wire)
        left_out = sorted({each.kind for each in layers if each.kind == "cost"})
        if left_out:
            self.notes.append(f"left out, as they serve training only: {listed(left_out)}")
        if self.is_normalised:
            self.notes.append(self._how_normalised())
        return wire

    def _how_normalised(self) -> str:
        if self.beside_the_root:
            return "variances are taken as √v + 1e-6, as pjreddie's Darknet does without a GPU"
        return "variances are taken as √(v + 1e-5), as Darknet does on GPUs"

    def _cropped(self, layer: CfgSection, sides: list[int]) -> list[int]:
        """The channels, rows and columns of the part that a first layer cuts from a picture."""
        channels, *size = sides
        parts = [layer.whole(f"crop_{end}", 1, 1, MAX_SIDE) for end in ("height", "width")]
        if any(part > side for part, side in zip(parts, size, strict=True)):
            reason = "a part is at most as large as the whole"
            raise wrong(layer.place, "[crop] is larger than the net's pictures", reason)
        return [channels, *parts]

    def preprocessing(self) -> Preprocessing:
        """How pictures are prepared: values from 0 to 1, or from -1 where a [crop] adjusts them.

        Source: `forward_crop_layer` in crop_layer.c.
        """
        _, channels, height, width = self.graph.inputs[0].shape
        how = DARKNET.at((channels, height, width))
        if self.crop is None:
            return how
        scale = max(self.net.whole("width", 0, 0, MAX_SIDE), height, width)
        if self.crop.whole("noadjust", 0):
            return replace(how, scale=scale)
        half = (0.5,) * channels
        return replace(how, scale=scale, mean=half, std=half)

    def _add(self, index: int, layer: CfgSection, read: Wire) -> Wire:
        name = f"{layer.kind}{index}"
        if layer.kind not in REFUSED:
            self._require_activation(layer)
        match layer.kind:
            case "convolutional":
                return self._convolution(layer, read, name)
            case "deconvolutional":
                return self._deconvolution(layer, read, name)
            case "connected":
                return self._connected(layer, read, name)
            case "maxpool" | "local_avgpool":
                return self._pooling(layer, read, name)
            case "avgpool":
                shape = (1, self._channels(layer, read), 1, 1)
                return self.graph.node("GlobalAveragePool", [read], shape, name)
            case "softmax":
                return self._softmax(layer, read, name)
            case "dropout":
                return self._dropout(layer, read, name)
            case "route":
                return self._route(index, layer, name)
            case "shortcut" | "sam" | "scale_channels":
                return self._join(index, layer, read, name)
            case "upsample":
                return self._upsample(layer, read, name)
            case "activation":
                return self._activated(layer, read, name, "linear")
            case "logistic":
                return self.graph.node("Sigmoid", [read], read.shape, name)
            case "crop" if index:
                raise no_word(
                    layer.place, "[crop] behind another layer", "it cuts what is computed"
                )
            case "crop" | "cost" | "empty":
                return read
            case kind if kind in REFUSED:
                raise no_word(layer.place, f"[{kind}]", REFUSED[kind])
            case kind:
                raise no_word(layer.place, f"[{kind}]", "it is not one of those that are known")

    def _convolution(self, layer: CfgSection, read: Wire, name: str) -> Wire:
        channels = self._channels(layer, read)
        width, groups = (
            layer.whole("filters", 1, 1, MAX_SIDE),
            layer.whole("groups", 1, 1, MAX_SIDE),
        )
        size, padding = self._kernel(layer)
        stride = self._stride(layer)
        dilation = layer.whole("dilation", 1, 1, MAX_SIDE) if size > 1 else 1
        if channels % groups or width % groups:
            reason = f"{channels} channels to {width}, in {groups} groups"
            raise wrong(layer.place_of("groups"), "a convolution that cannot be built", reason)
        kernel, spread, sides = (size, size), (dilation, dilation), (padding,) * 4
        rows, columns = swept(_pair(read), kernel, stride, _four(padding), spread)
        shape = (1, width, rows, columns)
        weight = (width, channels // groups, size, size)
        self._require_sensible(layer, shape, weight)
        bias, normal = self._before(layer, width, name)
        if layer.whole("flipped", 0):
            flat = self._take((prod(weight[1:]), width), name)
            tensor = flat.changed(weight, lambda values: values.T.reshape(weight))
        else:
            tensor = self._take(weight, name)
        reads = [self.graph.tensor(f"{name}.weight", tensor)]
        wire = self.graph.node(
            "Conv", [read, *reads, *self._unless(normal, bias, name)], shape, name,
            kernel_shape=kernel, strides=stride, pads=sides, dilations=spread, group=groups,
        )  # fmt: skip
        return self._finished(layer, wire, name, bias, normal)

    def _deconvolution(self, layer: CfgSection, read: Wire, name: str) -> Wire:
        channels = self._channels(layer, read)
        width = layer.whole("filters", 1, 1, MAX_SIDE)
        size, padding = self._kernel(layer)
        stride = self._stride(layer)
        steps = zip(_pair(read), stride, strict=True)
        rows, columns = ((n - 1) * s + size - 2 * padding for n, s in steps)
        shape, weight = (1, width, rows, columns), (channels, width, size, size)
        self._require_sensible(layer, shape, weight)
        bias, normal = self._before(layer, width, name)
        reads = [self.graph.tensor(f"{name}.weight", self._take(weight, name))]
        wire = self.graph.node(
            "ConvTranspose", [read, *reads, *self._unless(normal, bias, name)], shape, name,
            kernel_shape=(size, size), strides=stride, pads=(padding,) * 4,
        )  # fmt: skip
        return self._finished(layer, wire, name, bias, normal)

    def _connected(self, layer: CfgSection, read: Wire, name: str) -> Wire:
        read = self.graph.flat(read, name)
        features, width = read.shape[1], layer.whole("output", 1, 1, MAX_SIDE)
        self._require_sensible(layer, (width, features))
        bias = self._take((width,), name)
        is_transposed = self.numbers is not None and self.numbers.is_transposed
        weight = self._take((features, width) if is_transposed else (width, features), name)
        normal = self._statistics(layer, width, name)
        reads = [self.graph.tensor(f"{name}.weight", weight), *self._unless(normal, bias, name)]
        wire = self.graph.node(
            "Gemm", [read, *reads], (1, width), name, transB=int(not is_transposed)
        )
        return self._finished(layer, wire, name, bias, normal)

    def _pooling(self, layer: CfgSection, read: Wire, name: str) -> Wire:
        """Windows of which the first begins half the padding before the map, rounded down; what
        reaches beyond it does not count.
        """
        self._refuse_unusual(layer, ("antialiasing", "maxpool_depth"))
        channels = self._channels(layer, read)
        stride = self._stride(layer)
        size = layer.whole("size", layer.whole("stride", 1, 1, MAX_SIDE), 1, MAX_SIDE)
        padding = layer.whole("padding", size - 1, 0, MAX_SIDE)
        before = padding // 2
        counts = [(n + padding - size) // s + 1 for n, s in zip(_pair(read), stride, strict=True)]
        shape = (1, channels, *counts)
        self._require_sensible(layer, shape)
        needed = [
            (count - 1) * s + size - n - before
            for count, s, n in zip(counts, stride, _pair(read), strict=True)
        ]
        if before >= size or max(needed) >= size:
            raise wrong(
                layer.place, "windows that lie beyond the map", f"{size} wide, padded {padding}"
            )
        after = [max(0, each) for each in needed]
        kind = "MaxPool" if layer.kind == "maxpool" else "AveragePool"
        return self.graph.node(
            kind, [read], shape, name, kernel_shape=(size, size), strides=stride,
            pads=(before, before, *after),
        )  # fmt: skip

    def _softmax(self, layer: CfgSection, read: Wire, name: str) -> Wire:
        if layer.text("tree"):
            raise no_word(layer.place_of("tree"), "[softmax] over a tree", "its classes are in one")
        if layer.whole("groups", 1) != 1:
            raise no_word(layer.place_of("groups"), "[softmax] in groups", "it has several")
        if not layer.real("spatial", 0.0):
            read = self.graph.flat(read, name)
        temperature = layer.real("temperature", 1.0)
        if temperature <= 0:
            raise wrong(layer.place_of("temperature"), "`temperature` is above 0", "this is not")
        if temperature != 1:
            factor = self.graph.numbers(f"{name}.factor", 1 / temperature)
            read = self.graph.node("Mul", [read, factor], read.shape, f"{name}.cooled")
        return self.graph.node("Softmax", [read], read.shape, name, axis=1)

    def _dropout(self, layer: CfgSection, read: Wire, name: str) -> Wire:
        share = layer.real("probability", 0.2)
        if not 0 <= share < 1:
            raise wrong(
                layer.place_of("probability"), "a share from 0 to less than 1", "this is not"
            )
        ratio = self.graph.numbers(f"{name}.ratio", share)
        return self.graph.node("Dropout", [read, ratio], read.shape, name)

    def _route(self, index: int, layer: CfgSection, name: str) -> Wire:
        place = layer.place_of("layers")
        reads = [self._earlier(index, number, place) for number in layer.wholes("layers")]
        groups = layer.whole("groups", 1, 1, MAX_SIDE)
        if groups > 1:
            group = layer.whole("group_id", 0, 0, groups - 1)
            reads = [self._part(layer, each, groups, group, name) for each in reads]
        first = reads[0]
        if len(reads) == 1:
            return first
        if any(each.shape[2:] != first.shape[2:] for each in reads):
            reason = ", ".join(_text(each.shape) for each in reads)
            raise wrong(place, "[route] concatenates maps of several sizes", reason)
        shape = (1, sum(each.shape[1] for each in reads), *first.shape[2:])
        self._require_sensible(layer, shape)
        return self.graph.node("Concat", reads, shape, name, axis=1)

    def _part(self, layer: CfgSection, read: Wire, groups: int, group: int, name: str) -> Wire:
        """One of the groups of neighbouring channels of a value."""
        width = read.shape[1]
        if width % groups:
            reason = f"{width} channels come in, in {groups} groups"
            raise wrong(layer.place_of("groups"), "[route] of parts of several sizes", reason)
        count = width // groups
        return self.graph.part(read, group * count, (group + 1) * count, name)

    def _join(self, index: int, layer: CfgSection, read: Wire, name: str) -> Wire:
        """A sum or a product with what layers before made."""
        place = layer.place_of("from")
        others = [self._earlier(index, number, place) for number in layer.wholes("from")]
        if layer.text("weights_type", "none") != "none":
            raise no_word(layer.place_of("weights_type"), "[shortcut] with weights", "it has some")
        for key in ("alpha", "beta"):
            if layer.real(key, 1.0) != 1:
                raise no_word(layer.place_of(key), "[shortcut] with factors", "this is one")
        if layer.whole("scale_wh", 0):
            raise no_word(layer.place_of("scale_wh"), "[scale_channels] of places", "it has such")
        for other in others:
            scaled = (1, other.shape[1], 1, 1) if layer.kind == "scale_channels" else other.shape
            if read.shape != scaled:
                reason = f"they are of {_text(other.shape)} and {_text(read.shape)}"
                raise no_word(place, f"[{layer.kind}] of two that differ so", reason)
            op = "Add" if layer.kind == "shortcut" else "Mul"
            read = self.graph.node(op, [other, read], other.shape, name)
        return self._activated(layer, read, name, "linear")

    def _upsample(self, layer: CfgSection, read: Wire, name: str) -> Wire:
        channels = self._channels(layer, read)
        factor = layer.whole("stride", 2, 1, MAX_SIDE)
        rows, columns = _pair(read)
        shape = (1, channels, rows * factor, columns * factor)
        self._require_sensible(layer, shape)
        scales = self.graph.numbers(f"{name}.scales", (1, 1, factor, factor))
        read = self.graph.node(
            "Resize", [read, "", scales], shape, name, mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        scale = layer.real("scale", 1.0)
        if scale != 1:
            number = self.graph.numbers(f"{name}.factor", scale)
            read = self.graph.node("Mul", [read, number], shape, f"{name}.scaled")
        return read

    # -- what several layers share

    def _channels(self, layer: CfgSection, read: Wire) -> int:
        """The channels of the map that a layer reads."""
        if not read.is_map:
            raise wrong(layer.place, f"[{layer.kind}] reads a vector", "it wants a map")
        return read.shape[1]

    def _kernel(self, layer: CfgSection) -> tuple[int, int]:
        """A convolution's size and padding."""
        self._refuse_unusual(layer, UNUSUAL)
        size = layer.whole("size", 1, 1, MAX_SIDE)
        padding = layer.whole("padding", 0, 0, MAX_SIDE)
        return size, size // 2 if layer.whole("pad", 0) else padding

    def _refuse_unusual(self, layer: CfgSection, keys: Mapping[str, str] | Sequence[str]) -> None:
        for key in keys:
            if layer.text(key, "0") != "0":
                reason = UNUSUAL.get(key, "it takes channels together")
                raise no_word(layer.place_of(key), f"[{layer.kind}] with `{key}`", reason)

    def _stride(self, layer: CfgSection) -> Pair:
        stride = layer.whole("stride", 1, 1, MAX_SIDE)
        rows, columns = (layer.whole(f"stride_{end}", stride, 1, MAX_SIDE) for end in "yx")
        return rows, columns

    def _require_sensible(self, layer: CfgSection, *shapes: Shape) -> None:
        for shape in shapes:
            if not is_sensible(shape):
                raise wrong(
                    layer.place, f"[{layer.kind}] would be of {_text(shape)}", "no net is so"
                )

    def _earlier(self, index: int, number: int, place: Span) -> Wire:
        """What an earlier layer made: one so many before, or counted from the first."""
        wanted = index + number if number < 0 else number
        if not 0 <= wanted < index:
            reason = f"this is layer {index}, which reads those before it"
            raise wrong(place, f"there is no layer {number} to read", reason)
        return self.made[wanted]

    def _take(self, shape: Shape, name: str) -> ForeignTensor:
        if self.numbers is None:
            return ForeignTensor(shape, FLOAT32, absent)
        return self.numbers.take(shape, f"`{name}`")

    def _before(
        self, layer: CfgSection, width: int, name: str
    ) -> tuple[ForeignTensor, list[ForeignTensor]]:
        """What lies before a convolution's weight: the bias, and what normalises."""
        return self._take((width,), name), self._statistics(layer, width, name)

    def _statistics(self, layer: CfgSection, width: int, name: str) -> list[ForeignTensor]:
        """Scale, mean and variance of a layer that is normalised; nothing of another."""
        if not layer.whole("batch_normalize", 0):
            return []
        return [self._take((width,), name) for _ in range(3)]

    def _unless(self, normal: list[ForeignTensor], bias: ForeignTensor, name: str) -> list[str]:
        """The bias, which in a normalised layer is added behind the normalisation."""
        return [] if normal else [self.graph.tensor(f"{name}.bias", bias)]

    def _finished(
        self,
        layer: CfgSection,
        wire: Wire,
        name: str,
        bias: ForeignTensor,
        normal: list[ForeignTensor],
    ) -> Wire:
        """A layer's products, normalised where it is asked, and activated."""
        if normal:
            self.is_normalised = True
            scale, mean, variance = normal
            epsilon = EPSILON
            if self.beside_the_root:
                epsilon = ORIGINAL_EPSILON**2
                variance = variance.changed(variance.shape, _widened)
            named = {"scale": scale, "bias": bias, "mean": mean, "variance": variance}
            reads = [self.graph.tensor(f"{name}.{role}", each) for role, each in named.items()]
            wire = self.graph.node(
                "BatchNormalization", [wire, *reads], wire.shape, f"{name}.norm", epsilon=epsilon
            )
        return self._activated(layer, wire, name, "logistic")

    def _require_activation(self, layer: CfgSection) -> None:
        """Raises: UserError where a layer ends in an activation that no operator stands for."""
        word = layer.text("activation", "linear")
        known = [*ACTIVATIONS, *LIMITS, "swish"]
        if word not in known:
            hint = f"did you mean `{near}`?" if (near := nearest(word, known)) else ""
            place = layer.place_of("activation")
            raise no_word(place, f"the activation `{word}`", f"[{layer.kind}] ends in it", hint)

    def _activated(self, layer: CfgSection, read: Wire, name: str, default: str) -> Wire:
        word = layer.text("activation", default)
        name, shape = f"{name}.{word}", read.shape
        if word in LIMITS:
            roles = zip(("min", "max"), LIMITS[word], strict=True)
            limits = [self.graph.numbers(f"{name}.{role}", value) for role, value in roles]
            return self.graph.node("Clip", [read, *limits], shape, name)
        if word == "swish":
            gate = self.graph.node("Sigmoid", [read], shape, f"{name}.gate")
            return self.graph.node("Mul", [read, gate], shape, name)
        meant = ACTIVATIONS[word]
        if meant is None:
            return read
        op, attributes = meant
        return self.graph.node(op, [read], shape, name, **attributes)


def _widened(variance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Variances whose root, with the square of `ORIGINAL_EPSILON` below it, is √v and that
    epsilon: (√v + e)² = v + 2e·√v + e².
    """
    wide = np.maximum(variance.astype(np.float64), 0)
    widened: NDArray[np.float32] = (wide + 2 * ORIGINAL_EPSILON * np.sqrt(wide)).astype(np.float32)
    return widened


def _pair(read: Wire) -> Pair:
    _, _, rows, columns = read.shape
    return rows, columns


def _four(side: int) -> tuple[int, int, int, int]:
    return side, side, side, side


def _text(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))
