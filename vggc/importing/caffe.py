"""Caffe's nets: a definition (`deploy.prototxt`) and its weights (`.caffemodel`), both generations.

Source: caffe.proto and the layers of Caffe 1.0, https://github.com/BVLC/caffe
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path, PurePosixPath

import numpy as np

from vggc.importing.assembly import MAX_LAYERS, MAX_SIDE, Wire, is_sensible
from vggc.importing.caffe_layers import made, sliced
from vggc.importing.caffe_net import MOST, CaffeLayer, CaffeNet
from vggc.importing.caffe_wire import blob_in, blobs_in
from vggc.importing.definitions import no_word, wrong
from vggc.importing.foreign import Foreign
from vggc.importing.numbers_file import NumbersFile
from vggc.importing.operators import short
from vggc.importing.prototext import Message, Scalar, read_message
from vggc.preprocessing.presets import CAFFE, CAFFE_MEAN, COLOURS
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

MOST_OF_MEAN = 1 << 24
"""Numbers of a mean of pictures; that of ImageNet's, 256 by 256 in three colours, has 196,608."""
PHASES = {"TRAIN": 0, "TEST": 1}


def read_caffe(definition: Path, weights: Path | None = None) -> Foreign:
    """The net that a prototxt defines, as it is used (phase TEST), with the weights of a
    caffemodel, or without any.

    Raises: UserError where a file is broken, the two do not belong together, or a layer is none
    that nets of the language have.
    """
    text = read_message(definition)
    numbers = None if weights is None else NumbersFile.at(weights)
    reader = _Definition(text, numbers, definition.parent)
    outputs = reader.built()
    graph = reader.net.graph
    return Foreign(
        model=graph.model(outputs),
        tensors=graph.read_tensors(),
        name=text.text("name") or definition.stem,
        files=tuple(str(each) for each in (definition, weights) if each is not None),
        sha256=sha256(definition),
        facts=reader.facts(),
        no_engine="Caffe is not at hand",
        notes=tuple(reader.notes),
        has_weights=weights is not None,
    )


class _Definition:
    """What a definition in a folder says: which layers there are, what they read, and what pictures
    are.
    """

    def __init__(self, text: Message, numbers: NumbersFile | None, folder: Path) -> None:
        self.text = text
        self.folder = folder
        self.notes: list[str] = []
        self.blobs = {} if numbers is None else blobs_in(numbers)
        layers = list(self._all_layers())
        self.layers = self._used(layers)
        self.transform = _transform(layers, self.layers)
        self.net = CaffeNet(self.layers, numbers, self.blobs)

    def built(self) -> list[Wire]:
        """The net's outputs, once all layers are in the graph."""
        self._declare_inputs()
        for layer in self.layers:
            self._add(layer)
        if not self.net.graph.inputs:
            raise wrong(self.text.place, "no layer gives pictures", "a net has an input")
        wires = [self.net.wires[top] for top in self.net.unread]
        outputs = [
            each for each in wires if isinstance(each, Wire) and each not in self.net.graph.inputs
        ]
        if not self.net.graph.nodes or not outputs:
            raise wrong(self.text.place, "the net has no layers", "nothing is computed")
        others = sorted(self.blobs.keys() - {layer.name for layer in self.layers})
        if others:
            self.notes.append(f"weights of layers that the definition has not: {listed(others)}")
        return outputs

    def facts(self) -> WeightFacts:
        """How pictures are prepared, as `transform_param` tells, or as most nets of Caffe have it.

        Source: DataTransformer::Transform in data_transformer.cpp: (value − mean) · scale, of
        values from 0 to 255, in BGR.
        """
        _, channels, height, width = self.net.graph.inputs[0].shape
        told = self.transform
        means, scale = told.reals("mean_value"), told.real("scale", 1.0)
        if told.has("mean_file") and not means:
            means = self._mean(told, channels)
        if not means and not told.has("scale"):
            if channels != COLOURS:
                return WeightFacts()
            self.notes.append(
                "nothing tells how pictures are prepared: BGR less ImageNet's mean is assumed"
            )
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

    def _mean(self, told: Message, channels: int) -> list[float]:
        """The mean of each channel in the file that `mean_file` names, if that lies beside the
        definition; in a folder that it names besides, nothing is looked for.
        """
        name, place = PurePosixPath(told.text("mean_file")).name, told.places("mean_file")[0]
        try:
            numbers = NumbersFile.at(self.folder / name)
        except (UserError, ValueError):  # a name of zeros
            is_colour = channels == COLOURS
            assumed = "ImageNet's mean is assumed" if is_colour else "none is subtracted"
            told_of = f"the mean in {short(name)} is not read, as it is not beside the definition"
            self.notes.append(f"{told_of}: {assumed}, and `--preprocessing` sets another")
            return [*CAFFE_MEAN] if is_colour else [0.0]
        blob = blob_in(numbers)
        shape = blob.shape[1:] if len(blob.shape) == 4 and blob.shape[0] == 1 else blob.shape
        text = " × ".join(map(str, blob.shape))
        if shape[:1] != (channels,) or not 0 < prod(shape) <= MOST_OF_MEAN:
            reason = f"expected {channels} channels of at most {MOST_OF_MEAN:,} numbers together"
            raise wrong(place, f"the mean in {short(name)} is of {text} numbers", reason)
        means = numbers.floats(blob.runs).reshape(channels, -1).mean(axis=1, dtype=np.float64)
        if not np.isfinite(means).all():
            raise wrong(
                place, f"the mean in {short(name)} is no number", "it holds NaN or infinity"
            )
        if prod(shape) > channels:
            instead = "the average of each channel is subtracted instead of it"
            self.notes.append(f"the mean in {short(name)} is a picture of {text}: {instead}")
        return [float(mean) for mean in means]

    # -- which layers there are

    def _all_layers(self) -> Iterable[CaffeLayer]:
        old, new = self.text.messages("layers"), self.text.messages("layer")
        if not old and not new:
            known = "a definition of Caffe's has `layer { … }`"
            raise wrong(self.text.place, "there is no layer in this text", "expected a net", known)
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

    # -- inputs

    def _declare_inputs(self) -> None:
        names = self.text.texts("input")
        sides = self.text.wholes("input_dim", 0, MOST)
        shapes = [each.wholes("dim", 0, MOST) for each in self.text.messages("input_shape")]
        shapes = shapes or [sides[at : at + 4] for at in range(0, len(sides), 4)]
        for index, name in enumerate(names):
            place = self.text.places("input")[index]
            if index >= len(shapes):
                raise wrong(place, f"the input `{name}` has no shape", "expected four `input_dim`")
            self.net.give(name, self._input(name, shapes[index], place), place)

    def _input(self, name: str, sides: list[int], place: Span) -> Wire:
        """An input of pictures, of which one is computed at a time."""
        if self.net.graph.inputs:
            raise no_word(place, "a net of several inputs", f"`{name}` is a second one")
        shape = (1, *sides[1:])
        if len(sides) != 4 or not is_sensible(shape):
            text = "×".join(map(str, sides))
            reason = "expected images, channels, rows and columns, each 1 at least"
            raise wrong(place, f"the input `{name}` is of {text or 'no'} numbers", reason)
        self.net.batch = max(1, sides[0])
        return self.net.graph.image(name, shape)

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
                self.net.give(top, self._input(top, sides, layer.place), layer.place)
            return
        if not layer.tops:
            raise wrong(layer.place, f"`{layer.name}` gives nothing", "expected `top`")
        crop = layer.message.message("transform_param").whole("crop_size", 0, 0, MAX_SIDE)
        if not crop:
            reason = "no `crop_size` tells it"
            hint = "a deploy.prototxt has the shape: `input_param { shape: { dim: 1 dim: 3 … } }`"
            raise wrong(layer.place, f"the size of the pictures of `{layer.name}`", reason, hint)
        top, *labels = layer.tops
        self.net.labels.update(labels)
        sides = [1, self._channels_of(top), crop, crop]
        self.notes.append(f"pictures are of {sides[1]} × {crop} × {crop}, as `crop_size` tells")
        self.net.give(top, self._input(top, sides, layer.place), layer.place)

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
            (read,) = self.net.read(layer, 1)
            for top in layer.tops:
                self.net.give(top, read, layer.place, layer.bottoms)
            return
        if layer.kind == "Slice":
            for top, part in zip(layer.tops, sliced(self.net, layer), strict=True):
                self.net.give(top, part, layer.place, layer.bottoms)
            return
        if len(layer.tops) > 1:
            raise no_word(
                layer.place, f"{layer.kind} with several tops", f"`{layer.name}` has such a layer"
            )
        self.net.give(layer.tops[0], made(self.net, layer), layer.place, layer.bottoms)


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
