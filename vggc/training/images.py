"""Labelled images: found in a folder or embedded, checked, measured and kept at hand."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from vggc.diagnostics import UserError
from vggc.preprocessing import (
    FORMATS,
    IMAGE_CHANNELS,
    BrokenImageError,
    Pixels,
    Preprocessing,
    decode,
    resize,
)
from vggc.recipe.train import Recipe
from vggc.training import mistakes

CACHE_BYTES = 512 * 2**20
"""Resized images stay in memory while all of them together take no more than this."""

CHUNK = 1024
"""Images that are checked at a time, so that memory stays bounded."""

HELD_OUT = 5
"""One image in so many is held out of a folder that brings no held-out part."""

Labels: TypeAlias = npt.NDArray[np.int64]
Picture: TypeAlias = Path | Pixels
"""A file, or the pixels themselves: grey (H, W) when embedded, (H, W, C) when resized."""


@dataclass(frozen=True)
class Part:
    """Pictures with a name and a class each."""

    names: tuple[str, ...]
    pictures: tuple[Picture, ...]
    labels: Labels

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: npt.NDArray[np.int64]) -> Part:
        names = tuple(self.names[i] for i in indices)
        return Part(names, tuple(self.pictures[i] for i in indices), self.labels[indices])


@dataclass(frozen=True)
class Images:
    """A training part and a held-out part of the same classes, not looked into yet."""

    path: str | None
    classes: tuple[str, ...]
    train: Part
    val: Part


@dataclass(frozen=True)
class Skipped:
    """An image that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Stored:
    """A part whose every picture was read once; its images are resized by one rule.

    `size` (H, W) and `scale` are those of `Preprocessing`. The pictures are the resized
    images themselves when they fit into memory, and files otherwise. `axes` are as in
    `colour_axes`, where they were measured.
    """

    part: Part
    channels: int
    scale: int | None
    size: tuple[int, int]
    cached: bool
    axes: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.part)

    @property
    def colour_axes(self) -> npt.NDArray[np.float64]:
        """The principal axes of the pixels' colours as columns (3, 3), each as long as the
        standard deviation along it, in grey levels.
        """
        assert self.axes is not None, "prepared for a recipe without `rgb-shift`"
        return self.axes

    def pixels(self, index: int) -> Pixels:
        """One resized image, uint8 (H, W, C).

        Raises:
            BrokenImageError: its file has gone or changed since it was checked.
        """
        picture = self.part.pictures[index]
        if self.cached and isinstance(picture, np.ndarray):
            return picture
        return resize(open_picture(picture, self.channels), self.scale, self.size)


@dataclass(frozen=True)
class Data:
    """What a training run draws from. `fingerprint` changes with any name or class."""

    path: str | None
    classes: tuple[str, ...]
    train: Stored
    val: Stored
    preprocessing: Preprocessing
    skipped: tuple[Skipped, ...]
    fingerprint: str


# Finding


def digits() -> Images:
    """scikit-learn's 1,797 scanned digits, 8×8 pixels, with a fixed fifth held out.

    Source: E. Alpaydin, C. Kaynak (1998), "Optical Recognition of Handwritten Digits",
    UCI Machine Learning Repository; the test part, as shipped with scikit-learn.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pictures = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    names = tuple(f"digit {i}" for i in range(len(pictures)))
    whole = Part(names, tuple(pictures), bunch.target.astype(np.int64))
    return hold_out(None, tuple("0123456789"), whole, seed=0)


def find_images(folder: Path, seed: int) -> Images:
    """The images in a folder: class folders in `train/` and `val/` (or `test/`), or class
    folders alone, a fifth of which is then held out by the seed.

    Raises:
        UserError: there is no such folder, or it is not of this form or cannot be read.
    """
    try:
        return images_in(folder, seed)
    except OSError as fault:
        path, reason = str(fault.filename or folder), fault.strerror or str(fault)
        raise UserError(mistakes.UnreadableFolder(None, path, reason)) from None


def images_in(folder: Path, seed: int) -> Images:
    if not folder.is_dir():
        raise UserError(mistakes.NoSuchFolder(None, str(folder)))
    if not (folder / "train").is_dir():
        classes, whole = read_classes(folder)
        return hold_out(str(folder), classes, whole, seed)
    other = next((name for name in ("val", "test") if (folder / name).is_dir()), None)
    if other is None:
        raise UserError(mistakes.NoHeldOutFolder(None, str(folder)))
    classes, train = read_classes(folder / "train")
    val_classes, val = read_classes(folder / other)
    if classes != val_classes:
        difference = differing(classes, val_classes, other)
        raise UserError(mistakes.ClassesDiffer(None, str(folder), other, difference))
    return Images(str(folder), classes, train, val)


def read_classes(folder: Path) -> tuple[tuple[str, ...], Part]:
    """The class folders that hold images, sorted by name, and all their images."""
    found = {
        child.name: files
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".") and (files := image_files(child))
    }
    if not found:
        raise UserError(mistakes.NoClassFolders(None, str(folder), " ".join(sorted(FORMATS))))
    if len(found) == 1:
        raise UserError(mistakes.OnlyOneClass(None, str(folder), next(iter(found))))
    files = [file for group in found.values() for file in group]
    labels = np.repeat(np.arange(len(found)), [len(group) for group in found.values()])
    names = tuple(str(file.relative_to(folder)) for file in files)
    return tuple(found), Part(names, tuple(files), labels.astype(np.int64))


def image_files(folder: Path) -> list[Path]:
    """The files below a folder that are images by their names, sorted; links to folders
    are not followed.
    """
    return sorted(
        path
        for parent, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if os.path.splitext(name)[1].lower() in FORMATS
        and not name.startswith(".")
        and (path := Path(parent, name)).is_file()
    )


def refuse(fault: OSError) -> NoReturn:
    # Left to itself, `os.walk` passes a folder over that it cannot read.
    raise fault


def differing(train: Sequence[str], val: Sequence[str], other: str) -> str:
    """Which classes only one of two parts holds, in words."""
    only = {"train/": sorted({*train} - {*val}), f"{other}/": sorted({*val} - {*train})}
    return "; ".join(
        f"only in {part}: {', '.join(names[:5])}" + f" and {len(names) - 5} more" * (len(names) > 5)
        for part, names in only.items()
        if names
    )


def hold_out(path: str | None, classes: tuple[str, ...], whole: Part, seed: int) -> Images:
    """A fifth of each class held out, drawn by the seed; a single image stays in training."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in range(len(classes)):
        members = np.flatnonzero(whole.labels == label)
        count = max(1, round(len(members) / HELD_OUT)) if len(members) > 1 else 0
        chosen.append(generator.permutation(members)[:count])
    val = np.sort(np.concatenate(chosen))
    if len(val) == 0:
        raise UserError(mistakes.NothingHeldOut(None, str(path)))
    train = np.setdiff1d(np.arange(len(whole)), val)
    return Images(path, classes, whole.take(train), whole.take(val))


# Reading


def prepare(
    images: Images,
    recipe: Recipe,
    channels: int,
    size: tuple[int, int],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    cache_bytes: int = CACHE_BYTES,
) -> Data:
    """Reads every image once: leaves out the broken ones, measures the mean, fills memory.

    The net takes `channels` (1 or 3) of `size` (H, W) pixels. `on_progress` is told how
    many images of how many are done. Resized images take `cache_bytes` bytes of memory or
    less, or none.

    Raises:
        UserError: the channels are neither 1 nor 3, or a class has no image left.
    """
    if channels not in IMAGE_CHANNELS:
        raise UserError(mistakes.UnsupportedChannels(None, channels, *size))
    low, high = recipe.scale or (None, None)
    middle = (low + high) // 2 if low and high else None
    total = len(images.train) + len(images.val)
    train, counts, broken = store(
        Stored(images.train, channels, high, size, cached=False),
        cache_bytes,
        lambda done: on_progress(done, total),
        colours=recipe.rgb_shift is not None,
    )
    left = cache_bytes - train_bytes(train)
    val, _, more = store(
        Stored(images.val, channels, middle, size, cached=False),
        left,
        lambda done: on_progress(len(images.train) + done, total),
    )
    skipped = (*broken, *more)
    check_classes(images.classes, train, "train on", len(skipped))
    check_classes(images.classes, val, "measure accuracy on", len(skipped))
    mean, std = moments(counts)
    preprocessing = Preprocessing(size, middle, mean, std)
    mark = fingerprint(images.classes, train.part, val.part)
    return Data(images.path, images.classes, train, val, preprocessing, skipped, mark)


def store(
    stored: Stored,
    cache_bytes: int,
    on_progress: Callable[[int], None],
    *,
    colours: bool = False,
) -> tuple[Stored, npt.NDArray[np.int64], tuple[Skipped, ...]]:
    """The part without its broken images, resized in memory if they fit; the histogram
    (C, 256) of all its pixels; and what was left out. With `colours` the axes of an RGB
    part's colours are measured as well.
    """
    kept: list[int] = []
    cache: list[Pixels] = []
    room = cache_bytes
    broken: list[Skipped] = []
    counts = np.zeros((stored.channels, 256), np.int64)
    products = np.zeros((stored.channels, stored.channels))
    for index, result in enumerate(read_all(stored)):
        match result:
            case BrokenImageError() as fault:
                broken.append(Skipped(stored.part.names[index], str(fault)))
            case pixels, histogram:
                kept.append(index)
                counts += histogram
                if colours:
                    products += colour_products(pixels)
                room -= pixels.nbytes
                if room >= 0:
                    cache.append(pixels)
                else:
                    cache.clear()
        on_progress(index + 1)
    part = stored.part.take(np.asarray(kept, np.int64))
    if room >= 0:
        stored = replace(stored, part=replace(part, pictures=tuple(cache)), cached=True)
    else:
        stored = replace(stored, part=part)
    if colours and kept:
        stored = replace(stored, axes=colour_axes(counts, products))
    return stored, counts, tuple(broken)


Reading: TypeAlias = tuple[Pixels, npt.NDArray[np.int64]] | BrokenImageError


def read_all(stored: Stored) -> Iterator[Reading]:
    """Each image in order with its histogram, decoded by several threads."""

    def read(index: int) -> Reading:
        try:
            pixels = stored.pixels(index)
        except BrokenImageError as fault:
            return fault
        return pixels, histogram(pixels)

    with quiet_pillow(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(stored), CHUNK):
            yield from threads.map(read, range(start, min(start + CHUNK, len(stored))))


def quiet_pillow() -> warnings.catch_warnings[None]:
    """Within it, Pillow's warnings about odd files are not printed; limits are our own."""
    return warnings.catch_warnings(action="ignore")


def open_picture(picture: Picture, channels: int) -> Image.Image:
    match picture:
        case Path():
            return decode(picture, channels)
        case _:
            return Image.fromarray(picture).convert("RGB" if channels == 3 else "L")


def histogram(pixels: Pixels) -> npt.NDArray[np.int64]:
    """How often each channel has each value, (C, 256)."""
    channels = [pixels[:, :, c].ravel() for c in range(pixels.shape[2])]
    return np.stack([np.bincount(channel, minlength=256) for channel in channels])


def moments(
    counts: npt.NDArray[np.int64],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel from its histogram, values over 255.

    A channel that never varies gets the deviation 1.
    """
    values, totals = np.arange(256), counts.sum(axis=1)
    mean = (counts * values).sum(axis=1) / totals
    variance = (counts * values**2).sum(axis=1) / totals - mean**2
    mean, std = mean / 255, np.sqrt(np.maximum(variance, 0)) / 255
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def colour_products(pixels: Pixels) -> npt.NDArray[np.float64]:
    """The sum over all pixels of the products of their channels (C, C), exact."""
    flat = pixels.reshape(-1, pixels.shape[2]).astype(np.float64)
    products: npt.NDArray[np.float64] = flat.T @ flat
    return products


def colour_axes(
    counts: npt.NDArray[np.int64], products: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The principal axes of colours from their histograms and products: see `Stored`.

    Krizhevsky et al. (2012), section 4.1, multiply by the eigenvalues of the covariance,
    which would depend on whether pixels run to 255 or to 1; like their program we take the
    square roots, so that a shift of 0.1 is a tenth of the deviation along each axis.
    """
    totals = counts.sum(axis=1)
    mean = (counts * np.arange(256)).sum(axis=1) / totals
    variances, axes = np.linalg.eigh(products / totals[0] - np.outer(mean, mean))
    scaled: npt.NDArray[np.float64] = axes * np.sqrt(np.maximum(variances, 0))
    return scaled


def train_bytes(stored: Stored) -> int:
    """Bytes that the part's images take in memory."""
    return sum(p.nbytes for p in stored.part.pictures if isinstance(p, np.ndarray))


def check_classes(classes: Sequence[str], stored: Stored, use: str, skipped: int) -> None:
    """Refuses a part without any image, or a training part without one of the classes."""
    counts = np.bincount(stored.part.labels, minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing and (use == "train on" or len(stored) == 0):
        raise UserError(mistakes.NoReadableImages(None, missing[0], use, skipped))


def fingerprint(classes: Sequence[str], *parts: Part) -> str:
    """The sha256 of the classes and of each part's names and labels."""
    lines = [*classes]
    for part in parts:
        lines += [f"{name}\0{label}" for name, label in zip(part.names, part.labels, strict=True)]
        lines.append("")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
