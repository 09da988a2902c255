"""A foreign net as layers of our language: a list of items, each reading those before it.

What operators mean is told item by item as they come; what belongs together (a convolution, its
normalisation and its activation) is put together afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from vggc.importing.foreign import ForeignTensor
from vggc.importing.operators import Operator
from vggc.importing.views import TensorView
from vggc.ir.ops import Pair, Shape

OptionValue: TypeAlias = bool | int | float | str | tuple[int, ...]

JOINS = ("add", "mul", "concat")
"""The items that read several."""
EITHER = "either"
"""The rounding of a pool whose windows fit: another one's decides, as a net has one for all."""
TRAINED = ("conv", "deconv", "fc")
"""The items that `norm=` and `act=` are said of."""


@dataclass(frozen=True, kw_only=True)
class ForeignItem:
    """A layer: its word in parts, the items that it reads, the shape that it gives for one image,
    `(C, H, W)` or `(C,)`, and its tensors by what follows its name in ours (`weight`, `norm.bias`).

    `options` are all that the layer needs, also those that are defaults. Some words are none of the
    language's: what those mean becomes clear from what stands behind them, or is refused.
    `node` is the operator that it comes from.
    """

    word: str
    reads: tuple[int, ...]
    shape: Shape
    node: Operator
    size: Pair | None = None
    width: int | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    tensors: Mapping[str, ForeignTensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignOutput:
    """An output of the foreign net: its name, the item that gives it, and how it lies there.

    `after` is what the original does besides: `log`, which comparing does, too, or `argmax`.
    """

    name: str
    item: int
    view: TensorView
    after: str = ""


@dataclass(frozen=True)
class ForeignItems:
    """A whole net as items, the first of which is its input. `input_view` and `batch` tell how the
    original takes its images. `notes` tell what is otherwise than in the original.
    """

    items: tuple[ForeignItem, ...]
    outputs: tuple[ForeignOutput, ...]
    input_view: TensorView
    batch: int = 1
    notes: tuple[str, ...] = ()
    input_type: np.dtype[Any] = field(default_factory=lambda: np.dtype("f4"))
    """The type of the numbers that the original takes."""

    def readers(self) -> list[int]:
        """How often each item is read, as an output included."""
        counts = [0] * len(self.items)
        for item in self.items:
            for read in item.reads:
                counts[read] += 1
        for output in self.outputs:
            counts[output.item] += 1
        return counts
