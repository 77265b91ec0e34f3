"""compile, vmap, derivatives of every order, export, copies: ours do what docs/transforms.md says, by every
backend. Torch's columns: tests/test_transforms_page.py."""

import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
from torch._dynamo import symbolic_convert
from torch.nn.utils.rnn import pack_padded_sequence

import gatedcells
from gatedcells.reference import scan
from tests.support import transforms_table
from tests.support.inputs import OURS
from tests.support.transforms import TRANSFORMS
from tests.support.whole_modules import WHOLE_MODULES

needs_scan = pytest.mark.skipif(
    not scan.AVAILABLE, reason="before torch 2.13 an exported program holds our operator, not a scan"
)


@pytest.fixture(scope="module")
def page():
    return transforms_table.cells()


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("transform", [*TRANSFORMS, *WHOLE_MODULES], ids=lambda t: t.__name__)
def test_ours_do_what_the_page_says(page, transform, name):
    transforms_table.agrees(page[transform.__name__][f"gatedcells.{name}"], transform, OURS[name])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_cuda_graph_repeats_a_layer(name):
    layer = OURS[name](3, 4, num_layers=2, bidirectional=True, device="cuda")
    x = torch.randn(5, 2, 3, device="cuda")
    with torch.no_grad():
        layer(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output, _ = layer(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.equal(output, layer(x)[0])


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
@pytest.mark.parametrize("options", [{}, {"layer_norm": True, "zoneout": 0.1}], ids=str)
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_an_export_does_not_wait_for_the_compiler(name, options):
    """Not strict, which is the default; torch's own way into a scan is through its compiler."""
    layer = OURS[name](3, 4, bidirectional=True, **options).eval()
    with patch.object(symbolic_convert, "InstructionTranslator", side_effect=AssertionError("compiles")):
        torch.export.export(layer, (torch.randn(5, 2, 3),))


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
    jacobian = torch.autograd.functional.jacobian(first, x[0])
    torch.testing.assert_close(tangent, jacobian.flatten(tangent.dim()).sum(-1))
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
