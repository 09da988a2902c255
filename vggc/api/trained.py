"""What `compile` and `export` work on: a net, its weights, and what its inputs are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vggc.analysis.report import Report
from vggc.ir.ops import Shape
from vggc.ir.weights import Weights, seeded
from vggc.ir.weights import load as load_weights
from vggc.program import Program, load, with_input
from vggc.recipe.lengths import for_input
from vggc.support.paths import is_run
from vggc.support.precision import Precision
from vggc.training.run import Run
from vggc_runtime.preprocessing import Preprocessing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""The mean and deviation of ImageNet's pixels over 255; what torchvision's weights were
trained with.
"""


@dataclass(frozen=True)
class Subject:
    """A net with weights, as `compile` and `export` take it.

    `named` is what commands call it, a spec or the folder of a run, and `weights_from` says where
    its weights come from, in words; `seed` is that of random weights, None for others.
    """

    named: str
    program: Program
    weights: Weights
    weights_from: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    seed: int | None = None


@dataclass(frozen=True)
class NetOfRun:
    """A net that goes with the weights of a run: the run's own, or one with another input or
    recipe.
    """

    program: Program
    run: Run


def net_of(spec: str) -> Program:
    """The net of a run, of a file, or of that name in the zoo.

    Raises: UserError when there is no such thing, or it is not well formed.
    """
    return net_in(Run.load(Path(spec))) if is_run(spec) else load(spec)


def net_in(run: Run) -> Program:
    """The net of a run as trained.

    Raises: UserError when it is not the one that the run's record describes.
    """
    program = load(str(run.net_path))
    run.require_fit(program.graph)
    return program


def part_at_once(run: Run) -> int:
    """The images that a run has in memory at once: those of a step, or of a part of one."""
    recipe = run.recipe
    return -(-min(recipe.batch, run.record.data.train) // recipe.accumulate)


def resized(program: Program, size: tuple[int, int] | None) -> Program:
    """The program of the net with another input size (H, W), if one is given."""
    return program if size is None else program.replace(with_input(program.net, size))


def cost_of(
    run: Run, program: Program, batch: int | None = None, dtype: Precision = "float32"
) -> Report:
    """What the net of a run costs as it is trained: in its batches, unless others are meant, in
    its precision and with the images that it keeps in memory.
    """
    record = run.record
    half = record.precision != "float32"
    return program.report(batch or part_at_once(run), dtype, half, record.data.pictures)


def from_run(run: Run, weights: Path | None, program: Program | None = None) -> Subject:
    """The net of a run, with the weights that are meant (see `Run.file_of`), as trained unless
    another `program` is given, of another input size for one.

    Raises: UserError when the run has no such weights, or they do not fit.
    """
    program, path = program or net_in(run), run.file_of(weights)
    preprocessing = run.record.preprocessing
    _, height, width = program.graph.input
    if preprocessing.size != (height, width):
        preprocessing = for_input(preprocessing, (height, width))
    return Subject(
        named=str(run.folder),
        program=program,
        weights=load_weights(path, program.graph),
        weights_from=str(path),
        preprocessing=preprocessing,
        classes=run.record.classes,
    )


def from_spec(
    program: Program, weights: Path | None, seed: int, named: str | None = None
) -> Subject:
    """A net with weights from a file, or random ones; `named` is the spec that it was asked by."""
    graph = program.graph
    found = load_weights(weights, graph) if weights else seeded(graph, seed)
    origin = str(weights) if weights else f"seed {seed}"
    return Subject(
        named=named or program.net.name,
        program=program,
        weights=found,
        weights_from=origin,
        preprocessing=imagenet_preprocessing(graph.input),
        classes=(),
        seed=None if weights else seed,
    )


def imagenet_preprocessing(input_: Shape) -> Preprocessing:
    """The preprocessing for weights of which nothing is known: torchvision's for three channels.

    An image's shorter side is then 8/7 of the crop's longer one: 256 pixels for 224.
    """
    channels, height, width = input_
    mean = IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    std = IMAGENET_STD if channels == 3 else (0.5,) * channels
    return Preprocessing((height, width), round(max(height, width) * 8 / 7), mean, std)
