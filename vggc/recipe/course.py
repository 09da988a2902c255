"""What of a recipe decides about the memory of a training."""

from __future__ import annotations

from dataclasses import replace

from vggc.analysis.training import TrainingSetup
from vggc.ir.graph import Graph
from vggc.recipe.layer_names import layer_names, selected, unfit, with_weights
from vggc.recipe.train import TRAIN, AdamW, Recipe, Sgd, default_recipe
from vggc.syntax import ast


def course_of(recipe: Recipe, graph: Graph, images: int) -> TrainingSetup:
    """A training by the recipe with so many images at once: those of a part of a step."""
    match recipe.optimiser:
        case AdamW():
            moments = 2
        case Sgd(momentum=momentum):
            moments = 1 if momentum else 0
    frozen = frozenset(frozen_weights(recipe, graph))
    averaged = recipe.ema is not None
    return TrainingSetup(
        images=images, parts=recipe.accumulate, moments=moments, averaged=averaged, frozen=frozen
    )


def course_in(block: ast.Block | None, graph: Graph, images: int) -> TrainingSetup:
    """`course_of` what a block says, as far as it can be understood."""
    reading = TRAIN.read(block, default_recipe(graph))
    recipe, freeze = reading.value, reading.table.get("freeze")
    if freeze is not None and unfit(freeze, layer_names(graph)):
        recipe = replace(recipe, freeze=None)
    return course_of(recipe, graph, images)


def frozen_weights(recipe: Recipe, graph: Graph) -> tuple[str, ...]:
    """The weights that keep their first values, by their full names."""
    weights = with_weights(graph)
    return tuple(
        name for layer in selected(recipe.freeze or (), graph) for name in weights.get(layer, ())
    )
