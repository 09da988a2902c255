"""What can be wrong with what is to be served."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class ServerMissing(Diagnostic):
    title = "the server needs the package {package}"
    label = "it is not installed"
    help = "pip install 'vggc[serve]'"
    package: str


class CannotListen(Diagnostic):
    title = "cannot listen on {address}"
    label = "{reason}"
    help = "{hint}"
    address: str
    reason: str
    hint: str


class ServedTwice(Diagnostic):
    title = "two artifacts are called `{name}`"
    label = "they are {first} and {second}, and clients ask for them by name"
    help = "give one another name: `vggc serve {first} {name}2={second}`"
    name: str
    first: str
    second: str


class BadModelName(Diagnostic):
    title = "`{name}` is no name for a model"
    label = "names hold letters, digits, `.`, `_` and `-`, as they stand in addresses"
    help = "NAME=ARTIFACT names an artifact; the path of one with `=` in it begins with `./`"
    name: str


class NoServingProcess(Diagnostic):
    title = "no process of the server is left"
    label = "the last one {end} before it could answer"
    help = "what it said stands above; `vggc serve` without `--processes` says more"
    end: str
