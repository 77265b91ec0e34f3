"""Where the hourly load comes from: a folder given, the environment, the user's cache, the network, or,
where none of these has it, a simulation that says so."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gatedcells.forecast.data import Clock, LoadSeries, load_files, read_folder
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.files import sha256_of
from gatedcells.forecast.load_table import named_as_before
from gatedcells.forecast.simulate import simulate_regions

DATA_VARIABLE = "GATEDCELLS_DATA"
PJM_FOLDER = "pjm"

# The 12 files that "Gated Recurrent Unit (GRU) With PyTorch" (FloydHub 2019) trains on, as its repository
# has them; first published on Kaggle as robikscube/hourly-energy-consumption (CC0).
PJM_ADDRESS = "https://raw.githubusercontent.com/gabrielloye/GRU_Prediction/ea3b6a811a92a781193e5ba552a8f67de8782adf/data/"
PJM_SHA256 = {
    "AEP_hourly.csv": "109d122f7b485555c609eecdec2cd5a03172e0a08acd358d863acc93eb452585",
    "COMED_hourly.csv": "2e79007e3f1be8765c92ff2b26314c0df0507bdd783110388a1e8d678d13fa1e",
    "DAYTON_hourly.csv": "84d3397231d5819b5cf086ef9e87cadf6dd7954085f2834be7e37257702ec768",
    "DEOK_hourly.csv": "070f9e0ece2fa97d5585f85bbf36122f5b3ab7f7f166db95fd0ebc3958d37600",
    "DOM_hourly.csv": "aa040e6ff42029dbc6698066d1a12765b00c56f993127af22f26aa9b769373a6",
    "DUQ_hourly.csv": "d4e09cca9f50c0c46eeef9feb8e5def5778368081c9af2a45cc0e8a798218071",
    "EKPC_hourly.csv": "2036a4ed539b10d42b9249a662d1e55eda555bba8673745ee1f5586db5cfe6ab",
    "FE_hourly.csv": "f2a4b89417cab06aaba451093f90d237fec911ccc70cd29a34449baaefdb8b3d",
    "NI_hourly.csv": "8de74f28ae6d03bd5d33050b00a2a1a001a8bff37e8e7100bf790003ea61030f",
    "PJME_hourly.csv": "4eb2b16d42bf07ec41ab55cb842191594cb69452725a6d3c0991658a628fde84",
    "PJMW_hourly.csv": "74b9c6c03e74933bfaf1f472eea18a2a09552289317858f6b1931fbc87c3996f",
    "PJM_Load_hourly.csv": "7dc080b7dfa4812c92f609a99cf1900cfbd49656412e744bf977d83500cebda0",
}


@dataclass(frozen=True)
class Source:
    """Series and where they came from.

    Attributes:
        series: one for each region.
        kind: ``"pjm"`` (the 12 published files, verified), ``"files"`` (other files) or ``"simulated"``.
        place: folder, or what was simulated.
        note: a line for the user; loud if what they get is not what they may think.
        sha256: of each file, by name.
    """

    series: list[LoadSeries]
    kind: str
    place: str
    note: str
    sha256: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """What a run remembers of its data."""
        clock = self.series[0].clock
        return {
            "kind": self.kind,
            "place": self.place,
            "sha256": self.sha256,
            "tz": clock.tz,
            "stamp": clock.stamp,
        }

    def named_as_before(self, known: Collection[str]) -> "Source":
        """The same with the names of its regions in a run that knows the regions ``known``."""
        series = [replace(one, region=named_as_before(one.region, known)) for one in self.series]
        return replace(self, series=series)


def locate(
    given: Path | None,
    clock: Clock,
    *,
    on_file: Callable[[str], None] = lambda _: None,
    address: str = PJM_ADDRESS,
    cache: Path | None = None,
) -> Source:
    """Find the hourly load.

    Tried in this order: the folder ``given``; ``$GATEDCELLS_DATA`` (a root that holds ``pjm/``); the user's
    cache; a download of the 12 public files into the cache, each checked by its SHA-256; a simulation.
    The first two are explicit: if they are set and have no data, that is an error.

    Args:
        given: a folder of CSV files, or a root that holds ``pjm/``.
        clock: how the files write time.
        on_file: told the name of each file as it is downloaded or read.
        address: where the public files are.
        cache: the folder to keep them in; the user's own by default.

    Raises:
        ForecastError: the explicit folder has no data, or a file is bad or not the published one.
    """
    if given is not None:
        return _from_folder(_holding_csv(given, given), clock, on_file)
    root = os.environ.get(DATA_VARIABLE)
    if root:
        folder = Path(root) / PJM_FOLDER
        if not folder.is_dir():
            raise ForecastError(f"{DATA_VARIABLE}={root}: expected a folder {PJM_FOLDER}/ in it")
        return _from_folder(folder, clock, on_file)
    cache = pjm_cache() if cache is None else cache
    if not all((cache / name).is_file() for name in PJM_SHA256):
        failure = download(cache, address, on_file)
        if failure is not None:
            return simulated(clock, failure)
    source = _from_folder(cache, clock, on_file)
    if source.kind != "pjm":
        raise ForecastError(f"{cache}: the cached files are not the published ones; delete that folder")
    return source


def pjm_cache() -> Path:
    """Where downloads of the PJM files are kept for this user."""
    import pooch

    return Path(pooch.os_cache("gatedcells")) / PJM_FOLDER


def download(folder: Path, address: str, on_file: Callable[[str], None]) -> str | None:
    """Download what ``folder`` lacks of the 12 files; return why the network failed, or None.

    Raises:
        ForecastError: a file arrived but is not the published one, or cannot be written.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    over_http: Any = pooch.HTTPDownloader(timeout=10)
    files = pooch.create(folder, address, registry={name: f"sha256:{h}" for name, h in PJM_SHA256.items()})
    for name in PJM_SHA256:
        on_file(name)
        try:
            files.fetch(name, downloader=over_http)
        except requests.RequestException as error:
            return f"{address} could not be reached ({type(error).__name__})"
        except ValueError as error:
            raise ForecastError(f"{address}{name}: is not the published file (SHA-256 differs)") from error
        except OSError as error:
            raise ForecastError(f"{folder}: cannot be written ({error})") from error
    return None


def _holding_csv(folder: Path, named: Path) -> Path:
    if not folder.is_dir():
        raise ForecastError(f"{named}: no such folder")
    if not load_files(folder) and (folder / PJM_FOLDER).is_dir():
        return folder / PJM_FOLDER
    return folder


def _from_folder(folder: Path, clock: Clock, on_file: Callable[[str], None]) -> Source:
    series = read_folder(folder, clock, lambda path: on_file(path.name))
    sums = {one.source: sha256_of(folder / one.source) for one in series}
    if sums == PJM_SHA256:
        return Source(
            series, "pjm", str(folder), f"the 12 PJM files in {folder} (SHA-256 as published)", sums
        )
    return Source(series, "files", str(folder), f"{len(series)} file(s) in {folder}", sums)


def simulated(clock: Clock, reason: str) -> Source:
    """The simulated regions, with a note that says so and why."""
    note = f"SIMULATED DATA, not PJM's: {reason}. Give real files with --data or {DATA_VARIABLE}."
    return Source(simulate_regions(clock), "simulated", "12 simulated regions", note, {})
