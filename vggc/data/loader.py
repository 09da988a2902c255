"""Batches of images, made by worker processes ahead of time.

The batch is the unit of work: that of a step is one function of the seed and the step, whoever
makes it and whenever.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Generator, Iterator, Sequence, Sized
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from threading import Timer
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from vggc.data.crops import TRIES, Draws, Framed
from vggc.data.draws import Stream, generator
from vggc.data.order import Order, Share
from vggc.data.parts import Skipped
from vggc.data.stores import Numbers
from vggc.data.vary import Change, changed
from vggc.preprocessing import BrokenImageError, Pixels

MOST_WORKERS = 8
GRACE = 3.0
"""Seconds that a worker has to end by itself."""

T = TypeVar("T")


class Batch(NamedTuple):
    """Images uint8 (N, C, H, W) in channels-last memory and their classes int64 (N,).

    They are the `rows` (N,) of a batch that all processes share, of `total` images; those that
    could not be read any more are missing and `lost`.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    total: int
    lost: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class TrainBatches(Dataset[Batch]):
    """The batches of a training by their step: shuffled, cut out at random."""

    framed: Framed
    order: Order
    share: Share
    changes: tuple[Change, ...] = ()

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
        self, crops: Sequence[Pixels | BrokenImageError], step: int, rows: Numbers
    ) -> Sequence[Pixels | BrokenImageError]:
        """The crops of these rows of a step after the changes."""
        if not self.changes:
            return crops
        columns = [
            draws_of(self.order, change.stream, step, change.num_draws)[rows].tolist()
            for change in self.changes
        ]
        return [
            changed(crop, self.changes, draws) if isinstance(crop, np.ndarray) else crop
            for crop, draws in zip(crops, zip(*columns, strict=True), strict=True)
        ]


def crop_draws(order: Order, step: int) -> Draws:
    """The draws in [0, 1) for each image of a step, (N, 4): scale, top, left and flip."""
    return draws_of(order, Stream.AUGMENTATION, step, 4)


def draws_of(order: Order, stream: Stream, step: int, *each: int) -> Draws:
    """Draws in [0, 1) for each image of a step, so many `each`: (N, …)."""
    draws: Draws = generator(order.seed, stream, *order.place(step)).random(
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
    framed: Framed, crops: Sequence[Pixels | BrokenImageError], indices: Numbers, rows: Numbers
) -> Batch:
    """The batch of these crops, which are those of the `rows` of the images at `indices`."""
    whole = [pixels for pixels in crops if isinstance(pixels, np.ndarray)]
    there = np.asarray([isinstance(pixels, np.ndarray) for pixels in crops], bool)
    channels, height, width = framed.framing.shape
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
    )


def load(
    batches: Dataset[T], steps: Sequence[int], workers: int, *, pin: bool = False
) -> Generator[T]:
    """The batches of these steps in order, made by so many processes, or by this one for 0.

    With `pin` they lie in memory from which a GPU takes them by itself.
    """
    with warnings.catch_warnings():
        # More workers than processors were asked for, or suit a server that is far away.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=Steps(steps),
            num_workers=workers if steps else 0,
            worker_init_fn=prepare_worker,
            pin_memory=pin,
        )
    made = iter(loader)
    try:
        yield from made
    finally:
        end_workers(made)


def end_workers(made: Iterator[object]) -> None:
    """Ends the workers of a loader, after `GRACE` seconds also those that a read holds up.

    DataLoader waits ten seconds for each of those, sends it a SIGTERM, which it ignores, and
    leaves it to Python, which waits for it for ever as it exits.
    """
    if not isinstance(made, _MultiProcessingDataLoaderIter) or not made._worker_pids_set:
        return
    # From now on a killed worker is no accident, of which DataLoader would make an error.
    _remove_worker_pids(id(made))
    made._worker_pids_set = False
    killer = Timer(GRACE, kill, [made._workers])
    killer.start()
    made._shutdown_workers()
    killer.cancel()


def kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


@dataclass(frozen=True)
class Steps(Sized):
    """A sampler that gives these steps."""

    steps: Sequence[int]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)


def num_workers(framed: Framed, processes: int = 1, changes: Sequence[Change] = ()) -> int:
    """The worker processes that suit pictures which are changed so, where so many trainings share
    the machine: none where making a batch is hardly any work.
    """
    if framed.kept is not None and framed.framing.is_fixed and not changes:
        return 0
    processors = len(os.sched_getaffinity(0))
    return max(1, min(MOST_WORKERS, processors // processes))


def prepare_worker(_: int) -> None:
    """Leaves signals to the main process, which finishes its step and then ends its workers:
    both a terminal and `torchrun` send theirs to all processes of a group.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("ignore")
