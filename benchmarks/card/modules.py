"""Nets as one would write them in torch, and torch's ways to compute them in a precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from card.tables import LayerRow, NetLayers

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.float16,
}
"""What torch computes in beside a net in a precision; it has no int8 of its own."""


@contextmanager
def torch_settings(precision: str) -> Iterator[None]:
    """Within it torch multiplies float32 in tf32 where that is the precision, and cuDNN times all
    its algorithms for a shape when it first meets it.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.benchmark_limit, cudnn.allow_tf32, products.allow_tf32
    cudnn.benchmark, cudnn.benchmark_limit = True, 0
    cudnn.allow_tf32 = products.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.benchmark_limit, cudnn.allow_tf32, products.allow_tf32 = before


class TorchNet(nn.Module):
    """A net in torch: images `(N, C, H, W)` to the values of its outputs, behind one another
    `(N, features)`.
    """

    def __init__(self, layers: NetLayers, modules: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(modules)
        self.reads = [row.reads for row in layers.rows]
        self.outputs = layers.outputs

    def forward(self, image: Tensor) -> Tensor:
        values: list[Tensor] = []
        for module, reads in zip(self.layers, self.reads, strict=True):
            values.append(module(*(image if read < 0 else values[read] for read in reads)))
        return torch.cat([values[index].flatten(1) for index in self.outputs], 1)


def torch_net(layers: NetLayers, weights: Mapping[str, Tensor]) -> TorchNet:
    """A net with weights in float32."""
    modules = []
    for index, row in enumerate(layers.rows):
        module = _module(row)
        if isinstance(module, nn.ReLU):
            module.inplace = _is_only_reader(layers, index)
        for (_, parameter), name in zip(module.named_parameters(), row.weights, strict=True):
            parameter.data = weights[name].clone()
        modules.append(module)
    return TorchNet(layers, modules).eval().requires_grad_(False)


def with_fused_relu(layers: NetLayers, net: TorchNet) -> TorchNet:
    """The net with a `ConvRelu` for each convolution that a ReLU alone reads."""
    rows, modules = [*layers.rows], [*net.layers]
    for index, row in enumerate(layers.rows):
        if row.kind != "relu" or not _is_only_reader(layers, index):
            continue
        (source,) = row.reads
        if layers.rows[source].kind == "conv":
            modules[index], modules[source] = ConvRelu(modules[source]), nn.Identity()
            rows[index] = replace(row, reads=layers.rows[source].reads)
    return TorchNet(replace(layers, rows=tuple(rows)), modules).eval()


def _is_only_reader(layers: NetLayers, index: int) -> bool:
    """Whether nobody else needs what a layer reads."""
    source = layers.rows[index].reads[0]
    is_read = source >= 0 and source not in layers.outputs
    return is_read and layers.readers[source] == (index,)


class ConvRelu(nn.Module):
    """A convolution and its ReLU in one of cuDNN's kernels."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        conv: Any = self.conv
        sizes = conv.stride, conv.padding, conv.dilation, conv.groups
        return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *sizes)


class _Function(nn.Module):
    """A layer without weights."""

    def __init__(self, kind: str, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind, self.sizes = kind, dict(sizes)

    def forward(self, *values: Tensor) -> Tensor:
        x = values[0]
        match self.kind:
            case "mean":
                return x.mean((2, 3))
            case "avgpool":
                return F.avg_pool2d(x, **self.sizes, count_include_pad=False)
            case "lrn":
                return F.local_response_norm(x, **self.sizes)
            case "add":
                return sum(values[1:], start=x)
            case "concat":
                return torch.cat(values, 1)
            case "softmax":
                return x.softmax(1)
            case kind:
                raise ValueError(f"no module for {kind}")


def _module(layer: LayerRow) -> nn.Module:
    sizes = layer.sizes
    match layer.kind:
        case "conv":
            return nn.Conv2d(**sizes)
        case "linear":
            return nn.Linear(**sizes)
        case "pool":
            return nn.MaxPool2d(**sizes)
        case "relu":
            return nn.ReLU()
        case "flatten":
            return nn.Flatten()
        case kind:
            return _Function(kind, sizes)
