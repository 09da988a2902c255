"""Every mistake that a person can make when the paper's tables are reproduced, with its words."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class NotAStudy(Diagnostic):
    title = "`{path}` does not hold tables that were begun"
    label = "{reason}"
    help = "give another folder by `--out`"

    path: str
    reason: str


class BegunOtherwise(Diagnostic):
    title = "the tables in `{path}` were begun otherwise"
    label = "{name}: {before} then, {now} now"
    help = "go on as it was begun, or give another folder by `--out`"

    path: str
    name: str
    before: str
    now: str


class NoData(Diagnostic):
    title = "`vggc reproduce {table}` needs images"
    help = "`--data DIR`: ImageNet, or with `--small` CIFAR-10"

    table: str


class NoPicturesWithBoxes(Diagnostic):
    title = "`vggc reproduce {table}` needs pictures with boxes"
    help = (
        "`--data DIR`: ImageNet with its annotations, or with `--small` pictures of about 100×100, "
        "such as `python benchmarks/shapes.py DIR` makes"
    )

    table: str


class CountsOnly(Diagnostic):
    title = "{flags} cannot change `table2`, which counts parameters"
    help = "leave {flags} out"

    flags: str


class TooFewImages(Diagnostic):
    title = "steps of {batch} images, and {count} images to train on"
    help = "the tables are made in such steps; give more images: thousands, to learn anything"

    batch: int
    count: int


class RunOfSomethingElse(Diagnostic):
    title = "`{path}` is not a run of this table"
    label = "its {name} is {found}, the table's {wanted}"
    help = "move it away; it is made anew then"

    path: str
    name: str
    found: str
    wanted: str


class UnknownColumn(Diagnostic):
    title = "`{table}` has no line of `{column}`"
    help = "{suggestion}"

    table: str
    column: str
    suggestion: str


class SmallOnly(Diagnostic):
    title = "`vggc reproduce {table}` is made with `--small` only"
    label = "the paper's own takes nets that have learnt ImageNet"
    help = (
        "with such nets, by hand: `vggc features RUN --data PLACE -o FILE`, then `vggc probe FILE`"
    )

    table: str


class AllNets(Diagnostic):
    title = "`--nets` cannot change `{table}`, whose lines compare all its nets"
    help = "leave `--nets` out"

    table: str


class OneProcessOnly(Diagnostic):
    title = "`vggc reproduce {table}` is made by one process"
    help = "leave `torchrun` out"

    table: str


class TooFewClasses(Diagnostic):
    title = "`{path}` has {count} classes"
    label = "nets learn half of the classes, and give features of the others: two each at least"
    help = "give images of four classes or more"

    path: str
    count: int
