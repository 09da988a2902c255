"""What `run` works on: an artifact, and what each of its outputs gives for images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.boxes import in_pixels
from vggc.support.diagnostics import CheckFailed

if TYPE_CHECKING:
    from vggc.data.objects import Corners
    from vggc.passes.dense import Positions
    from vggc.runtime.artifact import Manifest
    from vggc.runtime.session import Session
    from vggc.support.arrays import Array
    from vggc_runtime.outputs import Output


@dataclass(frozen=True)
class RunResult:
    """What an artifact gives for `images` images: an array (images, …) an output, by its name. The
    manifest is what the artifact's says of images of their size.

    `pictures` are the width and height of the picture that each was cut from; there are none of
    values. `positions` tell where the maps of a dense artifact look, by the names of their outputs.
    """

    manifest: Manifest
    images: int
    values: Mapping[str, Array]
    pictures: tuple[tuple[int, int], ...]
    positions: Mapping[str, Positions]

    def pixels(self, output: Output, number: int) -> Corners:
        """What an output of boxes says of the picture of an image, in pixels: see `in_pixels`."""
        values, picture = self.values[output.name][number], self.pictures[number]
        return in_pixels(self.manifest, self.positions.get(output.name), values, picture)

    def shown_boxes(self, output: Output, number: int, top: int) -> list[int]:
        """Which of the boxes of a position are shown of an image: those of its `top` best classes
        where the artifact tells them, else the first.
        """
        named = self.manifest.named
        if named.kind == "classes" and named.count == output.count:
            scores = self.values[named.name][number]
            return [int(index) for index in scores.argsort()[::-1][:top]]
        return list(range(min(output.count, top)))


def run(
    artifact: Path, source: Path, threads: int | None = None, size: tuple[int, int] | None = None
) -> RunResult:
    """What an artifact gives for an image, or for what is in a .npy file: as one of a `size` (H, W)
    that it is compiled for; where none is told as one of the main size, or of that of the values.

    Raises:
        UserError: the artifact is damaged or not for this machine, or the file is no input for it.
        CheckFailed: values are not finite.
    """
    from vggc.runtime.artifact import manifest_at
    from vggc.runtime.inputs import read_input

    session = session_of(artifact, threads, mapped=True)  # they are read once
    manifest = manifest_at(artifact, session.manifest, size) if size else session.manifest
    images, pictures = read_input(source, manifest)
    manifest = manifest.at(images.shape[2:])
    values = session.run_all(images)
    require_finite(artifact, values)
    positions = positions_in(artifact, manifest)
    return RunResult(manifest, len(images), values, pictures, positions)


def positions_in(artifact: Path, manifest: Manifest) -> Mapping[str, Positions]:
    """Where the maps of a dense artifact look in images of its main size, by the names of its
    outputs; nothing of others.
    """
    from vggc.runtime.artifact import as_compiled, spec_graph

    (main, *_) = manifest.sizes
    return as_compiled(spec_graph(artifact), main).positions if main.dense else {}


def require_finite(artifact: Path, values: Mapping[str, Array]) -> None:
    """Raises: CheckFailed naming the first output that holds what is not finite."""
    import numpy as np

    for name, value in values.items():
        if not np.isfinite(value).all():
            raise CheckFailed(
                f"{artifact} gives {name} values that are not finite: "
                "`vggc verify` names the layer that they come from"
            )


def session_of(artifact: Path, threads: int | None = None, *, mapped: bool = False) -> Session:
    """An artifact ready to run, as `Session.load` gives it.

    Raises: UserError when it is damaged or not for this machine, or memory is too small for it.
    """
    from vggc.ir.needs import RUNNING
    from vggc.runtime.artifact import require_memory
    from vggc.runtime.session import Session

    require_memory(artifact, RUNNING)
    return Session.load(artifact, threads, mapped=mapped)
