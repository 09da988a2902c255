"""At which size the paper's tables are done: as in the paper, or small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vggc.program import load
from vggc.recipe.layer_names import with_weights
from vggc.reproduce.tables import LAYERS_OF_A, NETS, S256, Scales, TableLine, Trained, Way


@dataclass(frozen=True)
class Look:
    """How images are looked at: a protocol, its crops along each side, what tables call it."""

    name: str
    protocol: Way
    grid: int | None = None


@dataclass(frozen=True)
class StudySetting:
    """How large everything is, beside the paper.

    Lengths are the paper's over `shrink`, the nets `width` times as wide. `changes` are those of
    every recipe, `epochs` and `lr` of trainings from scratch; a net that begins with its own
    weights at the scale before is tuned for `tuning` of the epochs, at a tenth of the rate.
    `looks` has what is done for each of the paper's ways to look at an image; lines of others
    are left out.
    """

    name: str
    shrink: int
    width: float
    epochs: int
    lr: float
    batch: int
    tuning: float
    looks: Mapping[Way, Look]
    changes: tuple[str, ...] = ()

    def length(self, pixels: int) -> int:
        """What a length in the paper is here: 36 for 256 where all is a seventh."""
        return pixels // self.shrink

    def scales(self, scales: Scales) -> Scales:
        """The scales S in this setting for those of the paper."""
        low, high = map(self.length, scales)
        return low, high

    def tests(self, line: TableLine) -> tuple[int, ...]:
        """The test scales of a line, no smaller than its crops have room in."""
        room = self.input[0] + (self.looks[line.way].grid or 1) - 1
        return tuple(max(self.length(test), room) for test in line.tests)

    @property
    def input(self) -> tuple[int, int]:
        """The height and width of the input that stand for the paper's 224×224."""
        return self.length(224), self.length(224)

    def spec(self, column: str) -> str:
        """A column of table 1 as `load` takes it."""
        name = NETS[column]
        return name if self.width == 1 else f"{name}(width={self.width:g})"

    def recipe(self, net: Trained) -> tuple[str, ...]:
        """What a training changes in its net's recipe."""
        low, high = self.scales(net.scales)
        scale = str(low) if low == high else f"{low}..{high}"
        tunes = net.scales != S256
        epochs = max(1, round(self.epochs * self.tuning)) if tunes else self.epochs
        lr = self.lr / 10 if tunes else self.lr
        changes = [f"scale={scale}", f"epochs={epochs}", f"lr={lr:g}", f"batch={self.batch}"]
        changes += self.changes
        if net.before:
            layers = all_layers(net.column) if tunes else LAYERS_OF_A
            changes += [f"init-from={NETS[net.before.column]}", f"init-from.layers={layers}"]
        return tuple(changes)


def all_layers(column: str) -> str:
    """All layers of a net, from first to last."""
    first, *_, last = with_weights(load(NETS[column]).graph)
    return f"{first}..{last}"


PAPER = StudySetting(
    name="paper",
    shrink=1,
    width=1,
    epochs=74,
    lr=0.01,
    batch=256,
    tuning=1,
    looks={
        "dense": Look("dense", "dense"),
        "crops": Look("multi-crop", "crops", 5),
        "both": Look("multi-crop & dense", "both", 5),
    },
)
SMALL = StudySetting(
    name="small",
    shrink=7,
    width=0.25,
    epochs=10,
    lr=0.05,
    batch=128,
    tuning=0.3,
    looks={"dense": Look("3×3 crops", "crops", 3), "crops": Look("5×5 crops", "crops", 5)},
    changes=("schedule=one-cycle", "init=he", "clip=1"),
)
"""On 32×32 images, in hours on two processors.

Crops take the place of whole images: five pools leave one place of an image below 64×64, so that
a net applied to all of it would see its upper left corner only.
"""
