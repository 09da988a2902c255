"""The files for editors: the TextMate grammar says what vggc says, VS Code's files fit together."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from vggc.layers.kinds import BY_WORD, KINDS
from vggc.lsp.words import WordRole, scan
from vggc.program import zoo
from vggc.recipe.edit import SCHEMAS
from vggc.support.resources import resource

EDITORS = ROOT / "editors"
GRAMMAR = json.loads((EDITORS / "vgg.tmLanguage.json").read_text("utf-8"))


def rules(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A rule and all in it."""
    yield part
    for inner in part.get("patterns", ()):
        yield from rules(inner)


def captured(rule: str, text: str, scope: str) -> list[str]:
    """What rules of the grammar's `rule` find in a text that gets this scope."""
    found = []
    for part in rules(GRAMMAR["repository"][rule]):
        groups = [int(n) for n, c in part.get("captures", {}).items() if c["name"] == scope]
        for match in re.finditer(part["match"], text) if "match" in part else ():
            found += [match[n] for n in groups if match[n]]
    return found


# ---------------------------------------------------------------- the grammar


def test_the_grammar_is_what_its_program_writes() -> None:
    text = runpy.run_path(str(EDITORS / "grammar.py"))["text"]()
    assert text == (EDITORS / "vgg.tmLanguage.json").read_text("utf-8"), (
        "run `python editors/grammar.py`"
    )


@pytest.mark.parametrize("word", BY_WORD)
def test_every_layer_word_is_a_function(word: str) -> None:
    for written in (word, f"{word}3-64", f"{word}-wide"):
        assert word in captured("layer", f"| {written} |", "entity.name.function.vgg")
    assert captured("layer", f"| {word}1_1 |", "entity.name.function.vgg") == []


@pytest.mark.parametrize(
    "key", sorted({key for kind in KINDS for key in kind.params()} - {"width"})
)
def test_every_option_of_a_layer_is_a_parameter(key: str) -> None:
    assert captured("option", f"conv {key}=3", "variable.parameter.vgg") == [key]


@pytest.mark.parametrize(
    ("block", "word"), [(block, word) for block in SCHEMAS for word in SCHEMAS[block].settings]
)
def test_every_setting_is_a_property(block: str, word: str) -> None:
    scope = "support.type.property-name.vgg"
    assert captured(block, f"  {word} 3", scope) == [word]


def test_words_that_are_no_layers_get_no_colour() -> None:
    assert (
        captured("layer", "| conw3-64 | convolution | xconv3-8", "entity.name.function.vgg") == []
    )


# ---------------------------------------------------------------- as an editor sees it

SCOPES = {
    WordRole.KEYWORD: ("keyword.control", "support.function"),
    WordRole.BLOCK: ("keyword.control",),
    WordRole.NET: ("entity.name.type",),
    WordRole.BASE: ("entity.other.inherited-class",),
    WordRole.PARAMETER: ("variable.parameter",),
    WordRole.CONSTANT: ("variable.other.constant",),
    WordRole.SUM: ("variable.other.constant",),
    WordRole.KIND: ("entity.name.function",),
    WordRole.SELECTOR: ("variable.other",),
    WordRole.LAYER: ("entity.name.function",),
    WordRole.LABEL: ("entity.name.label",),
    WordRole.HEAD: ("entity.name.label",),
    WordRole.OPTION: ("variable.parameter",),
    WordRole.REFERENCE: ("variable.other",),
    WordRole.SETTING: ("support.type.property-name",),
    WordRole.VALUE: (
        *("constant.numeric", "constant.language", "variable.other", "variable.other.constant"),
    ),
}
"""The scopes that a word of each role may have."""

TOUR = """\
# a comment
net tour(depth=2, drop=50%)  # behind
input 3x224x224
let wide = round(64 * depth / 3)
every conv norm=batch act=leaky
  stem: conv7-64 stride=2 x2 | pool3 stride=2
| (add(conv3-wide | conv3-wide act=none, skip) | relu6) ×depth
| concat(conv1-64, @stem | maxpool) *3 | dropout p=drop
head aux: @stem | gap | boxes-10
train { batch 256; sgd lr=1e-2
  init normal std=0.1
  init-from vgg11 layers=conv1_1..conv3_2,fc6
  scale 256..512px
}
test { dense off; crops grid=5x5 }
"""
EDITED = """\
net edited from tour(classes=10, width=0.5)
set conv1_1 stride=2
after every pool insert lrn | dropout
set every conv3-512 stride=2
before fc6 insert gap
replace fc6..fc8 with fc-512 | fc-10
remove every dropout
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VS Code's own engine for such grammars."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("needs node")
    folder = tmp_path_factory.mktemp("engine")
    packages = ["vscode-textmate@9", "vscode-oniguruma@2"]
    command = ["npm", "install", "--silent", "--no-audit", "--prefix", str(folder), *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm cannot install the engine: {done.stderr.strip()[-200:]}")
    return folder


def tokens(modules: Path, *files: Path) -> dict[str, dict[int, tuple[str, str]]]:
    """The text and the innermost scope of each token, by file and offset."""
    script = ROOT / "tests" / "support" / "tokenise.js"
    grammar = EDITORS / "vgg.tmLanguage.json"
    command = ["node", str(script), str(modules), str(grammar), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, dict[int, tuple[str, str]]] = {}
    for line in done.stdout.splitlines():
        name, offset, text, scopes = json.loads(line)
        found.setdefault(name, {})[offset] = text, scopes[-1].removesuffix(".vgg")
    return found


@pytest.mark.slow
def test_every_word_has_the_scope_of_its_part(modules: Path, tmp_path: Path) -> None:
    files = [resource("zoo", f"{name}.vgg") for name in zoo()]
    for name, text in {"tour": TOUR, "edited": EDITED}.items():
        files.append(tmp_path / f"{name}.vgg")
        files[-1].write_text(text, "utf-8")
    found = tokens(modules, *files)
    seen = set()
    for file in files:
        scopes = found[str(file)]
        for word in scan(file.read_text("utf-8"))[0]:
            seen.add(word.role)
            scope = scopes[word.start][1] if word.start in scopes else None
            assert scope in SCOPES[word.role], (file.name, word.text, word.role)
    assert seen == SCOPES.keys()


@pytest.mark.slow
def test_nothing_but_gaps_is_without_a_scope(modules: Path, tmp_path: Path) -> None:
    tour = tmp_path / "tour.vgg"
    tour.write_text(TOUR + EDITED, "utf-8")
    files = [*(resource("zoo", f"{name}.vgg") for name in zoo()), tour]
    bare = {"source", "meta.block.train", "meta.block.test"}
    without = [
        (Path(file).name, text)
        for file, scopes in tokens(modules, *files).items()
        for text, scope in scopes.values()
        if text.strip() and scope in bare
    ]
    assert without == []


@pytest.mark.slow
def test_a_line_is_coloured_exactly_so(modules: Path, tmp_path: Path) -> None:
    file = tmp_path / "line.vgg"
    file.write_text("| stem: conv3-wide act=none ×2  # why", "utf-8")
    shown = [token for token in tokens(modules, file)[str(file)].values() if token[0].strip()]
    assert shown == [
        ("|", "keyword.operator.pipe"),
        ("stem", "entity.name.label"),
        (":", "punctuation.separator.label"),
        ("conv", "entity.name.function"),
        ("3", "constant.numeric"),
        ("-", "punctuation.separator.width"),
        ("wide", "variable.other.constant"),
        ("act", "variable.parameter"),
        ("=", "keyword.operator.assignment"),
        ("none", "constant.language"),
        ("×", "keyword.operator.repeat"),
        ("2", "constant.numeric"),
        ("#", "punctuation.definition.comment"),
        (" why", "comment.line.number-sign"),
    ]


# ---------------------------------------------------------------- VS Code


def test_the_extension_names_files_that_are_there() -> None:
    folder = EDITORS / "vscode"
    package = json.loads((folder / "package.json").read_text("utf-8"))
    (language,) = package["contributes"]["languages"]
    (grammar,) = package["contributes"]["grammars"]
    assert (folder / package["main"]).is_file()
    configuration = json.loads((folder / language["configuration"]).read_text("utf-8"))
    assert configuration["comments"]["lineComment"] == "#"
    assert grammar["language"] == language["id"] == "vgg"
    assert grammar["scopeName"] == GRAMMAR["scopeName"]
    # Packing copies the grammar to where the extension looks for it.
    copied = package["scripts"]["vscode:prepublish"].split()[1:-1]
    assert Path(grammar["path"]).name in {Path(path).name for path in copied}
    assert all((folder / path).is_file() for path in copied)
