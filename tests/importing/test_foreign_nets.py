"""Foreign nets as specs: the text that people would write, and the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.foreign_files import outputs, written
from tests.support.foreign_nets import SMALL_CAFFE, SMALL_DARKNET, VGG16_CFG, VGG16_PROTOTXT
from vggc.backends.torch import reference
from vggc.importing.aten import graph_of
from vggc.importing.caffe import read_caffe
from vggc.importing.darknet import read_darknet
from vggc.importing.foreign import Foreign
from vggc.importing.net import import_foreign

TABLE = """
  conv3-64  ×2 | pool
| conv3-128 ×2 | pool
| conv3-256 ×3 | pool
| conv3-512 ×3 | pool
| conv3-512 ×3 | pool
| (fc-4096 | dropout) ×2
| fc-1000 | softmax
"""


def require_same(foreign: Foreign) -> str:
    """The text of a net that computes what the graph of ONNX operators computes."""
    net = import_foreign(foreign)
    x = np.random.default_rng(0).uniform(size=(1, *net.graph.input)).astype(np.float32)
    (expected,) = outputs(foreign, x)
    *_, found = reference(net.graph, net.weights())(x).values()
    np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-4, atol=1e-5)
    return net.text


def test_both_published_vgg16s_are_the_table_of_the_paper(tmp_path: Path) -> None:
    caffe = read_caffe(written(tmp_path, "deploy.prototxt", VGG16_PROTOTXT))
    darknet = read_darknet(written(tmp_path, "vgg-16.cfg", VGG16_CFG))
    for foreign in (caffe, darknet):
        text = import_foreign(foreign).text
        assert text.endswith(f"input 3x224x224\n{TABLE}")


def test_a_net_of_caffes_computes_the_same_as_its_spec(tmp_path: Path) -> None:
    definition = written(tmp_path, "net.prototxt", SMALL_CAFFE.definition)
    weights = written(tmp_path, "net.caffemodel", SMALL_CAFFE.weights)
    assert "norm=batch eps=1e-4 act=leaky" in require_same(read_caffe(definition, weights))


def test_a_net_of_darknets_computes_the_same_as_its_spec(tmp_path: Path) -> None:
    definition = written(tmp_path, "net.cfg", SMALL_DARKNET.definition)
    weights = written(tmp_path, "net.weights", SMALL_DARKNET.weights)
    assert "slope=0.1" in require_same(read_darknet(definition, weights))


class ConvNext(nn.Module):
    """A block and the classifier of a ConvNeXt: channels last, a scale of each layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.depthwise = nn.Conv2d(4, 4, 7, padding=3, groups=4)
        self.norm = nn.LayerNorm(4, eps=1e-6)
        self.wide, self.narrow = nn.Linear(4, 16), nn.Linear(16, 4)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.last, self.classes = nn.LayerNorm(4, eps=1e-6), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(nn.functional.gelu(self.wide(y))).permute(0, 3, 1, 2)
        x = x + self.scale * y
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        x = self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.classes(x.flatten(1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_channels_that_lie_last_are_followed() -> None:
    with torch.no_grad():
        program = torch.export.export(ConvNext().eval(), (torch.zeros(1, 4, 8, 8),), strict=False)
    graph, given = graph_of(program)
    foreign = Foreign(
        model=graph.model(given), tensors=graph.read_tensors(), name="net", files=("memory",)
    )
    text = require_same(foreign)
    assert "layernorm" in text or "norm=layer" in text
