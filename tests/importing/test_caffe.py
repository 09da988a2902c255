"""Caffe's definitions and weights, both generations, against torch in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tests.support.foreign_files import (
    arrays_of,
    blob,
    caffemodel,
    key,
    message,
    outputs,
    varint,
    written,
)
from tests.support.foreign_nets import VGG16_PROTOTXT, vgg16_arrays, vgg16_of
from vggc.importing.caffe import read_caffe
from vggc.importing.foreign import Foreign
from vggc.preprocessing.presets import CAFFE
from vggc.support.diagnostics import UserError
from vggc_runtime.preprocessing import Preprocessing

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { %s } } }\n'
MAP = INPUT % "dim: 1 dim: 4 dim: 7 dim: 6"
VECTOR = INPUT % "dim: 1 dim: 4 dim: 1 dim: 1"

Weights = Sequence[Tensor]
Meaning = Callable[..., Tensor]


def layer(kind: str, settings: str = "", bottom: str = "x", top: str = "y") -> str:
    return f'layer {{ name: "{top}" type: "{kind}" bottom: "{bottom}" top: "{top}" {settings} }}\n'


def net(tmp_path: Path, text: str, shapes: Sequence[tuple[int, ...]] = ()) -> Foreign:
    """A net whose layer `y` has arrays of these shapes."""
    definition = written(tmp_path, "net.prototxt", text)
    weights = written(tmp_path, "net.caffemodel", caffemodel(arrays_of({"y": shapes})))
    return read_caffe(definition, weights if shapes else None)


def images(foreign: Foreign) -> NDArray[np.float32]:
    sides = foreign.model.graph.input[0].type.tensor_type.shape.dim
    draw = np.random.default_rng(1)
    return draw.normal(size=[each.dim_value for each in sides]).astype(np.float32)


def caffes_average(x: Tensor, kernel: int, stride: int, pad: int, up: bool = True) -> Tensor:
    """AVE pooling as pooling_layer.cpp has it, number by number."""
    _, channels, *size = x.shape
    counts = []
    for side in size:
        room = side + 2 * pad - kernel
        count = (-(-room // stride) if up else room // stride) + 1
        counts.append(count - (pad > 0 and (count - 1) * stride >= side + pad))
    found = torch.zeros(1, channels, *counts, dtype=x.dtype)
    for row in range(counts[0]):
        for column in range(counts[1]):
            starts = [row * stride - pad, column * stride - pad]
            ends = [min(a + kernel, n + pad) for a, n in zip(starts, size, strict=True)]
            area = (ends[0] - starts[0]) * (ends[1] - starts[1])
            top, left = (max(a, 0) for a in starts)
            window = x[:, :, top : min(ends[0], size[0]), left : min(ends[1], size[1])]
            found[:, :, row, column] = window.sum((2, 3)) / area
    return found


def normed(x: Tensor, mean: Tensor, var: Tensor, factor: Tensor) -> Tensor:
    mean, var = (each.view(1, -1, 1, 1) / factor for each in (mean, var))
    return (x - mean) / torch.sqrt(var + 1e-3)


CONV = "convolution_param { num_output: 6 %s }"
CASES: list[tuple[str, str, Sequence[tuple[int, ...]], Meaning]] = [
    (
        MAP + layer("Convolution", CONV % "kernel_size: 3 pad: 1 stride: 2"),
        "a convolution",
        [(6, 4, 3, 3), (6,)],
        lambda x, w, b: functional.conv2d(x, w, b, 2, 1),
    ),
    (
        MAP + layer("Convolution", CONV % "kernel_h: 3 kernel_w: 1 pad_w: 1 group: 2"),
        "an oblong convolution in groups",
        [(6, 2, 3, 1), (1, 1, 1, 6)],
        lambda x, w, b: functional.conv2d(x, w, b.flatten(), 1, (0, 1), 1, 2),
    ),
    (
        MAP
        + layer("Convolution", CONV % "kernel_size: 3 pad: 2 dilation: 2 bias_term: false"),
        "a dilated convolution without bias",
        [(6, 4, 3, 3)],
        lambda x, w: functional.conv2d(x, w, None, 1, 2, 2),
    ),
    (
        MAP + layer("Deconvolution", CONV % "kernel_size: 4 stride: 2 pad: 1 group: 2"),
        "a transposed convolution",
        [(4, 3, 4, 4), (6,)],
        lambda x, w, b: functional.conv_transpose2d(x, w, b, 2, 1, 0, 2),
    ),
    (
        MAP + layer("InnerProduct", "inner_product_param { num_output: 5 }"),
        "a dense layer",
        [(1, 1, 5, 168), (1, 1, 1, 5)],
        lambda x, w, b: functional.linear(x.flatten(1), w[0, 0], b.flatten()),
    ),
    (
        MAP + layer("InnerProduct", "inner_product_param { num_output: 5 transpose: true }"),
        "a dense layer whose weight is transposed",
        [(168, 5), (5,)],
        lambda x, w, b: functional.linear(x.flatten(1), w.T, b),
    ),
    (
        MAP + layer("BatchNorm", "batch_norm_param { eps: 1e-3 }"),
        "a normalisation",
        [(4,), (4,), (1,)],
        normed,
    ),
    (
        MAP + layer("Scale", "scale_param { bias_term: true }"),
        "a scale",
        [(4,), (4,)],
        lambda x, w, b: x * w.view(1, -1, 1, 1) + b.view(1, -1, 1, 1),
    ),
    (MAP + layer("Bias"), "a bias", [(4,)], lambda x, b: x + b.view(1, -1, 1, 1)),
    (MAP + layer("PReLU"), "a trained slope", [(4,)], functional.prelu),
    (
        MAP + layer("PReLU", "prelu_param { channel_shared: true }"),
        "a shared slope",
        [(1,)],
        functional.prelu,
    ),
    (
        MAP + layer("Pooling", "pooling_param { kernel_size: 3 stride: 2 }"),
        "pools that round up",
        [],
        lambda x: functional.max_pool2d(x, 3, 2, ceil_mode=True),
    ),
    (
        MAP + layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 round_mode: FLOOR }"),
        "pools that round down",
        [],
        lambda x: functional.max_pool2d(x, 2, 2),
    ),
    (
        MAP + layer("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
        "means that count their padding",
        [],
        lambda x: caffes_average(x, 3, 2, 1),
    ),
    (
        MAP + layer("Pooling", "pooling_param { pool: AVE kernel_size: 4 stride: 3 pad: 2 }"),
        "means over windows that begin behind the map",
        [],
        lambda x: caffes_average(x, 4, 3, 2),
    ),
    (
        MAP + layer("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
        "a global mean",
        [],
        lambda x: x.mean((2, 3), keepdim=True),
    ),
    (
        MAP + layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }"),
        "a response normalisation, alpha over the size",
        [],
        lambda x: functional.local_response_norm(x, 3, 0.5, 0.75, 2),
    ),
    (
        MAP + layer("ReLU", "relu_param { negative_slope: 0.1 }"),
        "a leaky rectifier",
        [],
        lambda x: functional.leaky_relu(x, 0.1),
    ),
    (
        MAP + layer("ELU", "elu_param { alpha: 0.5 }"),
        "an exponential unit",
        [],
        lambda x: functional.elu(x, 0.5),
    ),
    (MAP + layer("Sigmoid"), "a sigmoid", [], torch.sigmoid),
    (MAP + layer("TanH"), "a tangent", [], torch.tanh),
    (MAP + layer("BNLL"), "a soft rectifier", [], functional.softplus),
    (MAP + layer("Swish"), "a swish", [], functional.silu),
    (
        MAP + layer("Clip", "clip_param { min: -1 max: 0.5 }"),
        "limits",
        [],
        lambda x: x.clamp(-1, 0.5),
    ),
    (
        MAP + layer("Power", "power_param { scale: 2 shift: -1 }"),
        "a line",
        [],
        lambda x: 2 * x - 1,
    ),
    (MAP + layer("Softmax"), "probabilities at each place", [], lambda x: x.softmax(1)),
    (VECTOR + layer("Softmax"), "probabilities", [], lambda x: x.flatten(1).softmax(1)),
    (MAP + layer("Flatten"), "a map as a vector", [], lambda x: x.flatten(1)),
    (
        MAP + layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 } }"),
        "a map as a vector, by its shape",
        [],
        lambda x: x.flatten(1),
    ),
    (MAP + layer("Dropout"), "dropout, which does nothing", [], lambda x: x),
]  # fmt: skip
JOINED = MAP + layer("ReLU", top="a") + layer("Sigmoid", top="b")


@pytest.mark.parametrize(
    ("text", "shapes", "meaning"),
    [(text, shapes, meaning) for text, _, shapes, meaning in CASES],
    ids=[case[1] for case in CASES],
)
def test_a_layer_computes(
    tmp_path: Path, text: str, shapes: Sequence[tuple[int, ...]], meaning: Meaning
) -> None:
    foreign = net(tmp_path, text, shapes)
    x = images(foreign)
    weights = [torch.from_numpy(each).double() for each in arrays_of({"y": shapes})["y"]]
    expected = meaning(torch.from_numpy(x).double(), *weights).numpy()
    (found,) = outputs(foreign, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "meaning"),
    [
        ("Eltwise", "", lambda a, b: a + b),
        ("Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: 1 }", lambda a, b: a + b),
        ("Eltwise", "eltwise_param { operation: PROD }", lambda a, b: a * b),
        ("Concat", "", lambda a, b: torch.cat([a, b], 1)),
        ("Concat", "concat_param { concat_dim: 1 }", lambda a, b: torch.cat([a, b], 1)),
        ("Scale", "scale_param { axis: 0 }", lambda a, b: a * b),
        ("Bias", "bias_param { axis: 0 }", lambda a, b: a + b),
    ],
)
def test_layers_of_several_bottoms_join(
    tmp_path: Path, kind: str, settings: str, meaning: Meaning
) -> None:
    foreign = net(tmp_path, JOINED + layer(kind, f'bottom: "b" {settings}', "a"))
    x = images(foreign)
    wide = torch.from_numpy(x).double()
    expected = meaning(wide.relu(), wide.sigmoid()).numpy()
    np.testing.assert_allclose(outputs(foreign, x)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ("", (2, 2)),
        ("slice_param { slice_point: 1 }", (1, 3)),
        ("slice_param { slice_dim: 1 slice_point: 3 }", (3, 1)),
        ("slice_param { axis: -3 }", (2, 2)),
    ],
)
def test_a_slice_gives_neighbouring_channels(
    tmp_path: Path, settings: str, sizes: tuple[int, ...]
) -> None:
    text = layer("Slice", f'top: "z" {settings}')
    apart = layer("ReLU", "", "y", "y") + layer("Sigmoid", "", "z", "z")
    foreign = net(tmp_path, MAP + text + apart)
    x = images(foreign)
    first, last = torch.from_numpy(x).double().split(sizes, 1)
    for found, expected in zip(outputs(foreign, x), (first.relu(), last.sigmoid()), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_vector_scales_the_channels_of_a_map(tmp_path: Path) -> None:
    """Squeeze and excitation."""
    squeezed = layer("InnerProduct", "inner_product_param { num_output: 4 }", top="gate")
    text = MAP + squeezed + layer("Scale", 'bottom: "gate" scale_param { axis: 0 }')
    definition = written(tmp_path, "se.prototxt", text)
    arrays = arrays_of({"gate": [(4, 168), (4,)]})
    foreign = read_caffe(definition, written(tmp_path, "w", caffemodel(arrays)))
    x = images(foreign)
    weight, bias = (torch.from_numpy(each).double() for each in arrays["gate"])
    wide = torch.from_numpy(x).double()
    gate = functional.linear(wide.flatten(1), weight, bias).view(1, 4, 1, 1)
    np.testing.assert_allclose(outputs(foreign, x)[0], (wide * gate).numpy(), rtol=1e-5)


def test_a_scale_behind_a_normalisation_is_part_of_it(tmp_path: Path) -> None:
    """In one place, as published nets have it, the two are one operator."""
    text = MAP + layer("BatchNorm", bottom="x", top="n")
    text += layer("Scale", "scale_param { bias_term: true }", "n", "n").replace(
        '"n" type', '"s" type'
    )
    shapes = {"n": [(4,), (4,), (1,)], "s": [(4,), (4,)]}
    weights = written(tmp_path, "w", caffemodel(arrays_of(shapes)))
    foreign = read_caffe(written(tmp_path, "net.prototxt", text), weights)
    assert [node.op_type for node in foreign.model.graph.node] == ["BatchNormalization"]
    mean, var, factor, scale, bias = (
        torch.from_numpy(each).double().view(1, -1, 1, 1)
        for each in [*arrays_of(shapes)["n"], *arrays_of(shapes)["s"]]
    )
    x = images(foreign)
    wide = (torch.from_numpy(x) - mean / factor) / torch.sqrt(var / factor + 1e-5)
    np.testing.assert_allclose(
        outputs(foreign, x)[0], (wide * scale + bias).numpy(), rtol=1e-5, atol=1e-5
    )


# ---------------------------------------------------------------- whole nets and their files


def test_the_published_vgg16_is_read_without_its_weights(tmp_path: Path) -> None:
    foreign = read_caffe(written(tmp_path, "deploy.prototxt", VGG16_PROTOTXT))
    kinds = [node.op_type for node in foreign.model.graph.node]
    assert [kinds.count(each) for each in ("Conv", "MaxPool", "Gemm", "Dropout")] == [13, 5, 3, 2]
    assert kinds[-1] == "Softmax"
    assert not foreign.has_weights
    assert foreign.tensors["fc6.weight"].shape == (4096, 25088)
    assert foreign.name == "VGG_ILSVRC_16_layers"
    weights = [each for name, each in foreign.tensors.items() if name[-5:] != "ratio"]
    assert sum(each.size for each in weights) == 138_357_544


@pytest.mark.parametrize(
    "how",
    [
        {"v1": True, "old": True},
        {"v1": True},
        {"v1": False},
        {"packed": False},
        {"double": True},
        {"double": True, "packed": False, "old": True},
    ],
    ids=str,
)
def test_however_numbers_are_stored_they_are_the_same(tmp_path: Path, how: dict[str, bool]) -> None:
    """A VGG-16 of a thirty-second of its width and a quarter of its side."""
    definition = written(tmp_path, "small.prototxt", vgg16_small())
    arrays = vgg16_arrays(divisor=32, side=1)
    weights = written(tmp_path, "small.caffemodel", caffemodel(arrays, **how))
    foreign = read_caffe(definition, weights)
    for name, (weight, bias) in arrays.items():
        assert np.array_equal(foreign.tensors[f"{name}.weight"].read(), weight)
        assert np.array_equal(foreign.tensors[f"{name}.bias"].read(), bias)


def vgg16_small() -> str:
    text = VGG16_PROTOTXT.replace("input_dim: 224", "input_dim: 32")
    for width in (512, 256, 128, 64, 4096, 1000):
        text = text.replace(f"num_output: {width} ", f"num_output: {width // 32} ")
    return text


def test_a_small_vgg16_computes(tmp_path: Path) -> None:
    arrays = vgg16_arrays(divisor=32, side=1)
    foreign = read_caffe(
        written(tmp_path, "small.prototxt", vgg16_small()),
        written(tmp_path, "small.caffemodel", caffemodel(arrays, v1=True, old=True)),
    )
    x = images(foreign)
    np.testing.assert_allclose(outputs(foreign, x)[0], vgg16_of(arrays, x), rtol=1e-4, atol=1e-6)


def test_numbers_stay_in_the_file_until_they_are_wanted(tmp_path: Path) -> None:
    text = MAP + layer("Bias")
    foreign = net(tmp_path, text, [(4,)])
    written(tmp_path, "net.caffemodel", b"another file")
    with pytest.raises(UserError, match="was changed while it was read"):
        foreign.tensors["y.bias"].read()


def test_layers_of_training_are_left_out_and_told(tmp_path: Path) -> None:
    text = (
        'layer { name: "data" type: "Data" top: "x" top: "label" include { phase: TRAIN } }\n'
        'layer { name: "data" type: "Data" top: "x" top: "label" include { phase: TEST }\n'
        "  transform_param { crop_size: 7 } }\n"
        + layer("ReLU")
        + layer("Dropout", "include { stage: 'x' }", "y", "z")
        + layer("Sigmoid", "exclude { phase: TEST }", "y", "w")
        + layer("SoftmaxWithLoss", 'bottom: "label"', "y", "loss")
        + layer("Accuracy", 'bottom: "label" include { phase: TEST }', "y", "accuracy")
    )
    foreign = read_caffe(written(tmp_path, "train_val.prototxt", text))
    assert [node.op_type for node in foreign.model.graph.node] == ["Relu"]
    assert images(foreign).shape == (1, 3, 7, 7)
    left_out = "left out, as they serve training only: "
    assert foreign.notes[0] == left_out + "`data`, `z`, `w`, `loss`, `accuracy`"


COLOUR = INPUT % "dim: 1 dim: 3 dim: 224 dim: 224" + layer("ReLU")
DATA = 'layer { name: "d" type: "Data" top: "d" include { phase: TRAIN } transform_param { %s } }\n'


def preprocessing(tmp_path: Path, text: str) -> Preprocessing | None:
    return net(tmp_path, text).facts.preprocessing


def test_without_a_word_pictures_are_bgr_less_imagenets_mean(tmp_path: Path) -> None:
    assert preprocessing(tmp_path, COLOUR) == CAFFE.at((3, 224, 224))
    assert "nothing tells how pictures are prepared" in net(tmp_path, COLOUR).notes[0]
    assert preprocessing(tmp_path, COLOUR.replace("dim: 3", "dim: 1")) is None


def test_a_transformation_of_training_tells_how_pictures_are_prepared(tmp_path: Path) -> None:
    """Of values from 0 to 255, less a mean, times a scale."""
    told = (
        "mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.017 crop_size: 224 mirror: true"
    )
    found = preprocessing(tmp_path, DATA % told + COLOUR)
    assert found is not None
    assert found.order == "bgr"
    pixels = np.array([[[30, 60, 90]]], np.uint8)
    red, green, blue = 30, 60, 90
    expected = [(blue - 104) * 0.017, (green - 117) * 0.017, (red - 123) * 0.017]
    picture = Image.fromarray(np.broadcast_to(pixels, (300, 300, 3)).copy())
    np.testing.assert_allclose(found.of_picture(picture)[0, :, 9, 9], expected, rtol=1e-4)


def test_one_mean_is_that_of_all_channels(tmp_path: Path) -> None:
    grey = COLOUR.replace("dim: 3", "dim: 1")
    found = preprocessing(tmp_path, DATA % "scale: 0.00390625" + grey)
    assert found is not None
    assert (found.mean, found.std, found.order) == ((0.0,), (256 / 255,), "rgb")
    means = preprocessing(tmp_path, DATA % "mean_value: 51" + COLOUR)
    assert means is not None
    assert means.mean == (0.2, 0.2, 0.2)


MEAN = DATA % 'mean_file: "data/mean.binaryproto" scale: 0.5' + COLOUR


def test_a_mean_picture_beside_the_definition_is_its_average_of_each_channel(
    tmp_path: Path,
) -> None:
    picture = np.stack([np.full((4, 5), value) for value in (102, 51, 204)])
    picture[:, :, 0] += 10
    picture[:, :, 1] -= 10
    for old in (False, True):
        written(tmp_path, "mean.binaryproto", blob(picture[None], old=old))
        found = net(tmp_path, MEAN)
        assert "the mean in mean.binaryproto is a picture of 1 × 3 × 4 × 5" in found.notes[1]
        how = found.facts.preprocessing
        assert how is not None
        assert how.mean == pytest.approx((0.4, 0.2, 0.8))
        assert (how.std, how.order) == ((2 / 255,) * 3, "bgr")


def test_a_mean_that_is_not_beside_the_definition_is_told(tmp_path: Path) -> None:
    for name in ("data/mean.binaryproto", "..", "", "a" * 999, "\\000"):
        found = net(tmp_path, MEAN.replace("data/mean.binaryproto", name))
        assert "is not read, as it is not beside the definition: ImageNet's mean" in found.notes[1]
        how = found.facts.preprocessing
        assert how is not None
        assert how.mean == pytest.approx(CAFFE.mean)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (blob(np.ones((1, 2, 4, 4))), "expected 3 channels"),
        (blob(np.ones((2, 3, 4, 4))), "expected 3 channels"),
        (blob(np.full((3, 1, 1), np.nan)), "NaN or infinity"),
        (blob(np.ones((3, 4, 4)))[:-1], "cut off"),
        (b"a text", "damaged"),
    ],
)
def test_a_mean_that_is_none_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    written(tmp_path, "mean.binaryproto", content)
    assert said in mistake(tmp_path, MEAN)


@pytest.mark.parametrize("told", ["mean_value: 1e300", "scale: -1", "scale: 1e-300"])
def test_a_transformation_out_of_range_is_refused(tmp_path: Path, told: str) -> None:
    with pytest.raises(UserError):
        net(tmp_path, DATA % told + COLOUR)


# ---------------------------------------------------------------- mistakes


def mistake(tmp_path: Path, text: str, shapes: Sequence[tuple[int, ...]] = ()) -> str:
    with pytest.raises(UserError) as caught:
        net(tmp_path, text, shapes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (layer("Slice", 'top: "z" top: "w"'), "cannot cut 3 equal parts"),
        (layer("Slice", 'top: "z" slice_param { slice_point: 4 }'), "cannot be cut at its points"),
        (layer("Slice", "slice_param { slice_point: 2 }"), "4 channels come in, and it has 1 tops"),
        (layer("Slice", 'top: "z" slice_param { axis: 2 }'), "Slice along another axis"),
        (layer("ArgMax"), "no word for layers of type ArgMax"),
        (layer("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }"), "LRN within channels"),
        (layer("Power", "power_param { power: 2 }"), "no word for Power with `power: 2`"),
        (layer("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"), "stochastic"),
        (layer("Reshape", "reshape_param { shape { dim: 0 dim: 2 dim: -1 } }"), "4×7×6 to 0×2×-1"),
        (layer("Softmax", "softmax_param { axis: 2 }"), "Softmax along another axis"),
        (layer("BatchNorm", "batch_norm_param { use_global_stats: false }"), "no word for Batch"),
        (layer("Eltwise", 'bottom: "x" eltwise_param { operation: MAX }'), "Eltwise MAX"),
        (layer("Eltwise", 'bottom: "x" eltwise_param { coeff: 1 coeff: -1 }'), "coefficients"),
        (layer("Concat", 'bottom: "x" concat_param { axis: 2 }'), "Concat along another axis"),
        (layer("ReLU", bottom="z"), "no layer before makes `z`"),
        (layer("ReLU") + layer("ReLU"), "two layers make `y`"),
        (layer("ReLU", "", "a", "b") + layer("ReLU", "", "b", "a"), "no layer before makes `a`"),
        (layer("Convolution", CONV % ""), "`y` has no `kernel_size`"),
        (layer("Convolution", CONV % "kernel_size: 9"), "`y` would be of 1×6×-1×-2"),
        (layer("Convolution", CONV % "kernel_size: 1 group: 3"), "4 channels to 6, in 3 groups"),
        (layer("Convolution", CONV % "kernel_size: 1 kernel_h: 1"), "one is too much"),
        (layer("Pooling", "pooling_param { kernel_size: 1 kernal_h: 3 }"), "no `kernal_h`"),
        (layer("InnerProduct", "inner_product_param { num_output: 0 }"), "from 1 to"),
        (MAP, "a net of several inputs"),
    ],
)
def test_what_cannot_be_said_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    problem = mistake(tmp_path, MAP + text)
    assert told in problem
    assert f" --> {tmp_path}/net.prototxt:" in problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is no layer in this text"),
        ('name: "x"', "there is no layer in this text"),
        (MAP, "the net has no layers"),
        ('input: "x" ' + layer("ReLU"), "the input `x` has no shape"),
        ('input: "x" input_dim: 1 input_dim: 3 ' + layer("ReLU"), "is of 1×3 numbers"),
        (INPUT % "dim: 1 dim: 3 dim: 99999999999 dim: 2" + layer("ReLU"), "is a whole number"),
        (INPUT % "dim: 1 dim: 1048576 dim: 9999 dim: 9" + layer("ReLU"), "1048576×9999×9 numbers"),
        ('layers { layer { name: "conv1" type: "conv" } }', "a layer of Caffe of 2013 (V0)"),
        ("layers { type: CONVOLUTON }", "did you mean `CONVOLUTION`?"),
        ('layer { name: "x" type: "Data" top: "x" }', "the size of the pictures of `x`"),
    ],
)
def test_a_net_without_what_it_needs_is_refused(tmp_path: Path, text: str, told: str) -> None:
    assert told in mistake(tmp_path, text)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ([(4, 6, 3, 3), (6,)], "the weight of `y` is of 4×6×3×3 there, of 6×4×3×3 in the"),
        ([(6, 4, 3, 3)], "it has 1 arrays of `y`, a layer of type Convolution, which takes 2"),
    ],
)
def test_weights_of_another_net_are_refused(
    tmp_path: Path, shapes: Sequence[tuple[int, ...]], told: str
) -> None:
    text = MAP + layer("Convolution", CONV % "kernel_size: 3")
    assert told in mistake(tmp_path, text, shapes)
    renamed = text.replace('name: "y"', 'name: "conv"')
    assert "nothing in it is called `conv`" in mistake(tmp_path, renamed, shapes)


LAYER = message(1, b"y")
HUGE = b"".join(key(1, 0) + varint(1 << 60) for _ in range(4))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (message(100, LAYER + message(7, message(7, HUGE))), "a blob's shape is out of range"),
        (
            message(100, LAYER + message(7, message(7, message(1, varint(9) * 40)))),
            "more than 32 axes",
        ),
        (message(100, LAYER + message(7, message(5, b"123"))), "ends in the middle of a number"),
        (message(100, LAYER + message(7, message(5, b"1234" * 2))), "of 1 × 1 × 1 × 1 numbers"),
        (message(100, LAYER + message(7, message(5, b"1234"))) * 2, "two of its layers are called"),
        (key(100, 2) + varint(1 << 62), "it is cut off"),
        (key(100, 3), "it is no message of protobuf"),
        (b"\xff" * 20, "it ends in the middle of a number, or is no message of protobuf"),
        (message(2, message(1, b"")), "those of Caffe of 2013 (V0)"),
    ],
)
def test_a_broken_file_of_weights_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    definition = written(tmp_path, "net.prototxt", MAP + layer("Bias"))
    with pytest.raises(UserError) as caught:
        read_caffe(definition, written(tmp_path, "net.caffemodel", data))
    assert told in str(caught.value)
