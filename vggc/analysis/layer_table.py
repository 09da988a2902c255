"""A net as a table, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from vggc.analysis.outline import Join, Outline, OutlineRepeat, OutlineStep, Path
from vggc.analysis.receptive import PixelSteps
from vggc.analysis.report import Report, Row
from vggc.analysis.training import FORMULA
from vggc.ir.ops import describe
from vggc.support.precision import NUMBER_BYTES
from vggc.support.sheet import Sheet


def layer_table(report: Report, outline: Outline) -> Sheet:
    """A net as a table, layer by layer, paths of joins in brackets."""
    of = "" if report.batch == 1 else f", batch {report.batch}"
    costs = f"MACs{of}", f"activations{of}"
    header = ("layer", "kind", "output", "parameters", *costs, "field", "stride")
    rows: list[tuple[str, ...]] = []
    rules: list[int] = []
    for branch in outline.branches:
        if branch is not outline.trunk:
            rows.append(_words(f"@{branch.path.source}", f"head {branch.head}"))
        rows += [_cells(name, row) for name, row in rows_of(branch.path)]
        if not outline.is_plain:
            rows.append(_words(f"→ {branch.head}", branch.kind, describe(branch.shape)))
        rules.append(len(rows) - 1)
    totals = report.totals
    last = (
        "total",
        f"{num_weight_layers(report)} weight layers",
        "",
        f"{totals.params:,}",
        f"{totals.macs:,}",
        bytes_told(totals.activation_bytes),
        "",
        "",
    )
    notes = [
        f"weights {bytes_told(totals.weight_bytes)}, {totals.flops / 1e9:,.2f} GFLOPs"
        f" ({totals.macs:,} MACs × 2), forward activations"
        f" {bytes_told(totals.activation_bytes)}; 1 MB = 10⁶ bytes"
    ]
    if kept := num_kept(report):
        notes.append(
            f"the weights are {totals.params:,} parameters, which are trained, and {kept:,}"
            " running statistics, which are only kept"
        )
    if totals.training_bytes is not None and totals.training_gpu_bytes is not None:
        notes.append(
            f"training in batches of {report.batch:,} about {bytes_told(totals.training_bytes)}"
            f" on a CPU, {bytes_told(totals.training_gpu_bytes)} of a GPU's: {FORMULA}"
        )
    return Sheet(
        title=f"{report.net}, input {describe(report.input)}, batch {report.batch}, {report.dtype}",
        header=header,
        rows=(*rows, last),
        numbers=(False, False, True, True, True, True, True, True),
        notes=tuple(notes),
        rules=tuple(rules),
        spare=("stride", "field", costs[1], "kind", costs[0]),
    )


def rows_of(path: Path) -> Iterator[tuple[str, Row | None]]:
    """The layers of a path; layers of paths beside one another stand in brackets that their join
    closes.
    """
    for item in path.items:
        match item:
            case OutlineStep(row):
                yield row.name, row
            case Join(row, _, paths):
                for index, inner in enumerate(paths):
                    first = "├ " if index else "┌ "
                    lines = list(rows_of(inner))
                    if inner.source or not lines:
                        lines.insert(0, (f"@{inner.source}" if inner.source else "skip", None))
                    for number, (name, inner_row) in enumerate(lines):
                        yield ("│ " if number else first) + name, inner_row
                yield f"└ {row.name}", row
            case OutlineRepeat():
                raise AssertionError("a table of layers shows each of them")
            case _:
                assert_never(item)


def _cells(name: str, row: Row | None) -> tuple[str, ...]:
    if row is None:
        return _words(name)
    return (
        name,
        row.text,
        describe(row.output_shape),
        f"{row.params:,}" if row.params else "",
        f"{row.macs:,}" if row.macs else "",
        bytes_told(row.activation_bytes) if row.activation_bytes else "",
        pair_told(row.receptive_field),
        pair_told(row.stride),
    )


def _words(*words: str) -> tuple[str, ...]:
    return (*words, *("",) * (8 - len(words)))


def num_weight_layers(report: Report) -> int:
    """The number of convolutions and fully-connected layers, those in paths and heads included."""
    return sum(row.macs > 0 for row in report.rows)


def num_kept(report: Report) -> int:
    """How many numbers are stored and not trained."""
    return report.totals.weight_bytes // NUMBER_BYTES[report.dtype] - report.totals.params


def bytes_told(count: int) -> str:
    """A number of bytes as megabytes, a small one as kilobytes: `12.35 MB`."""
    return f"{count / 1e6:,.2f} MB" if count >= 1e5 else f"{count / 1e3:,.2f} kB"


def pair_told(pair: PixelSteps) -> str:
    """A pair as `7×5`, or as one number where both are the same; a fraction as `1/2`."""
    return str(pair[0]) if pair[0] == pair[1] else describe(pair)
