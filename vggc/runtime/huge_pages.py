"""Memory in large pages, and tensors read from a file straight into it.

A net reads each weight once an inference. On pages of 4 KiB the processor looks up the place
of a page all the while; on pages of 2 MiB a memory gives half as much again.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggc.support.tensors import ALIGNMENT, opened

LARGE_PAGE = 2 << 20
"""Bytes of a large page on x86-64, and on aarch64 with small pages of 4 KiB."""


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
    with opened(path) as file:
        found = {name: stored for name, stored in file.tensors.items() if name in names}
        memory = large_pages(sum(_aligned(stored.bytes) for stored in found.values()))
        tensors = {}
        place = 0
        for name, stored in found.items():
            tensors[name] = file.read(name, memory[place : place + stored.bytes])
            place += _aligned(stored.bytes)
        return tensors


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
