"""The machine around a command: streams that are closed or full, signals, other systems, disks
without room.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vggc.api.export import export
from vggc.api.trained import from_spec
from vggc.cli import COMMANDS, of_surroundings
from vggc.cli.systems import LANGUAGE_COMMANDS
from vggc.program import load
from vggc.support import signals
from vggc.support.diagnostics import UserError

NET = "net tiny\ninput 3x8x8\n  conv3-4 | gap | fc-3\n"
VGGC = f'"{sys.executable}" -m vggc'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "net.vgg").write_text(NET)
    (tmp_path / "bad.vgg").write_text("net tiny\ninput 3x8x8\n  cnv3-4\n")
    return tmp_path


def shell(place: Path, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a line of bash does, in which `vggc` is the command."""
    return subprocess.run(
        ["bash", "-c", line.replace("vggc ", f"{VGGC} ")],
        cwd=place,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


# ---------------------------------------------------------------- limits


def test_a_limit_of_addresses_is_a_limit_of_memory(place: Path) -> None:
    program = "from vggc.support.memory import free_memory, memory; print(memory(), free_memory())"
    told = shell(place, f"ulimit -v 2000000; '{sys.executable}' -c '{program}'")
    there, free = map(int, told.stdout.split())
    assert there == 2_000_000 * 1024
    assert 0 < free < there


def test_what_does_not_fit_into_a_limit_of_addresses_is_refused(place: Path) -> None:
    told = shell(place, "ulimit -v 300000; vggc export net.vgg --seed 1 --format pt2 -o net.pt2")
    assert told.returncode == 2
    assert "too large for this machine" in told.stderr
    assert "Traceback" not in told.stderr
    assert not (place / "net.pt2").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "too little memory"),
        (ImportError("libtorch_cpu.so: failed to map segment"), "too little memory"),
        (ImportError("libX11.so.6: cannot open shared object file"), "cannot be loaded: libX11"),
        (RuntimeError("can't start new thread"), "starts no more threads"),
        (RuntimeError("anything else"), None),
        (ImportError("cannot import name 'a' from 'b'"), None),
    ],
)
def test_what_the_machine_lacks_is_no_bug(error: Exception, told: str | None) -> None:
    reason = of_surroundings(error)
    assert reason is None if told is None else told in str(reason)


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("vggc summary net.vgg >&-", 0),
        ("vggc summary net.vgg 2>&-", 0),
        ("vggc summary net.vgg <&- >&- 2>&-", 0),
        ("vggc summary net.vgg --format csv >&-", 0),
        ("vggc zoo >&-", 0),
        ("vggc check bad.vgg 2>&-", 2),
        ("vggc check bad.vgg >&- 2>&-", 2),
        ("vggc check bad.vgg 2>/dev/full", 2),
        ("vggc fmt --check bad.vgg >&- 2>&-", 1),
        ("vggc --help >&-", 0),
        ("vggc nonsense >&- 2>&-", 2),
        ("vggc lsp <&-", 1),  # as the protocol has it for an editor that vanishes
        ("vggc lsp >&- < /dev/null", 1),
        ("vggc summary net.vgg >/dev/full", 2),
        ("vggc summary net.vgg --format json >/dev/full", 2),
        ("vggc --help >/dev/full", 2),
        ("vggc layers >/dev/full", 2),
        ("vggc summary net.vgg 1</dev/null", 2),
    ],
)
def test_streams_that_are_closed_or_full_are_no_reason_for_a_traceback(
    place: Path, line: str, code: int
) -> None:
    done = shell(place, line)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    told = "cannot write the result: " in done.stderr
    assert told == (line.endswith((" >/dev/full", "1</dev/null")))


@pytest.mark.parametrize("command", ["summary vgg19", "layers", "zoo", "--help", "summary --help"])
def test_a_reader_that_has_gone_ends_a_command_as_shells_expect(place: Path, command: str) -> None:
    """Its reader goes before anything is written."""
    line = (
        f"(sleep 1; vggc {command}; echo $? > code) | true; while [ ! -s code ]; do sleep 0.1; done"
    )
    done = shell(place, line)
    assert (place / "code").read_text() == "141\n"
    assert done.stderr == ""


def test_who_does_not_hear_what_is_said_still_gets_what_was_asked_for(place: Path) -> None:
    line = "(sleep 1; vggc export net.vgg -o net.onnx > out; echo $? > code) 2>&1 >/dev/null | true"
    shell(place, f"{line}; while [ ! -s code ]; do sleep 0.1; done")
    assert (place / "code").read_text() == "0\n"
    assert (place / "net.onnx").exists()


def test_a_file_that_is_written_is_never_in_the_place_of_a_closed_stream(place: Path) -> None:
    """With stdout closed, the next file that is opened would be file 1, and be printed into."""
    done = shell(place, "vggc draw net.vgg -o net.svg >&- 2>&-; vggc draw net.vgg -o again.svg")
    assert done.returncode == 0
    assert (place / "net.svg").read_bytes() == (place / "again.svg").read_bytes()


# ---------------------------------------------------------------- other systems

PRETEND = """
import os, sys, urllib.request
sys.platform = sys.argv[1]
for name in ("sched_getaffinity", "sched_setaffinity", "memfd_create"):
    if hasattr(os, name):
        delattr(os, name)
if hasattr(os, "process_cpu_count"):
    os.process_cpu_count = os.cpu_count
if sys.platform == "win32":
    del os.sysconf, os.fork
    for name in ("fcntl", "resource", "pwd", "grp", "termios"):
        sys.modules[name] = None
sys.argv = ["vggc", *sys.argv[2:]]
from vggc.cli import main
main()
"""


def elsewhere(place: Path, system: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRETEND, system, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [[], ["summary", "vgg11"], ["train", "vgg11"], ["--help"]])
@pytest.mark.parametrize(("system", "name"), [("win32", "Windows"), ("freebsd14", "freebsd14")])
def test_other_systems_end_in_one_mistake(
    place: Path, system: str, name: str, arguments: list[str]
) -> None:
    done = elsewhere(place, system, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    title = f"error: vggc does not run on {name}\n  it runs on Linux, x86-64 and aarch64\n"
    assert done.stderr.startswith(title)
    assert done.stderr.count("\n") == (3 if system == "win32" else 2)


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {*LANGUAGE_COMMANDS}))
def test_macos_has_the_commands_of_the_language_alone(place: Path, command: str) -> None:
    done = elsewhere(place, "darwin", command, "net.vgg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: `vggc {command}` does not run on macOS\n")
    assert "`vggc summary`" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["summary", "net.vgg"],
        ["check", "net.vgg"],
        ["fmt", "net.vgg"],
        ["draw", "net.vgg", "-o", "net.svg"],
        ["draw", "net.vgg", "-o", "net.png"],
        ["zoo"],
        ["layers"],
        ["settings"],
        ["lsp"],
    ],
)
def test_those_commands_run_there(place: Path, arguments: list[str]) -> None:
    done = elsewhere(place, "darwin", *arguments)
    # An editor that closes its pipe without a word is an error of the protocol's.
    assert done.returncode == (1 if arguments == ["lsp"] else 0), done.stderr
    assert done.stderr == "" or arguments == ["fmt", "net.vgg"]


# ---------------------------------------------------------------- signals

SLOW = """
import sys, time
from pathlib import Path
import vggc.api.export, vggc.cli
from vggc.support.files import replacing

def slow(subject, style, path):
    with replacing(path) as part:
        part.write_text("half")
        print("begun", flush=True)
        time.sleep(60)

vggc.api.export.export = slow
sys.argv = ["vggc", "export", "net.vgg", "-o", "net.onnx"]
vggc.cli.main()
"""


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([signal.SIGTERM], 143),
        ([signal.SIGHUP], 129),
        ([signal.SIGINT], 130),
        ([signal.SIGTERM] * 3, 143),
    ],
)
def test_a_signal_leaves_nothing_half_written(
    place: Path, sent: list[signal.Signals], code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    assert len(list(place.iterdir())) == 3
    for number in sent:
        process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert error.endswith("error: interrupted\n")
    assert sorted(path.name for path in place.iterdir()) == ["bad.vgg", "net.vgg"]


def test_a_terminal_that_is_closed_does_not_end_what_nohup_runs(place: Path) -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + SLOW.replace("60", "2")
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=place, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_signals_wait_where_they_are_held() -> None:
    reached = []

    def work() -> None:
        with signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("the end of the block")
        reached.append("what is behind it")

    with signals.raising(), pytest.raises(signals.Ended):
        work()
    assert reached == ["the end of the block"]
    assert signals.exit_code() == 143


@pytest.mark.parametrize("module", ["torch", "click", "vggc.program", "numpy"])
def test_ctrl_c_while_modules_are_imported_leaves_no_traceback(place: Path, module: str) -> None:
    code = (
        "import builtins, os, signal, sys\n"
        "plain = builtins.__import__\n"
        "def slow(name, *rest, **named):\n"
        f"    if name == {module!r} and slow.first:\n"
        "        slow.first = False\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return plain(name, *rest, **named)\n"
        "slow.first = True\n"
        "builtins.__import__ = slow\n"
        "sys.argv = ['vggc', 'export', 'net.vgg', '-o', 'net.pt2', '--format', 'pt2']\n"
        "from vggc.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode in (130, -signal.SIGINT), done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "net.pt2").exists()


def stop_when(place: Path, line: list[str], sign: Callable[[], bool]) -> tuple[int, str]:
    """Sends a command a SIGTERM as soon as there is a sign of it; its exit code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vggc", *line],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while not sign():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.terminate()
    _, error = process.communicate(timeout=120)
    return process.returncode, error


@pytest.mark.slow
@pytest.mark.parametrize("what", ["compile", "tune"])
def test_sigterm_ends_compiling_and_tuning_in_order(place: Path, what: str) -> None:
    line = {
        "compile": ["compile", "vgg11", "-o", "art"],
        "tune": ["tune", "net.vgg", "--db", "db", "--budget", "5m"],
    }[what]
    hidden = {
        "compile": lambda: any(path.name.startswith(".art") for path in place.iterdir()),
        "tune": lambda: (place / "db").exists(),
    }[what]
    code, error = stop_when(place, line, hidden)
    assert code == 143, error
    assert "Traceback" not in error
    left = {"compile": set(), "tune": {"db"}}[what]
    assert {path.name for path in place.iterdir()} == {"net.vgg", "bad.vgg"} | left


# ---------------------------------------------------------------- disks and linkers

MOUNTS = os.geteuid() == 0 and shutil.which("unshare") and shutil.which("mount")


@pytest.fixture
def full(place: Path) -> str:
    """What mounts a full disk on `full`, in a line of bash that `unshare -m` runs."""
    if not MOUNTS:
        pytest.skip("only root mounts")
    (place / "full").mkdir()
    return (
        "mount -t tmpfs -o size=64k tmpfs full && "
        "{ dd if=/dev/zero of=full/filler bs=1k count=64 2>/dev/null; true; } && "
    )


def unshared(place: Path, line: str) -> subprocess.CompletedProcess[str]:
    return shell(place, f"unshare -m bash -c '{line}'")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "compile net.vgg --threads 1 -o full/art",
        "export net.vgg -o full/net.onnx",
        "export net.vgg --format pt2 -o full/net.pt2",
        "export net.vgg --format torchvision -o full/net.st",
        "draw net.vgg -o full/net.svg",
        "draw net.vgg -o full/net.png",
        "train net.vgg --epochs 1 --out full/run",
        "reproduce table3 --small --out full/reproduced --data digits",
    ],
)
def test_a_full_disk_is_told_and_nothing_is_left_on_it(
    place: Path, full: str, command: str
) -> None:
    done = unshared(place, full + f"vggc {command}; echo $?; ls -A full")
    code, *left = done.stdout.split()
    assert "Traceback" not in done.stderr
    assert code == "2", done.stderr
    assert left == ["filler"]


@pytest.mark.slow
def test_what_is_compiled_needs_no_room_for_temporary_files(place: Path, full: str) -> None:
    done = unshared(place, full + "TMPDIR=$PWD/full vggc compile net.vgg --threads 1 -o art; ls -A")
    assert "manifest.json" in os.listdir(place / "art"), done.stderr
    assert set(done.stdout.split()) >= {"art"}
    assert not [name for name in os.listdir(place) if name.startswith(".")]


FAILING = {
    "false": ("#!/bin/sh\nexit 1\n", "it ended with exit code 1"),
    "says why": (
        "#!/bin/sh\necho 'collect2: fatal error: cannot find ld' >&2\n"
        "echo 'compilation terminated.' >&2\nexit 1\n",
        "collect2: fatal error: cannot find ld",
    ),
    "killed": ("#!/bin/sh\nkill -9 $$\n", "it ended with signal 9"),
    "no program": ("", "Exec format error"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("script", "words"), FAILING.values(), ids=FAILING)
def test_a_linker_that_fails_is_told_with_its_own_words(
    place: Path, script: str, words: str
) -> None:
    linker = place / "linker"
    linker.write_text(script)
    linker.chmod(0o755)
    done = shell(place, "vggc compile net.vgg --threads 1 -o art", CXX=str(linker))
    assert done.returncode == 2
    assert f"error: {linker} does not link the library\n  {words}\n" in done.stderr
    assert sorted(path.name for path in place.iterdir()) == ["bad.vgg", "linker", "net.vgg"]


def test_a_linker_that_hangs_is_ended(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vggc.compiler import link

    linker = place / "linker"
    linker.write_text("#!/bin/sh\nexec sleep 100\n")
    linker.chmod(0o755)
    monkeypatch.setattr(link, "PATIENCE", 0.2)
    with pytest.raises(link.LinkError, match="it has not ended after"):
        link.linked("lib.so", [], linker=str(linker), folder=place, objects=[])


class Full:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return len(data)


@pytest.mark.parametrize("room", [0, 100, 5_000])
def test_pytorch_does_not_end_the_process_where_a_disk_is_full(
    place: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    from vggc.backends import program as backend

    kept = backend.Kept
    monkeypatch.setattr(backend, "Kept", lambda file: kept(Full(room)))  # type: ignore[arg-type]
    subject = from_spec(load(str(place / "net.vgg")), None, 0)
    with pytest.raises(UserError, match="No space left on device"):
        export(subject, "pt2", place / "net.pt2")
    assert sorted(path.name for path in place.iterdir()) == ["bad.vgg", "net.vgg"]
