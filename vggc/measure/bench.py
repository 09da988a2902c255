"""An artifact's time beside other engines', in one interleaved run on the same weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from vggc.compiler.calibrate import NUM_IMAGES, CalibrationImages, choose_images, read_images
from vggc.data.parts import Skipped
from vggc.ir.ops import Softmax
from vggc.measure import engines as peers
from vggc.measure.engines import PEERS, Engine, Setup, check_installed
from vggc.measure.verify import original_weights, relative_error
from vggc.passes.fold import fold
from vggc.runtime.archs import in_words
from vggc.runtime.artifact import Manifest, entry_in, graph_in, manifest_at
from vggc.runtime.session import Session
from vggc.support.arrays import Array
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.support.sheet import Sheet, as_html, as_text
from vggc_runtime.processors import num_cores

WARM_UP = 3
REST_SECONDS = 0.02
MAX_RESTS = 25
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01, "tf32": 0.01, "int8": 0.25}
"""Relative L2 difference that two engines' scores may have before they are timed, by the
precision of the artifact. Those of two photographs differ by 0.4 and more."""


@dataclass(frozen=True, repr=False)
class Timing:
    """The times of an artifact and other engines: milliseconds of each round of each, `vggc` first.
    A notebook shows the table.

    `errors` are the relative L2 differences of the peers' scores from vggc's, `missing` the
    engines that were asked for and not timed, with the reason; `skipped` are images that cannot
    be used.
    """

    artifact: Path
    threads: int
    batch: int
    milliseconds: dict[str, tuple[float, ...]]
    errors: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    archs: tuple[str, ...] = ()
    """The architectures that the kernels are for, where other GPUs have others in the artifact."""

    @property
    def medians(self) -> dict[str, float]:
        """The median in milliseconds of each engine."""
        return {name: median(times) for name, times in self.milliseconds.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """Vggc's median over that of each peer: under 1 where vggc is faster."""
        medians = self.medians
        return {peer: medians["vggc"] / time for peer, time in medians.items() if peer != "vggc"}

    @property
    def table(self) -> Sheet:
        """The times as a table, a row an engine; notes tell which are missing."""
        medians, ratios = self.medians, self.ratios
        rows = tuple(
            (
                name,
                f"{medians[name]:.2f}",
                f"{min(times):.2f} to {max(times):.2f}",
                f"{ratios[name]:.2f}" if name in ratios else "",
                f"{self.errors[name]:.1e}" if name in self.errors else "",
            )
            for name, times in self.milliseconds.items()
        )
        rounds = len(self.milliseconds["vggc"])
        turns = f"{rounds:,} interleaved round{'s' * (rounds != 1)}"
        threads = f"{self.threads:,} thread{'s' * (self.threads != 1)}"
        kernels = f", {in_words(self.archs)}" if self.archs else ""
        return Sheet(
            title=f"{self.artifact}: batch {self.batch:,}, {turns}, {threads}{kernels}",
            header=("engine", "median ms", "range ms", "vggc / engine", "scores differ by"),
            rows=rows,
            numbers=(False, True, True, True, True),
            notes=tuple(f"{peer} is not timed: {why}" for peer, why in self.missing.items()),
            spare=("range ms",),
        )

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        return as_text(self.table)


def bench(
    folder: Path,
    names: Sequence[str],
    threads: int | None,
    rounds: int,
    *,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    images: Path | None = None,
    weights: Path | None = None,
    lenient: bool = False,
) -> Timing:
    """Times an artifact and the peers of these names, one call each a round, in turn, for one of
    the artifact's batches and sizes (H, W): the largest batch and the main size unless told.

    The peers compute the folded net, too, with the weights that the artifact was made of
    (`weights` is where they lie, should an artifact in fewer bits not find them itself), and
    every engine hands over its main output. `images` is a folder for those that take the ranges
    of activations from images; all compute the first of them, then.
    A `lenient` run goes on without the peers that cannot be timed, and tells why.

    Raises: UserError when the artifact is damaged or not for such images, or a peer unknown, not
    installed or unable to compute this net; CheckFailed when a peer gives another output.
    """
    missing: dict[str, str] = {}
    names = _present(names, missing, lenient=lenient)
    count = threads or num_cores()
    session = Session.load(folder, count)
    manifest = manifest_at(folder, session.manifest, size)
    entry = entry_in(folder, manifest, batch)
    graph = fold(graph_in(folder, manifest)).graph
    original = original_weights(folder, graph, session.manifest, weights).weights
    real, chosen = None, CalibrationImages()
    if images is not None:
        chosen = choose_images(images, NUM_IMAGES, manifest.preprocessing)
        real = np.concatenate(list(read_images(chosen.files, manifest.preprocessing)))
    x = _input((entry.batch, *manifest.input), real)
    tensor = session.tensor(x)
    engines: dict[str, Engine] = {"vggc": lambda: session.invoke(tensor)}
    expected = engines["vggc"]()
    of_softmax = isinstance(graph.nodes[graph.heads[0].node].op, Softmax)
    errors: dict[str, float] = {}
    with TemporaryDirectory(prefix="vggc-bench-") as temporary:
        setup = Setup(
            graph=graph,
            weights=original,
            x=x,
            threads=count,
            device=manifest.target.kind,
            folder=Path(temporary),
            images=real,
        )
        for name in names:
            try:
                run = peers.start(name, setup)
                errors[name] = _compared(name, run(), expected, manifest, of_softmax=of_softmax)
                engines[name] = run
            except (UserError, CheckFailed) as problem:
                if not lenient:
                    raise
                missing[name] = reason_of(problem)
    times = _interleaved(engines, rounds, missing, lenient=lenient)
    errors = {name: error for name, error in errors.items() if name in times}
    return Timing(
        artifact=folder,
        threads=count,
        batch=entry.batch,
        milliseconds=times,
        errors=errors,
        missing=missing,
        skipped=chosen.skipped,
        archs=session.own_archs,
    )


def _present(names: Sequence[str], missing: dict[str, str], *, lenient: bool) -> list[str]:
    """The names of peers that are installed; the others become missing, or an error."""
    if not lenient:
        check_installed(names)
        return list(names)
    for name in names:
        if module := peers.missing_module(name):
            missing[name] = f"`import {module}` fails"
    return [name for name in names if name not in missing]


def reason_of(problem: UserError | CheckFailed) -> str:
    """What was wrong with a peer, in one line."""
    match problem:
        case UserError():
            diagnostic = problem.diagnostics[0]
            return diagnostic.fill(f"{diagnostic.title}: {diagnostic.label}")
        case CheckFailed():
            return str(problem)


def default_peers(manifest: Manifest) -> list[str]:
    """The peers that an artifact is timed against unless its user names others."""
    own: str = manifest.precision
    asked = {
        name
        for name, peer in PEERS.items()
        if peer.by_default or (peer.precision == own and own != "float32")
    }
    return [name for name in PEERS if name in asked and manifest.target.kind in PEERS[name].devices]


def _input(shape: tuple[int, ...], images: Array | None) -> Array:
    """Noise, or the first of the images, over and over where they do not fill a batch."""
    if images is None:
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return np.resize(images, shape)


def _interleaved(
    engines: dict[str, Engine], rounds: int, missing: dict[str, str], *, lenient: bool
) -> dict[str, tuple[float, ...]]:
    """Milliseconds of each round of each engine; a peer that fails becomes missing, or an error."""
    found: dict[str, list[float]] = {name: [] for name in engines}

    def milliseconds(name: str) -> float:
        started = time.perf_counter()
        engines[name]()
        return 1e3 * (time.perf_counter() - started)

    @contextmanager
    def taking_part(name: str) -> Iterator[None]:
        try:
            yield
        except UserError as problem:
            if name == "vggc" or not lenient:
                raise
            missing[name] = reason_of(problem)
            del found[name]

    for name in engines:
        with taking_part(name):
            for _ in range(WARM_UP):
                milliseconds(name)
    for number in range(rounds):
        # There and back, so that none always follows the same one.
        order = list(found)
        for name in order if number % 2 == 0 else reversed(order):
            rest()
            with taking_part(name):
                found[name].append(milliseconds(name))
    return {name: tuple(times) for name, times in found.items()}


def rest() -> None:
    """Waits until the threads of the last engine have stopped spinning, half a second at most."""
    for _ in range(MAX_RESTS):
        busy = time.process_time()
        time.sleep(REST_SECONDS)
        if time.process_time() - busy < REST_SECONDS / 10:
            return


def _scores(probabilities: Array) -> Array:
    """The scores that a soft-max `(N, K)` was computed from, with a mean of zero.

    It enlarges a difference between scores as many times as they are large, and hides all but
    the largest.
    """
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    scores: Array = logarithms - logarithms.mean(1, keepdims=True)
    return scores


def _compared(
    name: str, got: Array, expected: Array, manifest: Manifest, *, of_softmax: bool
) -> float:
    """The relative L2 difference of a peer's scores from vggc's.

    Raises: CheckFailed where they are not the same net's.
    """
    if got.shape != expected.shape:
        raise CheckFailed(f"{name} gives an output of another shape, {got.shape}")
    if of_softmax:
        got, expected = _scores(got), _scores(expected)
    error = relative_error(got, expected)
    if not error < max(PEERS[name].tolerance, TOLERANCES[manifest.precision]):
        raise CheckFailed(f"{name} gives another output: relative L2 difference {error:.1e}")
    return error
