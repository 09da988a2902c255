"""Several processes serve as one: none is missed when it dies, and none stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.served import PATIENCE
from vggc.serving.crew import ServerCrew
from vggc.serving.server import ServeLimits
from vggc.serving.supervisor import end_of
from vggc.serving.worker import WorkerTask

Make = Callable[..., Path]


@contextmanager
def serving(artifact: Path, folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """`vggc serve --processes 2` and its address; what it says to stderr is in `folder`."""
    command = [sys.executable, "-m", "vggc", "serve", str(artifact), "--port", "0"]
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(
            [*command, "--processes", "2", "--threads", "1", *options],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        ) as process,
    ):
        try:
            assert process.stdout
            lines = iter(process.stdout.readline, "")
            address = next((line.split()[-1] for line in lines if "Serving at" in line), "")
            yield process, address
        finally:
            process.kill()


def workers(process: subprocess.Popen) -> list[int]:
    """The processes that another has begun."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("utf-8")
    return [int(each) for each in found.split()]


def connections(process_id: int) -> int:
    """How many connections over TCP a process has open."""
    open_ = {os.readlink(each) for each in Path(f"/proc/{process_id}/fd").iterdir()}
    lines = Path(f"/proc/{process_id}/net/tcp").read_text("utf-8").splitlines()[1:]
    return sum(f"socket:[{line.split()[9]}]" in open_ for line in lines)


def is_alive(process_id: int) -> bool:
    """Whether there is such a process, which has not ended."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text("utf-8")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def until(condition: Callable[[], bool]) -> None:
    """Waits for what must come."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def health(address: str) -> dict[str, int]:
    """How many processes are wanted, and ready."""
    answer = httpx.get(f"{address}/health")
    assert answer.status_code == 200
    processes: dict[str, int] = answer.json()["processes"]
    return processes


def counted(address: str) -> float:
    """How many requests have been answered by all processes."""
    text = httpx.get(f"{address}/metrics").text
    prefix = 'vggc_requests_total{model="tiny",status="200"} '
    (line,) = [line for line in text.splitlines() if line.startswith(prefix)]
    return float(line.removeprefix(prefix))


def ask(client: httpx.Client, value: float) -> list[float]:
    """What a server gives of an image of one value."""
    images = np.full((1, 3, 16, 16), value, np.float32)
    tensor = {"name": "input", "datatype": "FP32", "shape": [*images.shape]}
    record = {"inputs": [{**tensor, "data": images.ravel().tolist()}]}
    answer = client.post("/v2/models/tiny/infer", json=record)
    assert answer.status_code == 200
    given: list[float] = answer.json()["outputs"][0]["data"]
    return given


@pytest.mark.slow
def test_who_dies_is_replaced_and_all_is_answered_at_the_end(
    compiled_tiny: Make, tmp_path: Path
) -> None:
    with serving(compiled_tiny(1, 4), tmp_path) as (process, address), ExitStack() as stack:
        until(lambda: health(address) == {"wanted": 2, "ready": 2})
        clients = [
            stack.enter_context(httpx.Client(base_url=address, timeout=PATIENCE)) for _ in range(4)
        ]
        first = [ask(client, 1) for client in clients]
        assert first == [first[0]] * 4
        assert counted(address) == 4
        text = clients[0].get("/metrics").text
        for name in ("supervisor", 0, 1):
            assert f'process_resident_memory_bytes{{process="{name}"}}' in text
        assert [connections(worker) for worker in workers(process)] == [2, 2]
        os.kill(workers(process)[0], signal.SIGKILL)
        until(lambda: health(address) == {"wanted": 2, "ready": 1})
        until(lambda: health(address) == {"wanted": 2, "ready": 2})
        assert counted(address) == 4
        with httpx.Client(base_url=address) as late:
            assert ask(late, 1) == first[0]
        assert counted(address) == 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
    said = (tmp_path / "said").read_text("utf-8")
    lost, done = said.splitlines()
    assert lost == "process 0 was ended by SIGKILL: another follows in 0.5 seconds"
    assert done == "all requests are answered"
    assert [*tmp_path.glob("vggc-serve-*")] == []


@pytest.mark.slow
def test_no_process_outlives_its_supervisor(compiled_tiny: Make, tmp_path: Path) -> None:
    with serving(compiled_tiny(1, 4), tmp_path) as (process, address):
        until(lambda: health(address) == {"wanted": 2, "ready": 2})
        left = workers(process)
        assert len(left) == 2
        process.kill()
        until(lambda: not any(map(is_alive, left)))
    assert [*tmp_path.glob("vggc-serve-*")] == []


@pytest.mark.slow
def test_an_artifact_that_cannot_be_loaded_ends_the_server(
    tiny_artifact: Make, tmp_path: Path
) -> None:
    artifact = tiny_artifact(1)
    (artifact / "lib.so").write_bytes(b"no library")
    with serving(artifact, tmp_path) as (process, address):
        assert address == ""
        assert process.wait(PATIENCE) == 2
    said = (tmp_path / "said").read_text("utf-8")
    assert said.count("lib.so") == 1
    assert "no process of the server is left" in said
    assert "Traceback" not in said


def test_a_process_is_told_its_task_in_text(tmp_path: Path) -> None:
    task = WorkerTask(
        number=1,
        channel=7,
        crew=ServerCrew(tmp_path, 2),
        artifacts={"a": Path("x"), "b=c": Path("ÿ y")},
        limits=ServeLimits(queue=1, max_body=2, connections=3, threads=None),
    )
    assert WorkerTask.from_json(task.as_json()) == task


def test_who_is_struck_is_not_ready(tmp_path: Path) -> None:
    crew = ServerCrew(tmp_path, 3)
    for number in (0, 2):
        crew.note(number)
    assert [*crew.ready()] == [(0, os.getpid()), (2, os.getpid())]
    crew.strike(0)
    crew.strike(1)
    assert [*crew.ready()] == [(2, os.getpid())]


def test_the_end_of_a_process_is_told_in_words() -> None:
    assert end_of(3) == "has ended with exit code 3"
    assert end_of(-9) == "was ended by SIGKILL"
    assert end_of(-99) == "was ended by signal 99"
