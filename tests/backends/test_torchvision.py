"""Nets of the zoo beside torchvision's, where that is installed: the same weights in the same order
give the same scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.op_samples import weights_of
from vggc.backends.torch import build
from vggc.passes.inference import drop_final_softmax
from vggc.program import load

NAMES = {"squeezenet": "squeezenet1_1"}
"""What torchvision calls nets that it calls otherwise."""
WITHOUT_AUXILIARIES = {"aux_logits": False, "init_weights": False}


def in_our_order(state: Mapping[str, Tensor]) -> list[Tensor]:
    """The weights of a net, without counters; ConvNeXt's layer scales, which torchvision has before
    the blocks that they multiply, behind them.
    """
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    for scale in [name for name in names if name.endswith("layer_scale")]:
        block = scale.replace("layer_scale", "block")
        names.remove(scale)
        last = max(index for index, name in enumerate(names) if name.startswith(block))
        names.insert(last + 1, scale)
    return [state[name] for name in names]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "googlenet",
        "inception_v3",
        "resnet18",
        "resnet34",
        "resnet50",
        "squeezenet",
        "densenet121",
        "convnext_tiny",
    ],
)
def test_the_same_weights_give_the_same_scores(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    more = WITHOUT_AUXILIARIES if name in ("googlenet", "inception_v3") else {}
    theirs = models.get_model(NAMES.get(name, name), weights=None, **more).eval()
    graph = drop_final_softmax(load(name).graph)
    weights = weights_of(graph)
    with torch.inference_mode():
        for tensor, weight in zip(in_our_order(theirs.state_dict()), weights.values(), strict=True):
            assert tensor.squeeze().shape == weight.squeeze().shape
            tensor.copy_(torch.from_numpy(weight).reshape(tensor.shape))
        x = torch.randn(1, *graph.input, generator=torch.Generator().manual_seed(0))
        got, wanted = build(graph, weights).eval()(x), theirs(x)
    assert wanted.std() > 0.01 * wanted.abs().max()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
