"""`vggc verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import click

from vggc.api.verify import VerifyOptions, verify
from vggc.cli import console
from vggc.cli.options import THREADS_HERE
from vggc.cli.skipped import told
from vggc.support.diagnostics import CheckFailed
from vggc.support.sheet import Sheet


@click.command("verify")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--threads", type=THREADS_HERE, help="[default: all physical cores]")
@click.option("--layers", is_flag=True, help="Show the error of every layer.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Compare on the images in a folder.  [default: noise and two photographs]",
)
@click.option(
    "--images",
    "num_images",
    type=click.IntRange(1, 100_000),
    help="How many of them.  [default: 100]",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE|RUN|imagenet",
    help="What the artifact was compiled from, where that is elsewhere now.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def command(
    artifact: Path,
    threads: int | None,
    layers: bool,
    data: Path | None,
    num_images: int | None,
    weights: Path | None,
    as_json: bool,
) -> None:
    """Check an artifact against PyTorch in float64, on random and real inputs, each of its batches.

    Passes where the relative L2 error of every output, boxes included, is under 1e-5 (in tf32 and
    float16 0.005, in bfloat16 0.03, in int8 0.15) and the best class is the same; in fewer bits
    that is judged on images given with --data, and must be so for 99 % of them, in int8 97 %. Exit
    1 when it fails, naming the first layer that departs.
    """
    options = VerifyOptions(threads=threads, images=data, num_images=num_images, weights=weights)
    verdict = verify(artifact, options)
    results = verdict.results
    for line in told(results[0].skipped):
        console.status(line)
    if verdict.kernels:
        console.status(f"{verdict.kernels}, which this machine's GPU runs")
    if as_json:
        inputs = [
            {
                **asdict(result),
                "top1_agrees": result.top1_agrees,
                "passed": result.passed,
                "fault": result.fault,
                "first_departure": result.first_departure,
                "not_finite": result.not_finite,
            }
            for result in results
        ]
        report = {
            "passed": verdict.passed,
            "tolerance": verdict.limits.error,
            "agreement": verdict.limits.agreement,
            "inputs": inputs,
        }
        console.out(json.dumps(_in_json(report), allow_nan=False))
    else:
        for result in results:
            word = "ok" if result.passed else "FAILED"
            top1 = "same top-1" if result.top1_agrees else "another top-1"
            if data is not None:
                share = result.agreeing / result.images
                top1 = f"same top-1 on {result.agreeing} of them ({share:.1%})"
            agreement = f", {top1}" if result.has_classes else ""
            where = verdict.told_input(result)
            console.out(f"{where}: {word}, relative L2 error {result.error:.2e}{agreement}")
            if len(result.head_errors) > 1:
                for head, error in result.head_errors:
                    console.out(f"  {head}: {error:.2e}")
        if results[0].weights_from is None:
            console.out(
                "compared with the artifact's own weights, unpacked: those that it was compiled "
                "from are not there or are others (give them with --weights)"
            )
        if layers:
            header = ("layer", "step", *(verdict.told_input(result) for result in results))
            rows = tuple(
                (layer, step, *(f"{r.step_errors[i][2]:.2e}" for r in results))
                for i, (layer, step, _) in enumerate(results[0].step_errors)
            )
            numbers = (False, False, *(True for _ in results))
            title = "relative L2 error by layer"
            console.sheet(Sheet(title=title, header=header, rows=rows, numbers=numbers))
    if verdict.fault:
        raise CheckFailed(verdict.fault)


def _in_json(value: Any) -> Any:
    """A value as JSON has it, which knows no infinite number: null stands for it."""
    match value:
        case dict():
            return {key: _in_json(each) for key, each in value.items()}
        case list() | tuple():
            return [_in_json(each) for each in value]
        case float() if not isfinite(value):
            return None
        case _:
            return value
