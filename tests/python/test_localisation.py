"""`vggc.localise`: where objects are, in Python."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vggc
from tests.support.annotated import put, voc_xml

NET = """\
net scr
input 3x16x16
  conv3-4 | pool | fc-8 | boxes
train { batch 4; epochs 1; sgd lr=0.01; constant; init he }
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vggc.TrainingRun:
    """A run of a net that gives boxes, in a folder with its pictures."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for index in range(10):
        path = tmp_path / f"set/JPEGImages/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 30, 3), np.uint8)).save(path)
        put(tmp_path / f"set/Annotations/{index}.xml", voc_xml([("cat", (2, 2, 20, 18))], (30, 20)))
    net = vggc.from_text(NET)
    return vggc.train(net, data="set", out="run", device="cpu", workers=0)


def test_objects_come_in_pixels_of_each_picture(run: vggc.TrainingRun) -> None:
    paths = [Path("set/JPEGImages/3.png"), "set/JPEGImages/1.png"]
    found = vggc.localise(run, paths, protocol="centre")
    assert [each.image for each in found] == ["set/JPEGImages/3.png", "set/JPEGImages/1.png"]
    for each in found:
        (only,) = each.objects
        left, top, right, bottom = only.box
        assert 0 <= left <= right <= 30
        assert 0 <= top <= bottom <= 20
        assert only.name == "cat"
        assert each.drawn().size == (30, 20)
        assert Image.open(io.BytesIO(each._repr_png_())).size == (30, 20)
        assert repr(each).startswith(f"<Localisation {each.image}: cat ")


def test_a_run_may_be_its_folder_and_an_image_one_path(run: vggc.TrainingRun) -> None:
    (alone,) = vggc.localise("run", "set/JPEGImages/3.png", protocol="centre")
    (other,) = vggc.localise([run], ["set/JPEGImages/3.png"], protocol="centre")
    assert alone.objects == other.objects


def test_images_that_cannot_be_read_are_all_named(run: vggc.TrainingRun) -> None:
    Path("no.png").write_text("?")
    with pytest.raises(vggc.UserError) as error:
        vggc.localise(run, ["no.png", "set/JPEGImages/3.png", "gone.png"])
    assert len(error.value.diagnostics) == 2


def test_a_net_of_classes_is_refused(run: vggc.TrainingRun) -> None:
    text = NET.replace("net scr", "net classes").replace("boxes", "fc-2")
    for path in Path("set/Annotations").glob("[02468].xml"):
        path.write_text(path.read_text().replace("cat", "dog"))
    other = vggc.train(vggc.from_text(text), data="set", out="other", device="cpu", workers=0)
    with pytest.raises(vggc.UserError, match="boxes"):
        vggc.localise(other, "set/JPEGImages/3.png")
