"""`vggc run`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import click

from vggc.api.boxes import box_name, merged_boxes
from vggc.api.run import RunResult, run
from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE, THREADS_HERE
from vggc.ir.ops import describe
from vggc_runtime.outputs import best_classes, best_lines

if TYPE_CHECKING:
    from vggc.data.objects import Corners
    from vggc.runtime.artifact import Manifest
    from vggc_runtime.outputs import Output


@click.command("run")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    help="An image, or a .npy file: of floats (C, H, W) or (N, C, H, W), or of pixels.",
)
@click.option(
    "--size",
    type=IMAGE_SIZE,
    help="One of the artifact's sizes to bring a picture to.  [default: its first]",
)
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--threads", type=THREADS_HERE, help="[default: all physical cores]")
@click.option("--json", "as_json", is_flag=True, help="Print every number of every output.")
def command(
    artifact: Path,
    source: Path,
    size: tuple[int, int] | None,
    top: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run an artifact on an image: what each of its outputs says.

    Of scores of classes that is the best ones; of boxes their numbers (centre x, centre y, width,
    height) in shares of the crop that the net sees, and their left, top, right and bottom in pixels
    of a picture; of features their shape and their L2 norm.

    An artifact compiled with `--dense` has boxes at many positions: those that match are made one.

    An image is resized, cut and normalised as in training, and so are pixels, uint8 (H, W),
    (H, W, C), (C, H, W) or several, in a .npy file. Floats in one are taken as they are.

    An artifact that is compiled for several sizes takes floats of each of them, and pictures as
    --size says.
    """
    result = run(artifact, source, threads, size)
    manifest = result.manifest
    if as_json:
        console.out(json.dumps(_json(result, top)))
        return
    for number in range(result.images):
        if result.images > 1:
            console.out(f"image {number}")
        for output in manifest.outputs:
            if len(manifest.outputs) > 1:
                console.out(f" {output.name}")
            for line in _lines(result, output, number, top):
                console.out(f"  {line}")


def _json(result: RunResult, top: int) -> dict[str, object]:
    manifest = result.manifest
    record: dict[str, object] = {"net": manifest.net, "classes": manifest.classes}
    if result.pictures:
        record["pictures"] = result.pictures
    record["outputs"] = {
        output.name: {
            "kind": output.kind,
            "values": result.values[output.name].tolist(),
            **(_box_record(result, output, top) if output.kind == "boxes" else {}),
        }
        for output in manifest.outputs
    }
    return record


def _box_record(result: RunResult, output: Output, top: int) -> dict[str, object]:
    """What is said of boxes beside their numbers: their pixels in pictures, and those merged."""
    record: dict[str, object] = {}
    if position := result.positions.get(output.name):
        record["stride"], record["size"] = position.stride, position.size
    if result.pictures:
        found = [result.pixels(output, number) for number in range(result.images)]
        record["pixels"] = [boxes.tolist() for boxes in found]
        if position:
            record["merged"] = [
                [
                    {"number": e.number, "pixels": e.box.tolist(), "positions": e.positions}
                    for e in merged_boxes(boxes, result.shown_boxes(output, number, top), top)
                ]
                for number, boxes in enumerate(found)
            ]
    return record


def _lines(result: RunResult, output: Output, number: int, top: int) -> Iterator[str]:
    """What is said of one output of one image."""
    values = result.values[output.name][number]
    match output.kind:
        case "classes":
            name = partial(_class_name, result.manifest, output)
            yield from best_lines(best_classes(values, name, top))
        case "boxes" if output.name in result.positions:
            yield from _dense_lines(result, output, number, top)
        case "boxes":
            yield from _box_lines(result, output, number, top)
        case "features":
            norm = float((values.astype("float64") ** 2).sum()) ** 0.5
            yield f"{describe(output.shape)}, L2 norm {norm:.4f}"
        case _:
            assert_never(output.kind)


def _box_lines(result: RunResult, output: Output, number: int, top: int) -> Iterator[str]:
    """The first boxes of an image."""
    boxes = result.values[output.name][number].reshape(-1, 4)
    pixels = result.pixels(output, number) if result.pictures else None
    for index, box in enumerate(boxes[:top]):
        label = box_name(result.manifest, output, index)
        line = "  ".join([label, *(f"{share:.4f}" for share in box)])
        yield line if pixels is None else f"{line}  pixels {_pixels_told(pixels[index])}"
    yield from _others_told(len(boxes) - top)


def _dense_lines(result: RunResult, output: Output, number: int, top: int) -> Iterator[str]:
    """The boxes of an image that most positions of a dense artifact agree in."""
    rows, columns = output.shape[1:]
    yield f"{console.count(output.count, 'box', 'boxes')} at each of {rows}×{columns} positions"
    if not result.pictures:
        yield "--json prints them all"
        return
    numbers = result.shown_boxes(output, number, top)
    for each in merged_boxes(result.pixels(output, number), numbers, top):
        label = box_name(result.manifest, output, each.number)
        positions = console.count(each.positions, "position")
        yield f"{label}  pixels {_pixels_told(each.box)}  from {positions}"
    yield from _others_told(output.count - len(numbers))


def _pixels_told(box: Corners) -> str:
    return "  ".join(f"{edge:.1f}" for edge in box)


def _others_told(count: int) -> Iterator[str]:
    if count > 0:
        yield f"and {count:,} boxes more; --json prints them all"


def _class_name(manifest: Manifest, output: Output, index: int) -> str:
    return manifest.class_name(index) if output == manifest.named else f"class {index}"
