"""What can be wrong with the words of a net."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class UnknownLayer(Diagnostic):
    title = "unknown layer `{word}`"
    label = "no kind of layer is called `{kind}`"
    help = "{hint}"
    word: str
    kind: str
    hint: str


class MalformedLayer(Diagnostic):
    title = "`{word}` does not read as a layer"
    label = "a layer is KIND, SIZE and -WIDTH in one word, as in `{example}`"
    help = "{hint}"
    word: str
    example: str
    hint: str = ""


class MissingSize(Diagnostic):
    title = "`{word}` has no size"
    label = "{kind} needs its {what}"
    help = "write `{suggestion}`"
    word: str
    kind: str
    what: str
    suggestion: str


class MissingWidth(Diagnostic):
    title = "`{word}` has no width"
    label = "{kind} needs its number of {what}"
    help = "write `{suggestion}`"
    word: str
    kind: str
    what: str
    suggestion: str


class MissingLayerOption(Diagnostic):
    title = "`{word}` does not say `{key}`"
    label = "it must be given: {what}"
    help = "write `{suggestion}`"
    word: str
    key: str
    what: str
    suggestion: str


class UnwantedNumber(Diagnostic):
    title = "`{kind}` takes no {what}"
    label = "`{number}` means nothing here"
    help = "write {meant}"
    kind: str
    what: str
    number: str
    meant: str


class UnknownOption(Diagnostic):
    title = "`{owner}` has no option `{key}`"
    label = "unknown option"
    help = "{hint}"
    owner: str
    key: str
    hint: str


class DuplicateOption(Diagnostic):
    title = "`{key}` is given twice"
    label = "it already has a value"
    second_label = "`{key}` is first given here"
    help = "keep one of the two"
    key: str


class Clashing(Diagnostic):
    title = "`{key}` cannot be {value} here"
    label = "{reason}"
    help = "{hint}"
    key: str
    value: str
    reason: str
    hint: str


class NotAJoin(Diagnostic):
    title = "`{word}` joins no paths"
    label = "paths in `( )` stand behind `concat`, `add` or `mul` only"
    help = "if a group was meant to follow, write `{word} | (…)`"
    word: str


class TooFewPaths(Diagnostic):
    title = "`{kind}` joins {number}"
    label = "two paths or more stand behind it"
    help = "as in `{kind}(conv1-64, conv3-64 | conv3-64)`; `skip` is a path without layers"
    kind: str
    number: str


class UnknownReference(Diagnostic):
    title = "no layer `{name}` stands before this"
    label = "`@` takes the name of an earlier layer"
    second_label = "the layer `{name}` stands here"
    help = "{hint}"
    name: str
    hint: str


class MisplacedReference(Diagnostic):
    title = "`@{name}` stands where no path begins"
    label = "what comes before it would be lost"
    help = "a path of `concat`, `add` or `mul`, or a head, may begin with a reference"
    name: str


class DeadEnd(Diagnostic):
    title = "nothing reads what `{name}` gives"
    label = "every path behind it begins elsewhere"
    help = "let a path begin without a reference, or take the layer away"
    name: str


class HeadWithoutScores(Diagnostic):
    title = "the head `{name}` has no layer of its own that gives scores"
    label = "what it reads is hidden, and ends in an activation"
    help = "put the last layer of the scores into the head: `head {name}: fc-1000 | softmax`"
    name: str


class NothingToDefault(Diagnostic):
    title = "`every {kind}` says something of nothing"
    label = "the net has no such layer"
    help = "take the line away, or name a kind of layer that the net has"
    kind: str


class NothingTakes(Diagnostic):
    title = "`every {kind} {said}` has no effect"
    label = "it holds for no `{kind}`: each says otherwise itself, or gives an output of the net"
    help = "take it away, or let a layer say it itself: `{kind} … {said}`"
    kind: str
    said: str


class BadInputSize(Diagnostic):
    title = "the input needs channels, height and width"
    label = "expected a size such as 3x224x224, each part from 1 to {limit}"
    help = "for colour images of 224 rows and columns: `input 3x224x224`"
    limit: int


class NotALayer(Diagnostic):
    title = "`{text}` is no layer"
    label = "a layer such as `conv3-64` was expected here"
    text: str


class LongNetName(Diagnostic):
    title = "the name of the net has {length} characters"
    label = "at most {limit} are allowed"
    length: int
    limit: int


class DoesNotFit(Diagnostic):
    title = "`{word}` does not fit here"
    label = "{reason}"
    second_label = "this path ends in {shape}"
    help = "{hint}"
    word: str
    reason: str
    hint: str
    shape: str = ""


class DuplicateName(Diagnostic):
    title = "two layers are called `{name}`"
    label = "the name is already taken"
    second_label = "{other}"
    help = "give one of them another name"
    name: str
    other: str


class ReservedName(Diagnostic):
    title = "no layer may be called `{name}`"
    label = "{reason}"
    help = "give the layer another name"
    name: str
    reason: str


class HeadOnSoftmax(Diagnostic):
    title = "the head `{name}` would read probabilities"
    label = "it goes on where the main chain ends"
    second_label = "the chain ends here, in {layer}"
    help = "let it begin with `@`, as in `head {name}: @fc7 | …`, or take the chain's end away"
    name: str
    layer: str


class RepeatedName(Diagnostic):
    title = "the layer `{name}` is repeated"
    label = "each repetition would bear the same name"
    help = "leave the name out, or write each layer by itself"
    name: str


class UnknownBlock(Diagnostic):
    title = "unknown block `{key}`"
    label = "a net has no block of this name"
    help = "{hint}"
    key: str
    hint: str


class DuplicateBlock(Diagnostic):
    title = "a second `{key}` block"
    label = "a net has one such block"
    second_label = "the first is here"
    help = "move its settings into one block"
    key: str


class UnknownParameter(Diagnostic):
    title = "{net} takes no `{key}`"
    label = "no parameter is called so"
    help = "{hint}"
    net: str
    key: str
    hint: str


class UnknownName(Diagnostic):
    title = "`{name}` has no value"
    label = "no parameter and no constant before this is called so"
    help = "{hint}"
    name: str
    hint: str


class DuplicateConstant(Diagnostic):
    title = "`{name}` has a value already"
    label = "a parameter or a constant before this is called so"
    second_label = "`{name}` is first given a value here"
    help = "give one of them another name"
    name: str


class NoNameInSums(Diagnostic):
    title = "no parameter and no constant may be called `{name}`"
    label = "in a sum, `-` between two names is a minus, and `.` means nothing"
    help = "such names are letters, digits and `_`: `{right}`"
    name: str
    right: str


class SumElsewhere(Diagnostic):
    title = "`{sum}` is a sum, and stands behind no `let`"
    label = "a number or the name of one stands here"
    help = "`let total = {sum}` gives it a name"
    sum: str


class UnusedName(Diagnostic):
    title = "nothing uses `{name}`"
    label = "its value has no effect"
    help = "take it away, or use it: `conv3-{name}`, `×{name}`, `p={name}`"
    name: str


class NotANumber(Diagnostic):
    title = "`{name}` is the word `{word}`"
    label = "a number is needed here"
    name: str
    word: str


class NotWhole(Diagnostic):
    title = "`{name}` is {value}"
    label = "a whole number from {low} is needed here"
    help = "{hint}"
    name: str
    value: str
    low: int
    hint: str


class DivisionByZero(Diagnostic):
    title = "a division by zero"
    label = "this is 0"


class ValueTooLarge(Diagnostic):
    title = "the value of this has more than {digits} digits"
    label = "no number here needs so many"
    digits: int


class BaseCycle(Diagnostic):
    title = "{net} is built on itself"
    label = "the chain is {chain}"
    help = "let one of them be written out"
    net: str
    chain: str


class TooManyBases(Diagnostic):
    title = "nets built on one another more than {limit} deep"
    label = "the chain begins {chain}"
    help = "write one of them out: `vggc check --resolved` does it"
    limit: int
    chain: str


class NothingSelected(Diagnostic):
    title = "no layer of {net} is meant by `{selector}`"
    label = "{reason}"
    help = "{hint}"
    net: str
    selector: str
    reason: str
    hint: str


class CrossingSelection(Diagnostic):
    title = "`{selector}` is no run of layers"
    label = "{reason}"
    help = "{hint}"
    selector: str
    reason: str
    hint: str


class NamedElsewhere(Diagnostic):
    title = "`{name}` is taken away, and is named elsewhere"
    label = "this takes it away"
    second_label = "`{name}` is named here"
    help = "say there what it should name from now on, or leave the layer"
    name: str


class NothingLeft(Diagnostic):
    title = "no layer is left of {net}"
    label = "this takes the last one away"
    help = "`replace … with …` puts another in its place"
    net: str


class TooManyEdits(Diagnostic):
    title = "too many edits of a net of {layers:,} layers"
    label = "this is the {edits:,}th, and edits times layers may be {limit:,} at most"
    help = "`every` edits many layers at once; `vggc check --resolved` writes a base out"
    edits: int
    layers: int
    limit: int


class TooLongWrittenOut(Diagnostic):
    title = "`{net}` written out would have some {words:,} words and signs"
    label = "at most {limit:,} fit into a file, which runs and artifacts keep of a net"
    help = "repeats (`×`) of a layer or a group count once"
    net: str
    words: int
    limit: int


class NoClassifier(Diagnostic):
    title = "`{net}` has no classes to change"
    label = "{reason}"
    help = "end the net with `fc-CLASSES | softmax`, or with `conv1-CLASSES | gap | softmax`"
    net: str
    reason: str
