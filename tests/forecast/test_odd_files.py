"""Files as spreadsheets and exports leave them are read as what they are, or refused with the line."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gatedcells.cli import main
from gatedcells.forecast import Forecaster, ForecastError, rolling
from gatedcells.forecast.data import Clock, read_file
from gatedcells.forecast.prices import read_prices
from tests.support.own_series import made_up, small

HOURS = pd.date_range("2024-01-01", periods=40, freq="h").strftime("%Y-%m-%d %H:%M:%S")
ROWS = [f"{stamp},{1000 + at}.5" for at, stamp in enumerate(HOURS)]


def of_frame(path):
    panel, _, _ = rolling.laid_out(small(), path)
    return panel.y


def of_load(path):
    return read_file(path, Clock("UTC")).load_mw


READERS = {"a frame": (of_frame, "ds,y"), "a load": (of_load, "Datetime,AEP_MW")}
both = pytest.mark.parametrize(("read", "header"), READERS.values(), ids=READERS)


def write(path, *lines, encoding="utf-8"):
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def refusal(read, path):
    with pytest.raises(ForecastError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


@both
@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_cells_that_no_commas_separate_are_said_with_what_does(read, header, mark, tmp_path):
    lines = [line.replace(",", mark).replace(".5", ",5") for line in ROWS]
    for rows in (lines, [line.replace(",5", "") for line in lines]):
        said = refusal(read, write(tmp_path / "x.csv", header.replace(",", mark), *rows))
        assert f"its cells are separated by {mark!r}; expected commas, and points before decimals" in said


@both
@pytest.mark.parametrize(
    ("pack", "said"),
    [
        (lambda text: text.encode("utf-16"), "but UTF-16 text; save it as UTF-8"),
        (lambda text: gzip.compress(text.encode()), "but packed by gzip; let its name end in .csv.gz"),
        (lambda _: b"PK\x03\x04\x14\x00\xff\xfe", "but an Excel workbook or a zip archive; save the sheet"),
        (lambda _: b"\xd0\xcf\x11\xe0\xa1\xb1", "but an Excel workbook of before 2007; save the sheet"),
        (lambda _: b"PAR1\x15\x04\xff", "but a Parquet file; let its name end in .parquet"),
        (lambda text: text.replace("y", "ü").replace("AEP", "ü").encode("latin-1"), "save it as UTF-8"),
    ],
    ids=["utf-16", "gzip", "xlsx", "xls", "parquet", "latin-1"],
)
def test_what_is_no_utf8_text_is_said_to_be_what_it_is(read, header, pack, said, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(pack("\n".join([header, *ROWS])))
    assert said in refusal(read, path)
    assert said in refusal(read_prices, path)


@both
def test_rows_and_columns_of_nothing_at_the_end_are_no_rows_and_columns(read, header, tmp_path):
    plain = read(write(tmp_path / "x.csv", header, *ROWS))
    rows = [*(f"{row},," for row in ROWS), ",,,", ",,,", " , ,,"]
    np.testing.assert_array_equal(read(write(tmp_path / "x.csv", f"{header},,", *rows)), plain)


def test_blank_rows_at_the_end_make_no_text_of_names(tmp_path):
    frame = made_up().replace({"unique_id": {"a": 1, "b": 2}})
    frame.to_csv(tmp_path / "x.csv", index=False)
    with (tmp_path / "x.csv").open("a") as file:
        file.write(",,\n,,\n")
    panel, _, _ = rolling.laid_out(small(), tmp_path / "x.csv")
    assert panel.ids == (1, 2)


def test_columns_of_nothing_at_the_end_of_a_wide_file_are_no_series(tmp_path):
    rows = [f"{row},7,," for row in ROWS]
    panel, _, _ = rolling.laid_out(small(), write(tmp_path / "x.csv", "ds,mill,shop,,", *rows))
    assert panel.ids == ("mill", "shop")
    said = refusal(of_frame, write(tmp_path / "x.csv", "ds,mill,shop,,", *rows, f"{ROWS[0]},7,3,"))
    assert "the column 'Unnamed: 3' has no name" in said


def zipped(text):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", text)
    return file.getvalue()


def in_tar(text):
    file, member = io.BytesIO(), tarfile.TarInfo("x.csv")
    member.size = len(text)
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO(text))
    return file.getvalue()


PACKED = {
    ".csv": bytes, ".csv.gz": gzip.compress, ".csv.bz2": bz2.compress, ".CSV.XZ": lzma.compress,
    ".zip": zipped,
}  # fmt: skip


@both
@pytest.mark.parametrize("suffix", PACKED)
def test_the_line_of_a_refusal_counts_blank_lines(read, header, suffix, tmp_path):
    text = "\n".join(["", header, ROWS[0], "", "", ROWS[1], "   ", f"{HOURS[2]},5 MW"])
    path = tmp_path / f"x{suffix}"
    path.write_bytes(PACKED[suffix](text.encode()))
    assert refusal(read, path).startswith(", line 8: ")


@both
@pytest.mark.parametrize("suffix", PACKED)
def test_the_line_of_a_refusal_counts_those_within_cells_in_quotes(read, header, suffix, tmp_path):
    notes = ['"two\nlines"', ' "a ""word"", then\n\n,and\n""more"""', "", 'a "word" without', '5" wide', '""']
    rows = [f"{row},{note}" for row, note in zip(ROWS, notes, strict=False)]
    text = "\n".join([f'{header},"a long\nname"', *rows, f"{HOURS[6]},5 MW,"])
    path = tmp_path / f"x{suffix}"
    path.write_bytes(PACKED[suffix](text.encode()))
    assert refusal(read, path).startswith(f", line {text.count(chr(10)) + 1}: ")


@both
def test_a_refusal_counts_rows_where_lines_are_out_of_reach(read, header, tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(in_tar("\n".join([header, *ROWS[:2], f"{HOURS[2]},5 MW"]).encode()))
    assert refusal(read, path).startswith(", row 3 below the header: ")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["ds,y", ROWS[0], "Total,2000"], ", line 3: ds is 'Total'; expected a time such as"),
        (["ds,y", *ROWS, f"{HOURS[0]},7"], "x.csv, line 2 (on_duplicate='first'"),
        (["ds,y", *ROWS, "2024-01-03 00:00:01,7"], ", line 42: 2024-01-03 00:00:01 of 'y' is not one of"),
        (["time,y", *ROWS], ": expected a column 'ds' with the stamps"),
        (["ds,y", ROWS[0]], ": no series has two stamps"),
        (["ds,y"], ": the frame has no rows"),
        (["ds,y", f"{HOURS[0]},", f"{HOURS[1]},"], ": 'y' has no value at all"),
    ],
)
def test_every_refusal_of_a_frame_from_a_file_names_the_file(lines, said, tmp_path):
    assert said in refusal(of_frame, write(tmp_path / "x.csv", *lines))


def test_values_to_come_and_rows_since_name_their_files(tmp_path):
    frame = made_up().assign(warm=0.5)
    one = small(known=("warm",)).fit(frame)
    path = tmp_path / "next.csv"
    one.make_future_dataframe().assign(warm="mild").to_csv(path, index=False)
    assert refusal(lambda path: one.predict(future=path), path).startswith(", line 2: warm is 'mild'")
    frame.assign(y="many").to_csv(path, index=False)
    assert refusal(one.update, path).startswith(", line 2: y is 'many'")


def test_two_columns_of_one_name_are_refused_and_none_of_them_chosen(tmp_path):
    rows = [f"{row},{at}" for at, row in enumerate(ROWS)]
    said = refusal(of_load, write(tmp_path / "x.csv", "Datetime,AEP_MW,AEP_MW", *rows))
    assert "expected the columns Datetime and one <REGION>_MW, got Datetime, AEP_MW, AEP_MW" in said
    said = refusal(read_prices, write(tmp_path / "x.csv", "Date,Close,close", "2024-01-01,1,2"))
    assert said == ", line 1: two columns are called 'close'; expected one"


@pytest.mark.parametrize("blank", ["null", "#N/A", "NA"])
def test_a_price_that_is_missing_may_be_written_as_elsewhere(blank, tmp_path):
    prices = read_prices(write(tmp_path / "x.csv", "Date,Close", "2024-01-01,1", f"2024-01-02,{blank}"))
    assert (prices.close.tolist(), prices.missing_closes) == ([1.0], 1)


@pytest.mark.parametrize("read", ["a frame", "a load"])
def test_the_two_autumn_hours_of_a_file_that_runs_backwards_are_in_its_order(read, tmp_path):
    night = pd.date_range("2023-11-04 22:00", periods=12, freq="h", tz="America/New_York")
    rows = [f"{at.tz_localize(None)},{100 + number}" for number, at in enumerate(night)]
    path = write(tmp_path / "x.csv", "Datetime,AEP_MW" if read == "a load" else "ds,y", *rows[::-1])
    if read == "a load":
        found = read_file(path, Clock("America/New_York", "beginning")).load_mw
    else:
        found = rolling.laid_out(small(tz="America/New_York"), path)[0].y
    assert found.tolist() == [100 + number for number in range(12)]


def test_a_load_whose_square_is_no_number_is_no_load(tmp_path):
    said = refusal(of_load, write(tmp_path / "x.csv", "Datetime,AEP_MW", ROWS[0], f"{HOURS[1]},1.79e308"))
    assert said == ", line 3: AEP_MW is '1.79e308'; expected a number"


def test_a_folder_of_something_else_is_not_said_to_be_expected(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    done = CliRunner().invoke(main, ["forecast", "apply", str(tmp_path)])
    assert done.exit_code == 2
    assert "expected a folder that forecast fit made (from a run, forecast predict goes on)" in done.output
    with pytest.raises(ForecastError, match="forecaster.json: no such file; expected a folder that forecast"):
        Forecaster.load(tmp_path)


@pytest.mark.parametrize("name", ["f.xlsx", "f.csv.gz"])
def test_a_forecast_is_not_written_as_csv_into_a_file_called_otherwise(name, tmp_path):
    done = CliRunner().invoke(main, ["forecast", "apply", str(tmp_path), "--out", str(tmp_path / name)])
    assert done.exit_code == 2
    assert f"{name}: expected a name in .csv or .parquet, others are not written" in done.output
    assert not [*tmp_path.iterdir()]
