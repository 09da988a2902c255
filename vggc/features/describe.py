"""The features of pictures, computed by a net as it looks at them for a test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from vggc.data.loader import load
from vggc.data.parts import Part, Skipped
from vggc.evaluation import diagnostics
from vggc.evaluation.reading import CHUNK, Chunks, ImageGroup, LostImage, gathered
from vggc.evaluation.viewer import Heads, Viewer
from vggc.evaluation.views import Views
from vggc.features.file import Combine
from vggc.features.layers import FeatureNet
from vggc.features.rows import RowBlock, features_of
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.support.diagnostics import UserError
from vggc.training.learner import TrainMachine
from vggc_runtime.preprocessing import Preprocessing

SAVED_AFTER = {"cpu": 1e12, "cuda": 1e14}
"""About so many multiply-adds lie between two savings, some seconds."""
MOST_AT_ONCE = 1024
"""The most pictures between two savings."""


class Describer(Viewer):
    """A net up to some layers on a device, which gives their values for images at each scale.

    What the views of a scale see of an image, and of its mirror image, is averaged.
    """

    def __init__(
        self,
        net: FeatureNet,
        weights: Weights,
        preprocessing: Preprocessing,
        views: Views,
        machine: TrainMachine,
        device: torch.device,
        batch: int,
    ) -> None:
        """Raises: UserError as `Viewer`."""
        super().__init__(net.graph, weights, preprocessing, views, machine, device, batch)
        self.widths = net.widths

    def probabilities(self, heads: Callable[[Tensor], Heads], pixels: Tensor) -> Tensor:
        """The values of the layers (N, W), the mean over mirror images if there are such views."""
        images = self.normalised(pixels)
        (found,) = heads(images).values()
        if self.views.flip:
            (mirrored,) = heads(images.flip(3)).values()
            found = (found + mirrored) / 2
        return found


def saved_after(graph: Graph, views: Views, device: str) -> int:
    """How many pictures lie between two savings: a whole number of chunks, about as many as take
    `SAVED_AFTER`. Rows are computed in such blocks from the first on, whoever goes on where, so
    that they do not depend on it.
    """
    macs = sum(node.op.macs(graph.source(node)) for node in graph.nodes)
    side = min(graph.input[1:])
    whole = ((view.scale or side) / side for view in views.views if view.grid is None)
    crops = (view.grid for view in views.views if view.grid)
    looks = sum(scale**2 for scale in whole) + sum(grid**2 for grid in crops)
    each = macs * looks * (2 if views.flip else 1)
    count = int(SAVED_AFTER[device] / max(1, each))
    return max(1, min(MOST_AT_ONCE, count) // CHUNK) * CHUNK


def describe(
    describer: Describer, part: Part, start: int, block: int, combine: Combine, workers: int
) -> Generator[RowBlock]:
    """The features of the pictures of a part from the place `start` on, `block` of them at a time.

    Images are read by so many processes, or by this one for 0.

    Raises:
        UserError: images are of a size that the net or the memory cannot take.
        CheckFailed: the net gives what is no number.
    """
    framings = describer.framings
    chunks = Chunks(part, np.arange(start, len(part)), framings)
    pin = describer.device.type == "cuda"
    try:
        with closing(load(chunks, range(len(chunks)), workers, pin=pin)) as loaded:
            for first in range(start, len(part), block):
                stop = min(first + block, len(part))
                read = islice(loaded, -(-(stop - first) // CHUNK))
                groups = gathered(read, (describer.area,) * len(framings))
                yield described(describer, groups, range(first, stop), combine)
    except torch.OutOfMemoryError:
        fewer = max(1, describer.batch // 2)
        raise UserError(diagnostics.NoRoomOnGpu(describer.batch, fewer)) from None


def described(
    describer: Describer,
    groups: Iterator[ImageGroup | LostImage],
    places: range,
    combine: Combine,
) -> RowBlock:
    """The features of the pictures at some places of a part, which come in groups."""
    framings, width = describer.framings, sum(describer.widths)
    values = np.zeros((len(places), len(framings), width), np.float32)
    lost: dict[int, Skipped] = {}
    # A GPU has begun on the next images before anyone asks what came of the last.
    begun: deque[tuple[ImageGroup, Tensor]] = deque()
    lag = 1 if describer.device.type == "cuda" else 0

    def keep(group: ImageGroup, found: Tensor) -> None:
        values[group.indices.numpy() - places.start, group.framing] = found.cpu().numpy()

    for each in groups:
        if isinstance(each, LostImage):
            lost[each.index] = each.skipped
            continue
        pixels = each.pixels.to(describer.device, non_blocking=True).permute(0, 3, 1, 2)
        begun.append((each, describer(framings[each.framing], pixels)))
        while len(begun) > lag:
            keep(*begun.popleft())
    while begun:
        keep(*begun.popleft())
    there = np.array([place not in lost for place in places], bool)
    return RowBlock(places.stop, features_of(values[there], describer.widths, combine), lost)
