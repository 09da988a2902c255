"""One process at a time trains into a run's folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vggc.support.diagnostics import UserError
from vggc.support.files import CannotWrite
from vggc.training import diagnostics
from vggc.training.hold import LOCK, alone

HOLDER = """
import sys
from pathlib import Path
from vggc.training.hold import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Within it another process holds a folder, unless it is ended before."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other
        if other.poll() is None:
            other.communicate()


def refusal(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught, alone(folder):
        pass
    return caught.value


def test_a_folder_is_held_by_one_process_which_is_named(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as other:
        (found,) = refusal(tmp_path).diagnostics
        assert isinstance(found, diagnostics.RunInUse)
        assert re.fullmatch(
            rf"process {other.pid} on \S+, since \d+-\d\d-\d\d \d\d:\d\d:\d\d", found.holder
        )
    with alone(tmp_path) as is_locked:
        assert is_locked
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert [*tmp_path.iterdir()] == []


def test_a_holder_that_is_killed_holds_nothing_any_more(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        with alone(tmp_path):
            pass
    assert [*tmp_path.iterdir()] == []


def test_a_holder_that_has_just_gone_leaves_no_lock_that_two_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may be removed after it was opened, and made anew by a third process."""
    from vggc.training import hold

    real = hold.open_lock
    opened: list[object] = []

    def removed_meanwhile(path: Path) -> object:
        opened.append(real(path))
        if len(opened) == 1:
            path.unlink()
        return opened[-1]

    monkeypatch.setattr(hold, "open_lock", removed_meanwhile)
    with alone(tmp_path):
        assert len(opened) == 2
        assert (tmp_path / LOCK).read_text().startswith("process ")


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", lockf)
    with alone(tmp_path) as is_locked:
        assert not is_locked


def test_what_is_no_file_cannot_be_locked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    assert isinstance(refusal(tmp_path).diagnostics[0], CannotWrite)
    assert isinstance(refusal(tmp_path / "none").diagnostics[0], CannotWrite)
