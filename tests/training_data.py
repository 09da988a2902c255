"""Small nets and small images for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from vggc.preprocessing import Preprocessing
from vggc.recipe.train import Constant, He, Recipe, Sgd
from vggc.training.images import Data, Images, Part, prepare
from vggc.training.loop import Learner, Machine

CPU = Machine("cpu", "fp32")

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
    pictures = tuple(picture(c, i) for c, i in zip(labels.tolist(), indices, strict=True))
    names = tuple(f"{c}/{i}" for c, i in zip(labels.tolist(), indices, strict=True))
    return Part(names, pictures, labels)


def data(recipe: Recipe = RECIPE, count: int = 5) -> Data:
    images = Images(None, ("a", "b", "c"), part(count), part(2, first=100))
    return prepare(images, recipe, 3, (8, 8))


def learner(recipe: Recipe = RECIPE, net: nn.Module | None = None) -> Learner:
    return Learner(
        net or module(), recipe, CPU, Preprocessing((8, 8), None, (0.4,) * 3, (0.2,) * 3)
    )


def write_images(folder: Path, classes: tuple[str, ...], count: int) -> None:
    """A folder of class folders with PNGs in them."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(picture(label, index)).save(folder / name / f"{index}.png")
