"""Artifacts for GPUs, from the command line and on an emulated GPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import gpu_on_cpu
from tests.support.device import needs_compilers
from tests.support.emulated_gpu import compiled, vggc
from tests.support.nets import TINY


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_an_artifact_is_verified_and_run(precision: str, tmp_path: Path) -> None:
    net = tmp_path / "tiny.vgg"
    net.write_text(TINY)
    image = tmp_path / "images" / "noise.png"
    image.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(image)
    images = image.parent if precision == "int8" else None
    source = compiled(str(net), precision, "1,3", tmp_path, images)
    environment = gpu_on_cpu.environment(source, tmp_path)
    told = vggc(["verify", str(tmp_path / "art"), "--layers"], environment)
    assert ", batch 1: ok" in told
    assert ", batch 3: ok" in told
    assert "conv1_1" in told
    scores = vggc(["run", str(tmp_path / "art"), "--input", str(image), "--json"], environment)
    assert json.loads(scores)
