"""A contest from the command line: equal budgets, honest failures, and a kill that costs nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import selfsup
from selfsup.cli import run
from selfsup.data import open_data
from selfsup.evaluation.features import embed_items
from selfsup.evaluation.measures import rankme
from selfsup.locks import locked
from selfsup.tasks.contest import compare
from selfsup.tasks.contest.compare import read_rows
from selfsup.tasks.contest.contest_plan import chosen_methods
from selfsup.tasks.contest.judge import Judge


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that colours tell apart."""
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, colour in (("blue", 2), ("red", 0)):
        (folder / name).mkdir()
        for i in range(40):
            image = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            image[:, :, colour] += 120
            Image.fromarray(image).save(folder / name / f"{i}.png")
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "selfsup", "compare", *map(str, arguments)]


IMAGES = 320  # whole steps of both methods: 4 of all 80 images, 5 of 64
SHORT = ("--images", IMAGES, "--seeds", 2)


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("contest") / "contest"
    done = subprocess.run(
        command(photos, "--methods", "rotation,simsiam", *SHORT, "--out", out, "--json"), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == json.loads((out / "result.json").read_text())
    return out


def test_every_method_gets_the_same_budget_and_is_scored_by_the_same_rules(finished: Path) -> None:
    rows = read_rows(finished)
    assert [(row["method"], row["seed"]) for row in rows] == [("rotation", 0), ("simsiam", 0), ("rotation", 1), ("simsiam", 1)]
    assert {row["state"] for row in rows} == {"finished"}
    assert {row["images"] for row in rows} == {IMAGES}
    for row in rows:
        assert 0 <= row["knn_top1"] <= 1
        assert row["peak_mib"] > 100
        assert row["images_per_second"] == pytest.approx(row["images"] / row["seconds"])
        assert all(row[measure] > 0 for measure in ("rankme", "alpha_req", "lidar"))
        assert row["curve"][-1]["images"] == IMAGES
    plan = json.loads((finished / "contest.json").read_text())
    assert plan["evaluated_on"] == [64, 16]
    assert plan["budget"] == {"images": IMAGES}
    result = selfsup.compare(resume=finished, quiet=True).result
    assert set(result["baselines"]) == {"pixels_pca", "untrained"}
    assert result["baselines"]["pixels_pca"]["knn_top1"] > 0.9  # colours are in the pixels
    page = (finished / "contest.html").read_text()
    assert result["advice"][0].split(" ")[0] in page


def test_a_finished_contest_is_not_run_again(finished: Path) -> None:
    before = (finished / "results.jsonl").read_bytes()
    done = subprocess.run(command("--resume", finished), capture_output=True, text=True, check=True)
    assert (finished / "results.jsonl").read_bytes() == before
    assert "rotation" in done.stdout
    assert "seed" not in done.stderr


def test_a_killed_contest_goes_on_where_it_was(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "contest"
    shutil.copytree(finished, out)
    first_two = (finished / "results.jsonl").read_bytes().splitlines(keepends=True)[:2]
    (out / "results.jsonl").write_bytes(b"".join(first_two))
    for method in ("rotation", "simsiam"):
        shutil.rmtree(out / f"runs/{method}-1")
    again = [*command("--resume", out), "--quiet"]
    with subprocess.Popen(again, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        while not (out / "runs/rotation-1/metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)  # alone: the training must notice by itself
    with (out / "results.jsonl").open("a") as file:
        file.write('{"method": "rotation", "se')  # as a kill while writing leaves it
    deadline = time.monotonic() + 30
    while any("runs/rotation-1" in " ".join(line) for line in _commands()):
        assert time.monotonic() < deadline, "the training outlived its contest"
        time.sleep(0.05)
    subprocess.run(again, check=True, capture_output=True)
    figures = ("method", "seed", "images", "rankme", "lidar", "knn_top1")
    assert [[row[f] for f in figures] for row in read_rows(out)] == [[row[f] for f in figures] for row in read_rows(finished)]
    steps = [line["step"] for line in map(json.loads, (out / "runs/rotation-1/metrics.jsonl").read_text().splitlines()) if "loss" in line]
    assert steps == sorted(set(steps))


def test_a_contest_that_another_process_holds_is_left_alone(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with locked(finished), pytest.raises(ValueError, match="another process is holding this contest"):
        selfsup.compare(resume=finished, quiet=True)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_it_waits_for_a_training_that_a_killed_contest_left_behind(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "contest"
    shutil.copytree(finished, out)
    *others, last = (finished / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text("".join(others))

    def run_of(folder: Path, _plan: Any, method: str, seed: int, _judge: Any) -> dict[str, Any]:
        with locked(folder / f"runs/{method}-{seed}", wait=False) as held:
            assert held, "somebody trains it"
        return json.loads(last)

    monkeypatch.setattr(compare, "_run", run_of)
    left_behind = ExitStack()
    left_behind.enter_context(locked(out / "runs/simsiam-1"))
    threading.Timer(0.5, left_behind.close).start()
    selfsup.compare(resume=out)
    assert "waits until the training" in capsys.readouterr().err
    assert read_rows(out) == read_rows(finished)


def test_what_would_mix_two_contests_is_refused(photos: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out images, seeds beside resume"):
        selfsup.compare(resume=finished, images=9, seeds=5)
    out, copy = tmp_path / "contest", tmp_path / "photos"
    shutil.copytree(photos, copy)
    selfsup.compare(copy, "rotation", images=64, seeds=1, out=out, quiet=True)
    (copy / "red/0.png").unlink()
    with pytest.raises(ValueError, match="its data has changed since the contest began"):
        selfsup.compare(resume=out, quiet=True)


def test_a_signal_while_a_run_is_starting_stops_the_contest_and_fails_no_method(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "contest"
    begin = command(photos, "--methods", "rotation,simsiam", "--images", 64, "--seeds", 1, "--out", out)
    with subprocess.Popen(begin, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        while not (out / "runs/rotation-0.txt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)  # it imports torch, and catches no signal yet
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert f"selfsup compare --resume {out}" in errors
    assert read_rows(out) == []


def test_a_run_that_was_killed_is_tried_again_and_counts_once(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "contest"
    shutil.copytree(finished, out)
    whole = read_rows(finished)
    killed = {"method": "rotation", "seed": 0, "state": "failed", "killed": True, "error": "killed by SIGKILL"}
    broken = [json.dumps(row) for row in (killed, *whole[1:], whole[1])] + ["null", '{"method": 3']
    (out / "results.jsonl").write_text("\n".join(broken))
    (out / "baselines.json").write_text("{")
    result = selfsup.compare(resume=out, quiet=True).result
    assert sorted((row["method"], row["seed"], row["state"]) for row in read_rows(out)) == sorted(
        (row["method"], row["seed"], "finished") for row in whole
    )
    assert [result["methods"][m]["runs"] for m in ("rotation", "simsiam")] == [2, 2]


def _commands() -> list[list[str]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text().split("\0"))
        except OSError:
            continue
    return found


def test_a_method_that_cannot_run_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    out = tmp_path / "contest"
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    contest = selfsup.compare(images, ["mae", "rotation"], images=48, seeds=1, encoder="small", out=out, quiet=True)
    rows = {row["method"]: row for row in read_rows(out)}
    assert rows["mae"]["state"] == "failed"
    assert "vit" in rows["mae"]["error"]
    assert "Traceback" not in rows["mae"]["error"]
    assert rows["rotation"]["state"] == "finished"
    # No labels: label-free measures rank, and how far to trust them is said.
    assert contest.result["ranked_by"] == "label-free"
    assert contest.result["ranking"] == ["rotation"]
    assert rows["rotation"]["knn_top1"] is None
    assert contest.result["baselines"] is None


def test_an_array_with_a_mistake_beside_it_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='did you mean "rotation"'):
        selfsup.compare(np.zeros((8, 16, 16, 3), np.uint8), "rotatoin", images=8, out=tmp_path / "c", quiet=True)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("unknown", [0, 1])
def test_watched_items_are_those_that_are_scored_where_all_have_labels(
    unknown: int, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    monkeypatch.setattr("selfsup.tasks.contest.judge.WATCHED", 20)
    x = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(60) % 2
    labels[:unknown] = -1
    items = replace(open_data(x), labels=labels, classes=("a", "b"))
    embedded = []
    monkeypatch.setattr(
        "selfsup.tasks.contest.judge.embed_items", lambda network, part, size: embedded.append(part) or embed_items(network, part, size)
    )
    judge = Judge(items, None)
    trained = finished / "runs/rotation-0"
    found = judge.measure(trained)
    assert judge.watched == 20
    assert len(embedded) == 2 + unknown
    z = embed_items(selfsup.load(trained).network, judge._watched, 16)
    assert found["rankme"] == pytest.approx(rankme(z), rel=1e-5)


def test_all_are_those_that_need_no_labels(photos: Path) -> None:
    chosen = chosen_methods("all", open_data(str(photos)))
    assert {"simclr", "byol", "mae", "rotation", "gan"} <= set(chosen)
    assert "supcon" not in chosen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "rotation"), "needs a budget"),
        (("--methods", "rotatoin", "--images", 10), 'did you mean "rotation"'),
        (("--methods", "rotation,rotation", "--images", 10), "each of them once"),
        (("--methods", "rotation", "--images", -1), "--images must be a positive finite number"),
        (("--methods", "rotation", "--images", 10, "--encoder", "resnett18"), 'no encoder "resnett18"'),
        (("--methods", "rotation", "--images", 10, "--device", "foo"), "--device must be auto, cpu, cuda or cuda:N"),
        (("--methods", "rotation", "--images", 10, "--test", "DATA"), "the same items to learn from and to score on"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[object, ...], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = tuple(photos if argument == "DATA" else argument for argument in arguments)
    assert run(["compare", *map(str, (photos, *arguments, "--out", tmp_path / "c"))]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "c").exists()
