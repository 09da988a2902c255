"""`vggc compile`."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vggc.cli import console
from vggc.cli.options import (
    BATCHES,
    IMAGE_SIZES,
    MAX_ERROR,
    PRECISION,
    THREADS,
    preprocessing_option,
    weights_option,
)
from vggc.cli.skipped import told
from vggc.runtime.archs import listed
from vggc.support.paths import STANDALONE
from vggc.support.precision import ArtifactPrecision
from vggc.support.sizes import listed_sizes

if TYPE_CHECKING:
    from vggc.api.compile import Compiled
    from vggc.runtime.artifact import Manifest


@click.command("compile")
@click.argument("spec", required=False, metavar="[SPEC|RUN]")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="cpu (this machine), cuda, or a TVM tag such as nvidia/nvidia-h100.",
)
@click.option(
    "--mcpu",
    metavar="NAME",
    help="Compile for another CPU than this machine's, by LLVM's name: haswell, znver4, …",
)
@weights_option
@preprocessing_option
@click.option(
    "--batch",
    "batches",
    type=BATCHES,
    default="1",
    show_default=True,
    help="How many images to compute at once; of several numbers, such as 1,8,32, each call takes "
    "those that cost the least together, and all share the weights.",
)
@click.option(
    "--input",
    "sizes",
    type=IMAGE_SIZES,
    default=(),
    help="Height and width of the input; of several, such as 224,256x320, which share the weights, "
    "the first is the usual one.",
)
@click.option(
    "--dense",
    type=IMAGE_SIZES,
    default=(),
    help="Apply the net to all of images of this height and width, its boxes position by position; "
    "beside --input in the same artifact.",
)
@click.option(
    "--arch",
    help="GPU architectures to hold code for; compute_90 is PTX, for that one and all newer ones.  "
    "sm_90a gets kernels of its own.  [default: sm_80,sm_90a,compute_90 for cuda]",
)
@click.option(
    "--no-graph",
    is_flag=True,
    help="Launch a GPU's kernels one by one in each call, in place of replaying CUDA graphs.",
)
@click.option(
    "--precision",
    type=PRECISION,
    default="float32",
    show_default=True,
    help="What to multiply in. On CPUs bfloat16 and int8 take AVX512-BF16 and AVX512-VNNI, on GPUs "
    "tf32, float16, bfloat16 and int8 take tensor cores.",
)
@click.option(
    "--max-error",
    type=MAX_ERROR,
    help="Relative L2 error that fast algorithms may add to the net's outputs.  [default: 1e-5]",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Images that the net will see the like of, anywhere in a folder; int8 needs them.",
)
@click.option(
    "--images",
    "num_images",
    type=click.IntRange(1, 100_000),
    help="How many of them to read.  [default: 300]",
)
@click.option("--seed", type=click.IntRange(0), help="For random weights.  [default: 0]")
@click.option(
    "--db",
    type=click.Path(path_type=Path),
    help="Folder of the database that `vggc tune` filled.  [default: one in ~/.cache/vggc/tuning]",
)
@click.option("--no-db", is_flag=True, help="Choose all kernels by their stated costs.")
@click.option(
    "--threads",
    type=THREADS,
    help="Choose kernels for so many threads of a CPU.  [default: all cores]",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="A new folder.  [default: artifacts/NET-TARGET]",
)
@click.option(
    "--dump",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write what each stage makes, and its seconds, to a new folder: plan, kernels, source …",
)
@click.option(
    "--standalone",
    is_flag=True,
    help="Make a library for C, too, that runs without Python: standalone/ in the artifact.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def command(
    spec: str | None,
    target: str,
    mcpu: str | None,
    weights: Path | None,
    preprocessing: str | None,
    batches: tuple[int, ...],
    sizes: tuple[tuple[int, int], ...],
    dense: tuple[tuple[int, int], ...],
    arch: str | None,
    no_graph: bool,
    precision: ArtifactPrecision,
    max_error: float | None,
    calibrate: Path | None,
    num_images: int | None,
    seed: int | None,
    db: Path | None,
    no_db: bool,
    threads: int | None,
    out: Path | None,
    dump: Path | None,
    standalone: bool,
    as_json: bool,
) -> None:
    """Compile a net to an artifact that runs without PyTorch.

    SPEC is a file or a zoo name, RUN a folder that `vggc train` made; with neither, the
    newest run under runs/ is taken. A spec without weights gets random ones.

    In tf32, float16, bfloat16 and int8, convolutions and dense layers multiply in that precision;
    all else computes in float32.

    With --dense, fully-connected layers slide over an image larger than the net's input: scores of
    classes are averaged as `vggc eval` does, and boxes come for each position of the net.

    Of several sizes and batches there is one copy of the weights, and kernels are chosen for all
    together: `--input 224 --dense 256x320` computes both crops and whole images.

    Kernels are those that `vggc tune` has measured to be the fastest, others those of least
    stated cost. Fast algorithms round more; a smaller --max-error keeps to slower ones.
    """
    if db is not None and no_db:
        raise click.UsageError("--db and --no-db exclude each other")
    from vggc.api.compile import CompileOptions, plan

    options = CompileOptions(
        target=target,
        mcpu=mcpu,
        archs=tuple(arch.split(",")) if arch else (),
        graphs=not no_graph,
        weights=weights,
        preprocessing=preprocessing,
        seed=seed,
        batches=batches,
        sizes=sizes,
        dense=dense,
        precision=precision,
        max_error=max_error,
        images=calibrate,
        num_images=num_images,
        tuned=not no_db,
        db=db,
        threads=threads,
        out=out,
        dump=dump,
        standalone=standalone,
    )
    planned = plan(spec, options, console.status)
    for line in told(planned.pictures.skipped):
        console.status(line)
    images = planned.pictures.files
    number_of_images = console.count(len(images), "image")
    if images:
        console.status(f"measuring the ranges of its values on {number_of_images}")
    made = planned.build()
    for note in made.notes:
        console.status(note)
    report(made, as_json, may_tune=not no_db)


def report(made: Compiled, as_json: bool, *, may_tune: bool) -> None:
    """What was made on stdout; its circumstances, and what comes next, on stderr."""
    from vggc.runtime.artifact import told_sizes

    planned, manifest = made.plan, made.manifest
    machine, subject, folder = planned.machine, planned.subject, planned.folder
    images, precision = planned.pictures.files, planned.precision
    chosen = Counter(kernel.chosen_by for kernel in made.kernels)
    tuned, by_cost = chosen["measurement"], chosen["cost model"]
    if as_json:
        record = {
            "artifact": str(folder),
            "net": manifest.net,
            "target": machine.name,
            "archs": machine.archs,
            "graphs": machine.graphs,
            "batch": manifest.largest.batch,
            "batches": manifest.batches,
            "inputs": manifest.inputs,
            "dense": dense_sizes(manifest),
            "threads": planned.threads if machine.kind == "cpu" else None,
            "precision": precision,
            "images": len(images),
            "skipped": len(planned.pictures.skipped),
            "weights_from": subject.weights_from,
            "kernels": len(made.kernels),
            "tuned": tuned,
            "by_cost_model": by_cost,
            "standalone": planned.standalone,
            "bytes": made.bytes,
            "seconds": round(made.seconds, 2),
        }
        console.out(json.dumps(record))
        return
    code = f" for {', '.join(machine.archs)}" if machine.archs else f" for {_cpu(machine.attrs)}"
    if manifest.dense or len(manifest.sizes) > 1:
        code = f" for images of {told_sizes(manifest)} pixels" + code
    if machine.kind == "cpu":
        code += f" with {console.count(planned.threads, 'thread')}"
    how = "" if precision == "float32" else f" in {precision}"
    if images:
        how += f", calibrated on {console.count(len(images), 'image')}"
    several = len(manifest.batches) > 1
    batches = f", batches of {listed(list(map(str, manifest.batches)))}" if several else ""
    graphs = " in CUDA graphs" if machine.graphs else ""
    calls = f"{len(made.kernels)} kernel calls{graphs}"
    console.out(f"{folder}: {manifest.net}{batches}, {calls}{code}{how}")
    if manifest.has_variants:
        own = listed([arch for arch in manifest.variants if arch])
        console.status(f"{own} GPUs have kernels of their own")
    if tuned + by_cost:
        again = shlex.join(["vggc", "tune", subject.named, *_same_options()])
        there = " where such a GPU is" if machine.archs else ""
        hint = f"; `{again}` measures{there}" if not tuned and may_tune else ""
        console.status(
            f"{tuned} of {tuned + by_cost} kernels tuned by measurement, "
            f"{by_cost} by the cost model{hint}"
        )
    if planned.standalone:
        console.status(f"{folder / STANDALONE}: the net as a library for C; its README says how")
    from vggc.runtime.cpu_session import obstacle

    elsewhere = machine.kind == "cpu" and obstacle(machine) is not None
    where = " where such a GPU is" if machine.archs else " on such a machine" * elsewhere
    console.status(
        f"{made.bytes / 1e6:,.1f} MB in {made.seconds:.1f} s; next{where}: "
        + shlex.join(["vggc", "verify", str(folder)])
    )


def dense_sizes(manifest: Manifest) -> list[tuple[int, int]]:
    """The heights and widths of images that an artifact applies its net densely to."""
    return [each.size for each in manifest.sizes if each.dense]


SHARED = "target", "mcpu", "batches", "sizes", "dense", "precision", "max_error", "threads", "db"
"""Options that `vggc tune` has, too."""


def _same_options() -> list[str]:
    """What was given to this command that `vggc tune` is to be given, too."""
    context = click.get_current_context()
    found = []
    for option in SHARED:
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            value = context.params[option]
            match option:
                case "batches":
                    text = ",".join(map(str, value))
                case "sizes" | "dense":
                    text = listed_sizes(value)
                case _:
                    text = str(value)
            name = {"sizes": "input", "batches": "batch"}.get(option, option.replace("_", "-"))
            found += [f"--{name}", text]
    return found


def _cpu(attrs: Mapping[str, object]) -> str:
    return str(attrs.get("mcpu") or attrs.get("mtriple") or "any CPU")
