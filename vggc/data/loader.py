"""Batches of images, made by worker processes ahead of time.

The batch is the unit of work: that of a step is one function of the seed and the step, whoever
makes it and whenever.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vggc.data.crops import TRIES, CropDraws, Cut, Framed
from vggc.data.draws import Stream, generator
from vggc.data.order import Order, Share
from vggc.data.parts import Part, Skipped
from vggc.data.stores import Numbers
from vggc.data.vary import Variation, changed
from vggc.data.windows import Windows
from vggc.data.workers import made_ahead, never
from vggc_runtime.preprocessing import BrokenImageError
from vggc_runtime.processors import num_processors

MOST_WORKERS = 8

T = TypeVar("T")


class CropObjects(NamedTuple):
    """Where the objects of N images are, float64 (N, M, 4) as corners in shares of their pictures,
    those with fewer than M with boxes of no area behind theirs; and the `windows` (N, 4) of the
    pictures that the images show.
    """

    boxes: Tensor
    windows: Tensor


class Batch(NamedTuple):
    """Images uint8 (N, C, H, W) in channels-last memory and their classes int64 (N,).

    They are the `rows` (N,) of a batch that all processes share, of `total` images; those that
    could not be read any more are missing and `lost`. `objects` says where objects are, if the
    part has any.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    total: int
    lost: tuple[Skipped, ...] = ()
    objects: CropObjects | None = None


@dataclass(frozen=True)
class TrainBatches(Dataset[Batch]):
    """The batches of a training by their step: shuffled, cut out at random."""

    framed: Framed
    order: Order
    share: Share
    changes: tuple[Variation, ...] = ()

    def __getitem__(self, step: int) -> Batch:
        place = self.order.place(step)
        indices = self.order.indices(*place)
        rows = np.arange(len(indices))[self.share.rows(len(indices))]
        draws = crop_draws(self.order, step)[rows]
        if self.framed.framing.window:
            tries = draws_of(self.order, Stream.WINDOW, step, TRIES, 2)[rows]
            crops = self.framed.random_crops(indices[rows], draws[:, :3], tries)
        else:
            crops = self.framed.random_crops(indices[rows], draws[:, :3])
        return batch_of(self.framed, self.changed(crops, step, rows), indices, rows)

    def changed(
        self, crops: Sequence[Cut | BrokenImageError], step: int, rows: Numbers
    ) -> Sequence[Cut | BrokenImageError]:
        """The crops of these rows of a step after the changes."""
        if not self.changes:
            return crops
        columns = [
            draws_of(self.order, change.stream, step, change.num_draws)[rows].tolist()
            for change in self.changes
        ]
        return [
            crop._replace(pixels=changed(crop.pixels, self.changes, draws))
            if isinstance(crop, Cut)
            else crop
            for crop, draws in zip(crops, zip(*columns, strict=True), strict=True)
        ]


def crop_draws(order: Order, step: int) -> CropDraws:
    """The draws in [0, 1) for each image of a step, (N, 4): scale, top, left and flip."""
    return draws_of(order, Stream.AUGMENTATION, step, 4)


def draws_of(order: Order, stream: Stream, step: int, *each: int) -> CropDraws:
    """Draws in [0, 1) for each image of a step, so many `each`: (N, …)."""
    draws: CropDraws = generator(order.seed, stream, *order.place(step)).random(
        (order.size(step), *each)
    )
    return draws


@dataclass(frozen=True)
class ValBatches(Dataset[Batch]):
    """The images of a part in order, each cut to its centre."""

    framed: Framed
    batch: int

    def __len__(self) -> int:
        return -(-len(self.framed) // self.batch)

    def __getitem__(self, step: int) -> Batch:
        indices = np.arange(len(self.framed))[step * self.batch : (step + 1) * self.batch]
        crops = self.framed.centres(indices)
        return batch_of(self.framed, crops, indices, np.arange(len(indices)))


def batch_of(
    framed: Framed, crops: Sequence[Cut | BrokenImageError], indices: Numbers, rows: Numbers
) -> Batch:
    """The batch of these crops, which are those of the `rows` of the images at `indices`."""
    cuts = [crop for crop in crops if isinstance(crop, Cut)]
    there = np.asarray([isinstance(crop, Cut) for crop in crops], bool)
    channels, height, width = framed.framing.shape
    whole = [cut.pixels for cut in cuts]
    images = np.stack(whole) if whole else np.empty((0, height, width, channels), np.uint8)
    lost = tuple(
        Skipped(framed.part.name(int(index)), str(fault))
        for index, fault in zip(indices[rows], crops, strict=True)
        if isinstance(fault, BrokenImageError)
    )
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.from_numpy(framed.part.labels[indices[rows[there]]]),
        torch.from_numpy(rows[there]),
        len(indices),
        lost,
        crop_objects(framed.part, indices[rows[there]], [cut.window for cut in cuts]),
    )


def crop_objects(part: Part, indices: Numbers, windows: Sequence[Windows]) -> CropObjects | None:
    """Where the objects are in the images at these places of a part, which show these windows."""
    if part.objects is None:
        return None
    each = [part.objects[index].boxes for index in indices.tolist()]
    boxes = np.zeros((len(each), max(map(len, each), default=1), 4))
    for row, found in zip(boxes, each, strict=True):
        row[: len(found)] = found
    shown = np.stack(windows) if windows else np.empty((0, 4))
    return CropObjects(torch.from_numpy(boxes), torch.from_numpy(shown))


def load(
    batches: Dataset[T],
    steps: Sequence[int],
    workers: int,
    *,
    pin: bool = False,
    stop: Callable[[], bool] = never,
) -> Generator[T]:
    """The batches of these steps in order, made by so many processes, or by this one for 0.

    With `pin` they lie in memory from which a GPU takes them by itself. They end early where
    `stop` says so while one is waited for.

    Raises:
        WorkerLost: a process was killed, or has crashed.
        UserError: the system starts no process.
    """
    make = batches.__getitem__
    made = made_ahead(make, steps, workers, stop) if workers else map(make, steps)
    for batch in made:
        yield pinned(batch) if pin else batch


def pinned(thing: Any) -> Any:
    """The tensors of a named tuple, and of those in it, in memory that a GPU reads by itself."""
    match thing:
        case Tensor():
            return thing.pin_memory()
        case tuple():
            parts = map(pinned, thing)
            return type(thing)(*parts) if hasattr(thing, "_fields") else tuple(parts)
        case _:
            return thing


def num_workers(framed: Framed, processes: int = 1, changes: Sequence[Variation] = ()) -> int:
    """The worker processes that suit pictures which are changed so, where so many trainings share
    the machine: none where making a batch is hardly any work.
    """
    if framed.kept is not None and framed.framing.is_fixed and not changes:
        return 0
    return max(1, min(MOST_WORKERS, num_processors() // processes))
