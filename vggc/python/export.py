"""Nets for other tools, in Python."""

from __future__ import annotations

from pathlib import Path

from vggc.api import export as exports
from vggc.api.export import ExportFormat, ExportOptions
from vggc.python.net import Network
from vggc.python.run import Place, TrainingRun, known, optional
from vggc.python.told import log, warn_of_random


def export(
    net: Network | TrainingRun | Place,
    out: Place,
    *,
    format: ExportFormat = "onnx",
    weights: Place | None = None,
    seed: int | None = None,
    size: tuple[int, int] | None = None,
) -> Path:
    """Writes a net or a run to the new file `out` for other tools, and gives its path.

    Each option is that of `vggc export`: `format` is ONNX, `"pt2"` for a program of torch.export,
    or `"torchvision"` for weights under its names; `weights` and `seed` are as for `compile`.

    Raises:
        UserError: there is no such net, or no such file for it, or it cannot be written.
    """
    options = ExportOptions(
        out=Path(out), format=format, weights=optional(Path, weights), seed=seed, size=size
    )
    planned = exports.plan(known(net), options, log.info)
    warn_of_random(planned.subject, seed)
    planned.write()
    return planned.out
