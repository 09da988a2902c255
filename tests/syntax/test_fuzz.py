"""No text gives anything but a net or a diagnostic, soon and within little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support import ROOT

FUZZ = ROOT / "tests" / "support" / "fuzz.py"
MOST_MB = 500


def run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(FUZZ), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["peak_mb"] < MOST_MB
    return result


def test_a_few_hundred_mutated_specs_give_nets_or_diagnostics() -> None:
    outcomes = run("300")["outcomes"]
    assert sum(outcomes.values()) == 300
    assert outcomes["net"] > 0
    assert len(outcomes) > 10


@pytest.mark.slow
def test_four_thousand_of_them_do() -> None:
    outcomes = run("4000")["outcomes"]
    assert sum(outcomes.values()) == 4000
    assert outcomes["net"] > 120
    assert len(outcomes) > 30


@pytest.mark.slow
def test_those_that_are_meant_to_blow_up_do_so_too() -> None:
    outcomes = run("0", "--hostile")["outcomes"]
    assert sum(outcomes.values()) > 40
    assert len(outcomes) > 15
