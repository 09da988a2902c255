"""The tables as the paper lays them out, its numbers beside ours."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vggc.program import load
from vggc.reproduce.setting import StudySetting
from vggc.reproduce.study import Study
from vggc.reproduce.tables import MILLIONS, NETS, TITLES, TableLine, TableName

HEADER = (
    "net",
    "train S",
    "test Q",
    "begins",
    "way",
    "top-1 error, %",
    "top-5 error, %",
    "paper's top-1",
    "paper's top-5",
)
NOTHING = "–", "–"
NUMBERS = (False,) * 5 + (True,) * 4


@dataclass(frozen=True)
class Laid:
    """A table as rows of text, with what is to be said below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[bool, ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """The table as Markdown."""
        rule = ["---:" if number else "---" for number in self.numbers]
        lines = [" | ".join(cells) for cells in (self.header, rule, *self.rows)]
        table = "\n".join(f"| {line} |" for line in lines)
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"# {self.title}\n\n{table}\n{notes}"


def laid(table: TableName, lines: Sequence[TableLine], study: Study, command: str) -> Laid:
    """A table of errors as far as it has been measured."""
    setting = study.setting
    failures = dict.fromkeys(
        failure for line in lines for net in line.nets if (failure := study.failure(net))
    )
    images = {error.images for line in lines if (error := study.error(line))}
    notes = [f"`{command}`", about(setting, images)]
    notes += [f"Stopped: {failure}." for failure in failures]
    rows = tuple(row(line, study, setting) for line in lines)
    return Laid(TITLES[table], HEADER, rows, NUMBERS, tuple(notes))


def row(line: TableLine, study: Study, setting: StudySetting) -> tuple[str, ...]:
    """A line of a table: the paper's errors beside those that were measured."""
    low, high = setting.scales(line.nets[0].scales)
    error = study.error(line)
    ours = (f"{error.top1:.2f}", f"{error.top5:.2f}") if error else NOTHING
    papers = tuple(f"{value:.1f}" for value in line.paper) if line.paper else NOTHING
    return (
        line.columns,
        str(low) if low == high else f"[{low};{high}]",
        ", ".join(map(str, setting.tests(line))),
        ", ".join(dict.fromkeys(net.start for net in line.nets)),
        setting.looks[line.way].name,
        *ours,
        *papers,
    )


def about(setting: StudySetting, images: set[int]) -> str:
    """The note below a table: on which images it was measured, how it differs from the paper."""
    count = f"Errors on {', '.join(f'{n:,}' for n in sorted(images))} images. " if images else ""
    if setting.name == "paper":
        return f"{count}The paper's are on the validation images of ILSVRC-2012."
    height, width = setting.input
    epochs = "1 epoch" if setting.epochs == 1 else f"{setting.epochs} epochs"
    return (
        f"{count}Small: images of {height}×{width}, nets {setting.width:g} times as wide, "
        f"lengths a {setting.shrink}th of the paper's, {epochs}; tested on crops where the paper "
        "takes whole images, of which these nets would see a corner. The paper's "
        "numbers are of ILSVRC-2012: what can be compared is which net is better."
    )


def parameters(columns: Collection[str]) -> Laid:
    """Table 2 of these columns, which takes no images: counted, beside what the paper prints."""
    rows = []
    for column, millions in MILLIONS.items():
        if column not in columns:
            continue
        count = sum(weight.size for weight in load(NETS[column]).graph.all_weights.values())
        rows.append((column, NETS[column], f"{count:,}", f"{count / 1e6:.1f}", str(millions)))
    header = ("net", "in the zoo", "parameters", "in millions", "paper")
    numbers = (False, False, True, True, True)
    return Laid(TITLES["table2"], header, tuple(rows), numbers, ("`vggc reproduce table2`",))
