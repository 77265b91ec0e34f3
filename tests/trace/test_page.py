"""The page, in a browser: its own arithmetic agrees with Python's, and everybody can use it."""

import copy
import json
import math
import random

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import gatedcells
from gatedcells.reference import gru, lstm
from tests.support.browser import opened

F64 = torch.float64


def made(kind="GRU", T=6, B=2, I=3, H=4, lengths=None, resets=None, train=False, **options):
    """A trace, its layer and its input."""
    torch.manual_seed(3)
    layer = getattr(gatedcells, kind)(I, H, dtype=F64, **options).train(train)
    x = torch.randn(T, B, I, dtype=F64)
    given = x if lengths is None else pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    return layer.trace(given, resets=resets), layer, x


CASES = {
    "gru": {},
    "gru, reset before, two layers both ways": {"num_layers": 2, "bidirectional": True, "reset_after": False},
    "gru, lengths": {"lengths": [3, 6], "bidirectional": True},
    "gru, no bias": {"bias": False},
    "lstm": {"kind": "LSTM"},
    "lstm, projection, two layers both ways": {
        "kind": "LSTM", "proj_size": 2, "num_layers": 2, "bidirectional": True
    },
    "lstm, dropout": {"kind": "LSTM", "num_layers": 2, "dropout": 0.5, "train": True},
    "lstm, resets": {"kind": "LSTM", "bidirectional": True, "resets": torch.eye(6, 2, dtype=torch.bool)},
}  # fmt: skip


def open_numbers(page):
    page.locator("#all summary").click()
    page.locator("#numbers data").first.wait_for()
    page.locator("h1").click()  # the keys speak to the page, not to the summary


READ = "id => [...document.querySelectorAll(`#${id} data`)].map(d => [d.dataset.name, Number(d.value)])"


def numbers(page, read=None):
    """Every number of the table of the step that is shown: {name: [H]}."""
    found = {}
    for name, value in page.evaluate(READ, "numbers") if read is None else read:
        found.setdefault(name, []).append(value)
    return found


def close(found, expected):
    assert torch.tensor(found, dtype=F64).sub(expected.detach()).abs().max() <= 1e-12


@pytest.mark.parametrize("name", CASES)
def test_stepping_through_shows_the_traces_numbers(name, browser, tmp_path):
    trace, _, x = made(**CASES[name])
    trace.to_html(tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html") as page:
        open_numbers(page)
        seen = 0
        for layer in range(trace.layers):
            for way in range(trace.directions):
                d = trace[layer, way]
                part = d.takes_part()
                for row in range(x.shape[1]):
                    for t in range(len(d)):
                        if part[t, row]:
                            table, in_words = page.evaluate(f"['numbers', 'equations'].map({READ})")
                            shown = numbers(page, table)
                            assert set(d.names) < set(shown)
                            for one, values in shown.items():
                                close(values, d[one][t, row])
                                seen += len(values)
                            for one, value in in_words:
                                if not one.endswith(("_product", "_bias")):
                                    close([value], d[one][t, row, :1])
                        else:
                            assert "nothing is computed" in page.locator("#said").inner_text()
                        page.keyboard.press("ArrowRight")
                    page.keyboard.press("Home")
                    page.keyboard.press("n")
                page.keyboard.press("d")
            page.keyboard.press("l")
        assert seen > 200
        assert float(page.locator("#deviation").get_attribute("value")) <= 1e-12


SET = """wanted => wanted.map(([id, value]) => {
  const one = document.getElementById(id);
  const chosen = option => option.value === `${value}` || option.label === value;
  if (one.options) one.selectedIndex = [...one.options].findIndex(chosen);
  else one.value = value;
  for (const kind of ["input", "change"]) one.dispatchEvent(new Event(kind, { bubbles: true }));
  return [id, one.value];
})"""


def recomputed(layer, x, changes):
    """One layer in one direction with changed numbers, step by step by the reference; row 0."""
    layer, x = copy.deepcopy(layer), x.clone()
    for name, k, c, value in changes["w"]:
        weight = getattr(layer, f"{name}_l0")
        with torch.no_grad():
            weight.view(len(weight), -1)[k, c] = value
    for t, i, value in changes["x"]:
        x[t, 0, i] = value
    projection = torch.nn.functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0)
    hidden = cell = torch.zeros(x.shape[1], layer.hidden_size, dtype=F64)
    steps = []
    for t in range(len(x)):
        hidden = hidden.clone()
        for at, unit, value in changes["h"]:
            if at == t:
                hidden[0, unit] = value
        if isinstance(layer, gatedcells.GRU):
            now = gru.step(
                projection[t], hidden, layer.weight_hh_l0, layer.bias_hh_l0, reset_after=layer.reset_after
            )
        else:
            now = lstm.step(projection[t], hidden, cell, layer.weight_hh_l0, layer.bias_hh_l0)
            cell = now.cell
        hidden = now.hidden
        steps.append(now)
    return steps


@pytest.mark.parametrize("case", [{}, {"reset_after": False}, {"kind": "LSTM"}])
def test_what_sliders_change_is_computed_as_python_computes_it(case, browser, tmp_path):
    trace, layer, x = made(**case)
    trace.to_html(tmp_path / "page.html")
    draw = random.Random(0)
    with opened(browser, tmp_path / "page.html") as page:
        open_numbers(page)
        for _ in range(20):
            page.keyboard.press("0")
            assert page.locator("#changed").inner_text() == "no changes"
            changes = {"x": [], "h": [], "w": []}
            t, unit, i = draw.randrange(6), draw.randrange(4), draw.randrange(3)
            for _ in range(t):
                page.keyboard.press("ArrowRight")
            name = draw.choice(["weight_ih", "weight_hh", "bias_ih", "bias_hh"])
            shape = getattr(layer, f"{name}_l0").shape
            k, c = draw.randrange(shape[0]), draw.randrange(shape[1]) if len(shape) > 1 else 0
            wanted = [["x-i", i], ["h-i", unit], ["w-name", name], ["w-k", k], ["w-c", c]]
            slid = {}
            for kind, where in (("x", (t, i)), ("h", (t, unit)), ("w", (name, k, c))):
                if draw.random() < 0.7:
                    wanted.append([f"{kind}-range", draw.uniform(-2.9, 2.9)])
                    slid[kind] = where
            values = dict(page.evaluate(SET, wanted))
            changes |= {kind: [(*where, float(values[f"{kind}-range"]))] for kind, where in slid.items()}
            page.locator("h1").click()
            expected = recomputed(layer, x, changes)
            for at in (t, 5):
                page.keyboard.press("End" if at == 5 else "s")
                for one, values in numbers(page).items():
                    if not one.startswith("found"):
                        close(values, getattr(expected[at], one)[0])
            page.keyboard.press("Home")


def test_the_keys_do_what_the_page_says(browser, tmp_path):
    made(num_layers=2, bidirectional=True)[0].to_html(tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html") as page:

        def press(*keys):
            for key in keys:
                page.keyboard.press(key)
            return page.evaluate("location.hash")

        assert press("ArrowRight", "ArrowRight", "ArrowLeft") == "#t=1&l=0&d=0&u=0&r=0"
        assert press("ArrowDown", "j", "k") == "#t=1&l=0&d=0&u=1&r=0"
        assert press("End", "ArrowRight") == "#t=5&l=0&d=0&u=1&r=0", "there is no step after the last"
        assert press("Home", "ArrowLeft", "ArrowUp", "ArrowUp") == "#t=0&l=0&d=0&u=0&r=0"
        assert press("l", "d", "n") == "#t=0&l=1&d=1&u=0&r=1"
        assert press("l", "d", "n") == "#t=0&l=0&d=0&u=0&r=0"
        line = page.locator("#equations li[aria-current]")
        named = []
        for _ in range(4):
            press("g")
            named.append(line.get_attribute("data-line"))
        assert named == ["reset", "update", "candidate", "hidden"]
        assert press("c") == "#t=0&l=0&d=0&u=0&r=0&c=1"
        assert page.locator("#convention").get_attribute("aria-pressed") == "true"
        assert press("b").endswith("tab=gradient&c=1")
        assert page.locator("#panel-gradient").is_visible()
        assert press("v", "s", "c") == "#t=0&l=0&d=0&u=0&r=0"
        # without a mouse: to the tabs, along them, to a slider, and back
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        order = ["strip", "back", "t", "next", "u", "l", "d", "r", "tab-step", "panel-step", "substep"]
        assert [one for one in reached if one in order][: len(order)] == order
        assert {"x-range", "h-range", "w-range", "x-number", "undo"} <= set(reached)
        page.locator("#tab-step").focus()
        press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-kinds"
        page.locator("#tab-kinds").press("ArrowLeft")
        page.locator("#x-range").focus()
        assert "x=0.0:" in press("ArrowRight")
        assert page.locator("#changed").inner_text() == "1 changed"


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (320, "light")])
def test_axe_finds_nothing_serious(kind, width, scheme, browser, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    made(kind, T=40)[0].to_html(tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html", width=width, scheme=scheme) as page:
        for details in page.locator("summary").all():
            details.click()
        page.locator("h1").click()
        for key in "svbc" if kind == "GRU" else "svb":
            page.keyboard.press(key)
            found = axe.run(page).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert not serious, json.dumps(serious, indent=1)
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_users_wrote_is_text(browser, tmp_path):
    trace, _, _ = made()
    title = '</script><script>alert(1)</script><img src=x onerror=alert(2)>"&'
    trace.to_html(tmp_path / "page.html", title=title)
    with opened(browser, tmp_path / "page.html") as page:
        assert page.locator("h1").inner_text() == title
        assert page.title() == title


@pytest.mark.parametrize(
    "address",
    ["#t=-3&l=9&d=9&u=99&r=7", "#t=x&u=1e9&r=NaN", "#x=a.b:1&x=0.0:1e999&h=9.9.9.9:2&w=0.0.__proto__.x:1",
     "#w=0.0.weight_hh.99.0:1&w=0.0.constructor.name:3&tab=%3Cscript%3E&c=7", "#&&==&x=&h=:&w"],
)  # fmt: skip
def test_an_address_that_makes_no_sense_does_no_harm(address, browser, tmp_path):
    trace, _, _ = made()
    trace.to_html(tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html", address) as page:
        open_numbers(page)
        assert set(trace[0].names) < set(numbers(page))
        assert page.locator("#panel-step").is_visible()


def test_an_address_leads_to_a_moment(browser, tmp_path):
    trace, layer, x = made()
    trace.to_html(tmp_path / "page.html")
    address = "#t=4&l=0&d=0&u=2&r=0&x=1.2:0.5&h=0.0.3.1:-0.25&w=0.0.weight_hh.5.1:1.5"
    expected = recomputed(
        layer, x, {"x": [(1, 2, 0.5)], "h": [(3, 1, -0.25)], "w": [("weight_hh", 5, 1, 1.5)]}
    )
    with opened(browser, tmp_path / "page.html", address) as page:
        assert page.evaluate("location.hash") == address
        assert page.locator("#changed").inner_text() == "3 changed"
        open_numbers(page)
        close(numbers(page)["hidden"], expected[4].hidden[0])
        page.evaluate("location.hash = '#t=2&l=0&d=0&u=2&r=0'")
        page.wait_for_function("document.getElementById('changed').textContent === 'no changes'")
        close(numbers(page)["hidden"], trace[0]["hidden"][2, 0])


@pytest.mark.parametrize(
    "case",
    [{}, {"reset_after": False}, {"kind": "LSTM"}, {"kind": "LSTM", "proj_size": 2},
     {"bidirectional": True, "resets": torch.eye(6, 2, dtype=torch.bool)}, {"lengths": [4, 6]}],
)  # fmt: skip
def test_the_pages_gradients_are_autograds(case, browser, tmp_path):
    trace, layer, x = made(**case)
    given = x if "lengths" not in case else pack_padded_sequence(
        x, torch.tensor(case["lengths"]), enforce_sorted=False
    )  # fmt: skip
    kept = layer.trace(given, resets=case.get("resets"), retain_grad=True)
    trace.to_html(tmp_path / "page.html")
    call = (
        "([d, unit, row]) => { const { layers, run, backward } = gatedcells;"
        " return backward(layers[0][d], run(layers, row)[0][d], unit, row); }"
    )
    with opened(browser, tmp_path / "page.html") as page:
        for way in range(trace.directions):
            length = case.get("lengths", [6])[0]
            last = 0 if way else length - 1
            loss = kept[0, way]["hidden"][last, 0, 1]
            layer.zero_grad()
            for state in ("hidden", "cell") if case.get("kind") == "LSTM" else ("hidden",):
                values = kept[0, way].values(state)
                expected = torch.autograd.grad(loss, values, retain_graph=True, allow_unused=True)
                found = page.evaluate(call, [way, 1, 0])
                assert [t for t in range(6) if found[t] is None] == list(range(length, 6))
                packed_row = 1 if "lengths" in case else 0  # packing sorts the longer one first
                for t in range(length):
                    right = torch.zeros_like(values[t]) if expected[t] is None else expected[t]
                    close(found[t][state], right[packed_row])


def test_other_kinds_get_the_weights_that_they_have_room_for(browser, tmp_path):
    trace, layer, x = made()
    trace.to_html(tmp_path / "page.html")
    plain, long = torch.nn.RNN(3, 4, dtype=F64), gatedcells.LSTM(3, 4, dtype=F64)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            _, update, candidate = getattr(layer, name).chunk(3)
            getattr(plain, name).copy_(candidate)
            bias = 20.0 if name == "bias_ih_l0" else 0.0
            shown = torch.full_like(update, bias)
            getattr(long, name).copy_(torch.cat([-update, update, candidate, shown]))
    call = (
        "kind => gatedcells.run(gatedcells.layers.map(ps => ps.map(p => gatedcells.asKind(p, kind))), 0)"
        "[0][0].map(s => s.hidden)"
    )
    with opened(browser, tmp_path / "page.html") as page:
        close(page.evaluate(call, "RNN"), plain(x)[0][:, 0])
        close(page.evaluate(call, "LSTM"), long(x)[0][:, 0])
        page.keyboard.press("v")
        assert page.locator("#panel-kinds .legend li").all_inner_texts() == ["GRU", "LSTM", "RNN"]


def test_not_a_number_is_shown_as_that(browser, tmp_path):
    torch.manual_seed(0)
    layer, x = gatedcells.GRU(3, 4, dtype=F64), torch.randn(6, 1, 3, dtype=F64)
    x[3, 0, 1], x[4, 0, 0] = math.nan, math.inf
    layer.trace(x).to_html(tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html", "#t=3") as page:
        assert "NaN" in page.locator("#equations").inner_text()
        assert float(page.locator("#deviation").get_attribute("value")) <= 1e-12


def test_float32_is_shown_with_its_own_deviation(browser, tmp_path):
    torch.manual_seed(0)
    gatedcells.GRU(3, 4).trace(torch.randn(6, 1, 3)).to_html(tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html") as page:
        assert 0 < float(page.locator("#deviation").get_attribute("value")) < 1e-6


def test_a_notebook_shows_the_page(browser, tmp_path):
    trace, _, _ = made()
    (tmp_path / "notebook.html").write_text(f"<!doctype html>{trace._repr_html_()}", encoding="utf-8")
    with opened(browser, tmp_path / "notebook.html") as page:
        inside = page.frame_locator("iframe")
        inside.locator("#next").click()
        assert "1 of 0 to 5" in inside.locator("#t-now").inner_text()


def test_the_page_is_small_and_written_whole(tmp_path):
    trace, _, _ = made(T=1, B=1, I=1, H=1)
    text = trace.to_html(tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    assert len(text) < 300_000
    assert "//" not in text.replace("// ", ""), "comments, but no address of anything"


def test_a_trace_too_large_for_a_notebook_says_so():
    torch.manual_seed(0)
    trace = gatedcells.GRU(4, 64).trace(torch.randn(60, 8, 4))
    assert 'trace.to_html("trace.html")' in trace._repr_html_()
