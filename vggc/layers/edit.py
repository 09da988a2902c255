"""A net with something of it changed, as if its file had said so. All nets here are plain."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import lcm
from typing import TypeAlias

from vggc.ir.graph import Graph
from vggc.ir.ops import (
    Concat,
    Conv2d,
    ConvTranspose2d,
    GroupNorm,
    Linear,
    Pair,
    Shape,
    Shuffle,
    TakeChannels,
    TakePart,
)
from vggc.layers import diagnostics
from vggc.layers.elaborate import Vocabulary, elaborate, idle_defaults, kind_of, split_word
from vggc.layers.kinds import BY_WORD, KINDS, Boxes, Conv, Deconv, Fc, Kind
from vggc.layers.names import LayerNames
from vggc.support.diagnostics import Diagnostic, UserError, did_you_mean, listed, nearest
from vggc.support.source import Source, Span
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
    Many,
    Net,
    Number,
    Option,
    Range,
    Reference,
    Remove,
    Repeat,
    Replace,
    Selector,
    Set,
    Setting,
    Statement,
    Trivia,
    Value,
    Word,
)
from vggc.syntax.diagnostics import TooDeep
from vggc.syntax.parse import MAX_DEPTH, check_size, parse_value
from vggc.syntax.trivia import on_own_row
from vggc.syntax.values import written

MAX_EDITED = 50_000
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


def input_size(net: Net) -> tuple[int, int] | None:
    """Height and width of the images that a net says it reads; None where it does not say it."""
    match net.input.values if net.input else ():
        case (Dims(sizes=(_, height, width)),):
            return height, width
        case _:
            return None


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
    owners, widths = _owners(graph), _widths(graph)
    scores = set()
    for head in graph.heads:
        if head.kind == "classes":
            owner = owners[head.node]
            if owner is None:
                reason = f"no one layer gives the scores of its head `{head.name}`"
                raise UserError(diagnostics.NoClassifier(net.name, reason, place=net.span))
            scores.add(owner)
    if graph.num_classes is None:
        reason = "no layer with weights gives the scores of classes"
        raise UserError(diagnostics.NoClassifier(net.name, reason, place=net.span))

    def change(layer: _Occurrence) -> Body | None:
        per_class = layer.kind is Boxes and widths[layer.name] > 4
        if layer.name in scores or per_class:
            return (_with_width(layer.layer, num_classes),)
        return None

    return _changed(net, change)


def with_width(net: Net, factor: float) -> Net:
    """The net with `factor` times as many channels and features in its hidden layers, rounded
    to the nearest whole number and at least 1, or to the nearest multiple of the groups that a
    convolution or a normalisation parts them into.

    Classes and boxes stay as many as they are; features that a head gives are hidden layers. A
    convolution with a group for each channel that it reads keeps one for each, and ranges of
    channels that are taken move with the channels.
    """
    graph = elaborate(net)
    owners = _owners(graph)
    outputs = {owners[head.node] for head in graph.heads if head.kind != "features"}
    found = _fitting(graph, factor, outputs)
    widths, groups = found.widths, found.groups

    def change(layer: _Occurrence) -> Body | None:
        if layer.name in found.ranges:
            span = layer.layer.span
            first, last = (Number(each, span=span) for each in found.ranges[layer.name])
            option = Option("channels", Range(first, last, span=span), span=span)
            return (_with_options(layer.layer, layer.kind, (option,)),)
        if layer.kind not in (Conv, Deconv, Fc) or layer.name in outputs:
            return None
        changed = _with_width(layer.layer, widths[layer.name])
        if layer.name in groups:
            span = layer.layer.span
            number = Number(groups[layer.name], span=span)
            changed = _with_options(changed, layer.kind, (Option("groups", number, span=span),))
        return (changed,)

    return _changed(net, change)


@dataclass(frozen=True)
class _Scaled:
    """Widths of layers, the groups of layers that have one for each channel they read, the ranges
    of channels that layers take, and the nodes whose groups or parts do not divide what comes in or
    goes out.
    """

    widths: dict[str, int]
    groups: dict[str, int]
    ranges: dict[str, Pair]
    misfits: frozenset[int]


def _fitting(graph: Graph, factor: float, kept: Collection[str | None]) -> _Scaled:
    """A net `factor` times as wide but for the layers `kept`; widths are rounded to multiples of
    groups and parts where those would not divide them otherwise.
    """
    unfit: frozenset[int] = frozenset()
    while True:
        scaled = _scaled(graph, factor, kept, _multiples(graph, kept, unfit))
        if scaled.misfits <= unfit:
            return scaled
        unfit |= scaled.misfits


def _scaled(
    graph: Graph, factor: float, kept: Collection[str | None], multiples: Mapping[str, int]
) -> _Scaled:
    widths: dict[str, int] = {}
    groups: dict[str, int] = {}
    ranges: dict[str, Pair] = {}
    channels: list[int] = []
    misfits: set[int] = set()
    for index, node in enumerate(graph.nodes):
        reads = [channels[read] for read in node.inputs]
        name = node.layer.name
        match node.op:
            case Conv2d() | ConvTranspose2d() | Linear() if name in kept:
                width = node.shape[0]
            case Conv2d() | ConvTranspose2d() as conv if _is_depthwise(conv, graph.source(node)):
                groups[name] = reads[0]
                width = conv.channels // conv.groups * reads[0]
            case Conv2d() | ConvTranspose2d() | Linear():
                unit = multiples.get(name, 1)
                width = unit * max(1, int(node.shape[0] * factor / unit + 0.5))
            case Concat():
                width = sum(reads)
            case TakePart(parts=parts):
                width = max(1, reads[0] // parts)
                if reads[0] % parts:
                    misfits.add(index)
            case TakeChannels(first=first, last=last):
                (whole, *_) = graph.source(node)
                begin = min(first * reads[0] // whole, reads[0] - 1)
                end = max(begin + 1, (last + 1) * reads[0] // whole)
                ranges[name] = begin, end - 1
                width = end - begin
            case _:
                width = reads[0] if reads else node.shape[0]
        if isinstance(node.op, Conv2d | ConvTranspose2d | Linear):
            widths[name] = width
        if isinstance(node.op, Conv2d | ConvTranspose2d) and name not in groups:
            is_parted = reads[0] % node.op.groups == width % node.op.groups == 0
            misfits |= set() if is_parted else {index}
        if isinstance(node.op, GroupNorm | Shuffle) and width % node.op.groups:
            misfits.add(index)
        channels.append(width)
    return _Scaled(widths, groups, ranges, frozenset(misfits))


def _is_depthwise(conv: Conv2d | ConvTranspose2d, source: Shape) -> bool:
    return 1 < conv.groups == source[0]


def _multiples(
    graph: Graph, kept: Collection[str | None], unfit: Collection[int]
) -> dict[str, int]:
    """The number that the width of each layer must be a multiple of, as the convolutions `unfit`
    part it into groups; layers that are added up are as wide as one another, so that what holds for
    one holds for all.
    """
    makers: list[frozenset[str]] = []
    alike: list[frozenset[str]] = []
    needs: list[tuple[frozenset[str], int]] = []
    for index, node in enumerate(graph.nodes):
        made = frozenset[str]().union(*(makers[read] for read in node.inputs))
        name = node.layer.name
        match node.op:
            case Conv2d() | ConvTranspose2d() as conv if (
                _is_depthwise(conv, graph.source(node)) and name not in kept
            ):
                pass
            case Conv2d(groups=groups) | ConvTranspose2d(groups=groups):
                own = frozenset([name])
                if index in unfit:
                    needs += [(made, groups), (own, groups)]
                made = own
            case Linear():
                made = frozenset([name])
            case GroupNorm(groups=groups) | Shuffle(groups=groups) if index in unfit:
                needs.append((made, groups))
            case TakePart(parts=parts) if index in unfit:
                needs.append((made, parts))
            case op if op.elementwise and len(node.inputs) > 1:
                alike.append(made)
            case _:
                pass
        makers.append(made)
    found: dict[str, int] = {}
    while True:
        before = dict(found)
        for layers, number in needs:
            found |= {layer: lcm(found.get(layer, 1), number) for layer in layers}
        needs = [(layers, lcm(*(found.get(layer, 1) for layer in layers))) for layers in alike]
        if found == before:
            return found


def _owners(graph: Graph) -> list[str | None]:
    """For each node the layer whose weights give its value; None behind a join or an input."""
    found: list[str | None] = []
    for node in graph.nodes:
        if isinstance(node.op, Conv2d | ConvTranspose2d | Linear):
            found.append(node.layer.name)
        else:
            found.append(found[node.inputs[0]] if len(node.inputs) == 1 else None)
    return found


def _widths(graph: Graph) -> dict[str, int]:
    """The channels or features that each layer with weights gives."""
    ops = ((node.layer.name, node.op) for node in graph.nodes)
    return {
        name: op.features if isinstance(op, Linear) else op.channels
        for name, op in ops
        if isinstance(op, Conv2d | ConvTranspose2d | Linear)
    }


def _with_width(layer: Layer, width: int) -> Layer:
    options = tuple(o for o in layer.options if o.key != "width")
    stem = re.sub(r"-[0-9]+$", "", layer.word)
    return replace(layer, word=f"{stem}-{width}", options=options)


# ---------------------------------------------------------------- rewriting


@dataclass(frozen=True)
class _Occurrence:
    """One layer of the net as built, a repetition of what is written or not.

    `index` counts all of them; that of the last layer inside it is `last`, its own where it
    is no join. `around` tells the paths of joins and the head around it.
    """

    index: int
    last: int
    name: str
    layer: Layer
    kind: type[Kind]
    around: tuple[str, ...]


Rewrite: TypeAlias = Callable[[_Occurrence], Body | None]
"""What stands in the place of a layer; None to leave it."""


@dataclass
class _NetRewriter:
    """Walks a net as it is built and changes it. Repeats stay where all turns change alike."""

    change: Rewrite
    names: LayerNames = field(default_factory=LayerNames)
    around: tuple[str, ...] = ()
    count: int = 0
    origins: list[str | None] = field(default_factory=list)
    """What each layer of the result was called before, in order; None for new ones."""

    def net(self, net: Net) -> Net:
        body = self.body(net.body)
        if body and body is not net.body:
            body = (on_own_row(body[0]), *body[1:])
        heads = []
        for head in net.heads:
            with self.names.inside(head.name):
                self.around = (head.name,)
                heads.append(replace(head, body=self.body(head.body)))
                self.around = ()
        return replace(net, body=body, heads=tuple(heads))

    def path(self, body: Body, span: Span) -> Body:
        """A path of a join, which cannot be empty."""
        if found := self.body(body):
            return found
        self.origins.append(None)
        return (Layer(word="skip", span=span),)

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
        mark = len(self.origins)
        self.origins.append(name)
        inside = self.with_paths(layer, name)
        found = _Occurrence(
            index=index, last=self.count - 1, name=name, layer=inside, kind=kind, around=self.around
        )
        changed = self.change(found)
        if changed is None:
            return (inside,)
        own = self.origins[mark:]
        self.origins[mark:] = [
            origin
            for item in changed
            for origin in (own if item.span is layer.span else [None] * check_size((item,)))
        ]
        return _at_the_place_of(layer, changed)

    def with_paths(self, layer: Layer, name: str) -> Layer:
        if not layer.paths:
            return layer
        outside, paths = self.around, []
        with self.names.inside(name):
            for number, path in enumerate(layer.paths):
                self.around = (*outside, f"{name}, path {number}")
                paths.append(self.path(path, layer.span))
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
        vocabulary = Vocabulary(found=[])
        vocabulary.read(layer)
        raise UserError(*vocabulary.found)
    return kind


def _rewritten(net: Net, change: Rewrite) -> Net:
    return _NetRewriter(change).net(net)


def _changed(net: Net, change: Rewrite) -> Net:
    """A sound net rewritten, without the defaults that no layer goes by any more."""
    return without_idle_defaults(_rewritten(net, change))


def _occurrences(net: Net) -> list[_Occurrence]:
    found: list[_Occurrence] = []

    def note(occurrence: _Occurrence) -> None:
        found.append(occurrence)

    _rewritten(net, note)
    return found


# ---------------------------------------------------------------- edits


@dataclass(frozen=True)
class Edited:
    """A net after its edits, and the places in its blocks that name layers it has no more."""

    net: Net
    layers: list[_Occurrence]
    lost: tuple[tuple[Span, Diagnostic], ...] = ()


def apply(net: Net, edits: list[Edit], earlier: int = 0) -> Edited:
    """The net after all edits, each of the net as those before it left it.

    What referred to a layer refers to the same one, whatever it is called now. `earlier` is
    the number of edits that its bases took.

    Raises: UserError when an edit means no layer, leaves none, or takes one away that is
    read elsewhere; when edits are too many, or groups too deep.
    """
    whole = Edited(net, _occurrences(net) if edits else [])
    most = len(whole.layers)
    for number, edit in enumerate(edits, earlier + 1):
        if number * most > MAX_EDITED:
            problem = diagnostics.TooManyEdits(number, most, MAX_EDITED, place=edit.span)
            raise UserError(problem)
        whole = _edited(whole, edit)
        if not whole.net.body:
            raise UserError(diagnostics.NothingLeft(net.name, place=edit.span))
        for head in whole.net.heads:
            if not head.body:
                raise UserError(diagnostics.NothingLeft(f"the head `{head.name}`", place=edit.span))
        if any(_depth(body) > MAX_DEPTH for body in whole.net.bodies):
            raise UserError(TooDeep(MAX_DEPTH, place=edit.span))
        most = max(most, len(whole.layers))
    return whole


def _edited(before: Edited, edit: Edit) -> Edited:
    if isinstance(edit, Set):
        _refuse_twice(edit.options)
    chosen = _selected(before, edit.selector)
    first, every = min(chosen), edit.selector.every

    def change(layer: _Occurrence) -> Body | None:
        if layer.index not in chosen:
            return None
        match edit:
            case Set(options=options):
                return (_with_options(layer.layer, layer.kind, options),)
            case Insert(after=True, body=body):
                is_last = not any(index > layer.last for index in chosen)
                return (layer.layer, *body) if every or is_last else None
            case Insert(body=body):
                return (*body, layer.layer) if every or layer.index == first else None
            case Replace(body=body):
                return body if every or layer.index == first else ()
            case Remove():
                return ()

    rewriter = _NetRewriter(change)
    after = rewriter.net(before.net)
    for body in after.bodies:
        check_size(body)
    layers = _occurrences(after)
    pairs = zip(rewriter.origins, layers, strict=True)
    renamed = {old: layer.name for old, layer in pairs if old}
    gone = {layer.name for layer in before.layers} - renamed.keys()
    renamed = {old: new for old, new in renamed.items() if old != new}
    if not renamed and not gone:
        return Edited(after, layers, before.lost)
    follower = _Follower(edit, renamed, gone)
    return Edited(follower.net(after), layers, (*before.lost, *follower.lost))


@dataclass
class _Follower:
    """Lets what refers to layers by name refer to the same layers after an edit."""

    edit: Edit
    renamed: dict[str, str]
    gone: set[str]
    lost: list[tuple[Span, Diagnostic]] = field(default_factory=list)

    def net(self, net: Net) -> Net:
        body = self.body(net.body)
        heads = tuple(replace(head, body=self.body(head.body)) for head in net.heads)
        blocks = tuple(map(self.block, net.blocks))
        return replace(net, body=body, heads=heads, blocks=blocks)

    def body(self, body: Body) -> Body:
        return tuple(map(self.item, body)) if any(map(_refers, body)) else body

    def item(self, item: Item) -> Item:
        match item:
            case Reference(name=name):
                if name in self.gone:
                    raise UserError(self.problem(name, item.span))
                return replace(item, name=self.renamed.get(name, name))
            case Layer(paths=paths):
                return replace(item, paths=tuple(map(self.body, paths)))
            case Group(body=body):
                return replace(item, body=self.body(body))
            case Repeat(item=inner):
                new = self.item(inner)
                assert isinstance(new, Layer | Group)
                return replace(item, item=new)

    def block(self, block: Block) -> Block:
        return replace(block, settings=tuple(map(self.setting, block.settings)))

    def setting(self, setting: Setting) -> Setting:
        options = tuple(replace(o, value=self.value(o.value)) for o in setting.options)
        return replace(setting, values=tuple(map(self.value, setting.values)), options=options)

    def value(self, value: Value) -> Value:
        match value:
            case Word(text=text):
                for name in text.split(".."):
                    if name in self.gone:
                        self.lost.append((value.span, self.problem(name, value.span)))
                names = (self.renamed.get(name, name) for name in text.split(".."))
                return replace(value, text="..".join(names))
            case Many(items=items):
                return replace(value, items=tuple(self.value(item) for item in items))  # type: ignore[misc]
            case _:
                return value

    def problem(self, name: str, place: Span) -> Diagnostic:
        return diagnostics.NamedElsewhere(name, place=self.edit.span, second_place=place)


def _refers(item: Item) -> bool:
    match item:
        case Reference():
            return True
        case Layer(paths=paths):
            return any(any(map(_refers, path)) for path in paths)
        case Group(body=body):
            return any(map(_refers, body))
        case Repeat(item=inner):
            return _refers(inner)


def _depth(body: Body) -> int:
    """How deep groups and joins stand in one another. An edit deepens a net by little."""
    deepest = 0
    for item in body:
        piece = item.item if isinstance(item, Repeat) else item
        match piece:
            case Group(body=inner):
                deepest = max(deepest, 1 + _depth(inner))
            case Layer(paths=paths) if paths:
                deepest = max(deepest, 1 + max(map(_depth, paths)))
            case _:
                pass
    return deepest


def _refuse_twice(options: tuple[Option, ...]) -> None:
    """Raises: UserError where one setting gives an option two values."""
    first: dict[str, Option] = {}
    found = [
        diagnostics.DuplicateOption(
            option.key, place=option.key_span, second_place=first[option.key].key_span
        )
        for option in options
        if first.setdefault(option.key, option) is not option
    ]
    if found:
        raise UserError(*found)


def _with_options(layer: Layer, kind: type[Kind], options: tuple[Option, ...]) -> Layer:
    """The layer with these options in the place of what it said, in its word or behind it."""
    new = {option.key: option for option in options}
    word = layer.word
    if "width" in new and "width" in kind.params():
        word = re.sub(r"-[0-9]+$", "", word)
    if "size" in new and "size" in kind.params() and word not in BY_WORD:
        word = re.sub(r"[0-9]+(x[0-9]+)?(?=-|$)", "", word, count=1)
    said = {option.key: str(option.value) for option in options}
    kept = tuple(
        new.pop(option.key, option)
        for option in layer.options
        if option.key in new or not kind.leaves_no_room(option.key, said)
    )
    return replace(layer, word=word, options=(*kept, *new.values()))


def _selected(whole: Edited, selector: Selector) -> set[int]:
    """The indices of the layers that a selector means."""
    net, layers = whole.net, whole.layers
    if selector.every:
        matches = _matcher(net, selector.word)
        chosen = {layer.index for layer in layers if matches(layer)}
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
        raise UserError(
            diagnostics.CrossingSelection(str(selector), reason, hint, place=selector.span)
        )
    if ends[0].around != ends[-1].around:
        reason = "its ends do not stand on the same path"
        hint = "name the whole join, or layers of one path"
        raise UserError(
            diagnostics.CrossingSelection(str(selector), reason, hint, place=selector.span)
        )
    return set(range(ends[0].index, ends[-1].last + 1))


def _matcher(net: Net, word: str) -> Callable[[_Occurrence], bool]:
    """Tells layers of the kind `conv`, or `conv3`, or `conv3-512`, whoever says so: the layer in
    its word or its options, `every`, or the kind's default.
    """
    parts = split_word(word)
    kind = BY_WORD.get(parts[0]) if parts else None
    if parts is None or kind is None:
        return lambda _: False
    wanted = {
        key: number for key, number in zip(("size", "width"), parts[1:], strict=True) if number
    }
    numbers = _numbers(net, kind)

    def matches(layer: _Occurrence) -> bool:
        if layer.kind is not kind:
            return False
        found = numbers(layer.layer)
        return all(_same_number(found.get(key), number) for key, number in wanted.items())

    return matches


def _numbers(net: Net, kind: type[Kind]) -> Callable[[Layer], dict[str, object]]:
    """Tells what the size and the width of a layer of a kind are, whoever says so."""
    params = kind.params()
    general: dict[str, object] = {
        key: written(params[key].kind, default)
        for key, default in kind.defaults().items()
        if default is not None
    }
    said = defaults_in(net.statements).items()
    general |= {key: str(option.value) for (of, key), option in said if of == kind.name}

    def numbers(layer: Layer) -> dict[str, object]:
        found = {**general, **_said(layer)}
        return {key: found[key] for key in ("size", "width") if key in found}

    return numbers


def _said(layer: Layer) -> dict[str, str]:
    """What a layer says itself, in its word and in its options."""
    _, size, width = split_word(layer.word) or ("", "", "")
    in_word = {"size": size, "width": width}
    options = {option.key: str(option.value) for option in layer.options}
    return {key: number for key, number in in_word.items() if number} | options


def _same_number(found: object, wanted: str) -> bool:
    """Whether what a layer says is what is wanted: `3` and `3x3` are the same."""
    return _extents(str(found)) == _extents(wanted)


def _extents(text: str) -> tuple[str, ...]:
    """Rows and columns as they are written, twice the number where it is one."""
    numbers = tuple(number.lstrip("0") for number in re.split("[x×]", text))
    return numbers * 2 if len(numbers) == 1 else numbers


def _none_like(
    net: Net, selector: Selector, layers: list[_Occurrence]
) -> diagnostics.NothingSelected:
    word = selector.word
    reason = "it has no layer of this kind"
    hint = did_you_mean(word, list(dict.fromkeys(layer.kind.name for layer in layers)))
    kind = kind_of(word)
    alike = [layer.layer for layer in layers if layer.kind is kind]
    if any(layer.name == word for layer in layers):
        hint = f"without `every`, `{word}` is a layer"
    elif kind and alike:
        reason = f"none of its `{kind.name}` layers has these numbers"
        numbers = map(_numbers(net, kind), alike)
        words = list(dict.fromkeys(_word(kind, found) for found in numbers))
        hint = f"it has {listed(words)}"
        if "-" in word and not re.search(r"-[0-9]+$", word):
            reason = "behind `-` stands a number, a parameter or a constant of this net"
    return diagnostics.NothingSelected(net.name, str(selector), reason, hint, place=selector.span)


def _word(kind: type[Kind], numbers: dict[str, object]) -> str:
    width = f"-{numbers['width']}" if "width" in numbers else ""
    return f"{kind.name}{numbers.get('size', '')}{width}"


def _none_called(
    net: Net, selector: Selector, name: str, by_name: dict[str, _Occurrence]
) -> diagnostics.NothingSelected:
    near = nearest(name, by_name)
    hint = f"did you mean `{near}`?" if near else "`vggc summary` shows the names of all layers"
    if any(map(_matcher(net, name), by_name.values())):
        hint = f"for all layers of a kind write `every {name}`"
    reason = f"it has no layer called `{name}`"
    if name == "input":
        reason = "what the net reads is no layer"
        hint = "a line sets its size: `input 3x64x64`; insert layers `before` the first one"
    return diagnostics.NothingSelected(net.name, str(selector), reason, hint, place=selector.span)


def with_defaults(net: Net) -> Net:
    """The net that says in an `every` statement, for each kind of layer it has, what it would leave
    unsaid.

    Defaults that depend on the layer, as padding does, stay unsaid.
    """
    used = {layer.kind for layer in _occurrences(net)}
    said: dict[type[Kind] | None, list[Every]] = {}
    for statement in net.statements:
        if isinstance(statement, Every):
            said.setdefault(kind_of(statement.kind), []).append(statement)
    lines = []
    for kind in KINDS:
        if kind not in used:
            continue
        defaults = dict(_default_options(net, kind))
        for statement in said.get(kind, []):
            defaults |= {option.key: option for option in statement.options}
        if defaults:
            trivia = said[kind][-1].trivia if kind in said else Trivia()
            options = tuple(defaults.values())
            lines.append(Every(kind.name, options, trivia, span=net.span))
    return without_idle_defaults(replace(net, statements=tuple(lines)))


def _default_options(net: Net, kind: type[Kind]) -> Iterator[tuple[str, Option]]:
    for key, default in kind.defaults().items():
        if default is None and key == "act":
            default = "relu"
        if default is not None:
            text = written(kind.params()[key].kind, default)
            yield key, Option(key, parse_value(Source("<default>", text)), span=net.span)


Default: TypeAlias = tuple[str, str]
"""A kind of layers, and an option that `every` says of them."""


def defaults_in(statements: Iterable[Statement]) -> dict[Default, Option]:
    """What the statements say of `every` layer of a kind, for the kinds that there are."""
    return {
        (BY_WORD[statement.kind].name, option.key): option
        for statement in statements
        if isinstance(statement, Every) and statement.kind in BY_WORD
        for option in statement.options
    }


def without_defaults(net: Net, unwanted: Collection[Default]) -> Net:
    """The net without some of what it says of `every` layer of a kind."""
    kept: list[Statement] = []
    for statement in net.statements:
        if isinstance(statement, Every) and statement.kind in BY_WORD:
            name = BY_WORD[statement.kind].name
            options = tuple(o for o in statement.options if (name, o.key) not in unwanted)
            if options:
                kept.append(replace(statement, options=options))
        else:
            kept.append(statement)
    return replace(net, statements=tuple(kept))


def with_own_defaults(net: Net, own: Sequence[Every]) -> Net:
    """The net that also says `own` of every kind: what it said otherwise, it says no more, nor
    what that leaves no room for.
    """
    new = defaults_in(own)
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for (name, key), option in new.items():
        said[name][key] = str(option.value)
    unwanted = {
        (name, key)
        for name, key in defaults_in(net.statements)
        if (name, key) in new or BY_WORD[name].leaves_no_room(key, said[name])
    }
    kept = without_defaults(net, unwanted)
    return replace(kept, statements=(*kept.statements, *own))


def without_idle_defaults(net: Net, own: Collection[Default] = ()) -> Net:
    """The net without what it says of `every` layer of a kind and no layer goes by any more;
    what is its `own` stays, as a mistake.
    """
    if not net.statements:
        return net
    return without_defaults(net, idle_defaults(net) - set(own))
