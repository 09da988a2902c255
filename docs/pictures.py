"""Draws the pictures of README and docs from real output: `python docs/pictures.py`.

`--boxes RUN --classifier RUN --data PLACE` draws the picture of boxes alone, from the nets that
benchmarks/results/2026-11-29-boxes.md tells how to train.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.style import Style
from rich.text import Text

import vggc
from vggc.api.inspect import plan, with_sections
from vggc.data.find import digits, find_images
from vggc.pictures.marked import MarkedBox, marked
from vggc.report.heat import enlarged, heat, over, stretched
from vggc.report.inspection import InspectOptions
from vggc.report.inspection_page import BRIGHTEST

FOLDER = Path(__file__).parent
MISTAKEN = """\
net mine
input 3x32x32

  conv3-64  ×2 | pool
| conw3-128 ×2 | pool
| fc-10 | softmax
"""
SIZE, MARGIN, COLUMNS = 15, 24, 118
TRAINING = "vggc train tiny_vgg --epochs 8 --out run"
DIGIT, TILE = 2, 160
"""Which of the held-out digits is looked into, and the pixels along the side of a tile."""
PICTURES, BOXED_HEIGHT, GAP = 6, 220, 8
"""Pictures with boxes, their height and the room between them, in pixels."""
INK, PAPER = (220, 223, 228), (30, 33, 39)
COLOURS = {"color(1)": (224, 108, 117), "color(6)": (86, 182, 194)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--boxes", type=Path, metavar="RUN")
    options.add_argument("--classifier", type=Path, metavar="RUN")
    options.add_argument("--data", type=Path, metavar="PLACE")
    given = options.parse_args()
    if given.boxes:
        draw_boxes(given.boxes, given.classifier, given.data, FOLDER / "boxes.png")
    else:
        draw_all()


def draw_all() -> None:
    """All pictures but that of boxes."""
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
    draw_inspection(FOLDER / "inspect.png")


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


def draw_inspection(path: Path) -> None:
    """What the page of a net of scanned digits shows of one of them, tile by tile, as a PNG."""
    with tempfile.TemporaryDirectory() as folder:
        output(TRAINING, folder)
        digit = Path(folder, "digit.png")
        (pixels,) = digits().val.fetch(np.array([DIGIT]))
        Image.fromarray(pixels).save(digit)
        options = with_sections(InspectOptions(copies=32), "saliency,occlusion,class-image")
        found = plan(Path(folder, "run"), digit, None, options).write(lambda *_: None).found
    seen, evidence, size = found.seen.pixels, found.saliency, found.seen.pixels.shape[:2]
    covered = found.occlusion.at_pixels
    tiles = {
        "the image": seen,
        "SmoothGrad": heat(evidence.smooth, 0, np.percentile(evidence.smooth, BRIGHTEST)),
        "Grad-CAM": over(seen, heat(stretched(evidence.cam, size), 0, evidence.cam.max())),
        "occlusion": over(seen, heat(covered, covered.min(), covered.max())),
        f"class {found.explained.name}": found.class_image.pixels,
    }
    step = TILE + MARGIN
    image = Image.new("RGB", (MARGIN + len(tiles) * step, TILE + 3 * MARGIN), "white")
    pen = ImageDraw.Draw(image)
    for index, (name, drawn) in enumerate(tiles.items()):
        left = MARGIN + index * step
        image.paste(Image.fromarray(enlarged(drawn, TILE)), (left, MARGIN))
        pen.text((left, TILE + MARGIN + 6), name, (30, 33, 39), font("normal"))
    image.save(path, optimize=True)


def draw_boxes(run: Path, classifier: Path, data: Path, path: Path) -> None:
    """The first held-out pictures, one a column of equal height: the objects' boxes in blue, the
    most probable class with its box in orange.
    """
    held_out = find_images(data, 0).val
    files = held_out.fetch(np.arange(PICTURES))
    found = vggc.localise(run, files, classifier=classifier)
    tiles = []
    for index, seen in enumerate(found):
        picture = seen.picture.convert("RGB")
        zoom = BOXED_HEIGHT / picture.height
        size = np.array([picture.width, picture.height] * 2)
        true = [
            MarkedBox(tuple(zoom * size * box), "true") for box in held_out.objects[index].boxes
        ]
        (best,) = seen.objects
        text = f"{best.name} {best.probability:.0%}"
        given = MarkedBox(tuple(zoom * edge for edge in best.box), "given", text)
        large = picture.resize(
            (round(zoom * picture.width), BOXED_HEIGHT), Image.Resampling.BICUBIC
        )
        tiles.append(marked(large, [*true, given]))
    width = sum(tile.width for tile in tiles) + GAP * (len(tiles) - 1)
    image, left = Image.new("RGB", (width, BOXED_HEIGHT), "white"), 0
    for tile in tiles:
        image.paste(tile, (left, 0))
        left += tile.width + GAP
    image.save(path, optimize=True)


def font(weight: str) -> ImageFont.FreeTypeFont:
    found = font_manager.findfont(
        font_manager.FontProperties(family="DejaVu Sans Mono", weight=weight)
    )
    return ImageFont.truetype(found, SIZE)


if __name__ == "__main__":
    sys.exit(main())
