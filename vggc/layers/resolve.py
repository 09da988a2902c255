"""A net as written to a plain one: bases found, parameters filled in, edits carried out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import floor, isfinite
from typing import TypeAlias, TypeVar

from vggc.layers import diagnostics
from vggc.layers.edit import (
    apply,
    defaults_in,
    input_size,
    with_classes,
    with_own_defaults,
    with_width,
    without_idle_defaults,
)
from vggc.layers.kinds import MAX_WIDTH
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.source import Span
from vggc.syntax import ast
from vggc.syntax.parse import MAX_DIGITS, MAX_TOKENS, check_size
from vggc.syntax.values import Real, ValueKind, WholeNumber, convert, items, misfit

MAX_BASES = 20
MAX_WORDS = MAX_TOKENS - 10_000
"""In the layers of a net written out; blocks and `every` have the rest."""

PARAMETERS: dict[str, ValueKind] = {
    "classes": WholeNumber(1, MAX_WIDTH),
    "width": Real(0, 1000, above=True),
}
"""What every net takes, whether it says so or not: the number of classes, and a factor for
the channels and features of all hidden layers."""

FindBase: TypeAlias = Callable[[ast.Base], ast.Net]
"""The net that a file builds on. Raises: UserError when there is none."""
Merge: TypeAlias = Callable[[ast.Block, ast.Block], ast.Block]
"""A block with the settings of another over its own."""
Resize: TypeAlias = Callable[[ast.Block, tuple[int, int], tuple[int, int]], ast.Block]
"""A block for an input of another height and width than that which it was written for."""
ConstantValue: TypeAlias = int | float | str


@dataclass(frozen=True)
class Surroundings:
    """What a net needs from outside to become plain: how to find its bases, and what blocks mean
    merged or resized.
    """

    find: FindBase
    merge: Merge
    resize: Resize


def resolve(net: ast.Net, around: Surroundings, arguments: tuple[ast.Option, ...] = ()) -> ast.Net:
    """The plain net that `net` describes, its parameters as in `arguments`.

    Raises: UserError at the first mistake in names, bases or edits.
    """
    return _resolve(net, around, arguments, ())[0]


def constants(net: ast.Net) -> dict[str, ConstantValue]:
    """The values of a net's constants, and those of its parameters where none are given.

    Raises: UserError at the first mistake in them.
    """
    return _Names.of(net, {}).values


def _resolve(
    net: ast.Net,
    around: Surroundings,
    arguments: tuple[ast.Option, ...],
    builders: tuple[ast.Net, ...],
) -> tuple[ast.Net, int]:
    """The plain net, and how many edits it and its bases took."""
    if is_plain(net) and not arguments:
        return net, 0
    edits = 0
    own, general = _sorted(net, arguments)
    names = _Names.of(net, own)
    if net.base is not None:
        plain, edits = _derived(net, net.base, around, names, (*builders, net))
    else:
        every = tuple(names.every(s) for s in net.statements if isinstance(s, ast.Every))
        heads = tuple(replace(head, body=names.body(head.body)) for head in net.heads)
        blocks = tuple(map(names.block, net.blocks))
        body = names.body(net.body)
        plain = replace(net, body=body, statements=every, heads=heads, blocks=blocks)
    names.check_all_used()
    for body in plain.bodies:
        check_size(body)
    _check_text(plain)
    plain = replace(plain, parameters=(), base=None)
    for key, value in general.items():
        plain = with_classes(plain, int(value)) if key == "classes" else with_width(plain, value)
    return plain, edits + len(general)


def _check_text(net: ast.Net) -> None:
    """Refuses what a file could not hold: runs and artifacts keep the net written out."""
    words = sum(map(_num_words, net.bodies))
    if words > MAX_WORDS:
        raise UserError(diagnostics.TooLongWrittenOut(net.name, words, MAX_WORDS, place=net.span))


def _num_words(body: ast.Body) -> int:
    """Words and signs of layers as written, and one more for every four characters of names."""
    count = 0
    for piece in ast.pieces(body):
        count += 3  # with its bar, and its repetition or parentheses
        if isinstance(piece, ast.Layer):
            count += 3 * len(piece.options) + len(piece.paths)
            count += 2 + len(piece.name.encode()) // 4 if piece.name else 0
    return count


def is_plain(net: ast.Net) -> bool:
    """Whether a net names nothing that is still to be found or filled in."""
    return (
        not (net.parameters or net.base)
        and all(isinstance(statement, ast.Every) for statement in net.statements)
        and not any(_has_names(body) for body in net.bodies)
    )


def _has_names(body: ast.Body) -> bool:
    """Whether a repeat, which no layer can be read without, counts by a name."""
    return any(
        (isinstance(item, ast.Repeat) and (isinstance(item.count, str) or _has_names((item.item,))))
        or (isinstance(item, ast.Group) and _has_names(item.body))
        or (isinstance(item, ast.Layer) and any(map(_has_names, item.paths)))
        for item in body
    )


# ---------------------------------------------------------------- bases


def _derived(
    net: ast.Net,
    base: ast.Base,
    around: Surroundings,
    names: _Names,
    builders: tuple[ast.Net, ...],
) -> tuple[ast.Net, int]:
    found = around.find(base)
    _check_chain(found, base, builders)
    arguments = tuple(replace(o, value=names.value(o.value)) for o in base.arguments)
    plain, earlier = _resolve(found, around, arguments, builders)
    plain = replace(plain, name=net.name, span=net.span, trivia=net.trivia, below=net.below)
    own = tuple(names.every(s) for s in net.statements if isinstance(s, ast.Every))
    edits = [names.edit(s) for s in net.statements if not isinstance(s, ast.Let | ast.Every)]
    edited = apply(with_own_defaults(plain, own), edits, earlier)
    plain = edited.net
    heads = tuple(replace(head, body=names.body(head.body)) for head in net.heads)
    inherited, before, after = plain.blocks, input_size(plain), input_size(net)
    if before and after:
        inherited = tuple(around.resize(block, before, after) for block in inherited)
    blocks = _over(inherited, tuple(map(names.block, net.blocks)), lambda b: b.key, around.merge)
    written = {word.span for block in blocks for word in _words(block)}
    lost = [problem for span, problem in edited.lost if span in written]
    if lost:
        raise UserError(lost[0])
    whole = replace(
        plain,
        input=net.input or plain.input,
        heads=_over(plain.heads, heads, lambda head: head.name, lambda _, head: head),
        blocks=blocks,
    )
    return without_idle_defaults(whole, defaults_in(own)), earlier + len(edits)


NetPart = TypeVar("NetPart", bound=ast.Head | ast.Block)


def _over(
    base: tuple[NetPart, ...],
    own: tuple[NetPart, ...],
    called: Callable[[NetPart], str],
    merged: Callable[[NetPart, NetPart], NetPart],
) -> tuple[NetPart, ...]:
    """The base's parts with a net's own in the place of those called alike, and the net's others
    behind them. What stands twice in one file stays twice, as a mistake.
    """
    first: dict[str, NetPart] = {}
    again: list[NetPart] = []
    for part in own:
        if first.setdefault(called(part), part) is not part:
            again.append(part)
    kept: list[NetPart] = []
    for old in base:
        new = first.pop(called(old), None)
        kept.append(merged(old, new) if new else old)
    return (*kept, *first.values(), *again)


def _words(block: ast.Block) -> Iterator[ast.Word]:
    for setting in block.settings:
        for value in (*setting.values, *(option.value for option in setting.options)):
            for item in items(value):
                if isinstance(item, ast.Word):
                    yield item


def _check_chain(found: ast.Net, base: ast.Base, builders: tuple[ast.Net, ...]) -> None:
    chain = " → ".join(builder.name for builder in (*builders, found))
    files = [builder.span.source.name for builder in builders]
    if found.span.source.name in files:
        raise UserError(diagnostics.BaseCycle(base.name, chain, place=base.span))
    if len(builders) >= MAX_BASES:
        start = " → ".join(builder.name for builder in builders[:4])
        raise UserError(diagnostics.TooManyBases(MAX_BASES, f"{start} → …", place=base.span))


# ---------------------------------------------------------------- parameters and constants


def _sorted(
    net: ast.Net, arguments: tuple[ast.Option, ...]
) -> tuple[dict[str, ast.Option], dict[str, float]]:
    """The arguments for the net's own parameters, and the values of those that all nets have."""
    own: dict[str, ast.Option] = {}
    general: dict[str, float] = {}
    declared = {parameter.key for parameter in net.parameters}
    for argument in arguments:
        head = argument.key_span
        if argument.key in own or argument.key in general:
            first = next(a for a in arguments if a.key == argument.key).key_span
            raise UserError(
                diagnostics.DuplicateOption(argument.key, place=head, second_place=first)
            )
        if argument.key in declared:
            own[argument.key] = argument
        elif (kind := PARAMETERS.get(argument.key)) is not None:
            value = convert(kind, argument.value)
            if value is None:
                raise UserError(misfit(argument.key, kind, argument.value))
            general[argument.key] = value
        else:
            known = [*dict.fromkeys((*declared, *PARAMETERS))]
            hint = did_you_mean(argument.key, known)
            raise UserError(diagnostics.UnknownParameter(net.name, argument.key, hint, place=head))
    return own, general


@dataclass
class _Names:
    """The values of a file's parameters and constants, and which of them were used."""

    values: dict[str, ConstantValue] = field(default_factory=dict)
    places: dict[str, Span] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    given: dict[str, Span] = field(default_factory=dict)
    """Where values stand that are not in the file itself."""

    @classmethod
    def of(cls, net: ast.Net, arguments: dict[str, ast.Option]) -> _Names:
        names = cls()
        for parameter in net.parameters:
            head = parameter.key_span
            _check_name(parameter.key, head)
            if parameter.key in names.values:
                first = names.places[parameter.key]
                raise UserError(
                    diagnostics.DuplicateOption(parameter.key, place=head, second_place=first)
                )
            given = arguments.get(parameter.key, parameter)
            names.places[parameter.key] = head
            names.values[parameter.key] = _plain(parameter.key, given.value)
            if given is not parameter:
                names.given[parameter.key] = given.value.span
        for statement in net.statements:
            if isinstance(statement, ast.Let):
                offset = statement.span.text.index(statement.name, len("let"))
                head = statement.span.part(offset, offset + len(statement.name))
                _check_name(statement.name, head)
                if statement.name in names.values:
                    first = names.places[statement.name]
                    raise UserError(
                        diagnostics.DuplicateConstant(
                            statement.name, place=head, second_place=first
                        )
                    )
                names.values[statement.name] = names.sum(statement.value)
                names.places[statement.name] = head
        return names

    def check_all_used(self) -> None:
        for name, span in self.places.items():
            if name not in self.used:
                raise UserError(diagnostics.UnusedName(name, place=span))

    def get(self, name: str, span: Span) -> ConstantValue:
        if name not in self.values:
            hint = did_you_mean(name, [*self.values]) if self.values else ""
            raise UserError(diagnostics.UnknownName(name, hint, place=span))
        self.used.add(name)
        return self.values[name]

    def sum(self, sum_: ast.Sum) -> int | float:
        """The value of a sum, a whole number where it is one."""
        match sum_:
            case ast.Number():
                return _number("a sum", sum_)
            case ast.Name(text=name):
                found = self.get(name, sum_.span)
                if isinstance(found, str):
                    raise UserError(diagnostics.NotANumber(name, found, place=sum_.span))
                return found
            case ast.Rounded(sum=inner):
                return floor(self.sum(inner) + 0.5)
            case ast.Binary(left=left, operator=operator, right=right):
                return self.binary(self.sum(left), operator, self.sum(right), sum_)

    def binary(self, left: float, operator: str, right: float, sum_: ast.Binary) -> int | float:
        match operator:
            case "+":
                return _neat(left + right, sum_.span)
            case "-":
                return _neat(left - right, sum_.span)
            case "*":
                return _neat(left * right, sum_.span)
            case _ if right == 0:
                raise UserError(diagnostics.DivisionByZero(place=sum_.right.span))
            case _:
                return _neat(left / right, sum_.span)

    def value(self, value: ast.Value) -> ast.Value:
        """A value, or what the name that stands for it means."""
        if isinstance(value, ast.Many):
            return replace(value, items=tuple(map(self.value, value.items)))  # type: ignore[arg-type]
        if not isinstance(value, ast.Word) or value.text not in self.values:
            return value
        found = self.get(value.text, value.span)
        if isinstance(found, str):
            return ast.Word(found, span=value.span)
        return ast.Number(found, span=value.span)

    def options(self, options: tuple[ast.Option, ...]) -> tuple[ast.Option, ...]:
        return tuple(replace(option, value=self.value(option.value)) for option in options)

    def of_layers(self, options: tuple[ast.Option, ...]) -> tuple[ast.Option, ...]:
        """Options of layers, whose values are no names with hyphens."""
        for option in options:
            if isinstance(option.value, ast.Word):
                self.refuse_sum(option.value.text, option.value.span)
        return self.options(options)

    def refuse_sum(self, text: str, span: Span) -> None:
        """Refuses `a-b` where `a` or `b` is a name of this file."""
        parts = re.split("-+", text)
        if len(parts) > 1 and any(part in self.values for part in parts):
            raise UserError(diagnostics.SumElsewhere(text, place=span))

    def block(self, block: ast.Block) -> ast.Block:
        settings = tuple(
            replace(s, values=tuple(map(self.value, s.values)), options=self.options(s.options))
            for s in block.settings
        )
        return replace(block, settings=settings)

    def every(self, statement: ast.Every) -> ast.Every:
        return replace(statement, options=self.of_layers(statement.options))

    def edit(self, edit: ast.Edit) -> ast.Edit:
        edit = replace(edit, selector=self.selector(edit.selector))
        match edit:
            case ast.Set():
                return replace(edit, options=self.of_layers(edit.options))
            case ast.Insert() | ast.Replace():
                return replace(edit, body=self.body(edit.body))
            case ast.Remove():
                return edit

    def selector(self, selector: ast.Selector) -> ast.Selector:
        """`every conv3-wide` with the number that `wide` means."""
        stem, _, name = selector.word.rpartition("-")
        if not selector.every or name not in self.values:
            return selector
        end = len(selector.span.text)
        width = self.whole(name, selector.span.part(end - len(name), end), low=0)
        return replace(selector, word=f"{stem}-{width}")

    def body(self, body: ast.Body) -> ast.Body:
        """The chain with numbers in the place of names."""
        return tuple(self.item(item) for item in body)

    def item(self, item: ast.Item) -> ast.Item:
        match item:
            case ast.Layer():
                return replace(
                    item,
                    word=self.word(item),
                    options=self.of_layers(item.options),
                    paths=tuple(map(self.body, item.paths)),
                )
            case ast.Group():
                return replace(item, body=self.body(item.body))
            case ast.Repeat(item=inner, count=count):
                item_ = self.item(inner)
                assert isinstance(item_, ast.Layer | ast.Group)
                if isinstance(count, str):
                    end = item.span.part(len(item.span.text) - len(count), len(item.span.text))
                    count = self.whole(count, end, low=1)
                return replace(item, item=item_, count=count)
            case ast.Reference():
                return item

    def word(self, layer: ast.Layer) -> str:
        """`conv3-wide` with the number that `wide` means."""
        stem, hyphen, name = layer.word.partition("-")
        start = layer.word_start + len(stem) + 1
        span = layer.span.part(start, start + len(name))
        self.refuse_sum(name, span)
        if not hyphen or not re.fullmatch(r"[^\W\d]\w*", name):
            return layer.word
        return f"{stem}-{self.whole(name, span, low=0)}"

    def whole(self, name: str, span: Span, low: int) -> int:
        value = self.get(name, span)
        if isinstance(value, str):
            raise UserError(diagnostics.NotANumber(name, value, place=span))
        if not isinstance(value, int) or value < low:
            hint = f"`let` can round it: `let whole = round({name})`" if value >= low else ""
            if place := self.given.get(name):
                span, hint = place, f"`{name}` is used for widths or repeats"
            raise UserError(diagnostics.NotWhole(name, f"{value:g}", low, hint, place=span))
        return value


def _check_name(name: str, span: Span) -> None:
    """Refuses the name of a parameter or a constant that a sum would read as something else."""
    if not re.fullmatch(r"\w+", name):
        raise UserError(diagnostics.NoNameInSums(name, re.sub(r"\W", "_", name), place=span))


def _plain(key: str, value: ast.Value) -> ConstantValue:
    return _number(key, value) if isinstance(value, ast.Number) else str(value)


def _number(key: str, number: ast.Number) -> int | float:
    """A number by itself, or a share; pixels would be pixels no more."""
    if number.unit == "px":
        raise UserError(misfit(key, Real(0, 10**MAX_DIGITS), number))
    return _neat(number.value / 100 if number.unit == "%" else number.value, number.span)


def _neat(value: int | float, span: Span) -> int | float:
    """A whole number where the value is one. Raises: UserError when it is too large."""
    if not isfinite(value) or abs(value) >= 10**MAX_DIGITS:
        raise UserError(diagnostics.ValueTooLarge(MAX_DIGITS, place=span))
    return int(value) if float(value).is_integer() else value
