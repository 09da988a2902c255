"""What waits for a net, and the thread that runs it. Knows nothing of the web.

While a batch runs requests gather; the next batch is as many of them as fit into the largest, so
that batches grow with the load and nobody waits for a timer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import ceil
from threading import Condition, Thread
from time import perf_counter
from typing import TypeAlias

import numpy as np

from vggc.support.arrays import Array

NetOutputs: TypeAlias = Mapping[str, Array]
"""What a net gives of images: an array (N, …) an output, by its name."""


class QueueFull(Exception):
    """No more images may wait. There is room in about so many seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many images wait for this net")
        self.retry_after = retry_after


class QueueClosed(Exception):
    """The net takes no more images, as its server ends."""


@dataclass(frozen=True)
class NetAnswer:
    """What a net gives of the images of a request, how long they waited and the net ran, and how
    many images its batch had.
    """

    outputs: NetOutputs
    waiting_seconds: float
    net_seconds: float
    batch: int


@dataclass(frozen=True)
class QueuedRequest:
    """Images (N, C, H, W) that stay together, and who waits for their answer."""

    images: Array
    answer: Future[NetAnswer] = field(default_factory=Future)
    since: float = field(default_factory=perf_counter)


class ModelQueue:
    """Runs a net on what waits for it, in one thread, in the order in which it came.

    `run` is given images (N, C, H, W) and gives outputs of as many; N is `largest` at most, unless
    one request alone has more. `capacity` images may wait. `watch` is told the images and seconds
    of each batch.
    """

    def __init__(
        self,
        run: Callable[[Array], NetOutputs],
        largest: int,
        capacity: int,
        watch: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self.capacity = max(capacity, largest)
        self._run = run
        self._largest = largest
        self._watch = watch
        self._waiting: deque[QueuedRequest] = deque()
        self._changed = Condition()
        self._is_closed = False
        self._last_seconds = 0.0
        self._thread = Thread(target=self._work, name="vggc-net", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The images that wait."""
        with self._changed:
            return self._num_waiting()

    def submit(self, images: Array) -> Future[NetAnswer]:
        """Lets images wait. Whoever cancels what is given back before they run drops them.

        Raises:
            QueueFull: so many may not wait beside those that do.
            QueueClosed: nothing may wait any more.
        """
        request = QueuedRequest(images)
        with self._changed:
            self._check_room(len(images))
            self._waiting.append(request)
            self._changed.notify()
        return request.answer

    def require_room(self) -> None:
        """Raises: QueueFull, QueueClosed where not even one image may wait."""
        with self._changed:
            self._check_room(1)

    def close(self) -> None:
        """Takes nothing more, and comes back when all that waits has its answer."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _num_waiting(self) -> int:
        return sum(len(request.images) for request in self._waiting)

    def _check_room(self, images: int) -> None:
        if self._is_closed:
            raise QueueClosed
        if self._num_waiting() + images > self.capacity:
            self._forget_cancelled()
        if (waiting := self._num_waiting()) + images > self.capacity:
            batches = ceil(max(1, waiting) / self._largest)
            raise QueueFull(max(1, ceil(batches * self._last_seconds)))

    def _forget_cancelled(self) -> None:
        kept = [request for request in self._waiting if not request.answer.cancelled()]
        self._waiting = deque(kept)

    def _work(self) -> None:
        while batch := self._next_batch():
            self._answer(batch)

    def _next_batch(self) -> list[QueuedRequest]:
        """The requests that run together next, one at least; none when the queue is closed and
        empty.
        """
        with self._changed:
            while True:
                batch: list[QueuedRequest] = []
                images = 0
                while self._waiting:
                    first = self._waiting[0]
                    if batch and images + len(first.images) > self._largest:
                        break
                    self._waiting.popleft()
                    if first.answer.set_running_or_notify_cancel():
                        batch.append(first)
                        images += len(first.images)
                if batch or self._is_closed:
                    return batch
                self._changed.wait()

    def _answer(self, batch: list[QueuedRequest]) -> None:
        """Runs requests together and gives each its own rows, or all of them the error."""
        begin = perf_counter()
        try:
            each = [request.images for request in batch]
            images = np.concatenate(each) if len(each) > 1 else each[0]
            outputs = self._run(images)
        except Exception as error:
            for request in batch:
                request.answer.set_exception(error)
            return
        seconds = perf_counter() - begin
        self._last_seconds = seconds
        self._watch(len(images), seconds)
        start = 0
        for request in batch:
            stop = start + len(request.images)
            own = {name: values[start:stop] for name, values in outputs.items()}
            request.answer.set_result(NetAnswer(own, begin - request.since, seconds, len(images)))
            start = stop
