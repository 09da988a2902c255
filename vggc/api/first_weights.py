"""First weights from another net's training: what `init-from` in a recipe asks for."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.recipe.layer_names import selected, with_weights
from vggc.recipe.train import InitFrom
from vggc.support.diagnostics import UserError
from vggc.support.paths import is_folder
from vggc.support.source import Span
from vggc.training import diagnostics
from vggc.training.run import NET, RUNS, Run, runs_in
from vggc.weight_files.load import load_part


@dataclass(frozen=True)
class FirstWeights:
    """Weights that layers begin with, by their full names, the file they are from, and what the
    user should know of how they were read.
    """

    weights: Weights
    path: Path | None = None
    remark: str = ""

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
    layers = with_weights(graph)
    names = [name for layer in selected(part.layers, graph) for name in layers.get(layer, ())]
    loaded = load_part(path, graph, names, other)
    return FirstWeights(loaded.weights, path, loaded.told)


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
