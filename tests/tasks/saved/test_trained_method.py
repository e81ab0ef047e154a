"""A method that is loaded from its run is the one that was trained, whatever its parts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.abilities import Reconstructs, Samples
from selfsup.engine.checkpoint import checkpoint_path, load_tensors, steps_saved
from selfsup.engine.state import unique_state
from selfsup.tasks.pretraining.pretrain import pretrain
from selfsup.tasks.saved.trained_method import load_method, methods_with


@pytest.mark.parametrize(
    "method",
    [
        "denoising",
        "vae",
        "discrete_autoencoder",
        "gan",
        "cpc",
        "instance_discrimination",
        "context_encoder",
        "colorization",
        "split_brain",
    ],
)
def test_every_tensor_comes_back(method: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    run = pretrain(images, method, out=tmp_path / "run", batch_size=10, steps=2, quiet=True).path
    state = torch.random.get_rng_state()
    loaded = load_method(run)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not loaded.method.training
    stored = load_tensors(checkpoint_path(run / "checkpoints", steps_saved(run / "checkpoints")[-1]), "model")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in unique_state(loaded.method).items())


def test_vectors_keep_the_statistics_of_their_data(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(5.0, 3.0, (40, 6)).astype(np.float32)
    run = pretrain(vectors, "denoising", out=tmp_path / "run", batch_size=20, steps=2, quiet=True).path
    mean, std = load_method(run).method.views.standard  # type: ignore[attr-defined]
    assert torch.allclose(mean, torch.from_numpy(vectors.mean(0)), atol=1e-5)
    assert torch.allclose(std, torch.from_numpy(vectors.std(0)), atol=1e-5)


def test_a_method_without_the_ability_is_refused_with_those_that_have_it(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    run = pretrain(images, "rotation", out=tmp_path / "run", batch_size=10, steps=1, quiet=True).path
    with pytest.raises(ValueError, match=r"a run of rotation cannot generate; runs of these methods can: .*gan"):
        load_method(run).require(Samples, "generate")
    load = load_method(run)
    assert not isinstance(load.method, Reconstructs)
    with pytest.raises(ValueError, match="no checkpoints/"):
        load_method(run / "encoder")


def test_methods_with_an_ability_are_found() -> None:
    assert "gan" in methods_with(Samples)
    assert "simclr" not in methods_with(Samples)


@pytest.mark.parametrize("method", ["autoencoder", "stacked_denoising", "simclr"])
def test_a_run_that_reconstructs_says_what_principal_components_do(method: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)
    options = {"code_size": 3} if method == "autoencoder" else {}
    run = pretrain(images, method, out=tmp_path / "run", batch_size=10, steps=3, quiet=True, **options)
    path = run.path / "page" / "reconstruction.json"
    if method == "simclr":
        assert not path.exists()
        return
    found = json.loads(path.read_text())
    assert found["items"] == 40
    assert found["width"] == (3 if method == "autoencoder" else 39)  # 40 items have no more components
    made = load_method(run.path).method
    assert isinstance(made, Reconstructs)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    assert found["squared_error"] == pytest.approx(float((made.reconstruct(x) - x).square().mean()), rel=1e-3)
    assert "with PCA of" in run.report.read_text()


def test_vectors_come_back_in_their_units_whatever_the_network(tmp_path: Path) -> None:
    """A method that needs layers of its own gets them for vectors too."""
    vectors = np.random.default_rng(0).normal([5.0, -1e3, 0.0], [3.0, 10.0, 1e-2], (64, 3)).astype(np.float32)
    for method, network in (("autoencoder", "mlp"), ("stacked_denoising", "stack")):
        run = pretrain(vectors, method, out=tmp_path / method, batch_size=32, steps=6, quiet=True)
        assert run.config["encoder"]["name"] == network
        made = load_method(run.path).method
        assert isinstance(made, Reconstructs)
        off = (made.reconstruct(torch.from_numpy(vectors)) - torch.from_numpy(vectors)) / torch.from_numpy(vectors.std(0))
        assert float(off.abs().max()) < 10  # standard deviations, in every column
