"""From what the user names to what the commands work on, one cached property a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vggc.analysis.report import Report, report
from vggc.analysis.smaller import smaller
from vggc.analysis.training import TrainingSetup, training_need
from vggc.ir.graph import Graph
from vggc.layers.edit import with_block, with_classes, with_defaults
from vggc.layers.elaborate import elaborate
from vggc.layers.resolve import Surroundings, resolve
from vggc.passes.inference import drop_final_softmax
from vggc.pretrained.table import IMAGENET, PUBLISHED
from vggc.recipe.course import course_in
from vggc.recipe.edit import merge, override_blocks, resolved_blocks
from vggc.recipe.lengths import moved, with_input
from vggc.recipe.protocol import Protocol, read_protocol
from vggc.recipe.train import Recipe, read_recipe
from vggc.runtime.cpu_info import lacks_half
from vggc.support.diagnostics import Diagnostic, UserError, in_command, nearest
from vggc.support.memory import memory
from vggc.support.paths import exists, is_artifact, is_file, is_folder, is_run
from vggc.support.precision import NUMBER_BYTES, Precision
from vggc.support.resources import resource
from vggc.support.source import Source
from vggc.syntax.ast import Base, Net, Option
from vggc.syntax.parse import parse, parse_arguments, read_source

if TYPE_CHECKING:
    from vggc.backends.torch import TorchNet

__all__ = ["Program", "from_zoo", "load", "with_block", "with_classes", "with_input", "zoo"]


ZOO = (
    ("vgg11", "vgg11_lrn", "vgg13", "vgg16_1x1", "vgg16", "vgg19"),
    ("vgg13_5x5", "vgg16_loc_scr", "vgg16_loc_pcr"),
    ("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "vgg16_gap", "vgg16_d_dilated"),
    ("alexnet", "zfnet", "overfeat_fast", "nin", "googlenet", "googlenet_aux"),
    ("inception_v3", "inception_v3_aux", "resnet18", "resnet34", "resnet50", "squeezenet"),
    ("densenet121", "mobilenet_v1", "convnext_tiny"),
    ("tiny_vgg", "vgg_tiny_cifar", "vgg16_bn_cifar"),
)
"""The nets that come with vggc: those of the paper's Table 1 in its order, the paper's others,
those built on them, those of others by age, those for small images."""
LISTED = "`vggc zoo` lists the nets that there are"


class NotInZoo(Diagnostic):
    title = "the zoo has no net `{name}`"
    help = "{hint}"
    name: str
    hint: str


class NoBase(Diagnostic):
    title = "there is no net `{name}` to build on"
    label = "neither {path} nor the zoo has it"
    help = "{hint}"
    name: str
    path: str
    hint: str


class TrainingTooLarge(Diagnostic):
    title = "training {net} does not fit into this machine's memory"
    label = "batches of {batch} take about {needed:.1f} GB, and there are {present:.1f} GB"
    help = "{hint}"
    net: str
    batch: int
    needed: float
    present: float
    hint: str


class FolderForSpec(Diagnostic):
    title = "{path} is a folder, and a spec is a file"
    help = "{hint}"
    path: str
    hint: str


FindSource: TypeAlias = Callable[[str, Source], Source | None]
"""The text of a net that another text names; None where there is none."""


def beside(name: str, source: Source) -> Source | None:
    """The file of a net that another file names, in that file's folder or in the zoo; never that
    file itself.
    """
    own = Path(source.name)
    path = own.parent / f"{name}.vgg"
    if is_file(own) and is_file(path) and not path.samefile(own):
        return read_source(path)
    return read_source(resource("zoo", f"{name}.vgg")) if name in zoo() else None


@dataclass(frozen=True)
class Program:
    """One net on its way through the compiler, a cached property a stage; every property may raise
    UserError.
    """

    written: Net
    arguments: tuple[Option, ...] = ()
    """Values for its parameters."""
    find: FindSource = beside
    """Where the nets are that it names; an editor knows of some that are on no disk yet."""
    ancestors: tuple[str, ...] | None = None
    """The nets that it builds on, nearest first, where its text does not tell any more."""

    @cached_property
    def net(self) -> Net:
        """The plain net: bases found, parameters filled in, edits carried out."""
        return resolve(self.written, Surroundings(self.base, merge, moved), self.arguments)

    def base(self, base: Base) -> Net:
        """The net that this net, or a net below it, builds on.

        Raises: UserError when there is none, or it is not well formed.
        """
        source = self.find(base.name, base.span.source)
        if source is None:
            path = Path(base.span.source.name).parent / f"{base.name}.vgg"
            near = nearest(base.name, zoo())
            hint = f"did you mean `{near}`?" if near else LISTED
            if base.name.endswith(".vgg"):
                hint = f"a base is named without its ending: `from {base.name[:-4]}`"
            span = base.span.part(0, len(base.name))
            raise UserError(NoBase(base.name, str(path), hint, place=span))
        return parse(source)

    @cached_property
    def lineage(self) -> tuple[str, ...]:
        """The names of the net and of those that it builds on, nearest first."""
        if self.ancestors is not None:
            return (self.net.name, *self.ancestors)
        names, written = [self.net.name], self.written
        while base := written.base:
            names.append(base.name)
            source = self.find(base.name, base.span.source)
            if source is None:
                break
            written = parse(source)
        return tuple(names)

    @cached_property
    def graph(self) -> Graph:
        """The plain net as a graph."""
        return elaborate(self.net)

    @cached_property
    def recipe(self) -> Recipe:
        """How the net is trained."""
        return read_recipe(self.net.block("train"), self.graph, self.named, zoo())

    @cached_property
    def protocol(self) -> Protocol:
        """How the net is tested."""
        block = self.net.block("test")
        return read_protocol(block, self.recipe, self.graph, self.named, zoo())

    def other(self, name: str) -> Program | None:
        """The program of another net that this one's file names; None where there is none.

        `imagenet` is the net of the zoo whose published weights a net may begin with: the one that
        it is, or builds on.
        """
        if name == IMAGENET:
            for each in self.lineage:
                if each in PUBLISHED:
                    return from_zoo(each)
        source = self.find(name, self.written.span.source)
        return None if source is None else Program(parse(source), find=self.find)

    def named(self, name: str) -> Graph | None:
        """The graph of another net that this one's file names; None where there is none."""
        other = self.other(name)
        return None if other is None else other.graph

    def check(self) -> None:
        """Raises: UserError with everything that is wrong with the file."""
        _ = self.graph
        found: list[Diagnostic] = []
        for stage in ("recipe", "protocol"):
            try:
                getattr(self, stage)
            except UserError as error:
                found += [problem for problem in error.diagnostics if problem not in found]
        if found:
            raise UserError(*found)

    def overridden(self, changes: Iterable[str]) -> Program:
        """The program with `key=value` changes to its recipe and its protocol.

        Raises: UserError with every change that cannot be made.
        """
        return self.replace(replace(self.net, blocks=override_blocks(self.net.blocks, changes)))

    @property
    def resolved(self) -> Net:
        """The plain net, with every default written out."""
        blocks = resolved_blocks(self.net.blocks, self.graph, self.named, zoo())
        return with_defaults(replace(self.net, blocks=blocks))

    def report(
        self, batch: int = 1, dtype: Precision = "float32", half: bool = False, pictures: int = 0
    ) -> Report:
        """What the net costs for so many images at once. Its training is by its recipe, in `half`
        the precision or where `dtype` has 16 bits, with `pictures` bytes of images in memory.
        """
        half = half or NUMBER_BYTES[dtype] == 2
        course = replace(self.course(batch, half), pictures=pictures)
        return report(self.graph, batch, dtype, course)

    def course(self, images: int, half: bool) -> TrainingSetup:
        """A training by the net's recipe on this machine, with so many images at once."""
        course = course_in(self.net.block("train"), self.graph, images)
        return replace(course, half=half, by_columns=half and lacks_half())

    def check_memory(self, course: TrainingSetup, processes: int = 1, fixed: bool = False) -> None:
        """Raises: UserError when so many such trainings cannot fit into memory together. `fixed`
        are those whose batches nobody can change any more.
        """
        present = memory()

        def fits(course: TrainingSetup) -> bool:
            return processes * training_need(self.graph, course).on_cpu <= present

        if fits(course):
            return
        needed = processes * training_need(self.graph, course).on_cpu
        batch = processes * course.images * course.parts
        hint = smaller(course, processes, fits, fixed)
        name, sizes = self.net.name, (needed / 1e9, present / 1e9)
        raise UserError(TrainingTooLarge(name, batch, *sizes, hint))

    def replace(self, net: Net) -> Program:
        """The program of a plain net in the place of this program's net."""
        return Program(net, find=self.find, ancestors=self.lineage[1:])

    def logits_module(self) -> TorchNet:
        """The net as a torch module whose heads end before their soft-max."""
        from vggc.backends.torch import build

        return build(drop_final_softmax(self.graph))


def load(spec: str) -> Program:
    """The net in a file, or of that name in the zoo, with values for its parameters if any
    stand behind it: `vgg16(classes=10, width=0.5)`.

    Raises: UserError when there is no such file, or it is not well formed.
    """
    name, bracket, rest = spec.partition("(")
    if not bracket or exists(spec):
        return Program(parse(_find(spec)))
    return Program(parse(_find(name.strip())), parse_arguments(Source(spec, bracket + rest)))


def zoo() -> list[str]:
    """The names of the nets that come with vggc, in the order of `ZOO`."""
    return [name for group in ZOO for name in group]


def from_zoo(spec: str) -> Program:
    """The zoo's net of that name, as it is there; values for its parameters may follow.

    Raises: UserError when the zoo has none, or the values are not well formed.
    """
    name, bracket, rest = spec.partition("(")
    if (name := name.strip()) not in zoo():
        near = nearest(name, zoo())
        raise UserError(NotInZoo(name, f"did you mean `{near}`?" if near else LISTED))
    arguments = parse_arguments(Source(spec, bracket + rest)) if bracket else ()
    return Program(parse(read_source(resource("zoo", f"{name}.vgg"))), arguments)


def _what_folder(path: Path) -> str:
    if is_run(path):
        resume = f"`vggc train --resume {in_command(path)}` goes on"
        return f"it is a run: its spec is {path / 'net.vgg'}; {resume}"
    if is_artifact(path):
        return f"it is an artifact: its spec is {path / 'net.vgg'}"
    return f"name a .vgg file, or a net of the zoo; {LISTED}"


def _find(spec: str) -> Source:
    path = Path(spec)
    bare = path.suffix == "" and path.name == spec
    if bare and spec in zoo() and not is_file(path):
        return read_source(resource("zoo", f"{spec}.vgg"))
    if is_folder(path):
        raise UserError(FolderForSpec(spec, _what_folder(path)))
    near = nearest(path.stem, zoo())
    hint = f"the zoo has `{near}`" if near else LISTED
    if bare and is_file(f"{spec}.vgg"):
        hint = f"did you mean `{spec}.vgg`?"
    return read_source(path, hint)
