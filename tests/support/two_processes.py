"""What one may do with a recurrent layer on two processes. As in `transforms`, each on both of them.

``python -m tests.support.two_processes RANK FOLDER`` is one of the two; the first writes which of the ways
each library's layers went.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.support.outcomes import COLUMNS, outcome
from tests.support.transforms import make_input, make_layer


def _steps(alone, wrapped):
    """Two steps of SGD on this process's half of a batch, beside the whole batch on one process."""
    torch.manual_seed(1)
    x = make_input(B=4)
    mine = x[:, 2 * dist.get_rank() :][:, :2]
    found, expected = [], []
    for layer, given, results in ((wrapped, mine, found), (alone, x, expected)):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            layer(given)[0].square().mean().backward()
            optimizer.step()
        for parameter in layer.parameters():
            for tensor in (parameter.grad, parameter.detach()):
                results.append(tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor)
    return found, expected


def data_parallel(cls):
    """`DistributedDataParallel`, two steps of training on two processes"""
    layer = make_layer(cls, num_layers=2)
    return _steps(layer, DistributedDataParallel(copy.deepcopy(layer)))


def fully_sharded(cls):
    """FSDP2 (`fully_shard`), the same"""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layer = make_layer(cls, num_layers=2)
    sharded = copy.deepcopy(layer)
    fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
    found, expected = _steps(layer, sharded)
    x = make_input()
    with torch.no_grad():
        for _ in range(2):
            found.append(sharded(x)[0])
            expected.append(layer(x)[0])
    return found, expected


TWO_PROCESSES = (data_parallel, fully_sharded)


def outcomes(folder: Path) -> dict[str, dict[str, str]]:
    """Start both processes, which meet in ``folder``; the outcomes by way and column.

    Raises:
        RuntimeError: one of them failed; what it said.
    """
    commands = [[sys.executable, "-W", "ignore", "-m", __name__, str(rank), str(folder)] for rank in (0, 1)]
    root = Path(__file__).parent.parent.parent
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'kernels'}", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(c, cwd=root, env=environment, stderr=subprocess.PIPE, text=True) for c in commands
    ]
    for process in started:
        _, said = process.communicate(timeout=300)
        if process.returncode:
            raise RuntimeError(said)
    return json.loads((folder / "outcomes.json").read_text())


def main() -> None:
    """Go through all of it as process RANK of two."""
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    found = {
        way.__name__: {column: outcome(way, cls) for column, cls in COLUMNS.items()} for way in TWO_PROCESSES
    }
    if rank == 0:
        (folder / "outcomes.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
