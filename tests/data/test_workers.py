"""Processes that make batches ahead: what they hand over, and what comes of their end."""

from __future__ import annotations

import errno
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vggc.data import workers
from vggc.data.workers import WorkerLost, made_ahead
from vggc.support.diagnostics import UserError

LARGE = 300_000


def things(step: int) -> tuple[Any, ...]:
    """Tensors as batches hold them, small and large, in several orders of memory."""
    images = torch.arange(LARGE).to(torch.uint8).reshape(4, 100, 250, 3)
    return (
        step,
        images.permute(0, 3, 1, 2) + step,
        images[:, ::2],
        torch.empty(0, 3, 5, 5),
        torch.tensor(step),
        np.arange(5.0),
        "words",
    )


def same(one: object, other: object) -> bool:
    match one, other:
        case torch.Tensor(), torch.Tensor():
            return torch.equal(one, other)
        case np.ndarray(), np.ndarray():
            return bool((one == other).all())
        case tuple(), tuple():
            return all(map(same, one, other))
        case _:
            return one == other


@pytest.mark.parametrize("count", [1, 2, 3])
def test_things_come_in_order_as_they_were_made(count: int) -> None:
    made = list(made_ahead(things, [5, 3, 9, 1, 7, 2, 8], count))
    assert [thing[0] for thing in made] == [5, 3, 9, 1, 7, 2, 8]
    for thing in made:
        assert same(thing, things(thing[0]))
        assert thing[1].stride() == things(0)[1].stride()
        assert thing[1].is_contiguous(memory_format=torch.channels_last)
        thing[1].add_(1)  # what is handed over belongs to whoever takes it


def test_without_such_memory_they_come_through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    for change in (
        lambda: monkeypatch.setattr(os, "memfd_create", none),
        lambda: monkeypatch.delattr(os, "memfd_create"),
    ):
        change()
        assert same(tuple(made_ahead(things, range(3), 2)), tuple(map(things, range(3))))


def test_no_descriptor_is_left_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    list(made_ahead(things, range(5), 2))
    assert len(os.listdir("/proc/self/fd")) == before


def failing(step: int) -> int:
    if step == 2:
        raise KeyError("the third")
    return step


def test_what_is_raised_there_is_raised_here() -> None:
    made = made_ahead(failing, range(5), 2)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(KeyError, match="the third") as caught:
        next(made)
    assert "in failing" in caught.value.__notes__[0]


def dying(step: int) -> int:
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step


def crashing(step: int) -> int:
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)
    return step


def leaving(step: int) -> int:
    os._exit(7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (dying, "SIGKILL killed it\n  the system does so when memory runs out"),
        (crashing, "SIGSEGV ended it\n  what decodes images may have crashed"),
        (leaving, "it ended with exit code 7"),
    ],
)
def test_the_end_of_a_worker_is_told(make: Any, words: str) -> None:
    with pytest.raises(WorkerLost) as caught:
        list(made_ahead(make, range(9), 2))
    assert words in str(caught.value)


def test_a_system_that_starts_no_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(UserError) as caught:
        list(made_ahead(things, range(9), 2))
    assert "the system starts no process to read images" in str(caught.value)
    assert "--workers 0" in str(caught.value)


def stuck(step: int) -> int:
    time.sleep(1000)
    return step


def test_who_wants_to_stop_need_not_wait_for_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE", 0.2)
    asked = threading.Event()
    threading.Timer(0.3, asked.set).start()
    started = time.monotonic()
    assert list(made_ahead(stuck, range(9), 2, asked.is_set)) == []
    assert time.monotonic() - started < 20


# ---------------------------------------------------------------- commands

NET = """net tiny
input 3x32x32
  conv3-8 stride=2 | gap | fc-2
train {
  batch 16
  epochs 3
  sgd lr=0.01
  scale 40..48
  rgb-shift off
}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net, and images that are not kept in memory: so workers read them."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "tiny.vgg").write_text(NET)
    for number, name in enumerate(("red", "blue")):
        (folder / "images" / name).mkdir(parents=True)
        pixels = np.zeros((64, 96, 3), np.uint8)
        pixels[..., 2 * number] = 200
        Image.fromarray(pixels).save(folder / "images" / name / "0.png")
        for copy in range(1, 40):
            shutil.copy(folder / f"images/{name}/0.png", folder / f"images/{name}/{copy}.png")
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vggc", *map(str, arguments)]


def train(place: Path, out: Path) -> list[str]:
    data = place / "images"
    options = ("--out", out, "--workers", 2, "--epochs", 200)
    return command("train", place / "tiny.vgg", "--data", data, *options)


ROOT = os.geteuid() == 0 and shutil.which("unshare") and shutil.which("mount")


@pytest.mark.slow
@pytest.mark.skipif(not ROOT, reason="only root mounts")
@pytest.mark.parametrize("size", ["64m", "1m", "unwritable", "missing"])
def test_the_size_of_dev_shm_does_not_matter(place: Path, tmp_path: Path, size: str) -> None:
    """Docker gives containers 64 MiB, and PyTorch's loader hangs when they are full."""
    mount = {
        "unwritable": "mount -t tmpfs -o ro tmpfs /dev/shm",
        "missing": "D=$(mktemp -d) && mount -t tmpfs tmpfs $D && cd /dev"
        " && cp -a null zero random urandom $D && cd / && mount --bind $D /dev",
    }.get(size, f"mount -t tmpfs -o size={size} tmpfs /dev/shm")
    run = [*train(place, tmp_path / "run"), "--batch", "64", "--input", "320", "--set", "scale=384"]
    run[run.index("200")] = "2"
    script = mount + ' && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "bash", *run],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def descendants(pid: int) -> Iterator[int]:
    """The worker processes of a command."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)


def begun(process: subprocess.Popen[str]) -> list[int]:
    """The workers of a training that has done an epoch."""
    assert process.stderr is not None
    while "epoch 1/" not in process.stderr.readline():
        assert process.poll() is None
    return list(descendants(process.pid))


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_a_training_that_is_saved(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(train(place, run), stderr=subprocess.PIPE, text=True) as process:
        os.kill(begun(process)[0], signal.SIGKILL)
        assert process.stderr is not None
        rest = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in rest
    assert f"Saved. Go on with: vggc train --resume {run}\n" in rest
    assert "error: a process that reads images has ended: SIGKILL killed it\n" in rest
    resumed = command("train", "--resume", run, "--workers", 0)
    with subprocess.Popen(resumed, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "Going on with" in (text := process.stderr.readline()) or "images to" in text
        process.terminate()
        process.stderr.read()
    assert process.returncode == 143


@pytest.mark.slow
def test_workers_end_with_a_training_that_is_killed(place: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        train(place, tmp_path / "run"), stderr=subprocess.PIPE, text=True
    ) as process:
        crew = begun(process)
        assert len(crew) >= 2
        process.kill()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in crew):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["eval"], ["predict"], ["report"]])
def test_a_worker_that_is_killed_is_told_in_a_line(
    place: Path, tmp_path: Path, arguments: list[str]
) -> None:
    """Each process but the first is killed as it starts to work."""
    run = tmp_path / "run"
    begin = train(place, run)
    begin[begin.index("200")] = "1"
    subprocess.run(begin, check=True, capture_output=True)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    images = sorted((place / "images" / "red").iterdir()) if arguments == ["predict"] else []
    options = ["--workers", "2"] if arguments != ["report"] else []
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        command(*arguments, run, *images, *options),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    if arguments == ["report"]:  # whose few held-out images it reads by itself
        assert done.returncode == 0
        return
    assert done.returncode == 1, done.stderr
    assert "error: a process that reads images has ended: SIGKILL killed it" in done.stderr


def test_closing_early_ends_the_workers() -> None:
    before = {*descendants(os.getpid())}  # other tests may have left a server that forks
    with closing(made_ahead(things, range(100), 2)) as made:
        next(made)
        crew = {*descendants(os.getpid())} - before
    assert len(crew) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in crew)
