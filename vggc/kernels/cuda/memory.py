"""What a kernel moves between a card's memory and its L2 cache, counted.

Blocks that the card has room for at once begin together, in the order of their launch, and go on
together, a step at a time; when they have ended, the next ones begin. What they touch goes through
a cache of the card's size, which is empty at first and lets go of what nobody touched for the
longest. What it lets go of is written to memory if it was changed, and so is what it holds at last,
but for sums that blocks shared: nobody reads those again. What real caches do otherwise, with
their sets and hashes and two halves, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggc.kernels.cuda.accesses import SCRATCH, Accesses, Touched
from vggc.kernels.cuda.index import IndexArray

SECTOR = 32
"""The bytes that are read or written together at least."""
LARGEST_PIECE = 4096
"""The bytes that the cache here holds or lets go of together, at most."""
SLOTS = 32
"""The parts of the cache's size of which it lets go at once."""


@dataclass(frozen=True)
class Moved:
    """Bytes that a kernel reads from memory and writes to it, those of sums that are left in the
    cache, and the `ideal`: each argument once.
    """

    read: int
    written: int
    left: int
    ideal: int

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            read=self.read + other.read,
            written=self.written + other.written,
            left=self.left + other.left,
            ideal=self.ideal + other.ideal,
        )

    @property
    def total(self) -> int:
        """What is read and written."""
        return self.read + self.written

    @property
    def ratio(self) -> float:
        """How many times the ideal that is."""
        return self.total / self.ideal


def moved(accesses: Accesses, cache_bytes: int) -> Moved:
    """What a kernel moves between memory and a cache of so many bytes."""
    shares = accesses.shares
    at_once = min(accesses.at_once, shares.blocks)
    cache = _Cache(cache_bytes, accesses.buffers, _pieces(accesses, np.arange(at_once)))
    for first in range(0, shares.items, at_once):
        items = np.arange(first, min(first + at_once, shares.items))
        if first < shares.blocks:
            cache.touch_all(accesses.begin(items))
        for step in range(accesses.steps):
            cache.touch_all(accesses.step(items, step))
        cache.touch_all(accesses.end(items))
    return cache.moved()


def _pieces(accesses: Accesses, items: IndexArray) -> dict[str, int]:
    """In how large pieces the cache holds each buffer: the largest power of two that divides all
    that items touch.
    """
    bits = dict.fromkeys(accesses.buffers, LARGEST_PIECE)
    steps = (accesses.step(items, step) for step in range(accesses.steps))
    for touched in (*steps, accesses.end(items)):
        for each in touched:
            bits[each.buffer] |= int(np.bitwise_or.reduce(each.starts, initial=each.size))
    return {name: max(SECTOR, value & -value) for name, value in bits.items()}


class _Cache:
    """A cache that lets go of what nobody touched for the longest. Each time at which something is
    touched has a number; what was last touched before the `oldest` is not held any more.
    """

    def __init__(self, capacity: int, buffers: dict[str, int], pieces: dict[str, int]) -> None:
        self._capacity, self._buffers, self._pieces = capacity, buffers, pieces
        counts = {name: -(-size // pieces[name]) for name, size in buffers.items()}
        self._last = {name: np.full(count, -1, np.int32) for name, count in counts.items()}
        self._order = {name: np.empty(count, np.int32) for name, count in counts.items()}
        self._dirty = {name: np.zeros(count, np.bool_) for name, count in counts.items()}
        # Of each time, the bytes that were touched then and not later, and those of them to write.
        self._held, self._to_write = np.zeros((2, 1024), np.int64)
        self._now = self._oldest = self._total = self._read = self._written = 0

    def touch_all(self, touched: Iterable[Touched]) -> None:
        """Reads or writes what is touched, in this order."""
        for each in touched:
            piece = self._pieces[each.buffer]
            first, last = each.starts // piece, (each.starts + (each.size - 1)) // piece
            if not len(first):
                continue
            across = np.arange(int((last - first).max()) + 1)
            numbers = np.minimum(first[:, None] + across, last[:, None]).ravel()
            slots = -(-len(numbers) * piece * SLOTS // self._capacity)
            for some in np.array_split(numbers, slots):
                self._touch(each.buffer, some, written=each.written)

    def moved(self) -> Moved:
        """What was moved, once what is held is written."""
        left = 0
        if SCRATCH in self._buffers:
            held = self._dirty[SCRATCH] & (self._last[SCRATCH] >= self._oldest)
            left = int(held.sum()) * self._pieces[SCRATCH]
        to_write = int(self._to_write[self._oldest :].sum())
        ideal = sum(size for name, size in self._buffers.items() if name != SCRATCH)
        return Moved(self._read, self._written + to_write - left, left, ideal)

    def _touch(self, name: str, numbers: IndexArray, *, written: bool) -> None:
        piece, last, dirty = self._pieces[name], self._last[name], self._dirty[name]
        order, places = self._order[name], np.arange(len(numbers), dtype=np.int32)
        order[numbers] = places
        numbers = numbers[order[numbers] == places]  # each once
        before = last[numbers]
        is_held = before >= self._oldest
        is_dirty = dirty[numbers] & is_held
        self._take(self._held, before[is_held], piece)
        self._take(self._to_write, before[is_dirty], piece)
        missing = piece * int(len(numbers) - is_held.sum())
        self._total += missing
        if not written:
            self._read += missing
        last[numbers], dirty[numbers] = self._now, written | is_dirty
        self._held[self._now] = piece * len(numbers)
        self._to_write[self._now] = piece * int(dirty[numbers].sum())
        self._next()

    def _take(self, counts: IndexArray, times: NDArray[np.int32], piece: int) -> None:
        """Takes pieces from the times at which they were touched last."""
        taken = np.bincount(times - self._oldest)
        counts[self._oldest : self._oldest + len(taken)] -= piece * taken

    def _next(self) -> None:
        """Lets go of what there is no room for, and goes on to the next time."""
        while self._total > self._capacity:
            self._total -= int(self._held[self._oldest])
            self._written += int(self._to_write[self._oldest])
            self._oldest += 1
        self._now += 1
        if self._now == len(self._held):
            more = np.zeros_like(self._held)
            self._held = np.concatenate([self._held, more])
            self._to_write = np.concatenate([self._to_write, more])
