"""Every mistake in a spec has one exact message: `diagnostics/NAME.vgg` and its `.err`.

After a change of wording: `UPDATE_GOLDEN=1 pytest tests/test_diagnostics.py`, then read
the difference aloud.
"""

from __future__ import annotations

import os
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

import vggc
from vggc.diagnostics import Diagnostic, UserError, render
from vggc.driver import Program
from vggc.layers import mistakes as layer_mistakes
from vggc.source import Source
from vggc.syntax import mistakes as syntax_mistakes
from vggc.syntax.parse import MAX_FILE_BYTES, parse, read_source

FOLDER = Path(__file__).parent / "diagnostics"
SPECS = sorted(FOLDER.glob("*.vgg"))
OF_FILES = {
    syntax_mistakes.FileMissing,
    syntax_mistakes.FileUnreadable,
    syntax_mistakes.FileTooLarge,
    syntax_mistakes.FileBinary,
}
"""Not of a text: tested below by themselves."""


def mistakes_in(path: Path) -> tuple[Diagnostic, ...]:
    with pytest.raises(UserError) as caught:
        Program(parse(Source(path.name, path.read_bytes().decode()))).check()
    return caught.value.diagnostics


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_message_of_a_mistake_is_exactly_this(path: Path) -> None:
    text = "\n\n".join(map(render, mistakes_in(path))) + "\n"
    golden = path.with_suffix(".err")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


@pytest.mark.parametrize("module", [syntax_mistakes, layer_mistakes])
def test_no_mistake_is_without_a_golden(module: object) -> None:
    kinds = {
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Diagnostic) and kind is not Diagnostic
    }
    seen = {type(problem) for path in SPECS for problem in mistakes_in(path)}
    assert kinds - seen - OF_FILES == set()


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_source(path, hint="the zoo has `vgg16`")
    return str(caught.value)


def test_a_missing_file_is_named_with_a_suggestion(tmp_path: Path) -> None:
    text = message(tmp_path / "vg16.vgg")
    assert text.startswith(f"error: no such file: {tmp_path}/vg16.vgg")
    assert "the zoo has `vgg16`" in text


def test_a_folder_is_not_a_spec(tmp_path: Path) -> None:
    assert "Is a directory" in message(tmp_path)


def test_a_binary_file_is_refused_at_its_first_strange_byte(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"net a\xff\xfe")
    assert "byte 5 is not UTF-8 text" in message(path)
    path.write_bytes(b"net\0a")
    assert "byte 3 is not UTF-8 text" in message(path)


def test_a_file_of_50_mb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.vgg"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    text = message(path)
    assert "50,000,000 bytes" in text
    assert f"{MAX_FILE_BYTES:,}" in text


# ---------------------------------------------------------------- mistakes not of a text

ROOMS = (
    "vggc.cli.subject",
    "vggc.deploy.mistakes",
    "vggc.deploy.targets",
    "vggc.driver",
    "vggc.export",
    "vggc.files",
    "vggc.layers.edit",
    "vggc.weights",
)


def kinds_in(room: str) -> list[type[Diagnostic]]:
    """The mistakes that a module defines."""
    members = vars(import_module(room)).values()
    kinds = [kind for kind in members if isinstance(kind, type) and kind.__module__ == room]
    return [kind for kind in kinds if issubclass(kind, Diagnostic)]


def sample(kind: type[Diagnostic]) -> Diagnostic:
    """One with each field's own name in the place of words, and a number for numbers."""
    values = {"str": "‹{}›".format, "int": lambda _: 1234, "float": lambda _: 5.678}
    rest = [field for field in fields(kind) if field.name != "span"]
    return kind(None, *(values[str(field.type)](field.name) for field in rest))


@pytest.mark.parametrize(
    "kind", [kind for room in ROOMS for kind in kinds_in(room)], ids=lambda kind: kind.__name__
)
def test_the_wording_of_a_mistake_is_exactly_this(kind: type[Diagnostic]) -> None:
    golden = FOLDER / "wording" / f"{kind.__name__}.err"
    text = render(sample(kind)) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def test_no_room_is_left_out() -> None:
    """Every mistake of the program is in a room that is held to its wording."""
    for path in Path(vggc.__file__).parent.rglob("*.py"):
        name = ".".join(
            ["vggc", *path.relative_to(Path(vggc.__file__).parent).with_suffix("").parts]
        )
        if "(Diagnostic):" in path.read_text("utf-8"):
            elsewhere = ("vggc.syntax.mistakes", "vggc.layers.mistakes", "vggc.training.mistakes")
            assert name in (*ROOMS, *elsewhere), name
