"""From an image file to what a net is given, in training as where it is deployed."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError, features
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile

from vggc_runtime.files import open_file
from vggc_runtime.greys import (
    KINDS,
    OVER,
    SIXTEEN_BITS,
    UNKNOWN,
    Greys,
    are_lost,
    has_deep_colours,
    in_eight_bits,
    is_negative,
    white_by_the_file,
    white_of_one,
)

Pixels = npt.NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""
Fit: TypeAlias = Literal["crop", "squash", "pad"]
"""How a picture comes to have the size of a net's input: see `Preprocessing`."""
Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]
"""How pixels of a resized picture are made of others."""
ChannelOrder: TypeAlias = Literal["rgb", "bgr"]
"""In which order a net takes the colours."""

IMAGE_CHANNELS = (1, 3)
"""The channels that a net of images may take: grey or RGB."""

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

KNOWN = tuple(dict.fromkeys(FORMATS.values()))
"""Pillow's names of these formats. Those stand first that it has imported from the start: where it
comes to another one it imports all that it knows."""

MAX_PIXELS = 89_478_485
"""The most pixels in an image, Pillow's own limit."""

MAX_SIDE = 1 << 15
"""The most pixels in a side that an image is resized to. A net's input has at most half of
that; what it is cut from may be larger."""

LEAST_STD, MOST = 1e-12, 1e12
"""Means and deviations within these leave float32 finite."""

WHITE: Colour = (255, 255, 255)
"""What transparent pictures are laid over unless told: white, as browsers and viewers do it."""

FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
"""Pillow's filters. All but the nearest are widened where pictures shrink, so that every pixel
counts (antialiasing)."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a picture upright whose orientation has this number.
Source: Exif 2.32, 4.6.4, tag 0x0112."""

ON_THEIR_SIDE = (5, 6, 7, 8)
"""The orientations that exchange width and height."""

MAX_ASPECT = 32
"""The longer side of an image over the shorter one."""


class BrokenImageError(Exception):
    """A file that is no usable image; the message says why."""


class UnclearGreyError(BrokenImageError):
    """Nothing says which value is white in a picture whose `brightest` value is this."""

    def __init__(self, reason: str, brightest: Greys) -> None:
        super().__init__(reason)
        self.brightest = brightest


@dataclass(frozen=True)
class Opened:
    """A picture of 8 bits, and its largest value where that was of a deep grey whose file does not
    say what is white.
    """

    image: Image.Image
    brightest: Greys = UNKNOWN


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before a net sees it, outside of augmentation.

    1. It is opened as `decode` says: upright, transparent parts laid over the `background`; in
       greys of more than eight bits `white` is white.
    2. It is brought to `size` (H, W) by `interpolation`, as `fit` says:
       "crop": resized in proportion until its shorter side has `scale` pixels; with `scale` None,
       until it just covers `size`. Of that the centre is cut out.
       "squash": resized to `size` at once, whatever its proportion.
       "pad": resized in proportion until it just lies within `size`, with the `background` on both
       sides.
    3. The colours are put into `order`.
    4. Each channel's values v from 0 to 255 become (v / 255 − mean) / std.

    `mean` and `std` hold one value a channel, in `order`: three of colours, one of grey. Those of a
    run are those of all pixels of its training images.
    Source: Simonyan & Zisserman (2015), section 2.1, for the subtraction of the mean.
    """

    size: tuple[int, int]
    scale: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: Greys = UNKNOWN
    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"
    background: Colour = WHITE
    order: ChannelOrder = "rgb"

    def problem(self, input_shape: tuple[int, ...]) -> str | None:
        """What keeps this from preparing images for a net's input (C, H, W), if anything."""
        channels, *size = input_shape
        sides = (*self.size, 1 if self.scale is None else self.scale)
        problems = {
            "size is not the height and width of the net's input": self.size != tuple(size),
            f"size and scale are not from 1 to {MAX_SIDE}": not all(
                1 <= side <= MAX_SIDE for side in sides
            ),
            "fit is none of " + ", ".join(get_args(Fit)): self.fit not in get_args(Fit),
            "scale is said, which pictures have that are cut": (
                self.fit != "crop" and self.scale is not None
            ),
            "scale is less than a side of size, which images must cover": (
                self.scale is not None and self.scale < max(self.size)
            ),
            "interpolation is none of " + ", ".join(FILTERS): self.interpolation not in FILTERS,
            "background is not three numbers from 0 to 255": not (
                len(self.background) == 3 and all(0 <= value <= 255 for value in self.background)
            ),
            "order is none of " + ", ".join(get_args(ChannelOrder)): (
                self.order not in get_args(ChannelOrder)
            ),
            "order is that of three channels": self.order == "bgr" and channels != 3,
            "mean and std do not hold one value for each channel": not (
                channels == len(self.mean) == len(self.std)
            ),
            "mean is out of range": not all(abs(value) <= MOST for value in self.mean),
            "std is not above 0, or out of range": not all(
                LEAST_STD <= value <= MOST for value in self.std
            ),
            "white is out of range": not all(
                value is None or 1 <= value <= SIXTEEN_BITS
                for value in (self.white.whole, self.white.real)
            ),
        }
        found = next((text for text, is_so in problems.items() if is_so), None)
        return found and f"preprocessing: {found}"

    def read(self, path: Path) -> npt.NDArray[np.float32]:
        """The image in a file as a net's input, float32 (1, C, H, W).

        Raises:
            BrokenImageError: the file is no usable image.
        """
        return self.of(self.open(path))

    def open(self, file: Path | BinaryIO) -> Image.Image:
        """The image in a file as `decode` gives it for this net.

        Raises:
            BrokenImageError: the file is no usable image.
        """
        return opened(file, len(self.mean), None, self.look).image

    @property
    def look(self) -> Look:
        """What counts where a picture is opened."""
        return Look(self.white, self.background)

    def of_picture(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """An image that the caller has opened as a net's input, float32 (1, C, H, W): the same as
        of its file.

        Raises:
            BrokenImageError: it is no usable image.
        """
        return self.of(self.seen(image))

    def seen(self, image: Image.Image) -> Image.Image:
        """An image that the caller has opened, as `decode` gives that of its file.

        Raises:
            BrokenImageError: it is no usable image.
        """
        channels = len(self.mean)
        require_channels(channels)
        try:
            return viewed(image, channels, self.look).image
        except BrokenImageError:
            raise
        except Exception as fault:  # whatever a decoder does on hostile bytes
            raise BrokenImageError(reason(fault)) from None

    def of(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """An image that `open` gave as a net's input, float32 (1, C, H, W)."""
        return self.normalise(centre(self.whole(image), self.size)[None])

    def whole(self, image: Image.Image) -> Pixels:
        """An image that `open` gave at the scale at which a net sees it, uint8 (H, W, C): of its
        centre the net sees `size`. One that is padded has its padding.
        """
        how = self.fit, self.interpolation, self.background
        return resize(image, self.scale, self.size, *how)

    def normalise(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Pixels (N, H, W, C) from 0 to 255, in colours RGB, as a net's input, float32 (N, C, H,
        W).
        """
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
        ordered = pixels[..., ::-1] if self.order == "bgr" else pixels
        values = (ordered.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Look:
    """What counts where a picture is opened: what is white in greys of more than eight bits,
    and what transparent parts are laid over.
    """

    white: Greys = UNKNOWN
    background: Colour = WHITE


def decode(
    file: Path | BinaryIO,
    channels: int,
    least: tuple[int | None, tuple[int, int]] | None = None,
    white: Greys = UNKNOWN,
    background: Colour = WHITE,
) -> Image.Image:
    """The image in a file as a viewer shows it, RGB for three channels and grey for one.

    It is turned upright as its orientation says, and laid over the `background` where it is
    transparent. Greys of more than eight bits have `white` as white, unless their file says
    otherwise. Of several images in a file it is the first.

    With `least` = (scale, size) of `resize`, a JPEG may come at a half, a quarter or an eighth of
    its size, as long as it need not be enlarged; that takes a fraction of the time.

    Raises:
        BrokenImageError: the file cannot be read, is too large or not an image, or the
            net takes neither 1 nor 3 channels.
    """
    return opened(file, channels, least, Look(white, background)).image


def opened(
    file: Path | BinaryIO,
    channels: int,
    least: tuple[int | None, tuple[int, int]] | None,
    look: Look,
) -> Opened:
    """`decode`, which tells of deep greys, too.

    Raises:
        UnclearGreyError: nothing says which of their values is white.
        BrokenImageError: as `decode`.
    """
    require_channels(channels)
    try:
        with ExitStack() as stack:
            source = stack.enter_context(open_file(file)) if isinstance(file, Path) else file
            image = stack.enter_context(Image.open(source, formats=KNOWN))
            return viewed(image, channels, look, least)
    except BrokenImageError:
        raise
    except Exception as fault:  # whatever a decoder does on hostile bytes
        raise BrokenImageError(reason(fault)) from None


def viewed(
    image: Image.Image,
    channels: int,
    look: Look,
    least: tuple[int | None, tuple[int, int]] | None = None,
) -> Opened:
    """An image, opened and perhaps not loaded yet, as `decode` gives it.

    Raises:
        UnclearGreyError, BrokenImageError: as `opened`; a decoder may raise anything else.
    """
    check_size(*image.size)
    if least is not None and isinstance(image, JpegImageFile):
        draft(image, least)
    found = flat(image, look)
    turn = TURNS.get(orientation(image))
    upright = found.image if turn is None else found.image.transpose(turn)
    wanted = "RGB" if channels == 3 else "L"
    if upright.mode == "LAB":  # which Pillow makes grey by way of RGB alone
        upright = upright.convert("RGB")
    usual = upright if upright.mode == wanted else upright.convert(wanted)
    return Opened(usual, found.brightest)


def draft(image: JpegImageFile, least: tuple[int | None, tuple[int, int]]) -> None:
    """Has a JPEG decoded at a fraction of its size, where it is still large enough."""
    turned = orientation(image) in ON_THEIR_SIDE
    size = target_size(image.size[::-1] if turned else image.size, *least)
    image.draft(None, size[::-1] if turned else size)


def orientation(image: Image.Image) -> int:
    """How a picture lies, 1 being upright, also where what should say it is damaged."""
    with suppress(Exception):
        return int(image.getexif().get(Base.Orientation, 1))
    return 1


def flat(image: Image.Image, look: Look) -> Opened:
    """An image, not loaded yet, in 8 bits and without transparency.

    Raises:
        UnclearGreyError, BrokenImageError: as `opened`.
    """
    if image.mode in KINDS:
        return deep_grey(image, look)
    may_be_lost = has_deep_colours(image)
    image.load()
    if may_be_lost and are_lost(image):
        raise BrokenImageError("its colours of 16 bits are below 4,096: save them in 8 bits")
    if not image.has_transparency_data:
        return Opened(image)
    clear = image.convert("RGBA")
    backdrop = Image.new("RGBA", clear.size, (*look.background, 255))
    return Opened(Image.alpha_composite(backdrop, clear))


def deep_grey(image: Image.Image, look: Look) -> Opened:
    """A grey image of more than eight bits, not loaded yet, in 8 bits.

    Raises:
        UnclearGreyError: nothing says which value is white.
        BrokenImageError: there are values that no grey has.
    """
    kind, declared, negative = KINDS[image.mode], white_by_the_file(image), is_negative(image)
    image.load()
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (isfinite(low) and isfinite(high)):
        raise BrokenImageError("it holds values that are not finite")
    found = white_of_one(kind, high, Greys.only(kind, declared) if declared else look.white)
    if low < 0 and (kind == "whole" or -low > (OVER - 1) * max(high, 1)):
        raise BrokenImageError(f"its values go down to {low:,.6g}, and black is 0")
    brightest = UNKNOWN if declared else Greys.only(kind, high)
    if isinstance(found, str):
        raise UnclearGreyError(found, brightest)
    grey = in_eight_bits(values, found, negative=negative)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.paste(in_grey(look.background), mask=Image.fromarray(values == key))
    return Opened(grey, brightest)


def require_channels(channels: int) -> None:
    """Raises: BrokenImageError where a net does not take images."""
    if channels not in IMAGE_CHANNELS:
        raise BrokenImageError(f"images have 1 or 3 channels, this net takes {channels}")


def check_size(width: int, height: int) -> None:
    """Raises: BrokenImageError where an image has too many pixels, or is too long and narrow."""
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


def resize(
    image: Image.Image,
    scale: int | None,
    size: tuple[int, int],
    fit: Fit = "crop",
    interpolation: Interpolation = "bilinear",
    background: Colour = WHITE,
) -> Pixels:
    """All of an image, resized as `Preprocessing` says, rows first, then columns, uint8 (H, W, C);
    padded where it is to be.
    """
    width, height = target_size(image.size, scale, size, fit)
    # Rounded in between, so that the order counts. Pillow's own depends on its version: from 13 on
    # it begins with the columns where these lose more than twice as many pixels as the rows.
    for each in ((width, image.height), (width, height)):
        if each != image.size:
            image = image.resize(each, FILTERS[interpolation])
    pixels = pixels_of(image)
    return padded(pixels, size, background) if fit == "pad" else pixels


def target_size(
    image: tuple[int, int], scale: int | None, size: tuple[int, int], fit: Fit = "crop"
) -> tuple[int, int]:
    """Width and height that `resize` gives an image of a width and height."""
    (width, height), (wanted_height, wanted_width) = image, size
    factors = wanted_height / height, wanted_width / width
    match fit:
        case "crop":
            factor = scale / min(width, height) if scale else max(factors)
            whole = round(width * factor), round(height * factor)
            return max(wanted_width, whole[0]), max(wanted_height, whole[1])
        case "squash":
            return wanted_width, wanted_height
        case "pad":
            factor = min(factors)
            whole = max(1, round(width * factor)), max(1, round(height * factor))
            return min(wanted_width, whole[0]), min(wanted_height, whole[1])


def pixels_of(image: Image.Image) -> Pixels:
    """The values of an image, uint8 (H, W, C)."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def padded(pixels: Pixels, size: tuple[int, int], background: Colour) -> Pixels:
    """An image (H, W, C) in the middle of a larger one of a `size` (H, W)."""
    height, width, channels = pixels.shape
    colour = background if channels == 3 else in_grey(background)
    whole = np.full((*size, channels), colour, np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    whole[top : top + height, left : left + width] = pixels
    return whole


def in_grey(colour: Colour) -> int:
    """The grey that pictures have in place of a colour, from 0 to 255."""
    grey = Image.new("RGB", (1, 1), colour).convert("L")
    return int(np.asarray(grey)[0, 0])


def centre(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The middle `size` (H, W) of an image (H, W, C)."""
    top, left = ((have - want) // 2 for have, want in zip(pixels.shape, size, strict=False))
    return crop(pixels, top, left, size)


def crop(pixels: Pixels, top: int, left: int, size: tuple[int, int]) -> Pixels:
    """The part of pixels (H, W, C), of a `size` (height, width), from a row and a column on."""
    return pixels[top : top + size[0], left : left + size[1]]
