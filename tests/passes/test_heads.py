"""A net for some of its heads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.support.nets import graph_of
from tests.support.op_samples import weights_of
from vggc.backends.torch import reference
from vggc.passes.heads import ancestors, with_heads

Noise = Callable[..., np.ndarray]

BODY = "a: conv3-4 | pool | b: fc-6 | fc-3 | softmax head box: @b | boxes head map: @a"


def test_a_net_of_some_heads_has_no_more_nodes_than_they_need(noise: Noise) -> None:
    graph, x = graph_of(BODY, "3x12x10"), noise(2, 3, 12, 10)
    weights = weights_of(graph)
    whole = reference(graph, weights)(x)
    for names in (["output"], ["box"], ["map"], ["map", "box"], ["output", "box", "map"]):
        part = with_heads(graph, names)
        part.verify()
        assert {head.name for head in part.heads} == {*names}
        assert len(part.nodes) == len(
            ancestors(graph, [h.node for h in graph.heads if h.name in names])
        )
        found = reference(part, weights)(x)
        for head in part.heads:
            name = part.nodes[head.node].name
            np.testing.assert_array_equal(found[name], whole[name])


def test_all_heads_are_the_net() -> None:
    graph = graph_of(BODY, "3x12x10")
    assert with_heads(graph, [head.name for head in graph.heads]) == graph
