"""Pictures cut to a net's input."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import interpolate

from vggc.data.parts import Part
from vggc.data.stores import Numbers, PictureSource, UnreadableError
from vggc.data.windows import Windows, central, window_of
from vggc_runtime.greys import UNKNOWN, Greys
from vggc_runtime.preprocessing import (
    WHITE,
    BrokenImageError,
    Colour,
    Fit,
    Interpolation,
    Look,
    Opened,
    Pixels,
    Preprocessing,
    centre,
    crop,
    opened,
    pixels_of,
    resize,
    target_size,
)

MANY_PIXELS = 100
"""The pixels of a row of which half a pixel more or less at either end does not show."""


TRIES = 10
"""How often a part of a picture is drawn that may not lie within it."""

CropDraws: TypeAlias = npt.NDArray[np.float64]
"""Numbers in [0, 1)."""


class Cut(NamedTuple):
    """What was cut out of a picture, uint8 (H, W, C), and the window (4,) that it shows."""

    pixels: Pixels
    window: Windows


@dataclass(frozen=True)
class CropWindow:
    """What a random crop shows of a whole picture: a share of its `area`, and its width over its
    height as `ratio`, each from a least to a greatest: see `vggc.recipe.augment.ResizedCrop`.
    """

    area: tuple[float, float]
    ratio: tuple[float, float]

    def box(
        self, whole: tuple[int, int], tries: CropDraws, top: float, left: float
    ) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a part of so large a picture (W, H), by draws in [0, 1):
        the area and the ratio of each try (TRIES, 2), and where the part lies.
        """
        width, height = self.size(whole, tries)
        x, y = int(left * (whole[0] - width + 1)), int(top * (whole[1] - height + 1))
        return x, y, x + width, y + height

    def size(self, whole: tuple[int, int], tries: CropDraws) -> tuple[int, int]:
        """Width and height of the first part that lies within the picture; if none does, of the
        largest whose ratio is allowed.
        """
        (least, most), (narrow, wide) = self.area, np.log(self.ratio)
        areas = whole[0] * whole[1] * (least + tries[:, 0] * (most - least))
        ratios = np.exp(narrow + tries[:, 1] * (wide - narrow))
        widths, heights = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
        sizes = np.stack([widths, heights], axis=1).astype(int)
        fits = ((sizes >= 1) & (sizes <= whole)).all(axis=1)
        if fits.any():
            width, height = sizes[fits.argmax()].tolist()
            return width, height
        width, height = whole
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        return max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))


@dataclass(frozen=True)
class Framing:
    """How pictures become inputs of a `shape` (C, H, W).

    A picture's shorter side is brought to a length between the two `scales`; with None it just
    covers the input. `draft` lets a JPEG be decoded at a fraction of its size where that is large
    enough: several times faster, and pixels that differ a little from those of inference. With a
    `window` random crops are parts of whole pictures, whatever the scale, brought to the size of
    the input. In greys of more than eight bits `white` is white.

    Nets that were not trained here may want pictures otherwise: with a `fit` that is not "crop" a
    picture is brought to the size of the input as a whole, whatever the scale, and another
    `interpolation` is for whole pictures only. See `Preprocessing`.
    """

    shape: tuple[int, int, int]
    scales: tuple[int, int] | None
    draft: bool
    white: Greys = UNKNOWN
    window: CropWindow | None = None
    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"
    background: Colour = WHITE

    @classmethod
    def of(
        cls, how: Preprocessing, shape: tuple[int, int, int], scale: int | None = None
    ) -> Framing:
        """How the pictures of a preprocessing become inputs of a `shape`, those that are cut at a
        scale.
        """
        return cls(
            shape=shape,
            scales=None if scale is None or how.fit != "crop" else (scale, scale),
            draft=False,
            white=how.white,
            fit=how.fit,
            interpolation=how.interpolation,
            background=how.background,
        )

    @property
    def look(self) -> Look:
        """What else counts where a picture is opened."""
        return Look(self.white, self.background)

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of what is cut out."""
        return self.shape[1:]

    @property
    def largest(self) -> int | None:
        """The greatest length of a shorter side."""
        return self.scales[1] if self.scales else None

    @property
    def is_fixed(self) -> bool:
        """Whether all pictures are looked at at one scale only."""
        return self.window is None and (self.scales is None or self.scales[0] == self.scales[1])

    def scale(self, draw: float) -> int | None:
        """A length of the shorter side for a draw in [0, 1)."""
        if self.scales is None:
            return None
        low, high = self.scales
        return low + int(draw * (high - low + 1))

    def open(self, picture: PictureSource, scale: int | None = None) -> Image.Image:
        """The picture as an image, large enough for a scale, by default the greatest.

        Raises:
            UnreadableError: its file cannot be read.
            BrokenImageError: it is no usable image.
        """
        return self.opened(picture, scale).image

    def opened(self, picture: PictureSource, scale: int | None = None) -> Opened:
        """`open`, which tells of deep greys, too.

        Raises:
            UnclearGreyError: nothing says which of their values is white.
            UnreadableError, BrokenImageError: as `open`.
        """
        channels = self.shape[0]
        least = (scale or self.largest, self.size) if self.draft else None
        match picture:
            case Path():
                with of_a_file():
                    return opened(picture, channels, least, self.look)
            case bytes():
                return opened(io.BytesIO(picture), channels, least, self.look)
            case _:
                pixels = picture[:, :, 0] if picture.shape[2:] == (1,) else picture
                return Opened(Image.fromarray(pixels).convert("RGB" if channels == 3 else "L"))

    def whole(self, picture: PictureSource) -> Pixels:
        """All of the picture at the greatest scale, uint8 (H, W, C)."""
        return self.resized(self.open(picture))

    def resized(self, image: Image.Image) -> Pixels:
        """All of an opened picture at the greatest scale, uint8 (H, W, C)."""
        how = self.fit, self.interpolation, self.background
        return resize(image, self.largest, self.size, *how)

    def cut(self, picture: PictureSource, scale: int | None, top: float, left: float) -> Cut:
        """The part of the size of the input, of the picture at a scale.

        `top` and `left` in [0, 1) say where it lies, from one edge to the other. Only what is cut
        out is resized.
        """
        if isinstance(picture, np.ndarray) and picture.shape[2:] == self.shape[:1]:
            height, width = picture.shape[:2]
            if target_size((width, height), scale, self.size) == (width, height):
                x, y = self.corner((width, height), top, left)
                return Cut(crop(picture, y, x, self.size), self.window_at(x, y, (width, height)))
        image = self.open(picture, scale)
        (width, height), (across, down) = image.size, target_size(image.size, scale, self.size)
        x, y = self.corner((across, down), top, left)
        if (across, down) == image.size:
            part = image.crop((x, y, x + self.size[1], y + self.size[0]))
            return Cut(pixels_of(part), self.window_at(x, y, image.size))
        stretch = width / across, height / down
        source = (
            x * stretch[0],
            y * stretch[1],
            min(width, (x + self.size[1]) * stretch[0]),
            min(height, (y + self.size[0]) * stretch[1]),
        )
        source = whole_pixels(source)
        return Cut(resized_part(image, source, self.size), window_of(source, image.size))

    def cut_part(self, picture: PictureSource, tries: CropDraws, top: float, left: float) -> Cut:
        """A part of the picture at the size of the input: see `CropWindow.box`."""
        assert self.window
        image = self.open(picture)
        # Cut out first: what lies around it must not blend in.
        box = self.window.box(image.size, tries, top, left)
        part = image.crop(box)
        return Cut(resized_part(part, (0, 0, *part.size), self.size), window_of(box, image.size))

    def middle(self, picture: PictureSource) -> Cut:
        """The centre of the picture at the greatest scale, as inference cuts it."""
        image = self.open(picture)
        window = central(image.size, self.largest, self.size, self.fit)
        return Cut(centre(self.resized(image), self.size), window)

    def window_at(self, x: int, y: int, whole: tuple[int, int]) -> Windows:
        """The window of a crop from a column and a row on, in so large a picture (W, H)."""
        return window_of((x, y, x + self.size[1], y + self.size[0]), whole)

    def corner(self, whole: tuple[int, int], top: float, left: float) -> tuple[int, int]:
        """Column and row of the first pixel that is cut out of so large a picture (W, H)."""
        (width, height), (wanted_height, wanted_width) = whole, self.size
        return int(left * (width - wanted_width + 1)), int(top * (height - wanted_height + 1))


@contextmanager
def of_a_file() -> Iterator[None]:
    """Within it, what the system says of a file is told from what a decoder says of its bytes.

    Only the system's complaints have numbers, and one of those comes of the bytes: to seek where
    no byte can be is an invalid argument.
    """
    try:
        yield
    except BrokenImageError as fault:
        match fault.__context__:
            case OSError(errno=int(number)) if number != errno.EINVAL:
                raise UnreadableError(str(fault)) from None
        raise


def whole_pixels(
    box: tuple[float, float, float, float],
) -> tuple[float, float, float, float]:
    """A part of an image (left, top, right, bottom) as `resized_part` takes it: the edges of one
    with many pixels move to the nearest whole ones.
    """
    if min(box[2] - box[0], box[3] - box[1]) < MANY_PIXELS:
        return box
    left, top, right, bottom = map(round, box)
    return left, top, right, bottom


def resized_part(
    image: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int]
) -> Pixels:
    """A part of an image, as `whole_pixels` gives it, at a `size` (H, W), uint8 (H, W, C).

    PyTorch has Pillow's filter in vector instructions, several times as fast, but for whole pixels
    only.
    """
    if min(box[2] - box[0], box[3] - box[1]) < MANY_PIXELS:
        return pixels_of(image.resize(size[::-1], Image.Resampling.BILINEAR, box=box))
    left, top, right, bottom = map(round, box)
    pixels = np.array(image.crop((left, top, right, bottom))).reshape(
        bottom - top, right - left, -1
    )
    # Of a batch of one, PyTorch sees the memory format by its strides only.
    batch = torch.from_numpy(pixels).view(1, *pixels.shape).permute(0, 3, 1, 2)
    small = interpolate(batch, size, mode="bilinear", antialias=True)
    result: Pixels = small[0].permute(1, 2, 0).numpy()
    return result


@dataclass(frozen=True)
class Framed:
    """A part and how its pictures become inputs. Those that are `kept` are in memory, opened."""

    part: Part
    framing: Framing
    kept: Sequence[Pixels] | None = None

    def __len__(self) -> int:
        return len(self.part)

    def fetch(self, indices: Numbers) -> Sequence[PictureSource | BrokenImageError]:
        if self.kept is not None:
            return [self.kept[index] for index in indices.tolist()]
        return self.part.fetch(indices)

    def random_crops(
        self, indices: Numbers, draws: CropDraws, tries: CropDraws | tuple[()] = ()
    ) -> list[Cut | BrokenImageError]:
        """A crop of each of these pictures by three draws in [0, 1), (N, 3): its scale, its top
        and its left; with a window by the draws of its tries, (N, TRIES, 2), instead of a scale.
        """
        framing = self.framing
        if framing.window:
            return [
                attempt(partial(framing.cut_part, tries=each, top=top, left=left), picture)
                for picture, each, (_, top, left) in zip(
                    self.fetch(indices), tries, draws.tolist(), strict=True
                )
            ]
        return [
            attempt(partial(framing.cut, scale=framing.scale(scale), top=top, left=left), picture)
            for picture, (scale, top, left) in zip(self.fetch(indices), draws.tolist(), strict=True)
        ]

    def centres(self, indices: Numbers) -> list[Cut | BrokenImageError]:
        """The centre of each of these pictures at the greatest scale, as inference cuts it."""
        return [attempt(self.framing.middle, picture) for picture in self.fetch(indices)]


T = TypeVar("T")


def attempt(
    function: Callable[[PictureSource], T], picture: PictureSource | BrokenImageError
) -> T | BrokenImageError:
    """What the function makes of a picture, or why it has become none."""
    if isinstance(picture, BrokenImageError):
        return picture
    try:
        return function(picture)
    except BrokenImageError as fault:
        # As a value it needs no frames, which would keep alive all that its callers hold.
        fault.__context__ = None
        return fault.with_traceback(None)
