"""What docs/python.md shows is what happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vggc

PAGE = Path(vggc.__file__).parents[1] / "docs" / "python.md"
MARK = re.compile(r"^(?P<code>\S.*?)\s*# → (?P<shown>.*)$")


def boxes() -> list[str]:
    """The boxes of the page, in order."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)


def parts(box: str) -> Iterator[tuple[str, str, str]]:
    """Statements, and the expression that comes behind them with what is said to come of it."""
    before: list[str] = []
    for line in box.splitlines():
        if found := MARK.match(line):
            yield "\n".join(before), found["code"], found["shown"]
            before = []
        else:
            before.append(line)
    yield "\n".join(before), "None", "None"


def photos(folder: Path) -> None:
    """Twelve images of each of two classes, the second brighter."""
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for index in range(12):
            noise = np.random.default_rng([label, index]).integers(0, 128, (36, 40, 3))
            Image.fromarray((noise + 120 * label).astype(np.uint8)).save(
                folder / name / f"{index}.png"
            )


def test_there_are_twelve_boxes() -> None:
    assert len(boxes()) == 12


def test_each_box_does_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes build on one another, as the reader goes."""
    photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for box in boxes():
        for before, code, shown in parts(box):
            exec(before, names)
            assert repr(eval(code, names)) == shown, code
