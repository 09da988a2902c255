"""A net in training: its weights on a device, and what moves them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vggc.backends.torch import BatchRows, TorchNet
from vggc.data.draws import Stream, torch_seed
from vggc.data.loader import Batch
from vggc.data.order import part_of
from vggc.ir.layer_recipe import LayerRecipe
from vggc.recipe.train import AdamW, Recipe, Sgd
from vggc.support.diagnostics import UserError
from vggc.support.precision import TrainPrecision
from vggc.training import diagnostics
from vggc.training.augment import Augmentation, Normaliser, Targets
from vggc.training.initialise import OF_THE_RECIPE
from vggc.training.objective import CLASSIFYING, Objective
from vggc.training.parallel import ALONE, World
from vggc.training.progress import Measured, StepSums
from vggc.training.sharding import is_sharded, shard

DeviceName: TypeAlias = Literal["cpu", "cuda"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

EMA_PREFIX = 10
"""An average of weights keeps at most (1 + steps) / (EMA_PREFIX + steps) of itself, so that the
first weights are soon forgotten."""


@dataclass(frozen=True)
class TrainMachine:
    """Where and in what precision to compute, whether by `torch.compile`, and whether several
    processes are to share the weights instead of having all of them each.
    """

    device: DeviceName
    precision: TrainPrecision
    compiled: bool = False
    sharded: bool = False


def choose_machine(
    device: str, precision: TrainPrecision, compiled: bool | None = None, sharded: bool = False
) -> TrainMachine:
    """The machine for `cpu`, `cuda` or `auto` (CUDA where there is one).

    Unless asked otherwise, nets are `compiled` for GPUs only.

    Raises:
        UserError: there is no CUDA device, or it lacks the precision.
    """
    cuda = torch.cuda.is_available()
    name: DeviceName
    match device:
        case "cuda" if not cuda:
            raise UserError(diagnostics.NoCuda(torch.__version__))
        case "cuda" | "auto" if cuda:
            name = "cuda"
        case _:
            name = "cpu"
    if (name, precision) == ("cpu", "float16"):
        suggestion = "use bfloat16 or float32; float16 needs `--device cuda`"
        raise UserError(diagnostics.UnsupportedPrecision(precision, "a CPU", suggestion))
    if (name, precision) == ("cuda", "bfloat16") and not torch.cuda.is_bf16_supported(False):
        suggestion = "use float16 or float32"
        raise UserError(diagnostics.UnsupportedPrecision(precision, "this GPU", suggestion))
    return TrainMachine(name, precision, name == "cuda" if compiled is None else compiled, sharded)


@dataclass(frozen=True)
class StepResult:
    """What a step of so many `images` came to: `sums` (5,) of their losses, and of what
    `Objective.hits` counts. On a GPU the sums are there when `copied` is over.
    """

    sums: Tensor
    images: int
    copied: torch.cuda.Event | None = None

    @classmethod
    def of(cls, sums: Tensor, images: int) -> StepResult:
        """What is on its way from the device; whoever reads it does not wait for later steps."""
        if not sums.is_cuda:
            return cls(sums, images)
        here = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        here.copy_(sums, non_blocking=True)
        copied.record()
        return cls(here, images, copied)

    def read(self) -> StepSums:
        """The sums, for which the device may have to be waited for."""
        if self.copied:
            self.copied.synchronize()
        loss, correct, boxed, overlap, found = self.sums.tolist()
        return StepSums(
            images=self.images,
            loss=loss,
            correct=int(correct),
            boxed=int(boxed),
            overlap=overlap,
            found=int(found),
        )


class Learner:
    """A module in training. `average` is the module with averaged weights, if the recipe wants
    one; `tested` is the one that is measured and kept.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        machine: TrainMachine,
        augmentation: Callable[[torch.device], Augmentation],
        frozen: Collection[str] = (),
        undecayed: Collection[str] = (),
        world: World = ALONE,
        objective: Objective = CLASSIFYING,
        layers: Mapping[str, LayerRecipe] = OF_THE_RECIPE,
    ) -> None:
        """`frozen` names the weights that keep their values, statistics of normalisations among
        them, `undecayed` those that the L2 penalty leaves alone; `layers` holds by the names of
        weights what their layers say of their training.
        """
        self.recipe, self.machine, self.world = recipe, machine, world
        self.objective = replace(objective, smoothing=recipe.label_smoothing or 0.0)
        self.device = device_of(machine, world)
        self.module = module.to(self.device)
        self.average = copy.deepcopy(self.module).requires_grad_(False) if recipe.ema else None
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name not in frozen)
        if isinstance(self.module, TorchNet):
            self.module.hold(frozen)
        self.parallel = parallel(self.module, machine, world, self.device)
        self.tested = self.module
        if self.average is not None:
            self.tested = parallel(self.average, machine, world, self.device)
        self.augmentation = augmentation(self.device)
        factors = {name: layer.lr for name, layer in layers.items()}
        fused = not self.is_sharded
        self.optimiser = optimiser(self.trained, recipe, undecayed, factors, fused=fused)
        self.scaler = torch.amp.GradScaler(machine.device, enabled=machine.precision == "float16")
        if self.scaler.is_enabled() or isinstance(recipe.optimiser, AdamW):
            # A first step that overflows moves nothing, and would leave momenta of anything.
            for parameter in self.trained.values():
                self.optimiser.state[parameter] |= first_state(self.optimiser, parameter)
        self.steps = 0
        if machine.compiled:
            torch.compiler.reset()  # it compiles a code only so often, and all nets share theirs
        self.forward = torch.compile(self.parallel) if machine.compiled else self.parallel
        self.forward_tested = torch.compile(self.tested) if machine.compiled else self.tested

    @property
    def is_sharded(self) -> bool:
        """Whether this process has a part of the weights only."""
        return is_sharded(self.module)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    @property
    def normalised(self) -> Normaliser:
        """What makes inputs of images that are not varied."""
        return self.augmentation.normalised

    def step(self, batch: Batch, step: int, lr: float) -> StepResult:
        """One step down the gradient of the mean loss over the images of all processes.

        `batch` is on the device. A gradient that is not finite is the caller's to find, by the
        loss; in float16 it moves nothing.
        """
        seed = torch_seed(self.augmentation.order.seed, Stream.STEP, step)
        self.module.train()
        images, targets = self.augmentation(batch, step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["factor"]
        self.optimiser.zero_grad()
        loss = torch.zeros((), device=self.device)
        hits = torch.zeros(4, device=self.device, dtype=torch.float64)
        for rows, together in self.parts(len(images)):
            self.tell(batch, rows)
            # All parts draw the same of dropout for the whole, and take their rows of it.
            torch.manual_seed(seed)
            with together:
                given, wanted = self.outputs(self.forward, images[rows]), targets.part(rows)
                losses = self.objective.losses(given, wanted).sum()
                # Gradients are averaged over processes; the loss is a mean over all images.
                share = losses * (self.world.size / batch.total)
                torch.autograd.backward(self.scaler.scale(share))
            loss += losses.detach()
            hits += self.hits(given, wanted)
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.trained.values(), self.recipe.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.steps = step + 1
        self.update_average()
        return StepResult.of(torch.cat([loss.double()[None], hits]), len(images))

    @torch.no_grad()
    def hits(self, given: Mapping[str, Tensor], targets: Targets) -> Tensor:
        """What of a part of a step is counted: see `Objective.hits`."""
        return self.objective.hits(given, targets, learned=True)

    def parts(self, count: int) -> Iterator[tuple[slice, AbstractContextManager[None]]]:
        """The rows of each part of a step, with what holds back the exchange of gradients until
        the last.
        """
        parts = self.recipe.accumulate
        for index in range(parts):
            together: AbstractContextManager[None] = nullcontext()
            is_last = index == parts - 1
            if is_sharded(self.parallel):
                self.parallel.set_requires_gradient_sync(is_last)
            elif isinstance(self.parallel, DistributedDataParallel) and not is_last:
                together = self.parallel.no_sync()
            yield part_of(count, index, parts), together

    def tell(self, batch: Batch, rows: slice) -> None:
        """Tells a module that sees a part of a step's images which they are."""
        if isinstance(self.module, TorchNet) and (
            self.world.size > 1 or self.recipe.accumulate > 1
        ):
            sum_over = self.world.sum_over if self.world.size > 1 else None
            self.module.whole = BatchRows(batch.rows[rows], batch.total, sum_over)

    @torch.no_grad()
    def update_average(self) -> None:
        """Moves the average towards the weights."""
        if self.average is None or self.recipe.ema is None:
            return
        kept = min(self.recipe.ema, (1 + self.steps) / (EMA_PREFIX + self.steps))
        pairs = (
            (self.average.parameters(), self.module.parameters()),
            (self.average.buffers(), self.module.buffers()),
        )
        for average, newest in pairs:
            if old := list(average):
                torch._foreach_lerp_(old, list(newest), 1 - kept)

    @torch.no_grad()
    def evaluate(
        self, batches: Iterable[Batch], interrupted: Callable[[], bool]
    ) -> Measured | None:
        """The means over the images of all processes; None if it was interrupted."""
        self.tested.eval()
        if is_sharded(self.tested):
            self.tested.unshard()  # here, as not every process may have images
        objective, stopped, top5 = self.objective.plain, 0.0, 0.0
        sums = torch.zeros(6, dtype=torch.float64)
        for batch in batches:
            if interrupted():
                stopped = 1.0
                break
            images, targets = self.augmentation.unvaried(batch)
            given = self.outputs(self.forward_tested, images)
            losses = objective.losses(given, targets).sum().double()[None]
            found = torch.cat([losses, objective.hits(given, targets, learned=False)]).cpu()
            sums += torch.cat([torch.tensor([float(len(images))]), found])
            top5 += objective.best(given, targets.labels)
        if is_sharded(self.tested):
            self.tested.reshard()
        count, loss, top1, boxed, overlap, right, top5, stopped = self.world.sums(
            [*sums.tolist(), top5, stopped]
        )
        if stopped:
            return None
        count, boxed = max(1, count), max(1, boxed)
        classes, boxes = objective.classes, objective.boxes
        return Measured(
            loss=loss / count,
            top1=top1 / count if classes else None,
            top5=top5 / count if classes else None,
            iou=overlap / boxed if boxes else None,
            iou50=right / boxed if boxes else None,
        )

    def outputs(self, module: Callable[[Tensor], Any], images: Tensor) -> dict[str, Tensor]:
        """What the trained heads give of images, float32 (N, …), by the heads' names."""
        dtype = DTYPES[self.machine.precision]
        with torch.autocast(self.machine.device, dtype, enabled=dtype != torch.float32):
            found = module(images)
        return self.objective.by_head(found)


def device_of(machine: TrainMachine, world: World) -> torch.device:
    """The device of this process: on a machine with several GPUs each takes its own.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    if machine.device == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if world.local_size > count:
        raise UserError(diagnostics.TooFewGpus(count, world.local_size))
    torch.cuda.set_device(world.local_rank)
    return torch.device("cuda", world.local_rank)


def optimiser(
    trained: dict[str, nn.Parameter],
    recipe: Recipe,
    undecayed: Collection[str],
    factors: Mapping[str, float],
    fused: bool,
) -> torch.optim.Optimizer:
    """The recipe's optimiser of the parameters, in a group for each decay and each `factor` of the
    rate; `factors` holds those of some, by their names.

    A factor goes for all of a step, and so for the decay in it: what the weights are drawn to
    stays the same, and they come there sooner or later.
    """
    chosen = recipe.optimiser
    alike: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        decay = 0.0 if name in undecayed else chosen.weight_decay
        alike.setdefault((decay, factors.get(name, 1.0)), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "lr": chosen.lr * factor, "factor": factor}
        for (decay, factor), parameters in alike.items()
    ]
    match chosen:
        case Sgd(lr, momentum, nesterov=nesterov):
            return torch.optim.SGD(groups, lr, momentum, nesterov=nesterov, fused=fused)
        case AdamW(lr, betas, eps):
            return torch.optim.AdamW(groups, lr, betas, eps, fused=fused)


def first_state(optimiser: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What an optimiser keeps of a parameter, before the first step."""
    zeros = torch.zeros_like(parameter)
    if isinstance(optimiser, torch.optim.AdamW):
        place = parameter.device if optimiser.defaults["fused"] else "cpu"
        count = torch.zeros((), dtype=torch.float32, device=place)
        return {"step": count, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
    return {"momentum_buffer": zeros} if optimiser.defaults["momentum"] > 0 else {}


def in_channels_last(module: nn.Module) -> nn.Module:
    """The module with the windows of its convolutions in channels-last memory, in place."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return module


def parallel(
    module: nn.Module, machine: TrainMachine, world: World, device: torch.device
) -> nn.Module:
    """The module as all processes together train it: its gradients are the average over them.

    Windows of convolutions come to lie in channels-last memory, in place, but where processes
    share the weights: pieces of those must be contiguous.
    """
    if machine.sharded and world.size > 1:
        shard(module, device, world.size)
        return module
    module = in_channels_last(module)
    if world.size == 1 or not any(p.requires_grad for p in module.parameters()):
        return module
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(
        module, device_ids=ids, gradient_as_bucket_view=True, forward_sync_buffers=False
    )
