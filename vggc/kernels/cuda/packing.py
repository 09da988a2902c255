"""How the CUDA kernels want their weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vggc.kernels.workloads import PIECE, Map


@dataclass(frozen=True)
class ChannelOrder:
    """How a dense layer's columns are reordered when it reads an NHWC map.

    The unpacked columns run over C, H, W; the packed ones over H, W, C.
    """

    source: Map | None

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """The weight `(O, C·H·W)` with its columns in the order H, W, C."""
        return self._transpose(weight, (0, 2, 3, 1), channels_first=True)

    def unpack(self, weight: np.ndarray) -> np.ndarray:
        """The weight `(O, H·W·C)` with its columns back in the order C, H, W."""
        return self._transpose(weight, (0, 3, 1, 2), channels_first=False)

    def _transpose(
        self, weight: np.ndarray, axes: tuple[int, ...], *, channels_first: bool
    ) -> np.ndarray:
        if self.source is None:
            return weight
        spatial = (self.source.height, self.source.width)
        channels = (self.source.channels,)
        shape = channels + spatial if channels_first else spatial + channels
        return weight.reshape(-1, *shape).transpose(axes).reshape(weight.shape)


@dataclass(frozen=True)
class PanelPacking:
    """Packs a convolution's weight `(K, C, kh, kw)` as `(kh·kw, C′, K′)`.

    C′ and K′ are C and K rounded up to whole tiles; the padding is zeros.
    """

    weight_shape: tuple[int, int, int, int]
    depth: int
    cols: int

    packed_type = "float32"

    @property
    def packed_shape(self) -> tuple[int, int, int]:
        out_channels, in_channels, kernel_h, kernel_w = self.weight_shape
        return (
            kernel_h * kernel_w,
            round_up(in_channels, self.depth),
            round_up(out_channels, self.cols),
        )

    def pack(self, weight: np.ndarray) -> np.ndarray:
        out_channels, in_channels, _, _ = self.weight_shape
        packed = np.zeros(self.packed_shape, weight.dtype)
        taps = weight.reshape(out_channels, in_channels, -1)
        packed[:, :in_channels, :out_channels] = taps.transpose(2, 1, 0)
        return packed

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        yield self.pack(weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        out_channels, in_channels, _, _ = self.weight_shape
        taps = packed[:, :in_channels, :out_channels]
        return np.ascontiguousarray(taps.transpose(2, 1, 0)).reshape(self.weight_shape)


@dataclass(frozen=True)
class TapsFirst:
    """Packs the weight of a grouped convolution, `(K, C/groups, kh, kw)`, as `(kh, kw, C/groups,
    K)`.
    """

    weight_shape: tuple[int, ...]

    packed_type = "float32"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        out_channels, in_channels, kernel_h, kernel_w = self.weight_shape
        return (kernel_h, kernel_w, in_channels, out_channels)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        yield self.pack(weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(packed.transpose(3, 2, 0, 1))


@dataclass(frozen=True)
class DensePanelPacking:
    """Packs a dense layer's weight as the panels of the 1×1 convolution that computes it."""

    panels: PanelPacking
    order: ChannelOrder

    packed_type = "float32"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        return self.panels.packed_shape

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return self.panels.pack(self.order.pack(weight)[:, :, None, None])

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        _, inputs, outputs = self.packed_shape
        columns = self.order.pack(np.arange(weight.shape[1])[None])[0]
        count = max(1, PIECE // (outputs * weight.itemsize))
        for start in range(0, inputs, count):
            piece = np.zeros((min(count, inputs - start), outputs), weight.dtype)
            some = weight[:, columns[start : start + count]].T
            piece[: len(some), : len(weight)] = some
            yield piece

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        return self.order.unpack(self.panels.unpack(packed)[:, :, 0, 0])


@dataclass(frozen=True)
class RowPacking:
    """Packs a dense layer's weight row by row, `(out_features, in_features)`."""

    weight_shape: tuple[int, ...]
    order: ChannelOrder

    packed_type = "float32"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        return self.weight_shape

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.order.pack(weight))

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        count = max(1, PIECE // weight[:1].nbytes)
        for start in range(0, len(weight), count):
            yield self.pack(weight[start : start + count])

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.order.unpack(packed))


def round_up(value: int, multiple: int) -> int:
    """`value` rounded up to a multiple of `multiple`."""
    return math.ceil(value / multiple) * multiple
