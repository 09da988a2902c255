"""What layers say of their own training, beside what the recipe says of all."""

from __future__ import annotations

from typing import assert_never

from vggc.ir.graph import Graph
from vggc.ir.layer_recipe import UNSAID, LayerRecipe
from vggc.recipe.train import Glorot, He, Init, Normal


def layer_recipes(graph: Graph) -> dict[str, LayerRecipe]:
    """What layers say of their training, by the full names of their weights, where they say
    something.

    First values are those of the layer's own weights. Of its normalisation and its activation
    only the rate is told.
    """
    found: dict[str, LayerRecipe] = {}
    for node in graph.nodes:
        said = node.layer.recipe
        if node.name != node.layer.name:
            said = LayerRecipe(lr=said.lr)
        if said != UNSAID:
            found |= dict.fromkeys(graph.weights(node), said)
    return found


def layers_by_recipe(graph: Graph) -> dict[LayerRecipe, list[str]]:
    """What layers say of their training, and the names of those that say it, in order."""
    found: dict[LayerRecipe, dict[str, None]] = {}
    for node in graph.nodes:
        if node.layer.recipe != UNSAID:
            found.setdefault(node.layer.recipe, {})[node.layer.name] = None
    return {said: list(layers) for said, layers in found.items()}


def init_of(layer: LayerRecipe, otherwise: Init) -> Init:
    """How the weights of a layer are drawn, by what it says or as other layers' are."""
    match layer.init:
        case None:
            return otherwise
        case "glorot":
            return Glorot()
        case "he":
            return He()
        case "normal":
            return Normal() if layer.std is None else Normal(layer.std)
        case _:
            assert_never(layer.init)
