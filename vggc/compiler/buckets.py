"""Which batch of an artifact images go to, where they fill none of it."""

from __future__ import annotations

from collections.abc import Sequence

GAIN = 0.05
"""The share of its cost that a batch must cost more than several smaller ones, so that they are
called in its place: a call itself, and kernels that leave no choice, are in no stated cost."""


def fewest_images(batches: Sequence[int], costs: Sequence[float]) -> tuple[int, ...]:
    """For each of the ascending `batches` the fewest images that it is taken for.

    Images go to the largest batch that is taken for as many, what is left of them in the same way;
    where they are fewer than the batch, zeros fill it. `costs` are what the batches cost, in any
    unit. A batch is taken for fewer images than it has where it costs less than smaller ones would,
    and always for as many.
    """
    fewest = [1]
    for before, batch, cost in zip(batches, batches[1:], costs[1:], strict=False):
        worth = (
            images
            for images in range(before + 1, batch)
            if cost <= (1 + GAIN) * _cost(images, batches, costs, fewest)
        )
        fewest.append(next(worth, batch))
    return tuple(fewest)


def _cost(
    images: int, batches: Sequence[int], costs: Sequence[float], fewest: Sequence[int]
) -> float:
    """What images cost in batches that are taken for as few as `fewest` tells."""
    whole = 0.0
    while images > 0:
        index = max(i for i, least in enumerate(fewest) if least <= images)
        whole += costs[index]
        images -= batches[index]
    return whole
