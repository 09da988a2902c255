"""A net's weights in C: mapped or read, what the net was compiled with or refused, given back."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.support.c_programs import ADDRESSES, THREADS, compiled, needs_cc, printed, weights_plan
from vggc.ir.weights import save
from vggc.support.tensors import HASHED, opened

DRIVER = Path(__file__).with_name("weights_driver.c")
PATTERN = np.random.default_rng(0).integers(0, 256, 3 * HASHED, np.uint8)
SMALL = {"kernel": 40_000 * 4, "bias": 64, "odd": 20, "bytes": 3, "empty": 0, "other": 128}
LARGE = {"long": 2 * HASHED + 4096, "piece": HASHED, "odd": HASHED + 12, "last": 9}
MAPPED, READ = 0, 1

pytestmark = needs_cc


@dataclass(frozen=True)
class Case:
    """How weights are opened: mapped or read, trusted or not, by so many threads; which call fails,
    which read finds the end.
    """

    path: Path
    in_pages: int = MAPPED
    trusted: bool = False
    threads: int = 2
    fault: int = 0
    cut: int = 0

    def __str__(self) -> str:
        numbers = self.in_pages, int(self.trusted), self.threads, self.fault, self.cut
        return f"{' '.join(map(str, numbers))} {self.path}\n"


def stored(folder: Path, sizes: dict[str, int]) -> Path:
    """A file of tensors of so many bytes, and beside it the plan of a net that takes them."""
    path = folder / "weights.safetensors"
    save(path, {name: np.resize(PATTERN[len(name) :], size) for name, size in sizes.items()})
    (folder / "plan").write_text(weights_plan(path))
    return path


def contents(path: Path, plan: Path) -> str:
    """What a file has where a plan has tensors, as the program tells it."""
    whole, data = hashlib.sha256(), path.read_bytes()
    for line in plan.read_text().splitlines()[2:]:
        _, offset, size, _ = line.split()
        whole.update(hashlib.sha256(data[int(offset) : int(offset) + int(size)]).digest())
    return whole.hexdigest()


@dataclass(frozen=True)
class Net:
    """The weights of a net, and a program that opens files for it."""

    weights: Path
    command: tuple[str | Path, ...]

    def open(self, cases: Iterable[Case]) -> list[str]:
        """What comes of each case: `open` and what the tensors hold, or `refused` and the reason
        behind the path.
        """
        cases = list(cases)
        given = "".join(map(str, cases)).encode()
        lines = printed([*self.command, self.weights.with_name("plan")], given)
        assert len(lines) == len(cases)
        told = []
        for case, line in zip(cases, lines, strict=True):
            how, *rest = line.split(" ", 1)
            if how == "open":
                told.append(f"open {rest[0].split()[0]}")
            else:
                assert rest[0].startswith(f"{case.path}: ")
                told.append(f"refused {rest[0].removeprefix(f'{case.path}: ')}")
        return told

    @property
    def equal(self) -> str:
        """What is told of the weights as they were stored."""
        return f"open {contents(self.weights, self.weights.with_name('plan'))}"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stops at a wrong access, undefined behaviour, or with memory that is not given back."""
    return compiled(DRIVER, tmp_path_factory.mktemp("program"), "-DFAULTS", *ADDRESSES)


@pytest.fixture(scope="module")
def small(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Net:
    return Net(stored(tmp_path_factory.mktemp("small"), SMALL), (program,))


@pytest.fixture(scope="module")
def large(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Net:
    """Tensors of several pieces."""
    return Net(stored(tmp_path_factory.mktemp("large"), LARGE), (program,))


def every_way(path: Path) -> list[Case]:
    ways = itertools.product((MAPPED, READ), (False, True), (1, 2, 5))
    return [Case(path, in_pages, trusted, threads) for in_pages, trusted, threads in ways]


def test_a_tensors_hash_is_that_of_its_pieces_hashes(large: Net) -> None:
    with opened(large.weights) as file:
        values = file.read("long").tobytes()
        found = file.piecewise_sha256("long")
    pieces = values[:HASHED], values[HASHED : 2 * HASHED], values[2 * HASHED :]
    digests = b"".join(hashlib.sha256(piece).digest() for piece in pieces)
    assert found == hashlib.sha256(digests).digest()


def test_weights_are_the_same_mapped_or_read_by_any_number_of_threads(
    small: Net, large: Net
) -> None:
    for net in (small, large):
        assert set(net.open(every_way(net.weights))) == {net.equal}


def test_one_changed_bit_is_found_in_any_piece_and_named(large: Net, tmp_path: Path) -> None:
    with opened(large.weights) as file:
        places = {name: stored.offset for name, stored in file.tensors.items()}
    changes = [
        ("long", HASHED - 1),
        ("long", HASHED),
        ("long", LARGE["long"] - 1),
        ("odd", LARGE["odd"] - 1),
    ]
    for name, place in changes:
        path = tmp_path / "changed"
        data = bytearray(large.weights.read_bytes())
        data[places[name] + place] ^= 0x10
        path.write_bytes(data)
        reason = f"refused its tensor {name} is not what the net was compiled with: it is damaged"
        cases = [Case(path, MAPPED), Case(path, READ)]
        assert large.open(cases) == [reason, reason]


def test_the_weights_of_another_net_are_refused_though_trusted(small: Net, tmp_path: Path) -> None:
    """They have the same size, and differ in a name."""
    sizes = {name.replace("kernel", "kernal"): size for name, size in SMALL.items()}
    other = stored(tmp_path, sizes)
    assert other.stat().st_size == small.weights.stat().st_size
    told = small.open(every_way(other))
    assert set(told) == {"refused it is the weights of another net"}


# Changes of a file's bytes, whose data begins at `start`


def cut(random: np.random.Generator, data: bytearray, start: int) -> None:
    del data[random.integers(len(data)) :]


def lengthened(random: np.random.Generator, data: bytearray, start: int) -> None:
    data += random.bytes(random.integers(1, 5000))


def flipped_in_header(random: np.random.Generator, data: bytearray, start: int) -> None:
    data[random.integers(start)] ^= 1 << random.integers(8)


def with_entries_in_another_order(random: np.random.Generator, data: bytearray, start: int) -> None:
    """Its header says the same of the same tensors."""
    told = json.loads(data[8:start])
    names = [*told]
    random.shuffle(names)
    header = json.dumps({name: told[name] for name in names}, separators=(",", ":"))
    data[8:start] = header.encode().ljust(start - 8)


def with_tensors_exchanged(random: np.random.Generator, data: bytearray, start: int) -> None:
    """Its header says of each tensor what it said of another, in as many bytes."""
    told = json.loads(data[8:start])
    names = [name for name in told if name != "__metadata__"]
    others = random.permutation(len(names))
    changed = told | {name: told[names[other]] for name, other in zip(names, others, strict=True)}
    data[8:start] = json.dumps(changed, separators=(",", ":")).encode().ljust(start - 8)


def flipped_in_data(random: np.random.Generator, data: bytearray, start: int) -> None:
    data[random.integers(start, len(data))] ^= 1 << random.integers(8)


def overwritten(random: np.random.Generator, data: bytearray, start: int) -> None:
    place, size = random.integers(len(data) - 300), random.integers(1, 300)
    data[place : place + size] = random.bytes(size)


def moved(random: np.random.Generator, data: bytearray, start: int) -> None:
    first, second = random.integers(len(data) // 2, size=2)
    size = random.integers(1, len(data) // 2)
    data[first : first + size] = data[second : second + size]


def kept(random: np.random.Generator, data: bytearray, start: int) -> None:
    pass


CHANGES: Sequence[Callable[[np.random.Generator, bytearray, int], None]]
CHANGES = (
    cut,
    lengthened,
    flipped_in_header,
    with_entries_in_another_order,
    with_tensors_exchanged,
    flipped_in_data,
    overwritten,
    moved,
    kept,
)


def changed_files(net: Net, folder: Path, count: int) -> list[Path]:
    random = np.random.default_rng(1)
    with opened(net.weights) as file:
        start = len(file.header())
    paths = []
    for number in range(count):
        data = bytearray(net.weights.read_bytes())
        CHANGES[number % len(CHANGES)](random, data, start)
        paths.append(folder / f"{number}")
        paths[-1].write_bytes(data)
    return paths


def test_whatever_a_file_became_it_is_accepted_only_when_equal(small: Net, tmp_path: Path) -> None:
    original = small.weights.read_bytes()
    paths = changed_files(small, tmp_path, 40 * len(CHANGES))
    for in_pages in (MAPPED, READ):
        told = small.open(Case(path, in_pages) for path in paths)
        for path, line in zip(paths, told, strict=True):
            if path.read_bytes() == original:
                assert line == small.equal
            else:
                assert re.match("refused it (has|is)|refused its tensor", line)


def test_of_trusted_weights_the_header_alone_is_compared(small: Net, tmp_path: Path) -> None:
    original = small.weights.read_bytes()
    with opened(small.weights) as file:
        start = len(file.header())
    paths = changed_files(small, tmp_path, 5 * len(CHANGES))
    for in_pages in (MAPPED, READ):
        told = small.open(Case(path, in_pages, trusted=True) for path in paths)
        for path, line in zip(paths, told, strict=True):
            data = path.read_bytes()
            if data[:start] == original[:start] and len(data) == len(original):
                assert line == f"open {contents(path, small.weights.with_name('plan'))}"
            else:
                assert line.startswith("refused it ")


def test_what_is_no_file_is_refused_at_once(small: Net, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    reasons = {
        tmp_path / "pipe": "it is no regular file",
        Path("/dev/zero"): "it is no regular file",
        tmp_path: "it is no regular file",
        tmp_path / "empty": f"it has 0 bytes where the net's weights have {size(small)}: "
        "it is the weights of another net, or was cut off",
        tmp_path / "nowhere": "No such file or directory",
        tmp_path / "loop": "Too many levels of symbolic links",
    }
    if os.geteuid() != 0:  # who may read everything
        shutil.copy(small.weights, tmp_path / "secret")
        (tmp_path / "secret").chmod(0)
        reasons[tmp_path / "secret"] = "Permission denied"
    for in_pages in (MAPPED, READ):
        told = small.open(Case(path, in_pages) for path in reasons)
        assert told == [f"refused {reason}" for reason in reasons.values()]


def size(net: Net) -> int:
    return net.weights.stat().st_size


FAILURES = {
    "Too many open files",
    "Input/output error",
    "Cannot allocate memory",
    "No such device",
}


def test_whatever_fails_everything_is_given_back(small: Net) -> None:
    """Each call of the system and each allocation fails once; without a thread the others work on.

    Where all succeed no more calls are made than these.
    """
    case = partial(Case, small.weights)
    for way in ((MAPPED, False, 3), (MAPPED, True, 1), (READ, False, 3), (READ, True, 1)):
        told = small.open(case(*way, fault=number) for number in range(1, 80))
        refused = {line.removeprefix("refused ") for line in told} - {small.equal}
        assert refused == FAILURES - ({"No such device"} if way[0] == READ else set())
        assert told[-1] == small.equal


def test_a_file_that_is_cut_while_it_is_read_is_refused(small: Net) -> None:
    told = small.open(Case(small.weights, READ, cut=number) for number in range(1, 80))
    assert set(told) == {"refused it was cut off while it was read", small.equal}
    assert told[0] != small.equal == told[-1]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [THREADS, ()], ids=["threads", "valgrind"])
def test_other_tools_find_no_mistake_either(
    flags: tuple[str, ...], small: Net, large: Net, tmp_path: Path
) -> None:
    """ThreadSanitizer, which wants addresses that are not random, and valgrind."""
    command: tuple[str | Path, ...] = ("setarch", "--addr-no-randomize")
    if not flags:
        command = ("valgrind", "--quiet", "--leak-check=full", "--error-exitcode=9")
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"no {command[0]}")
    program = compiled(DRIVER, tmp_path, "-DFAULTS", *flags)
    for net in (small, large) if flags else (small,):  # valgrind is slow
        here = Net(net.weights, (*command, program))
        assert set(here.open(every_way(net.weights))) == {net.equal}
    here = Net(small.weights, (*command, program))
    cases = [
        Case(small.weights, way, threads=3, fault=number)
        for way in (MAPPED, READ)
        for number in range(1, 80)
    ]
    told = [line.removeprefix("refused ") for line in here.open(cases)]
    assert set(told) == FAILURES | {small.equal}
