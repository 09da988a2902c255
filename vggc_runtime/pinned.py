"""Keeps the threads of a net apart, each on a core of its own.

Left alone they share one now and then: a thread that wakes another is followed by it to its own
core, and milliseconds pass before the system moves either. A net is done by then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from vggc_runtime.native import Array, NativeNet, Watcher
from vggc_runtime.processors import first_of_each_core, num_cores


@dataclass(frozen=True)
class PinnedNet:
    """A net that is open, whose threads each stay on a core where they are as many as the cores: of
    fewer nobody knows which cores are free. Several threads may run it at once.
    """

    native: NativeNet
    threads: int
    core: int | None
    """The processor that is kept free for whoever runs the net; None where any may be."""
    _on_core: Lock = field(default_factory=Lock)

    @classmethod
    def open(
        cls,
        library: Path,
        net: str,
        weights: Path,
        threads: int | None = None,
        *,
        mapped: bool = False,
    ) -> PinnedNet:
        """The net of that name in a library, with its weights; `threads` are all physical cores
        unless told.

        Raises:
            OSError, AttributeError, NativeError: as `NativeNet.open`.
        """
        count, cores = threads or num_cores(), first_of_each_core()
        places = cores if 1 < count == len(cores) else []
        native = NativeNet.open(
            library, net, weights, threads=count, processors=places, mapped=mapped
        )
        return cls(native, count, places[0] if places else None)

    def run(self, images: Array) -> tuple[Array, ...]:
        """What each head gives of images (N, C, H, W): see `NativeNet.run`."""
        return self._on_own_core(lambda: self.native.run(images))

    def watch(self, images: Array, watcher: Watcher) -> tuple[Array, ...]:
        """What `run` gives; `watcher` is shown each step when it has ended."""
        return self._on_own_core(lambda: self.native.watch(images, watcher))

    def _on_own_core(self, call: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
        """What a call gives. The calling thread stays on the core that the net's threads leave
        free, where no other one runs the net.

        This is no context manager, as Ctrl-C between the steps of one would leave the thread there.
        """
        if self.core is None or not self._on_core.acquire(blocking=False):
            return call()
        before: set[int] = set()
        try:
            before = os.sched_getaffinity(0)
            if self.core in before:
                with suppress(OSError):
                    os.sched_setaffinity(0, {self.core})
            return call()
        finally:
            try:
                os.sched_setaffinity(0, before)
            except OSError:
                pass
            finally:
                self._on_core.release()
