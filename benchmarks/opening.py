"""How long a program in C takes to open a net's weights that the system has in memory already.

    python benchmarks/opening.py ARTIFACT --rounds 14

Each round opens them in every way, one after the other, and begins with another one. The least and
the median are told, and the ratios of medians to what mapping and verifying by one thread takes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support import ROOT
from tests.support.c_programs import compiled, printed, weights_plan
from vggc_runtime.folder import WEIGHTS

PROGRAM = ROOT / "tests" / "native" / "weights_driver.c"


@dataclass(frozen=True)
class Way:
    """A way to open weights, as the program is told."""

    in_pages: bool
    trusted: bool
    threads: int

    def __str__(self) -> str:
        how = "read" if self.in_pages else "mapped"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{how}, {'trusted' if self.trusted else 'verified'}, {threads}"


STANDARD = Way(False, False, 1)
WAYS = (
    Way(False, True, 1),
    STANDARD,
    Way(False, False, 2),
    Way(True, True, 1),
    Way(True, True, 2),
    Way(True, False, 1),
    Way(True, False, 2),
)


def times(weights: Path, rounds: int) -> dict[Way, list[float]]:
    """The seconds that each way took in each round, in a process of its own."""
    found: dict[Way, list[float]] = {way: [] for way in WAYS}
    with TemporaryDirectory() as folder:
        plan = Path(folder, "plan")
        plan.write_text(weights_plan(weights))
        program = compiled(PROGRAM, Path(folder))
        for number in range(rounds):
            first = number % len(WAYS)  # memory that was just given back is had sooner
            for way in WAYS[first:] + WAYS[:first]:
                given = f"{way.in_pages:d} {way.trusted:d} {way.threads} 0 0 {weights}"
                (line,) = printed([program, plan], given.encode())
                found[way].append(float(line.split()[-1]))
    return found


def main() -> None:
    """Prints a line a way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--rounds", type=int, default=14)
    options = parser.parse_args()
    weights = (options.artifact / WEIGHTS).resolve()
    found = times(weights, options.rounds)
    standard = median(found[STANDARD])
    print(f"{weights.stat().st_size / 1e6:.0f} MB of weights; least, median, ratio")
    for way, each in found.items():
        least, middle = 1e3 * min(each), 1e3 * median(each)
        print(f"{way!s:28} {least:9.2f} ms {middle:9.2f} ms {median(each) / standard:8.4f}")


if __name__ == "__main__":
    main()
