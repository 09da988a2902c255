"""Transposed convolutions become convolutions that give the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.support.nets import graph_of
from tests.support.op_samples import weights_of
from vggc.backends.torch import reference
from vggc.ir.ops import Conv2d, ConvTranspose2d, DepthToSpace
from vggc.passes.fold import fold
from vggc.passes.transposed import convolution_of, places_of


@st.composite
def words(draw: st.DrawFn) -> str:
    """Any layer `deconv` of four channels that reads a map of three pixels by four or more."""
    kernel, stride = (tuple(draw(st.integers(1, most)) for _ in "hw") for most in (6, 4))
    sides = [draw(st.integers(0, kernel[axis % 2] - 1)) for axis in range(4)]
    for axis, extent in enumerate((3, 4)):
        whole = (extent - 1) * stride[axis] + kernel[axis]
        sides[2 + axis] = min(sides[2 + axis], max(0, whole - 1 - sides[axis]))
    said = {
        "stride": "x".join(map(str, stride)),
        "groups": draw(st.sampled_from([1, 2])),
        "bias": draw(st.sampled_from(["on", "off"])),
        "act": "none",
    }
    if draw(st.booleans()):
        said["padding"] = "x".join(map(str, sides))
    size = "x".join(map(str, kernel))
    return f"deconv{size}-4 " + " ".join(f"{key}={value}" for key, value in said.items())


@settings(max_examples=60, deadline=None)
@given(words())
def test_a_transposed_convolution_is_what_torch_makes_of_it(word: str) -> None:
    graph = graph_of(word, "2x3x4")
    node = graph.nodes[-1]
    assert isinstance(node.op, ConvTranspose2d)
    weights = weights_of(graph)
    weight, *bias = (torch.from_numpy(weights[name]).double() for name in graph.weights(node))
    x = np.random.default_rng(0).standard_normal((2, *graph.input), np.float32)
    whole = F.conv_transpose2d(
        torch.from_numpy(x).double(), weight, *bias, stride=node.op.stride, groups=node.op.groups
    )
    top, left, bottom, right = node.op.padding
    wanted = whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right].numpy()
    folded = fold(graph)
    assert not any(isinstance(each.op, ConvTranspose2d) for each in folded.graph.nodes)
    for net, held in ((graph, weights), (folded.graph, folded.weights(weights))):
        net.verify()
        found = reference(net, held)(x)[net.nodes[-1].name]
        np.testing.assert_allclose(found, wanted, 1e-12, 1e-12)


def test_a_block_of_places_has_the_taps_of_the_place_with_most() -> None:
    op = ConvTranspose2d(8, (4, 3), (2, 2), (1, 1, 1, 0))
    conv = convolution_of(op)
    assert conv == Conv2d(32, (2, 2), padding=(1, 1, 1, 1))
    assert places_of(op) == DepthToSpace((2, 2), (1, 1, 1, 1))


def test_without_a_stride_it_is_a_convolution_and_nothing_else() -> None:
    ops: list[Any] = [node.op for node in fold(graph_of("deconv3-4 act=none")).graph.nodes]
    assert ops[1:] == [Conv2d(4, (3, 3), padding=(1, 1, 1, 1))]
