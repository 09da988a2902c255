"""Batches of images: which, in what order and how varied depends on the seed alone.

The batch is the unit of work: batch k of epoch e is one function of (seed, e, k), so
that worker processes and resumed runs draw the same as anyone else.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vggc.diagnostics import UserError
from vggc.preprocessing import BrokenImageError, Pixels, centre, crop, resize
from vggc.recipe.train import Recipe
from vggc.training import mistakes
from vggc.training.images import Data, Stored

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Images uint8 (N, C, H, W) and their classes int64 (N,)."""


class Stream(IntEnum):
    """What randomness is for: each use has its own stream, so that none disturbs another."""

    ORDER = 0
    AUGMENTATION = 1
    STEP = 2
    INITIALISATION = 3
    COLOUR = 4


def generator(seed: int, stream: Stream, *index: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, *index])


def torch_seed(seed: int, stream: Stream, *index: int) -> int:
    """A seed for torch's own generators, mixed from all numbers given."""
    mixed = np.random.SeedSequence([seed, stream, *index]).generate_state(1, np.uint64)
    return int(mixed[0] >> np.uint64(1))


def num_batches(num_images: int, batch: int) -> int:
    """Batches in an epoch: as few as hold all images, nearly equal, none above `batch`."""
    return -(-num_images // batch)


@dataclass(frozen=True)
class TrainBatches(Dataset[Batch]):
    """The batches of one epoch, shuffled and augmented."""

    stored: Stored
    recipe: Recipe
    seed: int
    epoch: int

    def __len__(self) -> int:
        return num_batches(len(self.stored), self.recipe.batch)

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        return generator(self.seed, Stream.ORDER, self.epoch).permutation(len(self.stored))

    def __getitem__(self, step: int) -> Batch:
        indices = np.array_split(self.order, len(self))[step]
        draws = generator(self.seed, Stream.AUGMENTATION, self.epoch, step).random(
            (len(indices), 4)
        )
        images = [
            self.augment(self.stored.pixels(index), *draw)
            for index, draw in zip(indices.tolist(), draws.tolist(), strict=True)
        ]
        if self.recipe.rgb_shift is not None:
            draws = generator(self.seed, Stream.COLOUR, self.epoch, step).normal(
                0, self.recipe.rgb_shift, (len(indices), 3)
            )
            shifts = draws @ self.stored.colour_axes.T
            images = [shift(image, by) for image, by in zip(images, shifts, strict=True)]
        return stack(images), torch.from_numpy(self.stored.part.labels[indices])

    def augment(self, image: Pixels, scale: float, top: float, left: float, flip: float) -> Pixels:
        """A random crop, maybe of a resized image, maybe mirrored; draws lie in [0, 1)."""
        size = self.stored.size
        low, high = self.recipe.scale or (0, 0)
        if low < high:
            side = low + int(scale * (high - low + 1))
            image = resize_pixels(image, side, size)
        height, width, _ = image.shape
        top, left = int(top * (height - size[0] + 1)), int(left * (width - size[1] + 1))
        image = crop(image, top, left, size)
        return image[:, ::-1] if self.recipe.flip and flip < 0.5 else image


def shift(image: Pixels, by: npt.NDArray[np.float64]) -> Pixels:
    """The image with so many grey levels added to each channel, kept from 0 to 255."""
    return np.clip(np.rint(image + by), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class ValBatches(Dataset[Batch]):
    """The held-out images in order, each cut to its centre."""

    stored: Stored
    batch: int

    def __len__(self) -> int:
        return num_batches(len(self.stored), self.batch)

    def __getitem__(self, step: int) -> Batch:
        indices = range(len(self.stored))[step * self.batch : (step + 1) * self.batch]
        images = [centre(self.stored.pixels(index), self.stored.size) for index in indices]
        return stack(images), torch.from_numpy(self.stored.part.labels[indices])


def resize_pixels(image: Pixels, side: int, size: tuple[int, int]) -> Pixels:
    squeezed = image[:, :, 0] if image.shape[2] == 1 else image
    return resize(Image.fromarray(squeezed), side, size)


def stack(images: list[Pixels]) -> Tensor:
    """Images (H, W, C) as one tensor (N, C, H, W), in channels-last memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def train_batches(
    data: Data, recipe: Recipe, seed: int, epoch: int, steps: range
) -> Iterator[Batch]:
    """The batches of an epoch with these numbers."""
    batches = TrainBatches(data.train, recipe, seed, epoch)
    jitter = recipe.scale is not None and recipe.scale[0] < recipe.scale[1]
    work = jitter or recipe.rgb_shift is not None or not data.train.cached
    return load(batches, steps, in_workers=work)


def val_batches(data: Data, recipe: Recipe) -> Iterator[Batch]:
    """The held-out images."""
    batches = ValBatches(data.val, recipe.batch)
    return load(batches, range(len(batches)), in_workers=not data.val.cached)


def load(batches: Dataset[Batch], steps: range, in_workers: bool) -> Iterator[Batch]:
    """The batches of these steps, made by worker processes where that takes real work.

    Raises:
        UserError: an image cannot be read any more.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=min(8, os.cpu_count() or 1) if in_workers and steps else 0,
        worker_init_fn=prepare_worker,
        pin_memory=torch.cuda.is_available(),
    )
    try:
        yield from loader
    except BrokenImageError as fault:
        raise UserError(mistakes.ImageLost(None, str(fault).strip().splitlines()[-1])) from None


def prepare_worker(_: int) -> None:
    """Leaves Ctrl-C to the main process, which finishes its step and then ends workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
