"""Every mistake that a person can make with images, with its words."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class NoSuchFolder(Diagnostic):
    title = "there is no folder `{path}`"
    help = "`--data` takes a folder that holds one folder of images per class"

    path: str


class NotAFolder(Diagnostic):
    title = "`{path}` is neither a folder of images nor a shard"
    help = "`--data` takes a folder, shards (`train-{{0000..0146}}.tar`), or cifar-10-binary.tar.gz"

    path: str


class UnreadableFolder(Diagnostic):
    title = "cannot read the folder `{path}`"
    label = "{reason}"
    help = "make it readable, or take it out of the folder of images"

    path: str
    reason: str


class NoClassFolders(Diagnostic):
    title = "no folders with images in `{path}`"
    label = "looked for files that end in {suffixes}{others}"
    help = "give each class a folder of its own: `{path}/cat/1.jpg`"

    path: str
    suffixes: str
    others: str = ""


class OnlyOneClass(Diagnostic):
    title = "`{path}` holds images of one class only: `{name}`"
    help = "a classifier needs images of two classes or more{hint}"

    path: str
    name: str
    hint: str = ""


class NothingUsable(Diagnostic):
    title = "no image in `{path}` can be used"
    label = "{skipped} passed over, the first of them {first}"
    help = "give each class images that can be read"

    path: str
    skipped: int
    first: str


class UnsortedParts(Diagnostic):
    title = "the parts of `{path}` hold images and no class folders: {names}"
    label = "as classes they would teach the net to tell one part from another"
    help = (
        "sort the images of each into class folders: `{path}/{first}/cat/1.jpg`; "
        "if they are classes, give them names that parts do not have"
    )

    path: str
    names: str
    first: str


class TwoForOne(Diagnostic):
    title = "`{path}` holds two parts that may be the one {use}: {names}"
    help = "name the parts by `--data` and `--val`, or take one of them away"

    path: str
    use: str
    names: str


class NoTrainingPart(Diagnostic):
    title = "`{path}` holds no part to train on"
    label = "{reason}"
    help = (
        "call the part to train on `train`, or give one part alone as `--data`: "
        "a fifth of it is then held out"
    )

    path: str
    reason: str


class UselessPart(Diagnostic):
    title = "`{path}/{name}` is called as a part to hold out and {reason}"
    help = "give each class a folder with images in it, or take `{name}` away"

    path: str
    name: str
    reason: str


class PartOrClass(Diagnostic):
    title = "`{path}/{name}` may be a part of the images or a class"
    label = "it is called as a part is and holds folders, but beside it {others} hold images, too"
    help = (
        "to train on it alone: `--data {path}/{name}`; if they are parts of one set, call one "
        "`train`, the other `val`; if it is a class, put its images right into it or give it "
        "another name"
    )

    path: str
    name: str
    others: str


class PartAmongClasses(Diagnostic):
    title = (
        "`{path}/{name}` lies beside class folders and holds folders of the same names: {shared}"
    )
    label = "it is called as a part is; as a class it would hold images of all the others"
    help = "put the classes beside it into a part of their own: `{path}/train/cat/1.jpg`"

    path: str
    name: str
    shared: str


class PartsInClasses(Diagnostic):
    title = "the folders in `{path}` hold parts: {names}"
    label = "parts stand above classes; all images of a folder would be one class"
    help = (
        "put the parts above the classes: `{path}/train/{first}/1.jpg`; "
        "if one folder is the set, name it: `--data {path}/{first}`"
    )

    path: str
    names: str
    first: str


class NoPartToTest(Diagnostic):
    title = "`{path}` holds no part to test on"
    label = "{reason}"
    help = "to measure on a part all the same, name it: `--data {part}`"

    path: str
    reason: str
    part: str


class ClassesDiffer(Diagnostic):
    title = "`{other}`, held out of `{path}`, has classes that are not trained on: {names}"
    label = "those that are: {known}"
    help = "add images of them to train on, or take them out of what is held out"

    path: str
    other: str
    names: str
    known: str


class HeldOutTwice(Diagnostic):
    title = "`{path}` holds parts of its own: {names}"
    label = "`--val` names another part to hold out"
    help = "leave out `--val`, or name one part with each: `--data PATH/train --val PATH/val`"

    path: str
    names: str


class HeldOutToo(Diagnostic):
    title = "`{path}` would be trained on and held out, too"
    help = "leave out `--val`: a fifth is held out then; or name other images"

    path: str


class NoReadableImages(Diagnostic):
    title = "class `{name}` has no image left to {use}"
    label = "{reason}"
    help = "add readable images of it, or leave the class out"

    name: str
    use: str
    reason: str


class NothingHeldOut(Diagnostic):
    title = "`{path}` has too few images to hold out a fifth"
    label = "every class has a single image"
    help = "add images, or give `train/` and `val/` folders"

    path: str


class UnsupportedChannels(Diagnostic):
    title = "the net takes {channels} channels; images have 3, or 1 when grey"
    help = "write `input 3x{height}x{width}`"

    channels: int
    height: int
    width: int


# CIFAR


class PickledCifar(Diagnostic):
    title = "`{path}` holds CIFAR as pickles"
    label = "reading a pickle runs whatever code is in it"
    help = "take the binary version from the same page: {binary}"

    path: str
    binary: str


class BadCifar(Diagnostic):
    title = "`{path}` is not CIFAR in its binary version"
    label = "{reason}"
    help = "download it again: cifar-10-binary.tar.gz or cifar-100-binary.tar.gz"

    path: str
    reason: str


# Shards


SEE = "see that it is there, that you may read it, and that the network is up"
SAY_AGAIN = "a run keeps no passwords and signatures: give the whole address by `--data` or `--val`"


class CannotOpen(Diagnostic):
    title = "cannot open `{path}`"
    label = "{reason}"
    help = "{hint}"

    path: str
    reason: str
    hint: str = SEE


class MissingProtocol(Diagnostic):
    title = "a package is missing to read `{scheme}://`"
    help = "`pip install 'vggc[remote]'`; for other protocols the package that fsspec names"

    scheme: str


class BadPattern(Diagnostic):
    title = "`{pattern}` does not name shards"
    label = "{reason}"
    help = "braces stand for numbers or words: `train-{{0000..0146}}.tar`, `{{a,b}}.tar`"

    pattern: str
    reason: str


class CompressedShard(Diagnostic):
    title = "`{path}` is compressed"
    label = "pictures are found by their place in the shard, and pictures are compressed already"
    help = "unpack it to a plain .tar, by gunzip or its like"

    path: str


class BrokenShard(Diagnostic):
    title = "`{path}` is not a sound tar"
    label = "{reason}"
    help = "make it or copy it again"

    path: str
    reason: str


class NoSamples(Diagnostic):
    title = "`{path}` holds no samples"
    label = "looked for KEY.jpg (or .png, .webp …) beside KEY.cls, KEY.json or KEY.xml"
    help = "docs/data.md shows how to write shards from a folder of images"

    path: str


class IncompleteSamples(Diagnostic):
    title = "{bad} of {total} samples in `{path}` cannot be used"
    label = "such as `{example}`: {reason}"
    help = "a sample is KEY.jpg and, right beside it, KEY.cls: `tar --sort=name` puts them so"

    path: str
    bad: int
    total: int
    example: str
    reason: str


class UnknownLabel(Diagnostic):
    title = "`{path}` has labels that are none of the {classes} classes: {labels}"
    help = "`classes.txt` beside the shards names the classes, one a line, the first being 0"

    path: str
    labels: str
    classes: int


class BadClassList(Diagnostic):
    title = "`{path}` is no list of classes"
    label = "{reason}"
    help = "it holds the name of each class, one a line"

    path: str
    reason: str


class WorkerEnded(Diagnostic):
    title = "a process that reads images has ended: {how}"
    label = "{reason}"
    help = "fewer of them take less memory (`--workers 1`), and so do smaller batches (`--batch`)"

    how: str
    reason: str


class NoWorker(Diagnostic):
    title = "the system starts no process to read images"
    label = "{reason}"
    help = "`--workers 0` reads them without other processes"

    reason: str


# Annotations


class BadAnnotations(Diagnostic):
    title = "cannot read the annotations in `{path}`"
    label = "{reason}"
    help = "export them again; docs/data.md shows which forms are read"

    path: str
    reason: str


class UnusableAnnotations(Diagnostic):
    title = "{bad:,} of {total:,} pictures and annotations in `{path}` cannot be used"
    label = "such as {example}: {reason}"
    help = "docs/data.md shows where pictures and their annotations lie, and what these hold"

    path: str
    bad: int
    total: int
    example: str
    reason: str


class NoObjects(Diagnostic):
    title = "no picture in `{path}` shows an object that is annotated"
    label = "{reason}"
    help = "docs/data.md shows where pictures and their annotations lie, and what these hold"

    path: str
    reason: str


class SeveralSets(Diagnostic):
    title = "`{path}` holds several sets of annotated pictures: {names}"
    help = "name one of them: `--data {path}/{first}`"

    path: str
    names: str
    first: str
