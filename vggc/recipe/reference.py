"""The settings told to people: made from the definitions, so that it cannot lag behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any

from vggc.recipe.blocks import (
    HEAD,
    Described,
    OptionalPart,
    PerHead,
    Plain,
    Schema,
    Switch,
    Variants,
    dashed,
)
from vggc.recipe.edit import SCHEMAS
from vggc.syntax.values import NameValue, OptionEntry, told

MEANINGS = {
    "train": "How a net is trained: the paper's section 3.1, and what else its readers use.",
    "test": "How a trained net is tested: the paper's section 3.2.",
}


OF_HEAD = OptionEntry(
    HEAD,
    str(NameValue(HEAD)),
    "the main output",
    "the head that is meant, by its name",
)
"""The option of settings of which each head has its own."""


@dataclass(frozen=True)
class SettingEntry:
    """One setting of a block. `takes` is "" for those that are words alone."""

    word: str
    takes: str
    default: str
    doc: str
    example: str
    options: tuple[OptionEntry, ...] = ()


def entries(block: str) -> tuple[SettingEntry, ...]:
    """Every setting of a block, in order."""
    return tuple(_entries(SCHEMAS[block]))


def _entries(schema: Schema[Any]) -> Iterator[SettingEntry]:
    defaults = {k: str(v) for k, v in schema.flatten(schema.type()).items()}
    for key, form in schema.forms.items():
        default = defaults.get(key, "off")
        match form:
            case Plain(kind, example, doc):
                yield SettingEntry(
                    word=key, takes=str(kind), default=default, doc=doc, example=example
                )
            case Switch(example, doc):
                yield SettingEntry(
                    word=key,
                    takes="on, which may be left out, or off",
                    default=default,
                    doc=doc,
                    example=example,
                )
            case Variants(types, bare=True):
                yield from (_variant(word, owner, word == default) for word, owner in types.items())
            case Variants(types):
                for word, owner in types.items():
                    yield _variant(f"{key} {word}", owner, word == default)
            case OptionalPart(owner, value):
                takes = str(schema.kinds[key]) if value else ""
                yield SettingEntry(
                    word=key,
                    takes=takes,
                    default=default,
                    doc=owner.doc,
                    example=owner.example,
                    options=_options(owner, value),
                )
            case PerHead(owner, value):
                yield SettingEntry(
                    word=key,
                    takes=str(schema.kinds[key]),
                    default="the head's usual one",
                    doc=owner.doc,
                    example=owner.example,
                    options=(OF_HEAD, *_options(owner, value)),
                )


def _variant(word: str, owner: type[Described], is_default: bool) -> SettingEntry:
    said = "the default" if is_default else ""
    return SettingEntry(
        word=word,
        takes="",
        default=said,
        doc=owner.doc,
        example=owner.example,
        options=_options(owner),
    )


def _options(owner: type[Described], value: str | None = None) -> tuple[OptionEntry, ...]:
    return tuple(
        OptionEntry(
            dashed(f.name),
            str(f.metadata["kind"]),
            "" if f.default is MISSING else told(f.metadata["kind"], f.default),
            f.metadata["doc"],
        )
        for f in fields(owner)  # type: ignore[arg-type]
        if f.name != value and f.metadata.get("kind")
    )


def markdown() -> str:
    """The reference page of all settings."""
    lines = [
        "# Settings",
        "",
        "Made by `vggc settings --format markdown` from the definitions in `vggc/recipe`.",
        "Every word, every option and every value that is not here is an error.",
    ]
    for block in SCHEMAS:
        lines += ["", f"## {block}", "", MEANINGS[block]]
        lines += ["", "| setting | takes | unless given | |", "| --- | --- | --- | --- |"]
        for entry in entries(block):
            lines.append(f"| `{entry.example}` | {entry.takes} | {entry.default} | {entry.doc} |")
            for option in entry.options:
                default = option.default or "*must be given*"
                cells = (f"&nbsp;&nbsp;`{option.key}=`", option.takes, default, option.doc)
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
