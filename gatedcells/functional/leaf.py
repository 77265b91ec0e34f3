"""Modules as leaves of graphs that ``torch.fx`` traces symbolically, as torch's own layers are."""

from typing import Any

from torch import nn
from torch.fx import Proxy


def is_symbolic(input: Any) -> bool:
    """Whether a module is being traced by ``torch.fx``: its input is a name for a value yet to come."""
    return type(input) is Proxy


def call(module: nn.Module, input: Any, **keywords: Any) -> Any:
    """A node that calls the module. Keywords that are None are left out."""
    given = {name: value for name, value in keywords.items() if value is not None}
    path = input.tracer.path_of_module(module)
    return input.tracer.create_proxy("call_module", path, (input,), given)
