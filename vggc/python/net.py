"""A net in Python: its graph, its cost, its picture, its module."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vggc import program as programs
from vggc.analysis.layer_table import layer_table
from vggc.analysis.outline import Outline, outline
from vggc.analysis.report import Report, Row, Totals
from vggc.api.draw import picture_of, save
from vggc.ir.graph import Graph
from vggc.ir.ops import Shape, describe
from vggc.program import Program, with_input
from vggc.support.paths import is_run
from vggc.support.precision import NUMBER_BYTES, Precision, parse_precision
from vggc.support.sheet import Sheet, as_html, as_text
from vggc.support.source import Source
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse

if TYPE_CHECKING:
    from vggc.api.trained import NetOfRun
    from vggc.backends.torch import TorchNet
    from vggc.pictures.shapes import Picture
    from vggc.training.run import Run


@dataclass(frozen=True, repr=False)
class NetPicture:
    """A picture of a net, to scale. A notebook shows it."""

    drawn: Picture
    """The shapes and texts, each at its place."""

    @cached_property
    def svg(self) -> str:
        """An SVG document: text, without scripts."""
        from vggc.pictures.svg import as_svg

        return as_svg(self.drawn)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the picture to a new file, NAME.svg or NAME.png.

        Raises:
            UserError: no picture is called so, something is there, or nothing can be written.
        """
        save(self.drawn, Path(path))

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<NetPicture, {len(self.svg):,} characters of SVG>"


@dataclass(frozen=True)
class NetSummary:
    """What a net costs, layer by layer, as `vggc summary` tells it. A notebook shows the table."""

    report: Report
    outline: Outline

    @property
    def rows(self) -> tuple[Row, ...]:
        """The layers in order: shapes, parameters, MACs, bytes, receptive fields."""
        return self.report.rows

    @property
    def totals(self) -> Totals:
        """The sums over the whole net."""
        return self.report.totals

    @property
    def table(self) -> Sheet:
        """The summary as a table, a row a layer."""
        return layer_table(self.report, self.outline)

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        return as_text(self.table)


@dataclass(frozen=True, repr=False)
class Network:
    """A net that is well formed. A notebook shows its table of layers.

    One of a `run` has the run's weights, with another input or recipe, too.
    """

    program: Program
    run: Run | None = None

    @property
    def name(self) -> str:
        """The net's name in its file."""
        return self.program.net.name

    @property
    def graph(self) -> Graph:
        """The net's ops in topological order."""
        return self.program.graph

    @property
    def input(self) -> Shape:
        """The shape (C, H, W) of an image that the net takes."""
        return self.graph.input

    @property
    def outputs(self) -> dict[str, Shape]:
        """The shape of what each head gives of an image, by its name, the main one first."""
        return self.graph.outputs

    @cached_property
    def text(self) -> str:
        """The whole net as a spec, with bases and values filled in."""
        return format_net(self.program.net)

    def with_input(self, height: int, width: int) -> Network:
        """The net for images of another size; the lengths of its recipe move along.

        Raises:
            UserError: they are too small for it, or too large.
        """
        program = self.program.replace(with_input(self.program.net, (height, width)))
        return checked(program, self.run)

    def with_recipe(self, *changes: str) -> Network:
        """The net with changes of its recipe and test, as `--set` takes them: `"lr=0.01"`.

        Raises:
            UserError: with every change that cannot be made.
        """
        return checked(self.program.overridden(changes), self.run)

    def report(self, batch: int = 1, dtype: Precision = "float32") -> NetSummary:
        """What the net costs for so many images at once, in float32, tf32, bfloat16, float16 or
        int8.
        """
        found = self.program.report(batch, parse_precision(dtype, tuple(NUMBER_BYTES)))
        return NetSummary(found, outline(self.graph, found))

    def picture(self) -> NetPicture:
        """A picture of the net's layers as blocks to scale.

        Raises:
            UserError: it has too many layers to be drawn.
        """
        return NetPicture(picture_of(self.program))

    def module(
        self, weights: str | os.PathLike[str] | None = None, *, seed: int | None = None
    ) -> TorchNet:
        """The net as a torch module in eval mode: images (N, C, H, W) to the tensor of the only
        head, or to a dict of tensors by the heads' names.

        The weights are those in a file of any form, or with `"imagenet"` published ones; without
        one, of a net of a run the run's last, or its `"best"`; of others random ones of `seed`,
        with a warning where none is given.

        Raises:
            UserError: there are no such weights, they are not of this net, or have a seed, too.
        """
        from vggc.api.subject import ask
        from vggc.backends.torch import build
        from vggc.python.told import log, warn_of_random

        path = None if weights is None else Path(weights)
        subject = ask(self.known, path, seed, None, None, log.info).subject()
        warn_of_random(subject, seed)
        return build(self.graph, subject.weights).eval()

    @property
    def known(self) -> Program | NetOfRun:
        """The net as functions of `vggc.api` take it, with its run where it is of one."""
        from vggc.api.trained import NetOfRun

        return NetOfRun(self.program, self.run) if self.run else self.program

    def _repr_html_(self) -> str:
        return self.report()._repr_html_()

    def __repr__(self) -> str:
        params, heads = self.report().totals.params, self.outputs.values()
        given = " and ".join(map(describe, heads))
        return f"<Network {self.name}: {describe(self.input)} → {given}, {params:,} parameters>"


def load(
    spec: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    changes: Iterable[str] = (),
) -> Network:
    """The net in a file, of a run, or of that name in the zoo, with values for its parameters if
    any stand behind it: `vgg16(classes=10, width=0.5)`. That of a run has the run's weights.

    `size` is another height and width of its input; `changes` are made to its recipe and its test:
    `["lr=0.01", "flip=off"]`.

    Raises:
        UserError: there is no such net, with every mistake in it otherwise.
    """
    named, run = os.fspath(spec), None
    if is_run(named):
        from vggc.api.trained import net_in
        from vggc.training.run import Run

        run = Run.load(Path(named))
        program = net_in(run)
    else:
        program = programs.load(named)
    if size is not None:
        program = program.replace(with_input(program.net, size))
    changes = (changes,) if isinstance(changes, str) else tuple(changes)
    return checked(program.overridden(changes) if changes else program, run)


def from_text(text: str, name: str = "<text>") -> Network:
    """The net that a spec describes; `name` is what its mistakes call the text.

    Raises:
        UserError: with every mistake in it.
    """
    return checked(Program(parse(Source(name, text))))


def zoo() -> tuple[str, ...]:
    """The names of the nets that come with vggc: the paper's first, then those around it."""
    return tuple(programs.zoo())


def checked(program: Program, run: Run | None = None) -> Network:
    """The net of a program, and of a run if it is of one, held to have no mistakes.

    Raises:
        UserError: with every mistake in it.
    """
    program.check()
    return Network(program, run)
