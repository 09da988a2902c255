"""The mistake behind the parser's error."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from vggc.support.diagnostics import Diagnostic
from vggc.support.source import Source, Span
from vggc.syntax import diagnostics

_NAMES = {
    "NET": "`net`",
    "INPUT": "`input`",
    "FROM": "`from`",
    "INSERT": "`insert`",
    "WITH": "`with`",
    "layer": "a layer such as `conv3-64`",
    "WORD": "a word",
    "NAME": "a name",
    "LABEL": "a name with `:`",
    "KEY": "an option `key=value`",
    "REPEAT": "a repeat such as `×2`",
    "NUMBER": "a number",
    "DIMS": "a size such as 3x224x224",
    "RANGE": "a range such as 256..512",
    "operator": "one of `+ - * /`",
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
_OPERATORS = {"PLUS", "MINUS", "STAR", "SLASH"}
_LAYER = {"WORD", "LABEL", "LPAR", "AT"}
_STATEMENTS = {"LET", "EVERY", "SET", "AFTER", "BEFORE", "REPLACE", "REMOVE", "HEAD"}
_EDITS = ("set", "after", "before", "replace", "remove", "insert")
_LOOKALIKES = {
    "–": "for a hyphen write `-`",
    "—": "for a hyphen write `-`",
    "−": "for a minus write `-`",
    "→": "layers are separated by `|`",
    ">": "layers are separated by `|`",
    "/": "layers are separated by `|`; comments begin with `#`",
    "[": "groups and paths stand in `( )`, settings in `{ }`",
    "]": "groups and paths stand in `( )`, settings in `{ }`",
    '"': "words stand without quotes",
    "'": "words stand without quotes",
    "│": "layers are separated by `|`",
}
# Hints for characters that a spec does use, though not here.
_ELSEWHERE = {
    "=": "an option is a word, `=` and a value: `stride=2`",
    ":": "a name stands before its layer: `fc6: fc-4096`",
    "-": "a layer is written as one word: `conv3-64`",
    "+": "sums stand behind `let`; outputs are added by `add(…, …)`",
    "{": "`{` opens a block: `train { … }`",
    "×": "a repeat is written `×2`",
    "*": "a repeat is written `*2`",
    ",": "layers are separated by `|`; `,` stands between the paths of a join",
    ";": "`;` ends a setting in a block; layers are separated by `|`",
    "@": "`@` takes the name of a layer: `@pool3`",
}
_SUM = "sums and products stand behind `let`, and the constant's name here"
_NAMED = "a name is letters, digits, `_` and `-`, a letter first"


def explain(source: Source, error: UnexpectedInput) -> Diagnostic:
    """The mistake behind Lark's error."""
    match error:
        case UnexpectedCharacters():
            start = error.pos_in_stream or 0
            char = source.text[start]
            span = Span(source, start, start + 1)
            if known := _ELSEWHERE.get(char):
                return diagnostics.Unexpected(
                    f"`{char}`", _listed(error.allowed), known, place=span
                )
            return diagnostics.UnknownCharacter(char, _instead_of(char), place=span)
        case UnexpectedToken():
            token = error.token
            end = len(source.text.rstrip())
            start = end if token.type == "$END" else token.start_pos or 0
            span = Span(source, start, start + len(token))
            return _explain(_ParserStop(span, token, set(error.accepts or error.expected)))
        case _:
            return diagnostics.Unexpected("end of the file", "a net", place=Span(source, 0, 0))


def _instead_of(char: str) -> str:
    """What to write for a character that means nothing."""
    if char.isspace():
        return "it looks like a space, and is none: write one"
    if unicodedata.category(char) == "Cf":
        return "it cannot be seen: delete it"
    return _LOOKALIKES.get(char, "")


@dataclass(frozen=True)
class _ParserStop:
    """Where the parser stopped: at which token, and what it would have taken."""

    span: Span
    token: Token
    expected: set[str]

    @cached_property
    def before(self) -> str:
        return self.span.source.text[: self.span.start].rstrip()

    @cached_property
    def behind(self) -> str:
        """The token and what follows it."""
        return self.span.source.text[self.span.start :]

    @cached_property
    def previous(self) -> Span | None:
        """The word before the token."""
        end = start = len(self.before)
        while start and (self.before[start - 1].isalnum() or self.before[start - 1] in "_.-"):
            start -= 1
        match = re.search(r"[^\W\d]", self.before[start:end])
        return Span(self.span.source, start + match.start(), end) if match else None

    @cached_property
    def previous_begins_line(self) -> bool:
        assert self.previous is not None
        line, _ = self.previous.position
        return self.previous.source.line(line).lstrip().startswith(self.previous.text)

    @cached_property
    def keyword(self) -> str:
        """The keyword that began what the token, and the word before it, stand in."""
        end = self.previous.start if self.previous else len(self.before)
        text = re.sub(r"#[^\n]*", "", self.before[:end])
        words = re.findall(
            r"\b(?:net|from|input|let|every|set|after|before|insert|replace|with|remove|head)\b"
            r"(?=[ \t\r\n(])|[{}]",
            text,
        )
        return words[-1] if words else ""

    def first(self, keyword: str) -> Span | None:
        """Where a keyword stands first, if that is before the previous word."""
        text = re.sub(r"#[^\n]*", lambda said: " " * len(said[0]), self.before)
        end = self.previous.start if self.previous else len(text)
        found = re.compile(rf"(?<![@\w]){keyword}(?=\s)").search(text, 0, end)
        return Span(self.span.source, *found.span()) if found else None

    @cached_property
    def is_derived(self) -> bool:
        text = re.sub(r"#[^\n]*", "", self.before)
        return bool(re.match(r"\s*net\s+\S+\s*(\([^)]*\))?\s*from\b", text))

    @cached_property
    def in_brackets(self) -> bool:
        """Whether a `(` before the token is not closed."""
        text = re.sub(r"#[^\n]*", "", self.before)
        return text.count("(") > text.count(")")

    @property
    def takes_layer(self) -> bool:
        return self.expected >= {"WORD", "LABEL", "LPAR"}


def _explain(place: _ParserStop) -> Diagnostic:
    return next(found for rule in _RULES if (found := rule(place)) is not None)


def _word_before_brace(place: _ParserStop) -> Diagnostic | None:
    """A word that was taken for that of a block, as nothing else begins so at its place."""
    previous = place.previous
    if place.expected != {"LBRACE"} or previous is None:
        return None
    word, token = previous.text, place.token
    if token == "=":
        is_behind_group = _text_before(previous).endswith(")")
        mistake = diagnostics.OptionBehindGroup if is_behind_group else diagnostics.MisplacedOption
        return mistake(word, place=previous)
    if word == "net":
        return diagnostics.SecondNet(place=previous, second_place=place.first("net"))
    if problem := _misplaced_keyword(place, previous):
        return problem
    if token == ":":
        expects = f"`=`, as in `{word}=…`"
        hint = f"behind a bar it would name a layer: `| {word}: …`"
        return diagnostics.Unexpected("`:`", expects, hint, place=place.span)
    match place.keyword:
        case "input" if place.span.source.text[: previous.start].rstrip().endswith("input"):
            hint = "three sizes in one word: `input 3x224x224`"
            return diagnostics.Unexpected(
                f"`{word}`", "a size such as 3x224x224", hint, place=previous
            )
        case "remove" | "set" | "every":
            hint = f"a line for each, or a run of layers: `{place.keyword} fc6..fc7`"
            return diagnostics.Unexpected(
                f"`{word}`", "one word, then options", hint, place=previous
            )
        case "from" | "input" | "let" if place.is_derived:
            return diagnostics.LayersOfItsOwn(word, place=previous)
    alone = f"; a block is written `{word} {{ … }}`" if place.previous_begins_line else ""
    if counted := re.fullmatch(r"[xX](\w+)", word):
        alone += f"; to repeat the layer, `×{counted[1]}`"
    return diagnostics.MissingBar(word, alone, place=previous)


def _misplaced_keyword(place: _ParserStop, span: Span) -> Diagnostic | None:
    """A keyword where none of its kind can stand."""
    word = span.text
    if word in _EDITS and not place.is_derived:
        return diagnostics.EditWithoutBase(word, place=span)
    match word:
        case "insert":
            hint = "as in `after conv1_1 insert lrn`"
            return diagnostics.Misplaced(
                word, "it stands behind `after` or `before`", hint, place=span
            )
        case "set" | "after" | "before" | "replace" | "remove":
            hint = "move it up"
            return diagnostics.Misplaced(
                word, "edits stand before heads and blocks", hint, place=span
            )
        case "let" | "every":
            hint = "move it up, below `input`"
            return diagnostics.Misplaced(word, "it stands before the layers", hint, place=span)
        case "head":
            reason = "heads stand behind the layers and before the blocks"
            return diagnostics.Misplaced(word, reason, "as in `head boxes: fc-4`", place=span)
        case "from":
            reason = "a net has one base, named behind its own name"
            hint, first = "as in `net a from vgg16`", place.first(word)
            return diagnostics.Misplaced(word, reason, hint, place=span, second_place=first)
        case "input":
            reason = "it stands once, right behind the net's name"
            first = place.first(word)
            hint = "keep one of the two" if first else "move it up"
            return diagnostics.Misplaced(word, reason, hint, place=span, second_place=first)
        case _:
            return None


def _no_layers(place: _ParserStop) -> Diagnostic | None:
    """Something else where the first layer of a net was expected."""
    if not place.takes_layer or place.keyword in ("insert", "with", "head"):
        return None
    if place.before.endswith("|"):
        return None
    if place.token.type == "$END":
        return diagnostics.NoLayers(place=place.span)
    if place.token.type in _STATEMENTS:
        return _misplaced_keyword(place, place.span)
    return None


def _statement_after_layers(place: _ParserStop) -> Diagnostic | None:
    if place.token.type in _STATEMENTS:
        return _misplaced_keyword(place, place.span)
    return None


def _bar_in_derived(place: _ParserStop) -> Diagnostic | None:
    """A row of layers where only edits can stand."""
    in_body = place.keyword in ("insert", "with", "head", "{", "}")
    if place.token.type != "VBAR" or not place.is_derived or in_body:
        return None
    first = re.match(r"\|\s*([^\s|]*)", place.span.source.text[place.span.start :])
    return diagnostics.LayersOfItsOwn(first[1] if first and first[1] else "…", place=place.span)


def _call(place: _ParserStop) -> Diagnostic | None:
    """`conv(3, 64)`, as other languages have it."""
    if place.token.type not in ("NUMBER", "KEY", "DIMS") or not place.before.endswith("("):
        return None
    hint = "a layer is one word, options behind it: `conv3-64 stride=2`"
    return diagnostics.Unexpected(f"`{place.token}`", "a layer", hint, place=place.span)


def _two_in_paths(place: _ParserStop) -> Diagnostic | None:
    if place.token.type in ("WORD", "LABEL") and place.expected >= {"RPAR", "COMMA"}:
        word = str(place.token)
        return diagnostics.MissingBar(
            word, f", or `, {word}` for a path of its own", place=place.span
        )
    return None


def _anything(place: _ParserStop) -> Diagnostic:
    found = {"$END": "end of the file", "_LINE_BREAK": "end of the line"}.get(place.token.type)
    expected = _listed(place.expected)
    if place.before.endswith("@"):
        expected = "the name of a layer"
    return diagnostics.Unexpected(
        found or f"`{place.token}`", expected, _hint(place), place=place.span
    )


def _hint(place: _ParserStop) -> str:
    token, expected = place.token, place.expected
    if hint := _of_sums(place) or _of_names(place):
        return hint
    match token.type:
        case _ if "NET" in expected:
            return "a file begins with `net NAME`, then `input CHANNELSxHEIGHTxWIDTH`"
        case "SLASH" if place.keyword in ("net", "from") and place.is_derived:
            return "a base is named alone: `from vgg16` is vgg16.vgg beside this file, or the zoo's"
        case _ if "INPUT" in expected:
            return "after its name a net says what it reads: `input 3x224x224`"
        case "REPEAT" | "STAR" if place.keyword in ("net", "input") and "DIMS" in expected:
            return "a size is written with `x`: `3x32x32`"
        case _ if place.before.endswith("|") and place.takes_layer and token.type != "VBAR":
            return "a layer is missing behind `|`"
        case "LBRACE" if place.previous and _text_before(place.previous).endswith("|"):
            return "a layer is missing behind the last `|`"
        case "VBAR":
            return "between two `|` stands a layer; is one too many?"
        case "$END" if "RPAR" in expected:
            return "a group that was opened with `(` is not closed"
        case "$END" if "RBRACE" in expected:
            return "a block that was opened with `{` is not closed"
        case "RPAR" if place.before.endswith(","):
            return "behind `,` another path was expected; `skip` is a path without layers"
        case "RPAR" if place.before.endswith("(") and place.takes_layer:
            return "a layer is missing between `(` and `)`; `skip` is a path without layers"
        case "RPAR" if not place.in_brackets:
            return "no group is open here"
        case "RPAR" if place.before.endswith("="):
            return "a value is missing behind `=`"
        case "SEMICOLON" if "COMMA" in expected:
            return "paths are separated by `,`"
    if expected == {"WITH"}:
        return "as in `replace fc8 with fc-10`; a run of layers is `fc6..fc7`"
    if expected == {"INSERT"}:
        return "as in `after conv1_1 insert lrn`"
    if expected == {"LABEL"}:
        return "a head has a name: `head boxes: fc-4`"
    if ("KEY" in expected and place.keyword == "let") or place.before.endswith("let"):
        return "a constant is written `let NAME = VALUE`"
    if expected <= {"KEY", "RPAR"} and place.before.endswith(("(", ",")):
        return "a parameter has a value: `classes=10`"
    if expected == {"KEY"}:
        return "as in `every conv norm=batch`, `set conv1_1 stride=2`"
    return _ELSEWHERE.get(str(token)) or _LOOKALIKES.get(str(token), "")


def _of_sums(place: _ParserStop) -> str:
    """What to do about a sum where a number stands, if that is what it is."""
    match place.token.type:
        case "STAR" if "DIMS" not in place.expected and re.search(r"[\w.%]$", place.before):
            return f"{_SUM}; a repeat stands behind a space: ` *2`"
        case "MINUS" if place.behind.startswith("->"):
            return "layers are separated by `|`"
        case "PLUS" | "MINUS" if "NAME" in place.expected:
            return "a sum begins with a name or a number: `0 - wide`"
        case "PLUS" | "MINUS" | "SLASH" if re.search(r"(=|\w-)[ \t]*[\w.%]+$", place.before):
            return _SUM
        case "LPAR" if place.before.endswith("="):
            return _SUM
        case _:
            return ""


def _of_names(place: _ParserStop) -> str:
    """What to do about a name that no layer can have, if that is what it is."""
    match place.token.type:
        case "NUMBER" if re.match(r"[\w.-]+[ \t]*:", place.behind):
            return _NAMED
        case "COLON" if re.search(r"(^|[\s|(,])(\d|[\w-]*\.)[\w.-]*$", place.before):
            return _NAMED
        case _:
            return ""


def _text_before(span: Span) -> str:
    return span.source.text[: span.start].rstrip()


def _listed(terminals: set[str] | None) -> str:
    found = set(terminals or ())
    if found >= {"WORD", "LABEL", "LPAR"}:
        found = (found - _LAYER - {"VBAR"}) | {"layer"}
    if found & _OPERATORS:
        found = (found - _OPERATORS) | {"operator"}
    names = [name for terminal, name in _NAMES.items() if terminal in found] or ["the end"]
    return ", ".join(names[:-1]) + " or " * (len(names) > 1) + names[-1]


_RULES: tuple[Callable[[_ParserStop], Diagnostic | None], ...] = (
    _word_before_brace,
    _no_layers,
    _statement_after_layers,
    _bar_in_derived,
    _call,
    _two_in_paths,
    _anything,
)
