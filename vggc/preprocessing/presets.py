"""Presets: what the pictures of well-known frameworks' nets go through."""

from __future__ import annotations

from dataclasses import dataclass

from vggc.preprocessing import diagnostics
from vggc.support.diagnostics import UserError
from vggc_runtime.preprocessing import ChannelOrder, Fit, Interpolation, Preprocessing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""The mean and deviation of ImageNet's pixels over 255, in RGB; what torchvision's weights were
trained with. Source: torchvision, `transforms/_presets.py`, `ImageClassification`.
"""

CAFFE_MEAN = (103.939, 116.779, 123.68)
"""The mean of ImageNet's pixels from 0 to 255, in BGR, which the VGG authors' nets subtract.
Source: Simonyan & Zisserman, `VGG_ILSVRC_16_layers` in Caffe's model zoo.
"""

COLOURS = 3


@dataclass(frozen=True)
class Preset:
    """What is done to a picture for an input of any size. `mean` and `std` are shares of 255 of the
    colours, in `order`. A picture that is cut is resized until its shorter side is `ratio` times as
    long as the longer one of the input; until it just covers the input where that is None. Nets of
    other channels than three have `other` as mean and deviation of each; None where there is none.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: ChannelOrder = "rgb"
    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"
    ratio: float | None = None
    other: tuple[float, float] | None = None

    def at(self, shape: tuple[int, ...]) -> Preprocessing:
        """The preprocessing for inputs of a shape (C, H, W).

        Raises: UserError where it is for colours only, and the net takes other channels.
        """
        channels, height, width = shape
        mean, std = self.mean, self.std
        if channels != COLOURS:
            if self.other is None:
                told = "1 channel" if channels == 1 else f"{channels} channels"
                raise UserError(diagnostics.PresetOfColours(self.name, told))
            mean, std = ((value,) * channels for value in self.other)
        return Preprocessing(
            size=(height, width),
            scale=None if self.ratio is None else round(max(height, width) * self.ratio),
            mean=mean,
            std=std,
            fit=self.fit,
            interpolation=self.interpolation,
            order=self.order,
        )


def shares(values: tuple[float, ...]) -> tuple[float, ...]:
    """Values from 0 to 255 as shares of 255."""
    return tuple(value / 255 for value in values)


TORCHVISION = Preset(
    name="torchvision",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    ratio=256 / 224,
    other=(0.5, 0.5),
)
"""The shorter side has 256 pixels for an input of 224.
Source: torchvision, `transforms/_presets.py`, `ImageClassification(crop_size=224)`.
"""

CAFFE = Preset(
    name="caffe",
    mean=shares(CAFFE_MEAN),
    std=shares((1.0, 1.0, 1.0)),
    order="bgr",
    ratio=256 / 224,
)
"""Blue, green and red from 0 to 255, less their mean; resized in proportion and cut out of the
centre as the authors of VGG do it.
Source: Simonyan & Zisserman (2015), section 3; `readme.md` of their Caffe models.
"""

KERAS = Preset(
    name="keras",
    mean=shares(CAFFE_MEAN),
    std=shares((1.0, 1.0, 1.0)),
    order="bgr",
    fit="squash",
    interpolation="nearest",
)
"""Caffe's values, of pictures that `load_img(target_size=…)` has resized whatever their proportion.
Source: Keras, `applications/imagenet_utils.py`, `preprocess_input(mode="caffe")`;
`utils/image_utils.py`, `load_img(interpolation="nearest")`.
"""

DARKNET = Preset(
    name="darknet",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    other=(0.0, 1.0),
)
"""From 0 to 1; the shorter side is that of the input, the centre cut out. Darknet's own resizing
has no antialiasing.
Source: darknet, `examples/classifier.c`, `validate_classifier_single` (`resize_min`, `crop_image`).
"""

UNIT = Preset(name="unit", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), other=(0.0, 1.0))
"""From 0 to 1, of the centre of a picture that just covers the input."""

PRESETS = {preset.name: preset for preset in (TORCHVISION, CAFFE, KERAS, DARKNET, UNIT)}
"""The presets by the names that `--preprocessing` takes."""
