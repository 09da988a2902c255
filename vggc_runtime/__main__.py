"""`python -m vggc_runtime ARTIFACT PICTURE`: what a compiled net says of a picture."""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggc_runtime.artifact import Net, load
from vggc_runtime.errors import ArtifactError
from vggc_runtime.outputs import best_classes, best_lines
from vggc_runtime.text import printable

MOST_THREADS = 1024


def main() -> int:
    """Runs the command line.

    Exit 1: the net gives values that are not finite; 2: a mistake of the user's.
    """
    for name in ("SIGINT", "SIGPIPE"):  # which end a command without a word
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = parsed(sys.argv[1:])
    try:
        net = load(options.artifact, options.threads)
        values = net(net.prepared(options.picture))
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, value in values.items():
        if not np.isfinite(value).all():
            print(printable(f"error: {name} has values that are not finite"), file=sys.stderr)
            return 1
    if options.json:
        print(json.dumps(record(net, values)))
        return 0
    for line in lines(net, values, options.top):
        print(printable(line))
    return 0


def parsed(arguments: list[str]) -> argparse.Namespace:
    """What the command is asked for."""
    parser = argparse.ArgumentParser("python -m vggc_runtime", description=__doc__)
    parser.add_argument("artifact", type=Path, help="the folder that `vggc compile` has made")
    parser.add_argument("picture", type=Path, help="an image file")
    parser.add_argument("--top", type=number(1000), default=5, help="classes shown; default: 5")
    parser.add_argument("--threads", type=number(MOST_THREADS), help="default: all physical cores")
    parser.add_argument("--json", action="store_true", help="print every number of every output")
    return parser.parse_args(arguments)


def number(most: int) -> Callable[[str], int]:
    """What reads a whole number from 1 to `most`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {most}")
        return int(text)

    return read


def record(net: Net, values: Mapping[str, NDArray[np.float32]]) -> dict[str, object]:
    """All numbers of all outputs, as JSON has them."""
    outputs = {
        each.name: {"kind": each.kind, "values": values[each.name].tolist()} for each in net.outputs
    }
    return {"net": net.name, "classes": net.classes, "outputs": outputs}


def lines(net: Net, values: Mapping[str, NDArray[np.float32]], top: int) -> Iterator[str]:
    """What is said of each output of an image: its best classes, as `vggc run` tells them."""
    for output in net.outputs:
        if len(net.outputs) > 1:
            yield f" {output.name}"
        if output.kind == "classes":
            name = net.class_name if output == net.named else "class {}".format
            for line in best_lines(best_classes(values[output.name], name, top)):
                yield f"  {line}"
        else:
            yield f"  {output.kind} of shape {output.shape}; --json prints them"


if __name__ == "__main__":
    sys.exit(main())
