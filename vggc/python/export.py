"""Nets for other tools, in Python."""

from __future__ import annotations

import os
from pathlib import Path

from vggc.api import export as exports
from vggc.api.deploy import DeployFormat, DeployPlan
from vggc.api.export import ExportFormat, ExportOptions
from vggc.python.artifact import Artifact
from vggc.python.net import Network
from vggc.python.run import Place, TrainingRun, known, weights_meant
from vggc.python.told import log, warn_of_random


def export(
    net: Network | TrainingRun | Artifact | Place,
    out: Place,
    *,
    format: ExportFormat | DeployFormat = "onnx",
    weights: Place | None = None,
    preprocessing: str | None = None,
    seed: int | None = None,
    size: tuple[int, int] | None = None,
    name: str | None = None,
) -> Path:
    """Writes a net or a run to the new file `out` for other tools, or an artifact to a new folder
    for other servers, and gives its path.

    Each option is that of `vggc export`: `format` is ONNX, `"pt2"` for a program of torch.export,
    or `"torchvision"` for weights under its names; of an artifact `"triton"`, `"ray"` or
    `"docker"`. `weights`, `preprocessing` and `seed` are as for `compile`; `name` is what
    servers call the model.

    Raises:
        UserError: there is no such net, or no such file for it, or it cannot be written.
    """
    path, how = weights_meant(net, weights, preprocessing)
    options = ExportOptions(
        out=Path(out),
        format=format,
        weights=path,
        preprocessing=how,
        seed=seed,
        size=size,
        name=name,
    )
    given = os.fspath(net.path) if isinstance(net, Artifact) else known(net)
    planned = exports.plan(given, options, log.info)
    if isinstance(planned, DeployPlan):
        planned.write()
        return planned.folder
    warn_of_random(planned.subject, seed)
    planned.write()
    return planned.out
