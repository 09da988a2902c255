"""Crops varied one by one, before they are put into batches: turned, recoloured.

Pillow does the work on bytes, in the processes that decode. Each draw is one number in [0, 1) of a
stream of its own, for each image of a step, so that a crop is the same whoever makes it.
RandAugment and the jitter of colours are those of torchvision, which are defined on Pillow, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vggc.data.draws import Stream
from vggc_runtime.preprocessing import Pixels, pixels_of

PillowImage: TypeAlias = Image.Image
Draws: TypeAlias = Sequence[float]


class Variation(Protocol):
    """Something that happens to a crop, as `num_draws` numbers in [0, 1) of a stream say."""

    stream: ClassVar[Stream]

    @property
    def num_draws(self) -> int:
        """How many random numbers from 0 to 1 an image takes."""

    def __call__(self, image: PillowImage, draws: Draws) -> PillowImage: ...


def changed(pixels: Pixels, changes: Sequence[Variation], draws: Sequence[Draws]) -> Pixels:
    """Pixels uint8 (H, W, C) after these changes, each with its own draws."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    for change, drawn in zip(changes, draws, strict=True):
        image = change(image, drawn)
    return pixels_of(image)


def within(draw: float, low: float, high: float) -> float:
    """A draw from [0, 1) as one from `low` to `high`."""
    return low + draw * (high - low)


# Turned


@dataclass(frozen=True)
class Rotation:
    """Turns by an angle drawn evenly from −`degrees` to `degrees` about the middle, bilinear."""

    degrees: float

    stream: ClassVar[Stream] = Stream.ROTATION
    num_draws: ClassVar[int] = 1

    def __call__(self, image: PillowImage, draws: Draws) -> PillowImage:
        angle = within(draws[0], -self.degrees, self.degrees)
        return image.rotate(angle, Image.Resampling.BILINEAR)


# Colours

CIRCLE = 255
"""The hue at which Pillow's circle of colours is back at red, as at 0."""


@dataclass(frozen=True)
class Jitter:
    """Varies colours: see `vggc.recipe.augment.ColourJitter`."""

    brightness: float
    contrast: float
    saturation: float
    hue: float

    stream: ClassVar[Stream] = Stream.JITTER
    num_draws: ClassVar[int] = 8

    def __call__(self, image: PillowImage, draws: Draws) -> PillowImage:
        """The image in other colours: four draws decide the order of steps, four the strengths."""
        steps = (
            (self.brightness, brightened),
            (self.contrast, contrasted),
            (self.saturation, saturated),
        )
        for index in np.argsort(draws[:4], kind="stable").tolist():
            draw = draws[4 + index]
            if index == len(steps):
                image = turned_hue(image, within(draw, -self.hue, self.hue)) if self.hue else image
                continue
            strength, change = steps[index]
            if strength:
                image = change(image, within(draw, max(0.0, 1 - strength), 1 + strength))
        return image


def brightened(image: PillowImage, factor: float) -> PillowImage:
    """The image with its brightness times `factor`."""
    return ImageEnhance.Brightness(image).enhance(factor)


def contrasted(image: PillowImage, factor: float) -> PillowImage:
    """The image with its contrast times `factor`."""
    return ImageEnhance.Contrast(image).enhance(factor)


def saturated(image: PillowImage, factor: float) -> PillowImage:
    """The image with its saturation times `factor`."""
    return ImageEnhance.Color(image).enhance(factor)


def sharpened(image: PillowImage, factor: float) -> PillowImage:
    """The image with its sharpness times `factor`."""
    return ImageEnhance.Sharpness(image).enhance(factor)


def turned_hue(image: PillowImage, share: float) -> PillowImage:
    """An RGB image whose hues are turned by a share of the circle."""
    hue, saturation, value = image.convert("HSV").split()
    turn = round(share * CIRCLE)
    hue = hue.point([(level + turn) % CIRCLE for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


# RandAugment

BINS = 31
"""Magnitudes run from 0 to one less."""


@dataclass(frozen=True)
class ImageOp:
    """An operation on an image and how strong it is at the greatest magnitude; `is_signed` if it
    may go the other way.
    """

    change: Callable[[PillowImage, float], PillowImage]
    strongest: float = 0.0
    is_signed: bool = False


def as_it_is(image: PillowImage, strength: float) -> PillowImage:
    """The image itself, whatever the `strength`."""
    return image


def sheared(image: PillowImage, along_x: float, along_y: float) -> PillowImage:
    """The image with each row `along_x` pixels beside the one above, columns likewise `along_y`."""
    return moved(image, (1, along_x, 0, along_y, 1, 0))


def shifted(image: PillowImage, along_x: float, along_y: float) -> PillowImage:
    """The image moved by shares of its width and height, in whole pixels rounded towards 0."""
    x, y = (int(round(s * side, 6)) for s, side in zip((along_x, along_y), image.size, strict=True))
    return moved(image, (1, 0, x, 0, 1, y))


def moved(
    image: PillowImage, matrix: tuple[float, float, float, float, float, float]
) -> PillowImage:
    """The image under an affine map, whose `matrix` (2, 3), row by row, takes places of the
    result to places of the image.
    """
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def posterized(image: PillowImage, bits: float) -> PillowImage:
    """With so many bits of each value lost."""
    return ImageOps.posterize(image, 8 - round(bits))


OPS = (
    ImageOp(as_it_is),
    ImageOp(lambda image, s: sheared(image, s, 0), 0.3, is_signed=True),
    ImageOp(lambda image, s: sheared(image, 0, s), 0.3, is_signed=True),
    ImageOp(lambda image, s: shifted(image, s, 0), 150 / 331, is_signed=True),
    ImageOp(lambda image, s: shifted(image, 0, s), 150 / 331, is_signed=True),
    ImageOp(lambda image, s: image.rotate(s), 30.0, is_signed=True),
    ImageOp(lambda image, s: brightened(image, 1 + s), 0.9, is_signed=True),
    ImageOp(lambda image, s: saturated(image, 1 + s), 0.9, is_signed=True),
    ImageOp(lambda image, s: contrasted(image, 1 + s), 0.9, is_signed=True),
    ImageOp(lambda image, s: sharpened(image, 1 + s), 0.9, is_signed=True),
    ImageOp(posterized, 4.0),
    ImageOp(lambda image, s: ImageOps.solarize(image, ceil(255 - s)), 255.0),
    ImageOp(lambda image, s: ImageOps.autocontrast(image)),
    ImageOp(lambda image, s: ImageOps.equalize(image)),
)
"""Shear and shift along x and y, turn, brightness, saturation, contrast and sharpness, posterize,
solarize, autocontrast, equalize; what comes from outside of an image is black. A grey image has no
saturation to change.

Source: Cubuk et al. (2020), figure 2, with the strengths of torchvision's `RandAugment`.
"""


@dataclass(frozen=True)
class RandomOps:
    """RandAugment: so many of `OPS`, each drawn evenly, at one magnitude of 0 to BINS − 1."""

    count: int
    magnitude: int

    stream: ClassVar[Stream] = Stream.RANDAUGMENT

    @property
    def num_draws(self) -> int:
        return 2 * self.count

    def __call__(self, image: PillowImage, draws: Draws) -> PillowImage:
        """The image after the operations: two draws decide which each is, and its direction."""
        for which, sign in zip(draws[::2], draws[1::2], strict=True):
            op = OPS[int(which * len(OPS))]
            strength = op.strongest * self.magnitude / (BINS - 1)
            image = op.change(image, -strength if op.is_signed and sign < 0.5 else strength)
        return image
