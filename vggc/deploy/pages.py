"""Memory in large pages, and tensors read from a file straight into it.

A net reads each weight once an inference. On pages of 4 KiB the processor looks up the place
of a page all the while; on pages of 2 MiB a memory gives half as much again.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vggc.records import MalformedError

LARGE_PAGE = 2 << 20
"""Bytes of a large page on x86-64, and on aarch64 with small pages of 4 KiB."""
ALIGNMENT = 64
"""Bytes that the place of a tensor is a multiple of: a cache line, the widest vector."""
MAX_HEADER = 16 << 20

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "uint16",
    "I64": "int64",
    "U64": "uint64",
    "I32": "int32",
    "U32": "uint32",
    "I16": "int16",
    "U16": "uint16",
    "I8": "int8",
    "U8": "uint8",
}
"""The types of a safetensors file; numpy has no bfloat16, so it is told by its bits."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in a file: bytes from the beginning of the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * prod(self.shape)


def large_pages(size: int) -> NDArray[np.uint8]:
    """`size` bytes of zeros that begin at a large page, and lie in such where the system lets one.

    They are given back when the last array that looks into them is gone.
    """
    region = mmap.mmap(-1, size + 2 * LARGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # not every system has large pages
        region.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(region, np.uint8)
    start = -whole.ctypes.data % LARGE_PAGE
    return whole[start : start + size]


def read_in_place(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """The named tensors of a safetensors file, each read once to where it stays.

    Names that the file does not have are left out.

    Raises: MalformedError where it is no safetensors file; OSError where it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        stored = {name: t for name, t in read_header(file).items() if name in names}
        size = sum(_aligned(tensor.bytes) for tensor in stored.values())
        memory = large_pages(size)
        tensors = {}
        place = 0
        for name, tensor in stored.items():
            room = memory[place : place + tensor.bytes]
            _fill(file, tensor.offset, room)
            tensors[name] = room.view(tensor.dtype).reshape(tensor.shape)
            place += _aligned(tensor.bytes)
        return tensors


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _fill(file: Any, offset: int, room: NDArray[np.uint8]) -> None:
    file.seek(offset)
    done = 0
    while done < room.size:
        count = file.readinto(room.data[done:])
        if not count:
            raise MalformedError("it ends in the middle of a tensor")
        done += count


def read_header(file: BinaryIO | Any) -> dict[str, Stored]:
    """What a safetensors file holds, in the order in which it lies there.

    Raises: MalformedError where it is none: an unknown type, tensors that overlap, leave gaps
    or end beyond the file.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise MalformedError("it has no header of a safetensors file")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise MalformedError("its header is not JSON") from None
    if not isinstance(header, dict):
        raise MalformedError("its header is not a table of tensors")
    header.pop("__metadata__", None)
    found = {name: _stored(name, value, 8 + length) for name, value in header.items()}
    found = dict(sorted(found.items(), key=lambda item: (item[1].offset, item[1].bytes)))
    end = 8 + length
    for name, tensor in found.items():
        if tensor.offset != end:
            raise MalformedError(f"its tensor `{name}` does not begin where the one before ends")
        end += tensor.bytes
    if end != size:
        raise MalformedError("its tensors do not end where the file does")
    return found


def _stored(name: str, value: Any, start: int) -> Stored:
    match value:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if (
            kind in DTYPES and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
        ):
            tensor = Stored(np.dtype(DTYPES[kind]), tuple(shape), start + begin)
            if begin >= 0 and tensor.bytes == end - begin:
                return tensor
    raise MalformedError(f"its tensor `{name}` is described wrongly")
