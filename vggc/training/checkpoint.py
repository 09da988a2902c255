"""The state of a training in files: all that going on bit for bit needs.

A checkpoint is a folder `step-N`, or `step-N-tested` after an epoch, that appears whole or not at
all. Nothing in it is pickled. It is complete by itself: weights, their average, the optimiser's
state and the loss scale, and the progress they belong to; all randomness is a function of the seed
and the step.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor

from vggc.ir import weights
from vggc.support.diagnostics import UserError
from vggc.support.files import new_folder
from vggc.support.records import from_json, read_record, to_json, write_record
from vggc.support.tensors import opened
from vggc.training import diagnostics, sharding
from vggc.training.learner import Learner, first_state
from vggc.training.parallel import World
from vggc.training.progress import Progress
from vggc_runtime.files import sha256
from vggc_runtime.json_file import MalformedError

WEIGHT, AVERAGE = "weight/", "average/"
STATE_OF = {
    "momentum_buffer": "momentum/",
    "step": "count/",
    "exp_avg": "mean/",
    "exp_avg_sq": "square/",
}
"""What the names of tensors begin with in a checkpoint: of the net, and by PyTorch's names for it
of what the optimiser keeps for each parameter."""

KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
"""The types of tensors in a checkpoint by their names in a file."""

STATE, TENSORS = "state.json", "tensors.safetensors"
TESTED = "-tested"
"""What the name of a checkpoint ends in when the held-out images have been looked at."""


@dataclass(frozen=True)
class LossScale:
    """The state of float16's loss scaler."""

    scale: float
    growth: int


@dataclass(frozen=True)
class State:
    """What `state.json` holds. `data` is the fingerprint of the images, `task` that of the net,
    the recipe so far and the seed.
    """

    format: Literal[2]
    progress: Progress
    data: str
    task: str
    sha256: str
    loss_scale: LossScale | None


@dataclass(frozen=True)
class Told:
    """What processes tell each other of a state beside its tensors."""

    progress: Progress
    loss_scale: LossScale | None


@dataclass(frozen=True)
class Snapshot:
    """A training at one moment, apart from the learner that goes on."""

    progress: Progress
    tensors: dict[str, Tensor]
    loss_scale: LossScale | None


def snapshot(learner: Learner, progress: Progress) -> Snapshot:
    """The state of a training, copied.

    Where processes share the weights, all take it together, and the first one gets it.
    """
    copies = {}
    for name, tensor in tensors_of(learner).items():
        whole = sharding.whole(tensor.detach())
        if learner.world.is_first:
            # Laid out here as it is written: were the thread that writes to do it, it would bring
            # a second team of OpenMP threads, and idle ones of more than there are processors
            # sleep between layers instead of waiting, a fifth of the speed of small nets.
            copies[name] = whole.to("cpu", copy=True, memory_format=torch.contiguous_format)
    return Snapshot(progress, copies, loss_scale(learner))


def loss_scale(learner: Learner) -> LossScale | None:
    """The state of the learner's loss scaler, if it has one at work."""
    scaling = learner.scaler.state_dict()
    return LossScale(scaling["scale"], scaling["_growth_tracker"]) if scaling else None


def untested(step: int) -> str:
    """The name of a checkpoint after so many steps, of a net that was not measured there."""
    return f"step-{step}"


def write_checkpoint(folder: Path, taken: Snapshot, data: str, task: str) -> None:
    """Writes a state below `folder`; one that is there already is the same.

    Raises:
        UserError: a file cannot be written; the checkpoints before are still there.
    """
    tested = "" if taken.progress.sums.steps else TESTED
    path = folder / (untested(taken.progress.step) + tested)
    if path.exists():
        return
    with new_folder(path) as part:
        save_tensors(part / TENSORS, taken.tensors)
        digest = sha256(part / TENSORS)
        state = State(
            format=2,
            progress=taken.progress,
            data=data,
            task=task,
            sha256=digest,
            loss_scale=taken.loss_scale,
        )
        write_record(part / STATE, state)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints below a folder, the newest first."""
    found = {
        (int(match[1]), match[2] is not None): path
        for path in folder.glob("step-*")
        if (match := re.fullmatch(rf"step-(\d{{1,18}})({TESTED})?", path.name))
    }
    return [found[step] for step in sorted(found, reverse=True)]


def step_of(path: Path) -> int:
    """The step that a checkpoint is of, by its name."""
    return int(path.name.split("-")[1])


class Writer:
    """Writes checkpoints in a thread of its own while the training goes on; keeps the newest.

    One at a time: whoever comes while one is written waits, as the disk cannot keep up.
    """

    def __init__(self, folder: Path, keep: int, data: str, task: Callable[[int], str]) -> None:
        self.folder, self.keep, self.data, self.task = folder, keep, data, task
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None

    def write(self, taken: Snapshot, afterwards: Callable[[], None]) -> None:
        """Begins to write a state; `afterwards` is called when it is there.

        Raises:
            UserError: the one before could not be written; this one is not begun.
        """
        self.wait()
        self.pending = self.thread.submit(self._write, taken, afterwards)

    def _write(self, taken: Snapshot, afterwards: Callable[[], None]) -> None:
        # What a process that was killed left half written.
        for half in self.folder.glob(".step-*"):
            shutil.rmtree(half, ignore_errors=True)
        write_checkpoint(self.folder, taken, self.data, self.task(taken.progress.step))
        afterwards()
        for old in checkpoints(self.folder)[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def wait(self) -> None:
        """Until what was begun is written.

        Raises:
            UserError: it cannot be.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.thread.shutdown(wait=True)


def read_checkpoint(
    path: Path,
    learner: Learner,
    data: str,
    data_name: str,
    task: Callable[[int], str],
    num_steps: int,
) -> Snapshot:
    """The state of a training of so many steps that the learner can go on with. `task` is the
    fingerprint of the training up to a step.

    Raises:
        UserError: the checkpoint is damaged, or the net, the recipe, the seed or the images
            are no longer those that it was written with.
    """
    try:
        state = read_record(path / STATE, State)
        if state.data != data:
            reason = "its checkpoint was written with others"
            raise UserError(diagnostics.DataChanged(data_name, reason))
        if state.task != task(state.progress.step):
            raise UserError(diagnostics.TaskChanged(str(path.parent.parent)))
        check(state, path, learner.augmentation.order.num_batches, num_steps)
        wanted = tensors_of(learner, fresh=state.progress.step > 0)
        tensors = read_tensors(path / TENSORS, state.sha256, wanted)
    except (MalformedError, OSError) as fault:
        reason = f"{TENSORS}: {fault.strerror}" if isinstance(fault, OSError) else str(fault)
        older = checkpoints(path.parent)[1:]
        hint = (
            f"to go on from an older one, `{older[0].name}`, remove the folder `{path}`"
            if older
            else "start a new run; nothing has been changed"
        )
        raise UserError(diagnostics.BadCheckpoint(str(path), reason, hint)) from None
    return Snapshot(state.progress, tensors, state.loss_scale)


def check(state: State, path: Path, num_batches: int, num_steps: int) -> None:
    """Refuses numbers that are not of such a training.

    Raises:
        MalformedError: they are not.
    """
    progress, scale = state.progress, state.loss_scale
    fault = progress.problem(num_batches, num_steps)
    if not fault and path.name.removesuffix(TESTED) != untested(progress.step):
        fault = f"it is of step {progress.step}"
    if not fault and scale and not (isfinite(scale.scale) and scale.scale > 0 <= scale.growth):
        fault = "its loss scale is out of range"
    if fault:
        raise MalformedError(f"{STATE}: {fault}")


def kept_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights to keep of a checkpoint's tensors: their average where there is one."""
    prefix = AVERAGE if any(name.startswith(AVERAGE) for name in tensors) else WEIGHT
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def written_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint that this process wrote."""
    with opened(path / TENSORS) as file:
        return {name: torch.from_numpy(file.read(name)) for name in file.tensors}


def tensors_of(learner: Learner, fresh: bool = False) -> dict[str, Tensor]:
    """Weights, buffers, averages and the optimiser's state by name.

    Before the first step there may be none of the latter; of a `fresh` learner it is stood for by
    zeros.
    """
    tensors = {WEIGHT + name: t for name, t in learner.module.state_dict().items()}
    if learner.average is not None:
        tensors |= {AVERAGE + name: t for name, t in learner.average.state_dict().items()}
    for name, parameter in learner.trained.items():
        state = learner.optimiser.state[parameter]
        if fresh and not state:
            state = first_state(learner.optimiser, parameter)
        tensors |= {STATE_OF[key] + name: t for key, t in state.items() if t is not None}
    return tensors


@torch.no_grad()
def unsound(learner: Learner) -> str | None:
    """What of a learner's state nothing can come of, in words: the first tensor with a value that
    is not finite, in any process, or a loss scale that has run out. None where all is sound.
    """
    tensors = tensors_of(learner)
    found = ""
    if tensors:
        parts = map(sharding.own, tensors.values())
        sound = torch.stack([part.isfinite().all() for part in parts]).tolist()
        found = next(
            (told(name) for name, is_so in zip(tensors, sound, strict=True) if not is_so), ""
        )
    scale = loss_scale(learner)
    if not found and scale and not 0 < scale.scale < inf:
        found = "the loss scale"
    return next(filter(None, learner.world.lists([found])), None)


def told(name: str) -> str:
    """A tensor of a checkpoint in words: `the momentum of conv1_1.weight`."""
    kind, _, weight = name.partition("/")
    return f"the weight `{weight}`" if kind + "/" == WEIGHT else f"the {kind} of `{weight}`"


def read_tensors(path: Path, digest: str, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in a file with this sha256, all of them as wanted.

    Raises:
        MalformedError, OSError: the file is not what it should be.
    """
    with opened(path) as file:
        for name in sorted(file.tensors.keys() ^ wanted.keys()):
            raise MalformedError(f"{name} is {'unknown' if name in file.tensors else 'missing'}")
        for name, like in wanted.items():
            stored = file.tensors[name]
            kind = KINDS.get(stored.kind, stored.kind)
            if (stored.shape, kind) != (like.shape, like.dtype):
                raise MalformedError(f"{name} is {kind} {list(stored.shape)}")
        if file.sha256() != digest:
            raise MalformedError(f"{path.name} is damaged: its sha256 is not the one in {STATE}")
        tensors = {name: torch.from_numpy(file.read(name)) for name in wanted}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise MalformedError(f"{name} holds values that are not finite")
    return tensors


@torch.no_grad()
def restore(learner: Learner, taken: Snapshot) -> None:
    """Gives the learner a state, which is one of a training like its own."""
    for name, tensor in learner.module.state_dict().items():
        sharding.fill(tensor, taken.tensors[WEIGHT + name])
    if learner.average is not None:
        for name, tensor in learner.average.state_dict().items():
            sharding.fill(tensor, taken.tensors[AVERAGE + name])
    for name, parameter in learner.trained.items():
        state = first_state(learner.optimiser, parameter)
        if all(STATE_OF[key] + name in taken.tensors for key in state):
            for key, tensor in state.items():
                sharding.fill(tensor, taken.tensors[STATE_OF[key] + name])
            learner.optimiser.state[parameter] |= state
    if taken.loss_scale and learner.scaler.is_enabled():
        scaling = learner.scaler.state_dict()
        scale = taken.loss_scale
        scaling |= {"scale": scale.scale, "_growth_tracker": scale.growth}
        learner.scaler.load_state_dict(scaling)


def shared(taken: Snapshot | None, learner: Learner, world: World) -> Snapshot | None:
    """The state that the first process has `taken` from somewhere, if any, in all processes."""
    if world.size == 1:
        return taken
    known = taken and Told(taken.progress, taken.loss_scale)
    (said,) = world.lists([json.dumps(to_json(known))] if world.is_first else [])
    if (record := json.loads(said)) is None:
        return None
    told = from_json(Told, record)
    wanted = tensors_of(learner, fresh=told.progress.step > 0)
    device = learner.device
    tensors = {}
    for name, like in wanted.items():
        there = taken.tensors[name] if taken else torch.empty(like.shape, dtype=like.dtype)
        tensors[name] = world.broadcast(there.to(device)).cpu()  # one at a time on the device
    return Snapshot(told.progress, tensors, told.loss_scale)


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors as safetensors, in one step.

    Raises:
        UserError: the file cannot be written.
    """
    weights.save(path, {name: t.detach().cpu().numpy() for name, t in tensors.items()}, metadata)
