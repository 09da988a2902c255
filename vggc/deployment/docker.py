"""Docker: an image in which `vggc serve` serves the artifact."""

from __future__ import annotations

import sys

from vggc.deployment.files import DeployedFiles, from_template
from vggc.deployment.requirements import SERVER, requirements
from vggc.runtime.artifact import Manifest


def docker_files(name: str, manifest: Manifest) -> DeployedFiles:
    """A folder that an image is built from, with this Python.

    Raises: UserError where what serves the artifact is not installed here.
    """
    is_cuda = manifest.target.kind == "cuda"
    python = ".".join(map(str, sys.version_info[:2]))
    gpus = "--gpus all " * is_cuda
    texts = {
        "Dockerfile": from_template("Dockerfile", name, manifest, PYTHON=python, GPUS=gpus),
        "requirements.txt": requirements(manifest.target, SERVER),
    }
    return DeployedFiles(texts, "artifact")
