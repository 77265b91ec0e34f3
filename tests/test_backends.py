"""The choice of a backend: explicit ones run or raise, automatic ones can be asked why."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import gatedcells
from gatedcells import BackendUnavailable, backends
from tests.support.triton_device import without_interpreter as without_interpreter

pytestmark = pytest.mark.usefixtures("without_interpreter")


@pytest.fixture
def layer():
    return gatedcells.GRU(3, 4)


X = torch.zeros(5, 2, 3)


@pytest.mark.parametrize("name", ["GRU", "LSTM", "GRUCell", "LSTMCell"])
def test_an_unknown_backend_is_refused_at_construction(name):
    with pytest.raises(
        ValueError, match="backend must be one of 'auto', 'triton', 'cpu', 'reference', got 'cudnn'"
    ):
        getattr(gatedcells, name)(3, 4, backend="cudnn")


def test_an_explicit_backend_that_cannot_run_raises_and_names_what_can():
    layer = gatedcells.GRU(3, 4, backend="triton")
    expected = (
        "backend='triton' cannot run this GRU sequence on cpu, float32: needs a tensor on cuda, got cpu;"
        " usable here: .*'reference'"
    )
    with pytest.raises(BackendUnavailable, match=expected):
        layer(X)
    with pytest.raises(BackendUnavailable, match="cannot run this LSTM step"):
        gatedcells.LSTMCell(3, 4, backend="triton")(X[0])


def test_the_context_manager_applies_inside_only_and_nests(layer):
    with gatedcells.use_backend("triton"):
        with pytest.raises(BackendUnavailable, match="use_backend='triton' cannot run"):
            layer(X)
        with gatedcells.use_backend("reference"):
            layer(X)
        with pytest.raises(BackendUnavailable):
            layer(X)
    layer(X)
    with pytest.raises(ValueError, match="backend must be one of"), gatedcells.use_backend("fast"):
        pass


def test_the_context_manager_restores_after_an_error(layer):
    with pytest.raises(ZeroDivisionError), gatedcells.use_backend("triton"):
        raise ZeroDivisionError
    layer(X)


def test_the_environment_variable_is_asked_last(layer, monkeypatch):
    monkeypatch.setenv("GATEDCELLS_BACKEND", "triton")
    with pytest.raises(BackendUnavailable, match="GATEDCELLS_BACKEND='triton' cannot run"):
        layer(X)
    with gatedcells.use_backend("reference"):
        layer(X)
    gatedcells.GRU(3, 4, backend="reference")(X)
    monkeypatch.setenv("GATEDCELLS_BACKEND", "quick")
    with pytest.raises(ValueError, match="GATEDCELLS_BACKEND must be one of .*, got 'quick'"):
        layer(X)


def test_a_modules_own_backend_is_the_most_binding():
    with gatedcells.use_backend("reference"), pytest.raises(BackendUnavailable, match="^backend='triton'"):
        gatedcells.GRU(3, 4, backend="triton")(X)


def test_a_compiled_layer_obeys_a_later_choice(layer):
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    compiled(X)
    with (
        gatedcells.use_backend("triton"),
        pytest.raises(Exception, match="cannot run this GRU|Observed exception"),
    ):
        compiled(X)
    compiled(X)


def test_explanation_names_every_backend_and_why(layer):
    text = gatedcells.explain_backend(layer, X)
    lines = text.splitlines()
    assert lines[0] == "GRU sequence on cpu, float32; no backend was requested"
    assert [line.split()[0] for line in lines[1:]] == list(backends.NAMES)
    assert sum("CHOSEN" in line for line in lines) == 1
    assert "triton     cannot run: needs a tensor on cuda, got cpu" in text


def test_explanation_of_an_explicit_backend_says_so_and_does_not_raise():
    layer = gatedcells.LSTM(3, 4, backend="triton")
    text = gatedcells.explain_backend(layer, pack_sequence([X[:, 0]]))
    assert text.startswith("LSTM sequence on cpu, float32; backend='triton'")
    assert "CHOSEN" not in text
    assert "reference  could run" in text
    assert "GRU step" in gatedcells.explain_backend(gatedcells.GRUCell(3, 4), X[0])
    with pytest.raises(TypeError, match="must be a gatedcells layer or cell, got Linear"):
        gatedcells.explain_backend(torch.nn.Linear(3, 4), X)


def test_explanation_is_what_happens(layer):
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.namespace)
            return func(*args, **(kwargs or {}))

    assert "one operator for the whole sequence" in gatedcells.explain_backend(layer, X)
    with Watch():
        layer(X)
    assert seen.count("gatedcells") == 1
    complex_layer = gatedcells.GRU(3, 4, dtype=torch.complex64)
    assert "plain torch operations" in gatedcells.explain_backend(complex_layer, X.to(torch.complex64))
    seen.clear()
    with Watch():
        complex_layer(X.to(torch.complex64))
    assert "gatedcells" not in seen


def test_what_is_explained_under_autocast_is_what_is_done():
    layer, x = gatedcells.GRU(3, 4), torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.float16):
        said = gatedcells.explain_backend(layer, x)
    assert "float16" in said
    assert next(line for line in said.splitlines() if "CHOSEN" in line).startswith("  reference")
    with torch.autocast("cpu", torch.bfloat16):
        assert "bfloat16" in gatedcells.explain_backend(layer, x)
