"""The page as text: whole, self-contained, honest about what is missing, and deaf to what names contain."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfsup.report import Abilities, save_abilities, save_sample, save_views, write_report
from selfsup.report.numbers import visible

MakeRun = Callable[[], Path]
Parse = Callable[[Path], Any]
LARGEST = 3_000_000  # bytes


@pytest.fixture(scope="module", autouse=True)
def _quick_map() -> Iterator[None]:
    """The map's own tests are elsewhere; here its seconds would only be waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfsup.evaluation.projection.project", lambda z: z[:, :2])
        yield


@pytest.fixture(scope="module")
def page(parse: Parse, finished: Path) -> Any:
    return parse(write_report(finished))


def test_every_section_is_there_and_says_what_was_run(page: Any) -> None:
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == ["accuracy", "warnings", "run", "training", "views", "abilities", "map", "neighbours", "skipped", "use"]
    text = " ".join(page.text.split())
    for said in ("SimCLR on digits", "1,797", "1 min 25 s", "32 × 32 pixels, 1 channel", "200 epochs, 1,400 steps", "4,216 images/s"):
        assert said in text
    for said in ("projection size", "cosine, warm-up 5 %", "576", "only 4.2 of 128 directions", "IMG_0031.jpg", "step 980, 47.3"):
        assert said in text
    for said in ("Hidden Which of the other", "Predicted The partner of every view", "arxiv.org/abs/2002.05709"):
        assert said in page.section("run")


def test_figures_of_the_table_are_those_of_the_evaluation(page: Any, finished: Path) -> None:
    stored = json.loads((finished / "evaluation.json").read_text())
    table = page.source.partition('<table class="results">')[2].partition("</table>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)", row) for row in table.split("<tr")[3:]]
    for cells, key in zip(rows, ("encoder", "pixels_pca", "untrained", "scratch"), strict=True):
        means = [entry["mean"] for entry in stored[key]["few_label"].values()] + [stored[key]["knn_top1"], stored[key]["linear_top1"]]
        assert cells == ["–" if mean is None else f"{100 * mean:.1f}" for mean in means]
    assert f"reaches {100 * stored['encoder']['few_label']['10']['mean']:.1f} %" in page.section("accuracy")


def test_nothing_outside_the_file_is_named(page: Any) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form", "audio", "video", "source")
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert re.match(r"#\w+$|data:,$|https://arxiv\.org/abs/[\d.]+$", attributes.get("href", "#main"))
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in page.styles[0]
    assert "@import" not in page.styles[0]
    assert not re.search(r"transition|animation|gradient", page.styles[0])  # calm, and nothing to turn off for reduced motion


def test_policy_allows_this_script_and_this_style_only(page: Any) -> None:
    policy = next(attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (page.scripts[1], page.styles[0])]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digests[0]}'; style-src 'sha256-{digests[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|fetch\(", page.scripts[1])


def test_names_stay_names(parse: Parse, page: Any, hostile: Path, payloads: tuple[str, ...]) -> None:
    attacked = parse(write_report(hostile))
    assert {tag for tag, _ in attacked.tags} <= {tag for tag, _ in page.tags}
    assert len(attacked.scripts) == len(page.scripts) == 2
    known = {(tag, name) for tag, attributes in page.tags for name in attributes}
    assert {(tag, name) for tag, attributes in attacked.tags for name in attributes} <= known
    assert all(re.match(r"#\w+$|data:,$", attributes.get("href", "#main")) for _, attributes in attacked.tags)
    for payload in map(visible, payloads):
        assert attacked.text.count(payload) >= 6  # shown as it is: skipped (twice), options, versions, warnings, message ...
        assert attacked.section("warnings").count("&lt;") >= 15
    shown = attacked.data()["map"]
    assert {name[-20:] for name in shown["names"]} == {visible(payload)[-20:] for payload in payloads}
    assert "49{%" not in attacked.source
    assert "root:" not in attacked.source


def test_text_that_cannot_be_seen_is_written_as_its_code() -> None:
    assert visible("invoice\u202egpj.exe") == "invoice\\u202egpj.exe"
    assert visible("\ud800\x00\x1b[31m") == "\\ud800\\u0000\\u001b[31m"
    assert visible("жираф 麒麟 äöü\t\n") == "жираф 麒麟 äöü\t\n"


def test_same_folder_same_page(finished: Path, page: Any) -> None:
    assert write_report(finished).read_text(encoding="utf-8") == page.source
    assert not [path.name for path in finished.iterdir() if path.name.startswith(".")]


MISSING = {
    "metrics.jsonl": ("training", "nothing was logged yet"),
    "evaluation.json": ("accuracy", "Not measured yet"),
    "skipped.csv": ("skipped", "which files were skipped is not known"),
    "page/sample.npz": ("map", "no sample of the vectors was kept"),
    "page/views.npz": ("views", "no examples of the views were kept"),
    "status.json": ("run", "SimCLR"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_or_damaged_is_said(parse: Parse, make_run: MakeRun, name: str) -> None:
    run = make_run()
    section, said = MISSING[name]
    whole = (run / name).read_bytes()
    (run / name).unlink()
    assert said in parse(write_report(run)).section(section)
    for damaged in (b"\x80\x81 broken", whole[: len(whole) // 2]):
        (run / name).write_bytes(damaged)
        text = parse(write_report(run)).section(section)
        if name not in ("status.json", "skipped.csv", "metrics.jsonl"):
            assert "cannot be read" in text, (name, damaged[:20])


def test_config_alone_is_enough_and_without_it_there_is_no_run(parse: Parse, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no run folder: expected a config.json that can be read, got: .*; name the folder"):
        write_report(tmp_path)
    for broken in ("[]", "{", "null"):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(ValueError, match="no run folder"):
            write_report(tmp_path)
    nothing = {"method": None, "options": [], "encoder": 3, "data": None, "training": "x", "versions": None, "command": {}}
    for config in ({}, nothing, {"data": {"classes": "abc", "items": "many", "source": 5, "image_size": 1e400}, "training": {"lr": [1]}}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert "not recorded" in parse(write_report(tmp_path)).section("run")


def test_numbers_of_the_wrong_kind_end_in_gaps(parse: Parse, make_run: MakeRun) -> None:
    run = make_run()
    odd = {"mean": "high", "low": None, "high": [], "10": {"mean": 1}}
    evaluation = {
        "encoder": {"few_label": {"10": odd, "x": odd, "-3": odd, "9" * 5000: odd}, "knn_top1": True},
        "pixels_pca": 7,
        "scratch": {"few_label": 3},
    }
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    lines = [
        '{"step": 1, "loss": 2.0, "x": true}',
        '{"step": "2"}',
        "[]",
        "7",
        '{"loss": 1}',
        '{"step": 3, "loss": "nan", "warning": 5}',
        '{"step": 4,',
    ]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    (run / "status.json").write_text('{"state": 3, "best": [], "seconds": "long", "step": null}')
    page = parse(write_report(run))
    assert "evaluation.json holds no figures" in page.section("accuracy")
    assert "5 of its lines cannot be read" in page.section("training")
    assert [curve["key"] for curve in page.data()["curves"]] == ["loss"]
    assert page.data()["curves"][0]["y"] == [2.0, None]


def test_commands_hold_the_real_path_quoted(parse: Parse, tmp_path: Path) -> None:
    run = tmp_path / "my runs; rm -rf 'x'"
    run.mkdir()
    (run / "config.json").write_text("{}")
    text = " ".join(parse(write_report(run)).text.split())
    quoted = "'" + str(run).replace("'", "'\"'\"'") + "'"
    assert f"selfsup embed {quoted} DATA --out vectors.npy" in text
    assert f"selfsup.load({str(run / 'encoder')!r})" in text
    assert f"selfsup pretrain --resume {quoted}" in text


def test_only_the_first_skipped_files_are_listed_and_the_rest_counted(parse: Parse, make_run: MakeRun) -> None:
    run = make_run()
    (run / "skipped.csv").write_text("name,reason\n" + "".join(f"{i}.jpg,broken\n" for i in range(1234)))
    text = parse(write_report(run)).section("skipped")
    assert text.count("broken") == 200
    assert "And 1,034 more: all of them stand in skipped.csv" in text


def test_largest_page_stays_under_its_limit(parse: Parse, make_run: MakeRun) -> None:
    """Everything at once: noise that no PNG can compress, long names in another script, thousands of lines, a class for each item."""
    run, draw = make_run(), np.random.default_rng(0)
    noise = draw.integers(0, 256, (2000, 48, 48, 3), dtype=np.uint8)
    names = [f"{'漢字' * 60}/{i}.jpg" for i in range(2000)]
    save_sample(run, draw.normal(size=(2000, 8)), noise, np.arange(2000), names)
    save_views(run, noise[:8].repeat(4, axis=1).repeat(4, axis=2), {f"crop {i}": noise[8 * i : 8 * i + 8] for i in range(1, 11)})
    config = json.loads((run / "config.json").read_text())
    config["data"]["classes"] = ["漢字" * 50 + str(i) for i in range(2000)]
    (run / "config.json").write_text(json.dumps(config))
    keys = [f"own_{i}" for i in range(20)]
    lines = [{"step": i, "loss": draw.normal(), **dict.fromkeys(keys, draw.normal()), "warning": f"{i} {'so ' * 400}"} for i in range(2000)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    walks = noise[:30].reshape(3, 10, *noise.shape[1:])
    bars = {f"{'漢字' * 60} {i}": draw.normal(size=4096).astype(np.float32) for i in range(20)}
    save_abilities(run, Abilities(noise[:8], noise[8:16], noise[16:50], walks, bars, ("漢字" * 400,) * 3))
    (run / "skipped.csv").write_text("name,reason\n" + "".join(f"{'漢字' * 200}{i}.jpg,{'漢字' * 200}\n" for i in range(5000)))
    page = write_report(run)
    assert page.stat().st_size < LARGEST
    parsed = parse(page)
    assert len(parsed.data()["map"]["names"]) == 2000
    assert "own_12" not in {curve["key"] for curve in parsed.data()["curves"]}
    assert "Not drawn: own_12, own_13" in parsed.section("training")
    assert "1,980 more different warnings" in parsed.section("warnings")
