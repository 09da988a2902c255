"""What kernels move between a card's memory and its L2 cache, counted without one.

That blocks touch what is said here is tested where kernels are emulated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pytest

from tests.support.bytes_of_vgg16 import CARDS, layer_kernels
from tests.support.tensor_core_kernels import conv
from vggc.kernels.cuda import A100
from vggc.kernels.cuda.accesses import SCRATCH, Accesses, TileShares, Touched
from vggc.kernels.cuda.algorithm import moved_bytes
from vggc.kernels.cuda.index import IndexArray
from vggc.kernels.cuda.memory import SECTOR, Moved, moved
from vggc.kernels.cuda.mma import MmaKnobs, MmaWindows

KIB = 1 << 10


@dataclass(frozen=True)
class Rounds(Accesses):
    """Blocks, one at a time, that each read all of `x` and write a KiB of `y`."""

    @property
    def buffers(self) -> dict[str, int]:
        return {"x": 64 * KIB, "y": self.shares.blocks * KIB}

    def step(self, items: IndexArray, step: int) -> Iterator[Touched]:
        yield Touched("x", np.arange(64) * KIB, KIB)

    def end(self, items: IndexArray) -> Iterator[Touched]:
        yield Touched("y", items * KIB, KIB, written=True)


def rounds(blocks: int) -> Rounds:
    return Rounds(TileShares(blocks, groups=blocks, panels=1, splits=1), steps=1, at_once=1)


def test_what_the_cache_holds_is_read_once() -> None:
    assert moved(rounds(8), 128 * KIB) == Moved(64 * KIB, 8 * KIB, left=0, ideal=72 * KIB)


def test_what_the_cache_let_go_of_is_read_again() -> None:
    """What is touched in turns is never there where it has no room: each time it was let go of
    last.
    """
    found = moved(rounds(8), 32 * KIB)
    assert found == Moved(8 * 64 * KIB, 8 * KIB, left=0, ideal=72 * KIB)
    assert found.ratio == pytest.approx(520 / 72)


def test_what_is_touched_often_stays() -> None:
    """Outputs go through the cache, and what is read all the time stays there."""
    assert moved(rounds(100), 80 * KIB).read == 64 * KIB


def test_sums_of_blocks_stay_in_the_cache_where_they_fit() -> None:
    work = conv((1, 32, 32, 64), 256)
    kernel = MmaWindows(work, A100)
    accesses = kernel.accesses(MmaKnobs(64, 64, 32, 32, 32, 4, 3, 64))
    sums = accesses.buffers[SCRATCH]
    assert moved(accesses, A100.cache).left == sums
    spilled = moved(accesses, sums // 4)
    assert spilled.left < sums // 4
    assert spilled.total > moved(accesses, A100.cache).total + sums // 2


# ---------------------------------------------------------------- VGG-16

CASES = [
    pytest.param(name, batch, marks=[pytest.mark.slow] if batch == 32 else [])
    for name in CARDS
    for batch in (1, 8, 32)
]


@pytest.mark.parametrize(("name", "batch"), CASES)
def test_vgg16_moves_little_more_than_it_must(name: str, batch: int) -> None:
    """With half of the card's cache a little more."""
    cache = CARDS[name].cache
    for each in layer_kernels(CARDS[name], batch):
        assert moved(each.accesses, cache).ratio <= 1.02, each.layer
        assert moved(each.accesses, cache // 2).ratio <= 1.22, each.layer


@pytest.mark.parametrize("name", CARDS)
def test_the_model_has_the_bytes_that_are_counted(name: str) -> None:
    for each in layer_kernels(CARDS[name], 8):
        stated = moved_bytes(each.chosen.algorithm.workload)
        counted = moved(each.accesses, CARDS[name].cache).total
        assert stated == pytest.approx(counted, rel=0.03), each.layer


SHARES = {("to_nhwc", "x"): 0.7, ("gemv_segments", "y"): 0.5, ("mma", "y", "fc8"): 0.8}
"""What blocks use of the sectors that they touch, where that is not all: pixels of planes that do
not begin where a map with its halo does, eight outputs of a dense layer in 16 bytes, and 1000 in
62.5 sectors.
"""


@pytest.mark.parametrize(
    ("name", "batch"), [("A100", 1), ("A100", 8), ("H200, sm_90", 8), ("H200, sm_90a", 8)]
)
def test_blocks_touch_whole_sectors(name: str, batch: int) -> None:
    for kernel in layer_kernels(CARDS[name], batch):
        for buffer, share in used_shares(kernel.accesses).items():
            algorithm = kernel.chosen.algorithm.name
            least = SHARES.get(
                (algorithm, buffer, kernel.layer), SHARES.get((algorithm, buffer), 1)
            )
            assert share >= least, (kernel.layer, buffer, share)


def used_shares(accesses: Accesses) -> dict[str, float]:
    """Of the sectors of each buffer that the first block, one between and the last touch in their
    first and last step, and at their end, the share of bytes that they do touch.
    """
    used, sectors = Counter[str](), Counter[str]()
    blocks = accesses.shares.blocks
    for block in (0, blocks // 3, blocks - 1):
        items, last = np.array([block]), accesses.steps - 1
        together = [accesses.step(items, 0), accesses.step(items, last), accesses.end(items)]
        for touched in together:
            for buffer, bytes_of in groupby(touched, key=lambda each: each.buffer):
                unit, places = expanded(list(bytes_of))
                used[buffer] += unit * len(places)
                sectors[buffer] += len(np.unique(unit * places // SECTOR))
    return {buffer: used[buffer] / (SECTOR * count) for buffer, count in sectors.items()}


def expanded(touched: list[Touched]) -> tuple[int, IndexArray]:
    """Which pieces of a buffer are touched, each once, and how many bytes they have."""
    unit = min(16, *(each.size for each in touched))
    pieces = [each.starts[:, None] // unit + np.arange(each.size // unit) for each in touched]
    return unit, np.unique(np.concatenate([each.ravel() for each in pieces]))
