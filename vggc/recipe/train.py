"""How a net is trained: the `train { … }` block as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from vggc.ir.graph import Graph, Head
from vggc.ir.ops import describe
from vggc.recipe import diagnostics
from vggc.recipe.augment import ColourJitter, Cutmix, Erasing, Mixup, RandAugment, ResizedCrop
from vggc.recipe.blocks import (
    OptionalPart,
    PerHead,
    Plain,
    Reading,
    Schema,
    Switch,
    Variants,
    of_head,
    option,
    report,
    setting,
    word_of,
)
from vggc.recipe.heads import (
    FITTING,
    BoxTargets,
    HeadLoss,
    named,
    trained_heads,
    trained_kinds,
    usual_losses,
)
from vggc.recipe.layer_names import MOST_LISTED, layer_names, selected, unfit, with_weights
from vggc.support.diagnostics import Diagnostic, did_you_mean
from vggc.support.source import Span
from vggc.syntax import ast
from vggc.syntax.values import (
    MAX_SIDE,
    Flag,
    Maybe,
    NameList,
    NameValue,
    OneOf,
    PixelRange,
    Real,
    Several,
    Size,
    WholeNumber,
    WordOr,
    items,
    written,
)

Sampler: TypeAlias = Literal["shuffled", "balanced"]
Measure: TypeAlias = Literal["top-1", "loss", "iou"]
"""What of the held-out images tells the best epoch."""

MAX_STEPS = 1_000_000_000

MAX_CLASSES = 10_000
"""The most classes whose weights can be listed."""


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
class AdamW:
    """Adam with weight decay of its own. Of step t, with g the gradient and β₁, β₂ the `betas`:

    w ← w − lr·weight_decay·w;  m ← β₁·m + (1 − β₁)·g;  v ← β₂·v + (1 − β₂)·g²;
    w ← w − lr·(m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + eps).

    What `Sgd` spares of the penalty is spared of the decay, too.
    Source: Loshchilov & Hutter (2019), algorithm 2, with the decay in units of the rate.
    """

    example: ClassVar[str] = "adamw lr=0.001 weight-decay=0.01"
    doc: ClassVar[str] = "Adam, whose weight decay is apart from the gradient"

    lr: float = option("the learning rate", Real(0, 1000, above=True), 1e-3)
    betas: tuple[float, float] = option(
        "the shares that the averages of gradients and of their squares keep in a step",
        Several(Real(0, 0.999999), 2, least=2),
        (0.9, 0.999),
    )
    eps: float = option("what is added to the divisor", Real(0, 1, above=True), 1e-8)
    weight_decay: float = option(
        "the share of a weight that a step takes off, in units of `lr`", Real(0, 1000), 0.01
    )
    decay_norms: bool = option(
        "whether scales and shifts of normalisations decay, too", Flag(), False
    )


WARM_UP = "the share of all steps in which the rate rises first"
"""What `warm-up` is, with which every schedule but the cycle may begin."""


@dataclass(frozen=True)
class Plateau:
    """Multiply the rate by `factor` after `patience` epochs without a better held-out top-1.

    `warm_up` is as in `Cosine`, and epochs count from the first one on.
    Source: Simonyan & Zisserman (2015), section 3.1: factor 0.1, three drops. They leave
    the patience open.
    """

    example: ClassVar[str] = "plateau factor=0.1 drops=3"

    doc: ClassVar[str] = "the rate drops when the held-out accuracy stops improving"

    factor: float = option("what a drop leaves", Real(0, 1, above=True, unit="%"), 0.1)
    drops: int = option("how often the rate may drop", WholeNumber(0, 100), 3)
    patience: int = option("epochs without improvement before a drop", WholeNumber(1, 10_000), 5)
    warm_up: float = option(WARM_UP, Real(0, 1, unit="%"), 0.0)


@dataclass(frozen=True)
class StepSchedule:
    """Multiply the rate by `factor` after so many epochs as each number in `at` says, or so many
    steps where the recipe's `steps` set the length.

    In epoch or step e, counted from 0: lr·factor^n, n being how many of `at` are e or less.
    `warm_up` is as in `Cosine`, and epochs count from the first one on.
    Source: He et al. (2016), section 3.4; `torch.optim.lr_scheduler.MultiStepLR`.
    """

    example: ClassVar[str] = "step at=30,60 factor=0.1"

    doc: ClassVar[str] = "the rate drops after given epochs, or steps"

    at: tuple[int, ...] = option(
        "after how many epochs the rate drops, each time; after how many steps, where `steps` set "
        "the length",
        Several(WholeNumber(1, MAX_STEPS), 100),
        (30, 60),
    )
    factor: float = option("what a drop leaves", Real(0, 1, above=True, unit="%"), 0.1)
    warm_up: float = option(WARM_UP, Real(0, 1, unit="%"), 0.0)


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

    Of T steps, counted from 0, w = round(warm_up·T) are the rise: lr·(t + 1) / (w + 1). Then
    lr·(end + (1 − end)·(1 + cos(π·(t − w) / (T − 1 − w))) / 2), which is `end`·lr in the last.
    Source: Loshchilov & Hutter (2017), formula 5, without restarts; Goyal et al. (2017), section
    2.2, for the warm-up.
    """

    example: ClassVar[str] = "cosine warm-up=5%"

    doc: ClassVar[str] = "the rate falls on half a cosine, after a rise where one is asked for"

    warm_up: float = option(WARM_UP, Real(0, 1, unit="%"), 0.0)
    end: float = option("the last rate, as a share of `lr`", Real(0, 1, unit="%"), 0.0)


@dataclass(frozen=True)
class Poly:
    """Rise as `Cosine` does in the first w steps, then fall as a power of what is left of T steps.

    In step t, counted from 0: lr·(end + (1 − end)·(1 − (t − w) / (T − w))^power).
    Source: Caffe's `lr_policy: "poly"`; Chen et al. (2018), "DeepLab", section 4.1;
    `torch.optim.lr_scheduler.PolynomialLR`, which has neither `warm_up` nor `end`.
    """

    example: ClassVar[str] = "poly power=0.9 warm-up=5%"

    doc: ClassVar[str] = "the rate falls as a power of the steps that are left, in a line for 1"

    power: float = option("the power", Real(0, 100, above=True), 1.0)
    warm_up: float = option(WARM_UP, Real(0, 1, unit="%"), 0.0)
    end: float = option("what it falls to, as a share of `lr`", Real(0, 1, unit="%"), 0.0)


@dataclass(frozen=True)
class Constant:
    """A learning rate that stays as it is, after it has risen for `warm_up` of the training."""

    example: ClassVar[str] = "constant"
    doc: ClassVar[str] = "the same rate throughout"

    warm_up: float = option(WARM_UP, Real(0, 1, unit="%"), 0.0)


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
    """Which layers begin with the weights that layers of the same names have in another net.

    `layers` are names and ranges of names as written.
    Source: Simonyan & Zisserman (2015), section 3.1.
    """

    example: ClassVar[str] = "init-from vgg11 layers=conv1_1,conv2_1,fc6..fc8"
    doc: ClassVar[str] = "layers that begin with the weights which another trained net has in them"

    net: str = option("the other net; `imagenet`: published weights", NameValue("net"))
    layers: tuple[str, ...] = option("layers of both nets", NameList("layers", ranges=True))


@dataclass(frozen=True)
class EarlyStop:
    """End the training after `patience` epochs in a row that are not better than the best before
    them by more than `min_delta`, in the units of `best-by`: shares of images, or nats. None of
    the first `after` epochs counts among them.
    """

    example: ClassVar[str] = "early-stop patience=10"
    doc: ClassVar[str] = "the training ends when it has stopped improving, by what `best-by` says"

    patience: int = option("epochs that are waited for a better one", WholeNumber(1, 100_000), 10)
    min_delta: float = option("what a better epoch is better by", Real(0, 1000), 0.0)
    after: int = option(
        "epochs in which nothing is waited for; those before a run that stopped early is extended",
        WholeNumber(0, 100_000),
        0,
    )


Optimiser: TypeAlias = Sgd | AdamW
Schedule: TypeAlias = Plateau | StepSchedule | OneCycle | Cosine | Poly | Constant
Init: TypeAlias = Glorot | He | Normal

OPTIMISERS = Variants({"sgd": Sgd, "adamw": AdamW}, bare=True)
SCHEDULES = Variants(
    {
        "plateau": Plateau,
        "step": StepSchedule,
        "one-cycle": OneCycle,
        "cosine": Cosine,
        "poly": Poly,
        "constant": Constant,
    },
    bare=True,
)
INITS = Variants({"glorot": Glorot, "he": He, "normal": Normal}, bare=False)
SAMPLERS: tuple[Sampler, ...] = ("shuffled", "balanced")
MEASURES: tuple[Measure, ...] = ("top-1", "loss", "iou")


@dataclass(frozen=True)
class Recipe:
    """Everything that training needs beyond the net, the images and a seed.

    `batch` counts images, `epochs` passes over all of them and `steps` batches; one of the
    two is None. `scale` holds the least and the greatest length in pixels to which an
    image's shorter side is brought before the random crop; None: the image is made to just
    cover the net's input. `crop` is (H, W) and equals the net's input; None says the same.
    `rgb_shift` is the standard deviation of the colour shift in units of the colours' own,
    along their principal axes. `freeze` names the layers that keep their first weights.

    Images are cut out, by `scale` or by `resized_crop`; turned, jittered in colour and put through
    `randaugment`, in this order; mirrored; shifted along the colours' axes; normalised; partly
    erased; and mixed. With both `mixup` and `cutmix` a pair falls to either, one as often as the
    other, which then mixes it by its own chance.

    `sampler` says which images an epoch takes: each once, or each class equally often. With
    `class_weights`, in the order of the classes' names or `balanced`, the loss is the weighted mean
    over a step, as that of `torch.nn.CrossEntropyLoss`; that of held-out images never is.

    `ema` is the share that an average of the weights keeps of itself in a step. A step's images go
    through the net in `accumulate` parts. `clip` is the greatest L2 norm of all gradients together.
    Sources: Szegedy et al. (2016), section 7, for `label_smoothing`; Polyak & Juditsky (1992) for
    the average.
    """

    batch: int = setting(Plain(WholeNumber(1, 65_536), "batch 256", "images in a step"), 256)
    epochs: int | None = setting(
        Plain(WholeNumber(1, 100_000), "epochs 74", "passes over all images"), 74
    )
    steps: int | None = setting(
        Plain(WholeNumber(1, MAX_STEPS), "steps 370000", "batches, in the place of `epochs`")
    )
    loss: tuple[HeadLoss, ...] = setting(PerHead(HeadLoss, value="loss"), ())
    boxes: BoxTargets | None = setting(OptionalPart(BoxTargets))
    class_weights: tuple[float, ...] | Literal["balanced"] | None = setting(
        Plain(
            Maybe(WordOr("balanced", Several(Real(0, 1e6, above=True), MAX_CLASSES))),
            "class-weights balanced",
            "how much the images of each class count in the loss, in the order of the classes' "
            "names; balanced: by how few they are, so that all classes count the same",
        )
    )
    sampler: Sampler = setting(
        Plain(
            OneOf(SAMPLERS),
            "sampler balanced",
            "which images an epoch takes, as many as there are: shuffled, each once; balanced, "
            "each class equally often",
        ),
        "shuffled",
    )
    optimiser: Optimiser = setting(OPTIMISERS, Sgd)
    schedule: Schedule = setting(SCHEDULES, Plateau)
    init: Init = setting(INITS, Glorot)
    init_from: InitFrom | None = setting(OptionalPart(InitFrom, value="net"))
    freeze: tuple[str, ...] | None = setting(
        Plain(
            Maybe(NameList("layers", ranges=True)),
            "freeze conv1_1..pool5",
            "layers that keep their first weights and statistics",
        )
    )
    scale: tuple[int, int] | None = setting(
        Plain(
            Maybe(PixelRange(MAX_SIDE)),
            "scale 256..512",
            "the shorter side of an image before the random crop, fixed or drawn anew each time; "
            "off: just enough to cover the input",
        )
    )
    resized_crop: ResizedCrop | None = setting(OptionalPart(ResizedCrop))
    crop: tuple[int, int] | None = setting(
        Plain(Maybe(Size(MAX_SIDE)), "crop 224", "the size of the crop, which is the net's input")
    )
    flip: bool = setting(Switch("flip", "half of the images are mirrored"), False)
    rotate: float | None = setting(
        Plain(
            Maybe(Real(0, 180, above=True)),
            "rotate 10",
            "each crop is turned by an angle of so many degrees at most either way; corners that "
            "come from outside of it are black",
        )
    )
    colour_jitter: ColourJitter | None = setting(OptionalPart(ColourJitter))
    randaugment: RandAugment | None = setting(OptionalPart(RandAugment))
    rgb_shift: float | None = setting(
        Plain(
            Maybe(Real(0, 10, above=True)),
            "rgb-shift 0.1",
            "the standard deviation of a random shift along the colours' principal axes",
        )
    )
    erasing: Erasing | None = setting(OptionalPart(Erasing, value="chance"))
    label_smoothing: float | None = setting(
        Plain(
            Maybe(Real(0, 0.999, above=True)),
            "label-smoothing 0.1",
            "the share of the target that is spread over all classes",
        )
    )
    mixup: Mixup | None = setting(OptionalPart(Mixup, value="alpha"))
    cutmix: Cutmix | None = setting(OptionalPart(Cutmix, value="alpha"))
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
            WholeNumber(1, 4096),
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
            OneOf(MEASURES),
            "best-by loss",
            "what of the held-out images tells the best epoch, whose weights are kept, too; iou: "
            "how much the boxes overlap with those of the objects, in the mean",
        ),
        "top-1",
    )
    early_stop: EarlyStop | None = setting(OptionalPart(EarlyStop))
    restarts: tuple[int, ...] | None = setting(
        Plain(
            Maybe(Several(WholeNumber(1, 100_000), 100)),
            "restarts 10,30",
            "epochs after which a schedule that runs to an end begins anew, as it does where a "
            "run is extended",
        )
    )
    give_up: bool = setting(
        Switch("give-up off", "stop where the net has learned nothing in its first epochs"), True
    )

    @property
    def unit(self) -> Literal["epochs", "steps"]:
        """What its length, and the drops of a `step` schedule, count."""
        return "epochs" if self.steps is None else "steps"

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


def default_recipe(graph: Graph | None, losses: tuple[HeadLoss, ...] = ()) -> Recipe:
    """The recipe of a net whose file says nothing but, perhaps, these losses: each other head has
    the usual one of its kind, and the heads that are trained say by what the best epoch is told.
    """
    if graph is None:
        return Recipe()
    kinds = trained_kinds(losses, graph)
    boxes = BoxTargets() if "boxes" in kinds else None
    measure: Measure = "top-1" if "classes" in kinds else "iou" if boxes else "loss"
    return replace(Recipe(), loss=usual_losses(graph), boxes=boxes, best_by=measure)


def read_over_defaults(block: ast.Block | None, graph: Graph | None) -> Reading[Recipe]:
    """What a `train` block says, over the defaults of a net whose heads have the block's losses."""
    losses = TRAIN.read(block, default_recipe(graph)).value.loss
    return TRAIN.read(block, default_recipe(graph, losses))


FindGraph: TypeAlias = Callable[[str], Graph | None]
"""The net of a name; None where there is none."""


def read_recipe(
    block: ast.Block | None,
    graph: Graph | None = None,
    find: FindGraph | None = None,
    nets: Sequence[str] = (),
) -> Recipe:
    """The recipe that a `train` block describes; what it leaves out keeps its default.

    With a graph it is held against that net. `find` gives the nets that the block names,
    and `nets` are names to suggest; without `find` other nets are not looked at.

    Raises:
        UserError: with every mistake in the block.
    """
    reading = read_over_defaults(block, graph)
    found = list(reading.found)
    if graph is not None:
        found += against(reading, graph, find, nets)
    report(found)
    return reading.value


# The recipe against the net


def against(
    reading: Reading[Recipe], graph: Graph, find: FindGraph | None, nets: Sequence[str]
) -> list[Diagnostic]:
    """Every setting that the net cannot do anything with."""
    return [
        *image_mistakes(reading, graph),
        *accumulate_mistakes(reading),
        *optimiser_mistakes(reading),
        *schedule_mistakes(reading),
        *restart_mistakes(reading),
        *loss_mistakes(reading, graph),
        *box_mistakes(reading, graph),
        *class_mistakes(reading, graph),
        *weight_list_mistakes(reading, graph),
        *freeze_mistakes(reading, graph),
        *init_from_mistakes(reading, graph, find, nets),
    ]


def image_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    """What of the settings for images does not go with the net's input."""
    recipe, (channels, *size) = reading.value, graph.input
    found: list[Diagnostic] = []
    if recipe.scale and recipe.scale[0] < max(size):
        found.append(scale_too_small("scale", reading.span("scale"), recipe.scale[0], graph))
    if recipe.crop and recipe.crop != tuple(size):
        span, right = reading.span("crop"), written(Size(), tuple(size))
        shown = describe(recipe.crop), describe(tuple(size))
        found.append(diagnostics.CropMismatch(*shown, right, place=span))
    if recipe.rgb_shift is not None and channels != 3:
        span = reading.span("rgb-shift")
        found.append(
            diagnostics.ShiftWithoutColours("rgb-shift", describe(graph.input), place=span)
        )
    return [*found, *resized_crop_mistakes(reading), *jitter_mistakes(reading, graph)]


def resized_crop_mistakes(reading: Reading[Recipe]) -> list[Diagnostic]:
    """A range of scales where crops are taken from images at no scale."""
    scale = reading.value.scale
    if reading.value.resized_crop is None or scale is None or scale[0] == scale[1]:
        return []
    shown = written(PixelRange(), scale)
    return [diagnostics.ScalesInVain(shown, sum(scale) // 2, place=reading.span("scale"))]


def jitter_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    """A jitter of nothing, or of colours that the net does not see."""
    jitter = reading.value.colour_jitter
    if jitter is None:
        return []
    if jitter == ColourJitter():
        return [diagnostics.JitterOfNothing(place=reading.span("colour-jitter"))]
    of_colours = [key for key in ("saturation", "hue") if getattr(jitter, key)]
    return [
        diagnostics.ShiftWithoutColours(key, shown, place=reading.span(f"colour-jitter.{key}"))
        for shown in [describe(graph.input)]
        for key in of_colours
        if graph.input[0] != 3
    ]


def accumulate_mistakes(reading: Reading[Recipe]) -> list[Diagnostic]:
    """A step of more parts than it has images."""
    parts, batch = reading.value.accumulate, reading.value.batch
    if parts <= batch:
        return []
    return [diagnostics.MorePartsThanImages(parts, batch, place=reading.span("accumulate"))]


def optimiser_mistakes(reading: Reading[Recipe]) -> list[Diagnostic]:
    """Options of the optimiser that change nothing as others stand."""
    optimiser, found = reading.value.optimiser, list[Diagnostic]()
    if isinstance(optimiser, Sgd) and optimiser.nesterov and optimiser.momentum == 0:
        found.append(diagnostics.NesterovWithoutMomentum(place=reading.span("sgd.nesterov")))
    if optimiser.decay_norms and optimiser.weight_decay == 0:
        word = word_of(OPTIMISERS, optimiser)
        found.append(diagnostics.DecayOfNothing(word, place=reading.span(f"{word}.decay-norms")))
    return found


def schedule_mistakes(reading: Reading[Recipe]) -> list[Diagnostic]:
    """Drops that do not follow one another, or come after the training's end."""
    recipe = reading.value
    if not isinstance(recipe.schedule, StepSchedule):
        return []
    at, unit, last = recipe.schedule.at, recipe.unit, recipe.epochs or recipe.steps
    assert last
    span = reading.span("step.at") or reading.span("schedule")
    if list(at) != sorted({*at}):
        right = ",".join(map(str, sorted({*at})))
        return [diagnostics.DropsOutOfOrder(unit, right, place=span)]
    if at[-1] >= last:
        evenly = sorted({last * (n + 1) // (len(at) + 1) for n in range(len(at))} - {0})
        right = ",".join(map(str, evenly)) or "…"
        return [diagnostics.DropAfterTheEnd(unit, at[-1], last, right, place=span)]
    return []


def restart_mistakes(reading: Reading[Recipe]) -> list[Diagnostic]:
    """Restarts that do not follow one another, or come after the last epoch."""
    recipe = reading.value
    if recipe.restarts is None:
        return []
    ends = (*recipe.restarts, *filter(None, [recipe.epochs]))
    if list(ends) == sorted({*ends}):
        return []
    return [
        diagnostics.RestartsOutOfOrder(",".join(map(str, ends)), place=reading.span("restarts"))
    ]


def scale_too_small(setting: str, span: Span | None, scale: int, graph: Graph) -> Diagnostic:
    """The mistake of images whose shorter side is less than the net's input."""
    size = graph.input[1:]
    return diagnostics.ScaleTooSmall(setting, str(scale), describe(size), max(size), place=span)


def loss_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    """Losses of heads that the net has not, or that these cannot have, and options in vain."""
    found: list[Diagnostic] = []
    heads = {named(head.name): head for head in graph.heads}
    for each in reading.value.loss:
        key = of_head("loss", each.head)
        found += head_loss_mistakes(each, reading.span(key), graph.name, heads)
        beta, weight = (reading.span(f"{key}.{option}") for option in ("beta", "weight"))
        if weight and each.loss == "off":
            found.append(diagnostics.OptionOfNothing("weight", "loss", place=weight))
        if beta and each.loss != "smooth-l1":
            found.append(diagnostics.BetaInVain(each.loss, place=beta))
    trainable = any(FITTING[head.kind] for head in graph.heads)
    if trainable and not found and not trained_heads(reading.value.loss, graph):
        first = reading.value.loss[0] if reading.value.loss else None
        span = reading.span(of_head("loss", first.head)) if first else None
        found.append(diagnostics.NoHeadTrained(place=span))
    return found


def head_loss_mistakes(
    each: HeadLoss, span: Span | None, net: str, heads: Mapping[str | None, Head]
) -> list[Diagnostic]:
    """The mistake of a loss whose head the net has not, or that does not suit it."""
    head = heads.get(each.head)
    if head is None:
        names = [name for name in heads if name]
        if each.head is None:
            example = f"loss {each.loss} head={names[0]}"
            return [diagnostics.WhichHead(", ".join(names), example, place=span)]
        hint = did_you_mean(each.head, names) if names else "it has its main output alone"
        return [diagnostics.UnknownLossHead(net, each.head, hint, place=span)]
    fitting = FITTING[head.kind]
    if each.loss in (*fitting, "off"):
        return []
    if not fitting:
        return [diagnostics.LossOfFeatures(each.loss, place=span)]
    right = " or ".join(f"`loss {loss}`" for loss in fitting)
    what = f"the head `{each.head}`" if each.head else "the net's output"
    return [diagnostics.LossMismatch(each.loss, what, head.kind, right, place=span)]


def box_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    """What does not go with boxes, where the net learns some, and what is said of them where it
    learns none.
    """
    recipe = reading.value
    if "boxes" not in trained_kinds(recipe.loss, graph):
        span = reading.span("boxes")
        return [diagnostics.BoxesInVain(place=span)] if recipe.boxes else []
    if recipe.boxes is None:
        return [diagnostics.BoxesOff(place=reading.span("boxes"))]
    varied = {
        "rotate": recipe.rotate,
        "randaugment": recipe.randaugment,
        "mixup": recipe.mixup,
        "cutmix": recipe.cutmix,
    }
    return [
        diagnostics.BoxesTurned(key, place=reading.span(key))
        for key, value in varied.items()
        if value is not None
    ]


def class_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    """What is said of classes where the net learns none, and of a best epoch by what is not
    measured.
    """
    recipe = reading.value
    kinds = trained_kinds(recipe.loss, graph)
    found: list[Diagnostic] = []
    if "classes" not in kinds:
        of_classes = {
            "class-weights": recipe.class_weights,
            "label-smoothing": recipe.label_smoothing,
        }
        found += [
            diagnostics.NoClassesFor(key, place=reading.span(key))
            for key, value in of_classes.items()
            if value is not None
        ]
    lacking = {"top-1": "classes", "iou": "boxes"}.get(recipe.best_by)
    if lacking and lacking not in kinds and reading.span("best-by"):
        right = "iou" if lacking == "classes" and "boxes" in kinds else "loss"
        found.append(
            diagnostics.NotMeasured(recipe.best_by, lacking, right, place=reading.span("best-by"))
        )
    return found


def weight_list_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    """Weights of more classes or fewer than the net has, or classes that are balanced twice."""
    weights, span = reading.value.class_weights, reading.span("class-weights")
    if weights == "balanced" and reading.value.sampler == "balanced":
        other = reading.span("sampler")
        return [diagnostics.BalancedTwice(place=span, second_place=other)]
    head = next((head for head in graph.heads if head.kind == "classes"), None)
    if weights is None or isinstance(weights, str) or head is None:
        return []
    (classes,) = graph.outputs[head.name]
    if len(weights) == classes:
        return []
    return [diagnostics.WrongNumberOfWeights(len(weights), classes, place=span)]


def freeze_mistakes(reading: Reading[Recipe], graph: Graph) -> list[Diagnostic]:
    """What `freeze` names that the net has not, or that leaves nothing to train."""
    value, names = reading.table.get("freeze"), reading.value.freeze
    if value is None or names is None:
        return []
    if found := unfit(value, layer_names(graph)):
        return found
    weighted, frozen = with_weights(graph), selected(names, graph)
    if not weighted.keys() & set(frozen):
        return [without_weights("`freeze`", value, weighted)]
    if weighted.keys() <= set(frozen):
        return [diagnostics.NothingToTrainLeft(list(weighted)[-1], place=value.span)]
    return []


def without_weights(setting: str, value: ast.Value, weighted: Iterable[str]) -> Diagnostic:
    """The mistake of a setting that names layers of which none has weights."""
    return diagnostics.LayersWithoutWeights(setting, some(weighted), place=value.span)


def some(names: Iterable[str]) -> str:
    """The names, the first of them where there are many."""
    listed = [f"`{name}`" for name in names]
    return ", ".join([*listed[:MOST_LISTED], *("…",) * (len(listed) > MOST_LISTED)])


def init_from_mistakes(
    reading: Reading[Recipe], graph: Graph, find: FindGraph | None, nets: Sequence[str]
) -> list[Diagnostic]:
    """What `init-from` asks of another net that this one or the other cannot give."""
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
    """The mistake of a `setting` that names a net which is none of `nets`."""
    hint = did_you_mean(name, nets) if nets else "`vggc zoo` lists the nets that there are"
    return diagnostics.UnknownNetName(name, setting, hint, place=span)


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
            found.append(diagnostics.LayerNotInOther(net, layer, hint, place=span))
        elif missing:
            hint = f"`{layer}` has other weights there"
            found.append(diagnostics.LayerNotInOther(net, missing, hint, place=span))
        elif unlike:
            shown = describe(shapes[unlike]), describe(mine[unlike])
            found.append(diagnostics.WeightsDiffer(unlike, net, *shown, layer, place=span))
        if len(found) > len(told):
            told.add(span)
    return found
