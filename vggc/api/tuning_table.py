"""What tuning has found, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.tuning.tuner import TunedLayer, TuningProgress


def milliseconds(course: TuningProgress) -> tuple[float | None, float | None]:
    """The net's tunable kernels together, by the cost model and at their best so far."""
    before, after = course.seconds or (None, None)
    return in_ms(before), in_ms(after)


def in_ms(seconds: float | None) -> float | None:
    """Seconds in milliseconds; None where nothing was measured."""
    return None if seconds is None else seconds * 1e3


def tuning_table(net: str, course: TuningProgress) -> Sheet:
    """The kernels as a table."""
    header = ("kernel", "runs", "tried", "cost model ms", "best ms", "gain", "best choice")
    batches = course.batches
    several = len(batches) > 1
    totals = [
        total(f"all, batch {batch}" if several else "all", seconds)
        for batch, seconds in batches.items()
    ]
    rows = (*(row(layer, several) for layer in course.layers), *totals)
    title = f"{net}: kernels by measurement"
    numbers = (False, True, True, True, True, True, False)
    rule = len(course.layers) - 1
    return Sheet(title=title, header=header, rows=rows, numbers=numbers, rules=(rule,))


def total(name: str, seconds: tuple[float, float] | None) -> tuple[str, ...]:
    """The line of all kernels of a batch: by the cost model, and at their best so far."""
    before, after = map(in_ms, seconds or (None, None))
    return (name, "", "", number(before), number(after), gain(before, after), "")


def row(layer: TunedLayer, several: bool = False) -> tuple[str, ...]:
    """The line of a layer in the table of what tuning has found, with its batch where there are
    several.
    """
    before, after = in_ms(layer.default_seconds), in_ms(layer.best_seconds)
    best = layer.best
    knobs = " ".join(f"{key}={value}" for key, value in best.knobs) if best else ""
    return (
        f"{layer.layers[0]}, batch {layer.batch}" if several else layer.layers[0],
        f"{len(layer.layers)}",
        f"{layer.tried}/{len(layer.task.choices)}",
        number(before),
        number(after),
        gain(before, after),
        f"{best.algorithm} {knobs}" if best else (layer.error or ""),
    )


def number(milliseconds: float | None) -> str:
    """A time in milliseconds as the table shows it; empty where there is none."""
    return "" if milliseconds is None else f"{milliseconds:.3f}"


def gain(before: float | None, after: float | None) -> str:
    """How many times faster `after` is than `before`; empty where one was not measured."""
    return f"{before / after:.2f}×" if before and after else ""
