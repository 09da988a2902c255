"""The best classes for an image, and the artifact that may have found them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vggc.runtime.session import Session

    Array: TypeAlias = NDArray[np.float32]


def best_classes(
    values: Array, class_name: Callable[[int], str], top: int
) -> list[tuple[str, float]]:
    """The names of the classes with the greatest values, and those, greatest first."""
    best = values.ravel().argsort()[::-1][:top]
    return [(class_name(int(index)), float(values.ravel()[index])) for index in best]


def best_lines(best: list[tuple[str, float]]) -> Iterator[str]:
    """A line for each class and its probability, the names in one column."""
    width = max(len(name) for name, _ in best)
    for name, value in best:
        yield f"{name:<{width}}  {value:.4f}"


def session_of(artifact: Path, threads: int | None = None) -> Session:
    """An artifact ready to run, with no more of TVM than that takes.

    Raises: UserError when it is damaged or not for this machine.
    """
    from vggc.ir.needs import RUNNING
    from vggc.runtime.artifact import read_manifest, require_memory

    require_memory(artifact, RUNNING)
    if read_manifest(artifact).target.kind == "cpu":
        import vggc.support.tvm_runtime  # noqa: F401  (a GPU's driver is found by the whole TVM only)
    from vggc.runtime.session import Session

    return Session.load(artifact, threads)
