"""Images a second of vggc's training beside a plain PyTorch loop: `python benchmarks/training.py`.

The same net with the same weights, built of `torch.nn`'s modules for the plain loop, on the same
images, which both have in memory: the plain loop as normalised float32 in a `TensorDataset`, vggc
as the bytes that it keeps, which it still cuts, mirrors and normalises. Some steps of each take
turns; what counts is the ratio of the medians.

`plain` is the loop of PyTorch's tutorials: `DataLoader` with shuffling, forward, cross-entropy,
backward, SGD with momentum and weight decay. `tuned` is the same in channels-last memory with
`fused` SGD; with `--device cuda` also by `torch.compile`. In bfloat16 all use autocast.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from cpu import cpu_name
from saving import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from vggc import __version__
from vggc.analysis.report import report
from vggc.data.loader import TrainBatches, load
from vggc.data.parts import Images, Part
from vggc.data.prepare import Data, prepare
from vggc.data.stores import Arrays
from vggc.ir.graph import Graph
from vggc.ir.ops import (
    Activation,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    Op,
)
from vggc.passes.inference import drop_final_softmax
from vggc.program import Program
from vggc.program import load as load_net
from vggc.recipe.train import Constant, Recipe, Sgd
from vggc.support.memory import keep_memory
from vggc.support.precision import TrainPrecision
from vggc.training.augment import Normaliser
from vggc.training.learner import DTYPES, choose_machine
from vggc.training.prefetch import prefetched
from vggc.training.session import TrainTask

RESULTS = Path(__file__).parent / "results"
OURS, PLAIN, TUNED = "vggc", "plain", "tuned"
BACKWARD = 3
"""Forward and backward together take about three times the arithmetic of forward."""


@dataclass(frozen=True)
class Case:
    """A net of the zoo, the images of a step, and the steps of a round."""

    net: str
    batch: int
    steps: int


CASES = (Case("vgg_tiny_cifar", 64, 20), Case("vgg16_bn_cifar", 128, 2), Case("vgg11", 8, 2))


@dataclass(frozen=True)
class Row:
    """What was measured of a case: images a second in each round."""

    case: Case
    precision: TrainPrecision
    gflops: float
    speeds: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, name: str) -> float:
        return median(self.speeds[OURS]) / median(self.speeds[name])


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    device = choose_machine(arguments.device, "float32").device
    if device == "cpu":
        keep_memory()  # as `vggc train` does; the plain loops, in the same process, have it, too
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "processors": len(os.sched_getaffinity(0)),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "peak": arguments.peak_tflops,
        "command": " ".join(["python", "benchmarks/training.py", *sys.argv[1:]]),
        "versions": {
            "Python": platform.python_version(),
            "vggc": __version__,
            "torch": version("torch"),
        },
    }
    stem = arguments.out or RESULTS / time.strftime("%Y-%m-%d-training")
    rows: list[Row] = []
    for case in CASES:
        if arguments.nets and case.net not in arguments.nets.split(","):
            continue
        for precision in arguments.precision.split(","):
            print(f"{case.net}, {precision}", file=sys.stderr, flush=True)
            rows.append(timed(case, precision, device, arguments))
            save(stem, markdown(about, rows), about, rows)
    print(markdown(about, rows))
    print(f"saved as {stem}.md and {stem}.json", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default="", help="zoo names, with commas")
    parser.add_argument("--precision", default="float32,bfloat16")
    parser.add_argument("--device", default="auto", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-times", type=int, default=1, help="so many times the images")
    parser.add_argument("--peak-tflops", type=float, help="of the device, to tell its utilisation")
    parser.add_argument("--out", type=Path, help="where to save, without .md and .json")
    return parser.parse_args()


# The same net, images and steps


def pictures(shape: tuple[int, int, int], count: int, classes: int) -> Images:
    """Noise of so many classes."""
    random = np.random.default_rng(0)
    channels, height, width = shape
    pixels = random.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    labels = np.arange(count) % classes
    part = Part.all(Arrays(tuple(map(str, range(count))), pixels), labels)
    return Images(None, tuple(map(str, range(classes))), part, part.take(np.arange(classes)))


def in_modules(graph: Graph) -> nn.Sequential:
    """A chain of layers as anyone would write it in PyTorch."""
    return nn.Sequential(
        *(
            in_module(node.op, graph.nodes[node.inputs[0]].shape)
            for node in graph.nodes
            if not isinstance(node.op, Input)
        )
    )


def in_module(op: Op, shape: tuple[int, ...]) -> nn.Module:
    match op:
        case Conv2d(channels, kernel, stride, padding):
            return nn.Conv2d(shape[0], channels, kernel, stride, padding[:2], bias=op.bias)
        case BatchNorm(eps=eps, momentum=momentum):
            return nn.BatchNorm2d(shape[0], eps, momentum)
        case Activation(function="relu"):
            return nn.ReLU(inplace=True)
        case MaxPool2d(kernel=kernel, stride=stride, padding=padding):
            return nn.MaxPool2d(kernel, stride, padding[:2])
        case Flatten():
            return nn.Flatten()
        case Linear(features):
            return nn.Linear(shape[0], features, bias=op.bias)
        case Dropout(p=p):
            return nn.Dropout(p)
        case _:
            raise SystemExit(f"no plain module for {op}")


def step_of(
    module: nn.Module,
    scores: Callable[[Tensor], Tensor],
    device: str,
    precision: TrainPrecision,
    recipe: Recipe,
    fused: bool,
) -> Callable[[Tensor, Tensor], None]:
    """A step as PyTorch's tutorials have it."""
    sgd, dtype = recipe.optimiser, DTYPES[precision]
    optimiser = torch.optim.SGD(
        module.parameters(), sgd.lr, sgd.momentum, weight_decay=sgd.weight_decay, fused=fused
    )
    loss_of = nn.CrossEntropyLoss()

    def step(images: Tensor, labels: Tensor) -> None:
        optimiser.zero_grad()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = loss_of(scores(images), labels)
        loss.backward()
        optimiser.step()
        loss.item()

    return step


def endless(loader: DataLoader[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    while True:
        yield from loader


# Timing


def timed(case: Case, precision: TrainPrecision, device: str, arguments: argparse.Namespace) -> Row:
    """Some steps of each in turn, after some that do not count."""
    program = load_net(case.net)
    batch = case.batch * arguments.batch_times
    recipe = Recipe(
        batch=batch,
        epochs=None,
        steps=10**6,
        schedule=Constant(),
        optimiser=Sgd(1e-3),
        flip=True,
    )
    shape, classes = program.graph.input, program.graph.output[0]
    data = prepare(pictures(shape, max(classes, 8 * batch), classes), shape, None)
    rounds = {
        OURS: vggc_steps(program, data, recipe, device, precision),
        **peer_steps(program, data, recipe, device, precision),
    }
    row = Row(case, precision, report(program.graph, 1).totals.flops / 1e9)
    for steps in rounds.values():
        steps(max(2, case.steps // 4))
    row.speeds.update({name: [] for name in rounds})
    for _ in range(arguments.rounds):
        for name, steps in rounds.items():
            start = time.perf_counter()
            steps(case.steps)
            row.speeds[name].append(case.steps * batch / (time.perf_counter() - start))
    return row


def vggc_steps(
    program: Program, data: Data, recipe: Recipe, device: str, precision: TrainPrecision
) -> Callable[[int], None]:
    """Steps of the training as `vggc train` makes them."""
    machine, module = choose_machine(device, precision), program.logits_module()
    task = TrainTask("net", "", module, data, recipe, machine, seed=0)
    learner = task.learner()
    training = TrainBatches(data.train, task.order, task.world.share)
    steps = range(10**6)
    batches = prefetched(load(training, steps, 0, pin=machine.device == "cuda"), learner.device)
    coming = zip(steps, batches, strict=False)

    def some(count: int) -> None:
        for step, batch in islice(coming, count):
            learner.step(batch, step, recipe.optimiser.lr).read()

    return some


def peer_steps(
    program: Program, data: Data, recipe: Recipe, device: str, precision: TrainPrecision
) -> dict[str, Callable[[int], None]]:
    """Steps of loops as they are written without vggc, on images that are prepared already."""
    graph = drop_final_softmax(program.graph)
    normalised = Normaliser.of(data.preprocessing, torch.device("cpu"))
    crops = np.stack([cut.pixels for cut in data.train.centres(np.arange(len(data.train)))])
    images = normalised(torch.from_numpy(crops).permute(0, 3, 1, 2)).contiguous()
    labels = torch.from_numpy(data.train.part.labels)
    found = {}
    for name, layout in ((PLAIN, torch.contiguous_format), (TUNED, torch.channels_last)):
        module = alike(graph, program.logits_module(), images[:4])
        module = module.to(device, memory_format=layout)
        tuned: Callable[[Tensor], Tensor] = module
        if name == TUNED and device == "cuda":
            tuned = torch.compile(module)
        step = step_of(module, tuned, device, precision, recipe, fused=name == TUNED)
        loader = DataLoader(
            TensorDataset(images, labels),
            recipe.batch,
            shuffle=True,
            drop_last=True,
            pin_memory=device == "cuda",
        )
        found[name] = some_of(endless(loader), step, device, layout)
    return found


def alike(graph: Graph, module: nn.Module, images: Tensor) -> nn.Sequential:
    """The graph in plain modules with the weights of its module; both give the same."""
    plain = in_modules(graph)
    plain.load_state_dict(
        dict(zip(plain.state_dict(), named_alike(module, plain), strict=True)), strict=True
    )
    with torch.inference_mode():
        torch.testing.assert_close(plain.eval()(images), module.eval()(images))
    return plain.train()


def named_alike(module: nn.Module, plain: nn.Module) -> Iterator[Tensor]:
    """The module's tensors in the order of the plain one's, which counts batches as well."""
    ours = module.state_dict()
    layers = [each for each in plain if [*each.state_dict()]]
    for layer, names in zip(layers, filter(None, module.roles), strict=True):
        for role, tensor in layer.state_dict().items():
            yield ours[names[role]] if role in names else tensor


def some_of(
    batches: Iterator[tuple[Tensor, ...]],
    step: Callable[[Tensor, Tensor], None],
    device: str,
    layout: torch.memory_format,
) -> Callable[[int], None]:
    def some(count: int) -> None:
        for images, labels in islice(batches, count):
            there = images.to(device, memory_format=layout, non_blocking=True)
            step(there, labels.to(device, non_blocking=True))

    return some


# The table


def utilisation(row: Row, name: str, peak: float) -> float:
    """The share of the device's arithmetic that a training of so many images a second needs."""
    return BACKWARD * row.gflops * median(row.speeds[name]) / (peak * 1e3)


def markdown(about: dict[str, object], rows: list[Row]) -> str:
    versions, peak = about["versions"], about["peak"]
    assert isinstance(versions, dict)
    lines = [
        f"# {about['date']}: vggc's training beside plain PyTorch",
        "",
        f"{about['machine']}, {about['processors']} processors, {about['threads']} threads; "
        + ", ".join(f"{name} {found}" for name, found in versions.items()),
        "",
        f"    {about['command']}",
        "",
        f"Images a second, medians of {about['rounds']} rounds; ratios of those medians, above 1 "
        "where vggc is faster.",
        "",
        "| net | images a step | precision | vggc | plain | tuned | vggc / plain | vggc / tuned |"
        + (" utilisation |" if peak else ""),
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |" + (" ---: |" if peak else ""),
    ]
    for row in rows:
        cells = [row.case.net, str(row.case.batch), row.precision]
        cells += [f"{median(row.speeds[name]):,.1f}" for name in (OURS, PLAIN, TUNED)]
        cells += [f"**{row.ratio(PLAIN):.2f}**", f"{row.ratio(TUNED):.2f}"]
        if isinstance(peak, float):
            cells.append(f"{utilisation(row, OURS, peak):.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
