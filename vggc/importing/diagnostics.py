"""What keeps a foreign net from becoming one of ours."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class ForeignUnreadable(Diagnostic):
    """What is wrong with a file as such, whatever net it holds."""

    title = "cannot read the net in {path}"
    label = "{reason}"
    help = "{hint}"
    path: str
    reason: str
    hint: str = ""


class NoWordFor(Diagnostic):
    """What the language cannot say: an operator or layer of the foreign net, where it stands there
    (`node 12 of 40, `/head/nms``), what it reads, and what can be done.
    """

    title = "{path}: vggc has no word for {what}"
    label = "{where}, which reads {reads}"
    help = "{hint}"
    path: str
    what: str
    where: str
    reads: str
    hint: str


class OpenInputSize(Diagnostic):
    title = "{path} leaves the size of its pictures open"
    label = "a net of ours has one size, from which all others follow"
    help = "say which: `--input 224` or `--input 480x640`"
    path: str


class NotSayable(Diagnostic):
    """A layer that the language has a word for, but not in this form."""

    title = "{path}: the language cannot say `{layer}`"
    label = "{where}: {reason}"
    help = "{hint}"
    path: str
    layer: str
    where: str
    reason: str
    hint: str


class Tangled(Diagnostic):
    title = "the paths of {path} cannot be written as joins"
    label = "its layers read one another crosswise, or the joins would be nested too deep"
    help = "cut the net off before them: docs/importing.md says how"
    path: str


class WeightNotUsable(Diagnostic):
    """Weights that no net can compute with."""

    title = "the weights of {where} in {path} hold {what}"
    label = "they would be `{name}`"
    help = "is the file damaged, or of a training that failed?"
    path: str
    where: str
    what: str
    name: str


class NoNetIn(Diagnostic):
    title = "{path} holds weights, and no net"
    label = "how its layers are connected stands elsewhere"
    help = (
        "name the net: `--net SPEC`; of Caffe and Darknet, give the prototxt or cfg, too; "
        "nets of PyTorch and Keras come as ONNX: torch.onnx.export, model.export"
    )
    path: str


class WhatTogether(Diagnostic):
    title = "these files are no net together: {files}"
    label = "a net is one ONNX file, or a prototxt with its caffemodel, or a cfg with its weights"
    help = "give the files of one net"
    files: str
