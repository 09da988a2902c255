"""Weights matched by order and shape, where their names say nothing that is known.

Whoever writes a net as a class makes its layers in the order in which they follow one another,
and what he names `layer2.0.conv1` lies together with all of `layer2.0`. So a file whose tensors
stand in the order of making is matched one by one. Where they are sorted by names, those
are a tree whose parts stay together, whose equal words count upwards (`layer1`, `layer2`), and in
which what stands at the top of a part comes before what stands deeper; an order that gives each
layer of the net a module of its roles and shapes is then looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from vggc.ir.graph import Graph
from vggc.ir.ops import Shape, Weight
from vggc.weight_files.weight_file import FileTensor, is_counter
from vggc_runtime.json_file import MalformedError

MOST_STEPS = 1 << 20
"""How many modules are tried in looking for an order: some hundreds suffice for ResNet-152."""
DEEPEST = 32
"""How many parts within one another a name has; what is deeper is one word."""

SCALES = {"layer_scale", "layer_scale_parameter", "gamma"}
"""What torchvision, Transformers and timm call what multiplies the channels of a block."""

NUMBER = re.compile(r"(\d+)([a-z]?)(?![a-zA-Z0-9])|(\d+)")
"""A number in a name, which may end in a letter: `layer1`, `inception4a`, `branch3x3`."""

MOST_DIGITS = 18

NameNumbers: TypeAlias = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class WeightedNode:
    """The weights of one node of a net, by their roles."""

    name: str
    weights: Mapping[str, Weight]


@dataclass(frozen=True)
class FileModule:
    """The tensors of a module in a file, by the last words of their names. One that is `bare` is a
    tensor by itself, which has a name instead of a role.
    """

    name: str
    tensors: Mapping[str, FileTensor]
    bare: bool = False

    def place(self, role: str) -> str:
        """The name of one of its tensors in the file."""
        return self.name if self.bare else f"{self.name}.{role}".removeprefix(".")


@dataclass(frozen=True)
class Alignment:
    """The modules of a file for the parts of a net, one for each. `also` is another module that has
    the place of one of them as well, so that nobody can know which is meant.
    """

    modules: tuple[FileModule, ...]
    also: tuple[FileModule, FileModule] | None = None


Fits: TypeAlias = Callable[[WeightedNode, FileModule], bool]


def weighted_nodes(graph: Graph) -> list[WeightedNode]:
    """The nodes of a net that have weights, in order."""
    return [
        WeightedNode(node.name, {weight.role: weight for weight in weights})
        for node in graph.nodes
        if (weights := node.op.weights(graph.source(node)))
    ]


def file_modules(tensors: Mapping[str, FileTensor]) -> list[FileModule]:
    """The modules of a file in order; what counts, and what are no floats, is left out.

    What multiplies the channels that a block of modules gives, as the `layer_scale` or `gamma` of
    ConvNeXt's blocks, is a module behind that block: PyTorch writes a module's own weights first.

    Raises: MalformedError where a name has an empty part.
    """
    found: dict[str, dict[str, FileTensor]] = {}
    for name, tensor in tensors.items():
        if not all(name.split(".")):
            raise MalformedError(f"the name of the tensor `{name}` has an empty part")
        if tensor.is_float and not is_counter(name):
            module, _, role = name.rpartition(".")
            found.setdefault(module, {})[role] = tensor
    placed: list[FileModule] = []
    open_blocks: list[FileModule] = []
    for each in (FileModule(name, roles) for name, roles in found.items()):
        while open_blocks and not each.name.startswith(f"{open_blocks[-1].name}."):
            placed += scales_of(open_blocks.pop())
        if each.tensors.keys() <= SCALES:
            open_blocks.append(each)
        else:
            placed.append(each)
    return [*placed, *(scale for block in reversed(open_blocks) for scale in scales_of(block))]


def scales_of(block: FileModule) -> list[FileModule]:
    """What multiplies the channels of a block, as modules."""
    return [
        FileModule(f"{block.name}.{role}".removeprefix("."), {"weight": tensor}, bare=True)
        for role, tensor in block.tensors.items()
    ]


def has_shape(wanted: Shape, found: Shape) -> bool:
    """Whether values of a shape are those of another: a dense layer may be a convolution over the
    whole map, and the other way round; what multiplies channels may have axes of 1 behind them.
    """
    is_turned = {len(wanted), len(found)} == {2, 4}
    is_scale = len(wanted) == 1 and found == (*wanted, 1, 1)
    is_alike = is_turned and wanted[0] == found[0] and prod(wanted) == prod(found)
    return wanted == found or is_scale or is_alike


def fits(part: WeightedNode, module: FileModule) -> bool:
    """Whether a module has exactly the roles and shapes of a part of a net."""
    return part.weights.keys() == module.tensors.keys() and all(
        has_shape(weight.shape, module.tensors[role].shape) for role, weight in part.weights.items()
    )


def fits_roughly(part: WeightedNode, module: FileModule) -> bool:
    """Whether a module has the roles of a part of a net, in shapes of as many axes."""

    def is_alike(wanted: Shape, found: Shape) -> bool:
        return len(wanted) == len(found) or {len(wanted), len(found)} == {2, 4}

    return part.weights.keys() == module.tensors.keys() and all(
        is_alike(weight.shape, module.tensors[role].shape) for role, weight in part.weights.items()
    )


def in_sequence(
    parts: Sequence[WeightedNode], modules: Sequence[FileModule], fit: Fits
) -> Alignment | None:
    """The modules as they stand, where each fits the part at its place."""
    if len(parts) != len(modules) or not all(map(fit, parts, modules)):
        return None
    return Alignment(tuple(modules))


# By the tree of names


@dataclass(frozen=True, eq=False)
class _Branch:
    """A part of the tree of names: for each word what bears it, by ascending numbers."""

    words: tuple[tuple[FileModule | _Branch, ...], ...]


@dataclass(frozen=True, eq=False)
class _State:
    """How much of each word of a branch is taken, and of the branches around it."""

    branch: _Branch
    taken: tuple[int, ...]
    above: _State | None

    @classmethod
    def at(cls, branch: _Branch, above: _State | None) -> _State:
        return cls(branch, (0,) * len(branch.words), above)

    @property
    def is_done(self) -> bool:
        return all(map(_all_taken, self.taken, self.branch.words))

    def after(self, word: int) -> _State:
        """When the next of a word is taken."""
        taken = (*self.taken[:word], self.taken[word] + 1, *self.taken[word + 1 :])
        return _State(self.branch, taken, self.above)


def _all_taken(taken: int, word: tuple[FileModule | _Branch, ...]) -> bool:
    return taken == len(word)


@dataclass(frozen=True)
class _Choice:
    """A module that may be the next one, how deep below the branch at hand it lies, and what is
    left then.
    """

    module: FileModule
    depth: int
    left: _State


class TooManySteps(Exception):
    """No order was found in reasonable time."""


class _Search:
    """A search for an order, of a limited number of steps."""

    def __init__(self, parts: Sequence[WeightedNode], fit: Fits) -> None:
        self.parts, self.fit = parts, fit
        self.steps = 0
        self.farthest = 0

    def choices(self, state: _State | None, depth: int = 0) -> list[_Choice]:
        """The modules that may come next: those at the top of a branch first."""
        while state and state.is_done:
            state = state.above
        if state is None:
            return []
        self.steps += len(state.taken)
        if self.steps > MOST_STEPS:
            raise TooManySteps
        tops, deeper = [], list[_Choice]()
        for word, (taken, children) in enumerate(zip(state.taken, state.branch.words, strict=True)):
            if taken == len(children):
                continue
            match children[taken]:
                case FileModule() as module:
                    tops.append(_Choice(module, depth, state.after(word)))
                case _Branch() as branch:
                    below = _State.at(branch, state.after(word))
                    deeper += self.choices(below, depth + 1)
        return tops + deeper

    def run(self, state: _State, start: int = 0) -> list[list[_Choice]] | None:
        """For each part from `start` on the choices there were, beginning with the one taken; None
        where there is no order.
        """
        open_: list[Iterator[list[_Choice]]] = [self.fitting(state, start)]
        taken: list[list[_Choice]] = []
        while open_:
            found = next(open_[-1], None)
            if found is None:
                open_.pop()
                taken = taken[: len(open_) - 1] if open_ else []
                continue
            taken = [*taken[: len(open_) - 1], found]
            place = start + len(taken)
            self.farthest = max(self.farthest, place)
            if place == len(self.parts):
                if not self.choices(found[0].left):
                    return taken
                continue
            open_.append(self.fitting(found[0].left, place))
        return None

    def fitting(self, state: _State, place: int) -> Iterator[list[_Choice]]:
        """What fits a part at a place, each with those that are as good behind it."""
        if place == len(self.parts):
            return
        found = [each for each in self.choices(state) if self.fit(self.parts[place], each.module)]
        for each in found:
            equals = [other for other in found if other.depth == each.depth and other is not each]
            yield [each, *equals]


def by_tree(
    parts: Sequence[WeightedNode], modules: Sequence[FileModule], fit: Fits, in_order: bool
) -> Alignment | None:
    """The modules in an order in which each fits a part, as the tree of their names allows it.

    Raises: TooManySteps.
    """
    if len(parts) != len(modules):
        return None
    search = _Search(parts, fit)
    found = search.run(_State.at(_tree(modules, in_order), None))
    if found is None:
        return None
    order = tuple(choices[0].module for choices in found)
    if not in_order:
        for place, (taken, *others) in enumerate(found):
            for other in others:
                if search.run(other.left, place + 1) is not None:
                    return Alignment(order, (taken.module, other.module))
    return Alignment(order)


def _tree(modules: Sequence[FileModule], in_order: bool) -> _Branch:
    paths = [(tuple(module.name.split(".", DEEPEST)), module) for module in modules]
    if not in_order:
        paths.sort(key=lambda each: [_word(name) for name in each[0]])
    return _branch(paths)


def _branch(paths: Sequence[tuple[tuple[str, ...], FileModule]]) -> _Branch:
    below: dict[str, list[tuple[tuple[str, ...], FileModule]]] = {}
    for (first, *rest), module in paths:
        below.setdefault(first, []).append((tuple(rest), module))
    words: dict[str, list[tuple[NameNumbers, FileModule | _Branch]]] = {}
    for name, children in below.items():
        word, numbers = _word(name)
        for child in _children(children):
            words.setdefault(word, []).append((numbers, child))
    return _Branch(
        tuple(
            tuple(child for _, child in sorted(bearers, key=lambda each: each[0]))
            for bearers in words.values()
        )
    )


def _children(
    paths: Sequence[tuple[tuple[str, ...], FileModule]],
) -> Iterator[FileModule | _Branch]:
    """What bears a name: a module, a branch, or one after the other."""
    yield from (module for rest, module in paths if not rest)
    if deeper := [(rest, module) for rest, module in paths if rest]:
        yield _branch(deeper)


def _word(name: str) -> tuple[str, NameNumbers]:
    """A name without its numbers, and those."""
    numbers = tuple((int((m[1] or m[3])[:MOST_DIGITS]), m[2] or "") for m in NUMBER.finditer(name))
    return NUMBER.sub("#", name), numbers
