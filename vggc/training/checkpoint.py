"""Saved states of a training: safetensors and JSON, never pickle.

A checkpoint is a folder with `state.json`, which names a file of tensors and its sha256.
The tensors are written first, under a new name, and `state.json` is then replaced in one
step: whatever happens, the folder holds the last state or the one before, whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vggc.diagnostics import UserError
from vggc.files import replacing, sha256
from vggc.records import MalformedError, read_record, write_record
from vggc.training import mistakes
from vggc.training.loop import Learner
from vggc.training.progress import Progress

WEIGHT, MOMENTUM = "weight/", "momentum/"
"""What the names of tensors begin with in a checkpoint."""

HEADER_BYTES = 16 * 2**20
"""The most that a safetensors file may hold beyond its tensors."""


@dataclass(frozen=True)
class LossScale:
    """The state of fp16's loss scaler."""

    scale: float
    growth: int


@dataclass(frozen=True)
class State:
    """What `state.json` holds."""

    format: Literal[1]
    progress: Progress
    data: str
    task: str
    tensors: str
    sha256: str
    loss_scale: LossScale | None


def save_checkpoint(
    folder: Path, learner: Learner, progress: Progress, data: str, task: str
) -> None:
    """Writes the state of a training.

    `data` is the fingerprint of its images, `task` that of its net, recipe and seed.

    Raises:
        UserError: a file cannot be written; the checkpoint before is still there.
    """
    step = progress.epochs[-1].step if progress.epochs else 0
    name = f"tensors-{step + progress.sums.steps}.safetensors"
    folder.mkdir(exist_ok=True)
    save_tensors(folder / name, tensors_of(learner))
    scaling = learner.scaler.state_dict()
    scale = LossScale(scaling["scale"], scaling["_growth_tracker"]) if scaling else None
    state = State(1, progress, data, task, name, sha256(folder / name), scale)
    write_record(folder / "state.json", state)
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(
    folder: Path, learner: Learner, data: str, data_name: str, task: str
) -> Progress:
    """Restores a training: the learner's tensors, and the progress they belong to.

    Everything is checked first; a checkpoint that does not fit changes nothing.

    Raises:
        UserError: the checkpoint is damaged, or the net, the recipe, the seed or the images
            are no longer those that it was written with.
    """
    try:
        state = read_record(folder / "state.json", State)
        if state.data != data:
            raise UserError(mistakes.DataChanged(None, data_name))
        if state.task != task:
            raise UserError(mistakes.TaskChanged(None, str(folder.parent)))
        tensors = read_tensors(folder, state, expected(learner))
    except (MalformedError, SafetensorError, OSError) as fault:
        raise UserError(mistakes.BadCheckpoint(None, str(folder), str(fault))) from None
    restore(learner, tensors)
    if state.loss_scale and learner.scaler.is_enabled():
        scaling = learner.scaler.state_dict()
        scaling |= {"scale": state.loss_scale.scale, "_growth_tracker": state.loss_scale.growth}
        learner.scaler.load_state_dict(scaling)
    return state.progress


def tensors_of(learner: Learner) -> dict[str, Tensor]:
    """Weights, buffers and momenta by name."""
    tensors = {WEIGHT + name: t for name, t in learner.module.state_dict().items()}
    for name, parameter in learner.trained.items():
        momentum = learner.optimiser.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[MOMENTUM + name] = momentum
    return tensors


def expected(learner: Learner) -> dict[str, Tensor]:
    """A tensor of the right shape and type for each name that a checkpoint must hold."""
    tensors = {WEIGHT + name: t for name, t in learner.module.state_dict().items()}
    if learner.optimiser.defaults["momentum"] > 0:
        tensors |= {MOMENTUM + name: p for name, p in learner.trained.items()}
    return tensors


def read_tensors(folder: Path, state: State, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state, all of them as wanted.

    Raises:
        MalformedError, SafetensorError, OSError: the file is not what it should be.
    """
    if not re.fullmatch(r"tensors-\d{1,18}\.safetensors", state.tensors):
        raise MalformedError("state.json names a file that is no checkpoint's")
    path = folder / state.tensors
    most = HEADER_BYTES + sum(t.nbytes for t in wanted.values())
    if not path.is_file():
        raise MalformedError(f"{path.name} is missing")
    if path.stat().st_size > most:
        raise MalformedError(f"{path.name} is larger than the net's weights")
    if sha256(path) != state.sha256:
        raise MalformedError(f"{path.name} is damaged: its sha256 is not the one in state.json")
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for name in sorted(names ^ wanted.keys()):
            raise MalformedError(f"{name} is {'unknown' if name in names else 'missing'}")
        tensors = {name: file.get_tensor(name) for name in sorted(names)}
    for name, tensor in tensors.items():
        like = wanted[name]
        if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            raise MalformedError(f"{name} is {tensor.dtype} {list(tensor.shape)}")
    return tensors


@torch.no_grad()
def restore(learner: Learner, tensors: dict[str, Tensor]) -> None:
    for name, tensor in learner.module.state_dict().items():
        tensor.copy_(tensors[WEIGHT + name])
    for name, parameter in learner.trained.items():
        if MOMENTUM + name in tensors:
            momentum = torch.empty_like(parameter).copy_(tensors[MOMENTUM + name])
            learner.optimiser.state[parameter]["momentum_buffer"] = momentum


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors as safetensors, in one step.

    Raises:
        UserError: the file cannot be written.
    """
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}

    with replacing(path) as part:
        try:
            save_file(plain, part)
        except SafetensorError as fault:
            raise OSError(str(fault)) from None
