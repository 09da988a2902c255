"""What can be wrong with what is to be deployed."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class NotCompiled(Diagnostic):
    title = "`--format {format}` takes an artifact"
    label = "{reason}"
    help = "`vggc compile {spec}` makes one and says where it is"
    format: str
    reason: str
    spec: str


class FixedByCompiling(Diagnostic):
    title = "`--{option}` does nothing to an artifact"
    label = "an artifact has its weights and its size of images since it was compiled"
    help = "leave it out, or give it to `vggc compile`"
    option: str


class BadDeployedName(Diagnostic):
    title = "`{name}` is no name for a model"
    label = "names hold letters, digits, `.`, `_` and `-`, as they stand in addresses"
    help = "give another one with `--name`"
    name: str


class NothingToPin(Diagnostic):
    title = "{package} is not installed"
    label = "the versions to install where the net is deployed are those of this environment"
    help = "pip install '{extra}'"
    package: str
    extra: str
