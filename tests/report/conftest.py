"""A run folder as `selfsup pretrain` and `selfsup evaluate` leave it, from made-up figures and real digits; and two readers of its page."""

import base64
import csv
import json
import math
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from selfsup.report import Abilities, save_abilities, save_sample, save_views
from selfsup.report.numbers import visible

COUNTS = (1, 2, 5, 10, 20, 50, 100)
CURVES = {"encoder": (0.719, 0.982), "pixels_pca": (0.569, 0.962), "untrained": (0.601, 0.958), "scratch": (0.452, 0.978)}


def config(run: Path, **changes: Any) -> dict[str, Any]:
    digits = [str(digit) for digit in range(10)]
    return {
        "method": "simclr",
        "options": {"temperature": 0.2, "hidden_size": 512, "projection_size": 128, "colour_strength": 0.5, "blur": False},
        "encoder": {"name": "small", "channels": 1, "image_size": 32},
        "data": {
            "source": "/data/digits",
            "items": 1797,
            "skipped": 3,
            "classes": digits,
            "fingerprint": "9f86d081884c7d659a2feaa0c55ad015",
            "image_size": 32,
            "channels": 1,
        },
        "training": {
            "steps": 1400,
            "epochs": 200,
            "minutes": None,
            "batch_size": 256,
            "lr": 0.001,
            "optimizer": "adamw",
            "weight_decay": 0.0001,
            "schedule": "cosine",
            "warmup": 0.05,
            "precision": "fp32",
            "seed": 0,
            "devices": 1,
            "device": "cpu",
            "threads": 2,
        },
        "versions": {"selfsup": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "python": "3.11.7"},
        "command": f"selfsup pretrain simclr /data/digits --out {run} --epochs 200 --temperature 0.2 --colour-strength 0.5 --no-blur",
        **changes,
    }


def metric_lines(steps: int = 1400, every: int = 10) -> list[dict[str, Any]]:
    """Loss, rate and speed, every tenth of the run the monitors, and a collapse that passes."""
    noise = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for step in range(every, steps + 1, every):
        progress = step / steps
        at = {"step": step, "images": 256 * step, "seconds": 85 * progress}
        lr = 1e-3 * min(progress / 0.05, 0.5 * (1 + math.cos(math.pi * progress)))
        loss = 4.1 + 2.1 * math.exp(-6 * progress) + noise.normal(0, 0.05)
        speed, accuracy = 4200 + noise.normal(0, 160), 0.9 - 0.8 * math.exp(-5 * progress)
        lines.append({**at, "loss": loss, "lr": lr, "items_per_second": speed, "accuracy": accuracy})
        if math.floor(10 * progress) > math.floor(10 * (step - every) / steps):
            rank = 4 + 60 * progress**0.7 * (1.1 - 0.25 * progress)
            shape = {"deviation": 0.3 + 0.5 * progress**0.5, "alignment": 0.9 - 0.5 * progress, "uniformity": -0.6 - 2.4 * progress**0.6}
            lines.append({**at, "rankme": rank, **shape, "knn_top1": 0.62 + 0.34 * progress**0.5})
    warning = "The vectors use only 4.2 of 128 directions: the encoder is about to collapse. Likely cause: a learning rate too high."
    for step in (20, 30, 40):
        lines.append({"step": step, "images": 256 * step, "seconds": 85 * step / steps, "warning": warning})
    return sorted(lines, key=lambda line: line["step"])


def evaluation() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (first, last) in CURVES.items():
        few = {}
        for count in COUNTS:
            progress = (math.log(count) / math.log(100)) ** 0.55
            mean, half = first + (last - first) * progress, 0.028 * (1.15 - progress)
            few[str(count)] = {"mean": mean, "low": mean - half, "high": mean + half}
        found[name] = {"knn_top1": last - 0.004, "linear_top1": last + 0.006, "few_label": few}
    found["scratch"] |= {"knn_top1": None, "linear_top1": 0.986}
    protocol = {"train": "/data/digits/train", "test": "/data/digits/test", "k": 200, "temperature": 0.1, "seeds": 5, "checkpoint": "last"}
    return {**found, "protocol": protocol}


def sample_arrays() -> dict[str, Any]:
    """Digits as thumbnails, and vectors in which the classes are clusters that touch."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    draw = np.random.default_rng(0)
    keep = np.sort(draw.permutation(len(images))[:240])
    pixels = (images[keep].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    z = images[keep] @ draw.normal(size=(64, 48)) / 30 + 2.0 * draw.normal(size=(10, 48))[labels[keep]]
    names = [f"{labels[i]}/digit-{i:04d}.png" for i in keep]
    return {"embeddings": z.astype(np.float32), "thumbnails": pixels, "labels": labels[keep], "names": names}


PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</SCRIPT ><svg onload=alert(3)>",
    "<img src=x onerror=alert(4)>",
    '"><img src=x onerror=alert(5)>',
    "'><svg/onload=alert(6)>",
    '" onmouseover="alert(7)" x="',
    "' autofocus onfocus='alert(8)' tabindex='0",
    "` onerror=`alert(9)`",
    "<iframe src=javascript:alert(10)></iframe>",
    "<iframe srcdoc='<script>alert(11)</script>'></iframe>",
    "<a href=javascript:alert(12)>click</a>",
    "javascript:alert(13)",
    "<!--<script>alert(14)//-->",
    "--><script>alert(15)</script>",
    "<style>@import 'http://evil.example/16.css';</style>",
    "</style><script>alert(17)</script>",
    "<link rel=stylesheet href=http://evil.example/18.css>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/19'>",
    "<base href=http://evil.example/20/>",
    "<form action=http://evil.example/21><button autofocus>x</button></form>",
    "<object data=http://evil.example/22></object><embed src=http://evil.example/22>",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}${alert(23)}",
    "\\u003cscript\\u003ealert(24)\\u003c/script\\u003e\u2028alert(24)",
    "\u202e\x00<math><mtext></title><img src=http://evil.example/25.png onerror=alert(25)>\ud800",
)
"""File names and the like that want to be markup or script; the last one also turns the text around, and is no valid UTF-8."""


def hostile_run(run: Path) -> Path:
    """A run in which everything that a person or a file can name is a payload."""
    fake_run(run)
    each = list(PAYLOADS)
    keyed = {payload: payload for payload in each}
    document = config(run, command=" ".join(each), method=each[1], options=keyed, versions=keyed, encoder={"name": each[4], **keyed})
    document["data"] |= {"source": f"/data/{each[3]}", "classes": each, "fingerprint": each[5]}
    document["training"] |= {"optimizer": each[0], "schedule": each[3], "device": each[9], "precision": each[2]}
    write_json(run / "config.json", document)
    lines = metric_lines()[:40]
    for i, payload in enumerate(each):
        lines[i][f"loss{payload}"] = float(i)
        lines.append({"step": 10_000 + i, "warning": payload})
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    best = {"step": 200, "measure": each[1], "value": 3.0}
    write_json(run / "status.json", {"state": each[3], "step": 1, "steps": 2, "seconds": 3.0, "best": best, "message": " ".join(each)})
    with (run / "skipped.csv").open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows([["name", "reason"], *([payload, payload] for payload in each)])
    write_json(run / "evaluation.json", evaluation() | {"protocol": keyed})
    arrays = sample_arrays()
    labels = np.arange(len(arrays["names"])) % len(each)
    save_sample(run, **arrays | {"labels": labels, "names": [each[label] for label in labels]})
    save_views(run, arrays["thumbnails"][:8], {payload[:60]: arrays["thumbnails"][:8] for payload in each[:10]})
    bars = {payload[:60]: np.ones(3, np.float32) for payload in each[:6]}
    save_abilities(run, replace(made(arrays["thumbnails"][:24]), bars=bars, notes=tuple(map(visible, each))))
    return run


def made(digits: np.ndarray) -> Abilities:
    """Pictures (24, h, w, 1) as if a method with a code had made them, and the use of a codebook of 1,024 entries."""
    blurred = (digits / 2 + np.roll(digits, 1, axis=1) / 4 + np.roll(digits, 1, axis=2) / 4).astype(np.uint8)
    share = np.linspace(0, 1, 10)[:, None, None, None]
    walks = np.stack([((1 - share) * digits[i] + share * digits[i + 3]).astype(np.uint8) for i in range(3)])
    use = np.where(np.arange(1024) % 3 > 0, np.exp(-np.arange(1024) / 200), 0).astype(np.float32)
    return Abilities(
        originals=digits[:8],
        reconstructions=blurred[:8],
        samples=np.flip(blurred, axis=2).copy(),
        walks=walks,
        bars={"KL of each dimension, nats": np.linspace(0.001, 3.2, 20).astype(np.float32), "Codebook use, share": use / use.sum()},
    )


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def fake_run(run: Path) -> Path:
    """A finished and evaluated run."""
    run.mkdir(parents=True)
    write_json(run / "config.json", config(run))
    lines = [json.dumps(line) for line in metric_lines()]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    best = {"step": 980, "measure": "rankme", "value": 47.3}
    write_json(run / "status.json", {"state": "finished", "step": 1400, "steps": 1400, "seconds": 85.0, "best": best, "message": ""})
    reasons = ["cut short: 4,096 of 9,120 bytes", "not an image", "empty file"]
    rows = [f'"holiday/{name}.jpg","{reason}"' for name, reason in zip(("IMG_0031", "notes", "IMG_0107"), reasons, strict=True)]
    (run / "skipped.csv").write_text("name,reason\n" + "\n".join(rows) + "\n")
    write_json(run / "evaluation.json", evaluation())
    arrays = sample_arrays()
    save_sample(run, **arrays)
    original = arrays["thumbnails"][:8]
    shifted = {"first": np.roll(original, 1, axis=2) // 2 + 40, "second": np.flip(np.roll(original, -1, axis=1), axis=2).copy()}
    save_views(run, original, shifted)
    save_abilities(run, made(arrays["thumbnails"][:24]))
    (run / "encoder").mkdir()
    weights = {"net.0.weight": np.zeros((64, 1, 3, 3), np.float32), "net.1.running_mean": np.zeros(64, np.float32)}
    save_file(weights, run / "encoder" / "model.safetensors")
    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tests only read."""
    return fake_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that attacks its reader; tests only read it."""
    return hostile_run(tmp_path_factory.mktemp("hostile") / "run")


@pytest.fixture(scope="session")
def payloads() -> tuple[str, ...]:
    return PAYLOADS


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[], Path]:
    """Makes runs that a test may change."""
    made = []

    def make() -> Path:
        made.append(fake_run(tmp_path / f"run-{len(made)}"))
        return made[-1]

    return make


class Parsed(HTMLParser):
    """Elements, attributes and text of a page, as a browser would find them."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text, self.scripts, self.styles, self.inside = "", [], [], ""
        self.source = page.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attributes}))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in ("script", "style"):
            getattr(self, f"{self.inside}s").append(data)
        else:
            self.text += data

    def data(self) -> dict:
        return json.loads(self.scripts[0])

    def section(self, name: str) -> str:
        """Text of one section, spaces collapsed."""
        html = self.source.partition(f'<section id="{name}"')[2].partition("</section>")[0]
        return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.fixture(scope="session")
def parse() -> type[Parsed]:
    """Reads a page: `parse(path)`."""
    return Parsed


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

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Place of an element in the window, after scrolling to it: x, y, width, height."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center'}})")
        found = self.evaluate(f"{element}.getBoundingClientRect().toJSON()")
        return found["x"], found["y"], found["width"], found["height"]

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


@pytest.fixture(scope="session")
def ink() -> str:
    """Script that finds the text with the lowest contrast: [contrast, where]."""
    return INK


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
