"""Compile every entry of the table for a GPU that need not be there, and say what came out.

``python -m gatedcells_kernels.triton.ahead`` prints a row for each: registers, spilled bytes, shared memory,
whether the tensor cores are used. `pytest` holds the table to the limits. ``--variants`` compiles at one size
what the entries leave out: lengths, resets, projections, the other GRU, and the kernels for the gates alone.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gatedcells_kernels.triton import launch
from gatedcells_kernels.triton.gru_before_slices import gru_before_slices_backward, gru_before_slices_forward
from gatedcells_kernels.triton.gru_pointwise import gru_pointwise_backward, gru_pointwise_forward
from gatedcells_kernels.triton.gru_slices import gru_slices_backward, gru_slices_forward
from gatedcells_kernels.triton.gru_whole import gru_whole_backward, gru_whole_forward
from gatedcells_kernels.triton.lstm_pointwise import lstm_pointwise_backward, lstm_pointwise_forward
from gatedcells_kernels.triton.lstm_projected_backward_slices import lstm_projected_slices_backward
from gatedcells_kernels.triton.lstm_projected_slices import lstm_projected_slices_forward
from gatedcells_kernels.triton.lstm_slices import lstm_slices_backward, lstm_slices_forward
from gatedcells_kernels.triton.lstm_whole import lstm_whole_backward, lstm_whole_forward

KERNELS = {
    ("GRU", "whole", "forward"): gru_whole_forward,
    ("GRU", "whole", "backward"): gru_whole_backward,
    ("GRU", "slices", "forward"): gru_slices_forward,
    ("GRU", "slices", "backward"): gru_slices_backward,
    ("LSTM", "whole", "forward"): lstm_whole_forward,
    ("LSTM", "whole", "backward"): lstm_whole_backward,
    ("LSTM", "slices", "forward"): lstm_slices_forward,
    ("LSTM", "slices", "backward"): lstm_slices_backward,
}
# The same entries also serve the form of a cell whose programs must hear of each other twice a step.
TWICE = {"GRU": "reset before", "LSTM": "projected"}
TWICE_KERNELS = {
    ("GRU", "forward"): gru_before_slices_forward,
    ("GRU", "backward"): gru_before_slices_backward,
    ("LSTM", "forward"): lstm_projected_slices_forward,
    ("LSTM", "backward"): lstm_projected_slices_backward,
}
# name, what Triton calls it, multiprocessors and shared memory of the smallest device of the kind
TARGETS = {
    "sm_80": (GPUTarget("cuda", 80, 32), launch.Device("A100", 108, 163 << 10)),
    "sm_90": (GPUTarget("cuda", 90, 32), launch.Device("H100 PCIe", 114, 227 << 10)),
    "gfx942": (GPUTarget("hip", "gfx942", 64), launch.Device("MI300X", 304, 64 << 10)),
}
AMD = (("whole", "half"), ("whole", "ieee"))
INTEGERS = {
    "T": "i32", "B": "i32", "reverse": "i32", "first": "i32", "last": "i32", "visit": "i32",
    "lengths": "*i32", "counters": "*i32", "carry": "*fp32", "carry_cell": "*fp32", "resets": "*u8",
}  # fmt: skip
PROJECTION = ("weight_hr", "d_projected")
OPTIONAL = ("lengths", "resets", *PROJECTION)  # absent from the plainest call


class Job(NamedTuple):
    """The compilation of an entry."""

    entry: launch.Entry
    direction: str  # "forward" or "backward"
    target: str
    form: str = ""  # "", or of TWICE: "reset before", "projected" (the projection as wide as H)


class Variant(NamedTuple):
    """The compilation, at one size, of a way through a kernel that no entry takes."""

    name: str
    kernel: Any
    constants: dict[str, Any]
    absent: tuple[str, ...]
    numbers: dict[str, str]  # what else than the operands' dtype a pointer points to
    cooperative: bool


class Report(NamedTuple):
    """What a compilation came to."""

    target: str
    triton: str
    cell: str
    numbers: str
    H: int
    kernel: str  # and the form of the cell, if it is one of TWICE: "slices, projected"
    direction: str
    rows: int
    units: int
    depth: int
    warps: int
    registers: int
    spilled_bytes: int
    shared_memory: int
    tensor_cores: str  # the instruction, or ""
    meets: bool  # acquire and release are in the code


def jobs(targets: tuple[str, ...] = ("sm_90", "sm_80"), twice: bool = False) -> Iterator[Job]:
    """Every entry, direction and precision that fits a target; with ``twice`` those of the forms that need
    two visits a step."""
    for target in targets:
        device = TARGETS[target][1]
        for entry in launch.TABLE:
            form = TWICE[entry.cell] if twice else ""
            needed = entry.shared_memory(entry.largest, entry.largest, form == "projected")
            # AMD's devices have little shared memory, and torch multiplies no matrices in tf32 there
            amd = target == "gfx942" and (entry.kernel, entry.numbers) not in AMD
            if amd or needed > device.shared_memory or (twice and entry.kernel != "slices"):
                continue
            for direction in ("forward", "backward"):
                yield Job(entry, direction, target, form)


def variants() -> Iterator[Variant]:
    """What the library may launch beside the entries as `jobs` compiles them."""
    H = 64
    sizes: dict[str, Any] = {
        "H": H, "P": H, "SLOTS": 5, "UNITS": H, "OUTPUTS": H, "ROWS": 16, "DEPTH": H,
        "RESET_AFTER": True, "MEET": True, "INTERPRETED": False, "PRECISION": "ieee", "APPROXIMATE": True,
    }  # fmt: skip
    for (cell, shape, direction), kernel in KERNELS.items():
        slices = shape == "slices"
        constants = sizes | ({"UNITS": 16} if slices else {})
        yield Variant(f"{cell} {shape} {direction}", kernel, constants, PROJECTION, {}, slices)
        if slices:
            alone = constants | {"MEET": False}
            yield Variant(f"{cell} steps {direction}", kernel, alone, PROJECTION, {}, False)
            other, form = TWICE_KERNELS[cell, direction], TWICE[cell]
            narrow = {} if cell == "GRU" else {"P": 24}
            yield Variant(f"{cell} slices {direction}, {form}", other, constants | narrow, (), {}, True)
            yield Variant(f"{cell} steps {direction}, {form}", other, alone | narrow, (), {}, False)
        elif cell == "GRU":
            before = constants | {"RESET_AFTER": False}
            yield Variant(f"GRU whole {direction}, reset before", kernel, before, PROJECTION, {}, False)
        else:
            narrow = constants | {"P": 24, "OUTPUTS": 32}
            yield Variant(f"LSTM whole {direction}, projected", kernel, narrow, (), {}, False)
    constants: dict[str, Any] = {"H": H, "SLOTS": 5, "SIZE": launch.POINTWISE, "APPROXIMATE": True}
    gru: dict[str, str] = dict.fromkeys(("state", "gates", "direct"), "*fp32")
    for phase in ("all", "gates", "candidate"):
        given = constants | {"PHASE": phase}
        yield Variant(f"GRU library forward, {phase}", gru_pointwise_forward, given, (), gru, False)
    for phase in ("all", "candidate", "reset"):
        given = constants | {"PHASE": phase}
        yield Variant(f"GRU library backward, {phase}", gru_pointwise_backward, given, (), gru, False)
    forward: dict[str, str] = dict.fromkeys(("cell", "state"), "*fp32")
    yield Variant("LSTM library forward", lstm_pointwise_forward, constants, (), forward, False)
    name = "LSTM library forward, projected"
    yield Variant(name, lstm_pointwise_forward, constants, ("states",), forward, False)
    backward: dict[str, str] = dict.fromkeys(("d_shown", "d_cell"), "*fp32")
    yield Variant("LSTM library backward", lstm_pointwise_backward, constants, (), backward, False)


def compiled(job: Job) -> Any:
    """The compiled kernel of an entry."""
    entry, nvidia = job.entry, TARGETS[job.target][0].backend == "cuda"
    H = entry.largest
    constants: dict[str, Any] = {
        "H": H, "P": H, "SLOTS": 5, "UNITS": H if entry.kernel == "whole" else entry.units,
        "OUTPUTS": H, "ROWS": entry.rows, "DEPTH": entry.depth, "RESET_AFTER": True,
        "MEET": True, "INTERPRETED": False, "PRECISION": "tf32" if entry.numbers == "tf32" else "ieee",
        "APPROXIMATE": nvidia and entry.numbers != "ieee",
    }  # fmt: skip
    number = "*fp32" if entry.bytes == 4 else "*bf16"
    kernel, absent = KERNELS[entry.cell, entry.kernel, job.direction], OPTIONAL
    if job.form:
        kernel, absent = TWICE_KERNELS[entry.cell, job.direction], ("lengths", "resets")
    plainest = Variant("", kernel, constants, absent, {}, entry.kernel == "slices")
    return _compiled(plainest, job.target, number, entry.warps)


def compiled_variant(variant: Variant, target: str) -> Any:
    """The compiled kernel of a variant, for bfloat16."""
    nvidia = TARGETS[target][0].backend == "cuda"
    constants = variant.constants | {"APPROXIMATE": nvidia}
    return _compiled(variant._replace(constants=constants), target, "*bf16", 4)


def _compiled(variant: Variant, target: str, number: str, warps: int) -> Any:
    names = variant.kernel.arg_names
    constants = variant.constants | dict.fromkeys(variant.absent)
    kinds = INTEGERS | variant.numbers
    signature = {name: "constexpr" if name in constants else kinds.get(name, number) for name in names}
    pointers = [i for i, kind in enumerate(signature.values()) if kind.startswith("*")]
    source = ASTSource(
        fn=variant.kernel,
        signature=signature,
        constexprs={name: value for name, value in constants.items() if name in names},
        # as torch allocates; without it loads are narrow
        attrs={(i,): [["tt.divisibility", 16]] for i in pointers},
    )
    options: dict[str, Any] = {"num_warps": warps, "num_stages": 1, "enable_fp_fusion": True}
    if variant.cooperative:
        options["launch_cooperative_grid"] = True
    return triton.compile(source, target=TARGETS[target][0], options=options)


def report(job: Job) -> Report:
    """Compile and measure."""
    entry, built = job.entry, compiled(job)
    if job.target == "gfx942":
        code = built.asm["amdgcn"]
        registers = int(re.findall(r"\.vgpr_count:\s+(\d+)", code)[0])
        spilled = 4 * int(re.findall(r"\.vgpr_spill_count:\s+(\d+)", code)[0])
        instruction, meets = ("v_mfma" if "v_mfma" in code else ""), "buffer_inv" in code
    else:
        said = _cuobjdump(built.asm["cubin"], "-res-usage")
        registers = int(re.findall(r"REG:(\d+)", said)[0])
        spilled = int(re.findall(r"STACK:(\d+)", said)[0])
        code = _cuobjdump(built.asm["cubin"], "-sass")
        instruction = next((name for name in ("HGMMA", "HMMA") if name in code), "")
        meets = all(word in built.asm["ptx"] for word in (".gpu.acquire", ".gpu.release"))
    kernel = ", ".join(filter(None, (entry.kernel, job.form)))
    return Report(
        job.target, triton.__version__, entry.cell, entry.numbers, entry.largest, kernel, job.direction,
        entry.rows, entry.units, entry.depth, entry.warps, registers, spilled,
        built.metadata.shared, instruction, meets,
    )  # fmt: skip


def _cuobjdump(binary: bytes, what: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        return subprocess.run([tool, what, file.name], capture_output=True, text=True, check=True).stdout


def reports(chosen: list[Job], processes: int = 2) -> Iterator[Report]:
    """Compile in several processes."""
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(report, chosen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: sm_90 and sm_80")
    parser.add_argument("--cell", choices=list(launch.GATES), help="default: both")
    parser.add_argument("--numbers", choices=("half", "tf32", "ieee"), help="default: all")
    parser.add_argument("--largest", type=int, help="leave out entries for more units; default: none")
    parser.add_argument("--twice", action="store_true", help="the forms with two visits a step instead")
    parser.add_argument("--variants", action="store_true", help="what the entries leave out, at one size")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    targets = tuple(options.target or ("sm_90", "sm_80"))
    table = csv.writer(sys.stdout)
    if options.variants:
        table.writerow(("target", "triton", "variant", "shared_memory"))
        for target in targets:
            for variant in variants():
                built = compiled_variant(variant, target)
                table.writerow((target, triton.__version__, variant.name, built.metadata.shared))
        sys.exit()
    table.writerow(Report._fields)
    chosen = [
        job
        for job in jobs(targets, options.twice)
        if options.cell in (None, job.entry.cell)
        and options.numbers in (None, job.entry.numbers)
        and (options.largest is None or job.entry.largest <= options.largest)
    ]
    for row in reports(chosen, options.processes):
        table.writerow(row)
        sys.stdout.flush()
