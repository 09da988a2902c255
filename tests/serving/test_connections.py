"""A client that is slow, sends without end or does not read has its time, and no more."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from select import select
from typing import Any

import pytest

from tests.support.served import LARGEST_BODY, PATIENCE, app_of, served
from vggc.serving.connections import FRAMING, HEADER_ROOM, MOST_HEAD, ConnectionLimits

SHORT = 0.1
"""Seconds that a client has in a test where it takes longer."""

HEAD = b"GET /v2/health/live HTTP/1.1\r\nhost: vggc\r\n"
CHUNKED = b"POST /v1/predict/none HTTP/1.1\r\nhost: vggc\r\ntransfer-encoding: chunked\r\n\r\n"
CUT = b"POST /v1/predict/none HTTP/1.1\r\nhost: vggc\r\ncontent-length: 10\r\n\r\n12345"


@contextmanager
def connected(*sent: bytes, **limits: Any) -> Iterator[socket.socket]:
    """A client of a server without models, of these limits, that has sent something."""
    with (
        served(app_of(), ConnectionLimits(LARGEST_BODY, **limits)) as (_, server, _),
        socket.create_connection(server.listeners[0].getsockname(), PATIENCE) as connection,
    ):
        for part in sent:
            connection.sendall(part)
        yield connection


def said(connection: socket.socket) -> bytes:
    """All that a server says until it closes a connection, or breaks it off."""
    heard = b""
    with suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            heard += part
    return heard


def send_without_end(connection: socket.socket, part: bytes) -> None:
    """Sends the same again and again, until that fails."""
    while True:
        connection.sendall(part)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"G", b"HTTP/1.1 408 Request Timeout"),
        (HEAD + b"cookie: ", b"HTTP/1.1 408 Request Timeout"),
        (HEAD + b"\r\n" + HEAD, b"HTTP/1.1 200 OK"),
    ],
    ids=["none", "letter", "half", "second"],
)
def test_headers_have_their_time(sent: bytes, answer: bytes) -> None:
    with connected(sent, head_seconds=SHORT) as connection:
        heard = said(connection)
    assert heard.startswith(answer)
    assert heard.count(b"408") == (sent != b"")


def test_the_answer_says_why() -> None:
    with connected(b"G", head_seconds=SHORT) as connection:
        head, _, body = said(connection).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert body == b'{"error":"the headers took more than 0.1 seconds"}'


@pytest.mark.parametrize("sent", [HEAD + b"\r\n", HEAD + b"\r\n" + b"\r\n" * 9], ids=["", "lines"])
def test_a_connection_that_nobody_uses_is_closed(sent: bytes) -> None:
    with connected(sent, idle_seconds=0) as connection:
        assert said(connection).count(b"HTTP/1.1 200 OK") == 1


def test_the_rest_of_a_body_that_was_refused_has_its_time() -> None:
    with connected(CUT, rest_seconds=SHORT, idle_seconds=99) as connection:
        assert said(connection).startswith(b"HTTP/1.1 404")


def test_a_connection_is_kept_behind_a_body_that_was_refused() -> None:
    with connected(CUT, b"67890" + HEAD + b"connection: close\r\n\r\n") as connection:
        assert [part[:3] for part in said(connection).split(b"HTTP/1.1 ")[1:]] == [b"404", b"200"]


def test_many_requests_may_be_sent_before_the_first_answer() -> None:
    many = 700
    asked = (HEAD + b"\r\n") * many + HEAD + b"connection: close\r\n\r\n"
    with connected(asked) as connection:
        assert said(connection).count(b"HTTP/1.1 200 OK") == many + 1


def test_who_does_not_take_answers_has_no_connection_for_long() -> None:
    asked = (HEAD.replace(b"/v2/health/live", b"/") + b"\r\n") * 99
    with (
        connected(rest_seconds=SHORT, idle_seconds=99) as connection,
        pytest.raises(ConnectionError),
    ):
        send_without_end(connection, asked)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * MOST_HEAD,
        HEAD + b"cookie: " + b"a" * MOST_HEAD,
        HEAD + b"a:\r\n" * (MOST_HEAD // HEADER_ROOM),
    ],
    ids=["address", "header", "headers"],
)
def test_headers_without_end_are_refused(sent: bytes) -> None:
    with connected(sent) as connection:
        while not select([connection], [], [], 0.02)[0]:
            connection.sendall(b"a" * (MOST_HEAD // 2))
        assert said(connection).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "part", [b"1;" + b"a" * 99 + b"\r\na\r\n", b"0\r\n" + b"a: a\r\n" * 9999], ids=["", "trailers"]
)
def test_a_refused_body_is_not_read_without_end(part: bytes) -> None:
    times = 2 + FRAMING * LARGEST_BODY // len(part)
    with connected(CHUNKED) as connection, pytest.raises(ConnectionError):
        send_without_end(connection, part * times)


def test_what_is_no_http_is_told_so() -> None:
    with connected(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n") as connection:
        heard = said(connection)
    assert heard.startswith(b"HTTP/1.1 400")
    assert heard.endswith(b'{"error":"the request is not HTTP"}')


def test_connections_are_bounded() -> None:
    with connected(HEAD + b"\r\n", connections=1) as first:
        assert first.recv(99).startswith(b"HTTP/1.1 200")
        with socket.create_connection(first.getpeername(), PATIENCE) as second:
            heard = said(second)
            assert heard.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in heard
        first.sendall(HEAD + b"\r\n")
        assert first.recv(1 << 16)
