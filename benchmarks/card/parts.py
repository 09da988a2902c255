"""The parts of a run, in order, and how long each may take."""

from __future__ import annotations

from itertools import zip_longest

from card.tables import Tables

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
    "rates": 20.0,
    "check": 60.0,
    "peers": 90.0,
    "layers": 180.0,
    "dense": 50.0,
    "nets": 60.0,
    "profile": 60.0,
    "compiled": 300.0,
}
"""Seconds of each step, in order; what comes later gets what is left of the whole time."""

LIMIT = {
    "machine": 150.0,
    "rates": 30.0,
    "check": 20.0,
    "peers": 60.0,
    "layers": 30.0,
    "dense": 30.0,
    "nets": 60.0,
    "profile": 60.0,
    "compiled": 180.0,
}
"""Seconds after which a part is taken to hang."""


def keys(tables: Tables) -> list[str]:
    """All parts of a run, in order."""
    works = tables.workloads.values()
    nets = [f"{row.net}/{row.batch}" for row in tables.nets]
    profiled = 1 if tables.about["emulated"] else PROFILED
    return [
        "machine",
        "rates",
        *(f"check:{kernel}" for kernel in by_rank(tables)),
        *(f"peers:{net}/{peer}" for net in nets for peer in PEERS),
        *(f"layers:{work.id}" for work in works if not work.is_dense),
        *(f"dense:{work.id}" for work in works if work.is_dense),
        *(f"nets:{net}" for net in nets),
        *(f"profile:{number}" for number in range(profiled)),
        *(f"compiled:{net}/{peer}" for peer in COMPILED for net in nets),
    ]


def by_rank(tables: Tables) -> list[str]:
    """All kernels, first those that the model prefers of each workload."""
    rows = [row.kernels for row in tables.workloads.values()]
    return [kernel for rank in zip_longest(*rows) for kernel in rank if kernel is not None]
