"""What happens to a batch on the device: mirrored, shifted in colour, normalised, erased, mixed.

All of it is drawn by the seed and the step for the images of all processes together, each of
which takes the rows that are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from vggc.data.crops import TRIES, CropWindow
from vggc.data.draws import Stream, generator
from vggc.data.loader import Batch, crop_draws, draws_of
from vggc.data.order import Order
from vggc.data.stores import Numbers
from vggc.data.vary import Jitter, RandomOps, Rotation, Variation
from vggc.recipe.augment import Erasing
from vggc.recipe.train import Recipe
from vggc.training.boxes import ObjectsSeen
from vggc_runtime.preprocessing import Preprocessing

GREATEST = 255.0


def window_of(recipe: Recipe) -> CropWindow | None:
    """What of a picture the recipe's crops show, if they are parts of whole pictures."""
    crop = recipe.resized_crop
    return CropWindow(crop.area, crop.ratio) if crop else None


def changes_of(recipe: Recipe) -> tuple[Variation, ...]:
    """What the recipe does to each crop before it is put into a batch."""
    rotate, jitter, ops = recipe.rotate, recipe.colour_jitter, recipe.randaugment
    found: list[Variation] = []
    if rotate is not None:
        found.append(Rotation(rotate))
    if jitter:
        strengths = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
        found.append(Jitter(*strengths))
    if ops:
        found.append(RandomOps(ops.ops, ops.magnitude))
    return tuple(found)


@dataclass(frozen=True)
class Targets:
    """What the scores of N images are to say: the class `labels` (N,) with the shares `share`
    (N,), and `others` (N,) with the rest. Without a mixture `others` is None. `weights` (classes,)
    are how much each class counts. `objects` are what boxes are to be given of.
    """

    labels: Tensor
    others: Tensor | None = None
    share: Tensor | None = None
    weights: Tensor | None = None
    objects: ObjectsSeen | None = None

    def loss(self, logits: Tensor, smoothing: float = 0.0) -> Tensor:
        """The cross-entropy of each image in nats (N,), from its scores (N, classes), times the
        weight of its class.

        With smoothing the loss of each class has the weight of that class: see
        `torch.nn.CrossEntropyLoss`.
        """
        losses = self.cross_entropy(logits, self.labels, smoothing)
        if self.others is None or self.share is None:
            return losses
        other = self.cross_entropy(logits, self.others, smoothing)
        return self.share * losses + (1 - self.share) * other

    def cross_entropy(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        """The loss of each image (N,), weighted by class where the recipe does."""
        return functional.cross_entropy(
            logits, labels, self.weights, reduction="none", label_smoothing=smoothing
        )

    def part(self, rows: slice) -> Targets:
        """The targets of some of the images."""
        objects = self.objects.part(rows) if self.objects else None
        found = replace(self, labels=self.labels[rows], objects=objects)
        if self.others is None or self.share is None:
            return found
        return replace(found, others=self.others[rows], share=self.share[rows])


@dataclass(frozen=True)
class Weighing:
    """How much an image of each class counts, (classes,), and the `labels` (N,) of all images."""

    weights: npt.NDArray[np.float64]
    labels: Numbers

    @classmethod
    def of(cls, recipe: Recipe, labels: Numbers, num_classes: int) -> Weighing | None:
        """The weighing that the recipe asks for; None if all classes count the same.

        `balanced` weights are N / (classes · Nc), Nc being the images of a class c: those of each
        class together count as much as those of any other.
        Source: King & Zeng (2001), section 4.2; scikit-learn's `class_weight="balanced"`.
        """
        if recipe.class_weights is None:
            return None
        if not isinstance(recipe.class_weights, str):
            return cls(np.array(recipe.class_weights), labels)
        counts = np.bincount(labels, minlength=num_classes)
        return cls(len(labels) / (num_classes * counts), labels)

    def among(self, indices: Numbers) -> npt.NDArray[np.float64]:
        """The weights of the classes over their mean among the images of a step, so that the sum
        of its weighted losses over their number is the weighted mean.
        """
        mean: float = self.weights[self.labels[indices]].mean()
        return self.weights / mean


@dataclass(frozen=True)
class Normaliser:
    """Pixels as `Preprocessing` says, on one device: RGB, and grey where there is one channel."""

    mean: Tensor
    std: Tensor
    is_bgr: bool = False

    @classmethod
    def of(cls, preprocessing: Preprocessing, device: torch.device) -> Normaliser:
        """The normaliser of a run's mean and deviation, which are shares of the greatest value."""
        mean, std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1) * GREATEST
            for values in (preprocessing.mean, preprocessing.std)
        )
        return cls(mean, std, preprocessing.order == "bgr")

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (N, C, H, W) from 0 to 255 as a net's input, float32."""
        values = self.reordered(pixels).to(torch.float32, copy=True)
        count, channels, height, width = values.shape
        # Channels last, a row of pixels is numbers in a row, as vector instructions want them.
        rows = values.permute(0, 2, 3, 1).reshape(count, height, width * channels)
        rows.sub_(self.mean.view(-1).repeat(width)).div_(self.std.view(-1).repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)

    def reordered(self, values: Tensor) -> Tensor:
        """What belongs to the channels (N, C, …) of pixels as that of the net's, and back."""
        return values.flip(1) if self.is_bgr else values


@dataclass(frozen=True)
class Augmentation:
    """How the recipe varies the images of a training in this order.

    `axes` (C, C) are the principal axes of the colours in grey levels: see `colour_axes`.
    """

    recipe: Recipe
    order: Order
    axes: npt.NDArray[np.float64]
    normalised: Normaliser
    weighing: Weighing | None = None

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, Targets]:
        """The batch of a step, which is on the device: a net's input, and what it is to say."""
        pixels, rows = batch.images, batch.rows.cpu().numpy()
        mirrored = None
        if self.recipe.flip:
            mirrored = torch.from_numpy(crop_draws(self.order, step)[rows, 3] < 0.5)
            pixels = flipped(pixels, mirrored.to(pixels.device))
        if self.recipe.rgb_shift is not None:
            shifts = self.shifts(batch.total, step)[rows]
            pixels = shifted(pixels, torch.from_numpy(shifts).float().to(pixels.device))
        images = self.normalised(pixels)
        if self.recipe.erasing:
            boxes = erasures(self.recipe.erasing, self.order, step, images.shape[2:])[rows]
            images = erased(images, torch.from_numpy(boxes).to(images.device))
        targets = Targets(batch.labels)
        if self.recipe.mixup is not None or self.recipe.cutmix is not None:
            images, targets = mixed(images, batch.labels, rows, self.mixture(batch.total, step))
        if self.weighing:
            weights = self.weighing.among(self.order.indices(*self.order.place(step)))
            there = torch.from_numpy(weights).to(images.device, torch.float32)
            targets = replace(targets, weights=there)
        if batch.objects and self.recipe.boxes:
            seen = ObjectsSeen.of(batch.objects, self.recipe.boxes, mirrored, images.device)
            targets = replace(targets, objects=seen)
        return images, targets

    def unvaried(self, batch: Batch) -> tuple[Tensor, Targets]:
        """A batch of held-out images, which is on the device: as a net sees them when it is tested,
        and what it is to say.
        """
        images, targets = self.normalised(batch.images), Targets(batch.labels)
        if batch.objects and self.recipe.boxes:
            seen = ObjectsSeen.of(batch.objects, self.recipe.boxes, device=images.device)
            targets = replace(targets, objects=seen)
        return images, targets

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
        alphas = [each.alpha if each else 1.0 for each in (cutmix, mixup)]
        share = np.where(cut, *(random.beta(alpha, alpha, pairs) for alpha in alphas))
        place = random.random((pairs, 2))
        chances = [each.chance if each else 0.0 for each in (cutmix, mixup)]
        alone = random.random(pairs) >= np.where(cut, *chances)
        cut, share = cut & ~alone, np.where(alone, 1.0, share)
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


# Erased


def erasures(
    erasing: Erasing, order: Order, step: int, size: Sequence[int]
) -> npt.NDArray[np.int64]:
    """Top, bottom, left and right (N, 4) of what is erased of each image of a step, of a `size`
    (H, W); all 0 where nothing is.
    """
    tries = draws_of(order, Stream.ERASING, step, TRIES + 1, 3)
    (least, most), (low, high) = erasing.area, np.log(erasing.ratio)
    areas = size[0] * size[1] * (least + tries[:, 1:, 0] * (most - least))
    ratios = np.exp(low + tries[:, 1:, 1] * (high - low))
    sides = np.rint(np.sqrt(np.stack([areas * ratios, areas / ratios], axis=2)))
    fits = ((sides >= 1) & (sides < np.asarray(size))).all(axis=2)
    first = sides[np.arange(len(sides)), fits.argmax(axis=1)]
    happens = fits.any(axis=1) & (tries[:, 0, 0] < erasing.chance)
    places = (tries[:, 0, 1:] * (np.asarray(size) - first + 1)).astype(int)
    (top, left), (height, width) = places.T, first.astype(int).T
    boxes = np.stack([top, top + height, left, left + width], axis=1)
    return np.where(happens[:, None], boxes, 0)


def erased(images: Tensor, boxes: Tensor) -> Tensor:
    """The normalised images (N, C, H, W), each with a rectangle (N, 4) of the mean colour.

    They lie in memory as before, on which it depends what dropout drops of them.
    """
    inside = covered(boxes, *images.shape[2:])
    return torch.where(inside[:, None], 0.0, images)


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
