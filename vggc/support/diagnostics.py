"""What a user did wrong: a place, a reason, a suggestion.

Each kind of mistake is one class of frozen data. Its `title`, `label` and `help` are
templates over the class's fields, so that all wording of a mistake stands
together and can be read aloud. `render` turns any of them into text; the command
line prints that and leaves with exit code 2.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence
from inspect import get_annotations
from itertools import cycle
from typing import Any, ClassVar, Literal, dataclass_transform

from vggc.support.source import Span
from vggc_runtime.text import printable

MAX_LINE_SHOWN = 100
MAX_REPORTED = 50
"""Mistakes in one report: nobody reads more at once, and what caused most is among them."""
MAX_COMPARED = 64, 2000
"""The longest word, and the most known ones, for which a likeness is looked for."""
MAX_LISTED = 30


def _field(*, default: Any, kw_only: Literal[True]) -> Any:
    """A field that is given by its name only, as `dataclasses.field` makes one."""
    return default


@dataclass_transform(frozen_default=True, field_specifiers=(_field,))
class _Frozen:
    """What `dataclass(frozen=True)` makes, for classes that are rarely used.

    There are some two hundred and seventy kinds of mistakes, and `dataclass` takes half a
    millisecond for each, which every start of the command would wait for. Fields of this class's
    direct heirs are given by name only, those of the heirs' heirs in order or by name.
    """

    field_types: ClassVar[dict[str, str]] = {}
    """The fields that may be given in order, and what is annotated."""
    keyword_types: ClassVar[dict[str, str]] = {}
    """The fields that are given by name only, and what is annotated."""

    def __init_subclass__(cls) -> None:
        own = {
            name: str(kind)
            for name, kind in get_annotations(cls).items()
            if not str(kind).startswith("ClassVar")
        }
        if _Frozen in cls.__bases__:
            cls.keyword_types = own
        else:
            cls.field_types = {**cls.field_types, **own}

    def __init__(self, *values: object, **named: object) -> None:
        given = {**dict(zip(self.field_types, values, strict=False)), **named}
        names = (*self.field_types, *self.keyword_types)
        for name in names:
            self.__dict__[name] = given.pop(name) if name in given else getattr(type(self), name)
        if given or len(values) > len(self.field_types):
            raise TypeError(f"{type(self).__name__} takes {', '.join(names)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class Diagnostic(_Frozen):
    """A user's mistake, and where it is.

    `place` is what is to blame of the user's text, None where none is. `second_place` is other
    text that it speaks of, such as where a name was given first; `second_label` says what that is.
    """

    title: ClassVar[str]
    label: ClassVar[str] = ""
    second_label: ClassVar[str] = ""
    help: ClassVar[str] = ""

    place: Span | None = _field(default=None, kw_only=True)
    second_place: Span | None = _field(default=None, kw_only=True)

    def fill(self, template: str) -> str:
        """The template with this diagnostic's fields in it, which a command of ours holds as a
        shell reads them.
        """
        words = {k: in_command(v) if isinstance(v, str) else v for k, v in self.__dict__.items()}
        pieces = [
            piece.format(**(words if is_quoted and piece.startswith("vggc ") else self.__dict__))
            for is_quoted, piece in zip(cycle((False, True)), template.split("`"), strict=False)
        ]
        return printable("`".join(pieces)).strip()


class UserError(Exception):
    """Raised with every diagnostic found so far, the first `MAX_REPORTED` of them."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        self.diagnostics = diagnostics[:MAX_REPORTED]
        super().__init__(*self.diagnostics)

    @property
    def diagnostic(self) -> Diagnostic:
        """The first of them; what is wrong with one thing is one."""
        return self.diagnostics[0]

    def __str__(self) -> str:
        """All of them in words, without colours."""
        return "\n".join(map(render, self.diagnostics))


class CheckFailed(Exception):
    """A check that the user asked for gave a no; the command line leaves with exit code 1."""


def render(diagnostic: Diagnostic) -> str:
    """The diagnostic as plain text: title, each place as its line with marks below it, help.

    `^` marks the first place and `-` the second, below one line where both stand on it.
    """
    lines = [f"error: {diagnostic.fill(diagnostic.title)}"]
    help_text = diagnostic.fill(diagnostic.help)
    label = diagnostic.fill(diagnostic.label)
    place, second = diagnostic.place, diagnostic.second_place
    if place is None:
        lines += [f"  {label}"] if label else []
        lines += [f"  help: {help_text}"] if help_text else []
        return "\n".join(lines)
    places = [place, second] if second else [place]
    gutter = " " * max(len(str(each.position[0])) for each in places)
    lines += _shown_place(place, label, gutter)
    if second:
        shown = _shown_place(second, diagnostic.fill(diagnostic.second_label), gutter, "-")
        lines += shown[-1:] if _share_a_line(place, second) else shown
    lines += [f"{gutter} = help: {help_text}"] if help_text else []
    return "\n".join(lines)


def _share_a_line(place: Span, second: Span) -> bool:
    """Whether one excerpt shows both."""
    number, _ = place.position
    same = place.source.name == second.source.name and number == second.position[0]
    return same and len(place.source.line(number)) <= MAX_LINE_SHOWN


def _shown_place(place: Span, label: str, gutter: str, mark: str = "^") -> list[str]:
    number, _ = place.position
    shown, carets = excerpt(place, mark)
    return [
        f"{gutter}--> {printable(str(place))}",
        f"{gutter} |",
        f"{number:>{len(gutter)}} | {shown}".rstrip(),
        f"{gutter} | {carets} {label}".rstrip(),
    ]


def excerpt(span: Span, mark: str = "^") -> tuple[str, str]:
    """The span's first line, cut to a readable width, and the marks below it."""
    number, column = span.position
    line = span.source.line(number)
    start = column - 1
    length = max(1, min(span.end - span.start, len(line) - start))
    first = max(0, start - MAX_LINE_SHOWN // 2) if len(line) > MAX_LINE_SHOWN else 0
    shown = line[first : first + MAX_LINE_SHOWN]
    before, after = "…" * (first > 0), "…" * (first + MAX_LINE_SHOWN < len(line))
    marks = mark * min(length, MAX_LINE_SHOWN - (start - first))
    return before + printable(shown) + after, " " * (len(before) + start - first) + marks


def in_command(*words: object) -> str:
    """Words, such as paths, so that a shell reads each as one, and no command as an option."""
    texts = map(str, words)
    return shlex.join(f"./{text}" if text.startswith("-") else text for text in texts)


def first_line(error: Exception) -> str:
    """What a foreign error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` most likely meant, or nothing."""
    known = [*known]
    if len(word) > MAX_COMPARED[0] or len(known) > MAX_COMPARED[1]:
        return ""
    by_lower = {name.lower(): name for name in sorted(known)}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[matches[0]] if matches else ""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A suggestion for a misspelt word: the nearest known one, or all of them."""
    if match := nearest(word, known):
        return f"did you mean `{match}`?"
    return f"known: {listed(known)}"


def listed(words: Sequence[str]) -> str:
    """The first of some words, in quotes, with commas between them."""
    more = ", …" if len(words) > MAX_LISTED else ""
    return ", ".join(f"`{word}`" for word in words[:MAX_LISTED]) + more
