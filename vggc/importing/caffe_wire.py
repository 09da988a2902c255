"""The weights in a caffemodel, a message of protocol buffers. The numbers stay in the file.

Source: caffe.proto of Caffe 1.0, whose fields are named here by their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vggc.importing.definitions import NumbersUnfit
from vggc.importing.numbers_file import FLOAT32, NumberRun, NumbersFile
from vggc.importing.wire import (
    EIGHT_BYTES,
    FOUR_BYTES,
    LENGTH,
    VARINT,
    WireField,
    field_at,
    varint_at,
)
from vggc.ir.ops import Shape
from vggc.support.diagnostics import UserError
from vggc_runtime.json_file import MalformedError

DOUBLE: np.dtype[Any] = np.dtype("<f8")

NET_LAYERS, NET_LAYER = 2, 100
"""Fields of NetParameter: the layers of the first generation, and those of the second."""
NAME_AND_BLOBS = {NET_LAYERS: (4, 6), NET_LAYER: (1, 7)}
"""Fields of V1LayerParameter and LayerParameter."""
FIRST_OF_ALL = 1
"""The field of V1LayerParameter that holds a layer of the generation before, V0."""
OLD_AXES = (1, 2, 3, 4)
"""Fields of BlobProto: num, channels, height and width, before there were shapes."""
BLOB_DATA, BLOB_SHAPE, BLOB_DOUBLES = 5, 7, 8
SHAPE_DIMENSION = 1
PACKED = {(BLOB_DATA, LENGTH): FLOAT32, (BLOB_DOUBLES, LENGTH): DOUBLE}
SINGLE = {(BLOB_DATA, FOUR_BYTES): FLOAT32, (BLOB_DOUBLES, EIGHT_BYTES): DOUBLE}
"""The fields that hold a blob's numbers, closely or one by one, and of which type."""

MAX_FIELDS = 1_000_000
"""Fields of a file that are looked at; a net of a thousand layers has some fifty thousand."""
MAX_RUNS = 10_000
"""Runs of numbers of one blob; each file that anybody writes has one."""
MAX_AXES = 32
"""Caffe's own limit."""
MAX_NAME = 4096
FEWEST, MOST_ROWS = 64, 1 << 20
"""Numbers that stand one by one and are looked through at once, at first and in the end."""


@dataclass(frozen=True)
class Blob:
    """One array of a layer's, and where its numbers lie."""

    shape: Shape
    runs: tuple[NumberRun, ...]


Extent: TypeAlias = tuple[int, int]
"""The first byte of a message and the byte behind its last one."""


def blobs_in(numbers: NumbersFile) -> Mapping[str, tuple[Blob, ...]]:
    """What each layer of a caffemodel learned, by the layer's name; those without are left out.

    Raises: UserError where it is no caffemodel, or broken.
    """
    with numbers.open() as file:
        walk = _Walk(numbers.path, file)
        try:
            return walk.layers(numbers.size)
        except MalformedError as fault:
            raise walk.broken(str(fault)) from None


def blob_in(numbers: NumbersFile) -> Blob:
    """The array in a file that holds nothing else, as Caffe writes means of pictures
    (`.binaryproto`).

    Raises: UserError where it is none, or broken.
    """
    with numbers.open() as file:
        walk = _Walk(numbers.path, file)
        whole = WireField(number=0, wire=LENGTH, value=0, begin=0, start=0, end=numbers.size)
        try:
            return walk.blob(whole)
        except MalformedError as fault:
            raise walk.broken(str(fault)) from None


class _Walk:
    """One walk through a file."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path = path
        self.file = file
        self.fields_left = MAX_FIELDS

    def layers(self, size: int) -> dict[str, tuple[Blob, ...]]:
        found: dict[str, tuple[Blob, ...]] = {}
        for each in self.fields((0, size)):
            if each.number not in NAME_AND_BLOBS or each.wire != LENGTH:
                continue
            name, blobs = self.layer(each)
            if not blobs:
                continue
            if name in found:
                raise self.broken(f"two of its layers are called `{name}`")
            found[name] = blobs
        return found

    def layer(self, whole: WireField) -> tuple[str, tuple[Blob, ...]]:
        name_field, blob_field = NAME_AND_BLOBS[whole.number]
        name, blobs = "", []
        for each in self.fields((whole.start, whole.end)):
            if each.wire != LENGTH:
                continue
            if each.number == name_field:
                name = self.text(each)
            elif each.number == blob_field:
                blobs.append(self.blob(each))
            elif whole.number == NET_LAYERS and each.number == FIRST_OF_ALL:
                hint = "Caffe's upgrade_net_proto_binary makes a file of today of it"
                raise self.broken("its layers are those of Caffe of 2013 (V0)", hint)
        return name, tuple(blobs)

    def blob(self, whole: WireField) -> Blob:
        shape: Shape | None = None
        old = dict.fromkeys(OLD_AXES, 1)
        runs: list[NumberRun] = []
        at = whole.start
        while at < whole.end:
            each = self.field(at, whole.end)
            at = each.end
            key = each.number, each.wire
            if key == (BLOB_SHAPE, LENGTH):
                shape = self.shape(each)
            elif each.number in old and each.wire == VARINT:
                old[each.number] = each.value
            elif key in PACKED:
                dtype = PACKED[key]
                if (each.end - each.start) % dtype.itemsize:
                    raise self.broken("a blob ends in the middle of a number")
                count = (each.end - each.start) // dtype.itemsize
                self.append(runs, NumberRun(each.start, count, dtype.itemsize, dtype))
            elif key in SINGLE:
                run = self.singles(each, SINGLE[key], whole.end)
                self.append(runs, run)
                at = run.end - 1
        shape = shape if shape is not None else tuple(old.values())
        if any(not 0 <= side < 1 << 31 for side in shape):
            raise self.broken("a blob's shape is out of range")
        if prod(shape) != (held := sum(run.count for run in runs)):
            text = " × ".join(map(str, shape))
            raise self.broken(f"a blob of {text} numbers holds {held:,}")
        return Blob(shape, tuple(runs))

    def shape(self, whole: WireField) -> Shape:
        """The sides that a BlobShape tells, packed or one by one."""
        found: list[int] = []
        for each in self.fields((whole.start, whole.end)):
            if each.number == SHAPE_DIMENSION and each.wire == VARINT:
                found.append(each.value)
            elif each.number == SHAPE_DIMENSION and each.wire == LENGTH:
                at = each.start
                while at < each.end and len(found) <= MAX_AXES:
                    side, at = varint_at(self.file, at, each.end)
                    found.append(side)
        if len(found) > MAX_AXES:
            raise self.broken(f"a blob has more than {MAX_AXES} axes")
        return tuple(found)

    def singles(self, first: WireField, dtype: np.dtype[Any], end: int) -> NumberRun:
        """The numbers that stand one by one from the first on, each behind the same key."""
        key = first.number << 3 | first.wire
        stride = 1 + dtype.itemsize
        count, window = 0, FEWEST
        while True:
            at = first.start - 1 + count * stride
            rows = min((end - at) // stride, window)
            self.file.seek(at)
            keys = np.frombuffer(self.file.read(rows * stride), np.uint8)[::stride]
            others = np.flatnonzero(keys != key)
            same = int(others[0]) if len(others) else len(keys)
            count += same
            if same < window:
                return NumberRun(first.start, count, stride, dtype)
            window = min(2 * window, MOST_ROWS)

    def append(self, runs: list[NumberRun], run: NumberRun) -> None:
        if len(runs) >= MAX_RUNS:
            raise self.broken("the numbers of a blob are scattered over the file")
        runs.append(run)

    def text(self, field: WireField) -> str:
        if field.end - field.start > MAX_NAME:
            raise self.broken(f"a layer's name has more than {MAX_NAME:,} bytes")
        self.file.seek(field.start)
        return self.file.read(field.end - field.start).decode("utf-8", "replace")

    def fields(self, extent: Extent) -> Iterator[WireField]:
        at, end = extent
        while at < end:
            field = self.field(at, end)
            yield field
            at = field.end

    def field(self, at: int, end: int) -> WireField:
        self.fields_left -= 1
        if self.fields_left < 0:
            raise self.broken(f"it has more than {MAX_FIELDS:,} fields")
        return field_at(self.file, at, end)

    def broken(self, reason: str, hint: str = "") -> UserError:
        return UserError(NumbersUnfit(str(self.path), reason, hint))
