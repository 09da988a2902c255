"""Whether a change leaves the code of the zoo's kernels as it is.

    git checkout BEFORE && python benchmarks/same_kernels.py keep /tmp/kernels
    git checkout AFTER && python benchmarks/same_kernels.py compare /tmp/kernels

Kept is the TIR of every kernel that a net of the zoo can be compiled to, for CPUs of several kinds
and for GPUs: of each workload one kernel an algorithm, with the knobs of least stated cost.
Compared are they by TVM's structural equality, to which names of variables are nothing. Takes some
minutes; exits with 1, and names what differs, where anything does.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi

from vggc.compiler.targets import resolve, tvm_target
from vggc.kernels import cpu, cuda
from vggc.kernels.workloads import Kernel, Workload
from vggc.program import load, zoo
from vggc.runtime.plans import plan_for
from vggc.support.precision import ArtifactPrecision

MACHINES: tuple[tuple[str, str | None, tuple[ArtifactPrecision, ...]], ...] = (
    ("cpu", "znver4", ("float32", "bfloat16", "int8")),
    ("cpu", "haswell", ("float32",)),
    ("cpu", "x86-64", ("float32",)),
    ("cuda", None, ("float32",)),
)


def kernels() -> Iterator[tuple[str, Kernel]]:
    """Every kernel under a name that tells it from the others."""
    for kind, mcpu, precisions in MACHINES:
        target = resolve(kind, (), mcpu)
        seen: set[Workload] = set()
        for net in zoo():
            graph = load(net).graph
            for precision in precisions:
                for batch in (1, 4):
                    calls = plan_for(graph, batch, target, precision)
                    for workload in dict.fromkeys(step.workload for step in calls.steps):
                        if workload in seen:
                            continue
                        seen.add(workload)
                        for kernel in made(kind, workload, target):
                            yield f"{kind} {mcpu} {workload} {kernel.algorithm}", kernel


def made(kind: str, workload: Workload, target: Any) -> Iterator[Kernel]:
    if kind == "cuda":
        yield cuda.kernel(workload)
        return
    for algorithm in cpu.algorithms(workload, cpu.Machine.of(tvm_target(target))):
        if knobs := tuple(algorithm.knobs()):
            yield algorithm.kernel(min(knobs, key=algorithm.cost))


def file_of(folder: Path, name: str) -> Path:
    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("keep", "compare"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    count, differing, files = 0, [], set()
    for name, kernel in kernels():
        count += 1
        path = file_of(given.folder, name)
        files.add(path)
        if given.what == "keep":
            path.write_bytes(gzip.compress(tvm.ir.save_json(kernel.func).encode(), 1))
        elif not path.exists():
            differing.append(f"new: {name}")
        else:
            before = tvm.ir.load_json(gzip.decompress(path.read_bytes()).decode())
            if not tvm_ffi.structural_equal(before, kernel.func):
                differing.append(f"other code: {name}")
    gone = len(set(given.folder.glob("*.json.gz")) - files) if given.what == "compare" else 0
    print(f"{count} kernels {'kept' if given.what == 'keep' else 'compared'}")
    print(
        *differing,
        *([f"gone: {gone}"] if gone else []),
        sep="\n",
        end="" if not differing else "\n",
    )
    sys.exit(bool(differing or gone))


if __name__ == "__main__":
    main()
