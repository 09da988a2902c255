"""The zoo against the paper: figures typed by hand, each with where it was printed.

Source: Simonyan & Zisserman (ICLR 2015). MACs, activations and receptive fields are not
printed there; they follow from Table 1 and were worked out independently.
"""

from __future__ import annotations

import pytest

from vggc.program import load, zoo

# net: weight layers (Table 1), parameters in millions (Table 2), parameters, MACs and
# values kept by a forward pass at 224×224, receptive field of pool5 in pixels.
PAPER = {
    "vgg11": (11, 133, 132_863_336, 7_609_090_048, 9_116_136, 150),
    "vgg11_lrn": (11, 133, 132_863_336, 7_609_090_048, 9_116_136, 150),
    "vgg13": (13, 133, 133_047_848, 11_308_466_176, 13_933_032, 156),
    "vgg16_1x1": (16, 134, 133_638_952, 11_770_888_192, 15_237_608, 156),
    "vgg16": (16, 138, 138_357_544, 15_470_264_320, 15_237_608, 212),
    "vgg19": (19, 144, 143_667_240, 19_632_062_464, 16_542_184, 268),
}
TABLE_1 = {
    "vgg11": "64 p 128 p 256 256 p 512 512 p 512 512 p",
    "vgg11_lrn": "64 lrn p 128 p 256 256 p 512 512 p 512 512 p",
    "vgg13": "64 64 p 128 128 p 256 256 p 512 512 p 512 512 p",
    "vgg16_1x1": "64 64 p 128 128 p 256 256 c1-256 p 512 512 c1-512 p 512 512 c1-512 p",
    "vgg16": "64 64 p 128 128 p 256 256 256 p 512 512 512 p 512 512 512 p",
    "vgg19": "64 64 p 128 128 p 256 256 256 256 p 512 512 512 512 p 512 512 512 512 p",
}


def test_the_zoo_begins_with_the_papers_six_nets() -> None:
    assert zoo()[: len(PAPER)] == list(PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_totals_are_exact(name: str) -> None:
    depth, millions, params, macs, activations, field = PAPER[name]
    report = load(name).report()
    assert report.totals.params == params
    assert report.totals.weight_bytes == 4 * params
    assert report.totals.macs == macs
    assert report.totals.flops == 2 * macs
    assert report.totals.activation_bytes == 4 * activations
    assert round(params / 1e6) == millions
    assert sum(row.kind in ("conv", "fc") for row in report.rows) == depth
    (pool5,) = [row for row in report.rows if row.name == "pool5"]
    assert pool5.receptive_field == (field, field)
    assert pool5.stride == (32, 32)


@pytest.mark.parametrize("name", PAPER)
def test_layers_are_those_of_table_1(name: str) -> None:
    rows = load(name).report().rows
    short = {"pool": "p", "lrn": "lrn"}
    convolutional = [row for row in rows if row.kind in ("conv", "pool", "lrn")]
    texts = [short.get(row.text, row.text) for row in convolutional]
    texts = [text.replace("conv3-", "").replace("conv1-", "c1-") for text in texts]
    assert " ".join(texts) == TABLE_1[name]
    tail = "fc-4096 dropout fc-4096 dropout fc-1000 softmax"
    assert " ".join(row.text for row in rows if len(row.output_shape) == 1) == tail


def test_batch_and_type_scale_what_they_should() -> None:
    one, eight = load("vgg11").report(), load("vgg11").report(batch=8)
    half = load("vgg11").report(dtype="float16")
    assert eight.totals.params == one.totals.params
    assert eight.totals.macs == 8 * one.totals.macs
    assert eight.totals.activation_bytes == 8 * one.totals.activation_bytes
    assert half.totals.weight_bytes == one.totals.weight_bytes // 2
    assert half.totals.activation_bytes == one.totals.activation_bytes // 2
