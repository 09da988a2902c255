"""Batches on their way to the device, while it computes on those before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from vggc.data.loader import Batch


def prefetched(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on the device; on a GPU the next one is on its way already."""
    if device.type == "cpu":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    coming: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            following = moved(batch, device)
        if coming is not None:
            yield arrived(coming, stream)
        coming = following
    if coming is not None:
        yield arrived(coming, stream)


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch with its images and labels on a device, for which nobody waits."""
    # The rows are read by the processor as well, which would wait for the device.
    images, labels = (part.to(device, non_blocking=True) for part in (batch.images, batch.labels))
    return batch._replace(images=images, labels=labels)


def arrived(batch: Batch, stream: torch.cuda.Stream) -> Batch:
    """The batch, which what is computed from now on may read."""
    current = torch.cuda.current_stream()
    current.wait_stream(stream)
    tensors: tuple[Tensor, ...] = (batch.images, batch.labels)
    for tensor in tensors:
        tensor.record_stream(current)
    return batch
