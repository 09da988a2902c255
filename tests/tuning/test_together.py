"""Tuning for several batches: what shares a weight is measured and chosen together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

import pytest
from click.testing import CliRunner

from tests.support.measured import Pretender
from tests.support.nets import program
from vggc.cli import cli
from vggc.compiler.targets import resolve
from vggc.kernels.workloads import Choice, Workload
from vggc.runtime.plans import plan_for
from vggc.tuning.database import opened
from vggc.tuning.lookup import times_for
from vggc.tuning.machines import TunedCpu
from vggc.tuning.measure import MeasuredTime
from vggc.tuning.space import Task, canonical
from vggc.tuning.together import Together
from vggc.tuning.tuner import TuningProgress, layers_of, tune

HOST = resolve("cpu")
BATCHES = (1, 4)
SPEC = "net a input 64x1x1\n fc-256 | fc-40"


def together() -> Together:
    graph = program(SPEC).graph
    plans = [plan_for(graph, batch, HOST, "float32") for batch in BATCHES]
    return Together.of(plans, HOST, TunedCpu(HOST, 1), 1e-5)


def by_lot(task: Task, choice: Choice) -> MeasuredTime:
    """A time that follows from nothing but the names, so that batches want different forms."""
    lot = crc32(f"{task.workload} {choice}".encode()) % 1000
    return MeasuredTime((200 + lot) * 1e-6, 1.0)


def run(folder: Path, turns: int, joint: Together | None = None) -> TuningProgress:
    """Tunes for so many turns, each of which measures one kernel."""
    joint = joint or together()
    graph, left = program(SPEC).graph, turns

    def watch(course: TuningProgress, doing: str) -> None:
        nonlocal left
        left -= not doing
        if left < 0:
            raise KeyboardInterrupt

    plans = [plan_for(graph, batch, HOST, "float32") for batch in BATCHES]
    layers = layers_of(plans, joint.machine, joint.may.share)
    with opened(folder) as database:
        return tune(layers, database, 600.0, "cc", [None], watch, joint)


def measured(folder: Path, joint: Together) -> dict[Workload, Mapping[Choice, float]]:
    """What `vggc compile` reads of the net's workloads."""
    lookup = times_for(HOST, folder, 1)
    times = {work: lookup(work, joint.may.share) for work in joint.may.offers}
    return {work: seconds for work, seconds in times.items() if seconds}


def relative(
    joint: Together,
    made: Mapping[Workload, Choice],
    times: Mapping[Workload, Mapping[Choice, float]],
) -> float:
    """The measured times of the plans, each relative to the least that it could take."""
    free = [[work for work in calls if work in made] for calls in joint.may.calls]
    return sum(
        sum(times[work][made[work]] for work in calls)
        / sum(min(times[work].values()) for work in calls)
        for calls in free
    )


def test_the_joint_choice_is_never_worse_than_the_untuned_one_and_gets_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However early tuning ends, once what would be taken untuned was measured."""
    Pretender(monkeypatch, by_lot)
    joint = together()
    untuned = joint.may.by_cost
    gains = []
    for turns in (4, 2, 4, 8, 200):
        run(tmp_path, turns, joint)
        times = measured(tmp_path, joint)
        assert all(untuned[work] in times[work] for work in untuned), "the first turns measure it"
        made = joint.may.chosen(times)
        assert relative(joint, made, times) <= relative(joint, untuned, times)
        gains.append(relative(joint, untuned, times) / relative(joint, made, times))
    assert gains[-1] > 1.2


def test_compile_takes_what_tune_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pretender(monkeypatch, by_lot)
    joint = together()
    course = run(tmp_path, 6, joint)
    made = joint.may.chosen(measured(tmp_path, joint))
    told = {layer.task.text: layer.best for layer in course.layers}
    assert told == {
        Task(canonical(work), joint.machine).text: choice for work, choice in made.items()
    }
    offers = {
        work: next(o for o in joint.may.offers[work] if choice in o.choices)
        for work, choice in made.items()
    }
    places = [place for place in zip(*joint.may.calls, strict=True) if place[0] in made]
    assert all(len({offers[work].form for work in place}) == 1 for place in places)
    assert [*course.batches] == [*BATCHES]
    before, after = course.seconds or (0, 0)
    assert before == pytest.approx(sum(both[0] for both in course.batches.values() if both))
    assert before > after > 0


def test_what_the_fastest_of_one_batch_needs_of_the_others_is_measured_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image gains much by a form that costs four images little: then both are measured."""
    joint = together()
    place = next(
        place for place in zip(*joint.may.calls, strict=True) if place[0] in joint.may.offers
    )
    default = {joint.may.by_cost[work] for work in place}
    one, four = place
    forms = {offer.form for offer in joint.may.offers[four]}
    fast = [o.choice for o in joint.may.offers[one] if o.form in forms and o.choice not in default]
    fast = [choice for choice in fast if choice.algorithm == "gemv"][-1:]

    def seconds(task: Task, choice: Choice) -> MeasuredTime:
        return MeasuredTime(1e-6 if choice in fast else 1e-3, 1.0)

    Pretender(monkeypatch, seconds)
    with opened(tmp_path) as database:
        task = Task(canonical(one), joint.machine)
        for choice in (task.choices[0], *fast):
            database.add(task, choice, seconds(task, choice).seconds)
    run(tmp_path, 5, joint)
    times = measured(tmp_path, joint)
    assert joint.may.chosen(times)[one] in fast
    assert joint.may.chosen(times)[four] in times[four]


def test_a_command_tunes_all_batches_and_compile_tells_what_was_tuned_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretender(monkeypatch, by_lot)
    spec, db = tmp_path / "a.vgg", tmp_path / "db"
    spec.write_text(SPEC)
    arguments = ["tune", str(spec), "--batch", "4,1", "--threads", "1", "--db", str(db), "--json"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [each["batch"] for each in found["batches"]] == [1, 4]
    assert [each["batch"] for each in found["kernels"]] == [1, 1, 4, 4]
    assert found["best_ms"] == pytest.approx(sum(each["best_ms"] for each in found["batches"]))
    table = CliRunner().invoke(cli, arguments[:-1], catch_exceptions=False).stdout
    assert "fc1, batch 4" in table
    assert "all, batch 1" in table

    def notes(*batches: int) -> list[str]:
        lookup = times_for(HOST, db, 1)
        for batch in batches:
            for step in plan_for(program(SPEC).graph, batch, HOST, "float32").steps:
                lookup(step.workload, 1.0)
        return lookup.notes

    assert notes(1, 4) == notes(1) == []
    assert notes(1, 2, 16) == [
        "there are measurements for batches of 4, and none for 2 and 16: `vggc tune` with the same "
        "`--batch` measures these"
    ]
