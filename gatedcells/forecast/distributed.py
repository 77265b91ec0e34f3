"""Training on several processes: torch's own engine, started by torchrun.

Every process draws the same batch and computes its share of it, so the loss is that of one process with the
same batch, up to the order of sums. The first process alone writes and prints.
"""

import importlib
import os
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gatedcells.forecast.errors import ForecastError

DEVICES = ("cpu", "cuda")
_MINUTES = 30  # that a process waits for the others: one of them scores while they wait


class Share(NamedTuple):
    """Which part of the work is this process's."""

    rank: int = 0
    of: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def part(self, items: Tensor) -> Tensor:
        """Every ``of``-th item, from the ``rank``-th on."""
        return items if self.of == 1 else items[self.rank :: self.of]


ALONE = Share()

# What was exchanged last. Up to torch 2.7 a thread of the engine that is the last to hold a tensor wants the
# interpreter to free it, and keeps locked meanwhile what the end of the group waits for: neither ever ends.
_exchanged: deque[Tensor] = deque(maxlen=8)


def share() -> Share:
    """This process's, inside `joined`; else all of the work."""
    if dist.is_available() and dist.is_initialized():
        return Share(dist.get_rank(), dist.get_world_size())
    return ALONE


@contextmanager
def joined() -> Generator[Share]:
    """Within the block the processes that torchrun started work together; alone, nothing changes."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    # each for tensors where they are: counts and errors lie on the CPU also where networks do not
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # DDP imports it, and functions there take the group of that moment as a default: it would never go, and a
    # thread of it that wants the interpreter while that ends aborts the process
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group(backend, timeout=timedelta(minutes=_MINUTES))
    try:
        yield share()
    finally:
        dist.destroy_process_group()


def device(name: str) -> torch.device:
    """The device that this process computes on; of several processes on a host each has a GPU of its own.

    Args:
        name: ``"cpu"`` or ``"cuda"``.

    Raises:
        ForecastError: there is none, or none for this process.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name not in DEVICES:
        raise ForecastError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    there = torch.cuda.device_count()
    if number >= there:
        raise ForecastError(
            f"device 'cuda': process {number} of this host needs a GPU, and torch {torch.__version__} sees"
            f" {there}; 'cpu' trains here"
        )
    return torch.device("cuda", number)


def as_first_says(value: bool) -> bool:
    """What the first process says, to all."""
    if share().of == 1:
        return value
    said = _held(torch.tensor([float(value)]))
    dist.broadcast(said, 0)
    return bool(said.item())


def total(*values: float) -> list[float]:
    """Sums over all processes."""
    if share().of == 1:
        return list(values)
    summed = _held(torch.tensor(values, dtype=torch.float64))
    dist.all_reduce(summed)
    return summed.tolist()


def same_everywhere(value: int, what: str) -> None:
    """Make sure that all processes begin at the same place.

    Raises:
        ForecastError: they do not.
    """
    here = share()
    if here.of == 1:
        return
    everyone = _held(torch.zeros(here.of, dtype=torch.int64))
    everyone[here.rank] = value
    dist.all_reduce(everyone)
    if len(set(everyone.tolist())) > 1:
        raise ForecastError(
            f"processes disagree on {what}: {everyone.tolist()}; all of them must see the same run folder"
        )


def together(network: nn.Module) -> nn.Module:
    """The network, its gradients averaged over all processes after each backward pass."""
    return network if share().of == 1 else nn.parallel.DistributedDataParallel(network)


def is_gone(error: RuntimeError) -> bool:
    """Whether an error is that another process no longer answers."""
    if share().of == 1:
        return False
    said = str(error).lower()
    return any(word in said for word in ("gloo", "nccl", "connection", "timed out"))


def _held(tensor: Tensor) -> Tensor:
    _exchanged.append(tensor)
    return tensor
