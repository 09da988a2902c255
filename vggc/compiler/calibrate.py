"""The ranges of a net's values on images that the user gives, for int8.

A range is cut off where the mean squared error of rounding what is inside and cutting off
what is outside is least, found on a histogram of the sizes of the values.
Source: Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 2.3.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggc.compiler import diagnostics
from vggc.compiler.quantize import LARGEST, ValueRange, averaged, levels, scaled
from vggc.data.listing import Listing, images_below
from vggc.data.parts import Skipped
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.plan.plan import Plan
from vggc.runtime.diagnostics import BadInput
from vggc.support.diagnostics import UserError
from vggc.support.precision import ArtifactPrecision
from vggc_runtime.preprocessing import BrokenImageError, Preprocessing, decode

NUM_IMAGES = 300
"""How many images are read where the user does not say."""

BINS = 2048


def require_images(precision: ArtifactPrecision, folder: Path | None, count: int | None) -> None:
    """Refuses images that are missing for a precision, or given in vain.

    Raises: UserError.
    """
    if precision == "int8":
        if folder is None:
            raise UserError(diagnostics.NoCalibration())
        listing_of(folder)
        return
    for option, value in (("--calibrate", folder), ("--images", count)):
        if value is not None:
            raise UserError(diagnostics.NothingToCalibrate(option, precision))


@dataclass(frozen=True)
class CalibrationImages:
    """The images to calibrate on, anywhere in a folder: the `files` that are used, in the order of
    their names, and what was `skipped` before or among them.
    """

    files: tuple[Path, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def choose_images(folder: Path, count: int, preprocessing: Preprocessing) -> CalibrationImages:
    """`count` of the images in a folder that can be read, or all of them.

    They are taken at even distances, so that folders of classes all have their share, with others
    in the place of those that cannot be read.

    Raises: UserError where there is no such folder, or no image in it that can be used.
    """
    listing = listing_of(folder)
    first = spread(listing.files, count)
    taken = {*first}
    waiting = iter([*first, *(name for name in listing.files if name not in taken)])
    used: list[str] = []
    skipped = [*listing.skipped]
    reason = partial(why_broken, folder, preprocessing)
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor() as threads:
        while names := [*islice(waiting, count - len(used))]:
            for name, problem in zip(names, threads.map(reason, names), strict=True):
                if problem is None:
                    used.append(name)
                else:
                    skipped.append(Skipped(name, problem))
    if not used:
        told = f"{skipped[0].name}: {skipped[0].reason}"
        reason_why = f"none of the {len(skipped):,} there can be used, such as {told}"
        raise UserError(diagnostics.NoImages(str(folder), reason_why))
    return CalibrationImages(tuple(folder / name for name in sorted(used)), tuple(skipped))


def why_broken(folder: Path, preprocessing: Preprocessing, name: str) -> str | None:
    """Why an image cannot be used, if it cannot."""
    try:
        decode(folder / name, len(preprocessing.mean), (preprocessing.scale, preprocessing.size))
    except BrokenImageError as fault:
        return str(fault)
    return None


def listing_of(folder: Path) -> Listing:
    """The images anywhere in a folder.

    Raises: UserError where there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        reason = "it is a file" if folder.exists() else "there is no such folder"
        raise UserError(diagnostics.NoImages(str(folder), reason))
    try:
        found = images_below(folder)
    except OSError as fault:
        reason = f"{fault.filename}: {fault.strerror}"
        raise UserError(diagnostics.NoImages(str(folder), reason)) from None
    if not found.files and not found.skipped:
        raise UserError(diagnostics.NoImages(str(folder), "no image lies in it"))
    return found


def spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` of the names, or all, at even distances."""
    count = min(count, len(names))
    return tuple(names[index * len(names) // count] for index in range(count))


def read_images(
    files: Iterable[Path], preprocessing: Preprocessing
) -> Iterator[NDArray[np.float32]]:
    """Each image as the net's input `(1, C, H, W)`.

    Raises: UserError naming the first file that is no usable image.
    """
    for path in files:
        try:
            yield preprocessing.read(path)
        except BrokenImageError as error:
            hint = "take the file out of the folder, or replace it"
            raise UserError(BadInput(str(path), str(error), hint)) from None


@dataclass
class Histogram:
    """The sizes of a value's finite elements, zeros aside, in `BINS` bins from 0 to `limit`.

    The limit doubles, and bins are joined two by two, whenever a larger element comes.
    """

    limit: float = 0.0
    counts: NDArray[np.int64] | None = None

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the finite elements of a value, of any shape, by their size."""
        sizes = np.abs(values[values != 0])
        if sizes.size == 0:
            return
        largest = float(sizes.max())
        if self.counts is None:
            self.limit, self.counts = largest, np.zeros(BINS, np.int64)
        while largest > self.limit:
            joined = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([joined, np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        # In float64, where neither the limit nor its reciprocal is ever infinite.
        bins = np.multiply(sizes, BINS / self.limit, dtype=np.float64).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def cut(self, levels: int) -> float:
        """The size at which to cut off so that `levels` steps up to there err least; 0 without
        elements.
        """
        if self.counts is None:
            return 0.0
        width = self.limit / BINS
        used = np.flatnonzero(self.counts)[-1] + 1
        centres = (np.arange(used) + 0.5) * width
        counts = self.counts[:used]

        def error(cut: float) -> float:
            scale = cut / levels
            stored = np.minimum(np.rint(centres / scale), levels) * scale
            return float(counts @ (centres - stored) ** 2)

        cuts = np.arange(max(1, used // 16), used + 1) * width
        return float(min(cuts, key=error))


@dataclass
class _Observed:
    sums: NDArray[np.float64]
    count: int = 0
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, values: NDArray[np.float32]) -> None:
        """Takes in a value `(N, C, H, W)` or `(N, C)`."""
        self.histogram.add(values)
        flat = values.reshape(*values.shape[:2], -1)
        self.sums += flat.sum((0, 2), np.float64)
        self.count += flat.shape[0] * flat.shape[2]


def calibrate(
    graph: Graph,
    weights: Weights,
    plan: Plan,
    images: Iterable[NDArray[np.float32]],
    files: Sequence[Path] = (),
) -> dict[str, ValueRange]:
    """The ranges that a plan in int8 needs, by the names of the nodes of the folded graph.

    Its values are computed in float32, an image `(1, C, H, W)` after another; `files` are where
    the images are from.

    Raises: UserError naming the first image on which a value is not finite.
    """
    from vggc.backends.torch import observe

    steps = {name: levels(map_) for name, map_ in scaled(plan).items()}
    channels = {node.name: node.shape[0] for node in graph.nodes}
    names = steps.keys() | averaged(plan)
    seen = {name: _Observed(np.zeros(channels[name])) for name in names}
    run = observe(graph, weights, names)
    for number, image in enumerate(images):
        for name, value in run(image):
            if not np.isfinite(value).all():
                told = str(files[number]) if files else f"image {number + 1}"
                raise UserError(diagnostics.NotFinite(name, told))
            seen[name].add(value)
    return {
        name: ValueRange(
            each.histogram.cut(steps.get(name, LARGEST)), each.sums / max(each.count, 1)
        )
        for name, each in seen.items()
    }
