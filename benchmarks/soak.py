"""A server under more load than it can bear: `python benchmarks/soak.py ARTIFACT --minutes 60`.

Clients ask `vggc serve` for images that all differ, and check each answer against what the artifact
gives of them. Among them are clients that vanish amid their headers, amid a body and before the
answer, that send half of a body, garbage, too much, wrong types, or nothing for long. Exit 0 means
that nothing was lost or answered wrongly, that the server's counts are the clients', that it ended
in order, and that memory and descriptors stayed flat: the median of the last quarter of the time is
no more than that of the second by a twentieth and 8 MiB, and once the clients have gone no process
has more descriptors open than before they came, but for SPARE.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.request import urlopen

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from vggc.api.run import session_of
from vggc.support.arrays import Array

POOL = 128
"""Images that differ."""

MOST_IMAGES = 4
"""Of one request."""

TOLERANCE = 1e-4
"""By how much an answer may be off; no two images of the pool have answers as close as 4 times
that.
"""

QUEUE = 16
"""Images that may wait: few, so that clients ask for more than is there."""

ANSWER_SECONDS = 60
"""After which an answer counts as lost."""

HELD = 12
"""Seconds for which a slow client keeps its connection, more than the server gives to headers."""

SAMPLE = 2.0
"""Seconds between two looks at memory and descriptors."""

SPARE = 3
"""Descriptors that a process may open in its life, such as those of its threads."""

MORE, MORE_BYTES = 1.05, 8 << 20

SETTLE = 3
"""Seconds until a server has noticed that its clients have gone."""


@dataclass(frozen=True)
class Pool:
    """Images that differ, (POOL, C, H, W), and what a net gives of each."""

    name: str
    output: str
    images: Array
    expected: Array

    def request(self, numbers: list[int], is_binary: bool) -> bytes:
        """Asks for images by their numbers."""
        images = self.images[numbers]
        tensor: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": [*images.shape]}
        if not is_binary:
            tensor["data"] = images.ravel().tolist()
            return self.post(json.dumps({"inputs": [tensor]}).encode())
        tensor["parameters"] = {"binary_data_size": images.nbytes}
        text = json.dumps({"inputs": [tensor]}).encode()
        return self.post(text + images.tobytes(), f"Inference-Header-Content-Length: {len(text)}")

    def post(self, body: bytes, *headers: str) -> bytes:
        """A request with a body."""
        return self.head(f"content-length: {len(body)}", *headers) + body

    def head(self, *headers: str) -> bytes:
        """A request without its body."""
        first = f"POST /v2/models/{self.name}/infer HTTP/1.1"
        return "\r\n".join([first, "host: soak", *headers, "", ""]).encode()

    def is_right(self, numbers: list[int], body: bytes) -> bool:
        """Whether an answer is that of these images."""
        for output in json.loads(body)["outputs"]:
            if output["name"] == self.output:
                found = np.asarray(output["data"]).reshape(len(numbers), -1)
                return bool(np.abs(found - self.expected[numbers]).max() < TOLERANCE)
        return False


def pool_of(artifact: Path) -> Pool:
    """Images whose answers differ by more than 4 times the tolerance."""
    session = session_of(artifact, 1)
    manifest, rng = session.manifest, np.random.default_rng(0)
    images: list[Array] = []
    expected: list[Array] = []
    for _ in range(20 * POOL):
        scale, shift = rng.uniform(0.2, 3), rng.uniform(-2, 2)
        image = (scale * rng.standard_normal(manifest.input) + shift).astype(np.float32)
        given = session.run(image[None]).ravel()
        if all(np.abs(given - other).max() > 4 * TOLERANCE for other in expected):
            images.append(image)
            expected.append(given)
        if len(images) == POOL:
            name = manifest.outputs[0].name
            return Pool(manifest.net, name, np.stack(images), np.stack(expected))
    raise SystemExit(f"the net gives too few different answers: {len(images)} of {POOL}")


@dataclass
class Tally:
    """What clients did and what became of it, and what may not be."""

    came: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, kind: str, outcome: str, allowed: tuple[str, ...]) -> None:
        """A request of a kind came to an outcome, one of those that are allowed."""
        self.came[kind, outcome] += 1
        if outcome not in allowed and len(self.wrong) < 20:
            self.wrong.append(f"{kind}: {outcome}")


@dataclass
class Client:
    """One client: asks as it should on one connection, and misbehaves on others."""

    port: int
    pool: Pool
    tally: Tally
    random: random.Random
    end: float
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def live(self, kinds: Mapping[str, float]) -> None:
        """Asks until the time has come."""
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            name: getattr(self, name) for name in kinds
        }
        weights = [*kinds.values()]
        while time.monotonic() < self.end:
            (name,) = self.random.choices([*kinds], weights)
            await acts[name]()
        if self.writer:
            self.writer.close()

    def wanted(self) -> list[int]:
        return self.random.sample(range(POOL), self.random.randint(1, MOST_IMAGES))

    async def opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def good(self) -> None:
        """Asks for images and checks the answer."""
        if self.writer is None:
            self.reader, self.writer = await self.opened()
        assert self.reader
        numbers, outcome = self.wanted(), "lost"
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            self.writer.write(self.pool.request(numbers, self.random.random() < 0.9))
            async with asyncio.timeout(ANSWER_SECONDS):
                status, body = await answer_of(self.reader)
            outcome = status
            if status == "200" and not self.pool.is_right(numbers, body):
                outcome = "200, of other images"
        if outcome == "lost":
            self.writer.close()
            self.writer = None
        self.tally.note("good", outcome, ("200", "503"))
        if outcome == "503":
            await asyncio.sleep(self.random.uniform(0, 0.05))

    async def vanish_amid_headers(self) -> None:
        request = self.pool.request(self.wanted(), True)
        await self._vanish("vanish_amid_headers", request[: self.random.randint(1, 60)])

    async def vanish_amid_body(self) -> None:
        request = self.pool.request(self.wanted(), True)
        await self._vanish("vanish_amid_body", request[: -self.random.randint(1, 3000)])

    async def vanish_before_answer(self) -> None:
        await self._vanish("vanish_before_answer", self.pool.request(self.wanted(), True))

    async def _vanish(self, kind: str, sent: bytes) -> None:
        _, writer = await self.opened()
        writer.write(sent)
        await asyncio.sleep(self.random.choice((0, 0, 0.002, 0.02)))
        if self.random.random() < 0.5:
            writer.transport.abort()
        writer.close()
        self.tally.note(kind, "gone", ("gone",))

    async def cut_body(self) -> None:
        """Half a body, its end, and an ear for what the server says of it."""
        request = self.pool.request(self.wanted(), True)
        await self._one_off("cut_body", request[:-100], ("closed", "503"), ends=True)

    async def garbage(self) -> None:
        sent = (
            self.random.randbytes(self.random.randint(20, 3000)).replace(b"\n", b" ") + b"\r\n\r\n"
        )
        await self._one_off("garbage", b"\x00" + sent, ("400", "closed"))

    async def oversized(self) -> None:
        sent = self.pool.head("content-length: 99999999") + b"x" * 70_000
        await self._one_off("oversized", sent, ("413", "503", "closed"))

    async def oversized_chunks(self) -> None:
        head = self.pool.head("transfer-encoding: chunked")
        sent = head + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 20
        await self._one_off("oversized_chunks", sent, ("413", "503", "closed"))

    async def wrong_type(self) -> None:
        tensor = {"name": "input", "datatype": "INT64", "shape": [1, 1], "data": ["a", None]}
        sent = self.pool.post(json.dumps({"inputs": [tensor]}).encode())
        await self._one_off("wrong_type", sent, ("400", "503"))

    async def no_json(self) -> None:
        await self._one_off("no_json", self.pool.post(b"{" * 5000), ("400", "503"))

    async def no_picture(self) -> None:
        sent = self.pool.post(b"GIF89a" + bytes(500)).replace(b"/v2/models/", b"/v1/predict/")
        sent = sent.replace(b"/infer", b"")
        await self._one_off("no_picture", sent, ("400", "503"))

    async def slow(self) -> None:
        """A part of the headers, and nothing for long."""
        await self._one_off("slow", self.pool.head()[:40], ("408",), seconds=HELD)

    async def deaf(self) -> None:
        """Many requests, and no answer is taken."""
        _, writer = await self.opened()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                for _ in range(200):
                    writer.write(b"GET / HTTP/1.1\r\nhost: soak\r\n\r\n")
                    await writer.drain()
                await asyncio.sleep(self.random.uniform(0, 1))
        writer.transport.abort()
        self.tally.note("deaf", "gone", ("gone",))

    async def _one_off(
        self,
        kind: str,
        sent: bytes,
        allowed: tuple[str, ...],
        *,
        ends: bool = False,
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        reader, writer = await self.opened()
        outcome = "closed"
        try:
            writer.write(sent)
            if ends:
                writer.write_eof()
            async with asyncio.timeout(seconds):
                outcome, _ = await answer_of(reader)
        except TimeoutError:
            outcome = "no answer"
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.transport.abort()
        self.tally.note(kind, outcome, allowed)


KINDS = {
    "good": 80,
    "vanish_amid_headers": 3,
    "vanish_amid_body": 3,
    "vanish_before_answer": 4,
    "cut_body": 2,
    "garbage": 2,
    "oversized": 1,
    "oversized_chunks": 0.3,
    "wrong_type": 2,
    "no_json": 1,
    "no_picture": 1,
    "slow": 0.05,
    "deaf": 0.05,
}
"""What clients do, and how often."""


async def answer_of(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The status and the body of an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length
    status = head[9:12].decode()
    if status == "503" and b"retry-after: " not in head.lower():
        status = "503 without Retry-After"
    return status, await reader.readexactly(int(length[1]))


# The server


@dataclass(frozen=True)
class Served:
    """A server: its process, and where it listens."""

    process: subprocess.Popen[str]
    port: int

    @classmethod
    def start(cls, artifact: Path, processes: int, said: IO[bytes]) -> Served:
        """Comes back when all processes of a server are ready."""
        command = [sys.executable, "-m", "vggc", "serve", str(artifact), "--port", "0"]
        options = ["--processes", str(processes), "--threads", "1", "--max-body", "1"]
        options += ["--queue", str(QUEUE)]
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=said, text=True
        )
        assert process.stdout
        line = next((line for line in process.stdout if "Serving at" in line), None)
        if line is None:
            raise SystemExit("the server has not begun")
        served = cls(process, int(line.rpartition(":")[2]))
        while len(served.processes()) < (1 if processes == 1 else processes + 1):
            time.sleep(0.1)
        while processes > 1 and served.get("/health").count(f'"ready":{processes}') == 0:
            time.sleep(0.1)
        return served

    def get(self, path: str) -> str:
        """What is at an address."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            text: str = answer.read().decode()
        return text

    def processes(self) -> list[int]:
        """All of its processes, the first one first."""
        number = self.process.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text("utf-8")
        return [number, *map(int, children.split())]

    def resident(self) -> int:
        """The bytes of memory that its processes have, what they share counting for each."""
        pages = [
            int(Path(f"/proc/{each}/statm").read_text("utf-8").split()[1])
            for each in self.processes()
        ]
        return sum(pages) * os.sysconf("SC_PAGESIZE")

    def descriptors(self) -> list[int]:
        """How many descriptors each of its processes has open."""
        return [len(os.listdir(f"/proc/{each}/fd")) for each in self.processes()]

    def counted(self) -> Counter[str]:
        """How many requests it has answered with each status, by its own count."""
        found: Counter[str] = Counter()
        for status, count in re.findall(
            r'vggc_requests_total\{model="[^"]+",status="(\d+)"\} (\S+)', self.get("/metrics")
        ):
            found[status] += int(float(count))
        return found


@dataclass
class Sampled:
    """What a server took over time."""

    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    async def watch(self, served: Served) -> None:
        """Looks now and then, until it is cancelled."""
        while True:
            self.resident.append(served.resident())
            self.descriptors.append(sum(served.descriptors()))
            await asyncio.sleep(SAMPLE)

    @property
    def quarters(self) -> tuple[float, float]:
        """The medians of memory in the second quarter of the time and in the last."""
        quarter = max(1, len(self.resident) // 4)
        return median(self.resident[quarter : 2 * quarter]), median(self.resident[-quarter:])


async def load(served: Served, pool: Pool, tally: Tally, options: argparse.Namespace) -> Sampled:
    """All clients for so many minutes."""
    sampled, end = Sampled(), time.monotonic() + 60 * options.minutes
    watching = asyncio.create_task(sampled.watch(served))
    clients = [
        Client(served.port, pool, tally, random.Random(options.seed + number), end).live(KINDS)
        for number in range(options.clients)
    ]
    try:
        await asyncio.gather(*clients)
    finally:
        watching.cancel()
    return sampled


def faults_of_counts(tally: Tally, counted: Counter[str]) -> list[str]:
    """Where what clients were told is not what the server says that it told them. Of those who
    vanish nobody knows what they would have been told.
    """
    faults = []
    vanished = sum(
        count for (kind, outcome), count in tally.came.items() if outcome in ("gone", "closed")
    )
    for status in ("200", "503", "400", "413", "500"):
        told = sum(
            count
            for (kind, outcome), count in tally.came.items()
            if outcome == status and kind != "garbage"
        )
        if not told <= counted[status] <= told + vanished:
            faults.append(
                f"{status}: clients were told {told}, the server counts {counted[status]}"
            )
    return faults


def main() -> None:
    """Prints what was found; exit 1 where anything is not as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pool, tally = pool_of(options.artifact), Tally()
    with TemporaryFile() as said:
        served = Served.start(options.artifact, options.processes, said)
        try:
            before = served.descriptors()
            sampled = asyncio.run(load(served, pool, tally, options))
            time.sleep(SETTLE)
            after, counted = served.descriptors(), served.counted()
            served.process.send_signal(signal.SIGTERM)
            code = served.process.wait(120)
        finally:
            served.process.kill()
        said.seek(0)
        lines = said.read().decode().splitlines()
    for (kind, outcome), count in sorted(tally.came.items()):
        print(f"{count:>10,}  {kind}: {outcome}")
    print("the server counts", ", ".join(f"{n:,} of {s}" for s, n in sorted(counted.items())))
    second, last = sampled.quarters
    print(
        f"memory, MiB: {sampled.resident[0] / 2**20:.1f} at first, {second / 2**20:.1f} in the"
        f" second quarter, {last / 2**20:.1f} in the last, {max(sampled.resident) / 2**20:.1f} at"
        " most"
    )
    print(f"descriptors: {before} before, {max(sampled.descriptors)} in all at most, {after} after")
    faults = [*tally.wrong, *faults_of_counts(tally, counted)]
    if last > MORE * second + MORE_BYTES:
        faults.append("memory is not flat")
    if len(after) != len(before) or any(a > b + SPARE for a, b in zip(after, before, strict=False)):
        faults.append("descriptors are left open, or a process has died")
    if tally.came["good", "503"] == 0:
        faults.append("the load was not above capacity: nobody was told to come again")
    if code != 143 or lines != ["all requests are answered"]:
        faults.append(f"the server ended with exit code {code}, saying {lines[:20]}")
    print("\n".join(["FAULTS", *faults]) if faults else "no fault was found")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
