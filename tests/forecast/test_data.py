"""Load files are read right or refused with the file, the line and what was expected."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatedcells.forecast.calendar import local_starts
from gatedcells.forecast.data import Clock, read_file, read_folder
from gatedcells.forecast.day_ahead import panel_of
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.flaws import REMEDIES, Flaws
from gatedcells.forecast.windows import count_windows, prepare
from tests.support.load_files import eastern_stamps, ending_stamps, made_up_load, write_file, write_folder


def test_the_twelve_files_have_the_flaws_and_windows_that_are_known(data_root):
    series = read_folder(data_root / "pjm")
    assert len(series) == 12
    assert sum(len(one.rows) for one in series) == 1_090_167
    assert sum((one.flaws for one in series), Flaws()) == Flaws(
        backward_steps=45_299,
        repeated_rows=0,
        autumn_pairs=40,
        spring_gaps=126,
        autumn_gaps=82,
        missing_hours=2 * 82 + 9,
        not_positive=1,
        spikes=91,
    )
    zero = next(one for one in series if one.flaws.not_positive)
    assert zero.region == "FE"
    assert np.isnan(zero.load_mw[0])
    assert count_windows(prepare(series)) == (980_185, 108_902)


def test_preparing_the_twelve_files_takes_less_than_300_mb_beside_the_libraries(data_root):
    script = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from gatedcells.forecast.data import read_folder\n"
        "from gatedcells.forecast.article import ArticleRecipe, ArticleTask\n"
        "from gatedcells.forecast.fast import FastTask\n"
        "from gatedcells.forecast.fast_recipe import FastRecipe\n"
        "from gatedcells.forecast.windows import prepare\n"
        # not getrusage's, which begins with the size of the process that started this one
        "def mb(of):\n"
        "    return int(re.search(of + r':\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1]) / 1024\n"
        "before = mb('VmRSS')\n"
        "regions = prepare(read_folder(Path(sys.argv[1])))\n"
        "task = {'fast': lambda: FastTask(FastRecipe(), regions),\n"
        "        'article': lambda: ArticleTask(ArticleRecipe(), regions)}[sys.argv[2]]()\n"
        "print(before, mb('VmHWM') - before)\n"
    )
    for recipe in ("fast", "article"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(data_root / "pjm"), recipe], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        libraries, ours = map(float, done.stdout.split())
        assert ours < 300, libraries


@settings(max_examples=60)
@given(
    first=st.datetimes(pd.Timestamp("2014-01-01"), pd.Timestamp("2018-12-31")),
    hours=st.integers(30, 400),
    seed=st.integers(0, 1000),
)
def test_local_stamps_in_any_order_of_days_come_back_on_their_utc_hours(tmp_path_factory, first, hours, seed):
    first = pd.Timestamp(first).floor("h")
    load = made_up_load(hours, seed)
    frame = pd.DataFrame({"stamp": eastern_stamps(str(first), hours), "load": load})
    # as in the PJM files: days in any order, the hours of a day in theirs
    days = frame.groupby(frame["stamp"].dt.date, sort=False)
    order = np.random.default_rng(seed).permutation(days.ngroups)
    shuffled = pd.concat([group for _, group in days])
    shuffled = pd.concat([list(days)[i][1] for i in order])
    path = write_file(tmp_path_factory.mktemp("x"), "AEP", shuffled["stamp"], shuffled["load"])
    series = read_file(path)
    assert series.first_hour == first.tz_localize("UTC")
    assert np.array_equal(series.load_mw, load)
    assert np.array_equal(series.rows, np.arange(hours))
    assert series.flaws.missing_hours == 0
    assert (series.local_stamps() == frame["stamp"]).all()


@pytest.mark.parametrize("unit", ["_MW", "_mw", "_Mw"])
def test_a_region_is_what_stands_before_the_unit_however_that_is_written(unit, tmp_path):
    path = tmp_path / "load.csv"
    path.write_text(f"Datetime,aep{unit}\n2016-01-01 01:00:00,10\n2016-01-01 02:00:00,11\n")
    assert read_file(path).region == "aep"


def test_the_two_hours_of_an_autumn_stamp_are_two_hours(tmp_path):
    stamps = eastern_stamps("2016-11-06 02:00", 8)
    assert stamps.duplicated().sum() == 1
    series = read_file(write_file(tmp_path, "AEP", stamps, np.arange(1.0, 9.0)))
    assert np.array_equal(series.load_mw, np.arange(1.0, 9.0))
    assert series.flaws.autumn_pairs == 1
    assert series.first_hour == pd.Timestamp("2016-11-06 02:00", tz="UTC")


def test_the_hour_that_spring_skips_is_not_missing_and_lost_autumn_hours_are(tmp_path):
    stamps = eastern_stamps("2016-03-12 05:00", 60)
    spring = read_file(write_file(tmp_path, "AEP", stamps, made_up_load(60)))
    assert spring.flaws.spring_gaps == 1
    assert spring.flaws.missing_hours == 0
    stamps = eastern_stamps("2012-11-03 04:00", 60)
    kept = stamps != pd.Timestamp("2012-11-04 02:00")
    assert (~kept).sum() == 2
    autumn = read_file(write_file(tmp_path, "AEP", stamps[kept], made_up_load(60)[kept]))
    assert autumn.flaws.autumn_gaps == 1
    assert autumn.flaws.missing_hours == 2
    assert np.isnan(autumn.load_mw[~kept]).all()
    assert np.isfinite(autumn.load_mw[kept]).all()


def test_blank_zero_and_repeated_rows_are_counted(tmp_path):
    path = tmp_path / "AEP_hourly.csv"
    path.write_text(
        "Datetime,AEP_MW\n2016-01-01 01:00:00,10\n2016-01-01 02:00:00,\n2016-01-01 03:00:00,0\n"
        "2016-01-01 04:00:00,-5\n2016-01-01 05:00:00,12\n2016-01-01 05:00:00,12\n"
    )
    series = read_file(path)
    assert np.array_equal(series.load_mw, [10, np.nan, np.nan, np.nan, 12], equal_nan=True)
    assert series.flaws.not_positive == 3
    assert series.flaws.repeated_rows == 1
    assert set(series.flaws.counts()) == set(REMEDIES)


@pytest.mark.parametrize(
    ("stamps", "clock", "first_utc"),
    [
        (["2016-07-01 01:00:00", "2016-07-01 02:00:00"], Clock(), "2016-07-01 04:00"),
        (["2016-07-01 00:00:00", "2016-07-01 01:00:00"], Clock(stamp="beginning"), "2016-07-01 04:00"),
        (["2016-07-01T01:00", "2016-07-01T02:00"], Clock("UTC"), "2016-07-01 00:00"),
        (["2016-07-01T01:00Z", "2016-07-01T02:00Z"], Clock(), "2016-07-01 00:00"),
        (["2016-07-01 01:00:00+02:00", "2016-07-01 02:00:00+02:00"], Clock(), "2016-06-30 22:00"),
        # offsets that change with the clock: the hour between them is one hour
        (["2016-11-06 02:00:00-04:00", "2016-11-06 02:00:00-05:00"], Clock(), "2016-11-06 05:00"),
    ],
)
def test_every_way_of_writing_time_means_one_utc_hour(tmp_path, stamps, clock, first_utc):
    path = write_file(tmp_path, "AEP", stamps, [1.0, 2.0])
    series = read_file(path, clock)
    assert series.first_hour == pd.Timestamp(first_utc, tz="UTC")
    assert np.array_equal(series.load_mw, [1.0, 2.0])


BETWEEN = {"Asia/Kolkata": 30, "Asia/Kathmandu": 15, "Australia/Adelaide": 30, "America/St_Johns": 30}


@settings(max_examples=60)
@given(
    first=st.datetimes(pd.Timestamp("2014-01-01"), pd.Timestamp("2018-12-31")),
    hours=st.integers(30, 400),
    tz=st.sampled_from(sorted(BETWEEN)),
    stamp=st.sampled_from(["ending", "beginning"]),
    offsets=st.booleans(),
)
def test_local_stamps_that_are_no_utc_hours_come_back(tmp_path_factory, first, hours, tz, stamp, offsets):
    first = pd.Timestamp(first).floor("h").tz_localize("UTC") + pd.Timedelta(minutes=BETWEEN[tz])
    moments = pd.date_range(first, periods=hours, freq="h").tz_convert(tz)
    load = made_up_load(hours)
    if offsets:
        later = pd.Timedelta(hours=1 if stamp == "ending" else 0)
        written = [one.isoformat() for one in moments + later]
    else:
        written = ending_stamps(str(first.tz_localize(None)), hours, tz)
        written = written if stamp == "ending" else written - pd.Timedelta(hours=1)
    path = write_file(tmp_path_factory.mktemp("x"), "GRID", written, load)
    series = read_file(path, Clock(tz, stamp))
    assert series.first_hour == first
    assert series.phase_s == 60 * BETWEEN[tz]
    assert np.array_equal(series.load_mw, load)
    assert series.flaws.missing_hours == 0
    assert set(series.local_stamps().minute) == {0}
    assert set(local_starts(series, 5).hour) == set(range(24))
    if not offsets:
        assert (series.local_stamps() == written).all()
    (region,) = prepare([series]) if hours > 100 else (None,)
    if region is not None:
        panel = panel_of([region])
        starts = panel.grid.local_starts(panel.first[0] + np.arange(panel.sizes[0]))
        assert (starts == moments.tz_localize(None)[-len(starts) :]).all()


@pytest.mark.parametrize(
    ("tz", "stamps", "words"),
    [
        # half an hour of summer time
        ("Australia/Lord_Howe", ["2016-04-02 12:00:00", "2016-04-03 12:00:00"],
         "line 3: the hour ending '2016-04-03 12:00:00' in Australia/Lord_Howe begins 30 minutes past the UTC"
         " hour, that of line 2 0 minutes past the UTC hour"),
        # another standard time since then
        ("Asia/Kathmandu", ["1985-12-31 12:00:00", "1986-01-02 12:00:00"],
         "line 3: .* begins 15 minutes past the UTC hour, that of line 2 30 minutes"),
        ("Asia/Kolkata", ["2016-07-01T01:00+05:30", "2016-07-01T02:15+05:30"],
         "line 3: Datetime is '2016-07-01T02:15.05:30'; expected whole hours in Asia/Kolkata"),
        ("America/New_York", ["2016-07-01T01:00+05:30", "2016-07-01T02:00+05:30"],
         "line 2: .* expected whole hours in America/New_York, the file's time zone"),
    ],
)  # fmt: skip
def test_hours_that_begin_at_different_minutes_of_utc_are_refused(tmp_path, tz, stamps, words):
    path = write_file(tmp_path, "GRID", stamps, [1.0, 2.0])
    with pytest.raises(ForecastError, match=words) as caught:
        read_file(path, Clock(tz))
    assert str(caught.value).startswith(str(path))


def test_where_clocks_change_by_half_an_hour_stamps_in_utc_are_read(tmp_path):
    stamps = pd.date_range("2016-04-01", periods=72, freq="h", tz="UTC")
    path = write_file(tmp_path, "GRID", [one.isoformat() for one in stamps], made_up_load(72))
    series = read_file(path, Clock("Australia/Lord_Howe", "beginning"))
    assert (series.first_hour, series.flaws.missing_hours) == (stamps[0], 0)


def test_files_of_a_folder_whose_hours_begin_at_different_minutes_are_refused(tmp_path):
    clock = Clock("Asia/Kathmandu")
    write_file(tmp_path, "NEW", ["1986-06-01 12:00:00"], [1.0])
    write_file(tmp_path, "OLD", ["1985-06-01 12:00:00"], [1.0])
    words = (
        "OLD_hourly.csv, line 2: hours begin 30 minutes past the UTC hour, those of NEW_hourly.csv 15 minutes"
    )
    with pytest.raises(ForecastError, match=words):
        read_folder(tmp_path, clock)


HEADER = "Datetime,AEP_MW\n"
BAD_FILES = {
    "": "the file is empty; expected a header Datetime,<REGION>_MW",
    HEADER: "no rows below the header",
    "time,load\n2016-01-01 01:00:00,1\n": "expected the columns Datetime and one .*_MW, got time, load",
    "Datetime,AEP_MW,DOM_MW\n2016-01-01 01:00:00,1,2\n": "expected the columns Datetime and one <REGION>_MW",
    "Datetime\n2016-01-01 01:00:00\n": "expected the columns Datetime and one <REGION>_MW, got Datetime",
    HEADER + "2016-01-01 01:00:00,1\n2016-01-01 02:00:00,abc\n": "line 3: AEP_MW is 'abc'; expected a number",
    HEADER + "2016-01-01 01:00:00,inf\n": "line 2: AEP_MW is 'inf'; expected a number",
    HEADER + "yesterday,1\n": "line 2: Datetime is 'yesterday'; expected a time such as 2018-08-03 00:00:00",
    HEADER + "2016-01-01 01:00:00,1\n,2\n": "line 3: Datetime is blank; expected a time",
    HEADER + "2016-01-01 01:30:00,1\n": "line 2: Datetime is '2016-01-01 01:30:00'; expected whole hours",
    HEADER + "2016-01-01 01:00:00,1\n2016-01-01T02:00Z,1\n": "line 2: .* with a UTC offset, as in other rows",
    HEADER
    + "2016-03-13 03:00:00,1\n": "line 2: the hour ending '2016-03-13 03:00:00' does not exist in America",
    HEADER
    + "2016-01-01 01:00:00,1\n2016-01-01 01:00:00,2\n": "line 3: a second row for the hour of line 2 with"
    " another value",
    HEADER
    + "2016-01-01 01:00:00,1\n2106-01-01 02:00:00,2\n": "2 rows span 788,930 hours; expected hourly data",
    HEADER + '2016-01-01 01:00:00,1\n"2016,1\n': "not a CSV table",
    HEADER + "2016-01-01 01:00:00,1\n2016-01-01 02:00:00,1,2,3\n": "not a CSV table",
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.items(), ids=range(len(BAD_FILES)))
def test_a_bad_file_is_refused_with_its_name_line_and_expectation(tmp_path, content, message):
    path = tmp_path / "AEP_hourly.csv"
    path.write_text(content)
    with pytest.raises(ForecastError, match=message) as caught:
        read_file(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_in_another_encoding_is_refused_and_a_byte_order_mark_is_not(tmp_path):
    path = tmp_path / "AEP_hourly.csv"
    path.write_bytes((HEADER + "2016-01-01 01:00:00,1\n").encode("utf-16"))
    with pytest.raises(ForecastError, match="not UTF-8 text .byte 0xff at 0"):
        read_file(path)
    path.write_bytes((HEADER + "2016-01-01 01:00:00,1\n").encode("utf-8-sig"))
    assert read_file(path).region == "AEP"


def test_a_folder_is_refused_if_missing_empty_or_ambiguous(tmp_path):
    with pytest.raises(ForecastError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(ForecastError, match="no CSV files; expected files with columns Datetime,<REGION>_MW"):
        read_folder(tmp_path)
    write_folder(tmp_path, {"AEP": 50})
    write_file(tmp_path, "AEP", eastern_stamps("2016-01-01", 5), made_up_load(5), name="copy.csv")
    with pytest.raises(ForecastError, match="copy.csv: region AEP is already in AEP_hourly.csv"):
        read_folder(tmp_path)
    with pytest.raises(ForecastError, match="nowhere.csv: no such file"):
        read_file(tmp_path / "nowhere.csv")


def test_the_published_wide_file_is_left_out(tmp_path):
    write_folder(tmp_path, {"AEP": 50})
    (tmp_path / "pjm_hourly_est.csv").write_text("Datetime,AEP,COMED\n")
    assert [one.region for one in read_folder(tmp_path)] == ["AEP"]


def test_a_clock_names_a_real_time_zone():
    with pytest.raises(ForecastError, match="there is no time zone 'Mars/Olympus'"):
        Clock("Mars/Olympus")
    with pytest.raises(ForecastError, match="stamped 'ending' or 'beginning', got 'middle'"):
        Clock(stamp="middle")


def test_rows_with_more_cells_than_the_header_are_refused(tmp_path):
    path = tmp_path / "A_hourly.csv"
    path.write_text("Datetime,A_MW\n2020-01-01 00:00:00,5,2020-01-01 01:00:00\n")
    with pytest.raises(
        ForecastError, match=r"A_hourly\.csv: not a CSV table: rows have more cells than the header"
    ):
        read_file(path)
