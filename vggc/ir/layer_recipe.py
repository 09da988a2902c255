"""What a layer says of its own training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

InitWord: TypeAlias = Literal["glorot", "he", "normal"]
"""The words of a recipe's `init`."""


@dataclass(frozen=True)
class LayerRecipe:
    """How the weights of one layer are trained, where it says so itself; the rest is the recipe's.

    `init` says how its kernel or matrix is drawn, with the deviation `std` for `normal`; None
    leaves it to the recipe. `bias` is what its biases begin with. The rate of each
    step is multiplied by `lr` for all weights of the layer, those of its normalisation and its
    activation among them.

    An inference knows nothing of it: plans, kernels and weights that are drawn without a training
    are the same whatever stands here.
    """

    init: InitWord | None = None
    std: float | None = None
    bias: float = 0.0
    lr: float = 1.0

    def __str__(self) -> str:
        """The options that say it; none where nothing is said."""
        init = (f"init={self.init}",) if self.init else ()
        std = (f"std={self.std:g}",) if self.std is not None else ()
        bias = (f"bias={self.bias:g}",) if self.bias else ()
        lr = (f"lr={self.lr:g}",) if self.lr != 1 else ()
        return " ".join((*init, *std, *bias, *lr))


UNSAID = LayerRecipe()
"""The recipe of a layer that says nothing of its training."""
