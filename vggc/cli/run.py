"""`vggc run`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import click

from vggc.api.run import best_classes, run
from vggc.cli import console
from vggc.cli.best import best_lines
from vggc.cli.options import THREADS_HERE
from vggc.ir.ops import describe

if TYPE_CHECKING:
    from vggc.runtime.artifact import Manifest, Output
    from vggc.support.arrays import Array


@click.command("run")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    help="An image, or a .npy file: of floats (C, H, W) or (N, C, H, W), or of pixels.",
)
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--threads", type=THREADS_HERE, help="[default: all physical cores]")
@click.option("--json", "as_json", is_flag=True, help="Print every number of every output.")
def command(artifact: Path, source: Path, top: int, threads: int | None, as_json: bool) -> None:
    """Run an artifact on an image: what each of its outputs says.

    Of scores of classes that is the best ones, of boxes their numbers (centre x, centre y,
    width, height), of features their shape and their L2 norm.

    An image is resized, cut and normalised as in training, and so are pixels, uint8 (H, W),
    (H, W, C), (C, H, W) or several, in a .npy file. Floats in one are taken as they are.
    """
    result = run(artifact, source, threads)
    manifest, values = result.manifest, result.values
    if as_json:
        console.out(json.dumps(_json(manifest, values)))
        return
    for number in range(result.images):
        if result.images > 1:
            console.out(f"image {number}")
        for output in manifest.outputs:
            if len(manifest.outputs) > 1:
                console.out(f" {output.name}")
            for line in _lines(manifest, output, values[output.name][number], top):
                console.out(f"  {line}")


def _json(manifest: Manifest, values: Mapping[str, Array]) -> dict[str, object]:
    outputs = {
        output.name: {"kind": output.kind, "values": values[output.name].tolist()}
        for output in manifest.outputs
    }
    return {"net": manifest.net, "classes": manifest.classes, "outputs": outputs}


def _lines(manifest: Manifest, output: Output, values: Array, top: int) -> Iterator[str]:
    """What is said of one output of one image."""
    match output.kind:
        case "classes":
            name = partial(_class_name, manifest, output)
            yield from best_lines(best_classes(values, name, top))
        case "boxes":
            boxes = values.reshape(-1, 4)
            for index, box in enumerate(boxes[:top]):
                label = f"box {index}" if len(boxes) > 1 else "box"
                yield "  ".join([label, *(f"{number:.4f}" for number in box)])
            if len(boxes) > top:
                yield f"and {len(boxes) - top:,} boxes more; --json prints them all"
        case "features":
            norm = float((values.astype("float64") ** 2).sum()) ** 0.5
            yield f"{describe(output.shape)}, L2 norm {norm:.4f}"
        case _:
            assert_never(output.kind)


def _class_name(manifest: Manifest, output: Output, index: int) -> str:
    return manifest.class_name(index) if output == manifest.main else f"class {index}"
