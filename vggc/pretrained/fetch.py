"""One file over HTTPS: to a part beside its place, gone on with where it was cut, and checked."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from typing import IO, TypeAlias
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from vggc.pretrained import diagnostics
from vggc.pretrained.table import SITE, Published
from vggc.support.diagnostics import UserError
from vggc_runtime.version import __version__

SITE_VARIABLE = "VGGC_WEIGHTS_URL"
"""What names another site in the environment: a mirror, under whose address the files lie."""

PATIENCE = 30.0
"""Seconds for a connection, and for each answer of it."""
ATTEMPTS = 5
"""How often a file is gone on with that was cut, in one command."""
PIECE = 1 << 20

STRONG_TAG = re.compile(r'"[!#-~]{1,200}"')
"""A mark that a server gives to files that are the same byte for byte.
Source: RFC 9110, 8.8.3.
"""

OnBytes: TypeAlias = Callable[[int, int | None], None]
"""What is told how many bytes have come, of how many where that is known."""


class RefusedRedirectError(Exception):
    """A server sends us to an address that nothing is fetched from; the message says why."""


def address_of(published: Published) -> str:
    """Where the file of published weights lies.

    Raises: UserError where the environment names a site that nothing is fetched from.
    """
    site = os.environ.get(SITE_VARIABLE) or SITE
    if reason := why_refused(site):
        raise UserError(diagnostics.WeightsAddress(site, reason))
    return f"{site.rstrip('/')}/{published.file}"


def why_refused(url: str) -> str | None:
    """Why nothing is fetched from an address; None where something is: by HTTPS, and by HTTP from
    this machine itself.
    """
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
    except ValueError:
        return "it is no address"
    if not host:
        return "it names no server"
    if scheme == "https" or (scheme == "http" and _is_here(host)):
        return None
    return "it is not https://, and anybody on the way could exchange the file"


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return False


class _Redirects(HTTPRedirectHandler):
    """Follows only to where something may be fetched from."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        reason = why_refused(newurl)
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            reason = reason or "it is not https://"
        if reason:
            fp.close()
            raise RefusedRedirectError(f"it sends us on to {newurl}: {reason}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass
class _PartialFile:
    """The part of a file that is there, how its sum stands, and by what its server knows it."""

    path: Path
    size: int = 0
    sum: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def tag_path(self) -> Path:
        return self.path.with_suffix(".etag")

    def take_up(self) -> None:
        """Adds up what is there from before."""
        self.size, self.sum = 0, hashlib.sha256()
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            while piece := file.read(PIECE):
                self.sum.update(piece)
                self.size += len(piece)

    def drop(self) -> None:
        """Throws away what is there."""
        self.path.unlink(missing_ok=True)
        self.tag_path.unlink(missing_ok=True)
        self.size, self.sum = 0, hashlib.sha256()

    @property
    def tag(self) -> str | None:
        """The server's strong mark of the file that the part is of."""
        with suppress(OSError, UnicodeDecodeError):
            tag = self.tag_path.read_text("ascii")
            return tag if STRONG_TAG.fullmatch(tag) else None
        return None

    def mark(self, tag: str | None) -> None:
        """Keeps the server's mark, where it has a strong one."""
        if tag and STRONG_TAG.fullmatch(tag):
            self.tag_path.write_text(tag, "ascii")
        else:
            self.tag_path.unlink(missing_ok=True)


def fetch(published: Published, place: Path, on_bytes: OnBytes) -> str:
    """Fetches the file of published weights to `place`, which it comes to whole and checked or not
    at all; its SHA-256. What came before a cut lies beside it, and is gone on with.

    Raises: UserError where it cannot be had, or is another file.
    """
    url = address_of(published)
    part = _PartialFile(place.with_name(f"{place.name}.part"))
    try:
        part.take_up()
        for _ in range(ATTEMPTS):
            before = part.size
            reason = _go_on(url, published, place, part, on_bytes)
            if reason is None or part.size <= before:
                break
        if reason is not None:
            raise UserError(
                diagnostics.WeightsCut(published.net, url, part.size, reason, str(place))
            )
        found = part.sum.hexdigest()
        if reason := why_other(published, part.size, found):
            part.drop()
            hint = "what came was deleted; if it comes again, tell who runs the site"
            raise UserError(diagnostics.WeightsAltered(url, published.net, reason, hint))
        os.replace(part.path, place)
        part.tag_path.unlink(missing_ok=True)
    except OSError as error:
        reason = f"{place.parent} cannot be written to: {error.strerror or error}"
        raise UserError(
            diagnostics.WeightsUnreachable(published.net, url, reason, str(place))
        ) from None
    return found


def why_other(published: Published, num_bytes: int, sha256: str) -> str | None:
    """Why a file of a size and a sum is not the one that was published; None where it is."""
    if not sha256.startswith(published.sha256):
        whole = "is" if published.is_known_whole else "begins with"
        return f"its SHA-256 is {sha256}, and the published one {whole} {published.sha256}"
    if not published.has_size(num_bytes):
        return f"it has {num_bytes:,} bytes, and the published one {published.mebibytes} MiB"
    return None


def _go_on(
    url: str, published: Published, place: Path, part: _PartialFile, on_bytes: OnBytes
) -> str | None:
    """Fetches what a part lacks; why some is still missing, None where nothing is.

    Raises: UserError where the server has nothing to go on with; OSError where nothing can be
    written.
    """
    headers = {"User-Agent": f"vggc/{__version__}", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.tag:
            headers["If-Range"] = part.tag

    def unreachable(reason: str) -> UserError:
        return UserError(diagnostics.WeightsUnreachable(published.net, url, reason, str(place)))

    try:
        answer = build_opener(_Redirects).open(Request(url, headers=headers), timeout=PATIENCE)
    except HTTPError as error:
        error.close()
        if error.code == 416 and part.size:
            if published.has_size(part.size):
                return None  # all of it was there already: its sum tells
            part.drop()
            return "the server has no more of it"
        raise unreachable(f"the server answers {error.code} {error.reason}") from None
    except RefusedRedirectError as fault:
        raise unreachable(str(fault)) from None
    except (HTTPException, OSError, ValueError) as error:  # an address may be none to a library
        raise unreachable(_told(error)) from None
    with closing(answer):
        total = _begin(answer, part, published)
        if total is not None and total > published.most_bytes:
            part.drop()
            size = f"the server's file has {total:,} bytes"
            raise unreachable(f"{size}, and the published one {published.mebibytes} MiB")
        return _pour(answer, part, total, published, on_bytes)


def _begin(answer: HTTPResponse, part: _PartialFile, published: Published) -> int | None:
    """Makes a part ready for what an answer holds; how many bytes the whole file has, where that is
    told.
    """
    length = answer.headers.get("Content-Length", "")
    follows = int(length) if length.isdecimal() and len(length) < 19 else None
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    if not (answer.status == 206 and unit == "bytes" and start == str(part.size)):
        part.drop()
        part.mark(answer.headers.get("ETag"))
    return None if follows is None else part.size + follows


def _pour(
    answer: HTTPResponse,
    part: _PartialFile,
    total: int | None,
    published: Published,
    on_bytes: OnBytes,
) -> str | None:
    """Writes what comes to a part; why some is missing, None where nothing is."""
    with part.path.open("ab") as file:
        while True:
            try:
                piece = answer.read(PIECE)
            except (HTTPException, OSError) as error:
                return _told(error)
            if not piece:
                break
            file.write(piece)
            part.sum.update(piece)
            part.size += len(piece)
            on_bytes(part.size, total)
            if part.size > published.most_bytes:
                return None  # it is another file, which its size tells
        file.flush()
        os.fsync(file.fileno())
    if total is not None and part.size < total:
        return "the connection was closed"
    return None


def _told(error: BaseException) -> str:
    """Why a network did not answer, in words."""
    cause = error.reason if isinstance(error, URLError) else error
    match cause:
        case TimeoutError():
            return f"no answer came within {PATIENCE:g} seconds"
        case OSError(strerror=str(text)):
            return text
        case _:
            return (str(cause).splitlines() or [""])[0][:200] or type(cause).__name__
