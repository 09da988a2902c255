"""`vggc verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from vggc.cli import console
from vggc.cli.sheet import Sheet
from vggc.diagnostics import CheckFailed


@click.command("verify")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(1, 1024), help="[default: all physical cores]")
@click.option("--layers", is_flag=True, help="Show the error of every layer.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def command(artifact: Path, threads: int | None, layers: bool, as_json: bool) -> None:
    """Check an artifact against PyTorch in float64, on random and real inputs.

    Passes where the relative L2 error of every output is under 1e-5 and the best class is
    the same. Exit 1 when it fails, naming the first layer that departs.
    """
    from vggc.deploy.verify import TOLERANCE, verify

    results = verify(artifact, threads)
    if as_json:
        inputs = [
            {**asdict(r), "passed": r.passed, "first_departure": r.first_departure} for r in results
        ]
        passed = all(result.passed for result in results)
        report = {"passed": passed, "tolerance": TOLERANCE, "inputs": inputs}
        console.out(json.dumps(report))
    else:
        for result in results:
            verdict = "ok" if result.passed else "FAILED"
            top1 = "same top-1" if result.top1_agrees else "another top-1"
            console.out(f"{result.input}: {verdict}, relative L2 error {result.error:.2e}, {top1}")
            if len(result.head_errors) > 1:
                for head, error in result.head_errors:
                    console.out(f"  {head}: {error:.2e}")
        if layers:
            header = ("layer", "step", *(result.input for result in results))
            rows = tuple(
                (layer, step, *(f"{r.step_errors[i][2]:.2e}" for r in results))
                for i, (layer, step, _) in enumerate(results[0].step_errors)
            )
            numbers = (False, False, *(True for _ in results))
            console.sheet(Sheet("relative L2 error by layer", header, rows, numbers))
    for result in results:
        if not result.passed:
            where = result.first_departure
            tail = f"; the first layer that departs is {where}" if where else ""
            raise CheckFailed(f"{artifact} does not compute its net on {result.input}{tail}")
