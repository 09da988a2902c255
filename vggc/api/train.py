"""What `train` works on: a net fitted to images, or a run to go on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vggc.api.first_weights import (
    FirstWeights,
    published_layers,
    published_weights,
    taken_weights,
    takes_published,
)
from vggc.api.published import NAMED_IMAGENET
from vggc.ir.graph import Graph
from vggc.ir.ops import BatchNorm, GroupNorm, LayerNorm, Scale, describe
from vggc.pretrained.table import IMAGENET
from vggc.program import Program, load, with_block, with_classes, with_input, zoo
from vggc.recipe.blocks import Reading, report
from vggc.recipe.course import course_of, frozen_weights
from vggc.recipe.edit import override_blocks
from vggc.recipe.heads import ObjectChoice, trained_kinds
from vggc.recipe.layers import layer_recipes
from vggc.recipe.protocol import TEST, read_protocol
from vggc.recipe.train import (
    TRAIN,
    Recipe,
    StepSchedule,
    read_over_defaults,
    read_recipe,
    without_end,
)
from vggc.runtime.cpu_info import lacks_half
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.files import refuse_full, refuse_unwritable
from vggc.support.precision import TrainPrecision
from vggc.support.source import Source
from vggc.syntax.ast import Block, Net, block_of
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse
from vggc.training import diagnostics
from vggc.training.best import stopped_early
from vggc.training.metrics import read_metrics
from vggc.training.progress import Epoch, Progress
from vggc.training.run import NET, RUNS, Run, refuse_moved
from vggc.training.schedules import needs_its_end

if TYPE_CHECKING:
    from vggc.backends.torch import TorchNet
    from vggc.data.parts import Images
    from vggc.data.prepare import Data
    from vggc.training.learner import Learner, TrainMachine
    from vggc.training.parallel import World
    from vggc.training.session import TrainTask

DIGITS_SIZE = (32, 32)
DIGITS_RECIPE = (
    "train.batch=32",
    "train.epochs=9",
    "train.schedule=one-cycle",
    "train.init=he",
    "train.scale=off",
    "train.flip=off",
    "train.rgb-shift=off",
    "test.scales=off",
    "test.flip=off",
)
"""What suits 1,438 small grey images better than what ImageNet asks for."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the user asks `train` for; None where nothing is said."""

    data: str | Path | None = None
    val: str | Path | None = None
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    size: tuple[int, int] | None = None
    device: Literal["cpu", "cuda", "auto"] | None = None
    precision: TrainPrecision | None = None
    compiled: bool | None = None
    sharded: bool = False
    out: Path | None = None
    init_from: Path | None = None
    weights: Path | None = None
    seed: int | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Departures:
    """The settings of a new run that differ from what `base` says: key, before, after."""

    base: str
    changes: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class TrainPlan:
    """A training before its images are read: a new one, or the rest of a `run`."""

    program: Program
    module: TorchNet
    images: Images
    recipe: Recipe
    machine: TrainMachine
    world: World
    seed: int
    first: FirstWeights
    run: Run | None
    out: Path | None
    departures: Departures | None
    beside: Mapping[str, str] = field(default_factory=dict)
    """The texts of the nets that the net's file names."""

    def read(self, on_progress: Callable[[int, int], None]) -> Data:
        """Reads and checks all images; `on_progress` is told how many of how many are done.

        Raises:
            UserError: they are not of the kind that the net takes, or too few can be read.
        """
        from vggc.data.prepare import prepare
        from vggc.training.augment import window_of

        channels, height, width = self.program.graph.input
        shape = (channels, height, width)
        scales, window = self.recipe.scale, window_of(self.recipe)
        images = self.images if self.recipe.boxes else self.images.without_objects
        data = prepare(images, shape, scales, on_progress, window=window)
        if self.run:
            # Whoever uses the run later goes by its record, so the training does, too.
            return replace(data, preprocessing=self.run.record.preprocessing)
        return replace(data, preprocessing=self.first.prepared(data.preprocessing))

    def task(self, data: Data) -> TrainTask:
        """The training of the net on these images.

        Raises:
            UserError: another process has found other images.
        """
        from vggc.training.objective import Objective
        from vggc.training.session import TrainTask, agree

        net, graph = self.program.net, self.program.graph
        task = TrainTask(
            net=net.name,
            net_text=format_net(net),
            module=self.module,
            data=data,
            recipe=self.recipe,
            machine=self.machine,
            seed=self.seed,
            frozen=frozen_weights(self.recipe, graph),
            undecayed=undecayed_weights(self.recipe, graph),
            layers=layer_recipes(graph),
            objective=Objective.of(self.recipe.loss, graph),
            first=self.first.weights,
            world=self.world,
            beside=self.beside,
        )
        agree(task)
        return task

    def start(self, data: Data) -> Training:
        """Makes the folder of a new run, or takes up a run where it was left.

        Raises:
            UserError: a file cannot be written, the run's checkpoint does not fit, or another
                process has found other images.
        """
        from vggc.training.checkpoint import snapshot
        from vggc.training.session import begin, fresh, record_of, resume

        task = self.task(data)
        if self.run:
            return Training(self.run, task, *resume(self.run, task))
        now = datetime.now()
        learner = fresh(task)
        first = snapshot(learner, Progress()) if task.first else None
        if self.world.is_first:
            run = begin(task, first, self.out, now)
        else:
            run = Run(Path(), record_of(task, now))  # of which only the first process writes
        return Training(run, task, learner, Progress())

    @contextmanager
    def alone(self, run: Run, say: Callable[[str], None]) -> Iterator[None]:
        """Within it no other process trains into the folder of a run that has been read.

        Raises:
            UserError: another process does, or has done so since the run was read.
        """
        if not self.world.is_first:
            yield
            return

        from vggc.training.hold import alone

        with alone(run.folder) as is_locked:
            if Run.load(run.folder).record != run.record:
                holder = "it has gone on since this command began"
                raise UserError(diagnostics.RunInUse(str(run.folder), holder))
            if not is_locked:
                say(f"There are no locks where {run.folder} is: see that nobody else resumes it.")
            yield


@contextmanager
def training(
    plan: TrainPlan, read: Callable[[], Data], say: Callable[[str], None]
) -> Iterator[Training]:
    """Within it, a training is ready, and no other process trains into its folder.

    Raises:
        UserError: as `TrainPlan.alone`, `TrainPlan.read` and `TrainPlan.start`.
    """
    with ExitStack() as stack:
        if plan.run:
            stack.enter_context(plan.alone(plan.run, say))
        begun = plan.start(read())
        if not plan.run:
            stack.enter_context(plan.alone(begun.run, say))
        yield begun


@dataclass(frozen=True)
class Training:
    """A training that is ready to proceed from `progress`."""

    run: Run
    task: TrainTask
    learner: Learner
    progress: Progress


# A new run


def new_run(spec: str | Program | None, options: TrainOptions, *, kept: bool = True) -> TrainPlan:
    """The training of a net from the start, of which a folder is made unless it is not `kept`.

    Raises:
        UserError: there is no such net, or something that was asked for does not fit.
    """
    if spec is None:
        raise UserError(diagnostics.NothingToTrain())
    program = spec if isinstance(spec, Program) else load(spec)
    blocks = blocks_for(program, options)
    reading = read_train(program, blocks)
    report(untrainable(program.graph))
    recipe = reading.value
    report(contradictions(recipe, options))

    from vggc.training.learner import choose_machine
    from vggc.training.parallel import World

    world = World.here()
    refuse_lone_shard(options, world)
    how = options.compiled, options.sharded
    machine = choose_machine(options.device or "auto", options.precision or "float32", *how)
    if options.out is not None:
        refuse_full(options.out)
    if kept:
        refuse_unwritable(options.out or RUNS)
    seed = options.seed or 0
    images = find(options.data, seed, options.val)
    report(image_mistakes(images, recipe, program.graph))
    images = with_objects_chosen(images, recipe)
    report(batch_mistakes(reading, len(images.train), world.size))
    if options.init_from == NAMED_IMAGENET and recipe.init_from is None:
        fitted = fit_program(program, images, blocks, options)
        layers = ",".join(published_layers(program, fitted.graph))
        changes = [f"init-from={IMAGENET}", f"init-from.layers={layers}"]
        blocks = override_blocks(blocks, changes, "--init-from", prefer="train")
        reading = read_train(program, blocks)
        recipe = reading.value
    fitted = fit_program(program, images, blocks, options)
    check_memory(fitted, images, recipe, machine, world)
    first = first_of(program, fitted, reading, options)

    def fit(other: Program) -> Net:
        return fit_net(other, program.graph.num_classes, images, options)

    return TrainPlan(
        program=fitted,
        module=fitted.logits_module(),
        images=images,
        recipe=recipe,
        machine=machine,
        world=world,
        seed=seed,
        first=first,
        run=None,
        out=options.out,
        departures=departures(program, fitted, recipe),
        beside=companions(program, fitted, reading, blocks, fit, first),
    )


def first_of(
    program: Program, fitted: Program, reading: Reading[Recipe], options: TrainOptions
) -> FirstWeights:
    """The weights that layers of a net begin with, as it is fitted to the images.

    Raises:
        UserError: there are no such weights, or they do not fit.
    """
    part, source, which = reading.value.init_from, options.init_from, options.weights
    if part is not None and takes_published(part, source):
        return published_weights(part, program, fitted.graph, which)
    other = other_graph(program, reading.value)
    span = reading.span("init-from")
    return taken_weights(part, fitted.graph, other, source, span, which)


def blocks_for(program: Program, options: TrainOptions) -> tuple[Block, ...]:
    """The file's blocks as the options change them; for the digits with a recipe of their own.

    Raises:
        UserError: a change is none.
    """
    size = input_size(options)
    blocks = (with_input(program.net, size) if size else program.net).blocks
    if options.data is None:
        blocks = override_blocks(blocks, DIGITS_RECIPE)
    if size and lacks_room(blocks, size):
        blocks = override_blocks(blocks, ["test.crops=off", "test.dense=on"])
    for key in ("epochs", "batch", "lr"):
        value = getattr(options, key)
        if value is not None:
            blocks = override_blocks(blocks, [f"train.{key}={value}"], f"--{key}")
    return override_blocks(blocks, options.changes, prefer="train")


def lacks_room(blocks: Sequence[Block], size: tuple[int, int]) -> bool:
    """Whether the images of a test have fewer places for crops of a size than its grid has."""
    protocol = TEST.read(block_of(blocks, "test")).value
    if protocol.crops is None:
        return False
    return min(protocol.scales or (min(size),)) - min(size) + 1 < protocol.crops.grid


def input_size(options: TrainOptions) -> tuple[int, int] | None:
    """Height and width of the input; None where they are to be the file's."""
    return options.size or (DIGITS_SIZE if options.data is None else None)


def read_train(program: Program, blocks: Sequence[Block]) -> Reading[Recipe]:
    """What the `train` block says, not held against the net yet.

    Raises:
        UserError: with every mistake in it.
    """
    reading = read_over_defaults(block_of(blocks, "train"), program.graph)
    report(reading.found)
    return reading


def untrainable(graph: Graph) -> list[Diagnostic]:
    """The mistake of a net without a head that can be trained."""
    if graph.has("classes") or graph.has("boxes"):
        return []
    return [diagnostics.NothingTrainable(graph.name)]


def image_mistakes(images: Images, recipe: Recipe, graph: Graph) -> list[Diagnostic]:
    """The mistake of images that do not tell what the net is to learn."""
    kinds = trained_kinds(recipe.loss, graph)
    if "boxes" in kinds and (images.train.objects is None or images.val.objects is None):
        return [diagnostics.ImagesWithoutBoxes(graph.name, str(images.path or "the digits"))]
    if "classes" in kinds and len(images.classes) == 1:
        return [diagnostics.OneClassToTell(graph.name, str(images.path), images.classes[0])]
    return []


def with_objects_chosen(images: Images, recipe: Recipe) -> Images:
    """The images, those to train on with the objects that the recipe learns, those held out with
    those that it may find; images without boxes as they are.
    """
    from vggc.data.aims import chosen, of_its_class
    from vggc.data.parts import of_part

    if recipe.boxes is None or images.train.objects is None:
        return images
    train, skipped = chosen(images.train, recipe.boxes.objects)
    notes = several_objects(images, recipe.boxes.objects)
    return replace(
        images,
        train=train,
        val=of_its_class(images.val),
        skipped=(*images.skipped, *of_part(skipped, "train")),
        notes=(*images.notes, *notes),
    )


def several_objects(images: Images, how: ObjectChoice) -> list[str]:
    """What is said of pictures to train on that hold several objects."""
    import numpy as np

    assert images.train.objects
    several = int((np.diff(images.train.objects.starts) > 1).sum())
    if not several:
        return []
    told = {
        "largest": "the largest of each is learned",
        "each": "each object is learned by itself",
        "only": "they are left out",
    }
    of_all = f"{several:,} of {len(images.train):,} pictures to train on hold several objects"
    return [f"{of_all}: {told[how]} (`boxes objects={how}`)."]


def contradictions(recipe: Recipe, options: TrainOptions) -> list[Diagnostic]:
    """The mistakes where `--set` has overruled an option."""
    pairs = (
        ("epochs", options.epochs, recipe.epochs),
        ("batch", options.batch, recipe.batch),
        ("lr", options.lr, recipe.optimiser.lr),
    )
    return [
        diagnostics.Contradiction(f"--{name} {asked:g}")
        for name, asked, found in pairs
        if asked not in (None, found)
    ]


def batch_mistakes(reading: Reading[Recipe], count: int, processes: int) -> list[Diagnostic]:
    """The mistakes where steps have more images than there are, or too few for all processes."""
    batch, span = reading.value.batch, reading.span("batch")
    if batch > count:
        suggested = max(1, min(32, count // 5))
        return [diagnostics.BatchTooLarge(batch, count, suggested, place=span)]
    if processes > 1 and batch < 2 * processes:
        return [diagnostics.BatchTooSmall(batch, processes, 16 * processes, place=span)]
    return []


def undecayed_weights(recipe: Recipe, graph: Graph) -> tuple[str, ...]:
    """The weights of normalisations and scales, by their full names, where the L2 penalty leaves
    them be.
    """
    if recipe.optimiser.decay_norms:
        return ()
    kinds = BatchNorm | GroupNorm | LayerNorm | Scale
    norms = [node for node in graph.nodes if isinstance(node.op, kinds)]
    return tuple(name for node in norms for name in graph.weights(node))


def fit_program(
    program: Program, images: Images, blocks: Sequence[Block], options: TrainOptions
) -> Program:
    """The net for these images: their size, their classes, and the recipe as used.

    It is read back from its own text, the one that the run's folder will hold, so that
    whatever is wrong with it shows where it is wrong.

    Raises:
        UserError: the net cannot take them, or the recipe does not go with it.
    """
    reading = read_train(program, blocks)
    net = fit_net(program, program.graph.num_classes, images, options)
    net = replace(net, blocks=tuple(blocks))
    net = with_block(net, TRAIN.to_block(reading.value))
    fitted = program.replace(parse(Source(f"{net.name}.vgg as fitted", format_net(net))))
    read_recipe(block_of(blocks, "train"), fitted.graph)
    read_protocol(block_of(blocks, "test"), reading.value, fitted.graph)
    return fitted


def other_graph(program: Program, recipe: Recipe) -> Graph | None:
    """The graph of the net that `init-from` names; None where it is in no file that is known.

    Raises:
        UserError: the file of that net is not well formed.
    """
    if recipe.init_from is None:
        return None
    name = recipe.init_from.net
    return program.graph if name == program.net.name else program.named(name)


def fit_net(program: Program, before: int | None, images: Images, options: TrainOptions) -> Net:
    """The plain net of a program for these images, with their classes where it has so many as
    `before`.
    """
    size, classes = input_size(options), len(images.classes)
    net = with_input(program.net, size) if size else program.net
    told = program.graph.num_classes
    if told is None or told != before or told == classes:
        return net
    return with_classes(net, classes)


def companions(
    program: Program,
    fitted: Program,
    reading: Reading[Recipe],
    blocks: Sequence[Block],
    fit: Callable[[Program], Net],
    first: FirstWeights,
) -> dict[str, str]:
    """The nets that a net's blocks name, fitted to the same images: the texts of the files that
    lie beside its own in the folder of a run, where they are looked for. Where the weights that
    come `first` are a run's, the net that they are of is that run's.

    Raises:
        UserError: there is no such net, or it does not go with this one, or its file would take
            the place of the run's own net.
    """
    train, test = block_of(blocks, "train"), block_of(blocks, "test")
    protocol, part = TEST.read(test), reading.value.init_from
    named = [(part.net, "init-from", reading.span("init-from"))] if part else []
    named += [(name, "fuse", protocol.span("fuse")) for name in protocol.value.fuse or ()]
    found: dict[str, str] = {}
    for name, key, span in named:
        if f"{name}.vgg" == NET:
            raise UserError(diagnostics.NamedAsItsFile(name, place=span))
        other = program if name == program.net.name else program.other(name)
        if key == "init-from" and first.net:
            other = load(str(first.net))
        if other is not None and name not in found:
            found[name] = format_net(replace(fit(other), blocks=()))
    sources = {name: Source(f"{name}.vgg", text) for name, text in found.items()}
    run = Program(fitted.written, find=lambda name, _: sources.get(name))
    read_recipe(train, run.graph, run.named, zoo())
    read_protocol(test, reading.value, run.graph, run.named, zoo())
    return found


def departures(program: Program, fitted: Program, recipe: Recipe) -> Departures:
    """Where the fitted net and its recipe differ from the file's."""
    name, old, new = program.net.name, program.graph, fitted.graph
    base = f"the file of {name}" if program.net.block("train") else f"{name}'s default recipe"
    shapes = (("input", old.input, new.input), ("classes", old.output, new.output))
    changed = [(key, describe(a), describe(b)) for key, a, b in shapes if a != b]
    before = read_train(program, program.net.blocks).value
    tests = [TEST.read(net.block("test")).value for net in (program.net, fitted.net)]
    tested = [(f"test.{key}", was, now) for key, was, now in TEST.differences(*tests)]
    return Departures(base, (*changed, *TRAIN.differences(before, recipe), *tested))


# A run to go on with


class RunFinished(Exception):
    """The run `run` has finished, and is to end no later than it did."""

    def __init__(self, run: Run) -> None:
        super().__init__(str(run.folder))
        self.run = run


def resume_run(spec: str | None, folder: Path, options: TrainOptions) -> TrainPlan:
    """The rest of a run: the plan to go on with it.

    Raises:
        UserError: there is no such run, it kept nothing to go on from, or something about it would
            change.
        RunFinished: it has finished, which is no mistake.
    """
    refuse_changes(spec, folder, options)

    from vggc.training.learner import choose_machine
    from vggc.training.parallel import World

    run = Run.load(folder)
    record = run.record
    world = World.here()
    refuse_lone_shard(options, world)
    device = options.device or record.device
    machine = choose_machine(device, record.precision, options.compiled, options.sharded)
    program = load(str(run.net_path))
    run.require_fit(program.graph)
    written = read_recipe(program.net.block("train"), program.graph)
    if without_end(written) != without_end(run.recipe):
        reason = "net.vgg has not the recipe that run.json describes"
        raise UserError(diagnostics.NotARun(str(folder), reason))
    recipe = with_other_end(run, options)
    if record.state == "finished" and record.metrics is not None:
        if not ends_later(run, recipe):
            raise RunFinished(run)
        if not any(run.checkpoint_path.glob("step-*")):
            raise UserError(diagnostics.NothingToGoOnFrom(str(folder), record.net))
    program = program.replace(with_block(program.net, TRAIN.to_block(recipe)))
    refuse_unwritable(folder)
    if options.data is None:
        refuse_moved(run, record.data.path)
    if options.val is None:
        refuse_moved(run, record.data.val_path)
    data, val = options.data or record.data.path, options.val or record.data.val_path
    images = find(data, record.seed, val)
    report(image_mistakes(images, recipe, program.graph))
    images = with_objects_chosen(images, recipe)
    check_memory(program, images, recipe, machine, world, fixed=True)
    return TrainPlan(
        program=program,
        module=program.logits_module(),
        images=images,
        recipe=recipe,
        machine=machine,
        world=world,
        seed=record.seed,
        first=FirstWeights({}),  # they are in the first checkpoint
        run=run,
        out=None,
        departures=None,
    )


def refuse_lone_shard(options: TrainOptions, world: World) -> None:
    """Refuses to share weights where there is only one process."""
    if options.sharded and world.size == 1:
        raise UserError(diagnostics.NothingToShard())


def refuse_changes(spec: str | None, folder: Path, options: TrainOptions) -> None:
    """Refuses what may not change when a run goes on: only where the images are, what computes and
    when it ends may.
    """
    given = {
        "SPEC": spec,
        "`--batch`": options.batch,
        "`--lr`": options.lr,
        "`--input`": options.size,
        "`--precision`": options.precision,
        "`--out`": options.out,
        "`--init-from`": options.init_from,
        "`--weights`": options.weights,
        "`--seed`": options.seed,
    }
    flags = [flag for flag, value in given.items() if value is not None]
    if flags:
        raise UserError(diagnostics.FixedByRun(", ".join(flags), str(folder)))


def with_other_end(run: Run, options: TrainOptions) -> Recipe:
    """The recipe of a run, with another end where one is asked for.

    A schedule that runs to an end runs to the one that it had, and then begins anew. A run that
    stopped early waits anew for a better epoch.

    Raises:
        UserError: something else than the end would change, or the end would come sooner.
    """
    old, folder = run.recipe, str(run.folder)
    blocks = override_blocks((TRAIN.to_block(old),), options.changes, prefer="train")
    if options.epochs is not None:
        blocks = override_blocks(blocks, [f"train.epochs={options.epochs}"], "--epochs")
    reading = TRAIN.read(block_of(blocks, "train"))
    report(reading.found)
    new = reading.value
    others = [block.key for block in blocks if block.key != "train"]
    if others or without_end(new) != without_end(old) or new.restarts != old.restarts:
        raise UserError(diagnostics.FixedByRun("what `--set` names", folder))
    if isinstance(old.schedule, StepSchedule) and new.unit != old.unit:
        raise UserError(diagnostics.DropsInOtherUnits(folder, old.unit, new.unit))
    batches = -(-run.record.data.train // old.batch)
    before, after = old.num_steps(batches), new.num_steps(batches)
    if after < before:
        raise UserError(diagnostics.EndsSooner(folder, after, before))
    if after > before and before % batches:
        raise UserError(diagnostics.EndsWithinEpoch(folder, before, batches))
    if after > before and needs_its_end(old):
        new = replace(new, restarts=(*(old.restarts or ()), before // batches))
    return waiting_anew(new, read_metrics(run.folder)) if after > before else new


def waiting_anew(recipe: Recipe, epochs: Sequence[Epoch]) -> Recipe:
    """A recipe by which a training goes on after these epochs, though it would stop early."""
    if recipe.early_stop is None or stopped_early(recipe, epochs) is None:
        return recipe
    return replace(recipe, early_stop=replace(recipe.early_stop, after=len(epochs)))


def ends_later(run: Run, recipe: Recipe) -> bool:
    """Whether a run that has finished goes on by this recipe."""
    last = run.record.metrics
    assert last is not None
    batches = -(-run.record.data.train // recipe.batch)
    return recipe != run.recipe and recipe.num_steps(batches) > last.step


# Both


def find(data: str | Path | None, seed: int, val: str | Path | None = None) -> Images:
    """The images in a place, and those in another place to hold out; without a place, the
    digits.
    """
    from vggc.data.find import digits, find_images

    if data is None and val is not None:
        raise UserError(diagnostics.ValWithoutData())
    return digits() if data is None else find_images(data, seed, val)


def check_memory(
    program: Program,
    images: Images,
    recipe: Recipe,
    machine: TrainMachine,
    world: World,
    *,
    fixed: bool = False,
) -> None:
    """Raises: UserError when the largest batch of these images does not fit into memory, for all
    processes on this machine together. `fixed` are batches that nobody can change any more.
    """
    from vggc.data.prepare import expected_bytes

    if machine.device != "cpu":
        return
    channels, height, width = program.graph.input
    shape = (channels, height, width)
    parts = world.size * recipe.accumulate
    images_at_once = -(-min(recipe.batch, len(images.train)) // parts)
    course = replace(
        course_of(recipe, program.graph, images_at_once),
        half=machine.precision != "float32",
        by_columns=machine.precision != "float32" and lacks_half(),
        compiled=machine.compiled,
        pictures=expected_bytes(images, shape, recipe.scale),
    )
    program.check_memory(course, 1 if machine.sharded else world.local_size, fixed)
