"""The page of a contest: its figures are those of the files, and nothing is claimed that they do not show."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfsup.report import write_contest
from selfsup.report.contest_charts import _mean, in_words
from selfsup.report.contest_contents import Measured
from selfsup.report.numbers import visible

Parse = Callable[[Path], Any]

METHODS = {"simclr": 0.52, "moco": 0.50, "rotation": 0.41, "denoising": 0.33}
"""Method -> where its made-up kNN accuracy ends."""

COUNTS = (1, 2, 5, 10, 20, 50, 100)


def interval(values: list[float]) -> dict[str, float | None]:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return {"mean": mean, "low": None, "high": None}
    reach = 2.5 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def made_up_run(method: str, number: int, top: float, seed: int, *, labelled: bool) -> dict[str, Any]:
    draw = np.random.default_rng([number, seed])
    top, speed = top + draw.normal(0, 0.006), (1450 - 210 * (number % 5)) * draw.uniform(0.97, 1.03)
    curve = []
    for i in range(1, 11):
        progress = 1 - math.exp(-4 * i / 10)
        knn = 0.25 + (top - 0.25) * progress + draw.normal(0, 0.004)
        seconds = 12.0 * i + draw.uniform(-0.3, 0.3)
        curve.append(
            {"seconds": seconds, "images": int(speed * seconds), "rankme": 8 + 60 * top * progress, "knn_top1": knn if labelled else None}
        )
    few = {str(n): top - 0.3 + 0.3 * math.log(n) / math.log(100) for n in COUNTS}
    return {
        "method": method,
        "seed": seed,
        "state": "finished",
        "error": "",
        "seconds": 121.0,
        "images": int(121 * speed),
        "images_per_second": speed,
        "peak_mib": 700.0 + 130 * (number % 4) + 5 * seed,
        "parameters": 1_234_567,
        "encoder": "small",
        "rankme": 20 + 70 * top + draw.normal(0, 4),
        "alpha_req": 1.9 - 1.4 * top + draw.normal(0, 0.05),
        "lidar": 10 + 40 * draw.uniform(),
        "knn_top1": top if labelled else None,
        "linear_top1": top + 0.04 if labelled else None,
        "few_label": few if labelled else None,
        "warnings": ["The vectors use only 4.2 of 128 directions: the encoder is about to collapse."] if number == 2 and seed == 1 else [],
        "curve": curve,
    }


def summed_up(runs: list[dict[str, Any]], methods: list[str]) -> dict[str, Any]:
    """result.json of these runs, as `selfsup compare` writes it."""
    found: dict[str, Any] = {}
    labelled = any(run.get("knn_top1") is not None for run in runs)
    for method in methods:
        own = [run for run in runs if run["method"] == method and run["state"] == "finished"]
        failed = [run for run in runs if run["method"] == method and run["state"] == "failed"]
        entry: dict[str, Any] = {"runs": len(own) + len(failed), "failed": len(failed), "error": failed[0]["error"] if failed else None}
        for key in ("knn_top1", "linear_top1", "rankme", "alpha_req", "lidar", "images_per_second", "peak_mib", "seconds", "images"):
            values = [run[key] for run in own if run[key] is not None]
            entry[key] = interval(values) if values else None
        few = [run["few_label"] for run in own if run["few_label"]]
        entry["few_label"] = {n: interval([row[n] for row in few]) for n in few[0]} if few else None
        entry["warnings"] = sorted({text for run in own for text in run["warnings"]})
        found[method] = entry
    by = "knn_top1" if labelled else "rankme"
    ranking = sorted((method for method in methods if found[method][by]), key=lambda method: -found[method][by]["mean"])
    best = found[ranking[0]][by] if ranking else None
    tied = [m for m in ranking if best and best["low"] is not None and (found[m][by]["high"] or 0.0) >= best["low"]]
    few = {str(n): {"mean": 0.2 + 0.02 * i, "low": 0.19 + 0.02 * i, "high": 0.21 + 0.02 * i} for i, n in enumerate(COUNTS)}
    baselines = {
        "pixels_pca": {"knn_top1": 0.404, "linear_top1": 0.39, "few_label": few},
        "untrained": {"knn_top1": 0.35, "linear_top1": 0.41, "few_label": {n: entry["mean"] - 0.02 for n, entry in few.items()}},
    }
    done = sum(run["state"] == "finished" for run in runs)
    agreement = {key: {"rho": rho, "runs": done} for key, rho in (("rankme", 0.87), ("alpha_req", -0.52), ("lidar", 0.12))}
    advice = [
        "Take SimCLR: nothing did better in 2 minutes.",
        "MoCo is level with it: the intervals overlap.",
        "Rotation is 9.1 points below.",
    ]
    return {
        "methods": found,
        "baselines": baselines if labelled else None,
        "ranking": ranking,
        "ranked_by": "knn_top1" if labelled else "label-free",
        "tied_with_best": tied,
        "agreement": agreement if labelled else None,
        "advice": advice,
    }


def fake_contest(
    folder: Path,
    *,
    methods: dict[str, float] = METHODS,
    seeds: int = 3,
    labelled: bool = True,
    done: int | None = None,
    failed: tuple[str, ...] = (),
) -> Path:
    """A contest as `selfsup compare` leaves it, from made-up figures; of an interrupted one only the first `done` runs."""
    folder.mkdir(parents=True)
    classes = [f"class {i}" for i in range(10)] if labelled else []
    config = {
        "data": {
            "source": "/data/cifar10",
            "items": 50_000,
            "classes": classes,
            "kind": "image",
            "image_size": 32,
        },
        "test": "/data/cifar10-test" if labelled else None,
        "methods": list(methods),
        "budget": {"minutes": 2.0},
        "seeds": seeds,
        "encoder": None,
        "labelled": labelled,
        "evaluated_on": [50_000, 10_000] if labelled else None,
        "watched": 2000,
        "versions": {"selfsup": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "machine": "cpu, 2 threads, Intel Xeon",
        "command": f"selfsup compare /data/cifar10 --methods {','.join(methods)} --minutes 2 --seeds {seeds} --out {folder}",
    }
    runs = [made_up_run(m, i, top, seed, labelled=labelled) for seed in range(seeds) for i, (m, top) in enumerate(methods.items())]
    broken = {"state": "failed", "error": "RuntimeError: the loss is not finite at step 12", "warnings": [], "curve": []}
    runs = [{key: run[key] for key in ("method", "seed")} | broken if run["method"] in failed else run for run in runs[:done]]
    write(folder, config, runs, summed_up(runs, list(methods)))
    return folder


def write(folder: Path, config: Any, runs: list[Any], result: Any) -> None:
    (folder / "contest.json").write_text(json.dumps(config))
    (folder / "results.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    (folder / "result.json").write_text(json.dumps(result))


def change(folder: Path, name: str, **changes: Any) -> None:
    stored = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(stored | changes))


Rows = dict[str, list[tuple[str, str, bool]]]


def rows(page: Any) -> Rows:
    """The ranking as it stands on the page: name -> (text, interval, bold) of each cell, from top to bottom."""
    table = page.source.partition('<table class="results ranking">')[2].partition("</tbody>")[0].partition("<tbody>")[2]
    found = {}
    for row in table.split("<tr")[1:]:
        name = re.search(r"<span>([^<]*)", row)
        cells = re.findall(r'<td( class="best")?>([^<]*)(?:<small>([^<]*)</small>)?</td>', row)
        found[name[1] if name else ""] = [(text, interval, bool(best)) for best, text, interval in cells]
    return found


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A contest that tests only read."""
    return fake_contest(tmp_path_factory.mktemp("contest") / "contest")


@pytest.fixture(scope="module")
def page(contest: Path, parse: Parse) -> Any:
    return parse(write_contest(contest))


def test_every_section_is_there_and_says_how_it_was_run(page: Any) -> None:
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == ["ranking", "warnings", "labels", "measures", "cost", "methods", "how"]
    text = " ".join(page.text.split())
    for said in ("4 methods on cifar10", "finished: 12 runs", "Take SimCLR: nothing did better in 2 minutes.", "12 of 12", "2 minutes"):
        assert said in text
    for said in ("learned on 50,000, tested on 10,000 items", "Intel Xeon", "--methods simclr,moco,rotation,denoising", "32 × 32 pixels"):
        assert said in page.section("how")
    assert "The partner of every view" in page.section("methods")
    assert "small, 1.23 M parameters" in page.section("methods")
    assert "rotation The vectors use only 4.2 of 128 directions: the encoder is about to collapse. In 1 of 3 runs" in page.section(
        "warnings"
    )


def test_figures_of_the_ranking_are_those_of_the_result(page: Any, contest: Path) -> None:
    stored, found = json.loads((contest / "result.json").read_text()), rows(page)
    # Raw pixels at 40.4 % stand below rotation and above denoising, because that is where they would have come in.
    assert list(found) == ["simclr", "moco", "rotation", "Raw pixels + PCA", "Untrained network", "denoising"]
    for method in METHODS:
        entry = stored["methods"][method]
        for cell, figure in zip(found[method], (entry["knn_top1"], entry["linear_top1"], entry["few_label"]["10"]), strict=False):
            assert cell[:2] == (f"{100 * figure['mean']:.1f}", f"{100 * figure['low']:.1f}–{100 * figure['high']:.1f}")
        assert [cell[0] for cell in found[method][3:6]] == [f"{entry[key]['mean']:#.3g}" for key in ("rankme", "alpha_req", "lidar")]
        assert [cell[0] for cell in found[method][6:8]] == [f"{entry[key]['mean']:,.0f}" for key in ("images_per_second", "peak_mib")]
    assert found["Raw pixels + PCA"][:3] == [("40.4", "", False), ("39.0", "", False), ("26.0", "25.0–27.0", False)]
    assert found["Untrained network"][:3] == [("35.0", "", False), ("41.0", "", False), ("24.0", "", False)]


def test_bold_is_the_best_and_whatever_overlaps_with_it(tmp_path: Path, parse: Parse) -> None:
    folder = fake_contest(tmp_path / "contest")
    methods = json.loads((folder / "result.json").read_text())["methods"]
    figures = {"simclr": (0.5, 0.48, 0.52), "moco": (0.47, 0.45, 0.48), "rotation": (0.46, 0.44, 0.4799), "denoising": (0.49, None, None)}
    for method, figure in figures.items():
        methods[method]["knn_top1"] = methods[method]["peak_mib"] = dict(zip(("mean", "low", "high"), figure, strict=True))
    change(folder, "result.json", methods=methods, tied_with_best=["simclr", "moco"])
    page = parse(write_contest(folder))
    found = rows(page)
    assert {method: found[method][0][2] for method in METHODS} == {"simclr": True, "moco": True, "rotation": False, "denoising": False}
    # Of memory less is better, and rotation has the least: moco overlaps with it, simclr starts just above it.
    assert {method: found[method][7][2] for method in METHODS} == {"simclr": False, "moco": True, "rotation": True, "denoising": False}
    assert not any(cells[4][2] for cells in found.values())  # alpha-ReQ is best near 1, which no order shows
    assert "simclr ahead on average" in page.section("ranking").replace(" class=", "")
    assert page.section("ranking").count("level with the best") == 1


def test_overlap_is_of_closed_intervals_and_one_run_has_none() -> None:
    assert Measured(0.5, 0.4, 0.6).overlaps(Measured(0.7, 0.6, 0.8))
    assert not Measured(0.5, 0.4, 0.59).overlaps(Measured(0.7, 0.6, 0.8))
    assert not Measured(0.5).overlaps(Measured(0.7, 0.1, 0.8))
    assert Measured(0.5).overlaps(Measured(0.5))


def test_one_run_each_claims_nothing(tmp_path: Path, parse: Parse) -> None:
    page = parse(write_contest(fake_contest(tmp_path / "contest", seeds=1)))
    assert [cell[1] for cell in rows(page)["simclr"]] == [""] * 9
    assert "small differences say nothing" in page.section("ranking")
    assert "ahead on average" in page.section("ranking")
    assert page.data()["few"]["plot"][0]["points"][3] == [10, pytest.approx(0.37, abs=0.03), None, None]


def test_a_mean_curve_is_what_had_been_reached_by_then() -> None:
    assert _mean([([10.0, 20.0], [0.2, 0.4]), ([10.0, 20.0], [0.4, 0.6])]) == ([10, 20], [0.3, 0.5])
    # The first run ends at 20 s and keeps its 0.4; the second is at 0.5 after 20 s, at 0.55 after 25 s.
    x, y = _mean([([10.0, 20.0], [0.2, 0.4]), ([10.0, 30.0], [0.4, 0.6])])
    assert (x, y) == ([10, 20, 25], pytest.approx([0.3, 0.45, 0.475]))
    assert _mean([([11.0], [0.2]), ([13.0], [0.6])]) == ([12], [0.4])
    assert _mean([([10.0, 20.0], [0.2, 0.4])]) == ([10, 20], [0.2, 0.4])


def test_curves_and_points_are_those_of_the_runs(page: Any, contest: Path) -> None:
    runs = [json.loads(line) for line in (contest / "results.jsonl").read_text().splitlines()]
    race, scatter = page.data()["race"], page.data()["agreement"]
    assert (race["measure"], [line["name"] for line in race["lines"]]) == ("knn_top1", list(METHODS))
    own = [run for run in runs if run["method"] == "moco"]
    assert race["lines"][1]["runs"][2]["y"] == pytest.approx([point["knn_top1"] for point in own[2]["curve"]], rel=1e-5)
    assert race["lines"][1]["runs"][2]["x"] == pytest.approx([point["seconds"] for point in own[2]["curve"]], rel=1e-5)
    assert [plot["key"] for plot in scatter] == ["rankme", "alpha_req", "lidar"]
    expected = sorted((run["rankme"], run["knn_top1"], list(METHODS).index(run["method"]), run["seed"]) for run in runs)
    for found, point in zip(sorted(scatter[0]["points"]), expected, strict=True):
        assert found == pytest.approx(point, rel=1e-5)


def test_a_rank_correlation_is_said_in_words() -> None:
    strong = in_words("RankMe", 0.87, 36, 12)
    assert strong == "Rank correlation +0.87 over 36 runs. Higher RankMe went with higher accuracy nearly throughout."
    assert "α-ReQ nearer to 1 went with lower accuracy more often than not" in in_words("α-ReQ", -0.7, 36, 12)
    assert "−0.70" in in_words("α-ReQ", -0.7, 36, 12)
    # Four methods, whatever the number of their runs: one unrelated order in 24 is the same.
    assert "With 4 methods, that can be chance" in in_words("RankMe", 0.97, 40, 4)
    assert "chance" not in strong
    assert "says little" in in_words("LiDAR", 0.1, 36, 12)
    for too_few in (in_words("RankMe", None, 12, 4), in_words("RankMe", 1.0, 2, 2), in_words("RankMe", 1.0, 0, 2)):
        assert "Too few runs" in too_few


def test_failed_methods_say_why_and_are_not_ranked(tmp_path: Path, parse: Parse) -> None:
    page = parse(write_contest(fake_contest(tmp_path / "contest", failed=("moco",))))
    assert "finished: 12 runs, 3 of them failed" in page.text
    assert list(rows(page))[-1] == "moco"
    assert "moco 3 of 3 runs failed failed: RuntimeError: the loss is not finite at step 12" in page.section("ranking")
    assert "moco Failed: RuntimeError: the loss is not finite at step 12 Seeds 0, 1 and 2" in page.section("warnings")
    assert "moco" not in [line["name"] for line in page.data()["race"]["lines"]]
    assert "moco" not in page.section("cost")


def test_an_interrupted_contest_says_how_far_it_came(tmp_path: Path, parse: Parse) -> None:
    folder = fake_contest(tmp_path / "contest", done=5)
    page = parse(write_contest(folder))
    assert "5 of 12 runs are done" in page.text
    assert "The contest is not over" in page.text
    assert "5 of 12" in page.section("how")
    with (folder / "results.jsonl").open("a") as file:  # a line cut short, and one that names no run
        file.write('{"seed": 1, "state": "finished"}\n{"method": "moco", "se')
    assert "results.jsonl: 2 of its lines cannot be read and were left out" in parse(write_contest(folder)).section("how")
    folder = fake_contest(tmp_path / "early", done=2)
    page = parse(write_contest(folder))
    assert "denoising no run is done yet" in page.section("ranking")


def test_a_run_that_was_done_twice_counts_once(tmp_path: Path, parse: Parse) -> None:
    folder = fake_contest(tmp_path / "contest", done=5)
    again = made_up_run("simclr", 0, 0.9, 0, labelled=True)
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    page = parse(write_contest(folder))
    assert "5 of 12 runs are done" in page.text
    assert page.data()["race"]["lines"][0]["runs"][0]["y"][-1] == pytest.approx(again["curve"][-1]["knn_top1"], rel=1e-5)


def test_without_labels_the_page_says_how_far_to_trust_it(tmp_path: Path, parse: Parse) -> None:
    page = parse(write_contest(fake_contest(tmp_path / "contest", labelled=False)))
    assert page.data()["race"]["measure"] == "rankme"
    assert (page.data()["few"], page.data()["agreement"]) == (None, [])
    assert "compare checkpoints and settings of one method" in page.section("measures")
    assert "Take this ranking as a hint" in page.section("measures")
    assert "Accuracy, %" not in page.source
    assert "measures without labels" in page.section("how")
    assert "level with the best" in page.section("ranking")


def test_what_the_budget_fixed_is_no_measure(tmp_path: Path, page: Any, parse: Parse) -> None:
    folder = fake_contest(tmp_path / "contest")
    change(folder, "contest.json", budget={"images": 100_000})
    kept = parse(write_contest(folder)).source.partition("</tbody>")[0]
    assert '<th scope="col">Images seen</th>' in kept  # one step of some method was more than that, and no secret is made of it
    methods = json.loads((folder / "result.json").read_text())["methods"]
    for number, method in enumerate(methods.values()):
        method["images"] = {"mean": 100_000 + 1_000 * (number % 2), "low": None, "high": None}
    change(folder, "result.json", methods=methods)
    by_images = parse(write_contest(folder))
    assert "100,000 images, to the nearest step of its batches" in by_images.text
    for found, there, absent in ((page, "Images seen", "Seconds"), (by_images, "Seconds", "Images seen")):
        assert f'<th scope="col">{there}</th>' in found.source.partition("</tbody>")[0]
        assert f'<th scope="col">{absent}</th>' not in found.source.partition("</tbody>")[0]
    assert "What each method needed for the same images" in by_images.section("cost")


def test_bars_are_as_long_as_their_figures(page: Any, contest: Path) -> None:
    methods = json.loads((contest / "result.json").read_text())["methods"]
    source = page.source.partition("Speed, images per second")[2].partition("</ul>")[0]
    lengths = dict(
        zip(re.findall(r"<span>(\w+)</span>", source), map(float, re.findall(r'<rect class="bar" width="([\d.]+)%', source)), strict=True)
    )
    widest = max(entry["images_per_second"]["high"] for entry in methods.values())
    assert lengths == pytest.approx({m: 100 * methods[m]["images_per_second"]["mean"] / widest for m in METHODS}, abs=0.01)
    assert list(lengths.values()) == sorted(lengths.values(), reverse=True)


def test_contest_json_alone_is_enough_and_without_it_there_is_no_contest(tmp_path: Path, parse: Parse) -> None:
    with pytest.raises(ValueError, match=r"no contest: expected a contest.json that can be read, got: .*; name the folder"):
        write_contest(tmp_path)
    for broken in ("[]", "{", "null"):
        (tmp_path / "contest.json").write_text(broken)
        with pytest.raises(ValueError, match="no contest"):
            write_contest(tmp_path)
    odd = {
        "data": 3,
        "methods": "abc",
        "seeds": "x",
        "budget": [],
        "encoder": {},
        "labelled": 3,
        "evaluated_on": [1],
        "watched": {},
        "versions": [],
    }
    for config in ({}, odd, {"methods": [1, None, {}], "seeds": -1, "budget": {"minutes": "long"}, "data": {"items": 1e400, "classes": 5}}):
        (tmp_path / "contest.json").write_text(json.dumps(config))
        page = parse(write_contest(tmp_path))
        assert "not recorded" in page.section("how")
        assert "No answer yet. result.json is not there" in page.section("ranking")
        assert "results.jsonl: not there, so no run is done yet" in page.section("ranking")


def test_what_is_damaged_or_of_the_wrong_kind_ends_in_gaps(tmp_path: Path, parse: Parse) -> None:
    folder = fake_contest(tmp_path / "contest")
    whole = (folder / "result.json").read_bytes()
    for damaged in (b"\x80\x81 broken", whole[: len(whole) // 2], b"[]"):
        (folder / "result.json").write_bytes(damaged)
        page = parse(write_contest(folder))
        assert "No answer yet. result.json is damaged and cannot be read" in page.section("ranking")
        assert len(page.data()["race"]["lines"]) == 4
    figure = {"mean": "high", "low": None, "high": []}
    odd = {
        "knn_top1": figure,
        "rankme": True,
        "few_label": {"10": figure, "x": 0.1, "-3": 0.1, "9" * 5000: 0.1},
        "warnings": 3,
        "runs": "x",
    }
    result = {"methods": {"simclr": odd, "moco": 3, "rotation": {"knn_top1": {"mean": 0.4, "low": 0.3}, "error": []}}, "baselines": 7}
    result |= {
        "ranking": [3, "nobody", "rotation", "rotation"],
        "tied_with_best": 5,
        "agreement": [],
        "advice": [None, {}],
        "ranked_by": [],
    }
    (folder / "result.json").write_text(json.dumps(result))
    runs = [
        {
            "method": "simclr",
            "seed": 0,
            "state": "finished",
            "curve": [3, {"seconds": "x"}, {"seconds": 1, "knn_top1": "nan"}],
            "warnings": "x",
        },
        {"method": "moco", "seed": 0, "state": ["failed"], "curve": {"a": 1}},
        {"method": "moco", "seed": 1, "state": "failed", "error": 3},
        {"method": "stranger", "seed": 0, "state": "finished", "knn_top1": 0.5, "rankme": 3.0, "curve": [{"seconds": 1, "knn_top1": 0.4}]},
        {"method": 5, "seed": 0},
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs) + "[]\n\n")
    page = parse(write_contest(folder))
    found = rows(page)
    assert list(found) == ["rotation", "simclr", "moco", "denoising", "stranger"]
    assert found["rotation"][0][:2] == ("40.0", "")
    assert "No answer yet. result.json holds no advice" in page.section("ranking")
    assert "2 of its lines cannot be read" in page.section("how")
    assert "moco Failed: no reason recorded Seed 1" in page.section("warnings")
    assert [line["name"] for line in page.data()["race"]["lines"]] == ["stranger"]


def test_same_folder_same_page(page: Any, contest: Path) -> None:
    assert write_contest(contest).read_text(encoding="utf-8") == page.source
    assert sorted(path.name for path in contest.iterdir()) == ["contest.html", "contest.json", "result.json", "results.jsonl"]


def test_nothing_outside_the_file_is_named_and_nothing_else_may_run(page: Any) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form", "img", "audio", "video", "source")
        assert re.match(r"#\w+$|data:,$|https://[\w./-]+$", attributes.get("href", "#main"))
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|transition|animation|gradient", page.styles[0])
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|fetch\(", page.scripts[1])
    policy = next(attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (page.scripts[1], page.styles[0])]
    assert f"default-src 'none'; script-src 'sha256-{digests[0]}'; style-src 'sha256-{digests[1]}'; " in policy


def hostile_contest(folder: Path, payloads: tuple[str, ...]) -> Path:
    """A contest in which everything that a person or a file can name is a payload."""
    each = list(payloads)
    fake_contest(folder, methods=dict.fromkeys(each, 0.5), seeds=2, failed=(each[0],))
    (folder / "results.jsonl").write_text(
        "".join(
            json.dumps(json.loads(line) | {"encoder": each[i % len(each)], "error": each[i % len(each)], "warnings": each}) + "\n"
            for i, line in enumerate((folder / "results.jsonl").read_text().splitlines())
        )
    )
    data = {"source": f"/data/{each[3]}", "items": 5, "classes": each, "kind": each[1], "image_size": each[2]}
    change(folder, "contest.json", data=data, command=" ".join(each), machine=" ".join(each[:3]), encoder=each[4], test=each[5])
    change(folder, "contest.json", versions={payload: payload for payload in each}, budget={each[6]: each[7]})
    methods = json.loads((folder / "result.json").read_text())["methods"]
    for entry, payload in zip(methods.values(), each, strict=True):
        entry |= {"error": payload, "warnings": each}
    change(folder, "result.json", methods=methods, advice=each)
    return folder


def test_names_stay_names(page: Any, payloads: tuple[str, ...], tmp_path: Path, parse: Parse) -> None:
    attacked = parse(write_contest(hostile_contest(tmp_path / "contest", payloads)))
    assert {tag for tag, _ in attacked.tags} <= {tag for tag, _ in page.tags}
    assert len(attacked.scripts) == len(page.scripts) == 2
    known = {(tag, name) for tag, attributes in page.tags for name in attributes}
    assert {(tag, name) for tag, attributes in attacked.tags for name in attributes} <= known | {("td", "colspan")}
    assert all(re.match(r"#\w+$|data:,$", attributes.get("href", "#main")) for _, attributes in attacked.tags)
    for payload in map(visible, payloads):
        assert attacked.text.count(payload[:39]) >= 5  # advice, ranking, warnings, methods, versions, every run ...
    assert "49{%" not in attacked.source
    assert "root:" not in attacked.source


SIXTEEN = {name: 0.56 - 0.012 * (7 * i % 16) for i, name in enumerate([*METHODS, *(f"quite_a_long_name_{i}" for i in range(12))])}
CASES: dict[str, dict[str, Any]] = {
    "whole": {},
    "interrupted": {"done": 5},
    "nothing done": {"done": 0},
    "no labels": {"labelled": False},
    "one method failed": {"failed": ("moco",)},
    "sixteen methods": {"methods": SIXTEEN},
    "one run": {"methods": {"simclr": 0.5}, "seeds": 1},
}
SIDEWAYS = "document.documentElement.scrollWidth"


@pytest.mark.parametrize("case", CASES)
def test_page_opens_from_disk_without_a_complaint(browser: Any, ink: str, tmp_path: Path, case: str) -> None:
    page = write_contest(fake_contest(tmp_path / "contest", **CASES[case]))
    for width, dark in ((390, False), (1440, True), (390, True), (1440, False)):
        browser.open(page, width, dark=dark)
        browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert browser.complaints() == []
        assert browser.requests() == [page.absolute().as_uri()]
        assert browser.evaluate(SIDEWAYS) <= browser.evaluate("innerWidth") == width
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground.strip("rgb()").split(","))) < 150) == dark
        contrast, where = browser.evaluate(ink)
        assert contrast >= 4.5, where


COLOURS = """[...document.querySelectorAll('#race path.line')].map(e => getComputedStyle(e)).map(s => s.stroke + s.strokeDasharray)"""


def test_sixteen_methods_look_different(browser: Any, tmp_path: Path) -> None:
    page = write_contest(fake_contest(tmp_path / "contest", methods=SIXTEEN))
    for dark in (False, True):
        browser.open(page, 1440, dark=dark)
        looks = browser.evaluate(COLOURS)
        assert len(looks) == len(set(looks)) == 16
        places = browser.evaluate("[...document.querySelectorAll('#race text.name')].map(e => e.getBoundingClientRect().y)")
        gaps = [b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)]
        assert min(gaps) >= 12  # no name stands on another


VALUES = "[...document.querySelectorAll('#race-key b')].map(e => e.textContent)"


def test_pointing_at_a_time_reads_every_method(browser: Any, contest: Path) -> None:
    browser.open(write_contest(contest), 1440)
    lines = {
        line["name"]: line["mean"] for line in browser.evaluate("JSON.parse(document.getElementById('data').textContent)")["race"]["lines"]
    }
    names = browser.evaluate("[...document.querySelectorAll('#race-key button span')].map(e => e.textContent)")
    assert names == ["simclr", "moco", "rotation", "denoising"]
    last = browser.evaluate(VALUES)
    assert last == [f"{100 * lines[name]['y'][-1]:.1f} %" for name in names]
    browser.evaluate("document.querySelector('#race svg').focus()")
    browser.key("Home")
    first = browser.evaluate(VALUES)
    start = min(min(line["x"]) for line in lines.values())
    assert first == [f"{100 * line['y'][0]:.1f} %" if line["x"][0] == start else "–" for line in (lines[name] for name in names)]
    assert f"after {start:.2g} s" in browser.evaluate("document.activeElement.getAttribute('aria-valuetext')")
    browser.evaluate("document.activeElement.blur()")
    assert browser.evaluate(VALUES) == last
    x, y, width, height = browser.box("#race svg")
    browser.mouse("mouseMoved", x + width / 3, y + height / 2)
    middle = browser.evaluate(VALUES)
    assert all(low < value < high for low, value, high in zip(first, middle, last, strict=True) if low != "–")
    assert "After" in browser.evaluate("document.querySelector('#race-key .at').textContent")
    browser.mouse("mouseMoved", 2, 2)
    assert browser.evaluate(VALUES) == last


LIT = """[...document.querySelectorAll('svg [data-row]')].filter(e => getComputedStyle(e).opacity === '1').map(e => e.dataset.row)"""


def test_what_is_pointed_at_stands_out_everywhere(browser: Any, contest: Path) -> None:
    browser.open(write_contest(contest), 1440)
    everything = set(browser.evaluate(LIT))
    assert everything == {"m0", "m1", "m2", "m3", "pixels_pca", "untrained"}
    x, y, width, height = browser.box(".ranking tbody tr:nth-child(2)")
    browser.mouse("mouseMoved", x + width / 2, y + height / 2)
    assert set(browser.evaluate(LIT)) == {"m1"}
    browser.mouse("mouseMoved", 2, 2)
    assert set(browser.evaluate(LIT)) == everything
    browser.evaluate("document.querySelector('#race-key button[data-row=m2]').focus()")
    assert set(browser.evaluate(LIT)) == {"m2"}
    browser.evaluate("document.activeElement.click(), document.activeElement.blur()")
    assert set(browser.evaluate(LIT)) == {"m2"}  # picked: it stays
    browser.evaluate("document.querySelector('#race-key button[data-row=m2]').click()")
    browser.evaluate("document.querySelector('.scatter svg').focus()")
    browser.key("Home")
    least = min(browser.evaluate("JSON.parse(document.getElementById('data').textContent)")["agreement"][0]["points"])
    assert set(browser.evaluate(LIT)) == {f"m{least[2]}"}
    said = browser.evaluate("document.querySelector('.scatter output').textContent")
    assert said == f"kNN {100 * least[1]:.1f} % at {least[0]:.4g}: {list(METHODS)[least[2]]}, seed {least[3]}"
    browser.evaluate("document.activeElement.blur()")
    assert set(browser.evaluate(LIT)) == everything
    assert browser.complaints() == []


def test_nothing_that_a_name_contains_is_run(browser: Any, tmp_path: Path, payloads: tuple[str, ...]) -> None:
    attacked = write_contest(hostile_contest(tmp_path / "contest", payloads))
    for width in (390, 1440):
        browser.open(attacked, width)
        browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        browser.evaluate("document.querySelectorAll('#race-key button').forEach(b => (b.focus(), b.click(), b.blur()))")
        browser.evaluate("document.querySelectorAll('svg').forEach(s => s.dispatchEvent(new PointerEvent('pointermove')))")
        browser.evaluate(
            "document.querySelectorAll('[data-row]').forEach(e => e.dispatchEvent(new PointerEvent('pointerover', {bubbles: true})))"
        )
        assert browser.complaints() == []
        assert browser.requests() == [attacked.absolute().as_uri()]
        strangers = "iframe, object, embed, form, base, math, img, link[rel=stylesheet], [onload], [onerror], [onfocus], [autofocus]"
        assert browser.evaluate(f"document.querySelectorAll({json.dumps(strangers)}).length") == 0
        assert browser.evaluate("document.scripts.length") == 2
        assert browser.evaluate(SIDEWAYS) <= width


def test_a_contest_without_anything_is_a_page_too(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "contest.json").write_text("{}")
    bare = write_contest(tmp_path)
    for width in (390, 1440):
        browser.open(bare, width)
        assert browser.complaints() == []
        assert browser.evaluate(SIDEWAYS) <= width
