"""The words of a text and what part each of them plays, whether or not the text is well formed.

An editor asks about texts that are being written. The parser gives up at the first mistake;
this scanner never does: it follows the sentences of `grammars/vgg.lark` as far as they go,
and takes what does not fit for the beginning of something new.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple


class Role(Enum):
    """The part that a word plays, or that a word would play if one stood there."""

    START = auto()
    KEYWORD = auto()
    NET = auto()
    HEADER = auto()
    BASE = auto()
    PARAMETER = auto()
    SIZE = auto()
    STATEMENT = auto()
    CONSTANT = auto()
    SUM = auto()
    KIND = auto()
    SELECTOR = auto()
    LINK = auto()
    LAYER = auto()
    LABEL = auto()
    BEHIND_LAYER = auto()
    OPTION = auto()
    VALUE = auto()
    REFERENCE = auto()
    HEAD = auto()
    BLOCK = auto()
    SETTING = auto()
    BEHIND_SETTING = auto()


class Place(NamedTuple):
    """What may stand somewhere, and what stands around it.

    `owner` is what options would belong to: a layer's word, a kind, a selector, a net.
    `key` is the option whose value stands here. In a block, `setting` is the word that the
    line begins with and `said` the value behind it.
    """

    expects: Role = Role.START
    owner: str = ""
    key: str = ""
    verb: str = ""
    block: str = ""
    setting: str = ""
    said: str = ""
    derived: bool = False
    anchor: int = -1
    """Where the layer begins that stands here, its label included."""


class Token(NamedTuple):
    """A word that plays a part."""

    role: Role
    text: str
    start: int
    end: int
    place: Place


EDITS = ("set", "after", "before", "replace", "remove")
_STATEMENTS = ("let", "every", *EDITS, "head", "input")

_PIECE = re.compile(
    r"""(?P<comment>\#[^\n]*)|(?P<line>\n)|(?P<space>[^\S\n]+)
    |(?P<word>[^\W\d][\w.-]*)
    |(?P<number>[-+]?(?:\d|\.\d)(?:[eE][-+]?\d|[\w.%]|×\d)*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_IN_SUM = re.compile(r"[^\W\d]\w*")
_REPEAT = re.compile(
    r"[×*][ \t]*\d+(?![\w.])|x[ \t]*\d+(?![\w.-]|[ \t]*[:=])|[×*][ \t]*(?P<name>[^\W\d]\w*)"
)
_NEXT = re.compile(r"[ \t]*(.)")


def scan(text: str) -> tuple[list[Token], Place]:
    """The words of a text, and what may stand behind the last of them."""
    scanner = _Scanner(text)
    at = 0
    while at < len(text):
        at = scanner.step(at)
    place = scanner.place
    if place.expects is Role.SUM and scanner.operand:
        place = place._replace(expects=Role.STATEMENT)
    return scanner.tokens, place


def in_comment(text: str, offset: int) -> bool:
    return "#" in text[text.rfind("\n", 0, offset) + 1 : offset]


def token_at(tokens: list[Token], offset: int) -> Token | None:
    """The word that an offset is in, or just behind."""
    touching = [token for token in tokens if token.start <= offset <= token.end]
    return touching[-1] if touching else None


@dataclass
class _Scanner:
    text: str
    place: Place = field(default_factory=Place)
    tokens: list[Token] = field(default_factory=list)
    brackets: list[Role] = field(default_factory=list)
    """What each open bracket holds: layers, the arguments of a net, or part of a sum."""
    label: int = -1
    """Where the label begins that stands before a layer to come."""
    operand: bool = False
    """Whether a sum could end here."""

    def step(self, at: int) -> int:
        """Takes in what stands at `at`; where the next piece begins."""
        expects = self.place.expects
        if expects is Role.BEHIND_LAYER and (repeat := _REPEAT.match(self.text, at)):
            if repeat["name"]:
                self.emit(Role.SUM, *repeat.span("name"))
            return repeat.end()
        if expects is Role.SUM and not self.operand and (name := _IN_SUM.match(self.text, at)):
            rounded = name.group() == "round" and self.follows(name.end()) == "("
            self.emit(Role.KEYWORD if rounded else Role.SUM, *name.span())
            self.operand = not rounded
            return name.end()
        piece = _PIECE.match(self.text, at)
        assert piece is not None
        match piece.lastgroup:
            case "word":
                self.word(piece.group(), *piece.span())
            case "number":
                self.number(*piece.span())
            case "line" if self.place.block:
                self.expect(Role.SETTING, block=self.place.block)
            case "sign":
                self.sign(piece.group())
            case _:
                pass
        return piece.end()

    # ---------------------------------------------------------------- what comes next

    def expect(
        self, role: Role, owner: str = "", verb: str = "", block: str = "", anchor: int = -1
    ) -> None:
        """Only what is given stands around what comes next."""
        derived = self.place.derived
        self.place = Place(role, owner, verb=verb, block=block, derived=derived, anchor=anchor)

    def emit(self, role: Role, start: int, end: int) -> None:
        self.tokens.append(Token(role, self.text[start:end], start, end, self.place))

    def follows(self, end: int) -> str:
        """The next sign on the line."""
        found = _NEXT.match(self.text, end)
        return found[1] if found else ""

    def begins_statement(self, word: str, end: int) -> bool:
        following = self.follows(end)
        if following == "{":
            return True
        if word == "every" and self.place.expects is Role.SELECTOR:
            return False
        return word in _STATEMENTS and following not in tuple("=:|(")

    # ---------------------------------------------------------------- words

    def word(self, word: str, start: int, end: int) -> None:
        place, following = self.place, self.follows(end)
        if place.block:
            self.word_in_block(word, start, end, following)
            return
        if place.expects not in (Role.NET, Role.START) and self.begins_statement(word, end):
            self.keyword(word, start, end, following)
            return
        match place.expects:
            case Role.START:
                self.emit(Role.KEYWORD, start, end)
                self.expect(Role.NET)
            case Role.NET:
                self.emit(Role.NET, start, end)
                self.expect(Role.HEADER, owner=word)
            case Role.HEADER if word == "from":
                self.emit(Role.KEYWORD, start, end)
                self.place = self.place._replace(derived=True)
                self.expect(Role.BASE)
            case Role.BASE:
                self.emit(Role.BASE, start, end)
                self.expect(Role.STATEMENT, owner=word)
            case Role.PARAMETER:
                self.emit(Role.PARAMETER, start, end)
            case Role.CONSTANT:
                self.emit(Role.CONSTANT, start, end)
                self.expect(Role.SUM)
                self.operand = False
            case Role.KIND:
                self.emit(Role.KIND, start, end)
                self.behind_selector(word, place.verb)
            case Role.SELECTOR if word == "every":
                self.emit(Role.KEYWORD, start, end)
                self.place = place._replace(expects=Role.KIND)
            case Role.SELECTOR:
                self.emit(Role.SELECTOR, start, end)
                self.behind_selector(word, place.verb)
            case Role.LINK if word in ("insert", "with"):
                self.emit(Role.KEYWORD, start, end)
                self.expect(Role.LAYER)
            case Role.HEAD:
                self.emit(Role.HEAD, start, end)
            case Role.REFERENCE:
                self.emit(Role.REFERENCE, start, end)
                self.expect(Role.BEHIND_LAYER)
            case Role.VALUE:
                self.emit(Role.VALUE, start, end)
                self.behind_value()
            case Role.BEHIND_LAYER | Role.OPTION if following == "=":
                self.place = place._replace(key=word)
                self.emit(Role.OPTION, start, end)
            case _ if following == ":":
                self.label = start
                self.place = place._replace(anchor=start)
                self.emit(Role.LABEL, start, end)
            case _:
                self.layer(word, start, end)

    def layer(self, word: str, start: int, end: int) -> None:
        anchor = start if self.label < 0 else self.label
        self.label = -1
        self.place = self.place._replace(anchor=anchor)
        self.emit(Role.LAYER, start, end)
        self.expect(Role.BEHIND_LAYER, owner=word, anchor=anchor)

    def behind_selector(self, word: str, verb: str) -> None:
        if verb in ("every", "set"):
            self.expect(Role.OPTION, owner=word, verb=verb)
        elif verb == "remove":
            self.expect(Role.STATEMENT)
        else:
            self.expect(Role.LINK, verb=verb)

    def behind_value(self) -> None:
        place = self.place
        if self.brackets[-1:] == [Role.PARAMETER]:
            role = Role.PARAMETER
        else:
            role = Role.OPTION if place.verb else Role.BEHIND_LAYER
        self.place = place._replace(expects=role, key="")

    def keyword(self, word: str, start: int, end: int, following: str) -> None:
        self.brackets.clear()
        if following == "{":
            self.expect(Role.BLOCK)
            self.emit(Role.BLOCK, start, end)
            self.expect(Role.SETTING, block=word)
            return
        self.expect(self.place.expects)
        self.emit(Role.KEYWORD, start, end)
        match word:
            case "let":
                self.expect(Role.CONSTANT)
            case "every":
                self.expect(Role.KIND, verb=word)
            case "head":
                self.expect(Role.HEAD)
            case "input":
                self.expect(Role.SIZE)
            case _:
                self.expect(Role.SELECTOR, verb=word)

    def word_in_block(self, word: str, start: int, end: int, following: str) -> None:
        place = self.place
        if place.expects is Role.SETTING:
            self.place = place._replace(setting=word)
            self.emit(Role.SETTING, start, end)
            self.place = self.place._replace(expects=Role.BEHIND_SETTING)
        elif following == "=":
            self.place = place._replace(key=word, expects=Role.OPTION)
            self.emit(Role.OPTION, start, end)
        else:
            self.emit(Role.VALUE, start, end)
            self.value_in_block(word)

    def value_in_block(self, word: str) -> None:
        place = self.place
        said = place.said if place.key else word
        self.place = place._replace(expects=Role.BEHIND_SETTING, said=said)

    # ---------------------------------------------------------------- numbers and signs

    def number(self, start: int, end: int) -> None:
        place = self.place
        if place.block:
            self.emit(Role.VALUE, start, end)
            self.value_in_block(self.text[start:end])
        elif place.expects is Role.VALUE:
            self.emit(Role.VALUE, start, end)
            self.behind_value()
        elif place.expects is Role.SIZE:
            self.expect(Role.STATEMENT)
        elif place.expects is Role.SUM:
            self.operand = True

    def sign(self, sign: str) -> None:
        place = self.place
        match sign:
            case "{":
                self.expect(Role.SETTING, block=place.block or "train")
            case "}":
                self.expect(Role.STATEMENT)
            case ";" if place.block:
                self.expect(Role.SETTING, block=place.block)
            case "," if place.block:
                self.place = place._replace(expects=Role.VALUE)
            case "=" if place.expects is Role.PARAMETER:
                self.place = place._replace(expects=Role.VALUE, key=self.tokens[-1].text)
            case "=" if place.key:
                self.place = place._replace(expects=Role.VALUE)
            case _ if place.block:
                pass
            case "+" | "-" | "*" | "/" | "=" if place.expects is Role.SUM:
                self.operand = False
            case "@":
                self.expect(Role.REFERENCE)
            case "|":
                self.expect(Role.LAYER)
            case "(":
                self.open(place)
            case "," if self.brackets:
                self.expect(self.brackets[-1], owner=place.owner)
            case ")" if self.brackets:
                self.close(self.brackets.pop())
            case ":" if place.expects is Role.HEAD:
                self.expect(Role.LAYER)
            case _:
                pass

    def open(self, place: Place) -> None:
        if place.expects is Role.HEADER or (place.expects is Role.STATEMENT and place.owner):
            self.brackets.append(Role.PARAMETER)
            self.expect(Role.PARAMETER, owner=place.owner)
        elif place.expects is Role.SUM:
            self.brackets.append(Role.SUM)
        else:
            self.brackets.append(Role.LAYER)
            self.expect(Role.LAYER)

    def close(self, held: Role) -> None:
        match held:
            case Role.PARAMETER if self.place.derived:
                self.expect(Role.STATEMENT)
            case Role.PARAMETER:
                self.expect(Role.HEADER)
            case Role.SUM:
                self.operand = True
            case _:
                self.expect(Role.BEHIND_LAYER)
