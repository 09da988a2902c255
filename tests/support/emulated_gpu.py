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
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import ROOT, gpu_on_cpu

ARCH = "sm_80"


def compiled(
    net: str,
    precision: str,
    batches: str,
    folder: Path,
    images: Path | None = None,
    *,
    graphs: bool = True,
) -> str:
    """Compiles a net to `folder/art`, and gives the CUDA C++ of its kernels.

    int8 is calibrated on `images`.
    """
    options = ["--target", "cuda", "--arch", ARCH, "--precision", precision, "--batch", batches]
    places = ["-o", str(folder / "art"), "--dump", str(folder / "dump")]
    calibration = ["--calibrate", str(images)] if images else []
    one_by_one = [] if graphs else ["--no-graph"]
    vggc(["compile", net, *options, *calibration, *one_by_one, *places], dict(os.environ))
    (source,) = (folder / "dump").glob("*-generate/kernels.cu")
    return source.read_text("utf-8")


def vggc(arguments: list[str], environment: dict[str, str]) -> str:
    """What a command of vggc prints.

    Raises: CalledProcessError where it fails.
    """
    command = [sys.executable, "-m", "vggc", *arguments]
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
    parser.add_argument("verify", nargs="*", help="more options for `vggc verify`, behind `--`")
    asked = parser.parse_args()
    with TemporaryDirectory() as name:
        source = compiled(asked.net, asked.precision, asked.batch, Path(name), asked.calibrate)
        environment = gpu_on_cpu.environment(source, Path(name))
        print(vggc(["verify", str(Path(name, "art")), *asked.verify], environment), end="")


if __name__ == "__main__":
    main()
