"""Every mistake that a person can make with features, with its words."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class UnknownFeatureLayer(Diagnostic):
    title = "{net} has no layer `{name}` to take features of"
    help = "{suggestion}"

    net: str
    name: str
    suggestion: str


class LayerTwice(Diagnostic):
    title = "the layer `{name}` is named twice"
    help = "name each layer once"

    name: str


class NoHiddenLayer(Diagnostic):
    title = "{net} has no last hidden layer whose values could be its features"
    help = "name a layer by `--layer`; `vggc summary` lists them"

    net: str


class NoSuchPart(Diagnostic):
    title = "`{path}` has no part `{part}`"
    label = "its parts: {there}"
    help = "name one of these, or leave `--part` out"

    path: str
    part: str
    there: str


class NotAFeaturesName(Diagnostic):
    title = "features cannot be written to `{path}`"
    label = "the end of its name tells the kind of file: .safetensors or .npz"
    help = "did you mean `{near}`?"

    path: str
    near: str


class NoFeatures(Diagnostic):
    title = "`{path}` is no file of features"
    label = "{reason}"
    help = "`vggc features RUN --data PLACE -o FILE` makes one"

    path: str
    reason: str


class FeaturesTooLarge(Diagnostic):
    title = "the features in `{path}` do not fit into memory"
    label = "they take {needed:.1f} GB, and there are {present:.1f} GB"
    help = "take features of fewer pictures, or of fewer layers and scales"

    path: str
    needed: float
    present: float


class FeaturesInUse(Diagnostic):
    title = "another process is taking features for `{path}`"
    help = "wait for its end, or give another name"

    path: str


class PartialDamaged(Diagnostic):
    title = "what was begun of the features cannot be gone on with"
    label = "{path}: {reason}"
    help = "begin anew: `--overwrite`"

    path: str
    reason: str


class OtherFeaturesBegun(Diagnostic):
    title = "other features were begun for `{path}`"
    label = "{name}: {before} then, {now} now"
    help = "go on by the command that they were begun with, give another name, or `--overwrite`"

    path: str
    name: str
    before: str
    now: str


class NoFeatureHead(Diagnostic):
    title = "the artifact `{path}` gives no features"
    label = "its outputs: {outputs}"
    help = (
        "write `head features: @{layer}` below the layers of its spec and compile that, or give "
        "the run that it was compiled from"
    )

    path: str
    outputs: str
    layer: str


class UnknownHead(Diagnostic):
    title = "the artifact `{path}` has no head of features called `{name}`"
    help = "{suggestion}"

    path: str
    name: str
    suggestion: str


class NothingToDescribe(Diagnostic):
    title = "none of the pictures in `{path}` can be read"
    label = "{count} were left out, the first of them {first}"
    help = "are they whole image files?"

    path: str
    count: int
    first: str


class PicturesWanted(Diagnostic):
    title = "there are no pictures in `{path}`"
    help = "`--data` takes what `vggc train --data` takes"

    path: str


class NoRoomOnDisk(Diagnostic):
    title = "the disk has no room for the features in `{path}`"
    label = "they take up to {needed:.2f} GB until they are whole, and {free:.2f} GB are free"
    help = "write to another disk, or take fewer layers, scales or pictures"

    path: str
    needed: float
    free: float


class OtherPictures(Diagnostic):
    title = "`{first}` and `{second}` are of different pictures"
    label = "{reason}"
    help = "take both with the same `--data` and `--part`"

    first: str
    second: str
    reason: str


class NoSingleClass(Diagnostic):
    title = "pictures in `{path}` may show several classes"
    label = "so many of a class cannot be drawn of them"
    help = "leave `--train-per-class` and `--test-per-class` out"

    path: str


class OneSplit(Diagnostic):
    title = "the pictures in `{path}` are split once, by the parts of their place"
    label = "{count} splits are asked for"
    help = "draw from those to train on: `--train-per-class N`; or leave `--splits` out"

    path: str
    count: int


class OnePart(Diagnostic):
    title = "there are no pictures in `{path}` to {use} on"
    label = "its parts: {there}; `test`, or else `val`, is tested on, all others are trained on"
    help = "take the features of all parts: leave `--part` out of `vggc features`"

    path: str
    use: str
    there: str


class NoClassToScore(Diagnostic):
    title = "no class in `{path}` can be scored"
    label = "pictures to train on must show it and others not, and some to test on must show it"
    help = "take features of more pictures, or of those of all parts"

    path: str


class TooFewOfClass(Diagnostic):
    title = "`{path}` has too few pictures of `{name}`"
    label = "{count} to draw from, for {wanted} to train on and others to test on"
    help = "train on fewer: `--train-per-class`"

    path: str
    name: str
    count: int
    wanted: int


class OneClassToLearn(Diagnostic):
    title = "the pictures to train on in `{path}` are all of one class: `{name}`"
    help = "a classifier needs two classes or more"

    path: str
    name: str


class FewerThanFolds(Diagnostic):
    title = "`{path}` has fewer pictures to train on than folds"
    label = "{count} of `{name}`, and C is chosen in {folds} folds"
    help = "take fewer folds, or name one C alone: `--c 1`"

    path: str
    name: str
    count: int
    folds: int


class ProbeTooLarge(Diagnostic):
    title = "a classifier on the features in `{path}` does not fit into memory"
    label = "it takes about {needed:.1f} GB, and there are {present:.1f} GB"
    help = "take features of fewer pictures, or average scales: `--combine average`"

    path: str
    needed: float
    present: float


class LayerOfProbabilities(Diagnostic):
    title = "the layer `{name}` of {net} gives probabilities, not features"
    help = "name a layer before it; `vggc predict --csv` writes probabilities"

    net: str
    name: str
