"""Signals that ask a process to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed.

Each is an exception where it comes, so that whoever has begun something clears it away.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

_received: list[int] = []


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP asks this process to end."""


def note(number: int) -> None:
    """Keeps in mind that a signal came, for `exit_code`."""
    _received.append(number)


def any_received() -> bool:
    """Whether a signal to end has come."""
    return bool(_received)


def exit_code() -> int:
    """What shells give a program that the signal ended which came first; that of Ctrl-C."""
    return 128 + (_received[0] if _received else signal.SIGINT)


@contextmanager
def raising() -> Iterator[None]:
    """Within it, signals raise `KeyboardInterrupt`; those that are ignored (`nohup`) still are.

    The same one again is ignored, but for Ctrl-C: it must not stop what the first one has begun to
    clear away.
    """
    _received.clear()
    with _handling(_end):
        yield


def _end(number: int, frame: FrameType | None) -> None:
    note(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_IGN)
    raise Ended


@contextmanager
def held() -> Iterator[None]:
    """Within it, signals wait for its end."""
    came: list[int] = []
    with _handling(lambda number, frame: came.append(number)):
        yield
    if came:
        signal.raise_signal(came[0])


@contextmanager
def told(end: Callable[[], None]) -> Iterator[None]:
    """Within it, signals do not raise: each calls `end`, for whoever has to finish what it does. A
    second Ctrl-C raises.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and any_received():
            raise KeyboardInterrupt
        note(number)
        end()

    with _handling(handle):
        yield


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    """Within it, in the main thread, signals that are not ignored go to a handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {number: was for number, was in before.items() if was not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
