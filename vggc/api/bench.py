"""What `bench` works on: an artifact, timed beside other engines or kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.published import of_artifact
from vggc.ir.needs import PROFILING, TIMING, beside

if TYPE_CHECKING:
    from vggc.measure.bench import Timing
    from vggc.measure.estimates import CardEstimate
    from vggc.measure.profile import Profile


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What the user asks `bench` for; None where nothing is said.

    `against` names engines: those that are installed where it is None. `batch` is one of the
    artifact's, the largest unless told, `size` (H, W) one of its sizes, the main one unless told.
    `images` is a folder for engines that quantise; `weights`
    what the artifact was compiled from.
    """

    against: Sequence[str] | None = None
    batch: int | None = None
    size: tuple[int, int] | None = None
    threads: int | None = None
    rounds: int = 15
    images: Path | None = None
    weights: Path | None = None


def bench(artifact: Path, options: BenchOptions) -> Timing:
    """Times an artifact beside other engines, one call each a round, in turn.

    Raises:
        UserError: it is damaged or not for this machine, or an engine is unknown, missing or
            cannot compute its net.
        CheckFailed: an engine computes something else.
    """
    from vggc.runtime.artifact import read_manifest, require_memory

    require_memory(artifact, TIMING)

    from vggc.measure.bench import bench, default_peers
    from vggc.measure.engines import PEERS, missing_module, peer_name

    lenient = options.against is None
    if options.against is None:
        peers = default_peers(read_manifest(artifact))
    else:
        peers = [peer_name(text) for text in options.against]
    present = [peer for peer in peers if peer in PEERS and missing_module(peer) is None]
    require_memory(artifact, beside(present))
    return bench(
        artifact,
        peers,
        options.threads,
        options.rounds,
        batch=options.batch,
        size=options.size,
        images=options.images,
        weights=of_artifact(artifact, options.weights),
        lenient=lenient,
    )


def profile(
    artifact: Path,
    threads: int | None,
    rounds: int,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
) -> Profile:
    """Times each kernel of an artifact, for one of its batches and sizes (H, W): the largest batch
    and the main size unless told.

    Raises:
        UserError: it is damaged or not for this machine or such images.
    """
    from vggc.runtime.artifact import require_memory

    require_memory(artifact, PROFILING, batch)

    from vggc.measure.profile import profile

    return profile(artifact, threads, rounds, batch, size)


def estimate(
    artifact: Path, card: str, batch: int | None = None, size: tuple[int, int] | None = None
) -> CardEstimate:
    """What each kernel of an artifact for GPUs is thought to take on a card, by a stated model, for
    one of its batches and sizes (H, W): the largest batch and the main size unless told.

    Raises:
        UserError: it is damaged or not for GPUs or such images, or the card is unknown.
    """
    from vggc.measure.estimates import estimate

    return estimate(artifact, card, batch, size)
