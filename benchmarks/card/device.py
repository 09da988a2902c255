"""Where a bundle runs: a card, or the emulated one of a test, whose memory is the CPU's."""

from __future__ import annotations

import gc
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

import torch

from card.driver import Driver
from card.tables import Bundle

Work: TypeAlias = Callable[[], Any]


@dataclass(frozen=True)
class Effort:
    """How much is done for a figure: rounds, the seconds of a round, bytes that no cache holds, the
    most copies of operands, the side of the matrices and the bytes of the copy by which the card's
    rates are measured.
    """

    rounds: int
    round_seconds: float
    beyond_cache: int
    copies: int
    side: int
    copied: int


FULL = Effort(
    rounds=9, round_seconds=2e-3, beyond_cache=180 << 20, copies=32, side=8192, copied=1 << 30
)
SMALL = Effort(rounds=2, round_seconds=0.0, beyond_cache=1, copies=1, side=64, copied=1 << 16)


class Device(ABC):
    """What runs kernels and tells how long they take."""

    effort: Effort
    type: str
    """The name of the device in torch."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    @property
    @abstractmethod
    def stream(self) -> int:
        """The stream that torch works on."""

    @abstractmethod
    def wait(self) -> None:
        """Returns when all work is done. Raises: RuntimeError where some of it failed."""

    @abstractmethod
    def release(self) -> None:
        """Gives back memory that nobody holds any more."""

    @abstractmethod
    def captured(self, work: Work) -> Work:
        """What does the work again, without its launches one by one."""

    @abstractmethod
    def seconds(self, work: Work) -> float:
        """How long the device takes for some work."""

    @abstractmethod
    def machine(self) -> dict[str, Any]:
        """What there is to know of the device."""

    def rounds(self, works: Mapping[str, Work], launches: int = 1) -> dict[str, list[float]]:
        """The seconds of a launch of each work, which makes so many of them, in each round; the
        works take turns.
        """
        repeats = {}
        for name, work in works.items():
            work()
            once = self.seconds(work)
            repeats[name] = max(1, round(self.effort.round_seconds / max(once, 1e-7)))
        found: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(self.effort.rounds):
            for name, work in works.items():

                def several(work: Work = work, count: int = repeats[name]) -> None:
                    for _ in range(count):
                        work()

                found[name].append(self.seconds(several) / repeats[name] / launches)
        return found


class CudaDevice(Device):
    """The first card of this machine."""

    effort, type = FULL, "cuda"

    def __init__(self) -> None:
        torch.cuda.synchronize()  # makes the context
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        super().__init__(Driver())

    @property
    def stream(self) -> int:
        return int(torch.cuda.current_stream().cuda_stream)

    def wait(self) -> None:
        torch.cuda.synchronize()

    def release(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()

    def captured(self, work: Work) -> Work:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()

        def replay(held: Work = work) -> None:
            """`held` has the memory that the graph reads and writes."""
            graph.replay()

        return replay

    def seconds(self, work: Work) -> float:
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3

    def machine(self) -> dict[str, Any]:
        about = torch.cuda.get_device_properties(0)
        return {
            "name": about.name,
            "capability": f"{about.major}.{about.minor}",
            "multiprocessors": about.multi_processor_count,
            "cache": getattr(about, "L2_cache_size", 0),
            "memory": about.total_memory,
            "driver": self.driver.version,
            "cudnn": torch.backends.cudnn.version(),
            "cuda": torch.version.cuda,
            "clocks": clocks(),
        }


class EmulatedDevice(Device):
    """Kernels as a CPU's code: their results are right or wrong as a card's, their times say
    nothing. What it tells of itself is said of the card that its code is for.
    """

    effort, type = SMALL, "cpu"
    stream = 0

    def __init__(self, driver: Driver, about: Mapping[str, Any]) -> None:
        super().__init__(driver)
        self.about = about

    def wait(self) -> None:
        pass

    def release(self) -> None:
        gc.collect()

    def captured(self, work: Work) -> Work:
        return work

    def seconds(self, work: Work) -> float:
        start = perf_counter()
        work()
        return perf_counter() - start

    def machine(self) -> dict[str, Any]:
        return {
            "name": "emulated",
            "capability": "{}.{}".format(*self.about["arch"].removeprefix("sm_").rstrip("a")),
            "multiprocessors": self.about["multiprocessors"],
            "cache": 0,
            "driver": self.driver.version,
        }


def device_for(bundle: Bundle) -> Device:
    """What runs the code of a bundle."""
    if bundle.is_emulated:
        about = bundle.tables.about
        return EmulatedDevice(Driver(bundle.folder / about["driver"]), about)
    return CudaDevice()


def clocks() -> str:
    """What NVIDIA's tool says of clocks, power and temperature at this moment."""
    asked = "clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout or done.stderr).strip()


def middle(seconds: list[float]) -> float:
    """The median."""
    return median(seconds)
