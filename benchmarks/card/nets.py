"""Whole nets: of a bundle's kernels, and of torch's modules, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from card.kernels import Loaded, poisoned, size
from card.tables import KernelRow, LayerRow, NetRow, StepRow, WorkloadRow
from card.values import layouts

ALIGNMENT = 256
IMAGE = -1
"""In a step's `reads`: the net's input."""


@dataclass(frozen=True)
class Lifetime:
    """Some bytes that are needed from a step to another, both included."""

    num_bytes: int
    first: int
    last: int


def places(wanted: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Where in one piece of memory each lies, so that none overlaps another of its time, and how
    large the memory is.
    """
    found: list[tuple[int, Lifetime]] = []
    for each in wanted:
        start = 0
        for at, other in sorted(found, key=lambda pair: pair[0]):
            together = each.first <= other.last and other.first <= each.last
            if together and start + each.num_bytes > at:
                start = max(start, _aligned(at + other.num_bytes))
        found.append((start, each))
    return [at for at, _ in found], max((at + each.num_bytes for at, each in found), default=0)


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class PreparedNet:
    """A net whose memory is there: `call` computes `output`."""

    calls: tuple[Callable[[], None], ...]
    output: Tensor
    num_bytes: int
    """Of all values between the steps."""
    held: tuple[Tensor, ...]
    """All memory that the calls read and write."""

    def call(self) -> None:
        for each in self.calls:
            each()


def prepared_net(
    loaded: Loaded,
    net: NetRow,
    chosen: Mapping[str, KernelRow],
    image: Tensor,
    weights: Mapping[str, Tensor],
    *,
    dependent: bool = False,
) -> PreparedNet:
    """A net with the kernel `chosen` for each workload, on float32 images `(N, C, H, W)`."""
    workloads = loaded.bundle.tables.workloads
    device = loaded.device
    kernels = [chosen[step.workload] for step in net.steps]
    last_read = {index: index for index in range(len(net.steps))}
    for index, step in enumerate(net.steps):
        last_read |= dict.fromkeys(step.reads, index)
    last_read[net.output] = len(net.steps)
    values = [
        Lifetime(size(kernel.arguments[-1]), index, last_read[index])
        for index, kernel in enumerate(kernels)
    ]
    spaces = [
        Lifetime(size(space), index, index)
        for index, kernel in enumerate(kernels)
        for space in kernel.workspaces
    ]
    at, total = places([*values, *spaces])
    memory = poisoned(total, device)
    space_at = iter(at[len(values) :])
    held: list[Tensor] = []
    calls = []
    for index, (step, kernel) in enumerate(zip(net.steps, kernels, strict=True)):
        of_step = _step_weights(loaded, workloads[step.workload], step, kernel, weights)
        held += of_step
        sources = [
            image.data_ptr() if read == IMAGE else memory.data_ptr() + at[read]
            for read in step.reads
        ]
        given = [*sources, *(each.data_ptr() for each in of_step), memory.data_ptr() + at[index]]
        names = [argument.name for argument in kernel.arguments]
        pointers = dict(zip(names, given, strict=True))
        pointers |= {space.name: memory.data_ptr() + next(space_at) for space in kernel.workspaces}
        calls.append(loaded.prepared(kernel, pointers, dependent=dependent))

    row = workloads[net.steps[net.output].workload]
    _, layout = layouts(row.kind, row.fields)
    start = at[net.output]
    stored = memory[start : start + layout.num_bytes].view(layout.dtype).view(layout.stored)
    device.wait()  # kernels may read weights before what was launched before them has ended
    return PreparedNet(tuple(calls), stored, total, (memory, image, *held))


def _step_weights(
    loaded: Loaded,
    row: WorkloadRow,
    step: StepRow,
    kernel: KernelRow,
    weights: Mapping[str, Tensor],
) -> list[Tensor]:
    found = [weights[name] for name in step.weights]
    if kernel.recipe is not None:
        found[0] = loaded.packed(kernel.recipe, found[0], kernel.arguments[len(step.reads)])
    return [each.contiguous() for each in found]


def seeded_weights(
    layers: Sequence[LayerRow], dtype: torch.dtype, device: str, seed: int = 0
) -> dict[str, Tensor]:
    """Weights of a net in float32, rounded to a format. Signals keep their size (He et al. 2015,
    section 2.2).
    """
    random = torch.Generator(device).manual_seed(seed)
    found = {}
    for layer in layers:
        for name, shape in layer.weights.items():
            values = torch.randn(*shape, generator=random, device=device)
            if len(shape) > 1:
                values = (values * (2 / prod(shape[1:])) ** 0.5).to(dtype).float()
            else:
                values = values * 0.1
            found[name] = values
    return found


def module(layers: Sequence[LayerRow], weights: Mapping[str, Tensor]) -> nn.Sequential:
    """A net as one would write it in torch, in float32."""
    found = nn.Sequential(*(_module(layer) for layer in layers))
    for layer, each in zip(layers, found, strict=True):
        for (_, parameter), name in zip(each.named_parameters(), layer.weights, strict=True):
            parameter.data = weights[name].clone()
    return found.eval().requires_grad_(False)


def _module(layer: LayerRow) -> nn.Module:
    sizes = layer.sizes
    match layer.kind:
        case "conv":
            return nn.Conv2d(**sizes)
        case "linear":
            return nn.Linear(**sizes)
        case "pool":
            return nn.MaxPool2d(**sizes)
        case "relu":
            return nn.ReLU(inplace=True)
        case "flatten":
            return nn.Flatten()
        case kind:
            raise ValueError(f"no module for {kind}")
