"""Kernels of a bundle with memory of their own: prepared, launched, and held to float32."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from card.device import Device
from card.driver import LOCAL_BYTES, REGISTERS, Function
from card.tables import (
    Argument,
    Bundle,
    KernelRow,
    PanelRecipe,
    Recipe,
    TurnedRecipe,
    WorkloadRow,
)
from card.values import (
    DTYPES,
    EPSILON,
    Layout,
    expected,
    layouts,
    levels,
    rounded,
    weight_shapes,
)

GUARD = 1 << 16
"""Bytes around what a kernel writes, in which nobody may write."""
WHOLE = 40
"""The size of random weights that are whole numbers."""
POISON = 0xFF
"""Bytes of it are no number in any format of floats."""


class WrongKernel(Exception):
    """A kernel does not compute what it should."""


def size(argument: Argument) -> int:
    """The bytes of an argument."""
    return prod(argument.shape) * DTYPES[argument.dtype].itemsize


@dataclass
class Loaded:
    """The kernels of a bundle on a device."""

    bundle: Bundle
    device: Device
    functions: dict[tuple[str, str], Function] = field(default_factory=dict)
    indices: dict[str, Tensor] = field(default_factory=dict)

    def function(self, module: str, name: str) -> Function:
        """A CUDA kernel of a module."""
        if (module, name) not in self.functions:
            image = self.bundle.read(module)
            self.functions[module, name] = self.device.driver.function(image, name)
        return self.functions[module, name]

    def prepared(
        self, kernel: KernelRow, pointers: Mapping[str, int], *, dependent: bool = False
    ) -> Callable[[], None]:
        """A call of a kernel on these places in memory, by the names of its arguments and
        workspaces. Where it is `dependent`, it may begin before the kernel before it has ended,
        for which it waits itself.
        """
        launches = [
            self.function(kernel.module, launch.function).prepared(
                launch.grid,
                launch.threads,
                launch.shared,
                [pointers[name] for name in launch.arguments],
                dependent,
            )
            for launch in kernel.launches
        ]

        def call() -> None:
            stream = self.device.stream
            for launch in launches:
                launch(stream)

        return call

    def resources(self, kernel: KernelRow) -> dict[str, int]:
        """The registers of a thread, and what of its values lies in memory for lack of them."""
        found = [self.function(kernel.module, launch.function) for launch in kernel.launches]
        return {
            "registers": max(each.attribute(REGISTERS) for each in found),
            "spilled_bytes": max(each.attribute(LOCAL_BYTES) for each in found),
        }

    def arranged(self, kernel: KernelRow, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """A workload's weights, by their names, as a kernel takes them, in order."""
        found = []
        for argument in kernel.arguments:
            if argument.name in weights:
                weight = weights[argument.name]
                if argument.name == "weight" and kernel.recipe is not None:
                    weight = self.packed(kernel.recipe, weight, argument)
                found.append(weight.contiguous())
        return found

    def index(self, recipe: PanelRecipe) -> Tensor:
        """Where each element of a panel comes from."""
        if recipe.index not in self.indices:
            differences = np.frombuffer(zlib.decompress(self.bundle.read(recipe.index)), np.int32)
            index = torch.from_numpy(np.cumsum(differences, dtype=np.int32))
            self.indices[recipe.index] = index.to(self.device.type)
        return self.indices[recipe.index]

    def packed(self, recipe: Recipe, weight: Tensor, argument: Argument) -> Tensor:
        """A weight `(K, …)` as a kernel reads it."""
        held = weight.to(DTYPES[argument.dtype])
        match recipe:
            case PanelRecipe():
                return self._in_panels(recipe, held.flatten(1), argument)
            case TurnedRecipe():
                turned = held.reshape(recipe.view).permute(recipe.order).reshape(recipe.dense)
                rest = [
                    side
                    for whole, part in zip(argument.shape, recipe.dense, strict=True)
                    for side in (whole - part, 0)
                ]
                return torch.nn.functional.pad(turned, rest[::-1]).contiguous()

    def _in_panels(self, recipe: PanelRecipe, rows: Tensor, argument: Argument) -> Tensor:
        index = self.index(recipe)
        panels = prod(argument.shape) // len(index)
        missing = panels * recipe.panel - len(rows)
        rows = torch.nn.functional.pad(rows, (0, 0, 0, missing)).view(panels, -1)
        rows = torch.nn.functional.pad(rows, (0, 1))  # the zero that -1 stands for
        last = rows.shape[1] - 1
        found = rows.index_select(1, torch.where(index < 0, last, index))
        return found.reshape(argument.shape)


@dataclass(frozen=True)
class Case:
    """Random values of a workload, as they lie in memory, and what comes of them in float32."""

    inputs: tuple[Tensor, ...]
    weights: dict[str, Tensor]
    result: Tensor


def case(row: WorkloadRow, device: Device, seed: int = 0) -> Case:
    """Values of a workload, weights scaled so that the result is of the inputs' size."""
    random = torch.Generator(device.type).manual_seed(seed)

    def normal(shape: Sequence[int]) -> Tensor:
        return torch.randn(*shape, generator=random, device=device.type)

    inputs, output = layouts(row.kind, row.fields)
    stored = [layout.pack(normal(layout.shape) * _spread(layout)) for layout in inputs]
    values = [layout.unpack(each) for layout, each in zip(inputs, stored, strict=True)]
    weights = _case_weights(row, inputs[0], output, normal)
    with torch.inference_mode():
        result = expected(row.kind, row.fields, values, weights).reshape(output.shape)
    if output.format == "uint8":
        result = result.clamp(-output.zero, 255 - output.zero)
    return Case(tuple(stored), weights, result)


def _case_weights(
    row: WorkloadRow, source: Layout, output: Layout, normal: Callable[[Sequence[int]], Tensor]
) -> dict[str, Tensor]:
    shapes = weight_shapes(row.kind, row.fields)
    found = {name: normal(shape) for name, shape in shapes.items()}
    if "weight" in found:
        terms = prod(shapes["weight"][1:])
        if "scale" in found:
            found["weight"] = (found["weight"] * WHOLE).round().clamp(-127, 127)
            size = WHOLE * (terms * (_spread(source) ** 2 + source.zero**2)) ** 0.5
            found["scale"] = (1 + found["scale"].abs()) / (2 * size)
        else:
            found["weight"] = rounded(found["weight"] / terms**0.5, source.format)
    elif "scale" in found:  # of a conversion, from or to uint8
        found["scale"] = torch.full_like(found["scale"], 1 / _spread(output))
    if "out_scale" in found:
        found["out_scale"] = torch.full_like(found["out_scale"], 1 / _spread(output))
    return found


def _spread(layout: Layout) -> float:
    """The size of a layout's values: in uint8 they fill the range."""
    return levels(layout.zero) / 3 if layout.format == "uint8" else 1.0


def check(loaded: Loaded, row: WorkloadRow, kernel: KernelRow, made: Case) -> dict[str, Any]:
    """What a kernel gives of a case, whose output and workspaces are no numbers at first.

    Raises: WrongKernel where it is not what float32 gives, where it writes beside its output or
    leaves zeros around it that are none.
    """
    _, output = layouts(row.kind, row.fields)
    places = [*made.inputs, *loaded.arranged(kernel, made.weights)]
    store = torch.full(
        (output.num_bytes + 2 * GUARD,), POISON, dtype=torch.uint8, device=loaded.device.type
    )
    target = store[GUARD:-GUARD].view(output.dtype).view(output.stored)
    pointers = {
        argument.name: each.data_ptr()
        for argument, each in zip(kernel.arguments, [*places, target], strict=True)
    }
    spaces = {each.name: poisoned(size(each), loaded.device) for each in kernel.workspaces}
    pointers |= {name: space.data_ptr() for name, space in spaces.items()}
    call = loaded.prepared(kernel, pointers)
    for _ in range(2):  # what a call leaves behind must not disturb the next one
        store.fill_(POISON)
        call()
    loaded.device.wait()
    edges = torch.cat([store[:GUARD], store[-GUARD:]])
    got = output.unpack(target)
    error = relative_error(got, made.result)
    limit = EPSILON[output.format] + EPSILON["float32"]
    problems = {
        "it writes beside its output": bool((edges != POISON).any()),
        "some of the output is not written, or no number": not bool(torch.isfinite(got).all()),
        "the halo or the padding is not zero": not output.clean(target),
        f"relative error {error:.2g}": not error <= limit,
    }
    for problem, is_there in problems.items():
        if is_there:
            raise WrongKernel(problem)
    return {"error": error, **loaded.resources(kernel)}


def poisoned(count: int, device: Device) -> Tensor:
    """So many bytes that are no numbers."""
    return torch.full((count,), POISON, dtype=torch.uint8, device=device.type)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """The L2 norm of the difference, relative to that of what is wanted."""
    difference = torch.linalg.vector_norm(got - wanted, dtype=torch.float64)
    return float(difference / torch.linalg.vector_norm(wanted, dtype=torch.float64))


@dataclass(frozen=True)
class Repeated:
    """Many calls of a kernel, on operands in turn that are together larger than the cache."""

    calls: tuple[Callable[[], None], ...]
    launches: int
    held: tuple[Tensor, ...]
    """The memory of the operands."""

    def call(self) -> None:
        for number in range(self.launches):
            self.calls[number % len(self.calls)]()


def copies_of(row: WorkloadRow, device: Device) -> int:
    """How many copies of a workload's operands are more than the cache holds."""
    inputs, output = layouts(row.kind, row.fields)
    weights = (
        sum(map(prod, weight_shapes(row.kind, row.fields).values())) * inputs[0].dtype.itemsize
    )
    once = sum(each.num_bytes for each in (*inputs, output)) + weights
    wanted = -(-device.effort.beyond_cache // max(1, once))
    return max(1, min(device.effort.copies, wanted))


def launches_for(row: WorkloadRow, seconds: float, device: Device) -> int:
    """The calls that take about a round's time, each copy of the operands as often as another."""
    copies = copies_of(row, device)
    wanted = device.effort.round_seconds / max(seconds, 1e-6)
    return copies * max(1, min(256 // copies, round(wanted / copies)))


def repeated(loaded: Loaded, row: WorkloadRow, kernel: KernelRow, launches: int) -> Repeated:
    """Calls of a kernel on random operands, which are not zeros, as zeros take less power."""
    device = loaded.device
    held: list[Tensor] = []
    calls = []
    for _ in range(copies_of(row, device)):
        pointers = {}
        for argument in (*kernel.arguments, *kernel.workspaces):
            values = drawn(argument.shape, argument.dtype, device)
            held.append(values)
            pointers[argument.name] = values.data_ptr()
        calls.append(loaded.prepared(kernel, pointers))

    return Repeated(tuple(calls), launches, tuple(held))


def drawn(shape: Sequence[int], dtype: str, device: Device) -> Tensor:
    """Random numbers of a type, all over the range of whole ones."""
    values = torch.empty(tuple(shape), dtype=DTYPES[dtype], device=device.type)
    match dtype:
        case "uint8":
            return values.random_(0, 256)
        case "int8":
            return values.random_(-127, 128)
        case _:
            return values.uniform_(-0.05, 0.1)
