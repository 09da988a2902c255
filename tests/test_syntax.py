"""The language: what it accepts, how it is written, that writing and reading agree."""

from __future__ import annotations

import contextlib
import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggc.diagnostics import UserError
from vggc.driver import Program
from vggc.source import Source
from vggc.syntax.ast import Group, Layer, Net, Repeat, layers
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse


def read(text: str) -> Net:
    return parse(Source("test.vgg", text))


def words(text: str) -> list[str]:
    return [layer.word for layer in layers(read(f"net a input 3x8x8 {text}").body)]


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
    (layer,) = layers(net.body)
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


NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=6).filter(
    lambda name: name not in ("net", "input", "x")
)
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False)
).map(repr)
VALUES = st.one_of(NUMBERS, NAMES, st.just("3x224x224"), st.just("256..512"), st.just("1,2.5,a"))
OPTIONS = st.tuples(NAMES, VALUES).map("=".join)
COMMENTS = st.one_of(
    st.just(""), st.text(string.ascii_letters + " #|", max_size=8).map("#{}".format)
)
LAYERS = st.builds(
    lambda name, word, width, options: " ".join([f"{name}{word}3-{width}", *options]),
    st.one_of(st.just(""), NAMES.map("{}: ".format)),
    NAMES,
    st.integers(1, 999),
    st.lists(OPTIONS, max_size=2),
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
    return st.tuples(items, st.sampled_from(["", " ×2", " x3", " *4"])).map("".join)


BODIES = chains(
    st.recursive(
        repeated(LAYERS),
        lambda inner: repeated(chains(inner).map("({}\n)".format)),
        max_leaves=8,
    )
)
SETTINGS = st.builds(
    lambda key, values, comment: " ".join([key, *values, comment]),
    NAMES,
    st.lists(VALUES, max_size=2),
    COMMENTS,
)
BLOCKS = st.builds(
    lambda key, settings, comment: f"{key} {{ {comment}\n" + "\n".join(settings) + "\n}\n",
    NAMES,
    st.lists(SETTINGS, max_size=3),
    COMMENTS,
)
FILES = st.builds(
    lambda above, name, body, blocks, below: (
        f"{above}\nnet {name}\ninput 3x8x8\n{body}\n{''.join(blocks)}{below}"
    ),
    COMMENTS,
    NAMES,
    BODIES,
    st.lists(BLOCKS, max_size=2),
    COMMENTS,
)


@given(FILES)
def test_what_is_written_reads_as_what_it_was(text: str) -> None:
    net = read(text)
    assert read(format_net(net)) == net


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
