"""What was measured of a workload's choices."""

from __future__ import annotations

from collections.abc import Mapping

from vggc.kernels.workloads import Choice


def fastest(times: Mapping[Choice, float]) -> Choice | None:
    """The fastest of the choices that were measured; None where none was."""
    return min(times, key=times.__getitem__, default=None)
