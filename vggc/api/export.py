"""Nets written for other tools, each checked by the tool's own reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from vggc.api.deploy import DEPLOY_FORMATS, DeployFormat, DeployPlan, plan_deployment
from vggc.api.subject import ask
from vggc.api.trained import NetOfRun, Subject
from vggc.ir.graph import Graph, Head
from vggc.ir.needs import EXPORTS, weight_bytes
from vggc.ir.ops import Softmax
from vggc.ir.weights import save
from vggc.program import Program
from vggc.support.diagnostics import Diagnostic, UserError, did_you_mean, listed
from vggc.support.files import check_target, new_file
from vggc.support.paths import is_artifact
from vggc.weight_files.names import torchvision_names
from vggc_runtime.preprocessing import WHITE
from vggc_runtime.version import __version__

METADATA = "metadata.json"
"""The extra file of a torch.export program."""

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


class UnknownFormat(Diagnostic):
    title = "there is no format `{text}` to export to"
    label = "{hint}"
    text: str
    hint: str


class CompiledAlready(Diagnostic):
    title = "`--format {format}` takes a net or a run"
    label = "{given} is an artifact, whose weights are packed for its kernels"
    help = "give what it was compiled from; formats that take artifacts are {others}"
    format: str
    given: str
    others: str


class NameOfExport(Diagnostic):
    title = "`--name` names a model on a server"
    label = "`--format {format}` writes no such model"
    help = "leave it out; formats that do are {others}"
    format: str
    others: str


ExportFormat: TypeAlias = Literal["onnx", "pt2", "torchvision"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What the user asks `export` for; None where nothing is said. `size` is (H, W), `name` what
    servers call the model.
    """

    out: Path
    format: ExportFormat | DeployFormat = "onnx"
    weights: Path | None = None
    preprocessing: str | None = None
    seed: int | None = None
    size: tuple[int, int] | None = None
    name: str | None = None


@dataclass(frozen=True)
class ExportPlan:
    """A file that is to be written for another tool."""

    subject: Subject
    format: ExportFormat
    out: Path

    def write(self) -> None:
        """Writes the file, whole or not at all.

        Raises: UserError where it cannot be written.
        """
        export(self.subject, self.format, self.out)


def plan(
    spec: str | Program | NetOfRun | None, options: ExportOptions, say: Callable[[str], None]
) -> ExportPlan | DeployPlan:
    """What is to be written: a net, a run, or the newest run under `runs/`; or for the formats of
    servers an artifact.

    Raises: UserError where there is no such thing, no such file for it, or no place for that.
    """
    match parse_format(options.format):
        case "triton" | "ray" | "docker" as style:
            given = {
                "weights": options.weights,
                "preprocessing": options.preprocessing,
                "seed": options.seed,
                "input": options.size,
            }
            fixed = [option for option, value in given.items() if value is not None]
            return plan_deployment(spec, style, options.out, options.name, fixed)
        case style:
            return plan_export(spec, style, options, say)


def plan_export(
    spec: str | Program | NetOfRun | None,
    style: ExportFormat,
    options: ExportOptions,
    say: Callable[[str], None],
) -> ExportPlan:
    """A net or a run that is to be written.

    Raises: UserError as `plan` does.
    """
    if isinstance(spec, str) and is_artifact(spec):
        raise UserError(CompiledAlready(style, spec, listed(DEPLOY_FORMATS)))
    if options.name is not None:
        raise UserError(NameOfExport(style, listed(DEPLOY_FORMATS)))
    check_target(options.out)
    need = EXPORTS[style]
    how = options.preprocessing
    asked = ask(spec, options.weights, options.seed, options.size, need, say, how)
    refuse(asked.program.graph, style)
    return ExportPlan(asked.subject(), style, options.out)


def parse_format(text: str) -> ExportFormat | DeployFormat:
    """The format that a user calls `text`.

    Raises: UserError where none is called so.
    """
    known = (*FORMATS, *DEPLOY_FORMATS)
    found = [each for each in known if each == text]
    if not found:
        raise UserError(UnknownFormat(text, did_you_mean(text, known)))
    return found[0]


OUTPUTS = {"classes": "scores", "boxes": "boxes", "features": "features"}
"""What heads give, by their kind; those of classes that end in a soft-max give probabilities."""


def metadata(subject: Subject) -> dict[str, Any]:
    """The facts that whoever runs the net must know, as plain values that JSON holds; every format
    takes them along.

    docs/exporting.md tells what stands for what.
    """
    graph, how = subject.program.graph, subject.preprocessing
    return {
        "vggc": __version__,
        "net": subject.program.net.name,
        "input": list(graph.input),
        "preprocessing": in_words(subject),
        "fit": how.fit,
        "scale": how.scale,
        "interpolation": how.interpolation,
        "background": list(how.background),
        "order": how.order,
        "mean": list(how.mean),
        "std": list(how.std),
        "outputs": {head.name: gives(graph, head) for head in graph.heads},
        "classes": list(subject.classes),
    }


def gives(graph: Graph, head: Head) -> str:
    """What an output holds: probabilities, scores, boxes or features."""
    is_softmax = isinstance(graph.nodes[head.node].op, Softmax)
    return "probabilities" if is_softmax else OUTPUTS[head.kind]


def in_words(subject: Subject) -> str:
    """How an image becomes the net's input, in words."""
    channels, height, width = subject.program.graph.input
    how = subject.preprocessing
    size = f"{height}x{width}"
    colours = {1: "grey", 3: how.order.upper()}.get(channels, f"{channels} channels")
    ground = "white" if how.background == WHITE else "RGB " + ", ".join(map(str, how.background))
    filter_ = how.interpolation + ("" if how.interpolation == "nearest" else ", antialiased")
    match how.fit:
        case "crop":
            side = f"the shorter side has {how.scale} pixels"
            length = side if how.scale else f"it just covers {size}"
            fitted = (
                f"resized in proportion ({filter_}) until {length}; the centre, "
                f"{size} (height x width), cut out"
            )
        case "squash":
            fitted = f"resized ({filter_}) to {size} (height x width), whatever its proportion"
        case "pad":
            fitted = (
                f"resized in proportion ({filter_}) until it just lies within {size} (height x "
                f"width), with {ground} on both sides of it"
            )
    mean, std = (", ".join(f"{v:.6g}" for v in values) for values in (how.mean, how.std))
    return (
        f"{colours}, upright, laid over {ground}; {fitted}; "
        f"values v from 0 to 255 become (v / 255 - mean) / std, "
        f"mean {mean}, std {std}; float32, NCHW"
    )


def as_texts(values: dict[str, Any]) -> dict[str, str]:
    """Each value as JSON, in ASCII: no name, whatever its characters, gets lost on the way."""
    return {name: json.dumps(value) for name, value in values.items()}


def refuse(graph: Graph, style: str) -> None:
    """Raises: UserError where there is no file of this style for a net, whatever its weights."""
    if style == "torchvision" and graph.all_weights and not torchvision_names(graph):
        raise UserError(NoTorchvisionNames(graph.name))
    if style == "onnx" and (size := weight_bytes(graph)) > MAX_ONNX_BYTES:
        raise UserError(TooLargeForOnnx(graph.name, size / 1e9))


def export(subject: Subject, style: str, path: Path) -> None:
    """Writes the file that `style` names, with its metadata, whole or not at all.

    Raises: UserError where there is no such file for the net, or it cannot be written.
    """
    refuse(subject.program.graph, style)
    match style:
        case "onnx":
            _onnx(subject, path)
        case "pt2":
            _pt2(subject, path)
        case "torchvision":
            names = torchvision_names(subject.program.graph)
            weights = {names[ours]: tensor for ours, tensor in subject.weights.items()}
            with new_file(path) as temporary:
                save(temporary, weights, as_texts(metadata(subject)))
        case _:
            raise AssertionError(style)


def _onnx(subject: Subject, path: Path) -> None:
    from vggc.backends.onnx import save_onnx

    with new_file(path) as temporary:
        texts = as_texts(metadata(subject))
        save_onnx(subject.program.graph, subject.weights, temporary, texts)


def _pt2(subject: Subject, path: Path) -> None:
    from vggc.backends.program import save_program

    with new_file(path) as temporary:
        text = json.dumps(metadata(subject))
        save_program(subject.program.graph, subject.weights, temporary, {METADATA: text})
