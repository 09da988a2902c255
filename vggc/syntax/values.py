"""What may be written for a value: one vocabulary for layers, recipes and tests.

A kind says in words what it takes (`str`), and `convert` turns what was written into a
plain value. A number may bear the unit of its kind, or none: `256px`, `10%`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, assert_never

from vggc.support.diagnostics import Diagnostic, did_you_mean, nearest
from vggc.syntax import ast

MAX_SIDE = 1 << 14
"""The most pixels in a side of an image or of a net's input."""

Unit: TypeAlias = Literal["", "px", "%"]


@dataclass(frozen=True)
class WholeNumber:
    """A whole number, both bounds included. `unit` may stand behind it."""

    low: int
    high: int
    odd: bool = False
    unit: Unit = ""

    def __str__(self) -> str:
        number = "an odd whole number" if self.odd else "a whole number"
        pixels = " of pixels" if self.unit == "px" else ""
        return f"{number}{pixels} from {self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class Real:
    """A number, both bounds included unless `above` excludes the lower one.

    With the unit `%` it is a share: `10%` is 0.1, and so is `0.1`.
    """

    low: float
    high: float
    above: bool = False
    unit: Unit = ""

    def __str__(self) -> str:
        low, high = f"{self.low:,.12g}", f"{self.high:,.12g}"
        return (
            f"a number above {low}, at most {high}"
            if self.above
            else f"a number from {low} to {high}"
        )


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(filter(None, [", ".join(self.words[:-1]), self.words[-1]]))


@dataclass(frozen=True)
class Flag:
    """`on` or `off`: True or False."""

    def __str__(self) -> str:
        return "on or off"


@dataclass(frozen=True)
class FlagOr:
    """`off`, `on`, which is 0, or another number: False, True or that number, none of which but
    False is false.
    """

    kind: Real

    def __str__(self) -> str:
        return f"on, off or {self.kind}"


@dataclass(frozen=True)
class PixelRange:
    """A size in pixels or a range of sizes: least and greatest, both included."""

    high: int = MAX_SIDE

    def __str__(self) -> str:
        return f"pixels up to {self.high:,} (256) or a range (256..512)"


@dataclass(frozen=True)
class Interval:
    """A number or a range of them, `8%..100%`: least and greatest, both included."""

    kind: WholeNumber | Real

    def __str__(self) -> str:
        return f"{self.kind}, or a range of two such"


@dataclass(frozen=True)
class Size:
    """Height and width in pixels, written as one number where they are equal."""

    high: int = MAX_SIDE

    def __str__(self) -> str:
        return f"pixels up to {self.high:,} (224), or height and width (224x160)"


@dataclass(frozen=True)
class Extents:
    """A whole number for rows and columns, or one for each, `1x7`: a pair. Both bounds included."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"a whole number from {self.low:,} to {self.high:,}, or rows and columns (1x7)"


@dataclass(frozen=True)
class PaddingSides:
    """Padding in whole numbers from 0 on: of all sides, of rows and columns, or of the top, left,
    bottom and right. Always those four.
    """

    high: int

    def __str__(self) -> str:
        number = f"a whole number from 0 to {self.high:,}"
        return f"{number}, or 0x3 (rows, columns), or 0x0x1x1 (top, left, bottom, right)"


@dataclass(frozen=True)
class Grid:
    """A square grid, `5x5`: the points along one side."""

    high: int

    def __str__(self) -> str:
        return f"a square grid from 1x1 to {self.high}x{self.high}"


@dataclass(frozen=True)
class Several:
    """From `least` to `most` values of a kind, separated by commas: a tuple. `what` names them."""

    kind: WholeNumber | Real
    most: int
    what: str = "numbers"
    least: int = 1

    def __str__(self) -> str:
        count = f"{self.most:,}" if self.least == self.most else f"at most {self.most:,}"
        return f"{count} {self.what}, each {self.kind}"


@dataclass(frozen=True)
class NameValue:
    """The name of something, as of a net: any word but `off`."""

    what: str

    def __str__(self) -> str:
        return f"the name of a {self.what}"


@dataclass(frozen=True)
class NameList:
    """Names separated by commas, and with `ranges` ranges of them (`conv1_1..fc7`).

    A tuple of names as written. `most` is how many may be listed.
    """

    what: str
    ranges: bool = False
    most: int = 100

    def __str__(self) -> str:
        ranges = " or ranges of them (conv1_1..fc7)" if self.ranges else ""
        return f"at most {self.most} names of {self.what}{ranges}, separated by commas"


@dataclass(frozen=True)
class WordOr:
    """A certain word, which stands for itself, or a list."""

    word: str
    kind: Several

    def __str__(self) -> str:
        return f"{self.word}, or {self.kind}"


@dataclass(frozen=True)
class Maybe:
    """A value of a kind, or `off`."""

    kind: WholeNumber | Real | PixelRange | Size | Several | WordOr | NameValue | NameList

    def __str__(self) -> str:
        return f"{self.kind} or off"


ValueKind: TypeAlias = (
    WholeNumber
    | Real
    | OneOf
    | Flag
    | FlagOr
    | PixelRange
    | Interval
    | Size
    | Extents
    | PaddingSides
    | Grid
    | Several
    | WordOr
    | NameValue
    | NameList
    | Maybe
)

FLAGS = {"on": True, "off": False}

OFF: tuple[()] = ()
"""What `off` is where something else could be: told from None, which is no value at all."""


def convert(kind: ValueKind, value: ast.Value) -> Any:
    """The plain value that was written, or None if it is not of this kind."""
    match kind:
        case WholeNumber() | Real():
            return _number(kind, value)
        case OneOf(words):
            return value.text if isinstance(value, ast.Word) and value.text in words else None
        case Flag():
            return FLAGS.get(str(value))
        case FlagOr(each):
            if str(value) in FLAGS:
                return FLAGS[str(value)]
            if value.span.text in FLAGS:
                return None  # a constant of that name, which would be taken for the word
            return True if (number := _number(each, value)) == 0 else number
        case PixelRange(high):
            return _pixels(high, value)
        case Interval(each):
            low, top = (_number(each, end) for end in _ends(value))
            return None if low is None or top is None or low > top else (low, top)
        case Size(high):
            return _size(high, value)
        case Extents(low, high):
            extents = _whole_numbers(value, low, high)
            return extents * 2 if len(extents) == 1 else extents if len(extents) == 2 else None
        case PaddingSides(high):
            sides = _whole_numbers(value, 0, high)
            return sides * (4 // len(sides)) if len(sides) in (1, 2, 4) else None
        case Grid(high):
            square = isinstance(value, ast.Dims) and len(value.sizes) == 2
            side, other = value.sizes if square and isinstance(value, ast.Dims) else (0, 0)
            return side if side == other and 1 <= side <= high else None
        case Several(each, most, least=least):
            found = tuple(_number(each, item) for item in items(value))
            return None if None in found or not least <= len(found) <= most else found
        case WordOr(word, several):
            is_word = isinstance(value, ast.Word) and value.text == word
            return word if is_word else convert(several, value)
        case NameValue():
            return value.text if isinstance(value, ast.Word) and _is_name(value) else None
        case NameList(_, ranges, most):
            names = tuple(map(str, items(value)))
            fits = all(_is_name(item, ranges) for item in items(value))
            return names if fits and len(names) <= most else None
        case Maybe(inner):
            is_off = isinstance(value, ast.Word) and value.text == "off"
            return OFF if is_off else convert(inner, value)
        case _:
            assert_never(kind)


def items(value: ast.Value) -> tuple[ast.Value, ...]:
    """The values in a list; a single value is a list of one."""
    return value.items if isinstance(value, ast.Many) else (value,)


def _number(kind: WholeNumber | Real, value: ast.Value) -> int | float | None:
    if not isinstance(value, ast.Number) or value.unit not in ("", kind.unit):
        return None
    if isinstance(kind, WholeNumber):
        number = value.value
        fits = isinstance(number, int) and kind.low <= number <= kind.high
        return number if fits and not (kind.odd and number % 2 == 0) else None
    share = value.value / 100 if value.unit == "%" else float(value.value)
    return (
        share if kind.low <= share <= kind.high and not (kind.above and share == kind.low) else None
    )


def _ends(value: ast.Value) -> tuple[ast.Value, ast.Value]:
    """The ends of a range; a single value is both."""
    return (value.low, value.high) if isinstance(value, ast.Range) else (value, value)


def _pixels(high: int, value: ast.Value) -> tuple[int, int] | None:
    low, top = (_number(WholeNumber(1, high, unit="px"), end) for end in _ends(value))
    if not isinstance(low, int) or not isinstance(top, int) or low > top:
        return None
    return low, top


def _size(high: int, value: ast.Value) -> tuple[int, int] | None:
    if isinstance(value, ast.Dims):
        fits = len(value.sizes) == 2 and all(1 <= side <= high for side in value.sizes)
        return (value.sizes[0], value.sizes[1]) if fits else None
    side = _number(WholeNumber(1, high, unit="px"), value)
    return (side, side) if isinstance(side, int) else None


def _whole_numbers(value: ast.Value, low: int, high: int) -> tuple[int, ...]:
    """A number, or those with `x` between them; none where one is out of its bounds."""
    match value:
        case ast.Dims(sizes=sizes) if all(low <= size <= high for size in sizes):
            return sizes
        case ast.Number(value=int(size), unit="") if low <= size <= high:
            return (size,)
        case _:
            return ()


def _is_name(value: ast.Value, ranges: bool = False) -> bool:
    if not isinstance(value, ast.Word) or value.text == "off":
        return False
    first, dots, last = value.text.partition("..")
    return not dots or (ranges and bool(first and last) and ".." not in last)


def written(kind: ValueKind, value: Any) -> str:
    """The text of a plain value of this kind: `convert` is the inverse. None is `off`."""
    match kind:
        case _ if value is None or value is False:
            return "off"
        case Flag() | FlagOr() if value is True:
            return "on"
        case PixelRange() | Size() | Interval() if value[0] == value[1]:
            return str(value[0])
        case PixelRange() | Interval():
            return f"{value[0]}..{value[1]}"
        case Extents() if value[0] == value[1]:
            return str(value[0])
        case PaddingSides() if value[:2] == value[2:]:
            return written(Extents(0, kind.high), value[:2])
        case Size() | Extents() | PaddingSides():
            return "x".join(map(str, value))
        case Grid():
            return f"{value}x{value}"
        case Several() | NameList():
            return ",".join(map(str, value))
        case WordOr(_, several):
            return value if isinstance(value, str) else written(several, value)
        case Maybe(inner):
            return written(inner, value)
        case _:
            return str(value)


# What is told of a value


@dataclass(frozen=True)
class OptionEntry:
    """An option as a reference shows it; its default is "" where it must be given."""

    key: str
    takes: str
    default: str
    doc: str


def told(kind: ValueKind, default: Any) -> str:
    """A default as people write it."""
    return f"{default:g}" if isinstance(default, float) else written(kind, default)


# What was written wrongly


class WrongValue(Diagnostic):
    title = "`{key}` cannot be `{found}`"
    label = "expected {expected}"
    help = "{suggestion}"

    key: str
    expected: str
    found: str
    suggestion: str = ""


class WrongUnit(Diagnostic):
    title = "`{key}` is not measured in `{unit}`"
    label = "expected {right}"
    help = "{suggestion}"

    key: str
    unit: str
    right: str
    suggestion: str


UNITS: Mapping[Unit, str] = {
    "": "a number without a unit",
    "px": "pixels, `px` or no unit",
    "%": "a share: a number from 0 to 1, or a percentage",
}


def misfit(key: str, kind: ValueKind, value: ast.Value, otherwise: str = "") -> Diagnostic:
    """The mistake in a value that `convert` refused; `otherwise` helps where nothing is near."""
    inner = kind.kind if isinstance(kind, Maybe) else kind
    inner = inner.kind if isinstance(inner, WordOr) else inner
    if isinstance(inner, Several):
        for item in items(value) if isinstance(value, ast.Many) else ():
            if convert(inner.kind, item) is None:
                return misfit(key, inner.kind, item)
    number_kind = _number_kind(kind)
    for number in _numbers(value) if number_kind else ():
        assert number_kind
        if number.unit not in ("", number_kind.unit):
            is_share = number.unit == "%" and isinstance(number_kind, Real)
            share = number.value / 100 if is_share else number.value
            unit = "px" if number_kind.unit == "px" else ""
            right = replace(number, value=int(share) if share == int(share) else share, unit=unit)
            fits = _number(number_kind, right) is not None
            hint = f"write `{right}`" if fits else ""
            return WrongUnit(key, number.unit, UNITS[number_kind.unit], hint, place=number.span)
    hint = _suggestion(kind, value) or otherwise
    return WrongValue(key, str(kind), _short(str(value)), hint, place=value.span)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[:most] + "…"


def _number_kind(kind: ValueKind) -> WholeNumber | Real | None:
    """What single numbers in a value of this kind are, if there are any."""
    match kind:
        case WholeNumber() | Real():
            return kind
        case PixelRange(high) | Size(high):
            return WholeNumber(1, high, unit="px")
        case Extents(low, high):
            return WholeNumber(low, high)
        case PaddingSides(high):
            return WholeNumber(0, high)
        case Several(inner) | Maybe(inner) | Interval(inner) | WordOr(_, inner) | FlagOr(inner):
            return _number_kind(inner)
        case _:
            return None


def _numbers(value: ast.Value) -> list[ast.Number]:
    match value:
        case ast.Number():
            return [value]
        case ast.Range(low, high):
            return [low, high]
        case ast.Many(inner):
            return [number for item in inner for number in _numbers(item)]
        case _:
            return []


def _suggestion(kind: ValueKind, value: ast.Value) -> str:
    word = value.span.text
    is_constant = isinstance(value, ast.Number) and word.isidentifier()
    if is_constant and convert(kind, ast.Word(word, span=value.span)) is not None:
        return f"`{word}` is a constant of this net: give that another name"
    match kind, value:
        case OneOf(words), ast.Word(text):
            return did_you_mean(text, words)
        case Maybe(WordOr(word)), ast.Word(text):
            return did_you_mean(text, (word, "off"))
        case Flag() | FlagOr(), ast.Word(text):
            near = {"true": "on", "yes": "on", "false": "off", "no": "off"}.get(text.lower())
            near = near or nearest(text, ("on", "off"))
            return f"did you mean `{near}`?" if near else ""
        case WholeNumber(odd=True) as whole, ast.Number(value=int(even)) if (
            whole.low <= even + 1 <= whole.high
        ):
            return f"the next ones are {even - 1} and {even + 1}" if even > whole.low else ""
        case ((PixelRange() | Interval() | Maybe(PixelRange())), ast.Range(low, high)) if (
            low.value > high.value
        ):
            return f"the lower end comes first: `{high}..{low}`"
        case Extents(), ast.Dims(sizes=sizes) if len(sizes) > 2:
            return f"two numbers are rows and columns, and these are {len(sizes)}"
        case PaddingSides(), ast.Dims(sizes=sizes) if len(sizes) not in (2, 4):
            return (
                "two numbers are rows and columns, four are top, left, bottom and right, "
                f"and these are {len(sizes)}"
            )
        case Grid(), ast.Number(value=int(side)):
            return f"did you mean `{side}x{side}`?"
        case _:
            return ""
