"""What one may do with a recurrent layer as a module: copy, save, script, wrap. As in `transforms`."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.support.transforms import gradients_of, make_input, make_layer


def deep_copy(cls):
    """`copy.deepcopy`"""
    layer = make_layer(cls, num_layers=2)
    twin, x = copy.deepcopy(layer), make_input()
    found = [twin(x)[0], *gradients_of(twin, twin(x)[0])]
    with torch.no_grad():
        twin.weight_hh_l0.zero_()
    return found, [layer(x)[0], *gradients_of(layer, layer(x)[0])]


def pickled(cls):
    """`pickle`"""
    layer = make_layer(cls, num_layers=2)
    x = make_input()
    return [pickle.loads(pickle.dumps(layer))(x)[0]], [layer(x)[0]]


def saved_state(cls):
    """`torch.save` of a `state_dict`, loaded by torch's own"""
    layer = make_layer(cls, num_layers=2)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    theirs = getattr(torch.nn, layer.mode)(layer.input_size, layer.hidden_size, 2, dtype=torch.float64)
    theirs.load_state_dict(torch.load(file))
    x = make_input()
    return [theirs(x)[0]], [layer(x)[0]]


def other_parameters(cls):
    """`torch.func.functional_call` with other parameters, and their gradients"""
    layer = make_layer(cls, num_layers=2)
    x = make_input()
    halves = {name: (p.detach() / 2).requires_grad_() for name, p in layer.named_parameters()}
    called = functional_call(layer, halves, (x,))[0]
    twin = make_layer(cls, num_layers=2)
    twin.load_state_dict(halves)
    found = torch.autograd.grad(called.square().sum(), list(halves.values()))
    return [called, *found], [twin(x)[0], *gradients_of(twin, twin(x)[0])]


def weight_norm(cls):
    """`parametrizations.weight_norm` of a recurrent weight"""
    layer, plain = make_layer(cls), make_layer(cls)
    parametrizations.weight_norm(layer, "weight_hh_l0")
    layer.parametrizations.weight_hh_l0.original0.data.mul_(2)
    plain.weight_hh_l0.data.mul_(2)
    x = make_input()
    return [layer(x)[0]], [plain(x)[0]]


def activation_checkpoint(cls):
    """`torch.utils.checkpoint`"""
    layer = make_layer(cls, num_layers=2)
    x = make_input().requires_grad_()
    output = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
    return [output, *gradients_of(layer, output)], [layer(x)[0], *gradients_of(layer, layer(x)[0])]


class _Inside(nn.Module):
    """torch.jit scripts torch's own layers as part of another module."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor):
        return self.layer(x)[0]


def _scripted(script, layer):
    inside, x = _Inside(layer), make_input()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates all of torch.jit
        found = script(inside, x)(x)
    return [found], [inside(x)]


def tracing(cls):
    """`torch.jit.trace`"""
    return _scripted(lambda inside, x: torch.jit.trace(inside, (x,)), make_layer(cls))


def tracing_for_inference(cls):
    """`torch.jit.trace` under `torch.no_grad()`"""
    with torch.no_grad():
        return _scripted(lambda inside, x: torch.jit.trace(inside, (x,)), make_layer(cls))


def scripting(cls):
    """`torch.jit.script`"""
    return _scripted(lambda inside, _: torch.jit.script(inside), make_layer(cls))


WHOLE_MODULES = (
    other_parameters,
    weight_norm,
    activation_checkpoint,
    deep_copy,
    pickled,
    saved_state,
    tracing_for_inference,
    tracing,
    scripting,
)
