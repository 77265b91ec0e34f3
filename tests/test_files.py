"""What a file is written to: a new one that takes the name, or what is no file as it is."""

import os
from pathlib import Path

import pytest

from gatedcells._files import is_free, written_beside


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "kept.html").write_text("old")
    (tmp_path / "link.html").symlink_to("kept.html")
    with written_beside(tmp_path / "link.html") as beside:
        beside.write_text("new")
        assert (tmp_path / "kept.html").read_text() == "old", "until all is written"
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "kept.html").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"kept.html", "link.html"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_written_to_and_nothing_takes_its_name(linked, tmp_path):
    """As /dev/stdout and /dev/null are, which a file would replace for everybody where root writes it."""
    os.mkfifo(tmp_path / "pipe")
    out = tmp_path / "pipe"
    if linked:  # as /dev/stdout is
        out = tmp_path / "stdout"
        out.symlink_to("pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with written_beside(out) as path:
            path.write_text("through it")
        assert (tmp_path / "pipe").is_fifo()
        assert out.is_symlink() == linked
        assert os.read(reader, 100) == b"through it"
    finally:
        os.close(reader)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no devices here")
@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout"])
def test_a_device_is_written_to_as_it_is(device, monkeypatch):
    def replaced(*_):
        raise AssertionError(f"{device} was to be replaced")

    monkeypatch.setattr(os, "replace", replaced)
    with written_beside(Path(device)) as path:
        assert path == Path(device)


def test_a_folder_is_refused_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), written_beside(tmp_path / "folder") as beside:
        beside.write_text("a page")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_in_which_a_writing_was_killed_is_still_empty(tmp_path):
    writing = written_beside(tmp_path / "config.json")
    writing.__enter__().write_text("{")
    (left,) = tmp_path.iterdir()
    assert is_free(tmp_path)
    (tmp_path / ".gitignore").write_text("")
    assert not is_free(tmp_path)
    assert is_free(tmp_path, but=(".gitignore",))
    assert left.exists()
