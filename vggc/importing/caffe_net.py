"""A net of Caffe's in the making: its layers, what they read, and their arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from vggc.importing.assembly import MAX_SIDE, Assembly, Wire, is_sensible
from vggc.importing.caffe_wire import Blob
from vggc.importing.definitions import NumbersUnfit, no_word, wrong
from vggc.importing.foreign import ForeignTensor
from vggc.importing.numbers_file import FLOAT32, NumbersFile, absent
from vggc.importing.prototext import Message
from vggc.ir.ops import Pair, Shape
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.source import Span

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
    "slice_param": ("axis", "slice_dim", "slice_point"),
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


class CaffeNet:
    """A graph that grows layer by layer. `wires` is what each top holds, `unread` the tops that no
    layer has read yet, and `labels` those that hold no pictures; `batch` is how many pictures the
    definition takes at once.
    """

    def __init__(
        self,
        layers: Sequence[CaffeLayer],
        numbers: NumbersFile | None,
        blobs: Mapping[str, tuple[Blob, ...]],
    ) -> None:
        self.numbers = numbers
        self.blobs = blobs
        self.graph = Assembly()
        self.wires: dict[str, Wire | Normed] = {}
        self.unread: dict[str, None] = {}
        self.labels: set[str] = set()
        self.batch = 1
        self.readers = _readers(layers)

    def give(self, top: str, made: Wire | Normed, place: Span, bottoms: Sequence[str] = ()) -> None:
        """Keeps what a top holds.

        Raises: UserError where another layer made it, and it is none of the layer's own `bottoms`.
        """
        if top in self.wires and top not in bottoms:
            raise wrong(place, f"two layers make `{top}`", "this is the second one")
        self.wires[top] = made
        self.unread[top] = None

    def read(self, layer: CaffeLayer, count: int | None = None) -> list[Wire]:
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
            self.read_once(bottom)
            found.append(wire)
        return found

    def read_once(self, bottom: str) -> None:
        """Notes that a top is read."""
        self.unread.pop(bottom, None)

    def map(self, layer: CaffeLayer) -> Wire:
        """The map that a layer reads."""
        (read,) = self.read(layer, 1)
        if not read.is_map:
            raise wrong(layer.place, f"`{layer.name}` reads a vector", f"{layer.kind} wants a map")
        return read

    def require_axis(self, layer: CaffeLayer, settings: Message, key: str, read: Wire) -> None:
        """Raises: UserError where a layer works along another axis than that of the channels."""
        if settings.whole(key, 1, -4, 3) % len(read.shape) != 1:
            reason = f"`{layer.name}` does"
            raise no_word(settings.places(key)[0], f"{layer.kind} along another axis", reason)

    def require_sensible(self, layer: CaffeLayer, shape: Shape) -> None:
        """Raises: UserError where nothing of a layer can be of such a shape."""
        if not is_sensible(shape):
            raise wrong(
                layer.place, f"`{layer.name}` would be of {sides_text(shape)}", "no net is so"
            )

    def window(self, layer: CaffeLayer, settings: Message) -> tuple[Pair, Pair, Pair, Pair]:
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

    def weights(self, layer: CaffeLayer, wanted: Sequence[Wanted]) -> list[str]:
        """The names in the graph of a layer's arrays, whose roles and shapes are told."""
        return [
            self.graph.tensor(f"{layer.name}.{role}", tensor)
            for (role, _), tensor in zip(wanted, self.tensors(layer, wanted), strict=True)
        ]

    def tensors(self, layer: CaffeLayer, wanted: Sequence[Wanted]) -> list[ForeignTensor]:
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
            own = f"the {role} of `{layer.name}` is of {sides_text(blob.shape)}"
            raise self._unfit(f"{own} there, of {sides_text(shape)} in the definition")
        return numbers.tensor(shape, blob.runs)

    def _unfit(self, reason: str, hint: str = "") -> UserError:
        assert self.numbers is not None
        return UserError(NumbersUnfit(str(self.numbers.path), reason, hint))


def _readers(layers: Sequence[CaffeLayer]) -> dict[int, list[CaffeLayer]]:
    """Who reads what each layer makes, by the layer's index."""
    makers: dict[str, int] = {}
    found: dict[int, list[CaffeLayer]] = {each.index: [] for each in layers}
    for layer in layers:
        for bottom in layer.bottoms:
            if bottom in makers:
                found[makers[bottom]].append(layer)
        makers |= dict.fromkeys(layer.tops, layer.index)
    return found


def _without_ones(shape: Shape) -> Shape:
    """A shape but for the leading ones, which Caffe ignores in weights."""
    first = next((at for at, side in enumerate(shape) if side != 1), len(shape))
    return shape[first:]


def sides_text(sides: Iterable[int]) -> str:
    """A shape in words: `3×224×224`."""
    return "×".join(map(str, sides))
