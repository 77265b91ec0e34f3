"""Which columns of a frame or a file are series, and what these are called."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast import Forecaster, ForecastError
from gatedcells.forecast.frames import Names, read_frame
from tests.support.own_series import made_up, small


def wide_of(sizes=(90, 90), names=(101, 7)):
    frame = made_up(sizes)
    frame["meter"] = frame.unique_id.map(dict(zip("ab", names, strict=True)))
    return frame.pivot(index="ds", columns="meter", values="y")


def read(path, text, **names):
    path.write_text(text)
    return read_frame(path, Names(**names))


# names


def test_columns_called_by_whole_numbers_are_the_series_of_a_long_frame():
    wide = wide_of()
    melted = wide.reset_index().melt("ds", var_name="unique_id", value_name="y")
    long = melted.astype({"unique_id": "int64"})
    assert melted.unique_id.dtype == object
    for frame in (wide, wide.reset_index(), melted, melted.astype({"unique_id": "category"})):
        rows = read_frame(frame, Names())
        assert (rows.ids, {type(one) for one in rows.ids}) == ((7, 101), {int})
        np.testing.assert_array_equal(rows.y, np.concatenate([wide[7], wide[101]]))
        pd.testing.assert_frame_equal(small().fit(frame).predict(), small().fit(long).predict())


@pytest.mark.parametrize("names", [("a", 7), (7, "a"), (1, 2.5), (True, False)])
def test_series_called_partly_by_text_and_partly_by_numbers_are_refused_with_the_row(names):
    frame = made_up((90, 90))
    frame["unique_id"] = frame.unique_id.map(dict(zip("ab", names, strict=True))).astype(object)
    with pytest.raises(ForecastError, match=r"unique_id is '\S+'; expected text in all rows, or"):
        small().fit(frame)


@pytest.mark.parametrize("names", [("a", 7), (1.5, 2.5), (True, False), (("a", 1), ("b", 2))])
def test_columns_called_in_other_ways_are_refused(names):
    wide = wide_of()
    wide.columns = pd.Index(list(names), tupleize_cols=False)
    with pytest.raises(ForecastError, match="series of a wide frame to be called by text, or all by whole"):
        small().fit(wide)


def test_two_columns_of_one_name_are_refused(tmp_path):
    twice = pd.concat([made_up(), made_up()[["y"]]], axis=1)
    with pytest.raises(ForecastError, match="^two columns are called 'y'; expected every name once$"):
        small().fit(twice)
    indexed = made_up().set_index(["unique_id", "ds"], drop=False).drop(columns="ds")
    with pytest.raises(ForecastError, match="^two columns are called 'unique_id'"):
        small().fit(indexed)
    twice.to_csv(tmp_path / "x.csv", index=False)  # pandas reads the second one as y.1
    with pytest.raises(ForecastError, match="x.csv: two columns are called 'y'"):
        small().fit(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["001", "002"], ("001", "002")),
        (["01", "1"], ("01", "1")),
        (["NA", "None"], ("NA", "None")),
        (["nan", "true"], ("nan", "true")),
        (["1.0", "1"], ("1", "1.0")),
        (["+1", "2"], ("+1", "2")),
        (["10", "9"], (9, 10)),
        (["-3", "0"], (-3, 0)),
        (["-0", "1"], ("-0", "1")),
        (["9" * 30, "1"], ("1", "9" * 30)),
        (['"a, b"', " c"], ("a, b", "c")),
    ],
)
def test_names_in_a_csv_file_are_read_as_they_are_written(tmp_path, written, expected):
    lines = [f"{name},2024-01-01 0{hour}:00,{hour}" for name in written for hour in range(3)]
    rows = read(tmp_path / "x.csv", "\n".join(["unique_id,ds,y", *lines]))
    assert (rows.ids, [type(one) for one in rows.ids]) == (expected, [type(one) for one in expected])


@pytest.mark.parametrize("name", ["1", "a"])
def test_an_empty_cell_is_no_name(tmp_path, name):
    text = f"unique_id,ds,y\n{name},2024-01-01,1\n,2024-01-02,2\n"
    with pytest.raises(ForecastError, match="x.csv, line 3: unique_id is blank; expected text"):
        read(tmp_path / "x.csv", text)


def test_names_that_were_text_are_text_in_a_file_of_whole_numbers_alone(tmp_path):
    frame = made_up().replace({"unique_id": {"a": "01", "b": "2"}})
    one = small(known=("t",)).fit(frame.assign(t=0.5))
    future = one.make_future_dataframe().assign(t=0.5)
    expected = one.predict(frame=frame[frame.unique_id == "2"].assign(t=0.5), future=future)
    frame[frame.unique_id == "2"].assign(t=0.5).to_csv(tmp_path / "x.csv", index=False)
    future[future.unique_id == "2"].to_csv(tmp_path / "future.csv", index=False)
    found = one.predict(frame=tmp_path / "x.csv", future=tmp_path / "future.csv")
    assert list(found.unique_id) == ["2"] * 3
    np.testing.assert_array_equal(found.GRU, expected.GRU)


def test_other_columns_of_a_csv_file_are_read_as_before(tmp_path):
    text = "ds,shop,y\n2024-01-01,01,NA\n2024-01-02,01,\n2024-01-03,01,3\n"
    rows = read(tmp_path / "x.csv", text, id_col="shop")
    np.testing.assert_array_equal(rows.y, [np.nan, np.nan, 3.0])
    assert rows.ids == ("01",)


# which columns


def test_a_frame_without_names_but_with_the_column_of_values_is_one_series():
    polars = pytest.importorskip("polars")
    frame = made_up([90])[["ds", "y"]].rename(columns={"y": "sales"})
    beside = frame.assign(note="text", price=np.arange(90.0))
    expected = small(target_col="sales").fit(frame).predict()
    assert set(expected.unique_id) == {"sales"}
    for other in (beside, beside.set_index("ds")):
        pd.testing.assert_frame_equal(small(target_col="sales").fit(other).predict(), expected)
    found = small(target_col="sales").fit(polars.from_pandas(beside)).predict()
    assert found["GRU"].to_list() == expected.GRU.to_list()
    of_default = small().fit(beside.rename(columns={"sales": "y"}))
    assert of_default.model_.ids == ("y",)
    rich = small(target_col="sales", known=("price",)).fit(beside)
    assert rich.model_.ids == ("sales",)


def test_a_blank_end_of_one_series_is_told():
    frame = made_up([90])[["ds", "y"]]
    frame.loc[89, "y"] = np.nan
    with pytest.warns(UserWarning, match="1 rows without a value before a series' first or after its last"):
        small().fit(frame)


def test_a_column_of_values_that_was_asked_for_and_is_none_is_refused():
    wide = wide_of(names=("a", "b")).reset_index()
    assert small().fit(wide).model_.ids == ("a", "b")
    with pytest.raises(ForecastError, match=r"expected a column 'sales' \(target_col=\), got 'ds', 'a', 'b'"):
        small(target_col="sales").fit(wide)


def test_an_index_written_with_its_table_is_no_series(tmp_path):
    wide = wide_of(names=("a", "b")).reset_index()
    wide.to_csv(tmp_path / "x.csv")
    with pytest.raises(ForecastError, match="'Unnamed: 0' has no name, as an index .* with index=False"):
        small().fit(tmp_path / "x.csv")
    with pytest.raises(ForecastError, match="'Unnamed: 0' has no name"):
        small().fit(pd.read_csv(tmp_path / "x.csv"))
    made_up().to_csv(tmp_path / "y.csv")  # of a long frame it is one of the other columns
    frame = made_up().astype({"ds": "datetime64[us]"})  # pandas 2 has nanoseconds, what is read from text not
    pd.testing.assert_frame_equal(small().fit(tmp_path / "y.csv").predict(), small().fit(frame).predict())


def test_rows_with_more_cells_than_the_header_are_refused(tmp_path):
    frame = made_up()
    text = frame.to_csv(index=False).replace("\n", ",7\n").replace(",7\n", "\n", 1)
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ForecastError, match="rows have more cells than the header"):
        small().fit(tmp_path / "x.csv")


# the command


def test_a_forecaster_of_a_polars_frame_is_applied_by_the_command(tmp_path):
    polars = pytest.importorskip("polars")
    days = polars.from_pandas(made_up(freq="D")).with_columns(polars.col("ds").cast(polars.Date))
    for name, frame in (("hours", polars.from_pandas(made_up())), ("days", days)):
        one = small().fit(frame)
        one.save(tmp_path / name)
        out = tmp_path / f"{name}.csv"
        done = CliRunner().invoke(
            main, ["forecast", "apply", str(tmp_path / name), "--out", str(out)], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        expected, found = one.predict(), pd.read_csv(out, parse_dates=["ds"])
        np.testing.assert_allclose(found.GRU, expected["GRU"].to_numpy())
        assert list(found.ds) == [pd.Timestamp(one) for one in expected["ds"].to_list()]
        assert "GRU-hi-95" in done.output
        assert isinstance(Forecaster.load(tmp_path / name).predict(), polars.DataFrame)
