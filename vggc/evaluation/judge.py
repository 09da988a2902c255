"""What nets make of images, one after the other as they come off the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vggc.data.crops import Framing
from vggc.data.loader import MOST_WORKERS, load
from vggc.data.parts import Part
from vggc.data.stores import Arrays, Numbers
from vggc.evaluation import diagnostics
from vggc.evaluation.reading import CHUNK, Chunks, ImageGroup, LostImage, gathered
from vggc.evaluation.viewer import Viewer
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.support.processors import num_processors


@dataclass(frozen=True)
class ImageScores:
    """What each net says of the image at a place of its part: probabilities (nets, classes)."""

    index: int
    probabilities: Tensor


def judge(
    viewers: Sequence[Viewer], part: Part, indices: Numbers, workers: int
) -> Generator[ImageScores | LostImage]:
    """What the nets say of the images at these places, in no particular order.

    Images are read by so many processes, or by this one for 0.

    Raises:
        UserError: images are of a size that a net or the memory cannot take.
        CheckFailed: a net gives what is no number.
    """
    framings = tuple(dict.fromkeys(f for viewer in viewers for f in viewer.framings))
    areas = tuple(max(t.area for t in viewers if f in t.framings) for f in framings)
    device = viewers[0].device
    chunks, sums = Chunks(part, indices, framings), ViewSums(len(viewers), len(framings))
    # A GPU has begun on the next images before anyone asks what came of the last.
    begun: deque[PendingGroup] = deque()
    lag = 1 if device.type == "cuda" else 0
    pin = device.type == "cuda"
    try:
        with closing(load(chunks, range(len(chunks)), workers, pin=pin)) as loaded:
            for found in gathered(loaded, areas):
                if isinstance(found, LostImage):
                    yield found
                    continue
                begun.append(begin(viewers, framings[found.framing], found, device))
                while len(begun) > lag:
                    yield from sums.add(begun.popleft())
            while begun:
                yield from sums.add(begun.popleft())
    except torch.OutOfMemoryError:
        batch = max(viewer.batch for viewer in viewers)
        raise UserError(diagnostics.NoRoomOnGpu(batch, max(1, batch // 2))) from None


def num_workers(part: Part, count: int, processes: int) -> int:
    """The worker processes that suit so many images, where so many tests share the machine: none
    where reading them is hardly any work.
    """
    if isinstance(part.store, Arrays) or count <= 4 * CHUNK:
        return 0
    return max(1, min(MOST_WORKERS, num_processors() // processes))


@dataclass(frozen=True)
class PendingGroup:
    """A group that the device computes on: what each net that looks at it adds (N, classes)."""

    group: ImageGroup
    found: tuple[tuple[int, Tensor], ...]


def begin(
    viewers: Sequence[Viewer], framing: Framing, group: ImageGroup, device: torch.device
) -> PendingGroup:
    """Starts the viewers that look at such images on the device, without waiting for them."""
    pixels = group.pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
    looking = [(number, v) for number, v in enumerate(viewers) if framing in v.framings]
    return PendingGroup(
        group, tuple((number, viewer(framing, pixels)) for number, viewer in looking)
    )


@dataclass(frozen=True)
class ViewSums:
    """What was found of images so far, until all framings have been looked at."""

    num_nets: int
    num_framings: int
    found: dict[int, Tensor] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)

    def add(self, begun: PendingGroup) -> Iterator[ImageScores]:
        """Adds what was found of a group, and gives what is complete with that."""
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
