"""From the start of a process to its first answer: `python benchmarks/start.py NET --threads 2`.

The net is compiled and exported to ONNX with the same weights. Programs that classify one picture
are started in turns, each round beginning with another one: `vggc run`, `python -m vggc_runtime`,
the example in C of `vggc compile --standalone`, and a script with ONNX Runtime as its users write
it. All files are in the page cache, and all have to name the same best class.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from vggc.runtime.artifact import Manifest, read_manifest
from vggc.support.paths import STANDALONE
from vggc_runtime.folder import WEIGHTS
from vggc_runtime.native import prefix_of

ONNX_RUNTIME = "ONNX Runtime"

SCRIPT = """
import sys

import numpy as np
import onnxruntime
from PIL import Image

_, model, picture, threads = sys.argv
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

image = Image.open(picture).convert("{mode}")
factor = {scale} / min(image.size)
image = image.resize([round(side * factor) for side in image.size], Image.Resampling.BILINEAR)
left, top = (image.width - {width}) // 2, (image.height - {height}) // 2
image = image.crop((left, top, left + {width}, top + {height}))
values = (np.asarray(image, np.float32).reshape({height}, {width}, -1) / 255 - {mean}) / {std}
values = values.transpose(2, 0, 1)[None].astype(np.float32)

(scores, *_) = session.run(None, {{session.get_inputs()[0].name: values}})
for index in scores[0].argsort()[::-1][:5]:
    print("class", index, scores[0, index])
"""
"""A script that classifies a picture, to be filled in with what a manifest says of pictures."""


def script(manifest: Manifest) -> str:
    """The script with ONNX Runtime for a net."""
    how = manifest.preprocessing
    height, width = how.size
    return SCRIPT.format(
        mode="RGB" if manifest.input[0] == 3 else "L",
        scale=how.scale or max(how.size),
        height=height,
        width=width,
        mean=list(how.mean),
        std=list(how.std),
    )


def programs(net: str, folder: Path, threads: int) -> dict[str, list[str]]:
    """The commands that classify one picture with a net, by what they are called."""
    artifact, onnx, picture = folder / "artifact", folder / "net.onnx", folder / "picture.ppm"
    python, vggc = sys.executable, [sys.executable, "-m", "vggc"]
    number = str(threads)
    for command in (
        [*vggc, "compile", net, "--seed", "0", "--standalone", "-o", artifact, "--threads", number],
        [*vggc, "export", net, "--seed", "0", "-o", onnx],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    manifest = read_manifest(artifact)
    (folder / "script.py").write_text(script(manifest))
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    library, main = artifact / STANDALONE, folder / "main"
    link = [f"-L{library}", f"-l{prefix_of(manifest.net)}", f"-Wl,-rpath,{library}"]
    subprocess.run(["cc", "-O2", library / "main.c", *link, "-o", main], check=True)
    given = {
        "example in C": [main, artifact / WEIGHTS, picture],
        "python -m vggc_runtime": [
            *(python, "-m", "vggc_runtime", artifact, picture, "--threads", number)
        ],
        "vggc run": [*vggc, "run", artifact, "--input", picture, "--threads", number],
        ONNX_RUNTIME: [python, folder / "script.py", onnx, picture, number],
    }
    return {name: [*map(str, command)] for name, command in given.items()}


def timed(command: list[str]) -> tuple[float, str]:
    """The seconds until a program has ended, and the number of the class that it names first."""
    begin = perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = perf_counter() - begin
    found = re.match(r"\D*(\d+)", done.stdout)
    assert found is not None, done.stdout
    return seconds, found[1]


def times(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """The seconds that each command took in each round, after one that fills the page cache."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    classes = {name: timed(command)[1] for name, command in commands.items()}
    if len({*classes.values()}) > 1:
        sys.exit(f"they name other classes than one another: {classes}")
    names = [*commands]
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(timed(commands[name])[0])
    return found


def main() -> None:
    """Prints a line a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", nargs="?", default="vgg16", help="of classes, without names of them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = programs(options.net, Path(folder), options.threads)
        found = times(commands, options.rounds)
    standard = median(found[ONNX_RUNTIME])
    print(f"{options.net}, {options.threads} threads; least and median seconds, ratio of medians")
    for name, each in found.items():
        middle = median(each)
        print(f"{name:24} {min(each):7.3f} {middle:7.3f} {middle / standard:7.2f}")


if __name__ == "__main__":
    main()
