"""Paths that lead to nothing, in every place where a command takes one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.nets import compile_tiny
from vggc.support.paths import absence, exists, is_file, is_folder

Here = Callable[..., tuple[object, str, str]]

LONG = "x" * 300


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A file, a folder, a circle of links, a folder that nobody may read, and an artifact, where
    others than their owner may look: in pytest's own folder they may not.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        fill(folder)
        yield folder


def fill(folder: Path) -> None:
    (folder / "file.txt").write_text("text")
    (folder / "folder").mkdir()
    (folder / "one").symlink_to("other")
    (folder / "other").symlink_to("one")
    (folder / "shut").mkdir()
    (folder / "shut" / "in").write_text("text")
    (folder / "shut").chmod(0)
    (folder / "net.vgg").write_text("net tiny input 3x8x8\n conv3-4 | gap | fc-3")
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    compile_tiny(folder / "art", 1)


PATHS = {
    "missing": "missing",
    "long": LONG,
    "long folder": f"{LONG}/x",
    "too long": "/".join(["x" * 100] * 60),
    "through a file": "file.txt/x",
    "circle": "one",
    "shut": "shut/in",  # which root may read all the same, and finds to be no net and no image
}

COMMANDS: dict[str, list[str]] = {
    "check": ["check", "PATH"],
    "summary": ["summary", "PATH"],
    "summary of arguments": ["summary", "PATH(width=0.5)"],
    "draw": ["draw", "PATH", "-o", "open/net.svg"],
    "draw out": ["draw", "net.vgg", "-o", "PATH/../net.svg"],
    "draw into": ["draw", "net.vgg", "-o", "PATH/net.svg"],
    "fmt": ["fmt", "PATH"],
    "train": ["train", "PATH"],
    "train data": ["train", "net.vgg", "--data", "PATH"],
    "train val": ["train", "net.vgg", "--data", "folder", "--val", "PATH"],
    "resume": ["train", "--resume", "PATH"],
    "init-from": [
        *("train", "net.vgg", "--data", "folder", "--set", "init-from=vgg11"),
        *("--set", "init-from.layers=conv1_1", "--init-from", "PATH"),
    ],
    "eval": ["eval", "PATH"],
    "predict": ["predict", "PATH", "file.txt"],
    "predict image": ["predict", "art", "PATH"],
    "report": ["report", "PATH"],
    "compile": ["compile", "PATH", "-o", "open/art"],
    "compile weights": ["compile", "net.vgg", "--weights", "PATH", "-o", "open/art"],
    "run": ["run", "PATH", "--input", "file.txt"],
    "run input": ["run", "art", "--input", "PATH"],
    "run npy": ["run", "art", "--input", "PATH.npy"],
    "verify": ["verify", "PATH"],
    "verify data": ["verify", "art", "--data", "PATH"],
    "verify weights": ["verify", "art", "--weights", "PATH"],
    "bench": ["bench", "PATH"],
    "tune": ["tune", "PATH", "--db", "open/db"],
    "export": ["export", "PATH", "-o", "open/net.onnx"],
    "export out": ["export", "net.vgg", "-o", "PATH/net.onnx"],
    "import": ["import", "PATH", "-o", "open/net"],
    "import out": ["import", "file.txt", "-o", "PATH/net"],
}


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may read and write everywhere, and most people are not root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_path_that_leads_to_nothing_is_a_mistake_like_any_other(
    place: Path, vggc_here: Here, monkeypatch: pytest.MonkeyPatch, command: list[str], path: str
) -> None:
    monkeypatch.chdir(place)
    before = sorted(os.listdir("open"))
    code, out, error = vggc_here(*(word.replace("PATH", path) for word in command))
    assert (code, out) == (2, ""), error
    assert "error: " in error
    assert "internal error" not in error
    assert sorted(os.listdir("open")) == before


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("missing", "file", "there is no such file"),
        ("missing", "folder", "there is no such folder"),
        (LONG, "file", "no file can have so long a name"),
        ("file.txt/x", "file", "there is no such file: its path leads through a file"),
        ("one", "file", "its path is a link that leads in a circle"),
        ("shut/in", "file", "it lies in a folder that may not be read"),
        ("a\0b", "folder", "no folder can have a name with a NUL character"),
        ("folder", "file", "it is a folder"),
        ("file.txt", "folder", "it is a file"),
        ("/dev/null", "file", "it is not a file"),
    ],
)
@pytest.mark.usefixtures("nobody")
def test_it_is_told_why_there_is_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str, words: str
) -> None:
    monkeypatch.chdir(place)
    assert absence(path, kind) == words
    assert exists(path) == (path in ("folder", "file.txt", "/dev/null"))
    assert is_file(path) == (path == "file.txt")
    assert is_folder(path) == (path == "folder")


@pytest.mark.parametrize("command", [["summary", "net.vgg"], ["train", "vgg11"], ["compile"]])
def test_a_folder_that_is_gone_is_told(
    tmp_path: Path, vggc_here: Here, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    shutil.rmtree(gone)
    code, _, error = vggc_here(*command)
    assert code == 2
    assert "internal error" not in error
