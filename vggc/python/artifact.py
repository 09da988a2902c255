"""Compiled nets in Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from vggc.api import bench as benches
from vggc.api import compile as compiles
from vggc.api import verify as verifications
from vggc.api.compile import CompileOptions
from vggc.api.predict import ends_in_softmax, predictor_in
from vggc.api.run import session_of
from vggc.evaluation.diagnostics import NoClassesToTell
from vggc.ir.ops import describe
from vggc.python.arrays import called, on_device
from vggc.python.net import Network
from vggc.python.prediction import ImageLike, Prediction, predictions
from vggc.python.run import Place, TrainingRun, known, optional, several, weights_meant
from vggc.python.told import log, warn_of_random
from vggc.runtime.artifact import Manifest, read_manifest
from vggc.support.batches import checked_batches
from vggc.support.diagnostics import UserError
from vggc.support.precision import ARTIFACT_PRECISIONS, ArtifactPrecision, parse_precision
from vggc.support.sheet import Sheet, as_html
from vggc.support.sizes import HeightWidth, sizes_of

if TYPE_CHECKING:
    from vggc.api.verify import Verdict
    from vggc.measure.bench import Timing
    from vggc.runtime.session import Session


@dataclass(frozen=True, repr=False)
class Artifact:
    """A compiled net, to be called with images. A notebook shows what it is.

    It is loaded when it is first called: one for another machine can be looked at all the same.
    `threads` are all physical cores where they are None.
    """

    path: Path
    manifest: Manifest
    threads: int | None = None

    @cached_property
    def session(self) -> Session:
        """The loaded net, with its weights in memory.

        Raises:
            UserError: it is damaged, or not for this machine.
        """
        return session_of(self.path, self.threads)

    @property
    def net_name(self) -> str:
        """The name of the net."""
        return self.manifest.net

    @property
    def batch(self) -> int:
        """How many images the artifact computes at once, at most."""
        return self.manifest.largest.batch

    @property
    def batches(self) -> tuple[int, ...]:
        """The numbers of images that the artifact is compiled for, ascending."""
        return self.manifest.batches

    @property
    def input(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of an image that the artifact takes; of several the main one."""
        return self.manifest.input

    @property
    def inputs(self) -> tuple[tuple[int, int, int], ...]:
        """The shape (C, H, W) of an image of each of the artifact's sizes, the main one first."""
        return self.manifest.inputs

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """The shape of what the artifact gives of an image of the main size, by the name of the
        head, the main one first.
        """
        return {output.name: output.shape for output in self.manifest.outputs}

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the scores; of a net that has none `class 0` …

        Raises:
            UserError: it tells no classes.
        """
        if self.manifest.main.kind != "classes":
            kind = self.manifest.main.kind
            raise UserError(NoClassesToTell(str(self.path), kind))
        return tuple(map(self.manifest.class_name, range(self.manifest.main.shape[0])))

    def __call__(self, x: Any) -> NDArray[np.float32]:
        """The main output (N, …) for images (N, C, H, W) of one of the `inputs`, float32 and
        normalised.

        `x` is an array of numpy or of whoever speaks DLPack, a tensor of PyTorch for one. A whole
        batch that lies contiguous is read where it lies. N may be any number: they are computed by
        those of the `batches` that cost the least together.

        Raises:
            UserError: it is no such array, or the artifact is damaged or not for this machine.
        """
        return next(iter(self.run_all(x).values()))

    def run_all(self, x: Any) -> dict[str, NDArray[np.float32]]:
        """Every output for images (N, C, H, W) of one of the `inputs`, by the name of its head, the
        main one first.

        Raises:
            UserError: as when it is called.
        """
        return called(self.session, x)

    def on_device(self, x: Any) -> dict[str, Any]:
        """Every output for a whole batch of images where it lies, on a GPU for one, by the name of
        its head: `torch.from_dlpack` makes a tensor of it without a copy, `numpy.from_dlpack` an
        array.

        On a GPU the calls of an artifact share memory for activations and counters of blocks, and
        so must follow one another: on one stream, from one thread at a time. For calls side by
        side open it once for each, which takes the weights again.

        Raises:
            UserError: as when it is called, or `x` is not as many images as one of the `batches`.
        """
        return on_device(self.session, x)

    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is several texts, too
        self, images: ImageLike, top: int = 5
    ) -> Prediction: ...

    @overload
    def predict(self, images: Iterable[ImageLike], top: int = 5) -> list[Prediction]: ...

    def predict(
        self, images: ImageLike | Iterable[ImageLike], top: int = 5
    ) -> Prediction | list[Prediction]:
        """The `top` classes of an image, or of each of several, with their probabilities.

        Images are the paths of files, or Pillow's. Each is resized, cut and normalised as in
        training, as `vggc predict` does.

        Raises:
            UserError: with every image that cannot be read; the net tells no classes.
            CheckFailed: the net gives values that are not finite.
        """
        predictor = predictor_in(self.session, is_softmax=ends_in_softmax(self.path))
        return predictions(predictor, images, top)

    def verify(
        self,
        images: Place | None = None,
        *,
        num_images: int | None = None,
        weights: Place | None = None,
    ) -> Verdict:
        """Compares the artifact with its net in float64, on images in the folder `images` or on
        random and real inputs; `passed` and `fault` of what comes of it tell whether it computes
        its net.

        Raises:
            UserError: the artifact is damaged or not for this machine, or images or weights are
                missing.
        """
        options = verifications.VerifyOptions(
            threads=self.threads,
            images=optional(Path, images),
            num_images=num_images,
            weights=optional(Path, weights),
        )
        return verifications.verify(self.path, options)

    def bench(
        self,
        against: str | Sequence[str] | None = None,
        *,
        batch: int | None = None,
        size: tuple[int, int] | None = None,
        rounds: int = 15,
        images: Place | None = None,
        weights: Place | None = None,
    ) -> Timing:
        """The artifact's milliseconds of a batch, the largest unless told, of images of a size (H,
        W), the main one unless told, beside those of other engines, such as
        `["torch", "onnxruntime"]`: of those that are installed where none is named, of none for
        `[]`.

        `images` is a folder for engines that quantise; `weights` what the artifact was compiled
        from, where it does not find that itself.

        Raises:
            UserError: the artifact is not for such images, or an engine is unknown, not installed
                or cannot compute the net.
            CheckFailed: one computes something else.
        """
        options = benches.BenchOptions(
            against=None if against is None else several(against),
            batch=batch,
            size=size,
            threads=self.threads,
            rounds=rounds,
            images=optional(Path, images),
            weights=optional(Path, weights),
        )
        return benches.bench(self.path, options)

    @property
    def table(self) -> Sheet:
        """The artifact as a table: its net, target, precision, shapes and size."""
        manifest = self.manifest
        given = ", ".join(f"{name} {describe(shape)}" for name, shape in self.outputs.items())
        rows = (
            ("net", manifest.net),
            ("target", manifest.target.name),
            ("precision", manifest.precision),
            ("batch", _several(self.batches)),
            ("input", ", ".join(map(describe, manifest.inputs))),
            ("outputs", given),
            ("weights from", manifest.weights_from),
            ("kernel calls", str(sum(len(entry.kernels) for entry in manifest.entries))),
            ("bytes", f"{sum(file.bytes for file in manifest.files.values()):,}"),
        )
        return Sheet(
            title=str(self.path), header=("artifact", ""), rows=rows, numbers=(False, False)
        )

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        manifest = self.manifest
        how = f"{manifest.target.name}, {manifest.precision}, batch {_several(self.batches)}"
        return f"<Artifact {self.path}: {manifest.net} for {how}>"


def _several(batches: tuple[int, ...]) -> str:
    return ", ".join(map(str, batches))


def open_artifact(path: Place, *, threads: int | None = None) -> Artifact:
    """The artifact in a folder, loaded and ready to be called.

    Raises:
        UserError: there is none, or it is damaged or not for this machine.
    """
    artifact = Artifact(Path(path), read_manifest(Path(path)), threads)
    _ = artifact.session
    return artifact


def compile(
    net: Network | TrainingRun | Place,
    *,
    out: Place | None = None,
    target: str = "cpu",
    mcpu: str | None = None,
    archs: str | Sequence[str] = (),
    graphs: bool = True,
    weights: Place | None = None,
    preprocessing: str | None = None,
    seed: int | None = None,
    batch: int | Sequence[int] = 1,
    size: HeightWidth | Sequence[HeightWidth] | None = None,
    dense: HeightWidth | Sequence[HeightWidth] | None = None,
    precision: ArtifactPrecision = "float32",
    max_error: float | None = None,
    images: Place | None = None,
    num_images: int | None = None,
    tuned: bool = True,
    db: Place | None = None,
    threads: int | None = None,
    dump: Place | None = None,
    standalone: bool = False,
) -> Artifact:
    """Compiles a net or a run to an artifact in the new folder `out`, `artifacts/NET-TARGET` where
    none is named.

    Each option is that of `vggc compile`: `batch` is a number of images, or several, `[1, 8, 32]`,
    of which each call takes those that cost the least together; `size` and `dense` are (H, W), or
    several, of which the first is the main one; `weights` is a file, or `"best"` of
    a run, and `preprocessing` what pictures go through for weights from elsewhere, a preset or
    a file; a net that is of no run gets random ones of `seed`, with a warning where no seed is
    given; `images` is the folder that int8 needs to calibrate on, `--calibrate` there; without
    `graphs` a GPU's kernels are launched one by one, `--no-graph` there; `standalone` makes a
    library for C, too.

    Raises:
        UserError: there is no such net, target or folder, or what is asked for does not go
            together; nothing is written.
    """
    path, how = weights_meant(net, weights, preprocessing)
    options = CompileOptions(
        target=target,
        mcpu=mcpu,
        archs=several(archs),
        graphs=graphs,
        weights=path,
        preprocessing=how,
        seed=seed,
        batches=checked_batches([batch] if isinstance(batch, int) else batch),
        sizes=sizes_of(size),
        dense=sizes_of(dense),
        precision=parse_precision(precision, ARTIFACT_PRECISIONS),
        max_error=max_error,
        images=optional(Path, images),
        num_images=num_images,
        tuned=tuned,
        db=optional(Path, db),
        threads=threads,
        out=optional(Path, out),
        dump=optional(Path, dump),
        standalone=standalone,
    )
    planned = compiles.plan(known(net), options, log.info)
    warn_of_random(planned.subject, seed)
    made = planned.build()
    for line in made.notes:
        log.info(line)
    return Artifact(planned.folder, made.manifest, threads)
