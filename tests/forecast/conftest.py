import pytest

from gatedcells.forecast.data import read_folder
from gatedcells.forecast.windows import prepare
from tests.support.load_files import write_folder


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    """Two regions of 50 and 60 days."""
    return write_folder(tmp_path_factory.mktemp("load"), {"AEP": 24 * 60, "DOM": 24 * 50})


@pytest.fixture(scope="session")
def small_regions(small_folder):
    return prepare(read_folder(small_folder))
