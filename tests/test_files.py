"""Files from outside are opened without waiting for anybody."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vggc.files import open_file, sha256


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
    monkeypatch.setattr("vggc.files.os.stat", lambda path: before)
    with pytest.raises(OSError, match="named pipe"):
        open_file(pipe)
