"""PSNR, SSIM and gradient energy: values known by hand, from scikit-image, and from the formula written naively."""

import math

import pytest
import torch

from selfsup.evaluation.image_quality import gradient_energy, psnr, ssim


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images (1, 2, 20, 17) that any tool can make again."""
    i = torch.arange(2 * 20 * 17).reshape(1, 2, 20, 17)
    a = (i * 37 % 101).double() / 100
    return a, (a * 0.9 + (i * 53 % 29).double() / 290 - 0.02).clamp(0, 1)


def naive_ssim(x: list[list[float]], y: list[list[float]]) -> float:
    """Equation 13 of the paper, pixel by pixel."""
    weight = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)]
    total = sum(map(sum, weight))
    found = []
    for top in range(len(x) - 10):
        for left in range(len(x[0]) - 10):
            cells = [(weight[i][j] / total, x[top + i][left + j], y[top + i][left + j]) for i in range(11) for j in range(11)]
            mx, my = sum(w * a for w, a, _ in cells), sum(w * b for w, _, b in cells)
            vx, vy = sum(w * (a - mx) ** 2 for w, a, _ in cells), sum(w * (b - my) ** 2 for w, _, b in cells)
            cov = sum(w * (a - mx) * (b - my) for w, a, b in cells)
            found.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    return sum(found) / len(found)


def test_values_of_scikit_image() -> None:
    """Of version 0.26: structural_similarity(a, b, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1.0) and peak_signal_noise_ratio(b, a, data_range=1.0)."""
    a, b = pair()
    assert float(ssim(a, b)) == pytest.approx(0.9887211544363845, abs=1e-9)
    assert float(psnr(a, b)) == pytest.approx(26.642633949101707, abs=1e-9)


def test_ssim_is_its_equation_channel_by_channel() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(2, 2, 2, 13, 12, dtype=torch.float64)
    expected = [sum(naive_ssim(x[b, c].tolist(), y[b, c].tolist()) for c in range(2)) / 2 for b in range(2)]
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=1e-9)


def test_the_same_image_is_perfect_and_order_does_not_matter() -> None:
    a, b = pair()
    assert float(ssim(a, a)) == pytest.approx(1.0, abs=1e-12)
    assert float(psnr(a, a)) == math.inf
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    torch.testing.assert_close(ssim(a.float(), b.float()), ssim(a, b), rtol=0.0, atol=1e-6)


def test_psnr_by_hand() -> None:
    x = torch.zeros(2, 3, 4, 4)
    y = x.clone()
    y[0] = 0.1
    y[1, :, 0] = 1.0
    assert psnr(x, y).tolist() == pytest.approx([20.0, 10 * math.log10(4)], abs=1e-6)
    where = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    where[:, :, :2] = True
    assert psnr(x, y, where).tolist() == pytest.approx([20.0, 10 * math.log10(2)], abs=1e-6)


def test_noise_of_sigma_25_has_20_decibels() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 200, 200)
    assert float(psnr(x + 25 / 255 * torch.randn(x.shape), x)) == pytest.approx(20 * math.log10(255 / 25), abs=0.05)


def test_gradient_energy_by_hand() -> None:
    ramp = 0.1 * torch.arange(5.0).expand(1, 2, 4, 5)
    assert float(gradient_energy(ramp)) == pytest.approx(0.01)
    assert float(gradient_energy(ramp + 0.2 * torch.arange(4.0)[:, None])) == pytest.approx(0.05)
    assert float(gradient_energy(torch.full((1, 1, 3, 3), 0.7))) == 0
    checks = (torch.arange(6)[:, None] + torch.arange(6)) % 2
    assert float(gradient_energy(checks.float()[None, None])) == 2


def test_mistakes_are_named() -> None:
    x = torch.rand(1, 1, 12, 12)
    with pytest.raises((ValueError, TypeError), match="12"):  # by its type where types are checked, by its shape elsewhere
        psnr(x, x[..., 1:])
    with pytest.raises(ValueError, match=r"at least 11 x 11 pixels, got \(12, 10\)"):
        ssim(x[..., :10], x[..., :10])
    with pytest.raises(ValueError, match="with none"):
        psnr(x, x, torch.zeros(1, 1, 12, 12, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least 2 x 2"):
        gradient_energy(x[..., :1])
