"""The processes of a run: one, or those that `torchrun -m archspec train ...` started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from archspec.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Group:
    """This process among those of the run."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of everyone's values, which are overwritten."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def totals(self, values: Sequence[float]) -> list[float]:
        """The sums of everyone's numbers."""
        if self.world == 1:
            return list(values)
        found: list[float] = self.sum(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()
        return found

    def any(self, flag: bool) -> bool:
        """Whether it holds for anyone; all must ask at the same time."""
        return self.totals([float(flag)])[0] > 0

    def wait(self) -> None:
        """Until everyone is here."""
        if self.world > 1:
            distributed.barrier()

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network, its gradients averaged over the processes."""
        if self.world == 1:
            return network
        return DistributedDataParallel(network, device_ids=[self.device] if self.device.type == "cuda" else None)

    def align(self, network: nn.Module) -> None:
        """Everyone's running statistics become the leading process's, as they are in the files."""
        if self.world > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, 0)

    def unshared(self, network: nn.Module) -> AbstractContextManager[None]:
        """For all but the last part of a batch: gradients are summed here before they are averaged."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """This process's group. What torchrun started is connected here, and let go afterwards.

    device: a torch device, or auto: CUDA where there is one (each process takes its own), else the CPU. Raises
    UsageError for a device that cannot be used here.
    """
    ours = "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not distributed.is_initialized()
    chosen = find_device(device, int(os.environ.get("LOCAL_RANK", 0)) if ours else 0)
    if ours:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        if distributed.is_initialized():
            yield Group(device=chosen, rank=distributed.get_rank(), world=distributed.get_world_size())
        else:
            yield Group(device=chosen)
    finally:
        if ours:
            distributed.destroy_process_group()


def leads() -> bool:
    """Whether this process speaks for those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of that name; `cuda` is this process's own. Raises UsageError if there is none such here."""
    chosen = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{local_rank}" if chosen == "cuda" else chosen)
        return torch.empty(1, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device: {name!r} cannot be used here: {reason} (try auto or cpu)") from error
