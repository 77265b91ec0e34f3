"""The CPU kernels must be there, unless the machine has no compiler."""

import pytest

from gatedcells_kernels.cpu import build, library


@pytest.fixture(scope="session")
def native():
    """The loaded library."""
    reason = library.why_not()
    if reason is not None:
        try:
            build.compiler()
        except build.NoCompiler as error:
            pytest.skip(f"no CPU kernels: {error}")
        pytest.fail(reason)
    return library.load()


@pytest.fixture(scope="session", params=range(4), ids=["baseline", "avx2", "avx512", "avx512_bf16"])
def level(request, native):
    """Every instruction set that this CPU runs, one after the other."""
    if request.param >= len(native.levels):
        pytest.skip(f"this CPU runs {', '.join(native.levels)}")
    best, native.level = native.level, request.param
    yield native.levels[request.param]
    native.level = best
