"""Graphics cards, and what a kernel is thought to take on one, from counts alone.

It is a model to choose kernels by where nothing was measured. What it leaves out: power, clocks,
and what the caches keep between kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from vggc.kernels.workloads import Format

KIB = 1 << 10


@dataclass(frozen=True)
class Card:
    """A card: rates in operations and bytes a second as programs reach them, sizes in bytes."""

    name: str
    arch: str
    multiprocessors: int
    half_rate: float
    """What `mma.sync` reaches in halves, sums in float32; a product and its sum are two
    operations.
    """
    peak_rate: float
    """What the card's fastest instructions reach in halves: on Hopper those of warpgroups."""
    float_rate: float
    memory_rate: float
    cache_rate: float
    """What the L2 cache gives to all multiprocessors together."""
    cache: int
    """The L2 cache."""
    shared: int
    """Shared memory of a multiprocessor."""
    block_shared: int
    """The most of it that a block may have."""
    threads: int = 2048
    registers: int = 65536
    tensor_cores: bool = True
    """Whether they know the formats and instructions of kernels here."""
    int8_gain: float = 2.0
    """How many times as many operations a second tensor cores do in int8 as in halves."""

    def rate(self, format: Format) -> float:
        """What `mma.sync` reaches where it multiplies numbers of a format."""
        return self.half_rate * self._gain(format)

    def peak(self, format: Format) -> float:
        """What the card's fastest instructions reach with numbers of a format."""
        return self.peak_rate * self._gain(format)

    def _gain(self, format: Format) -> float:
        match format:
            case "uint8":
                return self.int8_gain
            case "tf32":
                return 1 / 2
            case "float32":  # three products in tf32
                return 1 / 6
            case "float16" | "bfloat16":
                return 1.0


H200 = Card(
    name="h200",
    arch="sm_90a",
    multiprocessors=132,
    half_rate=500e12,
    peak_rate=790e12,
    float_rate=50e12,
    memory_rate=4.0e12,
    cache_rate=5.5e12,
    cache=50 * KIB * KIB,
    shared=228 * KIB,
    block_shared=227 * KIB,
)
A100 = Card(
    name="a100",
    arch="sm_80",
    multiprocessors=108,
    half_rate=280e12,
    peak_rate=280e12,
    float_rate=17e12,
    memory_rate=1.7e12,
    cache_rate=3.8e12,
    cache=40 * KIB * KIB,
    shared=164 * KIB,
    block_shared=163 * KIB,
)
RTX4090 = Card(
    name="rtx4090",
    arch="sm_89",
    multiprocessors=128,
    half_rate=150e12,
    peak_rate=150e12,
    float_rate=60e12,
    memory_rate=0.92e12,
    cache_rate=4.0e12,
    cache=72 * KIB * KIB,
    shared=100 * KIB,
    block_shared=99 * KIB,
    threads=1536,
    int8_gain=4.0,
)
CARDS: tuple[Card, ...] = (A100, RTX4090, H200)
"""The tensor cores' rates: of the H200 and A100 `mma.sync` as printed in arXiv 2501.12084 and
2402.13499, of the RTX 4090 nine tenths of NVIDIA's figure. NVIDIA's data sheets have twice as many
operations in int8 as in halves, of the RTX 4090 four times as many as with sums in float32. Memory:
nine tenths of NVIDIA's."""

LAUNCH = 2.5e-6
"""Seconds from the end of a kernel to the first results of the next."""
START = 1.5e-6
"""Seconds until a block has its first operands, and has written its last results."""
HAND_OVER = 2e-6
"""Seconds that blocks take which wait for one another at the end of a shared tile."""
BARRIER = 40e-9
"""Seconds of a step that a block alone on its multiprocessor waits for its threads."""
RESULTS = 1e-6
"""Seconds in which a block that stays writes a tile's results, and does not multiply."""
HIDING = {2: 1.15, 3: 1.03}
"""How much longer a block takes whose copies are so many steps ahead; with more, no longer."""
FEW_WARPS = 1.2
"""How much longer products take where a quarter of a multiprocessor has one warp."""


@dataclass(frozen=True)
class BlockWork:
    """What the blocks of a kernel do, each alike: operations of tensor cores on numbers of a format
    and bytes that it reads and writes; `memory_bytes` are what all together must move to and from
    memory.
    """

    format: Format
    blocks: int
    threads: int
    shared: int
    registers: int
    operations: float
    cache_bytes: float
    memory_bytes: float
    stages: int
    steps: float
    """How often a block multiplies what has arrived."""
    splits: int = 1

    def resident(self, card: Card) -> int:
        """The blocks that a multiprocessor has room for at once."""
        return min(
            card.shared // (self.shared + KIB),
            card.threads // self.threads,
            card.registers // (self.registers * self.threads),
        )

    def at_once(self, card: Card) -> int:
        """The blocks that a card has room for at once: one on each multiprocessor at least."""
        return max(1, self.resident(card)) * card.multiprocessors


def seconds(work: BlockWork, card: Card) -> float:
    """What a kernel is thought to take."""
    room = max(1, work.resident(card))
    full, rest = divmod(work.blocks, card.multiprocessors * room)
    blocks = full * _wave(work, card, room)
    if rest:
        blocks += _wave(work, card, ceil(rest / card.multiprocessors))
    hand_over = HAND_OVER if work.splits > 1 else 0.0
    return LAUNCH + hand_over + max(blocks, work.memory_bytes / card.memory_rate)


def _wave(work: BlockWork, card: Card, resident: int) -> float:
    """Seconds of blocks that begin together, so many on each multiprocessor."""
    products = resident * work.operations * card.multiprocessors / card.rate(work.format)
    if resident * work.threads < 8 * 32:
        products *= FEW_WARPS
    copies = resident * work.cache_bytes * card.multiprocessors / card.cache_rate
    waits = work.steps * BARRIER / resident
    return max(products + waits, copies) * HIDING.get(work.stages, 1.0) + START


def persistent_seconds(work: BlockWork, card: Card) -> float:
    """What a kernel is thought to take whose blocks stay, and go on from one part of the work to
    the next while their next operands arrive. Its products are those of warpgroups.
    """
    room = max(1, work.resident(card))
    turns = ceil(work.blocks / (card.multiprocessors * room))
    together = min(room, ceil(work.blocks / card.multiprocessors))
    products = together * work.operations * card.multiprocessors / card.peak(work.format)
    copies = together * work.cache_bytes * card.multiprocessors / card.cache_rate
    results = RESULTS / together
    hand_over = HAND_OVER if work.splits > 1 else 0.0
    blocks = START + turns * (max(products, copies) + results)
    return LAUNCH + hand_over + max(blocks, work.memory_bytes / card.memory_rate)
