"""Several processes that learn together, as torchrun starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ..core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Who this process is among all.

    Attributes:
        rank: 0 writes files and speaks.
        world: How many processes there are.
        device: What this one computes on.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """Return a module whose gradients are the mean over all processes."""
        if self.world == 1:
            return module
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def same_buffers(self, module: torch.nn.Module) -> None:
        """Give every process the running statistics of the first."""
        if self.world > 1:
            for value in module.buffers():
                distributed.broadcast(value, 0)

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.world > 1:
            distributed.barrier()


@contextlib.contextmanager
def process_group(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started (gloo on CPUs, nccl on GPUs), or stand alone.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: There is no GPU that this process can have.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device == "cuda" and local >= gpus:
        raise UsageError(f"--device cuda: this machine has {gpus} GPU(s) that torch can use")
    if 0 < gpus <= local:
        raise UsageError(f"{local + 1} processes or more for {gpus} GPU(s); start one for each")
    place = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(place)
    if world == 1:
        yield Group(device=place)
        return
    distributed.init_process_group("nccl" if gpus else "gloo")
    try:
        yield Group(rank=rank, world=world, device=place)
    finally:
        distributed.destroy_process_group()
