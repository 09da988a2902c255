"""Where nets see objects in pictures: by crops of the centre, or densely over whole pictures.

Source: Simonyan & Zisserman (2015), appendix A.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from vggc.data.crops import Framing
from vggc.data.parts import Part
from vggc.data.stores import Numbers
from vggc.data.windows import Windows, mirrored, window_of
from vggc.evaluation.judge import PendingGroup, computed, framings_of
from vggc.evaluation.located import PictureSights, Sight, Sights
from vggc.evaluation.reading import ImageGroup, LostImage
from vggc.evaluation.viewer import Heads, PlacedNet, cut
from vggc.evaluation.views import View, Views, places
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.passes.dense import ON_THE_CENTRE
from vggc.passes.heads import with_heads
from vggc.support.diagnostics import CheckFailed
from vggc.training.learner import TrainMachine
from vggc_runtime.outputs import HeadKind
from vggc_runtime.preprocessing import Preprocessing

CENTRE = 1
"""The grid of crops that is the centre crop alone."""


def localising_views(scales: Sequence[int | None], *, dense: bool, flip: bool) -> Views:
    """Views of whole pictures at each of the scales, or of their centre crops."""
    grid = None if dense else CENTRE
    return Views(tuple(View(scale, grid, 1 / len(scales)) for scale in scales), flip)


@dataclass(frozen=True)
class GroupSight:
    """What a head says of the crops that a view shows of N pictures of one size, or of their mirror
    images where it is `flipped`: their `windows` (P, 4), and the head's `values` (N, P, C). `view`
    is its place among the net's.
    """

    view: int
    flipped: bool
    kind: HeadKind
    windows: Windows
    values: Tensor


class LocatingNet(PlacedNet):
    """A net and what its heads of some kinds, the first of each, say of crops of pictures."""

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        preprocessing: Preprocessing,
        views: Views,
        machine: TrainMachine,
        device: torch.device,
        batch: int,
        kinds: Collection[HeadKind],
        offsets: bool = False,
    ) -> None:
        """The graph has a head of each of the kinds. With `offsets` whole pictures are looked at
        from all offsets of the net's last pool.

        Raises:
            UserError: a view is of whole pictures, and the net cannot be applied to them.
        """
        self.heads = {head.kind: head.name for head in reversed(graph.heads) if head.kind in kinds}
        graph = with_heads(graph, self.heads.values())
        how = preprocessing, views, machine, device, batch
        super().__init__(graph, weights, *how, maps=kinds, instead=ON_THE_CENTRE, offsets=offsets)

    @torch.inference_mode()
    def __call__(self, framing: Framing, pixels: Tensor) -> list[GroupSight]:
        """What the views of a framing show of pictures uint8 (N, C, H, W), which are on the device.

        Raises:
            UserError: the pictures are of a size that the net cannot be applied to.
        """
        flips = (False, True) if self.views.flip else (False,)
        return [
            sight
            for view in self.looking(framing)
            for flip in flips
            for sight in self.sights(view, pixels, flip=flip)
        ]

    def sights(self, view: View, pixels: Tensor, *, flip: bool) -> Iterator[GroupSight]:
        """What a view shows, to a net that is given mirror images or not."""
        number = self.views.views.index(view)
        height, width = pixels.shape[2:]
        if view.grid is None:
            found = self.outputs(self.dense, pixels, flip=flip)
            for kind, name in self.heads.items():
                at, values = self.positions[name], found[name]
                rows, columns = values.shape[2:]
                windows = at.windows((rows, columns), (height, width), mirrored=flip)
                values = values.flatten(2).transpose(1, 2)
                yield GroupSight(number, flip, kind, windows.reshape(-1, 4), values)
            return
        crops = cut(pixels, self.shape[1:], view.grid)
        found = self.outputs(self.plain, crops.flatten(0, 1), flip=flip)
        windows = grid_windows((height, width), self.shape[1:], view.grid)
        windows = mirrored(windows) if flip else windows
        for kind, name in self.heads.items():
            values = found[name].view(*crops.shape[:2], -1)
            yield GroupSight(number, flip, kind, windows, values)

    def outputs(self, heads: Callable[[Tensor], Heads], pixels: Tensor, *, flip: bool) -> Heads:
        """What the heads give of pictures, or of their mirror images, of which no more are computed
        at once than may be.
        """
        each = []
        for batch in self.batches(pixels):
            images = self.normalised(batch)
            each.append(heads(images.flip(3) if flip else images))
        return {name: torch.cat([found[name] for found in each]) for name in each[0]}


def grid_windows(picture: tuple[int, int], size: tuple[int, int], grid: int) -> Windows:
    """The windows (grid², 4) of crops of a size (H, W), row by row, that lie regularly in a picture
    (H, W).
    """
    (height, width), (whole_height, whole_width) = size, picture
    corners = [
        (x, y, x + width, y + height)
        for y in places(whole_height, height, grid)
        for x in places(whole_width, width, grid)
    ]
    return window_of(corners, (whole_width, whole_height))


def sightings(
    nets: Sequence[LocatingNet], part: Part, indices: Numbers, workers: int
) -> Generator[PictureSights | LostImage]:
    """What nets say of the pictures at these places of a part, in no particular order.

    Pictures are read by so many processes, or by this one for 0.

    Raises:
        UserError: pictures are of a size that a net or the memory cannot take.
        CheckFailed: a net gives what is no number.
    """
    gathering = _Gathering(nets)
    with closing(computed(nets, LocatingNet.__call__, part, indices, workers)) as groups:
        for found in groups:
            if isinstance(found, LostImage):
                yield found
            else:
                yield from gathering.add(found)


@dataclass
class _Unfinished:
    """What has been seen of a picture so far: by net, kind of head, view and whether mirrored."""

    framings: int = 0
    pixels: int = 0
    aspect: float = 1.0
    sights: dict[tuple[int, HeadKind, int, bool], Sight] = field(default_factory=dict)


class _Gathering:
    """Pictures that have not been looked at in all framings yet."""

    def __init__(self, nets: Sequence[LocatingNet]) -> None:
        self.nets = nets
        self.framings = len(framings_of(nets))
        self.waiting: dict[int, _Unfinished] = {}

    def add(self, begun: PendingGroup[list[GroupSight]]) -> Iterator[PictureSights]:
        """Adds what was seen of a group, and gives the pictures that are complete with that."""
        parts = [
            (number, sight, sight.values.cpu().numpy())
            for number, sights in begun.found
            for sight in sights
        ]
        for row, index in enumerate(begun.group.indices.tolist()):
            picture = self.waiting.setdefault(index, _Unfinished())
            self.note_size(picture, begun.group)
            for number, each, values in parts:
                key = number, each.kind, each.view, each.flipped
                picture.sights[key] = Sight(each.windows, values[row])
            picture.framings += 1
            if picture.framings == self.framings:
                yield self.finished(index, self.waiting.pop(index))

    def note_size(self, picture: _Unfinished, group: ImageGroup) -> None:
        """The largest image of a picture tells its aspect best, as sides are whole pixels."""
        height, width = group.pixels.shape[1:3]
        if height * width > picture.pixels:
            picture.pixels, picture.aspect = height * width, width / height

    def finished(self, index: int, picture: _Unfinished) -> PictureSights:
        """A picture that all nets have seen."""

        def told(kind: HeadKind) -> tuple[Sights, ...]:
            keys = sorted(key for key in picture.sights if key[1] == kind)
            nets = groupby(keys, key=itemgetter(0))
            return tuple(tuple(picture.sights[key] for key in each) for _, each in nets)

        found = PictureSights(index, picture.aspect, told("boxes"), told("classes"))
        for sights in (*found.box_nets, *found.classifiers):
            if not all(np.isfinite(sight.values).all() for sight in sights):
                raise CheckFailed("the net gives boxes or scores that are not finite")
        return found
