"""Tree to graph: every word looked up, every default filled in, every shape checked."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from vggc.diagnostics import Diagnostic, UserError, did_you_mean, nearest
from vggc.ir.graph import Graph, Layer, Node
from vggc.ir.ops import Input, Misfit, Shape
from vggc.layers import mistakes
from vggc.layers.kinds import BY_WORD, ELSEWHERE, ENDS_BLOCK, WITH_WEIGHTS, Conv, Kind, Param
from vggc.source import Span
from vggc.syntax import ast

MAX_SIDE = 1 << 14
MAX_NET_NAME = 64
"""Characters: folders and files are called after nets."""
BLOCKS = ("train",)
RESERVED_NAMES = ("input", "output")


def elaborate(net: ast.Net) -> Graph:
    """The graph of a net.

    Raises: UserError with every mistake in words and values; where those are right, with
    the first layer that does not fit.
    """
    found: list[Diagnostic] = []
    _check_net_name(net, found)
    shape = _read_input(net.input, found)
    _check_blocks(net.blocks, found)
    written = list(ast.layers(net.body))
    _check_names(written, found)
    distinct = {id(layer): layer for layer in written}
    kinds = {key: _read_layer(layer, found) for key, layer in distinct.items()}
    if found:
        raise UserError(*found)
    chain = [(layer, kind) for layer in written if (kind := kinds[id(layer)])]
    return _build(net, shape, _with_linear_output(chain))


# ---------------------------------------------------------------- words and values


def _check_net_name(net: ast.Net, found: list[Diagnostic]) -> None:
    if len(net.name) > MAX_NET_NAME:
        start = net.span.text.index(net.name)
        head = net.span.part(start, start + len(net.name))
        found.append(mistakes.LongNetName(head, len(net.name), MAX_NET_NAME))


def _read_input(setting: ast.Setting, found: list[Diagnostic]) -> Shape:
    line, _ = setting.span.position
    strays = [p for p in (*setting.values[1:], *setting.options) if p.span.position[0] != line]
    if strays:
        found.append(mistakes.NotALayer(strays[0].span, strays[0].span.text))
        return (1, 1, 1)
    for option in setting.options:
        hint = "`input` takes a size only, such as 3x224x224"
        found.append(mistakes.UnknownOption(option.span, "input", option.key, hint))
    match setting.values:
        case (ast.Dims(sizes=(_, _, _) as sizes),) if all(1 <= n <= MAX_SIDE for n in sizes):
            return sizes
        case _:
            found.append(mistakes.BadInput(setting.span, MAX_SIDE))
            return (1, 1, 1)


def _check_blocks(blocks: tuple[ast.Block, ...], found: list[Diagnostic]) -> None:
    first: dict[str, ast.Block] = {}
    for block in blocks:
        head = block.span.part(0, len(block.key))
        if block.key not in BLOCKS:
            hint = did_you_mean(block.key, BLOCKS)
            found.append(mistakes.UnknownBlock(head, block.key, hint))
        elif block.key in first:
            other = str(first[block.key].span)
            found.append(mistakes.DuplicateBlock(head, block.key, other))
        first.setdefault(block.key, block)


def _check_names(written: list[ast.Layer], found: list[Diagnostic]) -> None:
    times = Counter(id(layer) for layer in written if layer.name is not None)
    named = {id(layer): layer for layer in written if layer.name is not None}
    first: dict[str, ast.Layer] = {}
    for key, layer in named.items():
        assert layer.name is not None
        head = layer.span.part(0, len(layer.name))
        if layer.name in RESERVED_NAMES:
            found.append(mistakes.ReservedName(head, layer.name))
        elif times[key] > 1:
            found.append(mistakes.RepeatedName(head, layer.name))
        elif layer.name in first:
            other = str(first[layer.name].span)
            found.append(mistakes.DuplicateName(head, layer.name, other))
        first.setdefault(layer.name, layer)


def _read_layer(layer: ast.Layer, found: list[Diagnostic]) -> Kind | None:
    """The kind with its values; None, and the mistakes in `found`, where one is wrong."""
    span = _word_span(layer)
    parts = re.fullmatch(r"([^\W\d]+)([0-9]*)(?:-([0-9]+))?", layer.word)
    if parts is None:
        found.append(_malformed(layer.word, span))
        return None
    word, size, width = parts.groups()
    if word not in BY_WORD:
        found.append(mistakes.UnknownLayer(span, layer.word, word, _other_word(layer.word, word)))
        return None
    kind = BY_WORD[word]
    reader = _Reader(kind, layer, span, found)
    reader.number("size", size, span.part(len(word), len(word) + len(size)))
    length = len(layer.word)
    reader.number("width", width or "", span.part(length - len(width or ""), length))
    for option in layer.options:
        reader.option(option)
    reader.check_missing()
    return kind(**reader.values) if len(found) == reader.before else None


@dataclass
class _Reader:
    """Gathers the values of one layer, and what is wrong with them."""

    kind: type[Kind]
    layer: ast.Layer
    word: Span
    found: list[Diagnostic]
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = len(self.found)

    def number(self, key: str, digits: str, span: Span) -> None:
        """A number inside the word."""
        if not digits:
            return
        if key not in self.kind.params():
            self.found.append(
                mistakes.UnwantedNumber(
                    span, self.kind.name, key, span.text, self._meant(key, digits)
                )
            )
            return
        # Nineteen digits are out of every range; thousands would stop int() itself.
        self._take(key, ast.Number(int(digits[:19]), span=span))

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
        head = option.span.part(0, len(option.key))
        if option.key not in params:
            hint = _other_option(self.kind, option.key)
            problem = mistakes.UnknownOption(head, self.kind.name, option.key, hint)
            self.found.append(problem)
        elif option.key in self.values:
            self.found.append(mistakes.DuplicateOption(head, option.key))
        else:
            self._take(option.key, option.value)

    def _take(self, key: str, value: ast.Value) -> None:
        param = self.kind.params()[key]
        self.values[key] = None
        match value:
            case ast.Number(value=number) if _fits(number, param):
                self.values[key] = number
            case ast.Word(text=text) if text in param.choices:
                self.values[key] = text
            case _:
                near = nearest(str(value), param.choices)
                hint = f"did you mean `{near}`?" if near else ""
                self.found.append(
                    mistakes.BadValue(value.span, key, str(value), param.expected, hint)
                )

    def check_missing(self) -> None:
        if len(self.found) > self.before:
            return
        required = {f.name for f in fields(self.kind) if f.default is MISSING}
        missing = required - self.values.keys()
        word = self.layer.word
        if "size" in missing:
            width = self.values.get("width") or 64
            what, example = "kernel size", f"{self.kind.name}3-{width}"
            self.found.append(mistakes.MissingSize(self.word, word, self.kind.name, what, example))
        elif "width" in missing:
            what = "output channels" if self.kind is Conv else "output features"
            stem = word.rstrip("-")
            example = f"{stem}-{64 if self.kind is Conv else 4096}"
            self.found.append(mistakes.MissingWidth(self.word, word, self.kind.name, what, example))


def _other_option(kind: type[Kind], key: str) -> str:
    known = list(kind.params())
    if not known:
        return f"`{kind.name}` takes no options"
    if (word := ELSEWHERE.get(key.lower())) in known:
        return f"did you mean `{word}`?"
    return did_you_mean(key, known)


def _fits(number: float, param: Param) -> bool:
    if param.choices or (param.integral and not isinstance(number, int)):
        return False
    return param.low <= number <= param.high and (not param.odd or number % 2 == 1)


def _word_span(layer: ast.Layer) -> Span:
    """The layer's word; all of its text where an edit has given it another word since."""
    after_name = 0 if layer.name is None else layer.span.text.index(":")
    start = layer.span.text.find(layer.word, after_name)
    return layer.span if start < 0 else layer.span.part(start, start + len(layer.word))


def _malformed(word: str, span: Span) -> Diagnostic:
    hint = ""
    if repeat := re.fullmatch(r"(.+-[0-9]+)[x×]([0-9]+)", word):
        hint = f"to repeat it write `{repeat[1]} ×{repeat[2]}`"
    elif square := re.fullmatch(r"([^\W\d]+)([0-9]+)x\2(-.*)?", word):
        hint = f"kernels are square: write `{square[1]}{square[2]}{square[3] or ''}`"
    elif word.endswith("-"):
        hint = "a number is missing behind the hyphen"
    kind = BY_WORD.get(re.split(r"[\d.-]", word)[0], Conv)
    return mistakes.MalformedLayer(span, word, kind.example.split()[0], hint)


def _other_word(word: str, kind: str) -> str:
    near = ELSEWHERE.get(kind.lower()) or nearest(kind, BY_WORD)
    if near in BY_WORD:
        return f"did you mean `{near}{word[len(kind) :]}`?"
    return did_you_mean(kind, list(BY_WORD))


# ---------------------------------------------------------------- shapes and names


def _with_linear_output(chain: list[tuple[ast.Layer, Kind]]) -> list[tuple[ast.Layer, Kind]]:
    """The last layer with weights gives scores: it has no activation unless it says so."""
    for index in range(len(chain) - 1, -1, -1):
        layer, kind = chain[index]
        if isinstance(kind, WITH_WEIGHTS):
            if not any(option.key == "act" for option in layer.options):
                chain[index] = (layer, replace(kind, act="none"))
            break
    return chain


def _build(net: ast.Net, shape: Shape, chain: list[tuple[ast.Layer, Kind]]) -> Graph:
    origin = Layer("input", "input", "input", net.input.span)
    nodes = [Node("input", Input(shape), (), shape, origin)]
    names = _Names({layer.name: layer.span for layer, _ in chain if layer.name is not None})
    for written, kind in chain:
        name = names.take(written, kind)
        layer = Layer(name, kind.name, written.word, written.span)
        for suffix, op in kind.expand(nodes[-1].shape):
            full = f"{name}.{suffix}" if suffix else name
            try:
                result = op.output(nodes[-1].shape)
            except Misfit as misfit:
                problem = mistakes.DoesNotFit(
                    _word_span(written), written.word, misfit.reason, misfit.hint
                )
                raise UserError(problem) from None
            nodes.append(Node(full, op, (len(nodes) - 1,), result, layer))
    return Graph(net.name, tuple(nodes))


@dataclass
class _Names:
    """Names in the order of the chain, as Caffe's VGG has them: conv1_1, pool1, fc6."""

    taken: dict[str, Span]
    block: int = 1
    in_block: Counter[str] = field(default_factory=Counter)
    overall: Counter[str] = field(default_factory=Counter)

    def take(self, layer: ast.Layer, kind: Kind) -> str:
        self.in_block[kind.name] += 1
        self.overall[kind.name] += 1
        name = layer.name or kind.scheme.format(
            kind=kind.name,
            block=self.block,
            nth=self.overall[kind.name],
            nth_in_block=self.in_block[kind.name],
        )
        if layer.name is None and name in self.taken:
            head = self.taken[name].part(0, len(name))
            other = f"the layer at {layer.span}, which counts up to it"
            raise UserError(mistakes.DuplicateName(head, name, other))
        if isinstance(kind, ENDS_BLOCK):
            self.block += 1
            self.in_block.clear()
        return name
