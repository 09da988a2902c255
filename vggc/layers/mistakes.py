"""What can be wrong with the words of a net."""

from __future__ import annotations

from dataclasses import dataclass

from vggc.diagnostics import Diagnostic


@dataclass(frozen=True)
class UnknownLayer(Diagnostic):
    title = "unknown layer `{word}`"
    label = "no kind of layer is called `{kind}`"
    help = "{hint}"
    word: str
    kind: str
    hint: str


@dataclass(frozen=True)
class MalformedLayer(Diagnostic):
    title = "`{word}` does not read as a layer"
    label = "a layer is KIND, SIZE and -WIDTH in one word, as in `{example}`"
    help = "{hint}"
    word: str
    example: str
    hint: str = ""


@dataclass(frozen=True)
class MissingSize(Diagnostic):
    title = "`{word}` has no size"
    label = "{kind} needs its {what}"
    help = "write `{suggestion}`"
    word: str
    kind: str
    what: str
    suggestion: str


@dataclass(frozen=True)
class MissingWidth(Diagnostic):
    title = "`{word}` has no width"
    label = "{kind} needs its number of {what}"
    help = "write `{suggestion}`"
    word: str
    kind: str
    what: str
    suggestion: str


@dataclass(frozen=True)
class UnwantedNumber(Diagnostic):
    title = "`{kind}` takes no {what}"
    label = "`{number}` means nothing here"
    help = "write {meant}"
    kind: str
    what: str
    number: str
    meant: str


@dataclass(frozen=True)
class UnknownOption(Diagnostic):
    title = "`{owner}` has no option `{key}`"
    label = "unknown option"
    help = "{hint}"
    owner: str
    key: str
    hint: str


@dataclass(frozen=True)
class DuplicateOption(Diagnostic):
    title = "`{key}` is given twice"
    label = "it already has a value"
    help = "keep one of the two"
    key: str


@dataclass(frozen=True)
class BadValue(Diagnostic):
    title = "`{key}` cannot be {value}"
    label = "expected {expected}"
    help = "{hint}"
    key: str
    value: str
    expected: str
    hint: str = ""


@dataclass(frozen=True)
class BadInput(Diagnostic):
    title = "the input needs channels, height and width"
    label = "expected a size such as 3x224x224, each part from 1 to {limit}"
    help = "for colour images of 224 rows and columns: `input 3x224x224`"
    limit: int


@dataclass(frozen=True)
class NotALayer(Diagnostic):
    title = "`{text}` is no layer"
    label = "a layer such as `conv3-64` was expected here"
    text: str


@dataclass(frozen=True)
class LongNetName(Diagnostic):
    title = "the name of the net has {length} characters"
    label = "at most {limit} are allowed"
    length: int
    limit: int


@dataclass(frozen=True)
class DoesNotFit(Diagnostic):
    title = "`{word}` does not fit here"
    label = "{reason}"
    help = "{hint}"
    word: str
    reason: str
    hint: str


@dataclass(frozen=True)
class DuplicateName(Diagnostic):
    title = "two layers are called `{name}`"
    label = "the name is already taken, by {other}"
    help = "give one of them another name"
    name: str
    other: str


@dataclass(frozen=True)
class ReservedName(Diagnostic):
    title = "no layer may be called `{name}`"
    label = "the net's own {name} is called so"
    help = "give the layer another name"
    name: str


@dataclass(frozen=True)
class RepeatedName(Diagnostic):
    title = "the layer `{name}` is repeated"
    label = "each repetition would bear the same name"
    help = "leave the name out, or write each layer by itself"
    name: str


@dataclass(frozen=True)
class UnknownBlock(Diagnostic):
    title = "unknown block `{key}`"
    label = "a net has no block of this name"
    help = "{hint}"
    key: str
    hint: str


@dataclass(frozen=True)
class DuplicateBlock(Diagnostic):
    title = "a second `{key}` block"
    label = "the first is at {other}"
    help = "move its settings into one block"
    key: str
    other: str
