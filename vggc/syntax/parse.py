"""Text to tree."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError
from lark.lark import PostLex

from vggc.diagnostics import Diagnostic, UserError
from vggc.resources import resource
from vggc.source import Source, Span
from vggc.syntax import mistakes
from vggc.syntax.ast import (
    Block,
    Dims,
    Group,
    Item,
    Layer,
    Many,
    Net,
    Number,
    Option,
    Range,
    Repeat,
    Setting,
    Value,
    Word,
)
from vggc.syntax.trivia import with_trivia

MAX_FILE_BYTES = 1 << 20
MAX_LAYERS = 100_000
MAX_DEPTH = 50
MAX_DIGITS = 18


def read_source(path: Path, hint: str = "") -> Source:
    """The text of a file.

    Raises: UserError when the file is missing, unreadable, larger than
    `MAX_FILE_BYTES`, or not UTF-8 text.
    """
    name = str(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(mistakes.FileUnreadable(None, name, "it is not a plain file"))
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise UserError(mistakes.FileMissing(None, name, hint)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(mistakes.FileUnreadable(None, name, reason)) from None
    if len(data) > MAX_FILE_BYTES:
        size = max(size, len(data))
        raise UserError(mistakes.FileTooLarge(None, name, size, MAX_FILE_BYTES))
    if (zero := data.find(0)) >= 0:
        raise UserError(mistakes.FileBinary(None, name, zero))
    try:
        return Source(name, re.sub("\r(?!\n)", "\n", data.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise UserError(mistakes.FileBinary(None, name, error.start)) from None


def parse(source: Source) -> Net:
    """The tree of a source.

    Raises: UserError with the first mistake of form.
    """
    if not source.text.strip():
        raise UserError(mistakes.FileEmpty(Span(source, 0, 0)))
    _check_depth(source)
    net = _parse(source, "start")
    assert isinstance(net, Net)
    _check_size(net.body)
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


def _parse(source: Source, start: str) -> Any:
    try:
        return _TreeBuilder(source).transform(_grammar().parse(source.text, start=start))
    except UnexpectedInput as error:
        raise UserError(_explain(source, error)) from None
    except VisitError as error:
        raise error.orig_exc from None


@cache
def _grammar() -> Lark:
    text = resource("grammars", "vgg.lark").read_text("utf-8")
    starts = ["start", "block", "value"]
    return Lark(
        text, parser="lalr", start=starts, propagate_positions=True, postlex=_BreaksInBlocks()
    )


class _BreaksInBlocks(PostLex):
    """Drops the line breaks that stand outside `{ }`, where they mean nothing."""

    always_accept = ("_LINE_BREAK",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        inside = False
        for token in stream:
            if token.type in ("LBRACE", "RBRACE"):
                inside = token.type == "LBRACE"
            if inside or token.type != "_LINE_BREAK":
                yield token


@v_args(meta=True)
class _TreeBuilder(Transformer[Token, Any]):
    """Lark's tree to ours, one method a rule."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source

    def _span(self, piece: Any) -> Span:
        start = piece.start_pos
        return Span(self.source, start, start if piece.end_pos is None else piece.end_pos)

    def start(self, meta: Any, children: list[Any]) -> Net:
        name, input_, body, *blocks = children
        return Net(str(name), input_, body, tuple(blocks), span=self._span(meta))

    def input(self, meta: Any, children: list[Any]) -> Setting:
        return self._setting("input", meta, children)

    def setting(self, meta: Any, children: list[Any]) -> Setting:
        key, *arguments = children
        return self._setting(str(key), meta, arguments)

    def _setting(self, key: str, meta: Any, arguments: list[Any]) -> Setting:
        options = tuple(a for a in arguments if isinstance(a, Option))
        values = tuple(a for a in arguments if not isinstance(a, Option))
        return Setting(key, values, options, span=self._span(meta))

    def body(self, _: Any, children: list[Item]) -> tuple[Item, ...]:
        return tuple(children)

    def layer(self, meta: Any, children: list[Any]) -> Layer:
        name, word, *options = children
        return Layer(
            str(word), tuple(options), None if name is None else str(name), span=self._span(meta)
        )

    def group(self, meta: Any, children: list[Any]) -> Group:
        return Group(children[0], span=self._span(meta))

    def repeat(self, meta: Any, children: list[Any]) -> Repeat:
        item, times = children
        span = self._span(times)
        count = _integer(times.lstrip("×*x \t"), span)
        if count == 0:
            raise UserError(mistakes.RepeatedZero(span))
        return Repeat(item, count, span=self._span(meta))

    def block(self, meta: Any, children: list[Any]) -> Block:
        key, *settings = children
        return Block(str(key), tuple(settings), span=self._span(meta))

    def option(self, meta: Any, children: list[Any]) -> Option:
        key, value = children
        return Option(str(key), value, span=self._span(meta))

    def many(self, meta: Any, children: list[Any]) -> Many:
        return Many(tuple(children), span=self._span(meta))

    def number(self, _: Any, children: list[Token]) -> Number:
        return _number(str(children[0]), self._span(children[0]))

    def dims(self, _: Any, children: list[Token]) -> Dims:
        span = self._span(children[0])
        return Dims(tuple(_integer(d, span) for d in re.split("[x×]", children[0])), span=span)

    def range(self, _: Any, children: list[Token]) -> Range:
        span = self._span(children[0])
        low, high = str(children[0]).split("..", 1)
        low_span, high_span = span.part(0, len(low)), span.part(len(low) + 2, len(low + high) + 2)
        return Range(_number(low, low_span), _number(high, high_span), span=span)

    def word(self, _: Any, children: list[Token]) -> Word:
        return Word(str(children[0]), span=self._span(children[0]))


def _integer(digits: str, span: Span) -> int:
    # int() takes any script's digits; a spec reads the same to everyone.
    if not (digits.isascii() and digits.isdecimal()):
        raise UserError(mistakes.BadNumber(span, digits))
    if len(digits) > MAX_DIGITS:
        raise UserError(mistakes.NumberTooLong(span, len(digits), MAX_DIGITS))
    return int(digits)


def _number(text: str, span: Span) -> Number:
    if re.fullmatch(r"[0-9]+", text):
        return Number(_integer(text, span), span=span)
    if len(text) > 2 * MAX_DIGITS:
        raise UserError(mistakes.NumberTooLong(span, len(text), 2 * MAX_DIGITS))
    if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
        raise UserError(mistakes.BadNumber(span, text))
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return Number(int(text), span=span)
    if not isfinite(float(text)):
        raise UserError(mistakes.BadNumber(span, text))
    return Number(float(text), span=span)


def _check_depth(source: Source) -> None:
    """Refuses groups nested so deep that walking them would end the process."""
    depth = 0
    for match in re.finditer(r"[()]|#[^\n]*", source.text):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if depth > MAX_DEPTH:
            raise UserError(mistakes.TooDeep(Span(source, *match.span()), MAX_DEPTH))


def _check_size(body: tuple[Item, ...], times: int = 1, total: int = 0) -> int:
    """The number of layers so far once repeats are unrolled; refused before they are."""
    for item in body:
        match item:
            case Layer():
                total += times
            case Group():
                total = _check_size(item.body, times, total)
            case Repeat():
                total = _check_size((item.item,), times * item.count, total)
        if total > MAX_LAYERS:
            raise UserError(mistakes.TooManyLayers(item.span, total, MAX_LAYERS))
    return total


# ---------------------------------------------------------------- what went wrong

_NAMES = {
    "NET": "`net`",
    "INPUT": "`input`",
    "WORD": "a word",
    "LABEL": "a name with `:`",
    "KEY": "an option `key=value`",
    "REPEAT": "a repeat such as `×2`",
    "NUMBER": "a number",
    "DIMS": "a size such as 3x224x224",
    "RANGE": "a range such as 256..512",
    "VBAR": "`|`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "COLON": "`:`",
    "COMMA": "`,`",
    "EQUAL": "`=`",
    "_LINE_BREAK": "the end of the line",
    "SEMICOLON": "`;`",
    "$END": "the end of the file",
}
_LOOKALIKES = {
    "–": "for a hyphen write `-`",
    "—": "for a hyphen write `-`",
    "−": "for a minus write `-`",
    "→": "layers are separated by `|`",
    ">": "layers are separated by `|`",
    "/": "layers are separated by `|`; comments begin with `#`",
    "[": "groups stand in `( )`, settings in `{ }`",
    "]": "groups stand in `( )`, settings in `{ }`",
    '"': "words stand without quotes",
    "'": "words stand without quotes",
    "│": "layers are separated by `|`",
}


def _explain(source: Source, error: UnexpectedInput) -> Diagnostic:
    """The mistake behind Lark's error."""
    match error:
        case UnexpectedCharacters():
            start = error.pos_in_stream or 0
            char = source.text[start]
            span = Span(source, start, start + 1)
            if known := _known_elsewhere(char):
                return mistakes.Unexpected(span, f"`{char}`", _expected(error.allowed), known)
            return mistakes.UnknownCharacter(span, char, _LOOKALIKES.get(char, ""))
        case UnexpectedToken():
            token = error.token
            end = len(source.text.rstrip())
            start = end if token.type == "$END" else token.start_pos or 0
            span = Span(source, start, start + len(token))
            return _explain_token(span, token, set(error.accepts or error.expected))
        case _:
            return mistakes.Unexpected(Span(source, 0, 0), "end of the file", "a net")


def _explain_token(span: Span, token: Token, expected: set[str]) -> Diagnostic:
    found = "end of the file" if token.type == "$END" else f"`{token}`"
    if token == "\n":
        found = "end of the line"
    previous = _previous_word(span)
    if token == "=" and expected == {"LBRACE"} and previous is not None:
        return mistakes.MisplacedOption(previous, previous.text)
    if token == ":" and expected == {"LBRACE"} and previous is not None:
        expects = f"`=`, as in `{previous.text}=…`"
        return mistakes.Unexpected(span, "`:`", expects, "a name stands before its layer")
    if previous is not None and previous.text == "net" and "LBRACE" in expected:
        return mistakes.SecondNet(previous)
    if expected == {"LBRACE"} and previous is not None:
        alone = previous.source.line(previous.position[0]).lstrip().startswith(previous.text)
        or_block = f"; a block is written `{previous.text} {{ … }}`" if alone else ""
        return mistakes.MissingBar(previous, previous.text, or_block)
    hint = ""
    if "NET" in expected:
        hint = "a file begins with `net NAME`, then `input CHANNELSxHEIGHTxWIDTH`"
    elif "INPUT" in expected:
        hint = "after its name a net says what it reads: `input 3x224x224`"
    elif token.type == "VBAR":
        hint = "between two `|` stands a layer; is one too many?"
    elif token.type == "$END" and "RPAR" in expected:
        hint = "a group that was opened with `(` is not closed"
    elif token.type == "$END" and "RBRACE" in expected:
        hint = "a block that was opened with `{` is not closed"
    elif token.type == "RPAR":
        hint = "no group is open here"
    return mistakes.Unexpected(span, found, _expected(expected), hint)


def _expected(terminals: Iterable[str]) -> str:
    names = [name for terminal, name in _NAMES.items() if terminal in set(terminals)] or ["the end"]
    return ", ".join(names[:-1]) + " or " * (len(names) > 1) + names[-1]


def _known_elsewhere(char: str) -> str:
    """A hint for a character that a spec does use, though not here."""
    return {
        "=": "an option is a word, `=` and a value: `stride=2`",
        ":": "a name stands before its layer: `fc6: fc-4096`",
        "-": "a layer is written as one word: `conv3-64`",
        "{": "`{` opens a block: `train { … }`",
        "×": "a repeat is written `×2`",
        "*": "a repeat is written `*2`",
        ",": "`,` joins the values of one option; layers are separated by `|`",
        ";": "`;` ends a setting in a block; layers are separated by `|`",
    }.get(char, "")


def _previous_word(span: Span) -> Span | None:
    before = span.source.text[: span.start].rstrip()
    if match := re.search(r"[^\W\d][\w.-]*$", before):
        return Span(span.source, match.start(), match.end())
    return None
