"""Numbers that lie in a file of weights, read when somebody wants them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggc.importing.definitions import NumbersUnfit
from vggc.importing.diagnostics import ForeignUnreadable
from vggc.importing.foreign import ForeignTensor
from vggc.ir.ops import Shape
from vggc.support.diagnostics import UserError
from vggc_runtime.files import open_file

FLOAT32 = np.dtype("<f4")
PIECE = 1 << 20
"""Numbers that do not lie closely and are read at once."""


@dataclass(frozen=True)
class NumberRun:
    """Numbers of `dtype` in a file, `stride` bytes from one to the next."""

    offset: int
    count: int
    stride: int
    dtype: np.dtype[Any]

    @property
    def end(self) -> int:
        """The byte behind the last one."""
        return self.offset + self.count * self.stride


@dataclass(frozen=True)
class NumbersFile:
    """A file of weights, and how it was when it was looked into first."""

    path: Path
    stamp: tuple[int, ...]

    @classmethod
    def at(cls, path: Path) -> NumbersFile:
        """The file that is there now.

        Raises: UserError where there is none, or it may not be read.
        """
        with _explained(path, open_file) as file:
            return cls(path, _stamp(file))

    @property
    def size(self) -> int:
        """All bytes of the file."""
        return self.stamp[0]

    def open(self) -> BufferedReader:
        """The file, open for reading.

        Raises: UserError where it is gone, or not what it was.
        """
        file = _explained(self.path, open_file)
        if _stamp(file) != self.stamp:
            file.close()
            reason = "it was changed while it was read"
            raise UserError(ForeignUnreadable(str(self.path), reason))
        return file

    def sha256(self) -> str:
        """The hash of all bytes, in hexadecimal."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def floats(self, runs: Sequence[NumberRun]) -> NDArray[np.float32]:
        """The numbers of some runs behind one another, as float32; what is too large for that
        becomes infinite.
        """
        values = np.empty(sum(run.count for run in runs), np.float32)
        done = 0
        with self.open() as file, np.errstate(over="ignore"):
            for run in runs:
                is_close = run.stride == run.dtype.itemsize
                step = run.count if is_close and run.dtype == values.dtype else PIECE
                for start in range(0, run.count, max(1, step)):
                    count = min(step, run.count - start)
                    room = values[done : done + count]
                    self._fill(file, run, start, room)
                    done += count
        return values

    def tensor(self, shape: Shape, runs: Sequence[NumberRun]) -> ForeignTensor:
        """A tensor of float32 made of the numbers of some runs, which are as many."""
        kept = tuple(runs)
        assert sum(run.count for run in kept) == prod(shape)
        return ForeignTensor(shape, FLOAT32, lambda: self.floats(kept).reshape(shape))

    def _fill(
        self, file: BufferedReader, run: NumberRun, start: int, room: NDArray[np.float32]
    ) -> None:
        file.seek(run.offset + start * run.stride)
        if run.stride == run.dtype.itemsize and run.dtype == room.dtype:
            buffer = room.view(np.uint8)
            self._read(file, buffer)
            return
        # What lies behind the last number of a run may be another field, or nothing.
        size = (room.size - 1) * run.stride + run.dtype.itemsize
        data = np.empty(size, np.uint8)
        self._read(file, data)
        room[:] = np.ndarray((room.size,), run.dtype, data, strides=(run.stride,))

    def _read(self, file: BufferedReader, room: NDArray[np.uint8]) -> None:
        done = 0
        while done < room.size:
            count = file.readinto(room.data[done:])
            if not count:
                reason = "it ends in the middle of a tensor"
                raise UserError(NumbersUnfit(str(self.path), reason))
            done += count


def _explained(path: Path, start: Callable[[Path], BufferedReader]) -> BufferedReader:
    try:
        return start(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(ForeignUnreadable(str(path), reason)) from None


def _stamp(file: BufferedReader) -> tuple[int, ...]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


def absent() -> NDArray[Any]:
    """What a tensor without values reads: a definition came without weights."""
    raise AssertionError("the net came without weights")
