"""Modules of torch, traced and computed again from the graph of ONNX operators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.foreign_files import outputs
from vggc.importing.aten import NoOperatorError, graph_of
from vggc.importing.foreign import Foreign

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Of(nn.Module):
    """A module that computes a function, of its own weights among others."""

    def __init__(self, function: Callable[..., Tensor], *weights: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        draw = torch.Generator().manual_seed(0)
        self.weights = nn.ParameterList(torch.rand(each, generator=draw) for each in weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


def traced(module: nn.Module, shape: tuple[int, ...] = (4, 8, 6)) -> Foreign:
    with torch.no_grad():
        program = torch.export.export(module.eval(), (torch.zeros(1, *shape),), strict=False)
    graph, given = graph_of(program)
    return Foreign(
        model=graph.model(given), tensors=graph.read_tensors(), name="net", files=("memory",)
    )


def require_same(module: nn.Module) -> Foreign:
    foreign = traced(module)
    x = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module.double()(x.double()).numpy()
    (found,) = outputs(foreign, x.numpy())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    return foreign


MODULES = {
    "convolution": nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2),
    "same padding": nn.Conv2d(4, 6, 4, padding="same", dilation=2, bias=False),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "normalised": nn.Sequential(nn.BatchNorm2d(4, eps=1e-3), nn.BatchNorm2d(4, affine=False)),
    "groups": nn.GroupNorm(2, 4),
    "pools": nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2)),
    "means": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "adapted": nn.Sequential(nn.AdaptiveAvgPool2d((4, 3)), nn.AdaptiveAvgPool2d((4, 3))),
    "global": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    "dense": nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False), nn.Softmax(1)),
    "dropped": nn.Sequential(nn.Dropout(0.2), nn.Dropout2d(0.1), nn.Identity()),
    "rectified": nn.Sequential(nn.ReLU(inplace=True), nn.LeakyReLU(0.2), nn.PReLU(4)),
    "smooth": nn.Sequential(nn.ELU(0.5), nn.GELU(), nn.SiLU(inplace=True), nn.Mish()),
    "hard": nn.Sequential(nn.Hardswish(inplace=True), nn.Hardsigmoid(), nn.ReLU6()),
    "logistic": nn.Sequential(nn.Sigmoid(), nn.Tanh(), nn.Softplus()),
    "padded": nn.Sequential(nn.ReflectionPad2d((1, 2, 0, 1)), nn.ZeroPad2d((1, 0, 2, 0))),
    "larger": nn.Sequential(nn.Upsample(scale_factor=2), nn.UpsamplingNearest2d(scale_factor=3)),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "shuffled": nn.ChannelShuffle(2),
    "of places": Of(lambda x, w: x.mean((2, 3)) @ w, (4, 2)),
    "kept mean": Of(lambda x: x.mean((2, 3), keepdim=True) * x),
    "sums": Of(lambda x, w: torch.cat([x + x, x * w, x - 1, x / 2], 1).clamp(-1, 1), (4, 1, 1)),
    "layers": Of(
        lambda x, w, b, m: functional.linear(
            functional.layer_norm(x.permute(0, 2, 3, 1), [4], w, b, 1e-6), m
        ).permute(0, 3, 1, 2),
        (4,), (4,), (5, 4),
    ),
    "viewed": Of(lambda x: x.view(1, 2, 2, 8, 6).transpose(1, 2).contiguous().view(1, 4, 8, 6)),
    "parts": Of(lambda x: x.chunk(2, 1)[1] + x.split([2, 2], 1)[0] * x[:, -1:]),
    "cut out": Of(lambda x: x.narrow(1, -3, 1) - x[:, 3].unsqueeze(1) * x.select(1, 0)[:, None]),
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES.keys())
def test_a_module_computes_the_same_as_its_graph(module: nn.Module) -> None:
    require_same(module)


def test_what_is_changed_in_its_place_is_read_as_changed() -> None:
    """As a residual block reads its shortcut behind an activation in place."""

    def block(x: Tensor) -> Tensor:
        y = x * 2
        other = y.relu_()
        y += x
        return y + other

    require_same(Of(block))


def test_weights_are_those_of_the_module_and_not_a_copy() -> None:
    module = nn.Conv2d(4, 6, 3)
    foreign = traced(module)
    with torch.no_grad():
        module.weight.fill_(7)
    assert (foreign.tensors["weight"].read() == 7).all()
    assert np.shares_memory(foreign.tensors["weight"].read(), module.weight.detach().numpy())


def viewed_and_changed(x: Tensor) -> Tensor:
    y = x * 2
    flat = y.flatten(1)
    y.relu_()
    return flat


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (nn.AdaptiveAvgPool2d((3, 3)), "`adaptive_avg_pool2d` of 8×6 to 3×3"),
        (Of(lambda x: x.cumsum(1)), "`cumsum`"),
        (Of(viewed_and_changed), "a value that another operator changes in its place"),
        (Of(lambda x: functional.conv2d(x, x)), "a weight that is computed"),
        (nn.UpsamplingBilinear2d(scale_factor=2), "with aligned corners"),
        (nn.BatchNorm2d(4, track_running_stats=False), "with the statistics of each batch"),
    ],
)
def test_an_operator_without_a_counterpart_is_named(module: nn.Module, told: str) -> None:
    with pytest.raises(NoOperatorError) as caught:
        traced(module)
    assert told in str(caught.value)


def test_an_operator_is_named_with_its_place_in_the_module() -> None:
    module = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(5)))
    with pytest.raises(NoOperatorError) as caught:
        traced(module)
    assert caught.value.where == "1.1"
