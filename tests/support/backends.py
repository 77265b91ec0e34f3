"""Running a folder's tests once for each backend of the CPU."""

import pytest

from gatedcells.backends import use_backend


@pytest.fixture(autouse=True, params=["auto", "reference"])
def backend(request):
    """``auto`` is the C++ kernels (tests/kernels makes sure that they are there), except where only the
    reference can serve."""
    with use_backend(request.param):
        yield request.param
