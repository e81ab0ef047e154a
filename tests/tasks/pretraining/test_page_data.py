"""What a run keeps of its method's abilities for the page."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import selfsup
from selfsup.data import open_data
from selfsup.method import Method
from selfsup.report.page_files import load_abilities
from selfsup.tasks.pretraining.page_data import abilities


class Able(Method):
    """A code of two numbers: the mean of the left half, and that of the right half."""

    def code(self, x: Tensor) -> Tensor:
        return torch.stack([part.mean(dim=(1, 2, 3)) for part in x.chunk(2, dim=3)], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        return z[:, None, None, :].repeat_interleave(4, dim=3).expand(-1, 1, 8, -1)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.code(x))

    def sample(self, n: int) -> Tensor:
        raise ValueError("the prior has not been trained")

    def explain(self, x: Tensor) -> Mapping[str, Tensor]:
        return {"numbers seen": torch.tensor([float(len(x))])}


def test_each_ability_leaves_what_it_made() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 8, 8), dtype=np.uint8)
    items = open_data(pixels, cache=False)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    found = abilities(Able(), items, np.arange(100, 600), 8, seed=0)
    assert found is not None
    assert torch.random.get_rng_state().equal(state)
    assert found.samples is None
    assert found.notes == ("Samples: the prior has not been trained",)
    assert found.bars["numbers seen"].tolist() == [500]
    for original, made in zip(found.originals, found.reconstructions, strict=True):
        assert (pixels[100:] == original[..., 0]).all(axis=(1, 2)).any()
        assert abs(int(made[0, 0, 0]) - original[:, :4].mean()) <= 0.51
    assert found.walks.shape == (3, 10, 8, 8, 1)
    for i, row in enumerate(found.walks):
        assert (row[0] == found.originals[i]).all()
        assert (row[-1] == found.originals[3 + i]).all()
        assert (row[1] == found.reconstructions[i]).all()
        assert (row[-2] == found.reconstructions[3 + i]).all()


def test_vectors_leave_bars_only_and_other_methods_nothing() -> None:
    class OfVectors(Able):
        def reconstruct(self, x: Tensor) -> Tensor:
            raise AssertionError("nobody could see it")

    items = open_data(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), cache=False)
    found = abilities(OfVectors(), items, np.arange(20), 0, seed=0)
    assert found is not None
    assert found.originals is found.walks is found.samples is None
    assert list(found.bars) == ["numbers seen"]
    assert abilities(Method(), items, np.arange(20), 0, seed=0) is None


def test_the_page_of_a_gan_shows_samples_and_can_be_built_again(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    run = selfsup.pretrain(pixels, "gan", out=tmp_path / "run", batch_size=10, steps=1, quiet=True)
    assert load_abilities(run.path).samples.shape == (16, 16, 16, 3)
    page = run.report.read_bytes()
    assert b'alt="Sample 16"' in page
    from selfsup.report import write_report

    assert write_report(run.path).read_bytes() == page
