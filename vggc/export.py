"""Nets written for other tools, each checked by the tool's own reader."""

from __future__ import annotations

from pathlib import Path

from vggc.diagnostics import Diagnostic, UserError
from vggc.files import replacing
from vggc.subject import Subject
from vggc.weights import save, torchvision_names

MAX_ONNX_BYTES = 2_000_000_000
"""A protobuf file ends at 2 GiB; the rest is room for the graph."""


class TooLargeForOnnx(Diagnostic):
    title = "the net {net} is too large for one ONNX file"
    label = "its weights take {size:.1f} GB, and a file holds 2 GB at most"
    help = "`--format pt2` and `--format torchvision` have no such limit"
    net: str
    size: float


class NoTorchvisionNames(Diagnostic):
    title = "torchvision has no names for the weights of {net}"
    label = "it numbers the layers of a chain, and this net branches or has several heads"
    help = "`--format onnx` and `--format pt2` write any net"
    net: str


def export(subject: Subject, style: str, path: Path) -> None:
    """Writes the file, whole or not at all."""
    match style:
        case "onnx":
            _onnx(subject, path)
        case "pt2":
            _pt2(subject, path)
        case "torchvision":
            names = torchvision_names(subject.program.graph)
            if not names and subject.weights:
                raise UserError(NoTorchvisionNames(None, subject.program.net.name))
            save(path, {names[ours]: tensor for ours, tensor in subject.weights.items()})
        case _:
            raise AssertionError(style)


def _onnx(subject: Subject, path: Path) -> None:
    from vggc.backends.onnx import save_onnx

    size = sum(tensor.nbytes for tensor in subject.weights.values())
    if size > MAX_ONNX_BYTES:
        raise UserError(TooLargeForOnnx(None, subject.program.net.name, size / 1e9))
    with replacing(path) as temporary:
        save_onnx(subject.program.graph, subject.weights, temporary)


def _pt2(subject: Subject, path: Path) -> None:
    from vggc.backends.torch import save_program

    with replacing(path) as temporary:
        save_program(subject.program.graph, subject.weights, temporary)
