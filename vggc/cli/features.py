"""`vggc features`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vggc.api.evaluate import EvalOptions, ProtocolName
from vggc.api.features import (
    FeatureOptions,
    FeaturesDone,
    check_out,
    layers_in,
    pictures_for,
    source_of,
    written,
)
from vggc.cli import console
from vggc.cli.eval import progress, protocol_options
from vggc.cli.skipped import told
from vggc.data.parts import Skipped
from vggc.features.partial import journal_path
from vggc.support.paths import exists
from vggc.support.precision import TrainPrecision
from vggc_runtime.text import in_line

if TYPE_CHECKING:
    from vggc.features.file import Combine
    from vggc.features.pictures import Role


@click.command("features")
@click.argument("model", metavar="RUN|SPEC|ARTIFACT")
@click.option(
    "--data",
    required=True,
    metavar="DIR|SHARDS",
    help="Images as `vggc train` takes them; all the parts that they bring.",
)
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A new .safetensors or .npz.",
)
@click.option(
    "--layer",
    "layers",
    metavar="A,B,…",
    help="Layers by the names that `vggc summary` shows.  [default: the last hidden one]",
)
@click.option(
    "--combine",
    type=click.Choice(["average", "stack"]),
    default="average",
    show_default=True,
    help="What becomes of several scales: their mean, or one behind the other.",
)
@click.option(
    "--part", type=click.Choice(["train", "val", "test"]), help="Take this part of the images only."
)
@protocol_options
@click.option("--overwrite", is_flag=True, help="Replace FILE, or what was begun of it.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def command(
    model: str,
    data: str,
    out: Path,
    layers: str | None,
    combine: Combine,
    part: Role | None,
    weights: Path | None,
    preprocessing: str | None,
    scales: str | None,
    protocol: ProtocolName | None,
    grid: str | None,
    flip: bool | None,
    batch: int | None,
    device: Literal["cpu", "cuda", "auto"] | None,
    precision: TrainPrecision | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the features of images: what a layer gives of each, for other programs to learn from.

    The net is applied to the whole image and its mirror image at each scale, unless options say
    otherwise; what the layer gives is averaged over positions and brought to a length of 1. An
    ARTIFACT gives its head of features, of the centre crop.

    What was interrupted goes on with the same command.
    """
    check_out(out, overwrite=overwrite)
    options = FeatureOptions(
        layers=tuple(layers_in(layers)),
        combine=combine,
        part=part,
        overwrite=overwrite,
        looks=EvalOptions(
            weights=weights,
            preprocessing=preprocessing,
            scales=scales,
            protocol=protocol,
            grid=grid,
            flip=flip,
            batch=batch,
            device=device,
            precision=precision,
            workers=workers,
        ),
    )
    source = source_of(model, options, console.status)
    console.status(source.shown)
    pictures = pictures_for(data, part)
    for note in pictures.notes:
        console.status(in_line(note))
    for line in told(pictures.skipped):
        console.status(line)
    parts = ", ".join(f"{len(each.part):,} of {each.role}" for each in pictures.parts if each.role)
    console.status(
        f"Taking features of {console.count(len(pictures), 'image')} of {data}"
        + (f" ({parts})." if parts else ".")
    )

    def on_begin(done: int) -> None:
        if done:
            console.status(f"{done:,} were done before.")

    try:
        with progress("taking features", shown=True) as on_progress:
            done = written(
                source, pictures, out, on_progress, overwrite=overwrite, on_begin=on_begin
            )
    except KeyboardInterrupt:
        if exists(journal_path(out)):
            console.status("What is finished is kept. The same command goes on.")
        raise
    report(done, as_json)


def report(done: FeaturesDone, as_json: bool) -> None:
    """What was written, on stdout; what was left out on stderr."""
    lost = [Skipped(each.name, each.reason) for each in done.skipped]
    for line in told(lost, done.num_skipped):
        console.status(line)
    if as_json:
        record = {
            "features": str(done.path),
            "images": done.rows,
            "width": done.width,
            "classes": done.classes,
            "skipped": done.num_skipped,
            "seconds": done.seconds,
        }
        console.out(json.dumps(record))
        return
    console.out(
        f"{done.path}: {done.width:,} features of {console.count(done.rows, 'image')} of "
        f"{console.count(done.classes, 'class', 'classes')}"
    )
