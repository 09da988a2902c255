"""Files from outside are opened without waiting for anybody; new files and folders appear whole or
not at all, in nobody's place, under any name.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from vggc.support.diagnostics import UserError
from vggc.support.files import (
    CannotWrite,
    Taken,
    all_or_none,
    is_one_place,
    new_file,
    new_folder,
    refuse_irreplaceable,
    replacing,
    spelt,
)
from vggc.support.signals import Ended, raising
from vggc_runtime.files import open_file, sha256

Writing = Callable[[Path], AbstractContextManager[Path]]


def test_a_file_is_opened_and_so_is_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        with open_file(tmp_path / name) as file:
            assert file.read() == b"abc"
    assert sha256(tmp_path / "link").startswith("ba7816bf")


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "it is a named pipe, not a file"),
        (bound, "it is a socket, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (Path.mkdir, "it is a folder, not a file"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    make(Path("it"))
    with pytest.raises(OSError, match=reason):
        open_file(Path("it"))


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.touch()
    os.mkfifo(pipe)
    before = os.stat(file)
    monkeypatch.setattr("vggc.support.files.os.stat", lambda path: before)
    with pytest.raises(OSError, match="named pipe"):
        open_file(pipe)


@pytest.mark.parametrize("is_link", [False, True])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, is_link: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if is_link else pipe
    if is_link:
        path.symlink_to(pipe)
    with pytest.raises(UserError, match="it is a named pipe, not a file"), replacing(path):
        pass
    assert pipe.is_fifo()
    assert len(list(tmp_path.iterdir())) == 1 + is_link


# New files and folders

ODD = [b"caf\xe9", b"two\nlines", b"100%s", b"-o", b" ", b"n" * 255, "\N{SNOWMAN}".encode() * 85]
"""Names that a file may have: bytes that are no UTF-8, and others that need care."""


def odd(folder: Path, name: bytes) -> Path:
    return folder / os.fsdecode(name)


def refusal(work: Callable[[], object]) -> type:
    with pytest.raises(UserError) as caught:
        work()
    return type(caught.value.diagnostics[0])


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("way", [new_file, replacing])
@pytest.mark.parametrize("name", ODD)
def test_a_file_of_any_name_is_written_by_a_path_that_is_text(
    tmp_path: Path, way: Writing, name: bytes
) -> None:
    for folder in (tmp_path, odd(tmp_path, b"dossier\xe9")):
        folder.mkdir(exist_ok=True)
        with way(odd(folder, name)) as part:
            str(part).encode()
            part.write_text("whole")
        assert odd(folder, name).read_text() == "whole"
    assert len(listed(folder)) == 1


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name_is_made_by_a_path_that_is_text(tmp_path: Path, name: bytes) -> None:
    with new_folder(odd(tmp_path, name)) as part:
        str(part).encode()
        (part / "inside").write_text("whole")
    assert (odd(tmp_path, name) / "inside").read_text() == "whole"
    assert len(listed(tmp_path)) == 1


def test_a_place_of_any_name_has_a_path_that_is_text_for_other_processes_too(
    tmp_path: Path,
) -> None:
    folder = odd(tmp_path, b"caf\xe9")
    folder.mkdir()
    (folder / "x").write_text("here")
    with spelt(folder / "x") as path:
        assert subprocess.run(["cat", path], capture_output=True).stdout == b"here"
    with spelt(tmp_path / "plain") as path:
        assert path == tmp_path / "plain"


@pytest.mark.parametrize("way", [new_file, new_folder])
def test_of_two_that_write_one_new_place_the_second_is_refused(
    tmp_path: Path, way: Writing
) -> None:
    target = tmp_path / "new"

    def fill(place: Path, text: str) -> None:
        (place / "inside" if place.is_dir() else place).write_text(text)

    def second() -> None:
        with way(target) as part:
            with way(target) as other:
                fill(other, "first")
            fill(part, "second")

    assert refusal(second) is Taken
    assert (target / "inside" if target.is_dir() else target).read_text() == "first"
    assert listed(tmp_path) == ["new"]


def test_of_two_that_fill_one_empty_folder_the_second_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "empty"
    target.mkdir()

    def second() -> None:
        with new_folder(target) as part:
            (part / "b").touch()
            with new_folder(target) as other:
                (other / "a").touch()

    assert refusal(second) is Taken
    assert listed(target) == ["a"]
    assert listed(tmp_path) == ["empty"]


def test_a_file_system_without_second_names_takes_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    with new_file(tmp_path / "new") as part:
        part.write_text("whole")
    assert (tmp_path / "new").read_text() == "whole"

    def second() -> None:
        with new_file(tmp_path / "other") as part:
            part.write_text("second")
            (tmp_path / "other").write_text("first")

    assert refusal(second) is Taken
    assert (tmp_path / "other").read_text() == "first"
    assert listed(tmp_path) == ["new", "other"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("way", [new_file, new_folder, replacing])
def test_what_cannot_be_written_is_told_of_the_path_that_it_was_to_have(
    tmp_path: Path, way: Writing, name: bytes
) -> None:
    place = odd(tmp_path, name)
    with pytest.raises(UserError) as caught, way(place) as part:
        raise UserError(CannotWrite(str(part), "No space left on device"))
    assert caught.value.diagnostics == (CannotWrite(str(place), "No space left on device"),)
    with (
        pytest.raises(UserError) as caught,
        new_folder(place) as part,
        replacing(part / "in") as file,
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
    inside = str(place / "in")
    assert caught.value.diagnostics == (CannotWrite(inside, "No space left on device"),)
    with pytest.raises(UserError) as caught, way(place):
        raise UserError(CannotWrite(str(tmp_path / "else"), "no reason"))
    assert caught.value.diagnostics == (CannotWrite(str(tmp_path / "else"), "no reason"),)


def test_of_files_that_belong_together_all_stay_or_none(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"

    def fails(error: type[BaseException]) -> None:
        with all_or_none() as made:
            first.touch()
            made.append(first)
            second.write_text("another's")
            raise error

    for error in (KeyError, KeyboardInterrupt):
        with pytest.raises(error):
            fails(error)
        assert listed(tmp_path) == ["second"]
    with all_or_none() as made:
        first.touch()
        made.append(first)
    assert listed(tmp_path) == ["first", "second"]


def test_paths_to_one_place_are_known_as_such(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    assert is_one_place([tmp_path / "in" / "a", tmp_path / "link" / "a"])
    assert is_one_place([tmp_path / "a", tmp_path / "b", tmp_path / "in" / ".." / "a"])
    assert not is_one_place([tmp_path / "a", tmp_path / "in" / "a"])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "it is a named pipe, not a file"),
        (bound, "it is a socket, not a file"),
        (Path.mkdir, "it is a folder, not a file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_nothing_but_a_file_is_replaced_also_where_a_link_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    make(Path("it"))
    before = os.lstat("it")
    Path("link").symlink_to("it")
    for name in ("it", "link"):
        for way in (replacing(Path(name)), checked(Path(name))):
            with pytest.raises(UserError, match=reason), way:
                pass
    assert os.path.samestat(os.lstat("it"), before)
    assert listed(tmp_path) == ["it", "link"]


@contextmanager
def checked(path: Path) -> Iterator[None]:
    refuse_irreplaceable(path)
    yield


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(UserError, match="it is a device, not a file"):
        refuse_irreplaceable(Path("/dev/zero"))


def test_a_file_that_a_link_leads_to_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    for text in ("new", "again"):
        with replacing(tmp_path / "link") as part:
            part.write_text(text)
        assert (tmp_path / "file").read_text() == text
        (tmp_path / "file").chmod(0o640)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link").is_symlink()


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    for way in (new_file, new_folder, replacing):
        with pytest.raises(KeyError), way(tmp_path / "new"):
            raise KeyError
    assert listed(tmp_path) == []


@pytest.mark.parametrize("made", ["mkdtemp", "mkstemp"])
def test_a_signal_leaves_nothing_that_was_just_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    """It comes while the system makes the temporary file or folder."""
    original = getattr(tempfile, made)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(tempfile, made, interrupted)
    writing = new_folder if made == "mkdtemp" else replacing
    with pytest.raises(Ended), raising(), writing(tmp_path / "new"):
        raise AssertionError("the signal is to come first")
    assert not [*tmp_path.iterdir()]
