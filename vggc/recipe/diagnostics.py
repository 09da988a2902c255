"""What can be wrong with a `train` or a `test` block, or with a change of one."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic

# Form


class UnknownSetting(Diagnostic):
    title = "unknown setting `{word}`"
    label = "`{block}` has no such setting"
    help = "{suggestion}"

    block: str
    word: str
    suggestion: str


class RepeatedSetting(Diagnostic):
    title = "`{key}` is set twice"
    label = "it already has a value"
    second_label = "`{key}` is first set here"
    help = "keep one of the two"

    key: str


class RivalSettings(Diagnostic):
    title = "two settings for the {field}: `{first}` and `{second}`"
    label = "the {field} is already set"
    second_label = "`{first}` sets it here"
    help = "a recipe has one {field}; keep one of the two"

    field: str
    first: str
    second: str


class UnknownRecipeOption(Diagnostic):
    title = "`{setting}` has no option `{word}`"
    label = "unknown option"
    help = "{suggestion}"

    setting: str
    word: str
    suggestion: str


class RepeatedRecipeOption(Diagnostic):
    title = "`{key}` stands twice in one setting"
    label = "it already has a value"
    second_label = "`{key}` is first given here"
    help = "keep one of the two"

    key: str


class MissingOption(Diagnostic):
    title = "`{setting}` needs its `{option}=`"
    label = "`{option}=` is missing"
    help = "write it as `{example}`"

    setting: str
    option: str
    example: str


class OptionOfNothing(Diagnostic):
    title = "`{key}=` has no effect: `{setting}` is off"
    label = "an option of something that is switched off"
    help = "leave out `off` or the option"

    key: str
    setting: str


class WrongNumberOfValues(Diagnostic):
    title = "`{setting}` takes {expected}, here it has {found}"
    label = "{found} given"
    help = "write it as `{example}`"

    setting: str
    expected: str
    found: str
    example: str


# Changes


class UnknownOverride(Diagnostic):
    title = "nothing is called `{word}` in the train and test blocks"
    label = "unknown key"
    help = "{suggestion}"

    word: str
    suggestion: str


class AmbiguousOverride(Diagnostic):
    title = "`{word}` could mean {candidates}"
    label = "more than one"
    help = "write the whole key"

    word: str
    candidates: str


class MalformedOverride(Diagnostic):
    title = "`{text}` is not `key=value`"
    label = "expected `key=value`"
    help = "for example `--set train.lr=0.001`"

    text: str


class MalformedValue(Diagnostic):
    title = "`{text}` is no value for `{key}`"
    label = "{reason}"
    help = "values look like 256, 0.01, he or 256..512"

    key: str
    text: str
    reason: str


class UnusedOption(Diagnostic):
    title = "`{key}` has no effect: the {field} is `{chosen}`"
    label = "an option of `{owner}`"
    help = "choose it as well: `--set {field}={owner}`"

    key: str
    field: str
    owner: str
    chosen: str


# What does not go with the net


class ScaleTooSmall(Diagnostic):
    title = "a scale of {scale} is smaller than the net's input of {input} pixels"
    label = "no {input}-pixel crop fits into such an image"
    help = "use at least {least}, or `{setting} off`: images then just cover the input"

    setting: str
    scale: str
    input: str
    least: int


class TooManyCrops(Diagnostic):
    title = "{grid}×{grid} crops do not fit into images of scale {scale}"
    label = "along the shorter side, crops of {input} pixels lie in {places} of {grid} places"
    help = "use a scale of at least {least}, or fewer crops"

    grid: int
    scale: int
    input: str
    places: int
    least: int


class MorePartsThanImages(Diagnostic):
    title = "{parts} parts of a step of {batch} images"
    label = "each part needs an image at least"
    help = "write `accumulate {batch}` or less, or a larger `batch`"

    parts: int
    batch: int


class NesterovWithoutMomentum(Diagnostic):
    title = "`nesterov=on` looks ahead by a momentum of 0"
    label = "nowhere: the steps are those of `nesterov=off`"
    help = "give `sgd` a momentum, 0.9 for instance, or leave `nesterov` out"


class DropsOutOfOrder(Diagnostic):
    title = "the {unit} of `step` do not rise"
    label = "each must be later than the one before"
    help = "write `at={right}`"

    unit: str
    right: str


class DropAfterTheEnd(Diagnostic):
    title = "the rate would drop after {drop:,} {unit}, and the training has {last:,}"
    label = "that drop would never come"
    help = "leave it out, drop at other times, as by `step at={right}`, or train longer"

    unit: str
    drop: int
    last: int
    right: str


class DecayOfNothing(Diagnostic):
    title = "`decay-norms=on` penalises by a weight decay of 0"
    label = "nothing: the steps are those of `decay-norms=off`"
    help = "give `{optimiser}` a weight decay, 5e-4 for instance, or leave `decay-norms` out"

    optimiser: str


class CropMismatch(Diagnostic):
    title = "a crop of {crop} is not what the net reads"
    label = "the net's input is {input} pixels"
    help = "write `crop {right}`, or leave it out"

    crop: str
    input: str
    right: str


class ShiftWithoutColours(Diagnostic):
    title = "`{setting}` needs images in colour"
    label = "the net reads images of {input}"
    help = "leave it out, or give the net an input of three channels"

    setting: str
    input: str


class ScalesInVain(Diagnostic):
    title = "with `resized-crop` images are not brought to scales of {scale}"
    label = "crops are taken from images at their own size"
    help = (
        "leave it out, or give one scale, `scale {middle}`: that at which images are held out and "
        "tested"
    )

    scale: str
    middle: int


class JitterOfNothing(Diagnostic):
    title = "`colour-jitter` varies nothing"
    label = "brightness, contrast, saturation and hue have strength 0"
    help = "say what it varies: `colour-jitter brightness=0.4 contrast=0.4 saturation=0.4`"


class LossMismatch(Diagnostic):
    title = "`loss {loss}` does not go with {head}"
    label = "that gives {gives}"
    help = "write {right}, or leave it out"

    loss: str
    head: str
    gives: str
    right: str


class LossOfFeatures(Diagnostic):
    title = "`loss {loss}` is said of features"
    label = "a head of features is not trained"
    help = "leave it out; classes and boxes have losses"

    loss: str


class WhichHead(Diagnostic):
    title = "the net's outputs all have names, and `loss` names none"
    label = "its heads are {heads}"
    help = "say which is meant: `{example}`"

    heads: str
    example: str


class UnknownLossHead(Diagnostic):
    title = "{net} has no head `{head}`"
    help = "{hint}"

    net: str
    head: str
    hint: str


class NoHeadTrained(Diagnostic):
    title = "every head is `off`: nothing would be trained"
    help = "leave one of the heads its loss"


class BetaInVain(Diagnostic):
    title = "`beta` says where squares pass into lines, and `{loss}` has no such place"
    help = "leave it out, or write `loss smooth-l1`"

    loss: str


class BoxesInVain(Diagnostic):
    title = "`boxes` has no effect"
    label = "no head that is trained gives boxes"
    help = "leave it out, or let the net end in a layer `boxes`"


class BoxesOff(Diagnostic):
    title = "`boxes off` leaves the net's boxes nothing to learn"
    help = "leave it out; a head that is not to be trained has `loss off`"


class BoxesTurned(Diagnostic):
    title = "`{setting}` does not go with boxes"
    label = "it turns, shears or mixes pictures, and a box has its sides along the picture's"
    help = "leave it out: crops, scales, flips, colours and `erasing` go with boxes"

    setting: str


class NoClassesFor(Diagnostic):
    title = "`{setting}` has no effect"
    label = "no head that is trained tells classes"
    help = "leave it out"

    setting: str


class NotMeasured(Diagnostic):
    title = "`best-by {measure}` is a measure of {lacking}"
    label = "no head that is trained gives any"
    help = "write `best-by {right}`, or leave it out"

    measure: str
    lacking: str
    right: str


class WrongNumberOfWeights(Diagnostic):
    title = "weights of {given} classes, and the net tells {classes} apart"
    label = "a weight for each class is needed, in the order of their names"
    help = "list {classes} weights, or write `class-weights balanced`"

    given: int
    classes: int


class BalancedTwice(Diagnostic):
    title = "`class-weights balanced` and `sampler balanced` both make up for rare classes"
    label = "with both, rare classes would count more than the others"
    second_label = "the other is here"
    help = "keep one of the two"


class RestartsOutOfOrder(Diagnostic):
    title = "restarts come one after the other, and before the last epoch"
    label = "with the number of epochs behind them these are {ends}"
    help = "write them in order, each once, and none that is not below `epochs`"

    ends: str


class UnknownLayerName(Diagnostic):
    title = "the net has no layer called `{name}`"
    label = "unknown layer"
    help = "{suggestion}"

    name: str
    suggestion: str


class BackwardRange(Diagnostic):
    title = "the range `{first}..{last}` runs backwards"
    label = "`{last}` stands before `{first}`"
    help = "write `{last}..{first}`"

    first: str
    last: str


class LayersWithoutWeights(Diagnostic):
    title = "{setting} names no layer with weights"
    label = "none of these has any"
    help = "layers with weights: {suggestion}"

    setting: str
    suggestion: str


class NothingToTrainLeft(Diagnostic):
    title = "`freeze` leaves nothing to train"
    label = "these are all layers with weights"
    help = "leave at least one out, such as `{last}`"

    last: str


class UnknownNetName(Diagnostic):
    title = "there is no net called `{name}`"
    label = "named by `{setting}`"
    help = "{suggestion}"

    name: str
    setting: str
    suggestion: str


class LayerNotInOther(Diagnostic):
    title = "{net} has no `{layer}` to take weights from"
    label = "taken from {net} by this"
    help = "{suggestion}"

    net: str
    layer: str
    suggestion: str


class WeightsDiffer(Diagnostic):
    title = "`{weight}` is {theirs} in {net} and {mine} here"
    label = "weights can be taken only where their shapes are equal"
    help = "leave `{layer}` out, or take none: `--set init-from=off`"

    weight: str
    net: str
    theirs: str
    mine: str
    layer: str


class NothingTested(Diagnostic):
    title = "neither dense nor on crops: nothing would be tested"
    label = "switches off the only way that is left"
    help = "write `dense`, or `crops grid=5x5`; the centre crop alone is `crops grid=1x1`"


class FusedOutputs(Diagnostic):
    title = "{net} has {theirs} outputs and this net {mine}"
    label = "soft-max outputs can be averaged only over the same classes"
    help = "fuse nets with equally many classes"

    net: str
    theirs: str
    mine: str
