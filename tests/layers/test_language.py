"""What nets mean: bases and edits, parameters, branches, heads, defaults of a kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.nets import graph_of, program
from vggc.ir.graph import Graph
from vggc.ir.ops import (
    RELU,
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    ConvTranspose2d,
    GroupNorm,
    LayerNorm,
    Linear,
    TakeChannels,
    TakePart,
)
from vggc.layers.edit import with_classes, with_width
from vggc.layers.kinds import KINDS, Kind
from vggc.layers.reference import entries, markdown
from vggc.program import load
from vggc.recipe import reference as settings_reference
from vggc.support.diagnostics import UserError
from vggc.support.resources import resource
from vggc.support.source import Source
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse


def names(found: Graph) -> list[str]:
    """The layers in order, each once."""
    return list(dict.fromkeys(node.layer.name for node in found.nodes[1:]))


def words(text: str) -> str:
    """The layers of the plain net, in one line."""
    net = program(text).net
    lines = format_net(net).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(("  ", "|")))
    rows = [line.removeprefix("|").strip() for line in lines[start:] if line.startswith((" ", "|"))]
    return " ".join(" | ".join(rows).split())


BASE = """
net base
input 3x16x16
  conv3-8 ×2 | pool
| conv3-16 ×3 | pool
| (fc-32 | dropout) ×2 | fc-10 | softmax
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.vgg").write_text(BASE)
    return tmp_path / "mine.vgg"


def derived(path: Path, edits: str, arguments: str = "") -> str:
    """The layers of a net built on the base."""
    path.write_text(f"net mine from base{arguments}\n{edits}\n")
    net = load(str(path))
    net.graph.verify()
    text = format_net(net.net)
    assert parse(Source("again", text)) == net.net
    return words(text)


# ---------------------------------------------------------------- parameters and constants


def test_a_parameter_stands_for_widths_repeats_and_options() -> None:
    text = "net a(depth=2, wide=8, drop=25%)\ninput 3x8x8\n"
    body = "  conv3-wide ×depth | (conv1-wide | dropout p=drop) ×depth\n"
    assert words(text + body) == "conv3-8 ×2 | (conv1-8 | dropout p=0.25) ×2"


def test_constants_are_sums_of_what_stands_before_them() -> None:
    text = """
    net a(width=3)
    input 3x8x8
    let half = width / 2
    let wide = round(16 * half) - (2 - 1) * 4
    let twice = 2 * wide
      conv3-wide | conv3-twice | conv3-width
    """
    assert words(text) == "conv3-20 | conv3-40 | conv3-3"


def test_a_constant_stands_for_a_value_in_a_list_too() -> None:
    text = "net a(low=20, first=conv1_1) input 3x16x16 conv3-4 ×3 | gap | fc-3\n"
    found = program(text + "train { freeze first,conv1_2 }\ntest { scales low,24 }")
    assert found.recipe.freeze == ("conv1_1", "conv1_2")
    assert found.protocol.scales == (20, 24)


KEYWORDS = ("net", "from", "let", "set", "after", "insert", "replace", "with", "remove", "head")


@pytest.mark.parametrize("name", ["x2", "x3-a", "x", "e5", "é", "one", "train", *KEYWORDS])
def test_a_layer_may_be_called_as_other_words_are(base: Path, name: str) -> None:
    base.with_name("base.vgg").write_text(
        f"net base\ninput 3x8x8\nevery conv bias=off\n  {name}: conv3-4 | conv3-4 x2\n"
        f"| add(@{name} | {name}-b: relu, skip) | gap | fc-3\ntrain {{ freeze {name}..{name} }}\n"
    )
    derived(base, f"set {name} act=tanh\nafter {name} insert {name}-c: relu\nremove {name}-b")
    assert names(load(str(base)).graph)[:2] == [name, f"{name}-c"]


def test_what_a_spec_gives_wins_over_the_default() -> None:
    path = resource("zoo", "vgg16.vgg")
    full, slim = load("vgg16").graph, load(f"{path}(classes=10, width=0.5)").graph
    assert full.output == (1000,)
    assert slim.output == (10,)
    assert [n.shape[0] for n in full.nodes if isinstance(n.op, Conv2d)] == [
        2 * n.shape[0] for n in slim.nodes if isinstance(n.op, Conv2d)
    ]


def test_width_rounds_to_whole_channels_and_leaves_the_outputs() -> None:
    slim = load("vgg16(width=0.001)").graph
    widths = [node.shape[0] for node in slim.nodes if isinstance(node.op, Conv2d | Linear)]
    assert set(widths[:-3]) == {1}
    assert widths[-3:] == [4, 4, 1000]


def test_classes_change_every_head_that_rates_them() -> None:
    text = """
    net a
    input 3x8x8
      conv3-4 | add(conv3-4, skip) | gap
    head fine: fc-6 | fc-100 | softmax
    head coarse: fc-100 | softmax
    head boxes: boxes-100
    head box: boxes
    """
    found = program(text)
    changed = found.replace(with_classes(found.net, 7)).graph
    assert changed.outputs == {"fine": (7,), "coarse": (7,), "boxes": (28,), "box": (4,)}


def test_a_net_that_pools_its_scores_has_classes_too() -> None:
    found = program("net a input 3x8x8 conv3-4 | conv1-10 | gap | softmax")
    assert found.replace(with_classes(found.net, 3)).graph.output == (3,)


# ---------------------------------------------------------------- bases and edits


def test_a_net_without_edits_is_its_base_under_another_name(base: Path) -> None:
    assert derived(base, "") == words(BASE)
    assert load(str(base)).graph.name == "mine"


EDITS = {
    "after every pool insert lrn": (
        "conv3-8 ×2 | pool | lrn | conv3-16 ×3 | pool | lrn | (fc-32 | dropout) ×2"
        " | fc-10 | softmax"
    ),
    "after every conv insert dropout p=10%": (
        "(conv3-8 | dropout p=10%) ×2 | pool | (conv3-16 | dropout p=10%) ×3 | pool"
        " | (fc-32 | dropout) ×2 | fc-10 | softmax"
    ),
    "before fc3 insert gap": (
        "conv3-8 ×2 | pool | conv3-16 ×3 | pool | gap | fc-32 | dropout | fc-32 | dropout"
        " | fc-10 | softmax"
    ),
    "after conv2_2 insert lrn": (
        "conv3-8 ×2 | pool | conv3-16 | conv3-16 | lrn | conv3-16 | pool"
        " | (fc-32 | dropout) ×2 | fc-10 | softmax"
    ),
    "replace conv1_1..conv1_2 with conv5-8": (
        "conv5-8 | pool | conv3-16 ×3 | pool | (fc-32 | dropout) ×2 | fc-10 | softmax"
    ),
    "replace fc3..dropout2 with gap": (
        "conv3-8 ×2 | pool | conv3-16 ×3 | pool | gap | fc-10 | softmax"
    ),
    "replace every conv3-16 with add(conv3-16, conv1-16)": (
        "conv3-8 ×2 | pool | add(conv3-16, conv1-16) ×3 | pool | (fc-32 | dropout) ×2"
        " | fc-10 | softmax"
    ),
    "remove every dropout": (
        "conv3-8 ×2 | pool | conv3-16 ×3 | pool | (fc-32) ×2 | fc-10 | softmax"
    ),
    "remove conv2_1": (
        "conv3-8 ×2 | pool | conv3-16 ×2 | pool | (fc-32 | dropout) ×2 | fc-10 | softmax"
    ),
    "set conv1_1 stride=2 act=none": (
        "conv3-8 stride=2 act=none | conv3-8 | pool | conv3-16 ×3 | pool | (fc-32 | dropout) ×2"
        " | fc-10 | softmax"
    ),
    "remove every dropout\nremove fc3\nreplace fc4 with fc-5": (
        "conv3-8 ×2 | pool | conv3-16 ×3 | pool | fc-32 | fc-5 | softmax"
    ),
}


@pytest.mark.parametrize("edits", EDITS)
def test_an_edit_changes_just_what_it_names(base: Path, edits: str) -> None:
    assert derived(base, edits) == EDITS[edits]


def test_a_run_that_ends_in_a_join_takes_in_all_of_it(base: Path) -> None:
    base.with_name("base.vgg").write_text(
        "net base\ninput 3x8x8\n"
        "conv3-4 | mix: concat(conv1-4, add(conv3-4, skip)) | conv3-6 | gap\n"
    )
    start, end = "conv3-9 | ", " | gap"
    assert derived(base, "replace conv1_1..mix with conv3-9") == f"{start}conv3-6{end}"
    assert derived(base, "replace mix..conv1_2 with conv3-9") == f"conv3-4 | conv3-9{end}"
    with pytest.raises(UserError, match="is no run of layers"):
        derived(base, "remove mix_conv1..mix")


def test_a_kind_with_its_numbers_means_layers_however_they_say_them(base: Path) -> None:
    base.with_name("base.vgg").write_text(
        "net base\ninput 3x8x8\nconv size=3 width=4 | conv3 width=8 | conv5-8 | gap\n"
    )
    removed = "remove every conv3-8\nafter every conv3 insert lrn\nset every conv5 act=none"
    assert derived(base, removed) == "conv size=3 width=4 | lrn | conv5-8 act=none | gap"


def test_a_kind_with_its_numbers_means_layers_whoever_says_them(base: Path) -> None:
    base.with_name("base.vgg").write_text(
        "net base\ninput 3x8x8\nevery conv size=3\nconv-4 | conv3-8 | conv5-8 | pool | fc-5\n"
    )
    assert derived(base, "set every conv3 act=tanh") == (
        "conv-4 act=tanh | conv3-8 act=tanh | conv5-8 | pool | fc-5"
    )
    assert derived(base, "let n = 4\nremove every conv3-n\nremove every maxpool2") == (
        "conv3-8 | conv5-8 | fc-5"
    )
    assert derived(base, "every conv size=1\nset every conv1-4 act=tanh") == (
        "conv-4 act=tanh | conv3-8 | conv5-8 | pool | fc-5"
    )


SET = {
    "set conv1_1 width=6": "conv3 width=6 | conv3-8",
    "set conv1_1 size=5": "conv-8 size=5 | conv3-8",
    "set every conv width=9 size=1": "(conv width=9 size=1) ×2",
}


@pytest.mark.parametrize("edit", SET)
def test_set_takes_the_place_of_numbers_in_the_word(base: Path, edit: str) -> None:
    base.with_name("base.vgg").write_text("net base\ninput 3x8x8\nconv3-8 ×2\n")
    assert derived(base, edit) == SET[edit].replace("(", "").replace(")", "")


REFERRING = """
net base
input 3x16x16
  conv3-8 | conv3-9 | conv3-10 | add(conv3-9, @conv1_2) | gap | fc-3
head f: @conv1_2
train { freeze conv1_2..conv1_3; init-from base2 layers=conv1_3 }
"""


def test_what_refers_to_a_layer_refers_to_the_same_one_after_an_edit(base: Path) -> None:
    base.with_name("base.vgg").write_text(REFERRING)
    base.with_name("base2.vgg").write_text(REFERRING.replace("conv1_1", "conv1_1"))
    base.write_text("net mine from base\nremove conv1_1\ntrain { init-from off }\n")
    found = load(str(base))
    read = {found.graph.nodes[i].name for node in found.graph.nodes for i in node.inputs}
    assert found.graph.outputs["f"] == (9, 16, 16)
    assert "conv1_1.relu" in read
    assert found.recipe.freeze == ("conv1_1..conv1_2",)


def test_a_layer_that_is_named_elsewhere_is_not_taken_away(base: Path) -> None:
    base.with_name("base.vgg").write_text(REFERRING)
    for edit, place in (("remove conv1_2", 4), ("replace conv1_3 with conv3-9", 6)):
        base.write_text(f"net mine from base\n{edit}\n")
        with pytest.raises(UserError, match=rf"is named elsewhere[^$]*base.vgg:{place}:\d+"):
            load(str(base)).check()
    base.write_text(
        "net mine from base\nreplace conv1_3 with conv3-9\ntrain { freeze off; init-from off }\n"
    )
    load(str(base)).check()


def test_an_edit_leaves_every_head_a_layer(base: Path) -> None:
    base.with_name("base.vgg").write_text("net base\ninput 3x8x8\nconv3-4 | gap\nhead a: fc-3\n")
    base.write_text("net mine from base\nremove a_fc1\n")
    with pytest.raises(UserError, match="no layer is left of the head `a`"):
        load(str(base)).check()


def test_width_scales_what_every_says_depthwise_groups_and_features() -> None:
    text = """
    net a
    input 3x8x8
    every conv width=64 size=3
      conv | conv groups=64 | conv1-32 | t: fc-16 | fc-10 | softmax
    head features: @t
    """
    found = program(text)
    slim = found.replace(with_width(found.net, 0.5)).graph
    widths = [n.shape[0] for n in slim.nodes if isinstance(n.op, Conv2d | Linear)]
    assert widths == [32, 32, 16, 8, 10]
    assert [n.op.groups for n in slim.nodes if isinstance(n.op, Conv2d)] == [1, 32, 1]


def scaled(body: str, factor: float, input_: str = "3x8x8") -> list[tuple[int, int]]:
    """The width and the groups of each convolution of a net that is `factor` times as wide."""
    found = program(f"net a input {input_} {body} | gap | fc-5")
    graph = found.replace(with_width(found.net, factor)).graph
    return [(n.op.channels, n.op.groups) for n in graph.nodes if isinstance(n.op, Conv2d)]


def test_a_group_for_each_channel_stays_one_whatever_the_width() -> None:
    assert scaled("conv3-4 groups=4", 0.5, "4x8x8") == [(4, 4)]
    assert scaled("conv3-8 groups=4", 3, "4x8x8") == [(8, 4)]
    assert scaled("conv3-32 | conv3-64 groups=32 | conv1-8", 0.3) == [(10, 1), (20, 10), (2, 1)]
    assert scaled("concat(conv3-3, conv1-3) | conv3-6 groups=6", 0.5) == [(2, 1), (2, 1), (4, 4)]


def test_widths_are_multiples_of_the_groups_that_they_are_parted_into() -> None:
    body = "conv3-512 | pool | conv3-1024 groups=2 | conv1-512"
    assert scaled(body, 0.3) == [(154, 1), (308, 2), (154, 1)]
    assert scaled(body, 0.15) == [(76, 1), (154, 2), (77, 1)]
    residual = "a: conv3-64 | add(conv3-64 | conv3-64, skip) | add(skip, @a) | conv3-32 groups=32"
    assert scaled(residual, 0.1) == [(32, 1), (6, 1), (32, 1), (32, 32)]
    parts = "concat(conv1-3, conv1-5) | conv1-8 groups=4"
    assert scaled(parts, 1) == [(3, 1), (5, 1), (8, 4)]
    assert scaled(parts, 0.5) == [(4, 1), (4, 1), (4, 4)]
    scores = program("net a input 3x8x8 conv3-4 | conv1-12 groups=4 | gap | softmax")
    slim = scores.replace(with_width(scores.net, 0.5)).graph
    assert [n.op.channels for n in slim.nodes if isinstance(n.op, Conv2d)] == [4, 12]
    assert load("vgg16_gap(width=0.3)").graph.outputs == {"output": (1000,)}


def test_classes_of_a_sum_are_not_changed_unseen() -> None:
    found = program("net a input 3x8x8 gap\nhead a: add(fc-9, fc-9) | softmax\nhead b: fc-9")
    with pytest.raises(UserError, match="no one layer gives the scores of its head `a`"):
        with_classes(found.net, 5)


def test_names_stand_for_values_of_settings_too() -> None:
    found = program("net a(rate=0.5, n=3) input 3x8x8 fc-n\ntrain { sgd lr=rate; epochs n }")
    assert (found.recipe.optimiser.lr, found.recipe.epochs) == (0.5, 3)


def test_layers_inside_joins_and_heads_are_edited_by_their_names(base: Path) -> None:
    text = """
    net base
    input 3x8x8
      conv3-4 | mix: concat(conv1-4, conv3-4 | pool3 stride=1 padding=1) | gap
    head one: fc-3
    head two: fc-4
    """
    base.with_name("base.vgg").write_text(text)
    edits = "replace mix_conv2..mix_pool1 with conv5-6\nset two_fc1 bias=off\nremove mix_conv1"
    derived(base, edits)
    found = load(str(base)).graph
    assert names(found) == ["conv1_1", "mix_conv1", "mix", "gap1", "one_fc1", "two_fc1"]
    by_name = {node.name: node for node in found.nodes}
    assert by_name["mix"].shape == (4 + 6, 8, 8)
    assert by_name["two_fc1"].op == Linear(4, bias=False)


def test_arguments_of_a_base_may_be_parameters_of_the_net(base: Path) -> None:
    base.write_text("net mine(n=4) from base(classes=n)\n")
    assert load(str(base)).graph.output == (4,)
    assert load(f"{base}(n=6)").graph.output == (6,)


def test_heads_and_blocks_of_the_base_are_kept_unless_named_again(base: Path) -> None:
    base.with_name("base.vgg").write_text(
        "net base\ninput 3x8x8\nconv3-4 | gap\nhead a: fc-3\nhead b: fc-4\n"
        "train {\n  batch 8\n  sgd lr=0.1 momentum=0.8\n}\n"
    )
    base.write_text("net mine from base\nhead b: fc-5\nhead c: fc-6\ntrain { sgd lr=0.2 }\n")
    mine = load(str(base))
    assert mine.graph.outputs == {"a": (3,), "b": (5,), "c": (6,)}
    assert mine.recipe.batch == 8
    assert (mine.recipe.optimiser.lr, mine.recipe.optimiser.momentum) == (0.2, 0.8)


def test_a_mistake_in_an_edit_is_shown_in_the_edit(base: Path) -> None:
    base.write_text("net mine from base\n\nreplace conv2_1 with conv9-16 padding=0 | conv9-16\n")
    with pytest.raises(UserError, match=r"does not fit here\n --> \S*mine.vgg:3:22\n"):
        load(str(base)).check()


# ---------------------------------------------------------------- branches


def test_paths_read_what_stands_before_the_join() -> None:
    found = graph_of("conv3-4 | concat(conv1-2, conv3-3 | conv3-5, skip)")
    join = found.nodes[-1]
    assert isinstance(join.op, Concat)
    assert [found.nodes[read].shape[0] for read in join.inputs] == [2, 5, 4]
    assert join.shape == (11, 13, 11)


def test_layers_of_a_join_bear_its_name() -> None:
    found = graph_of(
        "add(conv3-3 | conv3-3, skip) | mix: concat(conv1-2, pool | add(relu, tanh))".replace(
            "pool | ", ""
        )
    )
    assert names(found) == [
        "add1_conv1", "add1_conv2", "add1", "mix_conv1", "mix_add1_relu1", "mix_add1_tanh1",
        "mix_add1", "mix",
    ]  # fmt: skip
    inner = next(node for node in found.nodes if node.name == "mix_add1_relu1")
    assert inner.layer.path == ("mix", "mix_add1")


def test_a_reference_reads_an_earlier_layer() -> None:
    found = graph_of("stem: conv3-4 | conv3-4 | add(@stem | conv1-4, skip) | concat(@input, skip)")
    by_name = {node.name: node for node in found.nodes}
    assert found.nodes[by_name["add1_conv1"].inputs[0]].name == "stem.relu"
    assert by_name["concat1"].inputs[0] == 0


def test_a_repeated_join_is_built_anew_each_time() -> None:
    found = graph_of("conv3-4 | (add(conv3-4, skip) | relu) ×3")
    assert sum(isinstance(node.op, Add) for node in found.nodes) == 3
    assert names(found).count("add2_conv1") == 1


# ---------------------------------------------------------------- heads


def test_a_net_without_heads_has_one_that_its_last_layer_names() -> None:
    kinds = {"fc-3 | softmax": "classes", "fc-3": "classes", "boxes": "boxes", "relu": "features"}
    for body, kind in kinds.items():
        (head,) = graph_of(body).heads
        assert (head.name, head.kind) == ("output", kind), body


def test_heads_that_go_on_leave_the_chain_a_trunk() -> None:
    found = graph_of("conv3-4 | fc7: fc-8\nhead classes: fc-3 | softmax\nhead box: boxes")
    assert [(head.name, head.kind) for head in found.heads] == [
        ("classes", "classes"),
        ("box", "boxes"),
    ]
    assert found.nodes[2].op == RELU
    assert any(node.name == "fc7.relu" for node in found.nodes)


def test_heads_that_begin_elsewhere_leave_the_chain_an_output() -> None:
    found = graph_of("stem: conv3-4 | fc7: fc-8 | fc-3\nhead aux: @stem | gap | fc-3\n"
                     "head features: @fc7")  # fmt: skip
    assert {head.name: head.kind for head in found.heads} == {
        "output": "classes",
        "aux": "classes",
        "features": "features",
    }
    assert found.outputs["features"] == (8,)


def test_the_last_layer_of_each_head_is_linear() -> None:
    found = graph_of("conv3-4 | gap\nhead a: fc-5 | fc-3\nhead b: fc-3 act=tanh")
    fed = {node.name for node in found.nodes if isinstance(node.op, Activation)}
    assert fed == {"conv1_1.relu", "a_fc1.relu", "b_fc1.tanh"}


# ---------------------------------------------------------------- every


def test_every_speaks_for_layers_that_say_nothing_themselves() -> None:
    found = graph_of("every conv norm=batch act=leaky\nconv3-4 | conv3-4 act=none | fc-3")
    assert [type(node.op) for node in found.nodes if node.layer.name.startswith("conv")] == [
        Conv2d,
        BatchNorm,
        Activation,
        Conv2d,
        BatchNorm,
    ]


def test_every_leaves_the_output_linear_and_bare() -> None:
    found = graph_of("every conv norm=batch act=leaky\nconv3-4 | conv1-3 | gap | softmax")
    assert not any(node.name.startswith("conv1_2.") for node in found.nodes)


def test_what_a_layer_says_leaves_no_room_for_what_is_said_of_all() -> None:
    found = graph_of("every conv act=leaky slope=0.1\nconv3-4 act=none | conv3-4 | fc-3")
    assert [node.name for node in found.nodes if isinstance(node.op, Activation)] == [
        "conv1_2.leaky"
    ]


def test_an_output_that_says_its_activation_still_has_no_norm_unasked() -> None:
    found = graph_of("every fc norm=batch\nfc-8 | fc-3 act=none")
    assert [node.name for node in found.nodes if isinstance(node.op, BatchNorm)] == ["fc1.norm"]


def test_a_layer_says_its_normalisation_and_what_is_added_to_the_variance() -> None:
    found = graph_of(
        "every conv norm=batch eps=1e-3\nconv3-4 | conv3-4 norm=none"
        " | conv3-64 norm=group | conv3-4 norm=layer eps=0.1 | fc-8 norm=layer | fc-3"
    )
    assert [node.op for node in found.nodes if node.name.endswith(".norm")] == [
        BatchNorm(1e-3),
        GroupNorm(32, 1e-3),
        LayerNorm(0.1),
        LayerNorm(1e-6),
    ]


@pytest.mark.parametrize(
    ("word", "padding"),
    [
        ("deconv4-8 stride=2", (1, 1, 1, 1)),
        ("deconv3-8 stride=2", (1, 1, 0, 0)),
        ("deconv2-8 stride=2", (0, 0, 0, 0)),
        ("deconv3x7-8 stride=1x4", (1, 2, 1, 1)),
        ("deconv1-8 stride=3", (0, 0, 0, 0)),
    ],
)
def test_a_transposed_convolution_multiplies_the_map_by_its_stride(
    word: str, padding: tuple[int, ...]
) -> None:
    *_, op, _ = (node.op for node in graph_of(f"{word} | gap").nodes[:3])
    assert isinstance(op, ConvTranspose2d)
    assert op.padding == padding
    if word != "deconv1-8 stride=3":
        rows, columns = op.stride
        assert op.output((3, 13, 11)) == (8, 13 * rows, 11 * columns)


def test_a_narrower_net_has_as_many_channels_as_its_groups_want() -> None:
    net = "conv3-96 norm=group | conv3-40 | groupnorm groups=8 | conv3-28 | take part=1 of=2"
    whole = program(f"net whole input 3x16x16\n{net} | take channels=4..7 | fc-3")
    narrow = whole.replace(with_width(whole.net, 0.25)).graph
    assert [node.shape[0] for node in narrow.nodes if isinstance(node.op, Conv2d)] == [32, 8, 8]
    assert [
        op.taken(narrow.source(node))
        for node in narrow.nodes
        if isinstance(op := node.op, TakePart | TakeChannels)
    ] == [(0, 4), (1, 2)]


def test_every_takes_the_place_of_what_the_base_says(base: Path) -> None:
    base.with_name("base.vgg").write_text(
        BASE.replace("\n  conv", "\nevery conv norm=batch bias=off\nevery maxpool size=2\n  conv")
    )
    derived(base, "every conv norm=none\nevery pool size=3")
    assert "every conv bias=off\nevery conv norm=none\nevery pool size=3\n\n" in format_net(
        load(str(base)).net
    )
    assert not any(isinstance(node.op, BatchNorm) for node in load(str(base)).graph.nodes)


def test_what_every_says_leaves_no_room_for_what_goes_with_the_bases(base: Path) -> None:
    base.with_name("base.vgg").write_text(
        BASE.replace("\n  conv", "\nevery conv act=leaky slope=0.3\n  conv5-3 slope=0.2 | conv")
    )
    derived(base, "every conv act=relu\nset conv1_1 act=tanh")
    functions = [n.op for n in load(str(base)).graph.nodes if isinstance(n.op, Activation)]
    assert functions[0] == Activation("tanh")
    assert set(functions[1:]) == {RELU}


def test_every_speaks_for_the_layers_of_new_heads_too(base: Path) -> None:
    base.with_name("base.vgg").write_text("net base\ninput 3x8x8\nevery fc bias=off\ngap | fc-3\n")
    derived(base, "remove fc1\nhead a: fc-4")
    assert load(str(base)).graph.nodes[-1].op == Linear(4, bias=False)


def test_what_every_says_and_no_layer_goes_by_any_more_is_left_out(base: Path) -> None:
    base.with_name("base.vgg").write_text(
        "net base\ninput 3x8x8\nevery conv width=8 act=tanh\nconv3 | conv1 | gap | fc-3\n"
    )
    derived(base, "set every conv act=silu")
    assert "every conv width=8\n" in format_net(load(str(base)).net)
    assert "every" not in format_net(load(f"{base}(width=0.5)").net)


def test_what_stands_twice_in_a_derived_net_is_a_mistake(base: Path) -> None:
    for twice, title in (
        ("remove fc5..softmax1\nhead a: fc-3\nhead a: fc-4", "two layers are called `a`"),
        ("train { batch 8 }\ntrain { batch 16 }", "a second `train` block"),
        ("every conv norm=batch\nevery conv norm=none", "`norm` is given twice"),
    ):
        base.write_text(f"net mine from base\n{twice}\n")
        with pytest.raises(UserError, match=title):
            load(str(base)).check()


def test_a_head_of_references_alone_leaves_the_chain_an_output() -> None:
    found = graph_of("a: conv3-4 | b: conv3-4 | gap | fc-3\nhead f: add(@a, @b) | gap")
    assert list(found.outputs) == ["output", "f"]


def test_every_of_a_base_stays_while_it_has_such_layers(base: Path) -> None:
    base.with_name("base.vgg").write_text(BASE.replace("\n  conv", "\nevery conv bias=off\n  conv"))
    base.write_text("net mine from base\n")
    assert "every conv bias=off" in format_net(load(str(base)).net)
    base.write_text("net mine from base\nreplace conv1_1..pool2 with gap\n")
    assert "every" not in format_net(load(str(base)).net)


# ---------------------------------------------------------------- everything filled in


@pytest.mark.parametrize(
    "spec", ["vgg16", "resnet18", "googlenet_aux", "vgg16_loc_pcr", "nin", "mine from resnet18"]
)
def test_a_resolved_file_describes_the_same_net(spec: str) -> None:
    whole = load(spec) if " " not in spec else program(f"net {spec}\nevery conv act=silu\n")
    again = program(format_net(whole.resolved))
    assert [(node.name, node.op) for node in again.graph.nodes] == [
        (node.name, node.op) for node in whole.graph.nodes
    ]
    assert again.recipe == replace(whole.recipe, crop=whole.graph.input[1:])
    assert again.protocol == whole.protocol
    assert format_net(again.resolved) == format_net(whole.resolved)


# ---------------------------------------------------------------- the reference


DOCS = ROOT / "docs"


def test_the_reference_pages_are_made_from_the_definitions() -> None:
    assert (DOCS / "layers.md").read_text("utf-8") == markdown()
    assert (DOCS / "settings.md").read_text("utf-8") == settings_reference.markdown()


@pytest.mark.parametrize("block", ["train", "test"])
def test_the_example_of_a_setting_is_one_and_everything_is_told(block: str) -> None:
    for entry in settings_reference.entries(block):
        # At the base's smallest scale there is no room for a grid of crops.
        more = "; scales 256,384,512" if entry.example.startswith("crops") else ""
        base = "vgg16_loc_scr" if entry.word == "boxes" else "vgg16"
        found = program(f"net a from {base}\n{block} {{ {entry.example}{more} }}")
        assert found.recipe
        assert found.protocol
        assert entry.doc
        assert all(option.doc and option.takes for option in entry.options)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_example_of_a_kind_is_one_and_every_option_is_told(kind: type[Kind]) -> None:
    before = "gap | " if kind.name == "softmax" else ""
    example = f"act: {kind.example}"
    found = program(f"net a input 3x32x32 conv3-64 | {before}{example}")
    assert found.graph.nodes[-1].layer.kind == ("conv" if kind.name == "skip" else kind.name)
    entry = next(entry for entry in entries() if entry.name == kind.name)
    assert entry.doc
    assert all(option.doc and option.takes for option in entry.options)
