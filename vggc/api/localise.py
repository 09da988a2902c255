"""What `localise` and `eval --localise` work on: nets that give boxes, nets that tell classes, and
what comes of both.

Source: Simonyan & Zisserman (2015), appendix A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from PIL.Image import Image

from vggc.api.evaluate import (
    AT_ONCE,
    NAMED,
    EvalOptions,
    explained,
    grouped,
    in_order,
    load_run,
    protocol_of,
    usual_batch,
)
from vggc.api.trained import Subject, from_run, net_in
from vggc.data.parts import Part, Skipped
from vggc.evaluation import diagnostics
from vggc.evaluation.images import (
    KnownClasses,
    Labelled,
    check_classes,
    differing,
    held_out,
    images_in,
    known,
    single,
)
from vggc.evaluation.views import Views
from vggc.ir.graph import BOX, Graph
from vggc.ir.needs import TESTING
from vggc.ir.ops import describe
from vggc.passes.dense import ON_THE_CENTRE, dense
from vggc.passes.offsets import with_offsets
from vggc.support.diagnostics import UserError
from vggc.support.paths import is_artifact, is_run
from vggc.support.precision import TrainPrecision
from vggc.training.run import Run
from vggc_runtime.outputs import HeadKind
from vggc_runtime.preprocessing import BrokenImageError

if TYPE_CHECKING:
    from vggc.evaluation.localise import LocatingNet
    from vggc.evaluation.located import LocalisationErrors, LocatedObject, Locator, PictureSights
    from vggc.evaluation.named import NamedImage
    from vggc.training.learner import TrainMachine
    from vggc.training.parallel import World

LocaliseProtocol: TypeAlias = Literal["centre", "dense"]
"""How pictures are looked at: by their centre crop, or all of them at once."""

PROTOCOLS: tuple[LocaliseProtocol, ...] = ("centre", "dense")

Edges: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""

OBJECT = "object"
"""What is found is called where no net tells what it is."""


@dataclass(frozen=True, kw_only=True)
class LocaliseOptions:
    """How the user wants pictures to be looked at; None where nothing is said. With `offsets` they
    are from all offsets of a net's last pool.
    """

    weights: Path | None = None
    scales: str | None = None
    flip: bool | None = None
    offsets: bool = False
    batch: int | None = None
    device: Literal["cpu", "cuda", "auto"] | None = None
    precision: TrainPrecision | None = None
    workers: int | None = None


@dataclass(frozen=True)
class LocatingRun:
    """A run that looks at pictures: for what heads of these `kinds` say, by the `views` of each
    protocol.
    """

    run: Run
    subject: Subject
    kinds: tuple[HeadKind, ...]
    views: dict[LocaliseProtocol, Views]


@dataclass(frozen=True)
class LocalisePlan:
    """Nets that look at pictures together, before anything is computed.

    The first `num_boxes` of the `runs` give boxes; others only tell classes. `classes` are the
    names of those that are told; without classifiers those of the first run. `notes` are for the
    user.
    """

    runs: tuple[LocatingRun, ...]
    num_boxes: int
    classes: tuple[str, ...]
    protocols: tuple[LocaliseProtocol, ...]
    offsets: bool
    machine: TrainMachine
    world: World
    batch: int | None
    workers: int | None
    notes: tuple[str, ...]

    @property
    def has_classifier(self) -> bool:
        """Whether a net tells the class of what is in a picture."""
        return any("classes" in each.kinds for each in self.runs)

    def nets(self, protocol: LocaliseProtocol) -> list[LocatingNet]:
        """The nets, each ready to look at pictures on this process's device.

        Raises:
            UserError: one cannot be applied densely, and is to be.
        """
        from vggc.evaluation.localise import LocatingNet
        from vggc.training.learner import device_of

        device = device_of(self.machine, self.world)
        return [
            LocatingNet(
                each.subject.program.graph,
                each.subject.weights,
                each.subject.preprocessing,
                each.views[protocol],
                self.machine,
                device,
                self.batch or usual_batch(self.machine, each.run.record.input[1:]),
                each.kinds,
                offsets=self.offsets and protocol == "dense",
            )
            for each in self.runs
        ]

    def locator(self) -> Locator:
        """How boxes with classes are made of what the nets say."""
        import numpy as np

        from vggc.evaluation.located import Locator

        rows = []
        for each in self.runs[: self.num_boxes]:
            names = each.run.record.classes
            own = num_boxes(each.subject.program.graph) > 1
            rows.append(np.asarray([names.index(c) if own else 0 for c in self.classes], np.int64))
        return Locator(tuple(rows))


# Before


def plan(
    folders: Sequence[Path],
    classifiers: Sequence[Path],
    options: LocaliseOptions,
    protocols: Sequence[LocaliseProtocol],
    *,
    alone: bool = False,
    needs_class: bool = True,
) -> LocalisePlan:
    """The nets of runs that give boxes, and of those that tell classes. Without any of the latter,
    the nets with boxes tell classes that have a head of them, too.

    Where a class `needs_class` to be told, a net that gives a box for each must have one beside it
    that tells it. `alone` says whether one process looks.

    Raises:
        UserError: one is no run, gives no boxes or no classes, or cannot be applied so; or they do
            not go together.
    """
    of_whole_pictures = {"--offsets": options.offsets, "--scales": options.scales is not None}
    if "dense" not in protocols and any(of_whole_pictures.values()):
        flags = [flag for flag, is_given in of_whole_pictures.items() if is_given]
        raise UserError(*map(diagnostics.OfWholePictures, flags))
    if compiled := [path for path in (*folders, *classifiers) if is_compiled(path)]:
        raise UserError(*(diagnostics.ArtifactOfBoxes(str(path)) for path in compiled))
    boxes, others = [*map(load_run, folders)], [*map(load_run, classifiers)]
    graphs = {run.folder: net_in(run).graph for run in (*boxes, *others)}
    for graph in graphs.values():
        TESTING.require(graph)
    require("boxes", diagnostics.NoBoxes, boxes, graphs)
    require("classes", diagnostics.TellsNoClasses, others, graphs)
    telling = others or [run for run in boxes if graphs[run.folder].has("classes")]
    classes = classes_of(boxes, telling, graphs, needs_class=needs_class)
    alike: dict[bool, tuple[HeadKind, ...]] = {True: ("boxes", "classes"), False: ("boxes",)}
    wanted = [(run, alike[not others and run in telling]) for run in boxes]
    wanted += [(run, ("classes",)) for run in others]
    runs = tuple(locating(run, kinds, options, protocols) for run, kinds in wanted)

    from vggc.training.learner import choose_machine
    from vggc.training.parallel import ALONE, World

    return LocalisePlan(
        runs=runs,
        num_boxes=len(boxes),
        classes=classes,
        protocols=tuple(protocols),
        offsets=options.offsets,
        machine=choose_machine(options.device or "auto", options.precision or "float32"),
        world=ALONE if alone else World.here(),
        batch=options.batch,
        workers=options.workers,
        notes=tuple(notes_on(runs, len(boxes))),
    )


def is_compiled(folder: Path) -> bool:
    """Whether a folder is an artifact, and no run."""
    return is_artifact(folder) and not is_run(folder)


def num_boxes(graph: Graph) -> int:
    """How many boxes a net gives of a crop: one of each class, or one for all."""
    head = next(head for head in graph.heads if head.kind == "boxes")
    return graph.nodes[head.node].shape[0] // BOX


def require(
    kind: HeadKind,
    mistake: type[diagnostics.NoBoxes | diagnostics.TellsNoClasses],
    runs: Sequence[Run],
    graphs: dict[Path, Graph],
) -> None:
    """Raises: UserError with a mistake where the net of a run has no head of a kind."""
    for run in runs:
        graph = graphs[run.folder]
        if not graph.has(kind):
            given = " and ".join(dict.fromkeys(head.kind for head in graph.heads))
            raise UserError(mistake(str(run.folder), given))


def classes_of(
    boxes: Sequence[Run],
    classifiers: Sequence[Run],
    graphs: dict[Path, Graph],
    *,
    needs_class: bool,
) -> tuple[str, ...]:
    """The classes that are told of pictures, in the order of the classifiers' scores.

    Raises:
        UserError: nets know different ones, or nothing tells the class where that is needed.
    """
    if classifiers:
        check_classes([*map(KnownClasses.of, classifiers)])
    first = (*classifiers, *boxes)[0]
    names = first.record.classes
    for run in boxes:
        count = num_boxes(graphs[run.folder])
        if count == 1:
            continue  # whatever the class
        if {*run.record.classes} != {*names}:
            shown = str(first.folder), str(run.folder), differing(names, run.record.classes)
            raise UserError(diagnostics.ClassesOfBoxes(*shown))
        if needs_class and not classifiers:
            raise UserError(diagnostics.WhichClass(str(run.folder), count))
    return names


def locating(
    run: Run,
    kinds: tuple[HeadKind, ...],
    options: LocaliseOptions,
    protocols: Sequence[LocaliseProtocol],
) -> LocatingRun:
    """A run as it is to look at pictures.

    Raises:
        UserError: it has no such weights, or cannot look so.
    """
    from vggc.passes.heads import with_heads
    from vggc.passes.inference import drop_final_softmax

    subject = from_run(run, options.weights)
    if subject.preprocessing.fit == "pad":
        raise UserError(diagnostics.PaddedPictures(subject.weights_from))
    views = {each: views_of(run, options, each) for each in protocols}
    if "dense" in protocols:
        graph = drop_final_softmax(subject.program.graph)
        heads = {head.kind: head.name for head in reversed(graph.heads) if head.kind in kinds}
        spread = dense(with_heads(graph, heads.values()), kinds, ON_THE_CENTRE)
        if options.offsets:
            with_offsets(spread)
    return LocatingRun(run, subject, kinds, views)


def views_of(run: Run, options: LocaliseOptions, protocol: LocaliseProtocol) -> Views:
    """What a run looks at: the centre crop at the scale of its training; or whole pictures, and
    their mirror images, at the scales that are asked for or else those of its `test` block.

    Raises:
        UserError: with every mistake in the scales.
    """
    from vggc.evaluation.views import View

    usual: tuple[int | None, ...] = (run.record.preprocessing.scale,)
    if protocol == "centre":
        scales, flip, grid = usual, options.flip or False, 1
        return Views(tuple(View(scale, grid, 1.0) for scale in scales), flip)
    found = protocol_of(run, EvalOptions(scales=options.scales)).scales
    scales = found or usual
    flip = True if options.flip is None else options.flip
    return Views(tuple(View(scale, None, 1 / len(scales)) for scale in scales), flip)


def notes_on(runs: Sequence[LocatingRun], num_boxes: int) -> Iterator[str]:
    """What the user should know of nets that look at pictures together."""
    first = runs[0]
    for each in runs[num_boxes:]:
        mine, other = first.run.record.preprocessing, each.run.record.preprocessing
        if mine.size != other.size or mine.scale != other.scale:
            yield (
                f"{each.run.folder} classifies crops of {describe(other.size)} of pictures at "
                f"{scale_told(other.scale)}, and {first.run.folder} sees {describe(mine.size)} at "
                f"{scale_told(mine.scale)}: a box is rated by the crop that overlaps its own most."
            )


def scale_told(scale: int | None) -> str:
    """A scale in words."""
    return "their least size" if scale is None else str(scale)


# Testing


def images_for(plan: LocalisePlan, data: str | None) -> Labelled:
    """The pictures to test on, those in a place or those that the runs with boxes held out, with
    the classes that the plan tells.

    Raises:
        UserError: there are none, or they are of classes that the nets do not tell.
    """
    boxes = [each.run for each in plan.runs[: plan.num_boxes]]
    first = next((each.run for each in plan.runs if "classes" in each.kinds), boxes[0])
    if data is not None:
        return images_in(data, KnownClasses.of(first))
    images = held_out(boxes)
    part = known(KnownClasses.of(first), images.path, boxes[0].record.classes, images.part)
    return replace(images, part=part, notes=(*images.notes, *seen_before(plan, boxes[0])))


def seen_before(plan: LocalisePlan, boxes: Run) -> Iterator[str]:
    """Which classifiers may have been trained on pictures that a run with boxes held out, for the
    user.
    """
    for each in plan.runs[plan.num_boxes :]:
        if each.run.record.data.fingerprints.val.content != (
            boxes.record.data.fingerprints.val.content
        ):
            yield (
                f"{each.run.folder} held out other pictures than {boxes.folder}: it may have been "
                "trained on some of these."
            )


@dataclass(frozen=True)
class LocaliseResult:
    """What a test of localisation came to: the errors by each protocol, of each run that gives
    boxes alone and, where these are several, of all together, whose boxes are united.

    Without a classifier the class of each picture is given, by either protocol; with one, only by
    the centre crop. `skipped` are the first of `num_skipped` pictures that were left out.
    """

    pictures: int
    each: dict[LocaliseProtocol, tuple[LocalisationErrors, ...]]
    united: dict[LocaliseProtocol, LocalisationErrors]
    skipped: tuple[Skipped, ...]
    num_skipped: int
    seconds: float


NO_OBJECT = "no object of its class is in it, other than difficult ones"


def measure(
    plan: LocalisePlan, images: Labelled, on_progress: Callable[[int, int], None]
) -> LocaliseResult:
    """The errors of the nets on these pictures. `on_progress` is told how many of how many are done
    of this process's share, once for each protocol.

    Raises:
        UserError: they have no boxes, none can be read, or another process has ended.
    """
    from vggc.data.aims import of_its_class
    from vggc.evaluation.located import LocalisationCounts
    from vggc.training.learner import device_of
    from vggc.training.parallel import joined

    if images.part.objects is None:
        raise UserError(diagnostics.NoObjectsToTest(images.shown))
    world, start = plan.world, perf_counter()
    part = of_its_class(images.part)
    assert part.objects is not None
    total = len(part)
    share = range(total)[world.share.rows(total)]
    shown = [index for index in share if len(part.objects[index].boxes)]
    alone = plan.num_boxes == 1
    ways = [range(number, number + 1) for number in range(plan.num_boxes)]
    ways += [] if alone else [range(plan.num_boxes)]
    counts = {each: [LocalisationCounts() for _ in ways] for each in plan.protocols}
    skipped = [Skipped(part.name(i), NO_OBJECT) for i in share if i not in {*shown}]
    done, whole = 0, len(shown) * len(plan.protocols)
    locator = plan.locator()
    with explained(), joined(world, device_of(plan.machine, world)):
        for protocol in plan.protocols:
            for found in sights(plan, protocol, part, shown):
                if isinstance(found, Skipped):
                    skipped += [found] if protocol == plan.protocols[0] else []
                else:
                    label = int(part.labels[found.index])
                    for way, count in zip(ways, counts[protocol], strict=True):
                        objects = part.objects[found.index]
                        count.add(pairs(plan, locator, protocol, found, label, way), label, objects)
                done += 1
                on_progress(done, whole)
        if world.is_first:
            skipped = [*images.skipped, *skipped]
        summed = {key: [each.summed(world) for each in found] for key, found in counts.items()}
        (num_skipped,) = world.sums([len(skipped)])
        named = tuple(world.lists(skipped[:NAMED])[:NAMED])
    pictures = summed[plan.protocols[0]][0].pictures
    if pictures == 0:
        first = f"{named[0].name}: {named[0].reason}"
        raise UserError(diagnostics.NothingToTest(images.shown, int(num_skipped), first))
    errors = {key: [each.errors() for each in found] for key, found in summed.items()}
    return LocaliseResult(
        pictures=pictures,
        each={key: tuple(found[: plan.num_boxes]) for key, found in errors.items()},
        united={} if alone else {key: found[-1] for key, found in errors.items()},
        skipped=named,
        num_skipped=int(num_skipped),
        seconds=perf_counter() - start,
    )


def pairs(
    plan: LocalisePlan,
    locator: Locator,
    protocol: LocaliseProtocol,
    seen: PictureSights,
    label: int,
    way: range,
) -> list[LocatedObject]:
    """The pairs of class and box that some of the nets with boxes give for a picture: one of its
    own class by the centre crop, or where nothing tells classes.
    """
    nets = slice(way.start, way.stop)
    seen = replace(seen, box_nets=seen.box_nets[nets])
    locator = replace(locator, rows=locator.rows[nets])
    if protocol == "centre" or not plan.has_classifier:
        return [locator.of_class(seen, label)]
    return locator.best(seen)


def sights(
    plan: LocalisePlan, protocol: LocaliseProtocol, part: Part, indices: Sequence[int]
) -> Iterator[PictureSights | Skipped]:
    """What the nets see in the pictures at these places of a part, or why it cannot be read."""
    import numpy as np

    from vggc.evaluation.localise import sightings
    from vggc.evaluation.reading import LostImage

    nets, places = plan.nets(protocol), np.asarray(indices, np.int64)
    for found in sightings(nets, part, places, workers_for(plan, part, len(indices))):
        yield found.skipped if isinstance(found, LostImage) else found


def workers_for(plan: LocalisePlan, part: Part, count: int | None = None) -> int:
    """How many processes read pictures of a part, all or so many."""
    from vggc.evaluation.judge import num_workers

    if plan.workers is not None:
        return plan.workers
    return num_workers(part, len(part) if count is None else count, plan.world.local_size)


# Showing


@dataclass(frozen=True)
class LocalisedObject:
    """A class in a picture and the `box` around it, in pixels: left, top, right and bottom. See
    `LocatedObject`.
    """

    name: str
    probability: float
    box: Edges
    score: float


@dataclass(frozen=True)
class Localised:
    """What the nets see in the picture in a file, set upright: the most probable objects first."""

    path: str
    picture: Image
    objects: tuple[LocalisedObject, ...]


def localise(
    plan: LocalisePlan, images: Iterable[NamedImage], top: int
) -> Iterator[Localised | Skipped]:
    """What the nets see in each picture, in order, the `top` classes of it; or why it cannot be
    read. Where nothing tells the class there is one box.

    Pictures are asked for AT_ONCE together, and one of them is in memory when it is given, so that
    memory does not depend on how many there are.
    """
    import numpy as np

    from vggc.evaluation.localise import sightings
    from vggc.evaluation.reading import LostImage

    (protocol,) = plan.protocols
    nets, locator = plan.nets(protocol), plan.locator()

    def seen_in(
        names: dict[int, str],
    ) -> Iterator[tuple[int, tuple[str, Sequence[LocatedObject]] | Skipped]]:
        places, part = [*names], single([*names.values()])
        if not places:
            return
        for each in sightings(nets, part, np.arange(len(places)), workers_for(plan, part)):
            place = places[each.index]
            if isinstance(each, LostImage):
                yield place, each.skipped
                continue
            found = locator.best(each, top) if plan.has_classifier else [locator.of_class(each, 0)]
            yield place, (names[place], found)

    for named in grouped(images, AT_ONCE):
        paths = {place: each for place, each in enumerate(named) if isinstance(each, str)}
        lost = [(place, each) for place, each in enumerate(named) if isinstance(each, Skipped)]
        for seen in in_order(chain(lost, seen_in(paths))):
            yield seen if isinstance(seen, Skipped) else localised(plan, *seen)


def localised(plan: LocalisePlan, path: str, found: Sequence[LocatedObject]) -> Localised | Skipped:
    """Objects in shares of the picture in a file as objects in its pixels."""
    how = plan.runs[0].subject.preprocessing
    try:
        picture = how.open(Path(path))
    except BrokenImageError as fault:  # it was whole a moment ago
        return Skipped(path, str(fault))
    is_told = plan.has_classifier or len(plan.classes) == 1
    unit = [*picture.size, *picture.size]
    objects = tuple(
        LocalisedObject(
            plan.classes[each.class_index] if is_told else OBJECT,
            each.probability,
            cast("Edges", tuple((each.box * unit).tolist())),
            each.score,
        )
        for each in found
    )
    return Localised(path, picture, objects)
