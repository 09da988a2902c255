"""Every mistake that a person can make around training, with its words."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic

# The recipe


class NothingTrainable(Diagnostic):
    title = "{net} has nothing to train: its heads give features alone"
    help = "give it a head of classes or boxes: `head scores: fc-10`, or end it in such a layer"

    net: str


class ImagesWithoutBoxes(Diagnostic):
    title = "{net} gives boxes, and `{data}` does not say where objects are"
    label = "its pictures are told by class alone"
    help = (
        "put annotations beside the pictures (Pascal VOC, COCO, YOLO or a table): see docs/data.md"
    )

    net: str
    data: str


class OneClassToTell(Diagnostic):
    title = "{net} tells classes apart, and all objects in `{data}` are of one: {name}"
    help = "train a net that ends in `boxes` alone, or add pictures of other classes"

    net: str
    data: str
    name: str


class NoTrainedNet(Diagnostic):
    title = "there are no trained weights of `{net}` to begin with"
    label = "no run under `{folder}` has weights of it"
    help = "train it first: `vggc train {net}`; or name its run or weights: `--init-from PATH`"

    net: str
    folder: str


class RunOfAnotherNet(Diagnostic):
    title = "the recipe begins with weights of `{net}`, and `{path}` is a run of `{other}`"
    help = "name a run of `{net}`, or change the recipe: `--set init-from={other}`"

    net: str
    path: str
    other: str


class InitFromInVain(Diagnostic):
    title = "no layer begins with the weights in `{path}`"
    label = "the recipe of {net} has no `init-from`, which says what layers are taken"
    help = "for example `--set init-from=vgg11 --set init-from.layers=conv1_1,fc6..fc8`"

    path: str
    net: str


# Images


class Contradiction(Diagnostic):
    title = "`{option}` and `--set` contradict each other"
    help = "leave one of them out"

    option: str


class BatchTooLarge(Diagnostic):
    title = "steps of {batch} images, and {count} images to train on"
    label = "no step could be that large"
    help = "try `--batch {suggested}`: some steps an epoch are needed to learn"

    batch: int
    count: int
    suggested: int


class BatchTooSmall(Diagnostic):
    title = "steps of {batch} images for {processes} processes"
    label = "each process needs two images of a step at least"
    help = "start fewer processes, or try `--batch {suggested}`"

    batch: int
    processes: int
    suggested: int


class ValWithoutData(Diagnostic):
    title = "`--val` names images to hold out, and nothing names those to train on"
    help = "add `--data`, or leave out `--val` to train on the digits"


class ImageLost(Diagnostic):
    title = "{count} images could be read when the training began, and cannot any more"
    label = "{reason}"
    help = "look after the disk, then go on with `--resume`"

    count: int
    reason: str


# The machine


class NoCuda(Diagnostic):
    title = "PyTorch finds no CUDA device here"
    label = "torch {version}"
    help = "compute on the CPU with `--device cpu`"

    version: str


class NoTensorBoard(Diagnostic):
    title = "`--tensorboard` needs the package tensorboard, which is not installed"
    help = "install it: `pip install 'vggc[tensorboard]'`"


class UnsupportedPrecision(Diagnostic):
    title = "`--precision {precision}` does not work on {device}"
    help = "{suggestion}"

    precision: str
    device: str
    suggestion: str


class TooFewGpus(Diagnostic):
    title = "{processes} processes on this machine, and {gpus} GPUs that PyTorch finds"
    label = "each process takes a GPU of its own"
    help = "pass `--nproc-per-node {gpus}` to torchrun, or compute with `--device cpu`"

    gpus: int
    processes: int


class NothingToShard(Diagnostic):
    title = "`--shard` shares weights among processes, and there is one"
    help = "start several, `torchrun --nproc-per-node 2 -m vggc train …`, or leave `--shard` out"


class BadWorld(Diagnostic):
    title = "the environment does not say which process this is"
    label = "{given}"
    help = "start several processes with `torchrun`, or unset these variables"

    given: str


class NoWorld(Diagnostic):
    title = "the {size} processes do not find each other"
    label = "{reason}"
    help = (
        "see that all are started by `torchrun` with the same address, and that it can be reached"
    )

    size: int
    reason: str


class ImagesMoved(Diagnostic):
    title = "the images of the run in `{run}` are not where they were"
    label = "there is no `{path}` any more"
    help = "say where they are now: `--data`, and `--val` if they are apart"

    run: str
    path: str


class ImagesDiffer(Diagnostic):
    title = "process {rank} has not found the images that the first process has"
    label = "the first has {first} to train on and to hold out, process {rank} {here}"
    help = "give all machines the same images; `--data` names them"

    rank: int
    first: str
    here: str


class WorldEnded(Diagnostic):
    title = "another process of this training has ended"
    label = "{reason}"
    help = "what was saved is kept: go on with `--resume`, with as many processes or others"

    reason: str


class OutOfMemory(Diagnostic):
    title = "{device} has too little memory for batches of {batch} images"
    help = "try `--batch {smaller}`, a smaller `--input` or `--precision bfloat16`"

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


class Diverged(Diagnostic):
    title = "the training diverged: {what} holds values that are not finite after step {step}"
    label = "that is in epoch {epoch}; the learning rate was {lr:.3g}, and the loss still finite"
    help = (
        "the steps were too large or the first weights unfit: "
        "try `--lr {smaller:.3g}`, or `--set init=he`"
    )

    what: str
    epoch: int
    step: int
    lr: float
    smaller: float


class LossFlat(Diagnostic):
    title = "the net has learned nothing in {epochs} epochs ({steps} steps)"
    label = (
        "the training loss is {loss:.4f}; guessing among {num_classes} classes gives {guess:.4f}, "
        "and no held-out accuracy was beyond chance"
    )
    help = (
        "the signal dies on its way through the layers, or the steps are too small: "
        "try `--set init=he`, or a larger `--lr` than {lr:.3g}; "
        "`--set give-up=off` trains on all the same"
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


class OldRun(Diagnostic):
    title = "the run in `{path}` is of an earlier vggc"
    label = "its run.json tells too little of its images to know them again"
    help = "train anew, or take its weights: `--weights {path}/weights.safetensors`"

    path: str


class NoRuns(Diagnostic):
    title = "no training run under `{path}`"
    help = "train a net first: `vggc train vgg19`"

    path: str


class NoWeights(Diagnostic):
    title = "the run in `{path}` has no weights"
    label = "they are written with each checkpoint that is sound; this one is `{state}`"
    help = "{hint}"

    path: str
    state: str
    hint: str


class NoBestWeights(Diagnostic):
    title = "the run in `{path}` has no best weights"
    label = "they are kept from its first whole epoch on"
    help = "leave `--weights best` out, or go on with the run: `vggc train --resume {path}`"

    path: str


class WeightsOfNoRun(Diagnostic):
    title = "`--weights {which}` names weights of a run"
    label = "`{spec}` is no run"
    help = "give a run in its place; a file of that name is `--weights ./{which}`"

    which: str
    spec: str


class EndsSooner(Diagnostic):
    title = "the run in `{path}` cannot end sooner than it was to"
    label = "that would be after {after:,} steps, and it was to end after {before:,}"
    help = "give more epochs, or leave them out; Ctrl-C ends it at any time, with its weights saved"

    path: str
    after: int
    before: int


class EndsWithinEpoch(Diagnostic):
    title = "the run in `{path}` cannot be trained for longer"
    label = "it was to end within an epoch: after {steps:,} steps, of {batches:,} an epoch"
    help = "start a new run from `{path}/net.vgg`, with more steps"

    path: str
    steps: int
    batches: int


class DropsInOtherUnits(Diagnostic):
    title = "the run in `{path}` counts the drops of its rate, `step at=`, in {unit}"
    label = "with a length in {other} their numbers would be taken for {other}"
    help = "give the new length in {unit}: `--set {unit}=…`"

    path: str
    unit: str
    other: str


class NothingToGoOnFrom(Diagnostic):
    title = "the run in `{path}` has kept no checkpoint to go on from"
    label = "it has finished, and momenta are nowhere but in a checkpoint"
    help = (
        "start a new run that begins with its weights: `vggc train {path}/net.vgg --init-from "
        "{path} --set init-from={net} --set init-from.layers=FIRST..LAST`"
    )

    path: str
    net: str


class RunInUse(Diagnostic):
    title = "the run in `{path}` is being trained by another process"
    label = "{holder}"
    help = "wait until it ends, or end it with Ctrl-C; then `vggc train --resume {path}` goes on"

    path: str
    holder: str


class FixedByRun(Diagnostic):
    title = "{flags} cannot change when a run goes on"
    label = "the run would no longer be the one in `{path}`"
    help = "leave {flags} out, or start a new run from `{path}/net.vgg`"

    flags: str
    path: str


class NamedAsItsFile(Diagnostic):
    title = "a recipe cannot name a net called `{name}`"
    label = "its file would lie beside the run's own net, which is called {name}.vgg as well"
    help = "give that net and its file another name"

    name: str


class NothingToTrain(Diagnostic):
    title = "`vggc train` needs a net"
    help = "for example `vggc train vgg19`; or go on with a run: `--resume runs/…`"


class DataChanged(Diagnostic):
    title = "the images in {data} are not those that the run began with"
    label = "{reason}"
    help = "restore them, or start a new run"

    data: str
    reason: str


class TaskChanged(Diagnostic):
    title = "the run `{path}` is no longer the one that was interrupted"
    label = "its net.vgg, or the recipe or the seed in its run.json, has been changed"
    help = "put them back, or start a new run"

    path: str


class BadCheckpoint(Diagnostic):
    title = "the checkpoint in `{path}` cannot be used"
    label = "{reason}"
    help = "{suggestion}"

    path: str
    reason: str
    suggestion: str = "start a new run; nothing has been changed"
