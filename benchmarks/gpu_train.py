"""Training on a card: `python benchmarks/gpu_train.py --data CIFAR10`.

First images a second of VGG-16 and VGG-19 at their full size, in bfloat16: of vggc's own steps and
of the best plain loops of PyTorch, in turns. The plain loops find their images on the card,
normalised already, in channels-last memory, and have a fused optimiser; vggc cuts, mirrors and
normalises bytes that come from the CPU's memory. Utilisation is the arithmetic of the steps as a
share of what a product of large matrices reaches in the same run.

Then a training of `vgg16_bn_cifar` on CIFAR-10 in a folder or archive of its usual kinds: how long
until its top-1 is 0.935. What is found is saved after each net. TVM is not needed.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import torch
from cpu import cpu_name
from saving import save
from torch import Tensor, nn
from training import BACKWARD, RESULTS, alike, pictures

from vggc import __version__
from vggc.analysis.report import report
from vggc.data.loader import TrainBatches, load, num_workers
from vggc.data.prepare import Data, prepare
from vggc.passes.inference import drop_final_softmax
from vggc.program import Program
from vggc.program import load as load_net
from vggc.recipe.train import Constant, Recipe, Sgd
from vggc.support.diagnostics import UserError
from vggc.training.augment import Normaliser, changes_of
from vggc.training.learner import choose_machine
from vggc.training.metrics import read_metrics
from vggc.training.prefetch import prefetched
from vggc.training.progress import Epoch
from vggc.training.session import TrainTask

OURS = "vggc"
SIDE = 8192
"""Of the matrices whose product tells what the card reaches."""
BATCHES = 4
"""The images that there are, in batches."""
STOPPING = 30.0
"""Seconds that a training has to save itself when its time is up."""

Steps: TypeAlias = Callable[[int], None]
"""Makes so many steps, and returns when they are done."""
Step: TypeAlias = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class TrainingSpeed:
    """What was measured of a net: images a second in each round, and who could not be measured."""

    net: str
    batch: int
    gflops: float
    speeds: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def utilisation(self, name: str, operations: float) -> float:
        """The share of so many operations a second that a way's steps need."""
        return BACKWARD * self.gflops * 1e9 * median(self.speeds[name]) / operations


@dataclass(frozen=True)
class Goal:
    """A training up to an accuracy: the epoch that first reached it, and the seconds until its end;
    None where none did.
    """

    net: str
    wanted: float
    epochs: int
    best: float
    epoch: int | None
    seconds: float | None
    images_per_second: float

    @classmethod
    def of(cls, net: str, wanted: float, rows: tuple[Epoch, ...]) -> Goal:
        """What the epochs of a training came to."""
        reached = next((row.epoch for row in rows if row.accuracy >= wanted), None)
        before = [row.seconds for row in rows[:reached]]
        return cls(
            net=net,
            wanted=wanted,
            epochs=len(rows),
            best=max((row.accuracy for row in rows), default=0.0),
            epoch=reached,
            seconds=sum(before) if reached else None,
            images_per_second=median(row.images_per_second for row in rows) if rows else 0.0,
        )


def main() -> None:
    asked = _arguments()
    device = choose_machine(asked.device, "float32").device
    torch.set_num_threads(asked.threads)
    about: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "command": " ".join(["python", "benchmarks/gpu_train.py", *sys.argv[1:]]),
        "versions": {
            "Python": platform.python_version(),
            "vggc": __version__,
            "torch": torch.__version__,
        },
        "operations_per_second": product_rate(device, 256 if asked.small else SIDE),
        "goal": None,
    }
    stem = asked.out or RESULTS / time.strftime("%Y-%m-%d-gpu-training")
    rows: list[TrainingSpeed] = []
    for net in filter(None, asked.nets.split(",")):
        print(net, file=sys.stderr, flush=True)
        rows.append(speed_of(net, device, asked))
        save(stem, markdown(about, rows), about, rows)
    if asked.data or asked.small:
        print(asked.goal_net, file=sys.stderr, flush=True)
        about["goal"] = vars(trained_to_goal(device, asked))
    save(stem, markdown(about, rows), about, rows)
    print(markdown(about, rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default="vgg16,vgg19", help="zoo names, with commas")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data", help="CIFAR-10; without it nothing is trained to a goal")
    parser.add_argument("--goal-net", default="vgg16_bn_cifar")
    parser.add_argument("--goal", type=float, default=0.935, help="top-1")
    parser.add_argument("--epochs", type=int, help="of the training to the goal: the net's own")
    parser.add_argument("--seconds", type=float, default=420.0, help="of that training at most")
    parser.add_argument("--out", type=Path, help="where to save, without .md and .json")
    parser.add_argument(
        "--small", action="store_true", help="tries the way, on a CPU, with nets of a minute"
    )
    asked = parser.parse_args()
    if asked.small:
        asked.nets, asked.batch, asked.steps, asked.rounds = "tiny_vgg", 8, 1, 1
        asked.goal_net, asked.goal, asked.epochs = "tiny_vgg", 0.05, 1
    return asked


def product_rate(device: str, side: int) -> float:
    """The operations a second of a product of matrices in bfloat16."""
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(10):
            torch.mm(a, b)
        wait(device)
        seconds.append((time.perf_counter() - start) / 10)
    return 2 * side**3 / median(seconds)


def wait(device: str) -> None:
    """Returns when the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


# Steps


def speed_of(net: str, device: str, asked: argparse.Namespace) -> TrainingSpeed:
    """Images a second of each way to train a net, in turns, after some steps that do not count."""
    program = load_net(net)
    recipe = Recipe(
        batch=asked.batch,
        epochs=None,
        steps=10**6,
        schedule=Constant(),
        optimiser=Sgd(1e-3),
        flip=True,
    )
    shape, classes = program.graph.input, program.graph.output[0]
    count = max(classes, BATCHES * asked.batch)
    data = prepare(pictures(shape, count, classes), shape, None)
    found = TrainingSpeed(net, asked.batch, report(program.graph, 1).totals.flops / 1e9)
    ways: dict[str, Steps] = {}
    for name, start in starts(program, data, recipe, device).items():
        try:
            steps = start()
            steps(3)
        except (RuntimeError, UserError) as error:  # a way that fails takes no other with it
            found.missing[name] = str(error)[:300]
        else:
            ways[name] = steps
            found.speeds[name] = []
    for _ in range(asked.rounds):
        for name, steps in ways.items():
            begun = time.perf_counter()
            steps(asked.steps)
            found.speeds[name].append(asked.steps * asked.batch / (time.perf_counter() - begun))
    return found


def starts(
    program: Program, data: Data, recipe: Recipe, device: str
) -> dict[str, Callable[[], Steps]]:
    """What begins each way to train."""
    images, labels = resident(data, device)

    def plain(compiled: Callable[[nn.Module], Callable[[Tensor], Tensor]]) -> Steps:
        graph = drop_final_softmax(program.graph)
        module = alike(graph, program.logits_module(), images[:2].float().cpu())
        module = module.to(device, memory_format=torch.channels_last)
        step = plain_step(module, compiled(module), device, recipe)
        return in_turn(step, images, labels, recipe.batch, device)

    def by_torch(mode: str | None) -> Callable[[nn.Module], Callable[[Tensor], Tensor]]:
        if device == "cuda":
            return lambda module: torch.compile(module, mode=mode)
        return lambda module: torch.compile(module, backend="eager")

    return {
        OURS: lambda: vggc_steps(program, data, recipe, device),
        "eager": lambda: plain(lambda module: module),
        "compiled": lambda: plain(by_torch(None)),
        "compiled, graphs": lambda: plain(by_torch("reduce-overhead")),
    }


def resident(data: Data, device: str) -> tuple[Tensor, Tensor]:
    """All images, normalised, and their labels, on the device."""
    normalised = Normaliser.of(data.preprocessing, torch.device("cpu"))
    crops = np.stack([cut.pixels for cut in data.train.centres(np.arange(len(data.train)))])
    images = normalised(torch.from_numpy(crops).permute(0, 3, 1, 2))
    labels = torch.from_numpy(data.train.part.labels)
    return images.to(device, memory_format=torch.channels_last), labels.to(device)


def plain_step(
    module: nn.Module, scores: Callable[[Tensor], Tensor], device: str, recipe: Recipe
) -> Step:
    """A step of the loop that PyTorch's own guide to speed comes to."""
    sgd = recipe.optimiser
    assert isinstance(sgd, Sgd)
    optimiser = torch.optim.SGD(
        module.parameters(), sgd.lr, sgd.momentum, weight_decay=sgd.weight_decay, fused=True
    )
    loss_of = nn.CrossEntropyLoss()

    def step(images: Tensor, labels: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(scores(images), labels)
        loss.backward()
        optimiser.step()

    return step


def in_turn(step: Step, images: Tensor, labels: Tensor, batch: int, device: str) -> Steps:
    """Steps on random batches of what lies on the device."""

    def batches() -> Iterator[Tensor]:
        while True:
            order = torch.randperm(len(images), device=device)
            yield from order[: len(order) // batch * batch].split(batch)

    coming = batches()

    def some(count: int) -> None:
        for rows in islice(coming, count):
            step(images[rows].contiguous(memory_format=torch.channels_last), labels[rows])
        wait(device)

    return some


def vggc_steps(program: Program, data: Data, recipe: Recipe, device: str) -> Steps:
    """Steps of the training as `vggc train` makes them."""
    machine, module = choose_machine(device, "bfloat16"), program.logits_module()
    task = TrainTask("net", "", module, data, recipe, machine, seed=0)
    learner = task.learner()
    training = TrainBatches(data.train, task.order, task.world.share)
    workers = num_workers(data.train, 1, changes_of(recipe))
    steps = range(10**6)

    def results() -> Iterator[None]:
        with closing(load(training, steps, workers, pin=machine.device == "cuda")) as loaded:
            batches = prefetched(loaded, learner.device)
            for step, batch in zip(steps, batches, strict=False):
                learner.step(batch, step, recipe.optimiser.lr)
                yield

    coming = results()

    def some(count: int) -> None:
        for _ in islice(coming, count):
            pass
        wait(machine.device)

    return some


# A training to a goal


def trained_to_goal(device: str, asked: argparse.Namespace) -> Goal:
    """What `vggc train` came to within its time."""
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "vggc", "train", asked.goal_net, "--out", str(run)]
        command += ["--device", device, "--precision", "bfloat16"]
        command += ["--data", asked.data] if asked.data else []
        command += ["--epochs", str(asked.epochs)] if asked.epochs else []
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            child.wait(asked.seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            child.wait(STOPPING)
        rows = read_metrics(run)
    return Goal.of(asked.goal_net, asked.goal, rows)


# The table


def markdown(about: dict[str, object], rows: list[TrainingSpeed]) -> str:
    versions, rate = about["versions"], about["operations_per_second"]
    assert isinstance(versions, dict)
    assert isinstance(rate, float)
    lines = [
        f"# {about['date']}: vggc's training beside plain PyTorch on a card",
        "",
        f"{about['machine']}; " + ", ".join(f"{name} {found}" for name, found in versions.items()),
        "",
        f"    {about['command']}",
        "",
        "Images a second in bfloat16, medians of the rounds, and the share of "
        f"{rate / 1e12:.0f} TFLOP/s that their arithmetic is; the ratio is above 1 where vggc is "
        "faster.",
        "",
        "| net | batch | way | images a second | utilisation | vggc / way |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        for name, speeds in row.speeds.items():
            ours = row.speeds.get(OURS)
            cells = [row.net, str(row.batch), name, f"{median(speeds):,.1f}"]
            cells.append(f"{row.utilisation(name, rate):.0%}")
            cells.append(f"{median(ours) / median(speeds):.2f}" if ours else "–")
            lines.append("| " + " | ".join(cells) + " |")
    missing = [f"- {row.net}, {name}: {why}" for row in rows for name, why in row.missing.items()]
    lines += ["", *missing, "", *_goal(about["goal"])]
    return "\n".join(lines)


def _goal(found: object) -> list[str]:
    if not isinstance(found, dict):
        return []
    goal = Goal(**found)
    told = f"{goal.net}: {goal.epochs} epochs, {goal.images_per_second:,.0f} images a second, "
    if goal.seconds is None:
        return [f"{told}top-1 {goal.best:.4f} at most, not {goal.wanted}."]
    return [f"{told}top-1 {goal.wanted} after {goal.seconds:.0f} s, in epoch {goal.epoch}."]


if __name__ == "__main__":
    main()
