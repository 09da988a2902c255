"""Every mistake in a spec has one exact message: `diagnostics/NAME.vgg` and its `.err`.

After a change of wording: `UPDATE_GOLDEN=1 pytest tests/test_diagnostics.py`, then read
the difference aloud.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest

import vggc
from tests.support import GOLDENS
from vggc.layers import diagnostics as layer_diagnostics
from vggc.program import Program, load
from vggc.support.diagnostics import Diagnostic, UserError, render
from vggc.support.resources import resource
from vggc.support.source import Source, Span
from vggc.syntax import diagnostics as syntax_diagnostics
from vggc.syntax.parse import MAX_FILE_BYTES, parse, read_source

FOLDER = GOLDENS
SPECS = sorted(FOLDER.glob("*.vgg"))
OF_FILES = {
    syntax_diagnostics.FileMissing,
    syntax_diagnostics.FileUnreadable,
    syntax_diagnostics.FileTooLarge,
    syntax_diagnostics.FileBinary,
}
"""Not of a text: tested below by themselves."""
OF_SEVERAL_FILES = {
    layer_diagnostics.BaseCycle,
    layer_diagnostics.TooManyBases,
    layer_diagnostics.TooLongWrittenOut,
}
OF_ARGUMENTS = {layer_diagnostics.NoClassifier}


def mistakes_in(path: Path) -> tuple[Diagnostic, ...]:
    with pytest.raises(UserError) as caught:
        Program(parse(Source(path.name, path.read_bytes().decode()))).check()
    return caught.value.diagnostics


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_message_of_a_mistake_is_exactly_this(path: Path) -> None:
    text = "\n\n".join(map(render, mistakes_in(path))) + "\n"
    text = text.replace(str(resource("zoo", "")), "zoo")
    golden = path.with_suffix(".err")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


@pytest.mark.parametrize("module", [syntax_diagnostics, layer_diagnostics])
def test_no_mistake_is_without_a_golden(module: object) -> None:
    kinds = {
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Diagnostic) and kind is not Diagnostic
    }
    seen = {type(problem) for path in SPECS for problem in mistakes_in(path)}
    assert kinds - seen - OF_FILES - OF_SEVERAL_FILES - OF_ARGUMENTS == set()


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_source(path, hint="the zoo has `vgg16`")
    return str(caught.value)


def test_a_missing_file_is_named_with_a_suggestion(tmp_path: Path) -> None:
    text = message(tmp_path / "vg16.vgg")
    assert text.startswith(f"error: no such file: {tmp_path}/vg16.vgg")
    assert "the zoo has `vgg16`" in text


def test_a_folder_is_not_a_spec(tmp_path: Path) -> None:
    assert "Is a directory" in message(tmp_path)


def test_a_binary_file_is_refused_at_its_first_strange_byte(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"net a\xff\xfe")
    assert "byte 5 is not UTF-8 text" in message(path)
    path.write_bytes(b"net\0a")
    assert "byte 3 is not UTF-8 text" in message(path)


def test_a_file_of_50_mb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.vgg"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    text = message(path)
    assert "50,000,000 bytes" in text
    assert f"{MAX_FILE_BYTES:,}" in text


# ---------------------------------------------------------------- mistakes of several files


def mistakes_of(path: Path, spec: str = "") -> str:
    with pytest.raises(UserError) as caught:
        load(f"{path}{spec}").check()
    return str(caught.value).replace(f"{path.parent}/", "")


def test_nets_built_on_one_another_in_a_circle_show_the_chain(tmp_path: Path) -> None:
    for name, base in (("one", "two"), ("two", "three"), ("three", "two")):
        (tmp_path / f"{name}.vgg").write_text(f"net {name} from {base}\n")
    assert mistakes_of(tmp_path / "one.vgg") == (
        "error: two is built on itself\n"
        " --> three.vgg:1:16\n"
        "  |\n"
        "1 | net three from two\n"
        "  |                ^^^ the chain is one → two → three → two\n"
        "  = help: let one of them be written out"
    )


def test_a_hundred_levels_of_inheritance_are_too_many(tmp_path: Path) -> None:
    for level in range(100):
        (tmp_path / f"n{level}.vgg").write_text(f"net n{level} from n{level + 1}\n")
    (tmp_path / "n100.vgg").write_text("net n100\ninput 3x8x8\nfc-3\n")
    assert mistakes_of(tmp_path / "n0.vgg") == (
        "error: nets built on one another more than 20 deep\n"
        " --> n19.vgg:1:14\n"
        "  |\n"
        "1 | net n19 from n20\n"
        "  |              ^^^ the chain begins n0 → n1 → n2 → n3 → …\n"
        "  = help: write one of them out: `vggc check --resolved` does it"
    )
    assert load(str(tmp_path / "n90.vgg")).graph.output == (3,)


def test_a_net_that_no_file_could_hold_is_refused(tmp_path: Path) -> None:
    """Its run could not be read again."""
    (tmp_path / "base.vgg").write_text(f"net base\ninput 3x8x8\n{'relu | ' * 10_000}fc-3\n")
    longer = "after every relu insert lrn alpha=0.1 beta=0.7 k=1 size=3 |"
    (tmp_path / "mine.vgg").write_text(f"net mine from base\n{longer} leaky slope=0.3\n")
    assert mistakes_of(tmp_path / "mine.vgg") == (
        "error: `mine` written out would have some 240,003 words and signs\n"
        " --> mine.vgg:1:1\n"
        "  |\n"
        "1 | net mine from base\n"
        "  | ^^^^^^^^^^^^^^^^^^ at most 150,000 fit into a file, which runs and artifacts "
        "keep of a net\n  = help: repeats (`×`) of a layer or a group count once"
    )


def test_a_file_that_is_called_as_its_base_builds_on_the_zoos(tmp_path: Path) -> None:
    (tmp_path / "vgg16.vgg").write_text("net vgg16 from vgg16\ninput 3x32x32\n")
    assert load(str(tmp_path / "vgg16.vgg")).graph.input == (3, 32, 32)


def test_a_mistake_in_a_base_is_shown_in_the_base(tmp_path: Path) -> None:
    (tmp_path / "base.vgg").write_text("net base\ninput 3x8x8\nconf3-8\n")
    (tmp_path / "mine.vgg").write_text("net mine from base\n")
    assert " --> base.vgg:3:1\n" in mistakes_of(tmp_path / "mine.vgg")


def test_a_net_without_classes_takes_no_number_of_them(tmp_path: Path) -> None:
    (tmp_path / "maps.vgg").write_text("net maps\ninput 3x8x8\nrelu\n")
    assert mistakes_of(tmp_path / "maps.vgg", "(classes=10)").startswith(
        "error: `maps` has no classes to change\n --> maps.vgg:1:1\n"
    )


# ---------------------------------------------------------------- mistakes not of a text

PACKAGES = (
    "vggc.cli.arguments",
    "vggc.api.draw",
    "vggc.api.find_rate",
    "vggc.cli.layers",
    "vggc.api.subject",
    "vggc.cli.systems",
    "vggc.runtime.diagnostics",
    "vggc.compiler.diagnostics",
    "vggc.measure.diagnostics",
    "vggc.measure.estimates",
    "vggc.compiler.targets",
    "vggc.tuning.diagnostics",
    "vggc.program",
    "vggc.evaluation.diagnostics",
    "vggc.inspection.diagnostics",
    "vggc.preprocessing.diagnostics",
    "vggc.pretrained.diagnostics",
    "vggc.api.trained",
    "vggc.api.export",
    "vggc.deployment.diagnostics",
    "vggc.serving.diagnostics",
    "vggc.support.files",
    "vggc.support.batches",
    "vggc.support.sizes",
    "vggc.support.precision",
    "vggc.ir.needs",
    "vggc.passes.dense",
    "vggc.passes.offsets",
    "vggc.api.compile",
    "vggc.pictures.layout",
    "vggc.report.comparison",
    "vggc.syntax.values",
    "vggc.weight_files.diagnostics",
    "vggc.importing.definitions",
    "vggc.importing.diagnostics",
)


def kinds_in(package: str) -> list[type[Diagnostic]]:
    """The mistakes that a module defines."""
    members = vars(import_module(package)).values()
    kinds = [kind for kind in members if isinstance(kind, type) and kind.__module__ == package]
    return [kind for kind in kinds if issubclass(kind, Diagnostic)]


def sample(kind: type[Diagnostic]) -> Diagnostic:
    """One with each field's own name in the place of words, and a number for numbers."""
    values = {"str": "‹{}›".format, "int": lambda _: 1234, "float": lambda _: 5.678}
    return kind(*(values[type_](name) for name, type_ in kind.field_types.items()))


@pytest.mark.parametrize(
    "kind",
    [kind for package in PACKAGES for kind in kinds_in(package)],
    ids=lambda kind: kind.__name__,
)
def test_the_wording_of_a_mistake_is_exactly_this(kind: type[Diagnostic]) -> None:
    golden = FOLDER / "wording" / f"{kind.__name__}.err"
    text = render(sample(kind)) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def test_no_package_is_left_out() -> None:
    """Every mistake of the program is in a package that is held to its wording."""
    for path in Path(vggc.__file__).parent.rglob("*.py"):
        name = ".".join(
            ["vggc", *path.relative_to(Path(vggc.__file__).parent).with_suffix("").parts]
        )
        if "(Diagnostic):" in path.read_text("utf-8"):
            held_by_goldens = (
                "syntax",
                "layers",
                "recipe",
                "data",
                "training",
                "reproduce",
                "features",
            )
            elsewhere = [f"vggc.{package}.diagnostics" for package in held_by_goldens]
            assert name in (*PACKAGES, *elsewhere, "vggc.syntax.values"), name


def test_all_that_a_mistake_says_is_shown() -> None:
    """A word such as `note`, which nobody renders, would be lost."""
    shown = {"title", "label", "second_label", "help", "field_types", "keyword_types"}
    for kind in Diagnostic.__subclasses__():
        said = {name for name in vars(kind) if not name.startswith("_")}
        assert said <= {*shown, *kind.field_types}, kind


class NamedTwice(Diagnostic):
    title = "two are called `{name}`"
    label = "the name is taken"
    second_label = "`{name}` is first named here"
    name: str


def test_a_second_place_far_into_a_long_line_has_an_excerpt_of_its_own() -> None:
    text = "| one " + 200 * "." + " one"
    source = Source("long.vgg", text)
    place, first = Span(source, len(text) - 3, len(text)), Span(source, 2, 5)
    told = render(NamedTwice("one", place=place, second_place=first)).splitlines()
    assert [line for line in told if "-->" in line] == [" --> long.vgg:1:208", " --> long.vgg:1:3"]
    assert told[-1] == "  |   --- `one` is first named here"


def test_a_place_is_given_by_name_only() -> None:
    source = Source("net.vgg", "a")
    with pytest.raises(TypeError):
        NamedTwice("a", Span(source, 0, 1))  # type: ignore[call-arg]
    assert NamedTwice("a").place is None
    assert NamedTwice("a", place=Span(source, 0, 1)) != NamedTwice("a")


class Movable(Diagnostic):
    title = "the run in `{path}` stands"
    help = "`vggc report {path}/net.vgg --out {path}` shows it; so does {path}"
    path: str


@pytest.mark.parametrize(
    ("path", "shown"),
    [("run", "run"), ("my run", "'my run'"), ("-run", "./-run"), ("a`b", "'a`b'")],
)
def test_a_command_in_a_message_can_be_copied_to_a_shell(path: str, shown: str) -> None:
    told = render(Movable(path))
    assert f"the run in `{path}` stands" in told
    assert f"`vggc report {shown}/net.vgg --out {shown}` shows it; so does {path}" in told
