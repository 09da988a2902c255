"""What `compile` and `export` work on: a net, its weights, and what its inputs are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vggc.analysis.report import Report
from vggc.api.published import weights_file
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights, seeded
from vggc.passes.channel_order import in_rgb
from vggc.preprocessing.choose import ChosenPreprocessing, choose
from vggc.pretrained.facts import facts_of as published_facts
from vggc.pretrained.store import published_at
from vggc.program import Program, load, with_input
from vggc.recipe.lengths import for_input
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.paths import is_run
from vggc.support.precision import Precision
from vggc.training.run import BEST, LAST, Run
from vggc.weight_files.facts import WeightFacts
from vggc.weight_files.forms import open_weights
from vggc.weight_files.load import load as load_weights
from vggc_runtime.preprocessing import IMAGE_CHANNELS, Preprocessing


class PreprocessingOfRun(Diagnostic):
    title = "{run} was trained with a preprocessing of its own"
    label = "`--preprocessing` is for weights from elsewhere"
    help = "leave it out, or give such weights: `--weights FILE`"
    run: str


@dataclass(frozen=True)
class Subject:
    """A net with weights, as `compile` and `export` take it.

    `named` is what commands call it, a spec or the folder of a run, and `weights_from` says where
    its weights come from, in words; `seed` is that of random weights, None for others. Where a
    user should know where the preprocessing comes from, `preprocessing_from` says it; `matched`
    says how weights of other names or forms were read.
    """

    named: str
    program: Program
    weights: Weights
    weights_from: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    seed: int | None = None
    preprocessing_from: str = ""
    matched: str = ""


@dataclass(frozen=True)
class NetOfRun:
    """A net that goes with the weights of a run: the run's own, or one with another input or
    recipe.
    """

    program: Program
    run: Run


def net_of(spec: str) -> Program:
    """The net of a run, of a file, or of that name in the zoo.

    Raises: UserError when there is no such thing, or it is not well formed.
    """
    return net_in(Run.load(Path(spec))) if is_run(spec) else load(spec)


def net_in(run: Run) -> Program:
    """The net of a run as trained.

    Raises: UserError when it is not the one that the run's record describes.
    """
    program = load(str(run.net_path))
    run.require_fit(program.graph)
    return program


def part_at_once(run: Run) -> int:
    """The images that a run has in memory at once: those of a step, or of a part of one."""
    recipe = run.recipe
    return -(-min(recipe.batch, run.record.data.train) // recipe.accumulate)


def resized(program: Program, size: tuple[int, int] | None) -> Program:
    """The program of the net with another input size (H, W), if one is given."""
    return program if size is None else program.replace(with_input(program.net, size))


def cost_of(
    run: Run, program: Program, batch: int | None = None, dtype: Precision = "float32"
) -> Report:
    """What the net of a run costs as it is trained: in its batches, unless others are meant, in
    its precision and with the images that it keeps in memory.
    """
    record = run.record
    half = record.precision != "float32"
    return program.report(batch or part_at_once(run), dtype, half, record.data.pictures)


def from_run(
    run: Run,
    weights: Path | None,
    program: Program | None = None,
    preprocessing: str | None = None,
) -> Subject:
    """The net of a run, with the weights that are meant (see `Run.file_of`), as trained unless
    another `program` is given, of another input size for one. Other weights than the run's may have
    a `preprocessing` of their own, a preset or a file.

    Raises: UserError when the run has no such weights, or they do not fit.
    """
    program = program or net_in(run)
    weights = weights_file(program, weights)
    path, graph = run.file_of(weights), program.graph
    chosen = preprocessing_of(run, weights, graph, preprocessing)
    loaded = load_weights(path, graph)
    found, how = in_rgb(graph, loaded.weights, chosen.how)
    return Subject(
        named=str(run.folder),
        program=program,
        weights=found,
        weights_from=str(path),
        preprocessing=how,
        classes=run.record.classes,
        preprocessing_from=chosen.told,
        matched=loaded.told,
    )


def preprocessing_of(
    run: Run, weights: Path | None, graph: Graph, word: str | None
) -> ChosenPreprocessing:
    """What pictures go through before the net of a run, a `graph` that may be for another input
    size, with the weights that are meant: what the run's did. Weights from elsewhere may have a
    preprocessing of their own, which their file tells of or somebody names by a `word`.

    Raises: UserError where there is none such, or the weights are the run's own.
    """
    if weights in (None, LAST, BEST):
        if word is not None:
            raise UserError(PreprocessingOfRun(str(run.folder)))
    elif (known := facts_of(weights).preprocessing) or word is not None:
        return choose(word, known, called(weights), graph.input)
    how = run.record.preprocessing
    _, height, width = graph.input
    return ChosenPreprocessing(
        how if how.size == (height, width) else for_input(how, (height, width)), ""
    )


def facts_of(weights: Path) -> WeightFacts:
    """What is known of the weights in a file: of a run's what its record says, of published ones
    what their publisher does, of others what the file does.

    Raises: UserError where it cannot be read, or says what nobody understands.
    """
    if recorded := recorded_facts(weights):
        return recorded
    with open_weights(weights) as file:
        return file.facts


def recorded_facts(weights: Path) -> WeightFacts | None:
    """What is written down elsewhere of the weights in a file: in the record of a run, where they
    are a run's, and by their publisher, where they are published ones.

    Raises: UserError where the record is not sound.
    """
    if published := published_at(weights):
        return published_facts(published)
    if not is_run(weights.parent):
        return None
    run = Run.load(weights.parent)
    if weights not in (run.weights_path, run.best_path):
        return None
    return WeightFacts(run.record.preprocessing, run.record.classes, str(run.folder))


def called(weights: Path | None) -> str:
    """What users are told of the weights in a file: whose they are, of published ones, which tell
    nothing of themselves; else the file.
    """
    published = published_at(weights) if weights else None
    return published.title if published else str(weights)


def from_spec(
    program: Program,
    weights: Path | None,
    seed: int,
    named: str | None = None,
    preprocessing: str | None = None,
) -> Subject:
    """A net with weights from a file, or random ones; `named` is the spec that it was asked by. The
    `preprocessing` is a preset or a file; without one, what the file of the weights says counts,
    and where that says nothing torchvision's.

    Raises: UserError when there are no such weights, or no such preprocessing for the net.
    """
    graph = program.graph
    weights = weights_file(program, weights)
    loaded = load_weights(weights, graph) if weights else None
    known = weights and recorded_facts(weights)
    facts = known or (loaded.facts if loaded else WeightFacts())
    chosen = choose(preprocessing, facts.preprocessing, called(weights), graph.input)
    found, how = in_rgb(graph, loaded.weights if loaded else seeded(graph, seed), chosen.how)
    is_told = (weights or preprocessing) and graph.input[0] in IMAGE_CHANNELS
    return Subject(
        named=named or program.net.name,
        program=program,
        weights=found,
        weights_from=str(weights) if weights else f"seed {seed}",
        preprocessing=how,
        classes=facts.classes if len(facts.classes) == graph.num_classes else (),
        seed=None if weights else seed,
        preprocessing_from=chosen.told if is_told else "",
        matched=loaded.told if loaded else "",
    )
