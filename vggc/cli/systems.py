"""The systems that vggc runs on."""

from __future__ import annotations

import sys
from typing import NoReturn

from vggc.support.diagnostics import Diagnostic, UserError, render

EVERYTHING, LANGUAGE = ("linux",), ("darwin",)
"""What Python calls the systems with all commands, and those with the commands of the language."""

LANGUAGE_COMMANDS = ("summary", "draw", "zoo", "layers", "settings", "check", "fmt", "lsp")


class OtherSystem(Diagnostic):
    title = "{what} does not run on {system}"
    label = "it runs on Linux, x86-64 and aarch64"
    help = "{hint}"
    what: str
    system: str
    hint: str


def refuse_system() -> None:
    """Ends the process with a message on systems that no command runs on."""
    if sys.platform not in (*EVERYTHING, *LANGUAGE):
        hint = "on Windows, Windows Subsystem for Linux has one" * (sys.platform == "win32")
        leave(OtherSystem("vggc", named(), hint))


def leave(problem: Diagnostic) -> NoReturn:
    """Prints a mistake and ends the process with exit code 2."""
    if sys.stderr is not None:
        sys.stderr.write(f"{render(problem)}\n")
    sys.exit(2)


def refuse_command(name: str) -> None:
    """Raises: UserError on systems that this command does not run on."""
    if name not in LANGUAGE_COMMANDS and sys.platform not in EVERYTHING:
        hint = f"these do: {', '.join(f'`vggc {each}`' for each in LANGUAGE_COMMANDS)}"
        raise UserError(OtherSystem(f"`vggc {name}`", named(), hint))


def named() -> str:
    """What people call the system that this runs on."""
    return {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
