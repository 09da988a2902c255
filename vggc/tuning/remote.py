"""Other machines: a tracker of TVM's that knows them, and servers that run kernels there."""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vggc.support.diagnostics import UserError
from vggc.tuning import diagnostics
from vggc.tuning.machines import TunedCard
from vggc.tuning.measure import MeasuringMachine, TrackerAddress, card_at, machine_at
from vggc.tuning.workers import Failed, MeasuringWorker

CONNECT = 5.0
"""Seconds for a tracker to answer, or for a server to come back to it."""
MAX_ANSWER = 2**20
"""The most bytes that a tracker may say about its servers."""
MAX_SERVERS = 64
"""How many may measure side by side."""
PATIENCE = 30.0
"""Seconds for a server to take a session."""


def parse_address(text: str) -> tuple[str, int]:
    """The host and the port of `HOST:PORT`.

    Raises: UserError where it is none.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})", text)
    if match is None or not 0 < int(match[3]) < 2**16:
        reason = "expected a host and a port from 1 to 65535"
        hint = "write it as in --rpc 192.168.0.7:9190 or --rpc [::1]:9190"
        raise UserError(diagnostics.BadAddress(text, reason, hint))
    return match[1] or match[2], int(match[3])


def find_servers(address: str, key: str) -> list[TrackerAddress]:
    """Every server with this key that the tracker at `address` knows, one entry for each.

    Raises: UserError when nobody listens there, or there is no such server.
    """
    host, port = parse_address(address)
    server = TrackerAddress(host, port, key)
    try:
        servers = _summary(server).servers
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise UserError(diagnostics.NoTracker(address, reason)) from None
    except (ValueError, RecursionError):
        reason = "what listens there is no tracker of TVM's"
        raise UserError(diagnostics.NoTracker(address, reason)) from None
    number = servers[key]
    if not number:
        names = [name[:40] for name in sorted(servers) if name.isprintable()][:10]
        reason = f"it knows {', '.join(names)}" if names else "it knows none at all"
        raise UserError(diagnostics.NoServer(address, key, reason))
    if number > MAX_SERVERS:
        reason = f"but {number:,} of them, and {MAX_SERVERS} at most measure side by side"
        raise UserError(diagnostics.NoServer(address, key, reason))
    return [server] * number


def free_servers(server: TrackerAddress) -> int:
    """How many of a tracker's servers with this key are free now, or in a moment: one that lost a
    session comes back.
    """
    until = time.monotonic() + CONNECT
    while True:
        try:
            free = _summary(server).free[server.key]
        except (OSError, ValueError, RecursionError):
            return 0
        if free or time.monotonic() > until:
            return free
        time.sleep(0.2)


def machine_of(
    servers: Sequence[TrackerAddress], threads: int | None, cpu: str | None = None
) -> MeasuringMachine:
    """What the servers are, all alike: the threads that they run kernels on, and their CPU.

    Raises: UserError where one has other threads or another CPU than the others, or than is
        asked for, or does not answer.
    """
    found: list[MeasuringMachine] = _answers(machine_at, servers)
    wanted = MeasuringMachine(threads or found[0].threads, cpu or found[0].cpu)
    for machine in found:
        if machine.threads != wanted.threads:
            raise UserError(diagnostics.OtherThreads(machine.threads, wanted.threads))
        # One with TVM's runtime alone does not say what it is.
        if None not in (machine.cpu, wanted.cpu) and machine.cpu != wanted.cpu:
            raise UserError(diagnostics.OtherCpu(str(machine.cpu), str(wanted.cpu)))
    return MeasuringMachine(wanted.threads, found[0].cpu)


def card_of(servers: Sequence[TrackerAddress]) -> TunedCard:
    """The card that the servers have, all alike.

    Raises: UserError where one has none, or another than the others, or does not answer.
    """
    found: list[TunedCard | str] = _answers(card_at, servers)
    cards = [card for card in found if isinstance(card, TunedCard)]
    for lack in found:
        if isinstance(lack, str):
            hint = "start it where the loader finds libcuda.so.1 and the CUDA runtime"
            raise UserError(diagnostics.NoCard(f"a server `{servers[0].key}`", lack, hint))
    for card in cards:
        if card != cards[0]:
            raise UserError(diagnostics.OtherCard(card.words, cards[0].words))
    return cards[0]


def card_here() -> TunedCard:
    """The card of this machine; of several the first.

    Raises: UserError where there is none.
    """
    hint = "--rpc HOST:PORT --key KEY measures on machines that register with a tracker of TVM's"
    worker = MeasuringWorker({})
    try:
        worker.ask(card_at, None, patience=PATIENCE)
        found: TunedCard | str = worker.result()
    except Failed as failure:
        found = str(failure)
    finally:
        worker.stop()
    if isinstance(found, str):
        raise UserError(diagnostics.NoCard("this machine", found, hint))
    return found


def _answers(question: Callable[..., Any], servers: Sequence[TrackerAddress]) -> list[Any]:
    """What each server answers to a question.

    Raises: UserError where one does not answer.
    """
    workers = [MeasuringWorker({}) for _ in servers]
    try:
        for worker, server in zip(workers, servers, strict=True):
            worker.ask(question, server, patience=PATIENCE)
        return [worker.result() for worker in workers]
    except Failed as failure:
        address = f"{servers[0].host}:{servers[0].port}"
        reason = f"that is free: one was asked, and {failure}"
        raise UserError(diagnostics.NoServer(address, servers[0].key, reason)) from None
    finally:
        for worker in workers:
            worker.stop()


@dataclass(frozen=True)
class _Summary:
    """What a tracker knows: for each key how many servers there are, and how many are free."""

    servers: Counter[str]
    free: Counter[str]


def _summary(server: TrackerAddress) -> _Summary:
    """What the tracker knows, within `CONNECT` seconds.

    TVM's own client tries for a minute, waits without end where nothing is said, and takes
    whatever it is given.

    Raises: OSError where nobody answers; ValueError or RecursionError where it is no tracker.
    """
    from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode

    magic = RPC_TRACKER_MAGIC.to_bytes(4, "little")
    question = json.dumps([TrackerCode.SUMMARY]).encode()
    until = time.monotonic() + CONNECT
    with socket.create_connection((server.host, server.port), CONNECT) as connection:
        connection.sendall(magic)
        if _received(connection, 4, until) != magic:
            raise ValueError("no tracker")
        connection.sendall(len(question).to_bytes(4, "little") + question)
        size = int.from_bytes(_received(connection, 4, until), "little")
        if size > MAX_ANSWER:
            raise ValueError("no tracker")
        answer = json.loads(_received(connection, size, until))
    match answer:
        case [TrackerCode.SUCCESS, {"server_info": [*servers], "queue_info": {**queues}}]:
            keys = [_key(entry) for entry in servers]
            free = {str(key): _free(queue) for key, queue in queues.items()}
            return _Summary(Counter(keys), Counter(free))
        case _:
            raise ValueError("no tracker")


def _key(entry: Any) -> str:
    match entry:
        case {"key": str(key)}:
            return key.removeprefix("server:")
        case _:
            raise ValueError("no tracker")


def _free(queue: Any) -> int:
    match queue:
        case {"free": int(number)}:
            return number
        case _:
            raise ValueError("no tracker")


def _received(connection: socket.socket, size: int, until: float) -> bytes:
    """The next `size` bytes that come in.

    Raises: OSError where they have not come by then.
    """
    content = b""
    while len(content) < size:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("it does not answer")
        connection.settimeout(left)
        try:
            more = connection.recv(size - len(content))
        except TimeoutError:
            raise TimeoutError("it does not answer") from None
        if not more:
            raise ConnectionError("it ends the connection without an answer")
        content += more
    return content
