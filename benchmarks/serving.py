"""What `vggc serve` answers in a second, beside other servers, and beside the net alone.

    python benchmarks/serving.py peers [NET] --environment DIR
    python benchmarks/serving.py net [NET] --batch 4

`peers`: the same net, weights and JSON for each server on the same processors, batches of 16 at
most, 16 connections that each ask for an image again as soon as they have their answer. MLServer
and LitServe run it in ONNX Runtime, one thread a session. Each server is tried with one process and
with two, and its faster way counts. Rounds are interleaved; each starts its server anew. DIR is an
environment of Python with `pip install mlserver litserve onnxruntime 'uvloop<0.22'`; where there is
none it is made. `net`: images a second through the server, over those of `vggc bench` at its batch.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from vggc.cli.version import cpu
from vggc.runtime.artifact import read_manifest
from vggc.support.arrays import Array

HERE = Path(__file__).parent
VGGC = [sys.executable, "-m", "vggc"]
BATCH = 16
PATIENCE = 60
"""Seconds in which a server has to begin."""

PEER_PACKAGES = ("mlserver", "litserve", "onnxruntime")
NEEDED_BY_PEERS = "uvloop<0.22"
"""With later ones MLServer 1.7 begins no workers."""

WARM_UP = 1.0
"""Seconds of `http_load.py` before anything counts."""

PAUSE = 1.0
"""Seconds between two servers, in which the one that ended leaves the processors."""


@dataclass(frozen=True)
class Contender:
    """A server in one of its ways: what starts it on a port, and how many processes run the net."""

    name: str
    processes: int
    command: Callable[[int], list[str]]

    @property
    def key(self) -> str:
        return f"{self.name}, {self.processes}"


@dataclass(frozen=True)
class Asked:
    """What a load found: answers a second, times in milliseconds, answers that are not 200, and the
    share of a processor that asking took.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    not_200: int
    generator: float


@dataclass(frozen=True)
class Round:
    """What a load found of a server, and the milliseconds of a processor's time that each answer
    took from the server, which whoever else is busy changes little.
    """

    asked: Asked
    processor_ms: float


@dataclass(frozen=True)
class HttpRequest:
    """A request for the images of a net: where it goes, its headers and its body."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> bytes:
        """All of it as it is sent."""
        headers = {"host": "localhost", **self.headers, "content-length": str(len(self.body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + self.body

    def answered(self, port: int) -> bytes:
        """What a server answers; it may not have begun to listen."""
        end = time.monotonic() + PATIENCE
        request = Request(f"http://127.0.0.1:{port}{self.path}", self.body, dict(self.headers))
        while True:
            try:
                with urlopen(request, timeout=PATIENCE) as answer:
                    body: bytes = answer.read()
                return body
            except (URLError, ConnectionError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


def json_request(name: str, images: Array) -> HttpRequest:
    """Asks for images in JSON, each number with as many digits as float32 needs."""
    tensor = {"name": "input", "datatype": "FP32", "shape": [*images.shape]}
    record = {"inputs": [{**tensor, "data": images.ravel()}]}
    headers = {"content-type": "application/json"}
    body = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
    return HttpRequest(f"/v2/models/{name}/infer", headers, body)


def binary_request(name: str, images: Array) -> HttpRequest:
    """Asks for images as they lie in memory."""
    parameters = {"binary_data_size": images.nbytes}
    tensor = {"name": "input", "datatype": "FP32", "shape": [*images.shape]}
    text = json.dumps({"inputs": [{**tensor, "parameters": parameters}]}).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(text)),
    }
    return HttpRequest(f"/v2/models/{name}/infer", headers, text + images.tobytes())


def free_port() -> int:
    """A port with two behind it that nobody listens on, as it seems."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def running(command: list[str], processors: set[int], log: Path) -> Iterator[int]:
    """A program on some processors and the number of its session. It is ended behind the block with
    all that it has begun.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    try:
        with log.open("wb") as said:
            process = subprocess.Popen(
                command, stdout=said, stderr=said, env=environment, start_new_session=True
            )
    finally:
        os.sched_setaffinity(0, before)
    try:
        yield process.pid
    except Exception:
        print(log.read_text("utf-8", "replace")[-4000:], file=sys.stderr)
        raise
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        time.sleep(PAUSE)


def processor_seconds(session: int) -> float:
    """What all processes of a session have taken of processors that are there still."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text("utf-8", "replace").rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def round_of(session: int, port: int, request: Path, options: argparse.Namespace) -> Round:
    """A load on a server, whose processes are a session."""
    before = processor_seconds(session)
    asked = load(port, request, options.connections, options.seconds)
    spent = processor_seconds(session) - before
    answers = asked.per_second * (options.seconds + WARM_UP)  # as many a second while warming up
    return Round(asked, 1e3 * spent / answers)


def load(port: int, request: Path, connections: int, seconds: float) -> Asked:
    """What a process that asks finds."""
    command = [sys.executable, str(HERE / "http_load.py"), str(port), str(request)]
    options = ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE)
    return Asked(**json.loads(done.stdout))


# Beside other servers


def peers_in(environment: Path) -> Path:
    """The Python of an environment that has the other servers."""
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", *PEER_PACKAGES, NEEDED_BY_PEERS], check=True
        )
    return python


def versions(python: Path) -> str:
    """The peers and their versions."""
    code = "from importlib.metadata import version\n"
    code += "".join(f"print('{name}', version('{name}'))\n" for name in PEER_PACKAGES)
    done = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return ", ".join(done.stdout.splitlines())


def contenders(net: str, artifact: Path, onnx: Path, python: Path) -> list[Contender]:
    """Each server in each of its ways."""

    def ours(processes: int) -> Contender:
        options = ["--processes", str(processes), "--threads", "1"]
        serve = [*VGGC, "serve", f"{net}={artifact}", *options]
        return Contender("vggc", processes, lambda port: [*serve, "--port", str(port)])

    def peer(name: str, processes: int, workers: int) -> Contender:
        start = [str(python), str(HERE / "serving_peers.py"), name, str(onnx), net]
        options = ["--workers", str(workers), "--batch", str(BATCH)]
        return Contender(name, processes, lambda port: [*start, *options, "--port", str(port)])

    # MLServer runs nets in its own process where it has no workers.
    return [
        ours(1),
        peer("mlserver", 1, 0),
        peer("litserve", 1, 1),
        ours(2),
        peer("mlserver", 2, 2),
        peer("litserve", 2, 2),
    ]


def compared(options: argparse.Namespace, folder: Path) -> None:
    """Prints what each server answers, and the ratios of the best ways."""
    python = peers_in(options.environment)
    artifact, onnx, request = folder / "artifact", folder / "net.onnx", folder / "request"
    compiled(options.net, artifact, "1,4,16", 1)
    run([*VGGC, "export", options.net, "--seed", "0", "-o", str(onnx)])
    manifest = read_manifest(artifact)
    image = np.random.default_rng(0).standard_normal((1, *manifest.input), np.float32)
    asked = json_request(manifest.net, image)
    request.write_bytes(asked.text)
    ways = contenders(manifest.net, artifact, onnx, python)
    found: dict[str, list[Round]] = {way.key: [] for way in ways}
    answers: dict[str, Array] = {}
    for number in range(options.rounds):
        turn = number % len(ways)
        for way in ways[turn:] + ways[:turn]:
            port = free_port()
            with running(way.command(port), options.processors, folder / "log") as session:
                answers[way.key] = values_in(asked.answered(port))
                found[way.key].append(round_of(session, port, request, options))
    expected = answers[ways[0].key]
    for key, values in answers.items():
        if not np.allclose(values, expected, rtol=1e-3, atol=1e-5):
            raise SystemExit(f"{key} gives other values")
    print(heading(f"{options.net}, JSON, {options.connections} connections; {versions(python)}"))
    print(told(ways, found))


def values_in(answer: bytes) -> Array:
    """The values of an answer in JSON."""
    return np.asarray(json.loads(answer)["outputs"][0]["data"], np.float32)


def told(ways: list[Contender], found: Mapping[str, list[Round]]) -> str:
    """The medians of each way as a table, and the ratios of the best."""
    lines = [
        "| server | processes | answers/s | p50, ms | p99, ms | processor ms an answer | not 200 "
        "| asking takes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    best: dict[str, float] = {}
    for way in ways:
        each = [one.asked for one in found[way.key]]
        speed = median(one.per_second for one in each)
        best[way.name] = max(best.get(way.name, 0), speed)
        lines.append(
            f"| {way.name} | {way.processes} | {speed:,.0f} "
            f"| {median(one.p50_ms for one in each):.2f} "
            f"| {median(one.p99_ms for one in each):.2f} "
            f"| {median(one.processor_ms for one in found[way.key]):.3f} "
            f"| {sum(one.not_200 for one in each)} "
            f"| {median(one.generator for one in each):.2f} of a processor |"
        )
    for name, speed in best.items():
        if name != "vggc":
            lines.append(f"\nvggc / {name}, each in its faster way: **{best['vggc'] / speed:.2f}**")
    return "\n".join(lines)


# Beside the net alone


def through_server(options: argparse.Namespace, folder: Path) -> None:
    """Prints images a second through the server over those of the net alone."""
    artifact, request = options.artifact or folder / "artifact", folder / "request"
    if options.artifact is None:
        compiled(options.net, artifact, f"1,{options.batch}", len(options.processors))
    manifest = read_manifest(artifact)
    batch = manifest.largest.batch
    image = np.random.default_rng(0).standard_normal((1, *manifest.input), np.float32)
    asked = binary_request(manifest.net, image)
    request.write_bytes(asked.text)
    alone, served = [], []
    for _ in range(options.rounds):
        bench = ["bench", str(artifact), "--against", "onnxruntime", "--rounds", "5", "--json"]
        timing = json.loads(run([*VGGC, *bench]))
        alone.append(1e3 * timing["batch"] / timing["median_ms"]["vggc"])
        port = free_port()
        with running(
            [*VGGC, "serve", str(artifact), "--port", str(port)], options.processors, folder / "log"
        ):
            asked.answered(port)
            served.append(load(port, request, 2 * batch, options.seconds))
    speed = median(one.per_second for one in served)
    print(heading(f"{manifest.net}, binary tensors, {2 * batch} connections"))
    print(
        f"batch {batch}: {median(alone):.2f} images/s alone, {speed:.2f} through the server, "
        f"p50 {median(one.p50_ms for one in served):.0f} ms, "
        f"p99 {median(one.p99_ms for one in served):.0f} ms; served / alone "
        f"**{speed / median(alone):.3f}**"
    )


def compiled(net: str, artifact: Path, batches: str, threads: int) -> None:
    """Compiles a net with random weights."""
    options = ["--batch", batches, "--threads", str(threads), "--seed", "0", "-o", str(artifact)]
    run([*VGGC, "compile", net, *options])


def run(command: list[str]) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def heading(what: str) -> str:
    """What was measured, where and how."""
    command = " ".join(["python", "benchmarks/serving.py", *sys.argv[1:]])
    processor = cpu(Path("/"))
    return f"{time.strftime('%Y-%m-%d %H:%M')}; {processor}; {what}\n\n    {command}\n"


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("peers", "net"))
    parser.add_argument("net", nargs="?", help="tiny_vgg beside peers, vgg16 alone")
    parser.add_argument("--artifact", type=Path, help="of the net alone, in place of compiling it")
    parser.add_argument("--environment", type=Path, default=Path("serving-peers"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument(
        "--processors",
        type=lambda text: {*map(int, text.split(","))},
        default=",".join(map(str, sorted(os.sched_getaffinity(0))[:2])),
        help="those of the servers",
    )
    options = parser.parse_args()
    options.net = options.net or {"peers": "tiny_vgg", "net": "vgg16"}[options.what]
    with tempfile.TemporaryDirectory() as folder:
        {"peers": compared, "net": through_server}[options.what](options, Path(folder))


if __name__ == "__main__":
    main()
