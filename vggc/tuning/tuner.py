"""Measuring the kernels of a net until the budget is spent, most where most is to be gained."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from pathlib import Path
from statistics import mean
from typing import Literal, TypeAlias

from vggc.kernels.workloads import Choice
from vggc.plan.plan import Plan
from vggc.support.signals import held
from vggc.support.sizes import spelt_size
from vggc.tuning.database import FAILED, Database, outdated
from vggc.tuning.machines import TunedMachine
from vggc.tuning.measure import (
    Built,
    Failure,
    MeasuredTime,
    TrackerAddress,
    TrialOutcome,
    build,
    held_bytes,
    measure,
)
from vggc.tuning.search import proposals
from vggc.tuning.space import Task, canonical
from vggc.tuning.together import Together
from vggc.tuning.workers import Crew, Died, Failed, MeasuringWorker
from vggc_runtime.processors import num_cores

BATCH = 8
"""Choices of a kernel that are measured together, beside the yardstick."""
MAX_HELD: dict[Literal["cpu", "cuda"], int] = {"cpu": 3 * 2**29, "cuda": 2**33}
"""The bytes that they may take together by themselves, and the yardstick: on a CPU their packed
weights, on a card all that they read and write."""
PATIENCE = 60.0
"""Seconds after which a compiler or a kernel is taken to hang."""
FIRST_WORD = 30.0
"""Seconds for a process to start, and for a server to take a session."""
NOWHERE = -2
"""In the place of a trial: none ran yet."""
MAX_BLAMED = 2
"""A choice that ran so many times when a server was lost is not tried again."""
WORTH_TELLING = 0.99
"""A time that is less than this share of the best so far is an improvement."""


@dataclass
class TunedLayer:
    """A kernel of the net that is tuned: its task, the layers that it serves, and what came
    of it.
    """

    task: Task
    layers: tuple[str, ...]
    """The steps' layers, one for each time that it runs."""
    batch: int = 1
    default_seconds: float | None = None
    best: Choice | None = None
    best_seconds: float | None = None
    tried: int = 0
    """Choices of which the database knows."""
    idle: int = 0
    """Batches since the last improvement."""
    error: str | None = None
    """Why it cannot be tuned."""
    wanted: tuple[Choice, ...] = ()
    """Choices that kernels of other batches stand to gain by once they are measured."""

    @property
    def worth(self) -> float:
        """The seconds of the net that the layer still stands for, halved for each batch in vain."""
        if self.best_seconds is None:
            return float("inf")
        return len(self.layers) * self.best_seconds / 2.0**self.idle


@dataclass
class TuningProgress:
    """How tuning a net goes: what was measured, failed or lost, and what time is left."""

    layers: tuple[TunedLayer, ...]
    budget: float
    measured: int = 0
    """Choices timed in this run."""
    failed: int = 0
    """Choices of this run that could not be built or run, or computed something else."""
    outdated: int = 0
    """Measurements in the database of these kernels in other code than there is now."""
    first_error: str | None = None
    interrupted: bool = False
    losses: list[str] = field(default_factory=list)
    """Why servers were lost."""
    lost: bool = False
    """Whether it ended because no server was left."""
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """The seconds of the budget that are left."""
        return max(0.0, self.started + self.budget - time.monotonic())

    @property
    def is_of_use(self) -> bool:
        """Whether any kernel has been measured, in this run or before."""
        return any(layer.best for layer in self.layers)

    @property
    def seconds(self) -> tuple[float, float] | None:
        """The net's time in its tuned kernels, by the cost model and as measured so far; of several
        batches that of all together.
        """
        return _seconds(self.layers)

    @property
    def batches(self) -> dict[int, tuple[float, float] | None]:
        """The `seconds` of each batch alone."""
        batches = dict.fromkeys(layer.batch for layer in self.layers)
        return {
            batch: _seconds([layer for layer in self.layers if layer.batch == batch])
            for batch in batches
        }


def _seconds(layers: Sequence[TunedLayer]) -> tuple[float, float] | None:
    both = [
        (len(layer.layers) * layer.default_seconds, len(layer.layers) * layer.best_seconds)
        for layer in layers
        if layer.default_seconds is not None and layer.best_seconds is not None
    ]
    return (sum(one for one, _ in both), sum(two for _, two in both)) if both else None


Watch: TypeAlias = Callable[[TuningProgress, str], None]
"""Told how it goes, and what comes next in words."""


def layers_of(
    plans: Sequence[Plan], machine: TunedMachine, max_error: float = inf
) -> tuple[TunedLayer, ...]:
    """The kernels of a net's plans that leave something to choose, in order; where images are of
    several sizes, layers are called with theirs: `conv1_1 256x320`.

    A choice adds a relative L2 error of at most `max_error`.
    """
    tasks: dict[str, tuple[Task, int]] = {}
    names: dict[str, list[str]] = {}
    several = len({plan.input for plan in plans}) > 1
    for plan in plans:
        _, height, width = plan.input
        size = f" {spelt_size((height, width))}" if several else ""
        for step in plan.steps:
            task = Task(canonical(step.workload), machine, max_error)
            tasks.setdefault(task.text, (task, plan.batch))
            names.setdefault(task.text, []).append(f"{step.layer}{size}")
    return tuple(
        TunedLayer(task=task, layers=tuple(names[text]), batch=batch)
        for text, (task, batch) in tasks.items()
        if len(task.choices) > 1
    )


def tune(
    layers: tuple[TunedLayer, ...],
    database: Database,
    budget: float,
    linker: str,
    servers: Sequence[TrackerAddress | None],
    watch: Watch,
    together: Together | None = None,
) -> TuningProgress:
    """Measures the kernels of layers for `budget` seconds, on this machine (None) or on servers.

    Those of several batches are chosen `together`; where that is None each is by itself.
    Everything measured is in the database at once; Ctrl-C ends it early.
    """
    course = TuningProgress(layers=layers, budget=budget)
    course.outdated = outdated(database.known, [layer.task for layer in layers])
    _note(layers, database, together)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vggc-tune-")))
        benches = [Bench(server) for server in servers]
        tuner = _Tuner(course, database, linker, folder, benches, together)
        stack.callback(tuner.stop)
        try:
            while course.left and tuner.benches:
                watch(course, "")
                if not tuner.turn(watch):
                    break
            course.lost = not tuner.benches
        except KeyboardInterrupt:
            course.interrupted = True
    return course


def _note(layers: Sequence[TunedLayer], database: Database, together: Together | None) -> None:
    """Brings what is said of layers up to date."""
    joint = together.choices(database) if together else {}
    for layer in layers:
        measured, choices = database.measured(layer.task), layer.task.choices
        each = joint.get(layer.task.text)
        default = measured.seconds.get(each.default if each else choices[0], FAILED)
        layer.default_seconds = default if default < FAILED else None
        layer.best = each.best if each and each.best else measured.best(choices)
        layer.best_seconds = measured.seconds[layer.best] if layer.best else None
        layer.wanted = each.wanted if each else ()
        layer.tried = len(measured.seconds.keys() & set(choices))


@dataclass
class TrialBatch:
    """Choices of one layer that are measured together."""

    layer: TunedLayer
    reference: Choice
    yardstick: Choice
    new: list[Choice]
    again: list[Choice] = field(default_factory=list)
    """The best so far. The shortest of many times was lucky: it has to prove itself each time."""
    outcomes: dict[Choice, TrialOutcome] = field(default_factory=dict)
    lost: bool = False
    """Whether its server was lost, so that it is no sign of anything."""

    @property
    def choices(self) -> list[Choice]:
        """All choices of the batch, the reference included, each once."""
        return list(dict.fromkeys([self.reference, *self.timed]))

    @property
    def timed(self) -> list[Choice]:
        """The choices that are timed, the yardstick first."""
        return list(dict.fromkeys([self.yardstick, *self.again, *self.new]))


class Bench:
    """A process that measures, here or through a server."""

    def __init__(self, server: TrackerAddress | None) -> None:
        self.server = server
        self.worker: MeasuringWorker | None = None

    def is_there(self) -> bool:
        """Whether the bench has a session, or the tracker has a server to give; waits for a server
        that comes back.
        """
        return self.worker is not None or self.server is None or is_free(self.server)

    def start(self, batch: TrialBatch, built: dict[Choice, Built]) -> None:
        """Starts measuring a batch, of whose choices the libraries in `built` are there."""
        trials = [built[choice] for choice in batch.timed if choice in built]
        self.trials, self.at = trials, NOWHERE
        self.worker = self.worker or MeasuringWorker(batch.layer.task.machine.environment)
        arguments = batch.layer.task, built[batch.reference], trials, self.server
        self.worker.ask(measure, *arguments, patience=PATIENCE, first=FIRST_WORD)

    def finish(self) -> dict[Choice, TrialOutcome]:
        """What came of the batch's choices that were measured.

        Raises: Failed when the process or the server is gone; `at` is the trial that ran then,
            -1 for the reference, `NOWHERE` before that.
        """
        assert self.worker is not None
        try:
            while True:
                done, value = self.worker.receive()
                if done:
                    return {t.choice: o for t, o in zip(self.trials, value, strict=True) if o}
                self.at = value
        except Failed:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the process that measures, if there is one."""
        if self.worker is not None:
            self.worker.stop()
            self.worker = None


class _Tuner:
    def __init__(
        self,
        course: TuningProgress,
        database: Database,
        linker: str,
        folder: Path,
        benches: list[Bench],
        together: Together | None,
    ) -> None:
        self.course, self.database, self.linker = course, database, linker
        self.folder, self.benches, self.together = folder, benches, together
        self.crew = Crew(min(num_cores(), 8))
        self.built: dict[tuple[str, Choice], Built] = {}
        self.blamed: Counter[tuple[str, Choice]] = Counter()
        self.failed: dict[str, dict[Choice, Failure]] = defaultdict(dict)
        """What failed in this run, by task."""
        self.held_bytes: dict[tuple[str, str], int] = {}
        """Bytes that a choice takes by itself, by task and algorithm."""
        self.pace: dict[str, float] = {}
        """Seconds that a choice of a task took lately."""
        self.num_libraries = 0

    def stop(self) -> None:
        self.crew.stop()
        for bench in self.benches:
            bench.stop()

    def turn(self, watch: Watch) -> bool:
        """Measures one batch on each bench; False where nothing is left to measure."""
        started = time.monotonic()
        self.benches = [bench for bench in self.benches if bench.is_there()]
        batches = self._batches(len(self.benches))
        if not batches:
            return False
        names = ", ".join(dict.fromkeys(batch.layer.layers[0] for batch in batches))
        watch(self.course, f"compiling {names}")
        self._build(batches)
        watch(self.course, f"measuring {names}")
        at_work: list[tuple[Bench, TrialBatch]] = []
        for bench, batch in zip(list(self.benches), batches, strict=False):
            built = {c: b for (text, c), b in self.built.items() if text == batch.layer.task.text}
            if batch.reference in built and batch.yardstick in built:
                bench.start(batch, built)
                at_work.append((bench, batch))
        for bench, batch in at_work:
            self._finish(bench, batch)
        for batch in batches:
            seconds = time.monotonic() - started
            if not batch.lost:
                self.pace[batch.layer.task.text] = seconds / max(1, len(batch.new))
            with held():  # what is on disk is what is told
                self._keep(batch)
        return True

    def _batches(self, number: int) -> list[TrialBatch]:
        """The batches to measure next, of the layers that are worth most first."""
        found: list[TrialBatch] = []
        taken: dict[str, set[Choice]] = {}
        open_layers = [layer for layer in self.course.layers if layer.error is None]
        # A second of a small batch counts for more: it is a larger part of its net's time.
        whole = {batch: seconds[1] for batch, seconds in self.course.batches.items() if seconds}
        order = sorted(open_layers, key=lambda each: -each.worth / whole.get(each.batch, 1.0))
        for layer in order + order:
            if len(found) == number:
                break
            text = layer.task.text
            if text in taken and layer.best is None:
                continue
            batch = self._batch(layer, taken.setdefault(text, set()))
            if batch is not None:
                taken[text].update(batch.new)
                found.append(batch)
        return found

    def _batch(self, layer: TunedLayer, taken: set[Choice]) -> TrialBatch | None:
        task, measured = layer.task, self.database.measured(layer.task)
        failed = measured.failed.union(self.failed[task.text])
        if task.reference in failed:
            self._give_up(layer, "its simplest kernel, with which others must agree, fails")
            return None
        left = tuple(choice for choice in task.choices if choice not in failed)
        first = left[0] if left[0] == task.choices[0] else task.reference
        best = measured.best(left)
        yardstick = best if best is not None and first not in measured.seconds else first
        fastest = dict.fromkeys(each for each in (best, layer.best) if each in left)
        again = [each for each in fastest if each is not None and each != yardstick]
        new: list[Choice] = []
        total = sum(self._held_bytes(task, choice) for choice in (yardstick, *again))
        proposed = proposals(task, measured, taken | failed, layer.wanted, layer.best)
        for choice in islice(proposed, self._size(task)):
            total += self._held_bytes(task, choice)
            if new and total > MAX_HELD[task.machine.kind]:
                break
            new.append(choice)
        return (
            TrialBatch(
                layer=layer, reference=task.reference, yardstick=yardstick, new=new, again=again
            )
            if new
            else None
        )

    def _held_bytes(self, task: Task, choice: Choice) -> int:
        """The bytes that a choice takes by itself, or about that."""
        key = task.text, choice.algorithm
        if key not in self.held_bytes:
            self.held_bytes[key] = held_bytes(task, choice)
        return self.held_bytes[key]

    def _size(self, task: Task) -> int:
        """How many choices may be measured together in what time is left."""
        size = BATCH
        if self.pace:
            pace = self.pace.get(task.text, mean(self.pace.values()))
            size = min(size, int(self.course.left / pace))
        return max(1, size)

    def _build(self, batches: Iterable[TrialBatch]) -> None:
        """Compiles the choices of batches that are not compiled yet."""
        wanted = dict.fromkeys(
            (batch.layer.task.text, choice) for batch in batches for choice in batch.choices
        )
        tasks = {batch.layer.task.text: batch.layer.task for batch in batches}
        missing = [key for key in wanted if key not in self.built]
        calls = []
        for text, choice in missing:
            self.num_libraries += 1
            path = self.folder / f"kernel{self.num_libraries}.so"
            calls.append((tasks[text], choice, path, self.linker))
        results = self.crew.map(build, calls, PATIENCE)
        for (text, choice), call, result in zip(missing, calls, results, strict=True):
            if result is None:
                self.built[text, choice] = Built(choice, call[2])
                continue
            failure = Failure(f"it cannot be compiled: {result}", own=isinstance(result, str))
            for batch in batches:
                if batch.layer.task.text == text and choice in batch.choices:
                    batch.outcomes[choice] = failure

    def _finish(self, bench: Bench, batch: TrialBatch) -> None:
        try:
            batch.outcomes |= bench.finish()
        except Failed as failure:
            crashed = failure.crashed
            if bench.server is not None and not crashed:
                self.course.losses.append(str(failure))
                batch.lost = True
                if bench.at == NOWHERE:
                    return
            choice = bench.trials[bench.at].choice if bench.at >= 0 else batch.reference
            blamed = batch.layer.task.text, choice
            self.blamed[blamed] += 1
            if bench.server is None or crashed or self.blamed[blamed] >= MAX_BLAMED:
                # The same twice: there it was the choice that ended the session.
                own = crashed or not (bench.server is None or isinstance(failure, Died))
                batch.outcomes[choice] = Failure(str(failure), own=own and bench.at >= 0)

    def _give_up(self, layer: TunedLayer, error: str) -> None:
        layer.error = error
        self.course.first_error = self.course.first_error or error

    def _keep(self, batch: TrialBatch) -> None:
        """Puts what came of a batch into the database.

        Of failures those that are the choice's own, and only where something else works: then it
        is not for want of a compiler, either.
        """
        layer, task, before = batch.layer, batch.layer.task, batch.layer.best_seconds
        yardstick = batch.outcomes.get(batch.yardstick)
        if isinstance(yardstick, MeasuredTime):
            unit = self.database.measured(task).seconds.get(batch.yardstick, yardstick.seconds)
            for choice in (*batch.again, *batch.new):
                if isinstance(timing := batch.outcomes.get(choice), MeasuredTime):
                    self.database.add(task, choice, timing.ratio * unit)
                    self.course.measured += choice in batch.new
        failed = self.failed[task.text]
        for choice, outcome in batch.outcomes.items():
            if isinstance(outcome, Failure):
                self.course.first_error = self.course.first_error or outcome.reason
                self.course.failed += choice not in failed
                failed[choice] = outcome
        if self.database.measured(task).best(task.choices) is not None:
            for choice in failed.keys() - self.database.measured(task).failed:
                if failed[choice].own:
                    self.database.add(task, choice, FAILED)
        _note(self.course.layers if self.together else [layer], self.database, self.together)
        if batch.reference in failed:
            reason = failed[batch.reference].reason
            self._give_up(layer, f"its simplest kernel, with which others must agree: {reason}")
        improved = before is None or (layer.best_seconds or FAILED) < WORTH_TELLING * before
        if not batch.lost:
            layer.idle = 0 if improved else layer.idle + 1
        own = self.database.measured(task).best(task.choices)
        kept = {(task.text, each) for each in (task.reference, task.choices[0], layer.best, own)}
        for key in [k for k in self.built if k[0] == task.text and k not in kept]:
            self.built.pop(key).library.unlink(missing_ok=True)


def is_free(server: TrackerAddress) -> bool:
    """Whether the tracker has a server of this address to give, now."""
    from vggc.tuning.remote import free_servers

    return free_servers(server) > 0
