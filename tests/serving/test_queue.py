"""Requests run together, in order, and each gets its own answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Thread

import numpy as np
import pytest

from vggc.serving.queue import ModelQueue, NetAnswer, NetOutputs, QueueClosed, QueueFull
from vggc.support.arrays import Array

PATIENCE = 30
"""Seconds after which a test has failed."""


@dataclass
class BlockedNet:
    """A net that doubles its images, and begins and ends each run when the test says so."""

    batches: list[list[float]] = field(default_factory=list)
    has_begun: Event = field(default_factory=Event)
    may_end: Event = field(default_factory=Event)

    def run(self, images: Array) -> NetOutputs:
        self.batches.append(images.ravel().tolist())
        self.has_begun.set()
        assert self.may_end.wait(PATIENCE)
        if np.isnan(images).any():
            raise ValueError("not a number")
        return {"doubled": images * 2, "halved": images / 2}


def images(*values: float) -> Array:
    """An image of one value for each."""
    return np.array(values, np.float32).reshape(-1, 1, 1, 1)


def doubled(future: Future[NetAnswer]) -> list[float]:
    values = future.result(PATIENCE).outputs["doubled"].ravel().tolist()
    assert isinstance(values, list)
    return values


def refuses(queue: ModelQueue) -> bool:
    try:
        queue.submit(images()).cancel()
    except QueueClosed:
        return True
    return False


@pytest.fixture
def net() -> BlockedNet:
    return BlockedNet()


@pytest.fixture
def queue(net: BlockedNet) -> Iterator[ModelQueue]:
    """A queue of 8 images for batches of 4, whose net is busy with the image 0."""
    queue = ModelQueue(net.run, largest=4, capacity=8)
    queue.submit(images(0))
    assert net.has_begun.wait(PATIENCE)
    yield queue
    net.may_end.set()
    queue.close()


def test_what_waits_while_a_batch_runs_is_the_next_batch_in_order(
    net: BlockedNet, queue: ModelQueue
) -> None:
    answers = [queue.submit(images(value)) for value in (1, 2, 3, 4, 5)]
    assert queue.waiting == 5
    net.may_end.set()
    assert [doubled(each) for each in answers] == [[2], [4], [6], [8], [10]]
    assert net.batches == [[0], [1, 2, 3, 4], [5]]
    assert [each.result().batch for each in answers] == [4, 4, 4, 4, 1]


def test_the_images_of_a_request_stay_together(net: BlockedNet, queue: ModelQueue) -> None:
    answers = [queue.submit(images(*values)) for values in ([1, 2, 3], [4, 5], [6, 7])]
    net.may_end.set()
    assert [doubled(each) for each in answers] == [[2, 4, 6], [8, 10], [12, 14]]
    assert net.batches[1:] == [[1, 2, 3], [4, 5, 6, 7]]


def test_a_request_of_more_images_than_a_batch_runs_alone(
    net: BlockedNet, queue: ModelQueue
) -> None:
    answers = [queue.submit(images(1)), queue.submit(images(2, 3, 4, 5, 6))]
    net.may_end.set()
    assert [doubled(each) for each in answers] == [[2], [4, 6, 8, 10, 12]]
    assert net.batches[1:] == [[1], [2, 3, 4, 5, 6]]


def test_each_of_64_threads_gets_its_own_answer() -> None:
    queue = ModelQueue(lambda x: {"same": x}, largest=7, capacity=64)

    def ask(number: int) -> bool:
        for turn in range(20):
            own = np.full((1 + turn % 3, 1, 1, 1), number * 100 + turn, np.float32)
            while True:
                try:
                    future = queue.submit(own)
                    break
                except QueueFull:
                    continue
            if not np.array_equal(future.result(PATIENCE).outputs["same"], own):
                return False
        return True

    with ThreadPoolExecutor(64) as threads:
        assert all(threads.map(ask, range(64)))
    queue.close()


def test_what_is_cancelled_does_not_run(net: BlockedNet, queue: ModelQueue) -> None:
    answers = [queue.submit(images(value)) for value in (1, 2, 3)]
    assert answers[1].cancel()
    net.may_end.set()
    assert [doubled(answers[0]), doubled(answers[2])] == [[2], [6]]
    assert net.batches[1:] == [[1, 3]]


def test_a_full_queue_refuses_and_says_when_there_is_room(
    net: BlockedNet, queue: ModelQueue
) -> None:
    answers = [queue.submit(images(1, 2, 3, 4)), queue.submit(images(5, 6, 7))]
    with pytest.raises(QueueFull) as full:
        queue.submit(images(8, 9))
    assert full.value.retry_after >= 1
    answers.append(queue.submit(images(8)))
    net.may_end.set()
    assert [*map(doubled, answers)] == [[2, 4, 6, 8], [10, 12, 14], [16]]


def test_what_is_cancelled_leaves_its_room_to_others(net: BlockedNet, queue: ModelQueue) -> None:
    gone = queue.submit(images(*range(8)))
    gone.cancel()
    assert queue.submit(images(1)) is not None
    assert queue.waiting == 1


def test_an_error_reaches_those_of_its_batch_alone(net: BlockedNet, queue: ModelQueue) -> None:
    wrong = [queue.submit(images(1, 2)), queue.submit(images(3, np.nan))]
    right = queue.submit(images(4))
    net.may_end.set()
    for each in wrong:
        with pytest.raises(ValueError, match="not a number"):
            each.result(PATIENCE)
    assert doubled(right) == [8]


def test_closing_answers_what_waits_and_takes_nothing_more(
    net: BlockedNet, queue: ModelQueue
) -> None:
    answers = [queue.submit(images(1, 2, 3)), queue.submit(images(4, 5))]
    closing = Thread(target=queue.close)
    closing.start()
    while not refuses(queue):  # until the other thread has begun to close it
        pass
    assert closing.is_alive()
    net.may_end.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert [each.done() for each in answers] == [True, True]
    assert doubled(answers[1]) == [8, 10]


def test_batches_are_watched() -> None:
    seen: list[int] = []
    queue = ModelQueue(lambda x: {"same": x}, 4, 8, lambda images, seconds: seen.append(images))
    queue.submit(images(1, 2, 3)).result(PATIENCE)
    queue.close()
    assert seen == [3]
