"""How a net is trained: the `train { … }` block as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from vggc.diagnostics import Diagnostic, did_you_mean
from vggc.ir.graph import Graph
from vggc.ir.ops import describe
from vggc.recipe import mistakes
from vggc.recipe.blocks import (
    Part,
    Plain,
    Reading,
    Schema,
    Switch,
    Variants,
    option,
    report,
    setting,
)
from vggc.recipe.layer_names import MOST_LISTED, layer_names, selected, unfit, with_weights
from vggc.source import Span
from vggc.syntax import ast
from vggc.values import (
    MAX_SIDE,
    Choice,
    Flag,
    Maybe,
    Name,
    Names,
    Pixels,
    Real,
    Several,
    Size,
    Whole,
    items,
    written,
)

Loss: TypeAlias = Literal["cross-entropy", "euclidean"]
Measure: TypeAlias = Literal["top-1", "loss"]
"""What of the held-out images tells the best epoch."""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent: v ← momentum·v + g + weight_decay·w;  w ← w − lr·v.

    With `nesterov` w ← w − lr·(g + weight_decay·w + momentum·v). Source: Sutskever et al. (2013).
    """

    example: ClassVar[str] = "sgd lr=0.01 momentum=0.9"
    doc: ClassVar[str] = "stochastic gradient descent with momentum and L2 weight decay"

    lr: float = option("the learning rate", Real(0, 1000, above=True), 0.01)
    momentum: float = option("the share of the last step that is kept", Real(0, 1), 0.9)
    weight_decay: float = option("the factor of the L2 penalty", Real(0, 1000), 5e-4)
    decay_norms: bool = option(
        "whether scales and shifts of normalisations are penalised, too", Flag(), False
    )
    nesterov: bool = option("look ahead by the momentum", Flag(), False)


@dataclass(frozen=True)
class Plateau:
    """Multiply the rate by `factor` after `patience` epochs without a better held-out top-1.

    Source: Simonyan & Zisserman (2015), section 3.1: factor 0.1, three drops. They leave
    the patience open.
    """

    example: ClassVar[str] = "plateau factor=0.1 drops=3"

    doc: ClassVar[str] = "the rate drops when the held-out accuracy stops improving"

    factor: float = option("what a drop leaves", Real(0, 1, above=True, unit="%"), 0.1)
    drops: int = option("how often the rate may drop", Whole(0, 100), 3)
    patience: int = option("epochs without improvement before a drop", Whole(1, 10_000), 5)


@dataclass(frozen=True)
class OneCycle:
    """Rise from `start`·lr to lr in the first `warm_up` of all steps, then fall to `end`·lr.

    Source: Smith & Topin (2018), "Super-convergence", with cosine ramps.
    """

    example: ClassVar[str] = "one-cycle warm-up=30%"

    doc: ClassVar[str] = "the rate rises to `lr` and falls again, on cosine ramps"

    warm_up: float = option("the share of all steps in which it rises", Real(0, 1, unit="%"), 0.3)
    start: float = option("the first rate, as a share of `lr`", Real(0, 1, unit="%"), 0.04)
    end: float = option("the last rate, as a share of `lr`", Real(0, 1, unit="%"), 1e-4)


@dataclass(frozen=True)
class Cosine:
    """Rise in a line to lr in the first `warm_up` of all steps, then fall to `end`·lr on a cosine.

    Source: Loshchilov & Hutter (2017), formula 5, without restarts; Goyal et al. (2017), section
    2.2, for the warm-up.
    """

    example: ClassVar[str] = "cosine warm-up=5%"

    doc: ClassVar[str] = "the rate falls on half a cosine, after a rise where one is asked for"

    warm_up: float = option("the share of all steps in which it rises", Real(0, 1, unit="%"), 0.0)
    end: float = option("the last rate, as a share of `lr`", Real(0, 1, unit="%"), 0.0)


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout."""

    example: ClassVar[str] = "constant"
    doc: ClassVar[str] = "the same rate throughout"


@dataclass(frozen=True)
class Glorot:
    """Uniform in ±√(6 / (fan_in + fan_out)). Source: Glorot & Bengio (2010), formula 16."""

    example: ClassVar[str] = "init glorot"
    doc: ClassVar[str] = "uniform in ±√(6 / (fan in + fan out))"


@dataclass(frozen=True)
class He:
    """Normal with variance 2 / fan_in. Source: He et al. (2015), formula 10."""

    example: ClassVar[str] = "init he"
    doc: ClassVar[str] = "normal with variance 2 / fan in"


@dataclass(frozen=True)
class Normal:
    """Normal with one standard deviation. Source: Simonyan & Zisserman (2015), section 3.1."""

    example: ClassVar[str] = "init normal std=0.1"
    doc: ClassVar[str] = "normal with one standard deviation for all layers"

    std: float = option("the standard deviation", Real(0, 1000, above=True), 0.1)


@dataclass(frozen=True)
class InitFrom:
    """These layers begin with the weights that layers of the same names have in another net.

    `layers` are names and ranges of names as written.
    Source: Simonyan & Zisserman (2015), section 3.1.
    """

    example: ClassVar[str] = "init-from vgg11 layers=conv1_1,conv2_1,fc6..fc8"
    doc: ClassVar[str] = "layers that begin with the weights which another trained net has in them"

    net: str = option("the other net", Name("net"))
    layers: tuple[str, ...] = option("layers of both nets", Names("layers", ranges=True))


@dataclass(frozen=True)
class EarlyStop:
    """End the training after `patience` epochs in a row that are not better than the best before
    them by more than `min_delta`, in the units of `best-by`: shares of images, or nats.
    """

    example: ClassVar[str] = "early-stop patience=10"
    doc: ClassVar[str] = "the training ends when it has stopped improving, by what `best-by` says"

    patience: int = option("epochs that are waited for a better one", Whole(1, 100_000), 10)
    min_delta: float = option("what a better epoch is better by", Real(0, 1000), 0.0)


Optimiser: TypeAlias = Sgd
Schedule: TypeAlias = Plateau | OneCycle | Cosine | Constant
Init: TypeAlias = Glorot | He | Normal

OPTIMISERS = Variants({"sgd": Sgd}, bare=True)
SCHEDULES = Variants(
    {"plateau": Plateau, "one-cycle": OneCycle, "cosine": Cosine, "constant": Constant}, bare=True
)
INITS = Variants({"glorot": Glorot, "he": He, "normal": Normal}, bare=False)
LOSSES: tuple[Loss, ...] = ("cross-entropy", "euclidean")
MEASURES: tuple[Measure, ...] = ("top-1", "loss")


@dataclass(frozen=True)
class Recipe:
    """Everything that training needs beyond the net, the images and a seed.

    `batch` counts images, `epochs` passes over all of them and `steps` batches; one of the
    two is None. `scale` holds the least and the greatest length in pixels to which an
    image's shorter side is brought before the random crop; None: the image is made to just
    cover the net's input. `crop` is (H, W) and equals the net's input; None says the same.
    `rgb_shift` is the standard deviation of the colour shift in units of the colours' own,
    along their principal axes. `freeze` names the layers that keep their first weights.

    `mixup` and `cutmix` are the parameters α of the distribution Beta(α, α) that an image's share
    in a mixture of two is drawn from; with both, each pair is mixed by one of them. `ema` is the
    share that an average of the weights keeps of itself in a step. A step's images go through the
    net in `accumulate` parts. `clip` is the greatest L2 norm of all gradients together.
    Sources: Zhang et al. (2018); Yun et al. (2019); Szegedy et al. (2016), section 7, for
    `label_smoothing`; Polyak & Juditsky (1992) for the average.
    """

    batch: int = setting(Plain(Whole(1, 65_536), "batch 256", "images in a step"), 256)
    epochs: int | None = setting(
        Plain(Whole(1, 100_000), "epochs 74", "passes over all images"), 74
    )
    steps: int | None = setting(
        Plain(Whole(1, 1_000_000_000), "steps 370000", "batches, in the place of `epochs`")
    )
    loss: Loss = setting(
        Plain(
            Choice(LOSSES),
            "loss cross-entropy",
            "what is made small: of the classes' soft-max, or of the boxes' distance",
        ),
        "cross-entropy",
    )
    optimiser: Optimiser = setting(OPTIMISERS, Sgd)
    schedule: Schedule = setting(SCHEDULES, Plateau)
    init: Init = setting(INITS, Glorot)
    init_from: InitFrom | None = setting(Part(InitFrom, value="net"))
    freeze: tuple[str, ...] | None = setting(
        Plain(
            Maybe(Names("layers", ranges=True)),
            "freeze conv1_1..pool5",
            "layers that keep their first weights and statistics",
        )
    )
    scale: tuple[int, int] | None = setting(
        Plain(
            Maybe(Pixels(MAX_SIDE)),
            "scale 256..512",
            "the shorter side of an image before the random crop, fixed or drawn anew each time; "
            "off: just enough to cover the input",
        )
    )
    crop: tuple[int, int] | None = setting(
        Plain(Maybe(Size(MAX_SIDE)), "crop 224", "the size of the crop, which is the net's input")
    )
    flip: bool = setting(Switch("flip", "half of the images are mirrored"), False)
    rgb_shift: float | None = setting(
        Plain(
            Maybe(Real(0, 10, above=True)),
            "rgb-shift 0.1",
            "the standard deviation of a random shift along the colours' principal axes",
        )
    )
    label_smoothing: float | None = setting(
        Plain(
            Maybe(Real(0, 0.999, above=True)),
            "label-smoothing 0.1",
            "the share of the target that is spread over all classes",
        )
    )
    mixup: float | None = setting(
        Plain(
            Maybe(Real(0, 1000, above=True)),
            "mixup 0.2",
            "two images laid over each other, in shares drawn from Beta(α, α)",
        )
    )
    cutmix: float | None = setting(
        Plain(
            Maybe(Real(0, 1000, above=True)),
            "cutmix 1",
            "a rectangle of one image pasted into another, in shares drawn from Beta(α, α)",
        )
    )
    ema: float | None = setting(
        Plain(
            Maybe(Real(0, 0.999999, above=True)),
            "ema 0.999",
            "the net is tested and kept with an average of its weights, which keeps this share "
            "of itself in a step",
        )
    )
    accumulate: int = setting(
        Plain(
            Whole(1, 4096),
            "accumulate 4",
            "parts in which the images of a step go through the net, to need less memory",
        ),
        1,
    )
    clip: float | None = setting(
        Plain(
            Maybe(Real(0, 1e6, above=True)),
            "clip 1",
            "the greatest norm of the gradient; a longer one is made as long as that",
        )
    )

    best_by: Measure = setting(
        Plain(
            Choice(MEASURES),
            "best-by loss",
            "what of the held-out images tells the best epoch, whose weights are kept, too",
        ),
        "top-1",
    )
    early_stop: EarlyStop | None = setting(Part(EarlyStop))
    restarts: tuple[int, ...] | None = setting(
        Plain(
            Maybe(Several(Whole(1, 100_000), 100)),
            "restarts 10,30",
            "epochs after which a schedule that runs to an end begins anew, as it does where a "
            "run is extended",
        )
    )
    give_up: bool = setting(
        Switch("give-up off", "stop where the net has learned nothing in its first epochs"), True
    )

    def num_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole training."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * steps_per_epoch

    def num_epochs(self, steps_per_epoch: int) -> int:
        """Epochs of the whole training; the last may be cut short."""
        return -(-self.num_steps(steps_per_epoch) // steps_per_epoch)


def without_end(recipe: Recipe) -> Recipe:
    """The recipe without what says only when its training ends: that may change on the way."""
    whole = Recipe()
    return replace(
        recipe,
        epochs=whole.epochs,
        steps=whole.steps,
        early_stop=whole.early_stop,
        restarts=whole.restarts,
        give_up=whole.give_up,
    )


TRAIN = Schema("train", Recipe, rivals=(("epochs", "steps"),))


def default_recipe(graph: Graph | None) -> Recipe:
    """The recipe of a net whose file says nothing: nets that give boxes are fitted to them."""
    boxes = graph is not None and graph.heads[0].kind == "boxes"
    return replace(Recipe(), loss="euclidean") if boxes else Recipe()


Find: TypeAlias = Callable[[str], Graph | None]
"""The net of a name; None where there is none."""


def read_recipe(
    block: ast.Block | None,
    graph: Graph | None = None,
    find: Find | None = None,
    nets: Sequence[str] = (),
) -> Recipe:
    """The recipe that a `train` block describes; what it leaves out keeps its default.

    With a graph it is held against that net. `find` gives the nets that the block names,
    and `nets` are names to suggest; without `find` other nets are not looked at.

    Raises:
        UserError: with every mistake in the block.
    """
    reading = TRAIN.read(block, default_recipe(graph))
    found = list(reading.found)
    if graph is not None:
        found += against(reading, graph, find, nets)
    report(found)
    return reading.value


# The recipe against the net


def against(
    reading: Reading[Recipe], graph: Graph, find: Find | None, nets: Sequence[str]
) -> list[Diagnostic]:
    """Every setting that the net cannot do anything with."""
    return [
        *image_mistakes(reading, graph),
        *accumulate_mistakes(reading),
        *optimiser_mistakes(reading),
        *restart_mistakes(reading),
        *loss_mistakes(reading, graph),
        *freeze_mistakes(reading, graph),
        *init_from_mistakes(reading, graph, find, nets),
    ]


def image_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    recipe, (channels, *size) = reading.value, graph.input
    found: list[Diagnostic] = []
    if recipe.scale and recipe.scale[0] < max(size):
        found.append(scale_too_small("scale", reading.span("scale"), recipe.scale[0], graph))
    if recipe.crop and recipe.crop != tuple(size):
        span, right = reading.span("crop"), written(Size(), tuple(size))
        shown = describe(recipe.crop), describe(tuple(size))
        found.append(mistakes.CropMismatch(span, *shown, right))
    if recipe.rgb_shift is not None and channels != 3:
        found.append(mistakes.ShiftWithoutColours(reading.span("rgb-shift"), describe(graph.input)))
    return found


def accumulate_mistakes(reading: Reading[Recipe]) -> list[Diagnostic]:
    parts, batch = reading.value.accumulate, reading.value.batch
    if parts <= batch:
        return []
    return [mistakes.MorePartsThanImages(reading.span("accumulate"), parts, batch)]


def optimiser_mistakes(reading: Reading[Recipe]) -> list[Diagnostic]:
    sgd = reading.value.optimiser
    if not sgd.nesterov or sgd.momentum > 0:
        return []
    return [mistakes.NesterovWithoutMomentum(reading.span("sgd.nesterov"))]


def restart_mistakes(reading: Reading[Recipe]) -> list[Diagnostic]:
    """Restarts that do not follow one another, or come after the last epoch."""
    recipe = reading.value
    if recipe.restarts is None:
        return []
    ends = (*recipe.restarts, *filter(None, [recipe.epochs]))
    if list(ends) == sorted({*ends}):
        return []
    return [mistakes.RestartsOutOfOrder(reading.span("restarts"), ",".join(map(str, ends)))]


def scale_too_small(setting: str, span: Span | None, scale: int, graph: Graph) -> Diagnostic:
    """The mistake of images whose shorter side is less than the net's input."""
    size = graph.input[1:]
    return mistakes.ScaleTooSmall(span, setting, str(scale), describe(size), max(size))


def loss_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    """A loss that no head of the net can have. Features are trained by either."""
    wanted: Mapping[Loss, str] = {"cross-entropy": "classes", "euclidean": "boxes"}
    kinds = {head.kind for head in graph.heads}
    loss = reading.value.loss
    if "features" in kinds or wanted[loss] in kinds:
        return []
    right = next(name for name, kind in wanted.items() if kind in kinds)
    return [mistakes.LossMismatch(reading.span("loss"), loss, " and ".join(sorted(kinds)), right)]


def freeze_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    value, names = reading.table.get("freeze"), reading.value.freeze
    if value is None or names is None:
        return []
    if found := unfit(value, layer_names(graph)):
        return found
    weighted, frozen = with_weights(graph), selected(names, graph)
    if not weighted.keys() & set(frozen):
        return [without_weights("`freeze`", value, weighted)]
    if weighted.keys() <= set(frozen):
        return [mistakes.NothingToTrainLeft(value.span, list(weighted)[-1])]
    return []


def without_weights(setting: str, value: ast.Value, weighted: Iterable[str]) -> Diagnostic:
    return mistakes.LayersWithoutWeights(value.span, setting, some(weighted))


def some(names: Iterable[str]) -> str:
    """The names, the first of them where there are many."""
    listed = [f"`{name}`" for name in names]
    return ", ".join([*listed[:MOST_LISTED], *("…",) * (len(listed) > MOST_LISTED)])


def init_from_mistakes(
    reading: Reading[Recipe], graph: Graph, find: Find | None, nets: Sequence[str]
) -> list[Diagnostic]:
    part, value = reading.value.init_from, reading.table.get("init-from.layers")
    if part is None or value is None:
        return []
    other = find(part.net) if find else None
    found: list[Diagnostic] = []
    if find and other is None:
        span = reading.span("init-from")
        found.append(unknown_net(span, part.net, "init-from", nets))
    if wrong := unfit(value, layer_names(graph)):
        return [*found, *wrong]
    weighted = with_weights(graph)
    chosen = selected(part.layers, graph)
    taken = {layer: name for layer, name in chosen.items() if layer in weighted}
    if not taken:
        return [*found, without_weights("`init-from`", value, weighted)]
    if other is not None:
        found += weight_mistakes(taken, value, graph, part.net, other)
    return found


def unknown_net(span: Span | None, name: str, setting: str, nets: Sequence[str]) -> Diagnostic:
    hint = did_you_mean(name, nets) if nets else "`vggc zoo` lists the nets that there are"
    return mistakes.UnknownNetName(span, name, setting, hint)


def weight_mistakes(
    layers: Mapping[str, str], value: ast.Value, graph: Graph, net: str, other: Graph
) -> list[Diagnostic]:
    """What keeps layers from beginning with another net's weights; of each name or range as
    written, which stands behind its layer, the first such thing.
    """
    places = {str(item): item.span for item in items(value)}
    weighted, theirs = with_weights(graph), with_weights(other)
    mine = {name: w.shape for name, w in graph.all_weights.items()}
    shapes = {name: w.shape for name, w in other.all_weights.items()}
    found: list[Diagnostic] = []
    told: set[Span] = set()
    for layer, name in layers.items():
        span, names = places[name], weighted[layer]
        if span in told:
            continue
        missing = next((name for name in names if name not in shapes), None)
        unlike = next((name for name in names if shapes.get(name) != mine[name]), None)
        if layer not in theirs:
            hint = f"it has {some(theirs)}"
            found.append(mistakes.LayerNotInOther(span, net, layer, hint))
        elif missing:
            hint = f"`{layer}` has other weights there"
            found.append(mistakes.LayerNotInOther(span, net, missing, hint))
        elif unlike:
            shown = describe(shapes[unlike]), describe(mine[unlike])
            found.append(mistakes.WeightsDiffer(span, unlike, net, *shown, layer))
        if len(found) > len(told):
            told.add(span)
    return found
