"""What `tune` works on: the kernels of a net, measured into a database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.compile import densely
from vggc.api.trained import net_of, resized
from vggc.ir.needs import TUNING
from vggc.program import Program
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.support.processors import num_cores

if TYPE_CHECKING:
    from vggc.runtime.artifact import Target
    from vggc.support.precision import ArtifactPrecision
    from vggc.tuning.measure import TrackerAddress
    from vggc.tuning.tuner import TunedLayer, TuningProgress, Watch


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What the user asks `tune` for; None where nothing is said.

    `budget` is in seconds, `size` (H, W), `dense` the (H, W) of images that the net is applied
    densely to. `rpc` is HOST:PORT of a tracker, and `key` that of its
    servers; they go together.
    """

    target: str = "cpu"
    mcpu: str | None = None
    budget: float = 600.0
    batch: int = 1
    size: tuple[int, int] | None = None
    dense: tuple[int, int] | None = None
    precision: ArtifactPrecision = "float32"
    max_error: float | None = None
    threads: int | None = None
    db: Path | None = None
    rpc: str | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """A search of a net's fastest kernels before anything is measured, on `servers`, which `where`
    names: None is this machine.

    The CPU that is `measured` there is of this name; None where the servers do not say.
    """

    program: Program
    machine: Target
    threads: int
    layers: tuple[TunedLayer, ...]
    budget: float
    folder: Path
    servers: tuple[TrackerAddress | None, ...]
    where: str
    measured: str | None

    @property
    def crowded(self) -> bool:
        """Whether kernels are measured on this machine, with more threads than it has cores."""
        return self.servers == (None,) and self.threads > num_cores()

    @property
    def counts_for(self) -> str | None:
        """The CPU that the measurements count for, in words; None where it is the one that is
        measured.
        """
        meant = self.machine.attrs.get("mcpu")
        return None if self.measured == meant else str(meant or self.machine.name)


def plan(spec: str | Program, options: TuneOptions) -> TuningPlan:
    """The kernels of a net, or of a run, that leave a choice, and where they are measured.

    Raises:
        UserError: there is no such net, target or server, or what is asked for does not go
            together.
        CheckFailed: no kernel leaves a choice.
    """
    # Before TVM is loaded, which takes two seconds.
    program = resized(spec if isinstance(spec, Program) else net_of(spec), options.size)
    graph = densely(program, options.dense).graph if options.dense else program.graph
    TUNING.require(graph)

    from vggc.compiler.error_budget import budget_for, share_of_error
    from vggc.compiler.pipeline import require_countable
    from vggc.compiler.targets import host, on_threads, require_precision, resolve
    from vggc.runtime.plans import plan_for
    from vggc.tuning.database import default_folder
    from vggc.tuning.diagnostics import NoHome, OnlyOneOf, TooManyThreads
    from vggc.tuning.lookup import default_threads
    from vggc.tuning.remote import find_servers, machine_of
    from vggc.tuning.space import require_tunable
    from vggc.tuning.tuner import layers_of

    rpc, key = options.rpc, options.key
    if (rpc is None) != (key is None):
        raise UserError(OnlyOneOf("--rpc HOST:PORT", "--key KEY"))
    machine = resolve(options.target, mcpu=options.mcpu)
    require_tunable(machine, here=rpc is None)
    require_precision(machine, options.precision)
    error = budget_for(machine, options.precision, options.max_error)
    folder = options.db or default_folder()
    if folder is None:
        raise UserError(NoHome())
    plan = plan_for(graph, options.batch, machine, options.precision)
    require_countable(plan)
    servers: list[TrackerAddress | None]
    if rpc is not None and key is not None:
        found = find_servers(rpc, key)
        # Of this machine's CPU they must be unless another is named, whose code may run on them.
        is_host = options.target == "cpu" and options.mcpu is None
        meant = str(machine.attrs["mcpu"]) if is_host else None
        there = machine_of(found, options.threads, meant)
        servers, threads, measured = [*found], there.threads, there.cpu
        where = f"{len(found)} servers `{key}`" if len(found) > 1 else f"the server `{key}`"
    else:
        servers, where = [None], "this machine"
        threads, measured = options.threads or default_threads(machine), str(host()["mcpu"])
        if threads > (processors := os.cpu_count() or 1):
            raise UserError(TooManyThreads(processors, threads))
    machine = on_threads(machine, threads)
    layers = layers_of(plan, machine, threads, share_of_error(plan, machine, error))
    if not layers:
        raise CheckFailed(f"nothing to tune: no kernel of {program.net.name} leaves a choice")
    return TuningPlan(
        program=program,
        machine=machine,
        threads=threads,
        layers=layers,
        budget=options.budget,
        folder=folder,
        servers=tuple(servers),
        where=where,
        measured=measured,
    )


@contextmanager
def tuning(plan: TuningPlan) -> Iterator[Callable[[Watch], TuningProgress]]:
    """Within it, what is given measures for the budget of a plan, and nobody else writes into its
    database; it is called with whom to show its progress to.

    Raises:
        UserError: the database is damaged, in use, or cannot be written.
    """
    from vggc.compiler.codegen import linker
    from vggc.tuning.database import opened
    from vggc.tuning.tuner import tune

    with opened(plan.folder) as database:
        yield lambda watch: tune(
            plan.layers, database, plan.budget, linker(plan.machine), plan.servers, watch
        )


def require_measured(course: TuningProgress) -> None:
    """Raises: CheckFailed where nothing was measured, in this run or before."""
    if not course.is_of_use:
        raise CheckFailed(f"nothing could be measured: {in_vain(course)}")


def require_servers(course: TuningProgress) -> None:
    """Raises: CheckFailed where tuning ended since no server was left."""
    if course.lost:
        raise CheckFailed("no server is left; what was measured is in the database")


def in_vain(course: TuningProgress) -> str:
    """Why a run measured nothing."""
    early = "it was interrupted" if course.interrupted else "the budget ended"
    reasons = (course.first_error, *course.losses, f"{early} before the first measurement")
    return next(filter(None, reasons))
