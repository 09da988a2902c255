"""Draws README's pictures from real output: `python docs/pictures.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.style import Style
from rich.text import Text

FOLDER = Path(__file__).parent
MISTAKEN = """\
net mine
input 3x32x32

  conv3-64  ×2 | pool
| conw3-128 ×2 | pool
| fc-10 | softmax
"""
SIZE, MARGIN, COLUMNS = 15, 24, 118
INK, PAPER = (220, 223, 228), (30, 33, 39)
COLOURS = {"color(1)": (224, 108, 117), "color(6)": (86, 182, 194)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "mine.vgg").write_text(MISTAKEN, "utf-8")
        text = Text()
        for command in ("vggc check mine.vgg", "vggc summary vgg16"):
            text.append(f"$ {command}\n", Style(bold=True))
            text.append(Text.from_ansi(output(command, folder)))
            text.append("\n\n")
    text.rstrip()
    draw(text, FOLDER / "terminal.png")
    (FOLDER / "resnet18.svg").unlink(missing_ok=True)
    output("vggc draw resnet18 -o resnet18.svg", str(FOLDER))


def output(command: str, folder: str) -> str:
    """What a person sees of a command in a terminal of `COLUMNS` columns."""
    arguments = ["script", "-qec", command, "/dev/null"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout.replace("\r\n", "\n").strip("\n")


def draw(text: Text, path: Path) -> None:
    """The text in a monospaced font, colours kept, as a PNG."""
    fonts = {weight: font(weight) for weight in ("normal", "bold")}
    width = round(fonts["normal"].getlength("M"))
    height = round(SIZE * 1.35)
    lines = text.split("\n")
    size = (2 * MARGIN + COLUMNS * width, 2 * MARGIN + len(lines) * height)
    image = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(image)
    console = Console()
    for row, line in enumerate(lines):
        for column, char in enumerate(line.plain):
            style = line.get_style_at_offset(console, column)
            colour = COLOURS.get(style.color.name, INK) if style.color else INK
            if style.dim:
                colour = tuple((a + b) // 2 for a, b in zip(colour, PAPER, strict=True))
            place = (MARGIN + column * width, MARGIN + row * height)
            pen.text(place, char, colour, fonts["bold" if style.bold else "normal"])
    image.save(path, optimize=True)


def font(weight: str) -> ImageFont.FreeTypeFont:
    found = font_manager.findfont(
        font_manager.FontProperties(family="DejaVu Sans Mono", weight=weight)
    )
    return ImageFont.truetype(found, SIZE)


if __name__ == "__main__":
    sys.exit(main())
