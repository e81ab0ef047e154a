"""What a method can make, on the page: every picture in its place, bars that have the right heights, and what is not there."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfsup.report import Abilities, save_abilities, write_report
from selfsup.report.ability_pictures import _chart
from selfsup.report.page_files import load_abilities

MakeRun = Callable[[], Path]
Parse = Callable[[Path], Any]


@pytest.fixture(autouse=True)
def _quick_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.evaluation.projection.project", lambda z: z[:, :2])


def shown(page: Any) -> dict[str, np.ndarray]:
    """Pictures of the section by what they are called."""
    found = {}
    for tag, attributes in page.tags:
        if tag == "img" and re.match("Original|Reconstruction|Sample|Walk", attributes.get("alt", "")):
            with Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2]))) as picture:
                found[attributes["alt"]] = np.asarray(picture)
    return found


def test_every_picture_stands_in_its_place(parse: Parse, make_run: MakeRun) -> None:
    run = make_run()
    stored = load_abilities(run)
    pictures = shown(parse(write_report(run)))
    assert len(pictures) == 8 + 8 + 16 + 3 * 10
    for i in range(8):
        for name, array in (("Original", stored.originals), ("Reconstruction", stored.reconstructions), ("Sample", stored.samples)):
            assert (pictures[f"{name} {i + 1}"][::8, ::8] == array[i, :, :, 0]).all()
    for row in range(3):
        frames = [f"Walk {row + 1}, {name}" for name in ("start", *(f"frame {i}" for i in range(1, 9)), "end")]
        for name, frame in zip(frames, stored.walks[row], strict=True):
            assert (pictures[name][::8, ::8] == frame[:, :, 0]).all()


def test_bars_are_sorted_and_as_high_as_their_values() -> None:
    chart = _chart("title", np.array([1.0, np.nan, 4.0, 2.0, 0.0], np.float32))
    bars = re.findall(r"M(\d+) 100\.0V([\d.]+)h\.8V100\.0z", chart["path"])
    assert [(int(x), float(y)) for x, y in bars] == [(0, 0.0), (1, 50.0), (2, 75.0), (3, 100.0)]
    assert (chart["width"], chart["high"], chart["low"]) == (4, "4", "0")
    assert chart["said"] == "4 values, sorted: largest 4, median 1.5, smallest 0; 1 is 0; 1 is not finite."
    below = _chart("title", np.array([3.0, -1.0], np.float32))
    assert below["path"] == "M0 75.0V0.0h.8V75.0zM1 75.0V100.0h.8V75.0z"
    assert (below["high"], below["low"]) == ("3", "-1")
    assert _chart("title", np.full(3, np.nan, np.float32))["said"] == "None of 3 values is finite."
    assert _chart("title", np.zeros(2, np.float32))["path"] == "M0 0.0V0.0h.8V0.0zM1 0.0V0.0h.8V0.0z"
    many = _chart("title", np.linspace(0.001, 1, 1024).astype(np.float32))
    tops = [float(top) for top in re.findall(r"V([\d.]+)h1", many["path"])]
    assert tops == pytest.approx([100 - 100 * v for v in np.linspace(1, 0.001, 256)], abs=0.15)
    assert many["width"] == 256
    assert many["said"].endswith("; 10 are below a hundredth of the largest.")


def test_a_method_that_gives_vectors_only_has_no_such_section(parse: Parse, make_run: MakeRun) -> None:
    run = make_run()
    (run / "page/abilities.npz").unlink()
    page = parse(write_report(run))
    assert '<section id="abilities"' not in page.source
    assert "#abilities" not in page.source


def test_vectors_show_bars_and_no_pictures(parse: Parse, make_run: MakeRun) -> None:
    run = make_run()
    save_abilities(
        run, Abilities(bars={"KL of each dimension, nats": np.ones(5, np.float32)}, notes=("Samples: the prior was not trained",))
    )
    page = parse(write_report(run))
    assert shown(page) == {}
    for said in ("KL of each dimension, nats", "5 values, sorted", "Samples: the prior was not trained"):
        assert said in page.section("abilities")
    assert "Make more" not in page.section("abilities")


def test_a_damaged_file_is_said(parse: Parse, make_run: MakeRun) -> None:
    run = make_run()
    path = run / "page/abilities.npz"
    whole = path.read_bytes()
    for damaged in (b"\x80\x81 broken", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert "cannot be read" in parse(write_report(run)).section("abilities")


def test_only_what_the_page_can_show_is_stored(tmp_path: Path) -> None:
    pictures = np.zeros((4, 8, 8, 1), np.uint8)
    for wrong, said in (
        (Abilities(originals=pictures), "must come together"),
        (Abilities(originals=pictures, reconstructions=pictures[:3]), "expected 4 images, got 3"),
        (Abilities(samples=pictures.astype(np.float32)), r"samples must be \(n, h, w, 1 or 3\) uint8"),
        (Abilities(walks=pictures), "walks must be"),
        (Abilities(bars={"x": np.zeros((2, 2), np.float32)}), "bars 'x' must be"),
        (Abilities(bars={"x": np.zeros(0, np.float32)}), "bars 'x' must be"),
    ):
        with pytest.raises(ValueError, match=said):
            save_abilities(tmp_path, wrong)
    save_abilities(tmp_path, Abilities(samples=pictures, bars={"a/b": np.ones(2, np.float32)}, notes=("x",)))
    found = load_abilities(tmp_path)
    assert found.notes == ("x",)
    assert found.bars["a/b"].tolist() == [1, 1]
    assert found.originals is None
