"""`vggc zoo`."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import accumulate
from typing import Any

import click

from vggc.cli import console
from vggc.ir.ops import describe
from vggc.pretrained.table import PUBLISHED
from vggc.program import ZOO, Program, from_zoo, zoo
from vggc.recipe.protocol import TEST
from vggc.recipe.train import TRAIN, Recipe
from vggc.support.sheet import Sheet
from vggc.syntax.format import format_net


@click.group("zoo", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the nets that come with vggc: parameters, MACs for one input, recipe.

    Each file says where its net was published and which variant it is.
    """
    if context.invoked_subcommand is not None:
        return
    programs = [from_zoo(name) for name in zoo()]
    if as_json:
        console.out(json.dumps([_object(program) for program in programs], indent=2))
    else:
        console.sheet(_sheet(programs))


@command.command("show")
@click.argument("name")
@click.option("--resolved", is_flag=True, help="With its bases and all defaults filled in.")
def show(name: str, resolved: bool) -> None:
    """Print one of the nets as it is written, to begin a file of your own with.

    NAME may have values for parameters: `vgg16(classes=10)`; --resolved fills them in.
    """
    program = from_zoo(name)
    summary = _summary(program)
    text = format_net(program.resolved) if resolved else program.written.span.source.text
    console.out(text.removesuffix("\n"))
    console.status(summary)


def _sheet(programs: list[Program]) -> Sheet:
    return Sheet(
        title="the zoo",
        header=("net", "input", "parameters", "MACs", "top-1", *RECIPE),
        rows=tuple(map(_row, programs)),
        numbers=(False, False, True, True, True, True, *(False,) * (len(RECIPE) - 1)),
        notes=(
            "MACs for one input; `vggc zoo show NAME` prints a file, `vggc summary NAME` what it"
            " costs layer by layer",
            "top-1: the accuracy in percent of the published weights that a net has, which"
            " `--weights imagenet` takes; `vggc weights NET` tells more",
        ),
        rules=tuple(end - 1 for end in accumulate(map(len, ZOO))),
        spare=("also", "input", "scale", "schedule", "batch", "length", "optimiser"),
    )


def _row(program: Program) -> tuple[str, ...]:
    totals, graph = program.report().totals, program.graph
    sizes = f"{totals.params:,}", _scaled(totals.macs)
    published = PUBLISHED.get(graph.name)
    accuracy = f"{published.top1:.2f}" if published else ""
    return (graph.name, describe(graph.input), *sizes, accuracy, *_recipe(program.recipe))


def _scaled(count: int) -> str:
    return f"{count / 1e9:,.2f} G" if count >= 1e9 else f"{count / 1e6:,.2f} M"


RECIPE = ("batch", "length", "optimiser", "schedule", "scale", "also")
"""The settings by which recipes differ most."""


def _recipe(recipe: Recipe) -> tuple[str, ...]:
    """The values of `RECIPE`."""
    table = TRAIN.flatten(recipe)
    length = f"{recipe.steps:,} steps" if recipe.steps else f"{recipe.epochs} epochs"
    rate = f"{table['optimiser']} {recipe.optimiser.lr:g}"
    also: list[str] = [each.loss for each in recipe.loss if each.loss != "cross-entropy"]
    also += [f"from {recipe.init_from.net}"] if recipe.init_from else []
    cells = recipe.batch, length, rate, table["schedule"], table["scale"], ", ".join(also)
    return tuple(map(str, cells))


def _summary(program: Program) -> str:
    graph, totals = program.graph, program.report().totals
    outputs = ", ".join(f"{name} {describe(shape)}" for name, shape in graph.outputs.items())
    published = None if program.arguments else PUBLISHED.get(graph.name)
    weights = f"; published weights of {published.top1:.2f} % top-1" if published else ""
    return (
        f"{graph.name}: {totals.params:,} parameters, {_scaled(totals.macs)} MACs,"
        f" {describe(graph.input)} → {outputs}{weights}"
    )


def _object(program: Program) -> dict[str, Any]:
    graph, totals = program.graph, program.report().totals
    published = PUBLISHED.get(graph.name)
    return {
        "net": graph.name,
        "input": graph.input,
        "outputs": graph.outputs,
        "params": totals.params,
        "macs": totals.macs,
        "weights": asdict(published) if published else None,
        "train": TRAIN.flatten(program.recipe),
        "test": TEST.flatten(program.protocol),
    }
