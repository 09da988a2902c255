"""Ray Serve: an application of one deployment, which gathers batches."""

from __future__ import annotations

from vggc.deployment.files import DeployedFiles, from_template
from vggc.deployment.requirements import requirements
from vggc.runtime.artifact import Manifest


def ray_files(name: str, manifest: Manifest) -> DeployedFiles:
    """The folder of an application.

    Raises: UserError where what runs the artifact is not installed here.
    """
    is_cuda = manifest.target.kind == "cuda"
    config = from_template(
        "serve_config.yaml",
        name,
        manifest,
        ONGOING=str(2 * manifest.largest.batch),
        CPUS=str(manifest.target.attrs.get("num-cores", 1)),
        GPUS=str(int(is_cuda)),
    )
    texts = {
        "serve_config.yaml": config,
        "requirements.txt": requirements(manifest.target),
        "deployment.py": from_template("deployment.py", name, manifest),
    }
    return DeployedFiles(texts, "artifact")
