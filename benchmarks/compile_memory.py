"""What commands take of memory, told and measured: `python benchmarks/compile_memory.py`.

Each command runs in a process of its own, whose peak is what the system tells of it. Told is what
the command refuses by (`vggc/ir/needs.py`). bfloat16 and int8 are compiled for a CPU that has
them, by its name; what is compiled for another CPU is not run.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sklearn.datasets

from vggc import __version__
from vggc.ir import needs
from vggc.ir.needs import Need, compiling
from vggc.program import load
from vggc.runtime.artifact import spec_graph
from vggc_runtime.folder import WEIGHTS

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"
OTHER_CPU = ("--mcpu", "znver4")
NETS = ("tiny_vgg", "resnet18", "googlenet", "nin", "alexnet", "vgg16", "vgg16_bn", "vgg19")
KILOBYTE = 1024 if platform.system() == "Linux" else 1
"""Of what the system tells a peak in."""


MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""A small process between this one and the command: a child counts what its parent had when it
began.
"""


@dataclass(frozen=True)
class Case:
    """A command, and what it is told to need; of an artifact it reads, the folder."""

    arguments: tuple[str, ...]
    need: Need
    artifact: Path | None = None


def cases(net: str, folder: Path, engines: Sequence[str]) -> Iterator[Case]:
    for style, need in needs.EXPORTS.items():
        yield Case(("export", net, "--format", style, "-o", str(folder / f"net.{style}")), need)
    yield Case(
        ("compile", net, *OTHER_CPU, "--precision", "bfloat16", "-o", str(folder / "bfloat16")),
        needs.COMPILING,
    )
    images = ("--calibrate", str(PHOTOGRAPHS))
    yield Case(
        ("compile", net, *OTHER_CPU, "--precision", "int8", *images, "-o", str(folder / "int8")),
        needs.COMPILING_INT8,
    )
    yield Case(
        ("compile", net, "--target", "cuda", "-o", str(folder / "cuda")), needs.COMPILING_CUDA
    )
    halves = ("--target", "cuda", "--precision", "float16", "--batch", "1,8,32")
    yield Case(
        ("compile", net, *halves, "-o", str(folder / "float16")), compiling("cuda", "float16", 3)
    )
    artifact = folder / "float32"
    yield Case(("compile", net, "-o", str(artifact)), needs.COMPILING)
    image = str(PHOTOGRAPHS / "china.jpg")
    yield Case(("run", str(artifact), "--input", image), needs.RUNNING, artifact)
    yield Case(("predict", str(artifact), image), needs.RUNNING, artifact)
    yield Case(("verify", str(artifact)), needs.VERIFYING, artifact)
    few = ("--rounds", "2")
    yield Case(("bench", str(artifact), "--layers", *few), needs.PROFILING, artifact)
    for engine in engines:
        against = ("bench", str(artifact), "--against", engine, *few)
        yield Case(against, needs.beside([engine]), artifact)


def told(case: Case, net: str) -> int:
    """The bytes that a command is told to need."""
    if case.artifact is None:
        return case.need.bytes(load(net).graph)
    stored = (case.artifact / WEIGHTS).stat().st_size
    return case.need.bytes(spec_graph(case.artifact), stored=stored)


def peak(arguments: Sequence[str]) -> int:
    """The most bytes that a command has in memory at once.

    Raises: RuntimeError where it fails.
    """
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "vggc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        (reason, *_) = [line for line in done.stderr.splitlines() if "error:" in line] or ["failed"]
        raise RuntimeError(f"{' '.join(arguments[:1])}: {reason}")
    return int(done.stdout) * KILOBYTE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default=",".join(NETS), help="Names of the zoo, or files.")
    parser.add_argument("--commands", default="", help="Only these: export, compile, run, …")
    parser.add_argument("--engines", default="torch,onnxruntime", help="Those to bench beside.")
    options = parser.parse_args()
    wanted = [*filter(None, options.commands.split(","))]
    engines = [*filter(None, options.engines.split(","))]
    print(f"vggc {__version__}, Python {platform.python_version()}, {platform.machine()}; MB")
    print(f"{'net':<12}{'command':<40}{'weights':>9}{'told':>9}{'measured':>10}{'ratio':>7}")
    for net in options.nets.split(","):
        size = needs.weight_bytes(load(net).graph)
        with tempfile.TemporaryDirectory() as folder:
            for case in cases(net, Path(folder), engines):
                if wanted and case.arguments[0] not in (*wanted, "compile"):
                    continue
                try:
                    measured = peak(case.arguments)
                except RuntimeError as error:
                    print(f"{net:<12}{error}", flush=True)
                    continue
                known = told(case, net)
                shown = " ".join(
                    word for word in case.arguments if "/" not in word and word not in (net, "-o")
                )
                numbers = f"{size / 1e6:9.1f}{known / 1e6:9.1f}{measured / 1e6:10.1f}"
                print(f"{net:<12}{shown:<40}{numbers}{known / measured:7.2f}", flush=True)


if __name__ == "__main__":
    main()
