"""What `reproduce` works on for the tables of features: nets that learn half of the classes, and a
linear classifier on what they give of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.evaluate import EvalOptions
from vggc.api.features import FeatureOptions, FeatureSource, net_source, written
from vggc.api.reproduce_grid import (
    ReproduceOptions,
    Spectator,
    enough_images,
    uninterrupted,
    where,
    write_table,
)
from vggc.api.train import (
    RunFinished,
    TrainOptions,
    TrainPlan,
    find,
    new_run,
    resume_run,
    training,
)
from vggc.api.trained import net_in
from vggc.data.parts import Part
from vggc.data.remote import without_secrets
from vggc.features.pictures import PlacePictures, pictures_at
from vggc.ir.weights import save, seeded
from vggc.program import Program
from vggc.recipe.layer_names import with_weights
from vggc.reproduce import diagnostics
from vggc.reproduce.feature_layout import laid
from vggc.reproduce.feature_study import (
    EPOCHS,
    FOLDS,
    GRID,
    LR,
    MIDDLE,
    PER_CLASS,
    SCALES,
    SPLITS,
    TRAINED_BY,
    TUNING_EPOCHS,
    TUNING_LR,
    FeatureStudy,
    FeatureStudyRecord,
    Half,
    LineScore,
    begun,
    net_learnt_by,
    pool_of,
    write_halves,
)
from vggc.reproduce.feature_tables import (
    FEATURE_TABLES,
    NETS,
    FeatureColumn,
    FeatureLine,
    FeatureSet,
    FeatureTableName,
    Learnt,
    feature_sets,
    trained_for,
)
from vggc.reproduce.layout import Laid
from vggc.support.diagnostics import UserError
from vggc.support.paths import exists
from vggc.support.source import Source
from vggc.syntax.parse import parse
from vggc_runtime.preprocessing import Preprocessing
from vggc_runtime.version import __version__

if TYPE_CHECKING:
    from vggc.features.read import Features
    from vggc.features.rows import RowBlock

PIXELS = "pixels"


@dataclass(frozen=True, kw_only=True)
class FeatureTablePlan:
    """A table of features that is to be made in a folder, of images at `data` and `val`."""

    table: FeatureTableName
    lines: tuple[FeatureLine, ...]
    folder: Path
    record: FeatureStudyRecord
    data: str
    val: str | None
    options: ReproduceOptions

    def study(self) -> FeatureStudy:
        """What the folder has of the table.

        Raises:
            UserError: it is taken, or its study was begun with other settings.
        """
        return begun(self.folder, self.record)

    @property
    def trainings(self) -> tuple[tuple[FeatureColumn, Learnt], ...]:
        """What is to be trained, each after what it begins with."""
        return trained_for(feature_sets(self.lines))

    def laid(self, study: FeatureStudy) -> Laid:
        """The table as it is so far."""
        return laid(self.table, self.lines, study, self.options.command)

    def save(self, study: FeatureStudy) -> None:
        """Writes what was measured, and the table as it is so far.

        Raises:
            UserError: it cannot be written.
        """
        study.save()
        write_table(study.folder, self.table, self.laid(study))

    def make(self, spectator: Spectator) -> FeatureStudy | None:
        """Trains, takes features and measures what the table lacks; what the folder then has of it,
        None where somebody interrupted a training.

        Raises:
            UserError: a folder is taken, or images cannot be used.
        """
        study = self.study()
        wanted = [line for line in self.lines if line.key not in study.record.scores]
        if wanted:
            images = find(self.data, study.record.seed, self.val)
            spectator.say(f"Images of {len(images.classes)} classes in {self.data}.")
            write_halves(study, images)
            study.save()
        for column, learnt in trained_for(feature_sets(tuple(wanted))):
            if not self.train(study, column, learnt, spectator):
                return None
        for line in wanted:
            if study.failure(line):
                continue
            study = study.with_score(line, self.measured(study, line, spectator))
            self.save(study)
        return study

    # Trained

    def train(
        self, study: FeatureStudy, column: FeatureColumn, learnt: Learnt, spectator: Spectator
    ) -> bool:
        """Trains a net to its end, from the beginning or on; whether nobody interrupted that."""
        run = study.run_of(column, learnt)
        if run and run.record.state in ("finished", "stopped"):
            return True
        before = study.run_of(column, "known")
        if learnt == "other" and before and before.record.state == "stopped":
            return True
        spectator.say(f"\n{study.run_folder(column, learnt).name}")
        with suppress(RunFinished):
            plan = self.training_of(study, column, learnt)
            with training(plan, lambda: spectator.read(plan), spectator.say) as ready:
                return uninterrupted(spectator.train(ready))
        return True

    def training_of(self, study: FeatureStudy, column: FeatureColumn, learnt: Learnt) -> TrainPlan:
        """The training of a net, or what is left of it."""
        half: Half = "other" if learnt == "other" else "known"
        folder, data = study.run_folder(column, learnt), str(study.images(half))
        if study.run_of(column, learnt):
            return resume_run(None, folder, TrainOptions(device=self.options.device))
        program = program_of(column)
        tunes = learnt == "other"
        epochs = min(TUNING_EPOCHS, study.record.epochs) if tunes else study.record.epochs
        changes = [*TRAINED_BY, f"epochs={epochs}", f"lr={TUNING_LR if tunes else LR:g}"]
        if tunes:
            (first, *_, last, _) = with_weights(program.graph)
            changes += [f"init-from={program.net.name}", f"init-from.layers={first}..{last}"]
        asked = TrainOptions(
            data=data,
            device=self.options.device,
            precision=self.options.precision,
            out=folder,
            init_from=study.run_folder(column, "known") if tunes else None,
            seed=study.record.seed,
            changes=tuple(changes),
        )
        with enough_images():
            return new_run(program, asked)

    # Measured

    def measured(self, study: FeatureStudy, line: FeatureLine, spectator: Spectator) -> LineScore:
        """The accuracy of a line, whose nets are trained."""
        from vggc.features.probe import ProbeOptions, probe, together
        from vggc.features.splits import SplitOptions

        found = [self.features(study, each, spectator) for each in line.sets or (None,)]
        if line.combine == "average":
            found = [averaged(each) for each in found]
        options = ProbeOptions(
            GRID, FOLDS, SplitOptions(SPLITS, PER_CLASS, None, study.record.seed)
        )
        with spectator.working(f"probing {line.name}") as on_progress:
            result = probe(together(found), options, on_progress)
        mean, deviation = result.mean("accuracy"), result.deviation("accuracy")
        return LineScore(100 * mean, 100 * deviation, result.width)

    def features(
        self, study: FeatureStudy, of: FeatureSet | None, spectator: Spectator
    ) -> Features:
        """The features that a net gives of the other classes, at all its scales; the pixels of the
        images where there is none. They are taken once.
        """
        from vggc.features.read import read_features

        name = of.name if of else PIXELS
        path = study.features(name)
        if not exists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            source = self.source(study, of, spectator) if of else pixels_of(study)
            with spectator.working(f"features {name}") as on_progress:
                written(source, pool(study), path, on_progress)
        return read_features(path)

    def source(self, study: FeatureStudy, of: FeatureSet, spectator: Spectator) -> FeatureSource:
        """The net that gives some features."""
        run = study.run_of(of.column, net_learnt_by(of))
        assert run is not None
        weights = None
        if of.learnt == "nothing":
            graph = net_in(run).graph
            weights = study.folder / "features" / f"{of.column}-nothing-weights.safetensors"
            save(weights, seeded(graph, study.record.seed))
        middle = of.seen == "middle"
        looks = EvalOptions(
            weights=weights,
            scales=str(MIDDLE) if middle else ",".join(map(str, SCALES)),
            protocol="crops" if middle else "dense",
            grid="1x1" if middle else None,
            flip=True,
            device=self.options.device,
            precision=self.options.precision,
        )
        options = FeatureOptions(combine="stack", looks=looks)
        return net_source(str(run.folder), options, lambda text: None)


def program_of(column: FeatureColumn) -> Program:
    """The small net of a column."""
    return Program(parse(Source(f"small_{column.lower()}.vgg", NETS[column])))


def pool(study: FeatureStudy) -> PlacePictures:
    """The pictures of the other classes that features are taken of."""
    found = pictures_at(str(study.images("other")))

    def fewer(part: Part, role: str) -> Part:
        return part.take(pool_of(part, role))

    parts = tuple(replace(each, part=fewer(each.part, each.role)) for each in found.parts)
    return replace(found, parts=parts)


def pixels_of(study: FeatureStudy) -> FeatureSource:
    """The pixels of whole pictures as features: 32×32, from -1 to 1."""
    from vggc.api.features import described
    from vggc.features import pixels
    from vggc.features.file import NORMALISED, LayerColumns, Provenance

    how = Preprocessing(size=(32, 32), scale=None, mean=(0.5,) * 3, std=(0.5,) * 3)

    def facts(pictures: PlacePictures) -> Provenance:
        return Provenance(
            format=1,
            vggc=__version__,
            net=PIXELS,
            source=PIXELS,
            weights_from=PIXELS,
            weights_sha256="",
            pictures=described(pictures),
            columns=(LayerColumns(PIXELS, (None,), 0, 3 * 32 * 32),),
            combine="stack",
            dense=False,
            grid=1,
            flip=False,
            normalised=NORMALISED,
            input=(3, 32, 32),
            preprocessing=how,
            device="cpu",
            precision="float32",
            batch=1,
            block=pixels.BLOCK,
        )

    def rows(part: Part, start: int) -> Iterator[RowBlock]:
        return pixels.describe(how, part, start)

    return FeatureSource(shown=PIXELS, facts=facts, describe=rows)


def averaged(found: Features) -> Features:
    """Features whose scales stand behind one another, by their mean over the scales."""
    about = found.provenance
    assert about is not None
    width = about.columns[0].stop
    scales = found.values.reshape(len(found), -1, width)
    return replace(found, values=scales.mean(1))


def plan(table: FeatureTableName, options: ReproduceOptions) -> FeatureTablePlan:
    """A table of features before anything is trained.

    Raises:
        UserError: no images are named, or it is not to be small.
    """
    if not options.small:
        raise UserError(diagnostics.SmallOnly(table))
    if options.data is None:
        raise UserError(diagnostics.NoData(table))
    if options.nets is not None:
        raise UserError(diagnostics.AllNets(table))

    from vggc.training.parallel import World

    if World.here().size > 1:
        raise UserError(diagnostics.OneProcessOnly(table))
    data, val = where(options.data), options.val and where(options.val)
    record = FeatureStudyRecord(
        format=1,
        setting="features",
        data=without_secrets(data),
        val=val and without_secrets(val),
        epochs=options.epochs or EPOCHS,
        seed=options.seed,
        scores={},
    )
    return FeatureTablePlan(
        table=table,
        lines=FEATURE_TABLES[table],
        folder=options.out or Path("reproduced-features"),
        record=record,
        data=data,
        val=val,
        options=options,
    )
