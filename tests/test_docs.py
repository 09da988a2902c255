"""What the documents show is what happens: each file checks, each command prints just that."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import DOCS, Example, examples
from vggc.program import load
from vggc.support.source import Source
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse


def run(command: str, folder: Path) -> str:
    """What a line of shell prints, errors with it, and its exit code where that is not 0."""
    shell = command.replace("vggc ", f"{sys.executable} -m vggc ", 1)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(DOCS.parent), "NO_COLOR": "1"},
        check=False,
    )
    code = f"[exit {done.returncode}]\n" if done.returncode not in (0, 141) else ""
    return done.stdout + code


def session(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console box, each with what is said to come of it."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def lines(text: str) -> list[str]:
    """Without the blanks that tables are filled up with."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


PAGE = list(examples("language.md"))
COMMANDS = "".join(example.text for example in PAGE if example.language == "console")


def test_every_command_prints_just_that(tmp_path: Path) -> None:
    """Boxes build on one another, as the reader goes."""
    for example in PAGE:
        if example.language == "vgg":
            (tmp_path / example.name).write_text(example.text, "utf-8")
        else:
            for command, printed in session(example.text):
                assert lines(run(command, tmp_path)) == lines(printed), command


def test_every_file_is_right_unless_its_mistake_is_shown(tmp_path: Path) -> None:
    files = {example.name: example.text for example in PAGE if example.language == "vgg"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    mistaken = [name for name in files if f"--> {name}:" in COMMANDS]
    assert len(files) - len(mistaken) > 10
    for name in files.keys() - mistaken:
        load(str(tmp_path / name)).check()


@pytest.mark.parametrize(
    "example",
    [e for e in PAGE if e.language == "vgg" and f"--> {e.name}:" not in COMMANDS],
    ids=lambda example: example.name,
)
def test_every_file_is_in_canonical_form_unless_it_is_formatted_next(example: Example) -> None:
    formatted = format_net(parse(Source(example.name, example.text)))
    assert (formatted == example.text) == (example is not PAGE[0])


README = (DOCS.parent / "README.md").read_text("utf-8")


def test_readmes_tour_of_the_language_is_true(tmp_path: Path) -> None:
    boxes = [
        re.sub("(?m)^    ", "", match[0]) for match in re.finditer("(?m)^(?:    .*\n|\n)+", README)
    ]
    nets = [box for box in boxes if re.search("(?m)^net ", box)]
    assert len(nets) == 3
    for net in nets:
        path = tmp_path / "tour.vgg"
        path.write_text(net, "utf-8")
        load(str(path)).check()
    (shown,) = [box for box in boxes if "$ vggc check" in box]
    (row,) = re.findall(r"(?m)^4 \|(.*)$", shown)
    (tmp_path / "mine.vgg").write_text(f"net mine\ninput 3x32x32\n\n{row[1:]}\n", "utf-8")
    printed = run("vggc check mine.vgg", tmp_path).replace("[exit 2]\n", "")
    assert lines(printed) == lines(shown.partition("mine.vgg\n")[2])


def test_boxes_are_files_or_commands() -> None:
    assert {example.language for example in PAGE} == {"vgg", "console"}
