"""What says something of a series: text or numbers, the same kind when it is fitted, read and applied."""

import numpy as np
import pandas as pd
import pytest

from gatedcells.forecast import Forecaster, ForecastError
from gatedcells.forecast.frames import Names, read_frame
from tests.support.own_series import made_up, small


def with_kind(first, second, sizes=(90, 70)):
    """Series a and b, and what is said of each."""
    frame = made_up(sizes)
    cells = [first if one == "a" else second for one in frame.unique_id]
    return frame.assign(kind=pd.Series(cells, dtype=object))


def medians(one, **options):
    return one.predict(**options)[["unique_id", "ds", "GRU"]]


@pytest.mark.parametrize("blank", [None, np.nan, pd.NA])
@pytest.mark.parametrize("other", ["x", 2.5])
def test_a_blank_is_refused_with_its_row(blank, other):
    with pytest.raises(
        ForecastError,
        match="^row 90 of the frame: the static covariate kind is blank; expected one of every series",
    ):
        small(static=("kind",)).fit(with_kind(other, blank))
    once = with_kind(other, other)
    once.loc[3, "kind"] = blank
    with pytest.raises(ForecastError, match="^row 3 of the frame: the static covariate kind is blank"):
        small(static=("kind",)).fit(once)
    as_numbers = with_kind(2.5, np.nan).astype({"kind": float})
    with pytest.raises(ForecastError, match="^row 90 of the frame: the static covariate kind is blank"):
        small(static=("kind",)).fit(as_numbers)


def test_a_blank_of_polars_is_refused_with_its_row():
    polars = pytest.importorskip("polars")
    frame = polars.from_pandas(made_up()).with_columns(
        kind=polars.when(polars.col("unique_id") == "a").then(polars.lit("x")).otherwise(None)
    )
    with pytest.raises(ForecastError, match="^row 90 of the frame: the static covariate kind is blank"):
        small(static=("kind",)).fit(frame)


def test_a_column_with_any_text_is_text_and_read_again_as_such(tmp_path):
    frame = with_kind(3, "x")
    one = small(static=("kind",)).fit(frame)
    assert one.model_.covariates.static == {"kind": ("3", "x")}
    back = Forecaster.load(one.save(tmp_path / "f"))
    pd.testing.assert_frame_equal(back.predict(), one.predict())
    pd.testing.assert_frame_equal(small(static=("kind",)).fit(with_kind("3", "x")).predict(), one.predict())


@pytest.mark.parametrize("codes", [("2A", "3"), ("x", "007"), ("x", "NA"), ("x", "1e5")])
def test_codes_of_some_series_of_a_file_are_the_text_that_they_were(codes, tmp_path):
    # pandas 2 has nanoseconds, what is read from text not
    whole = with_kind(*codes, sizes=(90, 90)).astype({"ds": "datetime64[us]"})
    one = small(static=("kind",)).fit(whole)
    back = Forecaster.load(one.save(tmp_path / "f"))
    own = whole[whole.unique_id == "b"]
    own.to_csv(tmp_path / "b.csv", index=False)
    expected = medians(one, frame=own)
    pd.testing.assert_frame_equal(medians(one, frame=tmp_path / "b.csv"), expected)
    pd.testing.assert_frame_equal(medians(back, frame=tmp_path / "b.csv"), expected)
    before = one.predict()
    one.update(tmp_path / "b.csv")
    pd.testing.assert_frame_equal(medians(one), before[["unique_id", "ds", "GRU"]])


def test_whole_numbers_of_a_frame_are_the_text_that_they_were():
    one = small(static=("kind",)).fit(with_kind("2A", "3"))
    own = made_up((90, 70))[90:].assign(kind=3)
    assert len(one.predict(frame=own)) == 3
    with pytest.raises(ForecastError, match="kind is '4'; fitted on '2A', '3'"):
        one.predict(frame=own.assign(kind=4))


def test_text_where_numbers_were_fitted_on_is_refused_with_its_row():
    frame = with_kind(1.0, 2.0).astype({"kind": float})
    one = small(static=("kind",)).fit(frame)
    before = one.predict()
    strange = with_kind("1", "big")
    for ask in (lambda: one.predict(frame=strange), lambda: one.update(strange)):
        with pytest.raises(ForecastError, match="^row 90 of the frame: kind is 'big'; expected a number$"):
            ask()
    pd.testing.assert_frame_equal(one.predict(), before)
    pd.testing.assert_frame_equal(medians(one, frame=with_kind("1", "2")), medians(one, frame=frame))


def test_an_empty_cell_of_a_code_is_blank(tmp_path):
    (tmp_path / "x.csv").write_text("ds,y,kind\n2024-01-01,1,3\n2024-01-02,2,\n")
    with pytest.raises(ForecastError, match="x.csv, line 3: the static covariate kind is blank"):
        read_frame(tmp_path / "x.csv", Names(static=("kind",), text=("kind",)))


@pytest.mark.parametrize("role", ["static", "known", "past"])
def test_a_number_too_far_from_those_fitted_on_is_refused(role):
    frame = made_up((90, 70)).assign(size=0.0)
    frame.loc[frame.index % 2 == 0, "size"] = 0.5
    if role == "static":
        frame["size"] = [0.0 if one == "a" else 0.5 for one in frame.unique_id]
    one = small(**{role: ("size",)}).fit(frame)
    far = frame.assign(size=3e38)
    future = {"future": one.make_future_dataframe().assign(size=3e38)} if role == "known" else {}
    with pytest.raises(ForecastError, match=r"lies 1\.2e\+39 standard deviations from the mean"):
        one.predict(frame=far, **future)
