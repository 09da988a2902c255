"""A file of weights as every form gives it: names, shapes and types first, values on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.ir.ops import Shape
from vggc.weight_files.facts import WeightFacts

WeightForm: TypeAlias = Literal["safetensors", "PyTorch", "HDF5 of Keras"]

FlatOrder: TypeAlias = Literal["CHW", "HWC"]
"""In which order a fully-connected layer reads the values of a map."""

KERAS_WEIGHTS = "model.weights.h5"
"""The file in a `.keras` archive that holds the weights."""

MOST_TENSORS = 1 << 17
"""Tensors in one file: the largest nets have some thousands."""
MOST_DIMENSIONS = 16

COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
"""What is counted beside the weights: images by normalisations and averages, costs by profilers."""


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a file that has not been read. `name` is its name there, `shape` as PyTorch lays
    weights out, whatever the file does, and `kind` its type in the file's own words; `is_float`
    says whether its values can be weights.
    """

    name: str
    shape: Shape
    kind: str
    is_float: bool

    @property
    def size(self) -> int:
        """The number of values."""
        return prod(self.shape)


@dataclass(frozen=True)
class WeightFile:
    """An open file of weights.

    `tensors` are in the order in which the file has them, by names that end in the role of a
    weight: prefixes that wrap a whole net are left out, and other words for roles are turned into
    ours. With `in_order` that order is the one in which the net's layers were made. `reader` gives
    the values of one. `left_out` says in words what else lies in the file.
    """

    form: WeightForm
    tensors: Mapping[str, FileTensor]
    reader: Callable[[str], NDArray[np.float32]] = field(repr=False)
    in_order: bool = False
    flat_order: FlatOrder = "CHW"
    facts: WeightFacts = field(default_factory=WeightFacts)
    left_out: tuple[str, ...] = ()

    def read(self, name: str) -> NDArray[np.float32]:
        """The values of a tensor, contiguous, in its `shape`; memory for them is only taken now.

        Raises: MalformedError where they cannot be had; OSError where the file cannot be read.
        """
        return self.reader(name)


def is_counter(name: str) -> bool:
    """Whether a tensor of this name counts something, so that no output depends on it."""
    return name.rpartition(".")[2] in COUNTERS


WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What the names of a whole net begin with when it was saved in a wrapper: of several GPUs, of a
training loop, of torch.compile."""
MOST_WRAPPERS = 8


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Names without what all of them begin with because the net was wrapped, by the full ones;
    counters may lie beside the wrapped net.
    """
    found = {name: name for name in names if not is_counter(name)}
    counters = {name: name for name in names if is_counter(name)}
    for _ in range(MOST_WRAPPERS):
        common = next((w for w in WRAPPERS if all(n.startswith(w) for n in found.values())), None)
        if common is None or not found:
            break
        found = {name: short.removeprefix(common) for name, short in found.items()}
        counters = {name: short.removeprefix(common) for name, short in counters.items()}
    return found | counters
