"""What nets make of images, one after the other as they come off the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vggc.data.crops import Framing
from vggc.data.loader import MOST_WORKERS, load
from vggc.data.parts import Part
from vggc.data.stores import Arrays, Numbers
from vggc.evaluation import diagnostics
from vggc.evaluation.reading import CHUNK, Chunks, ImageGroup, LostImage, gathered
from vggc.evaluation.viewer import PlacedNet, Viewer
from vggc.support.diagnostics import CheckFailed, UserError
from vggc_runtime.processors import num_processors


@dataclass(frozen=True)
class ImageScores:
    """What each net says of the image at a place of its part: probabilities (nets, classes)."""

    index: int
    probabilities: Tensor


T = TypeVar("T")


@dataclass(frozen=True)
class PendingGroup(Generic[T]):
    """A group of images that the device computes on, and what each net that looks at it gives: its
    number, and that.
    """

    group: ImageGroup
    found: tuple[tuple[int, T], ...]


def judge(
    viewers: Sequence[Viewer], part: Part, indices: Numbers, workers: int
) -> Generator[ImageScores | LostImage]:
    """What the nets say of the images at these places of a part, in no particular order.

    Images are read by so many processes, or by this one for 0.

    Raises:
        UserError: images are of a size that a net or the memory cannot take.
        CheckFailed: a net gives what is no number.
    """
    framings = framings_of(viewers)
    sums = ViewSums(len(viewers), len(framings))
    with closing(computed(viewers, Viewer.__call__, part, indices, workers)) as groups:
        for found in groups:
            if isinstance(found, LostImage):
                yield found
            else:
                yield from sums.add(found)


def framings_of(nets: Sequence[PlacedNet]) -> tuple[Framing, ...]:
    """The framings that nets look at images in, each once."""
    return tuple(dict.fromkeys(framing for net in nets for framing in net.framings))


N = TypeVar("N", bound=PlacedNet)


def computed(
    nets: Sequence[N],
    look: Callable[[N, Framing, Tensor], T],
    part: Part,
    indices: Numbers,
    workers: int,
) -> Generator[PendingGroup[T] | LostImage]:
    """The images at these places of a part, in groups of one framing and size and in no particular
    order, with what each net that has the framing gives when it looks at pixels uint8 (N, C, H, W).

    Each image comes once in each of `framings_of(nets)`. They are read by so many processes, or by
    this one for 0.

    Raises:
        UserError: images are of a size that a net or the memory cannot take.
    """
    framings, device = framings_of(nets), nets[0].device
    areas = tuple(max(net.area for net in nets if f in net.framings) for f in framings)
    chunks = Chunks(part, indices, framings)
    # A GPU has begun on the next images before anyone asks what came of the last.
    begun: deque[PendingGroup[T]] = deque()
    lag = 1 if device.type == "cuda" else 0
    pin = device.type == "cuda"
    try:
        with closing(load(chunks, range(len(chunks)), workers, pin=pin)) as loaded:
            for group in gathered(loaded, areas):
                if isinstance(group, LostImage):
                    yield group
                    continue
                framing = framings[group.framing]
                pixels = group.pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
                found = tuple(
                    (number, look(net, framing, pixels))
                    for number, net in enumerate(nets)
                    if framing in net.framings
                )
                begun.append(PendingGroup(group, found))
                while len(begun) > lag:
                    yield begun.popleft()
            while begun:
                yield begun.popleft()
    except torch.OutOfMemoryError:
        batch = max(net.batch for net in nets)
        raise UserError(diagnostics.NoRoomOnGpu(batch, max(1, batch // 2))) from None


def num_workers(part: Part, count: int, processes: int) -> int:
    """The worker processes that suit so many images, where so many tests share the machine: none
    where reading them is hardly any work.
    """
    if isinstance(part.store, Arrays) or count <= 4 * CHUNK:
        return 0
    return max(1, min(MOST_WORKERS, num_processors() // processes))


@dataclass(frozen=True)
class ViewSums:
    """The sums of what was found of images so far, until all framings have been looked at."""

    num_nets: int
    num_framings: int
    found: dict[int, Tensor] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)

    def add(self, begun: PendingGroup[Tensor]) -> Iterator[ImageScores]:
        """Adds what was found of a group, and gives the images that are complete with that."""
        parts = [(number, tensor.cpu()) for number, tensor in begun.found]
        classes = parts[0][1].shape[1]
        for row, index in enumerate(begun.group.indices.tolist()):
            found = self.found.setdefault(index, torch.zeros(self.num_nets, classes))
            for number, tensor in parts:
                found[number] += tensor[row]
            self.seen[index] = self.seen.get(index, 0) + 1
            if self.seen[index] == self.num_framings:
                del self.found[index], self.seen[index]
                if not found.isfinite().all():
                    raise CheckFailed("the net gives probabilities that are not finite")
                yield ImageScores(index, found)
