"""What can be wrong with an artifact, or with what it is given."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class NoSuchBatch(Diagnostic):
    title = "{artifact} is not compiled for a batch of {batch}"
    label = "it is compiled for batches of {batches}"
    help = "name one of these, or compile the net with `--batch {more}`"
    artifact: str
    batch: int
    batches: str
    more: str


class NoSuchSize(Diagnostic):
    title = "{artifact} is not compiled for images of {size} pixels"
    label = "it is compiled for {sizes}"
    help = "give images of such a size, or compile the net with `{more}`"
    artifact: str
    size: str
    sizes: str
    more: str


class NoArtifact(Diagnostic):
    title = "{path} is not an artifact"
    label = "{reason}"
    help = "`vggc compile SPEC -o {path}` makes one"
    path: str
    reason: str


class OtherVersion(Diagnostic):
    title = "the artifact {path} is of another version"
    label = "it was made by {found}; this is {expected}"
    help = "compile the net again"
    path: str
    found: str
    expected: str


class FileGone(Diagnostic):
    title = "the artifact {path} has lost its file {file}"
    label = "nothing of it is loaded"
    help = "copy the artifact again, whole, or compile the net again"
    path: str
    file: str


class FileChanged(Diagnostic):
    title = "{file} in the artifact {path} is not the file that was compiled"
    label = "{reason}; nothing of it is loaded"
    help = "copy the artifact again, whole, or compile the net again"
    path: str
    file: str
    reason: str


class WrongMachine(Diagnostic):
    title = "the artifact {path} does not run on this machine"
    label = "{reason}"
    help = "{hint}"
    path: str
    reason: str
    hint: str


class NotRun(Diagnostic):
    title = "the artifact {path} cannot be run now"
    label = "{reason}"
    path: str
    reason: str


class BadInput(Diagnostic):
    title = "cannot use {path} as the net's input"
    label = "{reason}"
    help = "{hint}"
    path: str
    reason: str
    hint: str


class BadArray(Diagnostic):
    title = "the net {net} cannot take this array"
    label = "it is {given}, and the net takes {expected}"
    help = "{hint}"
    net: str
    given: str
    expected: str
    hint: str
