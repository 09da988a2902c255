"""`vggc import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE, preprocessing_option
from vggc.ir.ops import describe
from vggc.support.diagnostics import CheckFailed, in_command
from vggc_runtime.text import in_line

if TYPE_CHECKING:
    from vggc.api.import_ import Imported


@click.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILES…")
@click.option(
    "-o",
    "--out",
    metavar="NAME",
    type=click.Path(path_type=Path),
    help="Writes NAME.vgg and NAME.safetensors.  [default: the net's own name, in this folder]",
)
@click.option(
    "--input",
    "size",
    type=IMAGE_SIZE,
    help="Height and width of the input, where the net leaves that open.",
)
@click.option(
    "--net",
    metavar="SPEC",
    help="For a file of weights alone: the net that they are of, a file or a zoo name.",
)
@preprocessing_option
def command(
    files: tuple[str, ...],
    out: Path | None,
    size: tuple[int, int] | None,
    net: str | None,
    preprocessing: str | None,
) -> None:
    """Write a net of another framework as a spec and its weights.

    FILES are an ONNX file (model.onnx), a definition of Caffe's or Darknet's with its weights
    (deploy.prototxt net.caffemodel, net.cfg net.weights), or the name of a net of a package that is
    installed (torchvision:vgg16, timm:vgg16_bn), with a file of its weights or without. The net is
    compared with the original where the engine of that is installed. Exit code 1 means that they
    differ. With --net, FILES is one file of weights, of PyTorch, Keras or safetensors, which are
    written to NAME.safetensors by our names.
    """
    from vggc.api.import_ import ImportOptions, import_net

    if net is not None:
        report_weights(files, net, out, size, preprocessing)
        return
    options = ImportOptions(files=files, out=out, size=size, preprocessing=preprocessing)
    found = import_net(options, console.status)
    report(found)
    if found.comparison is not None and not found.comparison.agrees:
        raise CheckFailed("the net that was written does not compute what the original does")


def report_weights(
    files: tuple[str, ...],
    net: str,
    out: Path | None,
    size: tuple[int, int] | None,
    preprocessing: str | None,
) -> None:
    """Writes the weights in one file for a net that there is, and prints what was written."""
    from vggc.api.import_ import weights_target
    from vggc.api.import_weights import import_weights

    if len(files) != 1:
        raise click.UsageError("`--net` says whose the weights in one file are; give one file")
    path = Path(files[0])
    found = import_weights(path, net, weights_target(out or Path(path.stem)), size, preprocessing)
    if found.loaded.told:
        console.status(in_line(found.loaded.told))
    console.out(f"{found.path}: {console.count(found.values, 'value')} of {in_line(found.net)}")
    told = in_command(found.path)
    console.status(f"next: vggc compile {in_command(net)} --weights {told} --out {found.path.stem}")


def report(found: Imported) -> None:
    """Prints what was written, how far it is from the original, and what can be done next."""
    graph = found.net.graph
    layers = len({node.layer.name for node in graph.nodes[1:]})
    outputs = ", ".join(f"{name} {describe(shape)}" for name, shape in graph.outputs.items())
    told = f"{console.count(layers, 'layer')}, {describe(graph.input)} to {outputs}"
    console.out(f"{found.spec}: {told}")
    if found.weights is not None:
        values = sum(weight.size for weight in graph.all_weights.values())
        console.out(f"{found.weights}: {console.count(values, 'value')}")
    for note in found.net.notes:
        console.out(f"note: {in_line(note)}")
    if found.comparison is None:
        console.out(f"not compared with the original: {in_line(found.not_compared)}")
    else:
        console.out(f"beside {found.comparison.engine}:")
        for each in found.comparison.differences:
            console.out(
                f"  {each.input:<10} {in_line(each.output)}: relative L2 {each.relative:.1e}, "
                f"largest difference {each.largest:.1e}"
            )
        if enlarged := [each for each in found.comparison.differences if each.is_rounding]:
            most = max(each.rounding for each in enlarged)
            told = f"its own numbers in float64 differ by {most:.1e}"
            console.out(f"note: the net enlarges what float32 rounds: {told}")
    spec, weights = in_command(found.spec), found.weights and in_command(found.weights)
    more = f" --weights {weights}" if weights else ""
    console.status(f"next: vggc summary {spec}; vggc compile {spec}{more} --out {found.spec.stem}")
