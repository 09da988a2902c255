"""Every mistake that a person can make around training, with its words."""

from __future__ import annotations

from vggc.diagnostics import Diagnostic

# The recipe


class NotTrainedYet(Diagnostic):
    title = "{what} can be written and checked, but not trained with yet"
    label = "`vggc train` does not carry this out yet"
    help = "{suggestion}"

    what: str
    suggestion: str


# Images


class NoSuchFolder(Diagnostic):
    title = "there is no folder `{path}`"
    help = "`--data` takes a folder that holds one folder of images per class"

    path: str


class UnreadableFolder(Diagnostic):
    title = "cannot read the folder `{path}`"
    label = "{reason}"
    help = "make it readable, or take it out of the folder of images"

    path: str
    reason: str


class NoClassFolders(Diagnostic):
    title = "no folders with images in `{path}`"
    label = "looked for files that end in {suffixes}"
    help = "give each class a folder of its own: `{path}/cat/1.jpg`"

    path: str
    suffixes: str


class OnlyOneClass(Diagnostic):
    title = "`{path}` holds images of one class only: `{name}`"
    help = "a classifier needs two classes or more, each in a folder of its own"

    path: str
    name: str


class NoHeldOutFolder(Diagnostic):
    title = "`{path}` holds `train/` but neither `val/` nor `test/`"
    help = "add one, or pass `--data {path}/train`: a fifth of it is then held out"

    path: str


class ClassesDiffer(Diagnostic):
    title = "`train/` and `{other}/` in `{path}` hold different classes"
    label = "{difference}"
    help = "give both the same folders, with at least one image in each"

    path: str
    other: str
    difference: str


class NoReadableImages(Diagnostic):
    title = "class `{name}` has no image left to {use}"
    label = "{skipped} broken images were skipped"
    help = "add readable images to it, or take its folder away"

    name: str
    use: str
    skipped: int


class NothingHeldOut(Diagnostic):
    title = "`{path}` has too few images to hold out a fifth"
    label = "every class has a single image"
    help = "add images, or give `train/` and `val/` folders"

    path: str


class ImageLost(Diagnostic):
    title = "an image could be read when the training began, and cannot any more"
    label = "{reason}"
    help = "look after the disk, then go on with `--resume`"

    reason: str


class UnsupportedChannels(Diagnostic):
    title = "the net takes {channels} channels; images have 3, or 1 when grey"
    help = "write `input 3x{height}x{width}`"

    channels: int
    height: int
    width: int


# The machine


class NoCuda(Diagnostic):
    title = "PyTorch finds no CUDA device here"
    label = "torch {version}"
    help = "train on the CPU with `--device cpu`"

    version: str


class UnsupportedPrecision(Diagnostic):
    title = "`--precision {precision}` does not work on {device}"
    help = "{suggestion}"

    precision: str
    device: str
    suggestion: str


class OutOfMemory(Diagnostic):
    title = "{device} has too little memory for batches of {batch} images"
    help = "try `--batch {smaller}`, a smaller `--input` or `--precision bf16`"

    device: str
    batch: int
    smaller: int


# Reasons to stop


class LossNotFinite(Diagnostic):
    title = "the {part} loss became {loss} in epoch {epoch}, step {step}"
    label = "the learning rate was {lr:.3g}"
    help = (
        "the steps were too large or the first weights unfit: "
        "try `--lr {smaller:.3g}`, or `--set init=he`"
    )

    part: str
    loss: float
    epoch: int
    step: int
    lr: float
    smaller: float


class LossFlat(Diagnostic):
    title = "the net has learned nothing in {epochs} epochs ({steps} steps)"
    label = (
        "the training loss is {loss:.4f}; guessing among {num_classes} classes gives {guess:.4f}"
    )
    help = (
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


class NotARun(Diagnostic):
    title = "`{path}` is not the folder of a training run"
    label = "{reason}"
    help = "`vggc train` makes one under `runs/`"

    path: str
    reason: str


class NoRuns(Diagnostic):
    title = "no training run under `{path}`"
    help = "train a net first: `vggc train vgg19`"

    path: str


class NoWeights(Diagnostic):
    title = "the run in `{path}` has no weights"
    label = "they are written when a run ends or is interrupted; this one is `{state}`"
    help = "go on with it: `vggc train --resume {path}`"

    path: str
    state: str


class RunFinished(Diagnostic):
    title = "the run in `{path}` has finished"
    label = "{epochs} epochs, held-out top-1 {val_top1:.1%}"
    help = "compile it: `vggc compile {path}`; or train anew from `{path}/net.vgg`"

    path: str
    epochs: int
    val_top1: float


class FixedByRun(Diagnostic):
    title = "{flags} cannot change when a run is resumed"
    label = "the run would no longer be the one in `{path}`"
    help = "leave {flags} out, or start a new run from `{path}/net.vgg`"

    flags: str
    path: str


class NothingToTrain(Diagnostic):
    title = "`vggc train` needs a net"
    help = "for example `vggc train vgg19`; or go on with a run: `--resume runs/…`"


class DataChanged(Diagnostic):
    title = "the images in {data} are not those that the run began with"
    label = "the names or the classes of the readable images differ"
    help = "restore them, or start a new run"

    data: str


class TaskChanged(Diagnostic):
    title = "the run `{path}` is no longer the one that was interrupted"
    label = "its net.vgg, or the recipe or the seed in its run.json, has been changed"
    help = "put them back, or start a new run"

    path: str


class BadCheckpoint(Diagnostic):
    title = "the checkpoint in `{path}` cannot be used"
    label = "{reason}"
    help = "start a new run; nothing has been changed"

    path: str
    reason: str
