"""Whatever is done to a load file, reading it gives a series or an error in our own words."""

import bz2
import gzip
import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatedcells.forecast.data import Clock, read_file
from gatedcells.forecast.errors import ForecastError
from gatedcells.forecast.frames import Names, read_frame
from tests.support.own_series import made_up

LINES = [f"2018-03-{10 + h // 24:02d} {h % 24:02d}:00:00,{1000 + 7 * h}.0" for h in range(60)]
FILE = ("\n".join(["Datetime,AEP_MW", *LINES]) + "\n").encode()
# the second night has no 03:00: clocks go forward
FILE = FILE.replace(b"2018-03-11 03:00:00,1189.0\n", b"")
SCRAPS = [
    b"", b",", b"\n", b"\r\n", b'"', b"0", b"-", b"+", b"Z", b"nan", b"1e999", b"\x00", b"\xff", b";", b"\t",
    b"2018-03-11 03:00:00,5\n", b"2018-03-12 05:00:00,1.5\n", b"9999-12-31 23:00:00,1\n",
    b"Datetime,AEP_MW\n", b"1,2,3\n", "é".encode(), b"=1+1", b" " * 50,
]  # fmt: skip


def read(content, path):
    path.write_bytes(content)
    try:
        return read_file(path, Clock())
    except ForecastError as refused:
        said = str(refused)
    assert str(path) in said
    assert "\n" not in said
    return None


def makes_sense(series):
    assert (np.diff(series.rows) > 0).all()
    assert (series.rows >= 0).all()
    assert series.rows[-1] == len(series.load_mw) - 1
    known = np.isfinite(series.load_mw)
    assert (series.load_mw[known] > 0).all()
    assert known.sum() <= len(series.rows)


def test_the_file_itself_is_read(tmp_path):
    series = read(FILE, tmp_path / "file.csv")
    makes_sense(series)
    assert np.isfinite(series.load_mw).sum() == 59


@settings(max_examples=300)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(FILE)), st.integers(0, 40), st.sampled_from(SCRAPS)),
        min_size=1,
        max_size=4,
    )
)
def test_edited_anywhere_it_is_read_or_refused(edits, tmp_path_factory):
    content = FILE
    for at, length, scrap in edits:
        content = content[:at] + scrap + content[at + length :]
    series = read(content, tmp_path_factory.getbasetemp() / "edited.csv")
    if series is not None:
        makes_sense(series)


@settings(max_examples=200)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_anything_at_all_is_read_or_refused(content, tmp_path_factory):
    for head in (b"", b"Datetime,AEP_MW\n"):
        series = read(head + content, tmp_path_factory.getbasetemp() / "anything.csv")
        if series is not None:
            makes_sense(series)


@settings(max_examples=100)
@given(number=st.integers(0, 10**6), changed=st.floats(allow_nan=True, allow_infinity=True))
def test_a_number_that_is_read_is_the_number_that_was_written(number, changed, tmp_path_factory):
    line = number % len(LINES)
    if LINES[line].encode() not in FILE:
        return
    stamp = LINES[line].split(",")[0]
    content = FILE.replace(LINES[line].encode(), f"{stamp},{changed!r}".encode())
    series = read(content, tmp_path_factory.getbasetemp() / "number.csv")
    if series is None:
        assert abs(changed) > 1e30
        return
    whole = read(FILE, tmp_path_factory.getbasetemp() / "whole.csv")
    different = ~((series.load_mw == whole.load_mw) | (np.isnan(series.load_mw) & np.isnan(whole.load_mw)))
    assert different.sum() <= 1
    if changed > 0 and different.any():
        assert series.load_mw[different] == pytest.approx(changed)


def test_pieces_of_the_real_files_are_read_or_refused(data_root, tmp_path):
    draw = np.random.default_rng(0)
    for source in sorted((data_root / "pjm").glob("*_hourly.csv"))[::4]:
        whole = source.read_bytes()
        head, body = whole.split(b"\n", 1)
        for _ in range(20):
            start = int(draw.integers(0, len(body) - 20_000))
            piece = bytearray(body[start : start + 20_000])
            for _ in range(int(draw.integers(0, 5))):
                piece[int(draw.integers(0, len(piece)))] = int(draw.integers(0, 256))
            for content in (head + b"\n" + bytes(piece), head + bytes(piece[piece.find(b"\n") :])):
                series = read(content, tmp_path / "piece.csv")
                if series is not None:
                    makes_sense(series)


@pytest.mark.parametrize(
    ("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
@pytest.mark.parametrize("kept", [slice(0, 60), slice(5, None), slice(0, -20)])
def test_a_packed_frame_that_is_not_whole_is_refused_in_a_line(suffix, pack, kept, tmp_path):
    path = tmp_path / f"sales.csv.{suffix}"
    text = made_up().to_csv(index=False).encode()
    path.write_bytes(pack(text))
    assert len(read_frame(path, Names()).y) == 160
    path.write_bytes(pack(text)[kept])
    with pytest.raises(ForecastError, match=rf"sales\.csv\.{suffix}: not a CSV table: ") as refused:
        read_frame(path, Names())
    assert "\n" not in str(refused.value)
