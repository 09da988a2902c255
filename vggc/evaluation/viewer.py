"""A net that is tested: what it makes of images, by its views."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from itertools import product
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from vggc.backends.torch import build
from vggc.data.crops import Framing
from vggc.evaluation import diagnostics
from vggc.evaluation.views import View, Views, places
from vggc.ir.graph import Graph
from vggc.ir.ops import Pair, describe
from vggc.ir.weights import Weights
from vggc.passes.dense import ON_CROPS, dense, peak, resized
from vggc.passes.inference import drop_dropout, drop_final_softmax
from vggc.passes.offsets import OffsetGraph, with_offsets
from vggc.support.diagnostics import UserError
from vggc.support.memory import memory
from vggc.training.augment import Normaliser
from vggc.training.learner import DTYPES, TrainMachine, in_channels_last
from vggc_runtime.outputs import HeadKind
from vggc_runtime.preprocessing import Preprocessing

Heads: TypeAlias = dict[str, Tensor]
"""What the heads of a net give of images (N, …), by their names, in order, float32."""


class PlacedNet:
    """A net on a device that is shown images; `batch` images of its input's size are computed at
    once, or fewer larger ones with as many pixels.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        preprocessing: Preprocessing,
        views: Views,
        machine: TrainMachine,
        device: torch.device,
        batch: int,
        maps: Collection[HeadKind] = (),
        instead: str = ON_CROPS,
        offsets: bool = False,
    ) -> None:
        """Where the net is applied to whole images, heads of the kinds `maps` give maps; with
        `offsets`, for which all heads do, from all offsets of its last pool. `instead` says what to
        do where it cannot be applied so.

        Raises:
            UserError: a view is of whole images, and the net cannot be applied to them.
        """
        self.machine, self.device, self.views, self.batch = machine, device, views, batch
        self.instead = instead
        channels, height, width = graph.input
        self.shape = channels, height, width
        self.preprocessing = preprocessing
        self.normalised = Normaliser.of(preprocessing, device)
        self.plain_graph = drop_final_softmax(drop_dropout(graph))
        grids = {view.grid for view in views.views}
        if grids - {None}:
            self.plain = self.placed(self.plain_graph, weights)
        if None in grids:
            self.spread = dense(self.plain_graph, maps, instead)
            self.positions = self.spread.positions
            given = self.spread.weights(weights)
            if offsets:
                parts = with_offsets(self.spread)
                self.positions = parts.positions
                self.dense = self.interleaved(parts, given)
            else:
                self.dense = self.placed(self.spread.graph, given)
        self.checked: set[tuple[tuple[int, int], int]] = set()

    def placed(self, graph: Graph, weights: Weights) -> Callable[[Tensor], Heads]:
        """A graph as a module on the device, in eval mode."""
        module = in_channels_last(build(graph, weights).to(self.device)).eval()
        dtype, kind = DTYPES[self.machine.precision], self.machine.device
        main = graph.heads[0].name

        def heads(images: Tensor) -> Heads:
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
                found: Tensor | Heads = module(images)
            each = {main: found} if isinstance(found, Tensor) else found
            return {name: values.float() for name, values in each.items()}

        return heads

    def interleaved(self, parts: OffsetGraph, weights: Weights) -> Callable[[Tensor], Heads]:
        """A dense graph from all offsets of its last pool, as modules on the device."""
        before, after = self.placed(parts.before, weights), self.placed(parts.after, weights)
        fits = cache(parts.fits)

        def heads(images: Tensor) -> Heads:
            (whole,) = before(images).values()
            height, width = whole.shape[2:]
            found = {
                (top, left): after(whole[:, :, top:, left:])
                for top, left in product(*map(range, parts.stride))
                if fits((height - top, width - left))
            }
            return {
                name: interleaved(
                    {place: each[name] for place, each in found.items()}, parts.stride
                )
                for name in found[0, 0]
            }

        return heads

    @property
    def area(self) -> int:
        """The number of pixels in a batch."""
        return self.batch * self.shape[1] * self.shape[2]

    def framing(self, view: View) -> Framing:
        """How a view's images are read: as for inference, never by drafts of JPEGs."""
        return Framing.of(self.preprocessing, self.shape, view.scale)

    @property
    def framings(self) -> tuple[Framing, ...]:
        """The framings that the views need, each once."""
        return tuple(dict.fromkeys(self.framing(view) for view in self.views.views))

    def looking(self, framing: Framing) -> list[View]:
        """The views that have a framing."""
        return [view for view in self.views.views if self.framing(view) == framing]

    def batches(self, pixels: Tensor) -> Iterator[Tensor]:
        """Images in order, no more together than may be computed at once.

        Raises:
            UserError: they are of a size that the net, or this machine's memory, cannot take.
        """
        height, width = pixels.shape[2:]
        most = max(1, self.area // (height * width))
        self.check_room((height, width), min(most, len(pixels)))
        yield from pixels.chunk(-(-len(pixels) // most))

    def check_room(self, size: tuple[int, int], count: int) -> None:
        """Refuses images of a size (H, W) that the net, or this machine's memory, cannot take."""
        if (size, count) in self.checked:
            return
        graph = self.plain_graph
        if size != graph.input[1:]:
            graph = resized(self.spread.graph, size, self.instead)
        inputs = 2 * prod(graph.input)  # as they are normalised, and mirrored
        needed, present = 4 * count * (peak(graph) + inputs), memory()
        if self.machine.device == "cpu" and needed > present:
            images = "1 image" if count == 1 else f"{count} images"
            shown = images, describe(size), needed / 1e9, present / 1e9
            raise UserError(diagnostics.NoRoom(graph.name, *shown))
        self.checked.add((size, count))


class Viewer(PlacedNet):
    """A net of classes, its only head, and what it makes of images by its views."""

    @torch.inference_mode()
    def __call__(self, framing: Framing, pixels: Tensor) -> Tensor:
        """What the views of a framing add to the probabilities of images, float32 (N, classes).

        `pixels` uint8 (N, C, H, W) are on the device. All views together add up to 1.

        Raises:
            UserError: the images are of a size that the net cannot be applied to.
        """
        seen = [view.share * self.seen(view, pixels) for view in self.looking(framing)]
        return torch.stack(seen).sum(0)

    def seen(self, view: View, pixels: Tensor) -> Tensor:
        """The probabilities of images (N, classes) by one view."""
        if view.grid is None:
            return self.in_batches(self.dense, pixels)
        crops = cut(pixels, self.shape[1:], view.grid)
        found = self.in_batches(self.plain, crops.flatten(0, 1))
        return found.view(*crops.shape[:2], -1).mean(1)

    def in_batches(self, heads: Callable[[Tensor], Heads], pixels: Tensor) -> Tensor:
        """The probabilities of images (N, classes), of which no more are computed at once than may
        be.
        """
        return torch.cat([self.probabilities(heads, batch) for batch in self.batches(pixels)])

    def probabilities(self, heads: Callable[[Tensor], Heads], pixels: Tensor) -> Tensor:
        """The soft-max output (N, classes), the mean over mirror images if there are such views."""
        images = self.normalised(pixels)
        found = scores(heads(images))
        return (found + scores(heads(images.flip(3)))) / 2 if self.views.flip else found


def scores(heads: Heads) -> Tensor:
    """The soft-max output of a net's only head (N, classes)."""
    (found,) = heads.values()
    return found.softmax(1)


def interleaved(maps: Mapping[Pair, Tensor], stride: Pair) -> Tensor:
    """Maps (N, C, …, …) whose positions lie a stride apart, each beginning at the place that it is
    given by, as the one map of which they are parts; as far as all of them reach.
    """
    row_counts = {top: each.shape[2] for (top, _), each in maps.items()}
    column_counts = {left: each.shape[3] for (_, left), each in maps.items()}
    rows, columns = (
        min(start + step * lengths.get(start, 0) for start in range(step))
        for step, lengths in zip(stride, (row_counts, column_counts), strict=True)
    )
    first = maps[0, 0]
    whole = first.new_empty(*first.shape[:2], rows, columns)
    for (top, left), each in maps.items():
        part = whole[:, :, top :: stride[0], left :: stride[1]]
        part.copy_(each[:, :, : part.shape[2], : part.shape[3]])
    return whole


def cut(pixels: Tensor, size: tuple[int, int], grid: int) -> Tensor:
    """Crops (N, grid², C, h, w) of images (N, C, H, W), row by row."""
    (height, width), (full_height, full_width) = size, pixels.shape[2:]
    return torch.stack(
        [
            pixels[:, :, y : y + height, x : x + width]
            for y in places(full_height, height, grid)
            for x in places(full_width, width, grid)
        ],
        dim=1,
    )
