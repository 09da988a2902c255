"""An image as a net sees it, and the picture that it is cut from. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from vggc.inspection.layers import PixelBox
from vggc_runtime.preprocessing import Pixels, Preprocessing


@dataclass(frozen=True)
class SeenImage:
    """A picture at the scale at which a net sees it, (H, W, C), and the box that is cut out."""

    name: str
    whole: Pixels
    box: PixelBox

    @property
    def pixels(self) -> Pixels:
        """What the net sees, (H, W, C)."""
        return self.box.cut(self.whole)


def seen_image(name: str, image: Image.Image, preprocessing: Preprocessing) -> SeenImage:
    """An opened picture, resized and cut as the preprocessing says."""
    height, width = preprocessing.size
    whole = preprocessing.whole(image)
    top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    return SeenImage(name, whole, PixelBox(top, left, top + height, left + width))
