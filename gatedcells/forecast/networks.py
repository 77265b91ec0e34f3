"""The fast recipe's networks: one, or several whose forecasts are averaged."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from gatedcells.forecast.cells import State, recurrent_layer
from gatedcells.forecast.errors import ForecastError

PRECISIONS = ("float32", "bfloat16")


class ChangeNetwork(nn.Module):
    """``change[p] = w z + b + v relu(U z + c)`` with ``z = [rnn(x)[p], x[p]]``: the change in log load, in
    units of the region's spread of changes. Without units in the head it is the first two terms."""

    def __init__(
        self, cell: str, inputs: int, hidden_size: int, precision: str = "float32", head_size: int = 0
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ForecastError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        self._bfloat16 = precision == "bfloat16"
        self.rnn = recurrent_layer(cell, inputs, hidden_size)
        self.head = nn.Linear(hidden_size + inputs, 1)
        self.bent = self.out = None
        if head_size:
            self.bent, self.out = (
                nn.Linear(hidden_size + inputs, head_size),
                nn.Linear(head_size, 1, bias=False),
            )
            nn.init.zeros_(self.out.weight)  # starts as the straight line

    @property
    def first(self) -> "ChangeNetwork":
        """Itself; of several networks the first."""
        return self

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """``[T, B, I]`` to ``[T, B]`` and the state to go on from."""
        return self._headed(self.rnn, x, state)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step, ``[B, I]`` to ``[B]``."""
        return self._headed(self.rnn.step, x, state)

    def _headed(self, recur: Callable[..., Any], x: Tensor, state: State | None) -> tuple[Tensor, State]:
        with self._precision(x):
            hidden, state = recur(x, state)
        read = torch.cat([hidden.to(x.dtype), x], dim=-1)
        change = self.head(read)
        if self.bent is not None and self.out is not None:
            with self._precision(x):
                bent = self.bent(read)
            change = change + self.out(relu(bent.to(x.dtype)))
        return change.squeeze(-1), state

    def _precision(self, x: Tensor) -> torch.autocast | nullcontext[None]:
        return torch.autocast(x.device.type, torch.bfloat16) if self._bfloat16 else nullcontext()


class ChangeEnsemble(nn.Module):
    """Networks side by side. In training each has its own part of the batch; afterwards all read everything,
    and the forecast is the mean of theirs."""

    def __init__(self, members: list[ChangeNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def first(self) -> ChangeNetwork:
        """The first of them."""
        return self._all[0]

    @property
    def _all(self) -> list[ChangeNetwork]:
        return [member for member in self.members if isinstance(member, ChangeNetwork)]

    def forward(self, x: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """``[T, B, I]`` to ``[T, B]`` and the members' states."""
        count = len(self._all)
        parts = x.chunk(count, dim=1) if self.training else [x] * count
        states = [None] * count if state is None else state
        found = [member(part, one) for member, part, one in zip(self._all, parts, states, strict=True)]
        changes = [change for change, _ in found]
        change = torch.cat(changes, dim=1) if self.training else torch.stack(changes).mean(dim=0)
        return change, [after for _, after in found]

    def step(self, x: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
        """One step, ``[B, I]`` to ``[B]``."""
        found = [member.step(x, one) for member, one in zip(self._all, state, strict=True)]
        return torch.stack([change for change, _ in found]).mean(dim=0), [after for _, after in found]


def change_network(
    cell: str, inputs: int, hidden_size: int, members: int, precision: str, head_size: int
) -> ChangeNetwork | ChangeEnsemble:
    """A network, or several."""
    made = [ChangeNetwork(cell, inputs, hidden_size, precision, head_size) for _ in range(members)]
    return made[0] if members == 1 else ChangeEnsemble(made)
