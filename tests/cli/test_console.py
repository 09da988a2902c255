"""How mistakes are coloured."""

from __future__ import annotations

import pytest

from vggc.cli import console
from vggc.support.diagnostics import Diagnostic
from vggc.support.source import Source, Span

RED, BLUE, END = "\x1b[31m", "\x1b[34m", "\x1b[0m"


class NamedTwice(Diagnostic):
    title = "two are called `{name}`"
    label = "the name is taken"
    second_label = "first named here"
    name: str


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> str:
    """A mistake with two places, the second of which looks like marks itself."""
    shown: list[str] = []
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("click.echo", lambda text, err: shown.append(text))
    source = Source("net.vgg", "-- one\n^^ two")
    places = {"place": Span(source, 10, 13), "second_place": Span(source, 3, 6)}
    console.diagnostics([NamedTwice("one", **places)])
    return shown[0]


def test_the_first_place_is_marked_in_red_and_the_second_in_blue(told: str) -> None:
    assert f"  |    {RED}^^^ the name is taken{END}" in told.splitlines()
    assert f"  |    {BLUE}--- first named here{END}" in told.splitlines()


def test_lines_of_the_file_are_left_as_they_are(told: str) -> None:
    assert "1 | -- one" in told.splitlines()
    assert "2 | ^^ two" in told.splitlines()
