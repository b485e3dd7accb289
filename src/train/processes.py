"""The processes that train together under ``torchrun``: how they share the work and stay in step.

Under plain ``python`` there is one process, and everything here does nothing.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from src.pipeline.process import Interrupted, UserError, first_line

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}  # by the device's type


@dataclass
class ProcessGroup:
    """This process among those that train together."""

    rank: int = 0  # its number
    world_size: int = 1  # how many there are

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that prints and writes."""
        return self.rank == 0

    def shard(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take this process's rows of ``tensor``. The shards differ by one row at most and together are all of it."""
        return tensor.tensor_split(self.world_size)[self.rank]

    def all_gather(self, value: Any) -> list[Any]:
        """Gather the ``value`` of each process, by rank: the same list everywhere."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Send the main process's ``value`` to all of them."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give all processes the main one's buffers of ``model``: its running statistics."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def average_buffers(self, model: nn.Module) -> None:
        """Give all processes the means of their running statistics of ``model``."""
        if self.world_size > 1:
            for buffer in filter(torch.is_floating_point, model.buffers()):
                dist.all_reduce(buffer)
                buffer /= self.world_size

    def require_same(self, values: dict[str, Any]) -> None:
        """End all processes where one's ``values`` are not the main one's; the error names what differs."""
        expected, *others = self.all_gather(values)
        for rank, found in enumerate(others, start=1):
            if names := [name for name in expected | found if found.get(name) != expected.get(name)]:
                raise self.for_all(UserError(f"process {rank} and process 0 must have the same {', '.join(names)}"))

    def for_all(self, error: UserError | Interrupted) -> BaseException:
        """Make of an error that all processes raise one that is printed once: outside the main one, a mere exit."""
        return error if self.is_main else SystemExit(getattr(error, "exit_code", 1))

    def parallel(self, model: nn.Module, example: torch.Tensor) -> nn.Module:
        """Wrap ``model`` so that its backward pass averages the gradients over all processes.

        On an accelerator ``model`` itself is changed: batch normalisation sees the whole batch. PyTorch has no such
        layer for CPUs, where each process normalises its own shard.

        `DistributedDataParallel` regroups the gradients after a first backward pass. Where more than two numbers are
        added, their order depends on the grouping. So that pass, over ``example``, is no step of the run: one that
        goes on adds as one that was never stopped.
        """
        if self.world_size == 1:
            return model
        if example.device.type != "cpu":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        wrapped = DistributedDataParallel(model, forward_sync_buffers=False)
        wrapped.eval()(example).sum().backward()
        return wrapped


@contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started, for the length of the context.

    Raises:
        UserError: another process is gone, there is no way to join them, or processes can't share such a device.
    """
    if not dist.is_torchelastic_launched():
        yield ProcessGroup()
        return
    if device.type not in BACKENDS:
        raise UserError(
            f"torchrun's processes can't train on {device.type}; set device to cpu, or launcher to python -m"
        )
    try:
        store, rank, world_size = next(dist.rendezvous("env://"))
        store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
        if os.environ["GROUP_WORLD_SIZE"] != "1":
            _choose_interface(store, is_last=rank == world_size - 1)
        dist.init_process_group(BACKENDS[device.type], store=store, rank=rank, world_size=world_size)
    except RuntimeError as error:
        raise UserError(f"can't join the other processes of this run: {first_line(error)}") from error
    try:
        yield ProcessGroup(rank, world_size)
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        raise UserError("another process of this run is gone; run the same command again to go on") from error
    finally:
        dist.destroy_process_group()


def _choose_interface(store: dist.Store, *, is_last: bool) -> None:
    """Have gloo announce the address by which this machine reaches the others, unless the user names an interface.

    Gloo's own choice is the address of the host's name. On Debian and Ubuntu that may be 127.0.1.1, which is of no use
    to another machine. The first machine's name may mean that to itself as well, so it goes by the last one's address.
    """
    is_first = os.environ["GROUP_RANK"] == "0"
    other = store.get("address").decode() if is_first else os.environ["MASTER_ADDR"]
    family, kind, _, _, address = socket.getaddrinfo(other, 9, type=socket.SOCK_DGRAM)[0]  # any port: nothing is sent
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        ours = probe.getsockname()[0]
    if is_last:
        store.set("address", ours)
    for name, addresses in psutil.net_if_addrs().items():
        if ours in (address.address for address in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _is_lost_peer(error: RuntimeError) -> bool:
    """Tell whether a collective operation failed. Gloo's errors have no type of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
