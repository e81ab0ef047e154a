"""Colour operations and blur against torchvision's documented formulas, one image and one pixel at a time."""

import colorsys
import math

import pytest
import torch
from torch import Tensor

from selfsup.views import blur, colour
from selfsup.views.blur import gaussian_blur, kernel_size

STEP = 1 / 255


def planes(b: int, side: int = 6, channels: int = 3) -> Tensor:
    """Images with all the special cases of colour: grey, saturated, ties between channels, black and white."""
    x = torch.rand(channels, b, side, side, generator=torch.Generator().manual_seed(0))
    special = torch.tensor([[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [1, 1, 0], [0.3, 0.3, 0.9], [0.2, 0.7, 0.7], [0.6, 0.1, 0.6]])
    if channels == 3:
        x.view(3, b, -1)[:, :, : len(special)] = special.T[:, None]
    return x


def luma(image: Tensor) -> Tensor:
    """rgb_to_grayscale: 0.2989 R + 0.587 G + 0.114 B; the image itself with one channel."""
    return 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2] if len(image) == 3 else image.mean(0)


def blend(image: Tensor, other: Tensor, factor: float) -> Tensor:
    """_blend: factor image + (1 - factor) other, clamped."""
    return (factor * image + (1 - factor) * other).clamp(0, 1)


def brightness(image: Tensor, factor: float) -> Tensor:
    return blend(image, torch.zeros_like(image), factor)


def contrast(image: Tensor, factor: float) -> Tensor:
    return blend(image, luma(image).mean(), factor)


def saturation(image: Tensor, factor: float) -> Tensor:
    return blend(image, luma(image), factor)


def hue(image: Tensor, shift: float) -> Tensor:
    """adjust_hue: to HSV, h + shift modulo 1, and back; Python's own colorsys pixel by pixel."""
    out = torch.empty_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
            out[:, y, x] = torch.tensor(colorsys.hsv_to_rgb((h + shift) % 1, s, v))
    return out


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_blend_is_brightness_contrast_and_saturation_in_one_call(channels: int) -> None:
    factors = [0.0, 0.2, 0.9, 1.0, 1.3, 1.8]
    operations = [brightness, contrast, saturation]
    cases = [(operation, f) for operation in operations for f in factors]
    x = planes(len(cases), channels=channels)
    factor = torch.tensor([f for _, f in cases])
    to_mean, to_gray = (torch.tensor([(1 - f) * (o is operation) for o, f in cases]) for operation in (contrast, saturation))
    got = x.clone()
    colour.blend(got, factor, to_mean, to_gray)
    for i, (operation, f) in enumerate(cases):
        torch.testing.assert_close(got[:, i], operation(x[:, i], f), rtol=0, atol=1e-6)


def test_hue_is_hsv() -> None:
    shifts = [-0.5, -0.4, -1 / 3, -0.1, 0.0, 0.05, 0.2, 1 / 3, 0.45, 0.5]
    x = planes(len(shifts))
    got = x.clone()
    colour.shift_hue(got, torch.tensor(shifts))
    for i, shift in enumerate(shifts):
        torch.testing.assert_close(got[:, i], hue(x[:, i], shift), rtol=0, atol=1e-5)


def test_hue_is_hsv_for_bytes_with_small_chroma() -> None:
    x = (torch.randint(100, 104, (3, 5, 6, 6), generator=torch.Generator().manual_seed(0)) / 255).float()
    got = x.clone()
    colour.shift_hue(got, torch.tensor([-0.5, -0.2, 0.1, 0.3, 0.5]))
    for i, shift in enumerate([-0.5, -0.2, 0.1, 0.3, 0.5]):
        torch.testing.assert_close(got[:, i], hue(x[:, i], shift), rtol=0, atol=1e-5)


def test_gray_and_solarize_are_their_definitions() -> None:
    x = planes(2)
    torch.testing.assert_close(colour.gray(x), torch.stack([luma(x[:, i]) for i in range(2)]))
    torch.testing.assert_close(colour.solarize(x), torch.where(x >= 0.5, 1 - x, x))


def reflect(i: int, n: int) -> int:
    return -i if i < 0 else 2 * (n - 1) - i if i >= n else i


def naive_blur(image: Tensor, sigma: float, kernel: int) -> Tensor:
    """gaussian_blur: the outer product of two sampled and normalised gaussians, reflected borders."""
    radius, (_, h, w) = kernel // 2, image.shape
    line = torch.tensor([math.exp(-0.5 * (d / sigma) ** 2) for d in range(-radius, radius + 1)], dtype=torch.float64)
    line /= line.sum()
    out = torch.zeros(image.shape, dtype=torch.float64)
    for y in range(h):
        for x in range(w):
            rows = [reflect(y + d, h) for d in range(-radius, radius + 1)]
            columns = [reflect(x + d, w) for d in range(-radius, radius + 1)]
            out[:, y, x] = torch.einsum("cij,i,j->c", image[:, rows][:, :, columns].double(), line, line)
    return out.float()


@pytest.mark.parametrize(("side", "kernel"), [(2, 3), (7, 3), (9, 5), (12, 23), (13, 9)])
def test_blur_is_the_convolution_with_its_own_sigma(side: int, kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sigmas = [0.1, 0.7, 1.3, 2.0]
    x = torch.rand(2, len(sigmas), side, side, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([naive_blur(x[:, i], sigma, kernel) for i, sigma in enumerate(sigmas)], dim=1)
    torch.testing.assert_close(gaussian_blur(x, torch.tensor(sigmas), kernel), expected, rtol=0, atol=2e-4)
    monkeypatch.setattr(blur, "BLOCK", side * side)  # each plane by itself
    torch.testing.assert_close(gaussian_blur(x, torch.tensor(sigmas), kernel), expected, rtol=0, atol=2e-4)
    by_matrices = blur._by_matrices(x, blur._half_kernel(torch.tensor(sigmas), kernel // 2))
    torch.testing.assert_close(by_matrices, expected, rtol=0, atol=1e-6)


def test_narrow_blurs_may_skip_far_taps_only_below_a_step() -> None:
    x = (torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    for sigma in (0.1, 0.3, 0.5, 1.0):
        torch.testing.assert_close(
            gaussian_blur(x, torch.tensor([sigma]), 23)[:, 0], naive_blur(x[:, 0], sigma, 23), rtol=0, atol=STEP / 10
        )


def test_the_kernel_is_a_tenth_of_the_side() -> None:
    assert [kernel_size(side) for side in (8, 32, 64, 96, 224)] == [3, 3, 7, 9, 23]


def test_a_kernel_that_reflects_twice_is_refused() -> None:
    for kernel in (4, 7):
        with pytest.raises(ValueError, match="odd and at most 5 for images of 3 pixels, got"):
            gaussian_blur(torch.rand(1, 1, 3, 3), torch.ones(1), kernel)
