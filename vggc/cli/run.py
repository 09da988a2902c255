"""`vggc run`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vggc.cli import console
from vggc.diagnostics import CheckFailed


@click.command("run")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    help="An image, or a .npy file of floats (C, H, W) or (N, C, H, W).",
)
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), help="[default: all processors]")
@click.option("--json", "as_json", is_flag=True, help="Print the scores of every class.")
def command(artifact: Path, source: Path, top: int, threads: int | None, as_json: bool) -> None:
    """Run an artifact on an image: the best classes and their scores.

    An image is resized, cut and normalised as in training; a .npy file is taken as it is.
    """
    import numpy as np

    from vggc.deploy.inputs import read_input
    from vggc.deploy.runtime import Session

    session = Session.load(artifact, threads)
    manifest = session.manifest
    batch, count = read_input(source, manifest)
    scores = session.run(batch)[:count].reshape(count, -1)
    if not np.isfinite(scores).all():
        raise CheckFailed(f"{artifact} gives scores that are not finite; are its weights?")
    if as_json:
        result = {"net": manifest.net, "classes": manifest.classes, "scores": scores.tolist()}
        console.out(json.dumps(result))
        return
    for number, row in enumerate(scores):
        if count > 1:
            console.out(f"image {number}")
        best = row.argsort()[::-1][:top]
        width = max(len(manifest.class_name(int(i))) for i in best)
        for index in best:
            console.out(f"  {manifest.class_name(int(index)):<{width}}  {row[index]:.4f}")
