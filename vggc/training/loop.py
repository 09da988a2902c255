"""The training loop: a built module, images and a recipe in; trained weights out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from math import isfinite, log
from time import perf_counter
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from vggc.diagnostics import UserError
from vggc.preprocessing import Preprocessing
from vggc.recipe.train import Recipe
from vggc.training import mistakes
from vggc.training.batches import (
    Batch,
    Stream,
    num_batches,
    torch_seed,
    train_batches,
    val_batches,
)
from vggc.training.images import Data
from vggc.training.progress import (
    Epoch,
    EpochDone,
    Event,
    Finished,
    Interrupted,
    Outcome,
    Progress,
    StepDone,
    Stopped,
    Sums,
)
from vggc.training.schedules import learning_rate

DeviceName: TypeAlias = Literal["cpu", "cuda"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

SAVE_SECONDS = 600
"""A long epoch is saved whenever this much time has passed."""

FLAT_EPOCHS, FLAT_STEPS, FLAT_SHARE = 2, 200, 0.98
"""A training stops as flat after this many epochs and this many steps, if no epoch's
training loss was below this share of ln(classes), the loss of guessing."""


@dataclass(frozen=True)
class Machine:
    """Where and in what precision to compute."""

    device: DeviceName
    precision: Precision


def choose_machine(device: str, precision: Precision) -> Machine:
    """The machine for `cpu`, `cuda` or `auto` (CUDA where there is one).

    Raises:
        UserError: there is no CUDA device, or it lacks the precision.
    """
    cuda = torch.cuda.is_available()
    match device:
        case "cuda" if not cuda:
            raise UserError(mistakes.NoCuda(None, torch.__version__))
        case "cuda" | "auto" if cuda:
            machine = Machine("cuda", precision)
        case _:
            machine = Machine("cpu", precision)
    if machine == Machine("cpu", "fp16"):
        suggestion = "use bf16 or fp32; fp16 needs `--device cuda`"
        raise UserError(mistakes.UnsupportedPrecision(None, precision, "a CPU", suggestion))
    if machine == Machine("cuda", "bf16") and not torch.cuda.is_bf16_supported():
        suggestion = "use fp16 or fp32"
        raise UserError(mistakes.UnsupportedPrecision(None, precision, "this GPU", suggestion))
    return machine


class Learner:
    """A module in training: its weights on a device, the optimiser and the loss scaler."""

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        machine: Machine,
        preprocessing: Preprocessing,
        frozen: Collection[str] = (),
    ) -> None:
        """`frozen` names the parameters that keep their values."""
        self.machine = machine
        self.device = torch.device(machine.device)
        self.module = in_channels_last(module.to(self.device))
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name not in frozen)
        self.optimiser = torch.optim.SGD(
            self.trained.values(),
            lr=recipe.optimiser.lr,
            momentum=recipe.optimiser.momentum,
            weight_decay=recipe.optimiser.weight_decay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(machine.device, enabled=machine.precision == "fp16")
        self.mean, self.std = (
            torch.tensor(values, device=self.device).view(1, -1, 1, 1) * 255
            for values in (preprocessing.mean, preprocessing.std)
        )

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def step(self, batch: Batch, lr: float, seed: int) -> tuple[float, int]:
        """One step down the gradient; the batch's mean loss and its correct first guesses.

        Where the loss is not finite, the weights are left alone. `seed` is for dropout.
        """
        torch.manual_seed(seed)
        self.module.train()
        images, labels = self.normalised(batch)
        logits = self.logits(images)
        loss = functional.cross_entropy(logits, labels)
        value = float(loss.item())
        if isfinite(value):
            for group in self.optimiser.param_groups:
                group["lr"] = lr
            self.optimiser.zero_grad()
            torch.autograd.backward(self.scaler.scale(loss))
            self.scaler.step(self.optimiser)
            self.scaler.update()
        return value, int((logits.argmax(1) == labels).sum().item())

    @torch.no_grad()
    def evaluate(
        self, batches: Iterable[Batch], interrupted: Callable[[], bool]
    ) -> tuple[float, float, float] | None:
        """Mean loss, top-1 and top-5 accuracy; None if it was interrupted."""
        self.module.eval()
        images, loss, top1, top5 = 0, 0.0, 0, 0
        for batch in batches:
            if interrupted():
                return None
            inputs, labels = self.normalised(batch)
            logits = self.logits(inputs)
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            images += len(labels)
            loss += float(functional.cross_entropy(logits, labels, reduction="sum").item())
            top1 += int(best[:, 0].sum().item())
            top5 += int(best.sum().item())
        return loss / images, top1 / images, top5 / images

    def normalised(self, batch: Batch) -> Batch:
        """The batch on the device, its pixels as `Preprocessing` says, float32 (N, C, H, W)."""
        pixels, labels = (part.to(self.device, non_blocking=True) for part in batch)
        return (pixels.float() - self.mean) / self.std, labels

    def logits(self, images: Tensor) -> Tensor:
        """Class scores float32 (N, classes)."""
        dtype = DTYPES[self.machine.precision]
        with torch.autocast(self.machine.device, dtype, enabled=dtype != torch.float32):
            scores: Tensor = self.module(images)
        return scores.float()


def in_channels_last(module: nn.Module) -> nn.Module:
    """The module with the windows of its convolutions in channels-last memory, in place."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return module


def fit(
    learner: Learner,
    data: Data,
    recipe: Recipe,
    seed: int,
    *,
    progress: Progress,
    save: Callable[[Progress], None],
    on_event: Callable[[Event], None],
    interrupted: Callable[[], bool],
) -> Outcome:
    """Trains from `progress` to the end of the recipe.

    Stops before that when `interrupted`, when a loss is not finite, or when it stays flat
    (see FLAT_EPOCHS). `save` is called after each epoch, every SAVE_SECONDS and on an
    interrupt; whoever restores that state and calls again ends with the same weights.

    The learner holds initial weights, or those that belong to `progress`. `interrupted`
    is asked after each step and while accuracy is measured.

    Raises:
        UserError: an image cannot be read any more, or the device is out of memory.
    """
    try:
        while len(progress.epochs) < recipe.num_epochs(num_batches(len(data.train), recipe.batch)):
            outcome = fit_epoch(learner, data, recipe, seed, progress, save, on_event, interrupted)
            if not isinstance(outcome, Progress):
                return outcome
            progress = outcome
    except torch.OutOfMemoryError:
        device, batch = learner.machine.device, min(recipe.batch, len(data.train))
        raise UserError(mistakes.OutOfMemory(None, device, batch, max(1, batch // 2))) from None
    return Finished(progress)


def fit_epoch(
    learner: Learner,
    data: Data,
    recipe: Recipe,
    seed: int,
    progress: Progress,
    save: Callable[[Progress], None],
    on_event: Callable[[Event], None],
    interrupted: Callable[[], bool],
) -> Progress | Interrupted | Stopped:
    """What is left of one epoch."""
    saved, saved_at = progress, perf_counter()
    epoch, sums = len(progress.epochs), progress.sums
    per_epoch = num_batches(len(data.train), recipe.batch)
    first, total = epoch * per_epoch, recipe.num_steps(per_epoch)
    num_steps = min(per_epoch, total - first)
    past = tuple(row.val_top1 for row in progress.epochs)
    lr = recipe.optimiser.lr
    start = perf_counter()
    for batch in train_batches(data, recipe, seed, epoch, range(sums.steps, num_steps)):
        step = first + sums.steps
        lr = learning_rate(recipe, step, total, past)
        loss, correct = learner.step(batch, lr, torch_seed(seed, Stream.STEP, step))
        if not isfinite(loss):
            return Stopped(saved, not_finite("training", loss, epoch, step, lr))
        now = perf_counter()
        sums, start = sums.plus(len(batch[1]), loss, correct, now - start), now
        on_event(step_done(epoch, step, total, sums))
        if interrupted():
            break
        if now - saved_at > SAVE_SECONDS:
            saved, saved_at = replace(progress, sums=sums), now
            save(saved)
    measured = None
    if sums.steps == num_steps:
        measured = learner.evaluate(val_batches(data, recipe), interrupted)
    if measured is None:
        save(replace(progress, sums=sums))
        return Interrupted(replace(progress, sums=sums))
    step = first + num_steps
    if not isfinite(measured[0]):
        return Stopped(saved, not_finite("held-out", measured[0], epoch, step - 1, lr))
    row = Epoch(
        epoch + 1,
        step,
        lr,
        sums.loss / sums.images,
        sums.correct / sums.images,
        *measured,
        images_per_second=sums.images / sums.seconds,
        seconds=sums.seconds + perf_counter() - start,
    )
    progress = Progress((*progress.epochs, row))
    save(progress)
    on_event(EpochDone(row))
    flat = flat_loss(progress, len(data.classes))
    return Stopped(progress, flat) if flat else progress


def step_done(epoch: int, step: int, total: int, sums: Sums) -> StepDone:
    images = sums.images
    return StepDone(
        epoch + 1,
        step + 1,
        total,
        sums.loss / images,
        sums.correct / images,
        images / sums.seconds,
    )


def not_finite(part: str, loss: float, epoch: int, step: int, lr: float) -> mistakes.LossNotFinite:
    return mistakes.LossNotFinite(None, part, loss, epoch + 1, step + 1, lr, lr / 10)


def flat_loss(progress: Progress, num_classes: int) -> mistakes.LossFlat | None:
    """The reason to stop if the loss never left that of guessing (see FLAT_EPOCHS)."""
    epochs, last, guess = len(progress.epochs), progress.epochs[-1], log(num_classes)
    learned = any(row.train_loss < FLAT_SHARE * guess for row in progress.epochs)
    if learned or epochs < FLAT_EPOCHS or last.step < FLAT_STEPS:
        return None
    return mistakes.LossFlat(None, epochs, last.step, last.train_loss, num_classes, guess, last.lr)
