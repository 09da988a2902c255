"""In how many bits numbers are multiplied: one name for each, in options, code and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypeVar, get_args

from vggc.support.diagnostics import Diagnostic, UserError, listed, nearest

TrainPrecision: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""What layers compute in while PyTorch runs them."""
ArtifactPrecision: TypeAlias = Literal["float32", "tf32", "bfloat16", "float16", "int8"]
"""What an artifact's convolutions and dense layers multiply in."""
Precision: TypeAlias = Literal["float32", "tf32", "bfloat16", "float16", "int8"]

P = TypeVar("P", bound=str)

TRAIN_PRECISIONS: tuple[TrainPrecision, ...] = get_args(TrainPrecision)
ARTIFACT_PRECISIONS: tuple[ArtifactPrecision, ...] = get_args(ArtifactPrecision)
PRECISION_TYPES = (TrainPrecision, ArtifactPrecision, Precision)
"""The types above, whose values files may hold in older words."""
NUMBER_BYTES: dict[Precision, int] = {
    "float32": 4,
    "tf32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int8": 1,
}

SPELLINGS: dict[str, Precision] = {
    "fp32": "float32",
    "f32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
}
"""Other words for a precision, which options take and older files hold."""


class UnknownPrecision(Diagnostic):
    title = "there is no precision `{text}` here"
    label = "{hint}"

    text: str
    hint: str


def precision_name(text: str) -> str:
    """The one name of a precision; any other text as it is."""
    return SPELLINGS.get(text, text)


def parse_precision(text: str, known: Sequence[P]) -> P:
    """The name, among the `known` ones, of the precision that a user calls `text`.

    Raises:
        UserError: none is called so.
    """
    name = precision_name(text.lower())
    found = [each for each in known if each == name]
    if not found:
        words: list[str] = [*known, *(word for word, meant in SPELLINGS.items() if meant in known)]
        near = "" if name in NUMBER_BYTES else precision_name(nearest(name, words))
        hint = f"did you mean `{near}`?" if near else f"known: {listed(known)}"
        raise UserError(UnknownPrecision(text, hint))
    return found[0]
