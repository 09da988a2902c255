"""The file of features: a row of numbers a picture, what the picture is, and how they came about.

features      float32 (N, D)
labels        int64 (N,), the number of each picture's class
multilabels   int8 (N, C), where boxes tell what pictures show: 1 what each shows, 0 what it does
              not, -1 what it shows only in objects that are marked as difficult
names         N texts, what each picture is called
parts         N texts, the part that each is of: train, val, test, or nothing
classes       C texts, what each class is called

An .npz has texts as numpy does. Safetensors has no texts: they are rows of bytes in UTF-8, zeros
behind them. How the features came about is JSON: a `Provenance`, in the metadata of safetensors
by the name `features`, in an .npz the text `provenance`. Nothing is pickled.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.data.stores import Numbers
from vggc.data.strings import CODEC, ERRORS
from vggc.features import diagnostics
from vggc.support.diagnostics import UserError, nearest
from vggc.support.records import to_json
from vggc.support.tensors import Pieces, write
from vggc_runtime.preprocessing import Preprocessing

ENDINGS = (".safetensors", ".npz")
METADATA, ABOUT = "features", "provenance"
"""Where the provenance stands: in the metadata of safetensors, and among the arrays of an .npz."""

NORMALISED = "L2, of each layer at each scale, after the mean over positions, crops and flips"

TEXTS_AT_ONCE = 4096
EARLY = (1980, 1, 1, 0, 0, 0)
"""The date of every array in an .npz: the same features make the same file."""

Combine: TypeAlias = Literal["average", "stack"]


@dataclass(frozen=True)
class LayerColumns:
    """The columns of features that are of a layer: from `start` to `stop`, at these scales. More
    scales than one are averaged; None is a picture that just covers the net's input.
    """

    layer: str
    scales: tuple[int | None, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class DescribedPictures:
    """Which pictures features are of: where they were, which parts of that were taken, and the hash
    of the names and classes of all.
    """

    place: str
    parts: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """How features came about: by which net and weights, of which pictures, seen how.

    `source` is what the net was called, a run or a file. `dense`, `grid` and `flip` say what was
    looked at of each picture at each scale: all of it, so many crops along each side, the mirror
    image, too. Rows were computed in blocks of `block` pictures, in batches of `batch`.
    """

    format: Literal[1]
    vggc: str
    net: str
    source: str
    weights_from: str
    weights_sha256: str
    pictures: DescribedPictures
    columns: tuple[LayerColumns, ...]
    combine: Combine
    dense: bool
    grid: int | None
    flip: bool
    normalised: str
    input: tuple[int, int, int]
    preprocessing: Preprocessing
    device: str
    precision: str
    batch: int
    block: int

    @property
    def width(self) -> int:
        """The number of features of a picture."""
        return self.columns[-1].stop


# Written


@dataclass(frozen=True)
class TextColumn:
    """Texts that are made anew whenever they are needed, so that they take no memory."""

    make: Callable[[], Iterator[str]]

    def pieces(self, *, as_bytes: bool) -> Pieces:
        """The texts as an array: of numpy's texts (N,), or of bytes (N, W)."""
        texts = map(encoded, self.make()) if as_bytes else self.make()
        lengths = [len(text) for text in texts]
        width = max([1, *lengths])
        if not as_bytes:
            return Pieces(np.dtype(f"<U{width}"), (len(lengths),), self.arrays)

        def rows() -> Iterator[npt.NDArray[np.uint8]]:
            for texts in in_groups(self.make()):
                there = np.array([encoded(text) for text in texts], f"S{width}")
                yield there.view(np.uint8).reshape(-1, width)

        return Pieces(np.dtype(np.uint8), (len(lengths), width), rows)

    def arrays(self) -> Iterator[npt.NDArray[np.str_]]:
        """The texts as numpy's, some at a time."""
        return (np.array(texts) for texts in in_groups(self.make()))


def encoded(text: str) -> bytes:
    """A text in UTF-8; names of files that are none come back as they were."""
    return text.encode(CODEC, ERRORS)


def in_groups(texts: Iterator[str]) -> Iterator[list[str]]:
    """The texts, some at a time."""
    while group := [*islice(texts, TEXTS_AT_ONCE)]:
        yield group


@dataclass(frozen=True)
class FeatureTable:
    """What is written to a file of features, none of which is held in memory but the labels."""

    features: Pieces
    labels: Numbers
    multilabels: npt.NDArray[np.int8] | None
    names: TextColumn
    parts: TextColumn
    classes: TextColumn
    provenance: Provenance


def check_ending(path: Path) -> None:
    """Raises: UserError where the end of a name tells no kind of file that features are kept in."""
    if path.suffix not in ENDINGS:
        ending = nearest(path.suffix, ENDINGS) or ENDINGS[0]
        near = path.with_suffix(ending) if path.suffix else f"{path}{ending}"
        raise UserError(diagnostics.NotAFeaturesName(str(path), str(near)))


def write_table(file: BinaryIO, table: FeatureTable, ending: str) -> None:
    """Writes a file of features, of the kind that an ending tells.

    Raises: OSError where it cannot be written.
    """
    is_npz = ending == ".npz"
    columns = {
        "features": table.features,
        "labels": Pieces.of(table.labels),
        "names": table.names.pieces(as_bytes=not is_npz),
        "parts": table.parts.pieces(as_bytes=not is_npz),
        "classes": table.classes.pieces(as_bytes=not is_npz),
    }
    if table.multilabels is not None:
        columns["multilabels"] = Pieces.of(table.multilabels)
    told = json.dumps(to_json(table.provenance))
    if is_npz:
        text = np.array(told)
        write_npz(file, columns | {ABOUT: Pieces(text.dtype, (), lambda: [text])})
    else:
        write(file, columns, {METADATA: told})


def write_npz(file: BinaryIO, columns: Mapping[str, Pieces]) -> None:
    """Writes arrays as `numpy.savez` does, of which no more than a piece is held in memory."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, column in columns.items():
            member = zipfile.ZipInfo(f"{name}.npy", EARLY)
            with archive.open(member, "w", force_zip64=True) as place:
                described = {
                    "descr": np.lib.format.dtype_to_descr(column.dtype),
                    "fortran_order": False,
                    "shape": column.shape,
                }
                np.lib.format.write_array_header_1_0(place, described)
                for piece in column.make():
                    place.write(np.ascontiguousarray(piece, column.dtype).tobytes())
