"""The vocabulary of values: what each kind takes, its units, and what it answers otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from vggc.support.diagnostics import Diagnostic, render
from vggc.support.source import Source
from vggc.syntax import ast
from vggc.syntax.parse import parse_value
from vggc.syntax.values import (
    OFF,
    Flag,
    FlagOr,
    Grid,
    Maybe,
    NameList,
    NameValue,
    OneOf,
    PixelRange,
    Real,
    Several,
    Size,
    ValueKind,
    WholeNumber,
    WrongUnit,
    WrongValue,
    convert,
    misfit,
    written,
)

ODD = WholeNumber(1, 1023, odd=True)
SIDE = WholeNumber(1, 100, unit="px")
SHARE = Real(0, 1, unit="%")
SCALES = Several(WholeNumber(1, 9000, unit="px"), 3, "sizes")
LAYERS = NameList("layers", ranges=True, most=3)


def value(text: str) -> ast.Value:
    return parse_value(Source("x.vgg", text))


@pytest.mark.parametrize(
    ("kind", "text", "plain"),
    [
        (ODD, "1023", 1023),
        (SIDE, "64px", 64),
        (SIDE, "64", 64),
        (Real(0, 1), "1", 1.0),
        (SHARE, "10%", 0.1),
        (SHARE, "0.1", 0.1),
        (SHARE, "7%", 0.07),
        (Several(Real(0, 1), 2, least=2), "0.9,1", (0.9, 1.0)),
        (OneOf(("he", "glorot")), "he", "he"),
        (Flag(), "on", True),
        (Flag(), "off", False),
        (FlagOr(Real(-1, 1)), "on", True),
        (FlagOr(Real(-1, 1)), "off", False),
        (FlagOr(Real(-1, 1)), "0", True),
        (FlagOr(Real(-1, 1)), "-0.5", -0.5),
        (PixelRange(), "256px", (256, 256)),
        (PixelRange(), "256..512", (256, 512)),
        (PixelRange(), "256px..512px", (256, 512)),
        (Size(), "224px", (224, 224)),
        (Size(), "224x160", (224, 160)),
        (Grid(20), "5x5", 5),
        (SCALES, "224,256px,288", (224, 256, 288)),
        (SCALES, "224", (224,)),
        (NameValue("net"), "vgg11", "vgg11"),
        (NameList("nets"), "vgg16,vgg19", ("vgg16", "vgg19")),
        (LAYERS, "conv1_1..fc7,fc8", ("conv1_1..fc7", "fc8")),
        (Maybe(PixelRange()), "off", OFF),
        (Maybe(PixelRange()), "256", (256, 256)),
    ],
)
def test_what_is_taken(kind: ValueKind, text: str, plain: Any) -> None:
    assert convert(kind, value(text)) == plain
    if plain is not OFF:
        assert convert(kind, value(written(kind, plain))) == plain


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (
            ODD,
            "4",
            "expected an odd whole number from 1 to 1,023",
        ),
        (ODD, "1025", "expected an odd whole number from 1 to 1,023"),
        (WholeNumber(0, 9), "2.5", "expected a whole number from 0 to 9"),
        (SIDE, "101px", "expected a whole number of pixels from 1 to 100"),
        (Real(0, 1000, above=True), "0", "expected a number above 0, at most 1,000"),
        (SHARE, "110%", "`key` cannot be `110%`"),
        (OneOf(("he", "glorot", "normal")), "hee", "did you mean `he`?"),
        (OneOf(("he", "glorot", "normal")), "x", "known: `he`, `glorot`, `normal`"),
        (Flag(), "true", "did you mean `on`?"),
        (Flag(), "1", "expected on or off"),
        (FlagOr(Real(-1, 1)), "2", "expected on, off or a number from -1 to 1"),
        (PixelRange(512), "600", "expected pixels up to 512 (256) or a range (256..512)"),
        (Maybe(PixelRange()), "512..256", "the lower end comes first: `256..512`"),
        (Size(512), "224x160x3", "expected pixels up to 512 (224), or height and width"),
        (Grid(20), "5", "did you mean `5x5`?"),
        (Grid(20), "5x4", "expected a square grid from 1x1 to 20x20"),
        (Grid(20), "21x21", "expected a square grid from 1x1 to 20x20"),
        (SCALES, "1,2,3,4", "expected at most 3 sizes, each a whole number of pixels from 1 to"),
        (Maybe(SCALES), "1,0", "expected a whole number of pixels from 1 to 9,000"),
        (NameValue("net"), "3", "expected the name of a net"),
        (NameValue("net"), "off", "expected the name of a net"),
        (NameList("nets"), "a..b", "expected at most 100 names of nets, separated by commas"),
        (LAYERS, "a..b..c", "expected at most 3 names of layers or ranges of them"),
        (LAYERS, "a..", "names of layers"),
        (LAYERS, "a,b,c,d", "expected at most 3 names of layers"),
    ],
)
def test_what_is_refused(kind: ValueKind, text: str, words: str) -> None:
    assert convert(kind, value(text)) is None
    found = misfit("key", kind, value(text))
    assert type(found) is WrongValue
    assert words in render(found)


@pytest.mark.parametrize(
    ("kind", "text", "place", "suggestion"),
    [
        (WholeNumber(1, 9), "7px", "7px", "write `7`"),
        (WholeNumber(1, 9), "7%", "7%", "write `7`"),
        (WholeNumber(1, 9), "70%", "70%", ""),
        (SIDE, "7%", "7%", "write `7px`"),
        (SHARE, "1px", "1px", "write `1`"),
        (Maybe(PixelRange()), "512%", "512%", "write `512px`"),
        (SCALES, "224,256%", "256%", "write `256px`"),
    ],
)
def test_a_wrong_unit_is_told_at_its_place(
    kind: ValueKind, text: str, place: str, suggestion: str
) -> None:
    assert convert(kind, value(text)) is None
    found = misfit("key", kind, value(text))
    assert isinstance(found, WrongUnit)
    assert found.place
    assert (found.place.text, found.suggestion) == (place, suggestion)


EXAMPLES: dict[str, tuple[Diagnostic, str]] = {
    "pixels": (
        misfit("scale", PixelRange(), value("256%")),
        """\
error: `scale` is not measured in `%`
 --> x.vgg:1:1
  |
1 | 256%
  | ^^^^ expected pixels, `px` or no unit
  = help: write `256px`""",
    ),
    "share": (
        misfit("dropout.p", SHARE, value("5px")),
        """\
error: `dropout.p` is not measured in `px`
 --> x.vgg:1:1
  |
1 | 5px
  | ^^^ expected a share: a number from 0 to 1, or a percentage""",
    ),
    "none": (
        misfit("batch", WholeNumber(1, 1024), value("256px")),
        """\
error: `batch` is not measured in `px`
 --> x.vgg:1:1
  |
1 | 256px
  | ^^^^^ expected a number without a unit
  = help: write `256`""",
    ),
    "value": (
        misfit("kernel", ODD, value("4")),
        """\
error: `kernel` cannot be `4`
 --> x.vgg:1:1
  |
1 | 4
  | ^ expected an odd whole number from 1 to 1,023
  = help: the next ones are 3 and 5""",
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_message_of_a_mistake_is_exactly_this(name: str) -> None:
    found, text = EXAMPLES[name]
    assert render(found) == text
