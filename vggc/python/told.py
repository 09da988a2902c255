"""What Python is told beside its results."""

from __future__ import annotations

import logging
import warnings

from vggc.api.trained import Subject

log = logging.getLogger("vggc")
"""What the command line says beside its results, such as where weights are from."""


def warn_of_random(subject: Subject, seed: int | None) -> None:
    """Warns whoever called the caller where a net has random weights that no `seed` asked for."""
    if subject.seed is None or seed is not None:
        return
    text = (
        f"{subject.program.net.name} has no weights yet: random ones of seed {subject.seed} are "
        f"used. `weights=FILE` or a run gives others, `seed={subject.seed}` tells that random ones "
        "are meant."
    )
    warnings.warn(text, stacklevel=3)
