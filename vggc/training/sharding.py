"""Nets whose weights processes share, each holding a part of every tensor: by PyTorch's FSDP.

That takes a second to import, for which those who only test a net need not wait; PyTorch's
optimisers import it, too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def shard(module: nn.Module, device: torch.device, size: int) -> None:
    """Leaves this process a part of each weight of a module, one of `size`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (size,))
    # A net's layers have no modules of their own whose weights could come one by one.
    fully_shard(module, mesh=mesh, reshard_after_forward=False)


def is_sharded(module: nn.Module) -> TypeGuard[FSDPModule]:
    """Whether this process has a part of a module's weights only."""
    if "torch.distributed.fsdp" not in sys.modules:
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process may have a part; they ask for it together."""
    return tensor.full_tensor() if is_part(tensor) else tensor


def own(tensor: Tensor) -> Tensor:
    """What this process has of a tensor."""
    return tensor.to_local() if is_part(tensor) else tensor


def fill(target: Tensor, values: Tensor) -> None:
    """Gives a tensor, of which this process may have a part, the values of a whole one."""
    if is_part(target):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = target.device_mesh, target.placements
        values = distribute_tensor(values.to(target.device), mesh, placements)
    target.copy_(values)


def is_part(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is a part of one that processes share."""
    if "torch.distributed.tensor" not in sys.modules:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
