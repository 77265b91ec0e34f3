"""``gatedcells doctor``: what this machine and this installation can run, and why not the rest."""

import os
import platform

import click
import torch
from rich.console import Console
from rich.table import Table

import gatedcells
from gatedcells.backends import BACKENDS, ENVIRONMENT_VARIABLE, Request, explain
from gatedcells_kernels.cpu import library
from gatedcells_kernels.triton import library as triton


@click.command(short_help="Show versions, devices and backends.")
def doctor() -> None:
    """Show versions and devices, and which backend would run a GRU and an LSTM on each device, and why."""
    console = Console()
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, value in _facts():
        facts.add_row(name, value)
    console.print(facts)
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        for cell in ("GRU", "LSTM"):
            console.print()
            console.print(_who_computes(cell, device), highlight=False, soft_wrap=True)
    usable = [
        b.name for b in BACKENDS if b.refuses(Request("GRU", "sequence", "cpu", torch.float32, None)) is None
    ]
    console.print(f"\nBackends usable on the CPU: {', '.join(usable)}", highlight=False)


def _who_computes(cell: str, device: str) -> str:
    try:
        return explain(cell, "sequence", (torch.empty(0, device=device),))
    except ValueError as error:  # the environment variable names no backend: what a doctor is asked about
        return f"{cell} sequence on {device}: every call that requests no backend raises: {error}"


def _facts() -> list[tuple[str, str]]:
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return [
        ("gatedcells", gatedcells.__version__),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} thread(s)"),
        ("CPU", f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()} according to torch"),
        ("CPU kernels", _cpu_kernels()),
        ("triton", triton.version() or "not installed"),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("CUDA device", cuda),
        (ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE) or "not set"),
        ("GATEDCELLS_DATA", os.environ.get("GATEDCELLS_DATA") or "not set"),
    ]


def _cpu_kernels() -> str:
    reason = library.why_not()
    if reason is not None:
        return f"none: {reason}"
    loaded = library.load()
    return f"{loaded.levels[loaded.level]} (this CPU runs {', '.join(loaded.levels)})"
