"""The vocabulary told to people: made from the definitions, so that it cannot lag behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vggc.layers.kinds import KINDS, JoinKind, Kind
from vggc.syntax.values import OptionEntry, told


@dataclass(frozen=True)
class KindEntry:
    """One kind of layer. `form` shows where the numbers in its word stand."""

    name: str
    aliases: tuple[str, ...]
    doc: str
    form: str
    example: str
    options: tuple[OptionEntry, ...]


def entries() -> tuple[KindEntry, ...]:
    """Every kind, in the order of the vocabulary."""
    return tuple(map(entry, KINDS))


def entry(kind: type[Kind]) -> KindEntry:
    """What the reference says of a kind of layer."""
    defaults = kind.defaults()
    options = tuple(
        OptionEntry(key, str(param.kind), _default(kind, key, defaults), param.doc)
        for key, param in kind.params().items()
    )
    return KindEntry(
        name=kind.name,
        aliases=kind.aliases,
        doc=kind.doc,
        form=_form(kind),
        example=kind.example,
        options=options,
    )


def _default(kind: type[Kind], key: str, defaults: dict[str, Any]) -> str:
    if key not in defaults:
        return ""
    param = kind.params()[key]
    return param.default if defaults[key] is None else told(param.kind, defaults[key])


def _form(kind: type[Kind]) -> str:
    """`convSIZE-WIDTH`: the word, with brackets around what may be left out."""
    params, defaults = kind.params(), kind.defaults()
    form = kind.name
    if "size" in params and kind.name != "lrn":
        form += "[SIZE]" if "size" in defaults else "SIZE"
    if "width" in params:
        form += "[-WIDTH]" if "width" in defaults else "-WIDTH"
    return form + ("(PATH, PATH, …)" if issubclass(kind, JoinKind) else "")


def markdown() -> str:
    """The reference page of all layers."""
    lines = [
        "# Layers",
        "",
        "Made by `vggc layers --format markdown` from the definitions in `vggc/layers/kinds.py`.",
        "Every word, every option and every value that is not here is an error.",
        "",
        "| layer | what it is |",
        "| --- | --- |",
        *(f"| [`{e.form}`](#{e.name}) | {e.doc} |" for e in entries()),
    ]
    for e in entries():
        lines += ["", *_section(e)]
    return "\n".join(lines) + "\n"


def _section(entry: KindEntry) -> list[str]:
    also = f" Also written {' or '.join(f'`{alias}`' for alias in entry.aliases)}."
    lines = [
        f"## {entry.name}",
        "",
        entry.doc + (also if entry.aliases else ""),
        "",
        f"    {entry.example}",
    ]
    if entry.options:
        lines += ["", "| option | takes | unless given | |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{o.key}` | {o.takes} | {o.default or '*must be given*'} | {o.doc} |"
            for o in entry.options
        ]
    return lines
