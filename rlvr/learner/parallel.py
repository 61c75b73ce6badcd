"""Several processes: what they agree on, and how a module's weights and gradients are spread over them.

With DDP every process has a copy of the weights; with FSDP2 a part of each tensor, put together layer by layer when it
is needed. Every process computes its share of the micro-batches of an update, and gradients are averaged over the
processes. PyTorch's own `fully_shard` is called, and not accelerate's wrapper of it, since that does not take CPUs:
what is tested on a machine without a GPU is what runs on one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from rlvr.learner.modules import decoder_layers

PATIENCE = timedelta(days=7)  # for what another process samples; one that dies is noticed at once


def spread(module: nn.Module, accelerator: Accelerator, shard: Literal["ddp", "fsdp"]) -> Any:
    """The module ready to train on this device, in all processes together.

    Args:
        module: On any device; with FSDP2 its layers are moved one by one.
        accelerator: Of this process.
        shard: `ddp` or `fsdp`. With one process there is nothing to spread.
    """
    if accelerator.num_processes == 1 or shard == "ddp":
        return accelerator.prepare_model(module)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    policy = MixedPrecisionPolicy()
    if accelerator.mixed_precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in decoder_layers(module):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    return fully_shard(module, mesh=mesh, mp_policy=policy)


def last_one_syncs(module: nn.Module, accelerator: Accelerator, last: bool) -> AbstractContextManager[Any]:
    """For the backward pass of a micro-batch: DDP averages gradients over processes in the last one of an update only.
    FSDP2 does so in each, since it keeps a part of them."""
    return contextlib.nullcontext() if last or isinstance(module, FSDPModule) else accelerator.no_sync(module)


def total(values: Tensor) -> Tensor:
    """Sums over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def totals(values: Sequence[float], device: torch.device) -> list[float]:
    """Sums over all processes of numbers."""
    found: list[float] = total(torch.tensor(values, dtype=wide(device), device=device)).tolist()
    return found


def largest(value: float, device: torch.device) -> float:
    """The largest over all processes."""
    found = torch.tensor(value, dtype=wide(device), device=device)
    if dist.is_initialized():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return float(found)


def wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


class Exchange:
    """Hands texts from every process of the run to every process, beside what the learner's own group does. Of two
    threads each needs its own, made in the same order in all processes."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.spread = accelerator, True
        self.process, self.processes = accelerator.process_index, accelerator.num_processes
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if self.processes > 1 else None

    def share(self, text: str) -> list[str]:
        """What every process gave, by its number. All of them must call it."""
        if self._group is None:
            return [text]
        data = torch.frombuffer(bytearray(text.encode() + b"."), dtype=torch.uint8)  # which must not be empty
        sizes = [torch.zeros(1, dtype=torch.long) for _ in range(self.processes)]
        dist.all_gather(sizes, torch.tensor([len(data)]), group=self._group)
        longest = int(max(sizes))
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = data
        found = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.processes)]
        dist.all_gather(found, padded, group=self._group)
        return [bytes(one[: int(size) - 1].numpy()).decode() for one, size in zip(found, sizes, strict=True)]
