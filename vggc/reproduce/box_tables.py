"""The paper's tables of localisation as data: what was trained, how it was tested, what came of it.

Source: Simonyan & Zisserman (2015), appendix A, tables 8 and 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vggc.reproduce.tables import Start, Trained

BoxTableName: TypeAlias = Literal["table8", "table9"]
Regression: TypeAlias = Literal["SCR", "PCR"]
"""One box whatever the class (single-class regression), or one of each (per-class)."""
Tuned: TypeAlias = Literal["FC", "all"]
"""The layers that are tuned: the fully-connected ones, or all. The last is always new."""
BoxWay: TypeAlias = Literal["centre", "dense"]
"""The paper's protocols: the centre crop, its class given, and the whole picture."""

NETS = {"SCR": "vgg16_loc_scr", "PCR": "vgg16_loc_pcr"}
"""The nets that give boxes, and their names in the zoo."""


@dataclass(frozen=True)
class BoxNet:
    """A net that gives boxes, trained at a scale S, after a net D of the same scale whose training
    had this `start`.
    """

    regression: Regression
    scale: int
    tuned: Tuned
    start: Start

    @property
    def name(self) -> str:
        """Names its run."""
        return f"{NETS[self.regression]}-{self.scale}-{self.tuned.lower()}"

    @property
    def before(self) -> Trained:
        """The net of classes that it begins with."""
        return Trained("D", (self.scale, self.scale), self.start)


BoxTraining: TypeAlias = Trained | BoxNet
"""What is trained for a table of localisation: nets of classes, then nets of boxes."""


@dataclass(frozen=True)
class BoxTest:
    """A net that gives boxes, tested at some scales Q."""

    net: BoxNet
    scales: tuple[int, ...]


@dataclass(frozen=True)
class BoxLine:
    """A line of a table of localisation: nets whose boxes are united, by one of the protocols; the
    paper's numbers, in the order of its columns.
    """

    way: BoxWay
    tests: tuple[BoxTest, ...]
    paper: tuple[float | None, ...]


COLUMNS = {
    "table8": ("paper's error, %",),
    "table9": ("paper's top-5, val, %", "paper's top-5, test, %"),
}
"""The paper's columns of each table."""

BOX_TITLES: dict[BoxTableName, str] = {
    "table8": "Table 8: boxes of the centre crop, the class given",
    "table9": "Table 9: boxes of whole pictures",
}


def table8(start: Start) -> tuple[BoxLine, ...]:
    """The lines of table 8, whose nets begin with D after this start."""

    def line(tuned: Tuned, regression: Regression, paper: float) -> BoxLine:
        net = BoxNet(regression, 256, tuned, start)
        return BoxLine("centre", (BoxTest(net, (256,)),), (paper,))

    return line("FC", "SCR", 36.4), line("FC", "PCR", 34.3), line("all", "PCR", 33.1)


def table9(start: Start) -> tuple[BoxLine, ...]:
    """The lines of table 9, whose nets begin with D after this start."""

    def test(scale: int, *scales: int) -> BoxTest:
        return BoxTest(BoxNet("PCR", scale, "all", start), scales)

    return (
        BoxLine("dense", (test(256, 256),), (29.5, None)),
        BoxLine("dense", (test(384, 384),), (28.2, 26.7)),
        BoxLine("dense", (test(384, 352, 384),), (27.5, None)),
        BoxLine("dense", (test(256, 256), test(384, 352, 384)), (26.9, 25.3)),
    )


BOX_TABLES = {"table8": table8, "table9": table9}


def box_trainings(lines: tuple[BoxLine, ...]) -> tuple[BoxTraining, ...]:
    """All that must be trained for these lines, each after what it begins with."""
    found: dict[BoxTraining, None] = {}

    def add(net: BoxTraining) -> None:
        if net.before:
            add(net.before)
        found.setdefault(net)

    for line in lines:
        for test in line.tests:
            add(test.net)
    return tuple(found)
