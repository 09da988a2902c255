"""First weights, by the seed."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt
from typing import assert_never

import torch
from torch import Tensor, nn

from vggc.backends.torch import TorchNet
from vggc.data.draws import Stream, torch_seed
from vggc.ir.layer_recipe import UNSAID, LayerRecipe
from vggc.recipe.layers import init_of
from vggc.recipe.train import Glorot, He, Init, Normal

OF_THE_RECIPE: Mapping[str, LayerRecipe] = {}
"""What layers say of their training, none of which says anything."""


@torch.no_grad()
def initialise(
    module: nn.Module, init: Init, seed: int, layers: Mapping[str, LayerRecipe] = OF_THE_RECIPE
) -> None:
    """Draws all weights of two dimensions or more, and sets all biases to 0, each but where
    `layers` says otherwise of a weight by its name.

    Other vectors, such as the scales of a normalisation, keep what they are. The same
    seed gives the same weights on every device.
    """
    random = torch.Generator().manual_seed(torch_seed(seed, Stream.INITIALISATION))
    inputs = module.inputs if isinstance(module, TorchNet) else {}
    for name, parameter in module.named_parameters():
        said = layers.get(name, UNSAID)
        if parameter.dim() >= 2:
            shape = tuple(parameter.shape)
            parameter.copy_(draw(shape, init_of(said, init), random, inputs.get(name)))
        elif name.split(".")[-1] == "bias":
            parameter.fill_(said.bias)


def draw(
    shape: tuple[int, ...], init: Init, random: torch.Generator, inputs: float | None = None
) -> Tensor:
    """Random weights float32 of a shape (outputs, inputs, *window); or, where the `inputs` to one
    output are told, of a transposed convolution's, (inputs, outputs, *window).
    """
    fan_out, fan_in = (float(each * prod(shape[2:])) for each in shape[:2])
    if inputs is not None:
        fan_in, fan_out = inputs, fan_in
    weights = torch.empty(shape)
    match init:
        case Glorot():
            bound = sqrt(6 / (fan_in + fan_out))
            return weights.uniform_(-bound, bound, generator=random)
        case He():
            return weights.normal_(0, sqrt(2 / fan_in), generator=random)
        case Normal(std):
            return weights.normal_(0, std, generator=random)
        case _:
            assert_never(init)
