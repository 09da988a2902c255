"""Tables for terminals of any width: numbers and names stay whole."""

from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vggc.analysis.outline import outline
from vggc.cli import console, summary_text
from vggc.cli import zoo as zoo_command
from vggc.cli.sheet import PADDING, Sheet, fitted, longest
from vggc.program import from_zoo, load, zoo


def drawn(sheet: Sheet, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `console.sheet` prints on a terminal of a width."""
    text = StringIO()
    terminal = Console(file=text, width=width, highlight=False, color_system=None)
    monkeypatch.setattr(console, "stdout", lambda: terminal)
    console.sheet(sheet)
    return text.getvalue()


def sheets() -> dict[str, Sheet]:
    found = {}
    for name in ("vgg16", "vgg16_bn", "googlenet_aux", "resnet18"):
        program = load(name)
        report = program.report()
        net = summary_text.SummarisedNet(report, outline(program.graph, report))
        found[name] = summary_text.layers(net)
    found["zoo"] = zoo_command._sheet([from_zoo(name) for name in zoo()])
    return found


SHEETS = sheets()


@pytest.mark.parametrize("name", SHEETS)
@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_number_and_no_name_is_broken(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = SHEETS[name]
    found = fitted(sheet, width).sheet
    lines = drawn(sheet, width, monkeypatch).splitlines()
    cells = {cell for line in lines for cell in line.split("   ") for cell in [cell.strip()]}
    names = [row[0] for row in found.rows]
    numbers = [
        cell
        for row in found.rows
        for cell, is_number in zip(row, found.numbers, strict=True)
        if is_number and cell
    ]
    assert {*names, *numbers} <= {cell.rstrip() for cell in cells}
    table = lines[: len(lines) - len(sheet.notes)]
    assert max(map(len, table)) <= width


def test_a_wide_terminal_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(SHEETS["vgg16"], 160, monkeypatch)
    assert "No room for" not in text
    assert all(name in text for name in SHEETS["vgg16"].header)


def test_what_had_no_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(SHEETS["vgg16"], 80, monkeypatch)
    assert "No room for: stride, field, activations. A wider window shows more." in text


def test_texts_wrap_before_columns_go() -> None:
    row = "1", "one two three four"
    sheet = Sheet("", ("n", "what"), (row,), (True, False), spare=("n",))
    found = fitted(sheet, 4 * PADDING + 6)
    assert found.left_out == ()
    assert 9 <= found.widths[1] < 18


def test_a_name_without_room_is_cut_and_numbers_are_not() -> None:
    sheet = Sheet("", ("net", "n"), (("x" * 50, "1,000,000,000"),), (False, True))
    found = fitted(sheet, 40)
    assert (found.width, found.widths[1]) == (40, 13)
    assert fitted(sheet, 10).widths == (6, 13)


def test_a_long_name_above_numbers_leaves_room_for_those_of_rows() -> None:
    rows = ("parameters", "1,094,120"), ("receptive field", "31")
    sheet = Sheet("", ("", "n" * 64), rows, (False, True))
    found = fitted(sheet, 60)
    assert (found.width, found.widths[0]) == (60, len("receptive field"))
    assert fitted(sheet, 10).widths == (6, len("1,094,120"))


def test_headers_wrap_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    header = "net", "best top-1", "last top-1"
    sheet = Sheet("", header, (("x" * 40, "100.00", "99.00"),), (False, True, True))
    lines = drawn(sheet, 40, monkeypatch).splitlines()
    assert [line.split() for line in lines if line.strip()][:2] == [
        ["best", "last"],
        ["net", "top-1", "top-1"],
    ]


def test_a_character_that_is_two_columns_wide_counts_as_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sheet = Sheet("", ("", "网"), (("层" * 10, "1"),), (False, True))
    assert fitted(sheet, 60).widths == (20, 2)
    assert "层" * 10 in drawn(sheet, 60, monkeypatch)


CELL = st.text(st.sampled_from("ab 1,"), max_size=12)


@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=4),
    numbers=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    room=st.integers(1, 60),
)
def test_any_table_fits_or_keeps_its_numbers_whole(
    rows: list[tuple[str, str, str]], numbers: tuple[bool, bool, bool], room: int
) -> None:
    sheet = Sheet("", ("one", "two", "three"), tuple(rows), numbers, spare=("two",))
    found = fitted(sheet, room)
    for width, column, number in zip(
        found.widths, zip(*found.sheet.rows, strict=True), found.sheet.numbers, strict=True
    ):
        if number:
            assert width >= longest(column)
    if any(not number for number in numbers) and found.width > room:
        assert all(w <= 6 for w, n in zip(found.widths, found.sheet.numbers, strict=True) if not n)


def test_names_in_notes_and_cells_do_not_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "\x1b[31mred"
    table = Sheet(title=name, header=("a",), rows=((name,),), numbers=(False,), notes=(name,))
    shown = drawn(table, 80, monkeypatch)
    assert "\x1b" not in shown
    assert shown.count("�[31mred") == 3
