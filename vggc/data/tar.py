"""The members of a tar, from their headers alone: what they hold is passed over.

Python's own `tarfile` keeps an object for each member and believes what a header says of its
size; here a file of a million members takes no memory, and a hostile one is refused.

Source: IEEE Std 1003.1 (pax, ustar), and the manual of GNU tar, "Basic Tar Format".
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from typing import BinaryIO, Protocol

BLOCK = 512
MAX_EXTENDED = 64 * 1024
"""The most bytes of a name or of other things that a header of its own tells."""
CHUNK = 1 << 20
END = bytes(BLOCK)
CODEC, ERRORS = "utf-8", "surrogateescape"

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""What a compressed file begins with."""

FILES = (b"\0", b"0", b"7")
FOLDER, SPARSE, LONG_NAME = b"5", b"S", b"L"
PAX = (b"x", b"X")
EXTENDED = (*PAX, b"g", LONG_NAME, b"K")
"""Headers that tell of the next member, or of all."""
EMPTY = {
    b"1": "is a link",
    b"2": "is a link",
    b"3": "is a device",
    b"4": "is a device",
    FOLDER: "is a folder",
    b"6": "is a pipe",
}
"""Members without content, whatever size they claim."""


class TarError(Exception):
    """A file is no sound tar; the message says why."""


class CompressedError(TarError):
    """A file may hold a tar, but is compressed."""


@dataclass(frozen=True)
class Member:
    """One file in a tar: `size` bytes from `offset` on, behind a header with the checksum `header`.
    `fault` says why it is no plain file.
    """

    name: str
    offset: int
    size: int
    header: int
    fault: str | None = None


class File(Protocol):
    """What a tar is read from, as Python's binary files are."""

    def read(self, size: int, /) -> bytes:
        """Reads at most `size` bytes."""

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Moves to a byte; gives where that is from the file's start."""


class Forwards:
    """A file read from its beginning on. `total` are its bytes where they are known; where it
    `seeks`, what is skipped is not read.
    """

    def __init__(self, file: File, total: int | None, *, seeks: bool) -> None:
        self.file, self.total, self.seeks = file, total, seeks
        self.position = 0

    def read(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            TarError: the file ends before.
        """
        if self.total is not None and self.position + count > self.total:
            raise TarError(f"it is cut off after {self.total:,} bytes")
        content = bytearray()
        while len(content) < count:
            more = self.file.read(count - len(content))
            if not more:
                raise TarError(f"it is cut off after {self.position + len(content):,} bytes")
            content += more
        self.position += count
        return bytes(content)

    @contextmanager
    def aside(self, start: int, size: int) -> Iterator[BinaryIO]:
        """So many bytes of a file that `seeks`, from `start` on, as a file of their own; reading
        goes on where it was.
        """
        try:
            yield BufferedReader(Excerpt(self.file, start, size))
        finally:
            self.file.seek(self.position, os.SEEK_SET)

    def end(self) -> None:
        """Reads on to the end of the file, as the end of a tar is followed by zeros only.

        Raises:
            TarError: there is more, or it does not end.
        """
        while more := self.file.read(CHUNK):
            self.position += len(more)
            if self.total is not None and self.position > self.total:
                raise TarError(f"it does not end after {self.total:,} bytes")
            if more.strip(b"\0"):
                raise TarError("something stands behind its end")

    def skip_to(self, position: int) -> None:
        """Passes over all bytes before a position.

        Raises:
            TarError: the file ends before.
        """
        if self.total is not None and position > self.total:
            raise TarError(f"it is cut off after {self.total:,} bytes")
        if self.seeks:
            self.file.seek(position, os.SEEK_SET)
            self.position = position
        while self.position < position:
            self.read(min(CHUNK, position - self.position))


class Excerpt(RawIOBase):
    """So many bytes of a file, from `start` on, as a file of their own."""

    def __init__(self, file: File, start: int, size: int) -> None:
        super().__init__()
        self.file, self.start, self.size = file, start, size
        self.position = 0

    def readable(self) -> bool:
        """Always so."""
        return True

    def seekable(self) -> bool:
        """Always so."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a byte, which may be behind the end."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, origin + offset)
        return self.position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads as much as is there and has room."""
        self.file.seek(self.start + self.position, os.SEEK_SET)
        content = self.file.read(max(0, min(len(buffer), self.size - self.position)))
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)


def members(source: Forwards) -> Iterator[Member]:
    """The files in a tar in order, without folders. What a member holds may be read from the
    source before the next one is asked for.

    Raises:
        TarError: the file is compressed, cut off, or no tar.
    """
    told: dict[str, str] = {}
    while (header := source.read(BLOCK)) != END:
        start = source.position - BLOCK
        check(header, start)
        kind, size = header[156:157], number(header[124:136])
        if kind in EXTENDED:
            if size > MAX_EXTENDED:
                raise TarError(f"its header at byte {start:,} is of {size:,} bytes")
            content = source.read(size)
            source.skip_to(padded(source.position))
            if kind in PAX:
                told |= extended(content)
            elif kind == LONG_NAME:
                told["path"] = text(content)
            continue
        if kind == SPARSE:
            pass_over_sparse_map(source, header)
        size = 0 if kind in EMPTY else decimal(told["size"]) if "size" in told else size
        name = told.get("GNU.sparse.name") or told.get("path") or name_of(header)
        end = padded(source.position + size)
        if source.total is not None and end > source.total:
            raise TarError(f"`{name}` ends at byte {end:,}, and the file at {source.total:,}")
        is_sparse = kind == SPARSE or any(key.startswith("GNU.sparse") for key in told)
        told = {}
        # Old tars have folders as files whose names end in a slash.
        if kind != FOLDER and not name.endswith("/"):
            fault = fault_of(kind, is_sparse)
            yield Member(name, source.position, size, checksum(header), fault)
        source.skip_to(end)


def checksum(header: bytes) -> int:
    """The CRC-32 of a header, by which it is known again where it should be."""
    return zlib.crc32(header)


def fault_of(kind: bytes, is_sparse: bool) -> str | None:
    """Why a member is no plain file, if it is none."""
    if is_sparse:
        return "is a sparse file"
    return EMPTY.get(kind) or (None if kind in FILES else "is of an unknown kind")


def check(header: bytes, start: int) -> None:
    """Refuses a block that is no header of a member."""
    if start == 0:
        for magic, name in COMPRESSED.items():
            if header.startswith(magic):
                raise CompressedError(f"it is compressed by {name}")
    field = header[148:156]
    told = re.match(rb" *([0-7]+)", field)
    if told is None or int(told[1], 8) != sum(header) - sum(field) + 8 * ord(" "):
        raise TarError("it is no tar" if start == 0 else f"no header at byte {start:,}")


def number(field: bytes) -> int:
    """The number in a field: octal digits or, from GNU tar, 0x80 and the bytes of a larger one."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise TarError("a header holds no number where one should be")
    return int(digits or b"0", 8)


def decimal(digits: str) -> int:
    """The number that a text in an extended header says.

    Raises:
        TarError: it says none.
    """
    if not re.fullmatch(r"[0-9]{1,18}", digits):
        raise TarError("an extended header holds no number where one should be")
    return int(digits)


def name_of(header: bytes) -> str:
    """The name in a header of 512 bytes, with the prefix that POSIX tars keep apart."""
    name = text(header[:100])
    prefix = text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def text(field: bytes) -> str:
    """The text in a field, up to the NUL that ends it."""
    return field.partition(b"\0")[0].decode(CODEC, ERRORS)


def extended(content: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE` of an extended header."""
    found = {}
    while content.strip(b"\0"):
        match = re.match(rb"([0-9]{1,6}) ([^=]+)=", content)
        if match is None or not match.end() < int(match[1]) <= len(content):
            raise TarError("an extended header is not of pairs of a key and a value")
        value = content[match.end() : int(match[1]) - 1]
        found[match[2].decode(CODEC, ERRORS)] = value.decode(CODEC, ERRORS)
        content = content[int(match[1]) :]
    return found


def pass_over_sparse_map(source: Forwards, header: bytes) -> None:
    """Old GNU tars tell where the holes are in blocks behind the header."""
    more = header[482]
    while more:
        more = source.read(BLOCK)[504]


def padded(size: int) -> int:
    """How many bytes a content of `size` bytes takes, in whole blocks."""
    return -(-size // BLOCK) * BLOCK
