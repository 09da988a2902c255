"""All that is known of one text of an editor, worked out when it is first asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

from vggc.analysis.report import Row
from vggc.ir.graph import Layer
from vggc.layers.resolve import ConstantValue, constants
from vggc.lsp.places import Lines
from vggc.lsp.words import Token, WordContext, scan, token_at
from vggc.program import FindSource, Program
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.source import Source, Span
from vggc.syntax import ast
from vggc.syntax.diagnostics import FileTooLarge
from vggc.syntax.parse import MAX_FILE_BYTES, parse

MAX_CUTS = 6
"""How often a text or a tree with mistakes is cut back before nothing of it is believed."""
_REST = Source("", "…: fc-1")


@dataclass(frozen=True)
class LayerInfo:
    """The layers of the net that one piece of text stands for: one, or as many as it repeats.

    `params` and `macs` are of each of them, those of a join with all on its paths.
    """

    layers: tuple[Layer, ...]
    rows: tuple[Row, ...]
    params: tuple[int, ...]
    macs: tuple[int, ...]


@dataclass(frozen=True)
class BuiltNet:
    """A net as built, with its costs by place and by name."""

    program: Program

    @cached_property
    def rows(self) -> dict[str, Row]:
        """What each layer costs, by its name, in order; without what an editor cannot show."""
        rows = self.program.report().rows
        return {row.name: row for row in rows if row.name != _REST.text[:1]}

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Each layer by its name, in order."""
        found = {node.layer.name: node.layer for node in self.program.graph.nodes}
        return {name: layer for name, layer in found.items() if layer.span.source is not _REST}

    @property
    def names(self) -> list[str]:
        """The names of the net's layers in order."""
        return [name for name in self.layers if name != "input"]

    @cached_property
    def _names_by_place(self) -> dict[tuple[str, int], list[str]]:
        found: dict[tuple[str, int], list[str]] = defaultdict(list)
        for name, layer in self.layers.items():
            found[layer.span.source.name, layer.span.start].append(name)
        return found

    @cached_property
    def _costs(self) -> dict[str, tuple[int, int]]:
        """Parameters and MACs by name, those of a join with all on its paths."""
        found: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for row in self.rows.values():
            for name in (row.name, *row.path):
                params, macs = found[name]
                found[name] = params + row.params, macs + row.macs
        return found

    def at(self, source: Source, start: int) -> LayerInfo | None:
        """The layers that the text from `start` on stands for."""
        return self._info(self._names_by_place.get((source.name, start), []))

    def named(self, name: str) -> LayerInfo | None:
        """What is known of the layer of this name, if there is one."""
        return self._info([name] if name in self.layers else [])

    def _info(self, names: list[str]) -> LayerInfo | None:
        if not names:
            return None
        return LayerInfo(
            tuple(self.layers[name] for name in names),
            tuple(self.rows[name] for name in names),
            tuple(self._costs[name][0] for name in names),
            tuple(self._costs[name][1] for name in names),
        )


@dataclass(frozen=True)
class Document:
    """One text. `find` gives the texts of the nets that it names."""

    source: Source
    find: FindSource
    encoding: str = "utf-16"

    @classmethod
    def of(cls, name: str, text: str, find: FindSource, encoding: str = "utf-16") -> Document:
        """A document as an editor has it: read as `read_source` reads a file, no place moved."""
        if text.startswith("\ufeff"):
            text = " " + text[1:]
        return cls(Source(name, re.sub("\r(?!\n)", "\n", text)), find, encoding)

    @cached_property
    def lines(self) -> Lines:
        """The text as lines, in the units in which the editor counts characters."""
        return Lines(self.source.text, self.encoding)

    @cached_property
    def _size(self) -> int:
        return len(self.source.text.encode("utf-8", "surrogatepass"))

    @property
    def remark(self) -> str:
        """The comment that the text begins with."""
        lines = takewhile(lambda line: line.startswith("#"), self.source.text.splitlines())
        return " ".join(line.lstrip("#! ") for line in lines)

    # ---------------------------------------------------------------- words

    @cached_property
    def tokens(self) -> list[Token]:
        """The tokens of the text; none of one that is too long."""
        return scan(self.source.text)[0] if self._size <= MAX_FILE_BYTES else []

    def token_at(self, offset: int) -> Token | None:
        """The token at a character of the text."""
        return token_at(self.tokens, offset)

    def place_at(self, offset: int) -> WordContext:
        """What may stand at an offset, after all that stands before it."""
        return scan(self.source.text[:offset])[1]

    # ---------------------------------------------------------------- trees and nets

    @cached_property
    def _parsed(self) -> ast.Net | UserError:
        try:
            if self._size > MAX_FILE_BYTES:
                raise UserError(FileTooLarge(self.source.name, self._size, MAX_FILE_BYTES))
            return parse(self.source)
        except UserError as error:
            return error

    @property
    def written(self) -> ast.Net | None:
        """The tree; None where the text is not well formed."""
        return None if isinstance(self._parsed, UserError) else self._parsed

    @cached_property
    def problems(self) -> tuple[Diagnostic, ...]:
        """Everything that is wrong with the text."""
        if isinstance(self._parsed, UserError):
            return self._parsed.diagnostics
        try:
            self._whole.check()
        except UserError as error:
            return error.diagnostics
        return ()

    @cached_property
    def _whole(self) -> Program:
        """The program of a well-formed text."""
        assert self.written is not None
        return Program(self.written, find=self.find)

    @cached_property
    def tree(self) -> ast.Net | None:
        """The tree, or that of the longest beginning of the text that is well formed."""
        if not isinstance(self._parsed, UserError):
            return self._parsed
        spans = [problem.place for problem in self._parsed.diagnostics if problem.place]
        return self._beginning(spans[0].start) if spans else None

    def _beginning(self, end: int) -> ast.Net | None:
        """The tree of the text before a mistake at `end`."""
        cuts: list[int] = []
        depth, block_start = 0, -1
        for sign in re.finditer(r"#[^\n]*|[(){}|\n]", self.source.text[:end]):
            depth = max(0, depth + {"(": 1, "{": 1, ")": -1, "}": -1}.get(sign.group(), 0))
            if sign.group() == "{" and depth == 1:
                block_start = sign.start()
            if sign.group() in ("|", "\n") and depth == 0:
                cuts.append(sign.start())
        in_block = depth > 0 and block_start > (cuts[-1] if cuts else 0)
        for cut in reversed(cuts[-MAX_CUTS:]):
            net = self._parsed_to(cut)
            if net is not None:
                done = in_block or net.base or _ends_in_rest(net.body)
                return net if done else _with_rest(net, net.body)
        return None

    def _parsed_to(self, end: int) -> ast.Net | None:
        """The tree of the text before `end`, its chain still empty or not."""
        text = self.source.text[:end]
        try:
            return parse(Source(self.source.name, text))
        except UserError:
            pass
        try:
            net = parse(Source(self.source.name, f"{text} fc-1"))
        except UserError:
            return None
        begun = net.base is None and len(net.body) == 1 and net.body[0].span.start > end
        return _with_rest(net, ()) if begun else None

    @cached_property
    def net(self) -> BuiltNet | None:
        """The net as built, without the parts of the text that are wrong; None where none is."""
        return self._sound(self.tree) if self.tree else None

    def net_before(self, offset: int) -> BuiltNet | None:
        """The net as the edits before an offset leave it."""
        tree = self.tree
        if tree is None or tree.base is None:
            return self.net
        before = tuple(s for s in tree.statements if s.span.end < offset)
        if len(before) == len(tree.statements) and not tree.heads:
            return self.net
        return self._sound(replace(tree, statements=before, heads=(), blocks=()))

    def _sound(self, net: ast.Net) -> BuiltNet | None:
        """The net without what is wrong in it, as far as that can be told."""
        for _ in range(MAX_CUTS):
            program = self._whole if net is self.written else Program(net, find=self.find)
            try:
                _ = program.graph
            except UserError as error:
                places = [
                    problem.place.start
                    for problem in error.diagnostics
                    if problem.place and problem.place.source.name == self.source.name
                ]
                less = _without(net, places)
                if less is None:
                    return None
                net = less
            else:
                return BuiltNet(program)
        return None

    @cached_property
    def constants(self) -> dict[str, ConstantValue]:
        """The values of the text's constants, and of its parameters where none are given."""
        if self.tree is None:
            return {}
        try:
            return constants(self.tree)
        except UserError:
            return {}

    def other(self, name: str) -> Document | None:
        """The document of a net that this one names."""
        try:
            source = self.find(name, self.source)
        except UserError:
            return None
        return Document(source, self.find, self.encoding) if source else None


def _without(net: ast.Net, places: list[int]) -> ast.Net | None:
    """The net without its parts at some places; None where nothing can be left out.

    What is wrong with a base as edited has no place in the text: the last edit is left out.
    """

    def right(piece: ast.Piece) -> bool:
        return not any(piece.span.start <= place < piece.span.end for place in places)

    less = replace(
        net,
        parameters=tuple(filter(right, net.parameters)),
        statements=tuple(filter(right, net.statements)),
        heads=tuple(filter(right, net.heads)),
        blocks=tuple(filter(right, net.blocks)),
    )
    wrong = next((index for index, item in enumerate(net.body) if not right(item)), None)
    if wrong is not None:
        less = _with_rest(less, net.body[:wrong])
    if less == net and not places and net.base and net.statements:
        return replace(net, statements=net.statements[:-1])
    return None if less == net else less


def _ends_in_rest(body: ast.Body) -> bool:
    return bool(body) and body[-1].span.source is _REST


def _with_rest(net: ast.Net, body: ast.Body) -> ast.Net:
    """The net whose chain goes on behind `body`, so that no layer of that is its last.

    Heads that go on from the chain's end are left out.
    """
    span = Span(_REST, 0, len(_REST.text))
    rest = ast.Layer(word="fc-1", name=_REST.text[:1], span=span)
    heads = tuple(head for head in net.heads if isinstance(head.body[0], ast.Reference))
    return replace(net, body=(*body, rest), heads=heads)
