"""Noise that belongs to an image: the right distribution, nothing that repeats, and the same wherever it is asked for."""

import math

import pytest
import torch

from selfsup.views.noise import FixedNoise


def ask(noise: FixedNoise, images: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
    rows, columns = (torch.arange(side).expand(len(images), -1) for side in images.shape[2:])
    return noise(images, torch.arange(len(images)) if index is None else index, rows, columns)


def test_gaussian_noise_has_its_moments_and_quantiles() -> None:
    z = (ask(FixedNoise("gaussian", 51.0, 7), torch.full((50, 2, 64, 64), 100, dtype=torch.uint8)) - 100 / 255).double() / 0.2
    n = z.numel()
    assert abs(float(z.mean())) < 4 / math.sqrt(n)
    assert float(z.square().mean()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / n))
    assert float(z.pow(4).mean()) == pytest.approx(3.0, abs=0.1)
    for sigmas in (-2.0, -0.5, 0.0, 1.0, 3.0):
        expected = 0.5 * (1 + math.erf(sigmas / math.sqrt(2)))
        assert float((z < sigmas).double().mean()) == pytest.approx(expected, abs=0.003)


def test_values_know_nothing_of_each_other() -> None:
    z = ask(FixedNoise("gaussian", 255.0, 7), torch.zeros(40, 3, 32, 32, dtype=torch.uint8))
    others = {
        "image": (z[1:], z[:-1]),
        "channel": (z[:, 1:], z[:, :-1]),
        "row": (z[:, :, 1:], z[:, :, :-1]),
        "column": (z[..., 1:], z[..., :-1]),
        "diagonal": (z, z.transpose(2, 3).where(~torch.eye(32, dtype=torch.bool), 0)),
    }
    for name, (a, b) in others.items():
        assert abs(float((a * b).mean())) < 4 / math.sqrt(a.numel()), name
    other = ask(FixedNoise("gaussian", 255.0, 8), torch.zeros(40, 3, 32, 32, dtype=torch.uint8))
    assert abs(float((z * other).mean())) < 4 / math.sqrt(z.numel())
    # Seed 8 of image 0 is not seed 7 of image 1, or the like.
    assert not any(torch.allclose(z[i], other[j]) for i in range(3) for j in range(3))


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_a_window_has_the_noise_of_its_place(kind: str) -> None:
    noise, images = FixedNoise(kind, 30.0, 1), torch.randint(256, (2, 3, 20, 24), dtype=torch.uint8)
    index = torch.tensor([5, 2**40])
    whole = ask(noise, images, index)
    rows = torch.tensor([[7, 8, 9], [9, 8, 8]])
    columns = torch.tensor([[0, 1, 2, 3], [20, 21, 22, 23]])
    for b in range(2):
        window = noise(images[b : b + 1][:, :, rows[b]][..., columns[b]], index[b : b + 1], rows[b : b + 1], columns[b : b + 1])
        assert torch.equal(window[0], whole[b][:, rows[b]][..., columns[b]])


@pytest.mark.parametrize("level", [0.5, 30.0, 400.0])
def test_poisson_noise_counts_photons(level: float) -> None:
    for value in (0, 3, 128, 255):
        photons = level * ask(FixedNoise("poisson", level, 3), torch.full((10, 1, 64, 64), value, dtype=torch.uint8)).double()
        torch.testing.assert_close(photons, photons.round(), rtol=0.0, atol=1e-3)
        mean = level * value / 255
        n = photons.numel()
        assert float(photons.mean()) == pytest.approx(mean, abs=4 * math.sqrt(mean / n) + 1e-6)
        assert float(photons.var()) == pytest.approx(mean, rel=0.1, abs=1e-3)
        k = round(mean)
        chance = math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) if mean else 1.0
        assert float((photons.round() == k).double().mean()) == pytest.approx(chance, abs=4 * math.sqrt(chance / n) + 1e-6)


def test_mistakes_are_named() -> None:
    for level in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="must be positive and finite"):
            FixedNoise("gaussian", level, 0)
    with pytest.raises((ValueError, TypeError), match="pepper"):
        FixedNoise("pepper", 1.0, 0)  # type: ignore[arg-type]
