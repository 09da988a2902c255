"""`vggc probe`."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path

import click

from vggc.api.probe import probe, probe_record, probe_table, read
from vggc.cli import console
from vggc.cli.eval import progress

MOST_CHOICES = 64


class CostList(click.ParamType[tuple[float, ...]]):
    """Values of C, with commas between them, in order and each once."""

    name = "A,B,…"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            found = sorted({float(each) for each in str(value).split(",")})
        except ValueError:
            self.fail(f"{value!r} is no list of numbers; write 0.1,1,10", param, ctx)
        if len(found) > MOST_CHOICES or not all(each > 0 and isfinite(each) for each in found):
            self.fail(f"{value!r}: C is a number above 0, {MOST_CHOICES} at most", param, ctx)
        return tuple(found)


@click.command("probe")
@click.argument(
    "files", nargs=-1, required=True, metavar="FEATURES...", type=click.Path(path_type=Path)
)
@click.option(
    "--c", "grid", type=CostList(), help="Values of C to choose from.  [default: 0.01,0.1,1,10]"
)
@click.option(
    "--folds",
    type=click.IntRange(2, 100),
    default=5,
    show_default=True,
    help="Parts of the images to train on that C is chosen by.",
)
@click.option(
    "--train-per-class", type=click.IntRange(1), metavar="N", help="Draw so many of each class."
)
@click.option(
    "--test-per-class", type=click.IntRange(1), metavar="N", help="Test on so many at most."
)
@click.option(
    "--splits",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Draw so often, and tell the mean.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def command(
    files: tuple[Path, ...],
    grid: tuple[float, ...] | None,
    folds: int,
    train_per_class: int | None,
    test_per_class: int | None,
    splits: int,
    seed: int,
    as_json: bool,
) -> None:
    """Measure what a linear SVM makes of features: its accuracy, or VOC's mean average precision.

    Several FEATURES are of the same images by several nets, and stand behind one another. Images
    are split by the parts of their place; without parts a fifth of each class is tested on.
    """
    from vggc.features.probe import USUAL_GRID, ProbeOptions
    from vggc.features.splits import SplitOptions

    options = ProbeOptions(
        grid or USUAL_GRID, folds, SplitOptions(splits, train_per_class, test_per_class, seed)
    )
    found = read(files)
    with progress("training classifiers", shown=True) as on_progress:
        result = probe(found, options, on_progress)
    if as_json:
        console.out(json.dumps(probe_record(found, options, result)))
    else:
        console.sheet(probe_table(found, options, result))
