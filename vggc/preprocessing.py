"""From an image file to what a net is given. Imports no torch: inference repeats it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError, features

Pixels = npt.NDArray[np.uint8]

IMAGE_CHANNELS = (1, 3)
"""Of a net that takes images: grey or RGB."""

FORMATS = {
    ".apng": "PNG",
    ".bmp": "BMP",
    ".dib": "DIB",
    ".gif": "GIF",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".mpo": "JPEG",
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".pjp": "JPEG",
    ".pjpeg": "JPEG",
    ".png": "PNG",
    ".pnm": "PPM",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
} | ({".avif": "AVIF"} if features.check("avif") else {})
"""The endings of file names that are images, and their formats for Pillow, of which some builds
have no AVIF. Pillow's other formats are never tried: some of them start programs (EPS)."""

MAX_PIXELS = 89_478_485
"""The most pixels in an image, Pillow's own limit."""

MAX_SIDE = 1 << 15
"""The most pixels in a side that an image is resized to. A net's input has at most half of
that; what it is cut from may be larger."""

LEAST_STD, MOST = 1e-12, 1e12
"""Means and deviations within these leave float32 finite."""

SIXTEEN_BITS = 65_535

MAX_ASPECT = 32
"""The longer side of an image over the shorter one."""


class BrokenImageError(Exception):
    """A file that is no usable image; the message says why."""


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before a net sees it, outside of augmentation.

    1. It is resized in proportion (bilinear, antialiased) until its shorter side has
       `scale` pixels; with `scale` None, until it just covers `size`.
    2. The centre of `size` (H, W) is cut out.
    3. Each channel's values v from 0 to 255 become (v / 255 − mean) / std.

    `mean` and `std` hold one value a channel: three for RGB, one for grey. They are those
    of all pixels of the training images.
    Source: Simonyan & Zisserman (2015), section 2.1, for the subtraction of the mean.
    """

    size: tuple[int, int]
    scale: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def problem(self, input_shape: tuple[int, ...]) -> str | None:
        """What keeps this from preparing images for a net's input (C, H, W), if anything."""
        channels, *size = input_shape
        sides = (*self.size, 1 if self.scale is None else self.scale)
        problems = {
            "size is not the height and width of the net's input": self.size != tuple(size),
            f"size and scale are not from 1 to {MAX_SIDE}": not all(
                1 <= side <= MAX_SIDE for side in sides
            ),
            "scale is less than a side of size, which images must cover": (
                self.scale is not None and self.scale < max(self.size)
            ),
            "mean and std do not hold one value for each channel": not (
                channels == len(self.mean) == len(self.std)
            ),
            "mean is out of range": not all(abs(value) <= MOST for value in self.mean),
            "std is not above 0, or out of range": not all(
                LEAST_STD <= value <= MOST for value in self.std
            ),
        }
        found = next((text for text, is_so in problems.items() if is_so), None)
        return found and f"preprocessing: {found}"

    def read(self, path: Path) -> npt.NDArray[np.float32]:
        """The image in a file as a net's input, float32 (1, C, H, W).

        Raises:
            BrokenImageError: the file is no usable image.
        """
        image = decode(path, len(self.mean))
        return self.normalise(centre(resize(image, self.scale, self.size), self.size)[None])

    def normalise(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Pixels (N, H, W, C) from 0 to 255 as a net's input, float32 (N, C, H, W)."""
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
        values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def decode(
    file: Path | BinaryIO, channels: int, least: tuple[int | None, tuple[int, int]] | None = None
) -> Image.Image:
    """The image in a file, RGB for three channels and grey for one.

    Pixels as they are stored: orientation tags are not applied, transparency is dropped. With
    `least` = (scale, size) of `resize`, a JPEG may come at a half, a quarter or an eighth of its
    size, as long as it need not be enlarged; that takes a fraction of the time.

    Raises:
        BrokenImageError: the file cannot be read, is too large or not an image, or the
            net takes neither 1 nor 3 channels.
    """
    if channels not in IMAGE_CHANNELS:
        raise BrokenImageError(f"images have 1 or 3 channels, this net takes {channels}")
    try:
        with Image.open(file, formats=tuple(set(FORMATS.values()))) as image:
            check_size(*image.size)
            if least is not None:
                image.draft(None, target_size(image.size, *least))
            image.load()
            wanted, usual = "RGB" if channels == 3 else "L", eight_bits(image)
            return usual if usual.mode == wanted else usual.convert(wanted)
    except BrokenImageError:
        raise
    except Exception as fault:  # whatever a decoder does on hostile bytes
        raise BrokenImageError(reason(fault)) from None


def eight_bits(image: Image.Image) -> Image.Image:
    """The image with values from 0 to 255: 16-bit grey, which Pillow would clip, scaled down.

    Raises:
        BrokenImageError: its values have no known range.
    """
    if image.mode not in ("I", "F", "I;16", "I;16L", "I;16B"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > SIXTEEN_BITS:
        raise BrokenImageError("its values are neither of 8 nor of 16 bits")
    return Image.fromarray((values / (SIXTEEN_BITS / 255)).round().astype(np.uint8))


def check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BrokenImageError(f"{width}x{height} pixels are more than {MAX_PIXELS:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BrokenImageError(f"{width}x{height} pixels: too long and narrow")


def reason(fault: Exception) -> str:
    """A decoder's complaint in one short line, without the file's path."""
    match fault:
        case UnidentifiedImageError():
            return "not an image"
        case OSError(strerror=str(text)):
            return text
        case _:
            return (str(fault).splitlines() or [type(fault).__name__])[0][:100]


def resize(image: Image.Image, scale: int | None, size: tuple[int, int]) -> Pixels:
    """The image resized in proportion, uint8 (H, W, C).

    Its shorter side gets `scale` pixels; with None, it just covers `size` (H, W).
    """
    target = target_size(image.size, scale, size)
    if target != image.size:
        image = image.resize(target, Image.Resampling.BILINEAR)
    return pixels_of(image)


def target_size(
    image: tuple[int, int], scale: int | None, size: tuple[int, int]
) -> tuple[int, int]:
    """Width and height that `resize` gives an image of a width and height."""
    (width, height), (least_height, least_width) = image, size
    cover = max(least_height / height, least_width / width)
    factor = scale / min(width, height) if scale else cover
    return max(least_width, round(width * factor)), max(least_height, round(height * factor))


def pixels_of(image: Image.Image) -> Pixels:
    """The values of an image, uint8 (H, W, C)."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def centre(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The middle `size` (H, W) of an image (H, W, C)."""
    top, left = ((have - want) // 2 for have, want in zip(pixels.shape, size, strict=False))
    return crop(pixels, top, left, size)


def crop(pixels: Pixels, top: int, left: int, size: tuple[int, int]) -> Pixels:
    return pixels[top : top + size[0], left : left + size[1]]
