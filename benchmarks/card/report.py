"""What a run has found, as tables, and as records for vggc's tuning database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from card.journal import NO_TIME, Entry, Journal
from card.parts import BESIDE, check_of, net_part, times_of
from card.tables import Bundle, KernelRow, NetRow, Tables, WorkloadRow

TABLES_FILE, RESULTS = "results.md", "results.json"
TOLD = 30
"""The lines of failures in a summary."""
CARD = ("name", "capability", "multiprocessors", "cache")
"""What tells a card from others, of all that is found of the machine."""


def write_report(bundle: Bundle, journal: Journal, folder: Path) -> str:
    """Writes what was found: tables, and everything as JSON. Gives the tables that matter most."""
    tables, entries = bundle.tables, journal.entries()
    text = markdown(tables, entries)
    results = {
        "about": tables.about,
        "records": records(tables, entries),
        "parts": {
            key: {"seconds": entry.seconds, "result": entry.result, "error": entry.error}
            for key, entry in entries.items()
        },
    }
    (folder / TABLES_FILE).write_text(text, encoding="utf-8")
    (folder / RESULTS).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return summary(tables, entries)


def records(tables: Tables, entries: dict[str, Entry]) -> dict[str, Any]:
    """What `benchmarks/gpu.py records` makes records of: the card, and each kernel's workload,
    choice, code and seconds, or why it has none.
    """
    machine = _result(entries, "machine")
    return {
        "emulated": tables.about["emulated"],
        "tvm": tables.about["tvm"],
        "card": {name: machine.get(name) for name in CARD},
        "kernels": [
            _record(tables.kernels[name], row, entries)
            for row in tables.workloads.values()
            for name in row.kernels
            if check_of(row, name) in entries
        ],
    }


def _record(kernel: KernelRow, row: WorkloadRow, entries: dict[str, Entry]) -> dict[str, Any]:
    return {
        "workload": row.workload,
        "code": row.code,
        "algorithm": kernel.algorithm,
        "knobs": kernel.knobs,
        "seconds": _times(row, entries).get(kernel.id),
        "error": entries[check_of(row, kernel.id)].error,
    }


def markdown(tables: Tables, entries: dict[str, Entry]) -> str:
    """The tables of a run."""
    lines = [*_head(tables, entries), *_nets(tables, entries), *_layers(tables, entries)]
    lines += [*_knobs(tables, entries), *_failures(entries)]
    return "\n".join([*lines, ""])


def summary(tables: Tables, entries: dict[str, Entry]) -> str:
    """What a run has come to, on a page or two."""
    failures = [*_failures(entries)]
    more = [f"- and {len(failures) - TOLD} more"] if len(failures) > TOLD else []
    lines = [*_head(tables, entries), *failures[:TOLD], *more, *_nets(tables, entries)]
    return "\n".join([*lines, ""])


def _head(tables: Tables, entries: dict[str, Entry]) -> Iterator[str]:
    yield f"# vggc {tables.about['vggc']} on a card"
    if tables.about["emulated"]:
        yield "\nThe card is emulated: no time here says anything.\n"
    for name in ("machine", "rates"):
        entry = entries.get(name)
        yield f"\n    {name}: {json.dumps(entry and (entry.result or entry.error))}"
    seconds, rows = sum(entry.seconds for entry in entries.values()), tables.workloads.values()
    checks = [entries.get(check_of(row, name)) for row in rows for name in row.kernels]
    right = sum(1 for each in checks if each and each.result)
    told = f"{len(entries)} parts took {seconds:.0f} s"
    yield f"\n{right} of {len(checks)} kernels are right; {told}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" if index < 2 else "---:" for index in range(len(head))) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _nets(tables: Tables, entries: dict[str, Entry]) -> Iterator[str]:
    yield "\n## Whole nets"
    yield "Milliseconds a batch; the ratio is above 1 where vggc is faster.\n"
    head = ["net", "batch", "launches", "graph", "tuned", "dependent", f"{BESIDE} beside"]
    rows = []
    for net in tables.nets:
        found = _result(entries, net_part(net))
        seconds = found.get("seconds", {})
        names = ("launches", "graph", "tuned", "dependent", BESIDE)
        cells = [_ms(seconds.get(name)) for name in names]
        error = max((e for way, e in found.get("errors", {}).items() if way != BESIDE), default=0)
        told = [*_verdict(tables, net, seconds, entries), f"{error:.1e}" if error else "–"]
        rows.append([f"{net.net} {net.precision}", str(net.batch), *cells, *told])
    head += ["best peer", "best peer / vggc", "floor", "share of floor", "error"]
    yield from _table(head, rows)
    yield "\n### Peers\n"
    rows = [
        [key.partition(":")[2], _ms(entry.result["seconds"]), f"{entry.result['error']:.1e}"]
        for key, entry in entries.items()
        if entry.step in ("peers", "compiled") and entry.result
    ]
    yield from _table(["net, batch, peer", "ms", "error"], rows)


def _verdict(
    tables: Tables, net: NetRow, seconds: dict[str, list[float]], entries: dict[str, Entry]
) -> list[str]:
    """The best peer, its time over vggc's, the floor and its share of vggc's time."""
    found = {name: median(times) for name, times in seconds.items()}
    ours = min((found[name] for name in found if name != BESIDE), default=None)
    peers = {BESIDE: found[BESIDE]} if BESIDE in found else {}
    prefix = f"{net.name}/"
    for entry in entries.values():
        _, _, rest = entry.key.partition(":")
        if entry.step in ("peers", "compiled") and entry.result and rest.startswith(prefix):
            peers.setdefault(rest.removeprefix(prefix), median(entry.result["seconds"]))
    floor = sum(tables.workloads[step.workload].floor_seconds for step in net.steps)
    best = min(peers, key=peers.__getitem__) if peers else None
    ratio = f"**{peers[best] / ours:.2f}**" if best and ours else "–"
    share = f"{floor / ours:.0%}" if ours else "–"
    told = f"{best}, {peers[best] * 1e3:.3f}" if best else "–"
    return [told, ratio, f"{floor * 1e3:.3f}", share]


def _layers(tables: Tables, entries: dict[str, Entry]) -> Iterator[str]:
    yield "\n## Layers"
    yield "Microseconds; the rank is that of the model's first choice among those measured.\n"
    rows = []
    for row in tables.workloads.values():
        times = _times(row, entries)
        if not times:
            continue
        best = min(times, key=times.__getitem__)
        peers = {
            name: median(seconds)
            for name, seconds in _result(entries, times_of(row))["seconds"].items()
            if name not in tables.kernels
        }
        peer = min(peers.values(), default=None)
        ranked = sorted(times, key=times.__getitem__)
        first = next(name for name in row.kernels if name in times)
        rows.append(
            [
                ", ".join(row.layers),
                str(row.batch),
                tables.kernels[best].title,
                _us(times[best]),
                _us(peer),
                f"{peer / times[best]:.2f}" if peer else "–",
                _us(row.floor_seconds),
                f"{row.floor_seconds / times[best]:.0%}",
                f"{row.flops / times[best] / 1e12:.0f}",
                f"{ranked.index(first) + 1} of {len(ranked)}",
            ]
        )
    head = ["layers", "batch", "best kernel", "vggc", "torch", "torch / vggc", "floor"]
    yield from _table([*head, "share", "TFLOP/s", "rank"], rows)


def _knobs(tables: Tables, entries: dict[str, Entry]) -> Iterator[str]:
    yield "\n## Kernels"
    yield "Microseconds, each layer's fastest first, beside what the model says.\n"
    rows = []
    for row in tables.workloads.values():
        times = _times(row, entries)
        for name in sorted(times, key=times.__getitem__):
            kernel = tables.kernels[name]
            check = _result(entries, check_of(row, name))
            rows.append(
                [
                    row.layers[0],
                    str(row.batch),
                    kernel.title,
                    _us(times[name]),
                    _us(kernel.model_seconds),
                    f"{times[name] / kernel.model_seconds:.2f}",
                    str(check.get("registers", "–")),
                    str(check.get("spilled_bytes", "–")),
                ]
            )
    head = ["layer", "batch", "kernel", "measured", "model", "measured / model", "registers"]
    yield from _table([*head, "spilled bytes"], rows)


def _failures(entries: dict[str, Entry]) -> Iterator[str]:
    yield "\n## What failed\n"
    late = [entry.key for entry in entries.values() if entry.error == NO_TIME]
    for entry in entries.values():
        if entry.error and entry.error != NO_TIME:
            yield f"- {entry.key}: {entry.error}"
        for way, why in (entry.result or {}).get("problems", {}).items():
            yield f"- {entry.key}, {way}: {why}"
    if late:
        yield f"- {len(late)} parts for which no time was left, the first of them {late[0]}"


def _times(row: WorkloadRow, entries: dict[str, Entry]) -> dict[str, float]:
    seconds = _result(entries, times_of(row)).get("seconds", {})
    return {name: median(seconds[name]) for name in row.kernels if name in seconds}


def _result(entries: dict[str, Entry], key: str) -> dict[str, Any]:
    entry = entries.get(key)
    return (entry.result or {}) if entry else {}


def _ms(seconds: Sequence[float] | None) -> str:
    return f"{median(seconds) * 1e3:.3f}" if seconds else "–"


def _us(seconds: float | None) -> str:
    return f"{seconds * 1e6:.1f}" if seconds else "–"
