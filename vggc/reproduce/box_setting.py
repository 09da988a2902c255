"""At which size the paper's tables of localisation are done: as in the paper, or small."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from vggc.program import Program, beside, load
from vggc.reproduce.box_tables import NETS as BOX_NETS
from vggc.reproduce.box_tables import BoxNet, BoxTraining
from vggc.reproduce.setting import PAPER
from vggc.reproduce.tables import NETS, S256, Start, Trained
from vggc.support.source import Source
from vggc.syntax.parse import parse


@dataclass(frozen=True)
class BoxSetting(ABC):
    """How large everything is, beside the paper. `epochs` are those of a training."""

    epochs: int
    start: ClassVar[Start]
    """How the training of the nets of classes begins."""

    @abstractmethod
    def length(self, pixels: int) -> int:
        """What a length in the paper is here."""

    @abstractmethod
    def program(self, net: BoxTraining) -> Program:
        """The net of a training, before it is fitted to pictures."""

    @abstractmethod
    def changes(self, net: BoxTraining) -> tuple[str, ...]:
        """What a training changes in its net's recipe."""


@dataclass(frozen=True)
class PaperBoxes(BoxSetting):
    """The paper's own size. Nets of classes have the trainings of tables 3 to 6, and share their
    runs.
    """

    epochs: int = PAPER.epochs
    start: ClassVar[Start] = "from A"

    def length(self, pixels: int) -> int:
        return pixels

    def program(self, net: BoxTraining) -> Program:
        return load(NETS[net.column] if isinstance(net, Trained) else BOX_NETS[net.regression])

    def changes(self, net: BoxTraining) -> tuple[str, ...]:
        if isinstance(net, Trained):
            return replace(PAPER, epochs=self.epochs).recipe(net)
        changes = (f"scale={net.scale}", f"epochs={self.epochs}", f"batch={PAPER.batch}")
        return changes + (("freeze=conv1_1..pool5",) if net.tuned == "FC" else ())


SMALL_NET = """\
net {name} from vgg16_bn(width=0.25)
input 3x62x62

remove conv4_1..pool5
remove every dropout
set every conv padding=0
{last}
train {{
  batch 48
  adamw
  one-cycle
  init he
  flip
  clip 2
}}
"""
"""D for pictures of about 100×100: a quarter as wide and without its last two blocks, with the
normalisation that lets it learn in a few epochs. Its convolutions are without padding: of a crop so
small the padding's zeros would be seen everywhere, which are missing within a whole picture."""

SMALL_LAST = {
    "D": "",
    "SCR": "replace fc6..softmax1 with boxes\n",
    "PCR": "replace fc6..softmax1 with boxes-1000\n",
}


@dataclass(frozen=True)
class SmallBoxes(BoxSetting):
    """In minutes, on pictures of about 100×100. A net of classes is tuned for `tuning` of the
    epochs at a larger scale, at a tenth of the rate `lr`; nets of boxes have the rate `box_lr`.
    """

    epochs: int = 16
    start: ClassVar[Start] = "random"
    lengths: ClassVar = {224: 62, 256: 70, 352: 98, 384: 106}
    """The paper's lengths, so that a net's windows cover a whole side."""
    lr: ClassVar = 0.003
    box_lr: ClassVar = 0.001
    tuning: ClassVar = 0.5

    def length(self, pixels: int) -> int:
        return self.lengths[pixels]

    def program(self, net: BoxTraining) -> Program:
        source = small_source("D" if isinstance(net, Trained) else net.regression)
        return Program(parse(source), find=beside_small_d)

    def changes(self, net: BoxTraining) -> tuple[str, ...]:
        if isinstance(net, BoxNet):
            changes = self.common(net.scale, self.epochs, self.box_lr) + begins("conv1_1..fc5")
            return changes + (("freeze=conv1_1..conv3_3",) if net.tuned == "FC" else ())
        if net.scales == S256:
            return self.common(256, self.epochs, self.lr)
        epochs = max(1, round(self.epochs * self.tuning))
        return self.common(net.scales[0], epochs, self.lr / 10) + begins("conv1_1..fc6")

    def common(self, scale: int, epochs: int, lr: float) -> tuple[str, ...]:
        """What every training changes."""
        return f"scale={self.length(scale)}", f"epochs={epochs}", f"lr={lr:g}"


def begins(layers: str) -> tuple[str, ...]:
    """What a training changes that begins with layers of the small D."""
    return "init-from=small_d", f"init-from.layers={layers}"


def small_source(column: str) -> Source:
    """The text of the small D, or of the small net of a regression."""
    name = f"small_{column.lower()}"
    return Source(f"{name}.vgg", SMALL_NET.format(name=name, last=SMALL_LAST[column]))


def beside_small_d(name: str, source: Source) -> Source | None:
    """Where the nets are that small nets name: the small D among those of the zoo."""
    return small_source("D") if name == "small_d" else beside(name, source)
