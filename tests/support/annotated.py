"""Annotated pictures in the layouts of several formats, for tests."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from vggc.data.parts import Part, names_of, objects_of

WIDTH, HEIGHT = 40, 20
"""The size of a picture, unless it has another."""

Corners: TypeAlias = tuple[float, float, float, float]
Marks: TypeAlias = Sequence[tuple[str, Corners]]
"""Objects by class and edges in pixels from 0, as half-open intervals."""

CAT: Marks = [("cat", (4, 2, 24, 12))]
DOG: Marks = [("dog", (0, 0, 40, 20)), ("cat", (10, 10, 14, 14))]
"""Two pictures' objects: the largest is a cat in one, a dog in the other."""


def known_by(classes: Sequence[str], part: Part) -> tuple[str, str]:
    """What changes with any name, class or box of a part."""
    return names_of(classes, part), objects_of(classes, part)


def image_bytes(
    size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1, kind: str = "PNG"
) -> bytes:
    """A picture of this size in its file, to be shown in this orientation."""
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    file = io.BytesIO()
    noise = np.random.default_rng(size).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(file, kind, exif=exif)
    return file.getvalue()


def put(path: Path, content: str | bytes | None = None) -> Path:
    """A file with its folders; by default a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        content = image_bytes()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def voc_xml(
    marks: Marks, size: tuple[float, float] | None = (WIDTH, HEIGHT), filename: str = ""
) -> str:
    """An annotation of Pascal VOC's; a class that ends in `?` is difficult."""
    told = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    objects = "".join(
        f"<object><name>{name.rstrip('?')}</name>"
        f"<difficult>{int(name.endswith('?'))}</difficult>"
        f"<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        f"<bndbox><xmin>{box[0] + 1}</xmin><ymin>{box[1] + 1}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in marks
    )
    return f"<annotation><filename>{filename}</filename>{told}{objects}</annotation>"


def coco_json(pictures: Mapping[str, Marks], **more: Any) -> str:
    """A file of COCO's form, of pictures of the usual size; categories are dog and cat."""
    names = ["dog", "cat"]
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(pictures)
    ]
    annotations = [
        {
            "id": 100 * number + place,
            "image_id": number,
            "category_id": names.index(name) + 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "segmentation": [[1.5, 2, 3e1, -4]],
            "iscrowd": 0,
        }
        for number, marks in enumerate(pictures.values())
        for place, (name, box) in enumerate(marks)
    ]
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content | more)


def yolo_text(marks: Marks, names: Sequence[str] = ("dog", "cat")) -> str:
    """The lines that YOLO has for objects in a picture of the usual size."""
    return "".join(
        f"{names.index(name)} {(box[0] + box[2]) / 2 / WIDTH} {(box[1] + box[3]) / 2 / HEIGHT}"
        f" {(box[2] - box[0]) / WIDTH} {(box[3] - box[1]) / HEIGHT}\n"
        for name, box in marks
    )


def table(pictures: Mapping[str, Marks], header: str = "filename,xmin,ymin,xmax,ymax,class") -> str:
    """A table with a line for each object; without a header if that is empty."""
    lines = [
        f"{name},{','.join(f'{edge:g}' for edge in box)},{label}"
        for name, marks in pictures.items()
        for label, box in marks
    ]
    return "\n".join([*([header] if header else []), *lines, ""])


def pixels_of(part: Part, index: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[Corners]:
    """The boxes of a picture in pixels, which are whole numbers in these tests."""
    assert part.objects is not None
    boxes = part.objects[index].boxes * np.tile(size, 2)
    return [tuple(box) for box in boxes.round(6).tolist()]


def told(part: Part, classes: Sequence[str]) -> dict[str, tuple[str, list[tuple[str, Corners]]]]:
    """What is known of each picture: its class, and its objects by class and box in pixels."""
    assert part.objects is not None
    return {
        part.name(index): (
            classes[part.labels[index]],
            [
                (classes[kind], box)
                for kind, box in zip(
                    part.objects[index].classes, pixels_of(part, index), strict=True
                )
            ],
        )
        for index in range(len(part))
    }


# Layouts: each writes one part of a set.

PARTS = {"train": 3, "val": 1}
"""Pictures of each class in each part."""


def marks_of(part: str) -> dict[str, Marks]:
    """The pictures of a part, by their stems: as many cats as dogs."""
    kinds = {"cat": CAT, "dog": DOG}
    count = PARTS.get(part, 1)
    return {f"{part}-{name}{i}": marks for name, marks in kinds.items() for i in range(count)}


def write_voc(root: Path, part: str, pictures: str, annotations: str) -> None:
    for stem, marks in marks_of(part).items():
        put(root / pictures.format(part=part) / f"{stem}.png")
        put(root / annotations.format(part=part) / f"{stem}.xml", voc_xml(marks))


def write_listed(root: Path, part: str, ending: str = "") -> None:
    write_voc(root, part, "JPEGImages", "Annotations")
    lines = "".join(f"{stem}{ending}\n" for stem in marks_of(part))
    put(root / f"ImageSets/Main/{part}.txt", lines)


def write_ilsvrc(root: Path, part: str) -> None:
    lines = []
    for number, (stem, marks) in enumerate(marks_of(part).items(), start=1):
        inner = f"n0{number}/{stem}" if part == "train" else stem
        put(root / f"Data/CLS-LOC/{part}/{inner}.JPEG", image_bytes(kind="JPEG"))
        put(root / f"Annotations/CLS-LOC/{part}/{inner}.xml", voc_xml(marks))
        lines.append(f"{inner} {number}\n")
    name = "train_loc" if part == "train" else part
    put(root / f"ImageSets/CLS-LOC/{name}.txt", "".join(lines))


def write_coco(root: Path, part: str, file: str, folder: str) -> None:
    marks = {f"{stem}.png": marks for stem, marks in marks_of(part).items()}
    for name in marks:
        put(root / folder.format(part=part) / name)
    put(root / file.format(part=part), coco_json(marks))


def write_yolo(root: Path, part: str, pictures: str, labels: str) -> None:
    for stem, marks in marks_of(part).items():
        put(root / pictures.format(part=part) / f"{stem}.png")
        put(root / labels.format(part=part) / f"{stem}.txt", yolo_text(marks))
    put(root / "data.yaml", "nc: 2\nnames: [dog, cat]\n")


def write_table(root: Path, part: str, file: str, folder: str) -> None:
    marks = {f"{stem}.png": marks for stem, marks in marks_of(part).items()}
    for name in marks:
        put(root / folder.format(part=part) / name)
    put(root / file.format(part=part), table(marks))


LAYOUTS: dict[str, Callable[[Path, str], None]] = {
    "voc-lists": write_listed,
    "voc-lists-with-numbers": lambda root, part: write_listed(root, part, "  1"),
    "voc-wrapped": lambda root, part: write_listed(root / "VOCdevkit/VOC2007", part),
    "voc-folders": lambda root, part: write_voc(root, part, "images/{part}", "annotations/{part}"),
    "voc-parts": lambda root, part: write_voc(root, part, "{part}", "{part}"),
    "voc-parts-of-two": lambda root, part: write_voc(
        root, part, "{part}/Images", "{part}/ANNOTATIONS"
    ),
    "ilsvrc": write_ilsvrc,
    "ilsvrc-wrapped": lambda root, part: write_ilsvrc(root / "ILSVRC", part),
    "coco": lambda root, part: write_coco(
        root, part, "annotations/instances_{part}2017.json", "{part}2017"
    ),
    "coco-in-images": lambda root, part: write_coco(
        root, part, "annotations/instances_{part}2017.json", "images/{part}2017"
    ),
    "coco-one-folder": lambda root, part: write_coco(
        root, part, "annotations/{part}.json", "images"
    ),
    "coco-parts": lambda root, part: write_coco(
        root, part, "{part}/_annotations.coco.json", "{part}"
    ),
    "yolo": lambda root, part: write_yolo(root, part, "images/{part}", "labels/{part}"),
    "yolo-parts": lambda root, part: write_yolo(root, part, "{part}/images", "{part}/labels"),
    "table-parts": lambda root, part: write_table(root, part, "{part}/_annotations.csv", "{part}"),
    "table-two": lambda root, part: write_table(root, part, "{part}_labels.csv", "{part}"),
    "table-one-folder": lambda root, part: write_table(root, part, "data/{part}.csv", "images"),
}
