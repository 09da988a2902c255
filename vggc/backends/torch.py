"""Graph to `torch.nn.Module`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product
from operator import attrgetter, mul
from typing import Any, TypeAlias, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vggc.ir.activations import ACTIVATIONS
from vggc.ir.graph import Graph
from vggc.ir.ops import (
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    Border,
    Clip,
    Concat,
    Conv2d,
    ConvTranspose2d,
    DepthToSpace,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    Input,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Mul,
    Op,
    Pad2d,
    Pool2d,
    PRelu,
    Scale,
    Shuffle,
    Sides,
    Softmax,
    Softmax2d,
    StochasticPool2d,
    TakeChannels,
    TakePart,
    Upsample,
    Window,
)
from vggc.ir.weights import Weights
from vggc.support.tensors import MappedTensors, Pieces

ReferenceNet: TypeAlias = Callable[[NDArray[np.float32]], dict[str, NDArray[np.float64]]]

Observer: TypeAlias = Callable[[NDArray[np.float32]], Iterator[tuple[str, NDArray[np.float32]]]]


ACTIVATED: dict[str, Callable[..., Tensor]] = {
    name: attrgetter(row.torch)(torch) for name, row in ACTIVATIONS.items()
}
"""What computes each activation, of the input and, where it has one, its slope."""

NUMBERS = 2**16
"""How many numbers 16 bits can tell apart."""


@dataclass(frozen=True)
class BatchRows:
    """The batch of `total` images of which a module sees the rows `rows` (N,) only.

    Dropout is drawn for all of them, so that a part gives what it would give within the whole.
    `sum_over` adds up a tensor over everyone who sees a part, with its gradient: batch
    normalisation is then by all images.
    """

    rows: Tensor
    total: int
    sum_over: Callable[[Tensor], Tensor] | None = None


class TorchNet(nn.Module):
    """A graph as a PyTorch module: images `(N, C, H, W)` to what its heads give.

    That is the tensor of the only head, or, where there are several, a dict of tensors by the
    heads' names, in order. Its parameters, and as buffers what is not trained, are called as the
    graph's weights are. They begin at their `start`, or are those that are given, in the memory
    where these lie. Normalisations in `held`, by the names of their nodes, keep their statistics
    while the module trains, and normalise by those.
    """

    def __init__(self, graph: Graph, weights: Weights | None = None) -> None:
        super().__init__()
        self.nodes = graph.nodes
        self.heads = graph.heads
        self.last_reads = _last_reads(graph)
        self.whole: BatchRows | None = None
        self.held: frozenset[str] = frozenset()
        self.roles = tuple(
            {name.rpartition(".")[2]: name for name in graph.weights(node)} for node in graph.nodes
        )
        self.moved: dict[str, tuple[nn.Module, str]] = {}
        self.inputs = {name: w.inputs for name, w in graph.all_weights.items() if w.inputs}
        # By their full names, `conv1_1.weight`. No attribute of a module has a dot in its name, so
        # that layers may be called as they like; `register_parameter` would refuse the dot.
        for name, weight in graph.all_weights.items():
            if weights is None:
                tensor = torch.full(weight.shape, weight.start)
            else:
                assert weights[name].shape == weight.shape, name
                tensor = torch.from_numpy(weights[name])
            if weight.trained:
                self._parameters[name] = nn.Parameter(tensor)
            else:
                self._buffers[name] = tensor

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Takes the weights of these names. Raises: RuntimeError where `strict` and names differ.

        PyTorch's own check takes a dot in a name for a module's.
        """
        if strict and (unlike := self.state_dict().keys() ^ state_dict.keys()):
            raise RuntimeError(f"missing or unknown weights: {', '.join(sorted(unlike))}")
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """What the heads give of images `(N, C, H, W)`: a tensor, or where there are several a dict
        by name.
        """
        wanted = {head.node for head in self.heads}
        found: dict[int, Tensor] = {}
        for index, output in enumerate(self.outputs(x)):
            if index in wanted:
                found[index] = output
            del output  # not kept while the next one is computed
        if len(self.heads) == 1:
            return found[self.heads[0].node]
        return {head.name: found[head.node] for head in self.heads}

    def hold(self, frozen: Collection[str]) -> None:
        """Keeps fixed the statistics of the normalisations whose weights, by their full names, are
        all `frozen`.
        """
        self.held = frozenset(
            node.name
            for node, weights in zip(self.nodes, self.roles, strict=True)
            if isinstance(node.op, BatchNorm) and {*weights.values()} <= {*frozen}
        )

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """What every node gives of images `(N, C, H, W)`, in order; kept here only until its last
        reader has run.
        """
        alive: dict[int, Tensor] = {}
        for index, node in enumerate(self.nodes):
            reads = [alive[read] for read in node.inputs] or [x]
            for done in self.last_reads[index]:
                del alive[done]
            alive[index] = self.output(index, reads)
            del reads
            yield alive[index]

    def output(self, index: int, reads: list[Tensor]) -> Tensor:
        """What a node, by its place in the graph, gives of what it reads."""
        node = self.nodes[index]
        training = self.training and node.name not in self.held
        whole = self.whole if training else None
        weights = {role: self.weight(name) for role, name in self.roles[index].items()}
        return _apply(node.op, reads, weights, training, whole)

    def weight(self, name: str) -> Tensor:
        """A weight by its full name."""
        owner, role = self.moved.get(name, (self, name))
        found = owner._parameters[role] if role in owner._parameters else owner._buffers[role]
        assert found is not None
        return found


class MappedNet(TorchNet):
    """A graph in evaluation mode whose weights lie in a mapped file. A layer's are in memory while
    it is computed, a dense layer's piece by piece.
    """

    def __init__(self, graph: Graph, mapped: MappedTensors) -> None:
        super().__init__(graph, mapped.tensors)
        self.mapped = mapped

    def output(self, index: int, reads: list[Tensor]) -> Tensor:
        """What a node gives, as in a `TorchNet`."""
        tensors = {role: self.mapped.tensors[name] for role, name in self.roles[index].items()}
        if isinstance(self.nodes[index].op, Linear):
            found = self.dense(reads[0], tensors["weight"])
            return found + torch.from_numpy(tensors["bias"]) if "bias" in tensors else found
        found = super().output(index, reads)
        for tensor in tensors.values():
            self.mapped.forget(tensor)
        return found

    def dense(self, x: Tensor, weight: NDArray[np.float32]) -> Tensor:
        """The products of vectors with the rows of a weight."""
        found = []
        for piece in Pieces.of(weight).make():
            found.append(F.linear(x, torch.from_numpy(piece)))
            self.mapped.forget(piece)
        return torch.cat(found, dim=1)


def _last_reads(graph: Graph) -> tuple[tuple[int, ...], ...]:
    """For each node the nodes that nobody reads after it."""
    found: list[list[int]] = [[] for _ in graph.nodes]
    last = {read: index for index, node in enumerate(graph.nodes) for read in node.inputs}
    for read, index in last.items():
        found[index].append(read)
    return tuple(map(tuple, found))


def _apply(
    op: Op, reads: list[Tensor], weights: dict[str, Tensor], training: bool, whole: BatchRows | None
) -> Tensor:
    x = reads[0]
    match op:
        case Input():
            return x
        case Conv2d():
            return _convolved(op, x, weights["weight"], weights.get("bias"))
        case ConvTranspose2d():
            return _transposed(op, x, weights["weight"], weights.get("bias"))
        case DepthToSpace():
            return _placed(op, x)
        case Linear():
            return F.linear(x, weights["weight"], weights.get("bias"))
        case MaxPool2d():
            return _largest(op, x)
        case AvgPool2d():
            return _averaged(op, x)
        case StochasticPool2d():
            return _drawn(op, x, whole) if training else _weighted(op, x)
        case Pad2d(padding=padding, border=border):
            return _padded(x, padding, border)
        case GlobalAvgPool():
            return x.mean(dim=(2, 3))
        case BatchNorm(eps=eps, momentum=momentum):
            if whole and whole.sum_over:
                return _normalised_together(x, weights, momentum, eps, whole.sum_over)
            return _normalised(x, weights, training, momentum, eps)
        case Scale():
            shape = (-1, *(1,) * (x.dim() - 2))
            scaled = x * weights["weight"].view(shape)
            return scaled + weights["bias"].view(shape) if "bias" in weights else scaled
        case GroupNorm(groups=groups, eps=eps):
            return torch.group_norm(x, groups, weights["weight"], weights["bias"], eps)
        case LayerNorm(eps=eps):
            last = x.movedim(1, -1)  # as maps lie where channels come last
            normal = F.layer_norm(last, last.shape[-1:], weights["weight"], weights["bias"], eps)
            return normal.movedim(-1, 1)
        case LocalResponseNorm(size=size, alpha=alpha, beta=beta, k=k):
            # torch divides alpha by the size; the paper does not.
            return F.local_response_norm(x, size, alpha * size, beta, k)
        case Activation():
            return activated(op, x)
        case PRelu():
            return F.prelu(x, weights["weight"])
        case Dropout(p=p):
            return _dropped(x, p, whole) if training else x
        case Flatten():
            return torch.flatten(x, 1)
        case Softmax() | Softmax2d():
            return F.softmax(x, dim=1)
        case Shuffle(groups=groups):
            table = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
            return table.transpose(1, 2).flatten(1, 2)
        case TakePart() | TakeChannels():
            first, end = op.taken(tuple(x.shape[1:]))
            return x[:, first:end]
        case Upsample(factors=(down, across), mode=mode):
            larger = x.shape[2] * down, x.shape[3] * across
            centred = False if mode == "bilinear" else None
            return F.interpolate(x, larger, mode=mode, align_corners=centred)
        case Concat():
            return torch.cat(reads, dim=1)
        case Add():
            return sum(reads[1:], start=x)
        case Mul():
            return _product(reads)
        case _:
            assert_never(op)


PAD_MODES: dict[Border, str] = {
    "zeros": "constant",
    "edge": "replicate",
    "reflect": "reflect",
    "wrap": "circular",
}
"""What torch calls each border."""


def _padded(x: Tensor, padding: Sides, border: Border = "zeros", fill: float = 0.0) -> Tensor:
    """Maps with padding, which cuts off where it is below zero; `fill` stands for its zeros."""
    top, left, bottom, right = padding
    value = fill if border == "zeros" else None
    return F.pad(x, (left, right, top, bottom), PAD_MODES[border], value)


def _convolved(op: Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution. torch pads before a map as behind it: what is uneven is padded beforehand."""
    even = op.padding[:2] == op.padding[2:]
    before = op.padding[:2] if even else (0, 0)
    x = x if even else _padded(x, op.padding)
    return F.conv2d(x, weight, bias, op.stride, before, op.dilation, op.groups)


def _transposed(op: ConvTranspose2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A transposed convolution. torch takes away as much behind a map as before it, or less by
    a part of a stride; what is more is cut off afterwards.
    """
    before, behind = op.padding[:2], op.padding[2:]
    left = [a - b for a, b in zip(before, behind, strict=True)]
    if all(0 <= rest < step for rest, step in zip(left, op.stride, strict=True)):
        return F.conv_transpose2d(x, weight, bias, op.stride, before, left, op.groups)
    even = [min(each) for each in zip(before, behind, strict=True)]
    whole = F.conv_transpose2d(x, weight, bias, op.stride, even, 0, op.groups)
    top, first, bottom, last = (
        taken - side for taken, side in zip((*even, *even), op.padding, strict=True)
    )
    return _padded(whole, (top, first, bottom, last))


def _placed(op: DepthToSpace, x: Tensor) -> Tensor:
    """The channels of each block of places at these places."""
    (down, across), (top, left, bottom, right) = op.block, op.crop
    blocks = x.reshape(len(x), op.groups, down, across, -1, *x.shape[2:])
    places = blocks.permute(0, 1, 4, 5, 2, 6, 3).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    return _padded(places, (-top, -left, -bottom, -right))


def _pooled_by_torch(window: Window) -> bool:
    """Whether torch's pools take the padding of a window: even, and at most half of the window."""
    return window.is_even and all(
        2 * before <= size for before, size in zip(window.padding[:2], window.kernel, strict=True)
    )


def _largest(op: MaxPool2d, x: Tensor) -> Tensor:
    window = op.window(tuple(x.shape[1:]))
    if _pooled_by_torch(window):
        return F.max_pool2d(x, op.kernel, op.stride, op.padding[:2], ceil_mode=op.ceil)
    return F.max_pool2d(_padded(x, _reach(op, x), fill=-math.inf), op.kernel, op.stride)


def _averaged(op: AvgPool2d, x: Tensor) -> Tensor:
    window, counts = op.window(tuple(x.shape[1:])), op.counts_padding
    if _pooled_by_torch(window):
        before = op.padding[:2]
        return F.avg_pool2d(x, op.kernel, op.stride, before, op.ceil, count_include_pad=counts)
    sums = F.avg_pool2d(_padded(x, _reach(op, x)), op.kernel, op.stride, divisor_override=1)
    rows, columns = (
        _counts(op, axis, x.shape[2 + axis], sums.shape[2 + axis]) for axis in range(2)
    )
    return sums / torch.outer(rows, columns).to(sums)


def _weighted(op: StochasticPool2d, x: Tensor) -> Tensor:
    """The mean of each window weighted by its own values."""
    values = _padded(x.relu(), _reach(op, x))
    means = F.avg_pool2d(values, op.kernel, op.stride)
    squares = F.avg_pool2d(values.square(), op.kernel, op.stride)
    return squares / means.clamp(min=torch.finfo(means.dtype).tiny)


def _drawn(op: StochasticPool2d, x: Tensor, whole: BatchRows | None) -> Tensor:
    """A value of each window, drawn with a probability in proportion to itself: the first at which
    the sum of those up to it exceeds a number between zero and the sum of all.
    """
    values = _padded(x.relu(), _reach(op, x))
    (_, rows, columns), (down, right) = op.output(tuple(x.shape[1:])), op.stride
    windows = [
        values[
            :, :, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right
        ]
        .detach()
        .float()
        for i, j in product(*map(range, op.kernel))
    ]
    total = sum(windows[1:], start=windows[0])
    count = whole.total if whole else len(x)
    share = torch.rand((count, *total.shape[1:]), device=x.device)
    share = share[whole.rows] if whole else share
    # A share is below 1, and its product with the sum may be rounded to the sum.
    least = torch.minimum(share * total, torch.nextafter(total, torch.zeros_like(total)))
    before, passed = torch.zeros_like(total), torch.zeros_like(total, dtype=torch.int64)
    for window in windows[:-1]:
        before = before + window
        passed += before <= least
    width = values.shape[3]
    corner = (
        torch.arange(rows, device=x.device)[:, None] * (down * width)
        + torch.arange(columns, device=x.device) * right
    )
    place = corner + passed // op.kernel[1] * width + passed % op.kernel[1]
    found = values.flatten(2).gather(2, place.flatten(2)).view(total.shape)
    is_last = not x.is_contiguous()
    return found.contiguous(memory_format=torch.channels_last) if is_last else found


def _reach(op: Pool2d, x: Tensor) -> Sides:
    """How far the windows of a pool reach beyond each side of a map."""
    shape = tuple(x.shape[1:])
    _, *size = shape
    _, *count = op.output(shape)
    return op.window(shape).beyond((size[0], size[1]), (count[0], count[1]))


def _counts(op: AvgPool2d, axis: int, extent: int, count: int) -> Tensor:
    """What each of so many windows counts along an axis of a map."""
    before, behind = op.padding[axis], op.padding[2 + axis]
    first, last = (-before, extent + behind) if op.counts_padding else (0, extent)
    starts = torch.arange(count) * op.stride[axis] - before
    return (starts + op.kernel[axis]).clamp(max=last) - starts.clamp(min=first)


def _normalised(
    x: Tensor, weights: dict[str, Tensor], training: bool, momentum: float, eps: float
) -> Tensor:
    """Batch normalisation. One value a channel has no variance: the running ones serve it."""
    by_batch = training and x.numel() > x.shape[1]
    mean, variance = weights["running_mean"], weights["running_var"]
    weight, bias = weights["weight"], weights["bias"]
    return F.batch_norm(x, mean, variance, weight, bias, by_batch, momentum, eps)


def _normalised_together(
    x: Tensor,
    weights: dict[str, Tensor],
    momentum: float,
    eps: float,
    sum_over: Callable[[Tensor], Tensor],
) -> Tensor:
    """Batch normalisation by the values of all parts, which it moves the running ones by."""
    weight, bias = weights["weight"], weights["bias"]
    shape, axes = (1, -1, *(1,) * (x.dim() - 2)), (0, *range(2, x.dim()))
    values = x.float()
    here = torch.full_like(weight, values.numel() / values.shape[1] if len(x) else 0.0)
    count = sum_over(here.detach())
    mean = sum_over(values.sum(axes)) / count
    centred = values - mean.view(shape)
    variance = sum_over(centred.square().sum(axes)) / count
    with torch.no_grad():
        unbiased = variance * count / (count - 1).clamp(min=1)
        weights["running_mean"].lerp_(mean, momentum)
        weights["running_var"].lerp_(unbiased, momentum)
    scale = weight * torch.rsqrt(variance + eps)
    return (centred * scale.view(shape) + bias.view(shape)).to(x.dtype)


def _dropped(x: Tensor, p: float, whole: BatchRows | None) -> Tensor:
    """Dropout while training: what is left is divided by its share, 1 - p.

    A processor drops a share of whole 65,536ths: it draws four 16-bit numbers at once, which takes
    a sixth of the time of `F.dropout`. torch.compile has a way of its own.
    """
    in_numbers = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if whole is None and not in_numbers:
        return F.dropout(x, p)
    is_last = x.dim() == 4 and not x.is_contiguous()
    count, channels, *size = whole.total if whole else len(x), *x.shape[1:]
    shape = (count, *size, channels) if is_last else (count, channels, *size)
    if in_numbers:
        dropped = round(p * NUMBERS)
        everyone = _uniform(math.prod(shape)).view(shape) >= dropped - NUMBERS // 2
        share = 1 - dropped / NUMBERS
    else:
        everyone = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - p)
        share = 1 - p
    kept = everyone.movedim(-1, 1) if is_last else everyone
    if whole:
        kept = kept[whole.rows]
    return x * (kept.to(x.dtype) / share)


def _product(factors: list[Tensor]) -> Tensor:
    """The product of maps and vectors, of which these multiply whole channels."""
    rank = max(factor.dim() for factor in factors)
    spread = (each.view(*each.shape, *(1,) * (rank - each.dim())) for each in factors)
    return reduce(mul, spread)


def _uniform(count: int) -> Tensor:
    """`count` random numbers of int16, each as likely as the others."""
    drawn = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return drawn.view(torch.int16)[:count]


def activated(op: Activation, x: Tensor) -> Tensor:
    """The activation of each value of a tensor."""
    if isinstance(op, Clip):
        low, high = (limit if math.isfinite(limit) else None for limit in (op.low, op.high))
        return x.clamp(low, high)
    function = ACTIVATED[op.function]
    result: Tensor = function(x, op.slope) if op.facts.slope else function(x)
    return result


def build(graph: Graph, weights: Weights | MappedTensors | None = None) -> TorchNet:
    """The module of a graph; its weights are at their start where none are given, and take no
    memory of their own where some are. With mapped ones it can only be evaluated.
    """
    if isinstance(weights, MappedTensors):
        return MappedNet(graph, weights)
    return TorchNet(graph, weights)


def reference(graph: Graph, weights: Weights) -> ReferenceNet:
    """The graph in float64: a batch `(N, C, H, W)` to what every node gives, by name."""
    net = build(graph, weights).double().eval()

    def run(x: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        with torch.inference_mode():
            outputs = list(net.outputs(torch.from_numpy(x).double()))
        return {node.name: v.numpy() for node, v in zip(graph.nodes, outputs, strict=True)}

    return run


def observe(graph: Graph, weights: Weights, names: Collection[str]) -> Observer:
    """The graph in float32: a batch `(N, C, H, W)` to what the nodes of these names give."""
    net = build(graph, weights).eval()

    def run(x: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        with torch.inference_mode():
            for node, value in zip(graph.nodes, net.outputs(torch.from_numpy(x)), strict=True):
                if node.name in names:
                    yield node.name, value.numpy()

    return run
