"""Protocol buffers' text format, in which Caffe's nets are defined, read without a schema.

Source: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TypeAlias

from vggc.importing.definitions import wrong
from vggc.importing.diagnostics import ForeignUnreadable
from vggc.support.diagnostics import UserError, did_you_mean, nearest
from vggc.support.source import Source, Span
from vggc_runtime.files import open_file

MAX_TEXT = 1 << 20
"""Bytes of the longest text that is read; that of a net of a thousand layers has a third."""
MAX_DEPTH = 32
"""The deepest messages within messages; Caffe's are five deep."""

TOKEN = re.compile(
    r"""(?P<gap>(?:\s+|\#[^\n]*)+)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?[fF]?)(?![\w.])
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<sign>[-:{}<>\[\],;])""",
    re.VERBOSE,
)
ESCAPE = re.compile(
    r"\\(?:(?P<octal>[0-7]{1,3})|[xX](?P<hex>[0-9a-fA-F]{1,2})"
    r"|u(?P<short>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8})|(?P<sign>.))"
)
SIGNS = {
    **dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True)),
    **{each: each for each in "\\'\"?"},
}
TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
CLOSING = {"{": "}", "<": ">"}


@dataclass(frozen=True)
class Scalar:
    """A value as it is written: what a quoted text says, or a number's or a word's spelling."""

    text: str
    quoted: bool
    place: Span


@dataclass(frozen=True)
class Message:
    """Fields by their names, in the order in which they are written.

    The methods give a field's values checked. A field that may stand once, and stands there twice,
    is refused, and so is a value of another type.
    """

    place: Span
    fields: Mapping[str, tuple[Scalar | Message, ...]] = field(default_factory=dict)

    def places(self, name: str) -> list[Span]:
        """Where a field's values stand."""
        return [each.place for each in self.fields.get(name, ())]

    def has(self, name: str) -> bool:
        """Whether a field is given."""
        return name in self.fields

    def require_known(self, known: Collection[str], owner: str) -> None:
        """Raises: UserError at the first field that is not `known` in what is called `owner`."""
        for name in self.fields:
            if name not in known:
                raise wrong(
                    self.places(name)[0],
                    f"Caffe has no `{name}` in {owner}",
                    "what it means is not known",
                    did_you_mean(name, sorted(known)) if nearest(name, known) else "",
                )

    def messages(self, name: str) -> list[Message]:
        """All messages in a field.

        Raises: UserError where one of its values is none.
        """
        found = []
        for each in self.fields.get(name, ()):
            if isinstance(each, Scalar):
                raise wrong(each.place, f"`{name}` is no value, but a message", "expected `{`")
            found.append(each)
        return found

    def message(self, name: str) -> Message:
        """A field's only message; one without fields where it is not given."""
        self._once(name)
        return next(iter(self.messages(name)), Message(self.place))

    def texts(self, name: str) -> list[str]:
        """All quoted texts in a field."""
        found = []
        for each in self._scalars(name):
            if not each.quoted:
                raise wrong(each.place, f"`{name}` is a text", "expected quotes around it")
            found.append(each.text)
        return found

    def text(self, name: str, default: str = "") -> str:
        """A field's only quoted text."""
        self._once(name)
        return next(iter(self.texts(name)), default)

    def wholes(self, name: str, low: int, high: int) -> list[int]:
        """All whole numbers in a field, each from `low` to `high`."""
        return [self._whole(each, name, low, high) for each in self._scalars(name)]

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A field's only whole number, from `low` to `high`."""
        self._once(name)
        return next(iter(self.wholes(name, low, high)), default)

    def reals(self, name: str) -> list[float]:
        """All numbers in a field, finite each."""
        return [self._real(each, name) for each in self._scalars(name)]

    def real(self, name: str, default: float) -> float:
        """A field's only number, which is finite."""
        self._once(name)
        return next(iter(self.reals(name)), default)

    def flag(self, name: str, default: bool) -> bool:
        """A field's only `true` or `false`."""
        self._once(name)
        for each in self._scalars(name):
            if each.quoted or each.text.lower() not in TRUTHS:
                raise wrong(each.place, f"`{name}` is true or false", "expected one of the two")
            return TRUTHS[each.text.lower()]
        return default

    def word(self, name: str, numbered: Mapping[str, int], default: str) -> str:
        """A field's only word of an enumeration, which may be written as its number.

        `numbered` holds the words and their numbers.
        """
        self._once(name)
        for each in self._scalars(name):
            found = next((w for w, n in numbered.items() if each.text in (w, str(n))), None)
            if found is None or each.quoted:
                hint = did_you_mean(each.text, [*numbered])
                raise wrong(each.place, f"`{name}` is not `{each.text}`", "no such word", hint)
            return found
        return default

    def _scalars(self, name: str) -> list[Scalar]:
        found = []
        for each in self.fields.get(name, ()):
            if isinstance(each, Message):
                raise wrong(each.place, f"`{name}` is a value, not a message", "expected a value")
            found.append(each)
        return found

    def _once(self, name: str) -> None:
        places = self.places(name)
        if len(places) > 1:
            raise wrong(places[1], f"`{name}` stands here twice", "it may be given once")

    def _whole(self, value: Scalar, name: str, low: int, high: int) -> int:
        number = None if value.quoted else whole_in(value.text)
        if number is None or not low <= number <= high:
            raise wrong(
                value.place,
                f"`{name}` is a whole number from {low:,} to {high:,}",
                "this is none of them",
            )
        return number

    def _real(self, value: Scalar, name: str) -> float:
        number = None if value.quoted else real_in(value.text)
        if number is None or not isfinite(number):
            raise wrong(value.place, f"`{name}` is a number", "this is none")
        return number


def whole_in(text: str) -> int | None:
    """The whole number that is written, in tens, `0x` or, after a zero, in eights; None if none."""
    digits = text.removeprefix("-")
    if len(digits) > 25:
        return None
    for pattern, base in (("0[xX][0-9a-fA-F]+", 16), ("0[0-7]*", 8), ("[1-9][0-9]*", 10)):
        if re.fullmatch(pattern, digits):
            return int(text, base)
    return None


def real_in(text: str) -> float | None:
    """The number that is written, with or without an `f` behind it; None where it is none."""
    number = whole_in(text)
    if number is not None:
        return float(number)
    try:
        return float(text if text.lower().endswith("inf") else text.rstrip("fF"))
    except ValueError:
        return None


def read_message(path: Path) -> Message:
    """The message that a file defines.

    Raises: UserError where it cannot be read, or is not in the text format.
    """
    return parsed_message(Source(str(path), read_text(path, MAX_TEXT)))


def read_text(path: Path, most: int) -> str:
    """A text of `most` bytes at the most, whose lines end in a line feed.

    Raises: UserError where it cannot be read, is longer, or no text.
    """
    try:
        with open_file(path) as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UserError(ForeignUnreadable(str(path), error.strerror or str(error))) from None
    if len(data) > most:
        reason = f"it has more than {most:,} bytes"
        raise UserError(ForeignUnreadable(str(path), reason, "is it the definition of a net?"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        reason = "it is no text: a definition and its weights are given in this order"
        raise UserError(ForeignUnreadable(str(path), reason))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parsed_message(source: Source) -> Message:
    """The message that a text defines.

    Raises: UserError at the first place that is not in the text format.
    """
    reader = _MessageReader(source, _tokens(source))
    return reader.message(Span(source, 0, 0), "", 0)


TextToken: TypeAlias = tuple[str, Span]
"""The name of its group in `TOKEN`, or "end", and where it stands."""


def _tokens(source: Source) -> list[TextToken]:
    found: list[TextToken] = []
    at, end = 0, len(source.text)
    while at < end:
        match = TOKEN.match(source.text, at)
        if match is None or match.lastgroup is None:
            raise wrong(
                Span(source, at, at + 1), "this is no text of Caffe's", "it is not understood"
            )
        if match.lastgroup != "gap":
            found.append((match.lastgroup, Span(source, at, match.end())))
        at = match.end()
    return [*found, ("end", Span(source, end, end))]


class _MessageReader:
    """Goes through the tokens of one text once."""

    def __init__(self, source: Source, tokens: list[TextToken]) -> None:
        self.source = source
        self.tokens = tokens
        self.at = 0

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0]

    @property
    def place(self) -> Span:
        return self.tokens[self.at][1]

    def take(self) -> Span:
        self.at += 1
        return self.tokens[self.at - 1][1]

    def takes(self, sign: str) -> bool:
        """Whether the next token is this sign, which is passed then."""
        if self.kind != "sign" or self.place.text != sign:
            return False
        self.at += 1
        return True

    def message(self, place: Span, closing: str, depth: int) -> Message:
        """Fields up to the sign `closing`, or to the end of the text where that is empty."""
        if depth > MAX_DEPTH:
            raise wrong(
                place, f"messages more than {MAX_DEPTH} deep in one another", "one too many"
            )
        found: dict[str, list[Scalar | Message]] = {}
        while not (self.takes(closing) if closing else self.kind == "end"):
            if self.kind == "end":
                raise wrong(
                    place, f"`{place.text}` is never closed", f"expected `{closing}` to follow"
                )
            if self.kind != "word":
                raise wrong(self.place, "expected the name of a field", "this is none")
            name = self.take()
            has_colon = self.takes(":")
            found.setdefault(name.text, []).extend(self.values(name, has_colon, depth))
            if not self.takes(","):
                self.takes(";")
        return Message(place, {name: tuple(values) for name, values in found.items()})

    def values(self, name: Span, has_colon: bool, depth: int) -> list[Scalar | Message]:
        """The value of a field, or those of a list in brackets."""
        if not self.takes("["):
            return [self.value(name, has_colon, depth)]
        found: list[Scalar | Message] = []
        while not self.takes("]"):
            found.append(self.value(name, has_colon, depth))
            if not self.takes(",") and (self.kind, self.place.text) != ("sign", "]"):
                raise wrong(self.place, "expected `,` or `]` in a list", "this is neither")
        return found

    def value(self, name: Span, has_colon: bool, depth: int) -> Scalar | Message:
        for opening, closing in CLOSING.items():
            if self.takes(opening):
                return self.message(name, closing, depth + 1)
        if not has_colon:
            raise wrong(self.place, f"expected `:` or `{{` behind `{name.text}`", "this is neither")
        return self.scalar(name)

    def scalar(self, name: Span) -> Scalar:
        start = self.place
        sign = "-" if self.takes("-") else ""
        match self.kind:
            case "text" if not sign:
                pieces = []
                while self.kind == "text":
                    pieces.append(_unescaped(self.place))
                    self.at += 1
                return Scalar("".join(pieces), True, start.to(self.tokens[self.at - 1][1]))
            case "number" | "word":
                last = self.take()
                return Scalar(sign + last.text, False, start.to(last))
            case _:
                raise wrong(self.place, f"expected a value of `{name.text}`", "this is none")


def _unescaped(place: Span) -> str:
    """What a quoted text says. Escapes in eights and sixteens are bytes of its UTF-8."""

    def meant(match: re.Match[str]) -> str:
        octal, two, four, eight, sign = match.groups()
        if sign is not None:
            if sign in SIGNS:
                return SIGNS[sign]
        elif four or eight:
            code = int(four or eight, 16)
            if code <= 0x10FFFF and not 0xD800 <= code < 0xE000:
                return chr(code)
        elif (byte := int(octal, 8) if octal else int(two, 16)) < 256:
            return bytes([byte]).decode("utf-8", "surrogateescape")
        raise wrong(place, f"`{match[0]}` stands for no character", "in this text")

    text = ESCAPE.sub(meant, place.text[1:-1])
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
