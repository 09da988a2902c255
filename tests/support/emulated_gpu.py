"""Check the artifact of a net for GPUs by running it on an emulated one.

`python -m tests.support.emulated_gpu vgg16 --precision float16` compiles the net, and runs `vggc
verify` where NVIDIA's driver is replaced by one that emulates the kernels: each of them at its full
size, and minutes for each image of a large net.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support import ROOT, gpu_on_cpu

ARCH = "sm_80"


def compiled(
    net: str,
    precision: str,
    batches: str,
    folder: Path,
    images: Path | None = None,
    archs: str = ARCH,
    weights: Path | None = None,
    *,
    graphs: bool = True,
    sizes: Sequence[str] = (),
) -> str:
    """Compiles a net to `folder/art`, with the options that name `sizes`, and gives the CUDA C++ of
    its kernels.

    int8 is calibrated on `images`; weights are random where none are given.
    """
    options = ["--target", "cuda", "--arch", archs, "--precision", precision, "--batch", batches]
    places = ["-o", str(folder / "art"), "--dump", str(folder / "dump")]
    calibration = ["--calibrate", str(images)] if images else []
    one_by_one = [] if graphs else ["--no-graph"]
    trained = ["--weights", str(weights)] if weights else []
    more = [*calibration, *one_by_one, *trained, *sizes]
    vggc(["compile", net, *options, *more, *places], dict(os.environ))
    (source,) = (folder / "dump").glob("*-generate/kernels.cu")
    return source.read_text("utf-8")


def values(
    artifact: Path, images: NDArray[np.float32], folder: Path, environment: dict[str, str]
) -> list[NDArray[Any]]:
    """The numbers that each kernel of an artifact gives, in order, of a batch `(N, C, H, W)`:
    planes, or rows. `folder` takes both on their way.
    """
    given, made = folder / "images.npy", folder / "values.npz"
    np.save(given, images)
    places = map(str, (artifact, given, made))
    _python(["tests.support.emulated_values", *places], environment)
    with np.load(made) as found:
        return [found[str(index)] for index in range(len(found.files))]


def vggc(arguments: list[str], environment: dict[str, str]) -> str:
    """What a command of vggc prints.

    Raises: CalledProcessError where it fails.
    """
    return _python(["vggc", *arguments], environment)


def _python(arguments: list[str], environment: dict[str, str]) -> str:
    """What a module prints that is run with arguments."""
    command = [sys.executable, "-m", *arguments]
    path = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env={**environment, **path}, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net")
    parser.add_argument("--precision", default="float16")
    parser.add_argument("--calibrate", type=Path, help="images for int8")
    parser.add_argument("--batch", default="1")
    parser.add_argument("--weights", type=Path, help="a file or run; random ones otherwise")
    parser.add_argument(
        "--steps", type=Path, metavar="IMAGE", help="the error of each kernel on one photograph"
    )
    parser.add_argument("verify", nargs="*", help="more options for `vggc verify`, behind `--`")
    asked = parser.parse_args()
    with TemporaryDirectory() as name:
        folder, artifact = Path(name), Path(name, "art")
        source = compiled(
            asked.net,
            asked.precision,
            asked.batch,
            folder,
            images=asked.calibrate,
            weights=asked.weights,
        )
        environment = gpu_on_cpu.environment(source, folder)
        if asked.steps:
            show_steps(artifact, asked.steps, asked.calibrate, folder, environment)
        else:
            print(vggc(["verify", str(artifact), *asked.verify], environment), end="")


def show_steps(
    artifact: Path, image: Path, calibration: Path | None, folder: Path, environment: dict[str, str]
) -> None:
    """Prints of each kernel, on one image, what it errs by against float64, what the rounded
    reference does, and how far they are apart.
    """
    from tests.support.rounded_reference import RoundedNet
    from vggc.backends.torch import reference
    from vggc.compiler.calibrate import NUM_IMAGES, calibrate, choose_images, read_images
    from vggc.compiler.quantize import converted_weights
    from vggc.kernels.workloads import Map
    from vggc.measure.verify import original_weights, relative_error
    from vggc.passes.prepare import prepared
    from vggc.runtime.artifact import graph_in, read_manifest
    from vggc.runtime.plans import plans_in

    manifest = read_manifest(artifact)
    entry, graph = manifest.entry_for(1), prepared(graph_in(artifact, manifest))
    weights = original_weights(artifact, graph, manifest).weights
    plan, preprocessing = plans_in(artifact, manifest)[entry.name], manifest.preprocessing
    x = np.repeat(preprocessing.read(image), entry.batch, axis=0)
    got = values(artifact, x, folder, environment)
    exact = reference(graph, weights)(x)
    ranges = {}
    if calibration:
        files = choose_images(calibration, NUM_IMAGES, preprocessing).files
        ranges = calibrate(graph, weights, plan, read_images(files, preprocessing), files)
    rounded = RoundedNet(plan, converted_weights(plan, weights, ranges)).values(x)
    print("step             kernel               error    foretold apart")
    for step, kernel, value, other in zip(plan.steps, entry.kernels, got, rounded, strict=True):
        wanted = exact[step.name].reshape(value.shape)
        is_map = isinstance(step.output, Map)
        foretold = (other.transpose(0, 3, 1, 2) if is_map else other).reshape(value.shape)
        pairs = ((value, wanted), (foretold, wanted), (value, foretold))
        told = " ".join(f"{relative_error(*pair):.2e}" for pair in pairs)
        print(f"{step.name:16} {kernel.algorithm:20} {told}")


if __name__ == "__main__":
    main()
