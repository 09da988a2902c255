"""Where pictures lie: as files in a folder, or as pixels in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.data.strings import CODEC, ERRORS, Strings
from vggc.preprocessing import BrokenImageError, Pixels

Numbers: TypeAlias = npt.NDArray[np.int64]

Picture: TypeAlias = Path | bytes | Pixels
"""A file's path, a file's bytes, or the pixels themselves: (H, W, C), or (H, W) where grey."""


class Store(Protocol):
    """Pictures by number, each with a name. Travels to worker processes, so it is small or
    shares its memory with them.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def fetch(self, numbers: Sequence[int]) -> list[Picture | BrokenImageError]:
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

    def fetch(self, numbers: Sequence[int]) -> list[Picture | BrokenImageError]:
        return [self.root / self.names[number] for number in numbers]

    def stamp(self) -> str:
        # A million files are asked for at once: on a network each answer takes its time.
        with ThreadPoolExecutor(16) as threads:
            stats = list(threads.map(self._stat, range(len(self.names)), chunksize=1024))
        digest = hashlib.sha256(np.asarray(stats, np.int64).tobytes())
        digest.update(self.names.text)
        digest.update(self.names.ends.tobytes())
        return digest.hexdigest()

    def _stat(self, number: int) -> tuple[int, int]:
        """Bytes and time of change in nanoseconds; zeros for a file that has gone."""
        try:
            stat = (self.root / self.names[number]).stat()
        except OSError:
            return 0, 0
        return stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class Arrays:
    """Pixels in memory, uint8 (N, H, W, C), or (N, H, W) where grey."""

    names: Sequence[str]
    pixels: Pixels

    def fetch(self, numbers: Sequence[int]) -> list[Picture | BrokenImageError]:
        return [self.pixels[number] for number in numbers]

    def stamp(self) -> str:
        digest = hashlib.sha256(self.pixels.tobytes())
        for name in self.names:
            digest.update(name.encode(CODEC, ERRORS) + b"\0")
        return digest.hexdigest()
