"""Preprocessing from files of three kinds of keys, each of which may be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vggc.preprocessing.file import read_preprocessing
from vggc.preprocessing.presets import CAFFE_MEAN, PRESETS, shares
from vggc.support.diagnostics import UserError
from vggc.support.records import to_json
from vggc_runtime.preprocessing import Preprocessing

INPUT = (3, 224, 224)
HALF = (0.5, 0.5, 0.5)

VIT = {
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ViTFeatureExtractor",
    "image_mean": [*HALF],
    "image_std": [*HALF],
    "resample": 2,
    "size": 224,
}
CLIP = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [*HALF],
    "image_std": [*HALF],
    "resample": 3,
    "size": 224,
}
RESNET = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "image_processor_type": "ConvNextImageProcessor",
    "image_mean": [*HALF],
    "image_std": [*HALF],
    "resample": 3,
    "size": {"shortest_edge": 224},
}
MOBILE_VIT = {
    "crop_size": {"height": 256, "width": 256},
    "do_center_crop": True,
    "do_flip_channel_order": True,
    "do_normalize": False,
    "do_rescale": True,
    "image_processor_type": "MobileViTImageProcessor",
    "resample": 2,
    "size": {"shortest_edge": 288},
}
TIMM = {
    "architecture": "vgg16",
    "num_classes": 1000,
    "pretrained_cfg": {
        "tag": "tv_in1k",
        "input_size": [3, 224, 224],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [*HALF],
        "std": [*HALF],
        "first_conv": "features.0",
    },
}


def read(folder: Path, value: Any, shape: tuple[int, ...] = INPUT) -> Preprocessing:
    (folder / "how.json").write_text(json.dumps(value))
    return read_preprocessing(folder / "how.json", shape)


def refused(folder: Path, value: Any) -> str:
    with pytest.raises(UserError) as error:
        read(folder, value)
    return str(error.value)


def test_our_own_keys_in_toml(tmp_path: Path) -> None:
    (tmp_path / "how.toml").write_text(
        "# LeNet's relatives\n"
        'order = "bgr"\nrange = 255\nmean = [103.939, 116.779, 123.68]\n'
        'fit = "pad"\ninterpolation = "bicubic"\nbackground = [128, 128, 128]\n'
    )
    assert read_preprocessing(tmp_path / "how.toml", INPUT) == Preprocessing(
        size=(224, 224),
        scale=None,
        mean=shares(CAFFE_MEAN),
        std=shares((1, 1, 1)),
        fit="pad",
        interpolation="bicubic",
        background=(128, 128, 128),
        order="bgr",
    )


def test_a_file_may_change_a_preset(tmp_path: Path) -> None:
    keras = PRESETS["keras"].at(INPUT)
    assert read(tmp_path, {"preset": "keras"}) == keras
    changed = read(tmp_path, {"preset": "keras", "interpolation": "bilinear", "order": "rgb"})
    assert (changed.interpolation, changed.fit) == ("bilinear", "squash")
    assert changed.mean == keras.mean[::-1]
    assert read(tmp_path, {"preset": "torchvision", "fit": "squash"}).scale is None


def test_a_record_of_a_run_and_a_manifest_tell_it_too(tmp_path: Path) -> None:
    how = PRESETS["caffe"].at(INPUT)
    assert read(tmp_path, {"net": "x", "preprocessing": to_json(how)}) == how
    small = read(tmp_path, {"preprocessing": to_json(how)}, (3, 112, 112))
    assert (small.size, small.scale) == ((112, 112), 128)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (VIT, Preprocessing((224, 224), None, HALF, HALF, fit="squash")),
        (CLIP, Preprocessing((224, 224), 224, HALF, HALF, interpolation="bicubic")),
        (RESNET, Preprocessing((224, 224), 256, HALF, HALF, interpolation="bicubic")),
        (
            MOBILE_VIT,
            Preprocessing((224, 224), 252, (0.0,) * 3, (1.0,) * 3, order="bgr"),
        ),
        (TIMM, Preprocessing((224, 224), 256, HALF, HALF)),
        (
            VIT | {"do_rescale": True, "rescale_factor": 1 / 127.5},
            Preprocessing((224, 224), None, (0.25,) * 3, (0.25,) * 3, fit="squash"),
        ),
        (
            {**TIMM["pretrained_cfg"], "crop_pct": 1, "crop_mode": "squash"},  # type: ignore[dict-item]
            Preprocessing((224, 224), None, HALF, HALF, fit="squash"),
        ),
    ],
)
def test_keys_of_others(tmp_path: Path, value: dict[str, Any], expected: Preprocessing) -> None:
    assert read(tmp_path, value) == expected


CFG: dict[str, Any] = TIMM["pretrained_cfg"]  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "it is not a table of keys and values"),
        ({"intrepolation": "box"}, "did you mean `interpolation`?"),
        ({"interpolation": "hamming"}, "interpolation has a wrong value"),
        ({"preset": "cafe"}, "did you mean `caffe`?"),
        ({"mean": [1, 2]}, "mean and std do not hold one value for each channel"),
        ({"std": [0, 1, 1]}, "std is not above 0"),
        ({"background": [0, 0, 256]}, "background is not three numbers from 0 to 255"),
        ({"fit": "pad", "scale": 256}, "scale is said, which pictures have that are cut"),
        ({"scale": 100}, "scale is less than a side of size"),
        ({"size": [0, -1]}, "size and scale are not from 1"),
        (VIT | {"do_pad": True}, "`do_pad` is True, which vggc does not know"),
        (VIT | {"resample": 5}, "`resample` is 5"),
        (VIT | {"resample": [2]}, "`resample` is [2]"),
        (RESNET | {"size": {"shortest_edge": -(10**400)}}, "a side is not from 1 to"),
        (VIT | {"do_resize": False}, "`do_resize` is false"),
        (VIT | {"size": {"longest_edge": 224}}, "`size` is {'longest_edge': 224}"),
        (VIT | {"image_mean": None}, "image_mean is no list of numbers"),
        (VIT | {"image_std": ["a"] * 3}, "image_std is no number"),
        (VIT | {"rescale_factor": 10**400}, "rescale_factor is out of range"),
        (VIT | {"do_center_crop": True, "crop_size": 200}, "squashed to 224x224, and then cut"),
        (CFG | {"interpolation": "random"}, "interpolation `random` is not one that vggc has"),
        (CFG | {"crop_mode": "border"}, "crop_mode `border` with crop_pct 0.875"),
        (CFG | {"crop_pct": 0}, "crop_pct of 0 is not from"),
        (CFG | {"input_size": 224}, "input_size is not channels, height and width"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, value: Any, words: str) -> None:
    assert words in refused(tmp_path, value)


def test_files_that_hold_no_such_thing(tmp_path: Path) -> None:
    for name, content in (("a.toml", b"mean = ["), ("b.json", b"{"), ("c.toml", b"\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"is not (TOML|JSON)"):
            read_preprocessing(tmp_path / name, INPUT)
