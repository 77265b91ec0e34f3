"""A folder of Parquet files is trained on a file at a time, to what a frame in memory gives."""

import warnings

import numpy as np
import pandas as pd
import pytest

from gatedcells.forecast import Forecaster, ForecastError, FrameWarning, fitting
from gatedcells.forecast.covariates import CovariateMoments, Moments
from gatedcells.forecast.panel_store import StoreChunks
from tests.support.own_series import made_up, small

pytest.importorskip("pyarrow")


@pytest.fixture
def frame():
    made = made_up([90, 70, 80, 60], level=30.0)
    values = np.random.default_rng(0).normal(5, 2, (2, len(made)))
    return made.assign(t=values[0], size=made.unique_id.map({"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}))


def written(folder, *parts):
    folder.mkdir()
    for number, part in enumerate(parts):
        part.to_parquet(folder / f"part-{number}.parquet")
    return folder


def halves(frame):
    return frame[frame.unique_id < "c"], frame[frame.unique_id >= "c"]


WITH = {"known": ("t",), "static": ("size",)}


def test_one_file_is_a_frame(tmp_path, frame):
    folder = written(tmp_path / "f", frame)
    expected = small(**WITH).fit(frame)
    found = small(**WITH).fit(folder)
    future = expected.make_future_dataframe().assign(t=5.0)
    pd.testing.assert_frame_equal(found.predict(future=future), expected.predict(future=future))
    assert str(found.report_) == str(expected.report_)


def test_several_files_have_the_scales_of_all_and_forecast_all(tmp_path, frame):
    folder = written(tmp_path / "f", *halves(frame))
    one, two = small(**WITH).fit(frame), small(**WITH).fit(folder)
    assert two.model_.ids == ("a", "b", "c", "d")
    for name in ("level", "spread", "change"):
        np.testing.assert_array_equal(getattr(one.model_.scales, name), getattr(two.model_.scales, name))
    assert one.model_.scales.log
    assert two.model_.scales.log
    # sums of halves in place of the sum of all
    np.testing.assert_allclose(one.model_.covariates.center, two.model_.covariates.center, rtol=1e-12)
    np.testing.assert_allclose(one.model_.covariates.spread, two.model_.covariates.spread, rtol=1e-12)
    assert one.model_.margins.windows == two.model_.margins.windows
    future = two.make_future_dataframe().assign(t=5.0)
    assert list(two.predict(future=future).unique_id.unique()) == ["a", "b", "c", "d"]
    two.save(tmp_path / "saved")
    pd.testing.assert_frame_equal(
        Forecaster.load(tmp_path / "saved").predict(future=future), two.predict(future=future)
    )
    again = small(**WITH).fit(folder)
    pd.testing.assert_frame_equal(again.predict(future=future), two.predict(future=future))


def test_one_value_that_is_not_positive_takes_the_logarithm_from_all(tmp_path, frame):
    low = frame.copy()
    low.loc[low.index[-5], "y"] = 0.0
    assert not small().fit(written(tmp_path / "f", *halves(low)[::-1])).model_.scales.log


def test_training_that_was_stopped_goes_on_in_the_same_files(tmp_path, frame, monkeypatch):
    from gatedcells.forecast import training

    folder, path, plain = (
        written(tmp_path / "f", *halves(frame)),
        tmp_path / "half.safetensors",
        training.train,
    )
    whole = small(steps=7).fit(folder).predict()
    asked = iter([False] * 4 + [True])
    with monkeypatch.context() as patch:
        patch.setattr(
            training, "train", lambda *a, **k: plain(*a, **{**k, "should_stop": lambda: next(asked)})
        )
        with pytest.raises(KeyboardInterrupt):
            small(steps=7).fit(folder, checkpoint=path)
    pd.testing.assert_frame_equal(small(steps=7).fit(folder, checkpoint=path).predict(), whole)


class Parts:
    def __len__(self):
        return 5


@pytest.mark.parametrize(("windows", "steps"), [(1000, 50), (10_000, 40), (10, 40), (10_000, 3)])
def test_a_pass_visits_every_part_once_in_an_order_of_its_own(windows, steps):
    loads = []
    chunks = StoreChunks(Parts(), lambda part: loads.append(part) or part, windows, 100, steps, seed=1)
    seen = [chunks.at(step) for step in range(steps)]
    visits = [part for at, part in enumerate(seen) if at == 0 or part != seen[at - 1]]
    assert len(loads) == len(visits)  # the part at hand is kept
    if steps >= 5:
        a_pass = 5 * chunks._visit
        first = [seen[at] for at in range(0, a_pass, chunks._visit)]
        assert sorted(first) == [0, 1, 2, 3, 4]
        assert a_pass <= steps or windows == 10
    other = StoreChunks(Parts(), lambda part: part, windows, 100, steps, seed=1)
    assert [other.at(step) for step in reversed(range(steps))] == seen[::-1]


def test_what_is_wrong_names_the_file(tmp_path, frame):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ForecastError, match=r"empty: no Parquet files \(\*.parquet, \*.pq\)"):
        small().fit(empty)
    first, second = halves(frame)
    with pytest.raises(ForecastError, match="'b' is in two files; expected whole series"):
        small().fit(written(tmp_path / "twice", first, pd.concat([frame[frame.unique_id == "b"], second])))
    off = second.reset_index(drop=True)
    off.loc[3, "ds"] += pd.Timedelta(minutes=7)
    with pytest.raises(ForecastError, match="part-1.parquet: row 3 of the frame: .* not one of the stamps"):
        small().fit(written(tmp_path / "off", first, off))
    with pytest.raises(ForecastError, match="is a folder; only fit reads folders"):
        small().cross_validation(tmp_path / "off")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = small().fit(written(tmp_path / "holes", first.drop(index=5), second.drop(index=170)))
    assert [one.category for one in caught] == [FrameWarning]
    assert (fitted.report_.absent, fitted.report_.series) == (2, 4)


def test_every_file_named_as_a_parquet_file_is_read_and_others_are_told(tmp_path, frame):
    parts = [frame[frame.unique_id == one] for one in "abc"]
    folder = written(tmp_path / "f", *parts)
    expected = small().fit(folder).predict()
    (folder / "part-1.parquet").rename(folder / "part-1.pq")
    (folder / "part-2.parquet").rename(folder / "part-2.PARQUET")
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.crc").touch()
    pd.testing.assert_frame_equal(small().fit(folder).predict(), expected)
    for name in ("part-3.csv", "part-4.parquet.bak"):
        (folder / name).touch()
    words = r"f: 2 file\(s\) left out that are not named as Parquet files are, the first 'part-3.csv'"
    with pytest.warns(FrameWarning, match=words):
        found = small().fit(folder)
    pd.testing.assert_frame_equal(found.predict(), expected)


def test_files_that_call_series_in_two_ways_are_refused_before_training(tmp_path, frame, monkeypatch):
    monkeypatch.setattr(fitting, "train_shown", lambda *_, **__: pytest.fail("trained"))
    whole = frame[frame.unique_id < "b"].assign(unique_id=7)
    text = frame[frame.unique_id >= "b"]
    for at, (parts, kinds) in enumerate(
        {(0, 1): ("text", "whole numbers"), (1, 0): ("whole numbers", "text")}.items()
    ):
        folder = written(tmp_path / str(at), *[(whole, text)[part] for part in parts])
        with pytest.raises(ForecastError) as refused:
            small().fit(folder)
        assert str(refused.value) == (
            f"{folder / 'part-1.parquet'}: its series are called by {kinds[0]}, those of part-0.parquet by"
            f" {kinds[1]}; expected one kind in all files"
        )


def test_a_file_with_time_zones_beside_one_without_is_refused(tmp_path, frame):
    first, second = halves(frame)
    folder = written(tmp_path / "f", first.assign(ds=first.ds.dt.tz_localize("Europe/Berlin")), second)
    with pytest.raises(ForecastError, match="part-1.parquet: ds has stamps without a time zone"):
        small().fit(folder)


def test_moments_of_parts_are_those_of_all():
    values = np.random.default_rng(0).normal(1e9, 1.0, 1000)  # where squares would cancel
    parts = np.split(values, [1, 300, 300, 999])
    found = Moments()
    for part in parts:
        found = found.beside(Moments.of(part))
    assert found.mean == pytest.approx(values.mean(), rel=1e-15)
    assert found.deviation == pytest.approx(values.std(), rel=1e-6)
    assert CovariateMoments().fitted().center == ()
