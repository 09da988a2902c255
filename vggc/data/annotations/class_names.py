"""The names of classes by their numbers, from a file of one name a line, or from the YAML that goes
with YOLO's labels: of it only `names` is read, in the forms that people write it in. So much needs
no library, and runs nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vggc.data import diagnostics
from vggc.data.annotations.described import AnnotationError, class_name, content_of
from vggc.support.diagnostics import UserError

YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class ClassNames:
    """Names of classes by their numbers. Where it `has_points`, labels are of poses: what stands
    behind a box are points.
    """

    names: dict[int, str]
    has_points: bool = False


def names_in(path: Path) -> ClassNames:
    """The names in a file.

    Raises:
        UserError: it cannot be read, or is of another form.
    """
    try:
        text = content_of(path).decode("utf-8-sig")
        return of_yaml(text) if path.suffix.lower() in YAML else of_lines(text)
    except AnnotationError as fault:
        reason = str(fault)
    except UnicodeDecodeError:
        reason = "it is no UTF-8 text"
    except OSError as error:
        reason = error.strerror or str(error)
    raise UserError(diagnostics.BadAnnotations(str(path), reason))


def of_lines(text: str) -> ClassNames:
    """The names that stand one a line; the first is number 0.

    Raises:
        AnnotationError: a line holds none.
    """
    lines = text.rstrip().splitlines()
    return ClassNames(dict(enumerate(placed(enumerate(lines, start=1)))))


def placed(lines: Iterable[tuple[int, str]]) -> Iterator[str]:
    """The names in some lines.

    Raises:
        AnnotationError: a line holds none; says which.
    """
    for count, line in lines:
        try:
            yield class_name(line)
        except AnnotationError as fault:
            raise AnnotationError(f"line {count}: {fault}") from None


# YAML

# None of them goes back to try another way: a file of a MiB may be made to have very many.
QUOTED = r"""'(?:[^']|'')*+'|"(?:[^"\\]|\\.)*+\""""
PLAIN = r"""[^\s\[\]{},'"#&*!|>%@`?][^\[\]{},\n]*+"""
NUMBER = r"""(?P<mark>['"]?)(?P<key>[0-9]{1,9})(?P=mark)\s*:"""

COMMENT = re.compile(rf"((?:^|(?<=[\s\[{{,]))(?:{QUOTED}))|(?:^|(?<=\s))#[^\n]*", re.M | re.S)
IN_LIST = re.compile(rf"\s*+(?P<value>{QUOTED}|{PLAIN})\s*+(?P<end>[,\]])", re.S)
IN_MAPPING = re.compile(rf"\s*+{NUMBER}\s++(?P<value>{QUOTED}|{PLAIN})\s*+(?P<end>[,}}])", re.S)
CLOSING = re.compile(r"\s*+[\]}]")
ITEM = re.compile(r"\s*-\s+(?P<value>.+)")
PAIR = re.compile(rf"\s+{NUMBER}\s+(?P<value>.+)")
VALUE = re.compile(rf"{QUOTED}|{PLAIN}", re.S)

UNREAD = "`names` is neither a list nor a mapping of numbers"


def of_yaml(text: str) -> ClassNames:
    """The `names` in a YAML file: a list or a mapping of numbers, in lines or within brackets.

    Raises:
        AnnotationError: there are none, or in another form.
    """
    plain = COMMENT.sub(lambda match: match[1] or "", text)
    starts = [*re.finditer(r"^names[ \t]*:(?=\s)", plain, re.M)]
    if len(starts) != 1:
        raise AnnotationError("it has no `names`" if not starts else "it has `names` twice")
    rest = plain[starts[0].end() :]
    inline = rest.partition("\n")[0].strip()
    try:
        names = bracketed(rest.lstrip(" \t")) if inline else in_lines(rest)
    except AnnotationError as fault:
        line = plain.count("\n", 0, starts[0].start()) + 1
        raise AnnotationError(f"line {line}: {fault}") from None
    return ClassNames(names, has_points=re.search(r"^kpt_shape[ \t]*:", plain, re.M) is not None)


def bracketed(text: str) -> dict[int, str]:
    """The names between the brackets that a text begins with.

    Raises:
        AnnotationError: it does not, or there is something else within.
    """
    forms = {"[": (IN_LIST, "]"), "{": (IN_MAPPING, "}")}
    if text[0] not in forms:
        raise AnnotationError(UNREAD)
    form, close = forms[text[0]]
    found: list[re.Match[str]] = []
    position = 1
    while not ((end := CLOSING.match(text, position)) and end[0].endswith(close)):
        match = form.match(text, position)
        if match is None:
            raise AnnotationError(f"{UNREAD}, name {len(found) + 1}")
        found.append(match)
        position = match.end()
        if match["end"] == close:
            break
    return numbered(found)


def in_lines(text: str) -> dict[int, str]:
    """The names in the lines that a text begins with, one each.

    Raises:
        AnnotationError: there are none, or a line holds something else.
    """
    found: list[re.Match[str]] = []
    form = None
    for line in filter(str.strip, text.splitlines()):
        if line[0] not in " \t-":
            break
        form = form or (ITEM if ITEM.fullmatch(line) else PAIR)
        match = form.fullmatch(line.rstrip())
        if match is None:
            raise AnnotationError(f"{UNREAD}: {line.strip()[:40]}")
        found.append(match)
    return numbered(found)


def numbered(found: list[re.Match[str]]) -> dict[int, str]:
    """The names that were found, by the numbers that they have or by their places.

    Raises:
        AnnotationError: there are none, two have one number, or a name is none.
    """
    names: dict[int, str] = {}
    for place, match in enumerate(found):
        number = int(match["key"]) if "key" in match.re.groupindex else place
        if number in names:
            raise AnnotationError(f"`names` has number {number} twice")
        names[number] = class_name(scalar(match["value"]))
    if not names:
        raise AnnotationError("it has no `names`")
    return dict(sorted(names.items()))


def scalar(text: str) -> str:
    """The text that a value is.

    Raises:
        AnnotationError: it is another kind of value.
    """
    value = text.strip()
    if VALUE.fullmatch(value) is None and not value[:1].isalnum():
        raise AnnotationError(f"{UNREAD}: {value[:40]}")
    if value.startswith("'"):
        return value[1:-1].replace("''", "'")
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            raise AnnotationError(f"{UNREAD}: {value[:40]}") from None
    return value
