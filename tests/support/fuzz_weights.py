"""Files of weights that somebody has damaged: bytes changed, cut out, moved, written twice.

Run as a program it reads many in one process and prints what happened as JSON:
`python -m tests.support.fuzz_weights 10000`. Whatever is neither weights nor a diagnostic ends it
with a traceback, and so does a file that takes two seconds of the processor's.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from tests.support.nets import graph_of
from tests.support.weight_files import of_keras, write_keras, write_keras_h5, write_pytorch
from vggc.ir.weights import save, seeded
from vggc.support.diagnostics import UserError
from vggc.weight_files.load import load

GRAPH = graph_of("conv3-4 | pool | conv3-5 norm=batch | pool | fc-6 | fc-3")
SECONDS = 2.0
HOSTILE = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"(", b"R", b"c", b".", b"9" * 20)


def samples(folder: Path) -> Iterator[Path]:
    """A sound file of each form."""
    weights = seeded(GRAPH, 0)
    save(folder / "safetensors", weights)
    yield folder / "safetensors"
    for legacy in (False, True):
        wrapped = {"state_dict": weights, "epoch": 3}
        yield write_pytorch(folder / f"pytorch-{legacy}", wrapped, legacy)
    try:
        import h5py  # noqa: F401
    except ModuleNotFoundError:
        return
    keras = {name: of_keras(name, each) for name, each in weights.items()}
    yield write_keras_h5(folder / "h5", keras)
    yield write_keras(folder / "keras", keras)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A file with up to four places changed, more often near its ends, where tables stand."""
    found = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        near = min(len(found), draw.choice((64, 1024, 1 << 30)))
        place = draw.randrange(near) if near else 0
        place = len(found) - 1 - place if draw.random() < 0.4 else place
        match draw.randrange(5):
            case 0:
                found[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                some = draw.choice(HOSTILE)
                found[place : place + len(some)] = some
            case 2:
                del found[place : place + draw.choice((1, 8, 512))]
            case 3:
                other = draw.randrange(max(1, len(found)))
                found[place : place + 16] = found[other : other + 16]
            case _:
                found = found[: max(1, place)] if draw.random() < 0.2 else found
    return bytes(found)


def check(count: int, seed: int = 0) -> dict[str, dict[str, int]]:
    """Reads so many damaged files of each form, and counts what came of them."""
    found: dict[str, dict[str, int]] = {}
    with TemporaryDirectory() as name:
        for sample in samples(Path(name)):
            load(sample, GRAPH)
            content, draw = sample.read_bytes(), random.Random(f"{seed} {sample.name}")
            counts = found.setdefault(sample.name, {"read": 0, "refused": 0})
            path = sample.with_name("damaged")
            for number in range(count):
                path.write_bytes(damaged(content, draw))
                start = process_time()
                try:
                    load(path, GRAPH)
                    counts["read"] += 1
                except UserError:
                    counts["refused"] += 1
                except BaseException:
                    print(f"{sample.name}: number {number} of seed {seed}", file=sys.stderr)
                    raise
                assert process_time() - start < SECONDS, f"{sample.name}: number {number} is slow"
    return found


if __name__ == "__main__":
    print(json.dumps(check(int(sys.argv[1]), *map(int, sys.argv[2:]))))
