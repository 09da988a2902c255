"""`vggc lsp`."""

from __future__ import annotations

import sys

import click

from vggc.cli import console

PACKAGES = ("pygls", "lsprotocol")


@click.command("lsp")
def command() -> None:
    """Serve an editor: mistakes while typing, hover, completion, formatting, definitions.

    Speaks the Language Server Protocol over stdin and stdout; editors start it by
    themselves. Needs `pip install vggc[lsp]`.
    """
    try:
        from vggc.lsp.server import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in PACKAGES:
            raise
        console.failure(
            f"the language server needs the package {error.name}: pip install 'vggc[lsp]'"
        )
        sys.exit(2)
    if sys.stdin.isatty():
        console.status("waiting for an editor on stdin; editors start this command by themselves")
    sys.exit(serve())
