"""What each part of a run measures."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from card.device import Device, Work, clocks, device_for, middle
from card.driver import DriverError
from card.kernels import (
    Case,
    Loaded,
    case,
    check,
    copies_of,
    launches_for,
    relative_error,
    repeated,
)
from card.modules import torch_net
from card.nets import PreparedNet, prepared_net, seeded_weights, step_weights
from card.parts import BESIDE, LIMIT, check_of, times_of
from card.peers import STARTS, Setup, layer_works
from card.rebuilding import rebuild
from card.tables import Bundle, KernelRow, NetRow, Tables, WorkloadRow
from card.values import rounded

PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "cupy-cuda13x",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt",
)

FORMATS = {"int8": "float32"}
"""The format of a precision's weights before they are made whole numbers, where its name is another
one."""


def scores_error(setup: Setup, scores: Tensor) -> float:
    """How far the scores of a net are from those that float32 gives."""
    return relative_error(scores.to(setup.wanted.dtype), setup.wanted)


def together(outputs: tuple[Tensor, ...]) -> Tensor:
    """The outputs of a net behind one another."""
    return torch.cat([each.flatten(1) for each in outputs], 1)


def packages() -> dict[str, str]:
    """The versions of what is installed of all that a run may use."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@contextmanager
def noted(problems: dict[str, str], way: str) -> Iterator[None]:
    """Notes why one of several ways fails, which takes no other with it."""
    try:
        yield
    except Exception as error:  # whatever it is; a device that answers no more fails the part
        problems[way] = f"{type(error).__name__}: {error}"[:300]


@dataclass
class Worker:
    """Does the parts of a run, one by one, and keeps what several of them need.

    `results` holds what was found before, by the part.
    """

    bundle: Bundle
    folder: Path
    results: dict[str, dict[str, Any]]
    cases: dict[str, Case] = field(default_factory=dict)
    setups: dict[str, Setup] = field(default_factory=dict)

    @cached_property
    def device(self) -> Device:
        return device_for(self.bundle)

    @cached_property
    def loaded(self) -> Loaded:
        return Loaded(self.bundle, self.device)

    @property
    def tables(self) -> Tables:
        return self.bundle.tables

    def run(self, key: str) -> dict[str, Any]:
        """What a part has found."""
        step, _, rest = key.removeprefix("others:").partition(":")
        steps: dict[str, Callable[[str], dict[str, Any]]] = {
            "machine": self.machine,
            "rates": self.rates,
            "check": self.check,
            "peers": self.peer,
            "layers": self.layer,
            "dense": self.layer,
            "nets": self.net,
            "layer": self.layer,
            "net": self.other_net,
            "profile": self.profile,
            "compiled": self.peer,
        }
        if step != "check":
            self.cases.clear()
        self.results[key] = steps[step](rest)
        return self.results[key]

    def machine(self, _: str) -> dict[str, Any]:
        """The card, what runs on it, and whether it takes the bundle's machine code."""
        found = {**self.device.machine(), "python": sys.version.split()[0], **packages()}
        kernel = next(iter(self.tables.kernels.values()))
        try:
            self.loaded.resources(kernel)
        except DriverError as error:
            found |= {"refused": str(error), "not_rebuilt": rebuild(self.bundle)}
        return found

    def rates(self, _: str) -> dict[str, Any]:
        """What the card copies and multiplies a second, and its clocks meanwhile."""
        device, effort = self.device, self.device.effort
        source = torch.empty(effort.copied, dtype=torch.uint8, device=device.type)
        target = torch.empty_like(source)
        found = {"copy": device.rounds({"copy": lambda: target.copy_(source)})["copy"]}
        for dtype in (torch.float16, torch.bfloat16):
            a, b = (
                torch.randn(effort.side, effort.side, device=device.type).to(dtype) for _ in "ab"
            )
            out = torch.empty_like(a)

            def multiply(a: Tensor = a, b: Tensor = b, out: Tensor = out) -> None:
                torch.mm(a, b, out=out)

            found[str(dtype)] = device.rounds({"mm": multiply})["mm"]
        operations = 2 * effort.side**3
        return {
            "bytes_per_second": 2 * effort.copied / middle(found["copy"]),
            "operations_per_second": {
                name: operations / middle(seconds)
                for name, seconds in found.items()
                if name != "copy"
            },
            "clocks": clocks(),
        }

    def check(self, name: str) -> dict[str, Any]:
        """Whether a kernel gives what float32 gives."""
        kernel = self.tables.kernels[name]
        row = self.tables.workloads[kernel.workload]
        if row.id not in self.cases:
            self.cases[row.id] = case(row, self.device)
        return check(self.loaded, row, kernel, self.cases[row.id])

    def peer(self, name: str) -> dict[str, Any]:
        """How long a peer takes for a net, and how far its scores are from float32's."""
        net, _, peer = name.rpartition("/")
        setup = self.setup(net)
        running = STARTS[peer](setup)
        seconds = self.device.rounds({peer: running.call})[peer]
        self.device.wait()
        return {"seconds": seconds, "error": scores_error(setup, running.output())}

    def layer(self, name: str) -> dict[str, Any]:
        """How long each kernel of a workload takes, and the peers, in turns."""
        row = self.tables.workloads[name]
        kernels = [self.tables.kernels[each] for each in row.kernels if self.is_right(each)]
        if not kernels:
            raise ValueError("no kernel of this workload is known to be right")
        launches = launches_for(row, kernels[0].model_seconds, self.device)
        works: dict[str, Work] = {}
        problems: dict[str, str] = {}
        calls = {kernel.id: repeated(self.loaded, row, kernel, launches).call for kernel in kernels}
        for way, work in {**calls, **self.peers_of_layer(row, launches)}.items():
            with noted(problems, way):
                works[way] = self.device.captured(work)
        seconds = self.device.rounds(works, launches)
        self.device.wait()
        return {"seconds": seconds, "launches": launches, "problems": problems}

    def peers_of_layer(self, row: WorkloadRow, launches: int) -> dict[str, Work]:
        """What computes a layer otherwise; nothing where that is no layer of torch's."""
        if row.kind not in ("Conv", "Dense"):
            return {}
        copies = copies_of(row, self.device)
        return layer_works(row.kind, row.fields, self.device, copies, launches)

    def net(self, name: str) -> dict[str, Any]:
        """How long a whole net takes, launched one by one and as a graph, beside a peer."""
        setup = self.setup(name)
        row = setup.net
        by_model, tuned = self.chosen(row, measured=False), self.chosen(row, measured=True)
        ways = {
            "launches": self.prepared(setup, by_model),
            "graph": self.prepared(setup, by_model),
            "tuned": self.prepared(setup, tuned),
            "dependent": self.prepared(setup, by_model, dependent=True),
        }
        found = self.timed(setup, ways)
        kernels = (("graph", by_model), ("tuned", tuned))
        return {
            **found,
            "kernels": {
                way: [chosen[step.workload].id for step in row.steps] for way, chosen in kernels
            },
            "clocks": clocks(),
        }

    def other_net(self, name: str) -> dict[str, Any]:
        """How long a whole net takes as a graph, beside a peer."""
        setup = self.setup(name)
        chosen = self.chosen(setup.net, measured=False)
        return self.timed(setup, {"graph": self.prepared(setup, chosen)})

    def timed(self, setup: Setup, ways: dict[str, PreparedNet]) -> dict[str, Any]:
        """The seconds and errors of ways to compute a net, in turns with a peer; the first scores,
        and those after all rounds.
        """
        works: dict[str, Work] = {}
        errors: dict[str, float] = {}
        problems: dict[str, str] = {}
        for way, prepared in ways.items():
            with noted(problems, way):
                prepared.call()
                self.device.wait()
                errors[way] = scores_error(setup, together(prepared.outputs))
                captured = way != "launches"
                works[way] = self.device.captured(prepared.call) if captured else prepared.call
        beside = STARTS[BESIDE](setup)
        seconds = self.device.rounds({**works, BESIDE: beside.call})
        self.device.wait()
        for way in works.keys() - {"launches"}:
            errors[f"{way}, again"] = scores_error(setup, together(ways[way].outputs))
        errors[BESIDE] = scores_error(setup, beside.output())
        sizes = {way: prepared.num_bytes for way, prepared in ways.items()}
        return {"seconds": seconds, "errors": errors, "bytes": sizes, "problems": problems}

    def profile(self, number: str) -> dict[str, Any]:
        """What NVIDIA's profiler says of one of the kernels that lose most time."""
        losing = sorted(self.lost(), reverse=True)
        _, name = losing[int(number)]
        tool = shutil.which("ncu")
        if tool is None and not self.bundle.is_emulated:
            raise FileNotFoundError("ncu is not installed")
        path = self.folder / f"profile-{name}.txt"
        function = self.tables.kernels[name].launches[0].function
        told = ["--set", "full", "--launch-count", "1", "--kernel-name", f"regex:{function}"]
        profiler = [tool, *told] if tool else []
        runner = [sys.executable, str(self.bundle.folder / "run.py"), "--one", name]
        done = subprocess.run(
            [*profiler, *runner], capture_output=True, text=True, timeout=LIMIT["profile"] - 5
        )
        path.write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode:
            raise RuntimeError(" ".join((done.stdout + done.stderr).split())[-300:])
        return {"kernel": name, "file": path.name}

    def lost(self) -> Iterator[tuple[float, str]]:
        """The seconds beyond its floor of each workload at its best, and that kernel."""
        for row in self.tables.workloads.values():
            times = self.times(row)
            if times:
                best = min(times, key=times.__getitem__)
                yield times[best] - row.floor_seconds, best

    def one(self, name: str) -> None:
        """Calls one kernel a few times, for a profiler to watch."""
        kernel = self.tables.kernels[name]
        repeated(self.loaded, self.tables.workloads[kernel.workload], kernel, 3).call()
        self.device.wait()

    # What several parts need

    def setup(self, name: str) -> Setup:
        """A net with its weights and images, and the scores that it has: of float32 in float64, of
        other precisions in float32.
        """
        if name not in self.setups:
            self.setups.clear()
            (row,) = (each for each in self.tables.nets if each.name == name)
            random = torch.Generator(self.device.type).manual_seed(row.batch)
            shape = (row.batch, *row.input)
            image = torch.randn(*shape, generator=random, device=self.device.type)
            layers, form = self.tables.layers[row.net], FORMATS.get(row.precision, row.precision)
            image = rounded(image, form)  # all begin with the same
            weights = seeded_weights(layers, form, self.device.type)
            exact = torch.float64 if row.precision == "float32" else torch.float32
            with torch.inference_mode():
                wanted = torch_net(layers, weights).to(exact)(image.to(exact))
            self.setups[name] = Setup(
                bundle=self.bundle,
                device=self.device,
                net=row,
                weights=weights,
                image=image,
                wanted=wanted,
                folder=self.folder,
            )
        return self.setups[name]

    def prepared(
        self, setup: Setup, chosen: dict[str, KernelRow], *, dependent: bool = False
    ) -> PreparedNet:
        weights = step_weights(self.tables, setup.net, setup.weights, setup.image)
        return prepared_net(
            self.loaded, setup.net, chosen, setup.image, weights, dependent=dependent
        )

    def is_right(self, kernel: str) -> bool:
        """Whether a kernel was found to be right."""
        row = self.tables.workloads[self.tables.kernels[kernel].workload]
        return check_of(row, kernel) in self.results

    def times(self, row: WorkloadRow) -> dict[str, float]:
        """The seconds that were measured of a workload's kernels."""
        found = self.results.get(times_of(row))
        if found is None:
            return {}
        seconds = found["seconds"]
        return {name: middle(seconds[name]) for name in row.kernels if name in seconds}

    def chosen(self, net: NetRow, *, measured: bool) -> dict[str, KernelRow]:
        """The kernel for each workload of a net, of those that are right: the fastest, or the one
        that the model prefers.

        Raises: ValueError where none is right.
        """
        found = {}
        for step in net.steps:
            row = self.tables.workloads[step.workload]
            times = self.times(row) if measured else {}
            right = [name for name in row.kernels if self.is_right(name)]
            if not right:
                raise ValueError(f"no kernel is right for {step.layer}")
            best = min(times, key=times.__getitem__) if times else right[0]
            found[row.id] = self.tables.kernels[best]
        return found
