"""CIFAR-10 and CIFAR-100 as their authors publish them, in the binary format.

Each record is a picture's labels, a byte each, and its red, green and blue plane of 32×32
pixels. A folder is read as well as the archive it comes in, of which nothing is unpacked to disk.
The other formats are pickles, which nobody should read who does not trust their maker.

Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggc.data import diagnostics
from vggc.data.parts import Images, Part
from vggc.data.stores import Arrays
from vggc.data.strings import Strings
from vggc.data.tar import Forwards, TarError, members
from vggc.support.diagnostics import UserError
from vggc_runtime.files import open_file

SIDE = 32
PIXELS = 3 * SIDE * SIDE
MAX_NAMES = 64 * 1024
"""The most bytes of a file of names."""
MAX_ARCHIVE = 2**30
"""The most bytes that an archive may unpack to: ten times what it should."""


@dataclass(frozen=True)
class CifarVersion:
    """A version of the data set: its files, and what is in them."""

    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    """The file of the classes' names, one a line."""
    num_classes: int
    num_labels: int
    """Bytes before the pixels of a record; the last of them is the class."""
    num_train: int
    """Records in each training file."""
    num_test: int

    @property
    def record(self) -> int:
        """The bytes of an image and its labels."""
        return self.num_labels + PIXELS

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files of an archive."""
        return (self.names, *self.train, self.test)

    def most(self, file: str) -> int:
        """The bytes of a file; of that of names, the most."""
        if file == self.names:
            return MAX_NAMES
        return self.record * (self.num_test if file == self.test else self.num_train)


CIFAR10 = CifarVersion(
    title="CIFAR-10",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test="test_batch.bin",
    names="batches.meta.txt",
    num_classes=10,
    num_labels=1,
    num_train=10_000,
    num_test=10_000,
)
CIFAR100 = CifarVersion(
    title="CIFAR-100",
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    names="fine_label_names.txt",
    num_classes=100,
    num_labels=2,
    num_train=50_000,
    num_test=10_000,
)
LAYOUTS = (CIFAR10, CIFAR100)

ARCHIVES = (".tar.gz", ".tgz")
PICKLED = {
    "cifar-10-batches-py": "cifar-10-binary.tar.gz",
    "cifar-10-python": "cifar-10-binary.tar.gz",
    "cifar-100-python": "cifar-100-binary.tar.gz",
}
"""What the pickled versions are called, and their binary counterparts."""


@dataclass(frozen=True)
class CifarFiles:
    """Where CIFAR lies: at `place`, as an archive or, of a known `version`, in a `folder`."""

    place: Path
    version: CifarVersion | None = None
    folder: Path | None = None


def cifar_at(place: Path) -> CifarFiles | None:
    """The files of CIFAR in a folder, or an archive, which is not opened; None where neither is.

    Raises:
        UserError: it is the pickled version.
    """
    for layout in LAYOUTS:
        for folder in (place, place / layout.folder):
            if all(os.path.lexists(folder / name) for name in (layout.train[0], layout.names)):
                return CifarFiles(place, layout, folder)
    refuse_pickles(place)
    if place.name.endswith(ARCHIVES) and os.path.lexists(place) and not place.is_dir():
        return CifarFiles(place)
    return None


def read_cifar(found: CifarFiles) -> Images:
    """The images of CIFAR, its test part held out.

    Raises:
        UserError: it is not what it should be.
    """
    match found:
        case CifarFiles(place, CifarVersion() as layout, Path() as folder):
            return images_of(place, layout, in_folder(folder, layout))
        case _:
            return images_of(found.place, *unpacked(found.place))


def refuse_pickles(place: Path) -> None:
    """Refuses the versions for Python: their archive, the folder in it, and the one around it."""
    for path in (place, *(place / name for name in PICKLED)):
        stem = path.name
        for ending in ARCHIVES:
            stem = stem.removesuffix(ending)
        if stem in PICKLED and path.exists():
            raise UserError(diagnostics.PickledCifar(str(path), PICKLED[stem]))
    if (place / "data_batch_1").is_file() and (place / "batches.meta").is_file():
        raise UserError(diagnostics.PickledCifar(str(place), "cifar-10-binary.tar.gz"))


def in_folder(folder: Path, layout: CifarVersion) -> dict[str, bytes]:
    """The files of a layout by name."""
    return {name: content_of(folder / name, layout.most(name)) for name in layout.files}


def content_of(path: Path, most: int) -> bytes:
    """A file's bytes, one more than there may be at most."""
    try:
        with open_file(path) as file:
            return file.read(most + 1)
    except OSError as fault:
        reason = f"{path.name}: {fault.strerror}"
        raise UserError(diagnostics.BadCifar(str(path.parent), reason)) from None


def unpacked(archive: Path) -> tuple[CifarVersion, dict[str, bytes]]:
    """Which version an archive holds, and its files by name.

    Raises:
        UserError: it is damaged, or another archive.
    """
    files: dict[str, bytes] = {}
    wanted = {f"{layout.folder}/{name}": layout for layout in LAYOUTS for name in layout.files}
    found: CifarVersion | None = None
    with explained(archive), open_file(archive) as file, gzip.open(file) as stream:
        source = Forwards(stream, MAX_ARCHIVE, seeks=False)
        for member in members(source):
            path = member.name.removeprefix("./")
            if "-batches-py/" in path or "cifar-100-python/" in path:
                binary = "cifar-100-binary" if "100" in path else "cifar-10-binary"
                raise UserError(diagnostics.PickledCifar(str(archive), f"{binary}.tar.gz"))
            layout, name = wanted.get(path), path.rpartition("/")[2]
            if layout is None:
                continue
            found = layout
            fault = member.fault or ("is there twice" if name in files else None)
            if fault is None and member.size > layout.most(name):
                fault = f"should have {layout.most(name):,} bytes at most"
            if fault:
                raise UserError(diagnostics.BadCifar(str(archive), f"{name} {fault}"))
            files[name] = source.read(member.size)
        # The checksum of all that was read stands at the end.
        source.end()
    if found is None:
        raise UserError(diagnostics.CompressedShard(str(archive)))
    return found, files


@contextmanager
def explained(archive: Path) -> Iterator[None]:
    """Within it, what is wrong with an archive is a mistake of the user's."""
    try:
        yield
    except (TarError, OSError, EOFError, zlib.error) as fault:
        match fault:
            case TarError():
                reason = str(fault)
            case OSError(strerror=str(text)):
                reason = text
            case _:
                reason = f"the archive is damaged: {fault}"
        raise UserError(diagnostics.BadCifar(str(archive), reason)) from None


def images_of(place: Path, layout: CifarVersion, files: dict[str, bytes]) -> Images:
    """The images in the files of a layout, checked."""
    for name in layout.files:
        content = files.get(name)
        if content is None:
            raise UserError(diagnostics.BadCifar(str(place), f"{name} is missing"))
        if name != layout.names and len(content) != layout.most(name):
            told = f"{name} should have {layout.most(name):,} bytes"
            raise UserError(diagnostics.BadCifar(str(place), told))
    classes = class_names(place, layout, files[layout.names])
    train, val = (
        part_of(place, layout, {name: files[name] for name in names})
        for names in (layout.train, (layout.test,))
    )
    return Images(path=str(place), classes=classes, train=train, val=val)


def class_names(place: Path, layout: CifarVersion, content: bytes) -> tuple[str, ...]:
    """The names of the classes, from the `content` of the file that lists them.

    Raises:
        UserError: they are not as many different ones as the version has.
    """
    try:
        names = tuple(content.decode("utf-8").split())
    except ValueError:
        names = ()
    if not len(names) == len({*names}) == layout.num_classes:
        reason = f"{layout.names} should hold {layout.num_classes} names"
        raise UserError(diagnostics.BadCifar(str(place), reason))
    return names


def part_of(place: Path, layout: CifarVersion, files: dict[str, bytes]) -> Part:
    """The pictures in some files, one after another."""
    records = np.frombuffer(b"".join(files.values()), np.uint8).reshape(-1, layout.record)
    labels = records[:, layout.num_labels - 1].astype(np.int64)
    if labels.max() >= layout.num_classes:
        reason = f"a label is {labels.max()}, and there are {layout.num_classes} classes"
        raise UserError(diagnostics.BadCifar(str(place), reason))
    planes = records[:, layout.num_labels :].reshape(-1, 3, SIDE, SIDE)
    names = Strings.of(
        f"{name}, picture {index}"
        for name, content in files.items()
        for index in range(len(content) // layout.record)
    )
    return Part.all(Arrays(names, np.ascontiguousarray(planes.transpose(0, 2, 3, 1))), labels)
