"""Asks a server the same as fast as it answers, in a process of its own that needs nothing but
Python: `python benchmarks/http_load.py PORT REQUEST --connections 16 --seconds 5`.

REQUEST is a file of a whole HTTP request. Each connection asks again when it has its answer. Prints
JSON: answers a second, the 50th and 99th of a hundred parts of their times in milliseconds, the
answers that are not 200, and the share of a processor that asking took.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
from pathlib import Path
from time import perf_counter, process_time

WARM_UP = 1.0
"""Seconds before anything counts."""


class Connection:
    """A connection, what of its answer has come, and when it asked."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.heard = b""
        self.length = -1
        self.asked = 0.0

    def ask(self) -> None:
        """Sends the request."""
        self.heard, self.length, self.asked = b"", -1, perf_counter()
        self.socket.sendall(self.request)

    def status(self) -> bytes | None:
        """Hears what has come: the answer's status once all of it is here."""
        part = self.socket.recv(1 << 16)
        if not part:
            raise SystemExit("the server has closed a connection")
        self.heard += part
        if self.length < 0 and (end := self.heard.find(b"\r\n\r\n")) >= 0:
            head = self.heard[:end].lower()
            told = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.length = end + 4 + int(told)
        return self.heard[9:12] if 0 <= self.length <= len(self.heard) else None


def main() -> None:
    """Prints a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("request", type=Path)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    request = options.request.read_bytes()
    selector = selectors.DefaultSelector()
    for _ in range(options.connections):
        connection = Connection(options.port, request)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.ask()
    begin = perf_counter() + WARM_UP
    end, busy = begin + options.seconds, None
    times, refused = [], 0
    while (now := perf_counter()) < end:
        if busy is None and now >= begin:
            busy = process_time()
        for key, _ in selector.select(1):
            status = key.data.status()
            if status is None:
                continue
            if busy is not None:
                times.append(perf_counter() - key.data.asked)
                refused += status != b"200"
            key.data.ask()
    spent = process_time() - (busy or 0)
    times.sort()
    found = {
        "per_second": len(times) / options.seconds,
        "p50_ms": 1e3 * times[len(times) // 2],
        "p99_ms": 1e3 * times[len(times) * 99 // 100],
        "not_200": refused,
        "generator": spent / options.seconds,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
