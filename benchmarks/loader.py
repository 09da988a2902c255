"""Images a second of vggc's loader beside PyTorch's and Pillow: `python benchmarks/loader.py`.

Both read the same JPEGs, made of the two photographs that come with scikit-learn, with the same
batches and as many worker processes, and give the same: a batch of random crops, some of them
mirrored, as normalised float32. Rounds of one epoch each take turns; what counts is the ratio of
the medians.

`plain` is the pipeline that training scripts have: `torch.utils.data.DataLoader` with its own
shuffling and stacking over a data set that opens each file with Pillow, resizes it, crops,
mirrors, converts and normalises. `vggc` does all that a training does before the net computes,
with nothing kept in memory; `vggc, kept` with images kept there as far as a training keeps them.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from cpu import cpu_name
from PIL import Image
from saving import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vggc import __version__
from vggc.data.find import find_images
from vggc.data.loader import TrainBatches, load, num_workers
from vggc.data.order import Order, Share
from vggc.data.prepare import ROOM, Data, prepare
from vggc.recipe.train import Recipe
from vggc.support.memory import keep_memory
from vggc.training.augment import Augmentation, Normaliser

RESULTS = Path(__file__).parent / "results"
QUALITY = 90
PEER, OURS, KEPT = "plain", "vggc", "vggc, kept"


@dataclass(frozen=True)
class Case:
    """Photographs of about one size, and what is cut out of them: a square of `crop` pixels, when
    the shorter side has a length between the two `scales`.
    """

    name: str
    size: tuple[int, int]
    scales: tuple[int, int]
    crop: int
    count: int


CASES = (
    Case("500×375", (500, 375), (256, 256), 224, 1024),
    Case("500×375", (500, 375), (256, 512), 224, 1024),
    Case("1600×1200", (1600, 1200), (256, 256), 224, 256),
    Case("1600×1200", (1600, 1200), (256, 512), 224, 256),
    Case("32×32", (32, 32), (36, 36), 32, 8192),
)


@dataclass(frozen=True)
class Row:
    """What was measured of a case: images a second in each round."""

    case: Case
    speeds: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, name: str) -> float:
        return median(self.speeds[name]) / median(self.speeds[PEER])


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_memory()  # as `vggc train` does on a processor; the plain loader has it, too
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": cpu_name(),
        "processors": len(os.sched_getaffinity(0)),
        "workers": arguments.workers,
        "threads": arguments.threads,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "command": " ".join(["python", "benchmarks/loader.py", *sys.argv[1:]]),
        "versions": {
            "Python": platform.python_version(),
            "vggc": __version__,
            **{name: version(name) for name in ("torch", "pillow", "numpy")},
        },
    }
    stem = arguments.out or RESULTS / time.strftime("%Y-%m-%d-%H%M-loader")
    rows: list[Row] = []
    for case in CASES:
        if arguments.cases and case.name not in arguments.cases.split(","):
            continue
        case = replace(case, count=arguments.images or case.count)
        print(f"{case.name}, {told(case.scales)}", file=sys.stderr, flush=True)
        with TemporaryDirectory(prefix="vggc-loader-") as folder:
            write_photographs(Path(folder), case)
            rows.append(timed(case, Path(folder), arguments))
        save(stem, markdown(about, rows), about, rows)
    print(markdown(about, rows))
    print(f"saved as {stem}.md and {stem}.json", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="", help="sizes as in the table, with commas")
    parser.add_argument("--images", type=int, help="of each case  [default: 256 to 8,192]")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--threads", type=int, default=1, help="of the process that trains")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, help="where to save, without .md and .json")
    return parser.parse_args()


def told(scales: tuple[int, int]) -> str:
    return f"scale {scales[0]}" if scales[0] == scales[1] else f"scale {scales[0]} to {scales[1]}"


def write_photographs(folder: Path, case: Case) -> None:
    """Writes JPEGs of about the size of a case, of two classes, parts of the two photographs."""
    import sklearn.datasets

    source = Path(sklearn.datasets.__file__).parent / "images"
    generator = np.random.default_rng(0)
    for name in ("china", "flower"):
        (folder / name).mkdir()
        with Image.open(source / f"{name}.jpg") as image:
            photograph = image.convert("RGB")
        for index in range(case.count // 2):
            width, height = (int(side * generator.uniform(0.9, 1.1)) for side in case.size)
            share = generator.uniform(0.5, 1)
            across, down = (int(side * share) for side in photograph.size)
            left = int(generator.integers(photograph.width - across + 1))
            top = int(generator.integers(photograph.height - down + 1))
            piece = photograph.crop((left, top, left + across, top + down))
            # What is enlarged lacks the noise of a camera, which JPEG spends its bytes on.
            pixels = np.asarray(piece.resize((width, height), Image.Resampling.BICUBIC))
            noisy = pixels + generator.normal(0, 4, pixels.shape)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
                folder / name / f"{index}.jpg", quality=QUALITY
            )


# The two loaders


@dataclass(frozen=True)
class Plain(Dataset[tuple[Tensor, int]]):
    """Files, opened and prepared one by one as training scripts do."""

    files: list[tuple[str, int]]
    case: Case
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as file:
            image = file.convert("RGB")
        factor = random.randint(*self.case.scales) / min(image.size)
        width, height = (max(self.case.crop, round(side * factor)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left = random.randint(0, width - self.case.crop)
        top = random.randint(0, height - self.case.crop)
        image = image.crop((left, top, left + self.case.crop, top + self.case.crop))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float().div_(255).sub_(self.mean).div_(self.std), label


def plain_epoch(data: Data, case: Case, batch: int, workers: int) -> Callable[[], list[Tensor]]:
    part = data.train.part
    files = [
        (str(path), int(label))
        for path, label in zip(part.fetch(np.arange(len(part))), part.labels, strict=True)
    ]
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (data.preprocessing.mean, data.preprocessing.std)
    )
    loader = DataLoader(
        Plain(files, case, mean, std), batch_size=batch, shuffle=True, num_workers=workers
    )
    return lambda: summary(images for images, _ in loader)


def vggc_epoch(data: Data, case: Case, batch: int, workers: int) -> Callable[[], list[Tensor]]:
    order = Order(len(data.train), batch, seed=0)
    recipe = Recipe(batch=batch, scale=case.scales, flip=True, rgb_shift=None)
    normaliser = Normaliser.of(data.preprocessing, torch.device("cpu"))
    augmentation = Augmentation(recipe, order, data.colour_axes, normaliser)
    batches, steps = TrainBatches(data.train, order, Share()), range(order.num_batches)

    def epoch() -> list[Tensor]:
        loaded = zip(steps, load(batches, steps, workers), strict=True)
        return summary(augmentation(batch, step)[0] for step, batch in loaded)

    return epoch


def summary(batches: object) -> list[Tensor]:
    """What is kept of an epoch: each batch's size and one of its values, so that it is there."""
    kept = []
    for images in batches:  # type: ignore[attr-defined]
        assert images.dtype == torch.float32
        kept.append(torch.tensor([len(images), float(images[0, 0, 0, 0])]))
    return kept


def timed(case: Case, folder: Path, arguments: argparse.Namespace) -> Row:
    """One epoch of each in turn, after one that does not count."""
    shape = (3, case.crop, case.crop)
    data, kept = (
        prepare(find_images(folder, seed=0), shape, case.scales, room=room) for room in (0, ROOM)
    )
    options = case, arguments.batch, arguments.workers
    epochs = {PEER: plain_epoch(data, *options), OURS: vggc_epoch(data, *options)}
    if kept.train.kept is not None:
        # As a training does, which makes the batches itself where that is hardly any work.
        workers = min(arguments.workers, num_workers(kept.train))
        epochs[KEPT] = vggc_epoch(kept, case, arguments.batch, workers)
    check(data, case, epochs)
    row = Row(case, {name: [] for name in epochs})
    for _ in range(arguments.rounds):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            row.speeds[name].append(len(data.train) / (time.perf_counter() - start))
    return row


def check(data: Data, case: Case, epochs: dict[str, Callable[[], list[Tensor]]]) -> None:
    """Refuses loaders that do not give each image once."""
    for name, epoch in epochs.items():
        total = sum(int(size) for size, _ in epoch())
        if total != len(data.train):
            raise SystemExit(f"{name} gives {total} images of {len(data.train)}")


# The table


def markdown(about: dict[str, object], rows: list[Row]) -> str:
    versions = about["versions"]
    assert isinstance(versions, dict)
    lines = [
        f"# {about['date']}: vggc's loader beside torch.utils.data and Pillow",
        "",
        f"{about['cpu']}, {about['processors']} processors, {about['workers']} workers, "
        f"{about['threads']} threads beside them, batches of {about['batch']}; "
        + ", ".join(f"{name} {found}" for name, found in versions.items()),
        "",
        f"    {about['command']}",
        "",
        "Images a second, medians of the rounds; the ratio to the plain loader in brackets.",
        "",
        "| JPEGs | cut out | plain | vggc | vggc, kept in memory |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = [row.case.name, f"{row.case.crop}×{row.case.crop} at {told(row.case.scales)}"]
        cells.append(f"{median(row.speeds[PEER]):,.0f}")
        for name in (OURS, KEPT):
            cells.append(
                f"{median(row.speeds[name]):,.0f} (**{row.ratio(name):.2f}**)"
                if name in row.speeds
                else "–"
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
