"""`vggc summary`: the layers of one net, and several beside one another as in the paper."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.support.nets import program
from vggc.analysis.outline import outline
from vggc.cli import summary_text
from vggc.cli.comparison import LayerCell, NetComparison, compare, drawn, parts
from vggc.cli.summary_text import SummarisedNet
from vggc.program import Program, load

# Source: Simonyan & Zisserman (2015), table 1; new layers are marked as there. `fc` lines
# hold the dropout of section 3.1 besides, which the table leaves out.
TABLE_1 = """
A            A-LRN        B            C            D            E
11 weight    11 weight    13 weight    16 weight    16 weight    19 weight

conv3-64     conv3-64     conv3-64     conv3-64     conv3-64     conv3-64
-            +lrn         +conv3-64    conv3-64     conv3-64     conv3-64

conv3-128    conv3-128    conv3-128    conv3-128    conv3-128    conv3-128
-            -            +conv3-128   conv3-128    conv3-128    conv3-128

conv3-256    conv3-256    conv3-256    conv3-256    conv3-256    conv3-256
conv3-256    conv3-256    conv3-256    conv3-256    conv3-256    conv3-256
-            -            -            +conv1-256   +conv3-256   conv3-256
-            -            -            -            -            +conv3-256

conv3-512    conv3-512    conv3-512    conv3-512    conv3-512    conv3-512
conv3-512    conv3-512    conv3-512    conv3-512    conv3-512    conv3-512
-            -            -            +conv1-512   +conv3-512   conv3-512
-            -            -            -            -            +conv3-512

conv3-512    conv3-512    conv3-512    conv3-512    conv3-512    conv3-512
conv3-512    conv3-512    conv3-512    conv3-512    conv3-512    conv3-512
-            -            -            +conv1-512   +conv3-512   conv3-512
-            -            -            -            -            +conv3-512
"""
PAPER = ("vgg11", "vgg11_lrn", "vgg13", "vgg16_1x1", "vgg16", "vgg19")
RESIDUAL = """
net residual input 3x32x32
every conv norm=batch
  conv3-16
| (add(conv3-16 | conv3-16 act=none, skip) | relu) ×3
| add(conv3-32 stride=2 | conv3-32 act=none, conv1-32 stride=2 act=none) | relu
| gap | fc-10 | softmax
"""
HEADS = """
net heads input 3x32x32
  stem: conv3-16 act=leaky | pool3 stride=2 padding=1
| concat(conv1-8, conv1-8 | add(conv3-8, skip), @stem | pool)
| fc7: fc-64
head scores: fc-10 | softmax
head box: @fc7 | boxes-10
head features: @stem
"""


def net(what: Program) -> SummarisedNet:
    report = what.report()
    return SummarisedNet(report, outline(what.graph, report))


def table(*nets: SummarisedNet) -> NetComparison:
    return compare([(each.report, each.outline) for each in nets])


def column(comparison: NetComparison, index: int = 0) -> list[str]:
    return [text for line in comparison.lines() if (text := line.cells[index].text)]


def text(comparison: NetComparison, room: int = 160) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in drawn(comparison, room, marked=True)]


# ---------------------------------------------------------------- table 1


def shown(cells: Sequence[LayerCell]) -> list[str]:
    return [("+" if cell.new else "") + cell.text or "-" for cell in cells]


def test_the_papers_nets_make_the_papers_table_1() -> None:
    lines = table(*(net(load(name)) for name in PAPER)).lines()
    assert [cell.text for cell in lines[0].cells] == [*PAPER]
    assert [cell.text.removesuffix(" layers") for cell in lines[1].cells] == (
        TABLE_1.strip().splitlines()[1].replace("weight    ", "weight\n").splitlines()
    )
    blocks = TABLE_1.strip().split("\n\n")[1:]
    at = 3
    assert (lines[2].cells[0].text, lines[2].spans) == ("input 3×224×224", True)
    for block in blocks:
        for row in block.splitlines():
            assert shown(lines[at].cells) == row.split()
            assert not lines[at].spans
            at += 1
        assert lines[at - 1].ends_block
        assert (lines[at].cells[0].text, lines[at].spans) == ("maxpool", True)
        at += 1
    assert [line.cells[0].text for line in lines[at:]] == (
        ["fc-4096", "dropout", "fc-4096", "dropout", "fc-1000", "soft-max"]
    )
    assert all(line.spans for line in lines[at:])


def test_table_2_is_below() -> None:
    """Source: table 2 of the paper, in millions."""
    sheet = summary_text.totals_by_net([net(load(name)) for name in PAPER])
    rows = {row[0]: row[1:] for row in sheet.rows}
    assert rows["parameters, millions"] == ("133", "133", "133", "134", "138", "144")
    assert rows["parameters"][4] == "138,357,544"
    assert rows["MACs"][4] == "15,470,264,320"
    assert rows["its receptive field"] == ("150", "150", "156", "156", "212", "268")
    assert "statistics, not trained" not in rows


def test_every_line_of_the_text_is_as_long_as_the_others() -> None:
    lines = text(table(net(load("vgg11")), net(program(RESIDUAL)), net(program(HEADS))))
    assert len(lines) > 30
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len([line for line in lines if line.startswith("│")]) > 20


def test_joins_stand_as_the_language_has_them() -> None:
    found = column(table(net(program(RESIDUAL))))
    assert found[2:] == [
        "every conv norm=batch",
        "input 3×32×32",
        "conv3-16",
        "(add(",
        "   conv3-16 | conv3-16 act=none,",
        "   skip)",
        " relu) ×3",
        "add(",
        "  conv3-32 stride=2 | conv3-32 act=none,",
        "  conv1-32 stride=2 act=none)",
        "relu",
        "gap",
        "fc-10",
        "soft-max",
    ]


def test_nested_joins_references_and_heads_are_shown() -> None:
    found = column(table(net(program(HEADS))))
    assert found[1:] == [
        "7 weight layers",
        "input 3×32×32",
        "conv3-16 act=leaky",
        "maxpool3 stride=2",
        "concat(",
        "  conv1-8,",
        "  conv1-8 |",
        "  add(",
        "    conv3-8,",
        "    skip),",
        "  @stem | maxpool)",
        "fc-64",
        "fc-10",
        "soft-max",
        "→ scores",
        "@fc7",
        "boxes-10",
        "→ box",
        "@stem",
        "→ features",
    ]


def test_blocks_of_equal_stride_stand_beside_each_other() -> None:
    lines = table(net(load("vgg16")), net(load("alexnet"))).lines()
    (line,) = (line for line in lines if line.cells[1].text == "conv11-64 stride=4")
    assert line.cells[0].text == "conv3-256"
    ends = [cell.text for cell in lines[-1].cells]
    assert ends == ["soft-max", "soft-max"]


def test_a_hundred_equal_layers_are_one_line() -> None:
    deep = net(program("net n input 3x8x8 conv3-3 | conv3-3 ×100 | fc-2"))
    assert "conv3-3 ×101" in column(table(deep))


def test_what_has_no_room_goes_below() -> None:
    widths = [20, 20, 20, 20]
    assert [*parts(widths, 160)] == [slice(0, 4)]
    assert [*parts(widths, 60)] == [slice(0, 2), slice(2, 4)]
    assert [*parts(widths, 10)] == [slice(n, n + 1) for n in range(4)]
    assert [*parts(widths, 60, label=20)] == [slice(n, n + 1) for n in range(4)]


def test_one_column_that_is_too_wide_is_cut_where_it_can_be_seen() -> None:
    lines = text(table(net(program(RESIDUAL))), room=24)
    assert {len(line) for line in lines} == {24}
    assert any("conv3-32 stride… │" in line for line in lines)


# ---------------------------------------------------------------- one net


def test_the_layers_of_paths_stand_in_the_bracket_of_their_join() -> None:
    sheet = summary_text.layers(net(program(HEADS)))
    assert [row[0] for row in sheet.rows] == [
        "input",
        "stem",
        "pool1",
        "┌ concat1_conv1",
        "├ concat1_conv2",
        "│ ┌ concat1_add1_conv1",
        "│ ├ skip",
        "│ └ concat1_add1",
        "├ @stem",
        "│ concat1_pool1",
        "└ concat1",
        "fc7",
        "scores_fc1",
        "scores_softmax1",
        "→ scores",
        "@fc7",
        "box_boxes1",
        "→ box",
        "@stem",
        "→ features",
        "total",
    ]
    kinds = {row[0]: row[1:3] for row in sheet.rows}
    assert kinds["→ scores"] == ("classes", "10")
    assert kinds["→ box"] == ("boxes", "40")
    assert kinds["→ features"] == ("features", "16×32×32")


def test_parameters_and_what_is_only_kept_are_told_apart() -> None:
    """Source: torchvision prints 138,365,992 for its vgg16_bn."""
    sheet = summary_text.layers(net(load("vgg16_bn")))
    assert sheet.rows[-1][3] == "138,365,992"
    num_kept = 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512)
    assert any(f"{num_kept:,} running statistics" in note for note in sheet.notes)
    assert not any("statistics" in n for n in summary_text.layers(net(load("vgg16"))).notes)


# ---------------------------------------------------------------- the command


def summary(*arguments: str) -> str:
    command = [sys.executable, "-m", "vggc", "summary", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_summary_of_several_nets_marks_what_is_new_in_a_pipe() -> None:
    found = summary("vgg11", "vgg19")
    assert "│   11 weight layers │   19 weight layers │" in found
    assert "│   conv3-64         │   conv3-64         │" in found
    assert "│                    │ + conv3-64         │" in found
    assert "143,667,240" in found
    assert "\x1b" not in found


def test_summary_of_several_nets_fits_a_narrow_terminal_and_is_bold_there() -> None:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 200, 60, 0, 0))
    command = [sys.executable, "-m", "vggc", "summary", "vgg11", "vgg13", "vgg16", "vgg19"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60"}
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        data = b""
        try:
            while chunk := os.read(ours, 4096):
                data += chunk
        except OSError:
            pass
    os.close(ours)
    assert process.returncode == 0
    found = data.decode()
    lines = [line for line in found.splitlines() if line.startswith(("│", "├", "┌", "└"))]
    assert sum(line.startswith("┌") for line in lines) == 2
    assert "\x1b[1m" in found
    assert "+ conv" not in found


@pytest.mark.parametrize(("said", "width"), [("60", 60), ("100", 100), ("0", 160), ("wide", 160)])
def test_columns_in_the_environment_tell_the_width_of_a_pipe(
    said: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", said)
    longest = max(len(line.rstrip()) for line in summary("vgg11", "vgg13", "vgg19").splitlines())
    assert longest <= width


def test_markdown_keeps_indents_and_puts_no_blank_beside_its_stars() -> None:
    nets = [net(load("vgg11")), net(program(RESIDUAL))]
    lines = summary_text.as_markdown(nets, named=True).splitlines()
    assert "|  | **(add(** |" in lines
    assert r"|  | &nbsp;&nbsp;&nbsp;**conv3-16 \| conv3-16 act=none,** |" in lines
    bold = [line.split("**")[1] for line in lines if line.endswith("** |")]
    assert len(bold) > 5
    assert all(words == words.strip() for words in bold)


def test_markdown_has_a_cell_a_net_and_bold_for_what_is_new() -> None:
    lines = summary("vgg11", "vgg13", "--format", "markdown").splitlines()
    assert lines[:2] == ["| vgg11 | vgg13 |", "| --- | --- |"]
    assert "|  | **conv3-64** |" in lines
    assert "| maxpool | maxpool |" in lines
    assert any(line.startswith("| parameters | 132,863,336 | 133,047,848 |") for line in lines)


def test_json_names_heads_paths_and_statistics(tmp_path: Path) -> None:
    (tmp_path / "n.vgg").write_text(HEADS)
    report = json.loads(summary(str(tmp_path / "n.vgg"), "--format", "json"))
    assert report["heads"] == [
        {"name": "scores", "kind": "classes", "shape": [10]},
        {"name": "box", "kind": "boxes", "shape": [40]},
        {"name": "features", "kind": "features", "shape": [16, 32, 32]},
    ]
    paths = {layer["name"]: layer["path"] for layer in report["layers"]}
    assert paths["concat1_add1_conv1"] == ["concat1", "concat1_add1"]
    assert report["totals"]["statistics"] == 0


def test_csv_has_one_line_a_layer_or_one_a_net(tmp_path: Path) -> None:
    (tmp_path / "n.vgg").write_text(HEADS)
    rows = [*csv.DictReader(io.StringIO(summary(str(tmp_path / "n.vgg"), "--format", "csv")))]
    assert {row["name"]: row["path"] for row in rows}["concat1_add1"] == "concat1"
    rows = [*csv.DictReader(io.StringIO(summary("vgg11", "vgg13", "--format", "csv")))]
    assert [row["params"] for row in rows] == ["132863336", "133047848"]


@pytest.mark.parametrize("arguments", [["vgg16", "resnet18"], ["resnet18"], []])
def test_summary_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from vggc.cli import main\n"
        f"sys.argv = ['vggc', 'summary', *{arguments!r}]\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'tvm', 'onnx', 'numpy', 'matplotlib', 'PIL'}\n"
        "    print('heavy:', sorted(heavy & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stderr
