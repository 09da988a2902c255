"""The VGG nets that were published for Caffe and Darknet, written anew, and small ones of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tests.support.foreign_files import arrays_of, caffemodel, darknet_weights

WIDTHS = {1: (64, 2), 2: (128, 2), 3: (256, 3), 4: (512, 3), 5: (512, 3)}
"""Each block's width and convolutions."""


def _prototxt() -> str:
    text = 'name: "VGG_ILSVRC_16_layers"\ninput: "data"\n'
    text += "".join(f"input_dim: {side}\n" for side in (10, 3, 224, 224))
    bottom = "data"

    def layer(kind: str, name: str, top: str, settings: str = "") -> None:
        nonlocal text, bottom
        text += f'layers {{\n  bottom: "{bottom}"\n  top: "{top}"\n  name: "{name}"\n'
        text += f"  type: {kind}\n{settings}}}\n"
        bottom = top

    for block, (width, count) in WIDTHS.items():
        for at in range(1, count + 1):
            name = f"conv{block}_{at}"
            window = "pad: 1 kernel_size: 3"
            param = f"  convolution_param {{ num_output: {width} {window} }}\n"
            layer("CONVOLUTION", name, name, param)
            layer("RELU", name.replace("conv", "relu"), name)
        pool = "  pooling_param { pool: MAX kernel_size: 2 stride: 2 }\n"
        layer("POOLING", f"pool{block}", f"pool{block}", pool)
    for number, width in ((6, 4096), (7, 4096), (8, 1000)):
        param = f"  inner_product_param {{ num_output: {width} }}\n"
        layer("INNER_PRODUCT", f"fc{number}", f"fc{number}", param)
        if number < 8:
            layer("RELU", f"relu{number}", f"fc{number}")
            drop = "  dropout_param { dropout_ratio: 0.5 }\n"
            layer("DROPOUT", f"drop{number}", f"fc{number}", drop)
    layer("SOFTMAX", "prob", "prob")
    return text


VGG16_PROTOTXT = _prototxt()
"""VGG_ILSVRC_16_layers_deploy.prototxt, which is of the first generation."""


def _cfg() -> str:
    net = (
        "[net]\n# Training\n# batch=128\n# subdivisions=4\n\n# Testing\nbatch=1\nsubdivisions=1\n\n"
    )
    net += "height=256\nwidth=256\nchannels=3\nlearning_rate=0.00001\nmomentum=0.9\ndecay=0.0005\n"
    crop = "crop_height=224\ncrop_width=224\nflip=1\nexposure=1\nsaturation=1\nangle=0\n"
    text = f"{net}\n[crop]\n{crop}\n"
    for width, count in WIDTHS.values():
        conv = f"[convolutional]\nfilters={width}\nsize=3\nstride=1\npad=1\nactivation=relu\n\n"
        text += count * conv + "[maxpool]\nsize=2\nstride=2\n\n"
    dense = "[connected]\noutput=4096\nactivation=relu\n\n[dropout]\nprobability=.5\n\n"
    last = "[connected]\noutput=1000\nactivation=linear\n\n[softmax]\ngroups=1\n\n"
    return text + 2 * dense + last + "[cost]\ntype=sse\n"


VGG16_CFG = _cfg()
"""vgg-16.cfg of Darknet."""


def vgg16_arrays(
    divisor: int, side: int = 7, seed: int = 0
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Random weights and biases of a VGG-16 whose layers are so many times narrower, and whose
    last pool leaves a map of `side` rows and columns.
    """
    draw = np.random.default_rng(seed)
    found, channels = {}, 3
    shapes: dict[str, tuple[int, ...]] = {}
    for block, (width, count) in WIDTHS.items():
        for at in range(1, count + 1):
            shapes[f"conv{block}_{at}"] = (width // divisor, channels, 3, 3)
            channels = width // divisor
    features = channels * side * side
    for number, width in ((6, 4096), (7, 4096), (8, 1000)):
        shapes[f"fc{number}"] = (width // divisor, features)
        features = width // divisor
    for name, shape in shapes.items():
        fan = int(np.prod(shape[1:]))
        weight = draw.standard_normal(shape, np.float32) * np.float32((2 / fan) ** 0.5)
        found[name] = (weight, draw.standard_normal(shape[0], np.float32) * np.float32(0.1))
    return found


def vgg16_of(
    arrays: Mapping[str, Sequence[NDArray[np.float32]]], x: NDArray[np.float32]
) -> NDArray[Any]:
    """What a VGG-16 of these weights gives of images, in float64."""
    value = torch.from_numpy(x).double()
    for name, pair in arrays.items():
        weight, bias = (torch.from_numpy(each).double() for each in pair)
        if name.startswith("conv"):
            value = functional.conv2d(value, weight, bias, padding=1).relu()
            if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
                value = functional.max_pool2d(value, 2)
        else:
            value = functional.linear(value.flatten(1), weight, bias)
            value = value.softmax(1) if name == "fc8" else value.relu()
    return value.numpy()


@dataclass(frozen=True)
class Sound:
    """Two files that belong together."""

    definition: str
    weights: bytes


_SMALL_PROTOTXT = """
name: "small" input: "x" input_shape { dim: 1 dim: 3 dim: 9 dim: 9 }
layer { name: "c" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 1 } }
layer { name: "n" type: "BatchNorm" bottom: "c" top: "c" batch_norm_param { eps: 1e-4 } }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" relu_param { negative_slope: 0.1 } }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: AVE kernel_size: 2 } }
layer { name: "e" type: "Eltwise" bottom: "p" bottom: "p" top: "e" }
layer { name: "k" type: "Concat" bottom: "p" bottom: "e" top: "k" }
layer { name: "f" type: "InnerProduct" bottom: "k" top: "f" inner_product_param { num_output: 2 } }
layer { name: "y" type: "Softmax" bottom: "f" top: "y" }
"""
CAFFE_ARRAYS = {
    "c": [(4, 3, 3, 3), (4,)],
    "n": [(4,), (4,), (1,)],
    "s": [(4,), (4,)],
    "f": [(2, 128), (2,)],
}
SMALL_CAFFE = Sound(_SMALL_PROTOTXT, caffemodel(arrays_of(CAFFE_ARRAYS)))

_SMALL_CFG = """
[net]
height=9
width=9
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[upsample]
stride=2
[route]
layers=-2
[convolutional]
filters=4
size=1
groups=2
activation=linear
[shortcut]
from=-2
activation=mish
[connected]
output=2
activation=linear
[dropout]
probability=.5
[softmax]
groups=1
"""
_SMALL_SHAPES = [(4,), (4,), (4,), (4,), (4, 3, 3, 3), (4,), (4, 2, 1, 1), (2,), (2, 36)]
SMALL_DARKNET = Sound(
    _SMALL_CFG,
    darknet_weights(
        each for (each,) in arrays_of({str(at): [s] for at, s in enumerate(_SMALL_SHAPES)}).values()
    ),
)
