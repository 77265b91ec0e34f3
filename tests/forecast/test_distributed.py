"""Several processes train what one would, and say so when one of them is gone."""

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gatedcells.forecast import distributed
from gatedcells.forecast.article import ArticleRecipe, ArticleTask
from gatedcells.forecast.bitcoin import BitcoinRecipe, PriceTask
from gatedcells.forecast.distributed import Share
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from tests.forecast.test_bitcoin import walk

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch without gloo",
)
ROOT = Path(__file__).parent.parent.parent
OPTIONS = ["--cell", "gru", "--threads", "1", "--hidden-size", "8", "--batch-size", "7"]


def torchrun(*arguments, processes=2, cwd, script=("-m", "gatedcells.forecast")):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone",
         "--monitor-interval", "1",
         "--nproc-per-node", str(processes), *script, *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("of", [2, 3])
@pytest.mark.parametrize("kind", ["fast", "article", "bitcoin"])
def test_the_shares_of_a_batch_make_up_its_loss_and_gradients(kind, of, small_regions, monkeypatch):
    if kind == "fast":
        task = FastTask(FastRecipe(hidden_size=4, batch_size=7), small_regions)
    elif kind == "article":
        task = ArticleTask(ArticleRecipe(hidden_size=4, batch_size=7, layers=1, fraction=0.02), small_regions)
    else:
        task = PriceTask(
            BitcoinRecipe(lookback_days=5, first_size=3, second_size=4, dropout=0.0), walk(), seed=1
        )
    network = task.forecaster().network.double()
    squared = torch.nn.functional.mse_loss  # up to torch 2.11 it has no gradient in mixed precisions
    monkeypatch.setattr(
        torch.nn.functional,
        "mse_loss",
        lambda ours, true, reduction: squared(ours, true.to(ours), reduction=reduction),
    )
    generator = torch.Generator()

    class Double(torch.nn.Module):
        def forward(self, x, *rest):
            return network(x.double(), *rest)

    def loss(share):
        return task.loss(Double(), 3, generator.manual_seed(5), share)

    parameters = list(network.parameters())
    whole = torch.autograd.grad(loss(Share()), parameters)
    parts = [torch.autograd.grad(loss(Share(rank, of)), parameters) for rank in range(of)]
    for one, shares in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(sum(shares) / of, one, rtol=1e-6, atol=1e-9)
    values = [loss(Share(rank, of)).item() for rank in range(of)]
    assert sum(values) / of == pytest.approx(loss(Share()).item(), rel=1e-6)


CURVE = """
import json, os, sys
from pathlib import Path
from gatedcells.forecast.data import read_folder
from gatedcells.forecast.distributed import joined, same_everywhere
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.fast import FastTask
from gatedcells.forecast.fast_recipe import FastRecipe
from gatedcells.forecast.training import train
from gatedcells.forecast.windows import prepare

with joined() as share:
    regions = prepare(read_folder(Path(sys.argv[1])))
    task = FastTask(FastRecipe(hidden_size=8, steps=40, batch_size=7), regions)
    curve = []
    forecaster, _ = train(task, seed=3, on_step=lambda now: curve.append(now.loss))
    if share.first:
        weights = {name: p.tolist() for name, p in forecaster.network.state_dict().items()}
        Path(sys.argv[2]).write_text(json.dumps([curve, weights]))
    try:
        same_everywhere(5 * share.rank, 'the step to go on from')
    except ForecastError as error:
        if share.first:
            print(error)
if Path('/proc/self/task').exists() and share.first:
    names = [Path(f'/proc/self/task/{t}/comm').read_text() for t in os.listdir('/proc/self/task')]
    print('left:', [name.strip() for name in names if 'gloo' in name])
"""


@pytest.fixture(scope="module")
def curves(small_folder, tmp_path_factory):
    """What one process, and what two say of their training: the curve, the weights, and what they print."""
    folder, found = tmp_path_factory.mktemp("curves"), {}
    (folder / "curve.py").write_text(CURVE)
    for processes in (1, 2):
        done = torchrun(
            small_folder, f"{processes}.json", processes=processes, cwd=folder, script=("curve.py",)
        )
        assert done.returncode == 0, done.stderr
        found[processes] = *json.loads((folder / f"{processes}.json").read_text()), done.stdout
    return found


def test_two_processes_have_the_loss_curve_of_one(curves):
    (one, weights, _), (two, others, _) = curves[1], curves[2]
    assert len(one) == 40
    assert one[-1] < 0.7 * one[0]
    assert two == pytest.approx(one, rel=1e-3)
    for name, values in weights.items():
        torch.testing.assert_close(torch.tensor(others[name]), torch.tensor(values), rtol=0, atol=2e-3)


@pytest.fixture(scope="module")
def undisturbed(small_folder, tmp_path_factory):
    """A run of the command on two processes: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = torchrun("--data", small_folder, "--out", "run", "--steps", 30, *OPTIONS, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


def test_the_command_runs_on_two_processes_and_one_of_them_speaks(undisturbed):
    folder, printed = undisturbed
    assert printed.count("Run folder: run") == 1
    assert json.loads((folder / "metrics.json").read_text())["models"]["GRU"]["mean"]["smape"] > 0


GONE = """
import os, signal, sys
import gatedcells.forecast.training as training
from gatedcells.forecast import distributed
from gatedcells.forecast.cli import forecast

before = training._one_step
def one_step(task, network, optimizer, step, generator, share, should_stop):
    if step == 12 and share.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(task, network, optimizer, step, generator, share, should_stop)
training._one_step = one_step
with distributed.joined():
    forecast(prog_name="gatedcells forecast")
"""


def test_when_one_is_killed_the_job_ends_and_goes_on_from_its_last_step(small_folder, tmp_path, undisturbed):
    options = ("--data", small_folder, "--steps", 30, *OPTIONS)
    (tmp_path / "gone.py").write_text(GONE)
    done = torchrun("--out", "run", *options, cwd=tmp_path, script=("gone.py",))
    assert done.returncode != 0
    assert "another process of this training is gone, in step 13; go on with --resume" in done.stderr
    kept = (tmp_path / "run" / "gru" / "checkpoint.safetensors").read_bytes()
    assert b'\\"step\\": 12' in kept or b'"step": 12' in kept
    resumed = torchrun("--resume", "run", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("Run folder: run") == 1
    folders = (tmp_path / "run", undisturbed[0])
    ours, theirs = (load_file(folder / "gru" / "weights.safetensors") for folder in folders)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have no names to read here")
def test_no_thread_of_the_engine_is_left_to_disturb_the_end_of_a_process(curves):
    assert "left: []" in curves[2][2]


@pytest.mark.parametrize(
    ("exchange", "given"),
    [("all_reduce", lambda: distributed.total(1.0)), ("broadcast", lambda: distributed.as_first_says(True))],
)
def test_no_thread_of_the_engine_is_the_last_to_hold_what_was_exchanged(exchange, given, monkeypatch):
    seen = []
    monkeypatch.setattr(distributed, "share", lambda: Share(0, 2))
    monkeypatch.setattr(distributed.dist, exchange, lambda tensor, *_: seen.append(weakref.ref(tensor)))
    given()
    assert seen[0]() is not None  # else a process may never end, as with torch 2.6


def test_processes_that_see_different_folders_are_told_so(curves):
    printed = "processes disagree on the step to go on from: [0, 5]; all of them must see the same"
    assert printed in curves[2][2]
    assert printed not in curves[1][2]
