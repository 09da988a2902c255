"""`vggc draw`."""

from __future__ import annotations

from pathlib import Path

import click

from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE
from vggc.program import load, with_input
from vggc.support.diagnostics import Diagnostic, UserError

SUFFIXES = (".svg", ".png")


class UnknownPicture(Diagnostic):
    title = "{path} is no picture that vggc draws"
    label = "the end of its name tells the kind of picture: .svg or .png"
    help = "did you mean {suggestion}?"
    path: str
    suggestion: str


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
    from vggc.analysis.outline import outline
    from vggc.pictures.layout import layout
    from vggc.support.files import check_target, new_file

    if out.suffix.lower() not in SUFFIXES:
        raise UserError(UnknownPicture(str(out), str(out.with_suffix(".svg"))))
    check_target(out)
    program = load(spec)
    if size is not None:
        program = program.replace(with_input(program.net, size))
    report = program.report()
    picture = layout(outline(program.graph, report), report)
    if out.suffix.lower() == ".svg":
        from vggc.pictures.svg import as_svg

        data = as_svg(picture).encode()
    else:
        from vggc.pictures.png import as_png

        data = as_png(picture)
    with new_file(out) as temporary:
        temporary.write_bytes(data)
    console.out(f"{out}: {program.net.name}, {picture.width:.0f} × {picture.height:.0f} pixels")
