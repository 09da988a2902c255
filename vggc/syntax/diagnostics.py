"""What can be wrong with a file before its words are looked at."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class FileMissing(Diagnostic):
    title = "no such file: {path}"
    help = "{hint}"
    path: str
    hint: str


class FileUnreadable(Diagnostic):
    title = "cannot read {path}"
    label = "{reason}"
    path: str
    reason: str


class FileTooLarge(Diagnostic):
    title = "{path} is too large to be a net: {size:,} bytes"
    label = "a spec may hold at most {limit:,} bytes"
    help = "is this a file of weights? `vggc compile` takes those with --weights"
    path: str
    size: int
    limit: int


class FileBinary(Diagnostic):
    title = "{path} is not text"
    label = "byte {offset} is not UTF-8 text"
    help = "a spec is plain UTF-8 text; weights go to --weights"
    path: str
    offset: int


class FileEmpty(Diagnostic):
    title = "the file is empty"
    label = "a net was expected here"
    help = "the smallest net is: net tiny  input 3x8x8  conv3-8 | fc-10"


class UnknownCharacter(Diagnostic):
    title = "unknown character {char!r}"
    label = "this means nothing in a spec"
    help = "{hint}"
    char: str
    hint: str


class Unexpected(Diagnostic):
    title = "unexpected {found}"
    label = "expected {expected}"
    help = "{hint}"
    found: str
    expected: str
    hint: str = ""


class MissingBar(Diagnostic):
    title = "two layers with no `|` between them"
    label = "`{word}` follows a layer"
    help = "write `| {word}`{or_else}"
    word: str
    or_else: str


class NoLayers(Diagnostic):
    title = "the net has no layers"
    label = "the first was expected here"
    help = "the smallest net is: net tiny  input 3x8x8  conv3-8 | fc-10"


class LayersOfItsOwn(Diagnostic):
    title = "a net that is built on another has no layers of its own"
    label = "it changes those of its base"
    help = "write `after LAYER insert {word}` or `replace LAYER with {word}`"
    word: str


class EditWithoutBase(Diagnostic):
    title = "`{keyword}` edits a base, and this net has none"
    label = "its layers are written out"
    help = "change the layers themselves, or begin with `net NAME from BASE`"
    keyword: str


class Misplaced(Diagnostic):
    title = "`{keyword}` stands in the wrong place"
    label = "{reason}"
    second_label = "the first is here"
    help = "{hint}"
    keyword: str
    reason: str
    hint: str


class SecondNet(Diagnostic):
    title = "a second net in one file"
    label = "a file holds one net"
    second_label = "the first is here"
    help = "put it into a file of its own"


class MisplacedOption(Diagnostic):
    title = "an option behind a repeat"
    label = "`{key}=` belongs to the layer, not to its repetition"
    help = "write the option first: `conv3-64 {key}=… ×2`"
    key: str


class OptionBehindGroup(Diagnostic):
    title = "an option behind `)`"
    label = "`{key}=` belongs to a layer, and stands behind its word"
    help = "give it to the layers that are meant: `conv3-64 {key}=…`"
    key: str


class BadNumber(Diagnostic):
    title = "`{text}` is not a number"
    label = "numbers look like 256, 0.01 or 5e-4"
    text: str


class NumberTooLong(Diagnostic):
    title = "a number of {digits} digits"
    label = "no number here needs more than {limit} digits"
    digits: int
    limit: int


class RepeatedZero(Diagnostic):
    title = "a repeat of zero times"
    label = "this would leave nothing"
    help = "delete the layer, or repeat it once or more"


class LongName(Diagnostic):
    title = "a name of {length:,} characters"
    label = "layers and heads have names of {limit} at most"
    help = "every layer of a join, and of a head, bears its name, too"
    length: int
    limit: int


class TooManyLayers(Diagnostic):
    title = "the net has more than {limit:,} layers"
    label = "with this, {count:,} layers"
    help = "is a repeat larger than meant?"
    count: int
    limit: int


class TooManyTokens(Diagnostic):
    title = "more than {limit:,} words and signs in one file"
    label = "a net needs no more than this"
    help = "`×` repeats a layer or a group"
    limit: int


class SumTooLong(Diagnostic):
    title = "a sum of more than {limit} operators"
    label = "no constant here needs so many"
    help = "cut it into several constants"
    limit: int


class TooDeep(Diagnostic):
    title = "groups nested more than {limit} deep"
    label = "this group is one too deep"
    limit: int
