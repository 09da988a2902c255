"""What `--target` may say, and the machine that it stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vggc.compiler.cards import OLDEST_TENSOR_CORES
from vggc.compiler.device_code import DEFAULT_ARCHS, code_order
from vggc.runtime.archs import ARCH, capability
from vggc.runtime.artifact import CPU_ATTRS, Attr, Target
from vggc.runtime.cpu_info import INSTRUCTIONS, instructions, plain
from vggc.support.diagnostics import Diagnostic, UserError, nearest
from vggc.support.precision import ArtifactPrecision
from vggc.support.tvm_alone import tvm
from vggc_runtime.processors import num_cores


class UnknownTarget(Diagnostic):
    title = "unknown target `{name}`"
    label = "{reason}"
    help = "use `cpu` for this machine, `cuda`, or a TVM tag such as {hint}"
    name: str
    reason: str
    hint: str


class ArchForCpu(Diagnostic):
    title = "`--arch` is for GPUs"
    label = "the target is a CPU"
    help = "leave `--arch` out, or compile with `--target cuda`"


class UnknownCpu(Diagnostic):
    title = "unknown CPU `{name}`"
    label = "LLVM knows no CPU of this name among those of this machine's kind"
    help = "name one such as {hint}"
    name: str
    hint: str


class McpuElsewhere(Diagnostic):
    title = "`--mcpu` is for `--target cpu`"
    label = "`{target}` says itself what machine it is"
    help = "leave `--mcpu` out, or compile with `--target cpu --mcpu {mcpu}`"
    target: str
    mcpu: str


class BadArch(Diagnostic):
    title = "`{arch}` is no GPU architecture"
    label = "architectures look like sm_80 (A100), sm_89 (RTX 4090) or sm_90a (H100, H200)"
    help = "compute_90 stands for PTX, of which the driver makes code for any newer GPU"
    arch: str


class PrecisionNotThere(Diagnostic):
    title = "there is no `--precision {precision}` for the target {target}"
    label = "{reason}"
    help = "{hint}"
    precision: str
    target: str
    reason: str
    hint: str


PRECISION_NEEDS: dict[ArtifactPrecision, tuple[str, str, str]] = {
    "bfloat16": (
        "avx512bf16",
        "AVX512-BF16",
        "AMD since Zen 4 and Xeons since Sapphire Rapids have it",
    ),
    "int8": ("avx512vnni", "AVX512-VNNI", "AMD since Zen 4 and Xeons since Cascade Lake have it"),
}
"""The instructions that a precision is made of: LLVM's name, the usual one, and who has them."""


def require_precision(target: Target, precision: ArtifactPrecision) -> None:
    """Raises: UserError where the target cannot multiply in that precision."""
    if precision == "float32":
        return
    hint = "leave `--precision` out"
    if target.kind == "cuda":
        old = [arch for arch in target.archs if capability(arch) < OLDEST_TENSOR_CORES]
        if old:
            reason = f"{old[0]} has no tensor cores that vggc has kernels for"
            hint = "name architectures from sm_80 on with `--arch`"
        else:
            return
    elif precision not in PRECISION_NEEDS:
        reason = "kernels for CPUs multiply in float32, bfloat16 or int8"
    elif (needs := PRECISION_NEEDS[precision])[0] not in target.instructions:
        _, name, who = needs
        cpu = str(target.attrs.get("mcpu") or target.triple or "a CPU of no known model")
        reason = f"{cpu} has no {name} instructions"
        hint = f"leave `--precision` out, or compile for a CPU that has them: {who}"
    else:
        return
    raise UserError(PrecisionNotThere(precision, target.name, reason, hint))


def tvm_target(target: Target) -> Any:
    """The machine that a target stands for, as TVM describes it."""
    return tvm.target.Target(target.attrs)


def resolve(name: str, archs: Sequence[str] = (), mcpu: str | None = None) -> Target:
    """The target of a name.

    With `mcpu`, LLVM's name of a CPU, the target `cpu` is this machine with such a CPU in it.

    Raises: UserError for a name that is none, or a machine that vggc has no kernels for.
    """
    if archs and name == "cpu":
        raise UserError(ArchForCpu())
    if mcpu is not None:
        if name != "cpu":
            raise UserError(McpuElsewhere(name, mcpu))
        known = _cpus()
        if mcpu not in known:
            hint = f"`{nearest(mcpu, known) or host()['mcpu']}`"
            raise UserError(UnknownCpu(mcpu, hint))
        return _cpu(mcpu, _named(mcpu))
    match name:
        case "cpu":
            return _cpu(name, host())
        case "cuda":
            return _cuda(name, archs or DEFAULT_ARCHS)
        case _:
            return _tagged(name, archs)


def _tagged(name: str, archs: Sequence[str]) -> Target:
    try:
        # TVM also takes a description in JSON here; a name of ours is a word.
        found = tvm.target.Target(name if re.fullmatch(r"[\w./-]+", name) else "")
    except ValueError:
        tags = [tag for tag in tvm.target.list_tags() if "qcom" not in tag]
        hint = f"`{nearest(name, ['cpu', 'cuda', *tags]) or 'nvidia/nvidia-h100'}`"
        raise UserError(UnknownTarget(name, "TVM has no tag of this name", hint)) from None
    match found.kind.name:
        case "cuda":
            arch = str(found.attrs["arch"]).rstrip("a")
            return _cuda(name, archs or (arch,))
        case "llvm" if archs:
            raise UserError(ArchForCpu())
        case "llvm":
            attrs = {key: found.attrs[key] for key in CPU_ATTRS if key in found.attrs}
            plain = {key: _plain(value) for key, value in attrs.items()}
            return _cpu(name, {"kind": "llvm", **plain})
        case kind:
            reason = f"it is a {kind} machine, and vggc has kernels for CPUs and CUDA GPUs only"
            raise UserError(UnknownTarget(name, reason, "`nvidia/nvidia-h100`"))


def on_threads(target: Target, threads: int) -> Target:
    """The target with as many cores as kernels shall run threads, since kernels are chosen by
    cores.
    """
    return replace(target, attrs={**target.attrs, "num-cores": threads})


def host() -> dict[str, Attr]:
    """This machine's CPU: its name, and in which instruction sets it differs from that name.

    A virtual machine may hide some of a CPU's, and one that LLVM has no name for has more than
    the `generic` that it passes for.
    """
    attrs = _named(str(tvm.get_global_func("target.llvm_get_system_cpu")()))
    present = instructions()
    differing = () if present is None else _differences(attrs, present)
    return {**attrs, "mattr": differing} if differing else attrs


def _named(mcpu: str) -> dict[str, Attr]:
    """This machine with a CPU of that name."""
    return {"kind": "llvm", "mcpu": mcpu, "num-cores": num_cores()}


def _differences(attrs: dict[str, Attr], present: frozenset[str]) -> tuple[str, ...]:
    """What turns the instruction sets of a CPU into those `present`, plainly named."""
    implied = _instruction_sets(attrs)
    lacking = [name for name in implied if plain(name) not in present]
    further = {name for name in present if INSTRUCTIONS.fullmatch(name)} - {*map(plain, implied)}
    known: dict[str, str] = {}
    if further:
        for cpu in _archlist(attrs):
            known |= {plain(name): name for name in _instruction_sets({**attrs, "mcpu": cpu})}
    more = sorted(known[name] for name in further & known.keys())
    return (*(f"+{name}" for name in more), *(f"-{name}" for name in lacking))


def _instruction_sets(attrs: dict[str, Attr]) -> list[str]:
    """The instruction sets that code for a CPU may use, by LLVM's names."""
    features = tvm.get_global_func("target.llvm_get_cpu_features")(tvm.target.Target(attrs))
    return sorted(name for name in map(str, features) if INSTRUCTIONS.fullmatch(name))


def _archlist(attrs: dict[str, Attr]) -> list[str]:
    """LLVM's names of CPUs of a CPU's kind; some are of 32 bits."""
    archlist = tvm.get_global_func("target.llvm_get_cpu_archlist")
    return [str(name) for name in archlist(tvm.target.Target(attrs))]


def _cpus() -> list[str]:
    """The CPUs that code for this machine may be for."""
    has_feature = tvm.get_global_func("target.target_has_feature")
    targets = {
        name: tvm.target.Target({"kind": "llvm", "mcpu": name}) for name in _archlist(host())
    }
    return [
        name
        for name, target in targets.items()
        if has_feature("64bit", target) or has_feature("neon", target)
    ]


def _cpu(name: str, attrs: dict[str, Attr]) -> Target:
    instructions = tuple(_instruction_sets(attrs))
    return Target(name=name, kind="cpu", attrs=attrs, instructions=instructions)


def _cuda(name: str, archs: Sequence[str]) -> Target:
    return Target(name=name, kind="cuda", attrs={"kind": "cuda"}, archs=_archs(archs))


def _plain(value: Any) -> Attr:
    match value:
        case int() | str():
            return value
        case _:
            return tuple(str(item) for item in value)


def _archs(archs: Sequence[str]) -> tuple[str, ...]:
    for arch in archs:
        if not ARCH.fullmatch(arch):
            raise UserError(BadArch(arch))
    return tuple(sorted(set(archs), key=code_order))
