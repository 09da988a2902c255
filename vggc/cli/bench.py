"""`vggc bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggc.cli import console
from vggc.cli.sheet import Sheet

if TYPE_CHECKING:
    from vggc.deploy.bench import Timing

ENGINES = (
    "torch, torch-compile, onnxruntime, openvino, mnn, mnn-small-tiles, ncnn, openvino-bf16, "
    "ncnn-bf16, openvino-int8"
)


@click.command("bench")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--against",
    metavar="ENGINE,…",
    help=f"{ENGINES}.  [default: torch, onnxruntime, openvino, mnn, ncnn, if they are installed]",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="[default: all physical cores]")
@click.option("--rounds", type=click.IntRange(1, 1000), default=15, show_default=True)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="A folder of images, for engines that quantise; the first are the input, then.",
)
@click.option("--json", "as_json", is_flag=True, help="Print medians and ratios as JSON.")
def command(
    artifact: Path,
    against: str | None,
    threads: int | None,
    rounds: int,
    images: Path | None,
    as_json: bool,
) -> None:
    """Time an artifact beside other engines on the same weights and input.

    Each round calls every engine once, in turn; outputs are compared first. A ratio is
    vggc's median over the peer's. Every engine runs in its best configuration: torch in its
    faster memory format, OpenVINO for latency, ncnn and MNN in float32 throughout.
    """
    from vggc.deploy.artifact import read_manifest
    from vggc.deploy.bench import bench, default_peers

    lenient = against is None
    peers = (
        default_peers(read_manifest(artifact))
        if against is None
        else against.replace(" ", "").split(",")
    )
    timing = bench(artifact, peers, threads, rounds, images=images, lenient=lenient)
    if as_json:
        result = {
            "median_ms": timing.medians,
            "ratio": timing.ratios,
            "difference": timing.errors,
            "missing": timing.missing,
            "threads": timing.threads,
            "rounds": rounds,
        }
        console.out(json.dumps(result))
        return
    console.sheet(_sheet(artifact, timing, rounds))
    for peer, reason in timing.missing.items():
        console.status(f"{peer} is not timed: {reason}")
    if any(reason.startswith("`import") for reason in timing.missing.values()):
        console.status("pip install 'vggc[bench]' brings the engines that are not installed")


def _sheet(artifact: Path, timing: Timing, rounds: int) -> Sheet:
    rows = tuple(
        (
            name,
            f"{timing.medians[name]:.1f}",
            f"{min(times):.1f} to {max(times):.1f}",
            f"{timing.ratios[name]:.2f}" if name in timing.ratios else "",
            f"{timing.errors[name]:.1e}" if name in timing.errors else "",
        )
        for name, times in timing.milliseconds.items()
    )
    header = ("engine", "median ms", "range ms", "vggc / engine", "output differs by")
    title = f"{artifact}: {rounds} interleaved rounds, {timing.threads} threads"
    return Sheet(title, header, rows, (False, True, True, True, True))
