"""Weights of others as a file of ours: `vggc import FILE --net SPEC -o OUT.safetensors`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vggc.api.trained import net_of, resized
from vggc.ir.weights import save
from vggc.preprocessing.choose import named
from vggc.support.files import check_target
from vggc.weight_files.facts import WeightFacts, metadata_of
from vggc.weight_files.load import Loaded, load
from vggc_runtime.files import sha256


@dataclass(frozen=True)
class ImportedWeights:
    """Weights that were written to `path` for a net, how they were `loaded`, and the facts that
    are written beside them.
    """

    path: Path
    net: str
    loaded: Loaded
    facts: WeightFacts

    @property
    def values(self) -> int:
        """The number of values in all weights."""
        return sum(tensor.size for tensor in self.loaded.weights.values())


def import_weights(
    path: Path,
    spec: str,
    out: Path,
    size: tuple[int, int] | None = None,
    preprocessing: str | None = None,
) -> ImportedWeights:
    """Writes the weights in a file of any form as safetensors by the names of the net of a `spec`,
    perhaps for images of another size (H, W), whole or not at all.

    The new file says how pictures are prepared where `path` does, or somebody names a preset or a
    file of `preprocessing`, and where its weights come from.

    Raises: UserError where there is no such net, the weights cannot be read or do not fit, or
    something is at `out` already.
    """
    check_target(out)
    graph = resized(net_of(spec), size).graph
    how = named(preprocessing, graph.input) if preprocessing else None
    loaded = load(path, graph)
    facts = replace(
        loaded.facts,
        preprocessing=how or loaded.facts.preprocessing,
        source=loaded.facts.source or f"{path.name}, SHA-256 {sha256(path)}",
    )
    save(out, loaded.weights, metadata_of(facts))
    return ImportedWeights(out, graph.name, loaded, facts)
