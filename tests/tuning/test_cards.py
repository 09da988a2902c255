"""Tuning for cards: what tells them apart, how kernels are measured there, whose records decide.

No card is here. What measures is tried on an emulated one (`tests/support/gpu_on_cpu.cpp`), whose
events tell times that mean nothing and are the same each time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.support import gpu_on_cpu
from tests.support.broken_kernels import CRASHING, WRONG
from tests.support.device import needs_compilers
from tests.support.measured import fastest
from tests.support.nets import program
from vggc.cli import cli
from vggc.compiler.cards import card_for, card_like, variants
from vggc.compiler.codegen import linker
from vggc.compiler.targets import resolve
from vggc.ir.ops import RELU
from vggc.kernels import cuda
from vggc.kernels.cuda import A100, H200
from vggc.kernels.cuda.algorithm import moved_bytes
from vggc.kernels.workloads import Choice, Conv, Map, buffer_shape
from vggc.runtime.artifact import sound_manifest
from vggc.runtime.plans import plan_for
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.tuning import lookup, measure, remote, rotation, tuner
from vggc.tuning.database import FAILED, RECORDS, opened, read
from vggc.tuning.lookup import CardLookup, times_for
from vggc.tuning.machines import TunedCard, card_in, tuned_card
from vggc.tuning.measure import TrackerAddress, difference, format_of, held_bytes
from vggc.tuning.rotation import MAX_SETS, rotating, sets_of
from vggc.tuning.space import Task, canonical
from vggc.tuning.tuner import layers_of, tune
from vggc.tuning.workers import Died, Failed

MIB = 2**20
AN_H200 = TunedCard("NVIDIA H200", "sm_90", 132, 50 * MIB)
AN_H100 = TunedCard("NVIDIA H100 PCIe", "sm_90", 114, 50 * MIB)
AN_A100 = TunedCard("NVIDIA A100-SXM4-40GB", "sm_80", 108, 40 * MIB)


def half(side: int, channels: int, halo: int = 0) -> Map:
    return Map(
        batch=1,
        height=side,
        width=side,
        channels=channels,
        halo=halo,
        format="float16",
        vector=8,
    )


DEEP = Conv(half(28, 512, 1), half(28, 512), (3, 3), (1, 1), (1, 1))
SMALL = Conv(half(8, 8, 1), half(8, 16), (3, 3), (1, 1), (1, 1))


def task(card: TunedCard = AN_H200, workload: Conv = DEEP) -> Task:
    return Task(canonical(workload), card)


# ---------------------------------------------------------------- what is tuned


def test_a_task_is_of_a_card_its_architecture_and_its_multiprocessors() -> None:
    said = json.loads(task().text)
    assert said["target"] == {"card": "NVIDIA H200", "arch": "sm_90", "multiprocessors": 132}
    assert "threads" not in said
    others = [replace(AN_H200, name="x"), replace(AN_H200, multiprocessors=131), AN_A100]
    assert len({task(card).text for card in (AN_H200, *others)}) == 4
    assert task(replace(AN_H200, cache=0)).text == task().text
    assert task(workload=replace(DEEP, act=RELU)).text == task().text


def test_a_task_tells_its_card() -> None:
    assert card_in(json.loads(task().text)) == AN_H200
    assert card_in({"target": {"mcpu": "znver5"}}) is None


@pytest.mark.parametrize(
    "target",
    [
        {"card": "x\n", "arch": "sm_90", "multiprocessors": 1},
        {"card": "x" * 65, "arch": "sm_90", "multiprocessors": 1},
        {"card": "x", "arch": "sm_9000", "multiprocessors": 1},
        {"card": "x", "arch": "sm_90", "multiprocessors": "1"},
        "card",
    ],
    ids=str,
)
def test_what_says_something_else_is_no_card(target: Any) -> None:
    assert card_in({"target": target}) is None


def test_a_card_is_what_its_driver_says() -> None:
    assert tuned_card("NVIDIA H200", "9.0", 132, 50 * MIB) == AN_H200
    assert tuned_card("NVIDIA RTX PRO 6000", "12.0", 188, 128 * MIB).arch == "sm_120"


@pytest.mark.parametrize(
    "said",
    [
        ("NVIDIA H200", "nine", 132, 0),
        ("NVIDIA\x1b[2J", "9.0", 132, 0),
        ("", "9.0", 132, 0),
        ("NVIDIA H200", "9.0", 0, 0),
        ("NVIDIA H200", "9.0", 10**9, 0),
        ("NVIDIA H200", "9.0", 132, 2**40),
    ],
    ids=str,
)
def test_a_driver_that_says_nonsense_is_not_believed(said: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="what its driver says"):
        tuned_card(*said)


def test_what_is_not_known_of_a_card_is_that_of_one_like_it() -> None:
    assert card_like("sm_90", 132) == H200
    half_of_it = card_like("sm_90", 66)
    assert (half_of_it.half_rate, half_of_it.memory_rate) == (H200.half_rate / 2, H200.memory_rate)
    assert card_like("sm_100", 132) == replace(H200, arch="sm_100")
    assert card_like("sm_86", 84).block_shared == 99 * 2**10 < A100.block_shared
    assert card_for(("sm_86",)).block_shared == 99 * 2**10


def test_choices_are_ordered_by_the_stated_cost_on_the_card() -> None:
    assert task().choices[0] == cuda.choices(DEEP, H200)[0]
    assert {*task().choices} == {*cuda.choices(DEEP, H200)}
    assert len(task().choices) > len(task(AN_A100).choices) > 300


def test_all_must_agree_with_the_simplest_that_tensor_cores_can_do() -> None:
    assert task().reference.algorithm == task(AN_A100).reference.algorithm == "mma"


def test_what_other_cards_can_run_is_measured_first() -> None:
    """So that a net for all of them can be compiled by the records of the newest."""
    many = replace(DEEP, input=replace(DEEP.input, batch=8), output=replace(DEEP.output, batch=8))
    of_many = task(workload=many)
    assert of_many.firsts[0] == of_many.choices[0]
    assert of_many.choices[0].algorithm == "wgmma_patches"
    assert len(of_many.firsts) > 3
    for archs in (["sm_90a"], ["sm_90"], ["sm_80", "sm_90"], ["sm_89", "sm_90"]):
        allowed = cuda.choices(many, card_for(archs))
        assert next(choice for choice in of_many.choices if choice in allowed) in of_many.firsts


# ---------------------------------------------------------------- how it is measured


@pytest.mark.parametrize("card", [AN_H200, AN_A100], ids=str)
def test_between_two_uses_of_a_set_the_cache_is_filled_by_others(card: TunedCard) -> None:
    for side, channels in ((224, 64), (112, 128), (28, 512), (14, 512)):
        work = Conv(half(side, channels, 1), half(side, channels), (3, 3), (1, 1), (1, 1))
        sets = sets_of(task(card, work))
        assert 2 <= sets < MAX_SETS
        assert (sets - 1) * moved_bytes(work) >= card.cache
        assert sets * rotation.rounds_of(sets) >= rotation.CALLS
    assert sets_of(task(card, SMALL)) == MAX_SETS


def test_all_that_rotates_is_counted_as_memory() -> None:
    """Several choices are measured in turn, and each has its own."""
    choice = task().choices[0]
    assert held_bytes(task(), choice) >= sets_of(task()) * moved_bytes(DEEP) > AN_H200.cache
    assert held_bytes(task(), choice) < 3 * AN_H200.cache


def test_a_kernel_is_called_once_for_each_set() -> None:
    kernel = AN_H200.kernel(DEEP, next(each for each in task().choices if splits(each) > 1))
    assert kernel.scratch
    function = rotating(kernel, 5)["main"]
    assert len(function.params) == 5 * len(kernel.arguments)
    (block,) = function.body.blocks
    arguments = [binding.value.args[1] for binding in block.bindings[: 2 * 5 : 2]]
    assert [argument for call in arguments for argument in call] == [*function.params]
    assert tuple(function.ret_ty.fields[0].shape) == buffer_shape(DEEP.output)


def splits(choice: Choice) -> int:
    """How many blocks share a tile."""
    return dict(choice.knobs).get("splits", 1)


@needs_compilers
def test_code_is_built_for_the_architecture_of_the_card_alone(tmp_path: Path) -> None:
    library = tmp_path / "kernel.so"
    of_small = task(workload=SMALL)
    assert rotation.build(of_small, of_small.choices[0], library, linker(AN_H200.target)) is None
    held = library.read_bytes()
    assert b"sm_90a" in held
    assert not any(arch in held for arch in (b"sm_80", b"compute_80", b"compute_90"))
    for card, arch in (
        (AN_H200, "sm_90a"),
        (AN_A100, "sm_80"),
        (replace(AN_A100, arch="sm_86"), "sm_86"),
    ):
        assert card.target.archs == (arch,)
    unknown = task(replace(AN_H200, arch="sm_81"), SMALL)
    reason = rotation.build(unknown, unknown.choices[0], tmp_path / "none.so", "cc")
    assert "NVRTC on sm_81" in str(reason)


def test_halves_may_differ_by_their_rounding() -> None:
    right = np.random.default_rng(0).standard_normal((4, 50, 50)).astype(np.float16)
    stored = right.view(np.uint16)
    assert difference(stored ^ 1, stored, "float16") is None
    wrong = stored.copy()
    wrong[2, 25, 25] ^= 1 << 15
    assert "in one place" in str(difference(wrong, stored, "float16"))
    wrong[2, 25, 25] = 0x7FC0  # what nothing was written to
    assert "not finite" in str(difference(wrong, stored, "float16"))
    assert format_of(task()) == "float16"


def test_noise_is_of_numbers_of_the_format() -> None:
    noise = np.random.default_rng(0).random(1000, np.float32) - np.float32(0.5)
    halves = measure._stored(noise, "float16", "uint16").view(np.float16)
    assert np.abs(halves - noise).max() < 2**-11
    wide = measure._stored(noise, "bfloat16", "uint16").astype(np.uint32) << 16
    assert np.abs(wide.view(np.float32) - noise).max() < 2**-8
    short = measure._stored(noise, "tf32", "float32")
    assert not (short.view(np.uint32) & 0x1FFF).any()
    assert 0 < np.abs(short - noise).max() < 2**-10
    assert measure._stored(noise, "float16", "float32") is noise  # a bias


@pytest.mark.parametrize("server", [None, TrackerAddress("127.0.0.1", 9190, "box")], ids=str)
@pytest.mark.parametrize(
    ("failure", "own"),
    [
        (Failed("an illegal memory access was encountered", crashed=True), True),
        (Died("its process ended with SIGSEGV", crashed=True), True),
        (Died("it took more than 60 s"), False),
    ],
    ids=str,
)
def test_what_ends_the_use_of_a_card_is_the_choices_own_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Failed,
    own: bool,
    server: TrackerAddress | None,
) -> None:
    """Wherever it is; what may be the machine's fault costs no choice its place."""
    (layer,) = layers_of([_plan_of_small()], AN_H200)
    bad = layer.task.choices[3]
    assert bad != layer.task.reference
    crashes = 0

    class Crew:
        def __init__(self, size: int) -> None: ...
        def stop(self) -> None: ...
        def map(self, function: object, calls: list[object], patience: float) -> list[object]:
            return [None for _ in calls]

    class Bench(tuner.Bench):
        def is_there(self) -> bool:
            return True

        def start(self, batch: tuner.TrialBatch, built: Any) -> None:
            self.batch = batch
            self.trials = [built[choice] for choice in batch.timed]

        def finish(self) -> dict[Choice, Any]:
            nonlocal crashes
            if bad in self.batch.timed:
                crashes += 1
                self.at = self.batch.timed.index(bad)
                raise failure
            return {choice: tuner.MeasuredTime(1e-6, 1.0) for choice in self.batch.choices}

    monkeypatch.setattr(tuner, "Crew", Crew)
    monkeypatch.setattr(tuner, "Bench", Bench)
    with opened(tmp_path) as database:
        course = tune((layer,), database, 60.0, "cc", [server], lambda *_: None)
        seconds = database.measured(layer.task).seconds
    assert seconds.get(bad) == (FAILED if own else None)
    assert course.measured == len(layer.task.choices) - 1
    assert crashes == (1 if own or server is None else tuner.MAX_BLAMED)
    assert len(course.losses) == (0 if own or server is None else tuner.MAX_BLAMED)


def _plan_of_small() -> Any:
    graph = program("net one input 8x8x8\n conv3-16").graph
    return plan_for(graph, 1, AN_H200.target, "float16")


# ---------------------------------------------------------------- whose records decide


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of the database that comes with vggc."""
    monkeypatch.setattr(lookup, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "shipped"


def record(folder: Path, card: TunedCard, best: Choice | int, work: Conv = DEEP) -> Choice:
    """Puts a card's measurements into a database: which choice was the fastest, or at which place
    among those that all the cards here can run.
    """
    of_card = task(card, work)
    if isinstance(best, int):
        allowed = cuda.choices(work, card_for(("sm_80", "sm_90")))
        best = [choice for choice in of_card.choices if choice in allowed][best]
    with opened(folder) as database:
        for choice in of_card.firsts:
            database.add(of_card, choice, 2e-5)
        database.add(of_card, best, 1e-5)
    return best


def decided(folder: Path | None, *archs: str) -> tuple[Choice | None, list[str]]:
    """What a database says to whoever compiles for architectures."""
    times_of = times_for(resolve("cuda", archs), folder, 1)
    return fastest(times_of(replace(DEEP, act=RELU), inf)), times_of.notes


def test_records_count_where_code_runs_on_their_card(tmp_path: Path) -> None:
    best = record(tmp_path, AN_A100, 9)
    words = "NVIDIA A100-SXM4-40GB (sm_80, 108 multiprocessors)"
    told = f"records of {words} decide on 1 distinct kernel"
    assert decided(tmp_path, "sm_80") == (best, [told])
    assert decided(tmp_path, "sm_80", "sm_90", "compute_90") == (best, [told])
    assert decided(tmp_path, "compute_80")[0] == best
    choice, notes = decided(tmp_path, "sm_90")
    assert choice is None
    assert notes == [f"there are measurements on {words}: code for sm_90 runs on no such card"]


def test_of_several_cards_the_newest_and_largest_decides(tmp_path: Path) -> None:
    """Whichever was measured first; where it has no record, the next."""
    of_a100 = record(tmp_path, AN_A100, 9)
    of_h200 = record(tmp_path, AN_H200, 7)
    of_h100 = record(tmp_path, AN_H100, 8)
    assert len({of_a100, of_h200, of_h100}) == 3
    assert decided(tmp_path, "sm_90")[0] == of_h200
    assert decided(tmp_path, "sm_80")[0] == of_a100
    times_of = times_for(resolve("cuda", ["sm_80", "sm_90"]), tmp_path, 1)
    assert isinstance(times_of, CardLookup)
    assert times_of.cards == [AN_H200, AN_H100, AN_A100]
    other = replace(DEEP, stride=(2, 2), output=half(14, 512))
    of_other = record(tmp_path, AN_A100, 5, other)
    times_of = times_for(resolve("cuda", ["sm_80", "sm_90"]), tmp_path, 1)
    assert fastest(times_of(other, inf)) == of_other
    assert [*times_of.decided] == [AN_A100]


def test_what_was_measured_here_decides_before_what_comes_with_vggc(
    tmp_path: Path, shipped: Path
) -> None:
    of_h200 = record(shipped, AN_H200, 7)
    assert decided(None, "sm_80", "sm_90")[0] == of_h200
    own = tmp_path / "own"
    of_a100 = record(own, AN_A100, 9)
    assert decided(own, "sm_80", "sm_90")[0] == of_a100
    assert decided(own, "sm_90")[0] == of_h200
    mine = record(own, AN_H200, 8)
    assert decided(own, "sm_90")[0] == mine
    times_of = times_for(resolve("cuda", ["sm_90"]), None, 1, ignore=True)
    assert fastest(times_of(DEEP, inf)) is None


def test_a_card_with_kernels_of_its_own_has_no_say_in_the_others(tmp_path: Path) -> None:
    """Code for newer cards could run on it, and never does."""
    of_a100, of_h200 = record(tmp_path, AN_A100, 9), record(tmp_path, AN_H200, 7)
    target = resolve("cuda", ["sm_80", "sm_90a", "compute_90"])
    made = {
        arch: times_for(each, tmp_path, 1, whole=target.archs)
        for arch, each in variants(target).items()
    }
    assert {arch: fastest(times_of(DEEP, inf)) for arch, times_of in made.items()} == {
        "": of_a100,
        "sm_90a": of_h200,
    }
    notes = [note for times_of in made.values() for note in times_of.notes]
    assert all(note.startswith("records of") for note in notes)


@pytest.mark.parametrize("others", [("sm_90",), ("sm_80", "sm_90a"), ("sm_80", "sm_90")], ids=str)
def test_what_the_other_architectures_cannot_run_is_not_taken(
    tmp_path: Path, others: tuple[str, ...]
) -> None:
    """One choice is compiled for all of them: with no more shared memory, nor other instructions,
    than all have.
    """
    allowed = cuda.choices(DEEP, card_for(others))
    best = next(choice for choice in task().choices if choice not in allowed)
    record(tmp_path, AN_H200, best)
    assert decided(tmp_path, "sm_90a")[0] == best
    first = next(choice for choice in task().choices if choice in allowed)
    assert decided(tmp_path, *others)[0] in task().firsts
    assert decided(tmp_path, *others)[0] in allowed
    with opened(tmp_path) as database:
        database.add(task(), first, 1.5e-5)
    assert decided(tmp_path, *others)[0] == first


def test_what_was_never_compared_with_the_default_is_not_taken(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        database.add(task(), task().choices[5], 1e-6)
    assert decided(tmp_path, "sm_90a")[0] is None
    with opened(tmp_path) as database:
        database.add(task(), task().choices[0], 1e-5)
    assert decided(tmp_path, "sm_90a")[0] == task().choices[5]


def test_a_record_on_another_kind_of_machine_than_its_task_is_refused(tmp_path: Path) -> None:
    record(tmp_path, AN_H200, 7)
    path = tmp_path / RECORDS
    path.write_text(path.read_text().replace('"kind":"cuda"', '"kind":"llvm"', 1))
    with pytest.raises(UserError, match="line 1 is a measurement for neither"):
        read(tmp_path)
    line = path.read_text().splitlines()[0]
    start = line.index('{"kind"')
    path.write_text(f'{line[:start]}{{"kind":"llvm"}},null]]\n')
    with pytest.raises(UserError, match="on another kind of machine than its task's"):
        read(tmp_path)


def test_what_comes_with_vggc_is_a_database() -> None:
    """It may have no records, but none that is damaged, or of a machine that nobody has."""
    assert lookup.SHIPPED.is_dir()
    for text in read(lookup.SHIPPED):
        assert "on CPU" not in text


# ---------------------------------------------------------------- the command


def answering(monkeypatch: pytest.MonkeyPatch, *answers: TunedCard | Failed | str) -> None:
    """Whoever is asked for its card answers so, one after the other."""
    left = iter(answers)

    class Answering:
        def __init__(self, environment: dict[str, str]) -> None: ...
        def ask(self, *arguments: object, patience: float) -> None: ...
        def stop(self) -> None: ...
        def result(self) -> TunedCard | str:
            if isinstance(answer := next(left), Failed):
                raise answer
            return answer

    monkeypatch.setattr(remote, "MeasuringWorker", Answering)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([AN_H200, AN_A100], "the servers have different cards: NVIDIA A100"),
        ([AN_H200, "TVM finds none"], "a server `box` has no NVIDIA GPU"),
        ([Failed("it took more than 30 s")], "that is free: one was asked, and it took more"),
    ],
    ids=str,
)
def test_servers_without_the_same_card_are_told(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], message: str
) -> None:
    answering(monkeypatch, *answers)
    with pytest.raises(UserError, match=message):
        remote.card_of([TrackerAddress("127.0.0.1", 9190, "box")] * len(answers))


def test_servers_with_the_same_card_measure_together(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, AN_H200, replace(AN_H200, cache=0))
    assert remote.card_of([TrackerAddress("127.0.0.1", 9190, "box")] * 2) == AN_H200


Tune = Callable[..., str]


@pytest.fixture
def tune_small(tmp_path: Path) -> Tune:
    """What hinders `vggc tune` of a small net for a card."""
    spec = tmp_path / "small.vgg"
    spec.write_text("net small input 8x8x8\n conv3-16")

    def invoked(*options: str) -> str:
        command = ["tune", str(spec), "--db", str(tmp_path / "db"), *options]
        done = CliRunner().invoke(cli, command)
        assert isinstance(done.exception, UserError | CheckFailed), done.exception
        return str(done.exception)

    return invoked


def test_where_there_is_no_card_it_is_told(tune_small: Tune) -> None:
    text = tune_small("--target", "cuda", "--precision", "float16")
    assert "this machine has no NVIDIA GPU to measure on" in text
    assert "--rpc HOST:PORT --key KEY" in text


@needs_compilers
def test_a_card_that_is_not_the_one_that_is_meant_is_told(
    monkeypatch: pytest.MonkeyPatch, tune_small: Tune
) -> None:
    answering(monkeypatch, AN_H200)
    text = tune_small("--target", "nvidia/nvidia-a100", "--precision", "float16")
    assert "the card to measure on is NVIDIA H200 (sm_90, 132 multiprocessors)" in text
    assert "`nvidia/nvidia-a100` means sm_80" in text


@needs_compilers
def test_a_card_without_tensor_cores_is_told(
    monkeypatch: pytest.MonkeyPatch, tune_small: Tune
) -> None:
    answering(monkeypatch, TunedCard("Tesla T4", "sm_75", 40))
    text = tune_small("--target", "cuda", "--precision", "float16")
    assert "Tesla T4 (sm_75, 40 multiprocessors) has no tensor cores that vggc has" in text
    assert "measure on a card from sm_80 on" in text


@needs_compilers
def test_where_nothing_is_left_to_choose_the_precision_is_named(
    monkeypatch: pytest.MonkeyPatch, tune_small: Tune
) -> None:
    answering(monkeypatch, TunedCard("Tesla T4", "sm_75", 40))
    text = tune_small("--target", "cuda")
    assert "nothing to tune: no kernel of small leaves a choice in float32 on a GPU" in text


# ---------------------------------------------------------------- on an emulated card


@pytest.mark.slow
@needs_compilers
def test_a_net_is_tuned_compiled_and_verified_on_a_card(tmp_path: Path) -> None:
    """The whole way: candidates that compute something else or end the use of the card are kept
    out, and what was measured to be the fastest is what the artifact runs.
    """
    (tmp_path / "net.vgg").write_text("net one input 8x8x8\n conv3-16")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.emulated_tuning", str(tmp_path)],
        env=gpu_on_cpu.with_compiler(tmp_path),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = json.loads(done.stdout)
    card = {"card": "GPU on CPU", "arch": "sm_80", "multiprocessors": 108}
    assert told["tune"]["card"] == card
    assert told["tune"]["failed"] == 2
    assert "an illegal memory access was encountered" in told["told"]

    ((text, measured),) = read(tmp_path / "db").items()
    choices = Task(_workload(), TunedCard("GPU on CPU", "sm_80", 108)).choices
    assert card_in(json.loads(text)) == TunedCard("GPU on CPU", "sm_80", 108)
    assert {choices[WRONG], choices[CRASHING]} == measured.failed
    best = measured.best(choices)
    assert best not in (None, choices[0], choices[WRONG], choices[CRASHING])
    for seconds in measured.seconds.values():  # a graph takes one launch for many kernels
        assert seconds == FAILED or seconds < 1e-3 / 2

    assert (told["compile"]["tuned"], told["compile"]["by_cost_model"]) == (1, 0)
    assert "records of GPU on CPU (sm_80, 108 multiprocessors) decide on 1" in told["notes"]
    kernels = sound_manifest(tmp_path / "art").largest.kernels
    (entry,) = [each for each in kernels if each.workload == "Conv"]
    assert entry.chosen_by == "measurement"
    assert Choice(entry.algorithm, tuple(entry.knobs.items())) == best
    assert told["verify"]["passed"]


def _workload() -> Conv:
    (work,) = [s.workload for s in _plan_of_small().steps if isinstance(s.workload, Conv)]
    canonised = canonical(work)
    assert isinstance(canonised, Conv)
    return canonised
