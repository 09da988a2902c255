"""What a net gives, and how its best classes are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HeadKind: TypeAlias = Literal["classes", "boxes", "features"]
"""What the numbers of a head are: scores of classes, places of things, or numbers for other
programs."""


@dataclass(frozen=True)
class Output:
    """What a head of the net gives of each image."""

    name: str
    kind: HeadKind
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many things it tells of: classes, features or boxes."""
        first = self.shape[0] if self.shape else 0
        return first // 4 if self.kind == "boxes" else first


def best_classes(
    values: NDArray[np.float32], class_name: Callable[[int], str], top: int
) -> list[tuple[str, float]]:
    """The names of the `top` classes with the greatest values, and the values, greatest first."""
    best = values.ravel().argsort()[::-1][:top]
    return [(class_name(int(index)), float(values.ravel()[index])) for index in best]


def best_lines(best: list[tuple[str, float]]) -> Iterator[str]:
    """A line for each class and its value, the names in one column."""
    width = max(len(name) for name, _ in best)
    for name, value in best:
        yield f"{name:<{width}}  {value:.4f}"
