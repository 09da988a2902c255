"""Holds out every fifth of the raccoon photographs, and tells how often one constant box errs.

    python benchmarks/raccoon.py RACCOON FOLDER

RACCOON holds `images/` and `annotations/` (Pascal VOC); FOLDER gets VOC's whole layout. The
constant box is the one, in shares of a picture's sides, that is right for the most training
photographs; a box is right where its IoU with an object is above 0.5.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggc.data.find import find_images
from vggc.data.objects import Objects, overlaps

Array = npt.NDArray[np.float64]
TRIES = 20_000
STEP = 0.05
"""How the constant box is sought: moved so often by normal numbers of this deviation."""


def split(source: Path, folder: Path) -> None:
    """Writes the layout of Pascal VOC, whose lists hold out every fifth photograph by name."""
    photos = {path.stem: path for path in (source / "images").iterdir()}
    sets: dict[str, list[str]] = {"train": [], "val": []}
    for inside in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / inside).mkdir(parents=True)
    for index, (stem, path) in enumerate(sorted(photos.items())):
        shutil.copy(path, folder / "JPEGImages")
        shutil.copy(source / "annotations" / f"{stem}.xml", folder / "Annotations")
        sets["val" if index % 5 == 4 else "train"].append(stem)
    for part, stems in sets.items():
        lines = "".join(f"{stem}\n" for stem in stems)
        (folder / "ImageSets/Main" / f"{part}.txt").write_text(lines)


def share_right(box: Array, objects: Objects) -> float:
    """The share of the pictures of which the box meets an object."""
    met = np.maximum.reduceat(overlaps(box[None], objects.boxes), objects.starts[:-1])
    return float(np.mean(met > 0.5))


def constant_box(objects: Objects, seed: int) -> Array:
    """The box that is right for the most pictures, by random search from the best of their own."""
    random = np.random.default_rng(seed)
    best: Array = max(objects.boxes, key=lambda box: share_right(box, objects))
    met = share_right(best, objects)
    for _ in range(TRIES):
        box = best + random.normal(0, STEP, 4)
        if (box[2:] > box[:2]).all() and (now := share_right(box, objects)) >= met:
            best, met = box, now
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    split(given.source, given.folder)
    found = find_images(given.folder, 0)
    train, held_out = found.train.objects, found.val.objects
    assert train
    assert held_out
    box = constant_box(train, given.seed)
    print(f"{given.folder}: {len(train)} photographs to train on, {len(held_out)} held out")
    print(f"the best constant box: {', '.join(f'{value:.2f}' for value in box)}")
    print(
        f"it errs on {100 - 100 * share_right(box, train):.1f} % of the training photographs, ",
        end="",
    )
    print(f"on {100 - 100 * share_right(box, held_out):.1f} % of those held out")


if __name__ == "__main__":
    main()
