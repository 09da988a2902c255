"""Every mistake that a person can make with images, with its words."""

from __future__ import annotations

from vggc.diagnostics import Diagnostic


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


class UnsupportedChannels(Diagnostic):
    title = "the net takes {channels} channels; images have 3, or 1 when grey"
    help = "write `input 3x{height}x{width}`"

    channels: int
    height: int
    width: int
