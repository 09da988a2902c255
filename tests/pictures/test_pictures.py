"""Pictures: what stands where, to which scale, and that both writers draw all of it."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import pytest

from tests.support.nets import program
from vggc.analysis.outline import Join, OutlineRepeat, OutlineStep, folded, outline
from vggc.analysis.outline import Path as Chain
from vggc.pictures.layout import MAX_BLOCKS, TooManyBlocks, layout
from vggc.pictures.png import DENSITY, as_png
from vggc.pictures.shapes import (
    Circle,
    Line,
    Mark,
    Picture,
    Polygon,
    Rectangle,
    Text,
    shortened,
    text_width,
)
from vggc.pictures.svg import as_svg
from vggc.program import Program, load
from vggc.support.diagnostics import UserError

RESIDUAL = """
net residual input 3x32x32
  stem: conv3-16
| (add(conv3-16 | conv3-16 act=none, skip) | relu) ×2
| add(conv3-32 stride=2 | conv3-32 act=none, conv1-32 stride=2 act=none) | relu
| gap | fc-10 | softmax
"""
INCEPTION = """
net inception input 3x64x64
  stem: conv7-32 stride=2 | pool
| concat(conv1-16, conv1-24 | concat(conv1-16, conv3-16 ×2) | conv5-8, skip)
| add(conv3-56, conv1-56, @stem | pool | conv1-56) | fc-10 | softmax
"""
HEADS = """
net heads input 3x32x32
  stem: conv3-16 | pool | conv3-32 | fc7: fc-64
head scores: fc-10 | softmax
head aux: @stem | gap | fc-10 | softmax
head box: @fc7 | boxes-10
head features: @fc7
"""
WIDE = (
    "net wide input 3x16x16 conv3-8 | add("
    + " | ".join(f"conv3-{width}" for width in range(8, 38))
    + " | conv3-8, skip) | fc-4"
)
ONE = "net one input 1x28x28 fc-10"
LONG = (
    f"net {'n' * 64} input 3x64x16 {'first_' * 12}layer: conv3-8 | {'w' * 90}: conv3-8"
    " | fc-100000 | fc-4096"
)
DEEP = "net deep input 3x8x8 conv3-4 | (conv3-4 | conv1-4) ×2000 | fc-10"
SAMPLES = {
    "vgg16": load("vgg16"),
    "thin": load("vgg16(width=0.25)"),
    **{
        name: program(text)
        for name, text in {
            "residual": RESIDUAL,
            "inception": INCEPTION,
            "heads": HEADS,
            "wide": WIDE,
            "one": ONE,
            "long": LONG,
            "deep": DEEP,
        }.items()
    },
}


def drawn(net: Program) -> Picture:
    report = net.report()
    return layout(outline(net.graph, report), report)


def words(picture: Picture) -> list[str]:
    return [mark.text for mark in picture.marks if isinstance(mark, Text)]


def front(picture: Picture, name: str) -> tuple[float, float]:
    """Width and height of a layer's front, in pixels."""
    *_, polygon = (
        mark
        for mark in picture.marks
        if isinstance(mark, Polygon) and mark.tip.startswith(f"{name}:")
    )
    xs, ys = zip(*polygon.points, strict=True)
    return max(xs) - min(xs), max(ys) - min(ys)


def border(mark: Mark) -> tuple[float, float, float, float]:
    """Left, top, right and bottom."""
    match mark:
        case Text(x, y, text, size, _, anchor, bold):
            width = text_width(text, size, bold)
            left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            return left, y - 0.75 * size, left + width, y + 0.2 * size
        case Polygon(points):
            xs, ys = zip(*points, strict=True)
            return min(xs), min(ys), max(xs), max(ys)
        case _:
            raise AssertionError(mark)


def overlap(one: Mark, other: Mark) -> bool:
    a, b = border(one), border(other)
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# ---------------------------------------------------------------- the way the net is written


def test_an_outline_finds_joins_paths_and_references_again() -> None:
    net = SAMPLES["inception"]
    items = outline(net.graph, net.report()).trunk.path.items
    concat, add = (item for item in items if isinstance(item, Join))
    assert [len(path.items) for path in concat.paths] == [1, 3, 0]
    inner = concat.paths[1].items[1]
    assert isinstance(inner, Join)
    assert [len(path.items) for path in inner.paths] == [1, 2]
    assert [path.source for path in add.paths] == ["", "", "stem"]


def test_an_outline_finds_every_layer_once() -> None:
    def names(path: Chain) -> list[str]:
        found = []
        for item in path.items:
            assert not isinstance(item, OutlineRepeat)
            found += [name for p in getattr(item, "paths", ()) for name in names(p)]
            found.append(item.row.name)
        return found

    for net in SAMPLES.values():
        report = net.report()
        branches = outline(net.graph, report).branches
        written = [name for branch in branches for name in names(branch.path)]
        assert sorted(written) == sorted(row.name for row in report.rows)


def test_an_outline_begins_each_head_where_it_leaves_the_others() -> None:
    net = SAMPLES["heads"]
    branches = outline(net.graph, net.report()).branches
    found = {branch.head: (branch.path.source, len(branch.path.items)) for branch in branches}
    assert found == {
        "scores": ("", 7),
        "aux": ("stem", 3),
        "box": ("fc7", 1),
        "features": ("fc7", 0),
    }


def test_a_path_that_refers_into_its_neighbour_begins_there() -> None:
    net = program("net n input 3x8x8 concat(a: conv3-4, add(@a, conv3-4)) | fc-2")
    (join,) = (
        item for item in outline(net.graph, net.report()).trunk.path.items if isinstance(item, Join)
    )
    assert [path.source for path in join.paths] == ["", ""]
    inner = join.paths[1].items[0]
    assert isinstance(inner, Join)
    assert [path.source for path in inner.paths] == ["a", ""]


def test_what_repeats_is_folded_and_begins_with_its_join() -> None:
    net = program("net n input 3x8x8 conv3-4 | relu | (add(conv3-4, skip) | relu) ×7 | fc-2")
    items = folded(outline(net.graph, net.report()).trunk.path).items
    (repeat,) = (item for item in items if isinstance(item, OutlineRepeat))
    assert repeat.count == 7
    assert isinstance(repeat.first[0], Join)
    assert isinstance(repeat.last[1], OutlineStep)
    assert (repeat.first[0].row.name, repeat.last[1].row.name) == ("add1", "relu8")


def test_layers_that_differ_in_an_option_are_not_folded() -> None:
    net = program("net n input 3x8x8 conv3-3 | conv3-3 act=tanh | conv3-3 | fc-2")
    items = folded(outline(net.graph, net.report()).trunk.path).items
    assert not [item for item in items if isinstance(item, OutlineRepeat)]


# ---------------------------------------------------------------- the picture


@pytest.mark.parametrize("name", SAMPLES)
def test_no_text_lies_on_another_or_on_a_block(name: str) -> None:
    picture = drawn(SAMPLES[name])
    sums = {(mark.x, mark.y) for mark in picture.marks if isinstance(mark, Circle)}
    texts = [mark for mark in picture.marks if isinstance(mark, Text)]
    blocks = [mark for mark in picture.marks if isinstance(mark, Polygon)]
    assert len(texts) > 10
    assert len(blocks) >= 6
    for one, other in combinations(texts, 2):
        assert not overlap(one, other), (one, other)
    for text in texts:
        if text.text != "+" or not sums:
            assert not any(overlap(text, block) for block in blocks), text
    for mark in (*texts, *blocks):
        left, top, right, bottom = border(mark)
        assert min(left, top) >= 0
        assert right <= picture.width
        assert bottom <= picture.height


def test_blocks_are_to_the_square_root_of_resolution_and_channels() -> None:
    picture = drawn(SAMPLES["vgg16"])
    wide, high = front(picture, "conv1_1")
    for name, channels, rows in (
        ("conv2_2", 128, 112),
        ("conv3_3", 256, 56),
        ("conv5_1", 512, 14),
        ("pool5", 512, 7),
    ):
        width, height = front(picture, name)
        assert width / wide == pytest.approx((channels / 64) ** 0.5)
        assert height / high == pytest.approx((rows / 224) ** 0.5)
    assert front(picture, "fc6")[0] / wide == pytest.approx(8)
    assert any("square root" in text for text in words(picture))


def test_layers_that_pad_or_normalise_groups_say_how() -> None:
    net = "net n input 4x8x8 pad padding=1x0x2x0 border=edge | groupnorm groups=2 | pad padding=1"
    found = words(drawn(program(net)))
    assert {"padding=1x0x2x0", "border=edge", "4 × 11 × 8", "groups=2", "padding=1"} <= {*found}
    assert "upsampling, padding" in found


def test_every_layer_says_its_name_shape_parameters_and_field() -> None:
    found = words(drawn(SAMPLES["vgg16"]))
    for row in SAMPLES["vgg16"].report().rows:
        assert row.name in found
    assert found.count("512 × 14 × 14") == 4
    assert found.count("2,359,808 params") == 5
    assert "field 212" in found
    assert "138,357,544 parameters" in found[1]
    assert "15,470,264,320 MACs" in found[1]


def test_stride_normalisation_and_activation_are_shown() -> None:
    found = words(
        drawn(
            program(
                "net n\ninput 3x32x32\n"
                "conv3-8 stride=2 norm=batch | pool3 stride=2 padding=1"
                " | conv3-8 groups=8 act=silu norm=batch | fc-8 act=tanh | fc-4"
            )
        )
    )
    assert "every conv norm=batch" in found[1]
    assert found.count("stride=2") == 2
    assert "groups=8 act=silu" in found
    assert "act=tanh" in found
    assert not any("act=none" in text for text in found)  # an output has none
    assert any("end in a relu unless they say otherwise" in text for text in found)


def test_a_strided_block_looks_otherwise_than_the_others() -> None:
    picture = drawn(load("resnet18"))
    first = next(i for i, text in enumerate(words(picture)) if text == "add3_conv1")
    assert words(picture)[first : first + 3] == ["add3_conv1", "conv3-128", "stride=2"]
    assert "every conv norm=batch bias=off" in words(picture)[1]


def test_paths_of_a_join_stand_above_one_another() -> None:
    picture = drawn(SAMPLES["residual"])
    place = {mark.text: mark for mark in picture.marks if isinstance(mark, Text)}
    assert place["add3_conv1"].y == place["add3_conv2"].y
    assert place["add3_conv1"].y < place["add3_conv3"].y
    assert place["add3_conv1"].x == pytest.approx(place["add3_conv3"].x, abs=10)
    assert place["add3_conv2"].x < place["add3"].x
    assert sum(isinstance(mark, Circle) for mark in picture.marks) == 3


@pytest.mark.parametrize("name", SAMPLES)
def test_a_page_is_never_too_wide_to_be_read(name: str) -> None:
    assert drawn(SAMPLES[name]).width <= 1200


def test_a_long_path_goes_on_below() -> None:
    picture = drawn(SAMPLES["wide"])
    place = {mark.text: (mark.x, mark.y) for mark in picture.marks if isinstance(mark, Text)}
    layers = [place[f"add1_conv{number}"] for number in range(1, 32)]
    assert layers == sorted(layers, key=lambda at: (at[1], at[0]))
    num_lines = len({y for _, y in layers})
    assert num_lines > 2
    assert place["skip"][1] > layers[-1][1]
    returns = [mark for mark in picture.marks if isinstance(mark, Line) and len(mark.points) == 6]
    within = [
        line for line in returns if place["add1_conv1"][1] < line.points[2][1] < layers[-1][1]
    ]
    assert len(within) == num_lines - 1


def test_references_and_heads_are_named_at_both_ends() -> None:
    found = words(drawn(SAMPLES["heads"]))
    assert {"@stem", "→ aux", "aux: classes", "box: boxes", "features: features"} <= {*found}
    assert found.count("@fc7") == 2
    assert {"→ add1", "@stem"} <= {*words(drawn(SAMPLES["inception"]))}


def test_a_long_net_is_drawn_with_its_repeats_once() -> None:
    picture = drawn(SAMPLES["deep"])
    found = words(picture)
    assert "×2000" in found
    assert sum(isinstance(mark, Polygon) for mark in picture.marks) == 3 * 5
    assert any(isinstance(mark, Rectangle) and mark.dashed for mark in picture.marks)
    assert len(as_svg(picture)) < 20_000


def test_what_cannot_be_read_is_not_drawn() -> None:
    import random

    generator = random.Random(0)
    widths = [generator.choice((4, 8, 12, 16)) for _ in range(3000)]
    net = program("net n input 3x8x8 " + " | ".join(f"conv3-{width}" for width in widths))
    with pytest.raises(UserError) as caught:
        drawn(net)
    (problem,) = caught.value.diagnostics
    assert isinstance(problem, TooManyBlocks)
    assert problem.blocks > MAX_BLOCKS


def test_names_too_long_for_their_place_lose_their_middle() -> None:
    assert shortened("conv1_1", 11, 100) == "conv1_1"
    assert len(shortened("a" * 100_000, 11, 100)) < 20
    short = shortened("a_layer_of_a_very_long_name", 11, 100)
    assert short.startswith("a_l")
    assert short.endswith("ame")
    assert "…" in short
    assert text_width(short, 11) <= 100


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", SAMPLES)
def test_svg_is_xml_that_holds_every_mark(name: str) -> None:
    picture = drawn(SAMPLES[name])
    root = ElementTree.fromstring(as_svg(picture))
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert [text.text for text in root.iter(f"{space}text")] == words(picture)
    num_marks = len(root) - 2  # its title and the white behind it
    assert num_marks == len(picture.marks)


def test_svg_escapes_what_it_is_told() -> None:
    text = Text(0, 0, 'a<b>&"c"\x07', 10, "#000000")
    root = ElementTree.fromstring(as_svg(Picture("<&>", 10, 10, (text,))))
    assert root[0].text == "<&>"
    assert root[2].text == 'a<b>&"c"'


def test_png_draws_the_same_picture(tmp_path: Path) -> None:
    picture = drawn(SAMPLES["residual"])
    path = tmp_path / "net.png"
    path.write_bytes(as_png(picture))
    pixels = matplotlib.image.imread(path)
    height, width = pixels.shape[:2]
    assert width == pytest.approx(DENSITY * picture.width, abs=2)
    assert height == pytest.approx(DENSITY * picture.height, abs=2)
    polygon = next(mark for mark in reversed(picture.marks) if isinstance(mark, Polygon))
    left, top, right, bottom = border(polygon)
    x, y = round(left + right), round(top + bottom)  # the centre, times two
    colour = "#" + "".join(f"{round(255 * part):02x}" for part in pixels[y, x, :3])
    assert colour == polygon.fill
    assert tuple(pixels[2, 2, :3]) == (1, 1, 1)


def test_png_takes_signs_of_mathematics_and_other_scripts_as_they_are() -> None:
    text = Text(5, 15, "$x^2$ 网", 10, "#000000")
    assert as_png(Picture("t", 60, 20, (text,))).startswith(b"\x89PNG")


# ---------------------------------------------------------------- the command


def vggc(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vggc", "draw", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_draw_writes_what_the_suffix_says(tmp_path: Path) -> None:
    done = vggc(tmp_path, "vgg11", "-o", "net.svg")
    assert done.stdout.startswith("net.svg: vgg11, 1200 × ")
    ElementTree.parse(tmp_path / "net.svg")
    vggc(tmp_path, "vgg11", "-o", "net.PNG")
    assert (tmp_path / "net.PNG").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"net.svg", "net.PNG"}


def test_draw_takes_another_input(tmp_path: Path) -> None:
    vggc(tmp_path, "vgg11", "--input", "64x96", "-o", "net.svg")
    assert "64 × 64 × 96" in (tmp_path / "net.svg").read_text()


def test_draw_takes_nobodys_place(tmp_path: Path) -> None:
    (tmp_path / "net.svg").write_text("mine")
    assert "exists already" in vggc(tmp_path, "vgg11", "-o", "net.svg", code=2).stderr
    assert (tmp_path / "net.svg").read_text() == "mine"


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("net.jpg", "did you mean net.svg?"),
        ("net", "did you mean net.svg?"),
        ("away/net.svg", "mkdir -p away"),
    ],
)
def test_draw_refuses_what_it_cannot_write(tmp_path: Path, out: str, expected: str) -> None:
    assert expected in vggc(tmp_path, "vgg11", "-o", out, code=2).stderr
    assert not list(tmp_path.iterdir())
