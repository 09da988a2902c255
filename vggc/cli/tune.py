"""`vggc tune`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggc.api.tune import in_vain, require_measured, require_servers
from vggc.api.tuning_table import in_ms, milliseconds, tuning_table
from vggc.cli import console
from vggc.cli.options import BATCHES, IMAGE_SIZES, MAX_ERROR, PRECISION, THREADS
from vggc.support import signals
from vggc.support.precision import ArtifactPrecision
from vggc_runtime.processors import num_cores

if TYPE_CHECKING:
    from vggc.api.tune import TuningPlan
    from vggc.tuning.tuner import TuningProgress, Watch

MAX_BUDGET = 7 * 24 * 3600


class Duration(click.ParamType[float]):
    """`90s`, `10m`, `1.5h`: seconds."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh])", str(value))
        if match is None:
            self.fail(f"{value!r} is no time; write 90s, 10m or 1h", param, ctx)
        seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
        if not 0 < seconds <= MAX_BUDGET:
            self.fail(f"{value!r} is out of range: more than 0s, at most 168h", param, ctx)
        return seconds


@click.command("tune")
@click.argument("spec", metavar="SPEC|RUN")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="cpu (this machine), cuda (its card), or a TVM tag such as raspberry-pi/4b-aarch64.",
)
@click.option(
    "--mcpu",
    metavar="NAME",
    help="Tune for another CPU than this machine's, by LLVM's name: haswell, znver4, …",
)
@click.option("--budget", type=Duration(), default="10m", show_default=True, help="90s, 10m, 1h.")
@click.option(
    "--batch",
    "batches",
    type=BATCHES,
    default="1",
    show_default=True,
    help="Images at once; several, 1,8,32, as `vggc compile` takes them, are chosen together.",
)
@click.option(
    "--input",
    "sizes",
    type=IMAGE_SIZES,
    default=(),
    help="Height and width of the input; several, 224,256x320, are chosen together.",
)
@click.option(
    "--dense",
    type=IMAGE_SIZES,
    default=(),
    help="Tune the net as `vggc compile --dense` applies it to images of this height and width.",
)
@click.option(
    "--precision",
    type=PRECISION,
    default="float32",
    show_default=True,
    help="What the kernels multiply in.",
)
@click.option(
    "--max-error",
    type=MAX_ERROR,
    help="Measure what `vggc compile` chooses among with the same.  [default: 1e-5]",
)
@click.option(
    "--threads",
    type=THREADS,
    help="Threads of a kernel.  [default: all cores; with --rpc, the servers' own]",
)
@click.option(
    "--db",
    type=click.Path(path_type=Path),
    help="Folder of the database.  [default: one in ~/.cache/vggc/tuning]",
)
@click.option("--rpc", metavar="HOST:PORT", help="Measure on servers that this tracker knows.")
@click.option("--key", help="Which servers: the key that they registered with.")
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
def command(
    spec: str,
    target: str,
    mcpu: str | None,
    budget: float,
    batches: tuple[int, ...],
    sizes: tuple[tuple[int, int], ...],
    dense: tuple[tuple[int, int], ...],
    precision: ArtifactPrecision,
    max_error: float | None,
    threads: int | None,
    db: Path | None,
    rpc: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Measure which kernels of the net SPEC, or of a RUN, are the fastest, for `vggc compile`.

    With --target cuda this machine's card is measured, or with --rpc that of servers.

    All measurements are kept in a database: Ctrl-C loses nothing, the same command goes on,
    and nets share what they have in common. Each kernel's output is compared with that of the
    simplest algorithm before it is timed.

    Exit 1: nothing could be measured, nor was before.
    """
    if (rpc is None) != (key is None):
        raise click.UsageError("--rpc HOST:PORT and --key KEY go together")
    from vggc.api.tune import TuneOptions, plan, tuning

    options = TuneOptions(
        target=target,
        mcpu=mcpu,
        budget=budget,
        batches=batches,
        sizes=sizes,
        dense=dense,
        precision=precision,
        max_error=max_error,
        threads=threads,
        db=db,
        rpc=rpc,
        key=key,
    )
    planned = plan(spec, options)
    net = planned.program.net.name
    with tuning(planned) as run:
        announce(planned)
        with shown(net) as watch:
            course = run(watch)
    report(planned, course, as_json)
    if course.interrupted:
        raise click.exceptions.Exit(signals.exit_code())


def announce(planned: TuningPlan) -> None:
    """Says what is measured where, and what it counts for."""
    machine = planned.machine
    if machine.kind == "cuda":
        what = f"the card {machine.words}"
    else:
        what = console.count(machine.threads, "thread")
    console.status(
        f"Tuning {len(planned.layers)} kernels of {planned.program.net.name} on {planned.where} "
        f"with {what} into {planned.folder}; Ctrl-C stops, and nothing is lost."
    )
    if machine.kind == "cpu" and planned.crowded:
        console.status(f"{machine.threads} threads share {num_cores()} of this machine's cores.")
    if planned.counts_for:
        measured = planned.measured or "a CPU that does not say what it is"
        console.status(f"Measured is {measured}, and it counts for {planned.counts_for}.")


def report(planned: TuningPlan, course: TuningProgress, as_json: bool) -> None:
    """The result on stdout, its circumstances on stderr.

    Raises: CheckFailed where nothing was measured, in this run or before.
    """
    if course.outdated:
        console.status(
            f"{course.outdated:,} records are of kernels as they were in another version, and "
            "count no more."
        )
    if course.interrupted and not course.is_of_use:
        console.status("Nothing is measured yet.")
        return
    require_measured(course)
    if as_json:
        console.out(json.dumps(as_record(planned, course)))
    else:
        console.sheet(tuning_table(planned.program.net.name, course))
    failed = f", {course.failed:,} failed ({course.first_error})" if course.failed else ""
    if course.measured:
        console.status(f"{course.measured:,} choices measured{failed}.")
    elif all(layer.tried == len(layer.task.choices) for layer in course.layers):
        console.status("Nothing is left to measure: the database knows all choices.")
    else:
        console.status(f"Nothing was measured in this run: {in_vain(course)}.")
    if course.losses:
        console.status(f"Sessions on servers lost: {len(course.losses)} ({course.losses[0]}).")
    for layer in course.layers:
        if layer.error:
            console.status(f"{layer.layers[0]} cannot be tuned: {layer.error}")
    require_servers(course)


def as_record(planned: TuningPlan, course: TuningProgress) -> dict[str, Any]:
    """What `--json` prints: times in milliseconds, of one run of each kernel."""
    before, after = milliseconds(course)
    machine = planned.machine
    return {
        "net": planned.program.net.name,
        "database": str(planned.folder),
        "measured_cpu": planned.measured if machine.kind == "cpu" else None,
        "threads": machine.threads if machine.kind == "cpu" else None,
        "card": machine.said["target"] if machine.kind == "cuda" else None,
        "measured": course.measured,
        "failed": course.failed,
        "outdated": course.outdated,
        "interrupted": course.interrupted,
        "cost_model_ms": before,
        "best_ms": after,
        "batches": [
            {
                "batch": batch,
                "cost_model_ms": in_ms(seconds[0]) if seconds else None,
                "best_ms": in_ms(seconds[1]) if seconds else None,
            }
            for batch, seconds in course.batches.items()
        ],
        "kernels": [
            {
                "batch": layer.batch,
                "layers": layer.layers,
                "choices": len(layer.task.choices),
                "tried": layer.tried,
                "cost_model_ms": in_ms(layer.default_seconds),
                "best_ms": in_ms(layer.best_seconds),
                "algorithm": layer.best.algorithm if layer.best else None,
                "knobs": dict(layer.best.knobs) if layer.best else None,
                "error": layer.error,
            }
            for layer in course.layers
        ],
    }


@contextmanager
def shown(net: str) -> Iterator[Watch]:
    """Draws on stderr how it goes; nothing where stderr is no terminal."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Table

    drawn = console.stderr()
    if not drawn.is_terminal:
        yield lambda course, doing: None
        return
    bar = Progress(
        BarColumn(),
        TextColumn("{task.fields[left]} left"),
        TextColumn("{task.description}"),
        console=drawn,
    )
    row_of_bar = bar.add_task("", total=1.0, left="")

    def watch(course: TuningProgress, doing: str) -> None:
        content = tuning_table(net, course)
        table = Table(box=None)
        for name, is_number in zip(content.header, content.numbers, strict=True):
            table.add_column(
                name, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis"
            )
        for cells in content.rows:
            table.add_row(*cells)
        done = course.budget - course.left
        bar.update(
            row_of_bar,
            total=course.budget,
            completed=done,
            left=clock(course.left),
            description=doing,
        )
        live.update(Group(table, bar), refresh=True)

    with Live(console=drawn, transient=True, auto_refresh=False) as live:
        yield watch


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds: `1:05`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
