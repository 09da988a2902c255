"""Connections whose clients may neither be slow without end nor send without end before a body."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import Any

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

MOST_HEAD = 1 << 16
"""The bytes of a request's address and headers, each header counting HEADER_ROOM more."""

HEADER_ROOM = 32
"""What a header takes beside its bytes, about."""

FRAMING = 8
"""A body may come as so many times its bytes: each chunk has a length of its own."""


FED = 1 << 13
"""The bytes that the parser is given at once, beyond the body that it reads: so many requests at
most come to wait for an answer on one connection.
"""


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections a process has at once, and the seconds that a client may take: for its
    headers, from one request to the next, and, once the server is done with a connection, for what
    is left to be sent on it in either direction. `largest_body` is in bytes.
    """

    largest_body: int
    connections: int = 1000
    head_seconds: float = 10
    idle_seconds: int = 30
    rest_seconds: float = 30


class BoundedConnection(HttpToolsProtocol):
    """A connection with limits. Whoever has it calls `check` now and then, as no timer is set for
    each request.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._deadline = inf
        self._is_in_head = False
        self._is_in_message = False
        self._is_leaving = False
        self._held = bytearray()
        self._head_bytes = 0
        self._message_bytes = 0
        self._body_left = 0

    def check(self) -> None:
        """Ends the connection where its client has had its time."""
        if self.transport.is_closing() and not self._is_leaving:
            self._is_leaving = True
            self._allow(self._limits.rest_seconds)
        if self.loop.time() < self._deadline:
            return
        if self._is_leaving:
            self.transport.abort()
        elif self._is_in_head:
            self._refuse(408, f"the headers took more than {self._limits.head_seconds} seconds")
        else:
            self.transport.close()

    def _allow(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds

    def _refuse(self, status: int, reason: str) -> None:
        """Answers and closes, without asking the application."""
        if self.transport.is_closing():
            return
        body = orjson.dumps({"error": reason})
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
            *(["retry-after: 1"] if status == 503 else []),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()

    # What the transport tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bounds the connections, and how long one may wait with its first request."""
        super().connection_made(transport)
        self.transport = _JoinedWrites(transport, self.loop)  # type: ignore[assignment]
        self.flow = _Flow(transport, self.pipeline)
        self._allow(self._limits.head_seconds)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "the server has too many connections")

    def pause_writing(self) -> None:
        """The client does not take what it asked for."""
        super().pause_writing()
        self._allow(self._limits.rest_seconds)

    def resume_writing(self) -> None:
        """The client takes its answers."""
        super().resume_writing()
        if not self._is_idle:
            self._deadline = inf

    def data_received(self, data: bytes) -> None:
        """Bounds what one request may send, and what is read while others wait for their answers:
        without that, memory fills up with requests of who sends them and reads no answer.
        """
        if self._held or len(data) > FED or self.pipeline:
            self._held += data
            self._feed()
        else:
            self._read(data)

    def _feed(self) -> None:
        """Reads of what is here while nobody waits behind the request that is being answered."""
        while self._held and not self.pipeline and not self.transport.is_closing():
            size = FED + self._body_left
            part = bytes(self._held[:size])
            del self._held[:size]
            self._read(part)
        if self.pipeline:
            self.flow.pause_reading()

    def _read(self, data: bytes) -> None:
        self._message_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._message_bytes > MOST_HEAD:
            self._refuse(431, self._too_long)
        elif self._message_bytes > MOST_HEAD + FRAMING * self._limits.largest_body:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, or headers at which `on_header` has stopped."""
        if self._head_bytes > MOST_HEAD:
            self._refuse(431, self._too_long)
        else:
            self._refuse(400, "the request is not HTTP")

    @property
    def _too_long(self) -> str:
        return f"an address and its headers have at most {MOST_HEAD:,} bytes here"

    # What the parser tells

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head = self._is_in_message = True
        self._head_bytes = self._message_bytes = self._body_left = 0
        if self._is_idle:
            self._allow(self._limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        """A part of the address."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what stands behind a body is passed over."""
        self._count_head(len(name) + len(value) + HEADER_ROOM)
        if self._is_in_head:
            super().on_header(name, value)
            if name.lower() == b"content-length" and value.isdigit():
                self._body_left = min(int(value[:18]), self._limits.largest_body)

    def _count_head(self, num_bytes: int) -> None:
        self._head_bytes += num_bytes
        if self._head_bytes > MOST_HEAD:
            raise ValueError(self._too_long)  # the parser stops, and calls send_400_response

    def on_headers_complete(self) -> None:
        """From here to its answer a request has the application's time."""
        self._is_in_head = False
        if not self.flow.write_paused:
            self._deadline = inf
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_left = max(0, self._body_left - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is here."""
        self._is_in_message = False
        self._body_left = 0
        super().on_message_complete()

    # What the application tells

    def on_response_complete(self) -> None:
        """An answer is given: of what was asked, of a part of it where it was refused."""
        super().on_response_complete()
        if self._is_idle:
            if self._is_in_head:
                self._allow(self._limits.head_seconds)
            elif self._is_in_message:
                self._allow(self._limits.rest_seconds)
            else:
                self._allow(self._limits.idle_seconds)
        if not self.pipeline:
            self.flow.resume_reading()
            self._feed()

    @property
    def _is_idle(self) -> bool:
        """Whether no request waits for its answer."""
        return self.cycle is None or self.cycle.response_complete


class _Flow(FlowControl):
    """Reads nothing of a connection while requests wait in its pipeline."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Called by whoever could take more."""
        if not self._pipeline:
            super().resume_reading()


class _JoinedWrites:
    """A transport that sends at once what is written in one turn of the loop: an answer's headers
    and body take one call of the system, and the client wakes once.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends bytes at the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def close(self) -> None:
        """Closes behind what is written."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()
