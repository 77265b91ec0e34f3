"""The terminal program, driven by keys; once inside the process, once as itself in a pseudo-terminal."""

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import gatedcells
from gatedcells.step import scenes
from gatedcells.step.app import StepApp
from gatedcells.step.session import Session


def driven(drive, scene=None, size=(110, 50), plain=False):
    """Run a coroutine on the running program."""
    app = StepApp(Session(scene or scenes.drawn("gru")), seed=1, plain=plain)

    async def main():
        async with app.run_test(size=size) as pilot:
            await drive(app, pilot)

    # in a thread of its own: a browser of another test may have left a loop running in this one
    with ThreadPoolExecutor(1) as alone:
        alone.submit(asyncio.run, main()).result()
    return app


def text(app, where="screen"):
    return str(app.query_one(f"#{where}").render())


def test_keys_walk_through_time_units_and_lines():
    async def drive(app, pilot):
        await pilot.press("right", "right", "left", "down", "j", "k")
        assert "t = 1 of 0 to 11, unit 1 of 0 to 3" in text(app)
        await pilot.press("end", "right")
        assert "t = 11 of 0 to 11" in text(app)
        await pilot.press("home", "left", "up", "up")
        assert "t = 0 of 0 to 11, unit 0 of 0 to 3" in text(app)
        pointed = []
        for _ in range(5):
            await pilot.press("g")
            pointed += re.findall(r"> (\S+)\[0\]", text(app)) or [None]
        assert pointed == ["r", "z", "n", "h'", None]
        await pilot.press("l")
        assert text(app, "said") == "there is only one layer"

    driven(drive)


def test_layers_directions_and_rows_take_turns():
    layer = gatedcells.LSTM(2, 3, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(4, 2, 2, dtype=torch.float64)
    scene = scenes.Scene("mine", "", layer, x, None, ("",) * 4, ("a", "b"))

    async def drive(app, pilot):
        await pilot.press("l", "d", "n")
        assert "layer 1 (l), reverse (d), row 1 (n)" in text(app)
        expected = float(app.session.trace[1, 1]["cell"][0, 1, 0])
        assert f"{expected:.4f}" in text(app)
        await pilot.press("l", "d", "n")
        assert "layer 0 (l), forward (d), row 0 (n)" in text(app)

    driven(drive, scene)


def test_the_convention_the_gradients_and_the_check():
    async def drive(app, pilot):
        assert "max |gatedcells - nn.GRU| = " in text(app, "foot")
        await pilot.press("c")
        assert "reset gate before the product" in text(app)
        assert "nn.GRU has no reset gate before the product" in text(app, "foot")
        assert text(app, "said").startswith("the outputs differ from the other convention's by up to ")
        await pilot.press("c", "b")
        assert "backward, L = h[0] after the last step" in text(app)
        await pilot.press("b")
        assert "backward" not in text(app)
        await pilot.press("v")
        assert text(app, "said").startswith(
            "all values of all steps recomputed in float64: largest deviation "
        )

    driven(drive)

    async def lstm(app, pilot):
        await pilot.press("c")
        assert text(app, "said") == "the convention needs a GRU, got an LSTM, which has no reset gate"

    driven(lstm, scenes.counter())


def test_a_number_is_changed_and_changed_back():
    async def drive(app, pilot):
        first = text(app)
        await pilot.press("e", *"x 0 = 2.5", "enter")
        assert "x[0] = +2.5" in text(app)
        assert text(app, "said") == "changed: x[0] = 2.5 at t = 0"
        assert "changed: x[0] = 2.5 at t = 0" in text(app, "foot")
        await pilot.press("e", *"y 0 = 1", "enter")
        assert text(app, "said").startswith("there is no y; there are x, weight_ih")
        await pilot.press("escape", "0")
        assert text(app) == first
        assert text(app, "said") == "all changes are undone"

    driven(drive)


def test_letters_that_are_typed_are_no_commands():
    async def drive(app, pilot):
        await pilot.press("e", *"cbqgl", "left", "escape")
        assert app.is_running
        assert "reset gate after the product" in text(app)
        assert "backward" not in text(app)

    driven(drive)


def test_a_quiz_hides_what_it_asks_and_all_that_tells_it():
    async def drive(app, pilot):
        for _ in range(8):  # every line is asked for sooner or later
            await pilot.press("a")
            name = re.match(r"what is (\w+) of unit 0", text(app, "said"))[1]
            value = float(app.session.now[name][0, 0, 0])
            shown = f"{value:.4f}"
            assert not re.search(rf"(?<![\d.]){re.escape(shown)}", text(app)), (name, text(app))
            await pilot.press(*f"{value:.3f}", "enter")
            assert text(app, "said").startswith(f"right: {name} is {value:.4f}")
            assert f"{value:.4f}" in text(app)
        await pilot.press("a", *"99", "enter")
        assert text(app, "said").startswith("not quite")
        await pilot.press("a", *"?", "enter")
        assert text(app, "said") == "expected a number, got '?'"

    driven(drive)


def test_ascii_is_enough():
    async def drive(app, pilot):
        await pilot.press("right", "b", "a", "escape", "c")
        assert text(app).isascii()
        assert text(app, "foot").isascii()

    driven(drive, plain=True)


def test_a_low_terminal_is_scrolled():
    async def drive(app, pilot):
        await pilot.press("b", "pagedown")
        await pilot.pause()
        assert app.query_one("VerticalScroll").scroll_y > 0
        await pilot.press("pageup", "pageup")
        await pilot.pause()
        assert app.query_one("VerticalScroll").scroll_y == 0

    driven(drive, size=(60, 14))


def test_bars_fit_the_terminal_and_so_do_the_keys_when_it_becomes_narrow():
    torch.manual_seed(0)
    layer = gatedcells.LSTM(1, 40, dtype=torch.float64).eval()
    x = torch.randn(50, 1, 1, dtype=torch.float64)
    scene = scenes.Scene("mine", "A long one.", layer, x, None, ("",) * 50, ("x",))

    async def drive(app, pilot):
        app.session.go(t=45, unit=36)
        for columns in (80, 46):
            await pilot.resize_terminal(columns, 24)
            await pilot.pause()
            bars = [line for line in text(app).splitlines() if "[" in line and "=" not in line]
            assert len(bars) == 6 + 18, "each has the step or the unit that is looked at"
            assert max(map(len, bars)) <= columns - 4, "less the margins and the bar that scrolls"
            keys = {key.description: key.region.right for key in app.query("FooterKey")}
            assert keys["quit"] < columns
            if columns == 80:
                assert max(keys.values()) <= columns

    driven(drive, scene, size=(110, 24))


# --- as itself ---


class Terminal:
    """The program in a pseudo-terminal."""

    def __init__(self, *arguments, rows=40, columns=110, **environment):
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from gatedcells.cli import main; main()", "step", *arguments],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color", "TRITON_INTERPRET": "0"} | environment,
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, wanted, seconds=60):
        """Until something is on the screen."""
        end = time.monotonic() + seconds
        start = len(self.seen)
        while time.monotonic() < end:
            ready, _, _ = select.select([self.master], [], [], 0.2)
            if ready:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:  # the program has closed its end
                    break
            if wanted in self.shown(start):
                return
        raise AssertionError(f"{wanted!r} did not appear in {self.shown(start)[-3000:]!r}")

    def shown(self, start=0):
        found = self.seen[start:].decode("utf-8", "replace")
        return re.sub(r"\x1b(\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])", "", found)

    def press(self, keys):
        os.write(self.master, keys.encode())

    def end(self):
        """Wait; the exit status."""
        end = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end:
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:
                    break
        status = self.process.wait(10)
        os.close(self.master)
        return status


@pytest.fixture
def terminal():
    started = []

    def start(*arguments, **options):
        started.append(Terminal(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def test_in_a_terminal_it_walks_edits_asks_resizes_and_quits(terminal):
    now = terminal("latch")
    now.read("max |gatedcells - nn.GRU|")
    now.press("\x1b[C")  # right
    now.read("value +1.0, write")
    now.press("e")
    now.read("enter: apply")
    now.press("x 0 = -0.25\r")
    now.read("changed: x[0] = -0.25 at t = 1")
    now.press("a")
    now.read("to within 0.01")
    now.press("0.5\r")
    now.read("your answer was 0.5")
    now.resize(20, 60)
    os.killpg(now.process.pid, signal.SIGWINCH)
    now.press("\x1b[C")
    now.read("value -0.7, keep")
    now.press("q")
    assert now.end() == 0
    assert "\x1b[?1049l" in now.seen.decode("utf-8", "replace"), "the terminal is given back"


def test_a_terminal_without_unicode_gets_ascii_bars(terminal):
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    now = terminal("latch", **plain)
    now.read("max |gatedcells - nn.GRU|")
    now.press("\x1b[C")
    now.read("value +1.0, write")
    assert not set("▁▂▃▄▅▆▇█") & set(now.shown())
    assert re.search(r"update +7\[ 0\] 7", now.shown())
    now.press("q")
    assert now.end() == 0


def test_interrupted_it_gives_the_terminal_back(terminal):
    now = terminal("counter")
    now.read("max |gatedcells - nn.LSTM|")
    now.press("\x11")  # ctrl+q
    assert now.end() == 0
    assert "Traceback" not in now.shown()
