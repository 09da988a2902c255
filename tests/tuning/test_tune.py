"""Tuning: what is measured, what is kept, and what a compiled net makes of it."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.support.measured import Pretender, fastest
from tests.support.nets import TINY, program
from tests.support.worker_tasks import behave
from vggc.cli import cli
from vggc.compiler.codegen import linker
from vggc.compiler.error_budget import allotment
from vggc.compiler.targets import resolve
from vggc.ir.ops import RELU
from vggc.kernels.workloads import Choice, Conv, Dense, Map, Workload
from vggc.measure.verify import verify
from vggc.program import load
from vggc.runtime.artifact import sound_manifest
from vggc.runtime.plans import plan_for
from vggc.support.diagnostics import UserError
from vggc.tuning import database as databases
from vggc.tuning import measure, remote, revision, space, tuner
from vggc.tuning.database import (
    FAILED,
    RECORDS,
    WORKLOADS,
    KnownTimes,
    default_folder,
    opened,
    outdated,
    read,
)
from vggc.tuning.lookup import times_for
from vggc.tuning.machines import TunedCpu
from vggc.tuning.measure import (
    Failure,
    MeasuredTime,
    MeasuringMachine,
    TrackerAddress,
    TrialOutcome,
    _rounds,
    difference,
    held_bytes,
)
from vggc.tuning.search import TRUSTED, neighbours, proposals
from vggc.tuning.space import Space, Task, canonical, choice_of
from vggc.tuning.tuner import TunedLayer, TuningProgress, layers_of, tune
from vggc.tuning.workers import Crew, Died, Failed
from vggc_runtime.processors import num_cores

CONV = Conv(Map(1, 9, 9, 8, 1), Map(1, 9, 9, 16), (3, 3), (1, 1), (1, 1), None)
BF16 = Conv(
    Map(1, 28, 28, 64, 1, "bfloat16"), Map(1, 28, 28, 64, 0, "bfloat16"), (3, 3), (1, 1), (1, 1)
)
UINT8 = Conv(
    Map(1, 28, 28, 64, 1, "uint8", 128), Map(1, 28, 28, 64, 0, "uint8"), (3, 3), (1, 1), (1, 1)
)
DEEP = Conv(Map(1, 8, 8, 64, 1), Map(1, 8, 8, 64), (3, 3), (1, 1), (1, 1), None)
"""By every algorithm, Winograd's first; on a map so small that there are few hundred choices."""
HOST = resolve("cpu")


def task(workload: Workload = CONV, threads: int = 1) -> Task:
    return Task(canonical(workload), TunedCpu(resolve("cpu"), threads))


# ---------------------------------------------------------------- what is tuned


def test_a_task_is_a_workload_a_cpu_and_a_number_of_threads() -> None:
    assert task().text == task().text
    assert task().text != task(threads=2).text
    assert task().text != task(replace(CONV, stride=(2, 2))).text
    assert task().text != Task(CONV, TunedCpu(resolve("raspberry-pi/4b-aarch64"), 1)).text


def test_halos_and_activations_do_not_tell_tasks_apart() -> None:
    wide = replace(CONV, input=replace(CONV.input, halo=3), output=replace(CONV.output, halo=2))
    assert task(replace(wide, act=RELU)).text == task().text
    assert task(Dense(1, 8, 9, RELU)).text == task(Dense(1, 8, 9)).text


def test_equal_shapes_of_a_net_are_one_task() -> None:
    graph = program("net a input 8x16x16\n conv3-8 ×3 | conv3-9\n | fc-5").graph
    layers = layers_of([plan_for(graph, 1, HOST, "float32")], TunedCpu(HOST, 1))
    assert layers[0].layers == ("conv1_1", "conv1_2", "conv1_3")
    assert [len(layer.layers) for layer in layers] == [3, 1, 1]


def test_a_trace_says_its_choice() -> None:
    space = Space(task())
    assert len(space.task.choices) > 20
    for choice in space.task.choices[::7]:
        assert choice_of(space.schedule(choice)) == choice


def test_a_draw_takes_each_of_what_is_left_alike() -> None:
    left = task().choices[3:7]
    drawn = Counter(Space(task()).draw(left, seed) for seed in range(1, 401))
    assert set(drawn) == set(left)
    assert all(60 < count < 140 for count in drawn.values())


def test_neighbours_differ_in_one_knob_the_nearest_first() -> None:
    def at(a: int, b: int) -> Choice:
        return Choice("x", (("a", a), ("b", b)))

    among = [at(a, b) for a in (1, 2, 4, 8) for b in (1, 3)] + [Choice("y", (("a", 4),))]
    assert neighbours(at(4, 3), among) == [at(2, 3), at(4, 1), at(1, 3), at(8, 3)]


def test_every_choice_is_proposed_once_the_default_first() -> None:
    choices = task().choices
    best = choices[-1]
    measured = KnownTimes({best: 1.0, choices[1]: 2.0, choices[2]: FAILED})
    order = list(proposals(task(), measured))
    assert order[0] == choices[0]
    assert {choice.algorithm for choice in choices} <= {c.algorithm for c in order[:4]} | {
        choices[1].algorithm
    }
    assert set(order[: TRUSTED + 3]) >= set(choices[:TRUSTED]) - {choices[1], choices[2]}
    assert Counter(order) == Counter(set(choices) - measured.seconds.keys())
    near = [choice for choice in neighbours(best, choices) if choice not in choices[:TRUSTED]]
    assert order.index(near[0]) < TRUSTED + 4


# ---------------------------------------------------------------- the database


def test_what_is_added_is_read_back(tmp_path: Path) -> None:
    first, second, third = task().choices[:3]
    with opened(tmp_path) as database:
        database.add(task(), first, 3e-6)
        database.add(task(), second, 2e-6)
        database.add(task(threads=2), third, 1e-6)
        database.add(task(), third, FAILED)
        assert database.known == read(tmp_path)
    with opened(tmp_path) as database:
        database.add(task(), first, 1e-6)
    measured = read(tmp_path)[task().text]
    assert measured == KnownTimes({first: 1e-6, second: 2e-6, third: FAILED})
    assert measured.best(task().choices) == first
    assert read(tmp_path)[task(threads=2).text].best(task().choices) == third


def test_it_is_metaschedules_own(tmp_path: Path) -> None:
    from tvm.s_tir.meta_schedule.database import JSONDatabase

    with opened(tmp_path) as database:
        for number, choice in enumerate(task().choices[:4]):
            database.add(task(), choice, (4 - number) * 1e-6)
    store = JSONDatabase(work_dir=str(tmp_path))
    assert len(store) == 4
    best = store.get_top_k(store.get_all_tuning_records()[0].workload, 1)[0]
    assert [float(second) for second in best.run_secs] == pytest.approx([1e-6])
    assert best.trace.insts[0].kind.name == "GetSBlock"


def test_a_choice_that_is_none_any_more_is_not_taken(tmp_path: Path) -> None:
    gone, there = task().choices[:2]
    with opened(tmp_path) as database:
        database.add(task(), gone, 1e-6)
        database.add(task(), there, 2e-6)
    measured = read(tmp_path)[task().text]
    assert measured.best(task().choices[1:]) == there


def test_there_is_nothing_in_a_folder_that_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == {}


def damaged(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(folder)
    with pytest.raises(UserError), opened(folder):
        pass
    return str(caught.value)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    with opened(tmp_path / "db") as database:
        for choice in task().choices[:3]:
            database.add(task(), choice, 0.5)
    return tmp_path / "db"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '[0, [[[], []], [1e-6], {"kind": "llvm"}, null]]',
        '[7, [[["T"], []], [1.0], {"kind": "llvm"}, null]]',
    ],
    ids=lambda line: line[:20],
)
@pytest.mark.parametrize("name", [WORKLOADS, RECORDS])
def test_a_line_that_is_no_record_is_named(filled: Path, name: str, line: str) -> None:
    path = filled / name
    kept = path.read_text()
    path.write_text(f"{line}\n{kept}")
    assert f"{path} is damaged" in (text := damaged(filled))
    assert "line 1 is no" in text or "line 1 is a" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[0.5]", "[-1]"),
        ("[0.5]", "[NaN]"),
        ("[0.5]", "[1e300]"),
        ("[0.5]", '["1"]'),
        ("[0.5]", "[]"),
        ('"llvm"', '"cuda"'),
        ('"kind"', '"kinds"'),
        ('"GetSBlock"', '"Tensorize"'),
        ('"kernel"', '"root"'),
        ('"b0"', '"b7"'),
        ('"SampleCategorical"', '"Vectorize"'),
        ("vggc.knob.", "pragma."),
        ("null]]", '"x"]]'),
        ("[0,[", "[-1,["),
        ("[0,[", "[1,["),
        ("[0,[", "[true,["),
    ],
)
def test_a_record_that_says_something_else_is_refused(filled: Path, old: str, new: str) -> None:
    path = filled / RECORDS
    first, *rest = path.read_text().splitlines()
    assert old in first
    path.write_text("\n".join([first.replace(old, new), *rest, ""]))
    assert "line 1 is" in damaged(filled)


def test_a_task_that_was_changed_is_refused(filled: Path) -> None:
    path = filled / WORKLOADS
    number, module = json.loads(path.read_text())
    changed = module[:200] + ("A" if module[200] != "A" else "B") + module[201:]
    path.write_text(json.dumps([number, changed]) + "\n")
    assert "line 1 is no" in damaged(filled)


@pytest.fixture
def of_two_tasks(tmp_path: Path) -> Path:
    with opened(tmp_path / "two") as database:
        database.add(task(), task().choices[0], 0.5)
        database.add(task(threads=2), task().choices[1], 0.25)
    return tmp_path / "two"


def test_tasks_in_another_order_are_told_by_the_records(of_two_tasks: Path) -> None:
    """A record's task is the number of a line, and each of these lines is a task."""
    path = of_two_tasks / WORKLOADS
    first, second = path.read_text().splitlines()
    path.write_text(f"{second}\n{first}\n")
    assert f"line 1 is of another task than line 1 of {WORKLOADS}" in damaged(of_two_tasks)


def test_a_task_that_was_removed_is_told_by_the_records(of_two_tasks: Path) -> None:
    path = of_two_tasks / WORKLOADS
    path.write_text(path.read_text().splitlines()[1] + "\n")
    assert "line 1 is of another task" in damaged(of_two_tasks)


def test_a_record_of_before_they_named_their_tasks_is_read(of_two_tasks: Path) -> None:
    path, known = of_two_tasks / RECORDS, read(of_two_tasks)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for _, ((instructions, decisions), *_) in records:
        assert instructions.pop(1)[2] == ["vggc.task"]
        decisions[:] = [[number - 1, decision] for number, decision in decisions]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    assert read(of_two_tasks) == known


def test_a_file_that_is_too_large_is_refused_unread(filled: Path) -> None:
    with (filled / RECORDS).open("r+b") as file:
        file.truncate(80 * 2**20)
    assert "larger than 64 MiB" in damaged(filled)


def test_a_last_line_that_was_cut_off_is_dropped(filled: Path) -> None:
    path = filled / RECORDS
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert len(read(filled)[task().text].seconds) == 2
    with opened(filled) as database:
        database.add(task(), task().choices[2], 0.5)
    assert path.read_bytes() == whole


def renamed(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """From here on the kernels are of other code."""
    monkeypatch.setattr(space, "revision", lambda algorithms: code)


def test_seconds_of_other_code_count_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretender(monkeypatch, by_place)
    spec, folder = tmp_path / "two.vgg", tmp_path / "db"
    spec.write_text("net two input 8x9x9\n conv3-16 | conv3-16 stride=2")
    common = [str(spec), "--threads", "1", "--db", str(folder), "--json"]
    first = CliRunner().invoke(cli, ["tune", *common], catch_exceptions=False)
    before = read(folder)
    made = CliRunner().invoke(cli, ["compile", *common, "-o", str(tmp_path / "one")])
    assert json.loads(made.stdout)["tuned"] == 2
    assert "another version" not in first.stderr + made.stderr
    renamed(monkeypatch, "other")
    made = CliRunner().invoke(cli, ["compile", *common, "-o", str(tmp_path / "two")])
    assert json.loads(made.stdout)["tuned"] == 0
    number = json.loads(first.stdout)["measured"]
    told = f"{number:,} measurements are of kernels as they were in another version"
    assert made.stderr.count(told) == 1
    again = CliRunner().invoke(cli, ["tune", *common], catch_exceptions=False)
    assert f"{number:,} records are of kernels as they were in another version" in again.stderr
    assert json.loads(again.stdout)["outdated"] == json.loads(again.stdout)["measured"] == number
    made = CliRunner().invoke(cli, ["compile", *common, "-o", str(tmp_path / "three")])
    assert json.loads(made.stdout)["tuned"] == 2
    assert before.items() <= read(folder).items()


def test_records_of_another_tvm_are_no_damage(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose very words for a task may be others."""
    path = filled / WORKLOADS
    number, module = json.loads(path.read_text())
    raw = base64.b64decode(module).replace(b"0.27.0", b"0.26.0").replace(b"main", b"Main")
    path.write_text(json.dumps([number, base64.b64encode(raw).decode()]) + "\n")
    text, records = task().text, filled / RECORDS
    names = [space.digest(each) for each in (text, text.replace("0.27.0", "0.26.0"))]
    records.write_text(records.read_text().replace(*names))
    known = read(filled)
    assert task().text not in known
    assert outdated(known, [task()]) == sum(len(each.seconds) for each in known.values()) == 3
    assert outdated(known, [task(DEEP)]) == 0
    with opened(filled) as database:
        database.add(task(), task().choices[4], 0.25)
    assert read(filled)[task().text].seconds == {task().choices[4]: 0.25}
    assert outdated(read(filled), [task()]) == 3


def test_the_code_of_an_algorithm_is_all_that_it_imports_and_no_comment() -> None:
    winograds = {f"vggc.kernels.cpu.{name}" for name in ("conv", "winograd", "loops", "formats")}
    found = set(revision.closure(("vggc.kernels.cpu.winograd",)))
    assert found >= winograds | {"vggc.kernels.toom_cook"}
    assert "vggc.kernels.cpu.winograd" not in revision.closure(("vggc.kernels.cpu.dense",))
    of_conv, of_dense, of_depthwise = (
        revision.revision(TunedCpu(HOST, 1).algorithms(work))
        for work in (CONV, Dense(1, 8, 9), replace(CONV, groups=8))
    )
    assert len({of_conv, of_dense, of_depthwise}) == 3


@pytest.mark.parametrize(
    ("old", "new", "is_other"),
    [
        ("    step = 1\n", "    # The first.\n    step = 1\n", False),
        ('"""What it does."""', '"""What it did."""', False),
        ("step = 1", "step = 2", True),
    ],
)
def test_what_a_computer_does_not_read_is_no_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, is_other: bool
) -> None:
    text = 'def kernel():\n    """What it does."""\n    step = 1\n    return step\n'
    monkeypatch.syspath_prepend(tmp_path)

    def code(name: str, content: str) -> str:
        (tmp_path / f"{name}.py").write_text(content)
        return revision._code(name)

    name = f"template{abs(hash((old, new)))}"
    assert old in text
    assert (code(f"{name}a", text) != code(f"{name}b", text.replace(old, new))) == is_other


def test_a_large_file_is_made_smaller_by_what_counts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = task().choices[:2]
    with opened(tmp_path) as database:
        for seconds in (4e-6, 3e-6, 2e-6):
            database.add(task(), first, seconds)
        database.add(task(threads=2), first, 5e-6)
    old = task().text
    renamed(monkeypatch, "other")
    with opened(tmp_path) as database:
        database.add(task(), second, 1e-6)
        size = (tmp_path / RECORDS).stat().st_size
    monkeypatch.setattr(databases, "COMPACT_BYTES", size)
    with opened(tmp_path):
        assert (tmp_path / RECORDS).stat().st_size == size
    monkeypatch.setattr(databases, "COMPACT_BYTES", size - 1)
    with opened(tmp_path) as database:
        assert (tmp_path / RECORDS).read_text().count("\n") == 2
        database.add(task(), first, 2e-6)
    known = read(tmp_path)
    assert known[task().text].seconds == {second: 1e-6, first: 2e-6}
    assert known[old].seconds == {}
    assert sum(len(each.seconds) for each in known.values()) == 3  # nothing newer of two threads


def test_a_full_file_takes_no_more_and_is_still_read(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = (filled / WORKLOADS).stat().st_size + 1000
    monkeypatch.setattr(databases, "MAX_BYTES", limit)

    def fill() -> None:
        with opened(filled) as database:
            for choice in task().choices:
                database.add(task(), choice, 0.5)

    with pytest.raises(UserError, match="no room for another"):
        fill()
    assert (filled / RECORDS).stat().st_size <= limit
    assert len(read(filled)[task().text].seconds) > 3


def test_two_do_not_write_at_once(filled: Path) -> None:
    with opened(filled), pytest.raises(UserError, match="another `vggc tune`"), opened(filled):
        pass


# ---------------------------------------------------------------- measuring, pretended


def by_place(task: Task, choice: Choice) -> MeasuredTime:
    """The later by stated cost, the faster."""
    return MeasuredTime((1 + len(task.choices) - task.choices.index(choice)) * 1e-6, 1.0)


def two_layers() -> tuple[TunedLayer, ...]:
    graph = program("net a input 8x9x9\n conv3-16 | conv3-16 stride=2").graph
    return layers_of([plan_for(graph, 1, HOST, "float32")], TunedCpu(HOST, 1))


def deep_layers() -> tuple[TunedLayer, ...]:
    graph = program("net a input 64x8x8\n conv3-64").graph
    return layers_of([plan_for(graph, 1, HOST, "float32")], TunedCpu(HOST, 1))


def run(
    folder: Path, budget: float = 60.0, layers: tuple[TunedLayer, ...] | None = None
) -> TuningProgress:
    with opened(folder) as database:
        return tune(layers or two_layers(), database, budget, "cc", [None], lambda *_: None)


def test_all_is_measured_once_and_the_fastest_is_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretender = Pretender(monkeypatch, by_place)
    course = run(tmp_path)
    assert len(course.layers) == 2
    total = sum(len(layer.task.choices) for layer in course.layers)
    assert course.measured == len(pretender.ran) == len(set(pretender.ran)) == total
    assert all(layer.best == layer.task.choices[-1] for layer in course.layers)
    before, after = course.seconds or (0, 0)
    assert before > after == pytest.approx(2 * 2e-6)


def test_a_second_run_goes_on_where_the_first_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(task: Task, choice: Choice) -> MeasuredTime:
        if len(pretender.ran) > 20:
            raise KeyboardInterrupt
        return by_place(task, choice)

    pretender = Pretender(monkeypatch, interrupted)
    course = run(tmp_path)
    assert course.interrupted
    kept = {(text, choice) for text, known in read(tmp_path).items() for choice in known.seconds}
    assert len(kept) == course.measured > 8
    again = Pretender(monkeypatch, by_place)
    rest = run(tmp_path)
    assert not set(again.ran) & kept
    assert rest.measured + course.measured == sum(len(x.task.choices) for x in rest.layers)


def test_times_of_several_runs_are_told_in_one_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the machine is twice as slow, what is added is told as if it were not."""
    slowness = {"factor": 1.0}

    def seconds(task: Task, choice: Choice) -> MeasuredTime:
        if len(pretender.ran) > 24:
            slowness["factor"] = 2.0
        return MeasuredTime(slowness["factor"] * by_place(task, choice).seconds, 1.0)

    pretender = Pretender(monkeypatch, seconds)
    course = run(tmp_path)
    for layer in course.layers:
        for choice, found in read(tmp_path)[layer.task.text].seconds.items():
            assert found == pytest.approx(by_place(layer.task, choice).seconds)


def test_ctrl_c_waits_until_a_batch_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run tells is what the database knows."""
    Pretender(monkeypatch, by_place)
    original = databases.Database._append

    def interrupted(database: databases.Database, name: str, line: str) -> None:
        original(database, name, line)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(databases.Database, "_append", interrupted)
    course = run(tmp_path, layers=deep_layers())
    (layer,) = course.layers
    assert course.interrupted
    assert course.measured == len(read(tmp_path)[layer.task.text].seconds) == tuner.BATCH
    assert layer.best is not None


def test_a_failure_is_kept_and_never_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(task: Task, choice: Choice) -> TrialOutcome:
        wrong = choice == task.choices[-1]
        off = Failure("its output is off by 1.0e-01", own=True)
        return off if wrong else by_place(task, choice)

    Pretender(monkeypatch, seconds)
    course = run(tmp_path)
    assert course.failed == 2
    assert course.first_error == "its output is off by 1.0e-01"
    for layer in course.layers:
        assert layer.best == layer.task.choices[-2]
        assert read(tmp_path)[layer.task.text].seconds[layer.task.choices[-1]] == FAILED
    assert run(tmp_path).measured == 0


def test_where_the_default_fails_nothing_is_kept_against_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretender(monkeypatch, lambda task, choice: Failure("no compiler", own=False))
    course = run(tmp_path)
    reason = "its simplest kernel, with which others must agree: no compiler"
    assert [layer.error for layer in course.layers] == [reason] * 2
    assert course.measured == 0
    assert course.first_error == "no compiler"
    assert read(tmp_path) == {}


def test_what_need_not_fail_again_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full for a while costs no choice its place."""
    full = {"disk": True}

    def seconds(task: Task, choice: Choice) -> TrialOutcome:
        if full["disk"] and choice in task.choices[-5:]:
            return Failure("OSError: No space left on device", own=False)
        return by_place(task, choice)

    pretender = Pretender(monkeypatch, seconds)
    course = run(tmp_path)
    assert course.failed == 2 * 5
    assert len(pretender.ran) == len(set(pretender.ran))
    assert all(layer.best == layer.task.choices[-6] for layer in course.layers)
    full["disk"] = False
    course = run(tmp_path)
    assert (course.measured, course.failed) == (2 * 5, 0)
    assert all(layer.best == layer.task.choices[-1] for layer in course.layers)


@pytest.mark.parametrize("own", [True, False])
def test_where_the_default_fails_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    def seconds(task: Task, choice: Choice) -> TrialOutcome:
        wrong = choice == task.choices[0] != task.reference
        return Failure("its process ended", own) if wrong else by_place(task, choice)

    Pretender(monkeypatch, seconds)
    course = run(tmp_path, layers=deep_layers())
    (layer,) = course.layers
    assert layer.task.choices[0] != layer.task.reference
    assert layer.best == layer.task.choices[-1]
    assert course.measured == len(layer.task.choices) - 1
    found = fastest(times_for(HOST, tmp_path, 1)(DEEP, inf))
    assert found == (layer.best if own else None)


def test_a_record_that_fails_today_is_no_yardstick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (layer, _) = two_layers()
    with opened(tmp_path) as database:
        database.add(layer.task, layer.task.choices[7], 1e-9)

    def seconds(task: Task, choice: Choice) -> TrialOutcome:
        broken = choice == task.choices[7] and task.text == layer.task.text
        return Failure("it took more than 60 s", own=False) if broken else by_place(task, choice)

    Pretender(monkeypatch, seconds)
    course = run(tmp_path)
    total = sum(len(each.task.choices) for each in course.layers)
    assert course.measured == total - 1
    assert read(tmp_path)[layer.task.text].seconds[layer.task.choices[7]] == 1e-9


def test_who_was_fast_by_chance_has_to_be_so_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (layer, _) = two_layers()
    *_, lucky, best = layer.task.choices
    runs: Counter[Choice] = Counter()

    def seconds(task: Task, choice: Choice) -> TrialOutcome:
        if task.text != layer.task.text:
            return by_place(task, choice)
        runs[choice] += 1
        match choice:
            case _ if choice == lucky and runs[choice] == 1:
                return MeasuredTime(1e-9, 1.0)
            case _ if choice == best:
                return MeasuredTime(1e-6, 1.0)
            case _:
                return MeasuredTime(2e-6, 1.0)

    Pretender(monkeypatch, seconds)
    course = run(tmp_path)
    assert course.layers[0].best == best
    assert runs[lucky] > 1
    assert course.measured == sum(len(each.task.choices) for each in course.layers)


def test_every_task_is_checked_against_its_simplest_algorithm() -> None:
    for work, algorithm in (
        (DEEP, "direct"),
        (Dense(1, 64, 64), "gemv"),
        (BF16, "direct-bfloat16"),
    ):
        reference = task(work).reference
        assert reference.algorithm == algorithm
        assert reference == next(c for c in task(work).choices if c.algorithm == algorithm)
    assert task(DEEP).choices[0].algorithm.startswith("winograd")


def test_weights_are_measured_together_as_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the bytes that they take packed, Winograd's more than others."""
    plain = 4 * 64 * 64 * 9
    assert held_bytes(task(DEEP), of("direct")[0]) == plain
    assert held_bytes(task(DEEP), of("winograd6")[0]) >= plain * 64 // 9

    def size(task: Task, choice: Choice) -> int:
        return 7 if choice.algorithm == "winograd6" else 1

    batches: list[list[Choice]] = []
    original = tuner.TrialBatch

    def noted(**fields: Any) -> Any:
        made = original(**fields)
        batches.append(made.timed)
        return made

    monkeypatch.setattr(tuner, "TrialBatch", noted)
    monkeypatch.setattr(tuner, "held_bytes", size)
    monkeypatch.setitem(tuner.MAX_HELD, "cpu", 3 * 7)
    Pretender(monkeypatch, by_place)
    run(tmp_path, layers=deep_layers())
    assert len(batches[0]) < max(map(len, batches)) == tuner.BATCH + 2
    assert all(sum(size(task(DEEP), choice) for choice in batch) <= 3 * 7 for batch in batches)


def test_a_server_lost_before_anything_ran_is_no_batch_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretender(monkeypatch, by_place)
    losses = iter([Failed("no session")] * 5)
    original = tuner.Bench.finish

    def finish(bench: tuner.Bench) -> dict[Choice, TrialOutcome]:
        if loss := next(losses, None):
            bench.at = tuner.NOWHERE
            raise loss
        return original(bench)

    monkeypatch.setattr(tuner.Bench, "finish", finish)
    worth: list[float] = []

    def watch(course: TuningProgress, doing: str) -> None:
        worth.append(course.layers[0].idle)

    with opened(tmp_path) as database:
        server = TrackerAddress("127.0.0.1", 9190, "box")
        course = tune(deep_layers(), database, 60.0, "cc", [server], watch)
    assert len(course.losses) == 5
    assert set(worth[:12]) == {0}
    assert course.measured == len(course.layers[0].task.choices)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes seconds pass for the tuner; on their own they stand still."""
    began = now = time.monotonic()

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(tuner, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(tuner, "TuningProgress", partial(TuningProgress, started=began))
    return pass_by


def test_the_budget_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pass_time: Callable[[float], None]
) -> None:
    def slow(task: Task, choice: Choice) -> MeasuredTime:
        pass_time(1.0)
        return by_place(task, choice)

    pretender = Pretender(monkeypatch, slow)
    run(tmp_path, budget=30.0)
    assert 10 < len(pretender.ran) <= 30


def test_most_of_the_budget_goes_where_most_is_to_be_gained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pass_time: Callable[[float], None]
) -> None:
    layers = two_layers()
    heavy = layers[0].task.text

    def seconds(task: Task, choice: Choice) -> MeasuredTime:
        pass_time(1.0)
        return replace(by_place(task, choice), seconds=1e-3 if task.text == heavy else 1e-6)

    pretender = Pretender(monkeypatch, seconds)
    run(tmp_path, budget=100.0, layers=layers)
    counts = Counter(text for text, _ in pretender.ran)
    assert counts[heavy] > 2 * counts[layers[1].task.text] > 0


# ---------------------------------------------------------------- outputs, processes


def test_an_output_may_differ_by_rounding_only() -> None:
    right = np.random.default_rng(0).standard_normal((4, 100, 100)).astype(np.float32)
    assert difference(right * np.float32(1 + 1e-6), right) is None
    wrong = right.copy()
    wrong[3, 99, 99] += 1
    assert "off by" in str(difference(wrong, right))
    wrong[0, 0, 0] = np.nan
    assert "not finite" in str(difference(wrong, right))


def test_in_fewer_bits_an_output_may_differ_by_their_rounding() -> None:
    right = np.random.default_rng(0).standard_normal((4, 100, 100)).astype(np.float32)
    rounded = (right.view(np.uint32) >> 16).astype(np.uint16)
    assert difference(rounded + 1, rounded, "bfloat16") is None
    assert difference(rounded + 1, rounded)
    wrong = rounded.copy()
    wrong[2, 50, 50] ^= 1 << 15
    assert "in one place" in str(difference(wrong, rounded, "bfloat16"))


def test_a_process_that_dies_hangs_or_raises_is_one_failure() -> None:
    crew = Crew(2)
    try:
        assert crew.map(behave, [("well",)] * 2, 60.0) == ["well"] * 2  # they take time to start
        calls = [(how,) for how in ("well", "dies", "raises", "well", "hangs", "well")]
        results = crew.map(behave, calls, 3.0)
    finally:
        crew.stop()
    assert [r for r in results if isinstance(r, str)] == ["well"] * 3
    died, raised, hung = results[1], results[2], results[4]
    assert isinstance(died, Died)
    assert "SIGSEGV" in str(died)
    assert died.crashed
    assert type(raised) is Failed
    assert str(raised) == "ValueError: last line"
    assert isinstance(hung, Died)
    assert "more than 3 s" in str(hung)
    assert not hung.crashed


@pytest.mark.parametrize("workload", [Dense(2, 4096, 8), DEEP, BF16, UINT8], ids=repr)
def test_inputs_are_measured_with_as_many_zeros_as_behind_a_relu(workload: Workload) -> None:
    """Some kernels leave out what is multiplied by zero."""
    of_task = task(workload)
    kernel = measure.kernel_of(of_task, of_task.reference)
    arguments = measure._TaskArguments(of_task, measure._MeasuringPlace(None, "cpu"))
    x = arguments._tensors(kernel)[0].numpy()
    if isinstance(workload, Conv):
        x = x[:, 1:-1, 1:-1]
        assert (arguments.shared[0].numpy()[:, 0] == workload.input.zero).all()
    zero = workload.input.zero if isinstance(workload, Conv) else 0
    assert 0.35 < (x == zero).mean() < 0.45


def test_a_time_that_no_clock_tells_divides_nothing() -> None:
    tick = measure.RESOLUTION
    found = _rounds({0: lambda: tick, 1: lambda: 3 * tick}, lambda told: None)
    assert found == {0: MeasuredTime(tick, 1.0), 1: MeasuredTime(3 * tick, pytest.approx(3.0))}


# ---------------------------------------------------------------- measuring in earnest


def run_for_real(
    folder: Path, layers: tuple[TunedLayer, ...], until: Callable[[TunedLayer], bool]
) -> TuningProgress:
    """Tunes on this machine until that is so for each layer."""
    target = resolve("cpu")

    def watch(course: TuningProgress, doing: str) -> None:
        if all(map(until, course.layers)):
            raise KeyboardInterrupt

    with opened(folder) as database:
        return tune(layers, database, 300.0, linker(target), [None], watch)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database from a few seconds with the tiny net."""
    folder = tmp_path_factory.mktemp("tuned")
    graph = program(TINY).graph
    target = resolve("cpu")
    layers = layers_of([plan_for(graph, 1, target, "float32")], TunedCpu(target, 1))[:2]
    course = run_for_real(folder, layers, until=lambda layer: layer.best is not None)
    assert course.first_error is None
    assert course.measured > 8
    return folder


def test_times_are_of_the_order_of_microseconds(tuned: Path) -> None:
    for measured in read(tuned).values():
        assert all(1e-8 < seconds < 1e-2 for seconds in measured.seconds.values())


def test_a_wrong_kernel_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that computes something else is found by its output."""
    layers = two_layers()[:1]
    _, wrong, *_ = proposals(layers[0].task, KnownTimes())
    original = Crew.map

    def swapped(crew: Crew, function: Any, calls: Sequence[Any], patience: float) -> list[Any]:
        other = [
            (replace(task, workload=replace(task.workload, act=RELU)), choice, *rest)
            if choice == wrong
            else (task, choice, *rest)
            for task, choice, *rest in calls
        ]
        return original(crew, function, other, patience)

    monkeypatch.setattr(tuner.Crew, "map", swapped)
    monkeypatch.setattr(tuner, "BATCH", 3)
    course = run_for_real(tmp_path, layers, until=lambda layer: layer.tried > 2)
    measured = read(tmp_path)[layers[0].task.text]
    assert measured.seconds[wrong] == FAILED
    assert "off by" in str(course.first_error)
    assert course.layers[0].best not in (None, wrong)


# ---------------------------------------------------------------- compile


def test_compile_takes_what_was_measured_and_verify_what_was_compiled(
    tiny_file: Path, tuned: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "artifact"
    arguments = ["compile", str(tiny_file), "--db", str(tuned), "--threads", "1", "-o", str(folder)]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert "2 of 6 kernels tuned by measurement, 4 by the cost model" in done.stderr
    kernels = {entry.layer: entry for entry in sound_manifest(folder).largest.kernels}
    assert kernels["conv1_1"].chosen_by == "measurement"
    assert kernels["conv2_1"].chosen_by == "cost model"
    assert kernels["pool1"].chosen_by == "only" if "pool1" in kernels else True
    assert all(result.passed for result in verify(folder))


def test_an_artifact_keeps_choices_of_which_no_database_knows(
    tiny_file: Path, tmp_path: Path
) -> None:
    database, folder = tmp_path / "db", tmp_path / "artifact"
    target = resolve("cpu")
    calls = plan_for(program(TINY).graph, 1, target, "float32")
    unusual: dict[str, Choice] = {}
    with opened(database) as store:
        for layer in layers_of([calls], TunedCpu(target, 3)):
            default, choice = layer.task.choices[0], layer.task.choices[-1]
            store.add(layer.task, default, 2e-6)
            store.add(layer.task, choice, 1e-6)
            unusual |= dict.fromkeys(layer.layers, choice)
    arguments = ["compile", str(tiny_file), "--db", str(database), "--threads", "3"]
    CliRunner().invoke(cli, [*arguments, "-o", str(folder)], catch_exceptions=False)
    for entry in sound_manifest(folder).largest.kernels:
        if entry.chosen_by == "measurement":
            assert Choice(entry.algorithm, tuple(entry.knobs.items())) == unusual[entry.layer]
    for name in (WORKLOADS, RECORDS):
        (database / name).unlink()
    assert all(result.passed for result in verify(folder))


def test_json_tells_how_many_kernels_are_tuned(
    tiny_file: Path, tuned: Path, tmp_path: Path
) -> None:
    arguments = ["compile", str(tiny_file), "--json", "--threads", "1"]
    for options, expected in ((["--db", str(tuned)], (2, 4)), (["--no-db"], (0, 6))):
        folder = tmp_path / f"artifact{expected[0]}"
        done = CliRunner().invoke(cli, [*arguments, *options, "-o", str(folder)])
        made = json.loads(done.stdout)
        assert (made["tuned"], made["by_cost_model"]) == expected


def test_compile_reads_the_default_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    target = resolve("cpu")
    of_nothing = times_for(target, None, 1)
    folder = default_folder()
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "vggc" / "tuning")
    with opened(folder) as database:
        database.add(task(), task().choices[0], 2e-6)
        database.add(task(), task().choices[5], 1e-6)
    assert fastest(times_for(target, None, 1)(CONV, inf)) == task().choices[5]
    assert fastest(times_for(target, None, 2)(CONV, inf)) is None
    assert fastest(times_for(target, None, 1, ignore=True)(CONV, inf)) is None
    assert fastest(of_nothing(CONV, inf)) is None


def test_measurements_for_another_number_of_threads_are_told(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        database.add(task(), task().choices[0], 2e-6)
        database.add(task(threads=3), task(threads=3).choices[0], 2e-6)

    def notes(threads: int, work: Workload) -> list[str]:
        times_of = times_for(HOST, tmp_path, threads)
        times_of(work, inf)
        return times_of.notes

    assert notes(1, CONV) == notes(3, CONV) == notes(2, DEEP) == []
    assert notes(2, CONV) == [
        "there are measurements for 1 and 3 threads, and none for 2: each number has its own"
    ]


def test_a_database_that_no_writer_ever_ends_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / RECORDS)
    with pytest.raises(UserError, match="it is a named pipe, not a file"):
        times_for(resolve("cpu"), tmp_path, 1)


def test_a_lock_that_no_reader_ever_opens_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / databases.LOCK)
    with pytest.raises(UserError, match="cannot write"), opened(tmp_path):
        pass


def test_a_record_of_a_task_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        database.add(task(), task().choices[0], 2e-6)
    (tmp_path / WORKLOADS).write_text("")
    with pytest.raises(UserError, match=f"line 1 is of the task 0, and {WORKLOADS} has 0"):
        times_for(resolve("cpu"), tmp_path, 1)


def of(algorithm: str) -> list[Choice]:
    """The choices of an algorithm for `DEEP` in order."""
    return [choice for choice in task(DEEP).choices if choice.algorithm == algorithm]


def test_a_record_counts_for_every_error_that_its_choice_keeps_to(tmp_path: Path) -> None:
    """Whatever error was allowed when it was measured."""
    loose = task(DEEP)
    assert loose.text == replace(loose, max_error=0).text
    with opened(tmp_path) as database:
        for place, algorithm in enumerate(("winograd6", "winograd4", "winograd2", "direct")):
            database.add(loose, of(algorithm)[0], (2 * place + 2) * 1e-6)
            database.add(loose, of(algorithm)[1], (2 * place + 1) * 1e-6)
    times_of = times_for(HOST, tmp_path, 1)
    found = TunedCpu(HOST, 1).algorithms(DEEP)
    assert len({each.error for each in found}) == 4
    for each in found:
        assert fastest(times_of(DEEP, each.error)) == of(each.name)[1]


def test_what_was_never_compared_with_the_default_is_not_taken(tmp_path: Path) -> None:
    """Measured within a small error, direct kernels say nothing against Winograd's."""
    strict = replace(task(DEEP), max_error=0)
    with opened(tmp_path) as database:
        for number, choice in enumerate(strict.choices[:9]):
            database.add(strict, choice, (number + 1) * 1e-3)
    times_of = times_for(HOST, tmp_path, 1)
    assert fastest(times_of(DEEP, 0)) == strict.choices[0]
    assert fastest(times_of(DEEP, 1)) is None
    with opened(tmp_path) as database:
        database.add(task(DEEP), task(DEEP).choices[0], 1e-2)
    assert fastest(times_of(DEEP, 1)) is None
    assert fastest(times_for(HOST, tmp_path, 1)(DEEP, 1)) == strict.choices[0]


def test_tune_measures_what_compile_chooses_among(tmp_path: Path, tiny_file: Path) -> None:
    """At any error: each of the kernels that compile asks for is tuned, with the same choices."""
    target, graph = resolve("cpu"), program(TINY.replace("3x16x16", "32x16x16")).graph
    calls = plan_for(graph, 1, target, "float32")
    offered = []
    for budget in (1.0, 1e-5, 1e-6, 0.0):
        share = allotment([calls], target, budget).share
        layers = layers_of([calls], TunedCpu(target, 1), share)
        by_text = {layer.task.text: layer.task for layer in layers}
        asked = [
            (step.workload, Task(canonical(step.workload), TunedCpu(target, 1)))
            for step in calls.steps
        ]
        for workload, unlimited in asked:
            if task_ := by_text.get(unlimited.text):
                assert task_.choices == TunedCpu(target, 1).choices(workload, share)
            else:
                assert len(TunedCpu(target, 1).choices(workload, share)) < 2
        offered.append(sum(len(layer.task.choices) for layer in layers))
    assert offered == sorted(offered, reverse=True)
    assert offered[0] > offered[-1]


def test_the_cost_model_counts_the_threads_that_are_asked_for(tmp_path: Path) -> None:
    """And the manifest says how many those are."""
    spec = tmp_path / "deep.vgg"
    spec.write_text("net deep input 3x14x14\n conv3-512 ×2")
    work = replace(DEEP, input=Map(1, 14, 14, 512, 1), output=Map(1, 14, 14, 512))
    chosen = {}
    for threads in (1, 48):
        folder = tmp_path / f"artifact{threads}"
        arguments = ["compile", str(spec), "--threads", str(threads), "-o", str(folder)]
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert f" with {threads} thread" in done.stdout
        manifest = sound_manifest(folder)
        assert manifest.target.attrs["num-cores"] == threads
        _, entry = [kernel for kernel in manifest.largest.kernels if kernel.workload == "Conv"]
        chosen[threads] = Choice(entry.algorithm, tuple(entry.knobs.items()))
        calls = plan_for(load(str(spec)).graph, 1, HOST, "float32")
        share = allotment([calls], HOST, 1e-5).share
        assert chosen[threads] == replace(task(work, threads), max_error=share).choices[0]
        assert all(result.passed for result in verify(folder))
    assert chosen[1] != chosen[48]


def test_threads_are_for_cpus(tiny_file: Path) -> None:
    done = CliRunner().invoke(
        cli, ["compile", str(tiny_file), "--target", "cuda", "--threads", "2"]
    )
    assert "`--threads` has nothing to say here" in str(done.exception)


def test_a_net_tuned_within_one_error_is_compiled_within_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretender(monkeypatch, by_place)
    monkeypatch.setattr(tuner, "BATCH", 100)  # soon done: all are measured
    spec, database = tmp_path / "deep.vgg", tmp_path / "db"
    large = replace(DEEP, input=Map(1, 28, 28, 64, 1), output=Map(1, 28, 28, 64))
    spec.write_text("net deep input 64x28x28\n conv3-64 | conv3-64")
    common = [str(spec), "--threads", "1", "--db", str(database), "--json"]

    def invoked(command: str, *more: str) -> dict[str, Any]:
        done = CliRunner().invoke(cli, [command, *common, *more], catch_exceptions=False)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    first = invoked("tune", "--max-error", "1e-6")
    assert 0 < first["measured"] < len(task(large).choices)
    for error, tuned in (("1e-6", 2), ("0", 2), ("1e-2", 0)):
        folder = tmp_path / f"artifact{error}"
        made = invoked("compile", "--max-error", error, "-o", str(folder))
        assert (made["tuned"], made["by_cost_model"]) == (tuned, 2 - tuned)
        limit = float(error) / 2**0.5
        for kernel in sound_manifest(folder).largest.kernels:
            if kernel.workload == "Conv":
                assert kernel.algorithm in {
                    c.algorithm for c in TunedCpu(HOST, 1).choices(large, limit)
                }
    second = invoked("tune", "--max-error", "1e-2")
    assert second["measured"] + first["measured"] == len(task(large).choices)
    made = invoked("compile", "--max-error", "1e-2", "-o", str(tmp_path / "last"))
    assert made["tuned"] == 2


def test_where_nobody_is_at_home_there_is_no_default_database(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert times_for(HOST, None, 1).notes == []
    done = CliRunner().invoke(cli, ["tune", str(tiny_file)])
    assert "it belongs into the home folder, and nobody is at home" in str(done.exception)


def test_a_default_database_that_may_not_be_read_is_told(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = CliRunner().invoke(cli, ["compile", str(tiny_file), "-o", str(tmp_path / "artifact")])
    assert done.exit_code == 0
    assert f"no measurement of yours is known: {tmp_path / 'cache'}" in done.stderr
    assert "Not a directory" in done.stderr


def test_a_database_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no tuning database"):
        times_for(resolve("cpu"), tmp_path, 1)
    with pytest.raises(UserError, match="there is no tuning database"):
        times_for(resolve("cuda"), tmp_path, 1)


@pytest.mark.parametrize("change", ["algorithm", "knobs", "count"])
def test_kernels_that_a_net_does_not_have_are_refused(
    tiny_artifact: Callable[..., Path], change: str
) -> None:
    from vggc.compiler.choose import rebuilt

    folder = tiny_artifact()
    manifest = sound_manifest(folder)
    (entry,) = manifest.entries
    first = next(e for e in entry.kernels if e.chosen_by != "only")
    rest = [e for e in entry.kernels if e is not first]
    at = entry.kernels.index(first)
    match change:
        case "algorithm":
            rest.insert(at, replace(first, algorithm="magic"))
        case "knobs":
            rest.insert(at, replace(first, knobs={"rows": 10**6}))
    broken = replace(manifest, entries=(replace(entry, kernels=tuple(rest)),))
    with pytest.raises(UserError, match=r"tells (of )?other kernels than"):
        rebuilt(folder, broken)


# ---------------------------------------------------------------- the command


def invoke(*arguments: str) -> tuple[int, str]:
    """The exit code and what goes to stderr, of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "vggc", "tune", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "cuda"], "this machine has no NVIDIA GPU to measure on"),
        (["--target", "cuda", "--threads", "2"], "`--threads` has nothing to say here"),
        (["--target", "raspberry-pi/4b-aarch64"], "cannot be measured on this machine"),
        (["--rpc", "nowhere", "--key", "k"], "`nowhere` is no address of a tracker"),
        (["--rpc", "127.0.0.1:1", "--key", "k"], "no tracker answers at 127.0.0.1:1"),
        (["--rpc", "127.0.0.1:1"], "--rpc HOST:PORT and --key KEY go together"),
        (["--budget", "ten"], "write 90s, 10m or 1h"),
        (["--budget", "0s"], "out of range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused(tiny_file: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, ["tune", str(tiny_file), *arguments])
    assert message in f"{done.exception}{done.stderr}"


def test_a_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def __init__(self, environment: dict[str, str]) -> None: ...
        def ask(self, *arguments: object, patience: float) -> None: ...
        def stop(self) -> None: ...
        def result(self) -> object:
            raise Died("it took more than 30 s")

    monkeypatch.setattr(remote, "MeasuringWorker", Silent)
    with pytest.raises(UserError, match="one was asked, and it took more than 30 s"):
        remote.machine_of([TrackerAddress("127.0.0.1", 9190, "box")], None)


@pytest.mark.parametrize(
    ("found", "asked", "message"),
    [
        (
            [MeasuringMachine(2, "znver5"), MeasuringMachine(4, "znver5")],
            (None, None),
            "runs kernels on 4 threads",
        ),
        (
            [MeasuringMachine(2, "znver5")],
            (3, None),
            "runs kernels on 2 threads, and 3 are asked for",
        ),
        (
            [MeasuringMachine(2, "znver5"), MeasuringMachine(2, "znver4")],
            (None, None),
            "a server is a znver4",
        ),
        ([MeasuringMachine(2, "znver4")], (None, "znver5"), "counts for a znver5"),
    ],
)
def test_servers_that_are_not_alike_are_told(
    monkeypatch: pytest.MonkeyPatch,
    found: list[MeasuringMachine],
    asked: tuple[int | None, str | None],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        among(found, *asked, monkeypatch)


def test_what_is_measured_is_known_where_a_server_says_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alike = [MeasuringMachine(2, "znver5"), MeasuringMachine(2, "znver5")]
    assert among(alike, None, None, monkeypatch) == MeasuringMachine(2, "znver5")
    assert among([MeasuringMachine(2, None)], 2, "znver5", monkeypatch) == MeasuringMachine(2, None)


def among(
    found: list[MeasuringMachine],
    threads: int | None,
    cpu: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> MeasuringMachine:
    """What comes of servers that say this of themselves."""
    answers = iter(found)

    class Answering:
        def __init__(self, environment: dict[str, str]) -> None: ...
        def ask(self, *arguments: object, patience: float) -> None: ...
        def stop(self) -> None: ...
        def result(self) -> MeasuringMachine:
            return next(answers)

    monkeypatch.setattr(remote, "MeasuringWorker", Answering)
    return remote.machine_of([TrackerAddress("127.0.0.1", 9190, "box")] * len(found), threads, cpu)


MAGIC = (0x2F271).to_bytes(4, "little")


def said(text: str) -> bytes:
    return MAGIC + len(text).to_bytes(4, "little") + text.encode()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 400", "what listens there is no tracker"),
        (b"", "it does not answer"),
        (MAGIC, "it does not answer"),
        (MAGIC + b"\x00\x00", "it does not answer"),
        (MAGIC + b"\xff\xff\xff\x7f", "what listens there is no tracker"),
        (MAGIC + b"\xff\xff\xff\xff", "what listens there is no tracker"),
        (MAGIC + b"\x00\x00\x01\x00[", "it does not answer"),
        *(
            (said(text), "what listens there is no tracker")
            for text in (
                "",
                "{",
                "null",
                "[]",
                "[0]",
                "[0, {}]",
                "[1, {}]",
                '[0, {"server_info": 1, "queue_info": {}}]',
                '[0, {"server_info": [{}], "queue_info": {}}]',
                '[0, {"server_info": [{"key": 7}], "queue_info": {}}]',
                '[0, {"server_info": [], "queue_info": {"k": {"free": "x"}}}]',
                '[0, {"server_info": [], "queue_info": {"k": null}}]',
                "[" * 100_000,
            )
        ),
        (said('[0, {"server_info": [], "queue_info": {}}]'), "it knows none at all"),
        (
            said('[0, {"server_info": [{"key": "server:pi"}], "queue_info": {}}]'),
            "it knows pi",
        ),
        (
            said(json.dumps([0, {"server_info": [{"key": "server:k"}] * 65, "queue_info": {}}])),
            "65 of them, and 64 at most",
        ),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_whatever_a_tracker_says_ends_soon_and_is_told(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, message: str
) -> None:
    monkeypatch.setattr(remote, "CONNECT", 0.5)
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)
            over.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        started = time.monotonic()
        with pytest.raises(UserError) as caught:
            remote.find_servers(f"127.0.0.1:{listener.getsockname()[1]}", "k")
        took = time.monotonic() - started
        over.set()
        thread.join()
    assert message in str(caught.value)
    assert took < 10


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.0.7:9190", ("192.168.0.7", 9190)),
        ("build-box.local:1", ("build-box.local", 1)),
        ("[::1]:9190", ("::1", 9190)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert remote.parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["[::1:9190", "::1]:9190", "::1:9190", "box", "box:", ":9190", "box:0", "box:65536", "[box]:1"],
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(UserError, match="is no address of a tracker"):
        remote.parse_address(text)


def test_where_nothing_can_be_measured_it_ends_with_1(tiny_file: Path, tmp_path: Path) -> None:
    code, text = invoke(str(tiny_file), "--db", str(tmp_path / "db"), "--budget", "0.001s")
    assert code == 1
    assert "nothing could be measured: the budget ended before the first measurement" in text


def test_a_run_that_measures_nothing_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no error where something was measured before."""
    spec, folder = tmp_path / "one.vgg", tmp_path / "db"
    spec.write_text("net one input 8x4x4\n conv1-16")
    command = ["tune", str(spec), "--threads", "1", "--db", str(folder)]

    def invoked(outcome: TrialOutcome | None, *more: str) -> tuple[int, str]:
        Pretender(monkeypatch, lambda task, choice: outcome or by_place(task, choice))
        done = CliRunner().invoke(cli, [*command, *more])
        return done.exit_code, f"{done.stderr}{done.exception or ''}"

    full = Failure("No space left on device", own=False)
    code, text = invoked(full)
    assert code == 1
    assert "nothing could be measured: No space left on device" in text
    monkeypatch.setattr(tuner, "BATCH", 4)
    monkeypatch.setattr(TuningProgress, "left", property(lambda course: float(course.measured < 4)))
    assert "4 choices measured." in invoked(None)[1]
    monkeypatch.undo()
    code, text = invoked(full)
    assert code == 0
    assert "Nothing was measured in this run: No space left on device." in text
    assert "choices measured" in invoked(None)[1]
    code, text = invoked(None)
    assert code == 0
    assert "Nothing is left to measure: the database knows all choices." in text


def test_whose_cpu_is_measured_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pretender(monkeypatch, by_place)
    spec = tmp_path / "one.vgg"
    spec.write_text("net one input 8x4x4\n conv1-16")
    here = str(HOST.attrs["mcpu"])
    other = "haswell" if here != "haswell" else "x86-64-v3"
    command = ["tune", str(spec), "--threads", "1", "--db", str(tmp_path / "db"), "--json"]
    for options, told in (([], False), (["--mcpu", here], False), (["--mcpu", other], True)):
        done = CliRunner().invoke(cli, [*command, *options], catch_exceptions=False)
        assert json.loads(done.stdout)["measured_cpu"] == here
        assert (f"Measured is {here}, and it counts for {other}." in done.stderr) == told


def test_more_threads_than_cores_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pretender(monkeypatch, by_place)
    spec = tmp_path / "one.vgg"
    spec.write_text("net one input 8x4x4\n conv1-16")
    processors = os.cpu_count() or 1
    command = ["tune", str(spec), "--db", str(tmp_path / "db"), "--threads"]
    for threads in {num_cores(), processors}:
        told = f"{threads} threads share {num_cores()} of this machine's cores."
        done = CliRunner().invoke(cli, [*command, str(threads)], catch_exceptions=False)
        assert (told in done.stderr) == (threads > num_cores())
    done = CliRunner().invoke(cli, [*command, str(processors + 1)])
    assert f"runs no kernel on {processors + 1} threads" in str(done.exception)


def test_a_compiler_that_does_not_link_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "one.vgg"
    spec.write_text("net one input 8x4x4\n conv3-16")
    monkeypatch.setenv("CXX", "false")
    code, text = invoke(str(spec), "--db", str(tmp_path / "db"), "--budget", "60s")
    assert code == 1
    assert "nothing could be measured: it cannot be compiled: " in text
    assert read(tmp_path / "db") == {}


@pytest.mark.slow
def test_ctrl_c_leaves_a_database_to_go_on_with(tiny_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "db"
    command = [sys.executable, "-m", "vggc", "tune", str(tiny_file), "--db", str(folder), "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while not (folder / RECORDS).exists() or (folder / RECORDS).stat().st_size == 0:
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    first = json.loads(out)
    assert first["interrupted"]
    assert sum(len(known.seconds) for known in read(folder).values()) == first["measured"] > 0
    done = subprocess.run([*command, "--budget", "10s"], capture_output=True, text=True, check=True)
    second = json.loads(done.stdout)
    both = sum(len(known.seconds) for known in read(folder).values())
    assert both == first["measured"] + second["measured"] > first["measured"]
