"""What clients send: bounded before it is read, and read before it is waited for too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

BODY_SECONDS = 30
"""How long a body may take to arrive."""

BODIES_HELD = 64
"""How many of the largest bodies are held in memory at once; a body counts with its own length."""

MOST_FIELDS = 8


class Refused(Exception):
    """A request is answered with an HTTP status and a reason, and perhaps when to ask again."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Bodies:
    """Reads bodies of `largest` bytes at most, and holds BODIES_HELD times as many in all."""

    def __init__(self, largest: int, seconds: float = BODY_SECONDS) -> None:
        self.largest = largest
        self._seconds = seconds
        self._free = BODIES_HELD * largest

    @contextmanager
    def room_for(self, request: Request) -> Iterator[None]:
        """Within it, a body of the length that a request tells has its room; of the largest where
        none is told.

        Raises:
            Refused: it is too large, or there is no room.
        """
        length = self._told_length(request)
        if length > self._free:
            raise Refused(503, "too many bodies are being read", retry_after=1)
        self._free -= length
        try:
            yield
        finally:
            self._free += length

    async def read(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            Refused: it is too large, compressed, or takes too long.
            ClientDisconnect: the client went away.
        """
        if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
            raise Refused(415, f"bodies are not uncompressed here: this one is {encoding}")
        parts, length = [], 0
        try:
            async with asyncio.timeout(self._seconds):
                async for part in request.stream():
                    parts.append(part)
                    length += len(part)
                    if length > self.largest:
                        raise self._too_large()
        except TimeoutError:
            raise Refused(408, f"the body took more than {self._seconds} seconds") from None
        return b"".join(parts)

    def _told_length(self, request: Request) -> int:
        told = request.headers.get("content-length")
        if told is None:
            return self.largest
        if not (told.isascii() and told.isdigit()):
            raise Refused(400, "Content-Length is no number")
        if len(told) > 18 or int(told) > self.largest:
            raise self._too_large()
        return int(told)

    def _too_large(self) -> Refused:
        return Refused(413, f"a body has at most {self.largest:,} bytes here")


async def file_in(request: Request, body: bytes) -> bytes:
    """The file that a request brings: its body, or the first file of a form.

    Raises:
        Refused: it is empty, or a form without a file.
    """
    if request.headers.get("content-type", "").startswith("multipart/"):
        body = await first_file(request, body)
    if not body:
        raise Refused(400, "there is no picture in the request")
    return body


async def first_file(request: Request, body: bytes) -> bytes:
    """Raises: Refused where a body is no form, or one without a file."""

    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(
        request.headers,
        stream(),  # type: ignore[arg-type]
        max_files=1,
        max_fields=MOST_FIELDS,
        max_part_size=1024,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = getattr(error, "message", None) or "its parts cannot be told apart"
        raise Refused(400, f"the form cannot be read: {reason}") from None
    try:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        return await files[0].read() if files else b""
    finally:
        await form.close()
