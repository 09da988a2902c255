"""Which nets of torchvision and timm come in by `vggc import`, and how far they are from torch.

    python benchmarks/foreign_modules.py torchvision            # all that name classes
    python benchmarks/foreign_modules.py torchvision:vgg16 timm:resnet18

A line a net: the lines of its text, and the relative L2 difference of its output on noise; or what
keeps it out. Weights are random unless the packages have published ones in their caches.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from vggc.importing.compare import compare
from vggc.importing.net import import_foreign
from vggc.importing.readers import PACKAGES, read_net
from vggc.support.diagnostics import UserError


def specs(word: str) -> list[str]:
    """The nets that a word stands for: a package, or one of its nets."""
    if word not in PACKAGES:
        return [word]
    package = import_module(word)
    names = package.list_models() if word == "timm" else None
    if names is None:
        names = package.models.list_models(module=package.models)
    return [f"{word}:{name}" for name in names]


def told(spec: str) -> str:
    """How a net came in, or why it did not."""
    try:
        net = import_foreign(read_net([spec]))
    except UserError as error:
        return "no: " + " ".join(str(error).removeprefix("error: ").split())
    noise = np.random.default_rng(0).standard_normal((1, *net.graph.input), np.float32)
    found = compare(net, net.weights, {"noise": noise})
    assert found is not None
    return f"{len(net.text.splitlines())} lines, relative L2 {found.worst.relative:.1e}"


def main() -> None:
    """Prints a line for each net that the arguments stand for."""
    for word in sys.argv[1:] or ["torchvision"]:
        for spec in specs(word):
            print(f"{spec:<40} {told(spec)}", flush=True)


if __name__ == "__main__":
    main()
