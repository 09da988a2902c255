"""A net with something of it changed, as if its file had said so. All nets here are plain."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TypeAlias

from vggc.diagnostics import UserError, did_you_mean, nearest
from vggc.ir.graph import Graph
from vggc.ir.ops import Conv2d, Linear
from vggc.layers import mistakes
from vggc.layers.elaborate import Vocabulary, elaborate, kind_of
from vggc.layers.kinds import KINDS, Kind
from vggc.layers.names import Names
from vggc.source import Source, Span
from vggc.syntax.ast import (
    Block,
    Body,
    Dims,
    Edit,
    Every,
    Group,
    Insert,
    Item,
    Layer,
    Net,
    Option,
    Reference,
    Remove,
    Repeat,
    Replace,
    Selector,
    Set,
    Trivia,
)
from vggc.syntax.parse import check_size, parse_value
from vggc.values import written

MAX_EDITED = 100_000
"""Edits times layers, those of all bases together: what can be done in a second."""


def with_input(net: Net, size: tuple[int, int]) -> Net:
    """The net reading images of another height and width."""
    if net.input is None:
        return net
    match net.input.values:
        case (Dims(sizes=(channels, *_)) as dims,):
            changed = replace(dims, sizes=(channels, *size))
            return replace(net, input=replace(net.input, values=(changed,)))
        case _:
            return net


def with_block(net: Net, block: Block) -> Net:
    """The net with this block in place of its own of the same key, or behind the others."""
    kept = tuple(old for old in net.blocks if old.key != block.key)
    index = next((i for i, old in enumerate(net.blocks) if old.key == block.key), len(kept))
    return replace(net, blocks=(*kept[:index], block, *kept[index:]))


def with_classes(net: Net, num_classes: int) -> Net:
    """The net with this many classes: one output for each in every head that rates them,
    one box for each where a box for each was.

    Raises: UserError when it rates no classes.
    """
    graph = elaborate(net)
    scores = {
        _last_weighted(graph, head.node) for head in graph.heads if head.kind == "classes"
    } - {None}
    if not scores:
        reason = "no layer with weights gives the scores of classes"
        raise UserError(mistakes.NoClassifier(net.span, net.name, reason))

    def change(layer: _Occurrence) -> Body | None:
        per_class = layer.kind.name == "boxes" and width_of(layer.layer) > 1
        if layer.name in scores or per_class:
            return (_with_width(layer.layer, num_classes),)
        return None

    return _rewritten(net, change)


def with_width(net: Net, factor: float) -> Net:
    """The net with `factor` times as many channels and features in its hidden layers, rounded
    to the nearest whole number and at least 1.
    """
    graph = elaborate(net)
    outputs = {_last_weighted(graph, head.node) for head in graph.heads}

    def change(layer: _Occurrence) -> Body | None:
        if layer.kind.name not in ("conv", "fc") or layer.name in outputs:
            return None
        width = max(1, int(width_of(layer.layer) * factor + 0.5))
        return (_with_width(layer.layer, width),)

    return _rewritten(net, change)


def _last_weighted(graph: Graph, index: int) -> str | None:
    """The layer whose weights give the value of a node; None behind a join."""
    node = graph.nodes[index]
    while not isinstance(node.op, Conv2d | Linear):
        if len(node.inputs) != 1:
            return None
        node = graph.nodes[node.inputs[0]]
    return node.layer.name


def width_of(layer: Layer) -> int:
    """The number behind the hyphen, or the option `width`; 1 where there is neither."""
    match = re.search(r"-([0-9]+)$", layer.word)
    texts = [str(option.value) for option in layer.options if option.key == "width"]
    return int((texts or [match[1] if match else "1"])[0])


def _with_width(layer: Layer, width: int) -> Layer:
    options = tuple(o for o in layer.options if o.key != "width")
    stem = re.sub(r"-[0-9]+$", "", layer.word)
    return replace(layer, word=f"{stem}-{width}", options=options)


# ---------------------------------------------------------------- rewriting


@dataclass(frozen=True)
class _Occurrence:
    """One layer of the net as built, a repetition of what is written or not.

    `index` counts all of them; `around` tells the paths of joins and the head around it.
    """

    index: int
    name: str
    layer: Layer
    kind: type[Kind]
    around: tuple[str, ...]


Change: TypeAlias = Callable[[_Occurrence], Body | None]
"""What stands in the place of a layer; None to leave it."""


@dataclass
class _Rewriter:
    """Walks a net as it is built and changes it. Repeats stay where all turns change alike."""

    change: Change
    names: Names = field(default_factory=Names)
    around: tuple[str, ...] = ()
    count: int = 0

    def net(self, net: Net) -> Net:
        body = self.body(net.body)
        heads = []
        for head in net.heads:
            with self.names.inside(head.name):
                self.around = (head.name,)
                heads.append(replace(head, body=self.body(head.body) or (_skip(head.span),)))
                self.around = ()
        return replace(net, body=body, heads=tuple(heads))

    def body(self, body: Body) -> Body:
        items = tuple(new for item in body for new in self.item(item))
        same = len(items) == len(body) and all(a is b for a, b in zip(items, body, strict=True))
        return body if same else items

    def item(self, item: Item) -> Body:
        match item:
            case Layer():
                return self.layer(item)
            case Group():
                inner = self.body(item.body)
                if inner is item.body:
                    return (item,)
                return (replace(item, body=inner),) if inner else ()
            case Repeat(item=inner_item, count=count):
                assert isinstance(count, int)
                turns = [self.item(inner_item) for _ in range(count)]
                if all(len(turn) == 1 and turn[0] is inner_item for turn in turns):
                    return (item,)
                runs = [(turn, len(list(run))) for turn, run in groupby(turns)]
                return tuple(
                    new for n, run in enumerate(runs) for new in _turns(item, *run, first=n == 0)
                )
            case Reference():
                return (item,)

    def layer(self, layer: Layer) -> Body:
        kind = _kind(layer)
        name, index = self.names.take(layer, kind), self.count
        self.count += 1
        occurrence = _Occurrence(index, name, self.with_paths(layer, name), kind, self.around)
        changed = self.change(occurrence)
        if changed is None:
            return (occurrence.layer,)
        return _at_the_place_of(layer, changed)

    def with_paths(self, layer: Layer, name: str) -> Layer:
        if not layer.paths:
            return layer
        outside, paths = self.around, []
        with self.names.inside(name):
            for number, path in enumerate(layer.paths):
                self.around = (*outside, f"{name}, path {number}")
                paths.append(self.body(path) or (_skip(layer.span),))
        self.around = outside
        same = all(new is old for new, old in zip(paths, layer.paths, strict=True))
        return layer if same else replace(layer, paths=tuple(paths))


def _turns(repeat: Repeat, turn: Body, count: int, *, first: bool) -> Body:
    """Equal turns of what was a repeat; the first stand where the repeat stood."""
    if not turn:
        return ()
    if not first:
        turn = (_inline(turn[0]), *turn[1:])
    match turn:
        case (Group(body=body),) if count == 1:
            return body if not first else _at_the_place_of(repeat.item, body)
        case _ if count == 1:
            return turn
        case (Layer() | Group() as item,):
            return (replace(repeat, item=item, count=count),)
        case _:
            row = repeat.item.trivia.row and first
            group = Group((_inline(turn[0]), *turn[1:]), Trivia(row=row), span=repeat.span)
            return (replace(repeat, item=group, count=count),)


def _inline(item: Item) -> Item:
    """The item on the row of what stands before it."""
    match item:
        case Repeat():
            return item
        case _:
            return replace(item, trivia=replace(item.trivia, above=(), row=False))


def _skip(span: Span) -> Layer:
    return Layer("skip", span=span)


def _at_the_place_of(old: Layer | Group, new: Body) -> Body:
    """The new items, the first of them on a row of its own where the old layer was."""
    if not new or not old.trivia.row or isinstance(new[0], Repeat) or new[0].trivia.row:
        return new
    first = new[0]
    return (replace(first, trivia=replace(first.trivia, row=True)), *new[1:])


def _kind(layer: Layer) -> type[Kind]:
    """The kind of a layer. Raises: UserError when its word is no layer."""
    kind = kind_of(layer.word)
    if kind is None:
        vocabulary = Vocabulary([])
        vocabulary.read(layer)
        raise UserError(*vocabulary.found)
    return kind


def _rewritten(net: Net, change: Change) -> Net:
    return _Rewriter(change).net(net)


def _occurrences(net: Net) -> list[_Occurrence]:
    found: list[_Occurrence] = []

    def note(occurrence: _Occurrence) -> None:
        found.append(occurrence)

    _rewritten(net, note)
    return found


# ---------------------------------------------------------------- edits


def apply(net: Net, edits: list[Edit], earlier: int = 0) -> Net:
    """The net after all edits, each of the net as those before it left it.

    `earlier` is the number of edits that its bases took.

    Raises: UserError when an edit means no layer, or leaves none; when they are too many.
    """
    layers = sum(check_size(body) for body in net.bodies)
    for number, edit in enumerate(edits, earlier + 1):
        if number * layers > MAX_EDITED:
            problem = mistakes.TooManyEdits(edit.span, number, layers, MAX_EDITED)
            raise UserError(problem)
        net = _edited(net, edit)
        if not net.body:
            raise UserError(mistakes.NothingLeft(edit.span, net.name))
        layers = max(layers, sum(check_size(body) for body in net.bodies))
    return net


def _edited(net: Net, edit: Edit) -> Net:
    chosen = _selected(net, edit.selector)
    first, last = min(chosen), max(chosen)
    every = edit.selector.every

    def change(layer: _Occurrence) -> Body | None:
        if layer.index not in chosen:
            return None
        match edit:
            case Set(options=options):
                return (_with_options(layer.layer, options),)
            case Insert(after=True, body=body):
                return (layer.layer, *body) if every or layer.index == last else None
            case Insert(body=body):
                return (*body, layer.layer) if every or layer.index == first else None
            case Replace(body=body):
                return body if every or layer.index == first else ()
            case Remove():
                return ()

    return _rewritten(net, change)


def _with_options(layer: Layer, options: tuple[Option, ...]) -> Layer:
    new = {option.key: option for option in options}
    kept = tuple(new.pop(option.key, option) for option in layer.options)
    return replace(layer, options=(*kept, *new.values()))


def _selected(net: Net, selector: Selector) -> set[int]:
    """The indices of the layers that a selector means."""
    layers = _occurrences(net)
    if selector.every:
        chosen = {layer.index for layer in layers if _matches(layer, selector.word)}
        if not chosen:
            raise UserError(_none_like(net, selector, layers))
        return chosen
    first, dots, last = selector.word.partition("..")
    by_name = {layer.name: layer for layer in layers}
    ends = []
    for name in (first, last) if dots else (first,):
        if name not in by_name:
            raise UserError(_none_called(net, selector, name, by_name))
        ends.append(by_name[name])
    if ends[0].index > ends[-1].index:
        reason, hint = f"`{last}` stands before `{first}`", f"write `{last}..{first}`"
        raise UserError(mistakes.CrossingSelection(selector.span, str(selector), reason, hint))
    if ends[0].around != ends[-1].around:
        reason = "its ends do not stand on the same path"
        hint = "name the whole join, or layers of one path"
        raise UserError(mistakes.CrossingSelection(selector.span, str(selector), reason, hint))
    return set(range(ends[0].index, ends[-1].index + 1))


def _matches(layer: _Occurrence, word: str) -> bool:
    """Whether a layer is of the kind `conv`, or its word is or begins as `conv3-512`, `conv3`."""
    stem = layer.layer.word.rpartition("-")[0]
    return word in (layer.layer.word, stem, layer.kind.name, *layer.kind.aliases)


def _none_like(net: Net, selector: Selector, layers: list[_Occurrence]) -> mistakes.NothingSelected:
    words = list(dict.fromkeys(layer.kind.name for layer in layers))
    called = any(layer.name == selector.word for layer in layers)
    hint = f"without `every`, `{selector.word}` is a layer" if called else ""
    return mistakes.NothingSelected(
        selector.span,
        net.name,
        str(selector),
        "it has no layer of this kind",
        hint or did_you_mean(selector.word, words),
    )


def _none_called(
    net: Net, selector: Selector, name: str, by_name: dict[str, _Occurrence]
) -> mistakes.NothingSelected:
    near = nearest(name, by_name)
    hint = f"did you mean `{near}`?" if near else "`vggc summary` shows the names of all layers"
    if any(_matches(layer, name) for layer in by_name.values()):
        hint = f"for all layers of a kind write `every {name}`"
    reason = f"it has no layer called `{name}`"
    return mistakes.NothingSelected(selector.span, net.name, str(selector), reason, hint)


def with_defaults(net: Net) -> Net:
    """The net that says of every kind of layer it has what it would leave unsaid.

    Defaults that depend on the layer, as padding does, stay unsaid.
    """
    used = {layer.kind for layer in _occurrences(net)}
    said = {kind_of(s.kind): s for s in net.statements if isinstance(s, Every)}
    lines = []
    for kind in KINDS:
        if kind not in used:
            continue
        defaults = dict(_default_options(net, kind))
        if kind in said:
            defaults |= {option.key: option for option in said[kind].options}
        if defaults:
            trivia = said[kind].trivia if kind in said else Trivia()
            options = tuple(defaults.values())
            lines.append(Every(kind.name, options, trivia, span=net.span))
    return replace(net, statements=tuple(lines))


def _default_options(net: Net, kind: type[Kind]) -> Iterator[tuple[str, Option]]:
    for key, default in kind.defaults().items():
        if default is None and key == "act":
            default = "relu"
        if default is not None:
            text = written(kind.params()[key].kind, default)
            yield key, Option(key, parse_value(Source("<default>", text)), span=net.span)


def without_idle_defaults(net: Net) -> Net:
    """The net without what it says of `every` kind of which no layer is left."""
    kinds = {None, *(layer.kind for layer in _occurrences(net))}
    kept = tuple(s for s in net.statements if isinstance(s, Every) and kind_of(s.kind) in kinds)
    return replace(net, statements=kept)
