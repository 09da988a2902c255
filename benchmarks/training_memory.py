"""What trainings take of a CPU's memory, beside what is told of them beforehand.

`python benchmarks/training_memory.py` trains each case for two epochs of two steps by `vggc train`,
on pictures of noise, each in a process of its own. Measured is the peak of that process's resident
memory (`VmHWM`, which `/usr/bin/time -v` calls maximum resident set size), told is what `vggc
summary RUN` says. Exit 1 where a ratio is beyond 1.25 either way.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from cpu import cpu_name
from PIL import Image
from saving import save

from vggc import __version__

RESULTS = Path(__file__).parent / "results"
LIMIT = 1.25
EPOCHS, STEPS, HELD_OUT = 2, 2, 8
TRAIN = """
import atexit, sys
peak = sys.argv.pop(1)

def tell():
    with open("/proc/self/status") as status, open(peak, "w") as file:
        file.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))

atexit.register(tell)
from vggc.cli import main
main()
"""
"""A `vggc` that writes its peak, in KiB, to the file that it is given first."""


@dataclass(frozen=True)
class Case:
    """A net, the side of its images, those of a step, and options of `vggc train`."""

    net: str
    side: int
    batch: int
    options: tuple[str, ...] = ()


ADAMW, EMA = ("--set", "optimiser=adamw"), ("--set", "ema=0.99")
CONSTANT = ("--set", "schedule=constant")
"""In the place of drops that would come behind the last step."""
IN_PARTS, BF16 = ("--set", "accumulate=4"), ("--precision", "bfloat16")
NEW_WORDS = "benchmarks/nets/new_words.vgg"
CASES = (
    Case("tiny_vgg", 32, 1),
    Case("tiny_vgg", 32, 256),
    Case("vgg_tiny_cifar", 32, 64),
    Case("vgg_tiny_cifar", 32, 256),
    Case("vgg_tiny_cifar", 32, 256, BF16),
    Case("vgg_tiny_cifar", 32, 64, ("--compile",)),
    Case("vgg11(width=0.25)", 64, 64),
    Case("vgg11", 32, 16),
    Case("vgg11(width=0.5)", 64, 16, (*ADAMW, *EMA)),
    Case("vgg11(width=0.5)", 64, 16, ("--set", "freeze=conv1_1..pool5")),
    Case("vgg16(width=0.25)", 224, 16),
    Case("vgg11_bn(width=0.5)", 64, 64),
    Case("vgg11_bn(width=0.5)", 64, 16, BF16),
    Case("vgg11_bn(width=0.25)", 64, 128, IN_PARTS),
    Case("vgg11_bn(width=0.25)", 224, 32),
    Case("vgg11_lrn(width=0.5)", 64, 32),
    Case("vgg16_bn_cifar", 32, 128),
    Case("resnet18", 64, 32),
    Case("resnet18", 64, 32, ADAMW),
    Case("resnet18", 64, 16, EMA),
    Case("resnet18", 224, 16),
    Case("googlenet", 64, 16),
    Case("googlenet", 224, 8),
    Case("alexnet", 227, 8),
    Case("nin", 64, 32),
    Case("resnet50", 64, 32),
    Case("densenet121", 64, 32, CONSTANT),
    Case("mobilenet_v1", 64, 32, CONSTANT),
    Case("inception_v3", 107, 16, CONSTANT),
    Case("convnext_tiny", 64, 32, CONSTANT),
    Case("squeezenet", 64, 32, CONSTANT),
    Case(NEW_WORDS, 64, 32),
    Case(NEW_WORDS, 64, 32, BF16),
)


@dataclass(frozen=True)
class Row:
    """Bytes that were told of a case, and those that were measured."""

    case: Case
    told: int
    measured: int

    @property
    def ratio(self) -> float:
        return self.told / self.measured


def main() -> int:
    arguments = _arguments()
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": cpu_name(),
        "processors": len(os.sched_getaffinity(0)),
        "command": " ".join(["python", "benchmarks/training_memory.py", *sys.argv[1:]]),
        "versions": {
            "Python": platform.python_version(),
            "vggc": __version__,
            "torch": version("torch"),
        },
    }
    stem = arguments.out or RESULTS / time.strftime("%Y-%m-%d-training-memory")
    rows: list[Row] = []
    for case in CASES:
        if arguments.nets and case.net.partition("(")[0] not in arguments.nets.split(","):
            continue
        row = measured(case)
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
        save(stem, markdown(about, rows), about, rows)
    print(markdown(about, rows))
    print(f"saved as {stem}.md and {stem}.json", file=sys.stderr)
    return int(any(not 1 / LIMIT <= row.ratio <= LIMIT for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default="", help="zoo names, with commas")
    parser.add_argument("--out", type=Path, help="where to save, without .md and .json")
    return parser.parse_args()


def measured(case: Case) -> Row:
    """A training of the case, and what is told of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_noise(folder / "images", case.side, STEPS * case.batch)
        run, peak = folder / "run", folder / "peak"
        arguments = [case.net, "--data", folder / "images", "--batch", case.batch, "--out", run]
        arguments += ["--input", case.side, "--epochs", EPOCHS, *case.options]
        command = [sys.executable, "-c", TRAIN, peak, "train", *arguments, "--device", "cpu"]
        subprocess.run([*map(str, command)], check=True, capture_output=True)
        summary = [sys.executable, "-m", "vggc", "summary", str(run), "--format", "json"]
        told = json.loads(subprocess.check_output(summary))["totals"]["training_bytes"]
        return Row(case, told, 1024 * int(peak.read_text()))


def write_noise(folder: Path, side: int, count: int) -> None:
    """Pictures of two classes, so many to train on and a few held out."""
    random = np.random.default_rng(0)
    for part, number in (("train", max(2, count)), ("val", HELD_OUT)):
        for index in range(number):
            place = folder / part / f"class{index % 2}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.png", compress_level=1)


# The table


def line(row: Row) -> str:
    case = row.case
    options = " ".join(option for option in case.options if option != "--set")
    cells = [case.net, f"{case.side}×{case.side}", str(case.batch), options]
    cells += [f"{row.told / 1e6:,.0f}", f"{row.measured / 1e6:,.0f}", f"{row.ratio:.2f}"]
    return "| " + " | ".join(cells) + " |"


def markdown(about: dict[str, object], rows: list[Row]) -> str:
    versions = about["versions"]
    assert isinstance(versions, dict)
    lines = [
        f"# {about['date']}: the memory of trainings on a CPU, told and measured",
        "",
        f"{about['machine']}, {about['processors']} processors; "
        + ", ".join(f"{name} {found}" for name, found in versions.items()),
        "",
        f"    {about['command']}",
        "",
        "MB of the training process at its peak; told by `vggc summary RUN`, measured over "
        f"{EPOCHS} epochs of {STEPS} steps.",
        "",
        "| net | images | in a step | options | told | measured | told / measured |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
        *map(line, rows),
    ]
    if rows:
        ratios = [row.ratio for row in rows]
        lines += ["", f"{len(rows)} cases, ratios from {min(ratios):.2f} to {max(ratios):.2f}."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
