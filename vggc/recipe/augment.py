"""How images are varied while a net is trained: settings of the `train` block with options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vggc.recipe.blocks import option
from vggc.syntax.values import Interval, Real, WholeNumber

SHARE = Real(0, 1, above=True, unit="%")
CHANCE = Real(0, 1, above=True, unit="%")
ASPECT = Real(0, 100, above=True)
STRENGTH = Real(0, 100, unit="%")


@dataclass(frozen=True)
class ResizedCrop:
    """A part of the whole image, brought to the size of the net's input.

    Its share of the image's area is drawn evenly from `area`, the logarithm of its width over its
    height from that of `ratio`, its place evenly from all that there are. Of ten draws the first
    counts that lies within the image; if none does, the largest part in the middle whose ratio is
    allowed.
    Source: Szegedy et al. (2015), section 6; torchvision's `RandomResizedCrop`.
    """

    example: ClassVar[str] = "resized-crop area=8%..100%"
    doc: ClassVar[str] = (
        "a random part of the whole image is brought to the size of the input, in the place of a "
        "crop at `scale`, which then is the one at which images are held out and tested"
    )

    area: tuple[float, float] = option(
        "the part's share of the image's area", Interval(SHARE), (0.08, 1.0)
    )
    ratio: tuple[float, float] = option(
        "the part's width over its height, before it is resized", Interval(ASPECT), (0.75, 1.3333)
    )


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast, saturation and hue are varied, in an order that is drawn.

    With a strength s of the first three a factor is drawn evenly from max(0, 1 − s) to 1 + s: 0
    leaves black, the mean grey, the grey image, and 1 leaves all as it is. `hue` is how far hues
    turn at most either way, as a share of the circle.
    Source: torchvision's `ColorJitter` over Pillow's `ImageEnhance`; Howard (2013), section 2.2.
    """

    example: ClassVar[str] = "colour-jitter brightness=0.4 contrast=0.4 saturation=0.4"
    doc: ClassVar[str] = "brightness, contrast, saturation and hue are varied, in a random order"

    brightness: float = option("how far its factor departs from 1 at most", STRENGTH, 0.0)
    contrast: float = option("how far its factor departs from 1 at most", STRENGTH, 0.0)
    saturation: float = option("how far its factor departs from 1 at most", STRENGTH, 0.0)
    hue: float = option(
        "how far hues turn at most, as a share of the circle", Real(0, 0.5, unit="%"), 0.0
    )


@dataclass(frozen=True)
class RandAugment:
    """Operations one after the other, each drawn from 14, at one `magnitude`.

    Source: Cubuk et al. (2020), "RandAugment"; operations and magnitudes are those of torchvision's
    `RandAugment` with 31 bins: see `vggc.data.vary`.
    """

    example: ClassVar[str] = "randaugment ops=2 magnitude=9"
    doc: ClassVar[str] = "random operations out of 14 that turn, shear, shift and recolour"

    ops: int = option("how many operations, one after the other", WholeNumber(1, 14), 2)
    magnitude: int = option("how strong they are", WholeNumber(0, 30), 9)


@dataclass(frozen=True)
class Erasing:
    """A rectangle of the input that by `chance` becomes the mean colour, which is 0 for the net.

    Its share of the input's area is drawn evenly from `area`, the logarithm of its height over its
    width from that of `ratio`, its place evenly. Of ten draws the first counts that is less high
    and less wide than the input; if none is, nothing is erased.
    Source: Zhong et al. (2020), algorithm 1; torchvision's `RandomErasing`.
    """

    example: ClassVar[str] = "erasing 25%"
    doc: ClassVar[str] = "the chance that a rectangle of the input gets the mean colour"

    chance: float = option("the chance", CHANCE)
    area: tuple[float, float] = option(
        "the rectangle's share of the area", Interval(SHARE), (0.02, 0.33)
    )
    ratio: tuple[float, float] = option("its height over its width", Interval(ASPECT), (0.3, 3.3))


@dataclass(frozen=True)
class Mixup:
    """Two images are laid over each other by `chance`, in shares drawn from Beta(α, α).

    Source: Zhang et al. (2018), formulas 1.
    """

    example: ClassVar[str] = "mixup 0.2"
    doc: ClassVar[str] = "two images laid over each other, in shares drawn from Beta(α, α)"

    alpha: float = option("the parameter α", Real(0, 1000, above=True))
    chance: float = option(
        "the share of pairs that are mixed; with `cutmix`, too, of those that fall to `mixup`",
        CHANCE,
        1.0,
    )


@dataclass(frozen=True)
class Cutmix:
    """A rectangle of one image is pasted into another by `chance`, in shares from Beta(α, α).

    Source: Yun et al. (2019), formulas 1 and 2.
    """

    example: ClassVar[str] = "cutmix 1"
    doc: ClassVar[str] = (
        "a rectangle of one image pasted into another, in shares drawn from Beta(α, α)"
    )

    alpha: float = option("the parameter α", Real(0, 1000, above=True))
    chance: float = option(
        "the share of pairs that are mixed; with `mixup`, too, of those that fall to `cutmix`",
        CHANCE,
        1.0,
    )
