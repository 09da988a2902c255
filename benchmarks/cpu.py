"""vggc beside every other engine on this CPU: `python benchmarks/cpu.py`.

Each net is compiled with seeded weights, for each batch and precision, and timed against the
engines of that precision in a process of its own: one call of each a round, in turn, after
their outputs have been compared, with a rest between two engines until no thread spins. The
table of ratios is printed and saved beside all numbers, after every case. Engines that are not
installed, or cannot compute a net, are named with the reason.

With `--isa avx2` vggc compiles for a CPU with AVX2 and nothing newer, and torch and OpenVINO are
held to AVX2, as `held.py` shows of each before it is timed. Engines that cannot be held are left
out.

int8 is calibrated on pieces of the two photographs that come with scikit-learn, by vggc and by
its peers alike, and the share of other pieces that get the same top-1 as in float32 is told.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from held import INSTRUCTION_SETS, why_not_held
from PIL import Image
from saving import save

from vggc import __version__
from vggc.support.diagnostics import UserError
from vggc_runtime.processors import num_cores

NETS = (
    *("vgg11", "vgg13", "vgg16", "vgg16_1x1", "vgg19", "vgg16_bn", "vgg16_d_dilated"),
    *("resnet18", "resnet34", "resnet50", "nin", "googlenet", "squeezenet", "mobilenet_v1"),
    *("densenet121", "inception_v3", "convnext_tiny"),
)
BATCHES = (1, 4, 16)
PRECISIONS = ("float32", "bfloat16", "int8")
RESULTS = Path(__file__).parent / "results"
CALIBRATED, JUDGED = 100, 50
"""Pieces of photographs that ranges are taken from, and others that top-1 is compared on."""
REFERENCE = "onnxruntime"
"""The float32 engine that says what top-1 should be."""


@dataclass(frozen=True)
class Case:
    """A row of the table, before it is timed."""

    net: str
    batch: int
    precision: str


@dataclass(frozen=True)
class Row:
    """A row of the table: milliseconds of each round, or why there are none."""

    case: Case
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    top1: dict[str, float] = field(default_factory=dict)
    """Share of the judged pieces with the same top-1 as in float32, of int8 and bfloat16."""

    @property
    def medians(self) -> dict[str, float]:
        return {name: median(times) for name, times in self.milliseconds.items()}

    @property
    def best_peer(self) -> str | None:
        """The fastest peer; None where there is no peer."""
        medians = {name: time for name, time in self.medians.items() if name != "vggc"}
        return min(medians, key=medians.__getitem__) if medians else None


def main() -> None:
    arguments = _arguments()
    if arguments.case:
        _time_case(arguments)
        return
    from vggc.measure.engines import PEERS, peer_name, versions

    names = [peer_name(text) for text in _names(arguments.peers)] or list(PEERS)
    not_held = _not_held(names, arguments.isa)
    cases = product(_names(arguments.precision), _names(arguments.nets), arguments.batches)
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": cpu_name(),
        "processors": len(os.sched_getaffinity(0)),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "command": " ".join(["python", "benchmarks/cpu.py", *sys.argv[1:]]),
        "versions": {
            "Python": platform.python_version(),
            "vggc": __version__,
            "TVM": version("apache-tvm"),
            **versions(["torch", *names]),
        },
    }
    stem = arguments.out or RESULTS / time.strftime("%Y-%m-%d-%H%M-cpu")
    rows: list[Row] = []
    with TemporaryDirectory(prefix="vggc-cpu-") as temporary:
        write_pieces(Path(temporary) / "images")
        for precision, net, batch in cases:
            case = Case(net, batch, precision)
            of_precision = [name for name in names if PEERS[name].precision == precision]
            chosen = [name for name in of_precision if name not in not_held]
            print(f"{net}, batch {batch}, {precision}", file=sys.stderr, flush=True)
            row = _in_own_process(case, chosen, arguments, Path(temporary))
            left_out = {name: not_held[name] for name in of_precision if name in not_held}
            rows.append(replace(row, missing=row.missing | left_out))
            save(stem, markdown(about, rows), about, rows)
    print(markdown(about, rows))
    print(f"saved as {stem}.md and {stem}.json", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default=",".join(NETS), help="zoo names or files, with commas")
    parser.add_argument("--batches", type=_numbers, default=list(BATCHES))
    parser.add_argument("--precision", default=",".join(PRECISIONS))
    parser.add_argument("--peers", default="", help="names as in `vggc bench --help`; all if none")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument(
        "--db", type=Path, help="a database of `vggc tune`; without one nothing is tuned"
    )
    parser.add_argument(
        "--isa", choices=INSTRUCTION_SETS, help="hold all to these instructions; float32 alone"
    )
    parser.add_argument("--out", type=Path, help="where to save, without .md and .json")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.isa:
        arguments.precision = "float32"
    return arguments


def _not_held(names: list[str], isa: str | None) -> dict[str, str]:
    """The engines that use newer instructions than those of `isa`, each with the reason."""
    reasons = {name: why_not_held(name, isa) for name in names} if isa else {}
    return {name: reason for name, reason in reasons.items() if reason}


def _numbers(text: str) -> list[int]:
    return [int(number) for number in _names(text)]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


# ---------------------------------------------------------------- one case


def _in_own_process(
    case: Case, peers: list[str], arguments: argparse.Namespace, folder: Path
) -> Row:
    """Compiles and times a case in processes that leave neither memory nor threads behind."""
    with TemporaryDirectory(prefix="case-", dir=folder) as temporary:
        artifact, result = Path(temporary) / "artifact", Path(temporary) / "result.json"
        images = folder / "images" / "calibrated"
        threads = str(arguments.threads)
        options = ["--batch", str(case.batch), "--precision", case.precision, "--threads", threads]
        options += ["--calibrate", str(images)] if case.precision == "int8" else []
        options += ["--db", str(arguments.db)] if arguments.db else ["--no-db"]
        compile_ = [sys.executable, "-m", "vggc", "compile", case.net, "-o", str(artifact)]
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "TMPDIR": temporary}
        if arguments.isa:
            limit = INSTRUCTION_SETS[arguments.isa]
            options += ["--mcpu", limit.mcpu]
            environment |= limit.environment
        if reason := _failure([*compile_, *options], environment):
            return Row(case, missing={"vggc": f"does not compile: {reason}"})
        told = {
            "artifact": str(artifact),
            "result": str(result),
            "images": None if case.precision == "float32" else str(folder / "images"),
            "peers": peers,
        }
        child = [sys.executable, __file__, "--case", json.dumps(told)]
        child += ["--rounds", str(arguments.rounds), "--threads", threads]
        if reason := _failure(child, environment):
            return Row(case, missing={"vggc": f"is not timed: {reason}"})
        return Row(case, **json.loads(result.read_text()))


def _failure(command: list[str], environment: dict[str, str]) -> str | None:
    """Runs a command; why it failed, if it did."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return None if done.returncode == 0 else " ".join(said[-2:])[-300:] or str(done.returncode)


def _time_case(arguments: argparse.Namespace) -> None:
    """In the case's own process: times the engines and writes what was found."""
    from vggc.measure.bench import bench
    from vggc.measure.engines import missing_module

    told = arguments.case
    artifact, peers = Path(told["artifact"]), told["peers"]
    images = None if told["images"] is None else Path(told["images"])
    timing = bench(
        artifact,
        peers,
        arguments.threads,
        arguments.rounds,
        images=images and images / "calibrated",
        lenient=True,
    )
    found = {
        "milliseconds": timing.milliseconds,
        "errors": timing.errors,
        "missing": timing.missing,
    }
    if images and (module := missing_module(REFERENCE)):
        found["missing"] |= {"same top-1": f"`import {module}` fails"}
    elif images:
        timed = [name for name in peers if name in timing.milliseconds]
        found["top1"], unjudged = agreement(artifact, timed, images, arguments.threads)
        found["missing"] |= {f"same top-1 of {name}": why for name, why in unjudged.items()}
    Path(told["result"]).write_text(json.dumps(found))


def agreement(
    artifact: Path, peers: list[str], images: Path, threads: int
) -> tuple[dict[str, float], dict[str, str]]:
    """The share of the judged pieces that vggc and each peer give float32's top-1.

    And why it is not known of some.
    """
    from vggc.measure.bench import reason_of
    from vggc.measure.engines import Setup, start
    from vggc.measure.verify import in_batches, original_weights
    from vggc.passes.fold import fold
    from vggc.runtime.artifact import graph_in
    from vggc.runtime.session import Session

    session = Session.load(artifact, threads)
    manifest = session.manifest
    graph = fold(graph_in(artifact, manifest)).graph
    weights = original_weights(artifact, graph, manifest).weights

    def read(part: str) -> np.ndarray:
        files = sorted((images / part).iterdir())
        return np.concatenate([manifest.preprocessing.read(path) for path in files])

    judged = read("judged")
    best = {
        "vggc": np.concatenate(
            [
                session.run(x)[:count].argmax(1)
                for x, count in in_batches(np.split(judged, len(judged)), manifest.largest.batch)
            ]
        )
    }
    unjudged = {}
    with TemporaryDirectory() as folder:
        setup = Setup(graph, weights, judged, threads, "cpu", Path(folder), read("calibrated"))
        for name in [REFERENCE, *peers]:
            try:
                best[name] = start(name, setup)().argmax(1)
            except UserError as problem:
                unjudged[name] = reason_of(problem)
    if REFERENCE not in best:
        return {}, unjudged
    wanted = best.pop(REFERENCE)
    return {name: float((found == wanted).mean()) for name, found in best.items()}, unjudged


def write_pieces(folder: Path) -> None:
    """Writes square pieces of scikit-learn's photographs, some to calibrate on, some to judge."""
    import sklearn.datasets

    photographs = Path(sklearn.datasets.__file__).parent / "images"
    generator = np.random.default_rng(0)
    for part, count in (("calibrated", CALIBRATED), ("judged", JUDGED)):
        (folder / part).mkdir(parents=True)
        for index, piece in enumerate(_pieces(photographs, count, generator)):
            piece.save(folder / part / f"{index:03}.png")


def _pieces(photographs: Path, count: int, generator: np.random.Generator) -> Iterator[Image.Image]:
    names = ("china.jpg", "flower.jpg")
    for index in range(count):
        with Image.open(photographs / names[index % 2]) as image:
            side = int(generator.integers(160, min(image.size) + 1))
            left, top = (int(generator.integers(0, extent - side + 1)) for extent in image.size)
            yield image.convert("RGB").crop((left, top, left + side, top + side))


# ---------------------------------------------------------------- the table


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor as the system calls it, or at least its kind."""
    text = ""
    with suppress(OSError):
        text = cpuinfo.read_text(errors="replace")
    found = re.search(r"(?m)^model name[ \t]*:[ \t]*(\S.*)$", text)
    return found[1].strip() if found else platform.processor() or platform.machine()


def markdown(about: dict[str, object], rows: list[Row]) -> str:
    """All rows as tables of ratios, one for each precision, and what has to be said of them."""
    versions = about["versions"]
    assert isinstance(versions, dict)
    lines = [
        f"# {about['date']}: vggc beside other engines, {about['threads']} threads",
        "",
        f"{about['cpu']}, {about['processors']} processors; "
        + ", ".join(f"{name} {found}" for name, found in versions.items()),
        "",
        f"    {about['command']}",
        "",
        f"Ratios of medians of {about['rounds']} interleaved rounds, vggc's over the engine's: "
        "under 1 where vggc is faster. Seeded weights. Milliseconds are of this machine and hour.",
    ]
    for precision in dict.fromkeys(row.case.precision for row in rows):
        part = [row for row in rows if row.case.precision == precision]
        lines += ["", f"## {precision}", "", *_table(part), *_notes(part)]
    return "\n".join(lines)


def _table(rows: list[Row]) -> list[str]:
    peers = list(dict.fromkeys(name for row in rows for name in row.errors))
    header = ["net", "batch", "vggc, ms", *peers, "best peer", "vggc / best"]
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    for row in rows:
        medians, best = row.medians, row.best_peer
        cells = [row.case.net, str(row.case.batch)]
        cells.append(f"{medians['vggc']:.1f}" if "vggc" in medians else "–")
        for peer in peers:
            cells.append(f"{medians['vggc'] / medians[peer]:.2f}" if peer in medians else "–")
        cells += (
            [f"{best}, {medians[best]:.1f} ms", f"**{medians['vggc'] / medians[best]:.2f}**"]
            if best
            else ["–", "–"]
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _notes(rows: list[Row]) -> list[str]:
    lines = []
    errors: dict[str, float] = {}
    for row in rows:
        for name, error in row.errors.items():
            errors[name] = max(error, errors.get(name, 0.0))
    if errors:
        told = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        lines += ["", f"Scores differ from vggc's by at most (relative L2): {told}."]
    if any(row.top1 for row in rows):
        lines += ["", f"Same top-1 as in float32, of {JUDGED} pieces of photographs:", ""]
        for row in rows:
            told = ", ".join(f"{name} {share:.0%}" for name, share in row.top1.items())
            lines += [f"- {row.case.net}, batch {row.case.batch}: {told}"] if told else []
    if any("ncnn" in name for name in errors) and any(row.case.batch > 1 for row in rows):
        lines += ["", "ncnn knows no batch: it computes image by image."]
    missing = [
        f"- {row.case.net}, batch {row.case.batch}: {name}: {reason}"
        for row in rows
        for name, reason in row.missing.items()
    ]
    return [*lines, "", "Missing:", "", *missing] if missing else lines


if __name__ == "__main__":
    main()
