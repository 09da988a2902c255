"""The vocabulary: what each word for a layer takes, and the core ops that it stands for.

A kind is a frozen dataclass. Its fields are its signature: `size` is what the word says of
rows and columns (the 3 of `conv3-64`, the 1x7 of `conv1x7-64`), `width` the number behind the
hyphen, every other field an option. `expand` turns one into core ops, each with the suffix of its
node's name; a kind that joins paths says instead with what op it joins them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from functools import cache
from math import inf, log10
from typing import Any, ClassVar, TypeAlias, get_args

from vggc.ir.activations import ACTIVATIONS, ActivationFunction
from vggc.ir.layer_recipe import InitWord, LayerRecipe
from vggc.ir.ops import (
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    Border,
    Clip,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Mul,
    Op,
    Pad2d,
    Pair,
    Pool2d,
    PRelu,
    Scale,
    Scaling,
    Shape,
    Shuffle,
    Sides,
    Softmax,
    Softmax2d,
    StochasticPool2d,
    TakeChannels,
    TakePart,
    Upsample,
    Window,
)
from vggc.syntax.values import Extents, FlagOr, Interval, OneOf, PaddingSides, Real, WholeNumber
from vggc.syntax.values import ValueKind as ValueKind
from vggc_runtime.outputs import HeadKind

Expansion: TypeAlias = tuple[tuple[str, Op], ...]

MAX_WIDTH = 1 << 20
MAX_WINDOW = 1 << 10
SLOPES = {name: row.slope for name, row in ACTIVATIONS.items() if row.slope}
"""The slopes of the activations that have one."""
SLOPE = Real(0, 1000)
LIMIT = Real(-1e6, 1e6)
LEAST_ALPHA, LEAST_BETA = 1e-12, 1e-6
"""With less a local response normalisation does nothing; ONNX Runtime refuses 0, in float32."""
MAX_MAGNITUDE = 37
"""Powers of ten of what float32 holds."""
ACTS = ("none", *ACTIVATIONS, "prelu")
"""What `act=` takes."""
BORDERS: tuple[Border, ...] = get_args(Border)
"""What may lie around a map."""
NO_PADDING: Sides = (0, 0, 0, 0)
NORM_GROUPS = 32
"""The groups of channels of a group normalisation that says no number. Source: Wu & He 2018."""
NORMS: dict[str, BatchNorm | GroupNorm | LayerNorm] = {
    "batch": BatchNorm(),
    "group": GroupNorm(NORM_GROUPS),
    "layer": LayerNorm(),
}
"""What `norm=` takes, and the op that each word stands for."""
EPS = Real(0, 1, above=True)
"""What is added to the variance of a normalisation."""
INITS: tuple[InitWord, ...] = get_args(InitWord)
"""What `init=` takes."""
NORMAL_STD = 0.1
"""The deviation of `init=normal` that says none, as of a recipe's `init normal`."""


@dataclass(frozen=True)
class Param:
    """What may stand for one field of a kind; `default` says in words what stands for None.

    `needs` holds another field and its values: with any other, this field means nothing.
    `for_zero` is what to do instead where zero is refused.
    """

    doc: str
    kind: ValueKind
    default: str = ""
    needs: tuple[str, tuple[str, ...]] | None = None
    for_zero: str = ""


@dataclass(frozen=True)
class Clash:
    """Two values of a layer that do not go together: the option to look at, and why."""

    key: str
    reason: str
    hint: str = ""


def _param(
    doc: str,
    kind: ValueKind,
    default: Any = ...,
    words: str = "",
    needs: tuple[str, tuple[str, ...]] | None = None,
    for_zero: str = "",
) -> Any:
    metadata = {"param": Param(doc, kind, words, needs, for_zero)}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def _extents(doc: str, default: Any = ..., words: str = "") -> Any:
    return _param(doc, Extents(1, MAX_WINDOW), default, words)


def _padding(doc: str, default: Any = ..., words: str = "") -> Any:
    return _param(doc, PaddingSides(MAX_WINDOW), default, words)


def _width(doc: str, default: Any = ...) -> Any:
    return _param(doc, WholeNumber(1, MAX_WIDTH), default)


def _groups() -> Any:
    doc = "groups of channels; each output sees the inputs of its own group"
    return _param(doc, WholeNumber(1, MAX_WIDTH), 1)


def _bias() -> Any:
    doc = "whether a bias is added; a number is what it begins with, in the place of 0"
    return _param(doc, FlagOr(Real(-1000, 1000)), True)


def _init() -> Any:
    doc = "how its weights are drawn before a training, as by `init` of a recipe"
    return _param(doc, OneOf(INITS), None, "as the recipe says")


def _std() -> Any:
    doc, words = "the standard deviation of `init=normal`", f"{NORMAL_STD:g} for normal"
    return _param(doc, Real(0, 1000, above=True), None, words, ("init", ("normal",)))


def _lr() -> Any:
    doc = "a factor of the learning rate for all weights of the layer, their decay included"
    for_zero = "`freeze` in `train { … }` names layers whose weights do not move"
    return _param(doc, Real(0, 1000, above=True), 1, for_zero=for_zero)


def _norm() -> Any:
    doc = f"normalisation before the activation; group: in {NORM_GROUPS} groups of channels"
    return _param(doc, OneOf(("none", *NORMS)), "none")


def _norm_eps() -> Any:
    words = ", ".join(f"{op.eps:g} for {name}" for name, op in NORMS.items())
    return _param("added to the variance", EPS, None, words, ("norm", tuple(NORMS)))


def _act() -> Any:
    doc = "the activation that follows"
    words = "relu; none where the layer gives the output of the net"
    return _param(doc, OneOf(ACTS), None, words)


def _slope() -> Any:
    doc = ", ".join(slope.doc_of_act for slope in SLOPES.values())
    words = ", ".join(f"{slope.default:g} for {name}" for name, slope in SLOPES.items())
    return _param(doc, SLOPE, None, words, ("act", tuple(SLOPES)))


def _activated(act: str | None, slope: float | None) -> Expansion:
    match act:
        case "none":
            return ()
        case "prelu":
            return (("prelu", PRelu()),)
        case _:
            name = act or "relu"
            return ((name, _activation(name, slope)),)


@cache
def _activation(function: str, slope: float | None) -> Activation:
    if slope is None:
        slope = SLOPES[function].default if function in SLOPES else 0.0
    return Activation(function, float(slope))


class Kind:
    """A kind of layer: its fields are what its word and options may say."""

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    doc: ClassVar[str]
    example: ClassVar[str]
    scheme: ClassVar[str] = "{kind}{nth}"
    """How a layer without a name of its own is called."""
    trains: ClassVar[bool] = False
    """Whether it has weights whose output can be that of the net."""
    ends_block: ClassVar[bool] = False
    """Whether the layers behind it are counted as those of the next block."""
    head: ClassVar[HeadKind] = "features"
    """What a chain tells that ends in this layer."""

    def expand(self, x: Shape) -> Expansion:
        """The core ops that the layer stands for, for an input of this shape."""
        raise NotImplementedError

    def clash(self) -> Clash | None:
        """What is wrong with the layer's values together, if anything."""
        return self.recipe_clash()

    def recipe_clash(self) -> Clash | None:
        """What is wrong with what the layer says of its training, if anything."""
        recipe = self.recipe
        if recipe.std is not None and recipe.init != "normal":
            whose = f"`init={recipe.init}`" if recipe.init else "the recipe's `init`"
            reason = f"{whose} takes no deviation from a layer"
            return Clash("std", reason, "write `init=normal` with it")
        return None

    @property
    def recipe(self) -> LayerRecipe:
        """What the layer says of its training."""
        init, std = getattr(self, "init", None), getattr(self, "std", None)
        if init == "normal" and std is None:
            std = NORMAL_STD
        bias, lr = getattr(self, "bias", True), getattr(self, "lr", 1.0)
        return LayerRecipe(init, std, 0.0 if isinstance(bias, bool) else bias, lr)

    @classmethod
    @cache
    def params(cls) -> dict[str, Param]:
        """What each field of the kind takes, `size` and `width` included, in the order of its
        signature: what is given by name alone comes last, as what kinds share.
        """
        in_order = sorted(fields(cls), key=lambda f: f.kw_only is True)  # type: ignore[arg-type]
        return {f.name: f.metadata["param"] for f in in_order}

    @classmethod
    def leaves_no_room(cls, key: str, said: Mapping[str, str]) -> bool:
        """Whether a field means nothing beside what is said of the other fields."""
        needs = cls.params()[key].needs if key in cls.params() else None
        return needs is not None and said.get(needs[0], needs[1][0]) not in needs[1]

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The default of each field of the kind that has one."""
        found = {f.name: f.default for f in fields(cls)}  # type: ignore[arg-type]
        return {key: found[key] for key in cls.params() if found[key] is not MISSING}


def _normalised(norm: str, eps: float | None) -> Expansion:
    """The normalisation that `norm=` says, if any."""
    if norm == "none":
        return ()
    op = NORMS[norm]
    return (("norm", op if eps is None else replace(op, eps=eps)),)


def _eps_clash(norm: str, eps: float | None) -> Clash | None:
    if eps is not None and norm == "none":
        known = ", ".join(f"`norm={name}`" for name in NORMS)
        return Clash("eps", "there is no normalisation", f"say which: {known}")
    return None


def _slope_clash(act: str | None, slope: float | None) -> Clash | None:
    if slope is not None and act not in SLOPES:
        reason = f"`act={act or 'relu'}` has no slope"
        return Clash("slope", reason, f"only {' and '.join(SLOPES)} have one")
    return None


@dataclass(frozen=True, kw_only=True)
class _Weighted(Kind):
    """What layers share that multiply by weights: what follows, and how they are trained."""

    bias: bool | float = _bias()
    norm: str = _norm()
    eps: float | None = _norm_eps()
    act: str | None = _act()
    slope: float | None = _slope()
    init: str | None = _init()
    std: float | None = _std()
    lr: float = _lr()

    def after(self) -> Expansion:
        """What is done to the sums: a normalisation, an activation."""
        return (*_normalised(self.norm, self.eps), *_activated(self.act, self.slope))

    def clash(self) -> Clash | None:
        return (
            _eps_clash(self.norm, self.eps)
            or _slope_clash(self.act, self.slope)
            or self.recipe_clash()
        )


@dataclass(frozen=True)
class Conv(_Weighted):
    name = "conv"
    doc = "Convolution, then a normalisation if asked, an activation."
    example = "conv3-64"
    scheme = "conv{block}_{nth_in_block}"
    trains = True

    size: Pair = _extents("rows and columns of the kernel")
    width: int = _width("output channels")
    stride: Pair = _extents("step of the kernel", (1, 1))
    dilation: Pair | None = _extents(
        "step from one row or column of the kernel to the next", None, "1"
    )
    padding: Sides | None = _padding(
        "rows and columns around the map",
        None,
        "what keeps the resolution: half the kernel on each side, an odd one below and right",
    )
    border: Border | None = _param(
        "what the padding is: zeros, the edge, the map's reflection without its edge, or the map "
        "again",
        OneOf(BORDERS),
        None,
        "zeros",
    )
    groups: int = _groups()

    def expand(self, x: Shape) -> Expansion:
        dilation, border = self.dilation or (1, 1), self.border or "zeros"
        padding = _keeping(self.size, dilation) if self.padding is None else self.padding
        before: Expansion = ()
        if border != "zeros" and padding != NO_PADDING:
            before, padding = (("pad", Pad2d(padding, border)),), NO_PADDING
        conv = Conv2d(
            channels=self.width,
            kernel=self.size,
            stride=self.stride,
            padding=padding,
            groups=self.groups,
            bias=bool(self.bias),
            dilation=dilation,
        )
        return (*before, ("", conv), *self.after())

    def clash(self) -> Clash | None:
        if self.width % self.groups:
            return Clash("groups", f"{self.groups} groups do not divide {self.width} channels")
        return super().clash()


@dataclass(frozen=True)
class Deconv(_Weighted):
    name = "deconv"
    doc = (
        "Transposed convolution, which makes a map larger, then a normalisation if asked, an "
        "activation."
    )
    example = "deconv4-64 stride=2"
    trains = True

    size: Pair = _extents("rows and columns of the kernel")
    width: int = _width("output channels")
    stride: Pair = _extents("how far apart neighbours of the input come to stand", (1, 1))
    padding: Sides | None = _padding(
        "rows and columns that are taken away of the output",
        None,
        "what leaves the stride times the input, half on each side, an odd one above and left",
    )
    groups: int = _groups()

    def expand(self, x: Shape) -> Expansion:
        conv = ConvTranspose2d(
            channels=self.width,
            kernel=self.size,
            stride=self.stride,
            padding=_multiplying(self.size, self.stride) if self.padding is None else self.padding,
            groups=self.groups,
            bias=bool(self.bias),
        )
        return (("", conv), *self.after())

    def clash(self) -> Clash | None:
        if self.width % self.groups:
            return Clash("groups", f"{self.groups} groups do not divide {self.width} channels")
        sides = self.padding or NO_PADDING
        for size, *taken in zip(self.size, sides[:2], sides[2:], strict=True):
            if max(taken) >= size:
                reason = f"a kernel of {size} has no more to take away"
                return Clash("padding", reason, f"at most {size - 1}, less than the size")
        return super().clash()


def _multiplying(kernel: Pair, stride: Pair) -> Sides:
    """What is to be taken away of a transposed convolution's output, so that it is its stride times
    as high and wide as the input.
    """
    rows, columns = (max(0, k - s) for k, s in zip(kernel, stride, strict=True))
    return rows - rows // 2, columns - columns // 2, rows // 2, columns // 2


def _keeping(kernel: Pair, dilation: Pair) -> Sides:
    """The padding with which a map keeps its resolution at stride 1."""
    rows, columns = (extent - 1 for extent in Window(kernel, dilation=dilation).extent)
    return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2


@dataclass(frozen=True)
class _Pool(Kind):
    """What the pools over windows share; `op` is what they do in each."""

    op: ClassVar[type[Pool2d]]
    scheme = "pool{block}"
    ends_block = True

    size: Pair = _extents("rows and columns of the window", (2, 2))
    stride: Pair | None = _extents("step of the window", None, "the size")
    padding: Sides = _padding("how far windows reach beyond each side", NO_PADDING)
    round: str = _param(
        "up: a last window that reaches beyond the map counts", OneOf(("down", "up")), "down"
    )

    def clash(self) -> Clash | None:
        for size, *sides in zip(self.size, self.padding[:2], self.padding[2:], strict=True):
            if max(sides) >= size:
                reason = f"windows of {size} would lie outside the map"
                return Clash("padding", reason, f"at most {size - 1}, less than the size")
        return None

    def expand(self, x: Shape) -> Expansion:
        return (("", self.pool()),)

    def pool(self) -> Pool2d:
        """The op that the layer stands for."""
        stride = self.stride or self.size
        return self.op(self.size, stride, self.padding, self.round == "up")


@dataclass(frozen=True)
class Pool(_Pool):
    name = "pool"
    aliases = ("maxpool",)
    doc = "Maximum over windows."
    example = "pool"
    op = MaxPool2d


@dataclass(frozen=True)
class AvgPool(_Pool):
    name = "avgpool"
    doc = "Mean over windows."
    example = "avgpool3 stride=2"
    op = AvgPool2d

    border: str | None = _param(
        "what lies beyond the map: not counted, or counted as zeros as far as the padding goes",
        OneOf(("ignore", "zeros")),
        None,
        "ignore",
    )

    def pool(self) -> Pool2d:
        op = super().pool()
        assert isinstance(op, AvgPool2d)
        return replace(op, counts_padding=self.border == "zeros")


@dataclass(frozen=True)
class StochasticPool(_Pool):
    name = "stochasticpool"
    doc = (
        "A value of each window that is drawn in training, with a probability in proportion to "
        "itself; else the mean weighted by the values. What is below zero counts as zero."
    )
    example = "stochasticpool3 stride=2"
    op = StochasticPool2d


@dataclass(frozen=True)
class PadKind(Kind):
    name = "pad"
    doc = "Rows and columns around a map; `padding=` of a convolution does it by itself."
    example = "pad padding=0x0x1x1 border=edge"

    padding: Sides = _padding("rows and columns on each side")
    border: Border = _param(
        "zeros, the edge, the map's reflection without its edge, or the map again",
        OneOf(BORDERS),
        "zeros",
    )

    def expand(self, x: Shape) -> Expansion:
        return (("", Pad2d(self.padding, self.border)),)


@dataclass(frozen=True)
class UpsampleKind(Kind):
    name = "upsample"
    doc = (
        "More rows and columns, each value several times or, with `mode=bilinear`, between the "
        "nearest four."
    )
    example = "upsample2 mode=bilinear"

    size: Pair = _extents("how many times as many rows and columns", (2, 2))
    mode: Scaling = _param(
        "nearest: each value several times; bilinear: between four, by the centres of pixels",
        OneOf(get_args(Scaling)),
        "nearest",
    )

    def clash(self) -> Clash | None:
        if self.size == (1, 1):
            return Clash("size", "the map would stay as it is", "leave the layer out")
        return None

    def expand(self, x: Shape) -> Expansion:
        return (("", Upsample(self.size, self.mode)),)


@dataclass(frozen=True)
class Gap(Kind):
    name = "gap"
    aliases = ("globalavgpool",)
    doc = "Global average pooling: the mean of each channel, a vector."
    example = "gap"

    def expand(self, x: Shape) -> Expansion:
        return (("", GlobalAvgPool()),)


@dataclass(frozen=True)
class Lrn(Kind):
    name = "lrn"
    doc = "Local response normalisation over neighbouring channels."
    example = "lrn size=5 alpha=1e-4 beta=0.75 k=2"

    size: int = _param("channels in the sum", WholeNumber(1, MAX_WINDOW - 1, odd=True), 5)
    alpha: float = _param("weight of the sum of squares, not divided by size", Real(0, 1e6), 1e-4)
    beta: float = _param("exponent", Real(0, 100), 0.75)
    k: float = _param("constant beside the sum", Real(1e-6, 1e6), 2.0)

    def clash(self) -> Clash | None:
        for key, least in (("alpha", LEAST_ALPHA), ("beta", LEAST_BETA)):
            if getattr(self, key) < least:
                reason = f"below {least:g} every value is divided by one and the same number"
                return Clash(key, reason, "leave the layer out")
        if abs(magnitude := self.beta * log10(self.k)) > MAX_MAGNITUDE:
            reason = f"values would be divided by {self.k:g} to its power, about 1e{magnitude:+.0f}"
            return Clash("beta", reason, f"float32 holds 1e-{MAX_MAGNITUDE} to 1e+{MAX_MAGNITUDE}")
        return None

    def expand(self, x: Shape) -> Expansion:
        return (("", LocalResponseNorm(self.size, self.alpha, self.beta, self.k)),)


@dataclass(frozen=True)
class BatchNormKind(Kind):
    name = "batchnorm"
    aliases = ("bn",)
    doc = "Batch normalisation by itself; `conv norm=batch` puts it before the activation."
    example = "batchnorm"

    eps: float = _param("added to the variance", EPS, 1e-5)
    momentum: float = _param("how far running statistics move", Real(0, 1, unit="%"), 0.1)
    lr: float = _lr()

    def expand(self, x: Shape) -> Expansion:
        return (("", BatchNorm(self.eps, self.momentum)),)


@dataclass(frozen=True)
class ScaleKind(Kind):
    name = "scale"
    doc = (
        "A trained factor for each channel of a map or feature of a vector, then a trained offset."
    )
    example = "scale start=1e-6 bias=off"

    start: float = _param("the factors at first", Real(-1000, 1000), 1.0)
    bias: bool | float = _bias()
    lr: float = _lr()

    def expand(self, x: Shape) -> Expansion:
        return (("", Scale(self.start, bool(self.bias))),)


@dataclass(frozen=True)
class GroupNormKind(Kind):
    name = "groupnorm"
    doc = (
        "Group normalisation: mean and variance of each group of channels over the whole map; "
        "`groupnorm groups=1` takes all of a sample together."
    )
    example = "groupnorm groups=32"

    groups: int = _param("groups of channels", WholeNumber(1, MAX_WIDTH), NORM_GROUPS)
    eps: float = _param("added to the variance", EPS, 1e-5)
    lr: float = _lr()

    def expand(self, x: Shape) -> Expansion:
        return (("", GroupNorm(self.groups, self.eps)),)


@dataclass(frozen=True)
class LayerNormKind(Kind):
    name = "layernorm"
    doc = (
        "Layer normalisation: mean and variance over the channels at each place of a map, over the "
        "features of a vector."
    )
    example = "layernorm"

    eps: float = _param("added to the variance", EPS, 1e-6)
    lr: float = _lr()

    def expand(self, x: Shape) -> Expansion:
        return (("", LayerNorm(self.eps)),)


@dataclass(frozen=True)
class Fc(_Weighted):
    name = "fc"
    doc = "Fully-connected layer, then a normalisation if asked, an activation."
    example = "fc-4096"
    scheme = "fc{block}"
    trains = True
    ends_block = True
    head = "classes"

    width: int = _width("output features")

    def expand(self, x: Shape) -> Expansion:
        linear = ("", Linear(self.width, bool(self.bias)))
        return (*_flattened(x), linear, *self.after())


def _flattened(x: Shape) -> Expansion:
    return (("flatten", Flatten()),) if len(x) == 3 else ()


@dataclass(frozen=True)
class Boxes(Kind):
    name = "boxes"
    doc = (
        "Bounding boxes (centre x, centre y, width, height): one for all classes, or with "
        "`boxes-1000` one for each; fully connected and linear."
    )
    example = "boxes-1000"
    trains = True
    ends_block = True
    head = "boxes"

    width: int = _width("boxes, one for each class", 1)
    init: str | None = _init()
    std: float | None = _std()
    lr: float = _lr()

    def expand(self, x: Shape) -> Expansion:
        return (*_flattened(x), ("", Linear(4 * self.width)))


class ActivationWord(Kind):
    """A layer that is an activation by itself."""

    def expand(self, x: Shape) -> Expansion:
        return (("", _activation(self.name, getattr(self, "slope", None))),)


def _word(function: ActivationFunction) -> type[Kind]:
    """The word for an activation; its slope, if it has one, is an option."""
    slope = function.slope
    told = [("slope", float, _param(slope.doc, SLOPE, slope.default))] if slope else []
    said = {"doc": function.doc, "example": function.example or function.name}
    return make_dataclass(
        function.name.title(),
        told,
        bases=(ActivationWord,),
        namespace={"name": function.name, "aliases": function.aliases, **said},
        frozen=True,
    )


@dataclass(frozen=True)
class Prelu(Kind):
    name = "prelu"
    doc = "Leaky rectifier with a trained slope for each channel, 0.25 at first."
    example = "prelu"

    lr: float = _lr()

    def expand(self, x: Shape) -> Expansion:
        return (("", PRelu()),)


@dataclass(frozen=True)
class ClipKind(Kind):
    name = "clip"
    doc = "Limits: what is below `min` becomes `min`, what is above `max` becomes `max`."
    example = "clip min=0 max=6"

    min: float | None = _param("the lower limit", LIMIT, None, "unlimited")
    max: float | None = _param("the upper limit", LIMIT, None, "unlimited")

    def clash(self) -> Clash | None:
        match self.min, self.max:
            case None, None:
                return Clash(
                    "min",
                    "neither `min` nor `max` is given",
                    "give one or both: `clip min=0 max=6`",
                )
            case float(low), float(high) if low >= high:
                reason = f"`min` is {low:g}, so that no two values would differ"
                return Clash("max", reason, "the larger of the two is `max`")
        return None

    def expand(self, x: Shape) -> Expansion:
        low = -inf if self.min is None else self.min
        high = inf if self.max is None else self.max
        return (("", Clip(low=low, high=high)),)


def _activation_words() -> Iterator[type[Kind]]:
    """The words for activations, as they are told: the trained rectifier behind the other."""
    for function in ACTIVATIONS.values():
        yield _word(function)
        if function.name == "leaky":
            yield Prelu


@dataclass(frozen=True)
class DropoutKind(Kind):
    name = "dropout"
    doc = "While training, zeroes values at random and scales the others up; nothing otherwise."
    example = "dropout p=0.5"

    p: float = _param("the share of values that are zeroed", Real(0, 0.99, unit="%"), 0.5)

    def expand(self, x: Shape) -> Expansion:
        return (("", Dropout(self.p)),)


@dataclass(frozen=True)
class FlattenKind(Kind):
    name = "flatten"
    doc = "A map to a vector, channels first. `fc` does it by itself."
    example = "flatten"

    def expand(self, x: Shape) -> Expansion:
        return (("", Flatten()),)


@dataclass(frozen=True)
class SoftmaxKind(Kind):
    name = "softmax"
    doc = "Scores to probabilities."
    example = "softmax"
    head = "classes"

    def expand(self, x: Shape) -> Expansion:
        return (("", Softmax()),)


@dataclass(frozen=True)
class Softmax2dKind(Kind):
    name = "softmax2d"
    doc = "Scores to probabilities over the channels, at each place of a map."
    example = "softmax2d"

    def expand(self, x: Shape) -> Expansion:
        return (("", Softmax2d()),)


@dataclass(frozen=True)
class ShuffleKind(Kind):
    name = "shuffle"
    doc = "Channel shuffle: the first channel of each group, then their second ones, and so on."
    example = "shuffle groups=4"

    groups: int = _param(
        "groups of neighbouring channels; mostly those of the convolution before",
        WholeNumber(1, MAX_WIDTH),
        2,
    )

    def clash(self) -> Clash | None:
        if self.groups == 1:
            return Clash(
                "groups", "the channels of one group stay as they are", "leave the layer out"
            )
        return None

    def expand(self, x: Shape) -> Expansion:
        return (("", Shuffle(self.groups)),)


@dataclass(frozen=True)
class TakeKind(Kind):
    name = "take"
    doc = (
        "Some of the channels of a map, or of the features of a vector: a half or another part of "
        "them, or a range."
    )
    example = "take part=1 of=2"

    part: int | None = _param(
        "which of the parts of equal size, counted from 1",
        WholeNumber(1, MAX_WIDTH),
        None,
        "none",
    )
    of: int | None = _param("how many parts there are", WholeNumber(2, MAX_WIDTH), None, "2")
    channels: Pair | None = _param(
        "the first and the last of them instead, both included, counted from 0",
        Interval(WholeNumber(0, MAX_WIDTH - 1)),
        None,
        "none",
    )

    def clash(self) -> Clash | None:
        match self.part, self.channels:
            case None, None:
                hint = "say it: `part=1 of=2` is the first half, `channels=0..7` the first eight"
                return Clash("part", "nothing says which channels are taken", hint)
            case None, _ if self.of is not None:
                hint = "leave `of` out, or say `part=` instead of `channels=`"
                return Clash("of", "a range is of no number of parts", hint)
            case int(), (_, _):
                hint = "leave one of them out"
                return Clash("channels", "`part` says already which channels are taken", hint)
            case int(part), None if part > self.parts:
                reason = f"there are {self.parts} parts"
                return Clash("part", reason, f"the last one is `part={self.parts}`")
        return None

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return self.of or 2

    def expand(self, x: Shape) -> Expansion:
        if self.channels is not None:
            return (("", TakeChannels(*self.channels)),)
        assert self.part is not None
        return (("", TakePart(self.part, self.parts)),)


@dataclass(frozen=True)
class Skip(Kind):
    name = "skip"
    doc = "Passes on what it gets: the short path of a residual block."
    example = "skip"

    def expand(self, x: Shape) -> Expansion:
        return ()


class JoinKind(Kind):
    """A kind of layer behind which paths stand; `combine` is the op that joins them."""

    combine: ClassVar[Op]


@dataclass(frozen=True)
class ConcatKind(JoinKind):
    name = "concat"
    doc = "Paths beside one another, their channels concatenated."
    example = "concat(conv1-64, conv3-64)"
    combine = Concat()


@dataclass(frozen=True)
class AddKind(JoinKind):
    name = "add"
    doc = "Paths beside one another, their outputs added."
    example = "add(conv3-64 | conv3-64 act=none, skip)"
    combine = Add()


@dataclass(frozen=True)
class MulKind(JoinKind):
    name = "mul"
    doc = (
        "Paths beside one another, their outputs multiplied. One that ends in a vector, whichever "
        "it is, multiplies each channel of the maps: squeeze and excitation."
    )
    example = "mul(skip, gap | fc-16 | fc-64 act=sigmoid)"
    combine = Mul()


KINDS: tuple[type[Kind], ...] = (
    Conv,
    Deconv,
    Pool,
    AvgPool,
    StochasticPool,
    PadKind,
    Gap,
    Fc,
    Boxes,
    BatchNormKind,
    ScaleKind,
    GroupNormKind,
    LayerNormKind,
    Lrn,
    *_activation_words(),
    ClipKind,
    DropoutKind,
    FlattenKind,
    SoftmaxKind,
    Softmax2dKind,
    ShuffleKind,
    TakeKind,
    UpsampleKind,
    ConcatKind,
    AddKind,
    MulKind,
    Skip,
)
BY_WORD: dict[str, type[Kind]] = {
    word: kind for kind in KINDS for word in (kind.name, *kind.aliases)
}
ELSEWHERE = {
    "conv2d": "conv",
    "convolution": "conv",
    "conv_transpose": "deconv",
    "convtranspose": "deconv",
    "transposed": "deconv",
    "deconvolution": "deconv",
    "upconv": "deconv",
    "dense": "fc",
    "linear": "fc",
    "max_pool": "pool",
    "avg_pool": "avgpool",
    "stochastic_pool": "stochasticpool",
    "global_avg_pool": "gap",
    "drop": "dropout",
    "prob": "softmax",
    "batch_norm": "batchnorm",
    "layer_scale": "scale",
    "affine": "scale",
    "group_norm": "groupnorm",
    "gn": "groupnorm",
    "layer_norm": "layernorm",
    "ln": "layernorm",
    "epsilon": "eps",
    "leaky_relu": "leaky",
    "clamp": "clip",
    "hardtanh": "clip",
    "channel_shuffle": "shuffle",
    "slice": "take",
    "split": "take",
    "chunk": "take",
    "narrow": "take",
    "half": "take",
    "parts": "of",
    "range": "channels",
    "interpolate": "upsample",
    "resize": "upsample",
    "identity": "skip",
    "shortcut": "skip",
    "cat": "concat",
    "sum": "add",
    "multiply": "mul",
    "product": "mul",
    "pad": "padding",
    "pads": "padding",
    "padding_mode": "border",
    "dilations": "dilation",
    "zeropad2d": "pad",
    "reflectionpad2d": "pad",
    "s": "stride",
    "strides": "stride",
    "kernel": "size",
    "activation": "act",
    "group": "groups",
    "ceil_mode": "round",
}
"""What other tools call the words of this one, for suggestions."""
