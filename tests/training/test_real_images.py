"""A few hundred steps on CIFAR-10's photographs, where they are at hand.

Looks for `cifar10.tar.xz` (`train/CLASS/*.jpg`, `test/CLASS/*.jpg`) in `$VGGC_DATA`, or in
`shared/data` beside the checkout, and skips without it.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tarfile
from itertools import islice
from pathlib import Path

import pytest

from tests.support import ROOT

DATA = Path(os.environ.get("VGGC_DATA", ROOT.parent / "shared" / "data"))
ARCHIVE = DATA / "cifar10.tar.xz"
TRAIN, TEST = 2000, 500

SPEC = """
net small
input 3x32x32

  conv3-32  | pool
| conv3-64  | pool
| conv3-128 | pool
| fc-128 | dropout | fc-10 | softmax

train {
  batch 32
  epochs 5
  sgd lr=0.05 momentum=0.9 weight-decay=5e-4
  one-cycle
  init he
  flip
}
"""


def extract(folder: Path) -> None:
    """The first images of each part, whatever order the archive has them in."""
    with tarfile.open(ARCHIVE) as archive:
        images = [member for member in archive if member.name.endswith(".jpg")]
        for part, count in (("train", TRAIN), ("test", TEST)):
            of_part = [m for m in images if m.name.removeprefix("./").startswith(part)]
            stride = len(of_part) // count
            for member in islice(of_part, 0, None, stride):
                archive.extract(member, folder, filter="data")


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"CIFAR-10 is not at {ARCHIVE}")
def test_the_loss_falls_on_photographs(tmp_path: Path) -> None:
    images = tmp_path / "images"
    extract(images)
    (tmp_path / "small.vgg").write_text(SPEC, "utf-8")
    command = [sys.executable, "-m", "vggc", "train", "small.vgg", "--data", str(images)]
    done = subprocess.run(
        [*command, "--out", "run", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) >= 300
    assert float(rows[-1]["train_loss"]) < 0.8 * float(rows[0]["train_loss"])
    assert json.loads(done.stdout.splitlines()[-1])["val_top1"] > 0.25
