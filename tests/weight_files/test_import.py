"""Weights of others written anew: by our names, with what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.nets import TINY, program
from tests.support.weight_files import write_pytorch
from vggc.api.import_weights import import_weights
from vggc.ir.weights import seeded
from vggc.preprocessing.choose import named
from vggc.support.diagnostics import UserError
from vggc.weight_files.load import load
from vggc.weight_files.names import torchvision_names


def test_the_new_file_has_our_names_and_says_where_it_is_from(tmp_path: Path) -> None:
    (tmp_path / "tiny.vgg").write_text(TINY, encoding="utf-8")
    graph = program(TINY).graph
    weights, names = seeded(graph, 0), torchvision_names(graph)
    source = write_pytorch(tmp_path / "t.pth", {names[n]: each for n, each in weights.items()})
    spec, out = str(tmp_path / "tiny.vgg"), tmp_path / "out.safetensors"
    made = import_weights(source, spec, out, preprocessing="caffe")
    assert made.loaded.matched_by == "torchvision's names"
    assert made.values == sum(each.size for each in weights.values())
    again = load(out, graph)
    assert all(np.array_equal(again.weights[name], weights[name]) for name in weights)
    assert not again.told
    assert again.facts.preprocessing == named("caffe", graph.input)
    assert again.facts.source.startswith("t.pth, SHA-256 ")
    with pytest.raises(UserError, match="exists already"):
        import_weights(source, spec, out)
