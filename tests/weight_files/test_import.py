"""Weights of others written anew: by our names, with what is known of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.nets import TINY, program
from tests.support.weight_files import write_pytorch
from vggc.api.import_weights import import_weights
from vggc.api.trained import net_of, resized
from vggc.ir.weights import save, seeded
from vggc.preprocessing.choose import named
from vggc.support.diagnostics import UserError
from vggc.weight_files.load import load
from vggc.weight_files.names import torchvision_names


def test_the_new_file_has_our_names_and_says_where_it_is_from(tmp_path: Path) -> None:
    graph = program(TINY).graph
    weights, names = seeded(graph, 0), torchvision_names(graph)
    source = write_pytorch(tmp_path / "t.pth", {names[n]: each for n, each in weights.items()})
    spec, out = tiny(tmp_path), tmp_path / "out.safetensors"
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


# What a refusal suggests is right


def test_what_the_refusal_of_another_number_of_classes_says_takes_the_file(tmp_path: Path) -> None:
    spec, path = tiny(tmp_path), tmp_path / "w.safetensors"
    save(path, seeded(net_of(f"{spec}(classes=7)").graph, 0))
    (suggested,) = re.findall(r"as many,\s+'tiny(\(.*\))', or its file", refusal(path, spec))
    assert import_weights(path, f"{spec}{suggested}", tmp_path / "out.safetensors").values


@pytest.mark.parametrize(("size", "suggested"), [(65, 64), (9, 8)])
def test_what_the_refusal_of_another_size_of_images_says_takes_the_file(
    size: int, suggested: int, tmp_path: Path
) -> None:
    """Sizes that give the same maps take the same weights; multiples of 32 come first."""
    spec, path = tiny(tmp_path), tmp_path / "w.safetensors"
    save(path, seeded(resized(net_of(spec), (size, size)).graph, 0))
    said = refusal(path, spec)
    (side,) = map(int, re.findall(r"`--input (\d+)`", said))
    assert side == suggested
    assert import_weights(path, spec, tmp_path / "one.safetensors", (side, side)).values
    (line,) = re.findall(r"`(input 3x\d+x\d+)` in the net's file", said)
    text = re.sub("input .*", line, TINY)
    Path(spec).write_text(text, encoding="utf-8")
    assert import_weights(path, spec, tmp_path / "two.safetensors").values


def tiny(folder: Path) -> str:
    """A file of the tiny net."""
    path = folder / "tiny.vgg"
    path.write_text(TINY, encoding="utf-8")
    return str(path)


def refusal(path: Path, spec: str) -> str:
    """What is said of weights that do not fit a net."""
    with pytest.raises(UserError) as caught:
        import_weights(path, spec, path.with_name("none.safetensors"))
    return str(caught.value)
