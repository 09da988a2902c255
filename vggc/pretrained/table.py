"""Which published weights nets of the zoo have: plain data, without numpy.

Source: torchvision 0.29.1, `torchvision/models/*.py`: the addresses, sizes, transforms and scores
of the weights `IMAGENET1K_V1`. The first eight hexadecimal digits of a file's SHA-256 stand in its
name. The whole sums are those that public repositories pin, each taken where it begins with these
digits and two repositories, or one that tells the same number of bytes, agree on it; none was found
for vgg11, vgg13, vgg11_bn and vgg13_bn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import TypeAlias

IMAGENET = "imagenet"
"""What names published weights, where a run or a file of weights could be named, too."""

SITE = "https://download.pytorch.org/models"
VERSION = "IMAGENET1K_V1"
LICENCE = (
    "torchvision is under BSD-3-Clause and names no licence of its weights, which were trained on"
    " ImageNet, whose pictures are for research that is not commercial"
)
CLASSES = 1000

MEBIBYTE = 1 << 20
ROUNDING = 0.001
"""Sizes are published in mebibytes with three digits behind the point."""

Colours: TypeAlias = tuple[float, float, float]

MEAN: Colours = (0.485, 0.456, 0.406)
STD: Colours = (0.229, 0.224, 0.225)
"""The mean and deviation of ImageNet's colours over 255, in RGB."""
HALF: Colours = (0.5, 0.5, 0.5)
"""Mean and deviation for weights that came from TensorFlow, for which torchvision's nets have
`transform_input`: they bring what is normalised by ImageNet's mean to this.
Source: torchvision, `googlenet.py` and `inception.py`, `_transform_input`.
"""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that are published for a net. `sha256` is the whole sum of the file, or as much of it
    as is known, its beginning. `top1` and `top5` are the shares of ImageNet's validation pictures
    in percent, as published. Of a picture, whose shorter side is brought to `resize` pixels, the
    net sees a square of `crop`; `mean` and `std` are shares of 255 in RGB.
    """

    net: str
    file: str
    sha256: str
    mebibytes: float
    top1: float
    top5: float
    resize: int = 256
    crop: int = 224
    mean: Colours = MEAN
    std: Colours = STD

    @property
    def most_bytes(self) -> int:
        """The most bytes that a file of the published size has."""
        return floor((self.mebibytes + ROUNDING) * MEBIBYTE)

    def has_size(self, num_bytes: int) -> bool:
        """Whether a file of so many bytes has the published size."""
        return abs(num_bytes / MEBIBYTE - self.mebibytes) <= ROUNDING

    @property
    def is_known_whole(self) -> bool:
        """Whether the whole sum of the file is known."""
        return len(self.sha256) == 64

    @property
    def title(self) -> str:
        """What weights these are, in words."""
        return f"torchvision's {VERSION} of {self.net}"

    @property
    def seen(self) -> str:
        """What is done to pictures, in words."""
        shares = "/".join(f"{value:g}" for value in self.mean)
        spread = "/".join(f"{value:g}" for value in self.std)
        return (
            f"RGB, the shorter side to {self.resize} pixels (bilinear), {self.crop}×{self.crop} of"
            f" the centre, (v/255 - {shares}) / {spread}"
        )


def _table(*rows: Published) -> dict[str, Published]:
    return {row.net: row for row in rows}


PUBLISHED: Mapping[str, Published] = _table(
    Published(
        net="vgg11",
        file="vgg11-8a719046.pth",
        sha256="8a719046",
        mebibytes=506.84,
        top1=69.020,
        top5=88.628,
    ),
    Published(
        net="vgg13",
        file="vgg13-19584684.pth",
        sha256="19584684",
        mebibytes=507.545,
        top1=69.928,
        top5=89.246,
    ),
    Published(
        net="vgg16",
        file="vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        mebibytes=527.796,
        top1=71.592,
        top5=90.382,
    ),
    Published(
        net="vgg19",
        file="vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        mebibytes=548.051,
        top1=72.376,
        top5=90.876,
    ),
    Published(
        net="vgg11_bn",
        file="vgg11_bn-6002323d.pth",
        sha256="6002323d",
        mebibytes=506.881,
        top1=70.370,
        top5=89.810,
    ),
    Published(
        net="vgg13_bn",
        file="vgg13_bn-abd245e5.pth",
        sha256="abd245e5",
        mebibytes=507.59,
        top1=71.586,
        top5=90.374,
    ),
    Published(
        net="vgg16_bn",
        file="vgg16_bn-6c64b313.pth",
        sha256="6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a",
        mebibytes=527.866,
        top1=73.360,
        top5=91.516,
    ),
    Published(
        net="vgg19_bn",
        file="vgg19_bn-c79401a0.pth",
        sha256="c79401a0cf3cb42714e4182f5868c7a6f4f4534f5df9e956e2bb2098de41cbb6",
        mebibytes=548.143,
        top1=74.218,
        top5=91.842,
    ),
    Published(
        net="alexnet",
        file="alexnet-owt-7be5be79.pth",
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        mebibytes=233.087,
        top1=56.522,
        top5=79.066,
    ),
    Published(
        net="googlenet",
        file="googlenet-1378be20.pth",
        sha256="1378be20a8e875cf1568b8a71654e704449655e34711a959a38b04fb34905cef",
        mebibytes=49.731,
        top1=69.778,
        top5=89.530,
        mean=HALF,
        std=HALF,
    ),
    Published(
        net="inception_v3",
        file="inception_v3_google-0cc3c7bd.pth",
        sha256="0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
        mebibytes=103.903,
        top1=77.294,
        top5=93.450,
        resize=342,
        crop=299,
        mean=HALF,
        std=HALF,
    ),
    Published(
        net="resnet18",
        file="resnet18-f37072fd.pth",
        sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        mebibytes=44.661,
        top1=69.758,
        top5=89.078,
    ),
    Published(
        net="resnet34",
        file="resnet34-b627a593.pth",
        sha256="b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
        mebibytes=83.275,
        top1=73.314,
        top5=91.420,
    ),
    Published(
        net="resnet50",
        file="resnet50-0676ba61.pth",
        sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        mebibytes=97.781,
        top1=76.130,
        top5=92.862,
    ),
    Published(
        net="squeezenet",
        file="squeezenet1_1-b8a52dc0.pth",
        sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        mebibytes=4.729,
        top1=58.178,
        top5=80.624,
    ),
    Published(
        net="densenet121",
        file="densenet121-a639ec97.pth",
        sha256="a639ec97d7c33b07ae66f0b5fb7d0192f95a3b11b7576c66c0126c2a727c4395",
        mebibytes=30.845,
        top1=74.434,
        top5=91.972,
    ),
    Published(
        net="convnext_tiny",
        file="convnext_tiny-983f1562.pth",
        sha256="983f1562536e84ff750a1576fb08e54de751dbf2e17c0d8a4a13704341fdcd3d",
        mebibytes=109.119,
        top1=82.520,
        top5=96.146,
        resize=236,
    ),
)
"""The published weights of each net of the zoo that has such, in the zoo's order of families."""
