"""The order of colours as a matter of weights.

A convolution adds up over the channels that it reads. So a net that wants blue, green and red is
the same net with the input channels of its first convolutions exchanged that wants red, green and
blue: every product stays, and only the order of their sum changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vggc.ir.graph import Graph
from vggc.ir.ops import Conv2d
from vggc.ir.weights import Weights
from vggc_runtime.preprocessing import Preprocessing


def first_convolutions(graph: Graph) -> tuple[str, ...]:
    """The names of the weights of the convolutions that read the input, where nothing else does and
    each reads all channels at once; none otherwise.
    """
    readers = [graph.nodes[index] for index in graph.readers()[0]]
    is_head = any(head.node == 0 for head in graph.heads)
    if is_head or any(not isinstance(n.op, Conv2d) or n.op.groups != 1 for n in readers):
        return ()
    return tuple(f"{node.name}.weight" for node in readers)


def exchanged(graph: Graph, weights: Weights) -> Weights:
    """The weights of the net that takes its colours in the opposite order, as long as it has
    `first_convolutions`; all others are the same arrays.
    """
    return weights | {
        name: np.ascontiguousarray(weights[name][:, ::-1]) for name in first_convolutions(graph)
    }


def in_rgb(graph: Graph, weights: Weights, how: Preprocessing) -> tuple[Weights, Preprocessing]:
    """Weights and preprocessing that give of pictures what these do, with colours in the order RGB
    where that is a matter of weights alone; the same ones otherwise.
    """
    if how.order == "rgb" or not first_convolutions(graph):
        return weights, how
    rgb = replace(how, order="rgb", mean=how.mean[::-1], std=how.std[::-1])
    return exchanged(graph, weights), rgb
