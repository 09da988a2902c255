"""Every mistake that a person can make around looking into nets, with its words."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class NoClassesToInspect(Diagnostic):
    title = "{net} tells no classes, whose scores could be explained"
    label = "it gives {kinds}"
    help = "give the run of a net that ends in classes"

    net: str
    kinds: str


class LayerNotThere(Diagnostic):
    title = "{net} has no layer `{name}`"
    help = "{hint}"

    name: str
    net: str
    hint: str


class LayerWithoutMap(Diagnostic):
    title = "the layer `{name}` gives no map to look at"
    label = "it gives {shape}, without rows and columns"
    help = "layers with maps: {known}"

    name: str
    shape: str
    known: str


class UnknownFilter(Diagnostic):
    title = "there is no filter `{word}`"
    label = "{layer} has {count} filters, which are counted from 0"
    help = "the last one is `{last}`"

    word: str
    layer: str
    count: int
    last: str


class UnknownClass(Diagnostic):
    title = "`{net}` knows no class `{name}`"
    help = "{hint}"

    name: str
    net: str
    hint: str


class UnknownSection(Diagnostic):
    title = "the page has no section `{name}`"
    help = "{hint}"

    name: str
    hint: str


class SquareTooLarge(Diagnostic):
    title = "a square of {window} pixels covers the whole input"
    label = "the net sees {size} pixels"
    help = "try `--window {suggested}`"

    window: int
    size: str
    suggested: int
