"""Compiled nets written for servers other than vggc's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from vggc.api.trained import NetOfRun
from vggc.deployment import diagnostics
from vggc.deployment.docker import docker_files
from vggc.deployment.files import DeployedFiles, write
from vggc.deployment.ray_serve import ray_files
from vggc.deployment.triton import triton_files
from vggc.program import Program
from vggc.runtime.artifact import Manifest, sound_manifest
from vggc.support.diagnostics import UserError
from vggc.support.files import refuse_full, refuse_unwritable
from vggc.support.model_names import MODEL_NAME
from vggc.support.paths import absence, exists, is_artifact, is_folder
from vggc_runtime.folder import MANIFEST

DeployFormat: TypeAlias = Literal["triton", "ray", "docker"]
DEPLOY_FORMATS: tuple[DeployFormat, ...] = get_args(DeployFormat)

FILES_OF: Mapping[DeployFormat, Callable[[str, Manifest], DeployedFiles]] = {
    "triton": triton_files,
    "ray": ray_files,
    "docker": docker_files,
}


@dataclass(frozen=True)
class DeployPlan:
    """A folder that is to be written: the artifact is called `name` there."""

    artifact: Path
    manifest: Manifest
    name: str
    format: DeployFormat
    folder: Path

    def write(self) -> None:
        """Writes the folder, whole or not at all.

        Raises: UserError where it cannot be written, or what it takes is not installed.
        """
        files = FILES_OF[self.format](self.name, self.manifest)
        write(files, self.artifact, self.manifest, self.folder)


def plan_deployment(
    given: str | Program | NetOfRun | None,
    style: DeployFormat,
    out: Path,
    name: str | None = None,
    fixed: Sequence[str] = (),
) -> DeployPlan:
    """What is to be written of the artifact in a folder, under the `name` of its net unless told.
    A repository of Triton's holds several models, and so `out` may be there already.

    Raises: UserError where there is no such artifact, it is damaged, there is no place for what is
    to be written, or somebody asked for what is `fixed` once a net is compiled.
    """
    if not isinstance(given, str) or not is_artifact(given):
        raise UserError(not_compiled(given, style))
    if fixed:
        raise UserError(*map(diagnostics.FixedByCompiling, fixed))
    manifest = sound_manifest(Path(given))
    called = manifest.net if name is None else name
    if not MODEL_NAME.fullmatch(called):
        raise UserError(diagnostics.BadDeployedName(called))
    folder = out / called if style == "triton" else out
    refuse_full(folder)
    refuse_unwritable(folder)
    return DeployPlan(Path(given), manifest, called, style, folder)


def not_compiled(
    given: str | Program | NetOfRun | None, style: DeployFormat
) -> diagnostics.NotCompiled:
    """What is wrong with what is given in the place of an artifact."""
    match given:
        case None:
            return diagnostics.NotCompiled(style, "none is given", "SPEC")
        case str():
            reason = f"it has no {MANIFEST}" if is_folder(given) else absence(given, "folder")
            may_be_spec = exists(given) or "/" not in given
            spec = given if may_be_spec else "SPEC"
            return diagnostics.NotCompiled(style, f"{given}: {reason}", spec)
        case _:
            return diagnostics.NotCompiled(style, "a net is given that is not compiled", "SPEC")
