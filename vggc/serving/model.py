"""A compiled net that is served: its session, what waits for it, and what it says of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from vggc.api.boxes import box_name, merged_boxes
from vggc.api.draw import picture_of
from vggc.api.predict import ends_in_softmax, probabilities
from vggc.api.run import RunResult, positions_in, session_of
from vggc.passes.dense import Positions
from vggc.pictures.svg import as_svg
from vggc.program import load
from vggc.runtime.artifact import SPEC, Manifest
from vggc.serving.queue import ModelQueue, NetOutputs
from vggc.support.arrays import Array
from vggc.support.diagnostics import UserError
from vggc_runtime.outputs import Output, best_classes
from vggc_runtime.preprocessing import FORMATS, BrokenImageError, reason

MAX_SERVED_PIXELS = 50_000_000
"""The most pixels in a picture that is sent; decoding one takes some four bytes for each."""


@dataclass(frozen=True)
class ServedModel:
    """A net under the name by which clients ask for it.

    `softmax` are the outputs of classes that are probabilities already; `positions` tell where the
    maps of a dense artifact look, by the names of their outputs. `drawing` is the net as SVG, None
    where it has too many layers.
    """

    name: str
    folder: Path
    manifest: Manifest
    queue: ModelQueue
    softmax: frozenset[str]
    positions: Mapping[str, Positions]
    drawing: str | None

    def prepared(self, data: bytes) -> PreparedPicture:
        """The picture in a file's bytes as the net takes it.

        Raises:
            BrokenImageError: it is no usable image, or too large.
        """
        how = self.manifest.preprocessing
        check_pixels(data)
        picture = how.open(BytesIO(data))
        return PreparedPicture(how.of(picture), picture.size)

    def told(self, outputs: NetOutputs, size: tuple[int, int], top: int) -> dict[str, Any]:
        """What the net says of a picture of a width and height: the `top` classes and the boxes
        that belong to them, in its pixels.

        Raises:
            CheckFailed: values are not finite.
        """
        result = RunResult(self.manifest, 1, outputs, (size,), self.positions)
        record: dict[str, Any] = {"model": self.name, "width": size[0], "height": size[1]}
        named = self.manifest.named
        if named.kind == "classes":
            is_softmax = named.name in self.softmax
            values = probabilities(self.folder, outputs[named.name].ravel(), is_softmax)
            record["classes"] = [
                {"name": name, "probability": value}
                for name, value in best_classes(values, self.manifest.class_name, top)
            ]
        boxes = [output for output in self.manifest.outputs if output.kind == "boxes"]
        if boxes:
            record["boxes"] = [box for output in boxes for box in self._boxes(result, output, top)]
        return record

    def _boxes(self, result: RunResult, output: Output, top: int) -> list[dict[str, Any]]:
        """The boxes of an output, each with its name and left, top, right and bottom."""
        found, numbers = result.pixels(output, 0), result.shown_boxes(output, 0, top)
        if output.name in self.positions:
            each = [(box.number, box.box) for box in merged_boxes(found, numbers, top)]
        else:
            each = [(number, found[number]) for number in numbers]
        return [
            {"name": box_name(self.manifest, output, number), "pixels": box.tolist()}
            for number, box in each
        ]


@dataclass(frozen=True)
class PreparedPicture:
    """A picture as a net takes it, (1, C, H, W), and its own width and height."""

    images: Array
    size: tuple[int, int]


def check_pixels(data: bytes) -> None:
    """Raises: BrokenImageError where a file's bytes are no image, or one of too many pixels, which
    its first bytes tell.
    """
    try:
        with Image.open(BytesIO(data), formats=tuple({*FORMATS.values()})) as image:
            width, height = image.size
    except Exception as fault:  # whatever a decoder does on hostile bytes
        raise BrokenImageError(reason(fault)) from None
    if width * height > MAX_SERVED_PIXELS:
        raise BrokenImageError(f"{width}x{height} pixels are more than {MAX_SERVED_PIXELS:,}")


def open_model(
    name: str,
    folder: Path,
    *,
    threads: int | None,
    capacity: int,
    turn: Lock,
    watch: Callable[[int, float], None],
    mapped: bool = False,
) -> ServedModel:
    """The artifact in a folder, loaded and called once with each of its batches.

    `capacity` images may wait for it. Nets with one `turn` run one after another, as each takes all
    of its `threads`. `watch` is told the images and seconds of each batch. Weights that are
    `mapped` are in memory once for all processes; others may be read in larger pages.

    Raises:
        UserError: it is damaged, or not for this machine.
    """
    session = session_of(folder, threads, mapped=mapped)
    manifest = session.manifest

    def run(images: Array) -> NetOutputs:
        with turn:
            return session.run_all(images)

    queue = ModelQueue(run, manifest.largest.batch, capacity, watch)
    for batch in manifest.batches:
        queue.submit(np.zeros((batch, *manifest.input), np.float32)).result()
    outputs = enumerate(manifest.outputs)
    return ServedModel(
        name=name,
        folder=folder,
        manifest=manifest,
        queue=queue,
        softmax=frozenset(
            output.name
            for number, output in outputs
            if output.kind == "classes" and ends_in_softmax(folder, number)
        ),
        positions=positions_in(folder, manifest),
        drawing=drawing_of(folder),
    )


def drawing_of(folder: Path) -> str | None:
    """The net of an artifact as SVG; None where it has too many layers to be drawn."""
    try:
        return as_svg(picture_of(load(str(folder / SPEC))))
    except UserError:
        return None
