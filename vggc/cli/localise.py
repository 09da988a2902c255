"""`vggc localise`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click

from vggc.api.localise import Localised, LocaliseOptions, LocaliseProtocol, localise, plan
from vggc.cli import console
from vggc.cli.eval import machine_options, progress
from vggc.cli.options import together, weights_option
from vggc.cli.predict import LostImages, named_images
from vggc.evaluation import diagnostics
from vggc.evaluation.named import Places
from vggc.pictures.marked import MarkedBox, marked
from vggc.support.diagnostics import UserError
from vggc.support.files import check_target, new_file, new_folder, refuse_full, refuse_unwritable
from vggc.support.paths import is_run
from vggc.support.precision import TrainPrecision

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""The endings of files that pictures are drawn into, and their formats."""


localise_options = together(
    click.option(
        "--classifier",
        "classifiers",
        multiple=True,
        metavar="RUN",
        type=click.Path(path_type=Path),
        help="A run that tells what it is that boxes lie around; may be given several times."
        "  [default: the nets with boxes, where they tell classes, too]",
    ),
    weights_option,
    click.option(
        "--scales",
        metavar="SIZES",
        help="Shorter side of the images in pixels, one or more: 256,384."
        "  [default: those of each net's `test` block]",
    ),
    click.option("--flip/--no-flip", default=None, help="Look at the mirror image, too."),
    click.option(
        "--offsets",
        is_flag=True,
        help="Look from all offsets of the nets' last pools, at more positions.",
    ),
    machine_options,
)
"""The options that say which nets look at pictures for objects, and how."""


@click.command("localise")
@click.argument("arguments", nargs=-1, required=True, metavar="RUN... IMAGE...")
@click.option(
    "--protocol",
    type=click.Choice(["dense", "centre"]),
    default="dense",
    show_default=True,
    help="The nets over all of an image, or on its centre crop alone.",
)
@click.option("--top", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("-0", "--null", is_flag=True, help="Paths on standard input end with NULs.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="PICTURE|DIR",
    help="Draw the boxes: into a new .png, .jpg or .webp of one image, or into pictures in a new"
    " folder.",
)
@localise_options
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for all images.")
def command(
    arguments: tuple[str, ...],
    protocol: LocaliseProtocol,
    top: int,
    null: bool,
    out: Path | None,
    classifiers: tuple[Path, ...],
    weights: Path | None,
    scales: str | None,
    flip: bool | None,
    offsets: bool,
    batch: int | None,
    device: Literal["cpu", "cuda", "auto"] | None,
    precision: TrainPrecision | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Tell where objects are in images, by nets that give boxes.

    RUN is the folder of a net with a head of boxes, several one behind the other; IMAGE is a file;
    a folder, for all images below it but hidden ones; a pattern in quotes; or - for paths that come
    in on standard input.

    The nets are applied to all of an image at each of the scales, and to its mirror image. Their
    boxes are united, those that match are merged, and each of the best classes has the box that its
    probabilities speak for most: those of a --classifier, or of a net with both heads.

    Exit 2 where an image cannot be read; the others are told all the same.
    """
    runs, images = parted(arguments)
    named = named_images(images, null)
    check_out(out, named if isinstance(named, Places) else None)
    options = LocaliseOptions(
        weights=weights,
        scales=scales,
        flip=flip,
        offsets=offsets,
        batch=batch,
        device=device,
        precision=precision,
        workers=workers,
    )
    planned = plan(runs, classifiers, options, [protocol], alone=True)
    for note in planned.notes:
        console.status(note)
    lost, whole = LostImages(), LocalisedRecord([str(run) for run in runs], protocol)
    with ExitStack() as stack:
        tell: list[Callable[[Localised], None]] = [whole if as_json else in_words]
        if out:
            tell.append(stack.enter_context(drawing(out)))
        bar = progress("looking at images", as_json or not sys.stdout.isatty())
        shown = stack.enter_context(bar)
        total = len(named) if isinstance(named, Places) else None
        for done, found in enumerate(localise(planned, named, top), start=1):
            shown(done, total)
            if isinstance(found, Localised):
                for each in tell:
                    each(found)
            else:
                lost.add(found)
    if as_json:
        console.out(json.dumps(whole.record))
    if out:
        console.status(f"Written: {out}")
    lost.refuse()


def parted(arguments: Sequence[str]) -> tuple[list[Path], Sequence[str]]:
    """The arguments that are folders of runs, up to the first that is none, and those behind."""
    count = next((n for n, each in enumerate(arguments) if not is_run(each)), len(arguments))
    count = max(1, count)  # what is no run is told as such
    if count == len(arguments):
        raise click.UsageError("Missing argument 'IMAGE...'.")
    return [*map(Path, arguments[:count])], arguments[count:]


# What is drawn


def check_out(out: Path | None, images: Places | None) -> None:
    """Refuses to draw where there is something, several images into one file, or what no picture
    is called.
    """
    if out is None:
        return
    if out.suffix.lower() in PICTURES:
        if images is None or len(images) != 1:
            raise UserError(diagnostics.SeveralIntoOne(str(out)))
        check_target(out)
    elif out.suffix:
        raise UserError(diagnostics.NoPicture(str(out), " ".join(sorted(PICTURES))))
    else:
        refuse_full(out)
        refuse_unwritable(out)


@contextmanager
def drawing(out: Path) -> Iterator[Callable[[Localised], None]]:
    """What draws the boxes of a picture, into a file or into one of a folder, which are there when
    all is drawn.
    """
    if out.suffix:
        with new_file(out) as part:
            yield lambda found: save(found, part, PICTURES[out.suffix.lower()])
        return
    taken: set[str] = set()

    with new_folder(out) as folder:

        def draw(found: Localised) -> None:
            name = free_name(Path(found.path).stem, taken)
            save(found, folder / f"{name}.png", "PNG")

        yield draw


def free_name(stem: str, taken: set[str]) -> str:
    """A name for a picture that no other has, which it is then: its own, or with a number."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


def save(found: Localised, path: Path, kind: str) -> None:
    """Writes a picture with boxes around its objects."""
    boxes = [
        MarkedBox(each.box, "given", f"{each.name} {each.probability:.0%}")
        for each in reversed(found.objects)  # the best on top
    ]
    with path.open("wb") as file:
        marked(found.picture, boxes).save(file, kind)


# How they are told


def in_words(found: Localised) -> None:
    """Prints an image's path and its objects, a line each."""
    console.out(found.path)
    width = max(len(each.name) for each in found.objects)
    for each in found.objects:
        box = "  ".join(f"{edge:.1f}" for edge in each.box)
        console.out(
            f"  {each.name:<{width}}  {each.probability:.4f}  pixels {box}  score {each.score:.2f}"
        )


@dataclass(frozen=True)
class LocalisedRecord:
    """All images in one record."""

    runs: list[str]
    protocol: LocaliseProtocol
    images: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, found: Localised) -> None:
        width, height = found.picture.size
        objects = [
            {
                "class": each.name,
                "probability": each.probability,
                "box": each.box,
                "score": each.score,
            }
            for each in found.objects
        ]
        self.images.append(
            {"image": found.path, "width": width, "height": height, "objects": objects}
        )

    @property
    def record(self) -> dict[str, object]:
        """The runs and every image, as JSON holds them; boxes are left, top, right and bottom in
        pixels.
        """
        return {"runs": self.runs, "protocol": self.protocol, "images": self.images}
