"""Where pictures lie: as files in a folder, within larger files, or as pixels in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.data.remote import is_url, read_ranges, reason_of
from vggc.data.strings import CODEC, ERRORS, Strings
from vggc.data.tar import BLOCK, checksum
from vggc_runtime.files import open_file
from vggc_runtime.preprocessing import BrokenImageError, Pixels

Numbers: TypeAlias = npt.NDArray[np.int64]

PictureSource: TypeAlias = Path | bytes | Pixels
"""A file's path, a file's bytes, or the pixels themselves: (H, W, C), or (H, W) where grey."""


class UnreadableError(BrokenImageError):
    """A picture could not be read, and may be sound: asked again, its store may give it."""


def digest_of(picture: PictureSource) -> bytes:
    """The sha256 of what a picture is made of: the bytes of its file, or its pixels.

    Raises:
        UnreadableError: its file cannot be read.
    """
    match picture:
        case Path():
            try:
                with open_file(picture) as file:
                    return hashlib.file_digest(file, "sha256").digest()
            except OSError as fault:
                raise UnreadableError(reason_of(fault)) from None
        case bytes():
            return hashlib.sha256(picture).digest()
        case _:
            digest = hashlib.sha256(repr(picture.shape).encode())
            digest.update(np.ascontiguousarray(picture).data)
            return digest.digest()


class Store(Protocol):
    """Pictures by number, each with a name. Travels to worker processes, so it is small or
    shares its memory with them.
    """

    @property
    def names(self) -> Sequence[str]:
        """What each picture is called, by its number."""

    def fetch(self, numbers: Sequence[int]) -> list[PictureSource | BrokenImageError]:
        """The pictures with these numbers; the reason in the place of one that is lost."""
        ...

    def stamp(self) -> str:
        """Changes when what lies there does: names, sizes or times of change."""
        ...


@dataclass(frozen=True)
class Files:
    """Files below a folder. `names` are their paths from there."""

    root: Path
    names: Strings

    def fetch(self, numbers: Sequence[int]) -> list[PictureSource | BrokenImageError]:
        return [self.root / self.names[number] for number in numbers]

    def stamp(self) -> str:
        # A million files are asked for at once: on a network each answer takes its time.
        with ThreadPoolExecutor(16) as threads:
            stats = list(threads.map(self._stat, range(len(self.names)), chunksize=1024))
        digest = hashlib.sha256(np.asarray(stats, np.int64).tobytes())
        digest.update(self.names.text)
        digest.update(self.names.ends.tobytes())
        return digest.hexdigest()

    def _stat(self, number: int) -> tuple[int, int, int]:
        """Bytes and times in nanoseconds; zeros for a file that has gone.

        The time of change, which the system keeps, tells of what was written and then dated back.
        """
        try:
            stat = (self.root / self.names[number]).stat()
        except OSError:
            return 0, 0, 0
        return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@dataclass(frozen=True)
class Members:
    """Members of tars: the picture with number i is `sizes[i]` bytes from `offsets[i]` on in the
    file `places[inside[i]]`, a path or a URL; the header before it has the checksum `headers[i]`.
    `mark` changes with any of these files. Whoever fetches opens the files anew, so that processes
    disturb no other.
    """

    places: Sequence[str]
    mark: str
    names: Strings
    inside: Numbers
    offsets: Numbers
    sizes: Numbers
    headers: Numbers

    def fetch(self, numbers: Sequence[int]) -> list[PictureSource | BrokenImageError]:
        rows = list(numbers)
        starts, sizes = (self.offsets[rows] - BLOCK).tolist(), (self.sizes[rows] + BLOCK).tolist()
        headers = self.headers[rows].tolist()
        places = [self.places[inside] for inside in self.inside[rows].tolist()]
        read = read_ranges if any(map(is_url, self.places)) else read_parts
        found = read(places, starts, sizes)
        return [checked(*each) for each in zip(found, sizes, headers, strict=True)]

    def stamp(self) -> str:
        digest = hashlib.sha256(self.mark.encode(CODEC, ERRORS))
        for column in (self.inside, self.offsets, self.sizes, self.headers):
            digest.update(column.tobytes())
        return digest.hexdigest()


def read_parts(
    paths: Sequence[str], starts: Sequence[int], sizes: Sequence[int]
) -> list[bytes | Exception]:
    """The bytes of each file, `sizes` from `starts` on, or why there are none."""
    found: list[bytes | Exception] = [b""] * len(paths)
    # One file after the other, each from its beginning to its end.
    order = sorted(range(len(paths)), key=lambda index: (paths[index], starts[index]))
    for path, group in groupby(order, key=paths.__getitem__):
        indices = [*group]
        try:
            with open_file(path) as file:
                for index in indices:
                    found[index] = os.pread(file.fileno(), sizes[index], starts[index])
        except OSError as fault:
            for index in indices:
                found[index] = fault
    return found


def checked(content: bytes | Exception, size: int, header: int) -> bytes | BrokenImageError:
    """What was read behind its header, if it is as much as there should be, and the header is still
    the one that was there when the tar was looked through.
    """
    if isinstance(content, Exception):
        return UnreadableError(reason_of(content))
    if len(content) != size:
        return UnreadableError(f"{len(content):,} bytes came of {size:,}")
    if checksum(content[:BLOCK]) != header:
        return UnreadableError("its shard has changed since it was looked through")
    return content[BLOCK:]


@dataclass(frozen=True)
class Given:
    """Pixels in memory, each picture of a size of its own."""

    names: Sequence[str]
    pixels: Sequence[Pixels]

    def fetch(self, numbers: Sequence[int]) -> list[PictureSource | BrokenImageError]:
        return [self.pixels[number] for number in numbers]

    def stamp(self) -> str:
        digest = hashlib.sha256()
        for name, pixels in zip(self.names, self.pixels, strict=True):
            digest.update(name.encode(CODEC, ERRORS) + b"\0" + digest_of(pixels))
        return digest.hexdigest()


@dataclass(frozen=True)
class Arrays:
    """Pixels in memory, uint8 (N, H, W, C), or (N, H, W) where grey."""

    names: Sequence[str]
    pixels: Pixels

    def fetch(self, numbers: Sequence[int]) -> list[PictureSource | BrokenImageError]:
        return [self.pixels[number] for number in numbers]

    def stamp(self) -> str:
        digest = hashlib.sha256(self.pixels.tobytes())
        for name in self.names:
            digest.update(name.encode(CODEC, ERRORS) + b"\0")
        return digest.hexdigest()
