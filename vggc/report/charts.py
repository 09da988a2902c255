"""Curves over epochs or steps as SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TypeAlias

from vggc.report.html import Element, element

CurveLook: TypeAlias = str
"""A class of the page's style: training, held-out, top-5 or plain, or, of several runs, that of a
run."""

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 10, 34
"""What the marks leave free around them, in the picture's own pixels."""

DOTS, TIPS = 40, 250
"""Up to so many epochs each is marked by a dot; up to so many tell their values when pointed at."""
MOST_POINTS = 2000
"""A curve of more points is thinned out to the extremes of as many stretches."""
TICKS = 5
ALIKE = 1e-6
"""Values that differ by no more than this share are drawn as if they were the same."""
LEAST = 1e-30
"""Smaller values are drawn as zero."""


@dataclass(frozen=True)
class Curve:
    """One value an epoch, or a step."""

    label: str
    look: CurveLook
    values: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """Curves over epochs, the first of which is `first`; some may end before others. With `steps`
    they are over steps instead, each value at one of these.

    `low` and `high` are values that the axis covers whatever the curves do; `written` writes a
    value out. An axis `by_decades` is logarithmic where the values span one or more.
    """

    title: str
    first: int
    curves: tuple[Curve, ...]
    written: Callable[[float], str]
    low: float | None = None
    high: float | None = None
    by_decades: bool = False
    steps: tuple[int, ...] = ()

    @property
    def what(self) -> str:
        """What the axis counts."""
        return "step" if self.steps else "epoch"

    @property
    def count(self) -> int:
        """The values of the longest curve."""
        return max(len(curve.values) for curve in self.curves)

    def number(self, index: int) -> int:
        """The epoch or the step that a value is of."""
        return self.steps[index] if self.steps else self.first + index


@dataclass(frozen=True)
class ChartAxis:
    """What lies between two values, from `start` to `end` in pixels."""

    low: float
    high: float
    start: float
    end: float
    by_decades: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Where a value lies."""
        low, high = self.low, self.high
        if self.by_decades:
            low, high, value = log10(low), log10(high), log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def figure(chart: Chart) -> Element:
    """A chart under its title and its legend."""
    return element(
        "figure",
        element("h3", chart.title),
        element("p", *(_entry(curve, chart) for curve in chart.curves), class_="legend"),
        picture(chart),
    )


def _entry(curve: Curve, chart: Chart) -> Element:
    """A curve in the legend, with its last value."""
    line = element("line", x1=1, y1=5, x2=21, y2=5, class_=f"curve {curve.look}")
    sample = element("svg", line, viewBox="0 0 22 10", class_="sample", aria_hidden="true")
    last = element("b", chart.written(curve.values[-1]))
    return element("span", sample, f"{curve.label} ", last)


def picture(chart: Chart) -> Element:
    """The axes and the curves."""
    across = axis_across(chart.number(0), chart.number(chart.count - 1))
    up = axis_of_values(chart)
    return element(
        "svg",
        *_rows(up),
        *_columns(across, chart.what),
        *(mark for curve in chart.curves for mark in _marks(chart, curve, across, up)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=in_words(chart),
        class_="chart",
    )


def in_words(chart: Chart) -> str:
    """What a reader who sees no pictures is told."""
    last = chart.number(chart.count - 1)
    length = f"{last} steps" if chart.steps else f"{chart.count} epochs"
    courses = "; ".join(
        f"{c.label} from {chart.written(c.values[0])} to {chart.written(c.values[-1])}"
        for c in chart.curves
    )
    return f"{chart.title} over {length}: {courses}"


def _rows(up: ChartAxis) -> list[Element]:
    marks = []
    names = tick_names(up.ticks, up.by_decades)
    for value, name in zip(up.ticks, names, strict=True):
        y = _number(up.place(value))
        marks += [
            element("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, class_="grid"),
            element("text", name, x=LEFT - 8, y=y, dy="0.35em", text_anchor="end"),
        ]
    return marks


def _columns(across: ChartAxis, what: str) -> list[Element]:
    base = HEIGHT - BOTTOM
    marks = [element("line", x1=LEFT, y1=base, x2=WIDTH - RIGHT, y2=base, class_="axis")]
    for value in across.ticks:
        x = _number(across.place(value))
        marks += [
            element("line", x1=x, y1=base, x2=x, y2=base + 4, class_="axis"),
            element("text", f"{value:.0f}", x=x, y=base + 16, text_anchor="middle"),
        ]
    middle = _number((across.start + across.end) / 2)
    return [*marks, element("text", what, x=middle, y=HEIGHT - 4, text_anchor="middle")]


def _marks(chart: Chart, curve: Curve, across: ChartAxis, up: ChartAxis) -> list[Element]:
    """A curve's line, its dots and what they tell."""
    points = [
        (_number(across.place(chart.number(index))), _number(up.place(curve.values[index])))
        for index in thinned(curve.values)
    ]
    text = " ".join(f"{x},{y}" for x, y in points)
    marks = [element("polyline", points=text, class_=f"curve {curve.look}")]
    if len(curve.values) > TIPS:
        return marks
    kind = "dot" if len(curve.values) <= DOTS else "spot"
    for index, (x, y) in enumerate(points):
        value = chart.written(curve.values[index])
        told = f"{chart.what} {chart.number(index)}, {curve.label}: {value}"
        tip = element("title", told)
        marks.append(element("circle", tip, cx=x, cy=y, r=3, class_=f"{kind} {curve.look}"))
    return marks


def thinned(values: Sequence[float]) -> list[int]:
    """The places of the values that are drawn: all, or the extremes of many short stretches."""
    count = len(values)
    if count <= MOST_POINTS:
        return list(range(count))
    stretches = MOST_POINTS // 2
    kept = {0, count - 1}
    for number in range(stretches):
        stretch = range(number * count // stretches, (number + 1) * count // stretches)
        kept |= {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
    return sorted(kept)


# Axes


def axis_across(first: int, last: int) -> ChartAxis:
    """From the first epoch or step to the last; a single one lies in the middle."""
    left, right = LEFT + 8, WIDTH - RIGHT - 8
    if first == last:
        return ChartAxis(
            low=first - 1, high=last + 1, start=left, end=right, by_decades=False, ticks=(first,)
        )
    whole = [tick for tick in round_steps(first, last, 8, least=1) if first <= tick <= last]
    # The last one is named unless that would run into another name.
    room = (last - first) / 16
    ticks = (*(tick for tick in whole if last - tick > room), last)
    return ChartAxis(low=first, high=last, start=left, end=right, by_decades=False, ticks=ticks)


def axis_of_values(chart: Chart) -> ChartAxis:
    """An axis that holds all values, and ends at round ones."""
    values = [value for curve in chart.curves for value in curve.values]
    bounds = [bound for bound in (chart.low, chart.high) if bound is not None]
    low, high = min(*values, *bounds, values[0]), max(*values, *bounds, values[0])
    if chart.by_decades and low > LEAST and high >= 10 * low:
        first, last = floor(log10(low)), ceil(log10(high))
        step = ceil((last - first) / TICKS)
        ticks = tuple(10.0**power for power in range(first, last + 1, step))
        return ChartAxis(
            low=10.0**first,
            high=max(10.0**last, ticks[-1]),
            start=HEIGHT - BOTTOM,
            end=TOP,
            by_decades=True,
            ticks=ticks,
        )
    largest = max(abs(low), abs(high))
    if largest <= LEAST:
        low, high = 0.0, 1.0
    elif high - low <= ALIKE * largest:
        low, high = min(0.0, 2 * low), max(0.0, 2 * high)
    ticks = round_steps(low, high, TICKS)
    return ChartAxis(
        low=ticks[0], high=ticks[-1], start=HEIGHT - BOTTOM, end=TOP, by_decades=False, ticks=ticks
    )


def round_steps(low: float, high: float, most: int, least: float = 0.0) -> tuple[float, ...]:
    """About `most` round numbers in equal steps from `low` or below to `high` or above."""
    rough = max((high - low) / most, least)
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    if least:
        step = max(least, ceil(step))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return tuple(float(f"{number * step:.12g}") for number in range(first, last + 1))


def tick_names(ticks: Sequence[float], by_decades: bool) -> list[str]:
    """The ticks' values, all with as many decimals."""
    if by_decades:
        return [
            f"{tick:g}" if tick >= 1e-3 else f"{tick:.0e}".replace("e-0", "e-") for tick in ticks
        ]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    decimals = next((n for n in range(10) if abs(step * 10**n - round(step * 10**n)) < 1e-6), 10)
    largest = max(abs(tick) for tick in ticks)
    if largest >= 1e7 or decimals > 5:
        return [f"{tick:.3g}" for tick in ticks]
    return [f"{tick:,.{decimals}f}" for tick in ticks]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
