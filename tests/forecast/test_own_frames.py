"""Frames of any library, form and order become the same series; what is wrong in them is told or refused."""

import io
import sys
import warnings
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gatedcells.forecast import Forecaster, ForecastError, FrameWarning, frames, placement, rolling
from gatedcells.forecast.data import read_file
from gatedcells.forecast.frames import Names, read_frame
from gatedcells.forecast.grid import freq_of, step_of
from gatedcells.forecast.panel import build_panel, outliers
from gatedcells.forecast.panel_inputs import fill_gaps
from gatedcells.forecast.panel_report import FramePolicy
from gatedcells.forecast.placement import placed
from tests.support.own_series import made_up, small

EAST = "America/New_York"


def laid_out(frame, *, freq=None, tz=None, stamp="beginning", names=None, **policy):
    names = names or Names()
    rows = read_frame(frame, names, covariates=(*names.known, *names.past))
    grid, positions = placed(rows, freq=freq, tz=tz, stamp=stamp)
    return build_panel(rows, names, grid, positions, FramePolicy(**policy))


def same(one, other):
    assert one.ids == other.ids
    assert one.grid == other.grid
    for name in ("first", "offsets", "y", "known", "past"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_frame_in_any_form_and_order_is_the_same_series(data):
    polars = pytest.importorskip("polars")
    sizes = data.draw(st.lists(st.integers(2, 40), min_size=1, max_size=4))
    freq = data.draw(st.sampled_from(["min", "15min", "h", "6h", "D", "7D"]))
    frame = made_up(sizes, freq, start=data.draw(st.sampled_from(["2024-01-01", "2023-11-30 06:00"])))
    panel, report = laid_out(frame)
    assert (report.rows, report.freq, report.changed) == (sum(sizes), freq, False)
    assert freq_of(step_of(freq)) == freq
    order = data.draw(st.permutations(range(len(frame))))
    shuffled, found = laid_out(frame.iloc[order])
    same(panel, shuffled)
    assert found.series == len(sizes)
    same(panel, laid_out(polars.from_pandas(frame))[0])
    same(panel, laid_out(polars.from_pandas(frame.iloc[order].reset_index(drop=True)).lazy().collect())[0])
    wide = frame.pivot(index="ds", columns="unique_id", values="y")
    same(panel, laid_out(wide)[0])
    same(panel, laid_out(wide.reset_index())[0])
    same(panel, laid_out(polars.from_pandas(wide.reset_index()))[0])
    renamed = frame.rename(columns={"unique_id": "shop", "ds": "day", "y": "sales"})
    same(panel, laid_out(renamed, names=Names("shop", "day", "sales"))[0])
    same(panel, laid_out(frame.set_index(["unique_id", "ds"]))[0])
    as_text = frame.assign(ds=frame.ds.astype(str), y=frame.y.map(repr))
    same(panel, laid_out(as_text)[0])


@pytest.mark.parametrize(("tz", "freq"), [(EAST, None), (EAST, "D"), (None, "h")])
def test_stamps_are_placed_once(tz, freq, monkeypatch):
    placements = []
    monkeypatch.setattr(placement, "grid_seconds", _counted(placement.grid_seconds, placements))
    monkeypatch.setattr(placement, "seconds_of", _counted(placement.seconds_of, placements))
    days = pd.date_range("2024-01-01", periods=40, freq=freq or "h")
    panel, _ = laid_out(pd.DataFrame({"ds": days, "y": np.arange(40.0)}), tz=tz, freq=freq)
    assert panel.sizes.tolist() == [40]
    assert placements == ["seconds_of"] + ([] if freq == "D" else ["grid_seconds", "seconds_of"])


@pytest.mark.parametrize("verbose", [False, True])
def test_reading_is_shown_where_training_is(verbose, monkeypatch, tmp_path):
    seen = io.StringIO()
    monkeypatch.setattr(
        rolling, "Console", lambda quiet: Console(file=seen, force_terminal=True, quiet=quiet, width=80)
    )
    made_up().to_csv(tmp_path / "sales.csv", index=False)
    rolling.laid_out(Forecaster(verbose=verbose), tmp_path / "sales.csv")
    assert ("reading sales.csv" in seen.getvalue()) == verbose


def _counted(function, calls):
    def counted(*arguments):
        calls.append(function.__name__)
        return function(*arguments)

    return counted


def test_files_are_read_as_frames(tmp_path):
    pytest.importorskip("pyarrow")
    frame = made_up()
    panel, _ = laid_out(frame)
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    same(panel, laid_out(tmp_path / "x.csv")[0])
    same(panel, laid_out(str(tmp_path / "x.parquet"))[0])
    (tmp_path / "y.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "y.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    (tmp_path / "z.csv").write_bytes(b"")
    for name, words in (
        ("none.csv", "no such file"), ("y.parquet", "not a Parquet file"), ("y.csv", "not UTF-8"),
        ("z.csv", "not a CSV table"),
    ):  # fmt: skip
        with pytest.raises(ForecastError, match=words):
            laid_out(tmp_path / name)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(pd, "read_parquet", lambda *_: (_ for _ in ()).throw(ImportError("none")))
    with pytest.raises(ForecastError, match="Parquet files need pyarrow: pip install pyarrow"):
        laid_out(tmp_path / "x.parquet")


def test_hours_of_the_nights_when_clocks_change_are_those_of_utc():
    """One series over both nights of 2024: naive, aware and UTC stamps are the same hours."""
    utc = pd.date_range("2024-03-09 05:00", "2024-11-05 05:00", freq="h", tz="UTC")
    local = utc.tz_convert(EAST)
    y = np.random.default_rng(0).normal(size=len(utc))
    frames = [pd.DataFrame({"ds": stamps, "y": y}) for stamps in (utc, local, local.tz_localize(None))]
    panels = [laid_out(frame, tz=EAST)[0] for frame in frames]
    assert panels[0].grid.clock.tz == EAST
    for panel in panels:
        same(panels[0], panel)
        assert len(panel.y) == len(utc)
        np.testing.assert_array_equal(panel.y, y)
    positions = panels[0].first + np.arange(len(utc))
    assert list(panels[0].grid.wall_stamps(positions)) == list(local.tz_localize(None))
    assert list(panels[0].grid.utc_stamps(positions)) == list(utc)
    skipped = frames[2].copy()
    skipped.loc[26, "ds"] = pd.Timestamp("2024-03-10 02:00")
    with pytest.raises(ForecastError, match="2024-03-10 02:00:00 does not exist in America/New_York"):
        laid_out(skipped, tz=EAST)


@pytest.mark.parametrize("freq", ["15min", "30min"])
def test_quarters_of_an_hour_that_come_twice_are_kept_in_their_order(freq):
    utc = pd.date_range("2024-11-02 04:00", "2024-11-04 04:00", freq=freq, tz="UTC")
    naive = utc.tz_convert(EAST).tz_localize(None)
    panel, report = laid_out(pd.DataFrame({"ds": naive, "y": np.arange(len(utc))}), tz=EAST)
    np.testing.assert_array_equal(panel.y, np.arange(len(utc)))
    assert report.unsorted == 0


def test_days_and_parts_of_days_follow_the_wall_clock_through_the_changes():
    for freq in ("D", "6h"):
        naive = pd.date_range("2024-03-01", "2024-11-20", freq=freq)
        aware = naive.tz_localize(EAST)
        values = np.arange(len(naive), dtype=float)
        one, _ = laid_out(pd.DataFrame({"ds": naive, "y": values}), tz=EAST)
        other, _ = laid_out(pd.DataFrame({"ds": aware, "y": values}))
        assert len(one.y) == len(other.y) == len(values)
        same(one, other)
        assert list(one.grid.utc_stamps(one.first + np.arange(len(values)))) == list(aware.tz_convert("UTC"))
    utc = pd.date_range("2024-03-01", "2024-11-20", freq="6h", tz="UTC").tz_convert(EAST)
    assert len(laid_out(pd.DataFrame({"ds": utc, "y": 1.0}))[0].y) == len(utc)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_policy_counts_what_it_finds(data):
    frame = made_up([40, 30])
    inner = [at for at in range(len(frame)) if at not in (0, 39, 40, 69)]
    chosen = data.draw(st.lists(st.sampled_from(inner), unique=True, max_size=12))
    cut = data.draw(st.integers(0, len(chosen)))
    absent, blank = chosen[:cut], chosen[cut:]
    broken = frame.copy()
    broken.loc[blank, "y"] = np.nan
    broken = broken.drop(index=absent)
    panel, report = laid_out(broken, freq="h")
    assert (report.absent, report.blank) == (len(absent), len(blank))
    assert report.changed == bool(chosen)
    expected = frame.y.to_numpy().copy()
    expected[chosen] = np.nan
    np.testing.assert_array_equal(panel.y, expected)
    hit = {frame.unique_id[at] for at in chosen}
    if chosen:
        with pytest.raises(ForecastError, match=f"^{len(chosen)} value.s. are missing, the first of '"):
            laid_out(broken, freq="h", on_gap="raise")
    if len(hit) == 2:
        with pytest.raises(ForecastError, match="every series has values missing"):
            laid_out(broken, freq="h", on_gap="drop")
    else:
        panel, report = laid_out(broken, freq="h", on_gap="drop")
        assert (report.dropped, set(panel.ids)) == (len(hit), {"a", "b"} - hit)
        assert np.isfinite(panel.y).all()


def test_repeated_rows_are_read_once_and_others_refused_or_chosen():
    frame = made_up([20])
    panel, _ = laid_out(frame)
    again, report = laid_out(pd.concat([frame, frame.iloc[[3, 4]]]))
    same(panel, again)
    assert (report.repeated, report.conflicting, report.changed) == (2, 0, False)
    other = pd.concat([frame, frame.iloc[[3]].assign(y=7.0)])
    with pytest.raises(ForecastError, match="row 20 of the frame: a second row of 'a' .* than row 3"):
        laid_out(other)
    assert laid_out(other, on_duplicate="first")[0].y[3] == frame.y[3]
    found, report = laid_out(other, on_duplicate="last")
    assert found.y[3] == 7.0
    assert (report.conflicting, report.changed) == (1, True)


def test_repeated_hours_of_a_clock_that_was_set_back_speak_of_tz():
    utc = pd.date_range("2024-10-26 00:00", "2024-10-28 00:00", freq="h", tz="UTC")
    local = utc.tz_convert("Europe/Berlin").tz_localize(None)
    frame = pd.DataFrame({"ds": local, "y": np.arange(len(utc))})
    with pytest.raises(
        ForecastError,
        match=r"a second row of 'y' at 2024-10-27 02:00:00 with other values than row 24 \("
        r"on_duplicate='first' or 'last' keeps one; of a clock that is set back in autumn tz= tells the"
        r" hours apart\)$",
    ):
        laid_out(frame)
    assert len(laid_out(frame, tz="Europe/Berlin")[0].y) == len(utc)
    twice = pd.concat([frame.tail(5), frame.tail(1).assign(y=-1.0)]).assign(
        ds=lambda one: one.ds.dt.tz_localize("UTC")
    )
    with pytest.raises(ForecastError, match=r"\(on_duplicate='first' or 'last' keeps one\)$"):
        laid_out(twice)


def test_days_of_another_time_zone_speak_of_tz_and_months_have_no_length():
    days = pd.date_range("2024-03-20", "2024-11-20", freq="D", tz="Europe/Berlin")
    frame = pd.DataFrame({"ds": [str(one) for one in days], "y": np.arange(len(days))})
    words = "is not one of the stamps every D .*; give freq=, or tz= where they follow a local clock"
    with pytest.raises(ForecastError, match=words):
        laid_out(frame)
    assert len(laid_out(frame, tz="Europe/Berlin")[0].y) == len(days)
    for freq in ("MS", "ME", "QS", "YS"):
        stamps = pd.date_range("2015-01-01", periods=40, freq=freq)
        with pytest.raises(ForecastError, match="; months, quarters and years have no fixed length"):
            laid_out(pd.DataFrame({"ds": stamps, "y": 1.0}))


def test_blank_ends_are_left_out_and_told():
    frame = made_up([20, 20])
    frame.loc[[0, 1, 39], "y"] = np.nan
    panel, report = laid_out(frame)
    assert (list(panel.sizes), report.edge_blanks, report.blank) == ([18, 19], 3, 0)
    frame.loc[:19, "y"] = np.nan
    with pytest.raises(ForecastError, match="'a' has no value at all"):
        laid_out(frame)
    panel, report = laid_out(frame, on_gap="drop")
    assert (panel.ids, report.dropped) == (("b",), 1)


def test_outliers_are_found_in_series_of_any_sign_and_calm_ones_have_none():
    frame = made_up([200, 200])
    frame.loc[[50, 300], "y"] = [40.0, -50.0]
    panel, report = laid_out(frame, on_outlier="repair")
    assert np.flatnonzero(outliers(panel)).tolist() == [50, 300]
    assert (report.outliers, report.repaired, report.changed) == (2, True, True)
    assert panel.y[50] == 40.0  # repaired in the part trained on alone
    with pytest.raises(ForecastError, match="2 outlier.s., the first of 'a' at 2024-01-03 02:00"):
        laid_out(frame, on_outlier="raise")
    assert laid_out(made_up([200]), on_outlier="raise")[1].outliers == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=30, max_size=60),
    st.lists(st.integers(1, 59), max_size=20), st.integers(1, 12),
)  # fmt: skip
def test_gaps_are_filled_from_the_past_alone(values, holes, season):
    x = np.array(values)
    x[[at for at in holes if at < len(x)]] = np.nan
    filled = fill_gaps(x, np.array([0, len(x)]), season)
    assert np.isfinite(filled).all()
    known = np.isfinite(x)
    np.testing.assert_array_equal(filled[known], x[known])
    for at in np.flatnonzero(~known):
        later = x.copy()
        later[at + 1 :] += 100
        np.testing.assert_array_equal(
            fill_gaps(later, np.array([0, len(x)]), season)[: at + 1], filled[: at + 1]
        )
        move = filled[at - season] - filled[at - season - 1] if at > season else 0.0
        first_season = known[max(at - season, 0) : at].any()
        assert filled[at] == (filled[at - 1] + move if first_season else filled[at - season])


GOOD = made_up([20])


def at(row, stamp):
    """A good frame with another stamp in a row."""
    stamps = GOOD.ds.astype("datetime64[us]")  # pandas 2 has nanoseconds, without room for a far year
    return GOOD.assign(ds=stamps.where(GOOD.index != row, pd.Timestamp(stamp)))


REFUSED = {
    "no frame": (lambda: [1, 2], "expected a pandas or polars frame, or the path"),
    "no time": (lambda: GOOD.drop(columns="ds"), "expected a column 'ds'"),
    "no rows": (lambda: GOOD.iloc[:0], "no rows"),
    "text for a number": (lambda: GOOD.assign(y=GOOD.y.map(str)).replace({"y": {str(GOOD.y[4]): "4 MW"}}),
                          "row 4 of the frame: y is '4 MW'; expected a number"),
    "no number": (lambda: GOOD.assign(y=GOOD.y.where(GOOD.index != 5, np.inf)), "row 5 .*expected a number"),
    "numbers for stamps": (lambda: GOOD.assign(ds=np.arange(20)), "ds holds Int64; expected times"),
    "a blank stamp": (lambda: GOOD.assign(ds=GOOD.ds.where(GOOD.index != 3)), "row 3 .*ds is blank"),
    "a stamp that is none": (lambda: GOOD.assign(ds=["soon"] + ["2024-01-01"] * 19), "row 0 .*ds is 'soon'"),
    "a far year": (lambda: at(3, "1066-01-01"),
                   "row 3 .*expected a year"),
    "a stamp beside the grid": (lambda: at(3, "2024-01-01 03:07"),
                                "row 3 .*: 2024-01-01 03:07:00 of 'a' is not one of the stamps every h"),
    "a mistyped year": (lambda: at(19, "2042-01-01"),
                        "'a': 20 rows span .* steps of h"),
    "one stamp": (lambda: GOOD.iloc[:1], "no series has two stamps: give the frequency"),
    "a series without a name": (lambda: GOOD.assign(unique_id=["a"] * 19 + [None]), "row 19 .*unique_id is"),
    "names with a point": (lambda: GOOD.assign(unique_id=1.5), "expected text in all rows, or whole numbers"),
}  # fmt: skip


def test_the_library_of_a_frame_is_known_by_narwhals_of_any_version():
    older = Enum("Implementation", ["PANDAS"]).PANDAS  # narwhals 1.30: str says "Implementation.PANDAS"
    assert frames._kind(SimpleNamespace(implementation=older)) == "pandas"


@pytest.mark.parametrize("name", REFUSED)
def test_a_frame_that_cannot_be_used_is_refused_in_its_own_words(name):
    make, words = REFUSED[name]
    with pytest.raises(ForecastError, match=words):
        laid_out(make())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"freq": "month"}, "freq must be a frequency such as '15min'"),
        ({"freq": "MS"}, "freq must be"),
        ({"freq": "15min", "tz": "Mars"}, "there is no time zone 'Mars'"),
        ({"on_gap": "ignore"}, "on_gap must be one of fill, raise, drop, got 'ignore'"),
        ({"on_outlier": "clip"}, "on_outlier must be one of keep, repair, raise"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ForecastError, match=words):
        laid_out(GOOD, **options)


def test_what_was_changed_is_told_in_one_warning_and_clean_frames_are_silent():
    frame = made_up()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().fit(frame)
    with pytest.warns(FrameWarning, match="1 stamps without a row: filled from the past") as caught:
        fitted = small().fit(frame.drop(index=5))
    assert len(caught) == 1
    assert "1 stamps without a row" in str(fitted.report_)


def test_polars_frames_come_back_only_where_polars_is(monkeypatch):
    polars = pytest.importorskip("polars")
    fitted = small().fit(polars.from_pandas(made_up()))
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ForecastError, match="needs polars: pip install polars"):
        fitted.predict()


def test_the_twelve_published_files_through_a_frame_are_those_of_the_load_reader(data_root):
    for path in sorted((data_root / "pjm").glob("*_hourly.csv")):
        series = read_file(path)
        panel, report = laid_out(path, tz=EAST, stamp="ending", names=Names(time_col="Datetime"))
        at = panel.first[0] - int(series.first_hour.timestamp()) // 3600 - 1
        assert (at, len(panel.y)) == (0, len(series.load_mw))
        assert report.unsorted > 0
        assert report.absent == series.flaws.missing_hours
        positive = np.isfinite(series.load_mw)
        np.testing.assert_array_equal(panel.y[positive], series.load_mw[positive])
