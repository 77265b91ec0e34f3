"""The table that chooses among Triton's kernels, and what each of its entries compiles to without a GPU."""

import csv
import hashlib
import importlib.metadata
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

launch = pytest.importorskip("gatedcells_kernels.triton.launch")
calls = pytest.importorskip("gatedcells_kernels.triton.calls")
costs = pytest.importorskip("gatedcells_kernels.triton.costs")
pytest.importorskip("triton")

ROOT = Path(__file__).parent.parent.parent
H100 = launch.Device("H100", 132, 227 << 10)


def chosen(cell="GRU", T=128, B=32, H=256, P=None, numbers="half", reset_after=True, device=H100):
    return launch.plan(
        launch.Request(cell, T, B, H, P or H, numbers, reset_after, projected=P is not None), device
    )


def test_few_units_stay_whole_and_many_are_cut_up():
    assert chosen(H=128).kernel == "whole"
    assert chosen(H=129).kernel == "slices"
    assert chosen(H=1024).kernel == "slices"
    assert chosen(H=1025).kernel == "library"


def test_one_step_of_many_units_is_one_launch_without_a_meeting():
    plan = chosen(T=1, H=512)
    assert plan.kernel == "steps"
    assert "slices: one step needs no meeting" in str(plan)


def test_a_batch_that_does_not_fit_the_device_at_once_takes_larger_tiles_and_then_a_launch_a_step():
    rows = [chosen(B=B, H=256).entry.rows for B in (1, 128, 129)]
    assert rows == [16, 16, 64]
    plan = chosen(B=4096, H=256)
    assert (plan.kernel, plan.entry.rows) == ("steps", 64)
    assert "slices: 512 programs of 64 rows, 132 run at once" in str(plan)


def test_programs_of_a_meeting_never_outnumber_the_processors():
    for device in (H100, launch.Device("half of one", 66, 227 << 10), launch.Device("one", 1, 227 << 10)):
        for numbers in ("half", "tf32", "ieee"):
            for cell in ("GRU", "LSTM"):
                for H in (130, 256, 511, 1000):
                    for B in (1, 16, 17, 100, 1000):
                        plan = chosen(cell, B=B, H=H, numbers=numbers, device=device)
                        if plan.kernel == "slices":
                            slices = -(-H // plan.entry.units)
                            assert slices * -(-B // plan.entry.rows) <= device.processors


def test_both_directions_share_a_grid_where_together_they_fit():
    def together(**sizes):
        request = launch.Request("GRU", **({"T": 64, "B": 32, "H": 256, "P": 256, "numbers": "half"} | sizes))
        return launch.in_one_grid(request._replace(directions=2), H100)

    assert together().kernel == "slices"
    assert together(H=64, P=64, B=4096).kernel == "whole"
    assert together(H=1024, P=1024).entry.rows == 64
    assert together(H=1024, P=1024, B=128) is None
    assert together(H=1024, P=1024, B=128, T=1).kernel == "steps"
    assert together(H=4096, P=4096) is None


@pytest.mark.parametrize("options", [{"reset_after": False}, {"cell": "LSTM", "P": 100}], ids=str)
def test_two_products_in_a_row_are_two_meetings_or_two_launches(options):
    plan = chosen(H=256, **options)
    assert plan.kernel == "slices"
    assert str(plan).endswith("slices: chosen, 16 rows by 16 units a program, two meetings a step")
    # a single step of theirs has a meeting, between its two products
    assert chosen(H=256, T=1, **options).kernel == "slices"
    plan = chosen(H=256, B=4096, **options)
    assert plan.kernel == "steps"
    assert str(plan).endswith("two launches a step")
    assert chosen(H=64, **options).kernel == "whole"
    assert chosen(H=2000, **options).kernel == "library"


def test_a_projection_takes_room_on_the_chip_and_reads_what_all_units_show():
    small = launch.Device("99 KB", 132, 99 << 10)
    units = [chosen("LSTM", H=640, P=P, device=small).entry.units for P in (None, 64, 640)]
    assert units == [16, 16, 8]
    entry = chosen("LSTM", H=640, device=small).entry
    assert (entry.rows, entry.depth) == (16, 128)
    # weights of 640 x 16 numbers of each gate, of the projection, and two tiles of states
    assert entry.shared_memory(640, 640) == 2 * (4 * 640 * 16 + 2 * 16 * 128) <= 99 << 10
    assert entry.shared_memory(640, 640, True) == 2 * (5 * 640 * 16 + 2 * 16 * 128) > 99 << 10
    for request, numbers in (
        (launch.Request("GRU", 9, 5, 40, 40, "half"), 3 * 40),
        (launch.Request("GRU", 9, 5, 40, 40, "half", False), 3 * 40 + 3 * 40),
        (launch.Request("LSTM", 9, 5, 40, 10, "half", projected=True), 3 * 10 + 1 * 40),
        (launch.Request("LSTM", 9, 5, 10, 40, "half", projected=True), 3 * 40 + 3 * 10),
    ):
        tiles = launch.Entry(request.cell, "half", 40, "slices", 16, 16, 16, 4)
        assert launch.slices(tiles, request) == 3
        assert launch.states_read(tiles, request) == numbers


def test_the_states_that_many_programs_read_decide_for_launches():
    # 8 programs of the larger tiles read 32 rows of 256 numbers, then as many of r ⊙ h
    with patch.object(launch, "BROADCAST", 2 * 8 * 32 * 256):
        assert chosen(H=256).kernel == "slices"
        assert "262144 bytes of states read a step" in str(chosen(H=256, reset_after=False))
        assert chosen(H=256, reset_after=False).kernel == "steps"


@pytest.mark.parametrize("cell", launch.GATES)
def test_costs_count_what_a_step_does(cell):
    sizes = {"T": 10, "B": 20, "H": 40, "P": 40 if cell == "GRU" else 10}
    twice = launch.Request(cell, **sizes, numbers="half", reset_after=False, projected=cell == "LSTM")
    once = twice._replace(P=40, reset_after=True, projected=False)
    gates, P = launch.GATES[cell], sizes["P"]
    tiles = launch.Entry(cell, "half", 40, "slices", 16, 16, 16, 4)
    for request, visits in ((once, 1), (twice, 2)):
        found = {
            kernel: costs.costs(launch.Plan(kernel, tiles, ()), request)
            for kernel in ("library", "steps", "slices", "whole")
        }
        assert [found[kernel].meetings for kernel in ("steps", "slices", "whole")] == [0, visits, 0]
        assert found["steps"].launches == visits
        assert found["slices"].launches == found["whole"].launches == 0.1
        assert found["slices"].state_bytes == found["steps"].state_bytes
        # weights: for each of two tiles of rows in each step, or once in ten
        numbers = gates * 40 * request.P + (P * 40 if request.projected else 0)
        assert found["steps"].weight_bytes == 2 * 2 * numbers == 10 * found["slices"].weight_bytes
        assert found["whole"].operations == 2 * 20 * numbers
    assert found["slices"].state_bytes == 2 * 20 * (2 * 3 * 40 if cell == "GRU" else 3 * 10 + 40)


def test_a_kernel_that_was_asked_for_runs_or_raises():
    with launch.prefer("library"):
        assert chosen(H=16).kernel == "library"
    with launch.prefer("whole"), pytest.raises(ValueError, match="whole: no tiles for H = 2048"):
        chosen(H=2048)
    with pytest.raises(ValueError, match="kernel must be one of whole, slices"), launch.prefer("cudnn"):
        pass
    small = launch.Device("small", 132, 48 << 10)
    with (
        launch.prefer("whole"),
        pytest.raises(ValueError, match="110592 bytes on the chip a program, 49152 fit"),
    ):
        chosen(H=128, device=small)


@pytest.mark.parametrize(("numbers", "rows"), [("ieee", 16), ("tf32", 64), ("half", 64)])
@pytest.mark.parametrize("cell", launch.GATES)
def test_more_tiles_of_rows_than_a_grid_takes_run_on_the_library(cell, numbers, rows):
    most = 65535 * rows
    plan = chosen(cell, B=most, H=512, numbers=numbers)
    assert (plan.kernel, plan.entry.rows) == ("steps", rows)
    plan = chosen(cell, B=most + 1, H=512, numbers=numbers)
    assert plan.kernel == "library"
    assert f"steps: 65536 tiles of {rows} rows, a grid takes 65535" in str(plan)
    with launch.prefer("steps"), pytest.raises(ValueError, match="65536 tiles of"):
        chosen(cell, B=most + 1, H=512, numbers=numbers)


def test_the_table_can_be_printed():
    lines = launch.printed().splitlines()
    assert lines[0].split() == [*launch.Entry._fields, "bytes", "on", "the", "chip"]
    assert [line.split()[:8] for line in lines[1:]] == [[str(value) for value in e] for e in launch.TABLE]


@pytest.mark.parametrize(("kernel", "cooperative"), [("slices", True), ("steps", False)])
def test_programs_that_meet_are_launched_together_and_only_they(kernel, cooperative):
    launches = []
    tiles = launch.Entry("GRU", "half", 40, "slices", 16, 16, 16, 4)
    given = {"H": 40, "B": 20, "weight_hh": torch.zeros(120, 40), "PRECISION": "ieee"}
    record = {(3, 2, 1): lambda **options: launches.append(options)}
    with patch.object(calls, "interprets", lambda: False):
        calls.run_slices(record, launch.Plan(kernel, tiles, ()), given, visits=7)
    assert [options.get("launch_cooperative_grid", False) for options in launches] == (
        [True] if cooperative else [False] * 7
    )
    spans = [(options["first"], options["last"], options["MEET"]) for options in launches]
    assert spans == ([(0, 7, True)] if cooperative else [(visit, visit + 1, False) for visit in range(7)])
    # a meeting counts from zero; one a tile of rows
    if cooperative:
        assert launches[0]["counters"].tolist() == [0, 0]


def test_no_sum_is_made_by_atomic_additions():
    """Their order is not fixed; what is added atomically are arrivals, whole numbers."""
    folder = ROOT / "kernels" / "gatedcells_kernels" / "triton"
    users = {path.name for path in folder.glob("*.py") if "atomic" in path.read_text(encoding="utf-8")}
    assert users == {"meeting.py"}


RESULTS = ROOT / "benchmarks" / "results"
TRITON = importlib.metadata.version("triton")
RECORDED = [("3.6.0", False), ("3.9.0", False), ("3.9.0", True)]
# multiprocessors and KiB of shared memory of the smallest device of each kind
LIMITS = {"sm_90": (114, 227), "sm_80": (108, 163), "gfx942": (304, 64)}

# One compilation differs from the next by some: the compiler's order of visiting is not fixed.
FEW_REGISTERS = 16 * 4

# The Triton and the sources (see `sources`) of which everything was compiled by the tests below and found as
# the rows say. With any other all is compiled again, which takes minutes; then this line may follow.
COMPILED = ("3.9.0", "71c9db777061d725a2da83b34f2636049839bfad8bdf0e4c70e5bf1b640ab5d8")
FEW_UNITS = 16


def what(row):
    """Which compilation a row is about."""
    names = ("cell", "numbers", "H", "kernel", "direction", "rows", "units", "depth", "warps")
    return " ".join(row[name] for name in names)


def recorded(version, target, twice=False):
    """The newest rows of a version of Triton for a target."""
    found = sorted(RESULTS.glob(f"*triton-{version}-ahead-of-time{'-twice' * twice}.csv"))
    if not found:
        return {}
    with found[-1].open() as file:
        rows = [row for row in csv.DictReader(file) if row["target"] == target]
    return {what(row): row for row in rows}


def ahead(*arguments, cache):
    """What the program that compiles without a GPU prints, as rows."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "gatedcells_kernels.triton.ahead", *arguments],
        capture_output=True, text=True, cwd=ROOT / "kernels",
        env=environment | {"TRITON_CACHE_DIR": str(cache)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def sources():
    """A digest of everything that decides what is compiled, besides Triton."""
    folder = ROOT / "kernels" / "gatedcells_kernels"
    files = [*sorted((folder / "triton").glob("*.py")), folder / "tape.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def were_compiled():
    """Whether all was found to compile, of this very Triton and these very sources."""
    return (TRITON, sources()) == COMPILED


def test_nothing_beside_the_sources_whose_digest_is_kept_decides_what_is_compiled():
    program = (
        "import sys, gatedcells_kernels.triton.ahead\n"
        "print(*(name for name in sys.modules if name.startswith('gatedcells')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT / "kernels"
    )
    assert done.returncode == 0, done.stderr
    beside = {name for name in done.stdout.split() if not name.startswith("gatedcells_kernels.triton")}
    assert beside == {"gatedcells_kernels", "gatedcells_kernels.tape"}
    assert "gatedcells_kernels.triton.launch" in done.stdout


def expected_shared_memory(row):
    """What the table takes an entry to need: the choice of a kernel on smaller devices depends on it."""
    names, (kernel, *form) = ("rows", "units", "depth"), row["kernel"].split(", ")
    (entry,) = (
        entry
        for entry in launch.TABLE
        if (entry.cell, entry.numbers, entry.largest, entry.kernel)
        == (row["cell"], row["numbers"], int(row["H"]), kernel)
        and all(getattr(entry, name) == int(row[name]) for name in names)
    )
    return entry.shared_memory(entry.largest, entry.largest, form == ["projected"])


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Up to how many units the entries were compiled, for every target, and what came out."""
    largest = max(entry.largest for entry in launch.TABLE)
    if were_compiled():  # all of them, with these results: some show that they still are
        largest = FEW_UNITS
    asked = [argument for target in LIMITS for argument in ("--target", target)]
    processes = "1" if were_compiled() else "2"
    cache = tmp_path_factory.mktemp("entries")
    return largest, ahead(*asked, "--processes", processes, "--largest", str(largest), cache=cache)


@pytest.mark.parametrize("target", LIMITS)
def test_every_entry_of_the_table_compiles_within_its_limits(target, entries):
    """Without a GPU: registers, spills, shared memory, tensor cores, and the meeting's memory order. (torch
    multiplies no matrices in tf32 on AMD's devices, so there are no such entries there.)"""
    largest, rows = entries
    rows = [row for row in rows if row["target"] == target]
    # of a version that nobody has recorded only the limits are checked
    known = recorded(TRITON, target)
    _, shared = LIMITS[target]
    # a row of before may be of an entry that the table no longer takes to fit there
    recorded_ones = (known or recorded("3.6.0", target)).items()
    fitting = {
        which
        for which, row in recorded_ones
        if expected_shared_memory(row) <= shared << 10 and int(row["H"]) <= largest
    }
    assert {what(row) for row in rows} == fitting
    for row in rows:
        which, slices = what(row), row["kernel"] == "slices"
        assert int(row["shared_memory"]) <= min(shared << 10, expected_shared_memory(row)), which
        if known:
            assert int(row["spilled_bytes"]) <= int(known[which]["spilled_bytes"]) + FEW_REGISTERS, which
        assert (row["meets"] == "True") == slices, which
        if target != "gfx942":
            assert bool(row["tensor_cores"]) == (row["numbers"] != "ieee"), which
        if target == "sm_90" and row["rows"] == "64" and row["direction"] == "forward":
            assert row["tensor_cores"] == "HGMMA", which


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """For which targets what the entries leave out was compiled, what came out, and where Triton keeps it."""
    targets = ["sm_90"] if were_compiled() else [*LIMITS]
    asked = [argument for target in targets for argument in ("--target", target)]
    cache = tmp_path_factory.mktemp("variants")
    return targets, ahead("--variants", *asked, cache=cache), cache


def test_what_the_entries_leave_out_compiles_too(variants):
    """Lengths, resets, projections, the reset gate before the product, a launch a step, the gates alone."""
    targets, rows, _ = variants
    assert all(int(row["shared_memory"]) <= LIMITS[row["target"]][1] << 10 for row in rows)
    whole = {f"{cell} whole {way}" for cell in launch.GATES for way in ("forward", "backward")}
    whole |= {f"GRU whole {way}, reset before" for way in ("forward", "backward")}
    whole |= {f"LSTM whole {way}, projected" for way in ("forward", "backward")}
    cut = {
        f"{cell} {kernel} {way}"
        for cell in launch.GATES
        for kernel in ("slices", "steps")
        for way in ("forward", "backward")
    }
    cut |= {
        f"{cell} {kernel} {way}, {form}"
        for cell, form in (("GRU", "reset before"), ("LSTM", "projected"))
        for kernel in ("slices", "steps")
        for way in ("forward", "backward")
    }
    library = {f"GRU library forward, {phase}" for phase in ("all", "gates", "candidate")}
    library |= {f"GRU library backward, {phase}" for phase in ("all", "candidate", "reset")}
    library |= {"LSTM library forward", "LSTM library forward, projected", "LSTM library backward"}
    expected = {(target, variant) for target in targets for variant in whole | cut | library}
    assert {(row["target"], row["variant"]) for row in rows} == expected


def test_no_kernel_multiplies_rows_by_units_in_32_bits(variants):
    """As many rows as a grid takes have more numbers. Times and rows are: a tape bounds those."""
    program = (
        "from gatedcells_kernels.triton import ahead\n"
        "for variant in ahead.variants():\n"
        "    if ' steps ' in variant.name:\n"
        "        print('variant', variant.name)\n"
        "        print(ahead.compiled_variant(variant, 'sm_90').asm['ttir'])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT / "kernels",
        env=environment | {"TRITON_CACHE_DIR": str(variants[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    variants = done.stdout.split("variant ")[1:]
    assert len(variants) == 8
    for variant in variants:
        constants = dict(re.findall(r"(%\S+) = arith.constant (\d+) : i32", variant))
        with_rows = re.findall(r"arith.muli %B, (%\S+) : i32|arith.muli (%\S+), %B : i32", variant)
        assert with_rows, variant
        factors = {int(constants[name]) for name in map("".join, with_rows) if name in constants}
        assert factors <= {2}, variant.splitlines()[0]


@pytest.mark.parametrize(("version", "twice"), RECORDED)
def test_every_entry_was_compiled_for_every_target_that_it_fits(version, twice):
    """By `python -m benchmarks.ahead_of_time`; with two visits a step a test itself compiles one size."""
    for target, (processors, shared) in LIMITS.items():
        known = recorded(version, target, twice=twice)
        for entry in launch.TABLE:
            form = {"GRU": "reset before", "LSTM": "projected"}[entry.cell]
            needed = entry.shared_memory(entry.largest, entry.largest, twice and form == "projected")
            if needed > shared << 10 or (twice and entry.kernel == "whole"):
                continue
            if target == "gfx942" and (entry.kernel != "whole" or entry.numbers == "tf32"):
                continue
            if entry.kernel == "slices" and -(-entry.largest // entry.units) > processors:
                continue
            kernel = f"{entry.kernel}, {form}" if twice else entry.kernel
            for direction in ("forward", "backward"):
                row = entry._asdict() | {"H": entry.largest, "kernel": kernel, "direction": direction}
                assert what({name: str(value) for name, value in row.items()}) in known, (target, entry)
        for which, row in known.items():
            assert int(row["shared_memory"]) <= min(shared << 10, expected_shared_memory(row)), which
            assert (row["meets"] == "True") == row["kernel"].startswith("slices"), which
