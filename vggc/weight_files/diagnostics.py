"""What is wrong with files of weights, in words."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class WeightsUnreadable(Diagnostic):
    title = "cannot read the weights in {path}"
    label = "{reason}"
    help = "{hint}"
    path: str
    reason: str
    hint: str = "vggc reads safetensors, PyTorch's .pth and .pt, and Keras's .h5 and .keras"


class WeightsRunCode(Diagnostic):
    title = "the weights in {path} cannot be read without running code from that file"
    label = "{reason}"
    help = "where you trust its maker, this makes a file of weights alone: {line}"
    path: str
    reason: str
    line: str


class KerasReaderMissing(Diagnostic):
    title = "{path} is a file of Keras, which h5py reads"
    label = "h5py is not installed"
    help = "install it: pip install 'vggc[keras]'"
    path: str


class WeightMissing(Diagnostic):
    title = "{path} has no weight `{name}`"
    label = "the net {net} needs it with shape {shape}"
    help = "{hint}"
    path: str
    name: str
    net: str
    shape: str
    hint: str


class WeightTwice(Diagnostic):
    title = "{path} has two tensors for the weight `{name}` of the net {net}"
    label = "`{native}`, and `{foreign}` by {style}'s names"
    help = "nobody can know which of them counts: leave one out of the file"
    path: str
    name: str
    net: str
    native: str
    foreign: str
    style: str


class WeightUnknown(Diagnostic):
    title = "{path} has a weight `{name}` that the net {net} does not"
    label = "nothing is loaded where something would be left out"
    help = "is the file of another net?"
    path: str
    name: str
    net: str


class WeightMisshapen(Diagnostic):
    title = "the weight `{name}` in {path} has the wrong shape for `{layer}`"
    label = "the net {net} needs {wanted}, the file holds {found}"
    help = "{hint}"
    path: str
    name: str
    layer: str
    net: str
    wanted: str
    found: str
    hint: str


class LayersDiffer(Diagnostic):
    title = "the weights in {path} are not those of the net {net}"
    label = "no names fit, and by order and shape they differ {where}: {difference}"
    help = "{hint}"
    path: str
    net: str
    where: str
    difference: str
    hint: str


class MatchUnclear(Diagnostic):
    title = "the weights in {path} can be matched with the net {net} in several ways"
    label = "no names fit, and `{one}` and `{other}` have the shapes that `{layer}` needs"
    help = "rename the tensors to those that `vggc summary` shows, such as `{layer}.weight`"
    path: str
    net: str
    layer: str
    one: str
    other: str


class WeightNotFinite(Diagnostic):
    title = "the weight `{name}` in {path} holds values that are not finite"
    label = "NaN or infinity would reach every output"
    path: str
    name: str


class NegativeVariance(Diagnostic):
    title = "the weight `{name}` in {path} holds variances below zero"
    label = "a normalisation divides by their square root"
    path: str
    name: str
