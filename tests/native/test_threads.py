"""A pool of threads, by a program in C that checks what the pool promises (`threads_driver.c`)."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.c_programs import compiled, needs_cc, printed
from vggc_runtime.processors import num_cores, num_processors, quota

SOURCE = Path(__file__).with_name("threads_driver.c")
COMPILERS = [path for name in ("gcc", "clang", "musl-gcc") if (path := shutil.which(name))]

pytestmark = needs_cc


@dataclass(frozen=True)
class Checker:
    """What watches the program while it runs: options of the compiler, or a program around it."""

    options: tuple[str, ...] = ()
    around: tuple[str, ...] = ()


THREAD_SANITIZER = Checker(("-O1", "-g", "-fsanitize=thread"))
CHECKERS = {
    "ThreadSanitizer": THREAD_SANITIZER,
    # Its memory has places that some systems give to others, if they place them at random.
    "ThreadSanitizer without randomness": Checker(THREAD_SANITIZER.options, ("setarch", "-R")),
    "AddressSanitizer and UndefinedBehaviorSanitizer": Checker(
        ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    ),
    "valgrind": Checker(
        ("-O1", "-g"),
        ("valgrind", "-q", "--leak-check=full", "--error-exitcode=9", "--fair-sched=yes"),
    ),
}


def keeps(program: Path, *command: object, around: tuple[str, ...] = ()) -> list[str]:
    """The lines that the program prints, which ends well only where the pool keeps a promise."""
    return printed([*around, program, *map(str, command)])


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(SOURCE, tmp_path_factory.mktemp("threads"))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_each_round_runs_each_task_once_on_its_own_thread(driver: Path, threads: int) -> None:
    keeps(driver, "rounds", threads, 10_000, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_in_many_rounds_no_wake_up_is_lost(driver: Path, threads: int) -> None:
    keeps(driver, "rounds", threads, 100_000, 0, 0)


@pytest.mark.parametrize("threads", [2, 8])
def test_workers_and_the_caller_wake_up_when_they_have_slept(driver: Path, threads: int) -> None:
    keeps(driver, "rounds", threads, 500, 2, 300)


def test_a_task_that_fails_makes_its_round_fail_and_no_other(driver: Path) -> None:
    keeps(driver, "failing", 3)


def test_no_thread_is_left_of_a_pool_that_was_closed(driver: Path) -> None:
    keeps(driver, "reopened", 3, 1000)


def test_two_threads_use_a_pool_each_at_once(driver: Path) -> None:
    keeps(driver, "two_pools", 5000)


def test_a_forked_process_runs_all_tasks_itself_and_closes_the_pool(driver: Path) -> None:
    keeps(driver, "forked", 10)


def test_threads_run_on_the_processors_named_and_the_caller_stays(driver: Path) -> None:
    first, *others = sorted(os.sched_getaffinity(0))
    keeps(driver, "pinned", 4, first, *others[:2])
    keeps(driver, "pinned", 3, first)


@pytest.mark.skipif(num_processors() < 2, reason="there is one processor only")
def test_threads_that_were_put_on_one_processor_leave_it(driver: Path) -> None:
    keeps(driver, "spread")


def test_threads_have_names_and_leave_signals_to_those_of_the_process(driver: Path) -> None:
    keeps(driver, "apart")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ((-1,), "-1 threads were asked for, and 1 to 1024 can be had"),
        ((1025,), "1025 threads were asked for, and 1 to 1024 can be had"),
        ((3, 0, 8191), "processor 8191 is not one that this process may use"),
        ((2, -4), "processor -4 is not one that this process may use"),
    ],
)
def test_what_cannot_be_had_is_refused_without_a_thread_left(
    driver: Path, command: tuple[int, ...], why: str
) -> None:
    assert keeps(driver, "refused", *command) == [why]


def test_without_a_number_there_is_a_thread_for_each_core(driver: Path) -> None:
    assert keeps(driver, "usual") == [str(num_cores())]
    processor = min(os.sched_getaffinity(0))
    assert keeps(driver, "usual", around=("taskset", "-c", str(processor))) == ["1"]


V2 = {"proc/self/cgroup": "0::/system.slice/job.scope\n"}
V1 = {"proc/self/cgroup": "12:cpu,cpuacct:/docker/1a2b\n6:memory:/docker/1a2b\n1:name=a:/\n0::/\n"}
JOB = "sys/fs/cgroup/system.slice/job.scope/cpu.max"
SIBLINGS = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {**V2, JOB: "max 100000\n"},
        {**V2, JOB: "50000 100000\n"},
        {**V2, JOB: "150000 100000\n", "sys/fs/cgroup/system.slice/cpu.max": "120000 100000"},
        {**V2, JOB: "150000 100000\n", "sys/fs/cgroup/cpu.max": "70000 100000"},
        {**V2, "sys/fs/cgroup/other.slice/cpu.max": "10000 100000"},
        {**V2, JOB: "nonsense", "sys/fs/cgroup/unified/cpu.max": "110000 100000"},
        {
            **V1,
            "sys/fs/cgroup/cpu,cpuacct/docker/1a2b/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/docker/cpu.cfs_quota_us": "125000\n",
            "sys/fs/cgroup/cpu/docker/cpu.cfs_period_us": "100000\n",
        },
        {**V1, "sys/fs/cgroup/memory/docker/1a2b/cpu.max": "10000 100000\n"},
        {SIBLINGS.format(each): f"{each - each % 2}-{each - each % 2 + 1}\n" for each in range(64)},
        {SIBLINGS.format(each): f"{each % 2},{each % 2 + 2}\n" for each in range(4)},
    ],
)
def test_processors_are_counted_as_the_rest_of_vggc_does(
    driver: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    [line] = keeps(driver, "processors", tmp_path)
    limit, processors, cores = line.split()
    assert float(limit) == pytest.approx(quota(tmp_path))
    assert (int(processors), int(cores)) == (num_processors(tmp_path), num_cores(tmp_path))


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compilers_warn_of_nothing(tmp_path: Path, compiler: str) -> None:
    compiled(SOURCE, tmp_path, compiler=compiler)


WATCHED = (
    *(("rounds", threads, 2000, 0, 0) for threads in (2, 3)),
    *(("rounds", threads, 40, 2, 300) for threads in (2, 8)),
    ("failing", 3),
    ("reopened", 3, 40),
    ("two_pools", 500),
    ("forked", 3),
    ("pinned", 3, min(os.sched_getaffinity(0))),
    *((("spread",),) if num_processors() > 1 else ()),
    ("apart",),
    ("refused", 3, 0, 8191),
    ("processors", ""),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKERS)
def test_sanitizers_and_valgrind_find_nothing(tmp_path: Path, name: str) -> None:
    checker, empty = CHECKERS[name], tmp_path / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    try:
        subprocess.run([*checker.around, compiled(empty, tmp_path, *checker.options)], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"{name} does not work here")
    program = compiled(SOURCE, tmp_path, *checker.options)
    for command in WATCHED:
        keeps(program, *command, around=checker.around)
