"""What `draw` works on: a net, and the file that its picture is written to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.files import check_target, new_file

if TYPE_CHECKING:
    from vggc.pictures.shapes import Picture
    from vggc.program import Program

SUFFIXES = (".svg", ".png")


class UnknownPicture(Diagnostic):
    title = "{path} is no picture that vggc draws"
    label = "the end of its name tells the kind of picture: .svg or .png"
    help = "did you mean {suggestion}?"
    path: str
    suggestion: str


def require_place(path: Path) -> None:
    """Raises: UserError where no picture is called so, something is there, or nothing can be
    written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(UnknownPicture(str(path), str(path.with_suffix(".svg"))))
    check_target(path)


def picture_of(program: Program) -> Picture:
    """A picture of a net's layers as blocks to scale.

    Raises:
        UserError: it has too many layers to be drawn.
    """
    from vggc.analysis.outline import outline
    from vggc.pictures.layout import layout

    report = program.report()
    return layout(outline(program.graph, report), report)


def save(picture: Picture, path: Path) -> None:
    """Writes a picture to a new file, NAME.svg or NAME.png.

    Raises:
        UserError: no picture is called so, something is there, or nothing can be written.
    """
    require_place(path)
    if path.suffix.lower() == ".svg":
        from vggc.pictures.svg import as_svg

        data = as_svg(picture).encode()
    else:
        from vggc.pictures.png import as_png

        data = as_png(picture)
    with new_file(path) as temporary:
        temporary.write_bytes(data)
