"""Every mistake that a person can make when the paper's tables are reproduced, with its words."""

from __future__ import annotations

from vggc.diagnostics import Diagnostic


class NotAStudy(Diagnostic):
    title = "`{path}` does not hold tables that were begun"
    label = "{reason}"
    help = "give another folder by `--out`"

    path: str
    reason: str


class BegunOtherwise(Diagnostic):
    title = "the tables in `{path}` were begun with another {name}"
    label = "{before} then, {now} now"
    help = "go on as it was begun, or give another folder by `--out`"

    path: str
    name: str
    before: str
    now: str


class NoData(Diagnostic):
    title = "`vggc reproduce {table}` needs images"
    help = "`--data DIR`: ImageNet, or with `--small` CIFAR-10"

    table: str


class UnknownColumn(Diagnostic):
    title = "`{table}` has no line of `{column}`"
    help = "{suggestion}"

    table: str
    column: str
    suggestion: str
