"""What `compile` and `export` work on: a net, its weights, and what its inputs are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vggc.driver import Program, load, with_input
from vggc.ir.ops import Shape
from vggc.preprocessing import Preprocessing
from vggc.training.run import Run
from vggc.weights import Weights, seeded
from vggc.weights import load as load_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels over 255; what torchvision's weights were trained with."""


@dataclass(frozen=True)
class Subject:
    """A net with weights. `weights_from` says where they come from, in words."""

    program: Program
    weights: Weights
    weights_from: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]

    @property
    def seeded(self) -> bool:
        return self.weights_from.startswith("seed ")


def is_run(spec: str) -> bool:
    return (Path(spec) / "run.json").is_file()


def from_run(run: Run, weights: Path | None, size: tuple[int, int] | None) -> Subject:
    """The net of a run, with the run's weights unless others are given, at its own input
    size unless another is.

    Raises: UserError when the run has no weights, or they do not fit.
    """
    program = load(str(run.net_path))
    run.require_fit(program.graph.input, program.graph.output)
    if weights is None:
        run.require_weights()
    preprocessing = run.record.preprocessing
    if size is not None:
        program = program.replace(with_input(program.net, size))
        preprocessing = replace(preprocessing, size=size)
    path = weights or run.weights_path
    return Subject(
        program,
        load_weights(path, program.graph),
        str(path),
        preprocessing,
        run.record.classes,
    )


def from_spec(program: Program, weights: Path | None, seed: int) -> Subject:
    """A net with weights from a file, or random ones."""
    graph = program.graph
    found = load_weights(weights, graph) if weights else seeded(graph, seed)
    origin = str(weights) if weights else f"seed {seed}"
    return Subject(program, found, origin, imagenet_preprocessing(graph.input), ())


def imagenet_preprocessing(input_: Shape) -> Preprocessing:
    """What fits weights that nothing is known of: torchvision's for three channels.

    As there, an image's shorter side is 8/7 of the crop's longer one: 256 pixels for 224.
    """
    channels, height, width = input_
    mean = IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    std = IMAGENET_STD if channels == 3 else (0.5,) * channels
    return Preprocessing((height, width), round(max(height, width) * 8 / 7), mean, std)
