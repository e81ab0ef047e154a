"""The command line as a user meets it: statuses, one clear line for a mistake, results on stdout."""

import json
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsup.cli import run
from selfsup.engine.checkpoint import checkpoint_path, load_tensors, steps_saved
from selfsup.methods import METHODS


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twelve small images, as files."""
    folder = tmp_path_factory.mktemp("data") / "images"
    draw = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(draw.normal(level, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run(["pretrain", "simclr", str(images), "--out", str(out), "--steps", "3", "--batch-size", "8", "--quiet"]) == 0
    return out


def test_methods_are_described_from_their_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "--json"]) == 0
    facts = {f["id"]: f for f in json.loads(capsys.readouterr().out)}
    assert list(facts) == list(METHODS)
    assert all(f["hidden"] and f["predicted"] and "http" in f["paper"] for f in facts.values())


def test_a_methods_options_come_from_its_constructor(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pretrain", "simclr", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--temperature" in text
    assert "tau of equation 1" in text
    assert "--minutes" in text


def test_a_run_folder_holds_everything(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert config["method"] == "simclr"
    assert config["data"]["items"] == 24
    assert config["data"]["classes"] == ["dark", "light"]
    assert len((trained / "metrics.jsonl").read_text().splitlines()) >= 3
    assert json.loads((trained / "status.json").read_text())["state"] == "finished"
    stored = ("encoder/model.safetensors", "encoder/config.json", "encoder/checksums.json", "encoder/README.md")
    for name in (*stored, "report.html", "skipped.csv"):
        assert (trained / name).is_file(), name


def test_embed_writes_vectors_and_names(trained: Path, images: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for name in ("v.npy", "v.parquet"):
        assert run(["embed", str(trained), str(images), "--out", str(tmp_path / name)]) == 0
    vectors = np.load(tmp_path / "v.npy", allow_pickle=False)
    table = pq.read_table(tmp_path / "v.parquet").to_pydict()
    names = (tmp_path / "v.names.txt").read_text().splitlines()
    assert vectors.shape == (24, 256)
    assert names == table["name"]
    assert table["label"] == [Path(name).parent.name for name in names]
    np.testing.assert_array_equal(np.array(table["embedding"], dtype=np.float32), vectors)


def test_evaluate_prints_one_object_with_four_rows(trained: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--train", str(images), "--test", str(images)]
    assert run(["evaluate", str(trained), *where, "--protocol", "knn,linear", "--scratch-images", "64", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    for row in ("encoder", "pixels_pca", "untrained", "scratch"):
        assert 0 <= result[row]["knn_top1"] <= 1
        assert 0 <= result[row]["linear_top1"] <= 1
    assert (trained / "evaluation.json").is_file()


def test_finetune_makes_a_classifier_that_predicts(trained: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, where = tmp_path / "cats", ["--train", str(images), "--test", str(images)]
    short = ["--labels", "4", "--steps", "2", "--lr", "1e-3", "--json", "--quiet"]
    assert run(["finetune", str(trained), *where, "--out", str(out), *short]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["how"], said["labels"], said["test_items"], said["classes"]) == ("layerwise", 8, 24, ["dark", "light"])
    assert 0 <= said["scratch"]["accuracy"]["low"] < said["scratch"]["accuracy"]["high"] <= 1
    assert run(["predict", str(out), str(images), "--out", str(tmp_path / "p.csv")]) == 0
    assert "24 items" in capsys.readouterr().out
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "name,class,probability"
    assert len(lines) == 25
    assert run(["verify", str(out)]) == 0


def test_dry_run_says_the_plan_and_trains_nothing(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pretrain", "moco", str(images), "--dry-run", "--batch-size", "8", "--out", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    for word in ("24 items", "2 classes", "parameters", "MiB", "views.png"):
        assert word in text
    with Image.open(tmp_path / "run-plan/views.png") as picture:
        assert picture.size[0] > 100
    assert not (tmp_path / "run").exists()


def test_verify_names_the_damaged_tensor(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    copy = tmp_path / "encoder"
    shutil.copytree(trained / "encoder", copy)
    assert run(["verify", str(copy)]) == 0
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    capsys.readouterr()
    assert run(["verify", str(copy)]) == 4
    assert 'tensor "' in capsys.readouterr().err
    assert run(["embed", str(copy), "nowhere", "--out", "x.npy"]) == 4


MISTAKES = {
    "unknown method": (["pretrain", "simclrr", "DATA"], 2, 'did you mean "simclr"'),
    "unknown option": (["pretrain", "simclr", "DATA", "--temprature", "1"], 2, "--temperature"),
    "a method beside --resume": (["pretrain", "simclr", "--resume", "RUN"], 2, "selfsup pretrain --resume RUN"),
    "unknown verb": (["pretrian", "simclr", "DATA"], 2, "pretrain"),
    "no such data": (["pretrain", "simclr", "nowhere"], 2, "nowhere"),
    "batch larger than the data": (["pretrain", "simclr", "DATA", "--batch-size", "1000"], 2, "larger than the data, 24 items"),
    "learning rate not a number": (["pretrain", "simclr", "DATA", "--lr", "nan"], 2, "--lr must be a positive finite number, got nan"),
    "half a step": (["pretrain", "simclr", "DATA", "--steps", "1.5"], 2, "Invalid value for --steps: expected a whole number, got 1.5"),
    "half a label": (["finetune", "RUN", "--train", "DATA", "--out", "c", "--labels", "2.5"], 2, "expected a whole number, got 2.5"),
    "two lengths": (["pretrain", "simclr", "DATA", "--steps", "1", "--epochs", "1"], 2, "give one of them"),
    "bad temperature": (["pretrain", "simclr", "DATA", "--temperature", "-1"], 2, "temperature must be positive"),
    "unknown encoder": (["pretrain", "simclr", "DATA", "--encoder", "resnet81"], 2, "resnet18"),
    "nothing to resume": (["pretrain", "--resume", "nowhere"], 2, "no config.json"),
    "no labels": (["evaluate", "RUN", "--train", "FLAT", "--test", "FLAT"], 2, "no labels"),
    "unknown protocol": (["evaluate", "RUN", "--train", "DATA", "--test", "DATA", "--protocol", "knnn"], 2, "knnn"),
    "nothing to embed": (["embed", "RUN", "EMPTY", "--out", "v.npy"], 3, "no images"),
    "strange ending": (["embed", "RUN", "DATA", "--out", "v.txt"], 2, "ends in .npy or .parquet"),
    "finetune without labels": (["finetune", "RUN", "--train", "FLAT", "--out", "c"], 2, "no labels"),
    "finetune on more labels than there are": (
        ["finetune", "RUN", "--train", "DATA", "--out", "c", "--labels", "13"],
        2,
        "choose 12 or less",
    ),
    "finetune into a run": (["finetune", "RUN", "--train", "DATA", "--out", "RUN"], 2, "not empty; choose another --out"),
    "no classifier": (["predict", "RUN", "DATA", "--out", "p.csv"], 2, "no classifier/ in it"),
    "predictions as text": (["predict", "RUN", "DATA", "--out", "p.txt"], 2, "ends in .csv"),
    "a method that makes nothing": (["generate", "RUN", "DATA", "--out", "made"], 2, "a run of simclr cannot generate anything"),
    "making the impossible": (["generate", "RUN", "--out", "made", "--what", "songs"], 2, "samples, interpolations, reconstructions"),
    "not a run": (["report", "EMPTY"], 2, "no config.json"),
    "nothing to verify": (["verify", "EMPTY"], 2, "neither encoder/ nor checkpoints/"),
    "too many bad files": (["pretrain", "simclr", "BAD"], 3, "--max-bad"),
    "an empty folder": (["pretrain", "simclr", "EMPTY"], 3, "no images"),
    "one single image": (["pretrain", "simclr", "SINGLE"], 2, "at least 2"),
    "broken zip": (["pretrain", "simclr", "BROKEN.zip"], 3, "BROKEN.zip"),
    "output exists": (["pretrain", "simclr", "DATA", "--out", "RUN"], 2, "--resume"),
    "vectors for images": (["pretrain", "simclr", "VECTORS.npy"], 2, "vectors"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(
    mistake: str, images: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EMPTY", "BAD", "SINGLE", "FLAT"):
        Path(name).mkdir()
    first = images / "dark/0.png"
    Path("SINGLE/one.png").write_bytes(first.read_bytes())
    for i in range(4):
        Path(f"FLAT/{i}.png").write_bytes((images / f"dark/{i}.png").read_bytes())
        Path(f"BAD/{i}.png").write_bytes(first.read_bytes()[: 60 + i])
    Path("BAD/good.png").write_bytes(first.read_bytes())
    Path("BROKEN.zip").write_bytes(b"PK\x03\x04 not really")
    np.save("VECTORS.npy", np.zeros((20, 5), np.float32))
    arguments, status, words = MISTAKES[mistake]
    found = run([{"DATA": str(images), "RUN": str(trained)}.get(a, a) for a in arguments])
    out = capsys.readouterr()
    assert found == status, out.err
    assert words in " ".join(out.err.split()), out.err
    assert "Traceback" not in out.err
    assert "fault of selfsup" not in out.err


def test_skipped_files_are_counted_and_named(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in images.rglob("*.png"):
            archive.write(path, path.relative_to(images))
        archive.writestr("dark/cut.png", (images / "dark/0.png").read_bytes()[:90])
        archive.writestr("../outside.png", (images / "dark/1.png").read_bytes())
        archive.writestr("notes.txt", "not an image")
    out = tmp_path / "run"
    small = ["--steps", "1", "--batch-size", "4", "--max-bad", "0.2"]
    assert run(["pretrain", "simclr", str(tmp_path / "data.zip"), "--out", str(out), *small]) == 0
    skipped = (out / "skipped.csv").read_text()
    for name in ("cut.png", "outside.png", "notes.txt"):
        assert name in skipped
    assert "24 items, 3 skipped" in capsys.readouterr().err
    assert not (tmp_path.parent / "outside.png").exists()


def test_a_full_disk_is_said_and_loses_nothing(images: Path, tmp_path: Path) -> None:
    """No file may grow beyond a megabyte: checkpoints of this network are larger, metrics are not."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    out = tmp_path / "run"
    command = [sys.executable, "-m", "selfsup", "pretrain", "simclr", str(images), "--out", str(out), "--steps", "2", "--batch-size", "4"]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not written" in done.stderr
    assert "Traceback" not in done.stderr
    assert len((out / "metrics.jsonl").read_text().splitlines()) >= 2
    resumed = subprocess.run([*command[:4], "--resume", str(out), "--quiet"], capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr


def test_an_output_that_cannot_be_written_is_said(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(["pretrain", "simclr", str(images), "--out", str(tmp_path / "file/run")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    wild = ["--lr", "1e30", "--optimizer", "sgd", "--steps", "20", "--batch-size", "8", "--checkpoint-minutes", "0.0000001"]
    assert run(["pretrain", "rotation", str(images), "--out", str(out), "--quiet", *wild]) == 5
    said = capsys.readouterr().err
    assert "update" in said
    assert "is not finite" in said
    status = json.loads((out / "status.json").read_text())
    assert status["state"] == "failed"
    step = steps_saved(out / "checkpoints")[-1]
    assert step == status["step"]
    stored = load_tensors(checkpoint_path(out / "checkpoints", step), "model")
    assert stored
