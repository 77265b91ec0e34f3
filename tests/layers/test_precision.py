"""``precision=``: what is stated is computed, or the call says who could and which flag to set; and
what each backend promises bit by bit."""

import pytest
import torch

import gatedcells
from gatedcells.testing import assert_within_budget
from tests.support.inputs import OURS, as_double, pair
from tests.support.triton_device import device as device

BACKENDS = ("cpu", "reference")


@pytest.fixture
def backend():
    """Instead of this folder's fixture: the tests here say themselves who computes."""


@pytest.fixture
def flag():
    """Sets what torch's products of float32 may be, and puts it back."""
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision("highest")


def gradients(layer, x):
    x = x.clone().requires_grad_()
    output = layer(x)[0]
    return output.detach(), *torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("who", [*BACKENDS, "auto"])
def test_ieee_is_what_everybody_does_by_default(name, who):
    torch.manual_seed(0)
    plain, stated = OURS[name](3, 8, 2, backend=who), OURS[name](3, 8, 2, backend=who, precision="ieee")
    stated.load_state_dict(plain.state_dict())
    x = torch.randn(5, 2, 3)
    for a, b in zip(gradients(plain, x), gradients(stated, x), strict=True):
        assert torch.equal(a, b)
    assert repr(stated).endswith("precision='ieee')")


@pytest.mark.parametrize("who", [*BACKENDS, "auto"])
@pytest.mark.parametrize("level", ["high", "medium"])
def test_ieee_is_refused_where_torchs_flags_allow_less(flag, who, level):
    layer, x = gatedcells.GRU(3, 4, backend=who, precision="ieee"), torch.randn(5, 2, 3)
    layer(x)
    with torch.no_grad():
        layer(x)
    flag(level)
    for gradients in (True, False):  # a call like the last is not checked again, but this one is
        with (
            torch.set_grad_enabled(gradients),
            pytest.raises(gatedcells.BackendUnavailable, match=r"set_float32_matmul_precision\('highest'\)"),
        ):
            layer(x)
    gatedcells.GRU(3, 4, backend=who)(x)  # nobody asked
    flag("highest")
    layer(x)


def test_tf32_is_refused_on_a_cpu_by_name(flag):
    flag("high")
    x = torch.randn(5, 2, 3)
    for who in (*BACKENDS, "auto"):
        with pytest.raises(
            gatedcells.BackendUnavailable, match="tf32 exists on NVIDIA's tensor cores only, got cpu"
        ):
            gatedcells.LSTM(3, 4, backend=who, precision="tf32")(x)
    said = gatedcells.explain_backend(gatedcells.LSTM(3, 4, precision="tf32"), x)
    assert said.startswith("LSTM sequence with precision='tf32' on cpu, float32")
    assert "cpu        cannot run: tf32 exists on NVIDIA's" in said


def test_triton_multiplies_as_stated_or_names_the_flag(device, flag):
    torch.manual_seed(0)
    layer = gatedcells.GRU(8, 16, backend="triton", device=device)
    x = torch.randn(4, 16, 8, device=device)
    by_ieee = layer(x)[0]
    layer.precision = "tf32"
    with pytest.raises(gatedcells.BackendUnavailable, match=r"set_float32_matmul_precision\('high'\)"):
        layer(x)
    flag("high")
    by_tf32 = layer(x)[0]
    assert 0 < (by_tf32 - by_ieee).abs().max() < 2**-8  # 10 digits of each factor
    layer.precision = "ieee"
    with pytest.raises(gatedcells.BackendUnavailable, match=r"set_float32_matmul_precision\('highest'\)"):
        layer(x)
    assert "triton     cannot run: torch's flags select tf32" in gatedcells.explain_backend(layer, x)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("who", BACKENDS)
def test_bf16_is_a_bfloat16_layer_with_results_in_float32(name, who):
    torch.manual_seed(0)
    ours, theirs = pair(name, 6, 8, num_layers=2, bidirectional=True)
    ours.backend, ours.precision = who, "bf16"
    x = torch.randn(12, 9, 6).bfloat16().float()
    found = gradients(ours, x)
    assert all(value.dtype == torch.float32 for value in found)
    exact = gradients(as_double(theirs), x.double())
    rival = gradients(theirs.bfloat16(), x.bfloat16())
    for number, (f, e, r) in enumerate(zip(found, exact, rival, strict=True)):
        assert_within_budget(f.bfloat16(), exact=e, rival=r, name=f"number {number}")
    assert (found[0] - exact[0]).abs().max() > 2**-12  # and float32 it is not


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda x: gatedcells.GRU(3, 4, precision="fp8"), ValueError,
         "precision must be None or one of 'ieee', 'tf32', 'bf16', got 'fp8'"),
        (lambda x: gatedcells.GRU(3, 4, precision="ieee").bfloat16()(x.bfloat16()), RuntimeError,
         "precision='ieee' applies to float32 only, got bfloat16"),
        (lambda x: gatedcells.GRU(3, 4, precision="tf32").double()(x.double()), RuntimeError,
         "precision='tf32' applies to float32 only, got float64"),
        (lambda x: gatedcells.GRU(3, 4, precision="bf16").double()(x.double()), ValueError,
         "precision='bf16' applies to float32 only, got an input of torch.float64"),
        (lambda x: gatedcells.GRU(3, 4, precision="bf16")(x, return_gates=True), ValueError,
         "precision='bf16' does not support return_gates"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(run, error, message):
    with pytest.raises(error, match=message):
        run(torch.randn(5, 2, 3))


def test_autocast_contradicts_a_stated_precision():
    layer = gatedcells.GRU(3, 4, precision="ieee")
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(gatedcells.BackendUnavailable, match="applies to float32 only, got bfloat16"),
    ):
        layer(torch.randn(5, 2, 3))


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("who", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_call_repeated_gives_the_same_bits_forward_and_backward(name, who, dtype):
    torch.manual_seed(0)
    layer = OURS[name](5, 33, 2, bidirectional=True, backend=who).to(dtype)
    x = torch.randn(17, 7, 5).to(dtype)
    for a, b in zip(gradients(layer, x), gradients(layer, x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_the_cpu_kernels_a_rows_bits_do_not_depend_on_the_rest_of_its_batch(name, dtype):
    torch.manual_seed(0)
    layer = OURS[name](5, 33, 2, bidirectional=True, backend="cpu").to(dtype)
    x = torch.randn(9, 23, 5).to(dtype)
    whole = layer(x)[0]
    for rows in ([0], [22], [3, 4], list(range(5, 20))):
        assert torch.equal(layer(x[:, rows])[0], whole[:, rows])


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_on_the_reference_a_rows_value_depends_on_its_batch_by_rounding_alone(name):
    torch.manual_seed(0)
    layer = OURS[name](5, 33, backend="reference")
    x = torch.randn(9, 23, 5)
    whole, exact = layer(x)[0], as_double(layer)(x.double())[0]
    for row in (0, 22):
        assert_within_budget(layer(x[:, [row]])[0], exact=exact[:, [row]], rival=whole[:, [row]])


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_trace_computes_what_is_stated_or_says_who_does(name, flag):
    x = torch.randn(4, 2, 3)
    with pytest.raises(ValueError, match="precision='bf16' does not support trace.*layer.precision = None"):
        OURS[name](3, 4, precision="bf16").trace(x)
    with pytest.raises(gatedcells.BackendUnavailable, match="tf32"):
        OURS[name](3, 4, precision="tf32").trace(x)
    stated = OURS[name](3, 4, precision="ieee")
    torch.testing.assert_close(stated.trace(x).output, stated(x)[0])
    flag("high")
    with pytest.raises(gatedcells.BackendUnavailable, match="highest"):
        stated.trace(x)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("asked", [{}, {"return_gates": True}])
def test_ieee_refuses_bfloat16_of_autocast_whatever_is_returned(name, asked):
    layer = OURS[name](3, 4, precision="ieee")
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="applies to float32 only"):
        layer(torch.randn(4, 2, 3), **asked)


def test_what_bf16_does_not_go_with_is_named():
    layer = OURS["GRU"](3, 4, layer_norm=True, precision="bf16")
    with pytest.raises(ValueError, match="precision='bf16' does not support layer_norm"):
        layer(torch.randn(4, 2, 3), return_states=True)


def mixed(name):
    """Calls under autocast in which some tensors are float64, which autocast leaves alone."""
    x = torch.randn(4, 2, 3)
    zeros = (torch.zeros(1, 2, 4, dtype=torch.float64),) * (2 if name == "LSTM" else 1)
    hx = zeros if name == "LSTM" else zeros[0]
    step = tuple(part[0] for part in zeros) if name == "LSTM" else zeros[0][0]
    layer, cell = OURS[name](3, 4), OURS[f"{name}Cell"](3, 4)
    return {
        "input": lambda: layer(x.double()),
        "input of both directions": lambda: OURS[name](3, 4, bidirectional=True)(x.double()),
        "state": lambda: layer(x, hx),
        "weights": lambda: OURS[name](3, 4, dtype=torch.float64)(x),
        "input of a cell": lambda: cell(x[0].double()),
        "state of a cell": lambda: cell(x[0], step),
        "input of a step": lambda: layer.step(x[0].double()),
        "gates": lambda: layer(x.double(), return_gates=True),
    }


@pytest.mark.parametrize("what", list(mixed("GRU")))
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("who", [*BACKENDS, "auto"])
def test_float64_beside_what_autocast_casts_is_refused(name, who, what):
    run = mixed(name)[what]
    refusal = "same dtype|usable here: 'reference'"
    with gatedcells.use_backend(who), torch.autocast("cpu", torch.bfloat16):  # noqa: SIM117
        with pytest.raises((ValueError, RuntimeError), match=refusal):
            run()
