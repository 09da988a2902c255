"""Where the samples lie in a shard, a tar in WebDataset's layout.

A sample is the files beside one another that have one name up to its first dot: a picture
(KEY.jpg, KEY.png …) and its class (KEY.cls, or the "label" in KEY.json) or its boxes with a class
each (KEY.xml as Pascal VOC has it, or "boxes" and "classes" in KEY.json). Where what follows the
first dot is no such extension, the name goes on to its last dot: `cat.12.jpg` and `cat.12.cls` are
a sample, too. Headers and classes are read once; what was found is kept in the user's cache until
the shard changes.

Source: the format of the WebDataset library, https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from vggc.data import diagnostics
from vggc.data.annotations import voc
from vggc.data.annotations.coco import four_numbers, side
from vggc.data.annotations.described import (
    MAX_FILE,
    Annotation,
    AnnotationError,
    Annotations,
    Marked,
)
from vggc.data.annotations.look import look
from vggc.data.annotations.sizes import Lying, size_in
from vggc.data.annotations.voc import VocFile
from vggc.data.listing import UNREAD, is_hidden, why_unread
from vggc.data.remote import cannot_open, filesystem, is_url, reason_of
from vggc.data.stores import Numbers
from vggc.data.strings import Strings
from vggc.data.tar import BLOCK, CompressedError, Forwards, Member, TarError, members
from vggc.support.diagnostics import UserError
from vggc.support.files import cache_folder, locked, replacing
from vggc.support.tensors import Pieces, read_all, write
from vggc_runtime.files import open_file
from vggc_runtime.json_file import MalformedError
from vggc_runtime.preprocessing import FORMATS, BrokenImageError

FORMAT = "4"
"""The version of an index in the cache, raised when its meaning changes."""

LABELS = {"cls", "json", "xml"}
KINDS = LABELS | {ending.removeprefix(".") for ending in (*FORMATS, *UNREAD)}
"""The extensions that are looked at; a sample may have more of other kinds."""

MAX_LABEL = {"cls": 64 * 1024, "json": MAX_FILE, "xml": MAX_FILE}
"""The most bytes of a file that tells of a picture."""
MAX_PICTURE = 256 * 2**20
"""The most bytes of a picture's file."""
MAX_NAME = 200
"""The most characters of a class's name."""
ASKED = 8 * 2**20
"""Bytes that are asked of a server at a time."""

CHANGES = ("ETag", "etag", "mtime", "LastModified", "Last-Modified", "last_modified", "created")
"""What file systems call that which changes with a file."""


Reals: TypeAlias = npt.NDArray[np.float64]
NamedArrays: TypeAlias = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Shard:
    """A tar by its path or URL, with its bytes and what else changes when it does."""

    place: str
    size: int
    stamp: str

    @property
    def name(self) -> str:
        """The last part of its path or URL."""
        return os.path.basename(urlsplit(self.place).path if is_url(self.place) else self.place)

    @property
    def key(self) -> str:
        """Changes with anything about it."""
        whole = json.dumps([FORMAT, self.place, self.size, self.stamp])
        return hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True)
class Index:
    """The samples of a shard: of each the picture's file, where it lies, the checksum of the header
    before it, and its `label`'s number among `labels`. Those that are `lost` have a reason each.

    The next `counts[i]` of all objects are those of sample i: their `boxes`, four shares of the
    picture each, one behind the other, the numbers of their classes in `kinds`, and 1 for those
    that are `difficult`. So many boxes as `cut[0]` were cut at edges of pictures; for `faults`
    objects of the samples in `faulty` are left out.
    """

    names: Strings
    offsets: Numbers
    sizes: Numbers
    headers: Numbers
    labels: Strings
    label: Numbers
    lost: Strings
    reasons: Strings
    counts: Numbers
    boxes: Reals
    kinds: Numbers
    difficult: Numbers
    cut: Numbers
    faulty: Strings
    faults: Strings

    def __len__(self) -> int:
        return len(self.names)

    @property
    def used(self) -> list[str]:
        """The labels that samples have, and not only objects in them."""
        return [self.labels[number] for number in np.unique(self.label).tolist()]

    def problem(self, size: int) -> str | None:
        """What keeps this from being the index of a shard of so many bytes, if anything."""
        columns = (self.names, self.offsets, self.sizes, self.headers, self.label, self.counts)
        lengths = {len(each) for each in columns}
        within = (self.offsets >= BLOCK) & (self.sizes > 0) & (self.sizes <= size - self.offsets)
        known = (self.label >= 0) & (self.label < len(self.labels))
        problems = {
            "its columns are of several lengths": len(lengths) > 1,
            "losses have no reasons": len(self.lost) != len(self.reasons),
            "a picture lies outside": len(lengths) == 1 and not within.all(),
            "a checksum is of another kind": not (self.headers >> 32 == 0).all(),
            "a label is unknown": not known.all(),
            "objects are not as many as they are": not self.has_objects_told(),
        }
        return next((text for text, is_so in problems.items() if is_so), None)

    def has_objects_told(self) -> bool:
        """Whether each object that is counted has a box within its picture, and a class."""
        total = len(self.kinds)
        if (self.counts < 0).any() or self.counts.sum() != total or len(self.cut) != 1:
            return False
        if len(self.boxes) != 4 * total or len(self.difficult) != total:
            return False
        boxes = self.boxes.reshape(-1, 4)
        within = (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, :2] < boxes[:, 2:]).all()
        known = ((self.kinds >= 0) & (self.kinds < len(self.labels))).all()
        return bool(within and known and len(self.faulty) == len(self.faults))


def shard_at(place: str) -> Shard:
    """The shard at a path or URL.

    Raises:
        UserError: there is none.
    """
    try:
        if not is_url(place):
            with open_file(place) as file:
                found = os.fstat(file.fileno())
            return Shard(os.path.abspath(place), found.st_size, change_of(found))
        files, path = filesystem(place)
        info = files.info(path)
    except UserError:
        raise
    except Exception as fault:  # a network has many ways to fail
        raise cannot_open(place, reason_of(fault)) from None
    size = info.get("size")
    if not isinstance(size, int):
        reason = "the server does not say how many bytes it has"
        raise cannot_open(place, reason)
    return Shard(place, size, " ".join(str(info[key]) for key in CHANGES if key in info))


def change_of(found: os.stat_result) -> str:
    """What changes with a file here, of which anybody can set back size and time of change: the
    system alone keeps the time of the last change of either, and which file it is.
    """
    return f"{found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def index_of(shard: Shard) -> Index:
    """The index of a shard: from the cache, or made now.

    Raises:
        UserError: the shard cannot be read or is no sound tar.
    """
    place = place_of(shard)
    if place is None:
        return make_index(shard)
    with locked(place):
        try:
            return read_index(place, shard.size)
        except ValueError:
            index = make_index(shard)
            # Without a cache the next training looks again.
            with suppress(UserError):
                write_index(place, index)
            return index


def make_index(shard: Shard) -> Index:
    """`index_of`, without a cache."""
    try:
        with opened(shard) as source:
            return index_from(source)
    except CompressedError:
        raise UserError(diagnostics.CompressedShard(shard.place)) from None
    except TarError as fault:
        raise UserError(diagnostics.BrokenShard(shard.place, str(fault))) from None
    except UserError:
        raise
    except Exception as fault:  # a network has many ways to fail
        raise cannot_open(shard.place, reason_of(fault)) from None


@contextmanager
def opened(shard: Shard) -> Iterator[Forwards]:
    """The bytes of a shard. Of a file only those are read that are asked for; a server sends
    all, which takes less time than many questions.
    """
    if not is_url(shard.place):
        with open_file(shard.place) as file:
            yield Forwards(file, shard.size, seeks=True)
        return
    files, path = filesystem(shard.place)
    with files.open(path, "rb", block_size=ASKED) as stream:
        yield Forwards(stream, shard.size, seeks=False)


# What is in a shard


class LostError(Exception):
    """A sample cannot be used; the message says why."""


@dataclass
class Sample:
    """What the files of one name have told so far. `stem` is the name up to its first dot, which
    most keys are. The `content` of the picture is kept where it passes by only once.
    """

    key: str
    stem: str
    picture: Member | None = None
    unread: str | None = None
    label: str | None = None
    described: str | None = None
    marks: VocFile | None = None
    content: bytes = b""
    faults: list[str] = field(default_factory=list)

    @property
    def is_plain(self) -> bool:
        """Whether its key is the whole stem of its files' names."""
        return self.key == self.stem

    def take(self, source: Forwards, kind: str, member: Member) -> None:
        """Learns what a file of the sample has to tell."""
        is_picture = kind not in LABELS
        least, most = (1, MAX_PICTURE) if is_picture else (0, MAX_LABEL[kind])
        if f".{kind}" in UNREAD:
            self.unread = why_unread(UNREAD[f".{kind}"])
        elif member.fault:
            self.faults.append(f"its .{kind} {member.fault}")
        elif not least <= member.size <= most:
            self.faults.append(f"its .{kind} is of {member.size:,} bytes")
        elif is_picture and self.picture:
            self.faults.append("it has more than one picture")
        elif is_picture:
            self.picture = member
            self.content = b"" if source.seeks else source.read(member.size)
        elif kind == "cls":
            self.label = plain_label(source.read(member.size))
        else:
            self.describe(kind, source.read(member.size))

    def describe(self, kind: str, content: bytes) -> None:
        """Learns what a .json or an .xml file tells of the picture."""
        try:
            marks = marks_in_json(content) if kind == "json" else voc.parse(content)
        except voc.OtherXmlError:
            return
        except AnnotationError as fault:
            self.faults.append(f"its .{kind}: {fault}")
            return
        if kind == "json":
            self.described = described_label(content)
        if marks and self.marks:
            self.faults.append("it has boxes in two files")
        self.marks = marks or self.marks

    def lying(self, source: Forwards) -> Lying:
        """The size of the picture, and how it lies.

        Raises:
            LostError: it has none.
        """
        assert self.picture is not None
        try:
            if not source.seeks:
                return size_in(BytesIO(self.content))
            with source.aside(self.picture.offset, self.picture.size) as file:
                return size_in(file)
        except BrokenImageError as fault:
            raise LostError(str(fault)) from None

    def whole(self) -> tuple[Member, str | None]:
        """The picture, and its label unless it has boxes, which tell it.

        Raises:
            LostError: the sample cannot be used.
        """
        label = self.label or self.described
        if self.faults:
            raise LostError(self.faults[0])
        if self.picture is None:
            raise LostError(self.unread or "it has no picture")
        if self.marks and (self.marks.objects or self.marks.faults or label is None):
            return self.picture, None
        if label is None:
            raise LostError("it has no label")
        return self.picture, label


SAMPLE = re.compile(r"((?:.*/)?[^./][^/]*)\.([^./]+)", re.DOTALL)
"""A file's name up to its last dot, and its extension."""


def index_from(source: Forwards) -> Index:
    """The samples in a tar.

    Raises:
        TarError: it is no sound tar.
    """
    found = Gathered()
    pictured: set[str] = set()
    apart: list[tuple[str, str, str]] = []
    for sample in samples(source):
        if sample.is_plain and (sample.picture or sample.unread):
            pictured.add(sample.key)
        try:
            found.take(sample, source)
        except LostError as fault:
            if sample.is_plain:
                found.lost.append((sample.key, str(fault)))
            else:
                apart.append((sample.stem, sample.key, str(fault)))
    source.end()
    for stem, key, reason in apart:
        # A sample may have more files, such as `0001.mask.png` beside `0001.jpg`.
        if stem not in pictured:
            found.lost.append((key, reason))
    return found.index()


class Gathered:
    """The samples of a shard so far: columns of an index, and what is `described` of those that
    have boxes, whose pictures have the `sizes`; the keys of those that are `lost`, and why.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.columns = array("q"), array("q"), array("q"), array("q")
        self.labels: dict[str, int] = {}
        self.lost: list[tuple[str, str]] = []
        self.seen: set[str] = set()
        self.described: list[Annotation] = []
        self.rows: list[int] = []
        self.sizes: list[Lying] = []

    def take(self, sample: Sample, source: Forwards) -> None:
        """Adds a sample.

        Raises:
            LostError: it cannot be used.
        """
        picture, label = sample.whole()
        if sample.key in self.seen:
            raise LostError("another sample has the same name")
        if (marks := sample.marks) and label is None:
            self.sizes.append(sample.lying(source))
            self.rows.append(len(self.names))
            told = Annotation(sample.key, sample.key, marks.size, marks.objects, marks.faults)
            self.described.append(told)
        self.seen.add(sample.key)
        self.names.append(picture.name.removeprefix("./"))
        number = -1 if label is None else self.labels.setdefault(label, len(self.labels))
        for column, value in zip(
            self.columns, (picture.offset, picture.size, picture.header, number), strict=True
        ):
            column.append(value)

    def index(self) -> Index:
        """The index of these samples, without those whose boxes leave nothing to use."""
        told = look(
            Annotations(described=self.described, lost=[], blank=[], noun=voc.NOUN), self.sizes
        )
        lost = self.lost + [(each.name, each.reason) for each in (*told.lost, *told.blank)]
        kinds = np.asarray([self.number_of(name) for name in told.classes], np.int64)
        offsets, sizes, headers, label = (np.asarray(each, np.int64) for each in self.columns)
        rows = np.asarray(self.rows, np.int64)
        used, counts = rows[told.used], np.zeros(len(label), np.int64)
        counts[used] = told.objects.counts
        label[used] = kinds[told.labels]
        kept = np.setdiff1d(np.arange(len(label)), np.setdiff1d(rows, used))
        return Index(
            names=Strings.of(self.names[row] for row in kept.tolist()),
            offsets=offsets[kept],
            sizes=sizes[kept],
            headers=headers[kept],
            labels=Strings.of(self.labels),
            label=label[kept],
            lost=Strings.of(key for key, _ in lost),
            reasons=Strings.of(reason for _, reason in lost),
            counts=counts[kept],
            boxes=told.objects.boxes.ravel(),
            kinds=kinds[told.objects.classes],
            difficult=told.objects.difficult.astype(np.int64),
            cut=np.asarray([told.cut]),
            faulty=Strings.of(each.name for each in told.faulty),
            faults=Strings.of(each.reason for each in told.faulty),
        )

    def number_of(self, name: str) -> int:
        """The number of a class among the labels."""
        return self.labels.setdefault(name, len(self.labels))


def samples(source: Forwards) -> Iterator[Sample]:
    """The samples in a tar, as far as they go: of the files of one stem those that have no other
    name, and those that have more of a name in common.
    """
    plain: Sample | None = None
    longer: Sample | None = None
    for member in members(source):
        if (named := key_of(member.name)) is None:
            continue
        key, kind = named
        folder, slash, last = key.rpartition("/")
        found = Sample(key=key, stem=f"{folder}{slash}{last.partition('.')[0]}")
        if longer and longer.key != key and (longer.stem != found.stem or not found.is_plain):
            yield longer
            longer = None
        if plain and plain.stem != found.stem:
            yield plain
            plain = None
        if found.is_plain:
            plain = sample = plain or found
        else:
            longer = sample = longer or found
        sample.take(source, kind, member)
    yield from filter(None, (longer, plain))


def key_of(name: str) -> tuple[str, str] | None:
    """A file's name up to its last dot, and what kind of file of a sample it is; None where it
    belongs to none.
    """
    match = SAMPLE.fullmatch(name.removeprefix("./"))
    if match is None or any(is_hidden(part) for part in name.split("/") if part not in (".", "..")):
        return None
    kind = match[2].lower()
    return (match[1], kind) if kind in KINDS else None


def plain_label(content: bytes) -> str | None:
    """What a .cls file says."""
    try:
        return sound_label(content.decode("utf-8").strip())
    except ValueError:
        return None


def described_label(content: bytes) -> str | None:
    """The "label" in a .json file."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    label = value.get("label") if isinstance(value, dict) else None
    return sound_label(str(label)) if type(label) in (str, int) else None


def marks_in_json(content: bytes) -> VocFile | None:
    """The objects in a .json file: `boxes`, each of left, top, right and bottom in pixels, and the
    names or numbers of their `classes` (or `labels`); maybe `difficult`, and the `width` and
    `height` that the picture is taken to have. None where there are no boxes.

    Raises:
        AnnotationError: these do not go together.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or "boxes" not in value:
        return None
    boxes, classes = value["boxes"], value.get("classes", value.get("labels"))
    hard = value.get("difficult", [False] * len(boxes) if isinstance(boxes, list) else None)
    if not (isinstance(boxes, list) and isinstance(classes, list) and isinstance(hard, list)):
        raise AnnotationError("its boxes are no list, or have no list of classes")
    if not len(boxes) == len(classes) == len(hard):
        raise AnnotationError(f"it has {len(boxes):,} boxes and {len(classes):,} classes")
    found = VocFile(size=(side(value.get("width")), side(value.get("height"))))
    for count, (box, name, is_hard) in enumerate(zip(boxes, classes, hard, strict=True), start=1):
        try:
            label = sound_label(str(name)) if type(name) in (str, int) else None
            if label is None:
                raise AnnotationError("it has no class")
            found.objects.append(Marked(count, label, four_numbers(box), bool(is_hard)))
        except AnnotationError as fault:
            found.faults.append(f"{voc.NOUN} {count}: {fault}")
    return found


def sound_label(text: str) -> str | None:
    """A label in its one form, if it is any: numbers without leading zeros."""
    if re.fullmatch("[0-9]{1,9}", text):
        return str(int(text))
    return text if text.isprintable() and 0 < len(text) <= MAX_NAME else None


# The cache


def place_of(shard: Shard) -> Path | None:
    """Where the index of this shard is kept; None where there is no cache."""
    folder = cache_folder("data")
    if folder is None:
        return None
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder / f"{shard.key}.safetensors"
    return None


def write_index(place: Path, index: Index) -> None:
    """Raises: UserError when it cannot be written."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, value in ((f.name, getattr(index, f.name)) for f in fields(Index)):
        if isinstance(value, Strings):
            columns[f"{name}.text"] = np.frombuffer(value.text, np.uint8)
            columns[f"{name}.ends"] = value.ends
        else:
            columns[name] = value
    with replacing(place) as part, part.open("wb") as file:
        write(file, {name: Pieces.of(column) for name, column in columns.items()}, {})


def read_index(place: Path, size: int) -> Index:
    """The index of a shard of so many bytes, from the cache.

    Raises:
        ValueError: there is none, or it is not sound.
    """
    try:
        columns = read_all(place)
    except (OSError, MalformedError) as fault:
        raise ValueError(str(fault)) from None
    read: dict[str, Callable[[NamedArrays, str], Any]]
    read = {"Strings": texts_in, "Numbers": numbers_in, "Reals": reals_in}
    values: dict[str, Any] = {f.name: read[str(f.type)](columns, f.name) for f in fields(Index)}
    index = Index(**values)
    if problem := index.problem(size):
        raise ValueError(problem)
    return index


def numbers_in(columns: NamedArrays, name: str) -> Numbers:
    """The column of numbers of this name.

    Raises:
        ValueError: there is none.
    """
    column = columns.get(name)
    if column is None or column.dtype != np.int64 or column.ndim != 1:
        raise ValueError(f"no column {name}")
    return column


def reals_in(columns: NamedArrays, name: str) -> Reals:
    """The column of fractions of this name.

    Raises:
        ValueError: there is none.
    """
    column = columns.get(name)
    if column is None or column.dtype != np.float64 or column.ndim != 1:
        raise ValueError(f"no column {name}")
    return column


def texts_in(columns: NamedArrays, name: str) -> Strings:
    """The column of texts of this name.

    Raises:
        ValueError: there is none.
    """
    text, ends = columns.get(f"{name}.text"), numbers_in(columns, f"{name}.ends")
    if text is None or text.dtype != np.uint8 or text.ndim != 1:
        raise ValueError(f"no column {name}")
    lengths = np.diff(ends, prepend=0)
    if (lengths < 0).any() or (ends[-1] if len(ends) else 0) != len(text):
        raise ValueError(f"{name} are no texts")
    return Strings(text.tobytes(), ends)
