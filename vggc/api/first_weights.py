"""First weights from another net's training: what `init-from` in a recipe asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from vggc.api.published import NAMED_IMAGENET, original, related
from vggc.api.trained import recorded_facts
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.passes.channel_order import first_weights
from vggc.pretrained.diagnostics import NothingPublishedFits
from vggc.pretrained.store import file_of
from vggc.pretrained.table import IMAGENET
from vggc.program import Program
from vggc.recipe.layer_names import layer_names, selected, with_weights
from vggc.recipe.train import InitFrom
from vggc.support.diagnostics import UserError, listed
from vggc.support.paths import is_folder
from vggc.support.source import Span
from vggc.training import diagnostics
from vggc.training.run import NET, RUNS, Run, runs_in
from vggc.weight_files.load import Loaded, load_part
from vggc_runtime.preprocessing import Preprocessing


@dataclass(frozen=True)
class FirstWeights:
    """Weights that layers begin with, by their full names, the file they are from, and what the
    user should know of how they were read. Where the first layers of a net are among them, pictures
    have the mean and the deviation of `preprocessing`, if it is known.
    """

    weights: Weights
    path: Path | None = None
    remark: str = ""
    preprocessing: Preprocessing | None = None

    def prepared(self, own: Preprocessing) -> Preprocessing:
        """What pictures go through in a training that begins with these weights: what they do on
        their `own`, but to values that the weights know.
        """
        how = self.preprocessing
        if how is None:
            return own
        return replace(own, mean=how.mean, std=how.std, order=how.order)

    @property
    def net(self) -> Path | None:
        """The file of the net that the weights are of, where they are a run's; else None."""
        path = self.path.with_name(NET) if self.path else None
        return path if path and path.is_file() else None


def taken_weights(
    part: InitFrom | None,
    graph: Graph,
    other: Graph | None,
    source: Path | None,
    span: Span | None,
    which: Path | None = None,
) -> FirstWeights:
    """The weights that layers of `graph` begin with.

    They come from `source`, a run or a file of weights; without one, from the last run of the
    net that is named. `other` is its graph, where that is known, in which a file of others
    is matched. `which` of a run's weights are meant is as in `Run.file_of`. `span` is where
    the net is named.

    Raises:
        UserError: there are no such weights, or they do not fit.
    """
    if part is None:
        if source is not None or which is not None:
            raise UserError(diagnostics.InitFromInVain(str(source or which), graph.name))
        return FirstWeights({})
    path = weights_path(part.net, source, span, which)
    loaded = load_part(path, graph, names_in(part, graph), other)
    return begun(graph, loaded, loaded.told)


def names_in(part: InitFrom, graph: Graph) -> list[str]:
    """The full names of the weights of the layers that are meant."""
    layers = with_weights(graph)
    return [name for layer in selected(part.layers, graph) for name in layers.get(layer, ())]


def begun(graph: Graph, loaded: Loaded, remark: str) -> FirstWeights:
    """The weights from a file, with the preprocessing that is known of them where they are those
    that read pictures.
    """
    reads_pictures = not loaded.weights.keys().isdisjoint(first_weights(graph))
    known = None
    if reads_pictures:
        known = (recorded_facts(loaded.path) or loaded.facts).preprocessing
    return FirstWeights(loaded.weights, loaded.path, remark, known)


def takes_published(part: InitFrom | None, source: Path | None) -> bool:
    """Whether layers begin with published weights."""
    return source == NAMED_IMAGENET or (
        source is None and part is not None and part.net == IMAGENET
    )


def published_weights(
    part: InitFrom, program: Program, graph: Graph, which: Path | None
) -> FirstWeights:
    """The published weights that layers of `graph` begin with, the net of a `program` as it is
    trained. Those of other shapes there, as of another number of classes, begin anew.

    Raises:
        UserError: there are none, they cannot be had, or fit nowhere.
    """
    if which is not None:
        raise UserError(diagnostics.WeightsOfNoRun(str(which), IMAGENET))
    published = related(program.other(part.net) or program)
    other = original(published)
    wanted = names_in(part, graph)
    names = [name for name in wanted if is_alike(name, graph, other)]
    if not names:
        raise UserError(NothingPublishedFits(graph.name, published.net))
    loaded = load_part(file_of(published), graph, names, other)
    anew = [layer for layer, own in with_weights(graph).items() if {*own}.isdisjoint(names)]
    told = f"weights: {published.title}"
    if anew:
        told += f"; {listed(anew)} begin{'s' * (len(anew) == 1)} anew"
    return begun(graph, loaded, told)


def is_alike(name: str, graph: Graph, other: Graph) -> bool:
    """Whether two nets have a weight of a name with the same shape."""
    there = other.all_weights.get(name)
    return there is not None and there.shape == graph.all_weights[name].shape


def published_layers(program: Program, graph: Graph) -> tuple[str, ...]:
    """The layers of `graph`, the net of a `program` as it is trained, that can begin with published
    weights: names and ranges, as a recipe has them.

    Raises:
        UserError: there are none.
    """
    published = related(program)
    other = original(published)
    layers = with_weights(graph)
    alike = {
        layer: all(is_alike(name, graph, other) for name in names)
        for layer, names in layers.items()
    }
    order = [layer for layer in layer_names(graph) if layer in alike]
    runs = [[*group] for fits, group in groupby(order, key=lambda layer: alike[layer]) if fits]
    if not runs:
        raise UserError(NothingPublishedFits(graph.name, published.net))
    return tuple(run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


def weights_path(
    net: str, source: Path | None, span: Span | None, which: Path | None = None
) -> Path:
    """The file of the first weights.

    Raises:
        UserError: `source` is the run of another net or has no weights, or there is no run.
    """
    if source is None:
        run = last_run(net)
        if run is None:
            raise UserError(diagnostics.NoTrainedNet(net, str(RUNS), place=span))
        return run.file_of(which)
    if not is_folder(source):
        if which is not None:
            raise UserError(diagnostics.WeightsOfNoRun(str(which), str(source)))
        return source
    run = Run.load(source)
    if run.record.net != net:
        raise UserError(diagnostics.RunOfAnotherNet(net, str(source), run.record.net, place=span))
    return run.file_of(which)


def last_run(net: str) -> Run | None:
    """The run of a net that started last, of those that have weights; rather one that has ended."""
    runs = [run for run in runs_in(RUNS) if run.record.net == net and run.has_weights]
    order = attrgetter("ended", "record.started", "folder.name")
    return max(runs, key=order, default=None)
