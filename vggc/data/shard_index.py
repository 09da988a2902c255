"""Where the samples lie in a shard, a tar in WebDataset's layout.

A sample is the files beside one another that have one name up to its first dot: a picture
(KEY.jpg, KEY.png …) and its class (KEY.cls, or the "label" in KEY.json). Where what follows the
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from vggc.data import diagnostics
from vggc.data.listing import UNREAD, is_hidden, why_unread
from vggc.data.remote import cannot_open, filesystem, is_url, reason_of
from vggc.data.stores import Numbers
from vggc.data.strings import Strings
from vggc.data.tar import BLOCK, CompressedError, Forwards, Member, TarError, members
from vggc.images.preprocessing import FORMATS
from vggc.support.diagnostics import UserError
from vggc.support.files import cache_folder, locked, open_file, replacing
from vggc.support.records import MalformedError
from vggc.support.tensors import Pieces, read_all, write

FORMAT = "3"
"""The version of an index in the cache, raised when its meaning changes."""

LABELS = {"cls", "json"}
KINDS = LABELS | {ending.removeprefix(".") for ending in (*FORMATS, *UNREAD)}
"""The extensions that are looked at; a sample may have more of other kinds."""

MAX_LABEL = 64 * 1024
"""The most bytes of a .cls or .json file."""
MAX_PICTURE = 256 * 2**20
"""The most bytes of a picture's file."""
MAX_NAME = 200
"""The most characters of a class's name."""
ASKED = 8 * 2**20
"""Bytes that are asked of a server at a time."""

CHANGES = ("ETag", "etag", "mtime", "LastModified", "Last-Modified", "last_modified", "created")
"""What file systems call that which changes with a file."""


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
    """

    names: Strings
    offsets: Numbers
    sizes: Numbers
    headers: Numbers
    labels: Strings
    label: Numbers
    lost: Strings
    reasons: Strings

    def __len__(self) -> int:
        return len(self.names)

    def problem(self, size: int) -> str | None:
        """What keeps this from being the index of a shard of so many bytes, if anything."""
        columns = (self.names, self.offsets, self.sizes, self.headers, self.label)
        lengths = {len(each) for each in columns}
        within = (self.offsets >= BLOCK) & (self.sizes > 0) & (self.sizes <= size - self.offsets)
        known = (self.label >= 0) & (self.label < len(self.labels))
        problems = {
            "its columns are of several lengths": len(lengths) > 1,
            "losses have no reasons": len(self.lost) != len(self.reasons),
            "a picture lies outside": len(lengths) == 1 and not within.all(),
            "a checksum is of another kind": not (self.headers >> 32 == 0).all(),
            "a label is unknown": not known.all(),
        }
        return next((text for text, is_so in problems.items() if is_so), None)


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
    most keys are.
    """

    key: str
    stem: str
    picture: Member | None = None
    unread: str | None = None
    label: str | None = None
    described: str | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def is_plain(self) -> bool:
        """Whether its key is the whole stem of its files' names."""
        return self.key == self.stem

    def take(self, source: Forwards, kind: str, member: Member) -> None:
        """Learns what a file of the sample has to tell."""
        is_picture = kind not in LABELS
        least, most = (1, MAX_PICTURE) if is_picture else (0, MAX_LABEL)
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
        elif kind == "cls":
            self.label = plain_label(source.read(member.size))
        else:
            self.described = described_label(source.read(member.size))

    def whole(self) -> tuple[Member, str]:
        """The picture and its label.

        Raises:
            LostError: the sample cannot be used.
        """
        label = self.label or self.described
        if self.faults:
            raise LostError(self.faults[0])
        if self.picture is None:
            raise LostError(self.unread or "it has no picture")
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
    names, lost, reasons = [], [], []
    offsets, sizes, headers, label = array("q"), array("q"), array("q"), array("q")
    labels: dict[str, int] = {}
    seen: set[str] = set()
    pictured: set[str] = set()
    apart: list[tuple[str, str, str]] = []
    for sample in samples(source):
        if sample.is_plain and (sample.picture or sample.unread):
            pictured.add(sample.key)
        try:
            picture, said = sample.whole()
            if sample.key in seen:
                raise LostError("another sample has the same name")
        except LostError as fault:
            if sample.is_plain:
                lost.append(sample.key)
                reasons.append(str(fault))
            else:
                apart.append((sample.stem, sample.key, str(fault)))
            continue
        seen.add(sample.key)
        names.append(picture.name.removeprefix("./"))
        offsets.append(picture.offset)
        sizes.append(picture.size)
        headers.append(picture.header)
        label.append(labels.setdefault(said, len(labels)))
    source.end()
    for stem, key, reason in apart:
        # A sample may have more files, such as `0001.mask.png` beside `0001.jpg`.
        if stem not in pictured:
            lost.append(key)
            reasons.append(reason)
    columns = [np.asarray(column, np.int64) for column in (offsets, sizes, headers, label)]
    return Index(
        names=Strings.of(names),
        offsets=columns[0],
        sizes=columns[1],
        headers=columns[2],
        labels=Strings.of(labels),
        label=columns[3],
        lost=Strings.of(lost),
        reasons=Strings.of(reasons),
    )


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
    texts = {f.name for f in fields(Index) if f.type == "Strings"}
    values: dict[str, Any] = {
        f.name: texts_in(columns, f.name) if f.name in texts else numbers_in(columns, f.name)
        for f in fields(Index)
    }
    index = Index(**values)
    if problem := index.problem(size):
        raise ValueError(problem)
    return index


def numbers_in(columns: dict[str, npt.NDArray[Any]], name: str) -> Numbers:
    """The column of numbers of this name.

    Raises:
        ValueError: there is none.
    """
    column = columns.get(name)
    if column is None or column.dtype != np.int64 or column.ndim != 1:
        raise ValueError(f"no column {name}")
    return column


def texts_in(columns: dict[str, npt.NDArray[Any]], name: str) -> Strings:
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
