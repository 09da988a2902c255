"""Mistakes in the texts that define foreign nets, and in the numbers that go with them."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.source import Span


class DefinitionWrong(Diagnostic):
    """What stands in a definition and cannot be meant, or is told by nothing in it."""

    title = "{what}"
    label = "{reason}"
    help = "{hint}"
    what: str
    reason: str
    hint: str = ""


class LayerWithoutWord(Diagnostic):
    """A layer, or a setting of one, that no word of the language stands for."""

    title = "vggc has no word for {what}"
    label = "{reason}"
    help = "{hint}"
    what: str
    reason: str
    hint: str = ""


class NumbersUnfit(Diagnostic):
    """A file of weights that is broken, or belongs to another net."""

    title = "{path} does not hold the weights of this net"
    label = "{reason}"
    help = "{hint}"
    path: str
    reason: str
    hint: str = ""


class PackageMissing(Diagnostic):
    """A package of modules that is not there, or does not start."""

    title = "{spec}: the package {package} cannot be imported"
    label = "{reason}"
    help = "pip install {package}"
    spec: str
    package: str
    reason: str


class NoSuchModule(Diagnostic):
    title = "{package} has no net `{name}`"
    label = "{reason}"
    help = "{hint}"
    package: str
    name: str
    reason: str
    hint: str


class ModuleWithoutWords(Diagnostic):
    """An operator of a module that the language has no word for."""

    title = "{spec}: vggc has no word for {what}"
    label = "it is in `{where}` of the module"
    help = "{hint}"
    spec: str
    what: str
    where: str
    hint: str


class ModuleUntraceable(Diagnostic):
    title = "{spec}: torch cannot trace this module"
    label = "{reason}"
    help = "its code decides by values, or it does not take one batch of pictures"
    spec: str
    reason: str


class StateUnfit(Diagnostic):
    title = "{path} does not hold the weights of {spec}"
    label = "{reason}"
    help = "{hint}"
    path: str
    spec: str
    reason: str
    hint: str = ""


def wrong(place: Span, what: str, reason: str, hint: str = "") -> UserError:
    """An error about what stands at a place of a definition."""
    return UserError(DefinitionWrong(what, reason, hint, place=place))


def no_word(place: Span, what: str, reason: str, hint: str = "") -> UserError:
    """An error about what stands at a place, which the language cannot say."""
    return UserError(LayerWithoutWord(what, reason, hint, place=place))
