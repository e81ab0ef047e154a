"""A table from the file to vectors and scores: its schema goes with the run."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import selfsup
from selfsup.cli import run as command
from selfsup.methods import METHODS, describe, method_class
from selfsup.tasks.pretraining.plan import method_options
from selfsup.tasks.saved.trained_method import load_method


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.MonkeyPatch().setenv("SELFSUP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def table(path: Path, rows: int, seed: int, *, order: tuple[int, ...] = (0, 1, 2, 3, 4), extra: bool = False) -> Path:
    """Two kinds of rows; a twentieth of the values is missing."""
    draw = np.random.default_rng(seed)
    kind = draw.integers(2, size=rows)
    columns = {
        "load": [f"{1e5 * (k + draw.normal() / 4):.1f}" for k in kind],
        "rate": [f"{1e-5 * (1 - k + draw.normal() / 4):.9f}" for k in kind],
        "unit": [str(draw.choice(["north", "south"] if k else ["east", "north"])) for k in kind],
        "user": [f"user {seed} {i}" for i in range(rows)],
        "class": [("slow", "fast")[k] for k in kind],
    }
    if extra:
        columns["unit"][0] = "west"
    for name in ("load", "rate", "unit"):
        for i in np.flatnonzero(draw.random(rows) < 0.05):
            columns[name][i] = "NA"
    names = [list(columns)[i] for i in order]
    path.write_text("\n".join([",".join(names), *(",".join(columns[name][i] for name in names) for i in range(rows))]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    data = table(folder / "train.csv", 300, 0)
    return selfsup.pretrain(str(data), "denoising", out=folder / "run", steps=40, batch_size=60, quiet=True).path


def test_the_run_keeps_the_schema(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert config["encoder"]["name"] == "table"
    columns = config["data"]["table"]["columns"]
    assert [(c["name"], c["kind"]) for c in columns] == [("load", "number"), ("rate", "number"), ("unit", "category")]
    assert config["data"]["table"]["label"] == "class"
    assert "user" in (run / "skipped.csv").read_text()
    assert load_method(run).method.decoder.blocks == ((2, 7),)  # type: ignore[union-attr]


def test_a_column_of_small_numbers_counts_as_much_as_one_of_large(run: Path) -> None:
    std = selfsup.load(run).network.normalize.std  # type: ignore[union-attr]
    assert std[0] > 1e4
    assert 1e-6 < std[1] < 1e-4


def test_new_tables_have_their_columns_in_any_order(run: Path, tmp_path: Path) -> None:
    plain = table(tmp_path / "a.csv", 50, 1)
    other = table(tmp_path / "b.csv", 50, 1, order=(4, 2, 3, 1, 0))
    vectors = selfsup.embed(run, str(plain))
    assert vectors.shape == (50, 256)
    np.testing.assert_array_equal(selfsup.embed(run / "encoder", str(other)), vectors)
    assert selfsup.embed(run, str(table(tmp_path / "c.csv", 50, 1, extra=True))).shape == (50, 256)
    lines = plain.read_text().replace("load", "weight", 1)
    (tmp_path / "d.csv").write_text(lines)
    with pytest.raises(ValueError, match='no column "load", which the run was trained on'):
        selfsup.embed(run, str(tmp_path / "d.csv"))


def test_the_four_rows_of_evaluate(run: Path, tmp_path: Path) -> None:
    train, test = table(tmp_path / "train.csv", 200, 2), table(tmp_path / "test.csv", 100, 3)
    worth = selfsup.evaluate(run, str(train), str(test), counts=(5,), seeds=2, scratch_images=640, scratch_few_images=320, quiet=True)
    for row in ("encoder", "pixels_pca", "untrained", "scratch"):
        assert worth[row]["knn_top1"] > 0.9, row
        assert worth[row]["linear_top1"] > 0.9, row


def test_a_run_goes_on_and_refuses_a_changed_table(tmp_path: Path) -> None:
    data = table(tmp_path / "train.csv", 60, 0)
    short = selfsup.pretrain(str(data), "denoising", out=tmp_path / "run", steps=2, batch_size=20, quiet=True).path
    assert command(["pretrain", "--resume", str(short), "--quiet"]) == 0
    table(data, 61, 1)
    with pytest.raises(ValueError, match="has changed since the run began"):
        selfsup.pretrain(resume=short, quiet=True)
    selfsup.pretrain(resume=short, allow_data_change=True, quiet=True)


@pytest.mark.parametrize(("method", "options"), [("autoencoder", {"code_size": 4}), ("vae", {"latent_size": 4})])
def test_other_methods_that_take_tables(method: str, options: dict[str, int], tmp_path: Path) -> None:
    data = table(tmp_path / "train.csv", 200, 0)
    run = selfsup.pretrain(str(data), method, out=tmp_path / "run", steps=60, batch_size=50, lr=3e-3, quiet=True, **options).path
    items = load_method(run).open(str(table(tmp_path / "test.csv", 60, 1)))
    x = items.batch(np.arange(60))["vector"]
    made = load_method(run).method.reconstruct(x)  # type: ignore[operator]
    assert made.isfinite().all()
    known = x[:, -1] == 0
    right = made[known, 2:].argmax(dim=1) == x[known, 2:].argmax(dim=1)
    assert float(right.float().mean()) > 0.6, "the unit, of three; half of the rows are in the most frequent one"
    load = x[:, 0].isfinite()
    spread = x[load, 0].std()
    assert float((made[load, 0] - x[load, 0]).square().mean().sqrt()) < 0.7 * spread


def test_two_processes_with_gaps_in_their_rows_are_one(tmp_path: Path) -> None:
    """The mean is over what is known in both halves of the batch, though one may have more gaps."""
    data = table(tmp_path / "train.csv", 64, 0)
    size = ["--batch-size", "16", "--steps", "3", "--precision", "fp32", "--optimizer", "sgd", "--lr", "0.002", "--quiet"]
    assert command(["pretrain", "denoising", str(data), "--out", str(tmp_path / "1"), *size]) == 0
    two = ["pretrain", "denoising", str(data), "--out", str(tmp_path / "2"), "--devices", "2", *size]
    subprocess.run([sys.executable, "-m", "selfsup", *two], check=True)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / devices / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
        for devices in ("1", "2")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_methods_of_images_refuse_tables(tmp_path: Path) -> None:
    data = table(tmp_path / "train.csv", 30, 0)
    with pytest.raises(ValueError, match=r"simclr learns from images, but .* holds tables"):
        selfsup.pretrain(str(data), "simclr", out=tmp_path / "run", quiet=True)


def test_dry_run_says_what_becomes_of_the_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = table(tmp_path / "train.csv", 60, 0)
    assert command(["pretrain", "denoising", str(data), "--dry-run", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "3 columns, 1 of them categories: 7 numbers" in said
    assert "user" in said


@pytest.mark.parametrize("method", [name for name in METHODS if "tables" in describe(name).modality])
def test_methods_of_tables_are_given_the_places_of_categories(method: str) -> None:
    parameters = inspect.signature(method_class(method).__init__).parameters
    assert "categories" in parameters
    assert "categories" not in method_options(method)
    assert parameters.keys() - {"self", "encoder"} >= method_options(method).keys()
