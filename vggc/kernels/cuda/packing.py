"""How the CUDA kernels want their weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.cuda.mma_tile import channel_of
from vggc.kernels.cuda.operands import OPERANDS
from vggc.kernels.workloads import PIECE, Conv, Dense, Format, by_panels, round_up


@dataclass(frozen=True)
class ChannelOrder:
    """How a dense layer's columns are reordered when it reads an NHWC map.

    The unpacked columns run over C, H, W; the packed ones over H, W, C. `planes` are the map's C, H
    and W; None where the layer reads rows.
    """

    planes: tuple[int, int, int] | None

    @classmethod
    def of(cls, dense: Dense) -> ChannelOrder:
        """The order for a layer, whatever its batch."""
        source = dense.source
        return cls((source.channels, source.height, source.width) if source else None)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """The weight `(O, C·H·W)` with its columns in the order H, W, C."""
        return self._transpose(weight, (0, 2, 3, 1), channels_first=True)

    def unpack(self, weight: np.ndarray) -> np.ndarray:
        """The weight `(O, H·W·C)` with its columns back in the order C, H, W."""
        return self._transpose(weight, (0, 3, 1, 2), channels_first=False)

    def _transpose(
        self, weight: np.ndarray, axes: tuple[int, ...], *, channels_first: bool
    ) -> np.ndarray:
        if self.planes is None:
            return weight
        channels, height, width = self.planes
        shape = (channels, height, width) if channels_first else (height, width, channels)
        return weight.reshape(-1, *shape).transpose(axes).reshape(weight.shape)


@dataclass(frozen=True)
class PanelPacking:
    """Packs a convolution's weight `(K, C, kh, kw)` as `(kh·kw, rows, cols)`.

    They are C and K rounded up to whole tiles; the padding is zeros.
    """

    weight_shape: tuple[int, int, int, int]
    rows: int
    cols: int

    packed_type = "float32"

    @property
    def packed_shape(self) -> tuple[int, int, int]:
        return (math.prod(self.weight_shape[2:]), self.rows, self.cols)

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


@dataclass(frozen=True)
class MmaPanelPacking:
    """Packs a convolution's weight `(K, C, kh, kw)` in a format as a kernel for tensor cores has it
    in shared memory, in planes of a segment of 16 bytes: `(panels, steps, planes, cols, segment)`,
    each panel of `cols` output channels, each step of `depth` of the reduction. As the planes of
    all steps follow one another, a kernel may take some of them at a time, or some of the columns.

    The reduction runs over taps, then channels, C of which are stored as `channels`; or where
    `chunked` over pieces of `depth` channels, taps, and the channels of a piece. Columns are
    permuted as `vggc/kernels/cuda/mma_tile.py` says; the padding is zeros.
    """

    shape: tuple[int, int, int, int]
    format: Format
    channels: int
    cols: int
    depth: int
    chunked: bool

    @classmethod
    def of(cls, conv: Conv, cols: int, depth: int, *, chunked: bool) -> MmaPanelPacking:
        """How a convolution's weight is packed for a kernel with such panels and steps."""
        return cls(
            shape=cast("tuple[int, int, int, int]", conv.weight_shape),
            format=conv.input.format,
            channels=conv.input.shape[-1],
            cols=cols,
            depth=depth,
            chunked=chunked,
        )

    @property
    def packed_type(self) -> str:
        return OPERANDS[self.format].weight

    @property
    def packed_shape(self) -> tuple[int, ...]:
        reduction = math.prod(self.shape[2:]) * self.channels
        panels = math.ceil(self.shape[0] / self.cols)
        segment = OPERANDS[self.format].segment
        steps = math.ceil(reduction / self.depth)
        return (panels, steps, self.depth // segment, self.cols, segment)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        panels, steps, planes, cols, segment = self.packed_shape
        out_channels, in_channels, *kernel = weight.shape
        taps = math.prod(kernel)
        rows = np.zeros((panels * cols, taps, self.channels), self.packed_type)
        flat = stored(self.format, weight).reshape(out_channels, in_channels, taps)
        rows[:out_channels, :, :in_channels] = flat.transpose(0, 2, 1)
        whole = np.zeros((panels * cols, steps * self.depth), self.packed_type)
        whole[:, : taps * self.channels] = self._ordered(rows)
        by_step = whole.reshape(panels, cols, steps, planes, segment)
        return np.ascontiguousarray(by_step[:, self._channels].transpose(0, 2, 3, 1, 4))

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, self.cols, weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        panels, steps, planes, cols, segment = self.packed_shape
        out_channels, in_channels, *kernel = self.shape
        taps = math.prod(kernel)
        by_step = np.empty((panels, cols, steps, planes, segment), packed.dtype)
        by_step[:, self._channels] = packed.transpose(0, 3, 1, 2, 4)
        whole = by_step.reshape(panels * cols, steps * self.depth)[:, : taps * self.channels]
        rows = self._by_tap(whole)
        found = rows[:out_channels, :, :in_channels].transpose(0, 2, 1)
        return restored(self.format, np.ascontiguousarray(found)).reshape(self.shape)

    def _ordered(self, rows: np.ndarray) -> np.ndarray:
        """Rows of taps and channels in the order of the reduction."""
        if not self.chunked:
            return rows.reshape(len(rows), -1)
        chunks = rows.reshape(len(rows), rows.shape[1], -1, self.depth)
        return chunks.transpose(0, 2, 1, 3).reshape(len(rows), -1)

    def _by_tap(self, whole: np.ndarray) -> np.ndarray:
        """Rows in the order of the reduction as taps and channels."""
        taps = math.prod(self.shape[2:])
        if not self.chunked:
            return whole.reshape(len(whole), taps, self.channels)
        chunks = whole.reshape(len(whole), -1, taps, self.depth)
        return chunks.transpose(0, 2, 1, 3).reshape(len(whole), taps, self.channels)

    @property
    def _channels(self) -> list[int]:
        return [channel_of(column) for column in range(self.cols)]


@dataclass(frozen=True)
class MmaDensePacking:
    """Packs a dense layer's weight in float32 as that of the 1×1 convolution which computes it is
    packed for tensor cores.
    """

    shape: tuple[int, ...]
    order: ChannelOrder
    cols: int
    depth: int

    packed_type = "float32"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        return self._panels.packed_shape

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return self._panels.pack(self.order.pack(weight)[:, :, None, None])

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, self.cols, weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        return self.order.unpack(self._panels.unpack(packed)[:, :, 0, 0])

    @property
    def _panels(self) -> MmaPanelPacking:
        outputs, inputs = self.shape
        return MmaPanelPacking(
            shape=(outputs, inputs, 1, 1),
            format="float32",
            channels=inputs,
            cols=self.cols,
            depth=self.depth,
            chunked=False,
        )


@dataclass(frozen=True)
class MmaTapsPacking:
    """Packs a convolution's weight `(K, C, kh, kw)` whose channels fill one segment of a format,
    `(panels, cols, segment·row_segments)`: a segment for each tap, then zeros up to an odd number
    of segments.

    Columns are permuted as `vggc/kernels/cuda/mma_tile.py` says.
    """

    shape: tuple[int, int, int, int]
    format: Format
    cols: int

    @property
    def packed_type(self) -> str:
        return OPERANDS[self.format].weight

    @property
    def row_segments(self) -> int:
        """The segments of an output channel: pairs of taps, and one more."""
        return round_up(math.prod(self.shape[2:]), 2) + 1

    @property
    def packed_shape(self) -> tuple[int, ...]:
        segment = OPERANDS[self.format].segment
        return (math.ceil(self.shape[0] / self.cols), self.cols, self.row_segments * segment)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        panels, cols, _ = self.packed_shape
        out_channels, in_channels, *kernel = weight.shape
        taps = math.prod(kernel)
        segment = OPERANDS[self.format].segment
        rows = np.zeros((panels * cols, self.row_segments, segment), self.packed_type)
        flat = stored(self.format, weight).reshape(out_channels, in_channels, taps)
        rows[:out_channels, :taps, :in_channels] = flat.transpose(0, 2, 1)
        return rows.reshape(panels, cols, -1)[:, self._channels]

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, self.cols, weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        out_channels, in_channels, *kernel = self.shape
        rows = np.empty_like(packed)
        rows[:, self._channels] = packed
        segments = rows.reshape(len(rows) * self.cols, self.row_segments, -1)
        found = segments[:out_channels, : math.prod(kernel), :in_channels].transpose(0, 2, 1)
        return restored(self.format, np.ascontiguousarray(found)).reshape(self.shape)

    @property
    def _channels(self) -> list[int]:
        return [channel_of(column) for column in range(self.cols)]


@dataclass(frozen=True)
class MapRowPacking:
    """Packs the weight `(K, C, kh, kw)` of a dense layer over a map in its format, row by row, `(K,
    kh·kw·channels)`, where C are stored as `channels`.
    """

    shape: tuple[int, int, int, int]
    format: Format
    channels: int

    @property
    def packed_type(self) -> str:
        return OPERANDS[self.format].weight

    @property
    def packed_shape(self) -> tuple[int, ...]:
        return (self.shape[0], math.prod(self.shape[2:]) * self.channels)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        out_channels, in_channels, *kernel = weight.shape
        rows = np.zeros((out_channels, *kernel, self.channels), self.packed_type)
        rows[..., :in_channels] = stored(self.format, weight).transpose(0, 2, 3, 1)
        return rows.reshape(self.packed_shape)

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, 1, weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        rows = packed.reshape(-1, *self.shape[2:], self.channels)
        found = rows[..., : self.shape[1]].transpose(0, 3, 1, 2)
        return restored(self.format, np.ascontiguousarray(found))


def to_tf32(values: np.ndarray) -> np.ndarray:
    """Finite floats rounded to the nearest tf32, ties away from zero."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return (bits + np.uint32(0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


def stored(format: Format, weight: np.ndarray) -> np.ndarray:
    """A weight as kernels hold it that multiply maps of a format: the nearest numbers."""
    match format:
        case "float32":
            return weight
        case "tf32":
            return to_tf32(weight)
        case "float16":
            return weight.astype(np.float16).view(np.uint16)
        case "bfloat16":
            return to_bfloat16(weight)
        case "uint8":
            return weight  # rounded to int8 before


def restored(format: Format, held: np.ndarray) -> np.ndarray:
    """The weight that kernels hold so."""
    match format:
        case "float16":
            return held.view(np.float16).astype(np.float32)
        case "bfloat16":
            return from_bfloat16(held)
        case "uint8" | "tf32" | "float32":
            return held
