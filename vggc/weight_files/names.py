"""What others call the weights of a net: torchvision and timm of chains of layers, Keras of VGG."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Conv2d, ConvTranspose2d, Dropout, Flatten, Linear

OWN = "vggc"
KERAS_CONV = re.compile(r"conv(\d+)_(\d+)")


@dataclass(frozen=True)
class NameStyle:
    """How somebody names the weights of a net: `names` by ours, all of them or none."""

    maker: str
    names: Mapping[str, str]


def styles(graph: Graph, of_keras: bool) -> tuple[NameStyle, ...]:
    """The ways to name the weights of a net that are known in Keras's files, or in others, of which
    the first is ours. Keras's `fc2` is another layer than ours.
    """
    if of_keras:
        found = [NameStyle("Keras", keras_names(graph))]
    else:
        found = [
            NameStyle(OWN, {name: name for name in graph.all_weights}),
            NameStyle("torchvision", torchvision_names(graph)),
            NameStyle("timm", timm_names(graph)),
        ]
    return tuple(style for style in found if style.names)


def torchvision_names(graph: Graph) -> dict[str, str]:
    """For each weight of a chain of layers torchvision's name, by ours; empty for other nets.

    torchvision numbers the modules of `features` (convolution, normalisation, activation and
    pooling each count one) and of `classifier` (fully-connected, activation and dropout). Nets
    that torchvision does not have are numbered by the same rule.
    """
    if len(graph.heads) > 1 or any(
        node.inputs != (index,) for index, node in enumerate(graph.nodes[1:])
    ):
        return {}
    names: dict[str, str] = {}
    counts = {"features": 0, "classifier": 0}
    part = "features"
    for index, node in enumerate(graph.nodes[1:], start=1):
        match node.op:
            case Linear():
                part = "classifier"
            case Conv2d() | ConvTranspose2d():
                part = "features"
            case Dropout() if _classifies(graph.nodes[index + 1 :]):
                part = "classifier"
            case Flatten():
                continue  # torchvision flattens between the two
            case _ if len(node.shape) == 1 and graph.weights(node):
                part = "classifier"  # a normalisation of what a global average gives
            case _:
                pass
        if len(node.shape) == 3 or part == "classifier":
            for full in graph.weights(node):
                role = full.rpartition(".")[2]
                names[full] = f"{part}.{counts[part]}.{role}"
            counts[part] += 1
    return names


def _classifies(following: tuple[Node, ...]) -> bool:
    """Whether a dropout before these layers is one of the classifier's, as AlexNet's first is."""
    rest = (node.op for node in following if not isinstance(node.op, Dropout | Flatten))
    return isinstance(next(rest, None), Linear)


def timm_names(graph: Graph) -> dict[str, str]:
    """For each weight of a chain timm's name, by ours; empty where timm has no such chains: it has
    torchvision's names for the features, and `pre_logits.fc1`, `pre_logits.fc2` and `head.fc` for
    what classifies.
    """
    dense = [node.name for node in graph.nodes if isinstance(node.op, Linear)]
    parts = {name: f"pre_logits.fc{number}" for number, name in enumerate(dense, start=1)}
    parts |= dict.fromkeys(dense[-1:], "head.fc")
    names: dict[str, str] = {}
    for ours, theirs in torchvision_names(graph).items():
        layer, _, role = ours.rpartition(".")
        if layer in parts:
            names[ours] = f"{parts[layer]}.{role}"
        elif theirs.startswith("features."):
            names[ours] = theirs
        else:
            return {}
    return names if dense else {}


def keras_names(graph: Graph) -> dict[str, str]:
    """For each weight of a chain like VGG Keras's name, by ours, with our roles; empty for others.

    Keras counts convolutions in blocks between pools, as we do: `block1_conv2` is `conv1_2`. Behind
    them follow `fc1`, `fc2` and `predictions`.
    """
    if not torchvision_names(graph):
        return {}
    dense = [node.name for node in graph.nodes if isinstance(node.op, Linear)]
    parts = {name: f"fc{number}" for number, name in enumerate(dense, start=1)}
    parts |= dict.fromkeys(dense[-1:], "predictions")
    names: dict[str, str] = {}
    for ours in graph.all_weights:
        layer, _, role = ours.rpartition(".")
        if found := KERAS_CONV.fullmatch(layer):
            parts[layer] = f"block{found[1]}_conv{found[2]}"
        if layer not in parts:
            return {}
        names[ours] = f"{parts[layer]}.{role}"
    return names
