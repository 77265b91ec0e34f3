"""The forecaster for one's own data: conventions, no look into the future, intervals, files."""

import contextlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatedcells.forecast import Forecaster, ForecastError, FrameWarning, NotFitted
from gatedcells.forecast.conformal import Margins, level_pairs
from gatedcells.forecast.direct import DirectNetwork, DirectRecipe, Sizes, pinball
from gatedcells.forecast.rolling import laid_out
from tests.support.own_series import made_up, small

COLUMNS = ["unique_id", "ds", "GRU", "GRU-lo-80", "GRU-hi-80", "GRU-lo-95", "GRU-hi-95"]


def with_weather(frame, seed=5):
    """The frame with a covariate that is known ahead, one that is not, and two that say what a series is."""
    weather = np.random.default_rng(seed).normal(size=(2, len(frame)))
    kind = frame.unique_id.map({"a": "shop", "b": "depot"}).fillna("shop")
    size = frame.unique_id.map({"a": 1.0, "b": 2.0}).fillna(1.0)
    return frame.assign(t=weather[0], wind=weather[1], kind=kind, size=size)


RICH = {"known": ("t",), "past": ("wind",), "static": ("kind", "size")}


@pytest.fixture(scope="module")
def fitted():
    return small().fit(made_up())


@pytest.fixture(scope="module")
def rich():
    return small(**RICH).fit(with_weather(made_up()))


def test_a_forecast_has_the_columns_of_the_field_and_goes_on_after_each_series(fitted):
    found = fitted.predict()
    assert list(found.columns) == COLUMNS
    assert list(found.unique_id) == ["a"] * 3 + ["b"] * 3
    ends = made_up().groupby("unique_id").ds.max()
    for name, part in found.groupby("unique_id"):
        assert list(part.ds) == list(pd.date_range(ends[name], periods=4, freq="h")[1:])
    assert np.isfinite(found[COLUMNS[2:]].to_numpy()).all()
    pd.testing.assert_frame_equal(
        fitted.predict(2), found.groupby("unique_id").head(2).reset_index(drop=True)
    )
    lstm = small(cell="lstm", quantiles=(0.1, 0.3, 0.5, 0.9), level=(80,)).fit(made_up()).predict(1)
    assert list(lstm.columns) == ["unique_id", "ds", "LSTM", "LSTM-lo-80", "LSTM-hi-80", "LSTM-ql0.3"]


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_polars_pandas_long_wide_and_shuffled_give_equal_forecasts(data):
    polars = pytest.importorskip("polars")
    sizes = data.draw(st.lists(st.integers(30, 60), min_size=1, max_size=3))
    freq = data.draw(st.sampled_from(["15min", "h", "D"]))
    frame = made_up(sizes, freq, level=data.draw(st.sampled_from([0.0, 50.0])))
    expected = small(seed=1, calibration=0).fit(frame).predict()
    order = data.draw(st.permutations(range(len(frame))))
    wide = frame.pivot(index="ds", columns="unique_id", values="y")
    for other in (frame.iloc[order], wide, wide.reset_index()):
        pd.testing.assert_frame_equal(small(seed=1, calibration=0).fit(other).predict(), expected)
    found = small(seed=1, calibration=0).fit(polars.from_pandas(frame)).predict()
    assert isinstance(found, polars.DataFrame)
    for name in expected.columns:
        assert found[name].to_list() == expected[name].to_list()
    assert found["ds"].dtype == polars.from_pandas(frame)["ds"].dtype


def test_stamps_come_back_as_they_were_given():
    polars = pytest.importorskip("polars")
    aware = made_up([60])
    aware["ds"] = aware.ds.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    found = small(calibration=0).fit(aware).predict()
    assert found.ds.dtype == aware.ds.dtype
    assert found.ds[0] == aware.ds.iloc[-1] + pd.Timedelta(hours=1)
    assert small(calibration=0).fit(polars.from_pandas(aware)).predict()["ds"].to_list() == list(found.ds)
    days = polars.from_pandas(made_up([60], "D")).with_columns(polars.col("ds").cast(polars.Date))
    assert small(calibration=0).fit(days).predict()["ds"].dtype == polars.Date


def test_parameters_follow_the_conventions_of_scikit_learn():
    quantiles = [0.1, 0.5, 0.9]
    one = Forecaster(horizon=5, quantiles=quantiles, level=[80])
    assert one.get_params()["quantiles"] is quantiles  # stored as given, read when fitted
    assert Forecaster(**one.get_params()).get_params() == one.get_params()
    assert one.set_params(horizon=7) is one
    assert repr(one) == "Forecaster(horizon=7, quantiles=[0.1, 0.5, 0.9], level=[80])"
    assert not [name for name in vars(one) if name.endswith("_")]
    with pytest.raises(
        ForecastError, match="there is no parameter 'epochs'; the parameters are cell, horizon"
    ):
        one.set_params(epochs=3)
    Forecaster(cell="rnn", horizon=-1)  # the constructor only stores
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    assert base.clone(one).get_params() == one.get_params()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cell": "rnn"}, "cell must be one of gru, lstm, got 'rnn'"),
        ({"horizon": 0}, "horizon must be positive, got 0"),
        ({"quantiles": (0.1, 0.9)}, "quantiles must rise between 0 and 1 and have 0.5 among them"),
        ({"quantiles": (0.9, 0.5, 0.1)}, "quantiles must rise"),
        ({"level": (90,)}, r"a level of 90 lies between the quantiles 0.05 and 0.95; expected both among"),
        ({"scaling": "minmax"}, "scaling must be one of auto, log, standard"),
        ({"scaling": "log"}, "'a' has the value .* which has no logarithm; fit with scaling='standard'"),
        ({"calibration": 1.0}, "calibration is the share held out"),
        ({"holidays": "XX"}, "holidays of 'XX' are not known"),
        ({"known": ("y",)}, "columns are named twice: y"),
        ({"target_col": "GRU"}, "a column is called 'GRU', as one of a forecast is; expected other names"),
        ({"cell": "lstm", "id_col": "LSTM"}, "a column is called 'LSTM', as one of a forecast is"),
        ({"time_col": "cutoff"}, "a column is called 'cutoff', as one of a forecast is"),
        ({"target_col": "GRU-lo-80"}, "a column is called 'GRU-lo-80', as one of a forecast is"),
        ({"level": 80}, "level must be a list of numbers, got 80"),
        ({"level": "80"}, "level must be a list of numbers, got '80'"),
        ({"quantiles": (0.5, None)}, r"quantiles must be a list of numbers, got \(0.5, None\)"),
        ({"threads": 0}, "threads must be from 1 to 1000000, got 0"),
        ({"threads": 1.5}, "threads must be a whole number, got 1.5"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0, got nan"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0, got 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"calibration": None}, "calibration must be a number, got None"),
        ({"seed": 2**64}, "seed must be from 0 to 18446744073709551615, got 18446744073709551616"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"horizon": 2.5}, "horizon must be a whole number, got 2.5"),
        ({"horizon": float("inf")}, "horizon must be a whole number, got inf"),
        ({"hidden_size": None}, "hidden_size must be a whole number, got None"),
        ({"steps": "many"}, "steps must be a whole number, got 'many'"),
        ({"known": "rain"}, "known must be a list of names of columns, got 'rain'"),
        ({"static": None}, "static must be a list of names of columns, got None"),
        ({"known": ("rain",)}, "expected the covariates 'rain', got the columns"),
        ({"horizon": 200}, "the longest series has 90 values to train on; expected more than the horizon"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused_when_it_is_fitted(changed, words):
    with pytest.raises(ForecastError, match=words):
        small(**changed).fit(made_up())


def test_what_cannot_be_forecast_says_what_can(fitted, rich):
    with pytest.raises(NotFitted, match="not fitted yet: call fit"):
        small().predict()
    with pytest.raises(
        ForecastError, match="h is 4; this forecaster forecasts from 1 to 3 steps .*horizon=4"
    ):
        fitted.predict(4)
    for ask in (fitted.predict, fitted.make_future_dataframe):
        with pytest.raises(ForecastError, match="h must be a whole number, got 2.5"):
            ask(2.5)
    assert len(fitted.predict(np.float64(2.0))) == 4
    with pytest.raises(ForecastError, match="n_windows must be a whole number, got 1.5"):
        small().cross_validation(made_up(), 1.5)
    with pytest.raises(ForecastError, match="step_size must be a whole number, got 0.5"):
        small().cross_validation(made_up(), 2, 0.5)
    with pytest.raises(ForecastError, match="future= was given, but"):
        fitted.predict(future=made_up())
    with pytest.raises(ForecastError, match="give their values for the 3 steps to come as future="):
        rich.predict()
    future = rich.make_future_dataframe().assign(t=0.0)
    with pytest.raises(ForecastError, match="future= has no t for 'b' at 2024-01-03 23:00:00, step 2 of 3"):
        rich.predict(future=future.drop(index=4))
    other = made_up([90, 70, 90])
    with pytest.raises(ForecastError, match="'c' is not one of the 2 series .*identity=False"):
        fitted.predict(frame=other)
    found = small(identity=False).fit(made_up()).predict(frame=other)
    assert list(found.unique_id.unique()) == ["a", "b", "c"]
    strange = with_weather(made_up()).assign(kind="kiosk")
    with pytest.raises(
        ForecastError, match="the static covariate kind is 'kiosk'; fitted on 'depot', 'shop'"
    ):
        rich.predict(frame=strange, future=future)


@pytest.mark.parametrize("level", [0.0, 50.0])  # in units, and in logarithms
@pytest.mark.parametrize("refit", [False, True])
def test_cross_validation_is_predict_with_what_was_known(level, refit):
    frame = with_weather(made_up(level=level))
    found = small(**RICH).cross_validation(frame, n_windows=3, step_size=2, refit=refit)
    assert list(found.columns) == [*COLUMNS[:2], "cutoff", *COLUMNS[2:], "y"]
    first = None
    for number in range(3):
        ends = frame.groupby("unique_id").ds.max() - pd.Timedelta(hours=3 + 2 * (2 - number))
        known = frame[frame.ds <= frame.unique_id.map(ends)]
        one = small(**RICH).fit(known) if refit or number == 0 else first
        first = first or one
        expected = one.predict(frame=known, future=frame)
        own = found[found.cutoff == found.unique_id.map(ends)].reset_index(drop=True)
        pd.testing.assert_frame_equal(own[COLUMNS], expected)
        there = own.merge(frame[["unique_id", "ds", "y"]], on=["unique_id", "ds"])
        assert (there.y_x == there.y_y).all()
    with pytest.raises(ForecastError, match=r"'b' has 70 values; 40 window\(s\) leave 0 to train on"):
        small(**RICH).cross_validation(frame, n_windows=40)


def test_a_value_without_a_logarithm_in_a_window_alone_does_not_stop_cross_validation():
    frame = made_up([90], level=50.0)
    frame.loc[88, "y"] = 0.0
    found = small().cross_validation(frame, n_windows=2, refit=True)
    expected = small(scaling="standard").cross_validation(frame, n_windows=2, refit=True)
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(ForecastError, match="has the value 0, which has no logarithm"):
        small(scaling="log").cross_validation(frame, n_windows=2)


def test_nothing_after_the_cutoff_is_known_but_what_is_known_ahead():
    frame = with_weather(made_up())
    late = frame.groupby("unique_id").cumcount(ascending=False) < 3

    def forecasts(changed):
        return small(**RICH).cross_validation(changed)[COLUMNS[2:]].to_numpy()

    expected = forecasts(frame)
    for column in ("y", "wind"):
        changed = frame.assign(**{column: frame[column].where(~late, 1000.0)})
        np.testing.assert_array_equal(forecasts(changed), expected)
    warmer = frame.assign(t=frame.t.where(~late, frame.t + 2.0))
    assert (forecasts(warmer)[:, 0] != expected[:, 0]).all()
    before = frame.assign(y=frame.y.where(frame.ds != frame.ds[80], frame.y + 1.0))
    assert (forecasts(before)[:3] != expected[:3]).all()


def test_a_gap_just_before_the_end_is_filled_from_the_past(fitted):
    frame = made_up()
    gone = frame.drop(index=[86, 87])
    with pytest.warns(FrameWarning, match="2 stamps without a row"):
        found = fitted.predict(frame=gone)
    # y[t-1] + y[t-24] - y[t-25], twice
    filled = frame.copy()
    for at in (86, 87):
        filled.loc[at, "y"] = filled.y[at - 1] + filled.y[at - 24] - filled.y[at - 25]
    pd.testing.assert_frame_equal(fitted.predict(frame=filled), found, check_exact=False, rtol=1e-12)


def test_the_context_kept_is_all_that_a_forecast_depends_on():
    frame = made_up([900])
    one = small(lookback=5).fit(frame)
    assert one._context.sizes[0] < 900
    pd.testing.assert_frame_equal(one.predict(), one.predict(frame=frame))
    changed = frame.assign(y=frame.y.where(frame.index >= 900 - one.model_.reach, -3.0))
    pd.testing.assert_frame_equal(one.predict(), one.predict(frame=changed))


def test_seeds_give_the_same_forecasts_and_other_seeds_others(fitted):
    again = small().fit(made_up()).predict()
    pd.testing.assert_frame_equal(again, fitted.predict())
    assert (small(seed=2).fit(made_up()).predict().GRU != again.GRU).all()
    assert (small(seed=2**64 - 1).fit(made_up()).predict().GRU != again.GRU).all()


def test_training_that_was_stopped_goes_on_to_the_same_forecasts(tmp_path, fitted, monkeypatch):
    from gatedcells.forecast import training

    path = tmp_path / "half.safetensors"
    asked = iter([False, False, True])
    plain = training.train
    with monkeypatch.context() as patch:
        patch.setattr(
            training, "train", lambda *a, **k: plain(*a, **{**k, "should_stop": lambda: next(asked)})
        )
        with pytest.raises(KeyboardInterrupt):
            small().fit(made_up(), checkpoint=path)
    assert path.exists()
    found = small().fit(made_up(), checkpoint=path).predict()
    pd.testing.assert_frame_equal(found, fitted.predict())


def test_a_constant_series_and_short_ones_can_be_forecast():
    frame = pd.concat(
        [made_up([60]), made_up([12]).assign(unique_id="b"), made_up([60]).assign(unique_id="c", y=7.0)]
    )
    found = small().fit(frame).predict()
    assert np.isfinite(found[COLUMNS[2:]].to_numpy()).all()


def test_too_few_windows_to_calibrate_are_told():
    with pytest.warns(FrameWarning, match="5 window.s. were held out, too few to calibrate intervals of 95%"):
        small(calibration=0.12).fit(made_up([60]))
    one = small(calibration=0).fit(made_up([60]))
    assert one.model_.margins.windows == 0


def test_a_series_too_short_to_hold_a_window_out_is_told():
    words = "^0 window.s. were held out, too few to calibrate intervals of 80%, 95%: they may be too narrow"
    with pytest.warns(FrameWarning, match=words):
        short = small().fit(made_up([8]))
    assert short.model_.margins.windows == 0
    small(level=()).fit(made_up([8]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60))
def test_windows_too_few_for_a_level_do_not_make_its_interval_narrower(seed, windows):
    """Where the rank lies beyond the last score theory has no bound: the interval is at least as given."""
    generator = np.random.default_rng(seed)
    quantiles = np.tile(np.array([-9.0, -3.0, 0.0, 3.0, 9.0]), (windows, 2, 1))
    actual = generator.normal(0, generator.choice([0.1, 9.0]), (windows, 2))
    pairs = level_pairs((80, 95), (0.025, 0.1, 0.5, 0.9, 0.975))
    series = np.zeros(windows, dtype=np.int64)
    margins = Margins.fit(quantiles, actual, series, 1, (80, 95), pairs)
    scores = np.sort(np.maximum(-9.0 - actual, actual - 9.0), axis=0)
    if windows < 19:
        assert (margins.pooled[1] >= 0).all()
        np.testing.assert_array_equal(margins.pooled[1], np.maximum(scores[-1], 0))
    else:
        np.testing.assert_array_equal(margins.pooled[1], scores[int(np.ceil((windows + 1) * 0.95)) - 1])
    assert (margins.pooled[0] >= 0).all() or windows >= 4


def test_learning_beats_the_season_before():
    """A daily habit with noise: the last day's value errs by the noise of two hours, the habit by that of
    one."""
    frame = made_up([24 * 60, 24 * 50])
    one = Forecaster(horizon=6, lookback=24, hidden_size=16, steps=150, threads=1)
    found = one.cross_validation(frame, n_windows=8)
    series = frame.set_index(["unique_id", "ds"]).y
    before = series.loc[list(zip(found.unique_id, found.ds - pd.Timedelta(days=1), strict=True))]
    naive = np.abs(before.to_numpy() - found.y).mean()
    assert np.abs(found.GRU - found.y).mean() < 0.9 * naive


def test_steps_to_come_in_the_night_when_clocks_go_back_are_told_apart():
    """The series ends with the first of the two hours that are both one o'clock."""
    utc = pd.date_range("2024-10-30 04:00", "2024-11-03 05:00", freq="h", tz="UTC")
    local = utc.tz_convert("America/New_York").tz_localize(None)
    values = np.random.default_rng(0).normal(size=(2, len(utc)))
    frame = pd.DataFrame({"unique_id": "a", "ds": local, "y": values[0], "t": values[1]})
    one = small(known=("t",), tz="America/New_York").fit(frame)
    future = one.make_future_dataframe()
    assert [str(stamp.time()) for stamp in future.ds] == ["01:00:00", "02:00:00", "03:00:00"]
    found = one.predict(future=future.assign(t=[0.1, 0.2, 0.3]))
    aware = frame.assign(ds=utc)
    other = small(known=("t",), tz="America/New_York").fit(aware)
    expected = other.predict(future=other.make_future_dataframe().assign(t=[0.1, 0.2, 0.3]))
    np.testing.assert_array_equal(found.GRU, expected.GRU)
    assert list(expected.ds) == list(pd.date_range(utc[-1], periods=4, freq="h")[1:])


# quantiles and intervals


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(0.1, 50),
    st.sampled_from([(0.5,), (0.1, 0.5), (0.025, 0.1, 0.5, 0.9, 0.975)]),
)
def test_quantiles_never_cross_whatever_the_weights(seed, size, quantiles):
    torch.manual_seed(seed)
    network = DirectNetwork(
        DirectRecipe(horizon=3, hidden_size=4, width=4, quantiles=quantiles), Sizes(5, 3, 4, 2)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(size)
        found = network(
            size * torch.randn(6, 2, 5),
            torch.tensor([0, 1]),
            torch.randn(4 + 2, 2, 3),
            torch.randn(4, 2, 3, 4),
        )
    assert found.shape == (4, 2, 3, len(quantiles))
    assert (found.diff(dim=-1) >= 0).all()


def test_one_step_of_the_network_is_its_equation():
    torch.manual_seed(0)
    recipe = DirectRecipe(horizon=3, hidden_size=4, width=5, quantiles=(0.1, 0.5, 0.9))
    network = DirectNetwork(recipe, Sizes(5, 2, 4, 2)).double()
    x, ahead = torch.randn(6, 2, 5).double(), torch.randn(4 + 2, 2, 2).double()
    lags, series = torch.randn(4, 2, 3, 4).double(), torch.tensor([1, 0])
    found = network(x, series, ahead, lags)
    own = network.identity.weight[series]
    h = network.rnn(torch.cat([x, own.expand(6, 2, -1)], -1))[0]
    p, b, k = 2, 1, 1  # of the last four steps the third, of two series the second, two steps ahead
    context = (network.context.weight @ torch.cat([h[2 + p, b], own[b]]) + network.context.bias).view(3, 5)[k]
    inner = (context + network.ahead.weight @ ahead[p + k, b] + network.lags.weight @ lags[p, b, k]).relu()
    raw = network.out.weight @ inner + network.out.bias
    median = raw[1] + network.straight.weight[0] @ lags[p, b, k]
    spread = torch.nn.functional.softplus(raw[[0, 2]])
    expected = torch.stack([median - spread[0], median, median + spread[1]])
    torch.testing.assert_close(found[p, b, k], expected)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(-5, 5), st.floats(-5, 5))
def test_the_pinball_loss_is_that_of_the_hand(quantile, forecast, actual):
    by_hand = quantile * (actual - forecast) if actual >= forecast else (1 - quantile) * (forecast - actual)
    q, f, a = (torch.tensor(v, dtype=torch.float64) for v in ([quantile], [forecast], actual))
    assert pinball(q, f, a).item() == pytest.approx(by_hand, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 3))
def test_margins_keep_intervals_nested_around_the_median(seed, windows, many):
    generator = np.random.default_rng(seed)
    q = (0.025, 0.1, 0.5, 0.9, 0.975)
    quantiles = np.sort(generator.normal(size=(windows, 2, 5)), axis=-1)
    actual = generator.normal(0, generator.uniform(0.01, 3), size=(windows, 2))
    actual[generator.random(actual.shape) < 0.1] = np.nan
    series = generator.integers(0, many, windows)
    pairs = level_pairs((80, 95), q)
    margins = Margins.fit(quantiles, actual, series, many, (80, 95), pairs)
    moved = margins.move(quantiles, np.where(series == 0, -1, series), pairs, 2)
    assert (np.diff(moved, axis=-1) >= 0).all()
    np.testing.assert_array_equal(moved[..., 2], quantiles[..., 2])
    # within the windows that calibrated at least the asked share lies inside, as far as margins are pooled
    pooled = margins.move(quantiles, np.full(windows, -1), pairs, 2)
    for level, (low, high) in zip((0.8, 0.95), pairs, strict=True):
        known = np.isfinite(actual)
        inside = (pooled[..., low] <= actual) & (actual <= pooled[..., high])
        for step in range(2):
            assert inside[known[:, step], step].sum() >= np.floor(level * known[:, step].sum())


def test_intervals_of_noise_hold_what_they_promise():
    """Values without memory and one step ahead: windows are exchangeable, so the hits among m new ones
    follow the beta-binomial law of split conformal prediction. Its bounds at one in a million are the
    limits."""
    generator = np.random.default_rng(3)
    n, new = 1200, 1000
    frame = pd.DataFrame(
        {"ds": pd.date_range("2024-01-01", periods=n + new, freq="h"), "y": generator.normal(size=n + new)}
    )
    one = Forecaster(
        horizon=1, lookback=8, hidden_size=4, steps=30, batch_size=8, calibration=400 / n, threads=1,
    ).fit(frame.iloc[:n])  # fmt: skip
    assert one.model_.margins.windows == 400
    panel, _, _ = laid_out(one, frame)
    origins = np.arange(n, n + new)
    found = one.model_.forecast(panel, np.zeros(new, dtype=np.int64), origins)[:, 0]
    for level, (low, high) in zip((0.8, 0.95), one.model_.pairs, strict=True):
        inside = int(((found[:, low] <= panel.y[n:]) & (panel.y[n:] <= found[:, high])).sum())
        least, most = beta_binomial_bounds(400, new, level, 1e-6)
        assert least <= inside <= most, (level, inside, least, most)


def beta_binomial_bounds(windows, new, level, rare):
    """The hits of ``new`` intervals with rank ⌈(n+1)·level⌉ of n: counts below and above which a share
    ``rare`` lies. P(hits = j) is that of a Pólya urn of r and n+1−r."""
    from math import ceil, lgamma

    rank = ceil((windows + 1) * level)
    a, b = rank, windows + 1 - rank

    def log_beta(x, y):
        return lgamma(x) + lgamma(y) - lgamma(x + y)

    j = np.arange(new + 1)
    choose = np.array([lgamma(new + 1) - lgamma(one + 1) - lgamma(new - one + 1) for one in j])
    p = np.exp(choose + np.array([log_beta(a + one, b + new - one) for one in j]) - log_beta(a, b))
    assert p.sum() == pytest.approx(1, abs=1e-9)
    return int(j[np.cumsum(p) > rare][0]), int(j[np.cumsum(p[::-1])[::-1] > rare][-1])


# files


def test_a_saved_forecaster_forecasts_the_same_bits(rich, tmp_path):
    polars = pytest.importorskip("polars")
    rich.save(tmp_path / "f")
    back = Forecaster.load(tmp_path / "f")
    future = rich.make_future_dataframe().assign(t=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    pd.testing.assert_frame_equal(back.predict(future=future), rich.predict(future=future))
    assert back.get_params() == rich.get_params()
    assert str(back.report_) == str(rich.report_)
    assert {p.name for p in (tmp_path / "f").iterdir()} == {"forecaster.json", "forecaster.safetensors"}
    back.save(tmp_path / "f")  # over its own kind
    integers = polars.from_pandas(made_up().assign(unique_id=[1] * 90 + [2] * 70))
    one = small(cell="lstm", identity=False, scaling="standard").fit(integers)
    one.save(tmp_path / "g")
    assert Forecaster.load(tmp_path / "g").predict().equals(one.predict())
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "thesis.txt").write_text("mine")
    with pytest.raises(ForecastError, match="exists already and is no forecaster"):
        one.save(tmp_path / "h")
    with pytest.raises(NotFitted):
        small().save(tmp_path / "i")


@pytest.fixture(scope="module")
def saved(rich, tmp_path_factory):
    return rich.save(tmp_path_factory.mktemp("saved") / "f")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_folder_edited_anywhere_is_read_or_refused_in_our_own_words(saved, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("hostile") / "f"
    shutil.copytree(saved, folder)
    content = json.loads((folder / "forecaster.json").read_text())
    spot, parent = content, None
    while isinstance(spot, (dict, list)) and spot and (parent is None or data.draw(st.integers(0, 4))):
        keys = sorted(spot) if isinstance(spot, dict) else list(range(len(spot)))
        key, parent = data.draw(st.sampled_from(keys)), spot
        spot = spot[key]
    new = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False),
        st.text(max_size=5),
        st.just([]), st.just({}), st.lists(st.integers(-3, 3), max_size=3),
    )  # fmt: skip
    parent[key] = data.draw(new)
    (folder / "forecaster.json").write_text(json.dumps(content))
    with contextlib.suppress(ForecastError):
        one = Forecaster.load(folder)
        one.predict(future=one.make_future_dataframe().assign(t=0.0))
    shutil.rmtree(folder.parent)


def test_damaged_and_foreign_files_are_refused(saved, rich, tmp_path):
    def spoilt(name):
        folder = tmp_path / name
        shutil.copytree(saved, folder)
        return folder, folder / "forecaster.json", folder / "forecaster.safetensors"

    folder, meta, tensors = spoilt("cut")
    tensors.write_bytes(tensors.read_bytes()[:-8])
    with pytest.raises(ForecastError, match="its two files were not written together"):
        Forecaster.load(folder)
    folder, meta, tensors = spoilt("gone")
    tensors.unlink()
    with pytest.raises(ForecastError, match="no such file"):
        Forecaster.load(folder)
    folder, meta, _ = spoilt("other format")
    meta.write_text(json.dumps({"format": 99}))
    with pytest.raises(ForecastError, match="format 99; this version of gatedcells reads format 1"):
        Forecaster.load(folder)
    meta.write_text("{")
    with pytest.raises(ForecastError, match="not readable as JSON"):
        Forecaster.load(folder)
    with pytest.raises(ForecastError, match="no such file"):
        Forecaster.load(tmp_path / "nowhere")
    folder, meta, _ = spoilt("greedy")
    content = json.loads(meta.read_text())
    content["recipe"]["hidden_size"] = 1_000_000
    meta.write_text(json.dumps(content))
    with pytest.raises(ForecastError, match="not a forecaster that this version can read .*size mismatch"):
        Forecaster.load(folder)
