"""A net of another framework, written as a spec and its weights, and compared with the original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggc.preprocessing.choose import ChosenPreprocessing, choose
from vggc.preprocessing.presets import TORCHVISION
from vggc.support.diagnostics import UserError
from vggc.support.files import all_or_none, check_target, new_file
from vggc.support.tensors import opened, write
from vggc.weight_files.facts import WeightFacts, metadata_of
from vggc_runtime.preprocessing import IMAGE_CHANNELS, Preprocessing

if TYPE_CHECKING:
    from vggc.importing.compare import ImportComparison
    from vggc.importing.net import ImportedNet


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What somebody asks `import` for: `out` is the path of what is written without its ending, by
    default the net's name in this folder; `size` (H, W) of an input that the net leaves open;
    `preprocessing` a preset or a file, which the weights' file then tells of.
    """

    files: tuple[str, ...]
    out: Path | None = None
    size: tuple[int, int] | None = None
    preprocessing: str | None = None


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A net that was written to `spec`, its weights to `weights` unless there are none.

    `comparison` tells how far it is from the original; where it is None, `not_compared` says why.
    """

    net: ImportedNet
    spec: Path
    weights: Path | None
    comparison: ImportComparison | None
    not_compared: str = ""


def import_net(options: ImportOptions, say: Callable[[str], None]) -> Imported:
    """Writes a foreign net as one of ours; nothing that is there is overwritten.

    Raises: UserError where the files hold no net, or one that the language cannot express, or
    something is in the place of what is to be written.
    """
    from vggc.importing.net import import_foreign
    from vggc.importing.readers import read_net
    from vggc.importing.text import identifier

    if options.out is not None:
        for path in _targets(options.out):
            check_target(path)
    foreign = read_net(options.files, options.size)
    if options.out is not None:
        foreign = replace(foreign, name=options.out.name)
    out = options.out or Path(identifier(foreign.name, 60))
    spec, weights = _targets(out)
    for path in (spec, weights):
        check_target(path)
    net = import_foreign(foreign, options.size)
    chosen = chosen_for(net, options.preprocessing)
    known = None if chosen.is_assumed else chosen.how
    facts = replace(net.foreign.facts, preprocessing=known)
    net = replace(net, foreign=replace(net.foreign, facts=facts))
    if net.graph.input[0] in IMAGE_CHANNELS:
        say(chosen.told)
    _write(net, spec, weights)
    if not foreign.has_weights:
        told = "no weights were given"
        return Imported(net=net, spec=spec, weights=None, comparison=None, not_compared=told)
    comparison, told = compared(net, weights, chosen.how, say)
    return Imported(net=net, spec=spec, weights=weights, comparison=comparison, not_compared=told)


def _targets(out: Path) -> tuple[Path, Path]:
    """The files that are written for a name, with its ending or without."""
    stem = out.name.removesuffix(".vgg").removesuffix(".safetensors")
    return out.with_name(f"{stem}.vgg"), out.with_name(f"{stem}.safetensors")


def weights_target(out: Path) -> Path:
    """The file of weights that is written for a name, with its ending or without."""
    return _targets(out)[1]


def _write(net: ImportedNet, spec: Path, weights: Path) -> None:
    """Writes both files, or none."""
    with all_or_none() as made:
        with new_file(spec) as temporary:
            temporary.write_text(net.text, "utf-8")
        made.append(spec)
        if not net.foreign.has_weights:
            return
        with new_file(weights) as temporary, temporary.open("wb") as file:
            write(file, net.pieces(), metadata_of(facts_of(net)))
        made.append(weights)


def facts_of(net: ImportedNet) -> WeightFacts:
    """What is known of a net's weights, where they come from included."""
    foreign = net.foreign
    source = ", ".join(Path(each).name for each in foreign.files)
    told = foreign.facts.source or f"{source}, SHA-256 {foreign.sha256}"
    return replace(foreign.facts, source=told[:1000])


def chosen_for(net: ImportedNet, word: str | None) -> ChosenPreprocessing:
    """What pictures go through before a net: what somebody names by a `word`, else what its files
    say, where that fits the net, else what the net itself does to them first, else what is
    assumed.

    Raises: UserError where there is no such preprocessing for the net.
    """
    from vggc.importing.brightness import white_of

    shape, foreign = net.graph.input, net.foreign
    if word is not None:
        return choose(word, None, "", shape)
    white = white_of(net.items) if foreign.facts.preprocessing is None else None
    if white is not None and shape[0] in IMAGE_CHANNELS:
        channels = shape[0]
        usual = TORCHVISION.at(shape)
        how = replace(usual, mean=(0.0,) * channels, std=(1 / white,) * channels)
        told = f"preprocessing: values from 0 to {white}, as the net itself takes them; "
        return ChosenPreprocessing(how, told + "`--preprocessing` sets another")
    try:
        return choose(None, foreign.facts.preprocessing, Path(foreign.files[0]).name, shape)
    except UserError:
        return choose(None, None, "", shape)


def compared(
    net: ImportedNet, weights: Path, how: Preprocessing, say: Callable[[str], None]
) -> tuple[ImportComparison | None, str]:
    """The net that was written beside the original, on noise and on a photograph that went through
    a preprocessing; or why not.
    """
    from vggc.importing.compare import ForeignEngineError, compare

    if net.foreign.engine is None:
        return None, net.foreign.no_engine
    say("comparing with the original")
    try:
        with opened(weights) as file:
            return compare(net, file.mapped, inputs_for(net, how)), ""
    except ForeignEngineError as fault:
        return None, f"its engine says: {fault}"


def inputs_for(net: ImportedNet, how: Preprocessing) -> dict[str, NDArray[np.float32]]:
    """What a net is compared on: normal noise, and for a net of images a photograph that went
    through a preprocessing.
    """
    from vggc.measure.photographs import photographs

    shape = net.graph.input
    noise = np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)
    if net.items.input_type.kind in "iu":
        noise = 127.5 + 40 * noise  # of whole numbers, so that they are not all 0 and 1
    found = {"random": noise}
    if shape[0] in IMAGE_CHANNELS:
        found |= dict(list(photographs(how).items())[:1])
    return found
