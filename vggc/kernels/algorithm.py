"""What an algorithm is: one way to compute the workloads of a kind, with all that is asked of it.

`vggc.kernels.cpu.ALGORITHMS` and `vggc.kernels.cuda.ALGORITHMS` list them. To add one is to write
a class in a file of its own, and a row there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vggc.kernels.builder import Argument, Buffer, function
from vggc.kernels.workloads import (
    Choice,
    Kernel,
    Packing,
    Workload,
    buffer_shape,
    storage,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

W = TypeVar("W", bound=Workload)
K = TypeVar("K", bound="DataclassInstance")

Cost: TypeAlias = tuple[float, ...]
"""The order of preference, least first: half cycles of all cores, then what breaks ties."""

Buffers: TypeAlias = dict[str, Buffer]
"""The arguments of a kernel by name, in order: the inputs `x`, or `x0`, `x1` and so on; the
workload's weights by their names; the output `y`; then its scratch memory."""


@dataclass(frozen=True)
class Algorithm(ABC, Generic[W, K]):
    """One way to compute a workload.

    Its knobs, a frozen dataclass of integers, are the sizes that it leaves open.
    """

    workload: W

    names: ClassVar[tuple[str, ...]]
    """What manifests and tuning databases call it; several where sizes decide the name."""
    computes: ClassVar[type[Workload] | tuple[type[Workload], ...]]
    """The kinds of workloads that it may apply to."""

    @classmethod
    def applies(cls, workload: W) -> bool:
        """Whether the algorithm computes `workload`, which is one of the kinds in `computes`."""
        return True

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What TVM is told of its functions."""
        return {}

    @property
    def name(self) -> str:
        """What manifests and tuning databases call the algorithm for its workload, one of
        `names`.
        """
        return self.names[0]

    @abstractmethod
    def knobs(self) -> Iterable[K]:
        """Every setting of the knobs that there is code for."""

    @abstractmethod
    def cost(self, knobs: K) -> Cost:
        """What the workload is thought to cost with these knobs; lists compare, the least
        is best.
        """

    @property
    def error(self) -> float:
        """The relative L2 error that the algorithm's arithmetic adds, beyond that of plain sums."""
        return 0.0

    def error_with(self, weight: NDArray[np.float32]) -> float:
        """The relative L2 error that the algorithm adds with `weight`, at least `error`, which is
        for usual ones.
        """
        return self.error

    def packing(self, knobs: K) -> Packing | None:
        """How the kernel wants the weight called `weight` laid out; None where it takes none, or as
        it is.
        """
        return None

    def arithmetic(self, knobs: K) -> str | None:
        """How results are rounded: where it is equal, an image gives the same bits with one weight,
        whatever the batch, its place in it, the other images and the number of threads.

        None where no such thing is promised.
        """
        return None

    def macs(self, knobs: K) -> int | None:
        """The multiply-adds that the kernel really does; None where they are what the workload asks
        for.
        """
        return None

    def scratch(self, knobs: K) -> tuple[Argument, ...]:
        """The memory that the kernel works in beside its inputs, weights and output. Its caller
        lends it, and nothing in it lasts from one call to the next.
        """
        return ()

    @abstractmethod
    def emit(self, knobs: K, buffers: Buffers) -> None:
        """Write the body of the kernel, whose `buffers` are its arguments by name, in order."""

    def shown(self, knobs: K) -> dict[str, int]:
        """The knobs as manifests and tuning databases hold them."""
        return asdict(knobs)

    def choice(self, knobs: K) -> Choice:
        """What manifests and tuning databases say of the algorithm with these knobs."""
        return Choice(self.name, tuple(self.shown(knobs).items()))

    def kernel(self, knobs: K) -> Kernel:
        """The kernel with these knobs, one of the settings that `knobs()` gives."""
        packing, scratch = self.packing(knobs), self.scratch(knobs)
        taken = [*_arguments(self.workload, packing), *scratch]
        arguments = {argument.name: argument for argument in taken}

        def body(*buffers: Buffer) -> None:
            self.emit(knobs, dict(zip(arguments, buffers, strict=True)))

        func = function(body, arguments.values(), self.attributes)
        return Kernel(
            algorithm=self.name,
            knobs=self.shown(knobs),
            func=func,
            packing=packing,
            macs=self.macs(knobs),
            scratch=scratch,
        )


@dataclass(frozen=True)
class NoKnobs:
    """The knobs of an algorithm that leaves nothing open."""


class Fixed(Algorithm[W, NoKnobs]):
    """An algorithm that leaves nothing to choose; no other applies where it does."""

    def knobs(self) -> Iterable[NoKnobs]:
        return (NoKnobs(),)

    def cost(self, knobs: NoKnobs) -> Cost:
        return (0.0,)


def _arguments(workload: Workload, packing: Packing | None) -> list[Argument]:
    inputs = workload.inputs
    names = ["x"] if len(inputs) == 1 else [f"x{index}" for index in range(len(inputs))]
    found = [
        Argument(name, buffer_shape(layout), storage(layout))
        for name, layout in zip(names, inputs, strict=True)
    ]
    for name, shape in workload.weights.items():
        if name == "weight" and packing is not None:
            found.append(Argument(name, packing.packed_shape, packing.packed_type))
        else:
            found.append(Argument(name, shape, "float32"))
    return [*found, Argument("y", buffer_shape(workload.output), storage(workload.output))]
