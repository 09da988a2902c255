"""Weights matched by order and shape: torchvision's names of nets in the zoo, as its classes make
them and as safetensors sorts them. The names are those of torchvision's `state_dict`s.
"""

from __future__ import annotations

import pytest

from tests.support.weight_files import BASIC_BLOCK
from vggc.program import load
from vggc.weight_files.order import FileModule, by_tree, fits, in_sequence, weighted_nodes
from vggc.weight_files.weight_file import FileTensor

FIRE = ("squeeze", "expand1x1", "expand3x3")
DENSE = ("norm1", "conv1", "norm2", "conv2")
BRANCHES = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
INCEPTIONS = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")


def resnet(blocks: tuple[int, ...], inner: list[str], widens: bool) -> list[str]:
    found = ["conv1", "bn1"]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            found += [f"layer{stage}.{block}.{module}" for module in inner]
            if block == 0 and (stage > 1 or widens):
                found += [f"layer{stage}.0.downsample.{i}" for i in (0, 1)]
    return [*found, "fc"]


def squeezenet() -> list[str]:
    fires = [f"features.{i}.{m}" for i in (3, 4, 6, 7, 9, 10, 11, 12) for m in FIRE]
    return ["features.0", *fires, "classifier.1"]


def densenet() -> list[str]:
    found = ["features.conv0", "features.norm0"]
    for block, count in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, count + 1):
            found += [f"features.denseblock{block}.denselayer{layer}.{m}" for m in DENSE]
        if block < 4:
            found += [f"features.transition{block}.{m}" for m in ("norm", "conv")]
    return [*found, "features.norm5", "classifier"]


def googlenet() -> list[str]:
    stem = [f"conv{i}" for i in (1, 2, 3)]
    parts = [*stem, *(f"inception{i}.{branch}" for i in INCEPTIONS for branch in BRANCHES)]
    return [f"{part}.{m}" for part in parts for m in ("conv", "bn")] + ["fc"]


BOTTLENECK = [*BASIC_BLOCK, "conv3", "bn3"]
NETS = {
    "resnet18": resnet((2, 2, 2, 2), BASIC_BLOCK, False),
    "resnet50": resnet((3, 4, 6, 3), BOTTLENECK, True),
    "squeezenet": squeezenet(),
    "densenet121": densenet(),
    "googlenet": googlenet(),
}


def modules_of(net: str, names: list[str]) -> list[FileModule]:
    """The modules of a file of a net's weights by these names."""
    return [
        FileModule(
            name,
            {
                role: FileTensor(f"{name}.{role}", weight.shape, "F32", True)
                for role, weight in node.weights.items()
            },
        )
        for name, node in zip(names, weighted_nodes(load(net).graph), strict=True)
    ]


@pytest.mark.parametrize("net", NETS)
def test_torchvisions_nets_are_matched_in_any_order_of_their_file(net: str) -> None:
    nodes, modules = weighted_nodes(load(net).graph), modules_of(net, NETS[net])
    made = in_sequence(nodes, modules, fits)
    assert made
    by_name = sorted(modules, key=lambda module: module.name)
    found = by_tree(nodes, by_name, fits, in_order=False)
    assert found
    assert found.also is None  # there is no other way
    assert [module.name for module in found.modules] == NETS[net]


def test_heads_stand_in_a_file_where_its_class_makes_them() -> None:
    """GoogLeNet's auxiliary classifiers before the last layer, in a net behind it."""
    heads = [
        f"{aux}.{module}"
        for aux in ("aux1", "aux2")
        for module in ("conv.conv", "conv.bn", "fc1", "fc2")
    ]
    ours = [*googlenet(), *heads]
    modules = {module.name: module for module in modules_of("googlenet_aux", ours)}
    made = [modules[name] for name in (*googlenet()[:-1], *heads, "fc")]
    nodes = weighted_nodes(load("googlenet_aux").graph)
    assert in_sequence(nodes, made, fits) is None
    found = by_tree(nodes, made, fits, in_order=True)
    assert found
    assert [module.name for module in found.modules] == ours


def test_another_layer_fits_nowhere() -> None:
    modules = modules_of("resnet18", NETS["resnet18"])
    nodes = weighted_nodes(load("resnet34").graph)
    assert in_sequence(nodes, modules, fits) is None
    assert by_tree(nodes, modules, fits, in_order=True) is None
