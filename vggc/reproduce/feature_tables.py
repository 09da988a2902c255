"""The paper's tables of features as data: which nets give them, what a classifier makes of them.

Source: Simonyan & Zisserman (2015), tables 11 and 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

FeatureTableName: TypeAlias = Literal["table11", "table12"]
FeatureColumn: TypeAlias = Literal["D", "E"]
Learnt: TypeAlias = Literal["known", "nothing", "other"]
"""What a net has learnt: the classes whose features it gives others, nothing (random weights), or
the other classes, after the known ones."""
Region: TypeAlias = Literal["whole", "middle"]

NETS = {
    "D": """\
net small_d from vgg16_bn(width=0.125)
input 3x32x32

remove pool4
remove conv4_4..pool4
remove every dropout
""",
    "E": """\
net small_e from vgg19_bn(width=0.125)
input 3x32x32

remove pool4
remove conv4_5..pool4
remove every dropout
""",
}
"""D and E for images of 32×32 that are to be seen whole, however large they are made: an eighth as
wide, without the fourth pool and all behind it, with the normalisation that lets them learn in a
few epochs."""


@dataclass(frozen=True)
class FeatureSet:
    """The features that a net gives: of the whole image at several scales, or of its middle."""

    column: FeatureColumn
    learnt: Learnt
    seen: Region = "whole"

    @property
    def name(self) -> str:
        """Names its file."""
        return f"{self.column}-{self.learnt}-{self.seen}"


@dataclass(frozen=True)
class FeatureLine:
    """A line of a table of features: those of several nets behind one another, or the pixels of the
    images where there is none.

    `combine` says what becomes of several scales. `paper` are the paper's numbers by the names of
    its columns, where it has any.
    """

    name: str
    sets: tuple[FeatureSet, ...]
    combine: Literal["average", "stack"]
    paper: dict[str, str]

    @property
    def key(self) -> str:
        """Names what a line is measured of."""
        return f"{'+'.join(each.name for each in self.sets) or 'pixels'} {self.combine}"


D, E = FeatureSet("D", "known"), FeatureSet("E", "known")
BOXES = FeatureSet("D", "known", "middle"), FeatureSet("E", "known", "middle")

VOC, CALTECH101, CALTECH256 = "VOC-2007 mAP, %", "Caltech-101, %", "Caltech-256, %"
ACTIONS = "VOC-2012 actions mAP, %"
COLUMNS = {"table11": (VOC, CALTECH101, CALTECH256), "table12": (ACTIONS,)}
"""The paper's columns of each table."""

PIXELS = FeatureLine("raw pixels", (), "average", {})
RANDOM = FeatureLine("D, random weights", (FeatureSet("D", "nothing"),), "average", {})
TUNED = FeatureLine("D, tuned on these classes", (FeatureSet("D", "other"),), "average", {})

FEATURE_TABLES: dict[FeatureTableName, tuple[FeatureLine, ...]] = {
    "table11": (
        PIXELS,
        RANDOM,
        FeatureLine("D", (D,), "average", {VOC: "89.3"}),
        FeatureLine("D", (D,), "stack", {CALTECH101: "91.8", CALTECH256: "85.0"}),
        FeatureLine("E", (E,), "average", {VOC: "89.3"}),
        FeatureLine("E", (E,), "stack", {CALTECH101: "92.3", CALTECH256: "85.1"}),
        FeatureLine("D + E", (D, E), "average", {VOC: "89.7"}),
        FeatureLine("D + E", (D, E), "stack", {CALTECH101: "92.7", CALTECH256: "86.2"}),
        TUNED,
    ),
    "table12": (
        PIXELS,
        RANDOM,
        FeatureLine("D + E, image", (D, E), "stack", {ACTIONS: "79.2"}),
        FeatureLine("D + E, image and middle", (D, E, *BOXES), "stack", {ACTIONS: "84.0"}),
        TUNED,
    ),
}

FEATURE_TITLES: dict[FeatureTableName, str] = {
    "table11": "Table 11: features on other classes",
    "table12": "Table 12: features of an image and of a box in it",
}


def feature_sets(lines: tuple[FeatureLine, ...]) -> tuple[FeatureSet, ...]:
    """The features that some lines need, each once."""
    return tuple(dict.fromkeys(each for line in lines for each in line.sets))


def trained_for(sets: tuple[FeatureSet, ...]) -> tuple[tuple[FeatureColumn, Learnt], ...]:
    """The trainings that some features need, each after what it begins with."""
    found: dict[tuple[FeatureColumn, Learnt], None] = {}
    for each in sets:
        found.setdefault((each.column, "known"))
        if each.learnt == "other":
            found.setdefault((each.column, "other"))
    return tuple(found)
