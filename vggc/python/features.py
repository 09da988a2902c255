"""Features and probes in Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from vggc.api import features as takings
from vggc.api import probe as probes
from vggc.api.evaluate import EvalOptions
from vggc.python.told import log
from vggc.support.sheet import Sheet, as_html, as_text
from vggc_runtime.processors import limit_threads

if TYPE_CHECKING:
    from vggc.features.probe import ProbeOptions, ProbeResult
    from vggc.features.read import Features

FilePath: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class ProbeScores:
    """What a linear classifier makes of features, as shares from 0 to 1. A notebook shows the
    table.
    """

    features: tuple[Features, ...]
    options: ProbeOptions
    result: ProbeResult

    def __getitem__(self, measure: str) -> float:
        """The mean over the splits of `accuracy` and `mean_accuracy`, or of `map_eleven` and
        `map_area`.
        """
        return self.result.mean(measure)

    @property
    def table(self) -> Sheet:
        """The scores as a table, a row for each split."""
        return probes.probe_table(self.features, self.options, self.result)

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        return as_text(self.table)


def features(
    net: FilePath,
    data: FilePath,
    out: FilePath,
    *,
    layers: str | Sequence[str] = (),
    combine: Literal["average", "stack"] = "average",
    part: Literal["train", "val", "test"] | None = None,
    scales: str | None = None,
    weights: FilePath | None = None,
    preprocessing: str | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Features:
    """The features that a run, a spec or an artifact gives of images, which are written to a file,
    too; what was begun of that goes on.

    Each option is that of `vggc features`. `on_progress` is told how many images of how many are
    done.

    Raises:
        ValueError: there is no such way to combine scales.
        UserError: something does not fit, or cannot be read or written.
        CheckFailed: the net gives values that are not finite.
    """
    from vggc.features.file import Combine
    from vggc.features.read import read_features

    if combine not in get_args(Combine):
        raise ValueError(f"combine={combine!r}: it is one of {get_args(Combine)}")
    named = takings.layers_in(layers) if isinstance(layers, str) else layers
    limit_threads()
    path = Path(out)
    takings.check_out(path, overwrite=overwrite)
    looks = EvalOptions(
        scales=scales,
        weights=None if weights is None else Path(weights),
        preprocessing=preprocessing,
    )
    options = takings.FeatureOptions(
        layers=tuple(named), combine=combine, part=part, overwrite=overwrite, looks=looks
    )
    source = takings.source_of(os.fspath(net), options, log.info)
    pictures = takings.pictures_for(os.fspath(data), part)
    takings.written(source, pictures, path, on_progress or ignore, overwrite=overwrite)
    return read_features(path)


def probe(
    files: FilePath | Iterable[FilePath],
    *,
    c: float | Sequence[float] | None = None,
    folds: int = 5,
    train_per_class: int | None = None,
    test_per_class: int | None = None,
    splits: int = 1,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> ProbeScores:
    """What a linear classifier makes of the features in a file, or of those in several, behind one
    another.

    Each option is that of `vggc probe`. `on_progress` is told how many classifiers of how many are
    trained.

    Raises:
        ValueError: a number is none that `vggc probe` takes.
        UserError: a file holds no features, they are of different pictures, or those are too few.
    """
    from vggc.features.probe import USUAL_GRID, ProbeOptions
    from vggc.features.splits import SplitOptions

    grid = USUAL_GRID if c is None else tuple(sorted({c} if isinstance(c, int | float) else {*c}))
    if not grid or not all(each > 0 and isfinite(each) for each in grid):
        raise ValueError(f"c={c!r}: values of C are above 0")
    least = {"folds": 2, "train_per_class": 1, "test_per_class": 1, "splits": 1, "seed": 0}
    given = folds, train_per_class, test_per_class, splits, seed
    for (name, lowest), value in zip(least.items(), given, strict=True):
        if value is not None and value < lowest:
            raise ValueError(f"{name}={value}: it is {lowest} at least")
    limit_threads()
    paths = [files] if isinstance(files, str | os.PathLike) else [*files]
    found = tuple(probes.read([Path(each) for each in paths]))
    split = SplitOptions(splits, train_per_class, test_per_class, seed)
    options = ProbeOptions(grid, folds, split)
    return ProbeScores(found, options, probes.probe(found, options, on_progress or ignore))


def ignore(done: int, total: int) -> None:
    """Nobody looks on."""
