"""How values lie in memory, and what the workloads of vggc are, in torch and float32."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm, prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WORD = {"float32": 1, "float16": 2, "bfloat16": 2}
"""How many values of a format are 32 bits."""
EPSILON = {"float32": 1e-5, "float16": 2**-11, "bfloat16": 2**-8}
"""The relative error of values that are rounded to a format, sums in float32 included."""


@dataclass(frozen=True)
class Layout:
    """How a value lies in memory: a map, `(N, H + 2·halo, W + 2·halo, stored)`, or rows or planes
    of a plain shape.
    """

    shape: tuple[int, ...]
    """The value's own shape: `(N, C, H, W)` of a map."""
    stored: tuple[int, ...]
    format: str = "float32"
    halo: int = 0
    is_map: bool = False

    @classmethod
    def of(cls, said: Any) -> Layout:
        """The layout of a map as vggc's records have it, or of a list of extents."""
        if isinstance(said, list):
            return cls(tuple(said), tuple(said))
        unit = lcm(WORD[said["format"]], said["vector"])
        border, channels = 2 * said["halo"], -(-said["channels"] // unit) * unit
        return cls(
            shape=(said["batch"], said["channels"], said["height"], said["width"]),
            stored=(said["batch"], said["height"] + border, said["width"] + border, channels),
            format=said["format"],
            halo=said["halo"],
            is_map=True,
        )

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.format]

    @property
    def num_bytes(self) -> int:
        return prod(self.stored) * self.dtype.itemsize

    def pack(self, value: Tensor) -> Tensor:
        """A value as it lies in memory."""
        if not self.is_map:
            return value.to(self.dtype).contiguous()
        stored = torch.zeros(self.stored, dtype=self.dtype, device=value.device)
        self._inside(stored)[..., : self.shape[1]] = value.permute(0, 2, 3, 1).to(self.dtype)
        return stored

    def unpack(self, stored: Tensor) -> Tensor:
        """The value, in float32."""
        if not self.is_map:
            return stored.float()
        inside = self._inside(stored)[..., : self.shape[1]]
        return inside.permute(0, 3, 1, 2).float()

    def clean(self, stored: Tensor) -> bool:
        """Whether the halo and what pads the channels are zero."""
        if not self.is_map:
            return True
        rest = stored.clone()
        self._inside(rest)[..., : self.shape[1]] = 0
        return not bool(rest.view(torch.uint8).any())

    def _inside(self, stored: Tensor) -> Tensor:
        _, _, height, width = self.shape
        rows = slice(self.halo, self.halo + height)
        return stored[:, rows, self.halo : self.halo + width]


def layouts(kind: str, fields: dict[str, Any]) -> tuple[list[Layout], Layout]:
    """How a workload's inputs and its output lie in memory."""
    match kind:
        case "Softmax":
            rows = Layout.of([fields["batch"], fields["features"]])
            return [rows], rows
        case "Dense":
            given = [fields["batch"], fields["in_features"]]
            source = Layout.of(fields["source"] or given)
            return [source], Layout.of([fields["batch"], fields["out_features"]])
        case "ToNhwc":
            target = Layout.of(fields["output"])
            return [Layout(target.shape, target.shape)], target
        case "ToNchw":
            source = Layout.of(fields["input"])
            return [source], Layout(source.shape, source.shape)
        case "Add" | "Concat":
            return [Layout.of(each) for each in fields["inputs"]], Layout.of(fields["output"])
        case _:
            return [Layout.of(fields["input"])], Layout.of(fields["output"])


def weight_shapes(kind: str, fields: dict[str, Any]) -> list[tuple[int, ...]]:
    """The shapes of a workload's weights, before they are packed."""
    match kind:
        case "Conv":
            out, source = fields["output"]["channels"], fields["input"]["channels"]
            return [(out, source // fields["groups"], *fields["kernel"]), (out,)]
        case "Dense":
            return [(fields["out_features"], fields["in_features"]), (fields["out_features"],)]
        case _:
            return []


def expected(
    kind: str, fields: dict[str, Any], inputs: list[Tensor], weights: list[Tensor]
) -> Tensor:
    """What a workload gives of values in float32.

    Raises: NotImplementedError for a workload that is not written down here.
    """
    (x, *_) = inputs
    match kind:
        case "Conv":
            return _conv(fields, x, *weights)
        case "Dense":
            return _activated(fields["act"], F.linear(x.flatten(1), *weights))
        case "MaxPool":
            padded = _window_padding(fields, x, float("-inf"))
            return F.max_pool2d(padded, fields["kernel"], fields["stride"])
        case "AvgPool":
            sums, counts = (
                F.avg_pool2d(_window_padding(fields, each, 0.0), fields["kernel"], fields["stride"])
                for each in (x, torch.ones_like(x))
            )
            return sums / counts
        case "Add":
            return _activated(fields["act"], torch.stack(inputs).sum(0))
        case "Concat":
            return torch.cat(inputs, 1)
        case "Softmax":
            return x.softmax(1)
        case "Convert" | "ToNhwc" | "ToNchw":
            return x
        case _:
            raise NotImplementedError(f"no float32 reference of {kind}")


def _conv(fields: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    found = F.conv2d(x, weight, bias, fields["stride"], fields["padding"], groups=fields["groups"])
    _, _, height, width = Layout.of(fields["output"]).shape
    found = _activated(fields["act"], found)
    return F.max_pool2d(found, 2) if fields["pool"] else found[:, :, :height, :width]


def _activated(act: dict[str, Any] | None, value: Tensor) -> Tensor:
    if act is None:
        return value
    if act["function"] == "relu":
        return value.relu()
    raise NotImplementedError(f"no float32 reference of {act}")


def _window_padding(fields: dict[str, Any], x: Tensor, fill: float) -> Tensor:
    """A map with what its windows see around it, `fill`."""
    target = Layout.of(fields["output"]).shape[2:]
    pads = []
    for axis in (1, 0):
        before, kernel, stride = (fields[name][axis] for name in ("padding", "kernel", "stride"))
        behind = (target[axis] - 1) * stride + kernel - before - x.shape[2 + axis]
        pads += [before, behind]
    return F.pad(x, pads, value=fill)
