"""Which published weights a net may take, and fetching them: what `imagenet` means where weights
are named.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from vggc.ir.graph import Graph
from vggc.ir.ops import describe
from vggc.pretrained.diagnostics import NoPublishedWeights, NoSuchWeights, PublishedMisfit
from vggc.pretrained.table import IMAGENET, PUBLISHED, Published
from vggc.program import Program, from_zoo, load
from vggc.support.diagnostics import UserError, nearest
from vggc.support.paths import exists

NAMED_IMAGENET = Path(IMAGENET)
"""What names published weights among paths; a file of that name is `./imagenet`."""


def weights_file(program: Program, weights: Path | None) -> Path | None:
    """The file of weights that somebody means: of published ones that which was fetched, else the
    path itself.

    Raises: UserError where nobody has published weights that a net could take, or they cannot be
    had, or a word that is no file is nearly one that names weights.
    """
    if weights != NAMED_IMAGENET:
        refuse_misspelt(weights)
        return weights

    from vggc.pretrained.store import file_of  # which takes what speaks HTTP with it

    return file_of(published_for(program))


def refuse_misspelt(weights: Path | None) -> None:
    """Raises: UserError where a word is no file, and nearly one that names weights."""
    if weights is None or weights.suffix or exists(weights):
        return

    from vggc.training.run import BEST, LAST  # which takes numpy with it

    names = IMAGENET, str(LAST), str(BEST)
    meant = nearest(str(weights), names)
    if meant and str(weights) not in names:
        raise UserError(NoSuchWeights(str(weights), meant))


def of_artifact(folder: Path, weights: Path | None) -> Path | None:
    """The file of weights that somebody means for the net of an artifact, as `weights_file`."""
    if weights != NAMED_IMAGENET:
        return weights

    from vggc.runtime.artifact import SPEC

    return weights_file(load(str(folder / SPEC)), weights)


def published_for(program: Program) -> Published:
    """The published weights that a net takes: those of the zoo's net of its name, or of the one
    that it builds on, where all of them fit.

    Raises: UserError where there are none.
    """
    found = related(program)
    if reason := misfit(program.graph, original(found)):
        raise UserError(PublishedMisfit(found.net, reason))
    return found


def related(program: Program) -> Published:
    """The published weights of the zoo's net that a net is, or is built on, whether they fit or
    not.

    Raises: UserError where there are none.
    """
    found = next((PUBLISHED[name] for name in program.lineage if name in PUBLISHED), None)
    if found is None:
        reason = "it is none of the nets that have such, and builds on none"
        raise UserError(NoPublishedWeights(program.net.name, reason, ", ".join(PUBLISHED)))
    return found


def hint_at(spec: str, program: Program) -> str:
    """A line on the published weights that a net which commands call `spec` takes, or begins a
    training with; nothing where there are none for it.
    """
    found = next((PUBLISHED[name] for name in program.lineage if name in PUBLISHED), None)
    if found is None:
        return ""
    mine, other, given = program.graph, original(found), quote(spec)
    if misfit(mine, other) is None:
        return (
            f"weights are published: top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} % on"
            f" ImageNet; `vggc predict {given} --weights imagenet IMAGE` takes them"
        )
    theirs = other.all_weights
    alike = (n in theirs and theirs[n].shape == w.shape for n, w in mine.all_weights.items())
    if not any(alike):
        return ""
    return (
        f"weights of {found.net} are published, which layers that are alike can begin with:"
        f" `vggc train {given} --init-from imagenet`"
    )


def original(published: Published) -> Graph:
    """The zoo's net that published weights are of."""
    return from_zoo(published.net).graph


def misfit(graph: Graph, other: Graph) -> str | None:
    """Where the weights of a net first have other shapes than those of another; None where all are
    alike.
    """
    mine, theirs = [*graph.all_weights.items()], [*other.all_weights.items()]
    for (name, weight), (_, wanted) in zip(mine, theirs, strict=False):
        if weight.shape != wanted.shape:
            shapes = f"{describe(weight.shape)}, in {other.name} {describe(wanted.shape)}"
            return f"its `{name}` has the shape {shapes}"
    if len(mine) != len(theirs):
        return f"it has {len(mine)} weights, and {other.name} {len(theirs)}"
    return None
