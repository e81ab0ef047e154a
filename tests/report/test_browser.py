"""The page in a real browser, from disk: no error, no request, no sideways scrolling, light and dark, phone and laptop."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfsup.report import write_report

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


class Browser:
    """Headless Chromium, spoken to over the two pipes of the DevTools protocol: one JSON object, then a zero byte."""

    def __init__(self, profile: Path) -> None:
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # Chromium reads from descriptor 3 and writes to descriptor 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash"]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([*shell, *command], pass_fds=(to_browser, from_browser), stdout=quiet, stderr=quiet)
        os.close(to_browser)
        os.close(from_browser)
        self.rest, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Security"):
            self.call(f"{domain}.enable")

    def _message(self, until: float) -> dict[str, Any]:
        while b"\0" not in self.rest:
            if not select.select([self.read], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("chromium does not answer")
            part = os.read(self.read, 1 << 20)
            if not part:
                raise RuntimeError(f"chromium ended with status {self.process.wait()}")
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        command = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.write, json.dumps(command).encode() + b"\0")
        until = time.monotonic() + 60
        while True:
            message = self._message(until)
            if message.get("id") == self.number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        self.events.append(message)
        if message.get("method") == "Page.javascriptDialogOpening":  # it stops everything until it is answered
            self.number += 1
            answer = {"id": self.number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}, "sessionId": self.session}
            os.write(self.write, json.dumps(answer).encode() + b"\0")

    def open(self, page: Path, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Load a page and wait until it has been drawn."""
        self.events.clear()
        mobile = width < 700
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=page.absolute().as_uri())
        until = time.monotonic() + 60
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self._note(self._message(until))
        drawn = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))"
        self.evaluate(drawn)

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, to: Path, *, full: bool = True) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        to.write_bytes(base64.b64decode(shot["data"]))

    def key(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def mouse(self, kind: str, x: float, y: float) -> None:
        clicks = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **clicks)

    def complaints(self) -> list[Any]:
        """Console errors and warnings, exceptions, dialogs, and everything that a policy blocked."""
        bad = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            console = method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert")
            log = method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning")
            if console or log or method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
                bad.append(params)
        return bad

    def requests(self) -> list[str]:
        """Addresses outside the page itself that were asked for."""
        urls = [event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]

    def close(self) -> None:
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError, TimeoutError):
            self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.write)
        os.close(self.read)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def page(finished: Path) -> Path:
    return write_report(finished)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_page_opens_from_disk_without_a_complaint(browser: Browser, page: Path, width: int, dark: bool) -> None:
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


INK = """
(() => {  // the lowest contrast of a text with the ground behind it, WCAG 2
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const solid = c => c.length < 4 || c[3] > 0;
  const ground = e => {
    while (e && !solid(channels(getComputedStyle(e).backgroundColor))) e = e.parentElement;
    return e ? channels(getComputedStyle(e).backgroundColor) : [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('body *:not(script, style)')) {
    const says = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!says || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(channels(e instanceof SVGElement ? style.fill : style.color)), light(ground(e))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName + '.' + e.getAttribute('class')]);
  }
  return found.sort((p, q) => p[0] - q[0])[0];
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, 1440, dark=dark)
    contrast, where = browser.evaluate(INK)
    assert contrast >= 4.5, where


def box(browser: Browser, selector: str) -> tuple[float, float, float, float]:
    """Place of an element in the window, after scrolling to it: x, y, width, height."""
    element = f"document.querySelector({json.dumps(selector)})"
    browser.evaluate(f"{element}.scrollIntoView({{block: 'center'}})")
    found = browser.evaluate(f"{element}.getBoundingClientRect().toJSON()")
    return found["x"], found["y"], found["width"], found["height"]


def outputs(browser: Browser) -> list[str]:
    return browser.evaluate("[...document.querySelectorAll('.curve output')].map(o => o.textContent)")


def test_pointing_at_one_curve_reads_all_at_that_step(browser: Browser, page: Path) -> None:
    browser.open(page, 1440)
    data = browser.evaluate("JSON.parse(document.getElementById('data').textContent)")
    last = outputs(browser)
    x, y, width, _ = box(browser, ".curve svg")
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


def test_map_answers_keys_pointer_and_touch(browser: Browser, page: Path) -> None:
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

    x, y, width, height = box(browser, ".stage")
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


def test_nothing_that_a_name_contains_is_run(browser: Browser, hostile: Path) -> None:
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


def test_a_run_without_anything_is_a_page_too(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    bare = write_report(tmp_path)
    for width in (390, 1440):
        browser.open(bare, width)
        assert browser.complaints() == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
