"""The best classes for an image, as lines."""

from __future__ import annotations

from collections.abc import Iterator


def best_lines(best: list[tuple[str, float]]) -> Iterator[str]:
    """A line for each class and its probability, the names in one column."""
    width = max(len(name) for name, _ in best)
    for name, value in best:
        yield f"{name:<{width}}  {value:.4f}"
