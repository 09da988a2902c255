"""Presets do with a picture what the frameworks do whose names they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.training_data import picture
from vggc.data.crops import Framing
from vggc.data.windows import central
from vggc.preprocessing.choose import choose, named
from vggc.preprocessing.diagnostics import PreprocessingFile, PresetOfColours, UnknownPreset
from vggc.preprocessing.presets import CAFFE_MEAN, IMAGENET_MEAN, IMAGENET_STD, PRESETS
from vggc.support.diagnostics import UserError
from vggc_runtime.preprocessing import Fit, Interpolation, Preprocessing

INPUT = (3, 28, 28)
RESIZED = 32
"""Pixels of the shorter side for an input of 28, as 256 for 224."""

WIDE = Image.fromarray(picture(0, 0, 64, 96))
TALL = Image.fromarray(picture(1, 3, 96, 64))


def in_the_middle(image: Image.Image, side: int) -> np.ndarray:
    """What torchvision's CenterCrop leaves of an image. Source: `functional.center_crop`."""
    top, left = (round((length - side) / 2.0) for length in (image.height, image.width))
    return np.asarray(image.crop((left, top, left + side, top + side)))


def proportional(image: Image.Image, shorter: int) -> Image.Image:
    """What torchvision's Resize makes of an image. Source: `_compute_resized_output_size`."""
    short = min(image.size)
    size = [int(shorter * side / short) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BILINEAR)


def in_channels(values: np.ndarray) -> np.ndarray:
    return values.transpose(2, 0, 1)[None]


@pytest.mark.parametrize("image", [WIDE, TALL], ids=["wide", "tall"])
def test_torchvision(image: Image.Image) -> None:
    shares = in_the_middle(proportional(image, RESIZED), 28).astype(np.float32) / 255
    expected = (shares - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    how = PRESETS["torchvision"].at(INPUT)
    np.testing.assert_array_equal(how.of_picture(image), in_channels(expected))


@pytest.mark.parametrize("image", [WIDE, TALL], ids=["wide", "tall"])
def test_caffe_subtracts_the_mean_of_blue_green_and_red(image: Image.Image) -> None:
    bgr = in_the_middle(proportional(image, RESIZED), 28)[:, :, ::-1]
    expected = bgr - np.float32(CAFFE_MEAN)
    found = PRESETS["caffe"].at(INPUT).of_picture(image)
    np.testing.assert_allclose(found, in_channels(expected), atol=1e-4)


@pytest.mark.parametrize("image", [WIDE, TALL], ids=["wide", "tall"])
def test_keras_squashes_a_picture_to_the_nearest_pixels(image: Image.Image) -> None:
    """`preprocess_input(img_to_array(load_img(path, target_size=(28, 28))))`."""
    x = np.asarray(image.resize((28, 28), Image.Resampling.NEAREST), np.float32)
    x = x[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    found = PRESETS["keras"].at(INPUT).of_picture(image)
    np.testing.assert_allclose(found, in_channels(x), atol=1e-4)


@pytest.mark.parametrize("name", ["darknet", "unit"])
def test_values_from_0_to_1_of_the_centre_that_just_covers_the_input(name: str) -> None:
    whole = WIDE.resize((42, 28), Image.Resampling.BILINEAR)
    expected = in_the_middle(whole, 28).astype(np.float32) / 255
    found = PRESETS[name].at(INPUT).of_picture(WIDE)
    np.testing.assert_array_equal(found, in_channels(expected))


def test_a_padded_picture_lies_in_the_middle_of_its_background() -> None:
    colour = (255, 128, 0)
    how = Preprocessing(
        size=(28, 28),
        scale=None,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        fit="pad",
        background=colour,
        order="bgr",
    )
    found = how.of_picture(Image.new("RGB", (60, 21), (1, 2, 3)))[0] * 255
    blue, height = 3, 10
    assert np.rint(found[0, :, 5]).tolist() == [0] * 9 + [blue] * height + [0] * 9
    assert np.rint(found[:, 0, 0]).tolist() == [*colour[::-1]]


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("interpolation", ["nearest", "bicubic"])
def test_runs_of_tests_see_what_an_artifact_sees(fit: Fit, interpolation: Interpolation) -> None:
    how = Preprocessing(
        size=(20, 28),
        scale=30 if fit == "crop" else None,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        fit=fit,
        interpolation=interpolation,
        background=(9, 8, 7),
    )
    cut = Framing.of(how, (3, 20, 28), how.scale).middle(np.asarray(TALL))
    assert np.array_equal(how.normalise(cut.pixels[None]), how.of_picture(TALL))
    window = central(TALL.size, how.scale, how.size, fit)
    assert np.array_equal(cut.window, window)
    if fit == "squash":
        assert window.tolist() == [0, 0, 1, 1]
    if fit == "pad":  # 64×96 pixels become 13×20 in the middle of 28×20
        assert window.tolist() == [-7 / 13, 0, 21 / 13, 1]


def test_transparent_parts_show_the_background(tmp_path: Path) -> None:
    how = Preprocessing(size=(8, 8), scale=None, mean=(0.0,), std=(1.0,), background=(0, 0, 0))
    Image.new("RGBA", (8, 8), (200, 200, 200, 0)).save(tmp_path / "x.png")
    assert (how.read(tmp_path / "x.png") == 0).all()


@pytest.mark.parametrize("name", ["torchvision", "darknet", "unit"])
def test_grey_nets_have_presets_that_know_no_colours(name: str) -> None:
    assert PRESETS[name].at((1, 28, 28)).problem((1, 28, 28)) is None


@pytest.mark.parametrize("name", ["caffe", "keras"])
def test_a_mean_of_colours_is_for_colours_only(name: str) -> None:
    with pytest.raises(UserError) as error:
        PRESETS[name].at((1, 28, 28))
    assert error.value.diagnostic == PresetOfColours(name, "1 channel")


def test_a_word_that_is_neither_a_preset_nor_a_file() -> None:
    with pytest.raises(UserError) as error:
        named("cafe", INPUT)
    assert isinstance(error.value.diagnostic, UnknownPreset)
    assert "did you mean `caffe`?" in error.value.diagnostic.hint


def test_what_somebody_says_comes_before_what_is_known_and_that_before_what_is_assumed() -> None:
    known = PRESETS["unit"].at((3, 14, 14))
    word = choose("caffe", known, "x.safetensors", INPUT)
    assert (word.how, word.told) == (PRESETS["caffe"].at(INPUT), "preprocessing: caffe's")
    fact = choose(None, known, "x.safetensors", INPUT)
    assert fact.how == PRESETS["unit"].at(INPUT)
    assert fact.told == "preprocessing: that of x.safetensors"
    assumed = choose(None, None, "x.safetensors", INPUT)
    assert assumed.how == PRESETS["torchvision"].at(INPUT)
    assert assumed.told == "preprocessing: torchvision's, assumed; `--preprocessing` sets another"


def test_what_is_known_may_be_of_other_channels() -> None:
    with pytest.raises(UserError) as error:
        choose(None, PRESETS["unit"].at((1, 28, 28)), "x.safetensors", INPUT)
    assert isinstance(error.value.diagnostic, PreprocessingFile)
    assert "one value for each channel" in error.value.diagnostic.reason
