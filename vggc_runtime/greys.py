"""Greys of more than eight bits, and which of their values is white.

A file of 16 or 32 bits a pixel holds whatever a camera or a program gave: 12 bits of an X-ray,
shares from 0 to 1, or eight bits after all. Where it does not say what is white, the largest value
in all images of a training does, for all of them alike, so that a dark image stays dark; a net
keeps that for the images that come later. One image by itself is taken where there is no doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

GreyKind: TypeAlias = Literal["whole", "real"]
"""How the values of a deep grey are written: as whole numbers or as fractions."""

KINDS: dict[str, GreyKind] = {
    "I": "whole",
    "I;16": "whole",
    "I;16L": "whole",
    "I;16B": "whole",
    "I;16N": "whole",
    "F": "real",
}
"""Pillow's modes of deep greys."""

EIGHT_BITS, TWELVE_BITS, SIXTEEN_BITS = 255, 4_095, 65_535
WHITES = (EIGHT_BITS, 1_023, TWELVE_BITS, 16_383, SIXTEEN_BITS)
"""White of 8, 10, 12, 14 and 16 bits."""

OVER = 1.05
"""Fractions that were resized pass white, and 0, by a twentieth of it at most."""

CLEAR = 16
"""Fractions up to less than this are not of the 8 bits that they would be too dark for."""

BITS_PER_SAMPLE, PHOTOMETRIC, MOST_SAMPLE = 258, 262, 281
WHITE_IS_ZERO = 0
"""Tags of a TIFF, and a photometric interpretation. Source: TIFF 6.0, section 8."""


@dataclass(frozen=True)
class Greys:
    """A value of deep greys in whole numbers, and one of those in fractions, whose files do not
    say which value is white; None where there is none.
    """

    whole: float | None = None
    real: float | None = None

    def of(self, kind: GreyKind) -> float | None:
        """The largest value of such greys, None where none was seen."""
        return self.whole if kind == "whole" else self.real

    @classmethod
    def only(cls, kind: GreyKind, value: float) -> Greys:
        """The largest value of one kind of greys, the other not seen."""
        return cls(whole=value) if kind == "whole" else cls(real=value)

    def largest(self, other: Greys) -> Greys:
        """The larger of each two values."""
        pairs = (self.whole, other.whole), (self.real, other.real)
        return Greys(*(max((v for v in pair if v is not None), default=None) for pair in pairs))


UNKNOWN = Greys()


def white_of_all(brightest: Greys) -> Greys:
    """What is white in images that together have these largest values: the least of `WHITES`, and
    1 of fractions, that covers them. None where nothing does, or fractions are of no known range.
    """
    whole, real = brightest.whole, brightest.real
    return Greys(
        None if whole is None else covering(whole, 1),
        None if real is None else 1 if real <= OVER else covering(real, OVER, CLEAR),
    )


def covering(value: float, over: float, least: float = 0) -> float | None:
    """The smallest value of white that explains a grey `value`, which may be `over` times as large;
    None where none does, or the value is below `least`.
    """
    return next((white for white in WHITES if least <= value <= white * over), None)


def white_of_one(kind: GreyKind, brightest: float, known: Greys) -> float | str:
    """What is white in an image of this largest value: the `known`, or what is beyond doubt;
    otherwise why that cannot be told.

    Beyond doubt are 8 bits in whatever type, 16 bits of which the upper four are used, and
    fractions from 0 to 1.
    """
    white = known.of(kind)
    if white is not None:
        if brightest <= white * (1 if kind == "whole" else OVER):
            return white
        return f"its values reach {brightest:,.6g}, and white is {white:,.0f}"
    if kind == "real" and brightest <= OVER:
        return 1.0
    if CLEAR * (kind == "real") <= brightest <= EIGHT_BITS * (1 if kind == "whole" else OVER):
        return EIGHT_BITS
    if kind == "whole" and TWELVE_BITS < brightest <= SIXTEEN_BITS:
        return SIXTEEN_BITS
    reached = f"its values reach {brightest:,.6g}"
    return f"{reached}, and nothing says what is white: save it in 8 bits"


def white_by_the_file(image: Image.Image) -> float | None:
    """What a file, opened and not loaded, says is white in its deep greys.

    That of the whole type is no word of it: writers put 65535 wherever they know nothing. Neither
    is the significant bits of a PNG, whose values fill 16 bits whatever they were.
    """
    if isinstance(image, PpmImageFile):
        # Pillow scales what has another white to 16 bits.
        return SIXTEEN_BITS if 0 < scaled_from(image) < SIXTEEN_BITS else None
    bits, most = (tag(image, number) for number in (BITS_PER_SAMPLE, MOST_SAMPLE))
    if 8 < bits < 16:
        return (1 << bits) - 1
    # By the standard it may be no more than the largest value in the file.
    return float(most) if most in WHITES and most != (1 << max(1, bits)) - 1 else None


def is_negative(image: Image.Image) -> bool:
    """Whether 0 is white in a deep grey, which Pillow gives as it is stored."""
    return tag(image, PHOTOMETRIC) == WHITE_IS_ZERO


def tag(image: Image.Image, number: int) -> int:
    """The first value of a TIFF's tag; -1 where there is none, or the image is no TIFF."""
    value: object = image.tag_v2.get(number) if isinstance(image, TiffImageFile) else None
    first: object = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else -1


def decoding(image: Image.Image) -> tuple[object, ...]:
    """What Pillow tells the decoder of an image that is not loaded."""
    tiles = image.tile if isinstance(image, ImageFile) else []
    told = tiles[0].args if tiles else ()
    return told if isinstance(told, tuple) else (told,)


def scaled_from(image: PpmImageFile) -> int:
    """What is white in the file, where Pillow scales its values; otherwise 0."""
    return next((each for each in decoding(image) if isinstance(each, int)), 0)


def has_deep_colours(image: Image.Image) -> bool:
    """Whether the file, not loaded, has 16 bits a colour, of which Pillow keeps the upper eight."""
    if isinstance(image, PpmImageFile):
        return image.mode == "RGB" and scaled_from(image) == SIXTEEN_BITS
    names = [each for each in decoding(image) if isinstance(each, str)]
    return image.mode in ("LA", "RGB", "RGBA") and any(";16" in name for name in names)


def are_lost(image: Image.Image) -> bool:
    """Whether deep colours seem to be of 12 bits in 16, of which Pillow keeps 16 levels."""
    num_colours = len(image.getbands()) - image.mode.endswith("A")
    brightest = int(np.asarray(image)[:, :, :num_colours].max())
    return 0 < brightest <= (TWELVE_BITS + 1) >> 8


def in_eight_bits(values: npt.NDArray[Any], white: float, *, negative: bool) -> Image.Image:
    """Deep greys (H, W) as an image of greys from 0 to 255."""
    shares = np.clip(values.astype(np.float32) / white, 0, 1)
    pixels = ((1 - shares if negative else shares) * 255).round().astype(np.uint8)
    return Image.fromarray(pixels)
