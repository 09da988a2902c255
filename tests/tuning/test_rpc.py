"""Tuning on other machines: TVM's own tracker and two of its servers, on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support import gpu_on_cpu
from tests.support.device import needs_compilers
from vggc.cli import cli
from vggc.tuning.database import FAILED, read
from vggc.tuning.measure import TrackerAddress
from vggc.tuning.remote import free_servers

pytestmark = pytest.mark.slow
KEY = "box"


@dataclass(frozen=True)
class Machine:
    """A server as it was started, and what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def loaded(self) -> int:
        """How many libraries it has run."""
        return self.log.read_text().count("load_module")

    def kill(self) -> None:
        """Ends the process and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Network:
    address: str
    machines: tuple[Machine, ...]


def start(folder: Path, name: str, *arguments: str, environment: Mapping[str, str]) -> Machine:
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**environment, "TVM_NUM_THREADS": "1"},
        )
    return Machine(process, log)


def comes(what: Callable[[], bool], seconds: float = 120) -> bool:
    """Whether something becomes true in that time."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def wait_for(what: Callable[[], bool]) -> None:
    assert comes(what)


TWO = "one", "two"


@contextmanager
def started(
    folder: Path, names: tuple[str, ...] = TWO, environment: Mapping[str, str] = os.environ
) -> Iterator[Network]:
    """A tracker and servers that it has to give. Between looking for a free port and taking it
    somebody else may have taken it: then another one is looked for.
    """
    for number in range(TRIES):
        with launched(folder / str(number), names, environment) as (tracker, network):
            if comes(partial(has, tracker, len(names)), 60):
                yield network
                return
    pytest.fail(f"the servers have not come in {TRIES} tries")


def has(tracker: TrackerAddress, number: int) -> bool:
    """Whether a tracker has so many servers to give."""
    return free_servers(tracker) == number


TRIES = 3


@contextmanager
def launched(
    folder: Path, names: tuple[str, ...], environment: Mapping[str, str]
) -> Iterator[tuple[TrackerAddress, Network]]:
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    ports = ("--port", str(port), "--port-end", str(port + 1))
    address = f"127.0.0.1:{port}"
    arguments = ("--host", "127.0.0.1", f"--tracker={address}", f"--key={KEY}")
    tracker = ("tvm.exec.rpc_tracker", "--host", "127.0.0.1", *ports)
    server = ("tvm.exec.rpc_server", *arguments)
    processes = [
        start(folder, "tracker", *tracker, environment=os.environ),
        *(start(folder, name, *server, environment=environment) for name in names),
    ]
    try:
        yield TrackerAddress("127.0.0.1", port, KEY), Network(address, tuple(processes[1:]))
    finally:
        for machine in processes:
            machine.kill()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """One for all who leave its servers alive."""
    with started(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Network]:
    """One whose servers may be killed."""
    with started(tmp_path) as network:
        yield network


def tune(network: Network, spec: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vggc", "tune", str(spec), "--db", str(folder), "--json"]
    return subprocess.Popen(
        [*command, "--rpc", network.address, "--key", KEY, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_servers_measure_side_by_side(
    network: Network, tiny_file: Path, tmp_path: Path
) -> None:
    process = tune(network, tiny_file, tmp_path / "db", "--budget", "20s")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "on 2 servers `box` with 1 thread" in err
    assert all(machine.loaded > 3 for machine in network.machines)
    result = json.loads(out)
    assert result["threads"] == 1
    known = read(tmp_path / "db")
    assert sum(len(measured.seconds) for measured in known.values()) == result["measured"] > 8


def test_a_server_that_dies_costs_no_more_than_its_batch(
    doomed: Network, tiny_file: Path, tmp_path: Path
) -> None:
    dying, other = doomed.machines
    process = tune(doomed, tiny_file, tmp_path / "db", "--budget", "20s")
    wait_for(lambda: dying.loaded > 0)
    dying.kill()
    before = other.loaded
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "Sessions on servers lost: 1" in err
    assert other.loaded > before
    assert json.loads(out)["failed"] == 0


def test_where_the_last_server_dies_what_was_measured_is_kept(
    doomed: Network, tiny_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "db"
    process = tune(doomed, tiny_file, folder, "--budget", "10m")
    wait_for(lambda: any(measured.seconds for measured in read(folder).values()))
    for machine in doomed.machines:
        machine.kill()
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    assert "no server is left; what was measured is in the database" in err
    assert any(measured.seconds for measured in read(folder).values())


def test_a_key_that_no_server_has_is_told_with_those_that_there_are(
    network: Network, tiny_file: Path
) -> None:
    arguments = ["tune", str(tiny_file), "--rpc", network.address, "--key", "bax"]
    done = CliRunner().invoke(cli, arguments)
    assert "has no server with the key `bax`" in str(done.exception)
    assert "it knows box" in str(done.exception)


def test_servers_of_another_number_of_threads_are_told(network: Network, tiny_file: Path) -> None:
    arguments = ["tune", str(tiny_file), "--rpc", network.address, "--key", KEY, "--threads", "3"]
    done = CliRunner().invoke(cli, arguments)
    assert "a server runs kernels on 1 threads, and 3 are asked for" in str(done.exception)


@needs_compilers
def test_a_server_without_a_card_is_told(network: Network, tiny_file: Path) -> None:
    where = ["--target", "cuda", "--rpc", network.address, "--key", KEY]
    done = CliRunner().invoke(cli, ["tune", str(tiny_file), *where])
    assert f"a server `{KEY}` has no NVIDIA GPU to measure on" in str(done.exception)


OF_FEW = """
from tests.support.broken_kernels import build_badly
from vggc.cli import main
from vggc.tuning import tuner
from vggc.tuning.tuner import TuningProgress
tuner.build, tuner.BATCH = build_badly, 4
TuningProgress.left = property(lambda course: float(course.measured < 2) * 60)
main()
"""
"""`vggc`, which measures a few choices, two of them built badly."""


@needs_compilers
def test_a_card_elsewhere_is_measured_from_a_machine_without_one(tmp_path: Path) -> None:
    """The server's driver emulates a card; here is the compiler that makes code for it. A kernel
    that ends the use of the card ends a session there, and the next one goes on.
    """
    spec, folder = tmp_path / "net.vgg", tmp_path / "db"
    spec.write_text("net one input 8x8x8\n conv3-16")
    there = gpu_on_cpu.with_compiler(tmp_path)
    here = {name: value for name, value in there.items() if name != "LD_LIBRARY_PATH"}
    with started(tmp_path, ("card",), there) as network:
        options = ["--target", "cuda", "--precision", "float16", "--db", str(folder), "--json"]
        where = ["--rpc", network.address, "--key", KEY]
        command = [sys.executable, "-c", OF_FEW, "tune", str(spec), *options, *where]
        done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["card"] == {"card": "GPU on CPU", "arch": "sm_80", "multiprocessors": 108}
    assert "on the server `box` with the card GPU on CPU" in done.stderr
    assert "an illegal memory access was encountered" in done.stderr
    assert "Sessions on servers lost" not in done.stderr
    assert told["failed"] == 2
    ((text, measured),) = read(folder).items()
    assert json.loads(text)["target"] == told["card"]
    assert len(measured.failed) == 2
    times = [seconds for seconds in measured.seconds.values() if seconds < FAILED]
    assert len(times) == told["measured"] >= 2
    assert all(seconds < 1e-3 / 2 for seconds in times)  # a graph takes one launch for many
