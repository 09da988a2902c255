"""`vggc predict`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from vggc.cli import console
from vggc.cli.best import best_classes, best_lines, session_of
from vggc.cli.eval import progress, protocol_options, scales, ways
from vggc.data.parts import Skipped
from vggc.diagnostics import CheckFailed, UserError
from vggc.evaluate import Wishes, plan, predict
from vggc.evaluation import mistakes
from vggc.ir.ops import Softmax
from vggc.paths import absence, exists, is_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vggc.deploy.artifact import Manifest

    Probabilities: TypeAlias = NDArray[np.float32]

FLAGS = {
    "weights": "`--weights`",
    "scales": "`--scales`",
    "protocol": "`--protocol`",
    "grid": "`--grid`",
    "flip": "`--flip`",
    "batch": "`--batch`",
    "device": "`--device`",
    "precision": "`--precision`",
    "workers": "`--workers`",
}


@click.command("predict")
@click.argument("model", metavar="RUN|ARTIFACT", type=click.Path(path_type=Path))
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path)
)
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True)
@protocol_options
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def command(model: Path, images: tuple[Path, ...], top: int, as_json: bool, **wishes: Any) -> None:
    """Tell the best classes of images, with their probabilities.

    The net looks at the centre crop of each IMAGE, as in training. That of a RUN looks as the
    options say instead, if there are any: `--protocol test` for the `test` block of its file.

    Exit 2 where an image cannot be read; the others are told all the same.
    """
    refuse_missing(images)
    if exists(model / "manifest.json") and not exists(model / "run.json"):
        told = by_artifact(model, images, wishes)
    else:
        told = by_run(model, images, Wishes(**wishes))
    name = told.classes.__getitem__
    best = [(path, best_classes(values, name, top)) for path, values in told.found]
    if as_json:
        console.out(json.dumps(as_record(told.net, best)))
    else:
        for path, classes in best:
            console.out(str(path))
            for line in best_lines(classes):
                console.out(f"  {line}")
    if told.lost:
        raise UserError(
            *(mistakes.UnreadableImage(None, each.name, each.reason) for each in told.lost)
        )


@dataclass(frozen=True)
class Told:
    """What a net with these classes says of images, and which could not be read."""

    net: str
    classes: tuple[str, ...]
    found: list[tuple[Path, Probabilities]]
    lost: list[Skipped]


def refuse_missing(images: tuple[Path, ...]) -> None:
    """Raises: UserError with every image that is no file, before anything is computed."""
    gone = [path for path in images if not is_file(path)]
    if gone:
        hint = "images are given one by one, behind the run"
        reasons = map(absence, gone)
        pairs = zip(gone, reasons, strict=True)
        raise UserError(
            *(mistakes.UnreadableImage(None, str(path), reason, hint) for path, reason in pairs)
        )


def by_run(model: Path, images: tuple[Path, ...], wishes: Wishes) -> Told:
    if not wishes.names_views:
        wishes = replace(wishes, protocol="centre")
    planned = plan([model], wishes, alone=True)
    entry = planned.entries[0]
    console.status(f"{model}: {ways(entry.views)}, {scales(entry)}")
    for remark in entry.run.remarks(planned.weights):
        console.status(remark)
    with progress("looking at images", True) as on_progress:
        found, lost = predict(planned, images, on_progress)
    return Told(entry.run.record.net, planned.classes, found, lost)


def by_artifact(model: Path, images: tuple[Path, ...], wishes: dict[str, object]) -> Told:
    """What an artifact says, as many images at once as it was compiled for.

    Raises:
        UserError: it is asked for what it cannot do, or it is damaged, or tells no classes.
    """
    import numpy as np

    from vggc.deploy.artifact import graph_in
    from vggc.preprocessing import BrokenImageError

    flags = [
        flag
        for name, flag in FLAGS.items()
        if wishes[name] is not None and (name, wishes[name]) != ("protocol", "centre")
    ]
    if flags:
        raise UserError(mistakes.NotForArtifact(None, ", ".join(flags), str(model)))
    session = session_of(model)
    manifest, graph = session.manifest, graph_in(model)
    is_softmax = isinstance(graph.nodes[graph.heads[0].node].op, Softmax)
    if manifest.main.kind != "classes":
        raise UserError(mistakes.NoClassesToTell(None, str(model), manifest.main.kind))
    found: list[tuple[Path, Probabilities]] = []
    lost: list[Skipped] = []
    read: list[tuple[Path, NDArray[np.float32]]] = []
    for number, path in enumerate(images, start=1):
        try:
            read.append((path, manifest.preprocessing.read(path)))
        except BrokenImageError as fault:
            lost.append(Skipped(str(path), str(fault)))
        if len(read) == manifest.batch or (read and number == len(images)):
            full = np.zeros((manifest.batch, *manifest.input), np.float32)
            full[: len(read)] = np.concatenate([image for _, image in read])
            for (each, _), values in zip(read, session.run(full), strict=False):
                found.append((each, probabilities(model, values.ravel(), is_softmax)))
            read.clear()
    return Told(manifest.net, names_of(manifest), found, lost)


def probabilities(model: Path, values: Probabilities, is_softmax: bool) -> Probabilities:
    """What an artifact gives of an image, with a soft-max where its net has none."""
    import numpy as np

    if not np.isfinite(values).all():
        raise CheckFailed(f"{model} gives values that are not finite; are its weights?")
    if is_softmax:
        return values
    powers = np.exp(values - values.max())
    result: Probabilities = powers / powers.sum()
    return result


def names_of(manifest: Manifest) -> tuple[str, ...]:
    return tuple(manifest.class_name(index) for index in range(manifest.main.shape[0]))


def as_record(net: str, best: list[tuple[Path, list[tuple[str, float]]]]) -> dict[str, object]:
    images = [
        {
            "image": str(path),
            "best": [{"class": name, "probability": value} for name, value in classes],
        }
        for path, classes in best
    ]
    return {"net": net, "images": images}
