"""A sample of every op, and how outputs are compared."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vggc.backends.torch import reference
from vggc.ir.activations import ACTIVATIONS
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights, seeded

SAMPLES = {
    "conv": "conv3-5",
    "conv_then_relu": "conv3-5 | relu",
    "conv_strided": "conv5-4 stride=2",
    "conv_strided_less_padded": "conv5-4 stride=2 padding=1",
    "conv_unpadded": "conv3-4 padding=0 act=none | conv1-6",
    "conv_wide": "conv3-33 ×2",
    "conv_oblong": "conv1x7-4 stride=2x1 | conv4x3-5 padding=0x2 | conv2-3",
    "conv_uneven": "conv3-20 stride=2 padding=0x0x1x1 | conv5-4 padding=3x1x0x2",
    "conv_dilated": "conv3-33 dilation=2 | conv3-4 dilation=1x3 padding=1x2 | "
    "conv2x4-3 dilation=2x1",
    "conv_dilated_in_groups": "conv3-12 groups=3 dilation=2 | conv3-24 groups=12 dilation=2x1",
    "conv_of_borders": "conv3-4 border=reflect | conv5x2-6 border=wrap | "
    "conv3-3 border=edge stride=2",
    "conv_grouped": "conv3-12 groups=3 | conv3-8 groups=4 stride=2",
    "conv_depthwise": "conv3-24 groups=3 | conv3-24 groups=24 act=none",
    "conv_without_bias": "conv3-4 bias=off | conv3-4 bias=off act=leaky slope=0.2",
    "conv_normalised": "conv3-4 bias=off norm=batch eps=0.1 | conv3-6 norm=batch act=none",
    "deconv": "deconv4-5 stride=2 | deconv3-4 | deconv3-6 stride=2 act=none",
    "deconv_uneven": "conv3-4 | deconv2x5-6 stride=3x2 padding=0x1x1x3 | deconv2-3 act=gelu",
    "deconv_grouped": "conv3-6 | deconv3-6 stride=2x1 groups=2 | deconv4-6 stride=2 groups=6",
    "deconv_normalised": "deconv3-4 stride=2 bias=off norm=batch | deconv2-4 stride=2 norm=layer",
    "pool": "conv3-4 | pool",
    "pool_overlapping": "conv3-4 | pool3 stride=2 | conv3-2",
    "pool_padded": "pool3 stride=2 padding=1 | conv3-2",
    "pool_rounded_up": "conv3-4 | pool3 stride=2 round=up | pool2 round=up | conv3-2",
    "pool_padded_and_rounded_up": "pool3 stride=2 padding=1 round=up | pool2 stride=3 round=up",
    "avgpool": "avgpool3 stride=2 | conv3-2",
    "avgpool_padded": "conv3-4 | avgpool3 stride=1 padding=1 | conv3-2",
    "avgpool_rounded_up": "avgpool3 stride=2 padding=1 round=up | avgpool2 round=up",
    "pool_oblong": "conv3-4 | pool3x2 stride=2x1 padding=2x0x1x1 round=up | pool1x3 padding=0x1",
    "pool_far_padded": "pool3 stride=2 padding=2 | pool2 stride=1 padding=0x0x1x1",
    "avgpool_oblong": "conv3-4 | avgpool2x5 stride=1 padding=1x4x0x2 | avgpool7 stride=3 round=up",
    "avgpool_counting": "avgpool3 stride=2 padding=1 border=zeros | conv3-2",
    "avgpool_counting_unevenly": "avgpool3x2 padding=0x1x2x0 border=zeros round=up | conv3-2 | "
    "avgpool5 stride=4 padding=2 border=zeros round=up",
    "pads": "pad padding=1x0x2x3 | conv3-4 padding=0 | pad padding=2x3 border=reflect | "
    "pad padding=0x4x3x0 border=wrap | pad padding=3 border=edge",
    "stochasticpool": "stochasticpool3 stride=2 | conv3-20 act=none | stochasticpool",
    "stochasticpool_rounded_up": "stochasticpool3x2 stride=2 padding=1x0x0x1 round=up | conv3-2",
    "gap": "conv3-4 | gap",
    "gap_then_fc": "conv3-9 | gap | fc-6 | fc-5 | softmax",
    "lrn": "conv3-9 | lrn",
    "lrn_strong": "lrn size=3 alpha=0.5 beta=0.5 k=1 | conv3-4",
    "batchnorm": "batchnorm | relu | conv3-4",
    "batchnorm_of_relu": "conv3-4 | batchnorm | batchnorm | conv3-4",
    "batchnorm_of_vector": "conv3-2 | flatten | batchnorm | fc-6 norm=batch | batchnorm | fc-5",
    "scale": "scale start=0.5 | conv3-4 act=none | scale | batchnorm | relu | scale bias=off",
    "scale_of_vector": "fc-6 act=none | scale | gelu | scale | batchnorm | fc-5 | scale start=-2",
    "groupnorm": "conv3-64 norm=group eps=1e-3 | groupnorm groups=1 | groupnorm groups=64 | gap",
    "groupnorm_of_vector": "fc-64 norm=group act=gelu | groupnorm groups=4 eps=0.1 | fc-5",
    "layernorm": "layernorm | conv3-37 norm=layer act=gelu | layernorm eps=0.1 | relu | conv3-4",
    "layernorm_of_vector": "conv3-2 | flatten | layernorm | fc-37 norm=layer eps=1e-3 | fc-5",
    **{f"act_{word}": f"{word} | conv3-5 act={word} | conv1-3 | {word}" for word in ACTIVATIONS},
    "acts_of_vectors": " | ".join(f"fc-7 act={word} | {word}" for word in ACTIVATIONS) + " | fc-5",
    "clip": "clip min=-0.5 max=0.7 | conv3-5 act=none | clip max=0.5 | conv1-3 | clip min=0.1",
    "clip_of_vector": "fc-7 act=none | clip min=-0.3 max=0.3 | fc-5 | clip min=-0.1",
    "prelu": "prelu | conv3-5 act=none | prelu | conv3-3",
    "prelu_of_vector": "fc-7 act=none | prelu | fc-5",
    "relu_of_vector": "fc-7 | softmax | relu",
    "fc": "fc-7",
    "fc_without_bias": "fc-7 bias=off | fc-5 bias=off",
    "fc_of_map": "conv3-4 | pool | fc-40 | fc-5",
    "dropout": "fc-40 | dropout p=0.3 | fc-5",
    "flatten": "conv3-2 | flatten",
    "flatten_then_softmax": "pool3 | flatten | softmax",
    "flatten_then_relu": "conv3-2 act=none | flatten | relu | fc-5",
    "softmax": "fc-7 | softmax",
    "softmax2d": "conv3-21 act=none | softmax2d | conv3-2 act=none | softmax2d",
    "shuffle": "conv3-12 | shuffle groups=3 | conv3-12 groups=4 | shuffle | shuffle groups=6",
    "take": "conv3-20 | concat(take part=2 of=2 | conv3-10, take channels=1..3, take part=1) | "
    "take channels=7 | conv3-4",
    "take_of_vector": "fc-9 act=none | mul(take part=1 of=3, take part=3 of=3 | sigmoid) | fc-5",
    "upsample": "conv3-5 | upsample | conv3-4 | upsample1x3 | conv3-2",
    "upsample_bilinear": "pool3 | upsample2x3 mode=bilinear | conv3-5 | upsample3x1 mode=bilinear",
    "nothing": "dropout",
    "concat": "concat(conv1-4, conv3-4 | conv3-6, skip) | conv5-3",
    "concat_of_pools": "concat(pool3 stride=1 padding=1, avgpool3 stride=1 padding=1) | gap",
    "concat_of_vectors": "concat(fc-4, gap | fc-3, flatten) | fc-5",
    "concat_at_the_end": "conv3-4 | concat(conv1-2, skip)",
    "add": "conv3-4 | add(conv3-4 | conv3-4 act=none, skip) | relu | conv3-2",
    "add_projected": "conv3-4 | add(conv3-6 stride=2 act=none, conv1-6 stride=2 act=none) | fc-5",
    "add_of_vectors": "add(fc-4, gap | fc-4, fc-4 act=none) | tanh | fc-5",
    "add_normalised": "conv3-4 | add(conv3-4 norm=batch act=none, skip | batchnorm) | batchnorm",
    "mul": "conv3-4 | mul(conv3-4 | conv3-4 act=none, skip, conv1-4 act=sigmoid) | relu | conv3-2",
    "mul_of_vectors": "mul(fc-4, gap | fc-4, fc-4 act=none) | tanh | fc-5",
    "squeeze": "conv3-8 | mul(gap | fc-4 | fc-8 act=sigmoid, conv3-8 act=none) | relu | conv3-2",
    "squeeze_all": "conv3-4 padding=0 | mul(gap, conv1-4, fc-4, @input | conv3-4 padding=0)",
    "nested": "conv3-4 | add(concat(conv1-2, conv3-2 | add(conv3-2, skip)), skip) | elu | fc-5",
    "map_for_fc_and_conv": "a: conv3-4 | concat(flatten | fc-4, @a | fc-3, conv3-2 | fc-2) | fc-5",
    "map_for_two_fcs": "conv3-4 | add(fc-6, fc-6) | softmax",
    "heads": "trunk: conv3-4 | fc-6 | softmax head spot: @trunk | gap | boxes head map: @trunk",
    "heads_of_one_node": "conv3-4 | a: conv3-3 | relu | fc-5 head b: @a head c: @a | gap",
    "head_inside": "a: conv3-4 | conv3-4 | fc-5 head first: @a | batchnorm | relu",
}

BATCH = 2


def weights_of(graph: Graph) -> Weights:
    """Seeded weights whose vectors are far from where they start."""
    weights = seeded(graph, 0)
    random = np.random.default_rng(1)
    for name, weight in graph.all_weights.items():
        if len(weight.shape) == 1:
            noise = random.standard_normal(weight.shape, np.float32) / 2
            weights[name] = np.exp(noise) if weight.role == "running_var" else weights[name] + noise
    return weights


def torch_outputs(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the heads give in float64, before anything is folded."""
    values = reference(graph, weights_of(graph))(x)
    return {head.name: values[graph.nodes[head.node].name] for head in graph.heads}


def assert_agree(outputs: Iterable[np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for output, (name, wanted) in zip(outputs, expected.items(), strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(output, wanted, 1e-5, 1e-6 * max(1, scale), err_msg=name)
