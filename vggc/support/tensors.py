"""Tensors in files: what a safetensors file holds, known before any of it is read.

A header is bounded, and hostile until it is checked, so that names, types and shapes can be
looked at before a tensor takes memory. All is read through one open file: nothing can take its
place in between, and its path may be any bytes.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vggc_runtime.files import open_file
from vggc_runtime.json_file import MalformedError, parsed_json

MAX_HEADER = 16 << 20
"""Bytes of the longest header that is read; that of a net of a thousand layers has a hundredth."""
MAX_DIMENSIONS = 16
PIECE = 1 << 24
"""Bytes of a tensor that are written at once."""
ALIGNMENT = 64
"""Bytes of a cache line and of the widest vector: where a tensor in memory is to begin."""
HASHED = 4 << 20
"""Bytes of the pieces of a tensor that are hashed by themselves, so that threads share in it."""
PAGE = 4096
"""Bytes of the smallest page of memory, at which a part of a file can be mapped."""

BFLOAT16 = "BF16"
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    BFLOAT16: "<u2",
    "I64": "<i8",
    "U64": "<u8",
    "I32": "<i4",
    "U32": "<u4",
    "I16": "<i2",
    "U16": "<u2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
"""Types of elements by their names in a file; numpy has no bfloat16, so it is told by its bits.
Other types, such as F8_E4M3, are known by their names alone, and never read."""
KINDS = {dtype: kind for kind, dtype in DTYPES.items() if kind != BFLOAT16}
FLOATS = ("F64", "F32", "F16", BFLOAT16)


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in a file, in bytes from its beginning, and of what `kind` it is there:
    a key of `DTYPES`, or the name of a type that is never read.
    """

    kind: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True)
class TensorFile:
    """An open safetensors file, and what it holds in the order in which that lies there;
    `metadata` are texts of its maker's.
    """

    file: BufferedReader
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]

    def read(self, name: str, room: NDArray[np.uint8] | None = None) -> NDArray[Any]:
        """A tensor as it is stored, read to `room` or to memory of its own.

        Raises: MalformedError where it is of a type that is never read, or the file has become
        shorter; OSError where it cannot be read.
        """
        stored = self.tensors[name]
        if stored.kind not in DTYPES:
            raise MalformedError(f"its tensor `{name}` is of type {stored.kind}")
        if room is None:
            room = np.empty(stored.bytes, np.uint8)
        self.file.seek(stored.offset)
        done = 0
        while done < room.size:
            count = self.file.readinto(room.data[done:])
            if not count:
                raise MalformedError("it ends in the middle of a tensor")
            done += count
        return room.view(DTYPES[stored.kind]).reshape(stored.shape)

    def sha256(self) -> str:
        """The hash of all bytes of the file, in hexadecimal."""
        self.file.seek(0)
        return hashlib.file_digest(self.file, "sha256").hexdigest()

    def header(self) -> bytes:
        """All that lies in front of the tensors."""
        self.file.seek(0)
        length = int.from_bytes(self.file.read(8), "little")
        self.file.seek(0)
        return self.file.read(8 + length)

    def piecewise_sha256(self, name: str) -> bytes:
        """The SHA-256 of the SHA-256s of a tensor's pieces of `HASHED` bytes, one behind the other;
        the last piece is what is left. A compiled net knows its weights by it (`plan_weight` in
        vggc/native/plan.h).

        Raises: MalformedError where the file has become shorter; OSError where it cannot be read.
        """
        stored = self.tensors[name]
        self.file.seek(stored.offset)
        whole = hashlib.sha256()
        for start in range(0, stored.bytes, HASHED):
            size = min(HASHED, stored.bytes - start)
            piece = self.file.read(size)
            if len(piece) != size:
                raise MalformedError("it ends in the middle of a tensor")
            whole.update(hashlib.sha256(piece).digest())
        return whole.digest()

    def floats(self, name: str) -> NDArray[np.float32]:
        """A tensor of floats as float32; what is too large for that becomes infinite.

        Raises: as `read`.
        """
        kind, values = self.tensors[name].kind, self.read(name)
        if kind == BFLOAT16:
            return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        with np.errstate(over="ignore"):
            return values.astype(np.float32, copy=False)

    def mapped(self) -> MappedTensors:
        """The tensors of types that are read, where the system maps the file."""
        region = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_COPY)
        whole = np.frombuffer(region, np.uint8)
        tensors = {
            name: whole[each.offset :][: each.bytes].view(DTYPES[each.kind]).reshape(each.shape)
            for name, each in self.tensors.items()
            if each.kind in DTYPES
        }
        return MappedTensors(tensors, region, whole.ctypes.data)


@dataclass(frozen=True)
class MappedTensors:
    """Tensors in the pages of their file, which the system reads when somebody looks at them. Who
    changes one changes what this process sees of it, and not the file. `region` is the whole file,
    from an address on.
    """

    tensors: dict[str, NDArray[Any]]
    region: mmap.mmap
    address: int

    def forget(self, values: NDArray[Any]) -> None:
        """Gives back the memory of a tensor or of consecutive rows of one, which are read from the
        file again by whoever needs them; what was changed of them is lost.
        """
        begin = values.ctypes.data - self.address
        start = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        whole = (begin + values.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
        if whole > 0:
            self.region.madvise(mmap.MADV_DONTNEED, start, whole)


@contextmanager
def opened(path: Path) -> Iterator[TensorFile]:
    """A safetensors file whose header has been read and checked.

    Raises: MalformedError where it is none; OSError where it cannot be read.
    """
    with open_file(path) as file:
        yield TensorFile(file, *read_header(file))


def read_all(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a file as it is stored.

    Raises: MalformedError where it is no safetensors file, or one is of a type that is never
    read; OSError where it cannot be read.
    """
    with opened(path) as found:
        return {name: found.read(name) for name in found.tensors}


@dataclass(frozen=True)
class Pieces:
    """A tensor that is made while it is written: pieces of it in row-major order, one at a time."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[], Iterable[NDArray[Any]]]

    @classmethod
    def of(cls, tensor: NDArray[Any]) -> Pieces:
        """A tensor that there is already."""
        rows = np.atleast_1d(tensor)
        step = max(1, PIECE * len(rows) // max(1, tensor.nbytes))

        def make() -> Iterator[NDArray[Any]]:
            for start in range(0, len(rows), step):
                yield rows[start : start + step]

        return cls(tensor.dtype, tensor.shape, make)

    @property
    def bytes(self) -> int:
        """The bytes of the whole tensor."""
        return self.dtype.itemsize * prod(self.shape)

    def whole(self) -> NDArray[Any]:
        """The tensor in memory."""
        made = [np.ascontiguousarray(piece).ravel() for piece in self.make()]
        whole: NDArray[Any] = np.concatenate(made).astype(self.dtype, copy=False)
        return whole.reshape(self.shape)


def write(file: BinaryIO, tensors: Mapping[str, Pieces], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, of which no more than a piece is held in memory.

    A program can map it and use most tensors where they lie: the data begins at a multiple of
    `PAGE`, for which the header ends in spaces, and each tensor of a multiple of `ALIGNMENT` bytes
    at such a multiple. Files of this format have no gaps, so the others follow closely behind.

    Raises: OSError where it cannot be written.
    """

    def place(name: str) -> tuple[bool, int, str]:
        # The widest elements first, so that all begin at a multiple of theirs.
        tensor = tensors[name]
        return tensor.bytes % ALIGNMENT != 0, -tensor.dtype.itemsize, name

    names = sorted(tensors, key=place)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.bytes
        kind = KINDS[tensor.dtype.newbyteorder("<").str.replace("|", "")]
        header[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        tensor, written = tensors[name], 0
        for piece in tensor.make():
            values = np.ascontiguousarray(piece, tensor.dtype.newbyteorder("<"))
            written += file.write(values.data.cast("B") if values.size else b"")
        assert written == tensor.bytes, f"{name} is not of the size that it was told to be"


def read_header(file: BinaryIO) -> tuple[dict[str, Stored], dict[str, str]]:
    """What a safetensors file holds, in the order in which it lies there, and its metadata.

    Raises: MalformedError where it is none: two tensors of one name, or such as overlap, leave
    gaps or end beyond the file.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise MalformedError("it has no header of a safetensors file")
    try:
        header = parsed_json(file.read(length))
    except MalformedError as fault:
        raise MalformedError(f"its header {fault}") from None
    if not isinstance(header, dict):
        raise MalformedError("its header is not a table of tensors")
    told = header.pop("__metadata__", {})
    texts = told.items() if isinstance(told, dict) else ()
    metadata = {key: text for key, text in texts if isinstance(text, str)}
    found = {name: _stored(name, value, 8 + length) for name, value in header.items()}
    found = dict(sorted(found.items(), key=lambda item: (item[1].offset, item[1].bytes)))
    end = 8 + length
    for name, tensor in found.items():
        if tensor.offset != end:
            raise MalformedError(f"its tensor `{name}` does not begin where the one before ends")
        end += tensor.bytes
    if end != size:
        raise MalformedError("its tensors do not end where the file does")
    return found, metadata


def _stored(name: str, value: Any, start: int) -> Stored:
    match value:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if (
            len(shape) <= MAX_DIMENSIONS
            and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
            and 0 <= begin <= end
        ):
            known = DTYPES.get(kind)
            if known is None or np.dtype(known).itemsize * prod(shape) == end - begin:
                return Stored(kind, tuple(shape), start + begin, end - begin)
    raise MalformedError(f"its tensor `{name}` is described wrongly")
