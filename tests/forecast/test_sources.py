"""Where data come from: the order, the checks, and never a silent swap."""

import gzip
import hashlib
import http.server
import shutil
import threading

import pytest

from gatedcells.forecast import sources
from gatedcells.forecast.data import Clock
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.simulate import simulate_regions
from gatedcells.forecast.sources import locate
from gatedcells.forecast.windows import prepare
from tests.support.load_files import write_folder


@pytest.fixture(autouse=True)
def _no_data_in_environment(monkeypatch):
    monkeypatch.delenv("GATEDCELLS_DATA", raising=False)


def test_a_folder_given_wins_and_may_be_a_root(small_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GATEDCELLS_DATA", str(tmp_path / "nowhere"))
    source = locate(small_folder, Clock())
    assert (source.kind, len(source.series)) == ("files", 2)
    assert (
        source.sha256["AEP_hourly.csv"]
        == hashlib.sha256((small_folder / "AEP_hourly.csv").read_bytes()).hexdigest()
    )
    write_folder(tmp_path / "root" / "pjm", {"AEP": 300})
    assert locate(tmp_path / "root", Clock()).place == str(tmp_path / "root" / "pjm")


def test_an_explicit_place_without_data_is_an_error_not_a_fallback(tmp_path, monkeypatch):
    with pytest.raises(ForecastError, match="nowhere: no such folder"):
        locate(tmp_path / "nowhere", Clock())
    with pytest.raises(ForecastError, match="no CSV files"):
        locate(tmp_path, Clock())
    monkeypatch.setenv("GATEDCELLS_DATA", str(tmp_path))
    with pytest.raises(ForecastError, match="GATEDCELLS_DATA=.*: expected a folder pjm/ in it"):
        locate(None, Clock())


def test_the_environment_names_a_root_with_pjm(tmp_path, monkeypatch):
    write_folder(tmp_path / "pjm", {"AEP": 300})
    monkeypatch.setenv("GATEDCELLS_DATA", str(tmp_path))
    assert locate(None, Clock()).kind == "files"


def test_every_csv_file_of_a_folder_is_read_however_its_suffix_is_written(tmp_path):
    folder = write_folder(tmp_path / "load", {"AEP": 300, "DOM": 300, "FE": 300, "NI": 300})
    (folder / "DOM_hourly.csv").rename(folder / "DOM_hourly.CSV")
    for name, suffix in (("FE", ".csv.gz"), ("NI", ".Csv.GZ")):
        path = folder / f"{name}_hourly.csv"
        (folder / f"{name}_hourly{suffix}").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    source = locate(folder, Clock())
    assert [one.region for one in source.series] == ["AEP", "DOM", "FE", "NI"]
    assert source.note.startswith("4 file(s) in ")
    assert set(source.sha256) == {path.name for path in folder.iterdir()}
    again = write_folder(tmp_path / "again", {"AEP": 300, "DOM": 300, "FE": 300, "NI": 300})
    for one, other in zip(source.series, locate(again, Clock()).series, strict=True):
        assert (one.load_mw == other.load_mw).all()
    shutil.copy(again / "AEP_hourly.csv", folder / "aep.CSV")
    with pytest.raises(ForecastError, match=r"aep\.CSV: region AEP is already in AEP_hourly\.csv"):
        locate(folder, Clock())


def test_a_root_may_hold_files_with_a_large_suffix(tmp_path):
    folder = write_folder(tmp_path, {"AEP": 300})
    (folder / "AEP_hourly.csv").rename(folder / "AEP_hourly.CSV")
    write_folder(tmp_path / "pjm", {"DOM": 300})
    assert [one.region for one in locate(tmp_path, Clock()).series] == ["AEP"]


@pytest.mark.parametrize("kept", [slice(0, 60), slice(5, None), slice(0, 0)])
def test_a_packed_file_that_is_not_whole_is_refused_in_a_line(kept, tmp_path):
    path = write_folder(tmp_path, {"AEP": 300}) / "AEP_hourly.csv"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    (tmp_path / "AEP_hourly.csv.gz").write_bytes(packed[kept])
    with pytest.raises(
        ForecastError, match=r"AEP_hourly\.csv\.gz: (cannot be read|the file is empty)"
    ) as refused:
        locate(tmp_path, Clock())
    assert "\n" not in str(refused.value)


def test_the_real_files_are_recognised_by_their_sums(data_root):
    source = locate(data_root, Clock())
    assert source.kind == "pjm"
    assert "SHA-256 as published" in source.note


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server with small files in the place of the public ones."""
    folder = write_folder(tmp_path / "served", {"AEP": 300, "DOM": 300})
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
    monkeypatch.setattr(sources, "PJM_SHA256", sums)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_public_files_are_downloaded_once_checked_and_kept(served, tmp_path):
    folder, address = served
    cache = tmp_path / "cache"
    told = []
    source = locate(None, Clock(), address=address, cache=cache, on_file=told.append)
    assert source.kind == "pjm"
    assert {"AEP_hourly.csv", "DOM_hourly.csv"} <= set(told)
    assert (cache / "AEP_hourly.csv").read_bytes() == (folder / "AEP_hourly.csv").read_bytes()
    # from now on without the network
    assert locate(None, Clock(), address="http://127.0.0.1:9/", cache=cache).kind == "pjm"


def test_a_download_that_is_not_the_published_file_is_an_error(served, tmp_path):
    folder, address = served
    (folder / "DOM_hourly.csv").write_text("Datetime,DOM_MW\n")
    with pytest.raises(ForecastError, match="DOM_hourly.csv: is not the published file .SHA-256 differs"):
        locate(None, Clock(), address=address, cache=tmp_path / "cache")
    assert not (tmp_path / "cache" / "DOM_hourly.csv").exists()


def test_a_cache_that_was_tampered_with_is_an_error(served, tmp_path):
    _, address = served
    cache = tmp_path / "cache"
    locate(None, Clock(), address=address, cache=cache)
    text = (cache / "DOM_hourly.csv").read_text()
    (cache / "DOM_hourly.csv").write_text(text.replace(",10", ",11"))
    with pytest.raises(
        ForecastError, match="the cached files are not the published ones; delete that folder"
    ):
        locate(None, Clock(), address=address, cache=cache)


@pytest.mark.parametrize("missing", [True, False])
def test_without_data_or_network_a_simulation_says_that_it_is_one(tmp_path, missing, served):
    _, address = served
    address = f"{address}nothing/here/" if missing else "http://127.0.0.1:9/"
    source = locate(None, Clock(), address=address, cache=tmp_path / "cache")
    assert source.kind == "simulated"
    assert source.note.startswith("SIMULATED DATA, not PJM's: http://127.0.0.1")
    assert len(source.series) == 12


def test_simulated_regions_are_the_same_every_time_and_look_like_load():
    one, two = simulate_regions(), simulate_regions()
    assert all((a.load_mw == b.load_mw).all() for a, b in zip(one, two, strict=True))
    assert len({a.region for a in one}) == 12
    for series in one:
        assert series.load_mw.min() > 0
        starts = series.local_stamps().hour
        by_hour = [series.load_mw[starts == h].mean() for h in range(24)]
        assert by_hour[4] < by_hour[18]
    prepare(one)
