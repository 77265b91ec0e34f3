"""The training loop: plain, resumable, interruptible between steps.

Everything random in a step is drawn from the seed and the step's number, so a run that was interrupted and
resumed ends with the same bits, on the CPU, as one that was not.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gatedcells.forecast import distributed
from gatedcells.forecast.distributed import ALONE, Share
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.files import parse_json, read_tensors, size_of, write_tensors

_CHECKPOINT_SECONDS = 10.0
_BEFORE = {"season": True}  # checkpoints from before they had settings
DIGEST = "digest"  # among the settings: of all that they do not name


class Forecaster(Protocol):
    """A network with what turns its outputs into megawatts."""

    network: nn.Module


class Task(Protocol):
    """What is trained."""

    steps: int
    steps_per_epoch: float
    clip_norm: float | None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a checkpoint has to be of, besides steps and seed."""
        ...

    def to(self, device: torch.device) -> None:
        """Make batches on a device."""
        ...

    def forecaster(self) -> Any:
        """A new, untrained forecaster."""
        ...

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Over the network's parameters."""
        ...

    def learning_rate(self, step: int) -> float:
        """For step 0, 1, ..."""
        ...

    def loss(self, network: nn.Module, step: int, generator: torch.Generator, share: Share = ALONE) -> Tensor:
        """A scalar; what it draws comes from ``generator`` (or from torch's own, seeded alike). Of several
        processes each computes its share: the mean over them is the loss of the whole batch."""
        ...


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        step: steps done; steps: to do in all; epoch: passes over the data so far.
        loss: of the last step; seconds: spent training, earlier parts of a resumed run included.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    seconds: float


class Interrupted(Exception):
    """Training was asked to stop; what was done is in the checkpoint. ``args`` is the signal, if known."""


def train(
    task: Task,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_step: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    device: str = "cpu",
) -> tuple[Any, Progress]:
    """Train a forecaster; go on from ``checkpoint`` if that file exists, and keep it up to date.

    Args:
        task: what to train.
        seed: of the weights, the batches and dropout.
        checkpoint: a file that holds everything needed to go on; written every ten seconds, on a stop and
            at the end.
        on_step: told after each step.
        should_stop: asked before each step.
        device: ``"cpu"`` or ``"cuda"``, to train on; batches and first weights are the same on both.

    Returns:
        the trained forecaster, on the CPU, and where it stands.

    Raises:
        Interrupted: ``should_stop`` said so.
        ForecastError: the checkpoint belongs to another training, the loss is no longer a number, or there
            is no such device.
    """
    place = distributed.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        _seed(place, seed)
        forecaster = task.forecaster()
        network = forecaster.network.to(place)
        task.to(place)
        optimizer = task.optimizer(list(network.parameters()))
        progress = Progress(0, task.steps, 0.0, float("nan"), 0.0)
        if checkpoint is not None and checkpoint.exists():
            _load(checkpoint, task, network, optimizer, progress, seed)
        share = distributed.share()
        distributed.same_everywhere(progress.step, "the step to go on from")
        if not share.first:
            checkpoint = None  # the first process writes for all
        network.train()
        together = distributed.together(network)
        generator = torch.Generator()
        saved = started = time.perf_counter() - progress.seconds
        stop = should_stop()
        for step in range(progress.step, task.steps):
            if stop:
                _save(checkpoint, task, network, optimizer, progress, seed)
                raise Interrupted
            generator.manual_seed(_step_seed(seed, step))
            _seed(place, _step_seed(seed, step))  # dropout draws from torch's own generator
            try:
                loss, stop = _one_step(task, together, optimizer, step, generator, share, should_stop)
            except RuntimeError as error:
                if not distributed.is_gone(error):
                    raise
                # nothing of this step was applied
                _save(checkpoint, task, network, optimizer, progress, seed)
                raise ForecastError(
                    f"another process of this training is gone, in step {step + 1}; go on with --resume"
                ) from error
            now = time.perf_counter()
            progress.step, progress.loss, progress.seconds = step + 1, loss, now - started
            progress.epoch = (step + 1) / task.steps_per_epoch
            if now - saved > _CHECKPOINT_SECONDS:
                _save(checkpoint, task, network, optimizer, progress, seed)
                saved = now
            on_step(progress)
        _save(checkpoint, task, network, optimizer, progress, seed)
    network.to("cpu")
    return forecaster, progress


def _one_step(
    task: Task,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    generator: torch.Generator,
    share: Share,
    should_stop: Callable[[], bool],
) -> tuple[float, bool]:
    """The loss, and whether a process was asked to stop: all of them stop after the same step."""
    for group in optimizer.param_groups:
        group["lr"] = task.learning_rate(step)
    optimizer.zero_grad(set_to_none=True)
    loss = task.loss(network, step, generator, share)
    loss.backward()
    summed, stops = distributed.total(loss.item(), float(should_stop()))
    value = summed / share.of
    if value != value:
        raise ForecastError(f"the loss of step {step + 1} is not a number; try a smaller learning rate")
    if task.clip_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), task.clip_norm)
    optimizer.step()
    return value, stops > 0


class WarmedAdamW:
    """How a task is optimized whose recipe has learning_rate, weight_decay, warmup_steps and steps."""

    recipe: Any

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW as the recipe sets it."""
        recipe = self.recipe
        return torch.optim.AdamW(
            parameters, recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
        )

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to 1%."""
        recipe = self.recipe
        warm = min(1.0, (step + 1) / recipe.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        return recipe.learning_rate * warm * (0.01 + 0.99 * cosine)


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """``[count]``: the random order in which an epoch visits so many windows."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**64)  # torch takes no larger one
    return torch.randperm(count, generator=generator)


def _step_seed(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % 2**63


def _seed(place: torch.device, seed: int) -> None:
    """Not torch.manual_seed: it seeds the devices that are not trained on too, and where there are none keeps
    the caller's stack as text for each, which takes longer than a step of a small network."""
    torch.default_generator.manual_seed(seed)
    if place.type == "cuda":
        with torch.cuda.device(place):
            torch.cuda.manual_seed(seed)


def _save(
    path: Path | None, task: Task, network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress,
    seed: int,
) -> None:  # fmt: skip
    if path is None:
        return
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    notes = {"step": progress.step, "steps": progress.steps, "seconds": progress.seconds, "seed": seed}
    loss = progress.loss if math.isfinite(progress.loss) else None
    notes |= {"loss": loss, "settings": dict(task.settings)}
    write_tensors(path, tensors, {"progress": json.dumps(notes)})


def _load(
    path: Path,
    task: Task,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    seed: int,
) -> None:
    # an optimizer keeps at most as much again for each of two moments
    tensors, notes = read_tensors(path, 4 * size_of(network.state_dict().values()))
    try:
        kept = parse_json(notes["progress"])
        step, steps, seconds = kept["step"], kept["steps"], float(kept["seconds"])
        loss = math.nan if kept.get("loss") is None else float(kept["loss"])  # added later
        found = kept.get("settings", _BEFORE)
        other = [name for name, value in found.items() if task.settings.get(name, value) != value]
        said = [f"{name} {str(found[name])[:20]}" for name in other if name != DIGEST]
        if (steps, kept["seed"]) != (progress.steps, seed):
            said = [f"steps {steps}, seed {kept['seed']}"]
        if said or other:
            of = ", ".join(said) or "other series or settings"
            raise ForecastError(f"{path}: is of another training ({of}); delete it to train anew")
        if type(step) is not int or not 0 <= step <= steps or not 0 <= seconds < math.inf:
            raise ValueError(f"step is {step!r} of {steps}, after {seconds} seconds")
        expected = network.state_dict()
        weights = _under(tensors, "network.")
        for name, value in weights.items():
            if name in expected and value.dtype != expected[name].dtype:
                raise ValueError(f"{name} is {value.dtype}; expected {expected[name].dtype}")
        network.load_state_dict(weights)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optimizer.").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        if step:
            _check_state(state, task, list(network.parameters()))
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        progress.step, progress.loss, progress.seconds = step, loss, seconds
        progress.epoch = step / task.steps_per_epoch
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ForecastError(f"{path}: does not fit this training ({' '.join(str(error).split())})") from error


def _check_state(state: dict[int, dict[str, Tensor]], task: Task, parameters: Sequence[nn.Parameter]) -> None:
    """What an optimizer has kept of each parameter is what it keeps, in the parameter's shape."""
    small = nn.Parameter(torch.zeros(2))
    small.grad = torch.zeros(2)
    optimizer = task.optimizer([small])
    optimizer.step()
    expected = {
        (index, key): (one.shape if like.shape == small.shape else like.shape, like.dtype)
        for index, one in enumerate(parameters)
        for key, like in optimizer.state[small].items()
    }
    found = {(n, key): (value.shape, value.dtype) for n, kept in state.items() for key, value in kept.items()}
    wrong = [one for one in expected.keys() | found.keys() if expected.get(one) != found.get(one)]
    if wrong:
        index, key = min(wrong)
        raise ValueError(f"{key} of parameter {index} is missing, unknown, or of another shape or type")
    counts = [kept[key] for kept in state.values() for key in kept if kept[key].ndim == 0]
    if any(count < 0 for count in counts):
        raise ValueError("the optimizer's step is below 0")


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
