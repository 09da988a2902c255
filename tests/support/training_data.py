"""Small nets and small images for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from vggc.data.parts import Images, Part
from vggc.data.prepare import Data, prepare
from vggc.data.stores import Arrays
from vggc.recipe.train import Constant, He, Recipe, Sgd
from vggc.training.augment import window_of
from vggc.training.learner import Learner, TrainMachine
from vggc.training.session import TrainTask

CPU = TrainMachine("cpu", "float32")

TINY = """\
net tiny
input 3x8x8

  conv3-4 | pool | fc-8 | dropout | fc-3 | softmax

train {
  batch 4
  epochs 3
  sgd lr=0.05
  constant
  init he
}
"""

RECIPE = Recipe(
    batch=4, epochs=3, optimiser=Sgd(lr=0.05), schedule=Constant(), init=He(), flip=True
)


def module() -> nn.Module:
    """The net of TINY for images (N, 3, 8, 8) of three classes."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(8, 3),
    )


def picture(label: int, index: int, height: int = 8, width: int = 8) -> np.ndarray:
    """Noise that is brighter in the channel of its class, uint8 (H, W, 3)."""
    noise = np.random.default_rng([label, index]).integers(0, 128, (height, width, 3))
    noise[:, :, label % 3] += 100
    return noise.astype(np.uint8)


def part(count: int, num_classes: int = 3, first: int = 0) -> Part:
    """`count` pictures of each class."""
    labels = np.repeat(np.arange(num_classes), count)
    indices = [*range(first, first + count)] * num_classes
    pictures = [picture(c, i) for c, i in zip(labels.tolist(), indices, strict=True)]
    names = tuple(f"{c}/{i}" for c, i in zip(labels.tolist(), indices, strict=True))
    return Part.all(Arrays(names, np.stack(pictures)), labels)


def found(count: int = 5) -> Images:
    """Images of three classes, so many of each to train on and two held out."""
    return Images(None, ("a", "b", "c"), part(count), part(2, first=100))


def data(recipe: Recipe = RECIPE, count: int = 5) -> Data:
    return prepare(found(count), (3, 8, 8), recipe.scale, window=window_of(recipe))


def task(
    recipe: Recipe = RECIPE,
    net: nn.Module | None = None,
    machine: TrainMachine = CPU,
    count: int = 5,
    seed: int = 0,
    **more: tuple[str, ...],
) -> TrainTask:
    """The training of a net on such images."""
    net = net or module()
    return TrainTask("tiny", TINY, net, data(recipe, count), recipe, machine, seed, **more)


def learner(
    recipe: Recipe = RECIPE,
    net: nn.Module | None = None,
    machine: TrainMachine = CPU,
    seed: int = 0,
) -> Learner:
    return task(recipe, net, machine, seed=seed).learner()


def write_images(folder: Path, classes: tuple[str, ...], count: int) -> None:
    """A folder of class folders with PNGs in them."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(picture(label, index)).save(folder / name / f"{index}.png")
