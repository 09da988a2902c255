"""How values lie in memory, and what the workloads of vggc are, in torch and float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm, prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,
    "int8": torch.int8,
}
WORD = {"float32": 1, "tf32": 1, "float16": 2, "bfloat16": 2, "uint8": 4}
"""How many values of a format are 32 bits."""
EPSILON = {"float32": 1e-5, "tf32": 2**-11, "float16": 2**-11, "bfloat16": 2**-8, "uint8": 2**-6}
"""The relative error of values that are rounded to a format, sums in float32 included; in uint8
that of values all over its range."""
SIGNED = 128
"""What stands for zero in a uint8 map that may be negative."""


def levels(zero: int) -> int:
    """The steps of scale from zero to the largest value that a uint8 map holds."""
    return 127 if zero == SIGNED else 255


def rounded(value: Tensor, form: str) -> Tensor:
    """The nearest values of a format, in float32; those of uint8 are any."""
    match form:
        case "float16" | "bfloat16":
            return value.to(DTYPES[form]).float()
        case "tf32":  # its last 13 bits are zero; ties are rounded away from it
            bits = value.float().contiguous().view(torch.int32)
            return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
        case _:
            return value.float()


@dataclass(frozen=True)
class Layout:
    """How a value lies in memory: a map, `(N, H + 2·halo, W + 2·halo, stored)`, or rows or planes
    of a plain shape.

    The values of a uint8 map are the distances of its numbers to `zero`: steps of a scale.
    """

    shape: tuple[int, ...]
    """The value's own shape: `(N, C, H, W)` of a map."""
    stored: tuple[int, ...]
    format: str = "float32"
    halo: int = 0
    is_map: bool = False
    zero: int = 0

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
            zero=said["zero"],
        )

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.format]

    @property
    def num_bytes(self) -> int:
        return prod(self.stored) * self.dtype.itemsize

    def pack(self, value: Tensor) -> Tensor:
        """A value as it lies in memory."""
        held = rounded(value, self.format)
        if self.format == "uint8":
            held = self.cut(held) + self.zero
        if not self.is_map:
            return held.to(self.dtype).contiguous()
        stored = torch.full(self.stored, self.zero, dtype=self.dtype, device=value.device)
        self._inside(stored)[..., : self.shape[1]] = held.permute(0, 2, 3, 1).to(self.dtype)
        return stored

    def unpack(self, stored: Tensor) -> Tensor:
        """The value, in float32."""
        if not self.is_map:
            return stored.float()
        inside = self._inside(stored)[..., : self.shape[1]]
        return inside.permute(0, 3, 1, 2).float() - self.zero

    def cut(self, value: Tensor) -> Tensor:
        """Whole values within the range of a uint8 map."""
        return value.round().clamp(-self.zero, 255 - self.zero)

    def clean(self, stored: Tensor) -> bool:
        """Whether the halo and what pads the channels stand for zero."""
        if not self.is_map:
            return True
        rest = stored.clone()
        self._inside(rest)[..., : self.shape[1]] = self.zero
        return bool((rest == self.zero).all())

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


def weight_shapes(kind: str, fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a workload's weights by name, before they are packed."""
    match kind:
        case "Conv":
            out, source = fields["output"]["channels"], fields["input"]["channels"]
            found = {"weight": (out, source // fields["groups"], *fields["kernel"])}
            if fields["input"]["format"] == "uint8":
                found["scale"] = (out,)
            found["bias"] = (out,)
            if fields["output"]["format"] == "uint8":
                found["out_scale"] = (1,)
            return found
        case "Dense":
            shape = (fields["out_features"], fields["in_features"])
            return {"weight": shape, "bias": shape[:1]}
        case "Convert" if "uint8" in (fields["input"]["format"], fields["output"]["format"]):
            return {"scale": (1,)}
        case _:
            return {}


def expected(
    kind: str, fields: dict[str, Any], inputs: list[Tensor], weights: Mapping[str, Tensor]
) -> Tensor:
    """What a workload gives of values in float32, not rounded to the format of its output.

    Raises: NotImplementedError for a workload that is not written down here.
    """
    (x, *_) = inputs
    match kind:
        case "Conv":
            return _conv(fields, x, weights)
        case "Dense":
            result = F.linear(x.flatten(1), weights["weight"], weights["bias"])
            return _activated(fields["act"], result)
        case "MaxPool":
            padded = _window_padding(fields, x, float("-inf"))
            return F.max_pool2d(padded, fields["kernel"], fields["stride"])
        case "AvgPool":
            sums, counts = (
                F.avg_pool2d(_window_padding(fields, each, 0.0), fields["kernel"], fields["stride"])
                for each in (x, torch.ones_like(x))
            )
            return sums / counts
        case "Lrn":
            size = fields["size"]
            # torch divides alpha by the size; vggc does not.
            alpha = fields["alpha"] * size
            return F.local_response_norm(x, size, alpha, fields["beta"], fields["k"])
        case "Add":
            return _activated(fields["act"], torch.stack(inputs).sum(0))
        case "Concat":
            return torch.cat(inputs, 1)
        case "Softmax":
            return x.softmax(1)
        case "Convert" if "scale" in weights:
            to_float = fields["input"]["format"] == "uint8"
            return x * weights["scale"] if to_float else x / weights["scale"]
        case "Convert" | "ToNhwc" | "ToNchw":
            return x
        case _:
            raise NotImplementedError(f"no float32 reference of {kind}")


def _conv(fields: dict[str, Any], x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    weight, bias, (down, right) = weights["weight"].float(), weights["bias"], fields["padding"]
    if "scale" in weights:  # the sums are of the numbers that stand for the values
        zero = fields["input"]["zero"]
        x = F.pad(x + zero, (right, right, down, down), value=float(zero))
        sums = F.conv2d(x, weight, None, fields["stride"])
        found = sums * weights["scale"].view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    else:
        padding, groups = fields["padding"], fields["groups"]
        found = F.conv2d(x, weight, bias, fields["stride"], padding, groups=groups)
    _, _, height, width = Layout.of(fields["output"]).shape
    found = _activated(fields["act"], found)
    found = F.max_pool2d(found, 2) if fields["pool"] else found[:, :, :height, :width]
    return found / weights["out_scale"] if "out_scale" in weights else found


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
