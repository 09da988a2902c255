"""Images found where the user says they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from vggc.data import mistakes
from vggc.data.parts import Images, Part
from vggc.data.stores import Arrays, Files
from vggc.data.strings import Strings
from vggc.diagnostics import UserError
from vggc.preprocessing import FORMATS

HELD_OUT = 5
"""One image in so many is held out of a folder that brings no held-out part."""


def digits() -> Images:
    """scikit-learn's 1,797 scanned digits, 8×8 pixels, with a fixed fifth held out.

    Source: E. Alpaydin, C. Kaynak (1998), "Optical Recognition of Handwritten Digits",
    UCI Machine Learning Repository; the test part, as shipped with scikit-learn.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    names = tuple(f"digit {i}" for i in range(len(pixels)))
    whole = Part.all(Arrays(names, pixels), bunch.target.astype(np.int64))
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
    labels = np.repeat(np.arange(len(found)), [len(files) for files in found.values()])
    names = (f"{name}/{file}" for name, files in found.items() for file in files)
    return tuple(found), Part.all(Files(folder, Strings.of(names)), labels.astype(np.int64))


def image_files(folder: Path) -> list[str]:
    """The files below a folder that are images by their names: sorted paths from there. Links
    to folders are not followed.
    """
    return sorted(
        os.path.relpath(path, folder)
        for parent, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if os.path.splitext(name)[1].lower() in FORMATS
        and not name.startswith(".")
        and os.path.isfile(path := os.path.join(parent, name))
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
