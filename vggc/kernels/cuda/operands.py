"""What tensor cores multiply: numbers of some formats, in bytes that all formats share.

A segment is 16 bytes of numbers that follow one another: what a thread copies at once. A slice is
two of them: what an instruction multiplies of a row or a column. How many numbers these are is all
that kernels must know of a format to bring numbers to tensor cores.

A float32 is split, once it is there, into two tf32: the nearest, and what is left, cut off.
Of the four products of two such pairs the smallest is left out. The other three err as little as
float32 does.
Source: Ootomo and Yokota 2022, "Recovering single precision accuracy from Tensor Cores while
surpassing the FP32 theoretical peak performance", arXiv 2203.03341.
"""

from __future__ import annotations

from dataclasses import dataclass

from vggc.kernels.workloads import Conv, Format, Map

SEGMENT_BYTES = 16
SLICE_BYTES = 2 * SEGMENT_BYTES


@dataclass(frozen=True)
class Operands:
    """What tensor cores multiply where a map is of some format: the bytes of a number, the
    instruction by its name in the PTX ISA, and that of warpgroups with their columns left open, the
    types of buffers that hold weights and of registers that hold sums. A uint32 holds the bits of
    an int32.

    Where numbers are `split`, each is two that the instruction takes.
    """

    size: int
    instruction: str
    group_instruction: str
    weight: str
    sums: str = "float32"
    split: bool = False

    @property
    def segment(self) -> int:
        """The numbers of a segment."""
        return SEGMENT_BYTES // self.size

    @property
    def slice(self) -> int:
        """The numbers of a slice."""
        return SLICE_BYTES // self.size


TF32_PRODUCT = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
TF32_GROUP_PRODUCT = "wgmma.mma_async.sync.aligned.m64n{}k8.f32.tf32.tf32"
OPERANDS: dict[Format, Operands] = {
    "float32": Operands(
        size=4,
        instruction=TF32_PRODUCT,
        group_instruction=TF32_GROUP_PRODUCT,
        weight="float32",
        split=True,
    ),
    "tf32": Operands(
        size=4,
        instruction=TF32_PRODUCT,
        group_instruction=TF32_GROUP_PRODUCT,
        weight="float32",
    ),
    "float16": Operands(
        size=2,
        instruction="mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
        group_instruction="wgmma.mma_async.sync.aligned.m64n{}k16.f32.f16.f16",
        weight="uint16",
    ),
    "bfloat16": Operands(
        size=2,
        instruction="mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        group_instruction="wgmma.mma_async.sync.aligned.m64n{}k16.f32.bf16.bf16",
        weight="uint16",
    ),
    "uint8": Operands(
        size=1,
        instruction="mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32",
        group_instruction="wgmma.mma_async.sync.aligned.m64n{}k32.s32.u8.s8",
        weight="int8",
        sums="uint32",
    ),
}


def in_segments(map: Map) -> bool:
    """Whether a map is in fewer bits, in whole segments."""
    return map.vector == OPERANDS[map.format].segment


def on_tensor_cores(conv: Conv) -> bool:
    """Whether tensor cores can compute a convolution: its channels fill whole segments."""
    source = conv.input
    whole = source.shape[-1] % OPERANDS[source.format].segment == 0
    return conv.groups == 1 and whole and (source.format == "float32" or in_segments(source))
