"""`vggc export`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE, preprocessing_option, weights_option
from vggc.ir.ops import describe
from vggc.support.diagnostics import in_command
from vggc_runtime.text import in_line

if TYPE_CHECKING:
    from vggc.api.deploy import DeployFormat
    from vggc.api.export import ExportFormat

SHOWN = 5
"""Classes that are named."""

FORMATS = {
    "onnx": "ONNX, batch size free",
    "pt2": "a torch.export program, batch size free",
    "torchvision": "safetensors weights under torchvision's names",
}

DEPLOYMENTS = {
    "triton": "a model in a Triton repository",
    "ray": "an application for Ray Serve",
    "docker": "an image with `vggc serve`",
}
"""The formats in which an artifact is written."""

STARTS = {
    "triton": "tritonserver --model-repository={out}",
    "ray": "cd {out} && serve run serve_config.yaml",
    "docker": "docker build -t vggc-net {out}",
}
"""How what is written is started, or made."""


@click.command("export")
@click.argument("spec", required=False, metavar="[SPEC|RUN|ARTIFACT]")
@click.option(
    "--format",
    "style",
    type=click.Choice([*FORMATS, *DEPLOYMENTS]),
    default="onnx",
    show_default=True,
    help="; ".join(f"{name}: {what}" for name, what in (FORMATS | DEPLOYMENTS).items()) + ".",
)
@weights_option
@preprocessing_option
@click.option("--input", "size", type=IMAGE_SIZE, help="Height and width of the input.")
@click.option("--seed", type=click.IntRange(0), help="For random weights.  [default: 0]")
@click.option("--name", help="What servers call the model.  [default: the net's name]")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A new file; of an artifact a new folder, or a Triton repository that may be there.",
)
def command(
    spec: str | None,
    style: ExportFormat | DeployFormat,
    weights: Path | None,
    preprocessing: str | None,
    size: tuple[int, int] | None,
    seed: int | None,
    name: str | None,
    out: Path,
) -> None:
    """Write a net and its weights for other tools, or a compiled net for other servers.

    SPEC is a file or a zoo name, RUN a folder that `vggc train` made; with neither, the
    newest run under runs/ is taken. ARTIFACT is a folder that `vggc compile` made, for the
    formats triton, ray and docker.
    """
    from vggc.api.deploy import DeployPlan
    from vggc.api.export import ExportOptions, metadata, plan

    options = ExportOptions(
        out=out,
        format=style,
        weights=weights,
        preprocessing=preprocessing,
        seed=seed,
        size=size,
        name=name,
    )
    planned = plan(spec, options, console.status)
    planned.write()
    if isinstance(planned, DeployPlan):
        console.out(f"{planned.folder}: {planned.manifest.net}, {DEPLOYMENTS[planned.format]}")
        console.status(f"next: {STARTS[planned.format].format(out=in_command(out))}")
        return
    console.out(f"{out}: {planned.subject.program.net.name}, {FORMATS[planned.format]}")
    for key, told in facts(metadata(planned.subject)):
        console.out(f"  {key:<8} {told}")


def facts(known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What whoever uses the file must know, which stands in its metadata, too."""
    colours = {1: ", grey", 3: f", {known['order'].upper()}"}.get(known["input"][0], "")
    yield "input", f"float32 N×{describe(tuple(known['input']))}{colours}"
    size = describe(tuple(known["input"][1:]))
    length = (
        f"its shorter side has {known['scale']} pixels"
        if known["scale"]
        else f"it just covers {size}"
    )
    fits = {
        "crop": f"in proportion until {length}, the centre {size} cut out",
        "squash": f"to {size}, whatever its proportion",
        "pad": f"in proportion until it lies within {size}, with a border on both sides",
    }
    yield "image", f"resized {fits[known['fit']]} ({known['interpolation']})"
    mean, std = (", ".join(f"{v:.4g}" for v in known[name]) for name in ("mean", "std"))
    yield "values", f"(v / 255 − mean) / std; mean {mean}; std {std}"
    for name, kind in known["outputs"].items():
        yield "output", f"{name}: {kind}"
    names = [*map(in_line, known["classes"])]
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    yield "classes", ", ".join(names[:SHOWN]) + more if names else "without names"
