"""Reports as tables, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vggc.analysis.layer_table import (
    bytes_told,
    layer_table,
    num_kept,
    num_weight_layers,
    pair_told,
    rows_of,
)
from vggc.analysis.outline import Outline
from vggc.analysis.report import Report, Row
from vggc.analysis.training import FORMULA
from vggc.cli.comparison import LayerCell, NetComparison, compare
from vggc.ir.ops import describe
from vggc.support.sheet import Sheet


@dataclass(frozen=True)
class SummarisedNet:
    """A net whose cost is to be told, and a line on its published weights, if it has such."""

    report: Report
    outline: Outline
    published: str = ""


# ---------------------------------------------------------------- one net


def layers(net: SummarisedNet) -> Sheet:
    """A net layer by layer, paths of joins in brackets."""
    table = layer_table(net.report, net.outline)
    return replace(table, notes=(*table.notes, net.published)) if net.published else table


# ---------------------------------------------------------------- several nets


def totals_by_net(nets: Sequence[SummarisedNet]) -> Sheet:
    """What several nets cost, a column each: table 2 of the paper, and more."""
    reports = [net.report for net in nets]
    ends = [_last_map(net) for net in nets]
    kept = [num_kept(report) for report in reports]
    rows = {
        "parameters, millions": [_millions(r.totals.params) for r in reports],
        "parameters": [f"{r.totals.params:,}" for r in reports],
        "statistics, not trained": [f"{n:,}" if n else "" for n in kept] if any(kept) else [],
        "weights": [bytes_told(r.totals.weight_bytes) for r in reports],
        "MACs": [f"{r.totals.macs:,}" for r in reports],
        "GFLOPs": [f"{r.totals.flops / 1e9:,.2f}" for r in reports],
        "activations": [bytes_told(r.totals.activation_bytes) for r in reports],
        f"training, batch {reports[0].batch}": [_need(r) for r in reports],
        "last map": [describe(end.output_shape) for end in ends],
        "its receptive field": [pair_told(end.receptive_field) for end in ends],
        "its stride": [pair_told(end.stride) for end in ends],
    }
    return Sheet(
        title="totals",
        header=("", *(report.net for report in reports)),
        rows=tuple((label, *cells) for label, cells in rows.items() if any(cells)),
        numbers=(False, *(True,) * len(reports)),
        notes=_notes(reports[0]),
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:,.{0 if count >= 1e8 else 1 if count >= 1e7 else 3}f}"


def _need(report: Report) -> str:
    return "" if (need := report.totals.training_bytes) is None else bytes_told(need)


def _notes(report: Report) -> tuple[str, ...]:
    return (
        f"batch {report.batch}, {report.dtype}; 1 MB = 10⁶ bytes, 1 MAC = 2 FLOPs; receptive"
        " field: what one position of the last map sees, in pixels",
        FORMULA,
    )


def totals(nets: Sequence[SummarisedNet]) -> Sheet:
    """The zoo, a row each net."""
    training = f"training, batch {nets[0].report.batch}"
    header = (
        "net",
        "input",
        "weight layers",
        "parameters",
        "weights",
        "MACs",
        "GFLOPs",
        "activations",
        training,
        "field",
    )
    rows = tuple(
        (
            report.net,
            describe(report.input),
            str(num_weight_layers(report)),
            f"{report.totals.params:,}",
            bytes_told(report.totals.weight_bytes),
            f"{report.totals.macs:,}",
            f"{report.totals.flops / 1e9:,.2f}",
            bytes_told(report.totals.activation_bytes),
            _need(report),
            pair_told(_last_map(net).receptive_field),
        )
        for net in nets
        for report in (net.report,)
    )
    numbers = (False, False, *(True,) * (len(header) - 2))
    spare = (
        "field",
        "activations",
        "GFLOPs",
        "weights",
        "weight layers",
        "input",
        training,
        "MACs",
    )
    return Sheet(
        title="the zoo",
        header=header,
        rows=rows,
        numbers=numbers,
        notes=_notes(nets[0].report),
        spare=spare,
    )


def _last_map(net: SummarisedNet) -> Row:
    """The last map on the way to the main output."""
    rows = [row for _, row in rows_of(net.outline.trunk.path) if row is not None]
    return next(row for row in reversed(rows) if len(row.output_shape) == 3)


# ---------------------------------------------------------------- for programs


def as_json(nets: Sequence[SummarisedNet], *, single: bool) -> str:
    """The summaries as JSON: one object where there is a `single` net, or else a list."""
    objects = [_object(net) for net in nets]
    return json.dumps(objects[0] if single else objects, indent=2)


def _object(net: SummarisedNet) -> dict[str, Any]:
    report = net.report
    return {
        "net": report.net,
        "input": report.input,
        "batch": report.batch,
        "dtype": report.dtype,
        "heads": [
            {"name": branch.head, "kind": branch.kind, "shape": branch.shape}
            for branch in net.outline.branches
        ],
        "layers": [_layer_object(row) for row in report.rows],
        "totals": asdict(report.totals) | {"statistics": num_kept(report)},
        "training_formula": FORMULA,
    }


def _layer_object(row: Row) -> dict[str, Any]:
    """`receptive_field` and `stride` are one number where rows and columns agree; a stride of less
    than a pixel is a float.
    """
    stride = tuple(each if isinstance(each, int) else float(each) for each in row.stride)
    square = {
        key: pair[0] if pair[0] == pair[1] else list(pair)
        for key, pair in (("receptive_field", row.receptive_field), ("stride", stride))
    }
    return {**asdict(row), **square}


def as_csv(nets: Sequence[SummarisedNet], *, by_net: bool) -> str:
    """The summaries as CSV: a row a layer, or, where they are `by_net`, a row a net."""
    reports = [net.report for net in nets]
    rows: list[dict[str, Any]]
    if by_net:
        rows = [{"net": r.net, "input": describe(r.input), **asdict(r.totals)} for r in reports]
    else:
        rows = [
            {
                **_layer_object(row),
                "path": "/".join(row.path),
                "output_shape": describe(row.output_shape),
            }
            for row in reports[0].rows
        ]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def as_markdown(nets: Sequence[SummarisedNet], *, named: bool) -> str:
    """The tables of a terminal, for a page; `named` where the user chose the nets."""
    if not named:
        return _markdown(totals(nets))
    if len(nets) == 1:
        return _markdown(layers(nets[0]))
    table = compare([(net.report, net.outline) for net in nets])
    return f"{_compared(table)}\n\n{_markdown(totals_by_net(nets))}"


def _compared(table: NetComparison) -> str:
    """Table 1; what is new is bold."""
    head, *lines = table.lines()
    rows = [_piped([cell.text for cell in head.cells]), _piped(["---"] * len(head.cells))]
    for line in lines:
        rows.append(
            _piped([_indented(cell, bold=cell.new and not line.spans) for cell in line.cells])
        )
    return "\n".join(rows)


def _indented(cell: LayerCell, *, bold: bool) -> str:
    """A cell whose leading blanks a page keeps."""
    text = cell.text.lstrip()
    mark = "**" if bold else ""
    return "&nbsp;" * (len(cell.text) - len(text)) + f"{mark}{text}{mark}"


def _markdown(sheet: Sheet) -> str:
    marks = ["---:" if number else "---" for number in sheet.numbers]
    lines = [f"**{sheet.title}**", "", _piped(sheet.header), _piped(marks)]
    lines += [_piped(row) for row in sheet.rows]
    for note in sheet.notes:
        lines += ["", note]
    return "\n".join(lines)


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
