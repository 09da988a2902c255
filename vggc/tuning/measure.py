"""Building and timing choices. Runs in the processes of `workers`.

On a CPU a kernel is timed as it runs in a net: the map that it reads was just written and may lie
in a cache, its weights and its output do not (TVM flushes them before each run). How it is timed
on a card, `vggc.tuning.rotation` says. Some of what it reads is zero, as behind a ReLU, for there
are kernels that leave that out. The choices of a round run in turn, so that a machine which is busy
for a while is so for all of them, and what counts is the median of a choice's time over the
yardstick's in the same round.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.compiler.link import export_library
from vggc.compiler.targets import tvm_target
from vggc.kernels.workloads import Choice, Conv, Dense, Format, Kernel, Map
from vggc.runtime.device import load_cuda_runtime
from vggc.runtime.huge_pages import LARGE_PAGE, large_pages
from vggc.support.affinity import apart
from vggc.support.tvm_alone import VirtualMachine, tvm
from vggc.tuning import rotation
from vggc.tuning.machines import TunedCard, TunedCpu, tuned_card
from vggc.tuning.space import Task
from vggc.tuning.workers import CardCrash, Tell, reason

AnyArray: TypeAlias = NDArray[Any]
"""An array in one of the formats that kernels read and write."""

TOLERANCE = 1e-4
"""Relative L2 distance of two choices' outputs in float32. Rounding makes 1e-5 between Winograd's
and direct ones, one wrong value among a million more than this."""
TOLERANCE_OF_FEWER_BITS = 2e-2, 0.25
"""Relative L2 distance where numbers are rounded to 8 bits, and that of any two values in units of
their root mean square: there one wrong value is lost among the roundings."""
TOLERANCE_OF_MORE_BITS = 4e-3, 0.05
"""Both distances where numbers are rounded to 11 bits, in float16 and tf32."""
ROUNDS = 3, 15
"""The fewest rounds and the most."""
SECONDS = 1.0
"""After so long a batch has no further round."""
TOO_SLOW = 1.3
"""How many times the fastest of a batch a kernel may take: a slower one leaves after two rounds."""
RESOLUTION = 1e-9
"""Seconds: no clock tells less."""
NOTHING = {"float32": np.nan, "uint16": 0x7FC0}
"""What no kernel writes, by the type of its output; of halves, too, it is no number."""
ZEROS = 0.4
"""The share of inputs that are zero: half behind a ReLU, 40 % in fc6 of VGG-16, behind a pool."""
FLUSH = "cache_flush_cpu_non_first_arg"


@dataclass(frozen=True)
class TrackerAddress:
    """The address of a TVM tracker, and the key of the servers there that are meant."""

    host: str
    port: int
    key: str


@dataclass(frozen=True)
class Built:
    """A choice and the library with its code."""

    choice: Choice
    library: Path


@dataclass(frozen=True)
class MeasuredTime:
    """The median time of a kernel in seconds, and in units of the yardstick's."""

    seconds: float
    ratio: float


@dataclass(frozen=True)
class Failure:
    """The reason why there is no time for a choice.

    `own` where it lies with the choice and would be so again: its code is none, ends the process
    or computes something else. A full disk, want of memory and a busy machine are not.
    """

    reason: str
    own: bool


TrialOutcome: TypeAlias = MeasuredTime | Failure


def build(task: Task, choice: Choice, library: Path, linker: str, tell: Tell) -> str | None:
    """Writes the library of a choice; the reason if there is no code for it, else None.

    Raises: what keeps code from being linked and written.
    """
    if isinstance(task.machine, TunedCard):
        return rotation.build(task, choice, library, linker)
    try:
        func = kernel_of(task, choice).func.with_attr("global_symbol", "main")
        module = tvm.compile(tvm.IRModule({"main": func}), target=tvm_target(task.machine.target))
    except (MemoryError, OSError):
        raise
    except Exception as error:
        return reason(error)
    export_library(module, library, linker)
    return None


def kernel_of(task: Task, choice: Choice) -> Kernel:
    """The kernel of a task with a choice, for the task's machine."""
    return task.machine.kernel(task.workload, choice)


def held_bytes(task: Task, choice: Choice) -> int:
    """The bytes that a choice takes by itself while it is measured: its packed weight; on a card
    all that it reads and writes, as often as there are sets of it, and its scratch memory.
    """
    kernel = kernel_of(task, choice)
    buffers = [_Buffer.of(parameter) for parameter in kernel.arguments]
    if isinstance(task.machine, TunedCard):
        scratch = sum(_Buffer(each.name, each.shape, each.dtype).bytes for each in kernel.scratch)
        return rotation.sets_of(task) * sum(buffer.bytes for buffer in buffers) + scratch
    return buffers[len(task.workload.inputs)].bytes if kernel.packing else 0


class _MeasuringPlace:
    """Where kernels run: a CPU or a card, of this process or of a session on a server."""

    def __init__(self, server: TrackerAddress | None, kind: Literal["cpu", "cuda"]) -> None:
        self.session: Any = None
        self.kind = kind
        self.lack: str | None = None
        """What keeps the CUDA runtime from being loaded here, if anything does."""
        if server is not None:
            from tvm import rpc

            tracker = rpc.connect_tracker(server.host, server.port)
            self.session = tracker.request(server.key, max_retry=1)
        elif kind == "cuda":
            self.lack = load_cuda_runtime()
        of = self.session or tvm.runtime
        self.device = of.device(kind, 0)

    def is_alive(self) -> bool:
        """Whether the session still answers."""
        try:
            self.function("runtime.NumThreads")()
        except Exception:
            return False
        return True

    def is_usable(self) -> bool:
        """Whether the session still answers and kernels can run. What a kernel must not do on a
        card is the end of all that its process has there.
        """
        if self.kind == "cpu":
            return self.is_alive()
        try:
            self.device.sync()
        except Exception:
            return False
        return True

    def load(self, library: Path) -> Any:
        if self.session is None:
            return tvm.runtime.load_module(str(library))
        self.session.upload(str(library))
        return self.session.load_module(library.name)

    def forget(self, library: Path) -> None:
        if self.session is not None:
            self.session.remove(library.name)

    def function(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = (
            self.session.get_function(name) if self.session else tvm.get_global_func(name)
        )
        return found

    def tensor(self, array: AnyArray) -> Any:
        """The array where kernels read it; here, large ones as a running net holds its weights."""
        elsewhere = self.session is not None or self.kind == "cuda"
        if elsewhere or array.nbytes < LARGE_PAGE:
            return tvm.runtime.tensor(array, self.device)
        held = large_pages(array.nbytes).view(array.dtype).reshape(array.shape)
        held[...] = array
        return tvm.runtime.from_dlpack(held)

    def threads_apart(self, threads: int) -> AbstractContextManager[None]:
        """Within it, kernels run on threads on cores of their own, as in a running net; a server's
        always do.
        """
        return apart(threads) if self.session is None else nullcontext()

    def copied(self, tensor: Any) -> Any:
        """A copy of a tensor, made where it lies."""
        copy = tvm.runtime.empty(tensor.shape, tensor.dtype, self.device)
        tensor.copyto(copy)
        return copy


_places: dict[tuple[TrackerAddress | None, str], _MeasuringPlace] = {}


def _place(server: TrackerAddress | None, kind: Literal["cpu", "cuda"]) -> _MeasuringPlace:
    """The place where kernels run, kept for as long as this process lives."""
    if (server, kind) not in _places:
        _places[server, kind] = _MeasuringPlace(server, kind)
    return _places[server, kind]


@dataclass(frozen=True)
class MeasuringMachine:
    """The machine that kernels are timed on: with how many threads, and with what CPU, where that
    is known.
    """

    threads: int
    cpu: str | None


def machine_at(server: TrackerAddress, tell: Tell) -> MeasuringMachine:
    """The machine that a server says that it is."""
    place = _place(server, "cpu")
    threads = int(place.function("runtime.NumThreads")())
    try:
        cpu = str(place.function("target.llvm_get_system_cpu")())
    except Exception:
        if not place.is_alive():
            raise
        return MeasuringMachine(threads, None)
    return MeasuringMachine(threads, cpu if re.fullmatch(r"[\w.+-]{1,64}", cpu) else None)


def card_at(server: TrackerAddress | None, tell: Tell) -> TunedCard | str:
    """The card of a server, or of this machine; why there is none, where there is none.

    Raises: ValueError where what its driver says of it makes no card.
    """
    place = _place(server, "cuda")
    device = place.device
    if not device.exist:
        return f"TVM finds no CUDA device there{f' ({place.lack})' if place.lack else ''}"
    return tuned_card(
        device.device_name,
        device.compute_version,
        device.multi_processor_count,
        device.l2_cache_size_bytes,
    )


def measure(
    task: Task, reference: Built, trials: Sequence[Built], server: TrackerAddress | None, tell: Tell
) -> list[TrialOutcome | None]:
    """Times the trials of a task, the first of which is the yardstick; without it, none.

    Each must give what the reference gives on random data. The index of a trial is told
    before it runs for the first time, that of the reference is -1.

    Raises: ValueError where the reference gives what is no number; RuntimeError where kernels
        run on another number of threads; CardCrash where a kernel has ended the use of the card;
        whatever ends a session.
    """
    place = _place(server, task.machine.kind)
    with _crashes_told(place):
        arguments = _arguments(task, place)
        tell(-1)
        expected = arguments.output_of(reference)
        form = format_of(task)
        if not np.isfinite(_values(expected, form)).all():
            raise ValueError("its output is not finite")
        _require_threads(task, place)
        outcomes: list[TrialOutcome | None] = [None] * len(trials)
        runs: dict[int, Callable[[], float]] = {}
        for index, trial in enumerate(trials):
            tell(index)
            try:
                run, got = arguments.prepare(trial)
            except Exception as error:
                if not place.is_usable():
                    raise
                outcomes[index] = Failure(reason(error), own=False)
                continue
            if problem := difference(got, expected, form):
                outcomes[index] = Failure(problem, own=True)
            else:
                runs[index] = run
        if 0 in runs:
            for index, timing in _rounds(runs, tell).items():
                outcomes[index] = timing
        for trial in trials:
            place.forget(trial.library)
        return outcomes


@contextmanager
def _crashes_told(place: _MeasuringPlace) -> Iterator[None]:
    """Tells an error after which the card can no longer be used from others."""
    try:
        yield
    except Exception as error:
        if place.is_alive() and not place.is_usable():
            raise CardCrash(reason(error)) from None
        raise


def _require_threads(task: Task, place: _MeasuringPlace) -> None:
    """Raises: RuntimeError where kernels for a CPU run on another number of threads.

    Asked for before the first kernel has run, the number would make the threads before they are
    set apart.
    """
    if isinstance(task.machine, TunedCpu):
        threads = int(place.function("runtime.NumThreads")())
        if threads != task.machine.threads:
            raise RuntimeError(f"it runs on {threads} threads in place of {task.machine.threads}")


def format_of(task: Task) -> Format:
    """The format that a task multiplies in."""
    return task.workload.input.format if isinstance(task.workload, Conv) else "float32"


def _rounds(runs: dict[int, Callable[[], float]], tell: Tell) -> dict[int, MeasuredTime]:
    """The times of kernels in rounds until the time is up; the order is turned around each time."""
    started = time.perf_counter()
    times: dict[int, list[float]] = {index: [] for index in runs}
    running = list(runs)
    for number in range(ROUNDS[1]):
        for index in running:
            tell(index)
            times[index].append(runs[index]())
        if number == 1:
            limit = TOO_SLOW * min(min(times[index]) for index in running)
            running = [index for index in running if index == 0 or min(times[index]) <= limit]
        running.reverse()
        if number + 1 >= ROUNDS[0] and time.perf_counter() - started > SECONDS:
            break
    yardstick = times[0]
    return {
        index: MeasuredTime(
            median(mine), median(a / b for a, b in zip(mine, yardstick, strict=False))
        )
        for index, mine in times.items()
    }


@dataclass(frozen=True)
class _Buffer:
    """A parameter of a kernel: its shape and the type of its elements."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.kind).itemsize

    @classmethod
    def of(cls, parameter: Any) -> _Buffer:
        return cls(parameter.name, tuple(map(int, parameter.shape)), str(parameter.dtype))


class _TaskArguments:
    """Random data for a task: the same for all of its choices, packed as each wants it."""

    def __init__(self, task: Task, place: _MeasuringPlace) -> None:
        self.task, self.place = task, place
        self.random = np.random.default_rng(0)
        self.weight: AnyArray | None = None
        self.shared: list[Any] = []
        self.packed: tuple[Any, Any] | None = None

    def prepare(self, trial: Built) -> tuple[Callable[[], float], AnyArray]:
        """A function that runs the trial once and gives the seconds, and what it writes."""
        kernel = kernel_of(self.task, trial.choice)
        tensors = self._tensors(kernel)
        module = self.place.load(trial.library)
        with self._threads_apart():
            module["main"](*tensors)
        written: AnyArray = tensors[-1].numpy()
        timer = module.time_evaluator("main", self.place.device, 1, 1, f_preproc=FLUSH)

        def run() -> float:
            with self._threads_apart():
                return max(RESOLUTION, float(timer(*tensors).results[0]))

        return run, written

    def _threads_apart(self) -> AbstractContextManager[None]:
        machine = self.task.machine
        return (
            self.place.threads_apart(machine.threads)
            if isinstance(machine, TunedCpu)
            else nullcontext()
        )

    def output_of(self, trial: Built) -> AnyArray:
        output = self.prepare(trial)[1]
        self.place.forget(trial.library)
        return output

    def _tensors(self, kernel: Kernel) -> list[Any]:
        """What the kernel takes; its output is full of what no kernel writes."""
        workload = self.task.workload
        *read, written = [_Buffer.of(parameter) for parameter in kernel.arguments]
        weight_at = len(workload.inputs) if kernel.packing else None
        if not self.shared:
            arrays = [self._filled(buffer) for i, buffer in enumerate(read) if i != weight_at]
            zero = workload.input.zero if isinstance(workload, Conv) else 0
            arrays[0][self.random.random(arrays[0].shape, np.float32) < ZEROS] = zero
            if isinstance(workload, Conv):
                _clear_halo(arrays[0], workload.input)
            self.shared = [self.place.tensor(array) for array in arrays]
        tensors = list(self.shared)
        if weight_at is not None:
            tensors.insert(weight_at, self._packed(kernel, read[weight_at].kind))
        empty = np.full(written.shape, NOTHING.get(written.kind, 255), written.kind)
        return [*tensors, self.place.tensor(empty)]

    def _packed(self, kernel: Kernel, kind: str) -> Any:
        """The weight as the kernel wants it; kept, for those that want it the same way."""
        workload, packing = self.task.workload, kernel.packing
        assert isinstance(workload, Conv | Dense)
        assert packing is not None
        if self.weight is None:
            # Packed to halves it is float32 that is rounded.
            self.weight = self._noise(
                workload.weight_shape, "int8" if kind == "int8" else "float32"
            )
        if self.packed is None or self.packed[0] != packing:
            self.packed = packing, self.place.tensor(packing.pack(self.weight))
        return self.packed[1]

    def _filled(self, buffer: _Buffer) -> AnyArray:
        """Noise; scales are such that the numbers that int8 is multiplied to fit their output."""
        match buffer.name, self.task.workload:
            case "scale", Conv() as conv:
                spread = 74 * 73 * prod(conv.weight_shape[1:]) ** 0.5
                return (self.random.random(buffer.shape, np.float32) + 0.5) / np.float32(spread)
            case "out_scale", _:
                return np.full(buffer.shape, 1 / 32, np.float32)
            case _:
                return self._noise(buffer.shape, buffer.kind)

    def _noise(self, shape: tuple[int, ...], kind: str) -> AnyArray:
        """Numbers around zero; `uint16` holds halves of the task's format."""
        match kind:
            case "uint8" | "int8":
                low, high = (0, 256) if kind == "uint8" else (-127, 128)
                return self.random.integers(low, high, shape, np.dtype(kind))
            case _:
                noise = self.random.random(shape, np.float32) - np.float32(0.5)
                return _stored(noise, format_of(self.task), kind)


class _CardArguments(_TaskArguments):
    """Random data for a task on a card: as many sets of it as rotate."""

    def __init__(self, task: Task, place: _MeasuringPlace) -> None:
        super().__init__(task, place)
        self.sets = rotation.sets_of(task)
        self.copies: dict[int, list[Any]] = {}

    def prepare(self, trial: Built) -> tuple[Callable[[], float], AnyArray]:
        """A function that runs the trial on all sets, and gives the seconds of one, and what it
        writes to the last set.
        """
        columns = map(self._rotated, self._tensors(kernel_of(self.task, trial.choice)))
        tensors = [tensor for one_set in zip(*columns, strict=True) for tensor in one_set]
        machine = VirtualMachine(self.place.load(trial.library), self.place.device)
        machine.set_input("main", *tensors)
        machine.invoke_stateful("main")
        written: AnyArray = machine.get_outputs("main")[0].numpy()
        number = rotation.rounds_of(self.sets)
        timer = machine.module.time_evaluator("invoke_stateful", self.place.device, number, 1)

        def run() -> float:
            assert machine  # its module lives as long as it does
            return max(RESOLUTION, float(timer("main").results[0]) / self.sets)

        return run, written

    def _rotated(self, tensor: Any) -> list[Any]:
        """A tensor and its copies, one for each set; kept, for those that read it, too."""
        key = id(tensor)
        if key not in self.copies:
            self.copies[key] = [tensor, *(self.place.copied(tensor) for _ in range(1, self.sets))]
        return self.copies[key]


def _arguments(task: Task, place: _MeasuringPlace) -> _TaskArguments:
    of_card = isinstance(task.machine, TunedCard)
    return _CardArguments(task, place) if of_card else _TaskArguments(task, place)


def _clear_halo(data: AnyArray, map_: Map) -> None:
    """Writes what stands for zero around a map."""
    inner = slice(map_.halo, -map_.halo or None)
    kept = data[:, inner, inner].copy()
    data[...] = map_.zero
    data[:, inner, inner] = kept


def difference(got: AnyArray, expected: AnyArray, form: Format = "float32") -> str | None:
    """What is wrong with an output of a task that multiplies in a format, if it is not the
    reference's but for rounding; None where nothing is.
    """
    one, other = _values(got, form), _values(expected, form)
    if not np.isfinite(one).all():
        return "its output is not finite"
    norm = float(np.linalg.norm(other)) or 1.0
    apart = one - other
    error = float(np.linalg.norm(apart)) / norm
    if form == "float32":
        return None if error <= TOLERANCE else f"its output is off by {error:.1e}"
    largest = float(np.abs(apart).max()) * other.size**0.5 / norm
    finer = form in ("float16", "tf32")
    in_all, in_one = TOLERANCE_OF_MORE_BITS if finer else TOLERANCE_OF_FEWER_BITS
    if error <= in_all and largest <= in_one:
        return None
    return f"its output is off by {error:.1e}, by {largest:.1e} in one place"


def _values(stored: AnyArray, form: Format) -> NDArray[np.float32]:
    """The numbers that an output holds; halves are of the format."""
    flat = stored.ravel()
    if flat.dtype != np.uint16:
        return flat.astype(np.float32, copy=False)
    if form == "float16":
        return flat.view(np.float16).astype(np.float32)
    return (flat.astype(np.uint32) << 16).view(np.float32)


def _stored(values: NDArray[np.float32], form: Format, kind: str) -> AnyArray:
    """Numbers as kernels of a task that multiplies in a format read them; `uint16` holds halves."""
    bits = values.view(np.uint32)
    match form:
        case "float16" if kind == "uint16":
            return values.astype(np.float16).view(np.uint16)
        case "tf32":
            return (bits & np.uint32(0xFFFFE000)).view(np.float32)
        case _:
            return (bits >> 16).astype(np.uint16) if kind == "uint16" else values
