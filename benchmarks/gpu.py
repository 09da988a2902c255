"""All that is to be measured on a card, made here so that no minute of one is lost.

    python benchmarks/gpu.py make BUNDLE           a folder to copy to a machine with a card
    python BUNDLE/run.py --out RESULTS             there: needs torch, no vggc and no network
    python benchmarks/gpu.py records RESULTS.json FOLDER   what was timed, as tuning records
    python benchmarks/gpu.py emulate NET RESULTS   a bundle from end to end on an emulated card

A bundle holds the machine code of the kernels that vggc's model of the card prefers for each layer
of some nets, for several batches and precisions, with how they are launched. The runner checks each
of them against float32, times them, the layers, the whole nets and peers, and writes after each
part what it has found; it ends in ten minutes. `records` puts the times of `results.json` into a
tuning database: `vggc/tuning/records` is the one that comes with vggc.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the emulator is among the tests

from card.feeding import feed  # noqa: E402
from card.making import (  # noqa: E402
    MIB,
    BundleError,
    BundleWish,
    NetWish,
    make,
    num_bytes,
)

from vggc.support.diagnostics import UserError  # noqa: E402

FEW = (1, 8, 32)
WHOLE = (
    NetWish("vgg16", "float16", (*FEW, 128), choices=6),
    NetWish("vgg16", "float32", FEW, choices=2),
    NetWish("resnet18", "float16", (1, 32)),
    NetWish("vgg16", "bfloat16", FEW),
    NetWish("vgg16", "tf32", FEW),
    NetWish("vgg16", "int8", FEW),
    NetWish("googlenet_aux", "float16", (1, 32)),
)
"""What a bundle holds, what is worth most first."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="a bundle for a card")
    making.add_argument("bundle", type=Path, help="a new folder")
    making.add_argument("--first", type=int, default=len(WHOLE), help="so many kinds of nets")
    emulating = commands.add_parser("emulate", help="makes a bundle and runs it on a CPU")
    emulating.add_argument("net", help="a small net: emulated cards are slow")
    emulating.add_argument("results", type=Path, help="a folder")
    emulating.add_argument("--precisions", default="float16", help="with commas")
    feeding = commands.add_parser("records", help="the times of a run into a tuning database")
    feeding.add_argument("results", type=Path, help="results.json of a run")
    feeding.add_argument("folder", type=Path, help="the database, made where there is none")
    feeding.add_argument(
        "--emulated", action="store_true", help="take those of an emulated card, for a test"
    )
    asked = parser.parse_args()
    try:
        carry_out(asked)
    except (BundleError, UserError) as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        sys.exit(2)


def carry_out(asked: argparse.Namespace) -> None:
    """Does what was asked for. Raises: BundleError, UserError."""
    if asked.command == "records":
        for line in feed(asked.results, asked.folder, emulated=asked.emulated):
            print(line, file=sys.stderr)
        return
    if asked.command == "make":
        describe(BundleWish(WHOLE[: asked.first]), asked.bundle)
        return
    precisions = enumerate(asked.precisions.split(","))
    nets = [NetWish(asked.net, form, (2,), 1 if worth else 2) for worth, form in precisions]
    with TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "bundle"
        describe(BundleWish(tuple(nets), emulated=True), bundle)
        command = [sys.executable, str(bundle / "run.py"), "--out", str(asked.results)]
        sys.exit(subprocess.run(command).returncode)


def describe(wish: BundleWish, folder: Path) -> None:
    """Makes a bundle, and says what it is."""
    tables = make(wish, folder)
    print(
        f"{folder}: {len(tables.kernels)} kernels of {len(tables.workloads)} workloads, "
        f"{num_bytes(folder) / MIB:.1f} MiB, made in {tables.about['made_in_seconds']} s",
        file=sys.stderr,
    )
    for reason in tables.about["left_out"]:
        print(f"left out: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
