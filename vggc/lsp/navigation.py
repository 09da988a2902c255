"""Where things are: definitions of names, and the outline of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lsprotocol import types

from vggc.ir.ops import describe
from vggc.layers.elaborate import word_span
from vggc.lsp.document import BuiltNet, Document, LayerInfo
from vggc.lsp.hover import name_under
from vggc.lsp.places import Lines
from vggc.lsp.words import Token, WordRole
from vggc.support.source import Span
from vggc.syntax import ast

SymbolKind = types.SymbolKind


def definition(
    document: Document, offset: int, uri_of: Callable[[str], str]
) -> types.Location | None:
    """Where the thing is defined that the word at an offset names."""
    token = document.token_at(offset)
    span = _defined(document, token, offset) if token else None
    if span is None:
        return None
    lines = Lines(span.source.text, document.encoding)
    return types.Location(uri_of(span.source.name), lines.range_of(span))


def _defined(document: Document, token: Token, offset: int) -> Span | None:
    match token.role:
        case WordRole.BASE:
            return _net(document.other(token.text))
        case WordRole.REFERENCE:
            return _layer(document.net, token.text)
        case WordRole.SELECTOR:
            return _layer(document.net_before(token.start), name_under(token, offset)[0])
        case WordRole.VALUE if token.place.block:
            name = name_under(token, offset)[0]
            return _layer(document.net, name) or _net(document.other(token.text))
        case WordRole.VALUE | WordRole.SUM:
            return _constant(document, token.text)
        case WordRole.LAYER:
            return _constant(document, token.text.rpartition("-")[2])
        case WordRole.PARAMETER if token.place.derived:
            return _constant(document.other(token.place.owner), token.text)
        case _:
            return None


def _net(document: Document | None) -> Span | None:
    """The name of a net in its file."""
    if document is None:
        return None
    names = (token for token in document.tokens if token.role is WordRole.NET)
    name = next(names, None)
    return Span(document.source, name.start, name.end) if name else Span(document.source, 0, 0)


def _layer(net: BuiltNet | None, name: str) -> Span | None:
    layer = net.layers.get(name) if net else None
    return layer.span if layer else None


def _constant(document: Document | None, name: str) -> Span | None:
    for token in document.tokens if document else ():
        declared = token.role is WordRole.CONSTANT or (
            token.role is WordRole.PARAMETER and not token.place.derived
        )
        if document and declared and token.text == name:
            return Span(document.source, token.start, token.end)
    return None


# The outline


def symbols(document: Document) -> list[types.DocumentSymbol]:
    """The net with its constants, layers, heads and blocks."""
    tree = document.tree
    if tree is None:
        return []
    outline = _Outline(document)
    children = [
        *outline.statements(tree),
        *outline.body(tree.body),
        *(outline.head(head) for head in tree.heads),
        *(outline.block(block) for block in tree.blocks),
    ]
    base = f"from {tree.base}" if tree.base else ""
    name = _net(document)
    place = document.lines.range_of(name or tree.span)
    whole = document.lines.range_of(tree.span)
    return [
        types.DocumentSymbol(tree.name, SymbolKind.Module, whole, place, base, None, None, children)
    ]


class _Outline:
    def __init__(self, document: Document) -> None:
        self.document = document

    def symbol(
        self,
        name: str,
        kind: types.SymbolKind,
        piece: ast.Piece,
        detail: str = "",
        children: list[types.DocumentSymbol] | None = None,
        head: Span | None = None,
    ) -> types.DocumentSymbol:
        lines = self.document.lines
        whole, place = lines.range_of(piece.span), lines.range_of(head or piece.span)
        return types.DocumentSymbol(name, kind, whole, place, detail, None, None, children)

    def statements(self, tree: ast.Net) -> Iterator[types.DocumentSymbol]:
        for statement in tree.statements:
            match statement:
                case ast.Let(name=name, value=value):
                    yield self.symbol(name, SymbolKind.Constant, statement, f"= {value}")
                case ast.Every():
                    yield self.symbol(f"every {statement.kind}", SymbolKind.Property, statement)
                case _:
                    verb = statement.span.text.split()[0]
                    title = f"{verb} {statement.selector}"
                    yield self.symbol(title, SymbolKind.Event, statement)

    def body(self, body: ast.Body) -> Iterator[types.DocumentSymbol]:
        for item in body:
            piece = item.item if isinstance(item, ast.Repeat) else item
            match piece:
                case ast.Layer() if piece.span.source.name == self.document.source.name:
                    yield self.layer(piece)
                case ast.Group(body=inner):
                    yield from self.body(inner)
                case _:
                    pass

    def layer(self, layer: ast.Layer) -> types.DocumentSymbol:
        net = self.document.net
        info = net.at(self.document.source, layer.span.start) if net else None
        name, detail = layer.name or layer.word, layer.word
        if info:
            name, detail = _title(info), f"{layer.word} · {describe(info.rows[-1].output_shape)}"
        children = [symbol for path in layer.paths for symbol in self.body(path)]
        return self.symbol(name, SymbolKind.Function, layer, detail, children, word_span(layer))

    def head(self, head: ast.Head) -> types.DocumentSymbol:
        return self.symbol(
            f"head {head.name}", SymbolKind.Interface, head, "", list(self.body(head.body))
        )

    def block(self, block: ast.Block) -> types.DocumentSymbol:
        settings = [
            self.symbol(setting.key, SymbolKind.Property, setting, setting.span.text)
            for setting in block.settings
        ]
        head = block.span.part(0, len(block.key))
        return self.symbol(block.key, SymbolKind.Object, block, "", settings, head)


def _title(info: LayerInfo) -> str:
    first, last = info.rows[0].name, info.rows[-1].name
    return first if first == last else f"{first} … {last}"
