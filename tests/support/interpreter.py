"""Running Triton's kernels in its interpreter, on CPU tensors."""

from contextlib import contextmanager
from unittest.mock import patch

import pytest


@pytest.fixture(scope="session")
def interpreted():
    """Triton, interpreting; or a skip."""
    library = pytest.importorskip("gatedcells_kernels.triton.library")
    if not library.interprets():
        pytest.skip("TRITON_INTERPRET=1 is not set: these tests are for machines without a GPU")
    reason = library.why_not()
    if reason is not None:
        pytest.skip(reason)


@contextmanager
def one_program(cell: str, H: int):
    """Within the block ``slices`` runs, in one slice for all hidden units."""
    from gatedcells_kernels.triton import launch

    entry = launch.Entry(cell, "any", H, "slices", 32, launch.padded(H), 16, 4)
    with patch.object(launch, "plan", lambda *_: launch.Plan("slices", entry, ())):
        yield
