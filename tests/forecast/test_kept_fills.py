"""What fills a hole may be of values that lie far back: forecasts go on from it, however little is kept."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gatedcells.forecast import Forecaster
from gatedcells.forecast import forecaster_files as files
from tests.support.own_series import made_up, small

pytestmark = pytest.mark.filterwarnings("ignore::gatedcells.forecast.FrameWarning")
N = 24 * 30  # far more than is kept


def holed(masks, level=0.0):
    """Series with blanks, whose first and last values are known."""
    frame = made_up([len(mask) for mask in masks], level=level)
    missing = np.concatenate(masks) & frame.unique_id.eq(frame.unique_id.shift()).to_numpy()
    missing &= frame.unique_id.eq(frame.unique_id.shift(-1)).to_numpy()
    return frame.assign(y=frame.y.mask(missing), t=np.random.default_rng(9).normal(size=len(frame)))


def office(n):
    """A meter that is read from Monday to Friday, from six to eighteen."""
    hours = pd.date_range("2024-01-01", periods=n, freq="h")
    return ~((hours.hour >= 6) & (hours.hour <= 18) & (hours.day_of_week < 5))


def outage(n, begin, end):
    mask = np.zeros(n, dtype=bool)
    mask[begin:end] = True
    return mask


def scattered(n, seed, longest):
    mask, generator = np.zeros(n, dtype=bool), np.random.default_rng(seed)
    for begin in generator.integers(1, n - 1, n // 60):
        mask[begin : begin + int(generator.integers(1, longest))] = True
    return mask


def fitted(frame, **changed):
    """Of the frame; a later hour of the covariate is known ahead."""
    return small(known=("t",), **changed).fit(frame)


def ahead(frame):
    parts = frame.groupby("unique_id").ds.max().items()
    return pd.concat(
        [
            pd.DataFrame({"unique_id": one, "ds": pd.date_range(end, periods=4, freq="h")[1:], "t": 0.5})
            for one, end in parts
        ]
    )


def points(one, frame, /, **options):
    return one.predict(future=ahead(frame), **options)[["unique_id", "ds", "GRU"]]


@pytest.mark.parametrize("level", [0.0, 50.0])  # in units, and in logarithms
@pytest.mark.parametrize(
    "masks",
    [(office(N), office(N - 50)), (outage(N, N - 433, N - 74), outage(N, N - 350, N - 340))],
    ids=["an office", "an outage"],
)
def test_a_forecast_is_that_of_the_frame_fitted_on_saved_or_not(masks, level, tmp_path):
    frame = holed(masks, level)
    one = fitted(frame)
    assert one.model_.scales.log == (level > 0)
    assert (one._context.sizes < N / 1.5).all()
    expected = one.predict(frame=frame, future=ahead(frame))
    pd.testing.assert_frame_equal(one.predict(future=ahead(frame)), expected, check_exact=True)
    back = Forecaster.load(one.save(tmp_path / "f"))
    pd.testing.assert_frame_equal(back.predict(future=ahead(frame)), expected, check_exact=True)
    back.save(tmp_path / "g")
    again = Forecaster.load(tmp_path / "g").predict(future=ahead(frame))
    pd.testing.assert_frame_equal(again, expected, check_exact=True)


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(2, 250), st.sampled_from([0.0, 50.0]),
    st.sampled_from([1, 7, 30, 90]), st.integers(0, 200),
)  # fmt: skip
def test_after_updates_a_forecast_is_that_of_all_values(seed, longest, level, came, again):
    whole = holed([scattered(N, seed, longest), scattered(N, seed + 1, longest) | office(N)], level)
    number = whole.groupby("unique_id").cumcount()
    one = small().fit(whole[number < N - 90])
    for begin in range(N - 90, N, came):
        rows = whole[(number >= begin - again) & (number < begin + came)]
        rows = rows[rows.groupby("unique_id").y.transform("count") > 0]
        if len(rows):
            one.update(rows)
    medians = [found[["unique_id", "ds", "GRU"]] for found in (one.predict(), one.predict(frame=whole))]
    pd.testing.assert_frame_equal(*medians, check_exact=True)


def test_values_that_come_late_into_a_hole_fill_the_holes_behind_it_anew():
    whole = holed([outage(N, N - 600, N - 200) | outage(N, N - 190, N - 10)])
    late = made_up([N])[N - 300 : N - 195].assign(t=whole.t)
    one = fitted(whole)
    before = points(one, whole)
    known = whole.assign(y=whole.y.fillna(late.y))
    one.update(late)
    assert (points(one, whole).GRU != before.GRU).all()
    pd.testing.assert_frame_equal(points(one, whole), points(one, whole, frame=known), check_exact=True)


def test_a_folder_of_before_is_read_as_it_was_written(tmp_path):
    frame = holed([outage(N, N - 433, N - 74)])
    one = fitted(frame)
    mine = one.save(tmp_path / "f")
    tensors = load_file(mine / "forecaster.safetensors")
    tensors.pop("context.filled")
    save_file(tensors, mine / "forecaster.safetensors")
    content = json.loads((mine / "forecaster.json").read_text())
    content["tensors_sha256"] = files.sha256_of(mine / "forecaster.safetensors")
    (mine / "forecaster.json").write_text(json.dumps(content))
    old = Forecaster.load(mine)
    kept = frame.tail(int(one._context.sizes[0]))  # all that a folder of before knows
    pd.testing.assert_frame_equal(points(old, frame), points(one, frame, frame=kept), check_exact=True)
    back = Forecaster.load(old.save(tmp_path / "g"))
    pd.testing.assert_frame_equal(points(back, frame), points(old, frame), check_exact=True)
