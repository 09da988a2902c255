"""Keeps the threads of a net apart, each on a core of its own.

Left alone they share one now and then: a thread that wakes another is followed by it to its own
core, and milliseconds pass before the system moves either. A net is done by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from vggc_runtime.native import Array, NativeNet, Watcher
from vggc_runtime.processors import first_of_each_core, num_cores, staying_on


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
        with self._kept_on_core():
            return self.native.run(images)

    def watch(self, images: Array, watcher: Watcher) -> tuple[Array, ...]:
        """What `run` gives; `watcher` is shown each step when it has ended."""
        with self._kept_on_core():
            return self.native.watch(images, watcher)

    @contextmanager
    def _kept_on_core(self) -> Iterator[None]:
        """The calling thread stays on the core that the net's threads leave free, where no other
        one runs the net.
        """
        if self.core is None or not self._on_core.acquire(blocking=False):
            yield
            return
        try:
            with staying_on(self.core):
                yield
        finally:
            self._on_core.release()
