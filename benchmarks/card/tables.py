"""The tables of a bundle: kernels, what they compute, and the nets that are made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

TABLES = "tables.json"
SOURCES = "sources.zip"
"""The CUDA C++ of each file in `code`, by the file's name."""
WEIGHTS_FILE = "weights.bin"
"""Where the ONNX model of a bundle has its weights, beside it."""
REBUILT = "rebuilt"
"""Where machine code lies that was made anew, instead of that of the same name."""

Workload: TypeAlias = dict[str, Any]
"""What is computed, as vggc's tuning database has it: the kind, and its fields."""


@dataclass(frozen=True)
class Argument:
    """Memory that a kernel is given: its extents, and the type of its elements, by torch's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Launch:
    """One CUDA kernel: blocks, threads of each, bytes of dynamic shared memory, and the arguments
    by name.
    """

    function: str
    grid: tuple[int, int, int]
    threads: int
    shared: int
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class PanelRecipe:
    """How a weight `(K, …)` is packed: every `panel` output channels alike, in the order of the
    numbers in a file. -1 is a zero.
    """

    panel: int
    index: str


@dataclass(frozen=True)
class TurnedRecipe:
    """How a weight is packed: as an array of the shape `view`, whose axes are taken in an `order`,
    in the shape `dense`; zeros follow in each axis.
    """

    view: tuple[int, ...]
    order: tuple[int, ...]
    dense: tuple[int, ...]


Recipe: TypeAlias = PanelRecipe | TurnedRecipe


@dataclass(frozen=True)
class KernelRow:
    """A way to carry out a workload: its machine code, and how it is launched.

    `arguments` are those of the workload: inputs, weights, output. `workspaces` are what else the
    launches need; what they hold at first does not matter. `model_seconds` is what vggc's model of
    the card says.
    """

    id: str
    workload: str
    algorithm: str
    knobs: dict[str, int]
    model_seconds: float
    module: str
    arguments: tuple[Argument, ...]
    workspaces: tuple[Argument, ...]
    launches: tuple[Launch, ...]
    recipe: Recipe | None = None

    @property
    def title(self) -> str:
        """The algorithm and its knobs in one line."""
        return " ".join(
            [self.algorithm, *(f"{name}={value}" for name, value in self.knobs.items())]
        )


@dataclass(frozen=True)
class WorkloadRow:
    """What some layers compute, and its kernels, the one that the model prefers first.

    `code` is the revision of vggc's algorithms for it, as its tuning database has it.
    `worth` is its place among what is measured, 0 first. `floor_seconds` is what the card's
    arithmetic or its memory needs at least, whichever is longer.
    """

    id: str
    workload: Workload
    worth: int
    batch: int
    layers: tuple[str, ...]
    kernels: tuple[str, ...]
    floor_seconds: float
    flops: int
    is_dense: bool
    code: str

    @property
    def kind(self) -> str:
        """The kind of the workload."""
        return next(iter(self.workload))

    @property
    def fields(self) -> dict[str, Any]:
        """What the workload says of itself."""
        return dict(self.workload[self.kind])


@dataclass(frozen=True)
class StepRow:
    """A call of a net: the steps whose values it reads, -1 for the image, and the names of its
    weights by what they are to the workload.
    """

    layer: str
    workload: str
    reads: tuple[int, ...]
    weights: dict[str, str]


@dataclass(frozen=True)
class NetRow:
    """A net in a precision for a batch of images: its calls, and those that give its outputs.

    `worth` is its place among what is measured, 0 first.
    """

    net: str
    precision: str
    worth: int
    batch: int
    input: tuple[int, int, int]
    steps: tuple[StepRow, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """What tells it from others."""
        return f"{self.net}/{self.precision}/{self.batch}"


@dataclass(frozen=True)
class LayerRow:
    """A layer of a net as torch has it: its kind, sizes, the layers that it reads, -1 for the
    image, and the shapes of its weights by name.
    """

    kind: str
    sizes: dict[str, Any]
    reads: tuple[int, ...]
    weights: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class NetLayers:
    """A net as torch has it: its layers in order, and those that give its outputs."""

    rows: tuple[LayerRow, ...]
    outputs: tuple[int, ...]

    @property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """The layers that read each layer."""
        found: list[list[int]] = [[] for _ in self.rows]
        for index, row in enumerate(self.rows):
            for read in row.reads:
                if read >= 0:
                    found[read].append(index)
        return tuple(map(tuple, found))


@dataclass(frozen=True)
class Tables:
    """All that a bundle holds beside machine code."""

    about: dict[str, Any]
    kernels: Mapping[str, KernelRow]
    workloads: Mapping[str, WorkloadRow]
    nets: tuple[NetRow, ...]
    layers: Mapping[str, NetLayers]
    """The layers of each net, by its name."""

    def write(self, folder: Path) -> None:
        (folder / TABLES).write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True)
class Bundle:
    """A folder with machine code and its tables."""

    folder: Path

    @cached_property
    def tables(self) -> Tables:
        found = json.loads((self.folder / TABLES).read_text(encoding="utf-8"))
        return Tables(
            about=found["about"],
            kernels={name: _kernel(row) for name, row in found["kernels"].items()},
            workloads={name: _workload(row) for name, row in found["workloads"].items()},
            nets=tuple(map(_net, found["nets"])),
            layers={name: _layers(said) for name, said in found["layers"].items()},
        )

    def read(self, name: str) -> bytes:
        """The bytes of a file of the bundle."""
        rebuilt = self.folder / REBUILT / name
        return (rebuilt if rebuilt.exists() else self.folder / name).read_bytes()

    @property
    def is_emulated(self) -> bool:
        """Whether its machine code is that of a CPU."""
        return bool(self.tables.about["emulated"])


def _kernel(row: dict[str, Any]) -> KernelRow:
    lists = {
        "arguments": tuple(_argument(each) for each in row["arguments"]),
        "workspaces": tuple(_argument(each) for each in row["workspaces"]),
        "launches": tuple(_launch(each) for each in row["launches"]),
        "recipe": _recipe(row["recipe"]) if row["recipe"] else None,
    }
    return KernelRow(**{**row, **lists})


def _argument(row: dict[str, Any]) -> Argument:
    return Argument(row["name"], tuple(row["shape"]), row["dtype"])


def _launch(row: dict[str, Any]) -> Launch:
    x, y, z = row["grid"]
    return Launch(
        function=row["function"],
        grid=(x, y, z),
        threads=row["threads"],
        shared=row["shared"],
        arguments=tuple(row["arguments"]),
    )


def _workload(row: dict[str, Any]) -> WorkloadRow:
    lists = {"layers": tuple(row["layers"]), "kernels": tuple(row["kernels"])}
    return WorkloadRow(**{**row, **lists})


def _recipe(row: dict[str, Any]) -> Recipe:
    if "panel" in row:
        return PanelRecipe(**row)
    return TurnedRecipe(*(tuple(row[name]) for name in ("view", "order", "dense")))


def _net(row: dict[str, Any]) -> NetRow:
    lists = {
        "input": tuple(row["input"]),
        "steps": tuple(StepRow(**{**step, "reads": tuple(step["reads"])}) for step in row["steps"]),
        "outputs": tuple(row["outputs"]),
    }
    return NetRow(**{**row, **lists})


def _layers(said: dict[str, Any]) -> NetLayers:
    return NetLayers(tuple(map(_layer, said["rows"])), tuple(said["outputs"]))


def _layer(row: dict[str, Any]) -> LayerRow:
    shapes = {name: tuple(shape) for name, shape in row["weights"].items()}
    return LayerRow(row["kind"], row["sizes"], tuple(row["reads"]), shapes)
