"""What a worker of the tuner may be asked to do; apart, for it must be able to import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def behave(how: str, tell: Callable[[object], None]) -> str:
    match how:
        case "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hangs":
            time.sleep(60)
        case "raises":
            raise ValueError("first line\n\nlast line")
    return how
