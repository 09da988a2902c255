"""Makes pictures with shapes on real photographs, and their boxes in Pascal VOC's layout.

    python benchmarks/shapes.py FOLDER [--count 3000] [--seed 0] [--photos DIR]

Each picture is a random part of a photograph with one shape drawn into it: a disc, a square, a
triangle, a star or a ring, of random size, place, proportions and colours, partly transparent. The
photographs are the two that come with scikit-learn, or those of a folder; pictures to train on are
cut from the left three quarters of them, held-out ones from the rest, so that no ground is shared.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

SIDES = (80, 128)
"""The least and the greatest side of a picture, in pixels."""
SIZES = (0.25, 0.75)
"""The least and the greatest side of a shape, as a share of the picture's shorter side."""
TRAIN_SHARE = 0.75
FINE = 4
"""A shape is drawn so many times as large and made smaller, so that its edges are smooth."""

Box = tuple[float, float, float, float]
Points = list[tuple[float, float]]


def polygon(box: Box, radii: Sequence[float], turn: float = 0.0) -> Points:
    """A polygon whose corners lie around a box's middle, at these shares of its half sides."""
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    corners = []
    for index, radius in enumerate(radii):
        angle = turn + 2 * math.pi * index / len(radii)
        corners.append(
            (
                x + radius * math.sin(angle) * (right - left) / 2,
                y - radius * math.cos(angle) * (bottom - top) / 2,
            )
        )
    return corners


def inset(box: Box, share: float) -> Box:
    """The box without a share of its sides at each edge."""
    left, top, right, bottom = box
    x, y = share * (right - left), share * (bottom - top)
    return left + x, top + y, right - x, bottom - y


def ring(pen: ImageDraw.ImageDraw, box: Box) -> None:
    """A ring as wide as a fifth of the box."""
    pen.ellipse(box, fill=255)
    pen.ellipse(inset(box, 0.2), fill=0)


SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, Box], None]] = {
    "disc": lambda pen, box: pen.ellipse(box, fill=255),
    "ring": ring,
    "square": lambda pen, box: pen.rectangle(box, fill=255),
    "star": lambda pen, box: pen.polygon(polygon(box, [1, 0.42] * 5), fill=255),
    "triangle": lambda pen, box: pen.polygon(
        [(box[0], box[3]), (box[2], box[3]), ((box[0] + box[2]) / 2, box[1])], fill=255
    ),
}


def photographs(folder: Path | None) -> list[Image.Image]:
    """The photographs of a folder, or those of scikit-learn."""
    if folder is None:
        return [Image.fromarray(pixels) for pixels in load_sample_images().images]
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))]


def ground(
    photos: Sequence[Image.Image], random: np.random.Generator, is_training: bool
) -> Image.Image:
    """A random part of a photograph, of a random size."""
    photo = photos[random.integers(len(photos))]
    width, height = photo.size
    edge = round(width * TRAIN_SHARE)
    start, end = (0, edge) if is_training else (edge, width)
    size = random.integers(SIDES[0], SIDES[1] + 1, 2)
    zoom = random.uniform(0.6, 1.0) * min((end - start) / size[0], height / size[1], 1.6)
    across, down = (int(side * zoom) for side in size)
    x = random.integers(start, end - across + 1)
    y = random.integers(0, height - down + 1)
    part = photo.crop((x, y, x + across, y + down))
    return part.resize((int(size[0]), int(size[1])), Image.Resampling.BILINEAR)


def picture(
    photos: Sequence[Image.Image], name: str, random: np.random.Generator, is_training: bool
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A picture with a shape in it, and the shape's box (left, top, right, bottom) in pixels."""
    image = ground(photos, random, is_training)
    shorter = min(image.size)
    side = random.uniform(*SIZES) * shorter
    stretch = math.exp(random.uniform(-0.35, 0.35))
    across, down = (min(side * s, image.size[i]) for i, s in enumerate((stretch, 1 / stretch)))
    left = random.uniform(0, image.size[0] - across)
    top = random.uniform(0, image.size[1] - down)
    mask = Image.new("L", (image.size[0] * FINE, image.size[1] * FINE))
    box = (left * FINE, top * FINE, (left + across) * FINE - 1, (top + down) * FINE - 1)
    SHAPES[name](ImageDraw.Draw(mask), box)
    small = mask.resize(image.size, Image.Resampling.BOX)
    found = small.point(lambda value: 255 * (value > 127)).getbbox()
    assert found
    colour = tuple(int(value) for value in random.integers(0, 256, 3))
    opaque = random.uniform(0.7, 1.0)
    paint = Image.new("RGB", image.size, colour)
    image.paste(paint, mask=small.point(lambda value: int(value * opaque)))
    return image, found


def annotation(file: str, size: tuple[int, int], name: str, box: tuple[int, ...]) -> str:
    """A picture's annotation as Pascal VOC writes it, which counts pixels from 1 on."""
    left, top, right, bottom = box
    return (
        f"<annotation><filename>{escape(file)}</filename>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
        f"<object><name>{escape(name)}</name><difficult>0</difficult><bndbox>"
        f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        "</bndbox></object></annotation>\n"
    )


def make(folder: Path, count: int, seed: int, photos: Path | None) -> None:
    """Writes so many pictures, a fifth of them held out."""
    random, sources = np.random.default_rng(seed), photographs(photos)
    names = sorted(SHAPES)
    sets: dict[str, list[str]] = {"train": [], "val": []}
    for inside in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / inside).mkdir(parents=True)
    for index in range(count):
        part = "val" if index % 5 == 4 else "train"
        name, stem = names[index // 5 % len(names)], f"{index:06}"
        image, box = picture(sources, name, random, part == "train")
        image.save(folder / "JPEGImages" / f"{stem}.jpg", quality=92)
        text = annotation(f"{stem}.jpg", image.size, name, box)
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
        sets[part].append(stem)
    for part, stems in sets.items():
        lines = "".join(f"{stem}\n" for stem in stems)
        (folder / "ImageSets/Main" / f"{part}.txt").write_text(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=Path)
    given = parser.parse_args()
    make(given.folder, given.count, given.seed, given.photos)
    print(f"{given.folder}: {given.count:,} pictures, {given.count // 5:,} of them held out")


if __name__ == "__main__":
    main()
