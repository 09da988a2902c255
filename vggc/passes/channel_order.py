"""The order of colours as a matter of weights.

A convolution adds up over the channels that it reads. So a net that wants blue, green and red is
the same net with the input channels of its first convolutions exchanged that wants red, green and
blue: every product stays, and only the order of their sum changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vggc.ir.graph import Graph
from vggc.ir.ops import (
    Activation,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    MaxPool2d,
    Pad2d,
    Scale,
)
from vggc.ir.weights import Weights
from vggc_runtime.preprocessing import Preprocessing

CHANNEL_BY_CHANNEL = Pad2d, MaxPool2d, AvgPool2d, Activation, Dropout, BatchNorm, Scale
"""Ops that give of each channel one channel, by weights of one number for each, if by any."""


def axes_of_colours(graph: Graph) -> dict[str, int]:
    """The weights that know colours by their places, and the axis that is of them, where the order
    of colours is a matter of weights; none otherwise.

    That is so where the input, or what comes of it channel by channel, goes only into convolutions
    that read all channels at once.
    """
    found: dict[str, int] = {}
    colours = {0}
    for index, node in enumerate(graph.nodes[1:], start=1):
        if colours.isdisjoint(node.inputs):
            continue
        match node.op:
            case Conv2d(groups=1):
                found[f"{node.name}.weight"] = 1
            case op if isinstance(op, CHANNEL_BY_CHANNEL):
                found |= dict.fromkeys(graph.weights(node), 0)
                colours.add(index)
            case _:
                return {}
    return {} if colours & {head.node for head in graph.heads} else found


def first_weights(graph: Graph) -> set[str]:
    """The weights that see values of the input, or what comes of them without weights."""
    found: set[str] = set()
    seen = {0}
    for index, node in enumerate(graph.nodes[1:], start=1):
        if seen.isdisjoint(node.inputs):
            continue
        if names := graph.weights(node):
            found |= {*names}
        else:
            seen.add(index)
    return found


def exchanged(graph: Graph, weights: Weights) -> Weights:
    """The weights of the net that takes its colours in the opposite order, as far as that is a
    matter of weights; all others are the same arrays.
    """
    axes = axes_of_colours(graph)
    return weights | {
        name: np.ascontiguousarray(np.flip(weights[name], axis)) for name, axis in axes.items()
    }


def in_rgb(graph: Graph, weights: Weights, how: Preprocessing) -> tuple[Weights, Preprocessing]:
    """Weights and preprocessing that give of pictures what these do, with colours in the order RGB
    where that is a matter of weights alone; the same ones otherwise.
    """
    if how.order == "rgb" or not axes_of_colours(graph):
        return weights, how
    rgb = replace(how, order="rgb", mean=how.mean[::-1], std=how.std[::-1])
    return exchanged(graph, weights), rgb
