"""What containers leave a process of a machine: trees of control groups as systems show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.system_files import tree
from vggc.support.memory import free_memory, memory
from vggc_runtime.processors import THREADS, limit_threads, num_cores, num_processors


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may run on processors 0 to 7."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


NESTED = {"proc/self/cgroup": "0::/system.slice/job.scope\n"}
DOCKER = {"proc/self/cgroup": "0::/\n"}
OLD = {"proc/self/cgroup": "12:cpu,cpuacct:/docker/1a2b\n6:memory:/docker/1a2b\n1:name=a:/\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 8),
        ({**DOCKER, "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({**DOCKER, "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({**DOCKER, "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({**DOCKER, "sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8),
        ({**NESTED, "sys/fs/cgroup/system.slice/job.scope/cpu.max": "300000 100000"}, 3),
        ({**NESTED, "sys/fs/cgroup/system.slice/cpu.max": "300000 100000"}, 3),
        (
            {
                **NESTED,
                "sys/fs/cgroup/system.slice/cpu.max": "200000 100000",
                "sys/fs/cgroup/system.slice/job.scope/cpu.max": "400000 100000",
            },
            2,
        ),
        ({**NESTED, "sys/fs/cgroup/other.slice/cpu.max": "100000 100000"}, 8),
        (
            {
                **OLD,
                "sys/fs/cgroup/cpu,cpuacct/docker/1a2b/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1a2b/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                **OLD,  # inside the container, the group is the mount itself
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
    ],
)
@pytest.mark.usefixtures("eight")
def test_a_quota_counts_rounded_up(tmp_path: Path, files: dict[str, str], count: int) -> None:
    root = tree(tmp_path, files)
    assert num_processors(root) == num_cores(root) == count


def test_of_a_quota_and_an_affinity_the_lesser_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path, {**DOCKER, "sys/fs/cgroup/cpu.max": "400000 100000\n"})
    for allowed, count in (({3}, 1), ({0, 1}, 2), (set(range(64)), 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, them=allowed: them, raising=False)
        assert num_processors(root) == count


def test_a_system_without_affinity_has_all_its_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert num_processors(tmp_path) == num_cores(tmp_path) == 6


@pytest.mark.usefixtures("eight")
def test_libraries_start_as_many_threads_as_the_quota_has_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path, {**DOCKER, "sys/fs/cgroup/cpu.max": "300000 100000\n"})
    monkeypatch.setenv(THREADS, "5")
    limit_threads(root)
    assert os.environ[THREADS] == "5"
    monkeypatch.delenv(THREADS)
    limit_threads(tmp_path / "no quota")
    assert THREADS not in os.environ
    limit_threads(root)
    assert os.environ[THREADS] == "3"
    monkeypatch.delenv(THREADS)


MIB = 2**20


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({**DOCKER, "sys/fs/cgroup/memory.max": f"{64 * MIB}\n"}, 64),
        ({**NESTED, "sys/fs/cgroup/system.slice/job.scope/memory.max": f"{64 * MIB}\n"}, 64),
        (
            {
                **NESTED,
                "sys/fs/cgroup/system.slice/job.scope/memory.max": "max\n",
                "sys/fs/cgroup/system.slice/memory.max": f"{32 * MIB}\n",
            },
            32,
        ),
        ({**OLD, "sys/fs/cgroup/memory/docker/1a2b/memory.limit_in_bytes": f"{64 * MIB}\n"}, 64),
        ({**OLD, "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{64 * MIB}\n"}, 64),
    ],
)
def test_memory_is_what_the_control_groups_leave(
    tmp_path: Path, files: dict[str, str], limit: int
) -> None:
    assert memory(tree(tmp_path, files)) == limit * MIB


GROUP = "sys/fs/cgroup/memory/docker/1a2b"
STAT = f"active_anon {9 * MIB}\ninactive_file {3 * MIB}\nactive_file {2 * MIB}\n"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"proc/meminfo": "MemTotal: 90000 kB\nMemAvailable:   2048 kB\nHugePages_Total: 0\n"}, 2),
        (
            {
                **DOCKER,
                "proc/meminfo": "MemAvailable: 90000 kB\n",
                "sys/fs/cgroup/memory.max": f"{64 * MIB}\n",
                "sys/fs/cgroup/memory.current": f"{20 * MIB}\n",
                "sys/fs/cgroup/memory.stat": STAT,
            },
            64 - 20 + 5,
        ),
        (
            {
                **OLD,
                f"{GROUP}/memory.limit_in_bytes": f"{64 * MIB}\n",
                f"{GROUP}/memory.usage_in_bytes": f"{70 * MIB}\n",
                f"{GROUP}/memory.stat": "inactive_file 7\ntotal_inactive_file 0\n",
            },
            0,
        ),
        ({**DOCKER, "sys/fs/cgroup/memory.max": f"{64 * MIB}\n"}, 64),
    ],
)
def test_free_is_what_the_system_and_the_control_groups_have_left(
    tmp_path: Path, files: dict[str, str], free: int
) -> None:
    """What they keep of files counts as free."""
    assert free_memory(tree(tmp_path, files)) == free * MIB


def test_without_a_limit_memory_is_the_machines(tmp_path: Path) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    unlimited = {**OLD, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert memory(tmp_path) == memory(tree(tmp_path / "old", unlimited)) == whole


def siblings(groups: list[str]) -> dict[str, str]:
    return {
        f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{group}\n"
        for cpu, group in enumerate(groups)
    }


V2 = {"proc/self/cgroup": "0::/user/job\n"}
V1 = {"proc/self/cgroup": "4:memory:/job\n2:cpu,cpuacct:/job\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, 8, id="no topology"),
        pytest.param(siblings([str(n) for n in range(8)]), 8, id="one thread a core"),
        pytest.param(siblings([f"{n % 4},{n % 4 + 4}" for n in range(8)]), 4, id="hyper-threads"),
        pytest.param(siblings(["0-7"] * 8), 1, id="eight threads of one core"),
        pytest.param(siblings([""] * 8), 8, id="empty files"),
        pytest.param({**V2, "sys/fs/cgroup/user/job/cpu.max": "300000 100000\n"}, 3, id="quota"),
        pytest.param({**V2, "sys/fs/cgroup/user/job/cpu.max": "max 100000\n"}, 8, id="no quota"),
        pytest.param({**V2, "sys/fs/cgroup/user/job/cpu.max": "50000 100000\n"}, 1, id="half"),
        pytest.param({**V2, "sys/fs/cgroup/user/cpu.max": "250000 100000\n"}, 3, id="parent's"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "500000 100000\n"}, 5, id="container"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "nonsense"}, 8, id="unreadable"),
        pytest.param(
            {
                **V1,
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            2,
            id="version 1",
        ),
        pytest.param(
            {
                **V1,
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            8,
            id="version 1 without quota",
        ),
    ],
)
@pytest.mark.usefixtures("eight")
def test_cores_are_counted_as_the_system_shares_them_out(
    tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    assert num_cores(tree(tmp_path, files)) == cores


def test_affinity_counts_the_cores_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path, siblings([f"{n % 4},{n % 4 + 4}" for n in range(8)]))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for allowed, cores in (({0, 4}, 1), ({0, 1, 5}, 2), ({2, 3}, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, allowed=allowed: allowed)
        assert num_cores(root) == cores
