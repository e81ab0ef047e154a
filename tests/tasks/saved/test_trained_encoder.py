"""What the user keeps: loaded alone, equal to what was trained; and the scikit-learn face of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import selfsup
from selfsup.engine import loop
from selfsup.tasks.saved.trained_encoder import network_of


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> "selfsup.tasks.pretraining.pretrain.Run":
    out = tmp_path_factory.mktemp("runs") / "run"
    return selfsup.pretrain(pixels, method="simclr", steps=3, batch_size=8, out=out, quiet=True)


def test_the_encoder_folder_needs_nothing_else(run: "selfsup.tasks.pretraining.pretrain.Run", pixels: np.ndarray, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run.path / "encoder", tmp_path / "moved")
    moved = selfsup.load(tmp_path / "moved")
    np.testing.assert_array_equal(moved.embed(pixels), selfsup.load(run.path).embed(pixels))
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    np.testing.assert_allclose(moved.embed(pixels), moved(x).numpy(), rtol=1e-5, atol=1e-5)
    assert "selfsup.load" in (tmp_path / "moved/README.md").read_text()


def test_it_was_trained(run: "selfsup.tasks.pretraining.pretrain.Run") -> None:
    torch.manual_seed(run.config["training"]["seed"])
    fresh = network_of(run.config)
    trained = selfsup.load(run.path).network
    assert any(not torch.equal(a, b) for a, b in zip(fresh.parameters(), trained.parameters(), strict=True))
    assert not any(p.requires_grad for p in trained.parameters())


def test_the_best_checkpoint_is_marked_beside_the_last(run: "selfsup.tasks.pretraining.pretrain.Run") -> None:
    best = json.loads((run.path / "status.json").read_text())["best"]
    assert best["measure"] == "rankme"
    values = {line["step"]: line["rankme"] for line in run.metrics if "rankme" in line}
    assert values[best["step"]] == pytest.approx(max(values[s] for s in values if s >= 1))
    assert selfsup.load(run.path, best=True).width == 256


def test_a_module_of_the_users_own(pixels: np.ndarray, tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 7, 3, 2), nn.ReLU())

    run = selfsup.pretrain(pixels, method="rotation", encoder=build(), steps=2, batch_size=8, out=tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="your own module"):
        selfsup.load(run.path)
    again = selfsup.load(run.path, network=selfsup.models.wrap(build(), 3, 12))
    assert again.embed(pixels).shape == (30, 7)


def test_a_dataset_with_labels_is_evaluated(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    images = (torch.rand(40, 1, 8, 8, generator=draw) * 60 + 150 * labels[:, None, None, None]).byte()
    data = torch.utils.data.TensorDataset(images, labels)
    run = selfsup.pretrain(data, method="denoising", steps=3, batch_size=8, out=tmp_path / "run", quiet=True)
    worth = selfsup.evaluate(run.path, data, data, counts=(1, 2), seeds=2, scratch_few_images=64, scratch_images=128, quiet=True)
    assert worth["pixels_pca"]["knn_top1"] == 1.0, "brightness tells these classes apart"
    assert set(worth["scratch"]["few_label"]) == {"1", "2"}


def test_scikit_learn_checks_and_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.utils.estimator_checks import check_estimator

    monkeypatch.setattr(loop, "MONITORS_A_RUN", 1)  # there are some fifty runs
    monkeypatch.setattr("selfsup.report.write_report", lambda folder: folder / "report.html")
    results = check_estimator(selfsup.SSLTransformer(epochs=1.0), on_fail=None, on_skip=None)
    assert len(results) > 40
    assert not [r["check_name"] for r in results if r["status"] == "failed"]
    x, y = load_digits(return_X_y=True)
    pipeline = make_pipeline(selfsup.SSLTransformer(epochs=5.0), LogisticRegression(max_iter=500))
    assert pipeline.fit(x[:1200], y[:1200]).score(x[1200:], y[1200:]) > 0.8
