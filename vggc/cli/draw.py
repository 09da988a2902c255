"""`vggc draw`."""

from __future__ import annotations

from pathlib import Path

import click

from vggc.api.draw import picture_of, require_place, save
from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE
from vggc.program import load, with_input


@click.command("draw")
@click.argument("spec", metavar="SPEC")
@click.option("--input", "size", type=IMAGE_SIZE, help="Height and width of the input.")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A new file: NAME.svg or NAME.png.",
)
def command(spec: str, size: tuple[int, int] | None, out: Path) -> None:
    """Draw a net: its layers as blocks to scale, with parameters and receptive fields.

    Joins are drawn as paths beside one another. Of a net with more than 48 layers those
    that repeat are drawn once.
    """
    require_place(out)
    program = load(spec)
    if size is not None:
        program = program.replace(with_input(program.net, size))
    picture = picture_of(program)
    save(picture, out)
    console.out(f"{out}: {program.net.name}, {picture.width:.0f} × {picture.height:.0f} pixels")
