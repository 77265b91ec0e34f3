import pytest


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    """Two regions of 50 and 60 days."""
    from tests.support.load_files import write_folder

    return write_folder(tmp_path_factory.mktemp("load"), {"AEP": 24 * 60, "DOM": 24 * 50})


@pytest.fixture(scope="session")
def small_regions(small_folder):
    # here: what a conftest cannot import stops `pytest -m gpu`
    from gatedcells.forecast.data import read_folder
    from gatedcells.forecast.windows import prepare

    return prepare(read_folder(small_folder))
