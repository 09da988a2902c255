"""`vggc export`."""

from __future__ import annotations

from pathlib import Path

import click

from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE

FORMATS = {
    "onnx": "ONNX, batch size free",
    "pt2": "a torch.export program, batch size free",
    "torchvision": "safetensors weights under torchvision's names",
}


@click.command("export")
@click.argument("spec", required=False, metavar="[SPEC|RUN]")
@click.option(
    "--format",
    "style",
    type=click.Choice(list(FORMATS)),
    default="onnx",
    show_default=True,
    help="; ".join(f"{name}: {what}" for name, what in FORMATS.items()) + ".",
)
@click.option("--weights", type=click.Path(path_type=Path), help="A safetensors file.")
@click.option("--input", "size", type=IMAGE_SIZE, help="Height and width of the input.")
@click.option("--seed", type=click.IntRange(0), help="For random weights.  [default: 0]")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A new file.",
)
def command(
    spec: str | None,
    style: str,
    weights: Path | None,
    size: tuple[int, int] | None,
    seed: int | None,
    out: Path,
) -> None:
    """Write a net and its weights for other tools.

    SPEC is a file or a zoo name, RUN a folder that `vggc train` made; with neither, the
    newest run under runs/ is taken.
    """
    from vggc.cli.subject import choose
    from vggc.export import export
    from vggc.files import check_target

    check_target(out)
    subject = choose(spec, weights, seed, size)
    export(subject, style, out)
    console.out(f"{out}: {subject.program.net.name}, {FORMATS[style]}")
