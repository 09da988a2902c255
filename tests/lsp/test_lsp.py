"""The language server as an editor meets it: a session over stdin and stdout."""

from __future__ import annotations

import json
import queue
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lsprotocol import types

from vggc.cli.lsp import command
from vggc.layers.elaborate import kind_of, word_span
from vggc.lsp import reference
from vggc.lsp.completion import complete
from vggc.lsp.document import Document
from vggc.lsp.places import Lines
from vggc.lsp.words import Token, WordRole, scan
from vggc.program import beside, zoo
from vggc.support.resources import resource
from vggc.syntax import ast
from vggc.syntax.parse import MAX_FILE_BYTES, parse, read_source

GRAMMAR = resource("grammars", "vgg.lark").read_text("utf-8")
PATIENCE = 20
"""Seconds that an answer may take before the test gives up."""


class Client:
    """An editor: speaks the protocol with a server process, one message after the other."""

    def __init__(self, folder: Path, **capabilities: Any) -> None:
        self.folder = folder
        with (folder / "stderr.txt").open("wb") as log:
            program = [sys.executable, "-m", "vggc", "lsp"]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=log)
        self.inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.published: list[dict[str, Any]] = []
        self.last_id = 0
        self.versions: dict[str, int] = {}
        parameters = {"processId": None, "rootUri": None, "capabilities": capabilities}
        self.greeting = self.ask("initialize", parameters)
        self.tell("initialized", {})

    def _read(self) -> None:
        assert self.process.stdout
        while header := self.process.stdout.readline():
            length = int(header.split(b":")[1])
            while self.process.stdout.readline().strip():
                pass
            self.inbox.put(json.loads(self.process.stdout.read(length)))
        self.inbox.put(None)

    def send_bytes(self, body: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def tell(self, method: str, parameters: object) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": parameters}
        self.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        message = self.inbox.get(timeout=PATIENCE)
        assert message is not None, "the server left"
        if message.get("method") == "textDocument/publishDiagnostics":
            self.published.append(message["params"])
        return message

    def ask(self, method: str, parameters: object) -> Any:
        self.last_id += 1
        message = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": parameters}
        self.send_bytes(json.dumps(message).encode())
        while (answer := self.receive()).get("id") != self.last_id:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    # -------------------------------------------------------- documents

    def uri(self, name: str) -> str:
        return (self.folder / name).as_uri()

    def open(self, name: str, text: str) -> list[dict[str, Any]]:
        """Opens a text; what is wrong with it."""
        self.versions[name] = 1
        document = {"uri": self.uri(name), "languageId": "vgg", "version": 1, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": document})
        return self.problems(name)

    def change(self, name: str, text: str) -> None:
        self.versions[name] += 1
        document = {"uri": self.uri(name), "version": self.versions[name]}
        changes = [{"text": text}]
        parameters = {"textDocument": document, "contentChanges": changes}
        self.tell("textDocument/didChange", parameters)

    def close(self, name: str) -> None:
        self.tell("textDocument/didClose", {"textDocument": {"uri": self.uri(name)}})

    def problems(self, name: str) -> list[dict[str, Any]]:
        """What the server says is wrong with the latest version of a text."""
        wanted = {"uri": self.uri(name), "version": self.versions[name]}
        while True:
            for params in self.published:
                if wanted.items() <= params.items():
                    self.published.remove(params)
                    found: list[dict[str, Any]] = params["diagnostics"]
                    return found
            self.receive()

    def at(self, method: str, name: str, line: int, column: int) -> Any:
        position = {"line": line, "character": column}
        parameters = {"textDocument": {"uri": self.uri(name)}, "position": position}
        return self.ask(f"textDocument/{method}", parameters)

    def hover(self, name: str, line: int, column: int) -> str:
        found = self.at("hover", name, line, column)
        return "" if found is None else found["contents"]["value"]

    def completions(self, name: str, text: str) -> dict[str, dict[str, Any]]:
        """What is offered where `¦` stands in a text, by label."""
        before, after = text.split("¦")
        if name in self.versions:
            self.change(name, before + after)
        else:
            self.open(name, before + after)
        line = before.count("\n")
        column = len(before.rpartition("\n")[2].encode("utf-16-le")) // 2
        return {item["label"]: item for item in self.at("completion", name, line, column)}

    def definition(self, name: str, line: int, column: int) -> tuple[str, list[int]] | None:
        """The file and the place, as `[line, column, line, column]`."""
        found = self.at("definition", name, line, column)
        return found and (found["uri"], numbers(found["range"]))

    def ask_about(self, method: str, name: str, **more: Any) -> Any:
        return self.ask(f"textDocument/{method}", {"textDocument": {"uri": self.uri(name)}, **more})

    def leave(self) -> int:
        """Ends the session as the protocol says; the server's exit code."""
        self.ask("shutdown", None)
        return self.drop("exit")

    def drop(self, method: str | None = None) -> int:
        if method:
            self.tell(method, None)
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.process.stdout.close()
        return code

    @property
    def log(self) -> str:
        return (self.folder / "stderr.txt").read_text()


def numbers(place: dict[str, Any]) -> list[int]:
    return [place[end][key] for end in ("start", "end") for key in ("line", "character")]


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One session for the tests that ask; each opens files of its own."""
    client = Client(tmp_path_factory.mktemp("editor"))
    yield client
    assert client.leave() == 0
    assert client.log == ""


SPEC = """\
# 😀 a net × much
net small(depth=2, drop=50%)
input 3x32x32
let wide = round(16 * depth / 3)
every conv norm=batch
  conv3-8 ×2 | pool
| stem: conv3-wide stride=1
| (add(conv3-wide | conv3-wide act=none, skip) | relu) ×depth
| gap | dropout p=drop | fc-10 | softmax
head aux: @stem | gap | fc-10 | softmax
train {
  batch 8
  sgd lr=0.01
  init-from vgg11 layers=conv1_1
  freeze conv1_1..stem
}
"""
START = "net a\ninput 3x32x32\n"
PLAIN = "net plain\ninput 3x32x32\n  conv3-8 ×2 | pool | fc-10\n"


# ---------------------------------------------------------------- a session


def test_the_server_says_what_it_can_do(editor: Client) -> None:
    able = editor.greeting["capabilities"]
    assert able["positionEncoding"] == "utf-16"
    assert able["textDocumentSync"]["change"] == 1
    for what in ("hover", "definition", "documentFormatting", "documentSymbol"):
        assert able[f"{what}Provider"]
    assert able["completionProvider"]["triggerCharacters"] == ["@", "="]
    assert editor.greeting["serverInfo"]["name"] == "vggc"


def test_a_message_that_is_no_message_does_not_end_the_session(tmp_path: Path) -> None:
    client = Client(tmp_path)
    client.send_bytes(b"{ no json")
    client.send_bytes(b"[]")
    client.tell("no/such/method", {})
    client.tell("textDocument/didOpen", {"textDocument": 3})
    assert client.open("a.vgg", PLAIN) == []
    # One that was not shut down before it ended ends with exit 1.
    assert client.drop("exit") == 1


def test_the_server_ends_with_its_editor(tmp_path: Path) -> None:
    assert Client(tmp_path).drop() == 1


def test_without_its_packages_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "vggc.lsp.server", raising=False)
    monkeypatch.setitem(sys.modules, "pygls", None)
    done = CliRunner().invoke(command)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: the language server needs the package pygls: pip install 'vggc[lsp]'\n"
    )


def test_the_server_starts_without_torch_and_tvm() -> None:
    code = "import vggc.lsp.server, sys; print({'torch', 'tvm', 'onnx'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---------------------------------------------------------------- diagnostics


def test_a_good_text_has_no_problems(editor: Client) -> None:
    text = SPEC.replace("  init-from vgg11 layers=conv1_1\n", "")
    assert editor.open("good.vgg", text) == []


def test_a_problem_has_its_place_its_reason_and_its_suggestion(editor: Client) -> None:
    (problem,) = editor.open("reason.vgg", "net a input 3x32x32\n  conv3-8 ×2 | conw3-8 | fc-10\n")
    assert numbers(problem["range"]) == [1, 15, 1, 22]
    assert problem["severity"] == 1
    assert problem["source"] == "vggc"
    assert problem["message"] == (
        "unknown layer `conw3-8`\nno kind of layer is called `conw`\nhelp: did you mean `conv3-8`?"
    )


def test_every_mistake_is_shown_at_its_own_place(editor: Client) -> None:
    text = "net a input 3x32x32\n  conv3-8 colour=1 | pool pading=1 | fc-10 train { bach 8 }\n"
    places = [numbers(problem["range"]) for problem in editor.open("two.vgg", text)]
    assert places == [[1, 10, 1, 16], [1, 26, 1, 32]]


ASTRAL = "net a input 3x32x32\n| 𝐀: conv3-8 | conv3-8 ×2 | foo | fc-10\n"


@pytest.mark.parametrize(
    ("encoding", "columns"), [("utf-16", (29, 32)), ("utf-8", (32, 35)), ("utf-32", (28, 31))]
)
def test_columns_count_characters_as_agreed(encoding: str, columns: tuple[int, int]) -> None:
    lines = Lines(ASTRAL, encoding)
    start, end = ASTRAL.index("foo"), ASTRAL.index("foo") + 3
    assert lines.range(start, end) == types.Range(
        types.Position(1, columns[0]), types.Position(1, columns[1])
    )
    assert [lines.offset(types.Position(1, column)) for column in columns] == [start, end]
    assert lines.offset(types.Position(1, 999)) == len(ASTRAL) - 1
    assert lines.offset(types.Position(9, 0)) == len(ASTRAL)


def test_an_editor_that_counts_bytes_is_answered_in_bytes(tmp_path: Path) -> None:
    snippets = {"completion": {"completionItem": {"snippetSupport": True}}}
    general = {"positionEncodings": ["utf-8", "utf-16"]}
    client = Client(tmp_path, textDocument=snippets, general=general)
    assert client.greeting["capabilities"]["positionEncoding"] == "utf-8"
    (problem,) = client.open("a.vgg", ASTRAL)
    assert numbers(problem["range"]) == [1, 32, 1, 35]
    assert client.hover("a.vgg", 1, 9).startswith("**𝐀**")
    # And one that knows snippets gets them.
    offered = client.completions("b.vgg", START + "  ¦")
    assert offered["conv"]["textEdit"]["newText"] == "conv${1:3}-${2:64}"
    assert offered["fc"]["textEdit"]["newText"] == "fc-${2:4096}"
    assert offered["concat"]["textEdit"]["newText"] == "concat($1, $2)"
    assert offered["pool"]["textEdit"]["newText"] == "pool"
    assert client.leave() == 0
    assert client.log == ""


def test_line_ends_of_windows_and_of_old_macs_move_no_place(editor: Client) -> None:
    for name, end in {"dos.vgg": "\r\n", "mac.vgg": "\r"}.items():
        text = end.join(["net a", "input 3x32x32", "  conv3-8 ×2", "| foo | fc-10", ""])
        (problem,) = editor.open(name, text)
        assert numbers(problem["range"]) == [3, 2, 3, 5]


def test_a_mistake_goes_when_it_is_mended_and_when_its_file_is_closed(editor: Client) -> None:
    assert editor.open("mend.vgg", PLAIN.replace("pool", "pol"))
    editor.change("mend.vgg", PLAIN)
    assert editor.problems("mend.vgg") == []
    editor.change("mend.vgg", "net")
    assert editor.problems("mend.vgg")
    editor.close("mend.vgg")
    assert editor.problems("mend.vgg") == []


def test_only_the_latest_of_many_changes_counts(editor: Client) -> None:
    editor.open("fast.vgg", PLAIN)
    for width in range(200):
        editor.change("fast.vgg", PLAIN.replace("fc-10", f"fcc-{width}"))
    (problem,) = editor.problems("fast.vgg")
    assert "`fcc-199`" in problem["message"]
    stale = [p for p in editor.published if p["uri"] == editor.uri("fast.vgg")]
    assert len(stale) < 20
    assert all(p["version"] < 201 for p in stale)


def test_a_base_is_the_open_text_before_the_one_on_the_disk(editor: Client) -> None:
    (editor.folder / "ground.vgg").write_text(PLAIN)
    built = "net built from ground\nset conv1_1 stride=2\n"
    assert editor.open("built.vgg", built) == []
    editor.open("ground.vgg", "net ground input 3x32x32\n  stem: conv3-8 | fc-10\n")
    (problem,) = editor.problems("built.vgg")
    assert numbers(problem["range"]) == [1, 4, 1, 11]
    assert "it has no layer called `conv1_1`" in problem["message"]
    editor.close("ground.vgg")
    assert editor.problems("built.vgg") == []


def test_a_mistake_in_a_base_is_shown_where_the_base_is_named(editor: Client) -> None:
    (editor.folder / "bad.vgg").write_text("net bad input 3x32x32\n  conv3-8 | foo | fc-10\n")
    (problem,) = editor.open("onbad.vgg", "# ×\nnet onbad from bad\nset conv1_1 stride=2\n")
    assert numbers(problem["range"]) == [1, 15, 1, 18]
    (related,) = problem["relatedInformation"]
    assert related["location"]["uri"] == editor.uri("bad.vgg")
    assert numbers(related["location"]["range"]) == [1, 12, 1, 15]


def test_a_mistake_refers_to_its_second_place(editor: Client) -> None:
    text = "net a input 3x8x8\n  stem: conv3-8 | stem: pool | fc-10\n"
    (problem,) = editor.open("twice.vgg", text)
    (related,) = problem["relatedInformation"]
    assert related["message"] == "`stem` is first named here"
    assert related["location"]["uri"] == editor.uri("twice.vgg")
    assert numbers(related["location"]["range"]) == [1, 2, 1, 6]


def test_a_file_that_is_too_large_is_said_to_be(editor: Client) -> None:
    (problem,) = editor.open("large.vgg", "# " + "x" * MAX_FILE_BYTES + "\n")
    assert f"at most {MAX_FILE_BYTES:,} bytes" in problem["message"]
    assert numbers(problem["range"])[:2] == [0, 0]


# ---------------------------------------------------------------- hover


@pytest.fixture(scope="module")
def small(editor: Client) -> Client:
    editor.open("small.vgg", SPEC)
    return editor


def test_a_layer_shows_what_it_gives_and_what_it_costs(small: Client) -> None:
    assert small.hover("small.vgg", 5, 17) == (
        "**pool1** `pool`\n\n"
        "Maximum over windows.\n\n"
        "- output 8×16×16\n"
        "- parameters 0\n"
        "- MACs 0, for one image\n"
        "- receptive field 6×6, stride 2×2"
    )


def test_a_repeated_layer_shows_the_first_and_the_last_and_how_many(small: Client) -> None:
    text = small.hover("small.vgg", 5, 2)
    assert text.startswith("**conv1_1** … **conv1_2** `conv3-8`, 2 times")
    # 3·8·9 + 8 weights and 2·8 of the norm; then 8·8·9 + 8 and 2·8.
    assert "- parameters 240 … 600, together 840" in text
    assert "- receptive field 3×3, stride 1×1 … 5×5, stride 1×1" in text


def test_layers_are_shown_inside_joins_and_by_their_own_names(small: Client) -> None:
    assert small.hover("small.vgg", 6, 3).startswith("**stem** `conv3-11`")
    inside = small.hover("small.vgg", 7, 8)
    assert inside.startswith("**add1_conv1** … **add2_conv1** `conv3-11`, 2 times")
    assert small.hover("small.vgg", 7, 41) == small.hover("small.vgg", 7, 45)
    assert "**skip**: Passes on what it gets" in small.hover("small.vgg", 7, 43)
    assert small.hover("small.vgg", 7, 4).startswith("**add1** … **add2** `add`, 2 times")


def test_a_join_costs_what_its_paths_cost(editor: Client) -> None:
    editor.open("join.vgg", START + "  conv3-4 | add(conv3-4 | concat(conv1-2, conv1-2), skip)\n")
    # 4·4·9 + 4 weights of one convolution, 4·2 + 2 of each of the others; at 32×32 places.
    outer, inner = editor.hover("join.vgg", 2, 12), editor.hover("join.vgg", 2, 26)
    assert "- parameters 168 with its paths" in outer
    assert "- MACs 163,840 with its paths" in outer
    assert "- parameters 20 with its paths" in inner


def test_a_hover_covers_its_word_in_utf_16(editor: Client) -> None:
    editor.open("wide.vgg", "net a input 3x32x32 | 𝐀: conv3-8 | conv3-8 ×2 | pool | fc-10")
    found = editor.at("hover", "wide.vgg", 0, 51)
    assert numbers(found["range"]) == [0, 49, 0, 53]
    assert "**pool1**" in found["contents"]["value"]


@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        (1, 5, "**small**\n\n😀 a net × much\n\ninput 3×32×32 · 19 layers"),
        (1, 11, "`depth` = 2"),
        (1, 20, "`drop` = 0.5"),
        (2, 1, "Channels, height and width"),
        (3, 5, "`wide` = 11"),
        (3, 14, "The nearest whole number"),
        (3, 25, "`depth` = 2"),
        (4, 2, "Options for all layers of a kind"),
        (4, 8, "**conv**: Convolution, then a normalisation"),
        (4, 12, "; none, batch, group or layer; default: none"),
        (4, 18, "`norm`: normalisation before the activation"),
        (6, 16, "`wide` = 11"),
        (6, 22, "`stride`: step of the kernel; a whole number from 1 to 1,024, or rows and"),
        (6, 27, "`stride`: step of the kernel"),
        (7, 60, "`depth` = 2"),
        (8, 16, "`p`: the share of values that are zeroed"),
        (8, 20, "`drop` = 0.5"),
        (9, 1, "A further output of the net"),
        (9, 6, "**aux**: classes, 10"),
        (9, 12, "**stem** `conv3-11`"),
        (10, 2, "The recipe: how the net is trained"),
        (11, 3, "**batch**: images in a step; a whole number from 1 to 65,536; default: 256"),
        (11, 9, "**batch**: images in a step"),
        (12, 3, "stochastic gradient descent"),
        (12, 7, "`lr`: the learning rate; a number above 0, at most 1,000; default: 0.01"),
        (13, 4, "layers that begin with the weights"),
        (13, 14, "**vgg11**"),
        (13, 20, "names of layers or ranges of them"),
        (13, 27, "**conv1_1**"),
        (14, 10, "**conv1_1**"),
        (14, 20, "**stem**"),
    ],
)
def test_every_kind_of_word_explains_itself(
    small: Client, line: int, column: int, said: str
) -> None:
    assert said in small.hover("small.vgg", line, column)


def test_the_word_behind_net_from_shows_the_base(editor: Client) -> None:
    editor.open("onzoo.vgg", "net onzoo from vgg16(classes=10)\nset conv1_1 stride=2\n")
    text = editor.hover("onzoo.vgg", 0, 17)
    assert text.startswith("**vgg16**\n\nConfiguration D")
    assert "138,357,544 parameters" in text
    assert "number of classes" in editor.hover("onzoo.vgg", 0, 23)
    assert "number of classes" in editor.hover("onzoo.vgg", 0, 30)
    assert "step of the kernel" in editor.hover("onzoo.vgg", 1, 13)
    selected = editor.hover("onzoo.vgg", 1, 6)
    assert "output 64×224×224" in selected, "as it was before the edit"


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("an unknown layer", PLAIN.replace("| fc-10", "| foo | fc-10")),
        ("an unknown option", PLAIN.replace("fc-10", "fc-10 colour=1")),
        ("a layer that does not fit", PLAIN.replace("fc-10", "conv99-3 padding=0 | fc-10")),
        ("a setting that there is not", PLAIN + "train { bach 8 }\n"),
        ("a block that there is not", PLAIN + "tain { batch 8 }\n"),
        ("a head that hangs in the air", PLAIN + "head a: @nowhere | fc-10\n"),
        ("a default for nothing", PLAIN.replace("32\n", "32 every lrn k=1\n")),
        ("a sentence that goes on", PLAIN.replace("fc-10", "fc-10 |")),
        ("a block that goes on", PLAIN + "train { sgd lr="),
        ("a head that goes on", PLAIN + "head a: @"),
    ],
)
def test_layers_are_shown_while_something_else_is_wrong(
    editor: Client, mistake: str, text: str
) -> None:
    assert editor.open("wrong.vgg", text) != []
    line = next(i for i, line in enumerate(text.split("\n")) if "conv3-8" in line)
    shown = editor.hover("wrong.vgg", line, text.split("\n")[line].index("pool"))
    assert "- output 8×16×16" in shown
    assert "- receptive field 6×6, stride 2×2" in shown


def test_nothing_is_said_of_comments_and_gaps(small: Client) -> None:
    assert small.hover("small.vgg", 0, 6) == ""
    assert small.hover("small.vgg", 99, 99) == ""
    assert small.hover("nowhere.vgg", 0, 0) == ""


@pytest.mark.parametrize("keyword", re.findall(r'"([a-z]+)"', GRAMMAR))
def test_every_keyword_of_the_grammar_explains_itself(keyword: str) -> None:
    assert "```vgg" in reference.keyword(keyword)
    assert keyword in reference.keyword(keyword)


@pytest.mark.parametrize("name", zoo())
def test_words_are_what_the_parser_takes_them_for(name: str) -> None:
    """The scanner of unfinished texts and the parser of finished ones agree on these."""
    source = read_source(resource("zoo", f"{name}.vgg"))
    net, (tokens, _) = parse(source), scan(source.text)

    def starts(role: WordRole) -> set[int]:
        return {token.start for token in tokens if token.role is role}

    edits = [s.body for s in net.statements if isinstance(s, ast.Insert | ast.Replace)]
    bodies = [*net.bodies, *edits]
    layers = [p for body in bodies for p in ast.pieces(body) if isinstance(p, ast.Layer)]
    assert starts(WordRole.LAYER) == {word_span(layer).start for layer in layers}
    settings = [setting for block in net.blocks for setting in block.settings]
    assert starts(WordRole.SETTING) == {setting.span.start for setting in settings}
    assert starts(WordRole.BLOCK) == {block.span.start for block in net.blocks}
    assert starts(WordRole.BASE) == ({net.base.span.start} if net.base else set())
    references = [p for b in bodies for p in ast.pieces(b) if isinstance(p, ast.Reference)]
    assert starts(WordRole.REFERENCE) == {piece.span.start + 1 for piece in references}


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("¦", ["net"], ["conv"]),
        ("net a ¦", ["from", "input"], ["conv"]),
        ("net a from vg¦", ["vgg16", "vgg11_lrn"], ["conv", "a"]),
        ("net a from vgg16(¦)", ["classes=", "width="], ["stride="]),
        (START + "¦", ["let", "every", "head", "train", "conv"], ["set", "remove"]),
        (START + "  conv3-8 | ¦", ["conv", "pool", "concat", "skip"], ["train", "stride="]),
        (START + "  conv3-8 | add(¦", ["conv", "skip"], ["train"]),
        (START + "  conv3-8 ¦| pool", ["stride=", "norm="], ["size=", "round="]),
        (START + "  conv3-8 stride=1 ¦| pool", ["norm="], ["stride="]),
        (START + "  conv3-8\n¦", ["head", "train"], ["set"]),
        (START + "  conv3-8 norm=¦", ["none", "batch"], ["stride="]),
        (START + "  pool round=¦", ["down", "up"], []),
        (START + "  conv3-8 bias=¦", ["on", "off"], []),
        (START + "let wide = 3\n  conv3-¦", ["wide"], ["conv"]),
        (START + "let wide = 3\n  conv3-8 stride=¦", ["wide"], []),
        (START + "let wide = 3\nlet n = ¦", ["wide", "round"], ["every"]),
        (START + "let wide = 3\n¦", ["every", "conv"], ["wide"]),
        (START + "every ¦", ["conv", "fc"], ["train"]),
        (START + "every conv ¦", ["norm=", "act="], ["round="]),
        (START + "every conv act=¦", ["leaky", "none"], []),
        (START + "  s: conv3-8 | pool | fc-9\nhead b: @¦", ["s", "pool1", "fc2"], ["conv"]),
        (START + "  s: conv3-8 | add(@¦, skip) | pool", ["s"], ["pool1"]),
        ("net a from vgg16\n¦", ["set", "after", "input", "head"], ["conv"]),
        ("net a from vgg16\nset ¦", ["every", "conv1_1", "fc8"], ["conv"]),
        ("net a from vgg16\nset conv1_1 ¦", ["stride=", "act="], ["round="]),
        ("net a from vgg16\nset pool1 ¦", ["round=", "size="], ["act="]),
        ("net a from vgg16\nset every ¦", ["conv", "pool"], ["conv1_1"]),
        ("net a from vgg16\nremove fc6\nset ¦", ["fc7"], ["fc8"]),
        ("net a from vgg16\nreplace fc6..¦", ["fc7", "fc8"], []),
        ("net a from vgg16\nreplace fc6 ¦", ["with"], ["insert"]),
        ("net a from vgg16\nafter fc6 ¦", ["insert"], ["with"]),
        ("net a from vgg16\nafter fc6 insert ¦", ["dropout"], ["train"]),
        (PLAIN + "train {\n  ¦\n}", ["batch", "sgd", "plateau"], ["dense", "conv"]),
        (PLAIN + "test {\n  ¦\n}", ["dense", "scales"], ["sgd"]),
        (PLAIN + "train { batch 8; ¦ }", ["sgd"], []),
        (PLAIN + "train { sgd ¦ }", ["lr=", "momentum="], ["factor="]),
        (PLAIN + "train { init ¦ }", ["glorot", "he", "normal"], ["std="]),
        (PLAIN + "train { init normal ¦ }", ["std="], ["he"]),
        (PLAIN + "train { flip ¦ }", ["on", "off"], []),
        (PLAIN + "train { loss ¦ }", ["cross-entropy", "euclidean"], []),
        (PLAIN + "train { init-from ¦ }", ["vgg11"], []),
        (PLAIN + "train { init-from vgg11 layers=¦ }", ["conv1_1", "fc2"], []),
        (PLAIN + "train { freeze conv1_1,¦ }", ["conv1_2", "off"], []),
        (PLAIN + "test { fuse ¦ }", ["vgg16"], []),
        (PLAIN + "# ¦", [], ["train"]),
    ],
)
def test_what_fits_is_offered(editor: Client, text: str, some: list[str], none: list[str]) -> None:
    offered = editor.completions("complete.vgg", text)
    assert offered.keys() >= set(some)
    assert not offered.keys() & set(none)


def expected_offer(token: Token) -> str | None:
    """What is to be offered where a word is about to be written; None where nothing can be."""
    match token.role:
        case WordRole.LAYER | WordRole.KIND:
            kind = kind_of(token.text)
            return kind.name if kind else None
        case WordRole.OPTION:
            return f"{token.text}="
        case WordRole.SELECTOR:
            return token.text.partition("..")[0]
        case (
            WordRole.KEYWORD
            | WordRole.BLOCK
            | WordRole.SETTING
            | WordRole.REFERENCE
            | WordRole.BASE
        ):
            return token.text
        case _:
            return None


@pytest.mark.parametrize("name", ["small", *zoo()])
def test_who_writes_a_net_is_offered_each_of_its_words(name: str) -> None:
    text = SPEC if name == "small" else resource("zoo", f"{name}.vgg").read_text("utf-8")
    for token in scan(text)[0]:
        begun = Document.of("a.vgg", text[: token.start], beside)
        offered = {item.label for item in complete(begun, token.start, zoo())}
        if wanted := expected_offer(token):
            assert wanted in offered, text[: token.end].rpartition("\n")[2]


def test_an_offer_replaces_what_was_typed_and_explains_itself(editor: Client) -> None:
    text = "net 𝐀 from vgg16\nset conv1_1..con¦"
    offer = editor.completions("replace.vgg", text)["conv1_2"]
    assert offer["textEdit"]["newText"] == "conv1_2"
    assert numbers(offer["textEdit"]["range"]) == [1, 13, 1, 16]
    assert "- output 64×224×224" in offer["documentation"]["value"]
    layer = editor.completions("replace.vgg", START + "| 𝐀: co¦")["conv"]
    assert numbers(layer["textEdit"]["range"]) == [2, 6, 2, 8]
    assert "Convolution, then a normalisation" in layer["documentation"]["value"]


def test_an_editor_that_knows_no_snippets_gets_plain_words(editor: Client) -> None:
    offered = editor.completions("plain.vgg", START + "  ¦")
    assert offered["conv"]["textEdit"]["newText"] == "conv"
    assert "insertTextFormat" not in offered["conv"]


# ---------------------------------------------------------------- formatting, outline, places


def format_text(editor: Client, name: str) -> Any:
    options = {"tabSize": 2, "insertSpaces": True}
    return editor.ask_about("formatting", name, options=options)


def test_formatting_writes_the_canonical_form(editor: Client) -> None:
    editor.open("form.vgg", "net a input 3x8x8 conv3-8 x2|pool # 😀")
    (edit,) = format_text(editor, "form.vgg")
    assert edit["newText"] == "net a\ninput 3x8x8\n\n  conv3-8 ×2 | pool  # 😀\n"
    assert numbers(edit["range"]) == [0, 0, 0, 38]
    editor.change("form.vgg", edit["newText"])
    assert format_text(editor, "form.vgg") == []


def test_what_is_not_well_formed_is_not_formatted(editor: Client) -> None:
    editor.open("broken.vgg", "net a input 3x8x8 conv3-8 pool")
    assert format_text(editor, "broken.vgg") is None


def test_the_outline_shows_what_a_file_holds(small: Client) -> None:
    (net,) = small.ask_about("documentSymbol", "small.vgg")
    assert net["name"] == "small"
    assert numbers(net["selectionRange"]) == [1, 4, 1, 9]
    names = [child["name"] for child in net["children"]]
    assert names == [
        *("wide", "every conv", "conv1_1 … conv1_2", "pool1", "stem", "add1 … add2"),
        *("relu1 … relu2", "gap1", "dropout1", "fc2", "softmax1", "head aux", "train"),
    ]
    stem = net["children"][4]
    assert stem["detail"] == "conv3-wide · 11×16×16"
    assert numbers(stem["range"]) == [6, 2, 6, 27]
    assert numbers(stem["selectionRange"]) == [6, 8, 6, 18]
    join = net["children"][5]
    inner = ["add1_conv1 … add2_conv1", "add1_conv2 … add2_conv2", "skip"]
    assert [child["name"] for child in join["children"]] == inner


@pytest.mark.parametrize(
    ("line", "column", "place"),
    [
        (9, 12, [6, 2, 6, 27]),  # @stem
        (3, 26, [1, 10, 1, 15]),  # depth in a sum
        (6, 15, [3, 4, 3, 8]),  # wide in conv3-wide
        (7, 61, [1, 10, 1, 15]),  # ×depth
        (8, 20, [1, 19, 1, 23]),  # p=drop
        (13, 26, [5, 2, 5, 9]),  # layers=conv1_1
        (14, 20, [6, 2, 6, 27]),  # freeze ..stem
    ],
)
def test_names_lead_to_what_they_name(
    small: Client, line: int, column: int, place: list[int]
) -> None:
    found = small.definition("small.vgg", line, column)
    assert found == (small.uri("small.vgg"), place)


def test_a_base_and_its_layers_lead_into_its_file(editor: Client) -> None:
    editor.open("tozoo.vgg", "net tozoo from vgg16\nreplace fc6..fc8 with fc-10\n")
    zoo_file = resource("zoo", "vgg16.vgg").resolve()
    spec = zoo_file.read_text().split("\n")
    line = next(i for i, text in enumerate(spec) if text.startswith("net "))
    assert editor.definition("tozoo.vgg", 0, 16) == (zoo_file.as_uri(), [line, 4, line, 9])
    line = next(i for i, text in enumerate(spec) if "fc-1000" in text)
    start = spec[line].index("fc-1000")
    found = editor.definition("tozoo.vgg", 1, 14)
    assert found == (zoo_file.as_uri(), [line, start, line, start + 7])
    assert editor.definition("tozoo.vgg", 0, 1) is None


# ---------------------------------------------------------------- storms


def test_a_document_that_is_no_file_is_served_too(editor: Client) -> None:
    document = {"uri": "untitled:Untitled-1", "languageId": "vgg", "version": 1, "text": PLAIN}
    editor.tell("textDocument/didOpen", {"textDocument": document})
    where = {"textDocument": {"uri": document["uri"]}, "position": {"line": 2, "character": 16}}
    assert "**pool1**" in editor.ask("textDocument/hover", where)["contents"]["value"]


def mutated(text: str, chance: random.Random) -> str:
    """The text after a few edits as a tired person, or a cat, would make them."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice((0, 0, 1, 2, 5, 40)))
        junk = (
            "",
            "|",
            "(",
            ")",
            "{",
            "}",
            "@",
            "=",
            "×",
            ",",
            "😀",
            "\r\n",
            "\x00",
            "\ud800",
            "#",
        )
        words = (
            "every",
            "set ",
            "from",
            "conv3-",
            "x9999999",
            "head a:",
            "train {",
            "..",
            "-",
            "9",
        )
        text = text[:start] + chance.choice(junk + words) + text[end:]
    return text


def storm(client: Client, number: int) -> None:
    """Sends many malformed texts, and asks about places in and outside them."""
    chance = random.Random(7)
    texts = [SPEC, *(resource("zoo", f"{name}.vgg").read_text() for name in zoo())]
    client.open("storm.vgg", SPEC)
    for turn in range(number):
        text = mutated(chance.choice(texts), chance)
        client.change("storm.vgg", text)
        line, column = chance.randint(0, 30), chance.randint(0, 40)
        what = ("hover", "completion", "definition")[turn % 3]
        client.at(what, "storm.vgg", line, column)
        if turn % 10 == 0:
            client.ask_about("documentSymbol", "storm.vgg")
            format_text(client, "storm.vgg")
    client.change("storm.vgg", PLAIN)
    assert client.problems("storm.vgg") == []
    assert "**pool1**" in client.hover("storm.vgg", 2, 16)


def test_the_server_survives_a_storm(editor: Client) -> None:
    storm(editor, 60)


@pytest.mark.slow
def test_the_server_survives_a_long_storm(tmp_path: Path) -> None:
    client = Client(tmp_path)
    storm(client, 1500)
    assert client.leave() == 0
    assert client.log == ""
