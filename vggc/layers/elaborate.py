"""Tree to graph: every word looked up, every default filled in, every shape checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeAlias

from vggc.ir.graph import Graph, Head, Layer, Node
from vggc.ir.ops import Input, Misfit, Op, Shape, Softmax, describe
from vggc.layers import diagnostics
from vggc.layers.kinds import BY_WORD, ELSEWHERE, KINDS, SLOPES, Conv, JoinKind, Kind
from vggc.layers.names import LayerNames
from vggc.support.diagnostics import MAX_REPORTED, Diagnostic, UserError, did_you_mean, nearest
from vggc.support.source import Span
from vggc.syntax import ast
from vggc.syntax.values import MAX_SIDE, Real, convert, misfit, told
from vggc_runtime.outputs import HeadKind

MAX_VALUES = 1 << 40
"""In one value of a net, for one image; sums of them fit into any number."""
MAX_NET_NAME = 64
"""Characters: folders and files are called after nets."""
BLOCKS = ("train", "test")
RESERVED_NAMES = {
    **{name: f"the net's own {name} is called so" for name in ("input", "output")},
    **dict.fromkeys(("on", "off"), "settings are `on` or `off`, as in `freeze off`"),
    "every": "edits say `every` of all layers of a kind",
}
MAIN = "output"
"""The name of the head of a net that names none."""


def elaborate(net: ast.Net) -> Graph:
    """The graph of a plain net.

    Raises: UserError with every mistake in words and values; where those are right, with
    the first layer that does not fit.
    """
    found: list[Diagnostic] = []
    _check_net_name(net, found)
    assert net.input is not None
    shape = _read_input(net.input, found)
    _check_blocks(net.blocks, found)
    _check_names(net, found)
    called = {layer.name for body in net.bodies for layer, _ in _named(body) if layer.name}
    reader = Vocabulary(found=found, called=frozenset(called))
    for statement in net.statements:
        assert isinstance(statement, ast.Every)
        reader.read_every(statement)
    reader.read_layers(net)
    reader.check_every_used()
    if found:
        raise UserError(*found)
    return _Builder(net=net, shape=shape, kinds=reader.kinds).graph()


# ---------------------------------------------------------------- words and values


def _check_net_name(net: ast.Net, found: list[Diagnostic]) -> None:
    if len(net.name) > MAX_NET_NAME:
        start = net.span.text.index(net.name)
        head = net.span.part(start, start + len(net.name))
        found.append(diagnostics.LongNetName(len(net.name), MAX_NET_NAME, place=head))


def _read_input(setting: ast.Setting, found: list[Diagnostic]) -> Shape:
    line, _ = setting.span.position
    strays = [p for p in (*setting.values[1:], *setting.options) if p.span.position[0] != line]
    if strays:
        found.append(diagnostics.NotALayer(strays[0].span.text, place=strays[0].span))
        return (1, 1, 1)
    for option in setting.options:
        hint = "`input` takes a size only, such as 3x224x224"
        found.append(diagnostics.UnknownOption("input", option.key, hint, place=option.span))
    match setting.values:
        case (ast.Dims(sizes=(_, _, _) as sizes),) if all(1 <= n <= MAX_SIDE for n in sizes):
            return sizes
        case _:
            found.append(diagnostics.BadInputSize(MAX_SIDE, place=setting.span))
            return (1, 1, 1)


def _check_blocks(blocks: tuple[ast.Block, ...], found: list[Diagnostic]) -> None:
    first: dict[str, ast.Block] = {}
    for block in blocks:
        head = block.span.part(0, len(block.key))
        if block.key not in BLOCKS:
            hint = did_you_mean(block.key, BLOCKS)
            found.append(diagnostics.UnknownBlock(block.key, hint, place=head))
        elif block.key in first:
            other = first[block.key].span.part(0, len(block.key))
            found.append(diagnostics.DuplicateBlock(block.key, place=head, second_place=other))
        first.setdefault(block.key, block)


def _check_names(net: ast.Net, found: list[Diagnostic]) -> None:
    first: dict[str, Span] = {}
    _check_body_names(net.body, first, found)
    for head in net.heads:
        start = head.span.text.index(head.name, len("head"))
        _check_name(head.name, head.span.part(start, start + len(head.name)), first, found)
        _check_body_names(head.body, first, found)


def _check_body_names(body: ast.Body, first: dict[str, Span], found: list[Diagnostic]) -> None:
    for layer, repeated in _named(body):
        assert layer.name is not None
        span = layer.span.part(0, len(layer.name))
        if repeated:
            _add(found, diagnostics.RepeatedName(layer.name, place=span))
        else:
            _check_name(layer.name, span, first, found)


def _check_name(name: str, span: Span, first: dict[str, Span], found: list[Diagnostic]) -> None:
    if name in RESERVED_NAMES:
        _add(found, diagnostics.ReservedName(name, RESERVED_NAMES[name], place=span))
    elif name in first and first[name] == span:
        _add(found, diagnostics.RepeatedName(name, place=span))  # an edit of `every` layer
    elif name in first:
        other = f"`{name}` is first named here"
        found.append(diagnostics.DuplicateName(name, other, place=span, second_place=first[name]))
    first.setdefault(name, span)


def _add(found: list[Diagnostic], problem: Diagnostic) -> None:
    """Adds a problem once, though edits have copied it, or `every` says it of many layers."""
    if problem not in found:
        found.append(problem)


def _named(body: ast.Body, repeated: bool = False) -> Iterator[tuple[ast.Layer, bool]]:
    """The layers that have names of their own, and whether they stand in a repeat."""
    for item in body:
        match item:
            case ast.Repeat(item=inner, count=count):
                yield from _named((inner,), repeated or count != 1)
            case ast.Group(body=inner):
                yield from _named(inner, repeated)
            case ast.Layer(name=name, paths=paths):
                if name is not None:
                    yield item, repeated
                for path in paths:
                    yield from _named(path, repeated)
            case ast.Reference():
                pass


# ---------------------------------------------------------------- which layers give outputs


def layers_of(net: ast.Net) -> Iterator[tuple[ast.Layer, bool]]:
    """Every layer of a plain net as written, and whether it gives an output, and so has no
    activation unless it says one; a repeated layer may come as both.
    """
    yield from _layers_in(net.body, is_output=not _continued(net))
    for head in net.heads:
        yield from _layers_in(head.body, is_output=True)


def _layers_in(body: ast.Body, *, is_output: bool) -> Iterator[tuple[ast.Layer, bool]]:
    last = _last_with_weights(body) if is_output else -1
    for index, item in enumerate(body):
        linear = index == last
        match item:
            case ast.Layer(paths=paths):
                yield item, linear and not paths
                for path in paths:
                    yield from _layers_in(path, is_output=False)
            case ast.Group(body=inner):
                yield from _layers_in(inner, is_output=linear)
            case ast.Repeat(item=inner_item, count=count):
                if linear and count != 1:
                    yield from _layers_in((inner_item,), is_output=False)
                yield from _layers_in((inner_item,), is_output=linear)
            case ast.Reference():
                pass


def _last_with_weights(body: ast.Body) -> int:
    """The index of the last item that has layers with weights; -1 where none has."""
    return next((i for i in range(len(body) - 1, -1, -1) if _has_weights(body[i])), -1)


def _has_weights(item: ast.Item) -> bool:
    """Whether an item has layers with weights; a join counts as having some."""
    match item:
        case ast.Layer():
            kind = kind_of(item.word)
            return kind is not None and (kind.trains or issubclass(kind, JoinKind))
        case ast.Group(body=body):
            return any(map(_has_weights, body))
        case ast.Repeat(item=inner):
            return _has_weights(inner)
        case ast.Reference():
            return False


def _continued(net: ast.Net) -> list[ast.Head]:
    """The heads that go on where the main chain ends, which is then no output."""
    return [head for head in net.heads if not _begins_elsewhere(head.body)]


# ---------------------------------------------------------------- words


Key: TypeAlias = tuple[str, tuple[str, ...], bool, bool]

BARE = ("act", "norm")
"""What a layer that gives an output has only if it says so itself."""


@dataclass
class Vocabulary:
    """Reads the words of a net as layers; equal layers are read once."""

    found: list[Diagnostic]
    called: frozenset[str] = frozenset()
    """The names that layers bear."""
    kinds: dict[tuple[int, bool], Kind] = field(default_factory=dict)
    """The kind with its values of each layer of the tree, by the layer's identity and whether it
    gives an output."""
    known: dict[Key, Kind] = field(default_factory=dict)
    defaults: dict[str, dict[str, ast.Option]] = field(default_factory=dict)
    """What `every` says of a kind of layers, by the option's key."""
    statements: dict[str, ast.Every] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    taken: set[tuple[str, str]] = field(default_factory=set)
    """The kinds and keys of what `every` says and a layer goes by."""

    def read_every(self, statement: ast.Every) -> None:
        """Takes in an `every` statement as defaults of its kind, or what is wrong with it."""
        start = statement.span.text.find(statement.kind, len("every"))
        span = statement.span.part(start, start + len(statement.kind))
        if statement.kind not in BY_WORD:
            hint = _other_word(statement.kind, statement.kind)
            if meant := kind_of(statement.kind):
                hint = f"`every` takes a kind alone: `every {meant.name}`"
            word = statement.kind
            self.found.append(diagnostics.UnknownLayer(word, word, hint, place=span))
            return
        kind = BY_WORD[statement.kind]
        reader = _Reader(
            kind=kind, layer=ast.Layer(word=statement.kind, span=span), word=span, found=self.found
        )
        for option in statement.options:
            reader.option(option)
        of_kind = self.defaults.setdefault(kind.name, {})
        for option in statement.options:
            if option.key in of_kind:
                self.found.append(_given_twice(option, of_kind[option.key].key_span))
        of_kind |= {option.key: option for option in statement.options}
        self.statements[kind.name] = statement

    def read_layers(self, net: ast.Net) -> None:
        """Takes in all layers of a net; a layer with a mistake is read once."""
        wrong: set[int] = set()
        for layer, linear in layers_of(net):
            if len(self.found) < MAX_REPORTED and id(layer) not in wrong:
                self.read(layer, linear=linear)
                if (id(layer), linear) not in self.kinds:
                    wrong.add(id(layer))

    def read(self, layer: ast.Layer, *, linear: bool = False) -> None:
        """Takes in the kind of a layer, or what is wrong with it."""
        key = (layer.word, tuple(map(str, layer.options)), bool(layer.paths), linear)
        kind = self.known.get(key) or self._read(layer, linear)
        if kind is not None:
            self.kinds[id(layer), linear] = self.known[key] = kind

    def check_every_used(self) -> None:
        """Notes as mistakes what `every` says of kinds or options that no layer goes by."""
        is_sound = not self.found
        for name, statement in self.statements.items():
            if name not in self.used:
                self.found.append(diagnostics.NothingToDefault(name, place=statement.span))
                continue
            for key, option in self.defaults[name].items():
                if is_sound and (name, key) not in self.taken:
                    self.found.append(
                        diagnostics.NothingTakes(name, str(option), place=option.span)
                    )

    def _read(self, layer: ast.Layer, linear: bool) -> Kind | None:
        span = word_span(layer)
        parts = split_word(layer.word)
        if parts is None:
            self.found.append(_malformed(layer.word, span))
            return None
        word, size, width = parts
        if word not in BY_WORD:
            hint = _other_word(layer.word, word)
            if layer.word in self.called:
                hint = f"for what that layer gives write `@{layer.word}`"
            self.found.append(diagnostics.UnknownLayer(layer.word, word, hint, place=span))
            return None
        kind = BY_WORD[word]
        self.used.add(kind.name)
        reader = _Reader(kind=kind, layer=layer, word=span, found=self.found, linear=linear)
        reader.number("size", size, span.part(len(word), len(word) + len(size)))
        length = len(layer.word)
        reader.number("width", width, span.part(length - len(width), length))
        for option in layer.options:
            if len(self.found) < MAX_REPORTED:
                reader.option(option)
        reader.inherit(self.defaults.get(kind.name, {}))
        reader.check_paths()
        reader.check_missing()
        whole = reader.kind_with_values()
        self.taken |= {(kind.name, key) for key in reader.inherited}
        return whole


@dataclass
class _Reader:
    """Gathers the values of one layer, and what is wrong with them."""

    kind: type[Kind]
    layer: ast.Layer
    word: Span
    found: list[Diagnostic]
    linear: bool = False
    """Whether the layer gives an output."""
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Span] = field(default_factory=dict)
    """Where each value is given."""
    inherited: dict[str, ast.Option] = field(default_factory=dict)
    """What comes from `every`, by its key."""

    def __post_init__(self) -> None:
        self.before = len(self.found)

    def number(self, key: str, digits: str, span: Span) -> None:
        """What the word says itself: a number, or rows and columns."""
        if not digits:
            return
        if key not in self.kind.params():
            self.found.append(
                diagnostics.UnwantedNumber(
                    self.kind.name, key, span.text, self._meant(key, digits), place=span
                )
            )
            return
        # Nineteen digits are out of every range; thousands would stop int() itself.
        numbers = tuple(int(each[:19]) for each in digits.split("x"))
        one = ast.Number(numbers[0], span=span)
        self._take(key, one if len(numbers) == 1 else ast.Dims(numbers, span=span), span)

    def _meant(self, key: str, digits: str) -> str:
        """The word with its number where the kind does take one: `fc-10` for `fc10`."""
        name, params = self.kind.name, self.kind.params()
        others = [f"-{n}" for n in re.findall("-([0-9]+)$", self.layer.word)]
        match key:
            case "size" if "width" in params:
                return f"`{name}{(others or [f'-{digits}'])[0]}`"
            case "width" if "size" in params:
                return f"`{name}{digits}` for windows of {digits}×{digits}, or `{name}`"
            case _:
                return f"`{name}`"

    def option(self, option: ast.Option) -> None:
        params = self.kind.params()
        head = option.key_span
        if option.key not in params:
            hint = _other_option(self.kind, option.key)
            problem = diagnostics.UnknownOption(self.kind.name, option.key, hint, place=head)
            self.found.append(problem)
        elif option.key in self.values:
            self.found.append(_given_twice(option, self.places[option.key]))
        else:
            self._take(option.key, option.value, head)

    def _take(self, key: str, value: ast.Value, place: Span) -> None:
        param = self.kind.params()[key]
        self.places[key] = place
        self.values[key] = convert(param.kind, value)
        if self.values[key] is None:
            is_zero = isinstance(value, ast.Number) and value.value == 0
            otherwise = f"leave it out for {param.default}" if param.default else ""
            otherwise = param.for_zero if is_zero and param.for_zero else otherwise
            self.found.append(misfit(key, param.kind, value, otherwise))

    def inherit(self, defaults: dict[str, ast.Option]) -> None:
        """Takes what `every` says and the layer does not; one that gives an output is bare."""
        params = self.kind.params()
        if self.linear:
            self.values = {key: "none" for key in BARE if key in params} | self.values
        said = {key: str(value) for key, value in self.values.items()}
        for key, option in defaults.items():
            if key not in params or key in self.values:
                continue
            if self.kind.leaves_no_room(key, said):
                continue
            self.values[key] = convert(params[key].kind, option.value)
            self.inherited[key] = option

    def check_paths(self) -> None:
        """Paths stand behind the kinds that join them, two at least."""
        if self.layer.paths and not issubclass(self.kind, JoinKind):
            first = self.layer.span.text.find("(", self.word.end - self.layer.span.start)
            bracket = self.layer.span.part(first, first + 1)
            self.found.append(diagnostics.NotAJoin(self.layer.word, place=bracket))
        elif issubclass(self.kind, JoinKind) and len(self.layer.paths) < 2:
            number = "one path" if self.layer.paths else "no paths"
            self.found.append(diagnostics.TooFewPaths(self.kind.name, number, place=self.word))

    def kind_with_values(self) -> Kind | None:
        """The kind; None where something was wrong with its values."""
        if len(self.found) > self.before:
            return None
        kind = self.kind(**self.values)
        if clash := kind.clash():
            if self.linear and clash.key == "slope" and not self.says("act"):
                reason = "the layer gives an output, and says no activation that has a slope"
                hint = "say it: " + " or ".join(f"`act={name}`" for name in SLOPES)
                clash = replace(clash, reason=reason, hint=hint)
            said = {option.key: option.value for option in self.layer.options}
            said |= {key: option.value for key, option in self.inherited.items()}
            value = said.get(clash.key)
            param, default = kind.params()[clash.key], getattr(kind, clash.key)
            unsaid = param.default if default is None else told(param.kind, default)
            place, shown = (value.span, value) if value else (self.word, unsaid)
            problem = diagnostics.Clashing(
                clash.key, str(shown), clash.reason, clash.hint, place=place
            )
            _add(self.found, problem)
            return None
        return kind

    def says(self, key: str) -> bool:
        return any(option.key == key for option in self.layer.options)

    def check_missing(self) -> None:
        if len(self.found) > self.before:
            return
        required = self.kind.params().keys() - self.kind.defaults().keys()
        missing = required - self.values.keys()
        word = self.layer.word
        options = missing - {"size", "width"}
        if options:
            key = min(options)
            what = self.kind.params()[key].doc
            said = next(part for part in self.kind.example.split() if part.startswith(f"{key}="))
            suggestion = f"{word} {said}"
            self.found.append(
                diagnostics.MissingLayerOption(word, key, what, suggestion, place=self.word)
            )
        elif "size" in missing:
            width = self.values.get("width") or 64
            what, example = "kernel size", f"{self.kind.name}3-{width}"
            self.found.append(
                diagnostics.MissingSize(word, self.kind.name, what, example, place=self.word)
            )
        elif "width" in missing:
            on_maps = "size" in self.kind.params()
            what = "output channels" if on_maps else "output features"
            stem = word.rstrip("-")
            example = f"{stem}-{64 if on_maps else 4096}"
            self.found.append(
                diagnostics.MissingWidth(word, self.kind.name, what, example, place=self.word)
            )


def idle_defaults(net: ast.Net) -> set[tuple[str, str]]:
    """What a plain net says of `every` layer of a kind, by kind and key, and no layer goes by."""
    vocabulary = Vocabulary(found=[])
    for statement in net.statements:
        assert isinstance(statement, ast.Every)
        vocabulary.read_every(statement)
    vocabulary.read_layers(net)
    said = {(name, key) for name, of_kind in vocabulary.defaults.items() for key in of_kind}
    return said - vocabulary.taken


def split_word(word: str) -> tuple[str, str, str] | None:
    """Kind, size and width in a layer's word, `conv`, `3` and `64` of `conv3-64`; "" for what it
    leaves out.
    """
    if word in BY_WORD:
        return word, "", ""  # relu6, softmax2d
    parts = re.fullmatch(r"([^\W\d]+)((?:[0-9]+(?:x[0-9]+)?)?)(?:-([0-9]+))?", word)
    if parts is None:
        return None
    kind, size, width = parts.groups("")
    return (kind + size, "", width) if kind + size in BY_WORD else (kind, size, width)  # relu6-3


def kind_of(word: str) -> type[Kind] | None:
    """The kind that a layer's word names, `conv` in `conv3-64`; None where it names none."""
    stem = word.partition("-")[0]
    return BY_WORD.get(stem) or BY_WORD.get(re.sub(r"[0-9]+(x[0-9]+)?$", "", stem))


def _other_option(kind: type[Kind], key: str) -> str:
    known = list(kind.params())
    if not known:
        return f"`{kind.name}` takes no options"
    if (word := ELSEWHERE.get(key.lower())) in known:
        return f"did you mean `{word}`?"
    return did_you_mean(key, known)


def word_span(layer: ast.Layer) -> Span:
    """The place of a layer's word; of all of its text where an edit has given it another word
    since.
    """
    start = layer.word_start
    return layer.span if start < 0 else layer.span.part(start, start + len(layer.word))


def _malformed(word: str, span: Span) -> Diagnostic:
    hint = ""
    if repeat := re.fullmatch(r"(.+-[0-9]+)[x×]([0-9]+)", word):
        hint = f"to repeat it write `{repeat[1]} ×{repeat[2]}`"
    elif several := re.fullmatch(r"([^\W\d]+[0-9]+x[0-9]+)(?:x[0-9]+)+(-[0-9]+)?", word):
        hint = f"a window has rows and columns: `{several[1]}{several[2] or ''}`"
    elif word.endswith("-"):
        hint = "a number is missing behind the hyphen"
    elif named := re.fullmatch(r".+-([^\W\d]\w*)", word):
        hint = f"`{named[1]}` is no parameter and no constant of this net"
    kind = BY_WORD.get(re.split(r"[\d.-]", word)[0], Conv)
    if glued := re.fullmatch(r"[^\W\d]+?([0-9]*\.[0-9]+)", word):
        shares = [key for key, param in kind.params().items() if isinstance(param.kind, Real)]
        hint = f"did you mean `{kind.name} {shares[0]}={glued[1]}`?" if shares else hint
    return diagnostics.MalformedLayer(word, kind.example.split()[0], hint, place=span)


def _other_word(word: str, kind: str) -> str:
    near = ELSEWHERE.get(kind.lower()) or nearest(kind, BY_WORD)
    if near in BY_WORD:
        return f"did you mean `{near}{word[len(kind) :]}`?"
    return did_you_mean(kind, [kind.name for kind in KINDS])


# ---------------------------------------------------------------- shapes and names


@dataclass
class _Builder:
    """Puts the nodes of a net together, in the order in which its layers are written."""

    net: ast.Net
    shape: Shape
    kinds: dict[tuple[int, bool], Kind]
    nodes: list[Node] = field(default_factory=list)
    names: LayerNames = field(default_factory=LayerNames)
    places: dict[str, int] = field(default_factory=dict)
    """The node that gives the output of each layer, by the layer's name."""
    around: tuple[str, ...] = ()
    """The joins around what is being built."""

    def graph(self) -> Graph:
        assert self.net.input is not None
        span = self.net.input.span
        origin = Layer(name="input", kind="input", text="input", span=span)
        self.nodes.append(Node("input", Input(self.shape), (), self.shape, origin))
        self.places["input"] = 0
        continued = _continued(self.net)
        end = self.chain(self.net.body, 0, is_output=not continued)
        if continued and isinstance(self.nodes[end].op, Softmax):
            head, layer = continued[0], self.nodes[end].layer
            raise UserError(
                diagnostics.HeadOnSoftmax(
                    head.name, layer.name, place=head.span, second_place=_word_in(layer)
                )
            )
        heads = [] if continued else [Head(MAIN, self.head_kind(self.net.body), end)]
        for head in self.net.heads:
            self.check_scores(head)
            self.check_head_name(head)
            with self.names.inside(head.name):
                node = self.chain(head.body, end, is_output=True)
            heads.append(Head(head.name, self.head_kind(head.body), node))
        self.check_dead_ends({head.node for head in heads})
        return Graph(self.net.name, tuple(self.nodes), tuple(heads))

    def chain(self, body: ast.Body, at: int, *, is_output: bool, first: bool = True) -> int:
        """Builds layers behind the node `at`; the index of the last node.

        The last layer with weights of an output has no activation unless it says so. Where
        `first`, nothing stands before the chain on its path.
        """
        last = _last_with_weights(body) if is_output else -1
        for index, item in enumerate(body):
            at = self.item(item, at, first=first and index == 0, linear=index == last)
        return at

    def item(self, item: ast.Item, at: int, *, first: bool, linear: bool) -> int:
        match item:
            case ast.Layer(paths=()):
                return self.layer(item, at, linear=linear)
            case ast.Layer():
                return self.join(item, at)
            case ast.Group(body=body):
                return self.chain(body, at, is_output=linear, first=first)
            case ast.Repeat(item=inner, count=count):
                assert isinstance(count, int)
                for turn in range(1, count + 1):
                    at = self.item(inner, at, first=False, linear=linear and turn == count)
                return at
            case ast.Reference():
                return self.refer(item, first=first)

    def layer(self, written: ast.Layer, at: int, *, linear: bool) -> int:
        kind = self.kinds[id(written), linear]
        layer = self.named(written, kind)
        for suffix, op in kind.expand(self.nodes[at].shape):
            at = self.emit(f"{layer.name}.{suffix}" if suffix else layer.name, op, (at,), layer)
        self.places[layer.name] = at
        return at

    def join(self, written: ast.Layer, at: int) -> int:
        kind = self.kinds[id(written), False]
        assert isinstance(kind, JoinKind)
        layer = self.named(written, kind)
        self.around = (*self.around, layer.name)
        with self.names.inside(layer.name):
            ends = tuple(self.chain(path, at, is_output=False) for path in written.paths)
        self.around = self.around[:-1]
        self.places[layer.name] = self.emit(layer.name, kind.combine, ends, layer, written.paths)
        return self.places[layer.name]

    def refer(self, reference: ast.Reference, *, first: bool) -> int:
        name = reference.name
        if not first or self.names.on_main_chain:
            raise UserError(diagnostics.MisplacedReference(name, place=reference.span))
        if name not in self.places:
            called = (layer.span for layer, _ in _named(self.net.body) if layer.name == name)
            later = next((span.part(0, len(name)) for span in called), None)
            hint = "it stands further down" if later else did_you_mean(name, [*self.places])
            raise UserError(
                diagnostics.UnknownReference(name, hint, place=reference.span, second_place=later)
            )
        return self.places[name]

    def named(self, written: ast.Layer, kind: Kind) -> Layer:
        name = self.names.take(written, type(kind))
        if name in self.places:
            self.refuse_duplicate(name, written)
        return Layer(
            name=name,
            kind=kind.name,
            text=written.word,
            span=written.span,
            path=self.around,
            recipe=kind.recipe,
        )

    def refuse_duplicate(self, name: str, written: ast.Layer) -> None:
        """Two layers get one name only where a name was given that another counts up to."""
        layers = (node.layer for node in self.nodes)
        other = next((layer.span for layer in layers if layer.name == name), written.span)
        given, counted = (written.span, other) if written.name == name else (other, written.span)
        said = "this layer gets the same name by counting"
        place = given.part(0, len(name))
        raise UserError(diagnostics.DuplicateName(name, said, place=place, second_place=counted))

    def emit(
        self,
        name: str,
        op: Op,
        reads: tuple[int, ...],
        layer: Layer,
        paths: tuple[ast.Body, ...] = (),
    ) -> int:
        """Adds a node; its index. `paths` are those that a join reads."""
        shapes = [self.nodes[read].shape for read in reads]
        try:
            shape = op.output(*shapes)
        except Misfit as wrong:
            odd = next((i for i, other in enumerate(shapes) if not _fit(op, shapes[0], other)), 0)
            problem = diagnostics.DoesNotFit(
                layer.text,
                wrong.reason,
                wrong.hint,
                describe(shapes[odd]),
                place=_word_in(layer),
                second_place=paths[odd][-1].span if paths and odd else None,
            )
            raise UserError(problem) from None
        if prod(shape) > MAX_VALUES:
            reason = f"it would give {describe(shape)} values for one image"
            hint = f"{MAX_VALUES:,} are allowed"
            raise UserError(diagnostics.DoesNotFit(layer.text, reason, hint, place=_word_in(layer)))
        self.nodes.append(Node(name, op, reads, shape, layer))
        return len(self.nodes) - 1

    def head_kind(self, body: ast.Body) -> HeadKind:
        """What a chain tells: its last layer says it."""
        match body[-1]:
            case ast.Repeat(item=item):
                return self.head_kind((item,))
            case ast.Group(body=inner):
                return self.head_kind(inner)
            case ast.Layer(word=word):
                kind = kind_of(word)
                assert kind
                return kind.head
            case ast.Reference():
                return "features"

    def check_head_name(self, head: ast.Head) -> None:
        """Layers in a head begin with its name; so do those in a join."""
        if head.name in self.places:
            start = head.span.text.index(head.name, len("head"))
            name = head.span.part(start, start + len(head.name))
            layer = next(node.layer for node in self.nodes if node.layer.name == head.name)
            other = "this layer is called so"
            raise UserError(
                diagnostics.DuplicateName(
                    head.name, other, place=name, second_place=_word_in(layer)
                )
            )

    def check_scores(self, head: ast.Head) -> None:
        """Scores need a layer of their own: those of hidden layers end in an activation."""
        if self.head_kind(head.body) == "classes" and not any(map(_has_weights, head.body)):
            raise UserError(diagnostics.HeadWithoutScores(head.name, place=head.span))

    def check_dead_ends(self, heads: set[int]) -> None:
        read = heads | {read for node in self.nodes for read in node.inputs}
        for index, node in enumerate(self.nodes):
            if index not in read:
                raise UserError(diagnostics.DeadEnd(node.layer.name, place=_word_in(node.layer)))


def _begins_elsewhere(body: ast.Body) -> bool:
    match body[0]:
        case ast.Reference():
            return True
        case ast.Group(body=inner):
            return _begins_elsewhere(inner)
        case ast.Repeat(item=item):
            return _begins_elsewhere((item,))
        case ast.Layer(paths=paths):
            return bool(paths) and all(map(_begins_elsewhere, paths))


def _fit(op: Op, *shapes: Shape) -> bool:
    try:
        op.output(*shapes)
    except Misfit:
        return False
    return True


def _given_twice(option: ast.Option, first: Span) -> Diagnostic:
    return diagnostics.DuplicateOption(option.key, place=option.key_span, second_place=first)


def _word_in(layer: Layer) -> Span:
    """The word of a layer in its text; all of it where an edit has given it another."""
    start = ast.plain_word(layer.span.text).find(layer.text)
    return layer.span if start < 0 else layer.span.part(start, start + len(layer.text))
