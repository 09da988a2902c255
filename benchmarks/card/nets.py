"""Whole nets of a bundle's kernels, and the weights that they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from card.kernels import Loaded, poisoned, size
from card.tables import KernelRow, NetLayers, NetRow, StepRow, Tables, WorkloadRow
from card.values import expected, layouts, levels, rounded

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
    """A net whose memory is there: `call` computes `outputs`."""

    calls: tuple[Callable[[], None], ...]
    outputs: tuple[Tensor, ...]
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
    """A net with the kernel `chosen` for each workload, on float32 images `(N, C, H, W)`, with the
    weights that its steps take, by name.
    """
    device = loaded.device
    kernels = [chosen[step.workload] for step in net.steps]
    last_read = {index: index for index in range(len(net.steps))}
    for index, step in enumerate(net.steps):
        last_read |= dict.fromkeys(step.reads, index)
    last_read |= dict.fromkeys(net.outputs, len(net.steps))
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
        own = {role: weights[name] for role, name in step.weights.items()}
        of_step = loaded.arranged(kernel, own)
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

    outputs = []
    for index in net.outputs:
        row = loaded.bundle.tables.workloads[net.steps[index].workload]
        _, layout = layouts(row.kind, row.fields)
        stored = memory[at[index] : at[index] + layout.num_bytes]
        outputs.append(stored.view(layout.dtype).view(layout.stored))
    device.wait()  # kernels may read weights before what was launched before them has ended
    return PreparedNet(tuple(calls), tuple(outputs), total, (memory, image, *held))


def seeded_weights(layers: NetLayers, form: str, device: str, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a net in float32, rounded to a format. Signals keep their size (He et al. 2015,
    section 2.2).
    """
    random = torch.Generator(device).manual_seed(seed)
    found = {}
    for layer in layers.rows:
        for name, shape in layer.weights.items():
            values = torch.randn(*shape, generator=random, device=device)
            if len(shape) > 1:
                values = rounded(values * (2 / prod(shape[1:])) ** 0.5, form)
            else:
                values = values * 0.1
            found[name] = values
    return found


def step_weights(
    tables: Tables, net: NetRow, weights: Mapping[str, Tensor], image: Tensor
) -> dict[str, Tensor]:
    """The weights that the steps of a net take, by name, from those of its layers.

    Of a net in int8 they are whole, with a scale for each output channel; the scale of a value is
    that with which its largest number on `image` is the largest there is.
    """
    taken = {name for step in net.steps for name in step.weights.values()}
    found = {name: weights[name] for name in taken & weights.keys()}
    if net.precision != "int8":
        return found
    values: list[Tensor] = []
    scales: list[Tensor] = []
    """The scale of each step's value; without meaning where that is float32."""
    for step in net.steps:
        row = tables.workloads[step.workload]
        source, output = layouts(row.kind, row.fields)
        inputs = [image if read == IMAGE else values[read] for read in step.reads]
        values.append(
            _exact(row, inputs, {r: weights[n] for r, n in step.weights.items() if n in weights})
        )
        scale = scales[step.reads[0]] if row.kind == "MaxPool" else image.new_ones(1)
        if output.format == "uint8" and row.kind in ("Conv", "Convert"):
            scale = values[-1].abs().max().reshape(1) / levels(output.zero)
            found[step.weights["out_scale" if row.kind == "Conv" else "scale"]] = scale
        scales.append(scale)
        if row.kind == "Conv" and source[0].format == "uint8":
            found |= _in_int8(step, weights, scales[step.reads[0]], source[0].zero)
    return found


def _exact(row: WorkloadRow, inputs: list[Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """What a workload of a net in int8 means, in float32: no number stands for another one."""
    if row.kind == "Conv":
        shape = (len(weights["weight"]), -1, *row.fields["kernel"])
        weights = {**weights, "weight": weights["weight"].reshape(shape)}
    with torch.inference_mode():
        return expected(row.kind, row.fields, inputs, weights)


def _in_int8(
    step: StepRow, weights: Mapping[str, Tensor], scale: Tensor, zero: int
) -> dict[str, Tensor]:
    """The weight of a convolution in whole numbers, the scales of its sums, and its bias, which
    takes back what stands for zero in what it reads.
    """
    exact = weights[step.weights["weight"]].flatten(1)
    own = exact.abs().amax(1).clamp(min=1e-30) / 127
    whole = (exact / own[:, None]).round()
    sums = scale * own
    shape = weights[step.weights["weight"]].shape
    return {
        step.weights["weight"]: whole.reshape(shape),
        step.weights["scale"]: sums,
        step.weights["bias"]: weights[step.weights["bias"]] - zero * whole.sum(1) * sums,
    }
