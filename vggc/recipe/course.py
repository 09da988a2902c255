"""What of a recipe decides about the memory of a training."""

from __future__ import annotations

from dataclasses import replace

from vggc.analysis.training import TrainingSetup
from vggc.ir.graph import Graph
from vggc.recipe.heads import trained_heads
from vggc.recipe.layer_names import layer_names, selected, unfit, with_weights
from vggc.recipe.train import AdamW, Recipe, Sgd, read_over_defaults
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
    reading = read_over_defaults(block, graph)
    recipe, freeze = reading.value, reading.table.get("freeze")
    if freeze is not None and unfit(freeze, layer_names(graph)):
        recipe = replace(recipe, freeze=None)
    return course_of(recipe, graph, images)


def frozen_weights(recipe: Recipe, graph: Graph) -> tuple[str, ...]:
    """The weights that keep their first values, by their full names: those of layers that are to
    be frozen, and of layers that no trained head reads.
    """
    weights, idle = with_weights(graph), idle_weights(recipe, graph)
    frozen = [
        name for layer in selected(recipe.freeze or (), graph) for name in weights.get(layer, ())
    ]
    return tuple(dict.fromkeys([*frozen, *idle]))


def idle_weights(recipe: Recipe, graph: Graph) -> list[str]:
    """The weights of layers that no head which is trained depends on."""
    trained = trained_heads(recipe.loss, graph)
    needed = {head.node for head in graph.heads if head.name in trained}
    for index in reversed(range(len(graph.nodes))):
        if index in needed:
            needed.update(graph.nodes[index].inputs)
    idle = [node for index, node in enumerate(graph.nodes) if index not in needed]
    return [name for node in idle for name in graph.weights(node)]
