"""Diagnostics as an editor shows them: each at its place, with its reason and its suggestion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from lsprotocol import types

from vggc.lsp.document import Document
from vggc.lsp.places import Lines
from vggc.lsp.words import WordRole
from vggc.support.diagnostics import Diagnostic
from vggc.support.source import Span

SOURCE = "vggc"


def diagnostics(document: Document, uri_of: Callable[[str], str]) -> list[types.Diagnostic]:
    """All that is wrong with a text. `uri_of` gives the address of a source by its name.

    A mistake in another file that this one names is shown where it is named, and refers to
    its own place; one without a place is shown on the first line. Each refers to its second place.
    """
    return [_shown(problem, document, uri_of) for problem in document.problems]


def _shown(
    problem: Diagnostic, document: Document, uri_of: Callable[[str], str]
) -> types.Diagnostic:
    title = problem.fill(problem.title)
    reason, hint = problem.fill(problem.label), problem.fill(problem.help)
    message = "\n".join(filter(None, [title, reason, f"help: {hint}" if hint else ""]))
    shown = types.Diagnostic(
        document.lines.range(*_place(problem.place, document)),
        message,
        severity=types.DiagnosticSeverity.Error,
        source=SOURCE,
    )
    related = []
    if problem.place and problem.place.source.name != document.source.name:
        related.append((problem.place, title))
    if problem.second_place:
        related.append((problem.second_place, problem.fill(problem.second_label)))
    if related:
        shown.related_information = [
            types.DiagnosticRelatedInformation(_location(span, document, uri_of), said)
            for span, said in related
        ]
    return shown


def _location(span: Span, document: Document, uri_of: Callable[[str], str]) -> types.Location:
    lines = Lines(span.source.text, document.encoding)
    return types.Location(uri_of(span.source.name), lines.range_of(span))


def _place(span: Span | None, document: Document) -> tuple[int, int]:
    text = document.source.text
    if span is not None and span.source.name == document.source.name:
        return span.start, span.end
    named = next(_naming(document, Path(span.source.name).stem), None) if span else None
    if named is not None:
        return named
    start = len(text) - len(text.lstrip())
    end = text.find("\n", start)
    return start, len(text) if end < 0 else end


def _naming(document: Document, net: str) -> Iterator[tuple[int, int]]:
    """Where a text names another net: by its own name, or else as the one it is built on."""
    tokens = [t for t in document.tokens if t.role in (WordRole.BASE, WordRole.VALUE)]
    yield from ((token.start, token.end) for token in tokens if token.text == net)
    yield from ((token.start, token.end) for token in tokens if token.role is WordRole.BASE)
