"""Passes: what they drop, what they fold, and that outputs stay what they were."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.nets import graph_of, program
from tests.support.op_samples import SAMPLES, weights_of
from vggc.backends.torch import reference
from vggc.ir.graph import Graph
from vggc.ir.ops import Add, BatchNorm, Concat, Conv2d, Dropout, Linear, Mul, Scale, Softmax
from vggc.passes.fold import fold
from vggc.passes.heads import with_heads
from vggc.passes.inference import drop_dropout, drop_final_softmax
from vggc.passes.joins import MAX_READS, narrowed

Noise = Callable[..., np.ndarray]


def ops_of(graph: Graph) -> dict[str, type]:
    return {node.name: type(node.op) for node in graph.nodes[1:]}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_folded_net_computes_what_it_did(name: str, noise: Noise) -> None:
    graph = graph_of(SAMPLES[name])
    weights, x = weights_of(graph), noise(2, *graph.input)
    before = reference(graph, weights)(x)
    folded = fold(graph)
    folded.graph.verify()
    after = reference(folded.graph, folded.weights(weights))(x)
    for old, new in zip(graph.heads, folded.graph.heads, strict=True):
        assert (old.name, old.kind) == (new.name, new.kind)
        wanted = before[graph.nodes[old.node].name]
        got = after[folded.graph.nodes[new.node].name]
        assert np.linalg.norm(got - wanted) <= 3e-7 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", SAMPLES)
def test_folding_leaves_inference_ops_with_biases_and_folds_once(name: str) -> None:
    graph = graph_of(SAMPLES[name])
    folded = fold(graph)
    for node in folded.graph.nodes:
        assert not isinstance(node.op, BatchNorm | Dropout)
        assert not isinstance(node.op, Conv2d | Linear) or node.op.bias
    weights = folded.weights(weights_of(graph))
    shapes = {name: weight.shape for name, weight in folded.graph.all_weights.items()}
    assert {name: weight.shape for name, weight in weights.items()} == shapes
    again = fold(folded.graph)
    assert again.graph == folded.graph
    for name, weight in again.weights(weights).items():
        assert np.array_equal(weight, weights[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_folding_in_place_gives_the_same_and_takes_no_second_copy(name: str) -> None:
    folded = fold(graph_of(SAMPLES[name]))
    trained = weights_of(graph_of(SAMPLES[name]))
    wanted = folded.weights(trained)
    found = folded.weights(trained, in_place=True)
    for key, values in found.items():
        np.testing.assert_array_equal(values, wanted[key])
        node = key.rpartition(".")[0]
        if node in folded.transposed:  # whose weights have another order
            continue
        if issubclass(ops_of(folded.graph)[node], Conv2d | Linear):
            assert key.endswith(".bias") or values is trained[key]


def test_a_normalisation_goes_into_the_layer_that_it_alone_reads() -> None:
    chain = fold(graph_of("conv3-4 norm=batch | batchnorm | fc-6 norm=batch act=none")).graph
    assert ops_of(chain)["conv1_1.relu"].__name__ == "Activation"
    assert [node.name for node in chain.nodes if isinstance(node.op, Scale)] == ["batchnorm1"]
    assert "conv1_1.norm" not in ops_of(chain)
    assert "fc2.norm" not in ops_of(chain)


@pytest.mark.parametrize(
    "body",
    [
        "a: conv3-4 act=none | n: batchnorm | concat(skip, @a)",
        "a: conv3-4 act=none | n: batchnorm | fc-5 head features: @a",
        "a: conv3-4 | n: batchnorm | fc-5",
        "n: batchnorm | conv3-4",
        "a: flatten | n: batchnorm",
    ],
)
def test_a_normalisation_of_what_others_see_too_is_a_scale(body: str) -> None:
    assert ops_of(fold(graph_of(body)).graph)["n"] is Scale


def test_a_scale_goes_into_the_layer_that_it_alone_reads_and_is_one_elsewhere() -> None:
    body = (
        "s: scale | conv3-4 act=none | scale bias=off | batchnorm | scale | relu | t: scale | fc-5"
    )
    ops = ops_of(fold(graph_of(body)).graph)
    assert [name for name, op in ops.items() if op is Scale] == ["s", "t"]
    assert BatchNorm not in ops.values()


def test_weights_are_folded_in_float64_and_rounded_once() -> None:
    graph = graph_of("c: conv3-4 act=none | n: batchnorm | fc-5")
    weights = weights_of(graph)
    exact = {name: weight.astype(np.float64) for name, weight in weights.items()}
    scale = exact["n.weight"] / np.sqrt(exact["n.running_var"] + 1e-5)
    folded = fold(graph).weights(weights)
    kernel = exact["c.weight"] * scale[:, None, None, None]
    bias = (exact["c.bias"] - exact["n.running_mean"]) * scale + exact["n.bias"]
    assert np.array_equal(folded["c.weight"], kernel.astype(np.float32))
    assert np.array_equal(folded["c.bias"], bias.astype(np.float32))
    assert folded["fc1.weight"] is weights["fc1.weight"]


def test_dropout_goes_and_those_who_read_it_read_on() -> None:
    graph = drop_dropout(graph_of("a: fc-8 | dropout | dropout | fc-5 head inner: @a | dropout"))
    graph.verify()
    assert Dropout not in ops_of(graph).values()
    assert [graph.nodes[head.node].name for head in graph.heads] == ["fc2", "a.relu"]


def test_only_the_soft_maxes_that_end_a_head_go() -> None:
    body = "a: fc-8 | b: softmax | c: fc-5 | d: softmax head e: @a | f: fc-4 | g: softmax"
    graph = drop_final_softmax(graph_of(body))
    graph.verify()
    softmaxes = [name for name, op in ops_of(graph).items() if op is Softmax]
    assert softmaxes == ["b"]
    assert [graph.nodes[head.node].name for head in graph.heads] == ["c", "f"]


def test_a_soft_max_that_others_read_stays_though_it_is_a_head() -> None:
    graph = graph_of("fc-8 | a: softmax | fc-5 head scores: @a")
    assert drop_final_softmax(graph) == graph


def joined(join: str, paths: int, path: str = "conv1-2") -> Graph:
    """A net whose `paths` paths are joined."""
    return graph_of(f"all: {join}({', '.join([path] * paths)}) | relu | fc-5")


def reads(graph: Graph) -> dict[str, int]:
    """How many values each join reads, by name."""
    joins = (node for node in graph.nodes if isinstance(node.op, Add | Mul | Concat))
    return {node.name: len(node.inputs) for node in joins}


@pytest.mark.parametrize("join", ["concat", "add", "mul"])
@pytest.mark.parametrize("paths", [MAX_READS + 1, 3 * MAX_READS + 5, MAX_READS**2 + 1])
def test_a_wide_join_becomes_several_of_the_same_values_in_the_same_order(
    join: str, paths: int, noise: Noise
) -> None:
    graph = joined(join, paths)
    narrow = narrowed(graph)
    narrow.verify()
    assert max(reads(narrow).values()) <= MAX_READS
    assert sum(reads(narrow).values()) - (len(reads(narrow)) - 1) == paths
    x, weights = noise(2, *graph.input), weights_of(graph)
    wanted, got = reference(graph, weights)(x), reference(narrow, weights)(x)
    np.testing.assert_allclose(got["all"], wanted["all"], rtol=1e-12, atol=1e-13)
    assert narrow.outputs == graph.outputs


def test_the_joins_before_a_join_bear_its_name_and_a_number() -> None:
    assert reads(narrowed(joined("add", 2 * MAX_READS + 1))) == {
        "all.1": MAX_READS,
        "all.2": MAX_READS,
        "all": 3,
    }


@pytest.mark.parametrize("join", ["concat", "add"])
@pytest.mark.parametrize("paths", [2, 8, MAX_READS])
def test_a_join_of_few_paths_stays_as_it_is(join: str, paths: int) -> None:
    graph = joined(join, paths)
    assert narrowed(graph) == graph


def test_narrow_joins_stay_narrow() -> None:
    narrow = narrowed(joined("concat", MAX_READS**2 + 1))
    assert narrowed(narrow) == narrow


def test_one_head_gives_what_it_gave_among_others_and_needs_no_node_of_theirs(noise: Noise) -> None:
    net = program(
        "net two\ninput 3x8x8\n conv3-4 | pool: pool | fc-3\n"
        "head more: @pool | conv3-5 | fc-2 | softmax"
    ).graph
    weights, x = weights_of(net), noise(2, 3, 8, 8)
    whole = reference(net, weights)(x)
    for head in net.heads:
        alone = with_heads(net, [head.name])
        alone.verify()
        assert [each.name for each in alone.heads] == [head.name]
        values = reference(alone, weights)(x)
        assert {*values} < {*whole}
        name = alone.nodes[alone.heads[0].node].name
        assert name == net.nodes[head.node].name
        np.testing.assert_array_equal(values[name], whole[name])
