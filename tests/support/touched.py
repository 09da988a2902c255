"""What kernels say that their blocks touch, held to what emulated ones do touch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tests.support.cuda_on_cpu import SECTOR, CudaCode, touched_sectors
from tests.support.tensor_core_kernels import TensorCase, TensorDraw
from vggc.kernels.cuda.accesses import Accesses, Touched


def check_touched(library: ctypes.CDLL, code: CudaCode, draw: TensorDraw, made: TensorCase) -> None:
    """Each block reads and writes the sectors of each buffer that its kernel says.

    Raises: AssertionError where not.
    """
    accesses = draw.accesses
    assert accesses is not None
    found = touched_sectors(library, code, *made.arrays)
    (launch,) = code.launches
    sizes = {name: size * np.dtype(kind).itemsize for name, (size, kind) in launch.buffers.items()}
    assert accesses.buffers == sizes
    said = said_sectors(accesses)
    assert said.keys() == found.keys()
    for name, sectors in found.items():
        np.testing.assert_array_equal(said[name], sectors, err_msg=name)


def said_sectors(accesses: Accesses) -> dict[str, NDArray[np.int64]]:
    """What a kernel says, as `touched_sectors` gives what is found."""
    rows: dict[str, list[NDArray[np.int64]]] = {name: [] for name in accesses.buffers}
    for block in range(accesses.shares.blocks):
        for each in touched_by(accesses, block):
            first, last = each.starts // SECTOR, (each.starts + each.size - 1) // SECTOR
            for number in range(int((last - first).max(initial=0)) + 1):
                sectors = np.minimum(first + number, last)
                same = np.full_like(sectors, block), np.full_like(sectors, each.written)
                rows[each.buffer].append(np.stack([*same, sectors], axis=1))
    return {name: np.unique(np.concatenate(each), axis=0) for name, each in rows.items()}


def touched_by(accesses: Accesses, block: int) -> Iterator[Touched]:
    """All that a block touches."""
    yield from accesses.begin(np.array([block]))
    for item in range(block, accesses.shares.items, accesses.shares.blocks):
        for step in range(accesses.steps):
            yield from accesses.step(np.array([item]), step)
        yield from accesses.end(np.array([item]))
