"""`vggc predict`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, cast

import click

from vggc.api.evaluate import EvalOptions, EvalPlan, ProtocolName, Seen
from vggc.api.predict import predictor_of
from vggc.api.score_table import scales, ways
from vggc.cli import console
from vggc.cli.eval import progress, protocol_options
from vggc.data.parts import Skipped
from vggc.data.strings import CODEC, ERRORS
from vggc.evaluation import diagnostics
from vggc.evaluation.named import NamedImage, Places, listed
from vggc.support.diagnostics import MAX_REPORTED, UserError
from vggc.support.files import check_target, is_one_place, new_file
from vggc.support.precision import TrainPrecision
from vggc_runtime.outputs import best_classes, best_lines

STREAM = "-"
"""What stands for standard input and output."""


class Written(Protocol):
    """What text is written to."""

    def write(self, text: str, /) -> int:
        """Takes the text; gives how many characters."""


Best: TypeAlias = list[tuple[str, float]]


@click.command("predict")
@click.argument("model", metavar="RUN|ARTIFACT|SPEC", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-0", "--null", is_flag=True, help="Paths on standard input end with NULs.")
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option(
    "--csv",
    "as_csv",
    metavar="FILE",
    help="Write a row an image, path,class1,p1,class2,p2…: a new file, or - for standard output.",
)
@click.option(
    "--jsonl",
    "as_lines",
    metavar="FILE",
    help="Write a line of JSON an image: a new file, or - for standard output.",
)
@protocol_options
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for all images.")
def command(
    model: Path,
    images: tuple[str, ...],
    null: bool,
    top: int,
    as_csv: str | None,
    as_lines: str | None,
    weights: Path | None,
    preprocessing: str | None,
    scales: str | None,
    protocol: ProtocolName | None,
    grid: str | None,
    flip: bool | None,
    batch: int | None,
    device: Literal["cpu", "cuda", "auto"] | None,
    precision: TrainPrecision | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Tell the best classes of images, with their probabilities.

    IMAGE is a file; a folder, for all images below it but hidden ones; a pattern in quotes, such as
    'photos/**/*.jpg'; or - for paths that come in on standard input, one a line.

    The net looks at the centre crop of each image, as in training. A SPEC is a net with weights
    from elsewhere: `vggc predict vgg16 --weights imagenet cat.jpg`. Nets that are not compiled look
    as the options say instead, if there are any: `--protocol test` for the `test` block of a file.

    Exit 2 where an image cannot be read; the others are told all the same.
    """
    named = named_images(images, null)
    if [as_csv, as_lines, STREAM if as_json else None].count(STREAM) > 1:
        raise click.UsageError("standard output takes one of --csv -, --jsonl - and --json")
    targets = [Path(target) for target in (as_csv, as_lines) if target and target != STREAM]
    if is_one_place(targets):
        raise click.UsageError("--csv and --jsonl cannot be written to one file")
    for target in targets:
        check_target(target)
    options = EvalOptions(
        weights=weights,
        preprocessing=preprocessing,
        scales=scales,
        protocol=protocol,
        grid=grid,
        flip=flip,
        batch=batch,
        device=device,
        precision=precision,
        workers=workers,
    )
    predictor = predictor_of(model, options)
    if predictor.planned:
        announce(model, predictor.planned)
    lost = LostImages()
    with ExitStack() as stack:
        tell: list[Callable[[str, Best], None]] = []
        whole = JsonRecord(predictor.net)
        if as_csv:
            tell.append(Csv(stack.enter_context(opened(as_csv)), min(top, len(predictor.classes))))
        if as_lines:
            tell.append(JsonLines(stack.enter_context(opened(as_lines))))
        if as_json:
            tell.append(whole)
        if not tell:
            tell.append(in_words)
        # A bar and what is told as it comes would write into each other's lines.
        spoken = in_words in tell or STREAM in (as_csv, as_lines)
        bar = progress("looking at images", not (spoken and sys.stdout.isatty()))
        shown = stack.enter_context(bar)
        total = len(named) if isinstance(named, Places) else None
        for done, found in enumerate(predictor.tell(named), start=1):
            shown(done, total)
            match found:
                case Seen(path, values):
                    best = best_classes(values, predictor.classes.__getitem__, top)
                    for each in tell:
                        each(path, best)
                case _:
                    lost.add(found)
    if as_json:
        console.out(json.dumps(whole.record))
    for target in targets:
        console.status(f"Written: {target}")
    lost.refuse()


def announce(model: Path, planned: EvalPlan) -> None:
    """Says how a run looks at images, and what there is to know of its weights."""
    entry = planned.entries[0]
    console.status(f"{model}: {ways(entry.views)}, {scales(entry)}")
    for remark in entry.remarks:
        console.status(remark)


# Which images


def named_images(images: Sequence[str], null: bool) -> Places | Iterator[NamedImage]:
    """The images at all these places; of standard input they are not counted before.

    Raises:
        UserError: there are none at some.
    """
    if STREAM not in images:
        if null:
            raise click.UsageError("--null is about paths on standard input: give - for IMAGE")
        return Places(images)
    if images.count(STREAM) > 1:
        raise click.UsageError("standard input can be read once: give - once")
    if sys.stdin is None:
        raise click.UsageError("there is no standard input to read paths from")
    before, after = (Places(part) for part in parted(images))
    stream = cast("BufferedIOBase", sys.stdin.buffer)
    return chain(before, listed(stream, null=null), after)


def parted(images: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The arguments before the `-` that stands for stdin, and those behind it."""
    place = images.index(STREAM)
    return images[:place], images[place + 1 :]


@dataclass
class LostImages:
    """The images that could not be read: how many, and the first of them."""

    count: int = 0
    first: list[Skipped] = field(default_factory=list)

    def add(self, skipped: Skipped) -> None:
        """Counts an image that was skipped, and keeps it if it is among the first."""
        self.count += 1
        if len(self.first) < MAX_REPORTED:
            self.first.append(skipped)

    def refuse(self) -> None:
        """Raises: UserError with the first of them, if there are any."""
        if self.count > len(self.first):
            console.status(f"{self.count:,} images could not be read. These are the first:")
        if self.first:
            raise UserError(
                *(diagnostics.UnreadableImage(each.name, each.reason) for each in self.first)
            )


# How they are told


def in_words(path: str, best: Best) -> None:
    """Prints an image's path and its best classes, a line each."""
    console.out(path)
    for line in best_lines(best):
        console.out(f"  {line}")


@dataclass(frozen=True)
class Csv:
    """A row an image, in which `top` classes stand with their probabilities."""

    file: Written
    top: int

    def __post_init__(self) -> None:
        columns = (f"{name}{place}" for place in range(1, self.top + 1) for name in ("class", "p"))
        self.write(["path", *columns])

    def __call__(self, path: str, best: Best) -> None:
        self.write([path, *(cell for name, value in best for cell in (name, f"{value:.7g}"))])

    def write(self, cells: Sequence[str]) -> None:
        """Writes a row."""
        csv.writer(self.file, lineterminator="\n").writerow(cells)


@dataclass(frozen=True)
class JsonLines:
    """A line of JSON an image."""

    file: Written

    def __call__(self, path: str, best: Best) -> None:
        self.file.write(json.dumps(image_record(path, best)) + "\n")


@dataclass(frozen=True)
class JsonRecord:
    """All images in one record."""

    net: str
    images: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, path: str, best: Best) -> None:
        self.images.append(image_record(path, best))

    @property
    def record(self) -> dict[str, object]:
        """The net and every image, as JSON holds them."""
        return {"net": self.net, "images": self.images}


def image_record(path: str, best: Best) -> dict[str, object]:
    """An image's path and best classes, as JSON holds them."""
    classes = [{"class": name, "probability": value} for name, value in best]
    return {"image": path, "best": classes}


@contextmanager
def opened(target: str) -> Iterator[Written]:
    """A new file that is there when all is written, or standard output."""
    if target == STREAM:
        yield console.RawOutput()
        sys.stdout.flush()
        return
    with (
        new_file(Path(target)) as part,
        part.open("w", encoding=CODEC, errors=ERRORS, newline="") as file,
    ):
        yield file
