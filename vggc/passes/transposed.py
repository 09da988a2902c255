"""Transposed convolutions as convolutions, which all kernels of these then serve.

With a stride of s×t the pixels of a block of s×t places see the same inputs, each through taps of
its own: row y of the output takes tap s·m + (y mod s) of input row y div s - m. So a convolution of
stride 1 gives what stands at all places of a block as channels beside one another, through the
ceil(k/s) taps that one of them has at most; the channels are then brought to their places. Source:
Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?", section 3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Conv2d, ConvTranspose2d, DepthToSpace, Pair


def with_convolutions_alone(graph: Graph) -> tuple[Graph, dict[str, ConvTranspose2d]]:
    """The graph with a convolution in the place of each transposed one, of the same name, and
    behind it, where there is a stride, a node `NAME.places`; the transposed ones by their names.
    """
    nodes: list[Node] = []
    place: list[int] = []
    found: dict[str, ConvTranspose2d] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(place[read] for read in node.inputs))
        if isinstance(node.op, ConvTranspose2d):
            found[node.name] = node.op
            op, shuffle = convolution_of(node.op), places_of(node.op)
            shape = op.output(nodes[node.inputs[0]].shape)
            nodes.append(replace(node, op=op, shape=shape))
            if node.op.stride != (1, 1):
                name, reads = f"{node.name}.places", (len(nodes) - 1,)
                nodes.append(replace(node, name=name, op=shuffle, inputs=reads))
        else:
            nodes.append(node)
        place.append(len(nodes) - 1)
    heads = tuple(replace(head, node=place[head.node]) for head in graph.heads)
    return replace(graph, nodes=tuple(nodes), heads=heads), found


def convolution_of(op: ConvTranspose2d) -> Conv2d:
    """The convolution that gives all places of a block as channels."""
    (down, across), (top, left, bottom, right) = op.stride, op.padding
    taps = taps_of(op)
    return Conv2d(
        channels=down * across * op.channels,
        kernel=taps,
        padding=(
            taps[0] - 1 - top // down,
            taps[1] - 1 - left // across,
            (op.kernel[0] - 1 - bottom) // down,
            (op.kernel[1] - 1 - right) // across,
        ),
        groups=op.groups,
        bias=op.bias,
    )


def places_of(op: ConvTranspose2d) -> DepthToSpace:
    """What brings the channels of that convolution to their places."""
    (down, across), (top, left, bottom, right) = op.stride, op.padding
    below = down - 1 - (op.kernel[0] - 1 - bottom) % down
    beside = across - 1 - (op.kernel[1] - 1 - right) % across
    return DepthToSpace(op.stride, (top % down, left % across, below, beside), op.groups)


def taps_of(op: ConvTranspose2d) -> Pair:
    """How many inputs a value of the output sees along each axis at most."""
    rows, columns = (-(-k // s) for k, s in zip(op.kernel, op.stride, strict=True))
    return rows, columns


def weight_of(op: ConvTranspose2d, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weight of that convolution, from `(C, K/groups, kh, kw)`; where a value has fewer taps
    than others, the rest are zero.
    """
    (down, across), (rows, columns) = op.stride, taps_of(op)
    channels, outputs, height, width = weight.shape
    more = ((0, 0), (0, 0), (0, rows * down - height), (0, columns * across - width))
    taps = np.pad(weight, more).reshape(
        op.groups, channels // op.groups, outputs, rows, down, columns, across
    )[:, :, :, ::-1, :, ::-1]
    # To groups, rows and columns of a block, outputs; inputs, rows and columns of taps.
    moved = taps.transpose(0, 4, 6, 2, 1, 3, 5)
    return np.ascontiguousarray(moved).reshape(-1, channels // op.groups, rows, columns)


FloatKind = TypeVar("FloatKind", bound=np.floating[Any])


def repeated(op: ConvTranspose2d, values: NDArray[FloatKind]) -> NDArray[FloatKind]:
    """Numbers for each channel of a transposed convolution, `(K,)`, for those of that convolution:
    for each at all places of a block.
    """
    repeats = (1, op.stride[0] * op.stride[1], 1)
    return np.tile(values.reshape(op.groups, 1, -1), repeats).reshape(-1)
