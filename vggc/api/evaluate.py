"""What `eval` and `predict` work on: runs, or nets with weights from elsewhere, how each looks at
images, and what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from math import prod
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from vggc.api.trained import Subject, from_run, from_spec, net_in
from vggc.data.parts import Part, Skipped
from vggc.evaluation import diagnostics
from vggc.evaluation.images import (
    KnownClasses,
    Labelled,
    check_classes,
    held_out,
    images_in,
    in_memory,
    single,
)
from vggc.evaluation.views import Views, views_of
from vggc.ir.graph import Graph
from vggc.ir.needs import TESTING
from vggc.passes.dense import NotDense, dense
from vggc.passes.heads import classifier
from vggc.passes.inference import drop_final_softmax
from vggc.program import Program, load, zoo
from vggc.recipe.edit import override_blocks
from vggc.recipe.protocol import TEST, Crops, Protocol, read_protocol
from vggc.recipe.train import Recipe
from vggc.support.diagnostics import UserError, nearest
from vggc.support.paths import absence, exists, is_artifact, is_file, is_folder, is_run
from vggc.support.precision import TrainPrecision
from vggc.syntax.ast import Block, block_of
from vggc.training.diagnostics import WeightsOfNoRun
from vggc.training.run import BEST, LAST, Run
from vggc_runtime.preprocessing import BrokenImageError, Pixels, Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vggc.evaluation.counts import Errors, Guesses
    from vggc.evaluation.judge import ImageScores
    from vggc.evaluation.named import GivenImage, OpenImage
    from vggc.evaluation.reading import LostImage
    from vggc.evaluation.viewer import Viewer
    from vggc.training.learner import TrainMachine
    from vggc.training.parallel import World

    Probabilities: TypeAlias = NDArray[np.float32]

T = TypeVar("T")

ProtocolName: TypeAlias = Literal["test", "centre", "dense", "crops", "both"]

NAMED = 20
"""Images that could not be read and are named one by one; the others are only counted."""

BATCH = 32
"""Images that are computed at once where nobody says how many."""

CENTRE = (
    "test.scales=off",
    "test.dense=off",
    "test.crops=on",
    "test.crops.grid=1x1",
    "test.flip=off",
)
"""The centre crop at the scale of the training, as a change of any `test` block: what a training
looks at after each epoch, and an artifact always."""

AT_ONCE = 4096
"""Images of a row of any length that are looked at before what they show is told."""

BATCH_PIXELS, LARGEST_BATCH = BATCH * 224 * 224, 1024
"""On a GPU small images make larger batches, of so many pixels and at most so many images."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """How the user wants `eval` and `predict` to look at images; None where nothing is said."""

    weights: Path | None = None
    preprocessing: str | None = None
    scales: str | None = None
    protocol: ProtocolName | None = None
    grid: str | None = None
    flip: bool | None = None
    batch: int | None = None
    device: Literal["cpu", "cuda", "auto"] | None = None
    precision: TrainPrecision | None = None
    workers: int | None = None

    @property
    def names_views(self) -> bool:
        """Whether the options say anything about what is looked at of an image."""
        return any(
            value is not None for value in (self.scales, self.protocol, self.grid, self.flip)
        )


@dataclass(frozen=True, kw_only=True)
class UntestedNet:
    """A net before its weights are read, that of a `run` or one with weights from elsewhere, which
    has no run; `named` is what commands call it, and `recipe` what its protocol refers to. Its
    `weights` and the `preprocessing` of its pictures are those that somebody names.
    """

    named: str
    program: Program
    recipe: Recipe
    run: Run | None = None
    weights: Path | None = None
    preprocessing: str | None = None

    def subject(self) -> Subject:
        """The net with its weights.

        Raises:
            UserError: there are no such weights, or they do not fit.
        """
        if self.run:
            return from_run(self.run, self.weights, self.program, self.preprocessing)
        return from_spec(self.program, self.weights, 0, self.named, self.preprocessing)


@dataclass(frozen=True)
class TestedNet:
    """A net that is tested, the protocol that it is tested by, and the views that this makes; of
    its heads the `graph` has the one that tells classes.
    """

    net: UntestedNet
    graph: Graph
    subject: Subject
    protocol: Protocol
    views: Views
    remark: str = ""
    """Why the protocol is not the usual one, if it is not."""

    @property
    def remarks(self) -> list[str]:
        """What whoever takes these weights should know of them, and of their pictures."""
        told = filter(None, (self.remark, self.subject.matched, self.subject.preprocessing_from))
        return [*(self.net.run.remarks(self.net.weights) if self.net.run else ()), *told]

    @property
    def named(self) -> str:
        """What commands call it: the folder of a run, or a spec."""
        return self.net.named

    @property
    def net_name(self) -> str:
        """The name of the net in its file."""
        return self.net.program.net.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the scores; numbers where nobody names them."""
        return self.subject.classes or unnamed_classes(self.graph)

    @property
    def known(self) -> KnownClasses:
        """The classes as those of images are matched with them."""
        return KnownClasses(self.named, self.classes, is_named=bool(self.subject.classes))


def unnamed_classes(graph: Graph) -> tuple[str, ...]:
    """What the classes of a net are called where nobody names them."""
    return tuple(f"class {index}" for index in range(graph.num_classes or 0))


@dataclass(frozen=True)
class EvalResult:
    """What a test came to. `each` are the errors of each run, `centres` those by their centre
    crops, where these are looked at, and `fused` those of all runs together where they are several.
    `guesses` are what the runs took every image for, by its place among those that were tested on.
    `skipped` are the first of `num_skipped` images that could not be read.
    """

    images: int
    each: tuple[Errors, ...]
    centres: tuple[Errors, ...]
    fused: Errors | None
    guesses: Guesses
    skipped: tuple[Skipped, ...]
    num_skipped: int
    seconds: float


@dataclass(frozen=True)
class Seen:
    """The probabilities (classes,) that a net gives the image in a file, or one of that name."""

    path: str
    probabilities: Probabilities


@dataclass(frozen=True)
class EvalPlan:
    """A test of nets before anything is computed; all its processes have the same.

    `centres` are the nets by their centre crops, each beside its entry, or there are none.
    """

    entries: tuple[TestedNet, ...]
    centres: tuple[TestedNet, ...]
    machine: TrainMachine
    world: World
    batch: int | None
    workers: int | None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the nets' scores."""
        return self.entries[0].classes

    def viewers(self) -> list[Viewer]:
        """The nets, each ready to look at images on this process's device.

        Raises:
            UserError: one cannot be applied densely, and is to be.
        """
        from vggc.evaluation.viewer import Viewer
        from vggc.training.learner import device_of

        device = device_of(self.machine, self.world)
        return [
            Viewer(
                entry.graph,
                entry.subject.weights,
                entry.subject.preprocessing,
                entry.views,
                self.machine,
                device,
                self.batch or usual_batch(self.machine, entry.subject.preprocessing.size),
            )
            for entry in (*self.entries, *self.centres)
        ]


def usual_batch(machine: TrainMachine, size: tuple[int, int]) -> int:
    """How many images of a size (H, W) are computed at once where nobody says how many."""
    if machine.device == "cpu":
        return BATCH
    return max(BATCH, min(LARGEST_BATCH, BATCH_PIXELS // prod(size)))


# Before


def plan(
    places: Sequence[Path | UntestedNet], options: EvalOptions, *, alone: bool = False
) -> EvalPlan:
    """The test of runs, and of nets with weights from elsewhere; `alone` says whether one process
    makes it. Nets that are there already have weights of their own, whatever the options name.

    Raises:
        UserError: one is no run and has no weights, or cannot be tested so or for want of memory,
            or they do not go together.
    """
    nets = [
        place
        if isinstance(place, UntestedNet)
        else untested(place, options.weights, options.preprocessing)
        for place in places
    ]
    check_classes([KnownClasses.of(net.run) for net in nets if net.run])
    for net in nets:
        TESTING.require(net.program.graph)
    for net in nets:
        protocol_for(net.program, net.recipe, options)

    from vggc.training.learner import choose_machine
    from vggc.training.parallel import ALONE, World

    machine = choose_machine(options.device or "auto", options.precision or "float32")
    world = ALONE if alone else World.here()
    entries = tuple(entry(net, options) for net in nets)
    check_classes([each.known for each in entries])
    centres = () if options.names_views else tuple(map(centre_of, entries))
    return EvalPlan(
        entries=entries,
        centres=centres,
        machine=machine,
        world=world,
        batch=options.batch,
        workers=options.workers,
    )


def untested(place: Path, weights: Path | None, preprocessing: str | None) -> UntestedNet:
    """The net of a run, or one that a spec names, for which weights are given; the `preprocessing`
    is a preset or a file.

    Raises:
        UserError: it is neither; the message says what else it is.
    """
    spec = str(place)
    if is_run(place) or not names_net(spec):
        run = load_run(place)
        return UntestedNet(
            named=str(run.folder),
            program=net_in(run),
            recipe=run.recipe,
            run=run,
            weights=weights,
            preprocessing=preprocessing,
        )
    if weights is None:
        raise net_without_weights(spec)
    if weights in (LAST, BEST):
        raise UserError(WeightsOfNoRun(str(weights), spec))
    program = load(spec)
    return UntestedNet(
        named=spec,
        program=program,
        recipe=program.recipe,
        weights=weights,
        preprocessing=preprocessing,
    )


def net_without_weights(spec: str) -> UserError:
    """What is wrong with testing a net that has no weights."""
    hint = "give it weights: `--weights FILE`; `--weights imagenet` takes published ones"
    return UserError(diagnostics.NotARunToTest(spec, "it is a net without weights", hint))


def names_net(spec: str) -> bool:
    """Whether a text names a net by its file or by its name in the zoo."""
    name = spec.partition("(")[0].strip()
    return (is_file(name) and name.endswith(".vgg")) or (name in zoo() and not exists(spec))


def load_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        UserError: the folder is no run; the message says what else it is.
    """
    if not is_run(folder):
        raise UserError(diagnostics.NotARunToTest(str(folder), *what_is_there(folder)))
    return Run.load(folder)


def what_is_there(folder: Path) -> tuple[str, str]:
    """What is in the place of a run, and what to do about it."""
    hint, named = "give the folder that `vggc train` made, under `runs/`", str(folder)
    if names_net(named):
        return "it is a net", f"give the folder of a run of it: `vggc train {named}` makes one"
    if not exists(folder):
        near = "" if "/" in named else nearest(named, zoo())
        return absence(folder, "folder"), f"did you mean the net `{near}`?" if near else hint
    if is_artifact(folder):
        other = "`vggc verify ARTIFACT --data DIR` checks artifacts, `vggc predict` uses them"
        return "it is an artifact", other
    return "it holds no run.json" if is_folder(folder) else "it is a file", hint


def protocol_of(run: Run, options: EvalOptions) -> Protocol:
    """The protocol of a run's `test` block, as the options change it.

    Raises:
        UserError: with every mistake in either.
    """
    program = load(str(run.net_path))
    run.require_fit(program.graph)
    return protocol_for(program, run.recipe, options)


def protocol_for(program: Program, recipe: Recipe, options: EvalOptions) -> Protocol:
    """The protocol of a net's `test` block, as the options change it.

    Raises:
        UserError: with every mistake in either.
    """
    blocks: tuple[Block, ...] = program.net.blocks

    def has_crops() -> bool:
        return read_protocol(block_of(blocks, "test"), recipe).crops is not None

    if options.protocol == "centre":
        if options.grid is not None:
            raise UserError(diagnostics.GridWithoutCrops())
        blocks = override_blocks(blocks, CENTRE, "--protocol")
    if options.scales is not None:
        blocks = override_blocks(blocks, [f"test.scales={options.scales}"], "--scales")
    if options.protocol in ("dense", "crops", "both"):
        ways = [f"test.dense={switch(options.protocol != 'crops')}"]
        if has_crops() != (options.protocol != "dense"):
            ways.append(f"test.crops={switch(not has_crops())}")
        blocks = override_blocks(blocks, ways, "--protocol")
    if options.flip is not None:
        blocks = override_blocks(blocks, [f"test.flip={switch(options.flip)}"], "--flip")
    if options.grid is not None:
        if not has_crops():
            raise UserError(diagnostics.GridWithoutCrops())
        blocks = override_blocks(blocks, [f"test.crops.grid={options.grid}"], "--grid")
    return read_protocol(block_of(blocks, "test"), recipe, program.graph)


@dataclass(frozen=True)
class ChosenProtocol:
    """A protocol, and why it is not the usual one, if it is not."""

    protocol: Protocol
    remark: str = ""


def possible(protocol: Protocol, applied: Graph, *, is_asked: bool) -> ChosenProtocol:
    """A protocol that a net can be tested by, of which the graph `applied` looks at images: that
    one, or centre crops at the same scales where it has the net look at whole images, which it
    cannot, and nobody has asked for that.

    Raises:
        UserError: it is asked for.
    """
    if not protocol.dense:
        return ChosenProtocol(protocol)
    try:
        dense(applied)
    except UserError as error:
        found = error.diagnostics[0]
        if is_asked or not isinstance(found, NotDense):
            raise
        where = f"`{' '.join(found.place.text.split())[:60]}`: " if found.place else ""
        remark = f"on centre crops, as {found.fill(found.title)} ({where}{found.reason})"
        return ChosenProtocol(replace(protocol, dense=False, crops=Crops(grid=1)), remark)
    return ChosenProtocol(protocol)


def asks_for_dense(program: Program, options: EvalOptions) -> bool:
    """Whether the options or the net's `test` block say in words that it looks at whole images."""
    if options.protocol not in (None, "test"):
        return True
    return "dense" in TEST.read(block_of(program.net.blocks, "test")).table


def switch(on: bool) -> str:
    """A choice as a setting spells it: `on` or `off`."""
    return "on" if on else "off"


def entry(net: UntestedNet, options: EvalOptions) -> TestedNet:
    """A net as it is to be tested: with the weights that are meant, and the views of its protocol.

    Raises:
        UserError: it has no such weights, or tells no classes or cannot be applied so.
    """
    subject = net.subject()
    graph = classifier(subject.program.graph)
    if graph is None:
        raise UserError(diagnostics.NoClassesToTest(net.named))
    refuse_scales(options, subject.preprocessing)
    chosen = possible(
        protocol_for(net.program, net.recipe, options),
        drop_final_softmax(graph),
        is_asked=asks_for_dense(net.program, options),
    )
    views = views_of(chosen.protocol, subject.preprocessing)
    return TestedNet(
        net=net,
        graph=graph,
        subject=subject,
        protocol=chosen.protocol,
        views=views,
        remark=chosen.remark,
    )


def refuse_scales(options: EvalOptions, how: Preprocessing) -> None:
    """Raises: UserError where scales are asked for, and pictures are brought to one size whole."""
    if options.scales is not None and how.fit != "crop":
        raise UserError(diagnostics.ScalesOfWhole(how.fit))


def centre_of(entry: TestedNet) -> TestedNet:
    """The net of an entry, to be looked at by its centre crop."""
    net = entry.net
    protocol = protocol_for(net.program, net.recipe, EvalOptions(protocol="centre"))
    views = views_of(protocol, entry.subject.preprocessing)
    return replace(entry, protocol=protocol, views=views, remark="")


def images_for(plan: EvalPlan, data: str | None) -> Labelled:
    """The images to test on: those in a place, or those that the runs held out.

    Raises:
        UserError: there are none, or they are not of the nets' classes.
    """
    if data is not None:
        return images_in(data, plan.entries[0].known)
    runs = []
    for entry in plan.entries:
        if entry.net.run is None:
            raise UserError(diagnostics.NoneHeldOut(entry.named))
        runs.append(entry.net.run)
    return held_out(runs)


# Testing


def measure(
    plan: EvalPlan, images: Labelled, on_progress: Callable[[int, int], None]
) -> EvalResult:
    """The errors of the runs on these images. `on_progress` is told how many of how many are done
    of this process's share.

    Raises:
        UserError: none can be read, or another process has ended.
    """
    from vggc.evaluation.counts import Counts, Guesses
    from vggc.evaluation.judge import ImageScores
    from vggc.training.learner import device_of
    from vggc.training.parallel import joined

    world, start = plan.world, perf_counter()
    total = len(images.part)
    share = range(total)[world.share.rows(total)]
    count, lost = len(plan.entries), []
    counts = Counts(count + len(plan.centres), fused=count)
    guesses = Guesses(count, total)
    with explained(), joined(world, device_of(plan.machine, world)):
        judged = judgements(plan, plan.viewers(), images.part, share)
        for done, found in enumerate(judged, start=1):
            match found:
                case ImageScores(index, probabilities):
                    counts.add(probabilities, int(images.part.labels[index]))
                    guesses.add(index, probabilities[:count])
                case _:
                    lost.append(found)
            on_progress(done, len(share))
        skipped = [*images.skipped] if world.is_first else []
        skipped += [each.skipped for each in sorted(lost, key=lambda each: each.index)]
        counts, guesses = counts.summed(world), guesses.summed(world)
        (num_skipped,) = world.sums([len(skipped)])
        named = tuple(world.lists(skipped[:NAMED])[:NAMED])
    if counts.images == 0:
        first = f"{named[0].name}: {named[0].reason}"
        raise UserError(diagnostics.NothingToTest(images.shown, int(num_skipped), first))
    errors = counts.errors()
    return EvalResult(
        images=counts.images,
        each=tuple(errors.each[:count]),
        centres=tuple(errors.each[count:]),
        fused=errors.fused,
        guesses=guesses,
        skipped=named,
        num_skipped=int(num_skipped),
        seconds=perf_counter() - start,
    )


def judgements(
    plan: EvalPlan, viewers: Sequence[Viewer], part: Part, indices: Sequence[int]
) -> Iterator[ImageScores | LostImage]:
    """What the nets say of the images at these places of a part."""
    import numpy as np

    from vggc.evaluation.judge import judge, num_workers

    workers = plan.workers
    if workers is None:
        workers = num_workers(part, len(indices), plan.world.local_size)
    return judge(viewers, part, np.asarray(indices, np.int64), workers)


@contextmanager
def explained() -> Iterator[None]:
    """Within it, errors that speak of other processes of a training speak of those of a test."""
    from vggc.training.diagnostics import WorldEnded

    try:
        yield
    except UserError as error:
        found = error.diagnostics[0]
        if isinstance(found, WorldEnded):
            raise UserError(diagnostics.ProcessEnded(found.reason)) from None
        raise


# Predicting


def predict(plan: EvalPlan, images: Iterable[GivenImage]) -> Iterator[Seen | Skipped]:
    """What the first net says of each image, in order, or why it says nothing.

    Images are asked for AT_ONCE together, so that memory does not depend on how many there are.
    """
    viewers = plan.viewers()
    for named in grouped(images, AT_ONCE):
        how = plan.entries[0].subject.preprocessing
        paths: dict[int, str] = {}
        opened: dict[int, SeenPixels] = {}
        lost: dict[int, Skipped] = {}
        for place, each in enumerate(named):
            match each if isinstance(each, str | Skipped) else opened_by(how, each):
                case str(path):
                    paths[place] = path
                case Skipped() as skipped:
                    lost[place] = skipped
                case picture:
                    opened[place] = picture
        names = {place: picture.name for place, picture in opened.items()}
        of_files = looked_at(plan, viewers, paths, single([*paths.values()]))
        part = in_memory([*names.values()], [picture.pixels for picture in opened.values()])
        yield from in_order(chain(lost.items(), of_files, looked_at(plan, viewers, names, part)))


@dataclass(frozen=True)
class SeenPixels:
    """The pixels, uint8 (H, W, C) or (H, W), of an image that somebody has opened."""

    name: str
    pixels: Pixels


def opened_by(how: Preprocessing, picture: OpenImage) -> SeenPixels | Skipped:
    """An image as that of its file would be opened for a net, or why it cannot be used."""
    import numpy as np

    try:
        return SeenPixels(picture.name, np.asarray(how.seen(picture.image)))
    except BrokenImageError as fault:
        return Skipped(picture.name, str(fault))


def looked_at(
    plan: EvalPlan, viewers: Sequence[Viewer], names: Mapping[int, str], part: Part
) -> Iterator[tuple[int, Seen | Skipped]]:
    """What the nets say of the images of a part, each by the number that its name has, or why it
    cannot be read, as it comes.
    """
    from vggc.evaluation.judge import ImageScores

    places = [*names]
    if not places:
        return
    for each in judgements(plan, viewers, part, range(len(places))):
        match each:
            case ImageScores(index, probabilities):
                seen = Seen(names[places[index]], probabilities.mean(0).numpy())
                yield places[index], seen
            case _:
                yield places[each.index], each.skipped


def in_order(numbered: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Things in the order of their numbers, which begin at 0, each as soon as all before it are
    there.
    """
    waiting: dict[int, T] = {}
    turn = 0
    for number, thing in numbered:
        waiting[number] = thing
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def grouped(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """The items in order, `count` at a time, and at last those that are left."""
    waiting = iter(items)
    while group := [*islice(waiting, count)]:
        yield group
