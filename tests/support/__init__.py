"""What tests share; the tests of `vggc.support` are in `tests/support_package`."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

GOLDENS = ROOT / "tests" / "diagnostics"
