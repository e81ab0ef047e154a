"""The page in a real browser, from disk: no error, no request, no sideways scrolling, light and dark, phone and laptop."""

import json
from pathlib import Path
from typing import Any

import pytest

from selfsup.report import write_report


@pytest.fixture(scope="module")
def page(finished: Path) -> Path:
    return write_report(finished)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_page_opens_from_disk_without_a_complaint(browser: Any, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    assert browser.complaints() == []
    assert browser.requests() == [page.absolute().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= browser.evaluate("innerWidth") == width
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground.strip("rgb()").split(","))) < 150) == dark
    drawn = "[...document.querySelectorAll('.curve')].map(f => f.querySelector('path.line').getAttribute('d').split('L').length)"
    points = browser.evaluate(drawn)
    assert points == [140, 140, 140, 10, 10, 10, 10, 10, 140]
    assert browser.evaluate("document.querySelectorAll('#few path.marker').length") == 4 * 7
    assert browser.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out(browser: Any, page: Path, ink: str, dark: bool) -> None:
    browser.open(page, 1440, dark=dark)
    contrast, where = browser.evaluate(ink)
    assert contrast >= 4.5, where


def outputs(browser: Any) -> list[str]:
    return browser.evaluate("[...document.querySelectorAll('.curve output')].map(o => o.textContent)")


def test_pointing_at_one_curve_reads_all_at_that_step(browser: Any, page: Path) -> None:
    browser.open(page, 1440)
    data = browser.evaluate("JSON.parse(document.getElementById('data').textContent)")
    last = outputs(browser)
    x, y, width, _ = browser.box(".curve svg")
    browser.mouse("mouseMoved", x + 44 + 0.5 * (width - 54), y + 50)
    middle = outputs(browser)
    assert all(before != after for before, after in zip(last[:3], middle[:3], strict=True))
    loss = data["curves"][0]
    at = min(range(len(loss["x"])), key=lambda i: abs(loss["x"][i] - 705))  # half way between steps 10 and 1400
    assert any(float(middle[0]) == pytest.approx(loss["y"][i], rel=1e-3) for i in (at - 1, at, at + 1))
    browser.mouse("mouseMoved", 2, 2)
    assert outputs(browser) == last
    browser.evaluate("document.querySelector('.curve svg').focus()")
    browser.key("Home")
    assert float(outputs(browser)[0]) == pytest.approx(loss["y"][0], rel=1e-3)
    assert "step 10:" in browser.evaluate("document.activeElement.getAttribute('aria-valuetext')")
    browser.key("ArrowRight")
    assert float(outputs(browser)[0]) == pytest.approx(loss["y"][1], rel=1e-3)


PICKED = "[...document.querySelectorAll('.picked .own span, .picked li button')].map(e => e.title || e.textContent)"


def test_map_answers_keys_pointer_and_touch(browser: Any, page: Path) -> None:
    browser.open(page, 390)
    data = browser.evaluate("JSON.parse(document.getElementById('data').textContent)")["map"]

    def neighbours_of(name: str) -> list[str]:
        return [name, *(data["names"][i] for i in data["neighbours"][data["names"].index(name)])]

    browser.evaluate("document.querySelector('#atlas canvas').focus()")
    for key in ("ArrowRight", "ArrowLeft", "ArrowDown", "Enter"):
        browser.key(key)
    by_keys = browser.evaluate(PICKED)
    assert by_keys == neighbours_of(by_keys[0])
    browser.key("Escape")
    assert browser.evaluate(PICKED) == []

    x, y, width, height = browser.box(".stage")
    spans = [max(data[axis]) - min(data[axis]) for axis in ("x", "y")]
    scale = min((width - 2 - 40) / spans[0], (height - 2 - 46 - 40) / spans[1])  # inside its border, above the buttons
    item = max(range(len(data["x"])), key=lambda i: data["x"][i])
    at = {"x": x + width / 2 + (data["x"][item] - 0.5) * scale, "y": y + (height - 46) / 2 + (data["y"][item] - 0.5) * scale}
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert browser.evaluate(PICKED) == neighbours_of(data["names"][item])
    assert browser.evaluate("document.querySelector('.tip span').textContent") == data["names"][item]

    before = browser.evaluate("document.querySelector('#atlas canvas').toDataURL()")
    for selector in ("[data-do=in]", "[data-do=pictures]", ".legend button"):
        browser.evaluate(f"document.querySelector({json.dumps(selector)}).click()")
        after = browser.evaluate("document.querySelector('#atlas canvas').toDataURL()")
        assert after != before, selector
        before = after
    assert browser.complaints() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390


def test_nothing_that_a_name_contains_is_run(browser: Any, hostile: Path) -> None:
    attacked = write_report(hostile)
    for width in (390, 1440):
        browser.open(attacked, width)
        browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        # Everything that shows a name: each point under the keys, each class, each curve, each neighbour.
        browser.evaluate("document.querySelector('#atlas canvas').focus()")
        for key in ("ArrowRight", "Enter", "ArrowDown", "Enter", "ArrowLeft", "Enter", "ArrowUp", "Enter"):
            browser.key(key)
        browser.evaluate("document.querySelectorAll('.legend button, .picked button').forEach(b => b.click())")
        browser.evaluate("document.querySelectorAll('.curve svg').forEach(s => s.dispatchEvent(new PointerEvent('pointermove')))")
        assert browser.complaints() == []
        assert browser.requests() == [attacked.absolute().as_uri()]
        strangers = "iframe, object, embed, form, base, math, link[rel=stylesheet], [onload], [onerror], [onfocus], [autofocus]"
        assert browser.evaluate(f"document.querySelectorAll({json.dumps(strangers)}).length") == 0
        assert browser.evaluate("document.scripts.length") == 2
        assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_a_run_without_anything_is_a_page_too(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    bare = write_report(tmp_path)
    for width in (390, 1440):
        browser.open(bare, width)
        assert browser.complaints() == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
