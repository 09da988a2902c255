"""The parts of a run, in order, and how long each may take."""

from __future__ import annotations

from itertools import accumulate, zip_longest

from card.tables import NetRow, Tables, WorkloadRow

PROFILED = 2
"""The kernels that are profiled, of an emulated card one."""
PEERS = (
    "torch graph",
    "torch graph fused",
    "torch eager",
    "torch graph NCHW",
    "onnxruntime",
    "tensorrt",
)
"""Those that are ready in seconds, the usual best first."""
COMPILED = ("torch.compile", "torch.compile max-autotune")
"""Those that take minutes, maybe."""
BESIDE = PEERS[0]
"""The peer that takes turns with a whole net."""

BUDGET = {
    "machine": 15.0,
    "rates": 15.0,
    "check": 60.0,
    "peers": 80.0,
    "layers": 140.0,
    "dense": 40.0,
    "nets": 60.0,
    "others": 110.0,
    "profile": 30.0,
    "compiled": 30.0,
}
"""Seconds of each step, in order. What a step leaves over the next ones have besides; where one
takes longer, the last ones have less."""
TOTAL = sum(BUDGET.values())

LIMIT = {
    "machine": 150.0,
    "rates": 30.0,
    "check": 20.0,
    "peers": 60.0,
    "layers": 30.0,
    "dense": 30.0,
    "nets": 60.0,
    "others": 30.0,
    "profile": 60.0,
    "compiled": 240.0,
}
"""Seconds after which a part is taken to hang."""


def deadline(step: str, seconds: float, started: float) -> float:
    """The seconds from the beginning of a run of so many after which no part of a step begins that
    has `started` so long after it.
    """
    ends = dict(zip(BUDGET, accumulate(BUDGET.values()), strict=True))
    share = seconds / TOTAL
    return min(seconds, max(share * ends[step], started + share * BUDGET[step]))


def keys(tables: Tables) -> list[str]:
    """All parts of a run, in order: those of what is worth most, then all others by their worth."""
    first = [row for row in tables.workloads.values() if row.worth == 0]
    nets = [row for row in tables.nets if row.worth == 0]
    profiled = 1 if tables.about["emulated"] else PROFILED
    return [
        "machine",
        "rates",
        *(f"check:{kernel}" for kernel in by_rank(first)),
        *(f"peers:{net.name}/{peer}" for peer in PEERS for net in nets),
        *(f"layers:{work.id}" for work in first if not work.is_dense),
        *(f"dense:{work.id}" for work in first if work.is_dense),
        *(f"nets:{net.name}" for net in nets),
        *(f"others:{part}" for part in _others(tables)),
        *(f"profile:{number}" for number in range(profiled)),
        *(f"compiled:{net.name}/{peer}" for peer in COMPILED for net in nets),
    ]


def _others(tables: Tables) -> list[str]:
    """What is checked and timed of all that is worth less: kernels and whole nets, one kind of net
    after the other, then layers.
    """
    found = []
    for worth in sorted({net.worth for net in tables.nets} - {0}):
        works = [row for row in tables.workloads.values() if row.worth == worth]
        found += [f"check:{kernel}" for kernel in by_rank(works)]
        found += [f"net:{net.name}" for net in tables.nets if net.worth == worth]
    rows = sorted(tables.workloads.values(), key=lambda row: row.worth)
    return [*found, *(f"layer:{row.id}" for row in rows if row.worth and row.flops)]


def by_rank(rows: list[WorkloadRow]) -> list[str]:
    """The kernels of workloads, first those that the model prefers of each."""
    ranks = zip_longest(*(row.kernels for row in rows))
    return [kernel for rank in ranks for kernel in rank if kernel is not None]


def check_of(row: WorkloadRow, kernel: str) -> str:
    """The part that checks a kernel of a workload."""
    return f"check:{kernel}" if row.worth == 0 else f"others:check:{kernel}"


def times_of(row: WorkloadRow) -> str:
    """The part that times the kernels of a workload."""
    if row.worth:
        return f"others:layer:{row.id}"
    return f"{'dense' if row.is_dense else 'layers'}:{row.id}"


def net_part(net: NetRow) -> str:
    """The part that times a whole net."""
    return f"nets:{net.name}" if net.worth == 0 else f"others:net:{net.name}"
