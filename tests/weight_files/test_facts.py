"""What weights' files say of their weights: written, read again, and refused where it is wrong."""

from __future__ import annotations

import json

import pytest

from vggc.weight_files.facts import WeightFacts, facts_in, metadata_of
from vggc_runtime.json_file import MalformedError
from vggc_runtime.preprocessing import Preprocessing

FACTS = WeightFacts(
    preprocessing=Preprocessing((224, 224), 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    classes=("tench", "Großer Weißer Hai"),
    source="https://example.org/vgg16.pth",
)


def test_what_is_written_is_read() -> None:
    assert facts_in({"format": "pt"} | metadata_of(FACTS)) == FACTS


def test_a_file_that_says_nothing_has_no_facts() -> None:
    assert metadata_of(WeightFacts()) == {}
    assert facts_in({"saved after": "3 epochs"}) == WeightFacts()


@pytest.mark.parametrize(
    ("key", "text", "complaint"),
    [
        ("vggc.preprocessing", "[1", "vggc.preprocessing: is not JSON"),
        ("vggc.preprocessing", "{}", "vggc.preprocessing: mean is missing"),
        ("vggc.preprocessing", '{"size": 3}', "vggc.preprocessing: "),
        ("vggc.classes", '["a", 3]', r"vggc.classes: \[1\] has a wrong value"),
        ("vggc.classes", json.dumps(["a" * 1001]), "or of a name too long"),
        ("vggc.source", "x" * 1001, "vggc.source is longer than 1000 characters"),
    ],
)
def test_what_nobody_wrote_is_refused(key: str, text: str, complaint: str) -> None:
    with pytest.raises(MalformedError, match=complaint):
        facts_in({key: text})
