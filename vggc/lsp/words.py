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


class WordRole(Enum):
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


class WordContext(NamedTuple):
    """What may stand somewhere, and what stands around it.

    `owner` is what options would belong to: a layer's word, a kind, a selector, a net.
    `key` is the option whose value stands here. In a block, `setting` is the word that the
    line begins with and `said` the value behind it.
    """

    expects: WordRole = WordRole.START
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

    role: WordRole
    text: str
    start: int
    end: int
    place: WordContext


EDITS = ("set", "after", "before", "replace", "remove")
_STATEMENTS = ("let", "every", *EDITS, "head", "input")

_PIECE = re.compile(
    r"""(?P<comment>\#[^\n]*)|(?P<line>\n)|(?P<space>[^\S\n]+)
    |(?P<word>[^\W\d]+\d+×\d+-[\w.-]+|[^\W\d][\w.-]*)
    |(?P<number>[-+]?(?:\d|\.\d)(?:[eE][-+]?\d|[\w.%]|×\d)*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_IN_SUM = re.compile(r"[^\W\d]\w*")
_REPEAT = re.compile(
    r"[×*][ \t]*\d+(?![\w.])|x[ \t]*\d+(?![\w.-]|[ \t]*[:=])|[×*][ \t]*(?P<name>[^\W\d]\w*)"
)
_NEXT = re.compile(r"[ \t]*(.)")


def scan(text: str) -> tuple[list[Token], WordContext]:
    """The words of a text, and what may stand behind the last of them."""
    scanner = _Scanner(text=text)
    at = 0
    while at < len(text):
        at = scanner.step(at)
    place = scanner.place
    if place.expects is WordRole.SUM and scanner.operand:
        place = place._replace(expects=WordRole.STATEMENT)
    return scanner.tokens, place


def in_comment(text: str, offset: int) -> bool:
    """Whether an offset of a text is behind a `#` in its line."""
    return "#" in text[text.rfind("\n", 0, offset) + 1 : offset]


def token_at(tokens: list[Token], offset: int) -> Token | None:
    """The word that an offset is in, or just behind."""
    touching = [token for token in tokens if token.start <= offset <= token.end]
    return touching[-1] if touching else None


@dataclass
class _Scanner:
    text: str
    place: WordContext = field(default_factory=WordContext)
    tokens: list[Token] = field(default_factory=list)
    brackets: list[WordRole] = field(default_factory=list)
    """What each open bracket holds: layers, the arguments of a net, or part of a sum."""
    label: int = -1
    """Where the label begins that stands before a layer to come."""
    operand: bool = False
    """Whether a sum could end here."""

    def step(self, at: int) -> int:
        """Takes in what stands at `at`; where the next piece begins."""
        expects = self.place.expects
        if expects is WordRole.BEHIND_LAYER and (repeat := _REPEAT.match(self.text, at)):
            if repeat["name"]:
                self.emit(WordRole.SUM, *repeat.span("name"))
            return repeat.end()
        if expects is WordRole.SUM and not self.operand and (name := _IN_SUM.match(self.text, at)):
            rounded = name.group() == "round" and self.follows(name.end()) == "("
            self.emit(WordRole.KEYWORD if rounded else WordRole.SUM, *name.span())
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
                self.expect(WordRole.SETTING, block=self.place.block)
            case "sign":
                self.sign(piece.group())
            case _:
                pass
        return piece.end()

    # ---------------------------------------------------------------- what comes next

    def expect(
        self, role: WordRole, owner: str = "", verb: str = "", block: str = "", anchor: int = -1
    ) -> None:
        """Only what is given stands around what comes next."""
        derived = self.place.derived
        self.place = WordContext(
            role, owner, verb=verb, block=block, derived=derived, anchor=anchor
        )

    def emit(self, role: WordRole, start: int, end: int) -> None:
        self.tokens.append(Token(role, self.text[start:end], start, end, self.place))

    def follows(self, end: int) -> str:
        """The next sign on the line."""
        found = _NEXT.match(self.text, end)
        return found[1] if found else ""

    def begins_statement(self, word: str, end: int) -> bool:
        following = self.follows(end)
        if following == "{":
            return True
        if word == "every" and self.place.expects is WordRole.SELECTOR:
            return False
        return word in _STATEMENTS and following not in tuple("=:|(")

    # ---------------------------------------------------------------- words

    def word(self, word: str, start: int, end: int) -> None:
        place, following = self.place, self.follows(end)
        if place.block:
            self.word_in_block(word, start, end, following)
            return
        if place.expects not in (WordRole.NET, WordRole.START) and self.begins_statement(word, end):
            self.keyword(word, start, end, following)
            return
        match place.expects:
            case WordRole.START:
                self.emit(WordRole.KEYWORD, start, end)
                self.expect(WordRole.NET)
            case WordRole.NET:
                self.emit(WordRole.NET, start, end)
                self.expect(WordRole.HEADER, owner=word)
            case WordRole.HEADER if word == "from":
                self.emit(WordRole.KEYWORD, start, end)
                self.place = self.place._replace(derived=True)
                self.expect(WordRole.BASE)
            case WordRole.BASE:
                self.emit(WordRole.BASE, start, end)
                self.expect(WordRole.STATEMENT, owner=word)
            case WordRole.PARAMETER:
                self.emit(WordRole.PARAMETER, start, end)
            case WordRole.CONSTANT:
                self.emit(WordRole.CONSTANT, start, end)
                self.expect(WordRole.SUM)
                self.operand = False
            case WordRole.KIND:
                self.emit(WordRole.KIND, start, end)
                self.behind_selector(word, place.verb)
            case WordRole.SELECTOR if word == "every":
                self.emit(WordRole.KEYWORD, start, end)
                self.place = place._replace(expects=WordRole.KIND)
            case WordRole.SELECTOR:
                self.emit(WordRole.SELECTOR, start, end)
                self.behind_selector(word, place.verb)
            case WordRole.LINK if word in ("insert", "with"):
                self.emit(WordRole.KEYWORD, start, end)
                self.expect(WordRole.LAYER)
            case WordRole.HEAD:
                self.emit(WordRole.HEAD, start, end)
            case WordRole.REFERENCE:
                self.emit(WordRole.REFERENCE, start, end)
                self.expect(WordRole.BEHIND_LAYER)
            case WordRole.VALUE:
                self.emit(WordRole.VALUE, start, end)
                self.behind_value()
            case WordRole.BEHIND_LAYER | WordRole.OPTION if following == "=":
                self.place = place._replace(key=word)
                self.emit(WordRole.OPTION, start, end)
            case _ if following == ":":
                self.label = start
                self.place = place._replace(anchor=start)
                self.emit(WordRole.LABEL, start, end)
            case _:
                self.layer(word, start, end)

    def layer(self, word: str, start: int, end: int) -> None:
        anchor = start if self.label < 0 else self.label
        self.label = -1
        self.place = self.place._replace(anchor=anchor)
        self.emit(WordRole.LAYER, start, end)
        self.expect(WordRole.BEHIND_LAYER, owner=word, anchor=anchor)

    def behind_selector(self, word: str, verb: str) -> None:
        if verb in ("every", "set"):
            self.expect(WordRole.OPTION, owner=word, verb=verb)
        elif verb == "remove":
            self.expect(WordRole.STATEMENT)
        else:
            self.expect(WordRole.LINK, verb=verb)

    def behind_value(self) -> None:
        place = self.place
        if self.brackets[-1:] == [WordRole.PARAMETER]:
            role = WordRole.PARAMETER
        else:
            role = WordRole.OPTION if place.verb else WordRole.BEHIND_LAYER
        self.place = place._replace(expects=role, key="")

    def keyword(self, word: str, start: int, end: int, following: str) -> None:
        self.brackets.clear()
        if following == "{":
            self.expect(WordRole.BLOCK)
            self.emit(WordRole.BLOCK, start, end)
            self.expect(WordRole.SETTING, block=word)
            return
        self.expect(self.place.expects)
        self.emit(WordRole.KEYWORD, start, end)
        match word:
            case "let":
                self.expect(WordRole.CONSTANT)
            case "every":
                self.expect(WordRole.KIND, verb=word)
            case "head":
                self.expect(WordRole.HEAD)
            case "input":
                self.expect(WordRole.SIZE)
            case _:
                self.expect(WordRole.SELECTOR, verb=word)

    def word_in_block(self, word: str, start: int, end: int, following: str) -> None:
        place = self.place
        if place.expects is WordRole.SETTING:
            self.place = place._replace(setting=word)
            self.emit(WordRole.SETTING, start, end)
            self.place = self.place._replace(expects=WordRole.BEHIND_SETTING)
        elif following == "=":
            self.place = place._replace(key=word, expects=WordRole.OPTION)
            self.emit(WordRole.OPTION, start, end)
        else:
            self.emit(WordRole.VALUE, start, end)
            self.value_in_block(word)

    def value_in_block(self, word: str) -> None:
        place = self.place
        said = place.said if place.key else word
        self.place = place._replace(expects=WordRole.BEHIND_SETTING, said=said)

    # ---------------------------------------------------------------- numbers and signs

    def number(self, start: int, end: int) -> None:
        place = self.place
        if place.block:
            self.emit(WordRole.VALUE, start, end)
            self.value_in_block(self.text[start:end])
        elif place.expects is WordRole.VALUE:
            self.emit(WordRole.VALUE, start, end)
            self.behind_value()
        elif place.expects is WordRole.SIZE:
            self.expect(WordRole.STATEMENT)
        elif place.expects is WordRole.SUM:
            self.operand = True

    def sign(self, sign: str) -> None:
        place = self.place
        match sign:
            case "{":
                self.expect(WordRole.SETTING, block=place.block or "train")
            case "}":
                self.expect(WordRole.STATEMENT)
            case ";" if place.block:
                self.expect(WordRole.SETTING, block=place.block)
            case "," if place.block:
                self.place = place._replace(expects=WordRole.VALUE)
            case "=" if place.expects is WordRole.PARAMETER:
                self.place = place._replace(expects=WordRole.VALUE, key=self.tokens[-1].text)
            case "=" if place.key:
                self.place = place._replace(expects=WordRole.VALUE)
            case _ if place.block:
                pass
            case "+" | "-" | "*" | "/" | "=" if place.expects is WordRole.SUM:
                self.operand = False
            case "@":
                self.expect(WordRole.REFERENCE)
            case "|":
                self.expect(WordRole.LAYER)
            case "(":
                self.open(place)
            case "," if self.brackets:
                self.expect(self.brackets[-1], owner=place.owner)
            case ")" if self.brackets:
                self.close(self.brackets.pop())
            case ":" if place.expects is WordRole.HEAD:
                self.expect(WordRole.LAYER)
            case _:
                pass

    def open(self, place: WordContext) -> None:
        if place.expects is WordRole.HEADER or (
            place.expects is WordRole.STATEMENT and place.owner
        ):
            self.brackets.append(WordRole.PARAMETER)
            self.expect(WordRole.PARAMETER, owner=place.owner)
        elif place.expects is WordRole.SUM:
            self.brackets.append(WordRole.SUM)
        else:
            self.brackets.append(WordRole.LAYER)
            self.expect(WordRole.LAYER)

    def close(self, held: WordRole) -> None:
        match held:
            case WordRole.PARAMETER if self.place.derived:
                self.expect(WordRole.STATEMENT)
            case WordRole.PARAMETER:
                self.expect(WordRole.HEADER)
            case WordRole.SUM:
                self.operand = True
            case _:
                self.expect(WordRole.BEHIND_LAYER)
