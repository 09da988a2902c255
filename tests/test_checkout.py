"""The checkout: README keeps its word, the wheel is complete, tests stand by their packages."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from itertools import takewhile
from pathlib import Path

import click
import pytest

from tests.support import ROOT
from vggc.cli import COMMANDS, cli
from vggc.program import zoo
from vggc_runtime.version import __version__

README = (ROOT / "README.md").read_text("utf-8")
TRAIN = "pip install -c constraints.txt -e . && vggc train zoo/vgg19.vgg"
TEST = "pip install -c constraints.txt -e '.[test]' && pytest"


def test_readme_begins_with_two_commands_that_do_all_their_own_setup() -> None:
    commands = re.findall(r"(?m)^    (pip install .*)$", README)
    assert commands == [TRAIN, TEST]


def test_continuous_integration_runs_readmes_test_command() -> None:
    assert f'bash -c "{TEST}"' in (ROOT / ".ci" / "run").read_text("utf-8")


def test_readme_shows_the_zoo_file_as_it_is() -> None:
    spec = (ROOT / "zoo" / "vgg19.vgg").read_text("utf-8").rstrip()
    indented = "\n".join(f"    {line}".rstrip() for line in spec.splitlines())
    assert indented in README


def test_readme_names_every_command_and_every_net() -> None:
    assert all(f"vggc {name}" in README for name in COMMANDS)
    assert all(f"`{name}`" in README for name in zoo())


@pytest.mark.parametrize("page", ["README.md", "docs/importing.md"])
def test_every_command_in_a_box_is_one(page: str) -> None:
    """As far as its words tell: the command, its options and their values."""
    text = (ROOT / page).read_text("utf-8").replace("\\\n", "")
    found = re.findall(r"(?m)^    (?:\$ )?vggc (\S+)(.*)$", text)
    assert len(found) >= 10
    for name, rest in found:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        words = takewhile(lambda word: word != "&&", shlex.split(rest, comments=True))
        command.make_context(name, list(words))


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("editors/*.md")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_a_page_points_at_is_there(page: Path) -> None:
    """A file, or a heading as GitHub names it: in lower case, words joined, without signs."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text("utf-8")):
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading:
            headings = re.findall(r"(?m)^#+ (.+)$", file.read_text("utf-8"))
            assert heading in [
                re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings
            ]


def test_each_package_has_a_folder_of_tests_named_like_it() -> None:
    """Those of `support` are in `support_package`: in `support` is what tests share. Folders
    without tests hold what tests of the whole read. `native` is written in C.
    """
    sources = [*(ROOT / "vggc").glob("*/__init__.py"), *(ROOT / "vggc").glob("*/*.c")]
    packages = {path.parent.name for path in sources} | {"vggc_runtime"}
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")} - {ROOT / "tests"}
    assert {folder.parent for folder in folders} == {ROOT / "tests"}
    assert {folder.name for folder in folders} == packages - {"support"} | {"support_package"}


def test_no_test_imports_another() -> None:
    """What two of them need stands in tests/support."""
    for path in (ROOT / "tests").rglob("*.py"):
        imported = re.findall(r"(?m)^\s*(?:from|import) .*\btest_\w+", path.read_text("utf-8"))
        assert imported == [], path


def wheel_of(source: Path, folder: Path) -> Path:
    """The wheel that pip builds of a source, in a new folder."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def files_in(wheel: Path) -> set[str]:
    """What a wheel installs, but for what describes it."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def files_of(sources: dict[str, str]) -> set[str]:
    """The files of folders of the checkout, by the places that a wheel has them in."""
    return {
        f"{place}/{path.relative_to(ROOT / source).as_posix()}"
        for source, place in sources.items()
        for path in (ROOT / source).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name != "pyproject.toml"
    }


@pytest.mark.slow
def test_the_wheel_of_what_runs_nets_holds_that_package_alone(tmp_path: Path) -> None:
    wheel = wheel_of(ROOT / "vggc_runtime", tmp_path)
    assert wheel.name.startswith(f"vggc_runtime-{__version__}-py3-none-any")
    assert files_in(wheel) == files_of({"vggc_runtime": "vggc_runtime"})
    (needed,) = (n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("/METADATA"))
    metadata = zipfile.ZipFile(wheel).read(needed).decode()
    assert re.findall(r"(?m)^Requires-Dist: (.*)$", metadata) == ["numpy>=2", "pillow>=12"]
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert {"numpy>=2", "pillow>=12"} < {*tomllib.load(file)["project"]["dependencies"]}


@pytest.mark.slow
def test_the_wheel_holds_the_packages_the_grammar_and_the_zoo_and_works(tmp_path: Path) -> None:
    wheel = wheel_of(ROOT, tmp_path)
    assert files_in(wheel) == files_of(
        {
            "vggc": "vggc",
            "vggc_runtime": "vggc_runtime",
            "grammars": "vggc/_data/grammars",
            "zoo": "vggc/_data/zoo",
        }
    )
    away = tmp_path / "away"
    zipfile.ZipFile(wheel).extractall(away)
    for arguments, printed in (
        (["zoo"], "vgg16"),
        (["summary", "vgg19", "--format", "csv"], "conv5_4"),
        (["check", "vgg16"], "vgg16: ok"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "vggc", *arguments],
            cwd=away,
            env={**os.environ, "PYTHONPATH": str(away)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert printed in done.stdout
