"""Text to tree."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput
from lark.lark import PostLex

from vggc.support.diagnostics import UserError
from vggc.support.paths import exists, is_file, is_folder
from vggc.support.source import Source, Span
from vggc.syntax import diagnostics
from vggc.syntax.ast import (
    Base,
    Binary,
    Block,
    Body,
    Dims,
    Every,
    Group,
    Head,
    Insert,
    Item,
    Layer,
    Let,
    Many,
    Name,
    Net,
    Number,
    Option,
    Piece,
    Range,
    Reference,
    Remove,
    Repeat,
    Replace,
    Rounded,
    Selector,
    Set,
    Setting,
    Sum,
    Value,
    Word,
    plain_word,
)
from vggc.syntax.explain import explain
from vggc.syntax.tables import parser
from vggc.syntax.trivia import with_trivia

MAX_FILE_BYTES = 640 << 10
MAX_TOKENS = 160_000
MAX_LAYERS = 50_000
MAX_DEPTH = 50
MAX_DIGITS = 18
MAX_NAME = 100
"""Characters: all layers of a join bear its name."""
MAX_OPERATORS = 100
UNITS = ("px", "%")


def read_source(path: Path, hint: str = "") -> Source:
    """The text of a file.

    Raises: UserError when the file is missing, unreadable, larger than
    `MAX_FILE_BYTES`, or not UTF-8 text.
    """
    name = str(path)
    if exists(path) and not (is_file(path) or is_folder(path)):
        raise UserError(diagnostics.FileUnreadable(name, "it is not a plain file"))
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise UserError(diagnostics.FileMissing(name, hint)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(diagnostics.FileUnreadable(name, reason)) from None
    if len(data) > MAX_FILE_BYTES:
        size = max(size, len(data))
        raise UserError(diagnostics.FileTooLarge(name, size, MAX_FILE_BYTES))
    if (zero := data.find(0)) >= 0:
        raise UserError(diagnostics.FileBinary(name, zero))
    try:
        return Source(name, re.sub("\r(?!\n)", "\n", data.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise UserError(diagnostics.FileBinary(name, error.start)) from None


def parse(source: Source) -> Net:
    """The tree of a source.

    Raises: UserError with the first mistake of form.
    """
    if not source.text.strip():
        raise UserError(diagnostics.FileEmpty(place=Span(source, 0, 0)))
    _check_depth(source)
    net = _parse(source, "start")
    assert isinstance(net, Net)
    for body in net.bodies:
        check_size(body)
    return with_trivia(net)


def parse_block(source: Source) -> Block:
    """The tree of a source that is one block, `train { … }`.

    Raises: UserError with the first mistake of form.
    """
    block = _parse(source, "block")
    assert isinstance(block, Block)
    return block


def parse_value(source: Source) -> Value:
    """The tree of a source that is one value, `256`, `he` or `256..512`.

    Raises: UserError when it is none.
    """
    value: Value = _parse(source, "value")
    return value


def parse_arguments(source: Source) -> tuple[Option, ...]:
    """The tree of a source that is arguments, `(classes=10, width=0.5)`.

    Raises: UserError when it is none.
    """
    arguments: _Arguments = _parse(source, "arguments")
    return arguments.options


def _parse(source: Source, start: str) -> Any:
    lark, builder = _grammar()
    builder.source = source
    try:
        return lark.parse(source.text, start=start)
    except UnexpectedInput as error:
        raise UserError(explain(source, error)) from None
    except _TooManyTokens as error:
        span = Span(source, error.place, error.place + 1)
        raise UserError(diagnostics.TooManyTokens(MAX_TOKENS, place=span)) from None


@cache
def _grammar() -> tuple[Lark, _TreeBuilder]:
    builder = _TreeBuilder()
    return parser(builder, _BreaksInBlocks()), builder


class _TooManyTokens(Exception):
    """A text of more than `MAX_TOKENS` words and signs; `place` is where the next one starts."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class _BreaksInBlocks(PostLex):
    """Drops the line breaks that stand outside `{ }`, where they mean nothing."""

    always_accept = ("_LINE_BREAK",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        inside, number = False, 0
        for token in stream:
            if token.type in ("LBRACE", "RBRACE"):
                inside = token.type == "LBRACE"
            if inside or token.type != "_LINE_BREAK":
                number += 1
                if number > MAX_TOKENS:
                    raise _TooManyTokens(token.start_pos or 0)
                yield token


@dataclass(frozen=True)
class _Arguments:
    options: tuple[Option, ...]
    end: int


@dataclass(frozen=True)
class _Paths:
    bodies: tuple[Body, ...]
    end: int


class _TreeBuilder(Transformer[Token, Any]):
    """Our tree, one method a rule, called by Lark while it parses `source`."""

    source: Source

    def _span(self, first: Any, last: Any) -> Span:
        """From the start of one child to the end of another."""
        start = first.start_pos if isinstance(first, Token) else first.span.start
        if isinstance(last, tuple):  # a body
            last = last[-1]
        if isinstance(last, Token):
            end = last.end_pos
        elif isinstance(last, Piece):
            end = last.span.end
        else:
            end = last.end
        assert start is not None
        assert end is not None
        return Span(self.source, start, end)

    def net(self, children: list[Any]) -> Net:
        head, name, parameters, *rest = children
        base = input_ = None
        body: Body = ()
        pieces: list[Any] = []
        for child in filter(None, rest):
            match child:
                case Base():
                    base = child
                case Setting():
                    input_ = child
                case tuple():
                    body = child
                case Token():  # `from`
                    pass
                case _:
                    pieces.append(child)
        return Net(
            name=str(name),
            input=input_,
            body=body,
            blocks=tuple(piece for piece in pieces if isinstance(piece, Block)),
            parameters=parameters.options if parameters else (),
            base=base,
            statements=tuple(piece for piece in pieces if not isinstance(piece, Block | Head)),
            heads=tuple(piece for piece in pieces if isinstance(piece, Head)),
            span=self._span(head, next(child for child in reversed(rest) if child is not None)),
        )

    def base(self, children: list[Any]) -> Base:
        name, arguments = children
        options = arguments.options if arguments else ()
        return Base(str(name), options, span=self._span(name, arguments or name))

    def arguments(self, children: list[Any]) -> _Arguments:
        options = tuple(child for child in children if isinstance(child, Option))
        return _Arguments(options, children[-1].end_pos)

    def let(self, children: list[Any]) -> Let:
        head, name, _, value = children
        span = self._span(head, value)
        if _num_operators(value) > MAX_OPERATORS:
            raise UserError(diagnostics.SumTooLong(MAX_OPERATORS, place=span))
        return Let(str(name), value, span=span)

    def every(self, children: list[Any]) -> Every:
        head, word, *options = children
        return Every(str(word), tuple(options), span=self._span(head, options[-1]))

    def set(self, children: list[Any]) -> Set:
        head, selector, *options = children
        return Set(selector, tuple(options), span=self._span(head, options[-1]))

    def insert(self, children: list[Any]) -> Insert:
        place, selector, _, body = children
        return Insert(place == "after", selector, body, span=self._span(place, body))

    def replace(self, children: list[Any]) -> Replace:
        head, selector, _, body = children
        return Replace(selector, body, span=self._span(head, body))

    def remove(self, children: list[Any]) -> Remove:
        head, selector = children
        return Remove(selector, span=self._span(head, selector))

    def selector(self, children: list[Any]) -> Selector:
        every, word = children
        return Selector(plain_word(word), every is not None, span=self._span(every or word, word))

    def head(self, children: list[Any]) -> Head:
        head, name, _, body = children
        return Head(self._name(name), body, span=self._span(head, body))

    def binary(self, children: list[Any]) -> Binary:
        left, operator, right = children
        return Binary(left, str(operator), right, span=self._span(left, right))

    def rounded(self, children: list[Any]) -> Rounded:
        head, _, value, end = children
        return Rounded(value, span=self._span(head, end))

    def name(self, children: list[Token]) -> Name:
        return Name(str(children[0]), span=self._span(children[0], children[0]))

    def input(self, children: list[Any]) -> Setting:
        return self._setting(children)

    def setting(self, children: list[Any]) -> Setting:
        return self._setting(children)

    def _setting(self, children: list[Any]) -> Setting:
        key, *arguments = children
        options = tuple(a for a in arguments if isinstance(a, Option))
        values = tuple(a for a in arguments if not isinstance(a, Option))
        return Setting(str(key), values, options, span=self._span(key, children[-1]))

    def body(self, children: list[Item]) -> Body:
        return tuple(children)

    def layer(self, children: list[Any]) -> Layer:
        name, word, *options, paths = children
        last = paths or (options[-1] if options else word)
        return Layer(
            word=plain_word(word),
            options=tuple(options),
            name=None if name is None else self._name(name),
            paths=paths.bodies if paths else (),
            span=self._span(word if name is None else name, last),
        )

    def _name(self, token: Token) -> str:
        """What a layer or a head is called."""
        if len(token) > MAX_NAME:
            raise UserError(
                diagnostics.LongName(len(token), MAX_NAME, place=self._span(token, token))
            )
        return str(token)

    def paths(self, children: list[Any]) -> _Paths:
        bodies = tuple(child for child in children if isinstance(child, tuple))
        return _Paths(bodies, children[-1].end_pos)

    def group(self, children: list[Any]) -> Group:
        start, body, end = children
        return Group(body, span=self._span(start, end))

    def reference(self, children: list[Token]) -> Reference:
        sign, name = children
        return Reference(str(name), span=self._span(sign, name))

    def repeat(self, children: list[Any]) -> Repeat:
        item, times = children
        text = times.lstrip("×*x \t")
        span = self._span(item, times)
        if not text[0].isdecimal():
            return Repeat(item, text, span=span)
        count = _integer(text, self._span(times, times))
        if count == 0:
            raise UserError(diagnostics.RepeatedZero(place=self._span(times, times)))
        return Repeat(item, count, span=span)

    def block(self, children: list[Any]) -> Block:
        key, *settings = children
        found = tuple(setting for setting in settings if isinstance(setting, Setting))
        return Block(str(key), found, span=self._span(key, children[-1]))

    def option(self, children: list[Any]) -> Option:
        key, value = children
        return Option(str(key), value, span=self._span(key, value))

    def argument(self, children: list[Any]) -> Option:
        return self.option(children)

    def many(self, children: list[Any]) -> Many:
        return Many(tuple(children), span=self._span(children[0], children[-1]))

    def number(self, children: list[Token]) -> Number:
        (token,) = children
        return _number(str(token), self._span(token, token))

    def dims(self, children: list[Token]) -> Dims:
        (token,) = children
        span = self._span(token, token)
        return Dims(tuple(_integer(d, span) for d in re.split("[x×]", token)), span=span)

    def range(self, children: list[Token]) -> Range:
        (token,) = children
        span = self._span(token, token)
        low, high = str(token).split("..", 1)
        low_span, high_span = span.part(0, len(low)), span.part(len(low) + 2, len(low + high) + 2)
        return Range(_number(low, low_span), _number(high, high_span), span=span)

    def word(self, children: list[Token]) -> Word:
        (token,) = children
        return Word(str(token), span=self._span(token, token))


def _num_operators(sum_: Sum) -> int:
    """Operators and roundings in a sum; counted without recursion, as they may be many."""
    count, rest = 0, [sum_]
    while rest:
        match rest.pop():
            case Binary(left=left, right=right):
                count += 1
                rest += [left, right]
            case Rounded(sum=inner):
                count += 1
                rest.append(inner)
            case Number() | Name():
                pass
    return count


def _integer(digits: str, span: Span) -> int:
    # int() takes any script's digits; a spec reads the same to everyone.
    if not (digits.isascii() and digits.isdecimal()):
        raise UserError(diagnostics.BadNumber(digits, place=span))
    if len(digits) > MAX_DIGITS:
        raise UserError(diagnostics.NumberTooLong(len(digits), MAX_DIGITS, place=span))
    return int(digits)


def _number(text: str, span: Span) -> Number:
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    digits = text.removesuffix(unit)
    if re.fullmatch(r"[0-9]+", digits):
        return Number(_integer(digits, span), unit, span=span)
    if len(digits) > 2 * MAX_DIGITS:
        raise UserError(diagnostics.NumberTooLong(len(digits), 2 * MAX_DIGITS, place=span))
    if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", digits):
        raise UserError(diagnostics.BadNumber(text, place=span))
    if re.fullmatch(r"[-+]?[0-9]+", digits):
        return Number(int(digits), unit, span=span)
    if not isfinite(float(digits)):
        raise UserError(diagnostics.BadNumber(text, place=span))
    return Number(float(digits), unit, span=span)


def _check_depth(source: Source) -> None:
    """Refuses groups nested so deep that walking them would end the process."""
    depth = 0
    for match in re.finditer(r"[()]|#[^\n]*", source.text):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if depth > MAX_DEPTH:
            raise UserError(diagnostics.TooDeep(MAX_DEPTH, place=Span(source, *match.span())))


def check_size(body: Body, times: int = 1, total: int = 0) -> int:
    """The number of layers so far once repeats are unrolled; repeats by name count once.

    Raises: UserError when they are more than `MAX_LAYERS`, before they are.
    """
    for item in body:
        match item:
            case Layer():
                total += times
                for path in item.paths:
                    total = check_size(path, times, total)
            case Group():
                total = check_size(item.body, times, total)
            case Repeat(item=inner, count=int(count)):
                total = check_size((inner,), times * count, total)
            case Repeat(item=inner):
                total = check_size((inner,), times, total)
            case Reference():
                pass
        if total > MAX_LAYERS:
            raise UserError(diagnostics.TooManyLayers(total, MAX_LAYERS, place=item.span))
    return total
