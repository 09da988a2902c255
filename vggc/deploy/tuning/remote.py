"""Other machines: a tracker of TVM's that knows them, and servers that run kernels there."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from typing import Any

from vggc.deploy.tuning import mistakes
from vggc.deploy.tuning.measure import Server, threads_at
from vggc.deploy.tuning.workers import Failed, Worker
from vggc.diagnostics import UserError

CONNECT = 5.0
"""Seconds for a tracker to answer, or for a server to come back to it."""
PATIENCE = 30.0
"""Seconds for a server to take a session."""


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`.

    Raises: UserError where it is none.
    """
    match = re.fullmatch(r"\[?([\w.:-]+?)\]?:([0-9]{1,5})", text)
    if match is None or not 0 < int(match[2]) < 2**16:
        reason = "expected a host and a port from 1 to 65535"
        hint = "write it as in --rpc 192.168.0.7:9190"
        raise UserError(mistakes.BadAddress(None, text, reason, hint))
    return match[1], int(match[2])


def find_servers(address: str, key: str) -> list[Server]:
    """Every server with this key that the tracker at `address` knows, one entry for each.

    Raises: UserError when nobody listens there, or there is no such server.
    """
    host, port = parse_address(address)
    server = Server(host, port, key)
    try:
        known = _summary(server)
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise UserError(mistakes.NoTracker(None, address, reason)) from None
    except (RuntimeError, ValueError):
        reason = "what listens there is no tracker of TVM's"
        raise UserError(mistakes.NoTracker(None, address, reason)) from None
    keys = [str(entry["key"]).removeprefix("server:") for entry in known["server_info"]]
    found = [server] * keys.count(key)
    if not found:
        reason = f"it knows {', '.join(sorted(set(keys)))}" if keys else "it knows none at all"
        raise UserError(mistakes.NoServer(None, address, key, reason))
    return found


def free_servers(server: Server) -> int:
    """How many such servers are free now, or in a moment: one that lost a session comes back."""
    until = time.monotonic() + CONNECT
    while True:
        try:
            free = int(_summary(server)["queue_info"].get(server.key, {}).get("free", 0))
        except (OSError, RuntimeError, ValueError):
            return 0
        if free or time.monotonic() > until:
            return free
        time.sleep(0.2)


def threads_of(servers: Sequence[Server], wanted: int | None) -> int:
    """The threads that the servers run kernels on, which are as many on each.

    Raises: UserError where one has another number than the others, or than is wanted, or
        does not answer.
    """
    workers = [Worker({}) for _ in servers]
    try:
        for worker, server in zip(workers, servers, strict=True):
            worker.ask(threads_at, server, patience=PATIENCE)
        found = [worker.result() for worker in workers]
    except Failed as failure:
        address = f"{servers[0].host}:{servers[0].port}"
        reason = f"that is free: one was asked, and {failure}"
        raise UserError(mistakes.NoServer(None, address, servers[0].key, reason)) from None
    finally:
        for worker in workers:
            worker.stop()
    threads = wanted or found[0]
    for number in found:
        if number != threads:
            raise UserError(mistakes.OtherThreads(None, number, threads))
    return int(threads)


def _summary(server: Server) -> dict[str, Any]:
    """What the tracker knows.

    Raises: OSError where nobody answers; RuntimeError or ValueError where it is no tracker.
    """
    from tvm import rpc

    # TVM's own connecting tries for a minute; and waits without end where nothing is said.
    with socket.create_connection((server.host, server.port), CONNECT) as probe:
        probe.settimeout(CONNECT)
        probe.sendall(rpc.base.RPC_TRACKER_MAGIC.to_bytes(4, "little"))
        answer = probe.recv(4)
        if answer != rpc.base.RPC_TRACKER_MAGIC.to_bytes(4, "little"):
            raise RuntimeError("no tracker")
    tracker = rpc.connect_tracker(server.host, server.port)
    try:
        found: dict[str, Any] = tracker.summary()
    finally:
        tracker.close()
    return found
