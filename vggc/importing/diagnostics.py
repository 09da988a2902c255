"""What keeps a foreign net from becoming one of ours."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class ForeignUnreadable(Diagnostic):
    """What is wrong with a file as such, whatever net it holds."""

    title = "cannot read the net in {path}"
    label = "{reason}"
    help = "{hint}"
    path: str
    reason: str
    hint: str = ""


class NoWordFor(Diagnostic):
    """What the language cannot say: an operator or layer of the foreign net, where it stands there
    (`node 12 of 40, `/head/nms``), what it reads, and what can be done.
    """

    title = "{path}: vggc has no word for {what}"
    label = "{where}, which reads {reads}"
    help = "{hint}"
    path: str
    what: str
    where: str
    reads: str
    hint: str
