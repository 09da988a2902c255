"""Reports as tables, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from vggc.analysis.report import TRAINING_FORMULA, Report, Row
from vggc.cli.sheet import Sheet
from vggc.ir.ops import describe

# ---------------------------------------------------------------- tables


def tables(reports: Sequence[Report], specs: Sequence[str]) -> list[Sheet]:
    """One sheet for one net, several nets, or the zoo when no spec was named."""
    if not specs:
        return [_totals("the zoo", reports)]
    if len(reports) == 1:
        return [_layers(reports[0])]
    return [_side_by_side(reports), _totals("totals", reports)]


def _layers(report: Report) -> Sheet:
    header = ("layer", "kind", "output", "parameters", "MACs", "activations", "field", "stride")
    rows = [
        (
            row.name,
            row.text,
            describe(row.output_shape),
            f"{row.params:,}" if row.params else "",
            f"{row.macs:,}" if row.macs else "",
            _bytes(row.activation_bytes) if row.activation_bytes else "",
            _pair(row.receptive_field),
            _pair(row.stride),
        )
        for row in report.rows
    ]
    totals = report.totals
    last = (
        "total",
        f"{_num_weighted(report)} weight layers",
        "",
        f"{totals.params:,}",
        f"{totals.macs:,}",
        _bytes(totals.activation_bytes),
        "",
        "",
    )
    notes = [
        f"weights {_bytes(totals.weight_bytes)}, {totals.flops / 1e9:,.2f} GFLOPs"
        f" ({totals.macs:,} MACs × 2), forward activations"
        f" {_bytes(totals.activation_bytes)}; 1 MB = 10⁶ bytes"
    ]
    if totals.training_bytes is not None:
        notes.append(f"training about {_bytes(totals.training_bytes)}: {TRAINING_FORMULA}")
    return Sheet(
        f"{report.net}, input {describe(report.input)}, batch {report.batch}, {report.dtype}",
        header,
        (*rows, last),
        (False, False, True, True, True, True, True, True),
        tuple(notes),
        rules=(len(rows) - 1,),
    )


def _side_by_side(reports: Sequence[Report]) -> Sheet:
    """The layers of several nets, a column each, blocks of equal place beside each other."""
    columns = [_blocks(report) for report in reports]
    rows: list[tuple[str, ...]] = []
    rules: list[int] = []
    for blocks in zip_longest(*columns, fillvalue=()):
        height = max(map(len, blocks))
        rows += zip(*(_stretched(block, height) for block in blocks), strict=True)
        rules.append(len(rows) - 1)
    depths = tuple(f"{_num_weighted(report)} weight layers" for report in reports)
    return Sheet(
        "layer by layer",
        tuple(report.net for report in reports),
        (depths, *rows),
        (False,) * len(reports),
        rules=(0, *(rule + 1 for rule in rules)),
    )


def _stretched(block: tuple[str, ...], height: int) -> tuple[str, ...]:
    """The block filled up before its last layer, so that pooling layers share a row."""
    missing = ("",) * (height - len(block))
    return (*block[:-1], *missing, *block[-1:])


def _blocks(report: Report) -> list[tuple[str, ...]]:
    """The layers' texts, cut behind every pooling layer."""
    blocks: list[tuple[str, ...]] = []
    block: list[str] = []
    for row in report.rows:
        text = f"input {describe(row.output_shape)}" if row.kind == "input" else row.text
        block.append(text)
        if row.kind in ("input", "pool"):
            blocks.append(tuple(block))
            block = []
    return [*blocks, tuple(block)] if block else blocks


def _totals(title: str, reports: Sequence[Report]) -> Sheet:
    header = (
        "net",
        "input",
        "weight layers",
        "parameters",
        "weights",
        "MACs",
        "GFLOPs",
        "activations",
        "training",
        "field",
    )
    rows = tuple(
        (
            report.net,
            describe(report.input),
            str(_num_weighted(report)),
            f"{report.totals.params:,}",
            _bytes(report.totals.weight_bytes),
            f"{report.totals.macs:,}",
            f"{report.totals.flops / 1e9:,.2f}",
            _bytes(report.totals.activation_bytes),
            "" if (need := report.totals.training_bytes) is None else _bytes(need),
            _pair(_last_map(report).receptive_field),
        )
        for report in reports
    )
    first = reports[0]
    notes = [
        f"batch {first.batch}, {first.dtype}; 1 MB = 10⁶ bytes, 1 MAC = 2 FLOPs; field: what"
        " one position of the last map sees, in pixels",
        TRAINING_FORMULA,
    ]
    numbers = (False, False, *(True,) * (len(header) - 2))
    return Sheet(title, header, rows, numbers, tuple(notes))


def _last_map(report: Report) -> Row:
    return next(row for row in reversed(report.rows) if len(row.output_shape) == 3)


def _num_weighted(report: Report) -> int:
    return sum(row.params > 0 for row in report.rows)


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB" if count >= 1e5 else f"{count / 1e3:,.2f} kB"


def _pair(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else describe(pair)


# ---------------------------------------------------------------- for programs


def as_json(reports: Sequence[Report], *, single: bool) -> str:
    """One object, or a list of them."""
    objects = [_object(report) for report in reports]
    return json.dumps(objects[0] if single else objects, indent=2)


def _object(report: Report) -> dict[str, Any]:
    return {
        "net": report.net,
        "input": report.input,
        "batch": report.batch,
        "dtype": report.dtype,
        "layers": [_layer_object(row) for row in report.rows],
        "totals": asdict(report.totals),
        "training_formula": TRAINING_FORMULA,
    }


def _layer_object(row: Row) -> dict[str, Any]:
    """`receptive_field` and `stride` are one number where rows and columns agree."""
    square = {
        key: pair[0] if pair[0] == pair[1] else list(pair)
        for key, pair in (("receptive_field", row.receptive_field), ("stride", row.stride))
    }
    return {**asdict(row), **square}


def as_csv(reports: Sequence[Report], *, by_net: bool) -> str:
    """One row a layer; one row a net when there are several."""
    rows: list[dict[str, Any]]
    if by_net:
        rows = [{"net": r.net, "input": describe(r.input), **asdict(r.totals)} for r in reports]
    else:
        rows = [
            {**_layer_object(r), "output_shape": describe(r.output_shape)} for r in reports[0].rows
        ]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def as_markdown(sheets: Sequence[Sheet]) -> str:
    return "\n\n".join(_markdown(sheet) for sheet in sheets)


def _markdown(sheet: Sheet) -> str:
    marks = ["---:" if number else "---" for number in sheet.numbers]
    lines = [f"**{sheet.title}**", "", _piped(sheet.header), _piped(marks)]
    lines += [_piped(row) for row in sheet.rows]
    for note in sheet.notes:
        lines += ["", note]
    return "\n".join(lines)


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
