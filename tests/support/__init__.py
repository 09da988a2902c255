"""What tests share; beside it stand the tests of `vggc.support`."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

GOLDENS = ROOT / "tests" / "diagnostics"
