"""Running a layer on the reference backend and recording its intermediate values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatedcells.functional.inputs import zero_beyond_lengths
from gatedcells.reference import gru, lstm, rnn
from gatedcells.reference.time import boundaries
from gatedcells.reference.variants import PLAIN, Variant
from gatedcells.trace.record import STATES, DirectionTrace, State
from gatedcells.validation import check_sequence


class Recorder:
    """Runs a layer's directions one after the other on the reference backend, and records them."""

    def __init__(self, kind: str, names: Sequence[str], *, reset_after: bool, retain_grad: bool) -> None:
        self.kind = kind
        self.names = names  # of a direction's weights, as the layer lists them
        self.reset_after = reset_after
        self.retain_grad = retain_grad
        self.rows: Tensor | None = None  # where the rows as given lie among those that come
        self.directions: list[DirectionTrace] = []

    def one(
        self,
        input: Tensor,
        state: State,
        given: Sequence[Tensor],
        reverse: bool,
        lengths: Tensor | None,
        resets: Tensor | None,
        variant: Variant = PLAIN,
    ) -> tuple[Tensor, State]:
        """One direction: all hidden states ``[T, B, ...]`` and the last states."""
        check_sequence(input, lengths, resets)
        weights = dict(zip(self.names, given, strict=True))
        x = zero_beyond_lengths(input, lengths)
        forgets = boundaries(resets, lengths, reverse)
        read = weights["weight_ih"], weights.get("bias_ih")
        recurrent = {name: weights[name] for name in ("bias_hh", "weight_hr") if name in weights}
        options: dict[str, Any] = {"lengths": lengths, "resets": forgets, "reverse": reverse, **recurrent}
        if self.kind == "RNN":
            projection = torch.nn.functional.linear(x, *read)
            walk: Any = rnn.iterate(projection, state[0], weights["weight_hh"], weights.get("bias_hh"))
        elif self.kind == "GRU":
            projection = gru.project_input(x, *read, variant)
            options |= {"reset_after": self.reset_after, "variant": variant}
            walk = gru.iterate(projection, state[0], weights["weight_hh"], **options)
        else:
            projection = lstm.project_input(x, *read, variant)
            walk = lstm.iterate(
                projection, state[0], state[1], weights["weight_hh"], variant=variant, **options
            )
        steps: dict[int, Any] = {}
        last: Any = None
        for t, last in walk:
            steps[t] = last
            if self.retain_grad:
                for value in last:
                    if value.requires_grad:
                        value.retain_grad()
        which, told = (self.kind, self.reset_after, reverse), (lengths, forgets, steps, self.rows)
        found = DirectionTrace(*which, x, state, weights, *told, variant.words())
        self.directions.append(found)
        return torch.stack(found.values("hidden")), tuple(getattr(last, name) for name in STATES[self.kind])
