"""Where a command's words and files go: terminals of any encoding, other users."""

import io
import os
import signal
import sys

import pytest
import torch

from gatedcells.forecast.console import guarded, plain_console
from gatedcells.forecast.files import write_json, write_tensors, written_csv
from gatedcells.forecast.report import score_table


def of_encoding(name, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=name))
    return written


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "iso8859-15"])
def test_what_a_terminal_cannot_show_is_a_question_mark_and_no_end_of_a_run(encoding, monkeypatch):
    written = of_encoding(encoding, monkeypatch)
    guarded(lambda: plain_console().print("hours ≤ 0, of 東京"))
    sys.stdout.flush()
    assert written.getvalue().decode(encoding) == "hours ? 0, of ??\n"


def test_the_tables_of_a_run_are_printed_in_ascii_too(monkeypatch):
    written = of_encoding("ascii", monkeypatch)

    def show():
        plain_console().print(score_table([], "Forecasting the next hour", pjm=False))

    guarded(show)
    sys.stdout.flush()
    assert "sMAPE: 100/n ? |F?A|" in " ".join(written.getvalue().decode().split())


def test_a_name_that_is_no_text_is_printed_as_far_as_it_is(monkeypatch):
    written = of_encoding("utf-8", monkeypatch)
    guarded(lambda: plain_console().print("Run folder: " + os.fsdecode(b"run\xff")))
    sys.stdout.flush()
    assert written.getvalue() == b"Run folder: run?\n"


def test_ctrl_c_is_a_line_and_status_130_also_where_nothing_goes_on(capsys):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        guarded(stopped)
    assert (ended.value.code, capsys.readouterr().err) == (130, "Stopped.\n")


@pytest.mark.skipif(os.name != "posix", reason="no such signal here")
def test_sigterm_is_status_143_and_leaves_nothing_that_was_being_written(tmp_path, capsys):
    def stopped():
        with written_csv(tmp_path / "next.csv") as table:
            table.writerow(["half"])
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        guarded(stopped)
    assert (ended.value.code, capsys.readouterr().err) == (143, "Stopped.\n")
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(os.name != "posix", reason="no modes of files here")
@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_weights_can_be_read_by_whom_the_other_files_can(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "config.json", {})
        write_tensors(tmp_path / "weights.safetensors", {"a": torch.ones(3)})
        write_tensors(tmp_path / "weights.safetensors", {"a": torch.zeros(3)})  # and written over
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("config.json", "weights.safetensors"), 0o666 & ~umask)
