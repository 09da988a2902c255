"""What would fit in the place of a training that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vggc.analysis.training import TrainingSetup


def smaller(
    course: TrainingSetup, processes: int, fits: Callable[[TrainingSetup], bool], fixed: bool
) -> str:
    """What would fit in the place of a training that does not, in words."""
    least = replace(course, images=1)
    if not fits(replace(least, parts=1)):
        return "a batch of 1 does not fit either; a smaller --input or a narrower net takes less"
    batch = largest(course, fits)
    total = processes * course.parts * batch
    hint = f"in batches of {total} it would fit: `--batch {total}`"
    if batch == 0:
        alone = replace(course, parts=1)
        hint = f"`--batch {processes * largest(alone, fits)}` would fit, with `accumulate` 1"
    if fixed:
        return f"begin a new run, since this one keeps its batch: {hint}"
    step = course.images * course.parts
    parts = next((n for n in doubled(course.parts, step) if fits(divided(course, n))), None)
    if parts is None:
        return hint
    return f"{hint}; the same batch fits in {parts} parts: `--set train.accumulate={parts}`"


def largest(course: TrainingSetup, fits: Callable[[TrainingSetup], bool]) -> int:
    """The most images at once with which a training fits, up to those of the course."""
    low, high = 0, course.images
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(replace(course, images=middle)) else (low, middle - 1)
    return low


def doubled(parts: int, step: int) -> list[int]:
    """Numbers of parts to cut a step into: twice as many as `parts`, four times as many, up to one
    for each image.
    """
    found = []
    while (parts := min(2 * parts, step)) not in found:
        found.append(parts)
    return found


def divided(course: TrainingSetup, parts: int) -> TrainingSetup:
    """The training with the same images of a step, in so many parts."""
    return replace(course, images=-(-course.images * course.parts // parts), parts=parts)
