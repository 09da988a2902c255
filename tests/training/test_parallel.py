"""Several processes that train one net give what one gives, and end together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.training_data import write_images
from vggc.api.train import TrainOptions, new_run
from vggc.support.diagnostics import UserError
from vggc.training import diagnostics
from vggc.training.parallel import World
from vggc.training.run import Run

NET = """\
net small
input 3x8x8

  conv3-4 norm=batch | stochasticpool | dropout p=20% | fc-8 | dropout | fc-3 | softmax

train {
  batch 10
  epochs 4
  sgd lr=0.05
  cosine warm-up=10%
  init he
  scale 9..12
  flip
  rgb-shift 0.1
  rotate 10
  colour-jitter brightness=0.4 hue=0.1
  randaugment ops=1 magnitude=5
  erasing 50%
  mixup 0.2 chance=80%
  cutmix 1
  sampler balanced
  class-weights 1,2,3
  label-smoothing 0.1
  ema 0.9
  clip 1
}
"""

TOLERANCE = 1e-5
"""Sums of float32 in another order, over 24 steps; weights are of the order of 0.1."""

WEIGHTS = "weights.safetensors"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net and images, none of which another test changes."""
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "small.vgg").write_text(NET)
    write_images(folder / "images", ("a", "b", "c"), 25)
    return folder


def command(processes: int, *arguments: str) -> list[str]:
    alone = [sys.executable] if processes == 1 else [*TORCHRUN, str(processes)]
    return [*alone, "-m", "vggc", "train", "--device", "cpu", *arguments]


def new(out: Path, *more: str) -> tuple[str, ...]:
    return ("small.vgg", "--data", "images", "--out", str(out), *more)


def run(folder: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(processes, *arguments),
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """The run of one process."""
    done = run(folder, 1, *new(folder / "alone"))
    assert done.returncode == 0, done.stderr
    return folder / "alone"


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(path / "weights.safetensors") for path in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(second[name], first[name], 0, TOLERANCE, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "more"), [(2, ()), (2, ("--shard",))])
def test_several_processes_give_the_weights_of_one(
    folder: Path, alone: Path, tmp_path: Path, processes: int, more: tuple[str, ...]
) -> None:
    done = run(folder, processes, *new(tmp_path / "run"), *more)
    assert done.returncode == 0, done.stderr
    assert_same_weights(alone, tmp_path / "run")
    one, several = Run.load(alone).record.metrics, Run.load(tmp_path / "run").record.metrics
    assert one is not None
    assert several is not None
    assert (one.step, one.val_top1) == (several.step, several.val_top1)
    assert one.train_loss == pytest.approx(several.train_loss, abs=1e-4)
    assert done.stderr.count("held out") == 1  # only the first speaks


@pytest.mark.slow
def test_parts_of_a_step_give_the_weights_of_the_whole(folder: Path, tmp_path: Path) -> None:
    """Without batch normalisation, which looks at each part by itself."""
    for name, parts in (("whole", 1), ("parts", 3)):
        changes = ("--set", f"accumulate={parts}", "--set", "ema=off")
        (tmp_path / "plain.vgg").write_text(NET.replace(" norm=batch", ""))
        arguments = (str(tmp_path / "plain.vgg"), *new(tmp_path / name, *changes)[1:])
        done = run(folder, 1, *arguments)
        assert done.returncode == 0, done.stderr
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "more"), [(3, 1, ()), (1, 2, ("--shard",))])
def test_a_run_goes_on_with_another_number_of_processes(
    folder: Path, alone: Path, tmp_path: Path, before: int, after: int, more: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    started = subprocess.Popen(
        command(before, *new(out, "--save-steps", "1")),
        cwd=folder,
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: any((out / "checkpoint").glob("step-*")), started)
    started.send_signal(signal.SIGTERM)
    started.wait(timeout=120)
    assert Run.load(out).record.state == "interrupted"
    done = run(folder, after, "--resume", str(out), *more)
    assert done.returncode == 0, done.stderr
    assert_same_weights(alone, out)


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--shard",)])
def test_processes_begin_again_where_nothing_was_saved(
    folder: Path, alone: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(alone / "net.vgg", out)
    record = json.loads((alone / "run.json").read_text())
    record |= {"state": "running", "metrics": None}
    (out / "run.json").write_text(json.dumps(record))
    done = run(folder, 2, "--resume", str(out), *more)
    assert done.returncode == 0, done.stderr
    assert_same_weights(alone, out)


@pytest.mark.slow
@pytest.mark.parametrize("more", [()])
def test_several_processes_begin_with_another_nets_weights(
    folder: Path, alone: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    layers = ("--set", "init-from=small", "--set", "init-from.layers=conv1_1")
    changes = (*layers, "--init-from", str(alone))
    for processes, name in ((1, "one"), (2, "two")):
        done = run(folder, processes, *new(tmp_path / name, *changes), *more[: processes - 1])
        assert done.returncode == 0, done.stderr
    assert_same_weights(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--shard",)])
def test_several_processes_leave_frozen_statistics_as_they_are(
    folder: Path, alone: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    layers = ("--set", "init-from=small", "--set", "init-from.layers=conv1_1..fc2")
    changes = (*layers, "--set", "freeze=conv1_1", "--init-from", str(alone))
    for processes, name in ((1, "one"), (2, "two")):
        done = run(folder, processes, *new(tmp_path / name, *changes), *more[: processes - 1])
        assert done.returncode == 0, done.stderr
        before, after = load_file(alone / WEIGHTS), load_file(tmp_path / name / WEIGHTS)
        same = {name for name in before if np.array_equal(before[name], after[name])}
        assert same == {name for name in before if name.startswith("conv1_1.")}
    assert_same_weights(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_and_the_reason_is_told(
    folder: Path, tmp_path: Path
) -> None:
    """Started one by one: torchrun, which is told of the death, too, would end the others."""
    out = tmp_path / "run"
    first, last = (
        subprocess.Popen(
            command(1, *new(out, "--save-steps", "1", "--set", "steps=100000")),
            cwd=folder,
            env={**ENVIRONMENT, **place},
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places(2)
    )
    with first, last:
        wait_for(lambda: any((out / "checkpoint").glob("step-*")), first)
        last.kill()
        last.communicate()
        _, text = first.communicate(timeout=120)
    assert first.returncode == 2
    assert "another process of this training has ended" in text
    assert "go on with `--resume`" in text


AT_THE_END = """
import atexit
import os


def threads():
    for name in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{name}/comm") as file:
            if "gloo" in file.read():
                print("a thread of the connection is left")


atexit.register(threads)

import torch
from torch.nn.parallel import DistributedDataParallel

from vggc.training.parallel import World, joined

with joined(World.here(), torch.device("cpu")):
    net = DistributedDataParallel(torch.nn.Linear(2, 2))
    net(torch.ones(1, 2)).sum().backward()
    del net
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are read from /proc")
def test_the_connection_ends_with_its_threads() -> None:
    """One that is left may ask for Python's lock while Python ends, which ends the process."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", AT_THE_END],
            env={**os.environ, **place},
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in places(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert said == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]


def places(processes: int) -> list[dict[str, str]]:
    """What torchrun tells each of several processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = str(processes)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def wait_for(condition: object, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if condition():  # type: ignore[operator]
            return
        assert process.poll() is None, "it ended before"
        time.sleep(0.1)
    pytest.fail("nothing came")


def test_one_process_has_nobody_to_share_with(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        new_run("vgg11", TrainOptions(data=None, sharded=True, out=tmp_path / "run"))
    assert isinstance(error.value.diagnostics[0], diagnostics.NothingToShard)
    assert not (tmp_path / "run").exists()


def test_torchrun_tells_a_process_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert World.here() == World(0, 1, 0, 1)
    given = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert World.here() == World(5, 8, 1, 4)
    for name, value in (("RANK", "8"), ("WORLD_SIZE", "many"), ("LOCAL_RANK", "-1")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(UserError) as error:
                World.here()
        assert isinstance(error.value.diagnostics[0], diagnostics.BadWorld)
