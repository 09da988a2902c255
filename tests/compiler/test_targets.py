"""What machine a target stands for: code uses what this CPU has, whatever it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
import tvm

from tests.support.cpu_kernels import conv
from tests.support.listings import newer_than_avx2
from vggc.compiler import targets
from vggc.compiler.targets import host, resolve, tvm_target
from vggc.kernels.cpu import Machine, kernel
from vggc.runtime.cpu_info import INSTRUCTIONS, plain
from vggc.runtime.cpu_session import obstacle

Become: TypeAlias = Callable[[str, frozenset[str] | None], None]

SSE = frozenset({"sse", "sse2", "sse3", "ssse3", "sse41", "sse42"})
SKYLAKE = SSE | {"avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "popcnt", "movbe"}
AVX512 = SKYLAKE | {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"}
NOT_OF_THE_KERNELS = {"aes", "fsgsbase", "hypervisor"}


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Makes this machine one that LLVM calls by a name, with these instruction sets."""

    def become(name: str, present: frozenset[str] | None) -> None:
        find = targets.tvm.get_global_func

        def found(asked: str) -> object:
            return (lambda: name) if asked == "target.llvm_get_system_cpu" else find(asked)

        monkeypatch.setattr(targets.tvm, "get_global_func", found)
        monkeypatch.setattr(targets, "instructions", lambda: present)
        monkeypatch.setattr("vggc.runtime.cpu_session.instructions", lambda: present)

    return become


def has(present: frozenset[str]) -> set[str]:
    """The instruction sets of a machine, of those that kernels are made of."""
    return {name for name in present if INSTRUCTIONS.fullmatch(name)}


@pytest.mark.parametrize(
    ("name", "present", "lanes"),
    [
        ("znver4", AVX512, 16),
        ("znver4", SKYLAKE, 8),
        ("sapphirerapids", SKYLAKE - {"avx2", "fma", "f16c"}, 4),
        ("generic", AVX512, 16),
        ("generic", SKYLAKE, 8),
        ("x86-64-v3", AVX512, 16),
    ],
)
def test_code_for_this_machine_uses_the_instructions_that_it_has(
    name: str, present: frozenset[str], lanes: int, cpu: Become
) -> None:
    cpu(name, present | NOT_OF_THE_KERNELS)
    target = resolve("cpu")
    assert target.attrs["mcpu"] == name
    assert {plain(each) for each in target.instructions} == has(present)
    assert Machine.of(tvm_target(target)).lanes == lanes
    assert obstacle(target) is None


def test_a_hidden_instruction_set_is_in_no_code(cpu: Become) -> None:
    cpu("znver4", SKYLAKE)
    goal = tvm_target(resolve("cpu"))
    func = kernel(conv((1, 9, 9, 8), 32), Machine.of(goal)).func.with_attr("global_symbol", "f")
    code = tvm.compile(tvm.IRModule({"f": func}), target=goal).mod.inspect_source("asm")
    assert "%ymm" in code
    assert not newer_than_avx2(code)


def test_a_cpu_that_has_what_its_name_says_needs_no_more_words(cpu: Become) -> None:
    cpu("haswell", SKYLAKE)
    assert "mattr" not in host()


def test_instructions_that_llvm_has_no_name_for_are_left_out(cpu: Become) -> None:
    cpu("haswell", SKYLAKE | {"avx1024f"})
    assert "mattr" not in host()


def test_where_the_system_says_nothing_the_name_decides(cpu: Become) -> None:
    cpu("znver4", None)
    assert "mattr" not in host()
    assert "avx512bf16" in resolve("cpu").instructions


def test_a_cpu_that_is_named_has_all_that_its_name_says(cpu: Become) -> None:
    """It is another machine's, most likely."""
    cpu("znver4", SKYLAKE)
    assert "avx512bf16" not in resolve("cpu").instructions
    assert "avx512bf16" in resolve("cpu", mcpu="znver4").instructions
