"""Where tests run Triton's kernels: in its interpreter on CPU tensors, or on a GPU (``pytest -m gpu``)."""

import faulthandler
import inspect
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest


@pytest.fixture(scope="session", params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The device of the tensors to make, "cpu" in the interpreter; or a skip."""
    library = pytest.importorskip("gatedcells_kernels.triton.library")
    if library.interprets() != (request.param == "interpreter"):
        pytest.skip("TRITON_INTERPRET is settled for a process: here it is the other")
    reason = library.why_not()
    if reason is not None:
        pytest.skip(reason)
    if request.param == "interpreter":
        remember_builtins()
        remember_types()
    return library.device_type()


def remember_builtins():
    """Have the interpreter leave out what is for nothing: by itself it goes through all names of Triton's
    modules whenever a function calls another, replaces what the kernel's own start has replaced, and computes
    for every sum of integers whether it overflows, which without ``debug`` nobody looks at."""
    from triton import language
    from triton.runtime import interpreter

    packages = language, language.core, language.tensor, language.math, language.core.tensor_descriptor_base
    is_builtin = language.core.is_builtin
    patch_lang, patch_builtin = interpreter._patch_lang, interpreter._patch_builtin
    known = {
        package: [name for name, member in inspect.getmembers(package) if is_builtin(member)]
        for package in packages
    }
    assert all(known.values())
    visible = {}  # to each function, of the two modules that the interpreter replaces names in

    def patch_builtin_once(package, *scope):
        if package not in known:
            patch_builtin(package, *scope)
        for name in known.get(package, ()):
            member = getattr(package, name)
            if is_builtin(member):
                interpreter._patch_attr(package, name, member, *scope)

    def patch_lang_once(function):
        if function not in visible:
            names = function.__globals__.values()
            visible[function] = [m for m in (language, language.core) if any(m is v for v in names)]
        if any(is_builtin(getattr(module, known[module][0])) for module in visible[function]):
            return patch_lang(function)
        return interpreter._LangPatchScope()  # all that it sees is replaced already

    options = interpreter.interpreter_builder.options
    if not options.debug:
        interpreter.interpreter_builder.options = replace(options, sanitize_overflow=False)
    interpreter._patch_builtin = patch_builtin_once
    interpreter._patch_lang = patch_lang_once


def remember_types():
    """Have the interpreter make the parts of a tensor's type once for each type, where by itself it makes
    them for every tensor: most of a kernel's time there. (Types and shapes are never changed.)"""
    from triton.language import core, semantic
    from triton.runtime import interpreter

    make_block_type, make_tensor = core.block_type.__init__, core.tensor.__init__
    broadcast, numpy_dtype = semantic.TritonSemantic.broadcast_impl_value, interpreter._get_np_dtype
    blocks, tensors, dtypes = {}, {}, {}

    def block_type(self, element_ty, shape):
        which = element_ty.name, *map(core._unwrap_if_constexpr, shape)
        if which not in blocks:
            make_block_type(self, element_ty, shape)
            blocks[which] = vars(self).copy()
        vars(self).update(blocks[which], element_ty=element_ty)

    def tensor(self, handle, type):
        if type.name not in tensors:
            make_tensor(self, handle, type)
            tensors[type.name] = vars(self).copy()
        vars(self).update(tensors[type.name], handle=handle, type=type, dtype=type.scalar)

    def broadcast_others(self, left, right):
        both = left.type.is_block() and right.type.is_block()
        if both and left.type.shape.values == right.type.shape.values:
            return left, right
        return broadcast(self, left, right)

    def numpy_dtype_once(type):
        number = type.scalar.name
        if number not in dtypes:
            dtypes[number] = numpy_dtype(type)
        return dtypes[number]

    core.block_type.__init__, core.tensor.__init__ = block_type, tensor
    semantic.TritonSemantic.broadcast_impl_value = broadcast_others
    interpreter._get_np_dtype = numpy_dtype_once


@contextmanager
def one_program(cell: str, width: int):
    """Within the block ``slices`` runs, in one slice for all units: the interpreter runs programs one after
    another, and a program that waits for the next would wait for ever (but see triton_programs.py)."""
    from gatedcells_kernels.triton import launch

    # one that waits for itself is killed, with the stack of where it waits
    faulthandler.dump_traceback_later(300, exit=True)
    try:
        with tiles("slices", launch.Entry(cell, "any", width, "slices", 32, launch.padded(width), 16, 4)):
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def tiles(kernel, entry):
    """Within the block this kernel runs in these tiles, whatever the device."""
    from gatedcells_kernels.triton import launch

    with patch.object(launch, "plan", lambda *_: launch.Plan(kernel, entry, ())):
        yield


@pytest.fixture
def without_interpreter(monkeypatch):
    """As where TRITON_INTERPRET is not set: Triton's kernels take a GPU's tensors."""
    from gatedcells import backends
    from gatedcells_kernels.triton import library

    monkeypatch.setattr(library, "interprets", lambda: False)
    monkeypatch.setattr(backends, "_chosen", {})
