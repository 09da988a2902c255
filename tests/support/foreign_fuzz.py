"""Definitions and weights of foreign nets as accidents leave them: bytes changed, cut, repeated.

`python -m tests.support.foreign_fuzz 10000` reads so many of Caffe's and of Darknet's. Anything but
a net or a diagnostic ends it with a traceback.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.foreign_files import arrays_of, caffemodel, darknet_weights, written
from vggc.importing.caffe import read_caffe
from vggc.importing.darknet import read_darknet
from vggc.importing.foreign import Foreign
from vggc.support.diagnostics import UserError


@dataclass(frozen=True)
class Sound:
    """Two files that belong together."""

    definition: str
    weights: bytes


_PROTOTXT = """
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
SMALL_CAFFE = Sound(_PROTOTXT, caffemodel(arrays_of(CAFFE_ARRAYS)))

_CFG = (
    """
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
layers=-1,-2
""".replace("layers=-1,-2", "layers=-2")
    + """
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
)
_SHAPES = [(4,), (4,), (4,), (4,), (4, 3, 3, 3), (4,), (4, 2, 1, 1), (2,), (2, 36)]
SMALL_DARKNET = Sound(
    _CFG,
    darknet_weights(
        each for (each,) in arrays_of({str(at): [s] for at, s in enumerate(_SHAPES)}).values()
    ),
)


def accidents_of_caffe(folder: Path, sound: Sound, count: int, seed: int) -> int:
    """How many of so many pairs of files end in a net or in a diagnostic."""
    return _accidents(read_caffe, folder, sound, count, seed)


def accidents_of_darknet(folder: Path, sound: Sound, count: int, seed: int) -> int:
    """How many of so many pairs of files end in a net or in a diagnostic."""
    return _accidents(read_darknet, folder, sound, count, seed)


def _accidents(
    read: Callable[[Path, Path], Foreign], folder: Path, sound: Sound, count: int, seed: int
) -> int:
    draw = random.Random(seed)
    ended = 0
    for _ in range(count):
        text, weights = sound.definition.encode(), sound.weights
        if draw.random() < 0.6:
            text = _changed(draw, text)
        if draw.random() < 0.6:
            weights = _changed(draw, weights)
        paths = written(folder, "definition", text), written(folder, "weights", weights)
        try:
            foreign = read(*paths)
            for tensor in foreign.tensors.values():
                assert tensor.read().shape == tensor.shape
            foreign.model.SerializeToString()
        except UserError as error:
            str(error)
        ended += 1
    return ended


def _changed(draw: random.Random, data: bytes) -> bytes:
    for _ in range(draw.randint(1, 4)):
        at, end = sorted(draw.choices(range(len(data) + 1), k=2))
        end = min(end, at + draw.choice((1, 4, 40, 400)))
        match draw.randrange(6):
            case 0:
                data = data[:at] + data[end:]
            case 1:
                data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
            case 2:
                data = data[:end] + data[at:end] * draw.randint(1, 3) + data[end:]
            case 3:
                number = str(draw.choice((0, -1, 7, 1 << 31, 1 << 60, 10**30, 0.5))).encode()
                data = data[:at] + number + data[at:]
            case 4:
                data = data[:at]
            case 5:
                other = draw.randrange(len(data) + 1)
                data = data[:at] + data[other : other + end - at] + data[at:]
    return data


def main() -> None:
    """Reads as many of each kind as the first argument tells."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        caffe = accidents_of_caffe(Path(folder), SMALL_CAFFE, count, seed=1)
        darknet = accidents_of_darknet(Path(folder), SMALL_DARKNET, count, seed=1)
    print(f"{caffe:,} of Caffe's and {darknet:,} of Darknet's ended in a net or a message")


if __name__ == "__main__":
    main()
