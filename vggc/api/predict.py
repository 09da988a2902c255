"""What `predict` works on: a run or an artifact, and what it takes images for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vggc.api.evaluate import EvalOptions, EvalPlan, Seen, UntestedNet, grouped, plan, predict
from vggc.api.run import session_of
from vggc.data.parts import Skipped
from vggc.evaluation import diagnostics
from vggc.evaluation.named import GivenImage, OpenImage
from vggc.ir.ops import Softmax
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.support.paths import is_artifact, is_run
from vggc_runtime.preprocessing import BrokenImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vggc.api.evaluate import Probabilities
    from vggc.runtime.artifact import Manifest
    from vggc.runtime.session import Session

    Image: TypeAlias = NDArray[np.float32]

FLAGS = {
    "weights": "`--weights`",
    "preprocessing": "`--preprocessing`",
    "scales": "`--scales`",
    "protocol": "`--protocol`",
    "grid": "`--grid`",
    "flip": "`--flip`",
    "batch": "`--batch`",
    "device": "`--device`",
    "precision": "`--precision`",
    "workers": "`--workers`",
}


@dataclass(frozen=True)
class Predictor:
    """A net with these classes, and what it says of images, in order.

    `planned` is how the net of a run looks at them; an artifact looks at the centre crop.
    """

    net: str
    classes: tuple[str, ...]
    tell: Callable[[Iterable[GivenImage]], Iterator[Seen | Skipped]]
    planned: EvalPlan | None = None


def predictor_of(model: Path, options: EvalOptions) -> Predictor:
    """The net of a run or an artifact, or one that a spec names, with weights from elsewhere.

    Raises:
        UserError: it is none of them, or cannot do what it is asked for.
    """
    if is_artifact(model) and not is_run(model):
        return artifact_predictor(model, options)
    return run_predictor(model, options)


def run_predictor(model: Path | UntestedNet, options: EvalOptions) -> Predictor:
    """The net of a run or of a spec, or one that is there already with its weights, which looks at
    the centre crop unless the options name other views.

    Raises:
        UserError: it is no net, or has no such weights, or cannot look so.
    """
    if not options.names_views:
        options = replace(options, protocol="centre")
    planned = plan([model], options, alone=True)
    net = planned.entries[0].net_name
    return Predictor(net, planned.classes, partial(predict, planned), planned)


def artifact_predictor(model: Path, options: EvalOptions) -> Predictor:
    """The net of an artifact.

    Raises:
        UserError: it is asked for what it cannot do, or it is damaged, or tells no classes.
    """
    flags = [
        flag
        for name, flag in FLAGS.items()
        if (value := getattr(options, name)) is not None and (name, value) != ("protocol", "centre")
    ]
    if flags:
        raise UserError(diagnostics.NotForArtifact(", ".join(flags), str(model)))
    return predictor_in(session_of(model), is_softmax=ends_in_softmax(model))


def ends_in_softmax(artifact: Path, output: int = 0) -> bool:
    """Whether an output of an artifact, the main one unless told, is probabilities already."""
    from vggc.runtime.artifact import spec_graph

    graph = spec_graph(artifact)
    return isinstance(graph.nodes[graph.heads[output].node].op, Softmax)


def predictor_in(session: Session, *, is_softmax: bool) -> Predictor:
    """The net of an artifact that is loaded.

    Raises:
        UserError: it tells no classes.
    """
    model, manifest = session.folder, session.manifest
    if manifest.main.kind != "classes":
        raise UserError(diagnostics.NoClassesToTell(str(model), manifest.main.kind))

    def tell(images: Iterable[GivenImage]) -> Iterator[Seen | Skipped]:
        """What the net says of each image, as many at once as it was compiled for at most."""
        for named in grouped(images, manifest.largest.batch):
            read = [image_of(each, manifest) for each in named]
            kept = [each for each in read if not isinstance(each, Skipped)]
            values = probabilities_of(session, kept, is_softmax=is_softmax)
            for path, each in zip(named, read, strict=True):
                yield each if isinstance(each, Skipped) else Seen(str(path), next(values))

    return Predictor(manifest.net, names_of(manifest), tell)


def probabilities_of(
    session: Session, images: Sequence[Image], *, is_softmax: bool
) -> Iterator[Probabilities]:
    """The probabilities (classes,) of each of the images (1, C, H, W).

    Raises:
        CheckFailed: values are not finite.
    """
    import numpy as np

    if not images:
        return
    for values in session.run(np.concatenate(images)).reshape(len(images), -1):
        yield probabilities(session.folder, values, is_softmax)


def image_of(named: GivenImage, manifest: Manifest) -> Image | Skipped:
    """An image as an artifact takes it, or why it cannot be read."""
    if isinstance(named, Skipped):
        return named
    try:
        if isinstance(named, OpenImage):
            return manifest.preprocessing.of_picture(named.image)
        return manifest.preprocessing.read(Path(named))
    except BrokenImageError as fault:
        return Skipped(str(named), str(fault))


def probabilities(model: Path, values: Probabilities, is_softmax: bool) -> Probabilities:
    """The probabilities of an image by the values that an artifact gives, by a soft-max where its
    net has none.
    """
    import numpy as np

    if not np.isfinite(values).all():
        raise CheckFailed(f"{model} gives values that are not finite; are its weights?")
    if is_softmax:
        return values
    powers = np.exp(values - values.max())
    result: Probabilities = powers / powers.sum()
    return result


def names_of(manifest: Manifest) -> tuple[str, ...]:
    """The names of the classes of an artifact, in the order of its scores."""
    return tuple(manifest.class_name(index) for index in range(manifest.main.shape[0]))
