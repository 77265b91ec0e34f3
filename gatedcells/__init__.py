"""Gated recurrent cells written from their equations: drop-in replacements for torch.nn's.

`GRU`, `LSTM`, `GRUCell` and `LSTMCell` replace torch's; `convert` converts a whole model. `Cell` and
`Recurrent` make layers of your own cell. The equations are in `gatedcells.reference`, pure functions in
`gatedcells.functional`, and backends are described in `gatedcells.backends`. `gatedcells.forecast`,
`gatedcells.interop` and `gatedcells.testing` are imported on first use.
"""

import importlib as _importlib
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING

from gatedcells._ops import empty_cache as empty_cache
from gatedcells.backends import BackendUnavailable as BackendUnavailable
from gatedcells.backends import use_backend as use_backend
from gatedcells.cells import GRUCell as GRUCell
from gatedcells.cells import LSTMCell as LSTMCell
from gatedcells.cells.custom import Cell as Cell
from gatedcells.conversion import convert as convert
from gatedcells.conversion import revert as revert
from gatedcells.explain import explain_backend as explain_backend
from gatedcells.functional import gru_sequence as gru_sequence
from gatedcells.functional import gru_step as gru_step
from gatedcells.functional import lstm_sequence as lstm_sequence
from gatedcells.functional import lstm_step as lstm_step
from gatedcells.layers import GRU as GRU
from gatedcells.layers import LSTM as LSTM
from gatedcells.layers.beyond import GateAt as GateAt
from gatedcells.layers.recurrent import Recurrent as Recurrent
from gatedcells.states import LSTMState as LSTMState
from gatedcells.states import detach_state as detach_state
from gatedcells.trace.diagnose import diagnose as diagnose
from gatedcells.trace.gradient_flow import gradient_flow as gradient_flow

__version__ = "0.1.0"

if _TYPE_CHECKING:
    from gatedcells import forecast as forecast
    from gatedcells import interop as interop
    from gatedcells import testing as testing

_WHEN_NAMED = ("forecast", "interop", "testing")


def _named(name: str) -> _ModuleType:
    if name in _WHEN_NAMED:
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _names() -> list[str]:
    return sorted({*globals(), *_WHEN_NAMED})


# not by `def`: a checker that saw a module's __getattr__ would take every misspelt name for one that is there
globals().update(__getattr__=_named, __dir__=_names)
