"""The language: what it accepts, how it is written, that writing and reading agree."""

from __future__ import annotations

import contextlib
import json
import re
import string
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lark import Lark

from vggc.program import Program
from vggc.support.diagnostics import UserError
from vggc.support.resources import resource
from vggc.support.source import Source
from vggc.syntax import tables
from vggc.syntax.ast import Body, Group, Layer, Net, Repeat
from vggc.syntax.format import format_net
from vggc.syntax.parse import _BreaksInBlocks, parse


def read(text: str) -> Net:
    return parse(Source("test.vgg", text))


def unrolled(body: Body) -> list[str]:
    found: list[str] = []
    for item in body:
        match item:
            case Layer():
                found.append(item.word)
            case Group():
                found += unrolled(item.body)
            case Repeat(item=inner, count=int(count)):
                found += unrolled((inner,)) * count
    return found


def words(text: str) -> list[str]:
    return unrolled(read(f"net a input 3x8x8 {text}").body)


def test_layers_are_separated_by_bars_and_rows_may_begin_with_one() -> None:
    assert words("conv3-8 | pool\n| fc-10") == ["conv3-8", "pool", "fc-10"]
    assert words("\n| conv3-8\n| pool") == ["conv3-8", "pool"]


@pytest.mark.parametrize("times", ["×2", "x2", "*2", "× 2", "x 2", "* 2"])
def test_three_signs_repeat_a_layer(times: str) -> None:
    assert words(f"conv3-8 {times} | pool") == ["conv3-8", "conv3-8", "pool"]


def test_groups_repeat_and_nest() -> None:
    assert words("((fc-8 | dropout) ×2 | relu) x2") == ["fc-8", "dropout"] * 2 + ["relu"] + [
        "fc-8",
        "dropout",
    ] * 2 + ["relu"]


def test_names_options_and_places_are_kept() -> None:
    net = read("net a\ninput 3x8x8\n\n  stem: conv3-8 stride=2 act=none\n")
    (layer,) = net.body
    assert isinstance(layer, Layer)
    assert (layer.name, layer.word) == ("stem", "conv3-8")
    assert [str(option) for option in layer.options] == ["stride=2", "act=none"]
    assert str(layer.span) == "test.vgg:4:3"
    assert layer.options[1].span.text == "act=none"


def test_a_file_with_windows_line_ends_and_a_byte_order_mark_reads_the_same() -> None:
    text = "net a\ninput 3x8x8\n\n  conv3-8 | pool\n\ntrain {\n  batch 8\n}\n"
    assert read(text.replace("\n", "\r\n")) == read(text)


def test_the_canonical_form_lines_up_rows_of_the_same_length() -> None:
    net = read(
        "net a # about\ninput 3x32x32\nconv3-8 x2|pool # first\n# then\n|conv3-128|pool\n"
        "|(fc-10 |dropout)*2\ntrain{batch 8;sgd lr=.01 weight-decay=0.0005;scale 8..16}\n# end"
    )
    assert format_net(net) == (
        "net a  # about\n"
        "input 3x32x32\n"
        "\n"
        "  conv3-8   ×2 | pool  # first\n"
        "# then\n"
        "| conv3-128    | pool\n"
        "| (fc-10 | dropout) ×2\n"
        "\n"
        "train {\n"
        "  batch 8\n"
        "  sgd lr=0.01 weight-decay=5e-4\n"
        "  scale 8..16\n"
        "}\n"
        "\n"
        "# end\n"
    )


KEYWORDS = ("net", "input", "from", "let", "every", "set", "after", "before", "insert")
KEYWORDS += ("replace", "with", "remove", "head", "round", "x")
NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=6).filter(
    lambda name: name not in KEYWORDS
)
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False)
).map(repr)
VALUES = st.one_of(NUMBERS, NAMES, st.sampled_from(["3x224x224", "256..512", "8px", "10%"]))
LISTS = st.one_of(VALUES, st.just("1,2.5,a"))
COMMENTS = st.one_of(
    st.just(""), st.text(string.ascii_letters + " #|", max_size=8).map("#{}".format)
)


def options(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.tuples(NAMES, values).map("=".join), max_size=2)


LAYERS = st.builds(
    lambda name, word, width, options: " ".join([f"{name}{word}3-{width}", *options]),
    st.one_of(st.just(""), NAMES.map("{}: ".format)),
    NAMES,
    st.one_of(st.integers(1, 999), NAMES),
    options(VALUES),
)


def chain(items: Sequence[tuple[str, str]]) -> str:
    text = ""
    for index, (item, comment) in enumerate(items):
        bar = "| " if index else ""
        text += f"{bar}{item} {comment}\n" if comment else f"{bar}{item} "
    return text


def chains(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(items, COMMENTS), min_size=1, max_size=4).map(chain)


def repeated(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(items, st.sampled_from(["", " ×2", " x3", " *4", " ×n"])).map("".join)


def join(layer: str, paths: list[str]) -> str:
    return f"{layer} ({', '.join(paths)})"


BODIES = chains(
    st.recursive(
        st.one_of(repeated(LAYERS), NAMES.map("@{}".format)),
        lambda inner: st.one_of(
            repeated(chains(inner).map("({}\n)".format)),
            repeated(st.builds(join, LAYERS, st.lists(chains(inner), min_size=1, max_size=3))),
        ),
        max_leaves=8,
    )
)
SUMS = st.recursive(
    st.one_of(st.integers(-99, 99).map(str), NAMES),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("round({})".format),
    ),
    max_leaves=6,
)
SELECTORS = st.one_of(NAMES, NAMES.map("every {}".format), st.just("conv1_1..fc6"))
LETS = st.builds("let {} = {} {}\n".format, NAMES, SUMS, COMMENTS)
EVERYS = st.builds("every {} {}=1 {}\n".format, NAMES, NAMES, COMMENTS)
EDITS = st.one_of(
    st.builds("set {} {}={} {}\n".format, NAMES, NAMES, VALUES, COMMENTS),
    st.builds("after {} insert {}\n".format, SELECTORS, BODIES),
    st.builds("before {} insert {}\n".format, SELECTORS, BODIES),
    st.builds("replace {} with {}\n".format, SELECTORS, BODIES),
    st.builds("remove {} {}\n".format, SELECTORS, COMMENTS),
)
HEADS = st.builds("head {}: {}\n".format, NAMES, BODIES)
SETTINGS = st.builds(
    lambda key, values, options, comment: " ".join([key, *values, *options, comment]),
    NAMES,
    st.lists(LISTS, max_size=2),
    options(LISTS),
    COMMENTS,
)
BLOCKS = st.builds(
    lambda key, settings, comment: f"{key} {{ {comment}\n" + "\n".join(settings) + "\n}\n",
    NAMES,
    st.lists(SETTINGS, max_size=3),
    COMMENTS,
)
ARGUMENTS = options(VALUES.filter(lambda text: text not in ("3x224x224", "256..512"))).map(
    lambda found: f"({', '.join(found)})" if found else ""
)


def some(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, max_size=2).map("".join)


WRITTEN_OUT = st.builds(
    "net {}{} {}\ninput 3x8x8 {}\n{}{}\n{}".format,
    NAMES,
    ARGUMENTS,
    COMMENTS,
    COMMENTS,
    some(st.one_of(LETS, EVERYS)),
    BODIES,
    some(HEADS),
)
DERIVED = st.builds(
    "net {}{} from {}{} {}\n{}{}".format,
    NAMES,
    ARGUMENTS,
    NAMES,
    ARGUMENTS,
    COMMENTS,
    some(st.one_of(LETS, EVERYS, EDITS)),
    some(HEADS),
)
FILES = st.builds(
    "{}\n{}{}{}".format, COMMENTS, st.one_of(WRITTEN_OUT, DERIVED), some(BLOCKS), COMMENTS
)


@given(FILES)
def test_what_is_written_reads_as_what_it_was(text: str) -> None:
    net = read(text)
    assert read(format_net(net)) == net


def comments(text: str) -> str:
    """What all comments say, in order, without blanks and without where they stand."""
    return "".join("".join(re.findall(r"#(.*)", text)).replace("#", "").split())


@given(FILES)
def test_no_comment_is_lost_on_the_way_to_the_canonical_form(text: str) -> None:
    assert sorted(comments(format_net(read(text)))) == sorted(comments(text))


COMMENTED = """\
net a  # net
## Section
input 3x8x8

  conv3-8 stride=2 act=none  # as in ResNet
# why
| gap
| fc-3

head b:  # bh
    @conv1_1
  | gap  # g
"""


def test_comments_stay_with_what_they_stand_by() -> None:
    text = COMMENTED.replace(
        "stride=2 act=none  # as in ResNet", "stride=2 # as in ResNet\n act=none"
    )
    text = text.replace("# why\n| gap\n| fc-3", "| # why\n gap\n| fc-3")
    assert format_net(read(text)) == COMMENTED
    assert format_net(read(COMMENTED)) == COMMENTED


@pytest.mark.parametrize("start", ["head h:", "replace conv1_1 with", "after conv1_1 insert"])
@pytest.mark.parametrize("last", ["relu ×2", "(relu | lrn) ×2", "relu", "add(skip, relu ×2)"])
def test_a_comment_behind_a_chain_stays_with_its_last_layer(start: str, last: str) -> None:
    text = f"net a from b\n\n{start}\n    conv3-4 | relu\n  | {last}  # why\n"
    assert format_net(read(text)) == text


def test_one_long_cell_does_not_make_all_rows_long() -> None:
    options = " ".join(["slope=0.1"] * 900)
    rows = f"leaky {options} | relu\n" + "| relu | relu\n" * 900
    assert len(format_net(read(f"net a input 3x8x8\n{rows}"))) < 30_000


@given(FILES)
def test_the_canonical_form_stays_as_it_is(text: str) -> None:
    canonical = format_net(read(text))
    assert format_net(read(canonical)) == canonical


@given(st.one_of(st.text(max_size=60), FILES.flatmap(lambda t: st.permutations(t).map("".join))))
def test_no_text_gives_anything_but_a_net_or_a_diagnostic(text: str) -> None:
    with contextlib.suppress(UserError):
        Program(read(text)).check()


@pytest.mark.parametrize("number", ["conv3-{}", "conv{}-8", "conv3-8 ×{}", "conv3-8 stride={}"])
def test_a_number_of_5000_digits_is_a_mistake(number: str) -> None:
    with pytest.raises(UserError):
        Program(read(f"net a input 3x8x8 {number.format('9' * 5000)}")).check()


def test_a_tree_knows_its_pieces() -> None:
    net = read("net a input 3x8x8 (conv3-8 | pool) ×2 | fc-10")
    repeat, last = net.body
    assert isinstance(repeat, Repeat)
    assert isinstance(repeat.item, Group)
    assert isinstance(last, Layer)


def test_the_parsers_tables_are_those_of_the_grammar() -> None:
    """After a change of the grammar: `python -m vggc.syntax.tables`."""
    stored = json.loads(resource("grammars", tables.TABLES).read_text("utf-8"))
    assert stored["grammar"] == resource("grammars", "vgg.lark").read_text("utf-8")


@given(FILES)
def test_a_grammar_without_its_tables_reads_the_same(text: str) -> None:
    """As it is read where Lark is of another version than the one that made them."""
    assert slow_parser().parse(text, start="start").data == "net"
    assert read(text)


@cache
def slow_parser() -> Lark:
    text = resource("grammars", "vgg.lark").read_text("utf-8")
    return Lark(text, parser="lalr", start=tables.STARTS, postlex=_BreaksInBlocks())
