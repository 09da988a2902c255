"""What `tune` works on: the kernels of a net, measured into a database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.compile import applied_at
from vggc.api.trained import net_of, resized
from vggc.ir.needs import TUNING
from vggc.program import Program
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.support.sizes import checked_sizes
from vggc_runtime.processors import num_cores

if TYPE_CHECKING:
    from vggc.runtime.artifact import Target
    from vggc.support.precision import ArtifactPrecision
    from vggc.tuning.machines import TunedMachine
    from vggc.tuning.measure import TrackerAddress
    from vggc.tuning.together import Together
    from vggc.tuning.tuner import TunedLayer, TuningProgress, Watch


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What the user asks `tune` for; None where nothing is said.

    `budget` is in seconds, `sizes` (H, W) of the input, `dense` those of images that the net is
    applied densely to. The `batches`, ascending, and the sizes are those of one artifact, whose
    kernels are chosen together. `rpc` is HOST:PORT of a tracker, and `key` that of its
    servers; they go together.
    """

    target: str = "cpu"
    mcpu: str | None = None
    budget: float = 600.0
    batches: tuple[int, ...] = (1,)
    sizes: tuple[tuple[int, int], ...] = ()
    dense: tuple[tuple[int, int], ...] = ()
    precision: ArtifactPrecision = "float32"
    max_error: float | None = None
    threads: int | None = None
    db: Path | None = None
    rpc: str | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """A search of a net's fastest kernels before anything is measured, on `servers`, which `where`
    names: None is this machine. Those of several batches are chosen `together`.

    The CPU that is `measured` there is of this name, or the card; None where the servers do not
    say.
    """

    program: Program
    machine: TunedMachine
    layers: tuple[TunedLayer, ...]
    together: Together | None
    budget: float
    folder: Path
    servers: tuple[TrackerAddress | None, ...]
    where: str
    measured: str | None

    @property
    def crowded(self) -> bool:
        """Whether kernels are measured on this machine, with more threads than it has cores."""
        if self.machine.kind == "cuda":
            return False
        return self.servers == (None,) and self.machine.threads > num_cores()

    @property
    def counts_for(self) -> str | None:
        """The CPU that the measurements count for, in words; None where it is the one that is
        measured.
        """
        if self.machine.kind == "cuda":
            return None
        target = self.machine.target
        meant = target.attrs.get("mcpu")
        return None if self.measured == meant else str(meant or target.name)


def plan(spec: str | Program, options: TuneOptions) -> TuningPlan:
    """The kernels of a net, or of a run, that leave a choice, and where they are measured.

    Raises:
        UserError: there is no such net, target, server or card, or what is asked for does not go
            together.
        CheckFailed: no kernel leaves a choice.
    """
    # Before TVM is loaded, which takes two seconds.
    sizes, dense = checked_sizes(options.sizes, options.dense)
    program = spec if isinstance(spec, Program) else net_of(spec)
    program = resized(program, sizes[0] if sizes else None)
    graphs = [each.spread.graph for each in applied_at(program, sizes, dense)]
    for graph in graphs:
        TUNING.require(graph)

    from vggc.compiler.error_budget import budget_for
    from vggc.compiler.pipeline import require_countable
    from vggc.compiler.targets import require_precision, resolve
    from vggc.passes.prepare import prepared
    from vggc.runtime.plans import plans_for
    from vggc.tuning.database import default_folder
    from vggc.tuning.diagnostics import NoHome, OnlyOneOf
    from vggc.tuning.together import Together
    from vggc.tuning.tuner import layers_of

    if (options.rpc is None) != (options.key is None):
        raise UserError(OnlyOneOf("--rpc HOST:PORT", "--key KEY"))
    asked = resolve(options.target, mcpu=options.mcpu)
    require_precision(asked, options.precision)
    error = budget_for(asked, options.precision, options.max_error)
    folder = options.db or default_folder()
    if folder is None:
        raise UserError(NoHome())
    by = _card(asked, options) if asked.kind == "cuda" else _cpu(asked, options)
    target = by.machine.target
    plans = plans_for([*map(prepared, graphs)], options.batches, target, options.precision)
    for plan in plans:
        require_countable(plan)
    together = Together.of(plans, target, by.machine, error)
    layers = layers_of(plans, by.machine, together.may.share)
    if not layers:
        where = f" in {options.precision} on a GPU" if target.kind == "cuda" else ""
        reason = f"no kernel of {program.net.name} leaves a choice{where}"
        raise CheckFailed(f"nothing to tune: {reason}")
    return TuningPlan(
        program=program,
        machine=by.machine,
        layers=layers,
        together=together if len(plans) > 1 else None,
        budget=options.budget,
        folder=folder,
        servers=by.servers,
        where=by.where,
        measured=by.measured,
    )


@dataclass(frozen=True)
class _Measurer:
    """Who measures what: as in `TuningPlan`."""

    machine: TunedMachine
    servers: tuple[TrackerAddress | None, ...]
    where: str
    measured: str | None


def _cpu(asked: Target, options: TuneOptions) -> _Measurer:
    """The CPU that is meant, and who measures it.

    Raises: UserError where there is no such server, or code for the CPU does not run there.
    """
    from vggc.compiler.targets import host, on_threads
    from vggc.tuning.diagnostics import TooManyThreads
    from vggc.tuning.lookup import default_threads
    from vggc.tuning.machines import TunedCpu
    from vggc.tuning.remote import machine_of
    from vggc.tuning.space import require_tunable

    servers, where = _servers(options)
    if servers:
        # Of this machine's CPU they must be unless another is named, whose code may run on them.
        is_host = options.target == "cpu" and options.mcpu is None
        meant = str(asked.attrs["mcpu"]) if is_host else None
        there = machine_of(servers, options.threads, meant)
        machine = TunedCpu(on_threads(asked, there.threads), there.threads)
        return _Measurer(machine, servers, where, there.cpu)
    require_tunable(asked)
    threads = options.threads or default_threads(asked)
    if threads > (processors := os.cpu_count() or 1):
        raise UserError(TooManyThreads(processors, threads))
    machine = TunedCpu(on_threads(asked, threads), threads)
    return _Measurer(machine, (None,), where, str(host()["mcpu"]))


def _card(asked: Target, options: TuneOptions) -> _Measurer:
    """The card that is there, and who measures on it.

    Raises: UserError where there is no such server, no card, or another one than is meant.
    """
    from vggc.compiler.cards import OLDEST_TENSOR_CORES
    from vggc.compiler.codegen import require_device_compiler
    from vggc.compiler.diagnostics import GivenInVain
    from vggc.compiler.targets import PrecisionNotThere
    from vggc.runtime.archs import capability
    from vggc.tuning.diagnostics import CardNotMeant
    from vggc.tuning.remote import card_here, card_of

    if options.threads is not None:
        reason = "kernels for GPUs are the same whatever the threads of a CPU"
        raise UserError(GivenInVain("--threads", reason, ""))
    require_device_compiler()
    servers, where = _servers(options)
    card = card_of(servers) if servers else card_here()
    if options.target != "cuda" and card.arch not in asked.archs:
        raise UserError(CardNotMeant(card.words, options.target, ", ".join(asked.archs)))
    if options.precision != "float32" and capability(card.arch) < OLDEST_TENSOR_CORES:
        reason = f"{card.words} has no tensor cores that vggc has kernels for"
        hint = "measure on a card from sm_80 on, with --rpc HOST:PORT --key KEY"
        raise UserError(PrecisionNotThere(options.precision, options.target, reason, hint))
    return _Measurer(card, servers or (None,), where, card.words)


def _servers(options: TuneOptions) -> tuple[tuple[TrackerAddress, ...], str]:
    """The servers that are asked for, and a word for where is measured.

    Raises: UserError where there are none.
    """
    from vggc.tuning.remote import find_servers

    if options.rpc is None or options.key is None:
        return (), "this machine"
    found = find_servers(options.rpc, options.key)
    several = len(found) > 1
    where = f"{len(found)} servers `{options.key}`" if several else f"the server `{options.key}`"
    return tuple(found), where


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
            plan.layers,
            database,
            plan.budget,
            linker(plan.machine.target),
            plan.servers,
            watch,
            plan.together,
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
