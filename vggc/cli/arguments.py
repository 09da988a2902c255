"""What is refused of any command, whatever it does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from vggc.support.diagnostics import Diagnostic, UserError


class EmptyArgument(Diagnostic):
    title = "nothing is given after `{before}`"
    help = "a variable of the shell may not be set"

    before: str


def refuse_empty(args: Sequence[str]) -> None:
    """An empty path would mean the folder that one happens to be in.

    Raises:
        UserError: an argument is empty.
    """
    for before, arg in pairwise(("vggc", *args)):
        if arg == "" or re.fullmatch(r"--[a-z-]+=", arg):
            raise UserError(EmptyArgument(arg.rstrip("=") or before))
