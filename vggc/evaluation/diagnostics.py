"""Every mistake that a person can make around testing, with its words."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class GridWithoutCrops(Diagnostic):
    title = "`--grid` is of crops, and nothing is tested on crops"
    help = "add `--protocol crops` or `--protocol both`, or leave `--grid` out"


class ScalesOfWhole(Diagnostic):
    title = "`--scales` is of pictures that are cut"
    label = "the preprocessing brings them to the size of the input whole: {fit}"
    help = "leave `--scales` out"

    fit: str


class PaddedPictures(Diagnostic):
    title = "the weights in {weights} are for pictures that are padded"
    label = "where a net of them sees objects is not told of a run"
    help = "compile the net with these weights: `vggc run` tells boxes of padded pictures"

    weights: str


class OtherClasses(Diagnostic):
    title = "`{first}` and `{second}` cannot be fused: their classes differ"
    label = "{difference}"
    help = "test each by itself, or fuse runs that were trained on the same classes"

    first: str
    second: str
    difference: str


class OtherImages(Diagnostic):
    title = "`{first}` and `{second}` hold out different images"
    label = "what one has held out the other may have trained on"
    help = "say which images to test on: `--data DIR`"

    first: str
    second: str


class HeldOutLost(Diagnostic):
    title = "which images `{run}` held out cannot be told any more"
    label = "in `{data}`, {reason}"
    help = "restore them, or say which images to test on: `--data DIR`"

    run: str
    data: str
    reason: str


class UnknownClasses(Diagnostic):
    title = "`{data}` holds classes that `{run}` does not know: {unknown}"
    label = "its classes are {known}"
    help = "call the folders as those that the net was trained on, or take these away"

    data: str
    run: str
    unknown: str
    known: str


class NotOfImageNet(Diagnostic):
    title = "`{data}` holds classes that are none of ImageNet's thousand: {unknown}"
    label = "`{net}` knows no others{hint}"
    help = (
        "call folders by numbers in WordNet, as n02123045, or by names, as tabby; take others away"
    )

    data: str
    net: str
    unknown: str
    hint: str


class NothingToTest(Diagnostic):
    title = "none of the images in `{data}` can be read"
    label = "{skipped} were left out, the first of them {first}"
    help = "are they whole image files?"

    data: str
    skipped: int
    first: str


class NoneHeldOut(Diagnostic):
    title = "`{net}` is no run, which would have held images out"
    help = "name images to test on: `--data DIR`"

    net: str


class NotARunToTest(Diagnostic):
    title = "`{path}` is not the folder of a training run"
    label = "{reason}"
    help = "{hint}"

    path: str
    reason: str
    hint: str


class UnreadableImage(Diagnostic):
    title = "cannot read the image `{path}`"
    label = "{reason}"
    help = "{hint}"

    path: str
    reason: str
    hint: str = "is it a whole image file?"


class NoImagesThere(Diagnostic):
    title = "there are no images in `{path}`"
    label = "images are files whose names end in {endings}"
    help = "a file of another name is read where it is named itself"

    path: str
    endings: str


class NoList(Diagnostic):
    title = "what comes in is no list of paths"
    label = "more than 65,536 bytes came without {ends} between them"
    help = "give a path a line, or, with `--null`, paths that a NUL ends: find … -print0"

    ends: str


class NotForArtifact(Diagnostic):
    title = "{flags} cannot be had from an artifact"
    label = "`{path}` is compiled for the centre crop of one size, in one precision"
    help = "leave {flags} out, or give the run that it was compiled from"

    flags: str
    path: str


class NoClassesToTell(Diagnostic):
    title = "the artifact `{path}` tells no classes"
    label = "its main output is {kind}"
    help = "`vggc run {path} --input FILE` shows what it gives"

    path: str
    kind: str


class NoClassesToTest(Diagnostic):
    title = "the net of `{run}` tells no classes"
    label = "its heads give boxes or features"
    help = "`vggc localise {run} IMAGE` shows its boxes, `vggc eval --localise {run}` tests them"

    run: str


class NoRoom(Diagnostic):
    title = "testing {net} takes more memory than this machine has"
    label = "{images} of {size} pixels at once: {needed:.1f} GB, and there are {present:.1f} GB"
    help = "a smaller `--batch` or smaller `--scales` take less"

    net: str
    images: str
    size: str
    needed: float
    present: float


class NoRoomOnGpu(Diagnostic):
    title = "the GPU has too little memory for batches of {batch} images"
    help = "try `--batch {smaller}`, smaller `--scales` or `--precision bfloat16`"

    batch: int
    smaller: int


class ProcessEnded(Diagnostic):
    title = "another process of this test has ended"
    label = "{reason}"
    help = "start the test again"

    reason: str


class NoTable(Diagnostic):
    title = "`{path}` is no table that vggc writes"
    label = "the end of its name tells the kind of table: {known}"
    help = "did you mean `{suggestion}`?"

    path: str
    known: str
    suggestion: str


class NoBoxes(Diagnostic):
    title = "the net of `{run}` gives no boxes"
    label = "its heads give {kinds}"
    help = "give a run of a net with a head of boxes, such as vgg16_loc_scr: `… | boxes`"

    run: str
    kinds: str


class TellsNoClasses(Diagnostic):
    title = "the net of `{run}` gives no classes"
    label = "its heads give {kinds}"
    help = "give a run that was trained to classify after `--classifier`"

    run: str
    kinds: str


class WhichClass(Diagnostic):
    title = "`{run}` gives a box for each of {classes} classes, and nothing tells the class"
    label = "no net that classifies is given"
    help = "give a run that was trained on the same classes: `--classifier RUN`"

    run: str
    classes: int


class ClassesOfBoxes(Diagnostic):
    title = "`{first}` and `{second}` do not know the same classes"
    label = "{difference}"
    help = "give nets that were trained on the same classes, or one with a box for all: `boxes`"

    first: str
    second: str
    difference: str


class NoObjectsToTest(Diagnostic):
    title = "there are no boxes around the objects in `{data}`"
    label = "localisation is tested on pictures whose objects are annotated"
    help = "give a place with annotations (VOC, COCO, YOLO, CSV) or shards with boxes: `--data`"

    data: str


class OfWholePictures(Diagnostic):
    title = "`{flag}` is of nets applied to whole pictures, and only centre crops are looked at"
    help = "add `--protocol dense`, or leave `{flag}` out"

    flag: str


class TooManyBoxes(Diagnostic):
    title = "{boxes:,} boxes of one picture are too many to compare each with all others"
    label = "they are one from each position of the nets, and {most:,} can be"
    help = "smaller `--scales` give fewer, and so does leaving `--offsets` out"

    boxes: int
    most: int


class ArtifactOfBoxes(Diagnostic):
    title = "`{path}` is an artifact, and objects are looked for by training runs"
    label = "it is compiled for one crop or one size of images"
    help = "`vggc run {path} --input IMAGE` tells its classes and boxes; or give the run"

    path: str


class SeveralIntoOne(Diagnostic):
    title = "`{path}` is one picture, and there are several images, or nobody knows how many"
    help = "name a new folder, without an ending"

    path: str


class NoPicture(Diagnostic):
    title = "boxes are not drawn into `{path}`"
    label = "the end of its name tells the kind of picture: {known}"
    help = "name such a file, or a new folder, without an ending"

    path: str
    known: str
