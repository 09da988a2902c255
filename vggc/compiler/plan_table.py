"""A compiled net as a table that C reads: its calls in order, what each is given, where that lies.

`vggc/native/plan.h` declares the structures that `c_source` fills in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_letters, digits
from typing import Literal, TypeAlias

from vggc.compiler.memory import lifetimes, pieces, placed
from vggc.compiler.relax import PlannedCalls
from vggc.plan.plan import INPUT
from vggc.support.tensors import opened
from vggc_runtime.native import prefix_of

TensorPlace: TypeAlias = Literal["input", "arena", "weights"]

DTYPE = re.compile(r"(int|uint|float)(\d+)")
DTYPE_CODES = {"int": 0, "uint": 1, "float": 2}
"""DLPack's numbers of the kinds of elements."""

PLAIN = (ascii_letters + digits + " ._-@:").encode()
"""Characters that stand for themselves in a string of C."""


@dataclass(frozen=True)
class TableTensor:
    """A value or a weight as kernels take it. `at` is its first byte in the arena, or its number
    among the stored weights.
    """

    place: TensorPlace
    at: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TableCall:
    """A call of a function, by the name of its code, for the step of a plan; `arguments` are
    numbers of tensors, the output last.
    """

    function: str
    step: str
    arguments: tuple[int, ...]


@dataclass(frozen=True)
class TableEntry:
    """What computes so many images at once, and is taken for `fewest` at least; `outputs` are
    numbers of tensors, one for each head.
    """

    batch: int
    arena_bytes: int
    tensors: tuple[TableTensor, ...]
    calls: tuple[TableCall, ...]
    outputs: tuple[int, ...]
    fewest: int = 1


@dataclass(frozen=True)
class TableHead:
    """What a head gives of one image."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TableSize:
    """What computes images of one size: what an image is (C, H, W), what the heads give of one, the
    scale of pictures as `Preprocessing` has it, and the entries by ascending batch.
    """

    input: tuple[int, int, int]
    scale: int | None
    heads: tuple[TableHead, ...]
    entries: tuple[TableEntry, ...]


@dataclass(frozen=True)
class StoredWeight:
    """Where a tensor lies in the weights' file, in bytes from its beginning. Its hash, in
    hexadecimal, is `TensorFile.piecewise_sha256`.
    """

    name: str
    offset: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class StoredWeights:
    """The file that a net takes its weights from: its size, what stands in front of its data, and
    where its tensors lie.
    """

    bytes: int
    header_bytes: int
    header_sha256: str
    tensors: tuple[StoredWeight, ...]

    @classmethod
    def of(cls, path: Path) -> StoredWeights:
        """What is in a safetensors file that was just written.

        Raises: MalformedError where it is none; OSError where it cannot be read.
        """
        with opened(path) as found:
            header = found.header()
            tensors = tuple(
                StoredWeight(name, stored.offset, stored.bytes, found.piecewise_sha256(name).hex())
                for name, stored in found.tensors.items()
            )
            front = hashlib.sha256(header).hexdigest()
            return cls(found.file.seek(0, 2), len(header), front, tensors)


@dataclass(frozen=True, kw_only=True)
class PlanTable:
    """A compiled net without its code and weights. The first byte of a tensor in the arena or the
    input is a multiple of `vggc.support.tensors.ALIGNMENT`; the first size is the main one.
    """

    net: str
    cpu: str
    instructions: tuple[str, ...]
    """LLVM's names of the sets of instructions that the code may use."""
    sizes: tuple[TableSize, ...]
    weights: StoredWeights

    @property
    def entries(self) -> tuple[TableEntry, ...]:
        """The entries of all sizes."""
        return tuple(entry for size in self.sizes for entry in size.entries)

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of all functions that are called, each once."""
        return tuple(dict.fromkeys(call.function for each in self.entries for call in each.calls))


def symbols(functions: Iterable[str]) -> dict[str, str]:
    """A name in C for each function of a lowered module, by its own; no two are alike."""
    return {
        name: f"kernel_{number}_{prefix_of(name)}"
        for number, name in enumerate(dict.fromkeys(functions))
    }


@dataclass
class _Tensors:
    """The tensors of an entry, of which each is there once."""

    numbers: dict[TableTensor, int] = field(default_factory=dict)

    def number(self, tensor: TableTensor) -> int:
        return self.numbers.setdefault(tensor, len(self.numbers))


def table_entry(
    calls: PlannedCalls, functions: Sequence[str], weights: Mapping[str, int]
) -> TableEntry:
    """The calls of a plan for a CPU: `functions` are those of its steps, `weights` the numbers of
    the stored tensors by their names.
    """
    plan, tensors, made = calls.plan, _Tensors(), []
    placement = placed(lifetimes(plan))
    offsets = [placement.offsets[piece] for piece in pieces(plan)]
    for number, ((step, kernel), function) in enumerate(zip(calls.steps, functions, strict=True)):
        places: list[tuple[TensorPlace, int]] = [
            *(("input", 0) if read == INPUT else ("arena", offsets[read]) for read in step.reads),
            *(("weights", weights[name]) for name in step.weights),
            ("arena", offsets[number]),
        ]
        arguments = tuple(
            tensors.number(
                TableTensor(place, at, str(buffer.ty.dtype), tuple(map(int, buffer.ty.shape)))
            )
            for (place, at), buffer in zip(places, kernel.arguments, strict=True)
        )
        made.append(TableCall(function, step.name, arguments))
    outputs = tuple(made[output.step].arguments[-1] for output in plan.outputs)
    return TableEntry(
        batch=plan.batch,
        arena_bytes=placement.bytes,
        tensors=tuple(tensors.numbers),
        calls=tuple(made),
        outputs=outputs,
    )


def c_source(table: PlanTable) -> str:
    """The definition of `plan` in C, which reads `plan.h`."""
    shapes = {
        shape: f"shape_{number}"
        for number, shape in enumerate(
            dict.fromkeys(
                [
                    *(tensor.shape for each in table.entries for tensor in each.tensors),
                    *(head.shape for size in table.sizes for head in size.heads),
                ]
            )
        )
    }
    lines = [f"kernel_function __tvm_ffi_{name};" for name in table.functions]
    lines += [
        f"static const int64_t {name}[] = {{{_row(shape or (1,))}}};"
        for shape, name in shapes.items()
    ]
    for number, each in enumerate(table.entries):
        lines += _entry_lines(number, each, shapes)
    weights = table.weights
    lines += _array(
        "plan_entry",
        "table_entries",
        [
            f"{each.batch}, {each.fewest}, {each.arena_bytes}u, table_tensors_{n}, "
            f"table_calls_{n}, table_outputs_{n}, {len(each.tensors)}, {len(each.calls)}"
            for n, each in enumerate(table.entries)
        ],
    )
    first, sizes = 0, []
    for number, size in enumerate(table.sizes):
        heads = [f"{c_text(h.name)}, {len(h.shape)}, {shapes[h.shape]}" for h in size.heads]
        lines += _array("plan_head", f"table_heads_{number}", heads)
        sizes.append(
            f"{{{_row(size.input)}}}, {size.scale or 0}, {len(size.entries)}, "
            f"table_entries + {first}, table_heads_{number}"
        )
        first += len(size.entries)
    lines += _array("plan_size", "table_sizes", sizes)
    lines += _array(
        "plan_weight",
        "table_weights",
        [
            f"{c_text(weight.name)}, {weight.offset}u, {weight.bytes}u, {_hash(weight.sha256)}"
            for weight in weights.tensors
        ]
        or ["0"],
    )
    names = ", ".join([*map(c_text, table.instructions), "NULL"])
    return "\n".join(
        [
            *lines,
            f"static const char *const table_instructions[] = {{{names}}};",
            "static const plan_net plan = {",
            f"  .net = {c_text(table.net)},",
            f"  .cpu = {c_text(table.cpu)},",
            "  .instructions = table_instructions,",
            "  .sizes = table_sizes,",
            "  .entries = table_entries,",
            "  .weights = table_weights,",
            f"  .num_sizes = {len(table.sizes)},",
            f"  .num_entries = {len(table.entries)},",
            f"  .num_heads = {len(table.sizes[0].heads)},",
            f"  .num_weights = {len(weights.tensors)},",
            f"  .file_bytes = {weights.bytes}u,",
            f"  .header_bytes = {weights.header_bytes}u,",
            f"  .header_sha256 = {_hash(weights.header_sha256)},",
            "};",
            "",
        ]
    )


def _entry_lines(
    number: int, entry: TableEntry, shapes: Mapping[tuple[int, ...], str]
) -> list[str]:
    places = {"input": "IN_INPUT", "arena": "IN_ARENA", "weights": "IN_WEIGHTS"}
    tensors, calls = [], []
    for each in entry.tensors:
        weight, offset = (each.at, 0) if each.place == "weights" else (0, each.at)
        tensors.append(
            f"{places[each.place]}, {len(each.shape)}, {_dtype(each.dtype)}, "
            f"{weight}, {offset}u, {shapes[each.shape]}"
        )
    lines = _array("plan_tensor", f"table_tensors_{number}", tensors)
    for index, call in enumerate(entry.calls):
        arguments = f"table_arguments_{number}_{index}"
        lines.append(f"static const uint32_t {arguments}[] = {{{_row(call.arguments)}}};")
        calls.append(
            f"__tvm_ffi_{call.function}, {c_text(call.step)}, {len(call.arguments)}, {arguments}"
        )
    lines += _array("plan_call", f"table_calls_{number}", calls)
    lines.append(f"static const uint32_t table_outputs_{number}[] = {{{_row(entry.outputs)}}};")
    return lines


def _array(kind: str, name: str, rows: Iterable[str]) -> list[str]:
    return [f"static const {kind} {name}[] = {{", *(f"  {{{row}}}," for row in rows), "};"]


def _row(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _dtype(name: str) -> str:
    found = DTYPE.fullmatch(name)
    if found is None:
        raise ValueError(f"{name} is no type of elements that C is told of")
    return f"{{{DTYPE_CODES[found[1]]}, {found[2]}, 1}}"


def c_text(text: str) -> str:
    """A string of C: UTF-8, with all but the plainest characters as octal numbers."""
    plain = (
        chr(byte) if byte in PLAIN else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return f'"{"".join(plain)}"'


def _hash(sha256: str) -> str:
    return "{" + ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(sha256)) + "}"
