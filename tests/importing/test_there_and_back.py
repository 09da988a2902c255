"""A net of ours that is exported to ONNX comes back as the words that it was written in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.importing.nets import agrees, layers
from tests.support.nets import graph_of
from tests.support.op_samples import weights_of
from vggc.backends.onnx import save_onnx
from vggc.importing.net import import_foreign
from vggc.importing.onnx_file import read_onnx

NETS = (
    "conv3-4 act=none | shuffle groups=2 | add(conv1-4, skip) | mul(skip, gap | fc-4) | softmax2d",
    "conv3-8 | shuffle groups=4 | concat(take part=2 of=2, take channels=0..2)",
    "concat(shuffle groups=2, layernorm) | groupnorm groups=2",
    "conv3-4 padding=2x1 border=wrap | pad padding=1x2x0x1 border=wrap",
    "pad padding=1x0 | scale | pad padding=0x0x0x3",
    "conv3-4 | flatten",
    "flatten | layernorm | take part=1 of=3 | fc-8 norm=layer eps=0.1 | groupnorm groups=4 | "
    "fc-8 act=mish",
    "conv3-1 | softmax2d",
    "pool4 | concat(stochasticpool3 stride=1 padding=1, skip) | conv1-4",
)


@pytest.mark.parametrize("text", NETS)
def test_what_is_exported_comes_back_as_it_was_written(text: str, tmp_path: Path) -> None:
    graph = graph_of(text, "4x5x6")
    path = tmp_path / "net.onnx"
    save_onnx(graph, weights_of(graph), path, {})
    net = import_foreign(read_onnx(path))
    assert layers(net) == text
    assert agrees(net)
