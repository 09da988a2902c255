"""The language server: the editor's documents, and answers about them over stdio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec, TypeAlias, TypeVar

from lsprotocol import types
from pygls import uris
from pygls.lsp.server import LanguageServer

from vggc.lsp.completion import complete
from vggc.lsp.document import Document
from vggc.lsp.hover import hover
from vggc.lsp.navigation import definition, symbols
from vggc.lsp.problems import diagnostics
from vggc.program import beside, zoo
from vggc.support.source import Source
from vggc.syntax.format import format_net
from vggc.syntax.parse import read_source
from vggc_runtime.version import __version__

PAUSE = 0.05
"""Seconds without a change before a text is checked: whoever types fast is not checked behind."""

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
Question: TypeAlias = types.HoverParams | types.CompletionParams | types.DefinitionParams


def safely(answer: Callable[P, T]) -> Callable[P, T | None]:
    """A function that answers as `answer` does, and with None where that fails, which is logged."""

    @wraps(answer)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return answer(*args, **kwargs)
        except Exception:
            logger.exception("%s failed: this is a bug in vggc", answer.__name__)
            return None

    return guarded


class Server:
    """What is open in the editor. All work is done between two messages, on one thread."""

    def __init__(self) -> None:
        # Whole texts: pygls would apply changes by lines that end at other signs than `\n`.
        sync = types.TextDocumentSyncKind.Full
        self.protocol = LanguageServer("vggc", __version__, text_document_sync_kind=sync)
        self.documents: dict[str, Document] = {}
        """What is open, by the name of its source."""
        self.uris: dict[str, str] = {}
        self.versions: dict[str, int | None] = {}
        self.named: dict[str, set[str]] = {}
        """The files that each document asked for, whether they are there or not."""
        self.waiting: dict[str, asyncio.TimerHandle] = {}
        self.was_shut_down = False

    # ---------------------------------------------------------------- documents

    def find(self, name: str, source: Source, *, asking: str) -> Source | None:
        """The text of a net that another text names: an open one before one on the disk."""
        path = Path(source.name).parent / f"{name}.vgg"
        self.named.setdefault(asking, set()).add(str(path))
        if str(path) in self.documents and str(path) != source.name:
            return self.documents[str(path)].source
        unsaved = path.is_absolute() and not Path(source.name).exists()
        return read_source(path) if unsaved and path.is_file() else beside(name, source)

    def put(self, uri: str, text: str, version: int | None) -> None:
        """Takes in a text, and has it and all that build on it checked."""
        name = _name(uri)
        self.uris[name], self.versions[name], self.named[name] = uri, version, set()
        encoding = types.PositionEncodingKind(self.protocol.workspace.position_encoding).value
        find = partial(self.find, asking=name)
        self.documents[name] = Document.of(name, text, find, encoding)
        self.renew(name)

    def renew(self, changed: str) -> None:
        """Has checked whatever a file has a part in."""
        for name, document in list(self.documents.items()):
            if name != changed and changed not in self.named.get(name, ()):
                continue
            if name != changed:
                self.documents[name] = Document(document.source, document.find, document.encoding)
            self.check_soon(name)

    def check_soon(self, name: str) -> None:
        """Checks a text once its writer pauses."""
        if name in self.waiting:
            self.waiting.pop(name).cancel()
        loop = asyncio.get_running_loop()
        self.waiting[name] = loop.call_later(PAUSE, safely(self.check), name)

    def check(self, name: str) -> None:
        """Publishes what is wrong with a text."""
        self.waiting.pop(name, None)
        if name in self.documents:
            found = diagnostics(self.documents[name], self.uri_of)
            self.publish(name, found)

    def publish(self, name: str, found: list[types.Diagnostic]) -> None:
        """Shows the mistakes of a text in the editor."""
        params = types.PublishDiagnosticsParams(self.uris[name], found, self.versions[name])
        self.protocol.text_document_publish_diagnostics(params)

    def close(self, uri: str) -> None:
        """Forgets a text, and takes its mistakes from the editor."""
        name = _name(uri)
        if self.documents.pop(name, None) is None:
            return
        if name in self.waiting:
            self.waiting.pop(name).cancel()
        self.publish(name, [])
        self.renew(name)
        self.named.pop(name, None)

    def uri_of(self, name: str) -> str:
        """The address of a source."""
        known = self.uris.get(name)
        return known or uris.from_fs_path(str(Path(name).absolute())) or name

    def nets(self, name: str) -> list[str]:
        """The nets that a file can name: those beside it, on the disk or not, and the zoo."""
        own = Path(name)
        open_ones = [
            Path(other).stem for other in self.documents if Path(other).parent == own.parent
        ]
        near = [path.stem for path in own.parent.glob("*.vgg")] if own.is_absolute() else []
        return [
            net for net in dict.fromkeys([*sorted(near), *open_ones, *zoo()]) if net != own.stem
        ]

    # ---------------------------------------------------------------- answers

    def at(self, params: Question) -> tuple[Document, int] | None:
        """The text and the character that the editor asks about, if the text is open."""
        document = self.documents.get(_name(params.text_document.uri))
        return (document, document.lines.offset(params.position)) if document else None

    def hover(self, params: types.HoverParams) -> types.Hover | None:
        """What is shown of the word under the pointer."""
        if (place := self.at(params)) is None or (found := hover(*place)) is None:
            return None
        text, token = found
        content = types.MarkupContent(types.MarkupKind.Markdown, text)
        return types.Hover(content, place[0].lines.range(token.start, token.end))

    def completion(self, params: types.CompletionParams) -> list[types.CompletionItem] | None:
        """What may be written at the cursor."""
        if (place := self.at(params)) is None:
            return None
        return complete(*place, self.nets(place[0].source.name), snippets=self.knows_snippets)

    @property
    def knows_snippets(self) -> bool:
        """Whether the editor fills in places to be typed over."""
        texts = self.protocol.client_capabilities.text_document
        item = texts.completion.completion_item if texts and texts.completion else None
        return bool(item and item.snippet_support)

    def definition(self, params: types.DefinitionParams) -> types.Location | None:
        """Where the name under the cursor is defined."""
        place = self.at(params)
        return definition(*place, self.uri_of) if place else None

    def symbols(self, params: types.DocumentSymbolParams) -> list[types.DocumentSymbol] | None:
        """The nets and layers of a text, as an outline."""
        document = self.documents.get(_name(params.text_document.uri))
        return symbols(document) if document else None

    def formatting(self, params: types.DocumentFormattingParams) -> list[types.TextEdit] | None:
        """The whole text the canonical way; nothing while it is not well formed."""
        document = self.documents.get(_name(params.text_document.uri))
        if document is None or document.written is None:
            return None
        text = format_net(document.written)
        if text == document.source.text:
            return []
        return [types.TextEdit(document.lines.whole, text)]


def _name(uri: str) -> str:
    """What the source of a document is called: its path, or its address if it has none."""
    path = uris.to_fs_path(uri) if uri.startswith("file:") else None
    return path or uri


def serve() -> int:
    """Answers an editor until it leaves; the exit code that the protocol asks for."""
    server = Server()
    feature = server.protocol.feature

    @feature(types.TEXT_DOCUMENT_DID_OPEN)
    @safely
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        document = params.text_document
        server.put(document.uri, document.text, document.version)

    @feature(types.TEXT_DOCUMENT_DID_CHANGE)
    @safely
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        last = params.content_changes[-1]
        server.put(params.text_document.uri, last.text, params.text_document.version)

    @feature(types.TEXT_DOCUMENT_DID_SAVE)
    @safely
    def saved(params: types.DidSaveTextDocumentParams) -> None:
        server.renew(_name(params.text_document.uri))

    @feature(types.TEXT_DOCUMENT_DID_CLOSE)
    @safely
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        server.close(params.text_document.uri)

    @feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    @safely
    def changed_on_disk(params: types.DidChangeWatchedFilesParams) -> None:
        for change in params.changes:
            server.renew(_name(change.uri))

    @feature(types.SHUTDOWN)
    def shut_down(_: None) -> None:
        server.was_shut_down = True

    feature(types.TEXT_DOCUMENT_HOVER)(safely(server.hover))
    triggers = types.CompletionOptions(trigger_characters=["@", "="])
    feature(types.TEXT_DOCUMENT_COMPLETION, triggers)(safely(server.completion))
    feature(types.TEXT_DOCUMENT_DEFINITION)(safely(server.definition))
    feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)(safely(server.symbols))
    feature(types.TEXT_DOCUMENT_FORMATTING)(safely(server.formatting))
    server.protocol.start_io()
    return 0 if server.was_shut_down else 1
