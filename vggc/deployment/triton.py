"""Triton Inference Server: a model of its Python backend."""

from __future__ import annotations

import json

from vggc.deployment.files import DeployedFiles, from_template
from vggc.deployment.requirements import requirements
from vggc.runtime.artifact import Manifest
from vggc_runtime.outputs import Output
from vggc_runtime.text import in_line

LABELS = "labels.txt"


def triton_files(name: str, manifest: Manifest) -> DeployedFiles:
    """The folder of a model in a repository.

    Raises: UserError where what runs the artifact is not installed here.
    """
    is_cuda = manifest.target.kind == "cuda"
    config = from_template(
        "config.pbtxt",
        name,
        manifest,
        LARGEST=str(manifest.largest.batch),
        BATCHES=", ".join(map(str, manifest.batches)),
        INPUT=tensor("input", manifest.input),
        OUTPUTS=",\n".join(f"  {output_tensor(each, manifest)}" for each in manifest.outputs),
        KIND="KIND_GPU" if is_cuda else "KIND_CPU",
    )
    texts = {
        "config.pbtxt": config,
        "requirements.txt": requirements(manifest.target),
        "1/model.py": from_template("model.py", name, manifest),
    }
    if has_labels(manifest):
        texts[LABELS] = "".join(f"{in_line(label)}\n" for label in manifest.classes)
    return DeployedFiles(texts, "1/artifact")


def has_labels(manifest: Manifest) -> bool:
    """Whether the classes of an output have names."""
    return manifest.named.kind == "classes" and bool(manifest.classes)


def output_tensor(output: Output, manifest: Manifest) -> str:
    """An output in the text format of protocol buffers, with the names of its classes."""
    is_labelled = output == manifest.named and has_labels(manifest)
    return tensor(output.name, output.shape, f' label_filename: "{LABELS}"' * is_labelled)


def tensor(name: str, shape: tuple[int, ...], more: str = "") -> str:
    """A tensor of one image in the text format of protocol buffers."""
    quoted, sides = json.dumps(name, ensure_ascii=False), ", ".join(map(str, shape))
    return f"{{ name: {quoted} data_type: TYPE_FP32 dims: [ {sides} ]{more} }}"
