"""The paper's tables of results as data: what was trained, how it was tested, what came of it.

Source: Simonyan & Zisserman (2015), tables 1 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

TableName: TypeAlias = Literal["table2", "table3", "table4", "table5", "table6"]
Start: TypeAlias = Literal["random", "from A"]
Way: TypeAlias = Literal["dense", "crops", "both"]
Scales: TypeAlias = tuple[int, int]
"""The least and the greatest length of an image's shorter side, equal where it is fixed."""

NETS = {
    "A": "vgg11",
    "A-LRN": "vgg11_lrn",
    "B": "vgg13",
    "C": "vgg16_1x1",
    "D": "vgg16",
    "E": "vgg19",
}
"""The columns of table 1, and their names in the zoo."""

DEEPER = ("B", "C", "D", "E")
"""The nets whose training began with layers of A."""

LAYERS_OF_A = "conv1_1,conv2_1,conv3_1..conv3_2,fc6..fc8"
"""The first four convolutions of A and its fully-connected layers (section 3.1)."""

S256, S384, JITTER = (256, 256), (384, 384), (256, 512)

MILLIONS = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}
"""Table 2: parameters, in millions."""


@dataclass(frozen=True)
class Trained:
    """A column of table 1, trained at a scale from a start."""

    column: str
    scales: Scales
    start: Start

    @property
    def name(self) -> str:
        """Names its run."""
        low, high = self.scales
        scale = str(low) if low == high else f"{low}-{high}"
        return f"{NETS[self.column]}-{scale}-{self.start.replace(' ', '-')}"

    @property
    def before(self) -> Trained | None:
        """What it begins with: at a larger scale itself at the scale before, which it is tuned
        from, and a deeper net A (section 3.1).
        """
        match self.scales:
            case (256, 256):
                return Trained("A", S256, "random") if self.start == "from A" else None
            case (384, 384):
                return Trained(self.column, S256, self.start)
            case _:
                return Trained(self.column, S384, self.start)


@dataclass(frozen=True)
class TableLine:
    """A line of a table: nets whose soft-max outputs are averaged, tested at some scales in one
    way; the paper's top-1 and top-5 error in %, if it has them.
    """

    nets: tuple[Trained, ...]
    tests: tuple[int, ...]
    way: Way
    paper: tuple[float, float] | None

    @property
    def columns(self) -> str:
        """The nets of the line by the columns of Table 1: `D + E`."""
        return " + ".join(net.column for net in self.nets)


def start_of(column: str) -> Start:
    """How the paper's nets began."""
    return "from A" if column in DEEPER else "random"


def line(
    column: str, scales: Scales, tests: tuple[int, ...], way: Way, top1: float, top5: float
) -> TableLine:
    """A line of the paper's for one net."""
    return TableLine((Trained(column, scales, start_of(column)),), tests, way, (top1, top5))


TABLE3 = (
    line("A", S256, (256,), "dense", 29.6, 10.4),
    line("A-LRN", S256, (256,), "dense", 29.7, 10.5),
    line("B", S256, (256,), "dense", 28.7, 9.9),
    line("C", S256, (256,), "dense", 28.1, 9.4),
    line("C", S384, (384,), "dense", 28.1, 9.3),
    line("C", JITTER, (384,), "dense", 27.3, 8.8),
    line("D", S256, (256,), "dense", 27.0, 8.8),
    line("D", S384, (384,), "dense", 26.8, 8.7),
    line("D", JITTER, (384,), "dense", 25.6, 8.1),
    line("E", S256, (256,), "dense", 27.3, 9.0),
    line("E", S384, (384,), "dense", 26.9, 8.7),
    line("E", JITTER, (384,), "dense", 25.5, 8.0),
)

Q256, Q384, QJITTER = (224, 256, 288), (352, 384, 416), (256, 384, 512)

TABLE4 = (
    line("B", S256, Q256, "dense", 28.2, 9.6),
    line("C", S256, Q256, "dense", 27.7, 9.2),
    line("C", S384, Q384, "dense", 27.8, 9.2),
    line("C", JITTER, QJITTER, "dense", 26.3, 8.2),
    line("D", S256, Q256, "dense", 26.6, 8.6),
    line("D", S384, Q384, "dense", 26.5, 8.6),
    line("D", JITTER, QJITTER, "dense", 24.8, 7.5),
    line("E", S256, Q256, "dense", 26.9, 8.7),
    line("E", S384, Q384, "dense", 26.7, 8.6),
    line("E", JITTER, QJITTER, "dense", 24.8, 7.5),
)

TABLE5 = (
    line("D", JITTER, QJITTER, "dense", 24.8, 7.5),
    line("D", JITTER, QJITTER, "crops", 24.6, 7.5),
    line("D", JITTER, QJITTER, "both", 24.4, 7.2),
    line("E", JITTER, QJITTER, "dense", 24.8, 7.5),
    line("E", JITTER, QJITTER, "crops", 24.6, 7.4),
    line("E", JITTER, QJITTER, "both", 24.4, 7.1),
)

D_AND_E = (Trained("D", JITTER, "from A"), Trained("E", JITTER, "from A"))

TABLE6 = (
    TableLine(D_AND_E, QJITTER, "dense", (24.0, 7.1)),
    TableLine(D_AND_E, QJITTER, "crops", (23.9, 7.2)),
    TableLine(D_AND_E, QJITTER, "both", (23.7, 6.8)),
)

TABLES: dict[TableName, tuple[TableLine, ...]] = {
    "table3": TABLE3,
    "table4": TABLE4,
    "table5": TABLE5,
    "table6": TABLE6,
}

TITLES: dict[TableName, str] = {
    "table2": "Table 2: parameters, in millions",
    "table3": "Table 3: one test scale",
    "table4": "Table 4: several test scales",
    "table5": "Table 5: ways to look at an image",
    "table6": "Table 6: nets together",
}


def also_random(lines: tuple[TableLine, ...]) -> tuple[TableLine, ...]:
    """The lines, and each at scale 256 that begins with A's layers from random weights as well,
    of which the paper has no numbers.
    """
    found: list[TableLine] = []
    for each in lines:
        (net, *others) = each.nets
        found.append(each)
        if not others and net.start == "from A" and net.scales == S256:
            random = Trained(net.column, S256, "random")
            found.append(TableLine((random,), each.tests, each.way, None))
    return tuple(found)


def trainings(lines: tuple[TableLine, ...]) -> tuple[Trained, ...]:
    """All that must be trained for these lines, each after what it begins with."""
    found: dict[Trained, None] = {}

    def add(net: Trained) -> None:
        if net.before:
            add(net.before)
        found.setdefault(net)

    for each in lines:
        for net in each.nets:
            add(net)
    return tuple(found)
