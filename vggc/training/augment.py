"""What happens to a batch on the device: mirrored, shifted in colour, normalised, mixed.

All of it is drawn by the seed and the step for the images of all processes together, each of
which takes the rows that are its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from vggc.data.draws import Stream, generator
from vggc.data.loader import Batch, crop_draws
from vggc.data.order import Order
from vggc.preprocessing import Preprocessing
from vggc.recipe.train import Recipe

GREATEST = 255.0


@dataclass(frozen=True)
class Targets:
    """What the scores of N images are to say: the class `labels` (N,) with the weights `share`
    (N,), and `others` (N,) with the rest. Without a mixture `others` is None.
    """

    labels: Tensor
    others: Tensor | None = None
    share: Tensor | None = None

    def loss(self, logits: Tensor, smoothing: float = 0.0) -> Tensor:
        """The cross-entropy of each image in nats (N,), from its scores (N, classes)."""
        losses = cross_entropy(logits, self.labels, smoothing)
        if self.others is None or self.share is None:
            return losses
        return self.share * losses + (1 - self.share) * cross_entropy(
            logits, self.others, smoothing
        )

    def part(self, rows: slice) -> Targets:
        """Those of some of the images."""
        if self.others is None or self.share is None:
            return Targets(self.labels[rows])
        return Targets(self.labels[rows], self.others[rows], self.share[rows])


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


@dataclass(frozen=True)
class Normaliser:
    """Pixels as `Preprocessing` says, on one device."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, preprocessing: Preprocessing, device: torch.device) -> Normaliser:
        mean, std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1) * GREATEST
            for values in (preprocessing.mean, preprocessing.std)
        )
        return cls(mean, std)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (N, C, H, W) from 0 to 255 as a net's input, float32."""
        values = pixels.to(torch.float32, copy=True)
        count, channels, height, width = values.shape
        # Channels last, a row of pixels is numbers in a row, as vector instructions want them.
        rows = values.permute(0, 2, 3, 1).reshape(count, height, width * channels)
        rows.sub_(self.mean.view(-1).repeat(width)).div_(self.std.view(-1).repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Augmentation:
    """How the recipe varies the images of a training in this order.

    `axes` (C, C) are the principal axes of the colours in grey levels: see `colour_axes`.
    """

    recipe: Recipe
    order: Order
    axes: npt.NDArray[np.float64]
    normalised: Normaliser

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, Targets]:
        """The batch of a step, which is on the device: a net's input, and what it is to say."""
        pixels, rows = batch.images, batch.rows.cpu().numpy()
        if self.recipe.flip:
            mirrored = torch.from_numpy(crop_draws(self.order, step)[rows, 3] < 0.5)
            pixels = flipped(pixels, mirrored.to(pixels.device))
        if self.recipe.rgb_shift is not None:
            shifts = self.shifts(batch.total, step)[rows]
            pixels = shifted(pixels, torch.from_numpy(shifts).float().to(pixels.device))
        images = self.normalised(pixels)
        if self.recipe.mixup is None and self.recipe.cutmix is None:
            return images, Targets(batch.labels)
        return mixed(images, batch.labels, rows, self.mixture(batch.total, step))

    def shifts(self, total: int, step: int) -> npt.NDArray[np.float64]:
        """Grey levels for each channel of each image, (N, C)."""
        place = self.order.place(step)
        draws = generator(self.order.seed, Stream.COLOUR, *place).normal(
            0, self.recipe.rgb_shift or 0.0, (total, len(self.axes))
        )
        shifts: npt.NDArray[np.float64] = draws @ self.axes.T
        return shifts

    def mixture(self, total: int, step: int) -> Mixture:
        """How each image is mixed with its neighbour; two neighbours have the same draws."""
        random = generator(self.order.seed, Stream.MIXTURE, *self.order.place(step))
        pairs = -(-total // 2)
        mixup, cutmix = self.recipe.mixup, self.recipe.cutmix
        cut = random.random(pairs) < (0.5 if mixup and cutmix else 1.0 if cutmix else 0.0)
        share = np.where(
            cut,
            random.beta(cutmix or 1, cutmix or 1, pairs),
            random.beta(mixup or 1, mixup or 1, pairs),
        )
        place = random.random((pairs, 2))
        return Mixture(*(np.repeat(each, 2, axis=0)[:total] for each in (cut, share, place)))


def flipped(pixels: Tensor, mirrored: Tensor) -> Tensor:
    """The images (N, C, H, W), those that are `mirrored` (N,) left to right."""
    if pixels.is_cuda:
        return torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(3), pixels)
    # A processor takes a tenth of the time when only those that are mirrored are turned.
    images = zip(pixels.permute(0, 2, 3, 1), mirrored.tolist(), strict=True)
    rows = [image.flip(1) if is_mirrored else image for image, is_mirrored in images]
    return torch.stack(rows).permute(0, 3, 1, 2) if rows else pixels


def shifted(pixels: Tensor, shifts: Tensor) -> Tensor:
    """The images (N, C, H, W) with so many grey levels (N, C) added, kept from 0 to 255."""
    return (pixels.float() + shifts[:, :, None, None]).clamp_(0, GREATEST)


# Mixtures of two


@dataclass(frozen=True)
class Mixture:
    """For each of N images: whether its neighbour is pasted or laid over, the image's own share,
    and where in [0, 1)² the middle of what is pasted lies, (N, 2).
    """

    is_cut: npt.NDArray[np.bool_]
    share: npt.NDArray[np.float64]
    place: npt.NDArray[np.float64]


def mixed(
    images: Tensor, labels: Tensor, rows: npt.NDArray[np.int64], mixture: Mixture
) -> tuple[Tensor, Targets]:
    """Each image mixed with its neighbour: the rows 2i and 2i + 1 are neighbours.

    An image whose neighbour is not there stays as it is. Sources: Zhang et al. (2018), formulas
    1; Yun et al. (2019), formulas 1 and 2.
    """
    height, width = images.shape[2:]
    partner = partners(rows)
    share, is_cut = mixture.share[rows], mixture.is_cut[rows]
    boxes = pasted(share, mixture.place[rows], height, width)
    top, bottom, left, right = boxes.T
    left_over = 1 - (bottom - top) * (right - left) / (height * width)
    alone = partner == np.arange(len(rows))
    share = np.where(alone, 1.0, np.where(is_cut, left_over, share))
    device = images.device
    other, cut, edges = (torch.from_numpy(each).to(device) for each in (partner, is_cut, boxes))
    shares = torch.from_numpy(share).to(device, torch.float32)
    own = torch.where(
        cut[:, None, None], (~covered(edges, height, width)).float(), shares[:, None, None]
    )
    weights = own[:, None]
    result = weights * images + (1 - weights) * images[other]
    return result, Targets(labels, labels[other], shares)


def partners(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of these rows, which rise, the place of its neighbour; its own where that lacks."""
    places = np.minimum(np.searchsorted(rows, rows ^ 1), len(rows) - 1)
    return np.where(rows[places] == rows ^ 1, places, np.arange(len(rows)))


def pasted(
    share: npt.NDArray[np.float64], place: npt.NDArray[np.float64], height: int, width: int
) -> npt.NDArray[np.int64]:
    """Top, bottom, left and right (N, 4) of rectangles of 1 − share of an image's area around
    a place, cut off at its edges.
    """
    side = np.sqrt(1 - share)
    edges = []
    for axis, length in enumerate((height, width)):
        middle, half = (place[:, axis] * length).astype(int), (side * length / 2).astype(int)
        edges += [np.clip(middle - half, 0, length), np.clip(middle + half, 0, length)]
    return np.stack(edges, axis=1)


def covered(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie within each rectangle (N, 4) of `pasted`, (N, H, W)."""
    top, bottom, left, right = (edge[:, None] for edge in boxes.T)
    rows, columns = (torch.arange(length, device=boxes.device) for length in (height, width))
    vertical, horizontal = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    inside: Tensor = vertical[:, :, None] & horizontal[:, None, :]
    return inside
