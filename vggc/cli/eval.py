"""`vggc eval`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vggc.api.evaluate import (
    BATCH,
    EvalOptions,
    EvalPlan,
    EvalResult,
    ProtocolName,
    images_for,
    measure,
    plan,
)
from vggc.api.localise import PROTOCOLS, LocaliseOptions, LocaliseProtocol
from vggc.api.score_table import distinct_scales, scales, score_table, ways
from vggc.cli import console
from vggc.cli.options import (
    TRAIN_PRECISION,
    device_option,
    preprocessing_option,
    together,
    weights_option,
    workers_option,
)
from vggc.cli.skipped import told
from vggc.support.precision import TrainPrecision
from vggc_runtime.text import in_line

if TYPE_CHECKING:
    from vggc.cli.eval_tables import RunScores
    from vggc.evaluation.counts import Errors
    from vggc.evaluation.images import Labelled


machine_options = together(
    click.option(
        "--batch",
        type=click.IntRange(1, 65_536),
        metavar="N",
        help="Images of the input's size that are computed at once, or fewer larger ones."
        f"  [default: {BATCH}, of small ones on a GPU more]",
    ),
    device_option,
    click.option(
        "--precision",
        type=TRAIN_PRECISION,
        help="Type that layers compute in.  [default: float32]",
    ),
    workers_option,
)
"""The options that say what tests a net, and how fast."""

protocol_options = together(
    weights_option,
    preprocessing_option,
    click.option(
        "--scales",
        metavar="SIZES",
        help="Shorter side of the images in pixels, one or more: 256,384,512.",
    ),
    click.option(
        "--protocol",
        type=click.Choice(["test", "centre", "dense", "crops", "both"]),
        help="As the net's `test` block says; the centre crop alone; the net over the whole "
        "image; on a grid of crops; or the mean of the last two.",
    ),
    click.option("--grid", metavar="NxN", help="Crops along each side.  [default: 5x5]"),
    click.option("--flip/--no-flip", default=None, help="Look at the mirror image, too."),
    machine_options,
)
"""The options that say how a net looks at images."""


@click.command("eval")
@click.argument(
    "runs", nargs=-1, required=True, metavar="RUN|SPEC...", type=click.Path(path_type=Path)
)
@click.option(
    "--data",
    metavar="DIR|SHARDS",
    help="Folder of class folders, or with such in val/ or test/ (valid/, Validation/ … are known, "
    "too); CIFAR; shards, here or elsewhere."
    "  [default: what the run held out of its images]",
)
@protocol_options
@click.option(
    "--classes", is_flag=True, help="Tell of each class, too, that of least recall first."
)
@click.option(
    "--per-class",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write precision, recall, F1 and support of each class: a new .csv or .json.",
)
@click.option(
    "--confusion",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write how many images of each class were taken for each: a new .csv or .json.",
)
@click.option(
    "--predictions",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write what each image was taken for: a new .csv.",
)
@click.option(
    "--localise",
    is_flag=True,
    help="Test where nets see objects: by the centre crop with the class given (the paper's "
    "protocol 1), and over whole pictures (protocol 2); with `--protocol centre` or `dense` by "
    "one of them.",
)
@click.option(
    "--classifier",
    "classifiers",
    multiple=True,
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="With --localise: a run that tells the classes and rates the boxes; several average.",
)
@click.option(
    "--offsets",
    is_flag=True,
    help="With --localise: look from all offsets of the last pool, for boxes twice as dense.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def command(
    runs: tuple[Path, ...],
    data: str | None,
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
    classes: bool,
    per_class: Path | None,
    confusion: Path | None,
    predictions: Path | None,
    localise: bool,
    classifiers: tuple[Path, ...],
    offsets: bool,
    as_json: bool,
) -> None:
    """Test the nets of runs: their top-1 and top-5 error, and how they fare with each class. A SPEC
    is tested with --weights, such as `--weights imagenet`, on --data.

    Each is looked at in two ways: by the centre crop of an image, as in training and in compiled
    nets, and as the `test` block of its file says, whose soft-max outputs of all scales, crops and
    mirror images are averaged. With options it is looked at as they say alone. Of several RUNs
    each is tested, and all together by the average of their outputs.

    With --localise nets that give boxes are tested by where they see objects. A box is right where
    its IoU with an object of its class is above 0.5; top-5 counts a picture whose class and box are
    among five pairs of them.
    """
    from vggc.cli.eval_tables import TableFiles, verdicts

    if localise:
        from vggc.cli.eval_localise import test_boxes

        idle = {
            "--preprocessing": preprocessing,
            "--grid": grid,
            "--classes": classes or None,
            "--per-class": per_class,
            "--confusion": confusion,
            "--predictions": predictions,
        }
        refuse_of_classes([flag for flag, value in idle.items() if value is not None])
        how = LocaliseOptions(
            weights=weights,
            scales=scales,
            flip=flip,
            offsets=offsets,
            batch=batch,
            device=device,
            precision=precision,
            workers=workers,
        )
        test_boxes(runs, classifiers, data, how, localise_protocols(protocol), as_json)
        return
    if classifiers or offsets:
        raise click.UsageError("--classifier and --offsets are of `--localise`")
    options = EvalOptions(
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
    )
    files = TableFiles(per_class, confusion, predictions)
    planned = plan(runs, options)
    first = planned.world.is_first
    if first:
        files.check()
    images = images_for(planned, data)
    if first:
        announce(planned, images, data)
    with progress("testing", first) as on_progress:
        result = measure(planned, images, on_progress)
    if first:
        found = verdicts(planned, images, result) if classes or files.of_classes else []
        report(planned, images, result, found if classes else [], as_json)
        files.write(planned, images, result, found)


def refuse_of_classes(flags: Sequence[str]) -> None:
    """Refuses options that are about classes where boxes are tested."""
    if flags:
        raise click.UsageError(f"{', '.join(flags)} cannot be had with --localise")


def localise_protocols(protocol: ProtocolName | None) -> tuple[LocaliseProtocol, ...]:
    """The protocols of localisation that are meant."""
    if protocol is None:
        return PROTOCOLS
    if protocol == "centre" or protocol == "dense":
        return (protocol,)
    raise click.UsageError("with --localise, `--protocol` is centre or dense; without it, both")


def announce(planned: EvalPlan, images: Labelled, data: str | None) -> None:
    """Says what is tested, on what and how."""
    world, machine = planned.world, planned.machine
    held_out = "held-out " if data is None else ""
    processes = f" in {world.size} processes" if world.size > 1 else ""
    console.status(
        f"Testing on {console.count(len(images.part), f'{held_out}image')} of {images.shown}, "
        f"on {machine.device} in {machine.precision}{processes}."
    )
    for note in images.notes:
        console.status(in_line(note))
    for entry in planned.entries:
        console.status(f"  {entry.named}: {ways(entry.views)}, {scales(entry)}")
        for remark in entry.remarks:
            console.status(f"  {remark}")
        tested = {other.net_name for other in planned.entries}
        missing = [name for name in entry.protocol.fuse or () if name not in tested]
        if missing:
            console.status(
                f"  its test block fuses it with {', '.join(missing)}: give their runs, too"
            )


@contextmanager
def progress(what: str, shown: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr, where that is a terminal; what moves it takes how many of how many, or None
    where nobody knows.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    drawn = console.stderr()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining()
    disable = not (shown and drawn.is_terminal)
    # What is written to stdout meanwhile would come out on stderr.
    with Progress(
        *columns, console=drawn, transient=True, disable=disable, redirect_stdout=False
    ) as bar:
        row = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)


def report(
    planned: EvalPlan,
    images: Labelled,
    result: EvalResult,
    classes: Sequence[RunScores],
    as_json: bool,
) -> None:
    """The errors on stdout, and how it stands with each class where that is asked for; what was
    left out on stderr.
    """
    from vggc.cli.eval_tables import class_sheet
    from vggc.evaluation.tables import per_class_record

    for line in told(result.skipped, result.num_skipped):
        console.status(line)
    if as_json:
        record = as_record(planned, images, result)
        if classes:
            record["by_class"] = [
                {"run": each.run, "net": each.net, **per_class_record(each.scores)}
                for each in classes
            ]
        console.out(json.dumps(record))
        return
    console.sheet(score_table(planned, images, result))
    for each in classes:
        console.sheet(class_sheet(each))


def as_record(planned: EvalPlan, images: Labelled, result: EvalResult) -> dict[str, object]:
    """The result as JSON. Errors are shares from 0 to 1."""
    centres = {
        entry.named: errors_record(errors)
        for entry, errors in zip(planned.centres, result.centres, strict=True)
    }
    runs = [
        {
            "run": entry.named,
            "net": entry.net_name,
            "scales": distinct_scales(entry.views),
            "dense": entry.protocol.dense,
            "grid": entry.protocol.crops.grid if entry.protocol.crops else None,
            "flip": entry.views.flip,
            **errors_record(errors),
            "centre": centres.get(entry.named),
        }
        for entry, errors in zip(planned.entries, result.each, strict=True)
    ]
    return {
        "data": images.path,
        "images": result.images,
        "skipped": result.num_skipped,
        "classes": len(planned.classes),
        "device": planned.machine.device,
        "precision": planned.machine.precision,
        "images_per_second": result.images / result.seconds,
        "runs": runs,
        "fused": errors_record(result.fused) if result.fused else None,
    }


def errors_record(errors: Errors) -> dict[str, float]:
    """The errors, shares from 0 to 1, as JSON holds them."""
    return {"top1_error": errors.top1, "top5_error": errors.top5}
