"""Which preprocessing somebody means, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vggc.preprocessing import diagnostics
from vggc.preprocessing.file import read_preprocessing
from vggc.preprocessing.presets import PRESETS, TORCHVISION
from vggc.recipe.lengths import for_input
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.paths import exists
from vggc_runtime.preprocessing import Preprocessing


@dataclass(frozen=True)
class ChosenPreprocessing:
    """A preprocessing, and a line on where it comes from for whoever reads pictures; whether it is
    only assumed.
    """

    how: Preprocessing
    told: str
    is_assumed: bool = False


def named(word: str, shape: tuple[int, ...]) -> Preprocessing:
    """The preprocessing of a preset of this name, or of a file, for inputs of a shape (C, H, W).

    Raises: UserError where there is none for them.
    """
    if word in PRESETS:
        return PRESETS[word].at(shape)
    if not exists(Path(word)):
        raise UserError(diagnostics.UnknownPreset(word, did_you_mean(word, [*PRESETS])))
    return read_preprocessing(Path(word), shape)


def choose(
    word: str | None, known: Preprocessing | None, source: str, shape: tuple[int, ...]
) -> ChosenPreprocessing:
    """What the pictures of weights go through, for inputs of a shape (C, H, W): what somebody has
    named by `word`; else what is `known` of the weights, in proportion where it is for another
    size; else what torchvision's go through, as most weights that people have.

    `source` is what the weights are called.

    Raises: UserError where there is none such for these inputs.
    """
    if word is not None:
        told = f"preprocessing: {word}'s" if word in PRESETS else f"preprocessing: that in {word}"
        return ChosenPreprocessing(named(word, shape), told)
    if known is None:
        told = "preprocessing: torchvision's, assumed; `--preprocessing` sets another"
        return ChosenPreprocessing(TORCHVISION.at(shape), told, is_assumed=True)
    channels, *size = shape
    found = known
    if problem := found.problem((channels, *found.size)):
        reason = problem.removeprefix("preprocessing: ")
        hint = "say what these weights take: `--preprocessing`"
        raise UserError(diagnostics.PreprocessingFile(source, reason, hint))
    height, width = size
    if found.size != (height, width):
        found = for_input(found, (height, width))
    return ChosenPreprocessing(found, f"preprocessing: that of {source}")
