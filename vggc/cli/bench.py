"""`vggc bench`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vggc.cli import console
from vggc.cli.sheet import Sheet


@click.command("bench")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--against",
    metavar="ENGINE,…",
    help="torch, onnxruntime.  [default: those that are installed]",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="[default: all physical cores]")
@click.option("--rounds", type=click.IntRange(1, 1000), default=15, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print medians and ratios as JSON.")
def command(artifact: Path, against: str, threads: int | None, rounds: int, as_json: bool) -> None:
    """Time an artifact beside other engines on the same weights and input.

    Each round calls every engine once, in turn; outputs are compared first. A ratio is
    vggc's median over the peer's. torch is eager mode in its faster memory format.
    """
    from vggc.deploy.bench import bench

    peers = _installed() if against is None else against.replace(" ", "").split(",")
    timing = bench(artifact, peers, threads, rounds)
    if as_json:
        result = {
            "median_ms": timing.medians,
            "ratio": timing.ratios,
            "threads": timing.threads,
            "rounds": rounds,
        }
        console.out(json.dumps(result))
        return
    rows = tuple(
        (
            name,
            f"{timing.medians[name]:.1f}",
            f"{min(times):.1f} to {max(times):.1f}",
            f"{timing.ratios[name]:.2f}" if name in timing.ratios else "",
        )
        for name, times in timing.milliseconds.items()
    )
    header = ("engine", "median ms", "range ms", "vggc / engine")
    title = f"{artifact}: {rounds} interleaved rounds, {timing.threads} threads"
    console.sheet(Sheet(title, header, rows, (False, True, True, True)))


def _installed() -> list[str]:
    """The engines that are there; the user is told of the others."""
    from vggc.deploy.peers import PEERS, is_installed

    for peer in PEERS:
        if not is_installed(peer):
            console.status(f"{peer} is not installed; pip install 'vggc[bench]' to time it, too")
    return [peer for peer in PEERS if is_installed(peer)]
