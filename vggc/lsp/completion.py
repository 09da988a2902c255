"""What could be written at a place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields

from lsprotocol import types

from vggc.layers.elaborate import kind_of
from vggc.layers.kinds import KINDS, JoinKind, Kind
from vggc.layers.resolve import PARAMETERS
from vggc.lsp import reference
from vggc.lsp.document import Document
from vggc.lsp.hover import layer_info
from vggc.lsp.words import EDITS, WordContext, WordRole, in_comment
from vggc.syntax import ast
from vggc.syntax.values import NameList, NameValue
from vggc.syntax.values import ValueKind as ValueKind

ItemKind = types.CompletionItemKind


@dataclass(frozen=True)
class CompletionOffer:
    """Something that could stand here: its text, and what it is."""

    text: str
    kind: types.CompletionItemKind
    doc: str = ""
    snippet: str = ""
    """The text with places to fill in, for editors that know such."""


def complete(
    document: Document, offset: int, nets: Sequence[str], *, snippets: bool = False
) -> list[types.CompletionItem]:
    """What fits at an offset, in the order of its definition. `nets` are those it could name."""
    text = document.source.text
    if in_comment(text, offset):
        return []
    start = offset
    while start > 0 and (text[start - 1].isalnum() or text[start - 1] in "_.-"):
        start -= 1
    prefix = text[start:offset]
    place = document.place_at(start)
    at_line_start = not text[text.rfind("\n", 0, start) + 1 : start].strip()
    offers = list(_offers(document, place, start, prefix, nets, at_line_start=at_line_start))
    start += _settled(place, prefix)
    return [
        _item(offer, document.lines.range(start, offset), rank, snippets)
        for rank, offer in enumerate(offers)
    ]


_LAYERS = (WordRole.LAYER, WordRole.BEHIND_LAYER, WordRole.STATEMENT)


def _settled(place: WordContext, prefix: str) -> int:
    """How much of a word is before what is being written: `conv3-` and `conv1_1..` are."""
    if place.expects in _LAYERS:
        return prefix.rfind("-") + 1
    return prefix.rfind("..") + 2 if ".." in prefix else 0


def _item(
    offer: CompletionOffer, place: types.Range, rank: int, snippets: bool
) -> types.CompletionItem:
    written = offer.snippet if snippets and offer.snippet else offer.text
    item = types.CompletionItem(
        offer.text,
        kind=offer.kind,
        sort_text=f"{rank:04}",
        text_edit=types.TextEdit(place, written),
    )
    if offer.doc:
        item.documentation = types.MarkupContent(types.MarkupKind.Markdown, offer.doc)
    if written == offer.snippet and written:
        item.insert_text_format = types.InsertTextFormat.Snippet
    return item


def _offers(
    document: Document,
    place: WordContext,
    start: int,
    prefix: str,
    nets: Sequence[str],
    *,
    at_line_start: bool,
) -> Iterator[CompletionOffer]:
    """What fits at a place, before what was typed of it."""
    in_layer = place.expects in _LAYERS
    if in_layer and (stem := prefix.rpartition("-")[0]):
        if kind_of(stem):
            yield from _constants(document)
        return
    match place.expects:
        case WordRole.START:
            yield from _keywords("net")
        case WordRole.HEADER:
            yield from _keywords("from", "input")
        case WordRole.BASE:
            yield from _nets(document, nets)
        case WordRole.PARAMETER if place.derived:
            yield from _parameters(document.other(place.owner))
        case WordRole.STATEMENT:
            if place.derived:
                yield from _keywords("input")
            yield from _statements(place)
            if not place.derived:
                yield from _layers()
        case WordRole.SUM:
            yield from _constants(document)
            yield from _keywords("round")
        case WordRole.KIND:
            yield from _kinds()
        case WordRole.SELECTOR:
            yield from _keywords("every")
            yield from _layer_names(document, start)
        case WordRole.LINK:
            yield from _keywords("with" if place.verb == "replace" else "insert")
        case WordRole.LAYER:
            yield from _layers()
        case WordRole.BEHIND_LAYER | WordRole.OPTION if not place.block:
            yield from _options(document, place, start)
            if at_line_start:
                yield from _statements(place)
            if at_line_start and place.expects is WordRole.OPTION and not place.derived:
                yield from _layers()
        case WordRole.REFERENCE:
            yield from _layer_names(document, start)
        case WordRole.SETTING:
            for word in reference.settings(place.block):
                yield CompletionOffer(word, ItemKind.Property, reference.setting(place.block, word))
        case WordRole.BEHIND_SETTING:
            if not place.said:
                kind = reference.value_kind(place.block, place.setting)
                yield from _values(document, kind, nets)
            kinds = reference.setting_options(place.block, place.setting, place.said)
            for key in kinds:
                doc = reference.setting_option(place.block, place.setting, place.said, key)
                yield CompletionOffer(f"{key}=", ItemKind.Field, doc)
        case WordRole.VALUE if place.block and not place.key:
            yield from _values(document, reference.value_kind(place.block, place.setting), nets)
        case WordRole.VALUE if place.block:
            kinds = reference.setting_options(place.block, place.setting, place.said)
            yield from _values(document, kinds.get(place.key), nets)
        case WordRole.VALUE:
            kind_here = _kind_at(document, place, start)
            param = kind_here.params().get(place.key) if kind_here else None
            yield from _values(document, param.kind if param else None, nets)
            yield from _constants(document)
        case _:
            pass


def _keywords(*words: str) -> Iterator[CompletionOffer]:
    return (CompletionOffer(word, ItemKind.Keyword, reference.keyword(word)) for word in words)


def _statements(place: WordContext) -> Iterator[CompletionOffer]:
    """What a line can begin with behind a net's head."""
    yield from _keywords("let", "every", *(EDITS if place.derived else ()), "head")
    for block in ("train", "test"):
        snippet = f"{block} {{\n  $0\n}}"
        yield CompletionOffer(block, ItemKind.Module, reference.keyword(block), snippet)


def _layers() -> Iterator[CompletionOffer]:
    for kind in KINDS:
        yield CompletionOffer(
            kind.name, ItemKind.Function, reference.layer_kind(kind), _snippet(kind)
        )


def _snippet(kind: type[Kind]) -> str:
    """The word with its numbers to fill in, as in the kind's example."""
    if issubclass(kind, JoinKind):
        return f"{kind.name}($1, $2)"
    needed = [f.name for f in fields(kind) if f.default is MISSING]  # type: ignore[arg-type]
    size, width = re.findall(r"^[a-z]+(\d*)-?(\d*)", kind.example)[0]
    text = kind.name
    if "size" in needed:
        text += f"${{1:{size}}}"
    if "width" in needed:
        text += f"-${{2:{width}}}"
    return text if needed else ""


def _kinds() -> Iterator[CompletionOffer]:
    for kind in KINDS:
        yield CompletionOffer(kind.name, ItemKind.Class, reference.layer_kind(kind))


def _nets(document: Document, nets: Iterable[str]) -> Iterator[CompletionOffer]:
    for name in nets:
        other = document.other(name)
        yield CompletionOffer(name, ItemKind.Module, other.remark if other else "")


def _parameters(base: Document | None) -> Iterator[CompletionOffer]:
    own = base.tree.parameters if base and base.tree else ()
    for parameter in own:
        doc = f"`{parameter.key}`; default {parameter.value}"
        yield CompletionOffer(f"{parameter.key}=", ItemKind.Field, doc)
    for key in PARAMETERS:
        if key not in {parameter.key for parameter in own}:
            yield CompletionOffer(f"{key}=", ItemKind.Field, reference.parameter(key))


def _constants(document: Document) -> Iterator[CompletionOffer]:
    for name, value in document.constants.items():
        yield CompletionOffer(name, ItemKind.Constant, f"`{name}` = {value}")


def _layer_names(document: Document, start: int) -> Iterator[CompletionOffer]:
    """The layers that a name at an offset can mean."""
    net = document.net_before(start)
    if net is None:
        return
    for name in net.names:
        layer = net.layers[name]
        later = layer.span.source.name == document.source.name and layer.span.start >= start
        info = net.named(name)
        if not later and info:
            yield CompletionOffer(name, ItemKind.Variable, layer_info(info))


def _kind_at(document: Document, place: WordContext, start: int) -> type[Kind] | None:
    """The kind of layer whose options stand at a place."""
    if kind := kind_of(place.owner):
        return kind
    net = document.net_before(start) if place.verb else None
    info = net.named(place.owner.partition("..")[0]) if net else None
    return kind_of(info.layers[0].kind) if info else None


def _options(document: Document, place: WordContext, start: int) -> Iterator[CompletionOffer]:
    kind = _kind_at(document, place, start)
    if kind is None:
        return
    in_word = ("size", "width") if not place.verb else ()
    given = _given(document.tree, place.anchor)
    for key in kind.params():
        if key not in given and key not in in_word:
            yield CompletionOffer(f"{key}=", ItemKind.Field, reference.layer_option(kind, key))


def _given(tree: ast.Net | None, anchor: int) -> set[str]:
    """The options that the layer at an offset has already."""
    bodies = tree.bodies if tree and anchor >= 0 else ()
    layers = (piece for body in bodies for piece in ast.pieces(body))
    found = (p for p in layers if isinstance(p, ast.Layer) and p.span.start == anchor)
    return {option.key for layer in found for option in layer.options}


def _values(
    document: Document, kind: ValueKind | None, nets: Sequence[str]
) -> Iterator[CompletionOffer]:
    """What can stand for a value of a kind, as far as that can be listed."""
    if kind is None:
        return
    inner = getattr(kind, "kind", kind)
    if isinstance(inner, NameValue | NameList) and inner.what in ("net", "nets"):
        yield from _nets(document, nets)
    elif isinstance(inner, NameList) and document.net:
        for name in document.net.names:
            info = document.net.named(name)
            yield CompletionOffer(name, ItemKind.Variable, layer_info(info) if info else "")
    for word in reference.values(kind):
        yield CompletionOffer(word, ItemKind.EnumMember)
