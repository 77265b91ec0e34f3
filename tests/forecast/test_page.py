"""A run's report: its numbers are the run's, it needs nothing else, and everybody can use it."""

import csv
import html
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast.calendar import local_starts
from gatedcells.forecast.data import read_file, read_folder
from gatedcells.forecast.evaluate import scored
from gatedcells.forecast.metrics import UndefinedScore
from gatedcells.forecast.page.charts import Line, chart
from gatedcells.forecast.page.findings import changed_hours, largest_misses, mean_profile, profile
from gatedcells.forecast.page.gates import typical_days
from gatedcells.forecast.page.markup import as_html, element, table
from gatedcells.forecast.runs import RunFolder
from gatedcells.forecast.windows import prepare
from tests.support.browser import opened
from tests.support.load_files import eastern_stamps, made_up_load, write_file

SMALL = ["--steps", "12", "--batch-size", "8", "--hidden-size", "6", "--threads", "1"]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"&'"


def gatedcells(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two regions, one of them with a hole, a spike, a blank and a name that is no name."""
    folder = tmp_path_factory.mktemp("page")
    hours = 24 * 60
    load = made_up_load(hours, 1)
    load[300] *= 1.4
    load[400] = np.nan
    keep = np.arange(hours) != 500
    stamps = eastern_stamps("2016-09-01 04:00", hours)
    write_file(folder / "data", "AEP", stamps, made_up_load(hours))
    write_file(folder / "data", HOSTILE, stamps[keep], load[keep], "<b>x'.csv")
    run = folder / '"><script>alert(3)<'
    arguments = ["forecast", "--data", folder / "data", "--out", run, "--lightgbm", 3, *SMALL]
    result = gatedcells(*arguments)
    assert result.exit_code == 0, result.output
    assert f"Report: {run / 'report.html'}" in result.output.replace("\n", "")
    return run


def cells(page, caption):
    """A table by its caption: {row name: [cells]}."""
    rows = page.locator("table", has=page.locator(f"caption:text-is({json.dumps(caption)})")).locator("tr")
    return {row[0]: row[1:] for row in (one.locator("th, td").all_text_contents() for one in rows.all())}


def test_the_tables_hold_the_runs_numbers(run, browser):
    models = json.loads((run / "metrics.json").read_text())["models"]
    with opened(browser, run / "report.html") as page:
        mean = cells(page, "Unweighted mean over the regions")
        assert set(mean) - {"forecaster"} == set(models)
        for name, model in models.items():
            own = model["mean"]
            expected = [f"{own[one]:.3f}" for one in ("smape", "mase")]
            expected += [f"{own[one]:,.1f}" for one in ("mae_mw", "rmse_mw")]
            assert mean[name][:4] == expected
            for title, measure, digits in (("sMAPE, %", "smape", 3), ("RMSE, MW", "rmse_mw", 1)):
                shown = cells(page, f"{title} by region")
                column = shown["region"].index(name)
                for region, values in shown.items():
                    if region != "region":
                        assert values[column] == f"{model['by_region'][region][measure]:,.{digits}f}"
        said = "Hours inside their interval in %, mean width, and mean pinball loss of the bounds"
        covered = cells(page, said)
        for region in ("AEP", HOSTILE):
            own = models["GRU"]["intervals"][region]["coverage"]
            assert covered[region][:2] == [f"{100 * share:.1f}" for share in own]
        found = cells(page, "Counts by file")
        counts = dict(zip(found["region"], found[HOSTILE], strict=True))
        assert [counts[one] for one in ("missing", "zero, below, blank", "spikes")] == ["1", "1", "1"]
        changed = cells(page, f"{HOSTILE}: hours replaced by values from the hours before")
        assert [cell[0] for cell in changed.values()][2:] == ["is blank", "has no row"]
        versions = cells(page, "Versions")
        assert re.fullmatch(r"[0-9a-f]{12}(\+changes)?|not known .*", versions["commit"][0])
        asked = cells(page, "Settings of the run")
        assert asked["on gap"] == ["fill"]
        assert asked["hidden size"] == ["6"]
        assert asked["LightGBM's trees"] == ["3"]


def test_a_choice_shows_its_panels_and_the_same_choice_elsewhere_follows(run, browser):
    with opened(browser, run / "report.html") as page:

        def shown(section):
            return page.locator(f"#{section} [data-panel]:visible").count()

        assert [shown(one) for one in ("scores", "errors", "intervals", "gates")] == [1, 1, 1, 1]
        assert page.locator("#errors h3:visible").inner_text() == "mean of all regions"
        page.locator("#errors select").select_option(label=HOSTILE)
        assert page.locator("#errors h3:visible").inner_text() == HOSTILE
        for section in ("intervals", "gates"):
            assert HOSTILE in page.locator(f"#{section} [data-panel]:visible").inner_text()
        page.locator("#gates select[name=network]").select_option("1")
        assert page.locator("#gates [data-panel]:visible h3").inner_text().startswith(f"{HOSTILE}, LSTM")
        page.locator("#errors select").select_option("0")
        assert HOSTILE in page.locator("#gates [data-panel]:visible").inner_text(), "gates have no mean"
        # without a mouse: from the top of the page to every choice
        page.locator("h1").click()
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.name ?? document.activeElement.tagName"))
        assert {"measure", "region", "network"} <= reached


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (320, "light")])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(width, scheme, run, browser):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with opened(browser, run / "report.html", width=width, scheme=scheme) as page:
        for details in page.locator("summary:visible").all():
            details.click()
        found = axe.run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not serious, json.dumps(serious, indent=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_names_are_text_and_the_page_is_one_file(run, browser):
    text = (run / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 1
    assert "<img" not in text
    asked = re.findall(r'<[^<>]*\b(?:src|href)="([^"]*)"', text)
    assert all(address == "data:," or address.startswith("#") for address in asked)
    assert not re.search(r"url\(|//[a-z]|@import", text)
    assert len(text) < 1_000_000
    with opened(browser, run / "report.html") as page:
        assert page.locator("#short-heading").inner_text() == f"Run {run.name}"
        assert page.locator("img").count() == 0


def test_the_report_command_writes_the_same_page_again(run, tmp_path):
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    result = gatedcells("forecast", "report", copy, "--out", tmp_path / "again.html")
    assert result.exit_code == 0, result.output
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    again = (tmp_path / "again.html").read_text(encoding="utf-8")
    # LightGBM's forecasts are not kept: its scores are there, its curves are not
    mean = again[: again.index('id="errors"')]
    assert "LightGBM, 3 trees" in mean
    assert mean == before[copy / "report.html"].decode()[: len(mean)]
    # of a run from before there were policies and commits
    config = json.loads((copy / "config.json").read_text())
    del config["policy"], config["versions"]["commit"]
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "report.html").unlink()
    (copy / "metrics.json").unlink()
    assert gatedcells("forecast", "report", copy).exit_code == 0
    assert "not recorded" in (copy / "report.html").read_text(encoding="utf-8")


def test_what_has_no_report_says_what_has(run, tmp_path):
    def told(folder, *arguments):
        result = gatedcells("forecast", "report", folder, *arguments)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
        return " ".join(result.output.split())

    which = "runs of the recipes fast, best and article have reports"
    (tmp_path / "backtest").mkdir()
    (tmp_path / "backtest" / "settings.json").write_text("{}")
    assert f"is a backtest, which has no report; {which}" in told(tmp_path / "backtest")
    assert "config.json: no such file; expected a run folder" in told(tmp_path / "nothing")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "gru" / "weights.safetensors").unlink()
    assert "its gru is not trained yet; go on with --resume" in told(unfinished)
    write_file(tmp_path / "other", "AEP", eastern_stamps("2016-01-01", 500), made_up_load(500))
    other = ["--data", tmp_path / "other", "--out", tmp_path / "x.html"]
    assert "began with other data than" in told(run, *other)
    (unfinished / "metrics.json").write_text('{"models": {"LightGBM": {"mean": 3}}}')
    shutil.copytree(run / "gru", unfinished / "gru", dirs_exist_ok=True)
    assert "metrics.json: not the scores of this run" in told(unfinished)


def test_errors_by_hour_weekday_and_month_are_what_a_table_of_the_forecasts_gives(run):
    regions = prepare(read_folder(run.parent / "data"))
    with (run / "test_forecasts.csv").open(encoding="utf-8") as file:
        rows = pd.DataFrame(csv.DictReader(file))
    for region in regions:
        own = rows[rows["region"] == region.name]
        forecast = own["gru_mw"].astype(float).to_numpy()
        actual = pd.to_numeric(own["actual_mw"]).to_numpy()
        error = pd.Series(200 * np.abs(forecast - actual) / (forecast + actual))
        starts = pd.to_datetime(own["Datetime"]) - pd.Timedelta(hours=1)
        for group, of, size in (
            ("hour of the day", starts.dt.hour, 24),
            ("weekday", starts.dt.day_of_week, 7),
            ("month", starts.dt.month - 1, 12),
        ):
            expected = error.groupby(of.to_numpy()).mean().reindex(range(size)).to_numpy()
            np.testing.assert_allclose(profile(forecast, region, group), expected, rtol=1e-3)
    some, others = np.array([1.0, np.nan, np.nan]), np.array([3.0, 5.0, np.nan])
    np.testing.assert_array_equal(mean_profile([some, others]), [2.0, 5.0, np.nan])


def test_the_largest_errors_are_the_largest(run):
    regions = prepare(read_folder(run.parent / "data"))
    forecasts = [np.nan_to_num(region.actual_mw, nan=500.0) * 1.01 for region in regions]
    forecasts[1][7] *= 2
    forecasts[0][3] /= 2
    misses = largest_misses(scored("x", regions, forecasts), regions, 5)
    assert {(miss.region, miss.at) for miss in misses[:2]} == {(0, 3), (1, 7)}
    assert [miss.share for miss in misses] == sorted((miss.share for miss in misses), reverse=True)


def test_hours_that_were_changed_are_holes_and_the_training_parts_spikes(run):
    (region,) = (one for one in prepare(read_folder(run.parent / "data")) if one.name == HOSTILE)
    changed = changed_hours(region, repaired=True)
    assert changed.tolist() == [300, 400, 500]
    assert changed_hours(region, repaired=False).tolist() == [400, 500]
    untouched = np.setdiff1d(np.arange(len(region.load_mw)), changed)
    assert np.array_equal(region.load_mw[untouched], region.series.load_mw[untouched])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_typical_day_is_the_mean_of_the_traces_gates_by_hour(run, cell):
    folder = RunFolder(run)
    forecaster, _ = folder.forecaster(folder.config(), cell)
    regions = prepare(read_folder(run.parent / "data"))
    (day,) = typical_days(forecaster, cell, regions[:1])
    hours = 24 * 5  # the test part is the last tenth of 60 days
    assert day.hours == hours
    x, state = forecaster.day(regions[0].series, regions[0].load_mw, len(regions[0].load_mw), hours)
    recorded = forecaster.rnn.trace(x, state)[0]
    starts = local_starts(regions[0].series)[-hours:]
    for gate, found in day.by_hour.items():
        values = pd.DataFrame(recorded[gate][:, 0].detach().double().numpy())
        np.testing.assert_allclose(found, values.groupby(starts.hour).mean().to_numpy(), rtol=1e-12)
        np.testing.assert_allclose(day.mean(gate), found.mean(axis=1))
    reach = [float(max(np.ptp(curve[:, unit]) for curve in day.by_hour.values())) for unit in range(6)]
    moving = day.moving(3)
    assert [far for _, _, far in moving] == pytest.approx(sorted(reach, reverse=True)[:3])


def test_a_region_with_less_than_a_day_to_test_has_no_typical_day(run, tmp_path):
    folder = RunFolder(run)
    forecaster, _ = folder.forecaster(folder.config(), "gru")
    path = write_file(tmp_path, "AEP", eastern_stamps("2016-09-01 04:00", 200), made_up_load(200))
    assert typical_days(forecaster, "gru", prepare([read_file(path)])) == []


def test_a_run_with_less_than_a_day_to_test_has_a_report_and_says_what_has_no_score(tmp_path):
    write_file(tmp_path / "data", "AEP", eastern_stamps("2016-09-01 04:00", 130), made_up_load(130))
    small = ["--recipe", "article", "--epochs", 1, "--hidden-size", 4, "--cell", "gru"]
    small += ["--data", tmp_path / "data"]
    with pytest.warns(UndefinedScore, match="intervals of no hours have no scores"):
        result = gatedcells("forecast", *small, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "The test part has too few hours for a mean day." in text
    assert ">nan<" not in text
    own = json.loads((tmp_path / "run" / "metrics.json").read_text())["models"]["GRU"]["intervals"]["AEP"]
    assert own == {"coverage": [None, None], "width": [None, None], "pinball": None}


def test_a_forecaster_without_any_error_is_said_to_be_that(tmp_path):
    hours = 24 * 40
    t = np.arange(hours)
    load = np.round(1000 + 200 * np.sin(t / 24 * 2 * np.pi) + t % 7, 1)  # each week is like the one before
    write_file(tmp_path / "data", "AEP", eastern_stamps("2016-11-10 05:00", hours), load)
    result = gatedcells(
        "forecast", "--data", tmp_path / "data", "--cell", "gru", "--out", tmp_path / "run", *SMALL
    )
    assert result.exit_code == 0, result.output
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "The best forecaster without a network is same hour last week, 0.000%." in text


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_curve_is_where_its_axis_says(logarithmic):
    values = np.array([0.7, 3.0, np.nan, 2.0, 9.0])
    picture = chart("said", "MW", [Line("a", values, 0)], [(0, "start")], logarithmic=logarithmic)
    grid = picture.findall("line[@class='grid']")
    marks = [float(one.text) for one in picture.findall("text[@class='end']")]
    heights = [float(one.get("y1")) for one in grid]
    path = picture.find("path").get("d")
    assert path.count("M") == 2, "a hole breaks the line"
    points = [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", path)]
    scale = np.log if logarithmic else np.asarray
    drawn = np.interp([y for _, y in points], heights[::-1], scale(marks)[::-1])
    step = abs(float(np.diff(scale(marks))[0] / np.diff(heights)[0]))
    np.testing.assert_allclose(drawn, scale(values[np.isfinite(values)]), atol=0.11 * step)
    assert marks[0] <= 0.7
    assert marks[-1] >= 9


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [np.nan, np.nan], [3.0, np.nan, 3.0]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_curve_of_nearly_nothing_is_drawn(values, logarithmic):
    drawn = as_html(chart("said", "MW", [Line("a", np.array(values), 0)], [], logarithmic=logarithmic))
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_what_looks_like_markup_is_text_in_every_place():
    made = table(HOSTILE, ["x", HOSTILE], [[HOSTILE, element("b", HOSTILE)]])
    text = as_html(element("div", HOSTILE, made, HOSTILE, data_x=HOSTILE))
    assert "<script" not in text
    assert "<img" not in text
    assert 'data-x="&lt;script&gt;' in text
    assert text.count(html.escape(HOSTILE, quote=False)) == 6
