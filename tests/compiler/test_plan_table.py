"""A plan as the table that C reads: what each call is given, and where that lies."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.lowering import lowered
from tests.support.nets import graph_of
from vggc.compiler.memory import lifetimes, placed
from vggc.compiler.plan_table import StoredWeights, TableEntry, c_text, table_entry
from vggc.compiler.targets import resolve
from vggc.ir.weights import save
from vggc.plan.plan import Plan
from vggc.support.tensors import HASHED


@pytest.fixture(scope="module")
def made() -> tuple[Plan, TableEntry]:
    graph = graph_of("conv3-8 | add(skip, conv3-8 act=none) | fc-4 | softmax", "3x8x8")
    plan, code = lowered(graph, 2, resolve("cpu", mcpu="haswell"))
    weights = {name: number for number, name in enumerate(dict.fromkeys(plan.weights))}
    return plan, table_entry(code.calls["net"], code.functions["net"], weights)


def test_each_call_reads_what_its_step_does(made: tuple[Plan, TableEntry]) -> None:
    plan, entry = made
    names = [*dict.fromkeys(plan.weights)]
    outputs = [entry.tensors[call.arguments[-1]].at for call in entry.calls]
    assert [call.step for call in entry.calls] == [step.name for step in plan.steps]
    for step, call in zip(plan.steps, entry.calls, strict=True):
        *given, _ = (entry.tensors[number] for number in call.arguments)
        read, weights = given[: len(step.reads)], given[len(step.reads) :]
        assert [(each.place, None if each.place == "input" else each.at) for each in read] == [
            ("arena", outputs[r]) if r >= 0 else ("input", None) for r in step.reads
        ]
        assert tuple(names[each.at] for each in weights) == step.weights
        assert {each.place for each in weights} <= {"weights"}


def test_values_lie_where_they_were_placed(made: tuple[Plan, TableEntry]) -> None:
    plan, entry = made
    placement = placed(lifetimes(plan))
    found = tuple(entry.tensors[call.arguments[-1]].at for call in entry.calls)
    assert found == placement.offsets
    assert entry.arena_bytes == placement.bytes
    (output,) = entry.outputs
    assert entry.tensors[output].shape == (2, 4)


def test_stored_weights_are_told_with_their_places_and_hashes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    large = np.arange(HASHED // 4 + 1, dtype=np.float32)
    small = np.arange(3, dtype=np.uint16)
    save(path, {"small": small, "large": large, "empty": np.zeros((0, 2), np.float32)})
    found, whole = StoredWeights.of(path), path.read_bytes()
    assert found.bytes == len(whole)
    assert found.header_sha256 == hashlib.sha256(whole[: found.header_bytes]).hexdigest()
    told = {each.name: each for each in found.tensors}
    for name, tensor in (("small", small), ("large", large)):
        each = told[name]
        assert whole[each.offset : each.offset + each.bytes] == tensor.tobytes()
    pieces = [hashlib.sha256(part).digest() for part in (large[:-1], large[-1:])]
    assert told["large"].sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert told["empty"].sha256 == hashlib.sha256().hexdigest()


def test_any_name_is_a_string_of_c(tmp_path: Path) -> None:
    names = ['a"b', "back\\slash", "größe", "??/trigraph", "*/", "line\nbreak", "%d", "\x017", ""]
    source, program = tmp_path / "names.c", tmp_path / "names"
    rows = ", ".join(map(c_text, names))
    source.write_text(
        f"#include <stdio.h>\nint main(void) {{ const char *names[] = {{{rows}}};\n"
        f'for (int i = 0; i < {len(names)}; i++) printf("%s%c", names[i], 0); }}'
    )
    subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", source, "-o", program], check=True)
    said = subprocess.run([program], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == names
