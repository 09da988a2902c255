"""One look at every picture: which are broken, and what colours there are.

What was found in a set that memory does not hold is kept in the user's cache, so that nobody
looks twice; several processes that want the same wait for the first.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL

from vggc.data.crops import Framed, Framing, attempt
from vggc.data.parts import CHUNK, Skipped, of_all
from vggc.data.stores import Numbers, PictureSource, UnreadableError, digest_of
from vggc.support.diagnostics import UserError
from vggc.support.files import cache_folder, locked
from vggc.support.records import read_record, write_record
from vggc_runtime.greys import UNKNOWN, Greys
from vggc_runtime.json_file import MalformedError
from vggc_runtime.preprocessing import BrokenImageError, Pixels, UnclearGreyError, pixels_of
from vggc_runtime.processors import num_processors

MOST_PIXELS = 2**46
"""Sums of squares of so many values are within 64 bits, and no set of images has as many."""

DIGEST = 32
"""Bytes of a sha256."""

Doubles: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Broken:
    """A picture that cannot be used, by its place in its part."""

    index: int
    reason: str


@dataclass(frozen=True)
class Survey:
    """What a look at all pictures of a part found, resized to the framing's greatest scale.

    `counts` (C, 256) says how often each channel has each value, `products` (C, C) sums the
    products of each two channels over all pixels, and `num_bytes` are those of the usable pictures
    as memory would keep them. `brightest` are the largest values of greys whose files do not say
    what is white, those included for which it was not clear. `content` is the `content_of` the
    usable pictures.
    """

    format: Literal[3]
    counts: tuple[tuple[int, ...], ...]
    products: tuple[tuple[float, ...], ...]
    broken: tuple[Broken, ...]
    num_bytes: int
    brightest: Greys
    content: str

    def skipped(self, framed: Framed) -> tuple[Skipped, ...]:
        """The pictures of the part that cannot be used."""
        return tuple(Skipped(framed.part.name(each.index), each.reason) for each in self.broken)

    def usable(self, framed: Framed) -> Numbers:
        """The places of those that can."""
        broken = [each.index for each in self.broken]
        return np.setdiff1d(np.arange(len(framed)), np.asarray(broken, np.int64))


def survey(
    framed: Framed, room: int, on_progress: Callable[[int], None]
) -> tuple[Survey, tuple[Pixels, ...] | None]:
    """What there is; and the usable pictures themselves, where they take `room` bytes or less.

    Kept pictures are resized where all have one scale, and otherwise as they were opened.
    `on_progress` is told how many are done.
    """
    place = place_of(framed)
    if place is None:
        return look(framed, room, on_progress).result()
    channels, height, width = framed.framing.shape
    # What may fit is looked at by each process for itself: each needs the pictures.
    may_fit = len(framed) * channels * height * width <= room
    with nullcontext() if may_fit else locked(place):
        try:
            found = checked(read_record(place, Survey), framed)
            if found.num_bytes > room:
                return found, None
        except MalformedError:
            pass
        tally = look(framed, room, on_progress)
        found, kept = tally.result()
        # What could not be read today may be there tomorrow, and the cache would not notice.
        if kept is None and not tally.unread:
            # Without a cache the next training looks again.
            with suppress(UserError):
                write_record(place, found)
        return found, kept


def look(framed: Framed, room: int, on_progress: Callable[[int], None]) -> Tally:
    """`survey`, without a cache. What cannot be read is tried once more at the end."""
    tally = Tally(len(framed), framed.framing.shape[0], room)
    everything = np.arange(len(framed))
    for index, found in enumerate(glances(framed, everything)):
        tally.add(index, found)
        on_progress(index + 1)
    again, tally.unread = [*tally.unread], {}
    for index, found in zip(again, glances(framed, everything[again]), strict=True):
        tally.add(index, found)
    return tally


class Tally:
    """What was found so far of `count` pictures: reasons by the places of those that are `broken`,
    and of those `unread` that may be sound. The others are kept as long as they take `room` bytes
    or less.
    """

    def __init__(self, count: int, channels: int, room: int) -> None:
        self.counts, self.products = np.zeros((channels, 256), np.int64), np.zeros((channels,) * 2)
        self.broken: dict[int, str] = {}
        self.unread: dict[int, str] = {}
        self.kept: dict[int, Pixels] = {}
        self.room, self.num_bytes = room, 0
        self.brightest = UNKNOWN
        self.digests = np.zeros((count, DIGEST), np.uint8)

    def add(self, index: int, found: Glance | BrokenImageError) -> None:
        """Adds what was found at a place of the part."""
        if isinstance(found, BrokenImageError):
            kind = self.unread if isinstance(found, UnreadableError) else self.broken
            kind[index] = str(found)
            if isinstance(found, UnclearGreyError):
                self.brightest = self.brightest.largest(found.brightest)
            return
        self.brightest = self.brightest.largest(found.brightest)
        self.digests[index] = np.frombuffer(found.digest, np.uint8)
        self.counts += found.counts
        self.products += found.products
        self.num_bytes += found.pixels.nbytes
        if self.num_bytes <= self.room:
            self.kept[index] = found.pixels
        else:
            self.kept.clear()

    def result(self) -> tuple[Survey, tuple[Pixels, ...] | None]:
        """What was found, and the usable pictures themselves if all of them fitted into memory."""
        found = Survey(
            format=3,
            counts=tuple(map(tuple, self.counts.tolist())),
            products=tuple(map(tuple, self.products.tolist())),
            broken=tuple(Broken(*each) for each in sorted((self.broken | self.unread).items())),
            num_bytes=self.num_bytes,
            brightest=self.brightest,
            content=of_all(
                [np.delete(self.digests, [*self.broken, *self.unread], axis=0).tobytes()]
            ),
        )
        fits = self.num_bytes <= self.room
        return found, tuple(self.kept[i] for i in sorted(self.kept)) if fits else None


@dataclass(frozen=True)
class Glance:
    """One picture as it may be kept, its largest value if it is a deep grey, the digest of its
    bytes, and what its colours add to the whole.
    """

    pixels: Pixels
    brightest: Greys
    digest: bytes
    counts: Numbers
    products: Doubles


def glances(framed: Framed, indices: Numbers) -> Iterator[Glance | BrokenImageError]:
    """Each of these pictures in order, opened by several threads."""
    each = partial(attempt, partial(glance, framed.framing))
    with quiet_pillow(), ThreadPoolExecutor(min(8, num_processors())) as threads:
        for start in range(0, len(indices), CHUNK):
            yield from threads.map(each, framed.fetch(indices[start : start + CHUNK]))


def glance(framing: Framing, picture: PictureSource) -> Glance:
    """Decodes one picture, and tells its colours and the digest of its file."""
    found = framing.opened(picture)
    pixels = framing.resized(found.image)
    kept = pixels if framing.is_fixed else pixels_of(found.image)
    digest = digest_of(picture)
    return Glance(kept, found.brightest, digest, histogram(pixels), colour_products(pixels))


def quiet_pillow() -> warnings.catch_warnings[None]:
    """Within it, Pillow's warnings about odd files are not printed; limits are our own."""
    return warnings.catch_warnings(action="ignore")


# The cache


def place_of(framed: Framed) -> Path | None:
    """Where the survey of these pictures is kept; None where there is no cache."""
    folder = cache_folder("data")
    if folder is None:
        return None
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            return None
        what = [asdict(framed.framing), framed.part.store.stamp(), PIL.__version__]
        digest = hashlib.sha256(json.dumps(what).encode())
        digest.update(framed.part.numbers.tobytes())
        return folder / f"{digest.hexdigest()[:32]}.json"
    return None


def checked(found: Survey, framed: Framed) -> Survey:
    """The survey, if it can be of this part.

    Raises:
        MalformedError: it cannot.
    """
    channels = framed.framing.shape[0]
    tables = [(256, found.counts), (channels, found.products)]
    if not all(
        len(table) == channels and {len(row) for row in table} == {width} for width, table in tables
    ):
        raise MalformedError("its tables are not of so many channels")
    if not all(0 <= each.index < len(framed) for each in found.broken):
        raise MalformedError("it names pictures that there are not")
    (total, *others) = {sum(row) for row in found.counts}
    negative = any(count < 0 for row in found.counts for count in row)
    all_broken = len(found.broken) == len(framed)
    if others or negative or total > MOST_PIXELS or (total == 0) != all_broken:
        raise MalformedError("its channels do not count the same pixels")
    if not all(0 <= value <= 255**2 * total for row in found.products for value in row):
        raise MalformedError("its products are not those of so many pixels")
    return found


# Colours


def histogram(pixels: Pixels) -> Numbers:
    """How often each channel has each value, (C, 256)."""
    channels = [pixels[:, :, c].ravel() for c in range(pixels.shape[2])]
    return np.stack([np.bincount(channel, minlength=256) for channel in channels])


def colour_products(pixels: Pixels) -> Doubles:
    """The sum over all pixels of the products of their channels (C, C), exact."""
    flat = pixels.reshape(-1, pixels.shape[2]).astype(np.float64)
    products: Doubles = flat.T @ flat
    return products


def moments(counts: Numbers) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel from its histogram, values over 255.

    A channel that never varies gets the deviation 1.
    """
    values, totals = np.arange(256), counts.sum(axis=1)
    mean = (counts * values).sum(axis=1) / totals
    variance = (counts * values**2).sum(axis=1) / totals - mean**2
    mean, std = mean / 255, np.sqrt(np.maximum(variance, 0)) / 255
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def colour_axes(counts: Numbers, products: Doubles) -> Doubles:
    """The principal axes of the pixels' colours as columns (C, C), each as long as the standard
    deviation along it, in grey levels.

    Krizhevsky et al. (2012), section 4.1, multiply by the eigenvalues of the covariance,
    which would depend on whether pixels run to 255 or to 1; like their program we take the
    square roots, so that a shift of 0.1 is a tenth of the deviation along each axis.
    """
    totals = counts.sum(axis=1)
    mean = (counts * np.arange(256)).sum(axis=1) / totals
    variances, axes = np.linalg.eigh(products / totals[0] - np.outer(mean, mean))
    scaled: Doubles = axes * np.sqrt(np.maximum(variances, 0))
    return scaled
