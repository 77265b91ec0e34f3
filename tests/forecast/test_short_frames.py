"""A frame too short to look back on is told; one that goes on with the values known is taken for news."""

import warnings

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast import FrameWarning
from tests.support.own_series import made_up, small


@pytest.fixture(scope="module")
def whole():
    return made_up((500, 450))


@pytest.fixture(scope="module")
def known(whole):
    return whole.groupby("unique_id").head(400)


@pytest.fixture(scope="module")
def fitted(known):
    return small().fit(known)


def said(fitted, frame):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted.predict(frame=frame)
    assert len(found) == 3 * frame.unique_id.nunique()
    return [str(one.message) for one in caught if issubclass(one.category, FrameWarning)]


def test_a_frame_shorter_than_what_forecasts_look_back_on_is_told(fitted, whole):
    enough = 8 + 24 * 7  # the lookback, and a week of hours
    assert said(fitted, whole) == said(fitted, whole.groupby("unique_id").tail(enough)) == []
    for rows in (enough - 1, 48, 1):
        (found,) = said(fitted, whole.groupby("unique_id").tail(rows))
        assert found.startswith(f"'a' has {rows} value(s) to go on from, and forecasts look back on {enough}")
        assert "(too few for 2 of 2 series)" in found
        assert "update goes on from the values known before as well" in found
    only = pd.concat([whole[whole.unique_id == "a"], whole[whole.unique_id == "b"].tail(9)])
    (found,) = said(fitted, only)
    assert found.startswith("'b' has 9 value(s)")
    assert "(too few for 1 of 2 series)" in found


def test_a_series_that_was_no_longer_when_it_was_fitted_is_not_told():
    short = made_up((90, 70))
    one = small(identity=False).fit(short)
    assert said(one, short) == said(one, short.replace({"unique_id": {"a": "new"}})) == []
    (found,) = said(one, short[short.unique_id == "b"].assign(unique_id="new"))
    assert found.startswith("'new' has 70 value(s) to go on from, and forecasts look back on 90")
    ends = one.predict().groupby("unique_id").ds.min()
    rows = made_up((91,)).tail(1)
    assert rows.ds.iloc[0] == ends["a"]
    one.update(rows)  # which says nothing


@pytest.mark.parametrize(("begin", "meant"), [(400, True), (380, True), (420, False)])
def test_the_command_asks_whether_rows_that_go_on_are_news(fitted, whole, tmp_path, begin, meant):
    fitted.save(tmp_path / "f")
    number = whole.groupby("unique_id").cumcount()
    whole[(number >= begin) & (number < 440)].to_csv(tmp_path / "came.csv", index=False)
    options = ["forecast", "apply", str(tmp_path / "f"), "--data", str(tmp_path / "came.csv")]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    assert f"Warning: 'a' has {440 - begin} value(s) to go on from" in done.output
    assert ("; did you mean --update?" in done.output) == meant
    assert np.isfinite(fitted.predict().GRU).all()
    if begin <= 400:
        done = CliRunner().invoke(main, [*options, "--update"])
        assert (done.exit_code, "Warning" in done.output) == (0, False), done.output
