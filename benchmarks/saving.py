"""Where benchmarks leave what they have measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggc.support.files import replacing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def save(stem: Path, text: str, about: dict[str, Any], rows: Sequence[DataclassInstance]) -> None:
    """Writes a text, STEM.md, and all the numbers that it is about, STEM.json."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1)
    for suffix, content in ((".md", text), (".json", numbers)):
        with replacing(stem.parent / (stem.name + suffix)) as part:
            part.write_text(content + "\n", encoding="utf-8")
