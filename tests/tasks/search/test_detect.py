"""Detection of strange items: what is strange scores high, thresholds keep their rate, and labels measure it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import selfsup
from selfsup.cli import run as command
from selfsup.data import open_data
from selfsup.method import Method
from selfsup.models import build_encoder
from selfsup.tasks.saved.trained_method import TrainedMethod
from selfsup.tasks.search.detect import detect
from selfsup.tasks.search.detector import Detector
from selfsup.tasks.search.one_class import one_class


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.MonkeyPatch().setenv("SELFSUP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def table(path: Path, rows: int, strange: int, seed: int) -> Path:
    """Normal: two columns that agree, and a category that they decide. Strange rows break one of the two; each value alone is usual."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=rows)
    y, town = x + 0.1 * draw.normal(size=rows), np.where(x > 0, "north", "south")
    half = strange // 2
    y[:half] = -np.sign(x[:half]) * np.abs(draw.normal(1.5, 0.2, half))
    x[:half] = np.sign(x[:half]) * np.abs(draw.normal(1.5, 0.2, half))
    x[half:strange] = np.sign(x[half:strange]) * 1.5
    y[half:strange] = x[half:strange]
    town[half:strange] = np.where(x[half:strange] > 0, "south", "north")
    lines = [f"{a:.4f},{1e6 * b:.1f},{t},{'bad' if i < strange else 'good'}" for i, (a, b, t) in enumerate(zip(x, y, town, strict=True))]
    lines[-1] = f"NA,{1e6 * y[-1]:.1f},?,good"
    path.write_text("\n".join(["x,y,town,class", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def of_tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tables")
    data = table(folder / "train.csv", 500, 0, 0)
    run = selfsup.pretrain(str(data), "denoising", out=folder / "run", steps=250, batch_size=64, lr=3e-3, level=0.34, quiet=True).path
    return run, data


def pictures(folder: Path, count: int, seed: int, kinds: tuple[str, ...] = ("stripe", "noise")) -> Path:
    """Images of one bright stripe, and of noise with the same values in another order."""
    draw = np.random.default_rng(seed)
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            image = np.zeros((12, 12), np.uint8)
            image[:, draw.integers(12)] = 220
            if kind == "noise":
                image = draw.permutation(image.reshape(-1)).reshape(12, 12)
            Image.fromarray(image).save(folder / kind / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("images")
    train = pictures(folder / "train", 120, 0, ("stripe",))
    run = selfsup.pretrain(str(train), "autoencoder", out=folder / "run", steps=60, batch_size=32, code_size=16, quiet=True).path
    return run, pictures(folder / "test", 30, 1)


def test_strange_rows_of_a_table_are_found(of_tables: tuple[Path, Path], tmp_path: Path) -> None:
    run, train = of_tables
    test = table(tmp_path / "test.csv", 200, 40, 1)
    found = detect(run, str(train), str(test), normal="good", false_alarms=0.05, out=tmp_path / "scores.csv")
    for name in ("reconstruction", "neighbours", "both"):
        assert found.result["scores"][name]["roc_auc"]["value"] > 0.9, name
    truth = np.arange(200) < 40
    both = found.result["scores"]["both"]
    assert both["roc_auc"]["value"] == pytest.approx(roc_auc_score(truth, found.scores["both"]))
    assert both["detected"] == pytest.approx(found.flags[truth].mean())
    assert both["false_alarms"] == pytest.approx(found.flags[~truth].mean())
    assert both["false_alarms"] < 0.15
    assert found.result["false_alarms"] == {
        "wanted": 0.05,
        "expected": pytest.approx(5 / 101),
        "held_out": 100,
        "seen_in_training": True,
    }
    rows = list(csv.reader((tmp_path / "scores.csv").read_text().splitlines()))
    assert rows[0] == ["name", "reconstruction", "neighbours", "both", "flag"]
    assert len(rows) == 201
    assert rows[1][0] == "row 0"
    np.testing.assert_allclose([float(row[3]) for row in rows[1:]], found.scores["both"], rtol=1e-4)
    assert [row[4] == "1" for row in rows[1:]] == found.flags.tolist()


def test_one_broken_column_beside_many_quiet_ones_counts() -> None:
    """Errors are in units of what is usual for their column."""

    class Copies(Method):
        """Knows the first column exactly, but for a little, and of the second nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = build_encoder("mlp", channels=2, image_size=0)

        def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            y[:, 0] = x[:, 0].round()
            y[:, 1] = 0.0
            return y

    draw = np.random.default_rng(0)
    x = np.stack([draw.integers(-3, 4, 400) + 0.01 * draw.normal(size=400), draw.normal(size=400)], axis=1)
    strange = np.array([[0.3, 0.0], [0.0, 2.0]])
    items = open_data(np.concatenate([x, strange]))
    trained = TrainedMethod(Copies(), {"encoder": {"image_size": 0, "channels": 2}})
    normal, held_out, test = items.subset(np.arange(300)), items.subset(np.arange(300, 400)), items.subset(np.arange(400, 402))
    scores = Detector(trained, ("reconstruction",), normal, held_out, k=1, device=torch.device("cpu"))(test)
    assert scores["reconstruction"][0] > 50 * scores["reconstruction"][1], "30 usual errors, against 2"


def test_strange_images_are_found_and_drawn(of_images: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, test = of_images
    train = run.parent / "train"
    where = ["--train", str(train), "--test", str(test), "--false-alarms", "0.1"]
    assert command(["detect", str(run), *where, "--json", "--heatmaps", str(tmp_path / "maps"), "--out", str(tmp_path / "s.csv")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["normal_classes"] == ["stripe"], "the classes of --train"
    assert (result["test"]["normal"], result["test"]["anomalous"]) == (30, 30)
    assert result["scores"]["reconstruction"]["roc_auc"]["value"] > 0.95
    assert any("the run was trained on --train" in note for note in result["notes"])
    drawn = sorted((tmp_path / "maps").glob("*.png"))
    assert len(drawn) == 60
    assert drawn[0].name.startswith("001-noise-")
    with Image.open(drawn[0]) as first:
        assert first.size == (3 * 132 + 2 * 4, 132)
    assert command(["detect", str(run), *where]) == 0
    printed = capsys.readouterr().out
    assert "at most 0.08 expected, by 24 held-out items" in " ".join(printed.split())
    assert "ROC AUC" in printed
    assert "reconstruction" in printed


def test_a_heat_map_is_bright_where_the_image_is_wrong(of_images: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = of_images
    image = np.zeros((1, 12, 12, 1), np.uint8)
    image[0, :, 3] = 220
    image[0, 6:9, 8:11] = 255
    detect(run, str(run.parent / "train"), image, heatmaps=tmp_path / "maps", score="reconstruction")
    with Image.open(next((tmp_path / "maps").glob("*.png"))) as drawn:
        panel = np.asarray(drawn).astype(int)[:, 2 * 136 :]
    reddish = (panel[..., 0] - panel[..., 2]).clip(0).reshape(12, 11, 12, 11).mean(axis=(1, 3))
    inside = np.zeros((12, 12), bool)
    inside[6:9, 8:11] = True
    assert reddish[inside].mean() > 3 * reddish[~inside].mean()


def test_an_encoder_without_decoder_gives_distances(of_images: tuple[Path, Path], tmp_path: Path) -> None:
    run, test = of_images
    found = detect(run / "encoder", str(run.parent / "train"), str(test), heatmaps=tmp_path / "maps")
    assert list(found.scores) == ["neighbours"]
    assert any("no heat maps" in note for note in found.result["notes"])
    assert not (tmp_path / "maps").exists()
    with pytest.raises(ValueError, match="an encoder folder cannot reconstruct"):
        detect(run / "encoder", str(run.parent / "train"), str(test), score="both")
    for score in ("blur", ""):
        with pytest.raises(ValueError, match="a score is one of reconstruction, neighbours, both"):
            detect(run, str(run.parent / "train"), str(test), score=score)


def test_scores_do_not_depend_on_the_other_test_items(of_images: tuple[Path, Path]) -> None:
    run, test = of_images
    items = open_data(test, image_size=12)
    whole = detect(run, str(run.parent / "train"), items)
    part = detect(run, str(run.parent / "train"), items.subset(np.arange(40, 50)))
    for name, scores in part.scores.items():
        np.testing.assert_allclose(scores, whole.scores[name][40:50], rtol=1e-3, err_msg=name)


def test_normal_classes_and_held_out_data_can_be_said(of_images: tuple[Path, Path], tmp_path: Path) -> None:
    run, test = of_images
    mixed = detect(run, str(test), str(test), normal="stripe")
    assert mixed.result["train"]["normal"] + mixed.result["train"]["held_out"] == 30
    assert any("30 of 60 items" in note for note in mixed.result["notes"])
    assert any("the same data" in note for note in mixed.result["notes"])
    fresh = pictures(tmp_path / "fresh", 45, 5, ("stripe",))
    apart = detect(run, str(run.parent / "train"), str(test), held_out=str(fresh), false_alarms=0.01)
    assert apart.result["train"] == {"source": str(run.parent / "train"), "normal": 120, "held_out": 45}
    assert apart.result["false_alarms"]["expected"] == pytest.approx(1 / 46)
    assert not apart.result["false_alarms"]["seen_in_training"]
    assert not any("the run was trained on" in note for note in apart.result["notes"])
    with pytest.raises(ValueError, match=r"no class 'stripes' in .*; there are: noise, stripe"):
        detect(run, str(test), str(test), normal="stripes")
    with pytest.raises(ValueError, match=r"no item of .* is of the class noise"):
        detect(run, str(run.parent / "train"), str(test), normal="noise")
    alone = detect(run, str(run.parent / "train"), str(fresh))
    assert any("are normal, so there is no ROC AUC" in note for note in alone.result["notes"])
    assert "roc_auc" not in alone.result["scores"]["both"]


def test_mistakes_of_detection_are_named(of_images: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, test = of_images
    train = str(run.parent / "train")
    with pytest.raises(ValueError, match="k must be between 1 and the number of normal items to compare with, 96"):
        detect(run, train, str(test), k=97)
    with pytest.raises(ValueError, match="rate of false alarms between 0 and 1"):
        detect(run, train, str(test), false_alarms=1.0)
    assert command(["detect", "--test", str(test)]) == 2
    assert "detect needs a run and normal data" in capsys.readouterr().err
    assert command(["detect", str(run), "--one-class", train, "--test", str(test)]) == 2


def test_each_class_in_turn_is_normal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    label = np.arange(240) % 3
    x = draw.normal(size=(240, 5)) + 6 * np.eye(5)[label]
    for part, rows in (("train", slice(0, 180)), ("test", slice(180, 240))):
        lines = [",".join([*(f"{v:.4f}" for v in row), "abc"[c]]) for row, c in zip(x[rows], label[rows], strict=True)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["v,w,x,y,z,class", *lines]) + "\n")
    data = str(tmp_path / "train.csv"), str(tmp_path / "test.csv")
    settings = {"out": tmp_path / "runs", "steps": 5, "batch_size": 20, "quiet": True}
    found = one_class(*data, "denoising", classes=("a",), **settings)
    before = (tmp_path / "runs/000-a/config.json").stat().st_mtime_ns
    found = one_class(*data, "denoising", **settings)
    assert (tmp_path / "runs/000-a/config.json").stat().st_mtime_ns == before, "what is finished is not done again"
    assert list(found["classes"]) == ["a", "b", "c"]
    for name in "abc":
        assert found["classes"][name]["normal_classes"] == [name]
        assert found["classes"][name]["train"]["normal"] == 48
        assert found["classes"][name]["test"] == {"source": data[1], "items": 60, "normal": 20, "anomalous": 40}
    aucs = [found["classes"][name]["scores"]["neighbours"]["roc_auc"]["value"] for name in "abc"]
    assert found["mean"]["neighbours"]["roc_auc"] == pytest.approx(np.mean(aucs))
    assert min(aucs) > 0.95
    with pytest.raises(ValueError, match="results of other data or settings"):
        one_class(*data, "denoising", out=tmp_path / "runs", steps=6, quiet=True)
    with pytest.raises(ValueError, match="has changed since the run began"):
        selfsup.pretrain(resume=tmp_path / "runs/000-a", quiet=True)
    assert command(["detect", "--one-class", data[0], "--test", data[1], "--out", str(tmp_path / "b"), "--steps", "2", "--quiet"]) == 0
    assert "mean" in capsys.readouterr().out
