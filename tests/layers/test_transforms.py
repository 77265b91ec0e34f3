"""compile, vmap, derivatives of every order, export, autocast: ours do them all, and where torch's own
layers cannot, the same test says so."""

import subprocess
import sys

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import gatedcells
from gatedcells.reference import scan
from tests.support import transforms
from tests.support.inputs import OURS, TORCHS

COMPILED = {
    transforms.full_graph_compile,
    transforms.full_graph_compile_with_inductor,
    transforms.compile_with_dynamic_time_and_batch,
    transforms.compile_under_autocast,
    transforms.compile_of_vmap,
    transforms.export_with_dynamic_time_and_batch,
    transforms.strict_export_with_dynamic_time_and_batch,
}
FORWARD_MODE = {transforms.jvp, transforms.jvp_in_float32, transforms.dual_numbers, transforms.hessian}
MAPPED = {transforms.vmap_over_inputs, transforms.vmap_over_an_ensemble}
# On the CPU; with cuDNN double backward and gradients in eval mode fail as well.
TORCH_CANNOT = {
    "GRU": COMPILED
    | MAPPED
    | {
        transforms.per_sample_gradients,
        transforms.autocast_to_bfloat16,
        transforms.autocast_to_float16,
        transforms.skip_init,
    },
    "LSTM": COMPILED
    | MAPPED
    | {
        transforms.per_sample_gradients,  # in float64; in float32 it can, slowly and with a warning
        transforms.jvp_in_float32,
        transforms.autocast_to_float16,
        transforms.skip_init,
    },
}
# derivatives against central differences of step 1e-5, compiled code against eager, lower precision
TOLERANCE = {
    **dict.fromkeys(FORWARD_MODE - {transforms.hessian}, 1e-8),
    transforms.jvp_in_float32: 2e-3,
    transforms.compile_under_autocast: 2**-7,
    transforms.autocast_to_bfloat16: 2**-7,
    transforms.autocast_to_float16: 2**-10,
}


needs_scan = pytest.mark.skipif(
    not scan.AVAILABLE, reason="before torch 2.13 an exported program holds our operator, not a scan"
)


def holds(transform, cls):
    found, expected = transform(cls)
    assert len(found) == len(expected) > 0
    tolerance = TOLERANCE.get(transform, 1e-12)
    for actual, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("transform", transforms.TRANSFORMS, ids=lambda t: t.__name__)
def test_ours_do(name, transform):
    holds(transform, OURS[name])


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("transform", transforms.TRANSFORMS, ids=lambda t: t.__name__)
def test_torchs_own_do_unless_listed_as_failing(name, transform):
    if transform in TORCH_CANNOT[name]:
        with pytest.raises(Exception):  # noqa: B017 each failure has a type of its own
            holds(transform, TORCHS[name])
    else:
        holds(transform, TORCHS[name])


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_the_compiled_graph_does_not_grow_with_the_number_of_steps(name):
    sizes = []

    def count(graph, _):
        sizes.append(len(graph.graph.nodes))
        return graph

    for T in (2, 200):
        torch._dynamo.reset()
        torch.compile(OURS[name](3, 4), fullgraph=True, backend=count)(torch.randn(T, 2, 3))
    assert sizes[0] == sizes[1]


@needs_scan
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_the_exported_graph_does_not_grow_and_needs_none_of_our_operators(name):
    sizes = []
    for T in (3, 50):
        program = torch.export.export(OURS[name](3, 4).eval(), (torch.randn(T, 2, 3),))
        operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert not any("gatedcells" in operator for operator in operators)
        sizes.append(len(program.graph.nodes))
    assert sizes[0] == sizes[1]


@needs_scan
def test_an_exported_program_runs_where_the_library_is_not_installed(tmp_path):
    layer = gatedcells.GRU(3, 4).eval()
    x = torch.randn(5, 2, 3)
    dynamic = ({0: torch.export.Dim("T"), 1: torch.export.Dim("B")},)
    program = torch.export.export(layer, (x,), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "gru.pt2")
    longer = torch.randn(17, 1, 3)
    torch.save((longer, layer(longer)[0].detach()), tmp_path / "expected.pt")
    script = (
        "import sys, torch\n"
        "sys.modules['gatedcells'] = sys.modules['gatedcells_kernels'] = None\n"
        f"x, expected = torch.load({str(tmp_path / 'expected.pt')!r})\n"
        f"output, _ = torch.export.load({str(tmp_path / 'gru.pt2')!r}).module()(x)\n"
        "torch.testing.assert_close(output, expected)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cell", ["GRUCell", "LSTMCell"])
def test_cells_compile_map_and_differentiate(cell):
    module = OURS[cell](3, 4, dtype=torch.float64)
    x = torch.randn(6, 2, 3, dtype=torch.float64)

    def first(x):
        return torch.utils._pytree.tree_leaves(module(x))[0]

    torch._dynamo.reset()
    assert torch.equal(torch.compile(first, fullgraph=True, backend="aot_eager")(x[0]), first(x[0]))
    torch.testing.assert_close(torch.vmap(first)(x), torch.stack([first(one) for one in x]))
    _, tangent = torch.func.jvp(first, (x[0],), (torch.ones_like(x[0]),))
    assert tangent.abs().min() > 0
    assert torch.autograd.gradgradcheck(first, (x[0].requires_grad_(),))


def test_packed_sequences_have_every_derivative():
    layer = OURS["GRU"](2, 3, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(5, 3, 2, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([3, 5, 1]), enforce_sorted=False)

    def run(data):
        return layer(packed._replace(data=data))[0].data

    data = packed.data.requires_grad_()
    assert torch.autograd.gradcheck(run, (data,), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, (data,))
