"""What one may ask of a recurrent layer beyond calling it, as functions of any library's class.

Each takes the class of a layer (ours or torch's) and returns what it computed together with the same
computed the plain way, in float64; or raises, where the library cannot. The docstring is its row in
docs/transforms.md.
"""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as forward_ad
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.func import functional_call

I, H, T, B = 3, 4, 5, 2


def make_layer(cls, **options):
    torch.manual_seed(0)
    return cls(I, H, dtype=torch.float64, **options)


def make_input(T=T, B=B):
    return torch.randn(T, B, I, dtype=torch.float64)


def gradients_of(layer, output: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(output.square().sum(), layer.parameters()))


def _compile(function, **options):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, **({"backend": "aot_eager"} | options))


def full_graph_compile(cls):
    """`torch.compile(fullgraph=True)`, two bidirectional layers, forward and backward"""
    layer = make_layer(cls, num_layers=2, bidirectional=True)
    x = make_input()
    compiled, plain = _compile(layer)(x)[0], layer(x)[0]
    return [compiled, *gradients_of(layer, compiled)], [plain, *gradients_of(layer, plain)]


def full_graph_compile_with_inductor(cls):
    """the same to machine code, by Inductor"""
    layer = make_layer(cls)
    x = make_input()
    compiled, plain = _compile(layer, backend="inductor")(x)[0], layer(x)[0]
    return [compiled, *gradients_of(layer, compiled)], [plain, *gradients_of(layer, plain)]


def compile_that_does_not_grow_with_time(cls):
    """the compiled forward and backward have as many operations at T = 200 as at T = 2"""
    sizes: dict[int, list[int]] = {2: [], 200: []}

    def count(graph, _):
        sizes[steps].append(len(graph.graph.nodes))
        return make_boxed_func(graph.forward)

    for steps in sizes:
        compiled = _compile(make_layer(cls), backend=aot_autograd(fw_compiler=count, bw_compiler=count))
        compiled(make_input(steps).requires_grad_())[0].sum().backward()
        assert len(sizes[steps]) == 2
    return [torch.tensor(sizes[200])], [torch.tensor(sizes[2])]


def compile_with_dynamic_time_and_batch(cls):
    """compiled once for any T and batch"""
    layer = make_layer(cls, num_layers=2)
    compiled = _compile(layer, dynamic=True)
    found, expected = [], []
    for shape in ((4, 3), (9, 2), (17, 5)):
        x = make_input(*shape)
        found.append(compiled(x)[0])
        expected.append(layer(x)[0])
    return found, expected


def compile_under_autocast(cls):
    """compiled under autocast"""
    layer = make_layer(cls).float()
    x = make_input().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled, plain = _compile(layer)(x)[0], layer(x)[0]
    return [compiled.double()], [plain.double()]


def compile_of_vmap(cls):
    """`torch.compile` of `vmap`"""
    layer = make_layer(cls)
    x = torch.stack([make_input() for _ in range(3)])
    mapped = _compile(lambda x: torch.vmap(lambda one: layer(one)[0])(x))(x)
    return [mapped], [torch.stack([layer(one)[0] for one in x])]


def vmap_over_inputs(cls):
    """`torch.vmap` over inputs"""
    layer = make_layer(cls, num_layers=2, bidirectional=True)
    x = torch.stack([make_input() for _ in range(3)])
    return [torch.vmap(lambda one: layer(one)[0])(x)], [torch.stack([layer(one)[0] for one in x])]


def vmap_over_an_ensemble(cls):
    """`vmap` over an ensemble (`stack_module_state`, `functional_call`)"""
    layers = []
    for seed in range(3):
        torch.manual_seed(seed)
        layers.append(cls(I, H, dtype=torch.float64))
    x = make_input()
    parameters, buffers = torch.func.stack_module_state(layers)
    base = layers[0]
    found = torch.vmap(lambda p, b: functional_call(base, (p, b), (x,))[0])(parameters, buffers)
    return [found], [torch.stack([layer(x)[0] for layer in layers])]


def per_sample_gradients(cls):
    """per-sample gradients (`vmap` of `grad`)"""
    return _per_sample_gradients(make_layer(cls), make_input(B=3))


def per_sample_gradients_in_float32(cls):
    """per-sample gradients in float32"""
    return _per_sample_gradients(make_layer(cls).float(), make_input(B=3).float())


def _per_sample_gradients(layer, x: Tensor):
    parameters = dict(layer.named_parameters())

    def loss(p, sample):
        return functional_call(layer, p, (sample,))[0].square().sum()

    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 1))(parameters, x)
    one_by_one = [torch.autograd.grad(loss(parameters, x[:, b]), layer.parameters()) for b in range(3)]
    return list(found.values()), [torch.stack(g) for g in zip(*one_by_one, strict=True)]


def _central_difference(layer, x: Tensor, tangent: Tensor, step=1e-5) -> Tensor:
    return (layer(x + step * tangent)[0] - layer(x - step * tangent)[0]).detach() / (2 * step)


def jvp(cls):
    """`jvp`, a derivative along a direction"""
    layer = make_layer(cls, num_layers=2)
    x, tangent = make_input(), make_input()
    _, found = torch.func.jvp(lambda x: layer(x)[0], (x,), (tangent,))
    return [found], [_central_difference(layer, x, tangent)]


def jvp_in_float32(cls):
    """`jvp` in float32"""
    layer = make_layer(cls).float()
    x, tangent = make_input().float(), make_input().float()
    _, found = torch.func.jvp(lambda x: layer(x)[0], (x,), (tangent,))
    exact = make_layer(cls)
    return [found.double().round(decimals=3)], [
        _central_difference(exact, x.double(), tangent.double()).round(decimals=3)
    ]


def dual_numbers(cls):
    """dual numbers (`forward_ad`)"""
    layer = make_layer(cls)
    x, tangent = make_input(), make_input()
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))[0]).tangent
    return [found], [_central_difference(layer, x, tangent)]


def hessian(cls):
    """`torch.func.hessian`"""
    layer = make_layer(cls)
    x = make_input(T=2, B=1)

    def loss(x):
        return layer(x)[0].square().sum()

    forward_over_reverse = torch.func.hessian(loss)(x)
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)
    rows = [torch.autograd.grad(g, x, retain_graph=True)[0] for g in gradient.flatten()]
    return [forward_over_reverse], [torch.stack(rows).view_as(forward_over_reverse)]


def double_backward(cls):
    """a gradient of a gradient (`create_graph=True`)"""
    layer = make_layer(cls, num_layers=2)
    x = make_input().requires_grad_()

    def penalty(module):
        (gradient,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), layer.parameters())

    def through_steps(x):
        return (torch.stack([torch.func.functional_call(layer, {}, (x[: t + 1],))[0][-1] for t in range(T)]),)

    return list(penalty(layer)), list(penalty(through_steps))


def batched_gradients(cls):
    """several gradients at once (`is_grads_batched=True`)"""
    layer = make_layer(cls)
    x = make_input().requires_grad_()
    output = layer(x)[0]
    directions = torch.randn(3, *output.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad(output, x, directions, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(output, x, d, retain_graph=True)[0] for d in directions]
    return [found], [torch.stack(one_by_one)]


def _export(cls, strict: bool):
    layer = make_layer(cls, num_layers=2, bidirectional=True).eval()
    dynamic = ({0: torch.export.Dim("T"), 1: torch.export.Dim("B")},)
    program = torch.export.export(layer, (make_input(),), dynamic_shapes=dynamic, strict=strict).module()
    found, expected = [], []
    for shape in ((2, 1), (11, 4), (100, 3)):
        x = make_input(*shape).requires_grad_()
        for module, results in ((program, found), (layer, expected)):
            output = module(x)[0]
            weights = [p for _, p in sorted(module.named_parameters())]
            results += [output, *torch.autograd.grad(output.square().sum(), [x, *weights])]
    return found, expected


def export_with_dynamic_time_and_batch(cls):
    """`torch.export` with free T and batch, and its gradients"""
    return _export(cls, strict=False)


def strict_export_with_dynamic_time_and_batch(cls):
    """the same, strict"""
    return _export(cls, strict=True)


def autocast_to_bfloat16(cls):
    """autocast to bfloat16: results in bfloat16, gradients in float32"""
    layer = make_layer(cls, num_layers=2).float()
    x = make_input().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = layer(x)
    assert output.dtype == torch.bfloat16, f"autocast left {output.dtype}"
    output.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())
    low = make_layer(cls, num_layers=2).bfloat16()
    return [output.double()], [low(x.bfloat16())[0].double()]


def autocast_to_float16(cls):
    """autocast to float16"""
    layer = make_layer(cls).float()
    x = make_input().float()
    with torch.autocast("cpu", dtype=torch.float16):
        output, _ = layer(x)
    assert output.dtype == torch.float16, f"autocast left {output.dtype}"
    return [output.double()], [make_layer(cls).half()(x.half())[0].double()]


def gradients_in_eval_mode(cls):
    """gradients in `eval()`"""
    training = make_layer(cls, num_layers=2)
    evaluating = make_layer(cls, num_layers=2).eval()
    x = make_input()
    return gradients_of(evaluating, evaluating(x)[0]), gradients_of(training, training(x)[0])


def skip_init(cls):
    """`nn.utils.skip_init`"""
    layer = torch.nn.utils.skip_init(cls, I, H, dtype=torch.float64)
    layer.load_state_dict(make_layer(cls).state_dict())
    x = make_input()
    return [layer(x)[0]], [make_layer(cls)(x)[0]]


TRANSFORMS = (
    full_graph_compile,
    full_graph_compile_with_inductor,
    compile_that_does_not_grow_with_time,
    compile_with_dynamic_time_and_batch,
    compile_under_autocast,
    compile_of_vmap,
    vmap_over_inputs,
    vmap_over_an_ensemble,
    per_sample_gradients,
    per_sample_gradients_in_float32,
    jvp,
    jvp_in_float32,
    dual_numbers,
    hessian,
    double_backward,
    batched_gradients,
    export_with_dynamic_time_and_batch,
    strict_export_with_dynamic_time_and_batch,
    autocast_to_bfloat16,
    autocast_to_float16,
    gradients_in_eval_mode,
    skip_init,
)
