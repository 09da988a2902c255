"""How long specs of 1,000, 10,000 and 50,000 written layers take: `python benchmarks/language.py`.

Each is parsed, elaborated and analysed (shapes, parameters, MACs, memory, receptive field),
seven times in turn with the others; medians are shown. The second half does the same with
branches, options and names.
"""

from __future__ import annotations

import gc
from statistics import median
from time import perf_counter

from vggc.analysis.report import report
from vggc.program import Program
from vggc.support.source import Source
from vggc.syntax.parse import parse

SIZES = (1_000, 10_000, 50_000)
ROUNDS = 7
ROWS = {
    "plain: conv3-64": ("| conv3-64", 1),
    "mixed: options, joins, names": (
        "| conv3-16 | conv1-8 stride=1 | lrn | conv3-16 act=leaky"
        " | add(conv3-16 | conv3-16 act=none, skip) | relu | conv3-16 ×2",
        11,
    ),
}


def spec(row: str, layers: int, size: int) -> str:
    return "net a\ninput 3x32x32\n" + f"\n{row}" * (size // layers) + "\n"


def times(text: str) -> tuple[float, float, float]:
    """Seconds to parse, to elaborate and to analyse."""
    start = perf_counter()
    net = parse(Source("a.vgg", text))
    parsed = perf_counter()
    graph = Program(net).graph
    elaborated = perf_counter()
    report(graph)
    return parsed - start, elaborated - parsed, perf_counter() - elaborated


def main() -> None:
    gc.set_threshold(100_000, 50, 100)  # as the command line does
    times(spec("| conv3-8", 1, 10))
    print(f"{'spec':30} {'layers':>7} {'parse':>8} {'elaborate':>10} {'analyse':>8} {'total':>8}")
    for name, (row, layers) in ROWS.items():
        texts = {size: spec(row, layers, size) for size in SIZES}
        found = {size: [] for size in SIZES}
        for _ in range(ROUNDS):
            for size, text in texts.items():
                found[size].append(times(text))
        for size, runs in found.items():
            stages = [median(stage) for stage in zip(*runs, strict=True)]
            total = median(sum(run) for run in runs)
            cells = "".join(f" {seconds:8.3f}s" for seconds in (*stages, total))
            print(f"{name:30} {size:>7,}{cells}")


if __name__ == "__main__":
    main()
