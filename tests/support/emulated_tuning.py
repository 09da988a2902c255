"""`python -m tests.support.emulated_tuning FOLDER`, where a card and its compiler are emulated.

Tunes the net FOLDER/net.vgg, two of whose kernels are built badly, and compiles and verifies it.
Prints what the commands say, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner

from tests.support.broken_kernels import build_badly
from vggc.cli import cli
from vggc.tuning import tuner
from vggc.tuning.tuner import TuningProgress

ENOUGH = 5
"""So many choices are measured; a millisecond of the emulated clock is no time of this machine."""


def invoked(*arguments: str) -> tuple[str, str]:
    """What a command says on stdout and stderr."""
    done = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout, done.stderr


def main(folder: Path) -> None:
    net, db, art = (str(folder / name) for name in ("net.vgg", "db", "art"))
    common = [net, "--target", "cuda", "--precision", "float16", "--db", db]
    left = property(lambda course: float(course.measured < ENOUGH) * 60)
    with (
        patch.object(tuner, "build", build_badly),
        patch.object(tuner, "BATCH", 6),
        patch.object(TuningProgress, "left", left),
    ):
        tuned, told = invoked("tune", *common, "--json")
    found: dict[str, Any] = {"tune": json.loads(tuned), "told": told}
    made, found["notes"] = invoked("compile", *common, "--arch", "sm_80", "-o", art, "--json")
    found["compile"] = json.loads(made)
    found["verify"] = json.loads(invoked("verify", art, "--json")[0])
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
