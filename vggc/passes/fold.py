"""A trained net as an inference computes it: no dropout, no statistics, a bias everywhere.

The graph follows from the graph alone, so that whoever has a spec knows the weights that its
artifact holds; the weights follow from the graph and the trained weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import BatchNorm, Conv2d, ConvTranspose2d, Linear, Scale
from vggc.ir.weights import Weights
from vggc.passes.inference import drop_dropout
from vggc.passes.rewrite import without
from vggc.passes.transposed import repeated, weight_of, with_convolutions_alone

FOLDING = Conv2d | ConvTranspose2d | Linear | Scale
"""What takes in a normalisation or scale that alone reads it."""


@dataclass(frozen=True)
class Folded:
    """A folded graph, for inference, and which normalisations and scales went into which of its
    nodes.
    """

    graph: Graph
    absorbed: dict[str, tuple[Node, ...]]
    """The normalisations and scales in a convolution, linear layer or scale, in order, by its
    name."""
    transposed: dict[str, ConvTranspose2d] = field(default_factory=dict)
    """The transposed convolutions that convolutions stand for, by their names."""

    def weights(self, trained: Weights, *, in_place: bool = False) -> Weights:
        """The weights of the folded graph from the trained ones, which are overwritten where they
        are to be folded `in_place`; those of transposed convolutions are put into another order,
        which takes a copy.

        Computed in float64 and rounded once.
        """
        found: Weights = {}
        for node in self.graph.nodes:
            shapes = {name: weight.shape for name, weight in self.graph.weights(node).items()}
            match node.op:
                case Conv2d() | Linear() | Scale():
                    weight, bias, scales = self._folded(node, trained, *shapes.values())
                    if op := self.transposed.get(node.name):
                        weight, bias = weight_of(op, weight), repeated(op, bias)
                        scales = None if scales is None else repeated(op, scales)
                    if scales is not None:
                        into = weight if in_place else np.empty_like(weight)
                        for index, factor in enumerate(scales):
                            into[index] = weight[index] * factor
                        weight = into
                    found |= dict(zip(shapes, (weight, bias), strict=True))
                case _:
                    found |= {name: trained[name] for name in shapes}
        return found

    def _folded(
        self, node: Node, trained: Weights, shape: tuple[int, ...], bias_shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64] | None]:
        """A node's weight, which is still to be multiplied by scales, one an output, where there
        are some, and its bias.
        """
        absorbed = self.absorbed.get(node.name, ())
        if op := self.transposed.get(node.name):
            bias_shape = (op.channels,)
        bias = np.zeros(bias_shape, np.float32)
        if absorbed and absorbed[0].name == node.name:
            weight = np.ones(shape, np.float32)
        else:
            weight = trained[f"{node.name}.weight"]
            bias = trained.get(f"{node.name}.bias", bias)
        if not absorbed:
            return weight, bias, None
        scales, exact_bias = np.ones(len(bias)), bias.astype(np.float64)
        for each in absorbed:
            own = {
                weight.role: trained[f"{each.name}.{weight.role}"].astype(np.float64)
                for weight in each.op.weights(shape[:1])
            }
            scale, offset = own["weight"], own.get("bias", 0.0)
            if isinstance(each.op, BatchNorm):
                scale = scale / np.sqrt(own["running_var"] + each.op.eps)
                exact_bias = exact_bias - own["running_mean"]
            scales *= scale
            exact_bias = exact_bias * scale + offset
        return weight, exact_bias.astype(np.float32), scales


def fold(graph: Graph) -> Folded:
    """Drops dropout, folds every batch normalisation and scale, gives a bias to what has none, and
    puts convolutions in the place of transposed ones.

    A normalisation or scale goes into the convolution or linear layer that it alone reads; any
    other is or becomes a `Scale`, which takes in those behind it in its turn. Folding a folded
    graph changes nothing. Source: Jacob et al. 2018, section 3.2.
    """
    graph = drop_dropout(graph)
    readers = graph.readers()
    heads = {head.node for head in graph.heads}
    owners: dict[int, int] = {}
    """For each normalisation the node that it goes into, another, or itself as a scale; for each
    scale another, if it goes into one."""
    for index, node in enumerate(graph.nodes):
        if not isinstance(node.op, BatchNorm | Scale):
            continue
        (read,) = node.inputs
        alone = readers[read] == (index,) and read not in heads
        foldable = read in owners or isinstance(graph.nodes[read].op, FOLDING)
        if alone and foldable:
            owners[index] = owners.get(read, read)
        elif isinstance(node.op, BatchNorm):
            owners[index] = index
    absorbed: dict[str, tuple[Node, ...]] = {}
    for index, owner in owners.items():
        name = graph.nodes[owner].name
        absorbed[name] = (*absorbed.get(name, ()), graph.nodes[index])
    changed = replace(graph, nodes=tuple(map(_ready, graph.nodes)))
    left = without(changed, lambda index: owners.get(index, index) != index)
    whole, transposed = with_convolutions_alone(left)
    return Folded(whole, absorbed, transposed)


def _ready(node: Node) -> Node:
    """A node with a bias, or as the scale that a normalisation is."""
    match node.op:
        case Conv2d() | ConvTranspose2d() | Linear() | Scale():
            return replace(node, op=replace(node.op, bias=True))
        case BatchNorm():
            return replace(node, op=Scale())
        case _:
            return node
