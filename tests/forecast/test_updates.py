"""Values that come after the fit: where forecasts go on, how wide intervals become, what a stop leaves."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gatedcells.cli import main
from gatedcells.forecast import Forecaster, ForecastError, FrameWarning, NotFitted
from gatedcells.forecast import forecaster_files as files
from gatedcells.forecast.conformal import ADAPTS, WIDEST, Margins, level_pairs
from tests.support.own_series import made_up, small

Q, LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975), (80.0, 95.0)
PAIRS = level_pairs(LEVELS, Q)


def windows(generator, n, horizon, spread):
    """Quantiles of a standard normal, and values ``spread`` times as far out."""
    quantiles = np.tile([-1.96, -1.28, 0.0, 1.28, 1.96], (n, horizon, 1))
    return quantiles, generator.normal(0, spread, (n, horizon))


def inside(moved, actual, pair):
    return (moved[..., pair[0]] <= actual) & (actual <= moved[..., pair[1]])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 5), st.floats(0.2, 5), st.sampled_from([1, 3])
)
def test_the_share_outside_is_the_asked_one_but_for_what_the_width_says(seed, n, horizon, spread, many):
    """With windows one behind the other: sum of (outside − asked) · ADAPTS = log width, for any values."""
    generator = np.random.default_rng(seed)
    quantiles, actual = windows(generator, n * many, horizon, spread)
    series, number = np.tile(np.arange(many), n), np.repeat(np.arange(n), many)
    margins = Margins.none(many, 2, horizon)
    moved, after = margins.follow(
        quantiles, actual, series, number * horizon, np.full(n * many, horizon), LEVELS, PAIRS, 2
    )
    for at, (level, pair) in enumerate(zip(LEVELS, PAIRS, strict=True)):
        for one in range(many):
            outside = 1 - inside(moved, actual, pair)[series == one].mean()
            said = math.log(after.widths[one, at]) / (n * ADAPTS)
            assert outside - (1 - level / 100) == pytest.approx(said, abs=1e-9)
    assert (np.diff(moved, axis=-1) >= 0).all()
    assert (margins.widths == 1).all()


def test_errors_that_grow_are_followed_within_weeks():
    generator = np.random.default_rng(1)
    quantiles, actual = windows(generator, 400, 24, 2.0)
    still = Margins.none(1, 2, 24)
    origins, series = np.arange(400) * 24, np.zeros(400, dtype=np.int64)
    moved, after = still.follow(quantiles, actual, series, origins, np.full(400, 24), LEVELS, PAIRS, 2)
    assert inside(still.move(quantiles, series, PAIRS, 2), actual, PAIRS[0]).mean() < 0.5
    assert inside(moved, actual, PAIRS[0])[100:].mean() == pytest.approx(0.8, abs=0.02)
    assert inside(moved, actual, PAIRS[1])[100:].mean() == pytest.approx(0.95, abs=0.02)
    np.testing.assert_allclose(after.widths, 2.0, rtol=0.15)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_window_knows_only_those_that_had_ended(step):
    generator = np.random.default_rng(2)
    n, horizon = 20, 4
    quantiles, actual = windows(generator, n, horizon, 3.0)
    origins, series = np.arange(n) * step, np.zeros(n, dtype=np.int64)
    rest = (np.full(n, step), LEVELS, PAIRS, 2)
    moved, _ = Margins.none(1, 2, horizon).follow(quantiles, actual, series, origins, *rest)
    other = actual.copy()
    other[7] *= 1000
    changed, _ = Margins.none(1, 2, horizon).follow(quantiles, other, series, origins, *rest)
    same = (moved == changed).all(axis=(1, 2))
    assert list(same) == [not origin >= 7 * step + horizon for origin in origins]


def test_unknown_values_teach_nothing_and_a_failed_meter_widens_not_without_end():
    quantiles, actual = windows(np.random.default_rng(3), 3000, 2, 1.0)
    origins, series = np.arange(3000) * 2, np.zeros(3000, dtype=np.int64)
    rest = (series, origins, np.full(3000, 2), LEVELS, PAIRS, 2)
    _, after = Margins.none(1, 2, 2).follow(quantiles, actual * np.nan, *rest)
    assert (after.widths == 1).all()
    _, after = Margins.none(1, 2, 2).follow(quantiles, actual + 1e9, *rest)
    assert (after.widths == WIDEST).all()


@pytest.fixture(scope="module")
def whole():
    return made_up((160, 140))


@pytest.fixture(scope="module")
def known(whole):
    return whole.groupby("unique_id").head(100)


@pytest.fixture(scope="module")
def folder(known, tmp_path_factory):
    return small().fit(known).save(tmp_path_factory.mktemp("saved") / "f")


def medians(frame):
    return frame[["unique_id", "ds", "GRU"]]


@pytest.mark.parametrize("given_rows", ["those that came", "all", "some known ones"])
def test_an_update_goes_on_where_the_values_end(folder, whole, known, given_rows):
    rows = {
        "those that came": whole.drop(known.index), "all": whole,
        "some known ones": whole.groupby("unique_id").tail(70),
    }[given_rows]  # fmt: skip
    one = Forecaster.load(folder)
    before = {name: value.clone() for name, value in one.model_.network.network.state_dict().items()}
    expected = one.predict(frame=whole)
    assert one.update(rows) is one
    pd.testing.assert_frame_equal(medians(one.predict()), medians(expected))
    assert (one._context.sizes <= one.model_.reach).all()
    assert (one.model_.margins.widths != 1).any()
    after = one.model_.network.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_wild_values_widen_and_tame_ones_narrow(folder, whole, known):
    came = whole.drop(known.index)
    widths = []
    for noise in (0.0, 30.0):
        one = Forecaster.load(folder)
        generator = np.random.default_rng(0)
        flat = came.groupby("unique_id").y.transform("mean")
        one.update(came.assign(y=flat + noise * generator.normal(size=len(came))))
        widths.append(one.model_.margins.widths)
    assert (widths[0] < widths[1]).all()
    assert (widths[1] > 1).all()


def test_hour_by_hour_teaches_as_much_as_at_once(folder, whole, known):
    """Windows that end in every hour count a horizon-th each; what they say of a width is nearly the same."""
    came = whole.drop(known.index)
    came = came.assign(y=came.y + 30 * np.random.default_rng(0).normal(size=len(came)))
    at_once, hourly = Forecaster.load(folder), Forecaster.load(folder)
    at_once.update(came)
    for _, rows in came.groupby(came.groupby("unique_id").cumcount()):
        hourly.update(rows)
    pd.testing.assert_frame_equal(medians(at_once.predict()), medians(hourly.predict()))
    logs = [np.log(one.model_.margins.widths) for one in (at_once, hourly)]
    assert (logs[1] > 0.5 * logs[0]).all()
    assert (logs[1] < 1.5 * logs[0]).all()


def test_a_series_of_its_own_and_one_that_had_no_news(whole, known):
    one = small(identity=False).fit(known)
    came = whole.drop(known.index)
    only = came[came.unique_id == "a"]
    new = only.assign(unique_id="new")
    one.update(pd.concat([only, new]))
    found = one.predict().groupby("unique_id").ds.min()
    assert list(found.index) == ["a", "b", "new"]
    assert found["a"] == found["new"] == whole[whole.unique_id == "a"].ds.max() + pd.Timedelta("1h")
    assert found["b"] == known[known.unique_id == "b"].ds.max() + pd.Timedelta("1h")
    assert (one.model_.margins.widths[1] == 1).all()
    # those of its own are followed from now on, the new one goes on with the width of all
    taught = one.model_.margins.widths.copy()
    later = pd.concat([only, new]).assign(ds=lambda frame: frame.ds + (only.ds.max() - only.ds.min()) * 2)
    with pytest.warns(FrameWarning, match="116 stamps without a row: filled from the past"):
        one.update(later)
    assert (one.model_.margins.widths[0] != taught[0]).any()
    assert one.predict().groupby("unique_id").ds.min()["new"] > found["new"]


def test_a_refused_update_changes_nothing(folder, whole, known):
    one = Forecaster.load(folder)
    before = one.predict()
    far = whole.drop(known.index).assign(ds=lambda frame: frame.ds + pd.Timedelta(days=2000))
    with pytest.raises(
        ForecastError, match=r"'a' was known until .*, and the values given begin at .*mistyped"
    ):
        one.update(far)
    with pytest.raises(ForecastError):
        one.update(whole.drop(columns="y"))
    pd.testing.assert_frame_equal(one.predict(), before)
    with pytest.raises(NotFitted):
        small().update(whole)


def test_covariates_go_on_too(whole, known):
    def with_them(frame):
        return frame.assign(
            t=frame.ds.dt.hour / 24.0, wind=frame.ds.dt.day / 31.0, kind=frame.unique_id + "!"
        )

    one = small(known=("t",), past=("wind",), static=("kind",)).fit(with_them(known))
    expected = one.predict(frame=with_them(whole), future=pd.DataFrame(
        {"ds": pd.date_range(whole.ds.min(), periods=400, freq="h"), "t": 0.5}
    ))  # fmt: skip
    one.update(with_them(whole.drop(known.index)))
    future = one.make_future_dataframe().assign(t=0.5)
    pd.testing.assert_frame_equal(medians(one.predict(future=future)), medians(expected))


EAST = "America/New_York"


def autumn(freq):
    """A week over the night in which clocks go back: the local stamps, their moments, and values."""
    utc = pd.date_range("2024-10-30 04:00", "2024-11-05 04:00", freq=freq, tz="UTC")
    naive = utc.tz_convert(EAST).tz_localize(None)
    values = np.random.default_rng(0).normal(size=len(utc))
    return pd.DataFrame({"unique_id": "a", "ds": naive, "utc": utc, "y": values})


def test_hour_by_hour_the_second_hour_of_the_night_is_not_the_first_again():
    frame = autumn("h")
    night = int(np.argmax(frame.ds == pd.Timestamp("2024-11-03 01:00")))
    one = small(tz=EAST).fit(frame[["unique_id", "ds", "y"]].head(night))
    same = small(tz=EAST).fit(frame[["unique_id", "ds", "y"]].head(night))
    aware = small(tz=EAST).fit(frame.head(night).assign(ds=frame.utc)[["unique_id", "ds", "y"]])
    for at in range(night, night + 4):
        one.update(frame[["unique_id", "ds", "y"]].iloc[[at]])
        aware.update(frame.assign(ds=frame.utc)[["unique_id", "ds", "y"]].iloc[[at]])
        np.testing.assert_array_equal(one._context.y, aware._context.y)
        assert list(one._context.first) == list(aware._context.first)
        assert one._context.y[-1] == frame.y[at]
    # rows of before sent once more stay where they are, also those of the night
    for back in (1, 2, 4, 6):
        same.update(frame[["unique_id", "ds", "y"]].iloc[max(night - back, 0) : night + 4])
        np.testing.assert_array_equal(same._context.y, one._context.y)


def test_a_first_hour_that_is_sent_again_with_rows_before_it_stays_the_first():
    frame = autumn("h")[["unique_id", "ds", "y"]]
    night = int(np.argmax(frame.ds == pd.Timestamp("2024-11-03 01:00")))
    one = small(tz=EAST).fit(frame.head(night + 1))
    one.update(frame.iloc[night - 2 : night + 1])
    assert one.predict().ds[0] == pd.Timestamp("2024-11-03 01:00")
    np.testing.assert_array_equal(one._context.y[-3:], frame.y[night - 2 : night + 1])


@pytest.mark.parametrize("begins", range(9))
@pytest.mark.parametrize("many", [1, 3, 8, 12])
def test_quarters_of_the_night_come_in_any_number_and_lie_where_they_belong(begins, many):
    frame = autumn("15min")
    night = int(np.argmax(frame.ds == pd.Timestamp("2024-11-03 01:00"))) + begins
    naive, aware = frame[["unique_id", "ds", "y"]], frame.assign(ds=frame.utc)[["unique_id", "ds", "y"]]
    one, other = small(tz=EAST).fit(naive.head(night)), small(tz=EAST).fit(aware.head(night))
    for begin in range(night, night + 12, many):
        one.update(naive.iloc[begin : begin + many])
        other.update(aware.iloc[begin : begin + many])
        np.testing.assert_array_equal(one._context.y, other._context.y)
    assert one._context.first + one._context.sizes == other._context.first + other._context.sizes


def test_series_of_one_update_are_placed_each_behind_its_own_end():
    frame = autumn("h")[["unique_id", "ds", "y"]]
    night = int(np.argmax(frame.ds == pd.Timestamp("2024-11-03 01:00")))
    ends = {"a": night + 1, "b": night}  # one knows the first of the two hours already
    known = [frame.head(end).assign(unique_id=name) for name, end in ends.items()]
    one = small(tz=EAST).fit(pd.concat(known))
    came = [frame.iloc[[end]].assign(unique_id=name) for name, end in ends.items()]
    one.update(pd.concat(came))
    found = one.predict().groupby("unique_id").ds.min()
    assert found["a"] == pd.Timestamp("2024-11-03 02:00")
    assert found["b"] == pd.Timestamp("2024-11-03 01:00")


def test_a_hole_before_what_came_is_told_or_refused(known, whole):
    came = whole.drop(known.index)
    late = came[came.groupby("unique_id").cumcount() >= 5]
    with pytest.warns(FrameWarning, match="10 stamps without a row: filled from the past") as caught:
        small().fit(known).update(late)
    assert len(caught) == 1
    for on_gap in ("raise", "drop"):
        one = small(on_gap=on_gap).fit(known)
        before = one.predict()
        with pytest.raises(
            ForecastError,
            match="'a' was known until 2024-01-05 03:00:00, and the values given begin at 2024-01-05 09:00:00"
            ": 5 value.s. are missing between .on_gap='fill' fills them",
        ):
            one.update(late)
        pd.testing.assert_frame_equal(one.predict(), before)
        one.update(came)


def test_a_covariate_that_is_blank_where_an_update_begins_is_the_one_before(known, whole):
    def with_them(frame):
        return frame.assign(t=frame.ds.dt.hour / 24.0, wind=frame.ds.dt.day / 31.0)

    came = with_them(whole.drop(known.index))
    first = came.groupby("unique_id").cumcount() < 2
    blank = came.assign(t=came.t.mask(first), wind=came.wind.mask(first))
    last = with_them(known).groupby("unique_id")[["t", "wind"]].last()
    carried = came.assign(**{n: came[n].mask(first, came.unique_id.map(last[n])) for n in ("t", "wind")})
    one, other = (small(known=("t",), past=("wind",)).fit(with_them(known)) for _ in range(2))
    other.update(carried)
    with pytest.warns(FrameWarning, match="8 covariates without a value: the one before"):
        one.update(blank)
    for name in ("known", "past"):
        np.testing.assert_array_equal(getattr(one._context, name), getattr(other._context, name))


def test_what_is_kept_begins_with_a_value_where_a_gap_lies(known, tmp_path):
    reach = small().fit(known).model_.reach
    long = made_up((3 * reach,))
    holed = long.drop(long.index[-reach - 5 : -reach + 5])
    with pytest.warns(UserWarning, match="filled"):
        one = small().fit(holed)
    assert one._context.sizes[0] > reach
    back = Forecaster.load(one.save(tmp_path / "f"))
    pd.testing.assert_frame_equal(back.predict(), one.predict())


def test_a_stop_while_a_folder_is_written_over_leaves_the_one_before(folder, whole, tmp_path, monkeypatch):
    mine = Forecaster.load(folder).save(tmp_path / "f")
    one = Forecaster.load(mine)
    before = one.predict()
    one.update(whole)
    with monkeypatch.context() as stopped:
        stopped.setattr(files, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            one.save(mine)
    pd.testing.assert_frame_equal(Forecaster.load(mine).predict(), before)
    for _ in range(3):
        one.save(mine)
        pd.testing.assert_frame_equal(Forecaster.load(mine).predict(), one.predict())
        assert len(list(mine.iterdir())) == 2
    (mine / "forecaster.json").write_text("{")
    one.save(mine)
    pd.testing.assert_frame_equal(Forecaster.load(mine).predict(), one.predict())


def test_folders_of_before_have_no_widths_and_no_false_ones_are_read(folder, tmp_path):
    def changed(name, widths):
        mine = Forecaster.load(folder).save(tmp_path / name)
        tensors = load_file(mine / "forecaster.safetensors")
        tensors.pop("margins.widths")
        if widths is not None:
            tensors["margins.widths"] = torch.full((2, 2), widths, dtype=torch.float64)
        save_file(tensors, mine / "forecaster.safetensors")
        content = json.loads((mine / "forecaster.json").read_text())
        content["tensors_sha256"] = files.sha256_of(mine / "forecaster.safetensors")
        del content["tensors"]
        (mine / "forecaster.json").write_text(json.dumps(content))
        return mine

    pd.testing.assert_frame_equal(
        Forecaster.load(changed("old", None)).predict(), Forecaster.load(folder).predict()
    )
    for name, widths in {"negative": -1.0, "none": 0.0, "endless": 1e9}.items():
        with pytest.raises(ForecastError, match="widths of intervals that no values can have taught"):
            Forecaster.load(changed(name, widths))


def test_the_command_keeps_what_came(folder, whole, known, tmp_path):
    mine = Forecaster.load(folder).save(tmp_path / "f")
    whole.drop(known.index).to_csv(tmp_path / "came.csv", index=False)

    def apply(*options):
        return CliRunner().invoke(main, ["forecast", "apply", str(mine), *map(str, options)])

    refused = apply("--update")
    assert (refused.exit_code, "give them as --data FILE" in refused.output) == (2, True)
    done = apply("--update", "--data", tmp_path / "came.csv", "--out", tmp_path / "next.csv")
    assert done.exit_code == 0, done.output
    expected = Forecaster.load(folder).update(whole).predict()
    found = pd.read_csv(tmp_path / "next.csv", parse_dates=["ds"])
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    pd.testing.assert_frame_equal(Forecaster.load(mine).predict(), expected)
