"""Graph to `torch.nn.Module`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import (
    Conv2d,
    Dropout,
    Flatten,
    Input,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Op,
    ReLU,
    Softmax,
)
from vggc.weights import Weights

Reference: TypeAlias = Callable[[NDArray[np.float32]], dict[str, NDArray[np.float64]]]


class Net(nn.Module):
    """A graph's nodes in order: `(N, C, H, W)` to what the last node gives.

    The names in its `state_dict` are the graph's weight names. Weights start at zero.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.nodes = graph.nodes
        self.last_reads = _last_reads(graph)
        for node in graph.nodes:
            weights = graph.weights(node)
            if weights:
                # add_module refuses names such as `train`, which a user may well choose.
                self._modules[node.name] = _Weights({w.role: w.shape for w in weights.values()})

    def forward(self, x: Tensor) -> Tensor:
        (output,) = deque(self.outputs(x), maxlen=1)
        return output

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """What every node gives, in order; kept here only until its last reader has run."""
        alive: dict[int, Tensor] = {}
        for index, node in enumerate(self.nodes):
            read = alive[node.inputs[0]] if node.inputs else x
            for done in self.last_reads[index]:
                del alive[done]
            alive[index] = _apply(node.op, read, self._weights(node), self.training)
            del read
            yield alive[index]

    def _weights(self, node: Node) -> dict[str, Tensor]:
        owner = self._modules.get(node.name)
        return {} if owner is None else dict(owner.named_parameters(recurse=False))


def _last_reads(graph: Graph) -> tuple[tuple[int, ...], ...]:
    """For each node the nodes that nobody reads after it."""
    last = {read: index for index, node in enumerate(graph.nodes) for read in node.inputs}
    indices = range(len(graph.nodes))
    return tuple(tuple(read for read in last if last[read] == index) for index in indices)


class _Weights(nn.Module):
    """The weights of one node."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        for role, shape in shapes.items():
            self.register_parameter(role, nn.Parameter(torch.zeros(shape)))


def _apply(op: Op, x: Tensor, weights: dict[str, Tensor], training: bool) -> Tensor:
    match op:
        case Input():
            return x
        case Conv2d(stride=stride, padding=padding):
            return F.conv2d(x, weights["weight"], weights["bias"], stride, padding)
        case Linear():
            return F.linear(x, weights["weight"], weights["bias"])
        case MaxPool2d(kernel=kernel, stride=stride):
            return F.max_pool2d(x, kernel, stride)
        case LocalResponseNorm(size=size, alpha=alpha, beta=beta, k=k):
            # torch divides alpha by the size; the paper does not.
            return F.local_response_norm(x, size, alpha * size, beta, k)
        case ReLU():
            return F.relu(x)
        case Dropout(p=p):
            return F.dropout(x, p, training)
        case Flatten():
            return torch.flatten(x, 1)
        case Softmax():
            return F.softmax(x, dim=1)
        case _:
            assert_never(op)


def build(graph: Graph, weights: Weights | None = None) -> Net:
    """The module of a graph; its weights are zero where none are given."""
    net = Net(graph)
    if weights is not None:
        net.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    return net


def reference(graph: Graph, weights: Weights) -> Reference:
    """The graph in float64: a batch `(N, C, H, W)` to what every node gives, by name."""
    net = build(graph, weights).double().eval()

    def run(x: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        with torch.inference_mode():
            outputs = list(net.outputs(torch.from_numpy(x).double()))
        return {node.name: v.numpy() for node, v in zip(graph.nodes, outputs, strict=True)}

    return run


def save_program(graph: Graph, weights: Weights, path: Path) -> None:
    """Writes the graph as a `torch.export` program `(N, C, H, W)`, N free."""
    example = torch.zeros(2, *graph.input)
    free = {"x": {0: torch.export.Dim("batch", min=1)}}
    module = build(graph, weights).eval()
    program = torch.export.export(module, (example,), dynamic_shapes=free)
    torch.export.save(program, path)
