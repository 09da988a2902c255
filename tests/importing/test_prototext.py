"""Protocol buffers' text format, as Caffe's definitions are written in it."""

from __future__ import annotations

import pytest

from vggc.importing.prototext import MAX_DEPTH, Message, parsed_message
from vggc.support.diagnostics import UserError
from vggc.support.source import Source


def parsed(text: str) -> Message:
    return parsed_message(Source("net.prototxt", text))


def mistake(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parsed(text)
    return str(caught.value)


def test_fields_are_in_the_order_in_which_they_are_written() -> None:
    found = parsed('name: "net"  # a comment\ndim: 1 dim: 0x10, dim: 010; dim: [7, 8]')
    assert found.text("name") == "net"
    assert found.wholes("dim", 0, 100) == [1, 16, 8, 7, 8]


def test_messages_are_nested_in_braces_and_in_angles() -> None:
    found = parsed("a { b: < c: 1.5e-2f > } a: { b { c: -.5 } }")
    assert [each.message("b").real("c", 0) for each in found.messages("a")] == [0.015, -0.5]
    assert parsed("").message("a").real("c", 7) == 7


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"'a\tb\'\"\\'", "a\tb'\"\\"),
        (r'"\303\244\xc3\xa4\u00e4"', "äää"),
        ('"one" \'two\'\n"three"', "onetwothree"),
        (r'"\377"', "�"),
        ('"#"', "#"),
    ],
)
def test_texts_say_what_their_escapes_stand_for(written: str, meant: str) -> None:
    assert parsed(f"t: {written}").text("t") == meant


@pytest.mark.parametrize(("word", "meant"), [("true", True), ("f", False), ("1", True)])
def test_truths_are_words_or_numbers(word: str, meant: bool) -> None:
    assert parsed(f"flag: {word}").flag("flag", not meant) is meant


def test_words_of_an_enumeration_may_be_numbers() -> None:
    pools = {"MAX": 0, "AVE": 1}
    assert parsed("pool: AVE").word("pool", pools, "MAX") == "AVE"
    assert parsed("pool: 1").word("pool", pools, "MAX") == "AVE"
    assert parsed("").word("pool", pools, "MAX") == "MAX"


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("a {\n  b: 1", "net.prototxt:1:1", "`a` is never closed"),
        ("a: 1\n}", "net.prototxt:2:1", "expected the name of a field"),
        ("a 1", "net.prototxt:1:3", "expected `:` or `{` behind `a`"),
        ("a:\n\n ]", "net.prototxt:3:2", "expected a value of `a`"),
        ("a: [1 2]", "net.prototxt:1:7", "expected `,` or `]` in a list"),
        ("a: 1\nb: \x01", "net.prototxt:2:4", "this is no text of Caffe's"),
        ('a: "\n"', "net.prototxt:1:4", "this is no text of Caffe's"),
        (r'a: "\q"', "net.prototxt:1:4", r"`\q` stands for no character"),
        (r'a: "\777"', "net.prototxt:1:4", r"`\777` stands for no character"),
        ("a: 1.2.3", "net.prototxt:1:4", "this is no text of Caffe's"),
        ("a { " * (MAX_DEPTH + 2), "net.prototxt:1:", "messages more than 32 deep"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_column(text: str, place: str, told: str) -> None:
    assert f"--> {place}" in mistake(text)
    assert told in mistake(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("n: 1 n: 2", "`n` stands here twice"),
        ("n: 1.5", "`n` is a whole number from 1 to 9"),
        ("n: 10", "`n` is a whole number from 1 to 9"),
        ("n: 1000000000000000000000000000000000000", "`n` is a whole number from 1 to 9"),
        ('n: "1"', "`n` is a whole number from 1 to 9"),
        ("n { }", "`n` is a value, not a message"),
    ],
)
def test_a_field_of_another_kind_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed(text).whole("n", 1, 1, 9)
    assert told in str(caught.value)


def test_an_unknown_field_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UserError) as caught:
        parsed("kernal_size: 3").require_known(("kernel_size", "pad"), "`pooling_param`")
    assert "Caffe has no `kernal_size` in `pooling_param`" in str(caught.value)
    assert "did you mean `kernel_size`?" in str(caught.value)
