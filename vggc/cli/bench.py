"""`vggc bench`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggc.api.bench import BenchOptions, bench, estimate, profile
from vggc.cli import console
from vggc.cli.options import BATCH, IMAGE_SIZE, THREADS_HERE
from vggc.cli.skipped import told
from vggc.runtime.archs import in_words
from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.measure.estimates import CardEstimate

ENGINES = (
    "torch, torch-compile, onnxruntime, openvino, mnn, mnn-small-tiles, ncnn, "
    "openvino-bfloat16, ncnn-bfloat16, openvino-int8"
)


@click.command("bench")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--against",
    metavar="ENGINE,…",
    help=f"{ENGINES}.  [default: torch, onnxruntime, openvino, mnn, ncnn, if they are installed]",
)
@click.option("--batch", type=BATCH, help="One of the artifact's.  [default: its largest]")
@click.option(
    "--input", "size", type=IMAGE_SIZE, help="One of the artifact's sizes.  [default: its first]"
)
@click.option("--threads", type=THREADS_HERE, help="[default: all physical cores]")
@click.option("--rounds", type=click.IntRange(1, 1000), default=15, show_default=True)
@click.option(
    "--calibrate",
    "images",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Images for engines that quantise, anywhere in a folder; the first are the input, then.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="What an artifact in bfloat16 or int8 was compiled from, where that has moved.",
)
@click.option("--layers", is_flag=True, help="Time each kernel in place of other engines.")
@click.option(
    "--card",
    metavar="NAME",
    help="With --layers, an estimate for a GPU that need not be there: a100, rtx4090 or h200.",
)
@click.option("--json", "as_json", is_flag=True, help="Print medians and ratios as JSON.")
def command(
    artifact: Path,
    against: str | None,
    batch: int | None,
    size: tuple[int, int] | None,
    threads: int | None,
    rounds: int,
    images: Path | None,
    weights: Path | None,
    layers: bool,
    card: str | None,
    as_json: bool,
) -> None:
    """Time an artifact beside other engines on the same weights and input.

    Each round calls every engine once, in turn; outputs are compared first. A ratio is
    vggc's median over the peer's. Every engine runs in its best configuration: torch in its
    faster memory format, OpenVINO for latency, ncnn and MNN in float32 throughout.

    With --layers, every kernel call: its time, the arithmetic that its op asks for and that
    its code does, its bytes, their shares of what this machine can do (measured in the same
    rounds), and which of them bounds it. With --card, too, nothing is timed: a model of the card
    tells what each kernel for GPUs may take, beside the least that any could take.
    """
    if card is not None:
        if not layers or any(given is not None for given in (against, threads, images, weights)):
            raise click.UsageError("--card goes with --layers, and with nothing that is timed")
        _estimates(artifact, card, batch, size, as_json=as_json)
        return
    if layers:
        if any(given is not None for given in (against, images, weights)):
            raise click.UsageError("--layers times no other engine: leave out the rest")
        _layers(artifact, threads, rounds, batch, size, as_json=as_json)
        return
    options = BenchOptions(
        against=None if against is None else against.replace(" ", "").split(","),
        batch=batch,
        size=size,
        threads=threads,
        rounds=rounds,
        images=images,
        weights=weights,
    )
    timing = bench(artifact, options)
    for line in told(timing.skipped):
        console.status(line)
    if as_json:
        result = {
            "median_ms": timing.medians,
            "ratio": timing.ratios,
            "difference": timing.errors,
            "missing": timing.missing,
            "batch": timing.batch,
            "archs": timing.archs,
            "threads": timing.threads,
            "rounds": rounds,
        }
        console.out(json.dumps(result))
        return
    console.sheet(replace(timing.table, notes=()))
    for note in timing.table.notes:
        console.status(note)
    if any(reason.startswith("`import") for reason in timing.missing.values()):
        console.status("pip install 'vggc[bench]' brings the engines that are not installed")


def _layers(
    artifact: Path,
    threads: int | None,
    rounds: int,
    batch: int | None,
    size: tuple[int, int] | None,
    *,
    as_json: bool,
) -> None:
    found = profile(artifact, threads, rounds, batch, size)
    limits = found.limits
    if as_json:
        calls = [
            {
                **asdict(call),
                "useful_flops": call.useful_flops,
                "real_flops": call.real_flops,
                "bandwidth": call.bandwidth,
                "bound": call.bound,
            }
            for call in found.calls
        ]
        result = {
            "layers": calls,
            "limits": asdict(limits),
            "sum_seconds": found.sum,
            "whole_seconds": found.whole,
            "watched_seconds": found.watched,
            "batch": found.batch,
            "threads": found.threads,
            "rounds": rounds,
        }
        console.out(json.dumps(result))
        return
    rows = tuple(
        (
            call.layer,
            call.kernel,
            f"{1e3 * call.seconds:.3f}",
            f"{call.seconds / found.sum:.0%}",
            f"{call.useful_flops / 1e9:.1f}" if call.macs else "",
            f"{call.real_flops / 1e9:.1f}" if call.real_macs else "",
            f"{call.bytes / 1e6:.2f}",
            f"{call.compute_share:.0%}" if call.real_macs else "",
            f"{call.memory_share:.0%}",
            call.bound,
        )
        for call in found.calls
    )
    header = (
        *("layer", "kernel", "ms", "of sum", "useful GFLOP/s", "real GFLOP/s", "MB"),
        *("of peak", "of bandwidth", "bound by"),
    )
    numbers = (False, False, *(True,) * 7, False)
    best = f"{limits.flops / 1e9:,.0f} GFLOP/s"
    if limits.flops != limits.float32_flops:
        best += f" ({limits.float32_flops / 1e9:,.0f} in float32)"
    notes = (
        f"This machine at its best, in the same rounds: {best}, {limits.bandwidth / 1e9:.1f} GB/s.",
        "A share of the bandwidth over 100% comes from caches, or from weights that are not read "
        "since their inputs are zero; overhead: under half of both.",
        f"Sum of the kernels {1e3 * found.sum:.2f} ms, the whole net {1e3 * found.whole:.2f} ms, "
        f"and {1e3 * found.watched:.2f} ms with the clock that times the kernels.",
    )
    passes = console.count(rounds, "pass", "passes")
    workers = console.count(found.threads, "thread")
    title = f"{artifact}: batch {found.batch:,}, medians of {passes}, {workers}"
    spare = ("MB", "of sum", "of bandwidth", "of peak", "useful GFLOP/s", "kernel")
    console.sheet(
        Sheet(title=title, header=header, rows=rows, numbers=numbers, notes=notes, spare=spare)
    )


def _estimates(
    artifact: Path,
    card: str,
    batch: int | None,
    size: tuple[int, int] | None,
    *,
    as_json: bool,
) -> None:
    found = estimate(artifact, card, batch, size)
    if as_json:
        result = {
            "card": found.card.name,
            "estimated": True,
            "archs": found.archs,
            "batch": found.batch,
            "layers": [asdict(call) for call in found.calls],
            "sum_seconds": found.seconds,
            "floor_seconds": found.floor,
        }
        console.out(json.dumps(result))
        return
    rows = tuple(
        (
            call.layer,
            call.algorithm,
            f"{1e6 * call.seconds:.1f}",
            f"{call.seconds / found.seconds:.0%}",
            f"{1e6 * call.floor:.1f}",
            call.bound,
            f"{call.moved.total / 1e6:.2f}" if call.moved else "",
            f"{call.moved.ratio:.2f}" if call.moved else "",
        )
        for call in found.calls
    )
    kernels = f", {in_words(found.archs)}" if found.archs else ""
    header = ("layer", "kernel", "µs", "of sum", "floor µs", "floor of", "MB", "of ideal")
    notes = (
        f"Estimated by a model of the card, not measured. Sum {1e6 * found.seconds:,.0f} µs, "
        f"{found.seconds / found.floor:.2f} times the floor of {1e6 * found.floor:,.0f} µs.",
        *_counted(found),
    )
    console.sheet(
        Sheet(
            title=f"{artifact}: batch {found.batch:,}, an estimate for {found.card.name}{kernels}",
            header=header,
            rows=rows,
            numbers=(False, False, True, True, True, False, True, True),
            notes=notes,
            spare=("of sum", "MB"),
        )
    )


def _counted(found: CardEstimate) -> tuple[str, ...]:
    """What the column of bytes says, where there is one."""
    moved = found.moved
    if moved is None:
        return ()
    return (
        "MB to and from memory are counted, through an L2 cache of the card's size that is empty "
        f"before each kernel: {moved.total / 1e6:,.1f}, ideally {moved.ideal / 1e6:,.1f}.",
    )
