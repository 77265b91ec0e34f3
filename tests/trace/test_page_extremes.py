"""The page of long traces, of numbers that are none, with several numbers changed, and without JavaScript."""

import json
import math

import pytest
import torch

import gatedcells
from tests.support.browser import opened

F64 = torch.float64

# the colour of a strip at a time and unit
PIXEL = """([name, t, u, T, H]) => {
  const canvas = document.getElementById(`strip-${name}`);
  const x = Math.floor((t + 0.5) * canvas.width / T), y = Math.floor((u + 0.5) * canvas.height / H);
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  pen.drawImage(canvas, -x, -y);
  return [...pen.getImageData(0, 0, 1, 1).data];
}"""


def written(path, T=6, H=4, kind="GRU", x=None, dtype=F64):
    torch.manual_seed(3)
    layer = getattr(gatedcells, kind)(3, H, dtype=dtype)
    trace = layer.trace(torch.randn(T, 1, 3, dtype=dtype) if x is None else x)
    trace.to_html(path)
    return layer, trace


def shown(page):
    return page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#panel-kinds td data')]"
        ".map(d => [d.dataset.name, Number(d.value)]))"
    )


@pytest.mark.parametrize("gate", ["reset", "update", "candidate"])
def test_a_changed_weight_is_changed_in_the_other_kinds_where_they_have_it(gate, browser, tmp_path):
    layer, trace = written(tmp_path / "page.html")
    k = ["reset", "update", "candidate"].index(gate) * 4
    with torch.no_grad():
        layer.weight_ih_l0[k, 0] = 2.5
    plain, long = torch.nn.RNN(3, 4, dtype=F64), torch.nn.LSTM(3, 4, dtype=F64)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            _, update, candidate = getattr(layer, name).chunk(3)
            getattr(plain, name).copy_(candidate)
            bias = 20.0 if name == "bias_ih_l0" else 0.0
            getattr(long, name).copy_(torch.cat([-update, update, candidate, torch.full_like(update, bias)]))
    x = trace[0].x
    expected = {"GRU": layer(x)[0], "LSTM": long(x)[0], "RNN": plain(x)[0]}
    address = f"#t=5&l=0&d=0&u=0&r=0&tab=kinds&w=0.0.weight_ih.{k}.0:2.5"
    with opened(browser, tmp_path / "page.html", address) as page:
        for kind, output in expected.items():
            assert abs(shown(page)[f"hidden-{kind}"] - float(output[5, 0, 0].detach())) <= 1e-12, kind


def test_one_changed_weight_does_not_take_another_back(browser, tmp_path):
    layer, trace = written(tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html", "#t=5") as page:
        for name, line, column, value in (
            ("weight_hh", 5, 1, 1.5),
            ("weight_hh", 5, 2, -1.0),
            ("bias_ih", 8, 0, 0.5),
        ):
            page.locator("#w-name").select_option(label=name)
            page.locator("#w-k").fill(str(line))
            page.locator("#w-c").fill(str(column))
            page.locator("#w-number").fill(str(value))
            with torch.no_grad():
                weight = getattr(layer, f"{name}_l0")
                weight.view(len(weight), -1)[line, column] = value
        assert page.locator("#changed").inner_text() == "3 changed"
        expected = float(layer(trace[0].x)[0][5, 0, 0].detach())
        h = "document.querySelector('#equations [data-line=hidden] data:last-child').value"
        assert abs(float(page.evaluate(h)) - expected) <= 1e-12
        page.reload()  # the address keeps all of them
        assert page.locator("#changed").inner_text() == "3 changed"
        assert abs(float(page.evaluate(h)) - expected) <= 1e-12


def test_an_address_changes_only_numbers_that_there_are(browser, tmp_path):
    written(tmp_path / "page.html")
    address = "#x=__proto__.0:5&x=99.0:1&x=0.7:1&h=0.0.0.9:1&w=0.0.weight_hh.1.9:2&w=0.0.bias_ih.1.3:2"
    with opened(browser, tmp_path / "page.html", address) as page:
        assert page.locator("#changed").inner_text() == "no changes"
        assert page.evaluate("({})[0]") is None


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_what_is_not_a_number_is_crossed_out_and_leaves_the_rest_its_colours(kind, browser, tmp_path):
    x = torch.randn(6, 1, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    written(tmp_path / "sound.html", kind=kind, x=x)
    broken = x.clone()
    broken[3, 0, 1] = math.nan
    written(tmp_path / "broken.html", kind=kind, x=broken)
    names = ["reset", "update", "candidate", "hidden"] if kind == "GRU" else ["forget", "candidate", "cell"]
    with (
        opened(browser, tmp_path / "sound.html", "#t=5") as sound,
        opened(browser, tmp_path / "broken.html", "#t=5") as page,
    ):
        for name in names:
            at = [name, 0, 3, 6, 4]
            if name != "cell":  # whose colours are relative to the largest
                assert page.evaluate(PIXEL, at) == sound.evaluate(PIXEL, at), name
            # above the diagonal that crosses it out
            corner = PIXEL.replace("(t + 0.5)", "(t + 0.8)").replace("(u + 0.5)", "(u + 0.3)")
            assert page.evaluate(corner, [name, 3, 3, 6, 4]) == [255, 255, 255, 255], name


def test_a_number_that_one_side_alone_has_is_no_small_deviation(browser, tmp_path):
    _, trace = written(tmp_path / "page.html")
    text = trace.to_html()
    first = repr(trace[0]["x_reset"][0, 0, 0].item())
    assert text.count(first) == 1
    (tmp_path / "page.html").write_text(text.replace(first, '"NaN"'), encoding="utf-8")
    with opened(browser, tmp_path / "page.html") as page:
        assert page.locator("#deviation").get_attribute("value") == "NaN"


def test_a_page_of_many_steps_and_units_is_drawn(browser, tmp_path):
    """More steps than a canvas is wide, and more numbers in a strip than a call takes arguments."""
    _, trace = written(tmp_path / "page.html", T=1, H=1)
    before, rest = trace.to_html().split('id="trace">')
    data, after = rest.split("</script>", 1)
    content = json.loads(data)
    part = content["layers"][0][0]
    part["x"] *= 11_000
    part["steps"] = {name: values * 11_000 for name, values in part["steps"].items()}
    text = f'{before}id="trace">{json.dumps(content)}</script>{after}'
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    with opened(browser, tmp_path / "page.html", "#t=2") as page:
        assert "2 of 0 to 10999" in page.locator("#t-now").inner_text()
        assert page.evaluate(PIXEL, ["hidden", 10990, 0, 11_000, 1])[3] == 255, "nothing is drawn"
        page.evaluate("gatedcells.now()[0][0].forEach(s => s.hidden = new Array(12).fill(0.5))")
        page.keyboard.press("ArrowRight")  # 132 000 numbers
        assert "3 of 0 to 10999" in page.locator("#t-now").inner_text()


def test_a_projected_state_is_named_by_the_unit_that_is_shown(browser, tmp_path):
    torch.manual_seed(0)
    trace = gatedcells.LSTM(3, 4, proj_size=2, dtype=F64).trace(torch.randn(6, 1, 3, dtype=F64))
    trace.to_html(tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html", "#t=2&u=3&tab=kinds") as page:
        last = trace[0]["hidden"][2, 0, 1].item()
        assert page.locator("#value-hidden").inner_text() == f"hidden[1] {last:.4f}"
        assert "h'[1]" in page.locator("#panel-kinds th").inner_text()
        assert abs(shown(page)["hidden-LSTM"] - last) <= 1e-12
        assert page.locator("#panel-kinds svg.chart").get_attribute("aria-label") == "h[1] over time"


def test_without_javascript_the_page_says_what_it_needs(browser, tmp_path):
    written(tmp_path / "page.html")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert "needs JavaScript" in page.locator("body").inner_text()
    context.close()
