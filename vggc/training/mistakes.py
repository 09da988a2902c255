"""Every mistake that a person can make around training, with its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vggc.diagnostics import Diagnostic

# The recipe


@dataclass(frozen=True)
class UnknownSetting(Diagnostic):
    title: ClassVar[str] = "unknown training setting `{word}`"
    label: ClassVar[str] = "not a setting of `train`"
    help: ClassVar[str] = "{suggestion}"

    word: str
    suggestion: str


@dataclass(frozen=True)
class RepeatedSetting(Diagnostic):
    title: ClassVar[str] = "`{key}` is set twice"
    label: ClassVar[str] = "set before as `{first}`"
    help: ClassVar[str] = "keep one of the two"

    key: str
    first: str


@dataclass(frozen=True)
class RivalSettings(Diagnostic):
    title: ClassVar[str] = "two settings for the {field}: `{first}` and `{second}`"
    label: ClassVar[str] = "the {field} is `{first}` already"
    help: ClassVar[str] = "a recipe has one {field}; keep one of the two"

    field: str
    first: str
    second: str


@dataclass(frozen=True)
class UnknownRecipeOption(Diagnostic):
    title: ClassVar[str] = "`{setting}` has no option `{word}`"
    label: ClassVar[str] = "unknown option"
    help: ClassVar[str] = "{suggestion}"

    setting: str
    word: str
    suggestion: str


@dataclass(frozen=True)
class RepeatedRecipeOption(Diagnostic):
    title: ClassVar[str] = "`{key}` stands twice in one setting"
    label: ClassVar[str] = "second time here"
    help: ClassVar[str] = "keep one of the two"

    key: str


@dataclass(frozen=True)
class WrongNumberOfValues(Diagnostic):
    title: ClassVar[str] = "`{setting}` takes {expected}, here it has {found}"
    label: ClassVar[str] = "{found} given"
    help: ClassVar[str] = "write it as `{example}`"

    setting: str
    expected: str
    found: str
    example: str


@dataclass(frozen=True)
class WrongValue(Diagnostic):
    title: ClassVar[str] = "`{key}` takes {expected}, not `{found}`"
    label: ClassVar[str] = "expected {expected}"
    help: ClassVar[str] = "{suggestion}"

    key: str
    expected: str
    found: str
    suggestion: str = ""


@dataclass(frozen=True)
class UnknownOverride(Diagnostic):
    title: ClassVar[str] = "the recipe has no `{word}`"
    label: ClassVar[str] = "unknown key"
    help: ClassVar[str] = "{suggestion}"

    word: str
    suggestion: str


@dataclass(frozen=True)
class AmbiguousOverride(Diagnostic):
    title: ClassVar[str] = "`{word}` could mean {candidates}"
    label: ClassVar[str] = "more than one"
    help: ClassVar[str] = "write the whole key"

    word: str
    candidates: str


@dataclass(frozen=True)
class MalformedOverride(Diagnostic):
    title: ClassVar[str] = "`{text}` is not `key=value`"
    label: ClassVar[str] = "expected `key=value`"
    help: ClassVar[str] = "for example `--set lr=0.001`"

    text: str


@dataclass(frozen=True)
class UnusedOption(Diagnostic):
    title: ClassVar[str] = "`{key}` has no effect: the {field} is `{chosen}`"
    label: ClassVar[str] = "an option of `{owner}`"
    help: ClassVar[str] = "choose it as well: `--set {field}={owner}`"

    key: str
    field: str
    owner: str
    chosen: str


@dataclass(frozen=True)
class ScaleTooSmall(Diagnostic):
    title: ClassVar[str] = "`scale {scale}` is smaller than the net's input of {input} pixels"
    label: ClassVar[str] = "no {input}-pixel crop fits into such an image"
    help: ClassVar[str] = "use a scale of at least {least}, or leave `scale` out"

    scale: str
    input: str
    least: int


# Images


@dataclass(frozen=True)
class NoSuchFolder(Diagnostic):
    title: ClassVar[str] = "there is no folder `{path}`"
    help: ClassVar[str] = "`--data` takes a folder that holds one folder of images per class"

    path: str


@dataclass(frozen=True)
class NoClassFolders(Diagnostic):
    title: ClassVar[str] = "no folders with images in `{path}`"
    label: ClassVar[str] = "looked for files that end in {suffixes}"
    help: ClassVar[str] = "give each class a folder of its own: `{path}/cat/1.jpg`"

    path: str
    suffixes: str


@dataclass(frozen=True)
class OnlyOneClass(Diagnostic):
    title: ClassVar[str] = "`{path}` holds images of one class only: `{name}`"
    help: ClassVar[str] = "a classifier needs two classes or more, each in a folder of its own"

    path: str
    name: str


@dataclass(frozen=True)
class NoHeldOutFolder(Diagnostic):
    title: ClassVar[str] = "`{path}` holds `train/` but neither `val/` nor `test/`"
    help: ClassVar[str] = "add one, or pass `--data {path}/train`: a fifth of it is then held out"

    path: str


@dataclass(frozen=True)
class ClassesDiffer(Diagnostic):
    title: ClassVar[str] = "`train/` and `{other}/` in `{path}` hold different classes"
    label: ClassVar[str] = "{difference}"
    help: ClassVar[str] = "give both the same folders, with at least one image in each"

    path: str
    other: str
    difference: str


@dataclass(frozen=True)
class NoReadableImages(Diagnostic):
    title: ClassVar[str] = "class `{name}` has no image left to {use}"
    label: ClassVar[str] = "{skipped} broken images were skipped"
    help: ClassVar[str] = "add readable images to it, or take its folder away"

    name: str
    use: str
    skipped: int


@dataclass(frozen=True)
class NothingHeldOut(Diagnostic):
    title: ClassVar[str] = "`{path}` has too few images to hold out a fifth"
    label: ClassVar[str] = "every class has a single image"
    help: ClassVar[str] = "add images, or give `train/` and `val/` folders"

    path: str


@dataclass(frozen=True)
class ImageLost(Diagnostic):
    title: ClassVar[str] = "an image could be read when the training began, and cannot any more"
    label: ClassVar[str] = "{reason}"
    help: ClassVar[str] = "look after the disk, then go on with `--resume`"

    reason: str


@dataclass(frozen=True)
class UnsupportedChannels(Diagnostic):
    title: ClassVar[str] = "the net takes {channels} channels; images have 3, or 1 when grey"
    help: ClassVar[str] = "write `input 3x{height}x{width}`"

    channels: int
    height: int
    width: int


# The machine


@dataclass(frozen=True)
class NoCuda(Diagnostic):
    title: ClassVar[str] = "PyTorch finds no CUDA device here"
    label: ClassVar[str] = "torch {version}"
    help: ClassVar[str] = "train on the CPU with `--device cpu`"

    version: str


@dataclass(frozen=True)
class UnsupportedPrecision(Diagnostic):
    title: ClassVar[str] = "`--precision {precision}` does not work on {device}"
    help: ClassVar[str] = "{suggestion}"

    precision: str
    device: str
    suggestion: str


@dataclass(frozen=True)
class OutOfMemory(Diagnostic):
    title: ClassVar[str] = "{device} has too little memory for batches of {batch} images"
    help: ClassVar[str] = "try `--batch {smaller}`, a smaller `--input` or `--precision bf16`"

    device: str
    batch: int
    smaller: int


# Reasons to stop


@dataclass(frozen=True)
class LossNotFinite(Diagnostic):
    title: ClassVar[str] = "the {part} loss became {loss} in epoch {epoch}, step {step}"
    label: ClassVar[str] = "the learning rate was {lr:.3g}"
    help: ClassVar[str] = (
        "the steps were too large or the first weights unfit: "
        "try `--lr {smaller:.3g}`, or `--set init=he`"
    )

    part: str
    loss: float
    epoch: int
    step: int
    lr: float
    smaller: float


@dataclass(frozen=True)
class LossFlat(Diagnostic):
    title: ClassVar[str] = "the net has learned nothing in {epochs} epochs ({steps} steps)"
    label: ClassVar[str] = (
        "the training loss is {loss:.4f}; guessing among {num_classes} classes gives {guess:.4f}"
    )
    help: ClassVar[str] = (
        "the signal dies on its way through the layers, or the steps are too small: "
        "try `--set init=he`, or a larger `--lr` than {lr:.3g}"
    )

    epochs: int
    steps: int
    loss: float
    num_classes: int
    guess: float
    lr: float


# Runs and checkpoints


@dataclass(frozen=True)
class FolderNotEmpty(Diagnostic):
    title: ClassVar[str] = "`{path}` exists and is not an empty folder"
    help: ClassVar[str] = "a run overwrites nothing: choose another `--out`"

    path: str


@dataclass(frozen=True)
class NotARun(Diagnostic):
    title: ClassVar[str] = "`{path}` is not the folder of a training run"
    label: ClassVar[str] = "{reason}"
    help: ClassVar[str] = "`vggc train` makes one under `runs/`"

    path: str
    reason: str


@dataclass(frozen=True)
class NoRuns(Diagnostic):
    title: ClassVar[str] = "no training run under `{path}`"
    help: ClassVar[str] = "train a net first: `vggc train vgg19`"

    path: str


@dataclass(frozen=True)
class RunFinished(Diagnostic):
    title: ClassVar[str] = "the run in `{path}` has finished"
    label: ClassVar[str] = "{epochs} epochs, held-out top-1 {val_top1:.1%}"
    help: ClassVar[str] = "compile it: `vggc compile {path}`; or train anew from `{path}/net.vgg`"

    path: str
    epochs: int
    val_top1: float


@dataclass(frozen=True)
class FixedByRun(Diagnostic):
    title: ClassVar[str] = "{flags} cannot change when a run is resumed"
    label: ClassVar[str] = "the run would no longer be the one in `{path}`"
    help: ClassVar[str] = "leave {flags} out, or start a new run from `{path}/net.vgg`"

    flags: str
    path: str


@dataclass(frozen=True)
class NothingToTrain(Diagnostic):
    title: ClassVar[str] = "`vggc train` needs a net"
    help: ClassVar[str] = "for example `vggc train vgg19`; or go on with a run: `--resume runs/…`"


@dataclass(frozen=True)
class DataChanged(Diagnostic):
    title: ClassVar[str] = "the images in {data} are not those that the run began with"
    label: ClassVar[str] = "the names or the classes of the readable images differ"
    help: ClassVar[str] = "restore them, or start a new run"

    data: str


@dataclass(frozen=True)
class BadCheckpoint(Diagnostic):
    title: ClassVar[str] = "the checkpoint in `{path}` cannot be used"
    label: ClassVar[str] = "{reason}"
    help: ClassVar[str] = "start a new run; nothing has been changed"

    path: str
    reason: str
