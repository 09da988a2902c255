"""`vggc compile`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import click

from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE


@click.command("compile")
@click.argument("spec", required=False, metavar="[SPEC|RUN]")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="cpu (this machine), cuda, or a TVM tag such as nvidia/nvidia-h100.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="A safetensors file.")
@click.option("--batch", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--input", "size", type=IMAGE_SIZE, help="Height and width of the input.")
@click.option("--arch", help="GPU architectures to hold code for.  [default: sm_80,sm_90 for cuda]")
@click.option("--seed", type=click.IntRange(0), help="For random weights.  [default: 0]")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="A new folder.  [default: artifacts/NET-TARGET]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def command(
    spec: str | None,
    target: str,
    weights: Path | None,
    batch: int,
    size: tuple[int, int] | None,
    arch: str | None,
    seed: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compile a net to an artifact that runs without PyTorch.

    SPEC is a file or a zoo name, RUN a folder that `vggc train` made; with neither, the
    newest run under runs/ is taken. A spec without weights gets random ones.
    """
    from vggc.cli.subject import choose
    from vggc.deploy.build import Job, build_artifact
    from vggc.deploy.targets import resolve

    machine = resolve(target, arch.split(",") if arch else ())
    subject = choose(spec, weights, seed, size)
    net = subject.program.net
    folder = out or Path("artifacts") / f"{net.name}-{target.replace('/', '-')}"
    started = time.perf_counter()
    manifest = build_artifact(
        Job(
            net,
            subject.program.graph,
            machine,
            batch,
            subject.weights,
            subject.weights_from,
            subject.preprocessing,
            subject.classes,
        ),
        folder,
    )
    seconds = time.perf_counter() - started
    total = sum(file.bytes for file in manifest.files.values())
    if as_json:
        made = {
            "artifact": str(folder),
            "net": net.name,
            "target": machine.name,
            "archs": machine.archs,
            "batch": batch,
            "weights_from": subject.weights_from,
            "bytes": total,
            "seconds": round(seconds, 2),
        }
        console.out(json.dumps(made))
        return
    code = f" for {', '.join(machine.archs)}" if machine.archs else f" for {_cpu(machine.attrs)}"
    console.out(f"{folder}: {net.name}, {len(manifest.kernels)} kernel calls{code}")
    where = " where such a GPU is" if machine.archs else ""
    console.status(f"{total / 1e6:,.1f} MB in {seconds:.1f} s; next{where}: vggc verify {folder}")


def _cpu(attrs: Mapping[str, object]) -> str:
    return str(attrs.get("mcpu") or attrs.get("mtriple") or "any CPU")
