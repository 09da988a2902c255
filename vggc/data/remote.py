"""Files that lie elsewhere, by URL: everything that fsspec opens."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from vggc.data import diagnostics
from vggc.support.diagnostics import UserError

PAUSES = (0.5, 2.0, 8.0)
"""Seconds before a server that failed is asked again."""
PATIENCE, SLOWEST = 60.0, 2**17
"""Seconds for an answer, and bytes a second of it: a server that takes longer has failed."""


def is_url(place: str) -> bool:
    """Whether a place is a URL, and no path of this machine."""
    return "://" in place


def absolute(place: str) -> str:
    """The place as it may be written down and is called from everywhere: a path from the root, or
    a URL without what is secret in it.
    """
    return without_secrets(place) if is_url(place) else os.path.abspath(place)


SECRET = re.compile(
    "accesskey|apikey|auth|authorization|credentials?|hdnea|hdnts|jwt|key|passwd|password|pwd|secret"
    "|sig|signature|token",
    re.IGNORECASE,
)
"""A word in the name of a parameter whose value is nobody else's business."""

URL = re.compile(r"([^/?#]*://)(?:([^/?#]*)@)?([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
"""The parts of a URL: scheme, who asks, host and path, query, fragment."""


def without_secrets(url: str) -> str:
    """The URL without names and passwords before `https://` hosts and without other passwords, and
    without what is called a signature, a token or the like in its query.
    """
    # fsspec has one file system open another: `simplecache::https://…`.
    first, chained, rest = url.partition("::")
    if chained:
        return f"{first}::{without_secrets(rest)}"
    match = URL.fullmatch(url)
    if match is None:
        return url
    scheme, asking, path, query, fragment = match.groups("")
    # Elsewhere a name may be part of the place: `abfs://container@account`.
    name = "" if scheme.lower().startswith("http") else asking.partition(":")[0]
    kept = "&".join(part for part in query.split("&") if not is_secret(part))
    return f"{scheme}{name and f'{name}@'}{path}{kept and f'?{kept}'}{fragment}"


def is_secret(parameter: str) -> bool:
    """Whether a parameter of a query is called so: `X-Amz-Signature=…`, `accessToken=…`."""
    name = unquote(parameter.partition("=")[0])
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return any(map(SECRET.fullmatch, words))


def cannot_open(place: str, reason: str) -> UserError:
    """What to tell where a place cannot be opened."""
    is_whole = not is_url(place) or without_secrets(place) != place
    hints = (diagnostics.SEE,) if is_whole else (diagnostics.SEE, diagnostics.SAY_AGAIN)
    return UserError(diagnostics.CannotOpen(place, reason, "; ".join(hints)))


def filesystem(url: str) -> tuple[Any, str]:
    """Fsspec's file system of a URL, one of this process's own, and the path in there.

    fsspec gives a process that was forked new connections, as long as it is asked anew.

    Raises:
        UserError: fsspec knows none, or lacks a package for it.
    """
    from fsspec.core import url_to_fs

    try:
        found: tuple[Any, str] = url_to_fs(url)
    except ImportError:
        raise UserError(diagnostics.MissingProtocol(url.partition("://")[0])) from None
    except Exception as fault:  # whatever a file system says of a URL
        raise cannot_open(url, reason_of(fault)) from None
    return found


def read_ranges(
    urls: Sequence[str], starts: Sequence[int], sizes: Sequence[int]
) -> list[bytes | Exception]:
    """The bytes of each file, `sizes` from `starts` on, all asked for at once; or why there are
    none, after the network has had some time to recover.
    """
    found: list[bytes | Exception] = [b""] * len(urls)
    wanted = [*range(len(urls))]
    for pause in (0.0, *PAUSES):
        if not wanted:
            break
        time.sleep(pause)
        answers = ask([(urls[i], starts[i], starts[i] + sizes[i]) for i in wanted])
        for index, answer in zip(wanted, answers, strict=True):
            found[index] = answer
        wanted = [index for index in wanted if may_recover(found[index])]
    return found


def ask(ranges: Sequence[tuple[str, int, int]]) -> list[bytes | Exception]:
    """The bytes of these ranges: a file, its first byte, and the one behind its last."""
    from fsspec.asyn import AsyncFileSystem

    urls, starts, ends = ([*column] for column in zip(*ranges, strict=True))
    try:
        paths = {url: filesystem(url)[1] for url in {*urls}}
        files, _ = filesystem(urls[0])
        size = sum(ends) - sum(starts)
        # Only what waits for several answers at once can stop waiting: that is all of the network.
        can_stop = isinstance(files, AsyncFileSystem)
        limit = {"timeout": PATIENCE + size / SLOWEST} if can_stop else {}
        found: list[bytes | Exception] = files.cat_ranges(
            [paths[url] for url in urls], starts, ends, on_error="return", **limit
        )
    except Exception as fault:  # a network has many ways to fail
        return [fault] * len(urls)
    return found


def may_recover(answer: bytes | Exception) -> bool:
    """Whether the same question may have another answer later."""
    final = (FileNotFoundError, PermissionError)
    return isinstance(answer, Exception) and not isinstance(answer, final)


def reason_of(fault: BaseException) -> str:
    """What a file system complains of, in one short line."""
    match fault:
        case FileNotFoundError():
            return "there is no such file"
        case OSError(strerror=str(text)):
            return text
        case TimeoutError():
            return "no answer came in time"
        case _:
            return (str(fault).splitlines() or [type(fault).__name__])[0][:200]
