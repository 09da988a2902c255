"""A net in Python: its graph, its cost, its picture, its module."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

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
    from vggc.api.evaluate import UntestedNet
    from vggc.api.trained import NetOfRun, Subject
    from vggc.backends.torch import TorchNet
    from vggc.pictures.shapes import Picture
    from vggc.python.prediction import ImageLike, Prediction
    from vggc.training.run import Run
    from vggc_runtime.preprocessing import Preprocessing


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

    One of a `run` has the run's weights, with another input or recipe, too. One that was loaded
    with `weights`, a name or a file, has these; `preset` is what their pictures go through, where
    somebody has said it.
    """

    program: Program
    run: Run | None = None
    weights: Path | None = None
    preset: str | None = None

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
        return replace(self, program=sound(program))

    def with_recipe(self, *changes: str) -> Network:
        """The net with changes of its recipe and test, as `--set` takes them: `"lr=0.01"`.

        Raises:
            UserError: with every change that cannot be made.
        """
        return replace(self, program=sound(self.program.overridden(changes)))

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
        one those that the net was loaded with; of a net of a run the run's last, or its `"best"`;
        of others random ones of `seed`, with a warning where none is given.

        Raises:
            UserError: there are no such weights, they are not of this net, or have a seed, too.
        """
        from vggc.backends.torch import build
        from vggc.python.told import warn_of_random

        if weights is None and seed is None and self.has_weights:
            return build(self.graph, self.subject.weights).eval()
        subject = self._asked(weights, seed)
        warn_of_random(subject, seed)
        return build(self.graph, subject.weights).eval()

    @property
    def has_weights(self) -> bool:
        """Whether the net has weights of its own: a run's, or those that it was loaded with."""
        return self.run is not None or self.weights is not None

    @cached_property
    def subject(self) -> Subject:
        """The net with weights of its own, which stay in memory.

        Raises:
            UserError: there are no such weights, or they do not fit.
        """
        return self._asked(None, None)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What a picture goes through to be an input of the module:
        `torch.from_numpy(net.preprocessing.read("cat.jpg"))`. None of a net without weights of its
        own.

        Raises:
            UserError: there are no such weights, or they do not fit.
        """
        return self.subject.preprocessing if self.has_weights else None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the scores; none where nobody names them.

        Raises:
            UserError: there are no such weights, or they do not fit.
        """
        return self.subject.classes if self.has_weights else ()

    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is several texts, too
        self, images: ImageLike, top: int = 5
    ) -> Prediction: ...

    @overload
    def predict(self, images: Iterable[ImageLike], top: int = 5) -> list[Prediction]: ...

    def predict(
        self, images: ImageLike | Iterable[ImageLike], top: int = 5
    ) -> Prediction | list[Prediction]:
        """The `top` classes of an image, or of each of several, with their probabilities, by the
        centre crop. Images are the paths of files, or Pillow's.

        Raises:
            UserError: with every image that cannot be read; the net has no weights of its own, or
                tells no classes.
            CheckFailed: the net gives values that are not finite.
        """
        from vggc.api.evaluate import EvalOptions
        from vggc.api.predict import run_predictor
        from vggc.python.prediction import predictions

        return predictions(run_predictor(self.untested, EvalOptions()), images, top)

    @property
    def untested(self) -> UntestedNet:
        """The net as it is tested.

        Raises:
            UserError: it has no weights of its own.
        """
        from vggc.api.evaluate import UntestedNet, net_without_weights

        if not self.has_weights:
            raise net_without_weights(self.name)
        return UntestedNet(
            named=str(self.run.folder) if self.run else self.name,
            program=self.program,
            recipe=self.run.recipe if self.run else self.program.recipe,
            run=self.run,
            weights=self.weights,
            preprocessing=self.preset,
        )

    def _asked(self, weights: str | os.PathLike[str] | None, seed: int | None) -> Subject:
        """The net with the weights that are meant, or random ones of a seed.

        Raises:
            UserError: there are no such weights, they do not fit, or have a seed, too.
        """
        from vggc.api.subject import ask
        from vggc.python.told import log

        path, preset = (self.weights, self.preset) if weights is None else (Path(weights), None)
        return ask(self.known, path, seed, None, None, log.info, preset).subject()

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
    weights: str | os.PathLike[str] | None = None,
    preprocessing: str | None = None,
    size: tuple[int, int] | None = None,
    changes: Iterable[str] = (),
) -> Network:
    """The net in a file, of a run, or of that name in the zoo, with values for its parameters if
    any stand behind it: `vgg16(classes=10, width=0.5)`. That of a run has the run's weights.

    `weights` are those that the net is to have: `"imagenet"` for published ones, which are fetched
    once, a file of any form, or `"best"` of a run. They bring their preprocessing and the names of
    the classes, as far as these are known; another `preprocessing` is a preset or a file.
    `size` is another height and width of its input; `changes` are made to its recipe and its test:
    `["lr=0.01", "flip=off"]`.

    Raises:
        UserError: there is no such net, with every mistake in it otherwise; there are no such
            weights, or they do not fit.
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
    path = None if weights is None else Path(weights)
    program = sound(program.overridden(changes) if changes else program)
    net = Network(program, run, path, preprocessing)
    if net.has_weights and (weights is not None or preprocessing is not None):
        _ = net.subject
    return net


def from_text(text: str, name: str = "<text>") -> Network:
    """The net that a spec describes; `name` is what its mistakes call the text.

    Raises:
        UserError: with every mistake in it.
    """
    return Network(sound(Program(parse(Source(name, text)))))


def zoo() -> tuple[str, ...]:
    """The names of the nets that come with vggc: the paper's first, then those around it."""
    return tuple(programs.zoo())


def sound(program: Program) -> Program:
    """A program whose net has no mistakes.

    Raises:
        UserError: with every mistake in it.
    """
    program.check()
    return program
