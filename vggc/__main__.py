"""`vggc` and `python -m vggc`."""

from __future__ import annotations

import signal


def main() -> None:
    """The command line. Before it is there, and once it is done, Ctrl-C simply ends the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vggc.cli import main

    main()


if __name__ == "__main__":
    main()
