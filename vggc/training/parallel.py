"""Several processes that train one net: who they are, and what they tell each other.

They are started by PyTorch's `torchrun`, which tells each its place by environment variables.
"""

from __future__ import annotations

import atexit
import gc
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# Its functions hold the connection that there is when they are defined, as a default argument.
# Loaded before there is one, they hold none, and the threads of a connection can end with it.
import torch.distributed.nn.functional
from torch import Tensor
from torch._C._distributed_c10d import Store

from vggc.data.order import Share
from vggc.support.diagnostics import UserError
from vggc.training import diagnostics

T = TypeVar("T")

FAULT = "vggc/fault"
"""Where in the processes' store the one that fails first says why."""

PATIENCE = timedelta(hours=1)
"""So long a process waits for the others, who may be looking at a million images."""


@dataclass(frozen=True)
class World:
    """This process among those that train together; alone it is the first of one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def here(cls) -> World:
        """The processes that `torchrun` says that there are, and which of them this one is.

        Raises:
            UserError: its variables are no numbers, or do not go together.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        given = {name: os.environ[name] for name in names if name in os.environ}
        if "RANK" not in given or "WORLD_SIZE" not in given:
            return cls()
        try:
            numbers = [
                int(given.get(name, default)) for name, default in zip(names, "0101", strict=True)
            ]
            rank, size, local_rank, local_size = numbers
        except ValueError:
            rank, size, local_rank, local_size = -1, 0, 0, 0
        if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
            shown = " ".join(f"{name}={value}" for name, value in given.items())
            raise UserError(diagnostics.BadWorld(shown))
        return cls(rank, size, local_rank, local_size)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """The part of each batch that falls to this process."""
        return Share(self.rank, self.size)

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of what all processes give, for each of these numbers."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def lists(self, values: Sequence[T]) -> list[T]:
        """What all processes give, one behind the other."""
        if self.size == 1:
            return list(values)
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, list(values))
        return [value for given in found for value in given]

    def sum_over(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, with its gradient."""
        return _SumOver.apply(tensor)  # type: ignore[no-any-return, no-untyped-call]

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, in this one's place, which has its shape and type."""
        dist.broadcast(tensor, src=0)
        return tensor

    def wait(self) -> None:
        """Until all processes have come so far."""
        self.sums([0.0])


ALONE = World()


class _SumOver(torch.autograd.Function):
    """A sum over processes: each of them depends on all, so gradients are summed as well."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        result = tensor.clone()
        dist.all_reduce(result)
        return result

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        result = gradient.clone()
        dist.all_reduce(result)
        return result


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[None]:
    """Within it, the processes of the world reach each other; also where they do already.

    Raises:
        UserError: they do not, or one of them has ended; with its reason where it gave one.
    """
    if world.size == 1 or dist.is_initialized():
        yield
        return
    # What processes tell each other in passing goes by way of the processors.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as fault:
        raise UserError(diagnostics.NoWorld(world.size, first_line(fault))) from None
    atexit.register(leave)
    store = the_store()
    try:
        yield
    except Exception as fault:
        if device.type == "cuda":
            # nccl ends a connection together with the others, who may never come to it.
            atexit.unregister(leave)
            atexit.register(abandon)
        if is_of_network(fault):
            raise UserError(diagnostics.WorldEnded(reason_in(store, fault))) from None
        tell(store, world, fault)
        raise


def leave() -> None:
    """Ends the processes' connection, once nobody holds a module that uses it.

    Such a module must not be the last to let go of it: it would wait, with Python's lock, for a
    thread that waits for the lock. Threads that outlive the connection would end the process by a
    signal where they ask for that lock while Python ends.
    """
    gc.collect()
    dist.destroy_process_group()


def abandon() -> None:
    """Ends the processes' connection without waiting for the others."""
    dist.distributed_c10d._abort_process_group()


def the_store() -> Store:
    """Where processes leave word for each other."""
    return dist.distributed_c10d._get_default_store()


def tell(store: Store, world: World, fault: Exception) -> None:
    """Leaves word of why this process ends, for those that will miss it."""
    try:
        store.set(FAULT, f"process {world.rank}: {first_line(fault)}")
    except RuntimeError:
        return  # the one that keeps the store has gone first


def reason_in(store: Store, fault: Exception) -> str:
    """What the process that ended first said, or else what the network says."""
    try:
        if store.check([FAULT]):
            return str(store.get(FAULT).decode(errors="replace"))
    except RuntimeError:
        pass
    return first_line(fault)


def is_of_network(fault: Exception) -> bool:
    """Whether an error tells of another process's end."""
    if isinstance(fault, dist.DistError):
        return True
    if not isinstance(fault, RuntimeError) or isinstance(fault, torch.OutOfMemoryError):
        return False
    return bool(re.search(r"(?i)\b(gloo|connection|nccl|peer|socket|store|tcpstore)\b", str(fault)))


def first_line(fault: Exception) -> str:
    """What a foreign error says, in one line of 200 characters at most."""
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0][:200]
