"""Settings of the fast recipe, and of the best."""

from dataclasses import dataclass, replace
from typing import ClassVar

from gatedcells.forecast.calendar import SEASON_HOURS
from gatedcells.forecast.passes import within_passes

_LEAST_BATCH, _FEWEST_STEPS = 16, 150


@dataclass(frozen=True)
class FastRecipe:
    """Settings of the fast recipe; the defaults train for about half a minute on one core.

    Attributes:
        cell: ``"gru"`` or ``"lstm"``.
        hidden_size: H.
        steps: optimizer steps.
        chunk_hours: T, hours that a training chunk runs over.
        batch_size: B, chunks a step.
        burn_in_hours: first hours of a chunk that are not supervised, while the state warms up from zero.
        lags_hours: how far back, besides the last hour, a step sees directly.
        learning_rate, weight_decay, warmup_steps, clip_norm: of AdamW.
        holidays: country whose public holidays are inputs, or ``"none"``.
        members: networks trained side by side, each on batches of its own; the forecast is their mean.
        precision: ``"float32"`` or ``"bfloat16"``, of the recurrence: its products and what it keeps for the
            backward pass. Weights, their updates, inputs and forecasts are float32 in either.
        neighbours: whether what all regions' errors of the last hours say of the next is added, see
            `gatedcells.forecast.neighbours`.
        loss_in: ``"percent"``, in which a region that is hard to forecast counts for more, or
            ``"usual errors"`` of each region (its day-and-week ratio's), as the likelihood would have it.
        head_size: units of the head's hidden layer, beside its straight line; 0 for none.
        season: whether the day of the year is an input; the input is zero where it is not.
    """

    most_passes: ClassVar[float] = 24  # over the training part, where it is short

    cell: str = "gru"
    hidden_size: int = 64
    steps: int = 700
    chunk_hours: int = 96
    batch_size: int = 96
    burn_in_hours: int = 12
    lags_hours: tuple[int, ...] = (2, 12, 24, 48, 72, 96, 120, 144, 168, 336)
    learning_rate: float = 2e-2
    weight_decay: float = 0.1
    warmup_steps: int = 100
    clip_norm: float = 1.0
    holidays: str = "US"
    members: int = 1
    precision: str = "float32"
    neighbours: bool = False
    loss_in: str = "percent"
    head_size: int = 0
    season: bool = True

    def suited(self, hours: int, longest_hours: int, *, fewer: bool) -> "FastRecipe":
        """The recipe for so many data.

        Args:
            hours: to train on, in all regions; longest_hours: of the region that has most. Where that is less
                than a year, the season is no input.
            fewer: whether a short training part takes smaller batches and fewer steps, else both as given.
        """
        suited = replace(self, season=self.season and longest_hours >= SEASON_HOURS)
        if not fewer:
            return suited
        steps, batch_size = within_passes(
            self.steps, self.batch_size, chunks=hours / (self.chunk_hours - self.burn_in_hours),
            most_passes=self.most_passes, least_batch=_LEAST_BATCH, fewest_steps=_FEWEST_STEPS,
        )  # fmt: skip
        return replace(suited, steps=steps, batch_size=batch_size)

    @property
    def hours_needed(self) -> int:
        """How far back the inputs of a forecast reach."""
        return max(self.lags_hours, default=1) + 2


def told(usual: FastRecipe, recipe: FastRecipe) -> str:
    """What `FastRecipe.suited` made of a recipe, in words."""
    parts: list[str] = []
    if (recipe.steps, recipe.batch_size) != (usual.steps, usual.batch_size):
        parts.append(
            f"{recipe.steps} steps of {recipe.batch_size} chunks instead of {usual.steps} of"
            f" {usual.batch_size}, which would overfit so few hours (--steps sets another number)"
        )
    if recipe.season != usual.season:
        parts.append("the season is not an input, because no region has a year of training data")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "."


@dataclass(frozen=True)
class BestRecipe(FastRecipe):
    """More of everything: units, steps, hours in a chunk, six networks instead of one, and what past errors
    say; for two cores and a quarter of an hour."""

    most_passes: ClassVar[float] = 32

    hidden_size: int = 160
    steps: int = 3800
    chunk_hours: int = 168
    batch_size: int = 56
    burn_in_hours: int = 24
    members: int = 6
    weight_decay: float = 0.2
    precision: str = "bfloat16"
    neighbours: bool = True
    loss_in: str = "usual errors"
    head_size: int = 64
