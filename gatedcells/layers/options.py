"""The options of `GRU(...)` and `LSTM(...)` that change the cell: names, checks, parameters and random masks.

The equations are in `gatedcells.reference.variants`.
"""

from __future__ import annotations  # the compiler cannot trace the annotations of inner functions

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from gatedcells.layers.stack import dropout_mask, uniform
from gatedcells.reference.variants import PLAIN, Edit, Variant

if TYPE_CHECKING:
    from gatedcells.layers.base import RecurrentLayer


class CellOptions(NamedTuple):
    """The options that change what a cell computes; all off by default.

    Attributes:
        layer_norm: normalise ``W x``, ``U h`` and the LSTM's cell state (Ba et al. 2016, arXiv:1607.06450).
        peephole: the LSTM's gates also read the cell state (Gers & Schmidhuber 2000).
        zoneout: probability of keeping a state's old value, in ``eval()`` the expectation; for the LSTM a
            pair ``(hidden, cell)`` (Krueger et al. 2016, arXiv:1606.01305).
        recurrent_dropout: dropout of the candidate, a new mask each step (Semeniuta et al. 2016,
            arXiv:1603.05118).
        state_dropout: dropout of the state that ``U`` multiplies, the same mask at all steps (Gal &
            Ghahramani 2016, arXiv:1512.05287).
        input_dropout: dropout of each layer's input, the same mask at all steps (the same paper).
        dropconnect: dropout of the elements of weight_hh, a new mask each call (Merity et al. 2017,
            arXiv:1708.02182).
    """

    layer_norm: bool = False
    peephole: bool = False
    zoneout: tuple[float, ...] = ()
    recurrent_dropout: float = 0.0
    state_dropout: float = 0.0
    input_dropout: float = 0.0
    dropconnect: float = 0.0

    def in_the_recurrence(self, training: bool) -> CellOptions:
        """Those alone that the steps see, not what happens to inputs and weights before."""
        # not by _replace, which torch's compiler before 2.9 does not trace
        dropouts = (self.recurrent_dropout, self.state_dropout) if training else (0.0, 0.0)
        return CellOptions(self.layer_norm, self.peephole, self.zoneout, *dropouts)

    def words(self) -> list[str]:
        """Those that are on, as they would be written."""
        shown: dict[str, Any] = dict(zip(CellOptions._fields, self, strict=True))
        if len(self.zoneout) == 1:
            shown["zoneout"] = self.zoneout[0]
        return [f"{name}={value}" for name, value in shown.items() if value not in (False, 0.0, ())]


PLAIN_OPTIONS = CellOptions()


def checked(
    states: int,
    zoneout: float | tuple[float, float],
    *,
    layer_norm: bool,
    peephole: bool = False,
    **probabilities: float,
) -> CellOptions:
    """The options of a cell with so many states.

    Raises:
        TypeError: layer_norm or peephole is not bool.
        ValueError: a probability is none, or zoneout has too many of them.
    """
    for name, value in (("layer_norm", layer_norm), ("peephole", peephole)):
        if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{name} must be True or False, got {value!r}")
    shares = zoneout if isinstance(zoneout, tuple) else (zoneout,) * states
    if len(shares) != states:
        pair = " or a pair (hidden, cell)" * (states == 2)
        raise ValueError(f"zoneout must be a probability{pair}, got {zoneout!r}")
    for name, p in [*probabilities.items(), *(("zoneout", share) for share in shares)]:
        if isinstance(p, bool) or not 0 <= p <= 1:
            raise ValueError(f"{name} must be a probability in 0..1, got {p!r}")
    return CellOptions(layer_norm, peephole, shares if any(shares) else (), **probabilities)


def register(layer: RecurrentLayer, **factory: Any) -> None:
    """Give a layer the parameters that its options want, for each layer and direction ``..._l{k}``, with
    ``_reverse`` for the second direction: norm_ih, norm_hh ``[G*H]``; of the LSTM norm_cell, norm_cell_shift
    ``[H]`` and peephole ``[3, H]``."""
    H, lstm = layer.hidden_size, layer.mode == "LSTM"
    shapes: dict[str, tuple[int, ...]] = {}
    if layer.options.layer_norm:
        G = 4 if lstm else 3
        shapes |= {"norm_ih": (G * H,), "norm_hh": (G * H,)}
        shapes |= {"norm_cell": (H,), "norm_cell_shift": (H,)} if lstm else {}
    if layer.options.peephole:
        shapes["peephole"] = (3, H)
    for suffix in suffixes(layer):
        for name, shape in shapes.items():
            layer.register_parameter(f"{name}{suffix}", nn.Parameter(torch.empty(shape, **factory)))


def suffixes(layer: RecurrentLayer) -> list[str]:
    """``_l0``, ``_l0_reverse``, ... as torch writes them, one for each row of the states."""
    return [names[0].removeprefix("weight_ih") for names in layer._all_weights]


def variants(
    layer: RecurrentLayer,
    input: Tensor,
    edits: Sequence[Edit | None],
    generator: torch.Generator | None,
) -> list[Variant]:
    """For each direction of each layer what its cell does in this call beyond its plain equations.

    Masks are drawn here, outside of every backend: in training, layer by layer and direction by direction,
    first the one of the state, then that of the candidate, then zoneout's.

    Args:
        layer: whose options, parameters and mode (training or not) count.
        input: ``[T, B, I]``.
        edits: for each row of the states what sees its gates.
        generator: draws the masks; None: torch's own.
    """
    # as plain tuples: to torch 2.11's compiler any two of a class of one's own are equal
    if tuple(layer.options) == tuple(PLAIN_OPTIONS) and not any(edits):
        return [PLAIN] * len(edits)
    options, (T, B, _), H = layer.options, input.shape, layer.hidden_size
    widths = (layer.proj_size or H, H)
    found: list[Variant] = []
    for suffix, edit in zip(suffixes(layer), edits, strict=True):
        of = {name: getattr(layer, f"{name}{suffix}", None) for name in ("norm_ih", "norm_hh", "peephole")}
        parts: dict[str, Any] = {}  # no _replace: up to torch 2.6 the compiler does not trace it
        if options.layer_norm or options.peephole or edit is not None:
            gain, shift = (getattr(layer, f"norm_cell{end}{suffix}", None) for end in ("", "_shift"))
            parts = {"gain_ih": of["norm_ih"], "gain_hh": of["norm_hh"], "cell_gain": gain,
                     "cell_shift": shift, "peephole": of["peephole"], "edit": edit}  # fmt: skip
        if layer.training and options.state_dropout:
            parts["read"] = dropout_mask((B, widths[0]), options.state_dropout, input, generator)
        if layer.training and options.recurrent_dropout:
            parts["written"] = dropout_mask((T, B, H), options.recurrent_dropout, input, generator)
        if options.zoneout:
            parts["kept"] = tuple(
                _zoneout((T, B, width), p, layer.training, input, generator)
                for width, p in zip(widths, options.zoneout)  # noqa: B905 (the GRU has one state)
            )
        found.append(Variant(**parts) if parts else PLAIN)
    return found


def _zoneout(
    shape: Sequence[int], p: float, training: bool, input: Tensor, generator: torch.Generator | None
) -> Tensor | float | None:
    if p == 0:
        return None
    if not training:
        return p
    return uniform(shape, input, generator) < p


def drop_connections(layer: RecurrentLayer, generator: torch.Generator | None) -> list[list[Tensor]]:
    """The weights of each direction of each layer, of weight_hh with numbers dropped where that is asked."""
    weights: Any = layer.all_weights
    p = layer.options.dropconnect
    if not (p and layer.training):
        return weights
    dropped: list[list[Tensor]] = []
    for weight_ih, weight_hh, *rest in weights:
        dropped.append([weight_ih, weight_hh * dropout_mask(weight_hh.shape, p, weight_hh, generator), *rest])
    return dropped


def drop_inputs(layer: RecurrentLayer, generator: torch.Generator | None) -> Any:
    """What happens to each layer's input ``[T, B, I]``: one mask for all steps; None if nothing does."""
    p = layer.options.input_dropout
    if not (p and layer.training):
        return None

    def before(input: Tensor) -> Tensor:
        return input * dropout_mask(input.shape[1:], p, input, generator)

    return before
