"""Lab against scikit-image's values, its landmarks, the way back, and gray that keeps L."""

import pytest
import torch

from selfsup.views.lab import gray, lab_to_rgb, rgb_to_lab

# Red, green, blue -> L, a, b: skimage.color.rgb2lab of scikit-image 0.26.0, float64.
COLOURS = {
    (1.0, 0.0, 0.0): (53.240588, 80.092308, 67.202751),
    (0.0, 1.0, 0.0): (87.735099, -86.183030, 83.179703),
    (0.0, 0.0, 1.0): (32.295673, 79.185591, -107.857300),
    (1.0, 1.0, 0.0): (97.139507, -21.554681, 94.478122),
    (1.0, 1.0, 1.0): (100.0, -0.002455, 0.004653),
    (0.5, 0.5, 0.5): (53.388965, -0.001468, 0.002784),
    (0.2, 0.4, 0.6): (42.008001, -0.154041, -32.842897),
    (0.01, 0.02, 0.03): (1.300054, -0.312350, -1.199765),  # below both bends, of sRGB's curve and of Lab's
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
}


def planes(rows: object) -> torch.Tensor:
    """(N, 3) -> (1, 3, 1, N)."""
    return torch.tensor(rows, dtype=torch.float64).T[None, :, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_those_of_scikit_image(dtype: torch.dtype) -> None:
    lab = rgb_to_lab(planes(list(COLOURS)).to(dtype))
    assert lab.dtype == dtype
    torch.testing.assert_close(lab.double(), planes(list(COLOURS.values())), rtol=0, atol=1e-4)


def test_the_way_back_is_the_same_way() -> None:
    level = torch.linspace(0, 1, 18)
    x = torch.stack(torch.meshgrid(level, level, level, indexing="ij"))[None].flatten(3).float()
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(x)), x, rtol=0, atol=2e-5)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(x.double())), x.double(), rtol=0, atol=1e-12)
    # skimage.color.lab2rgb of a colour within sRGB
    torch.testing.assert_close(lab_to_rgb(planes([[50.0, 20.0, -30.0]])), planes([[0.496361, 0.429258, 0.666839]]), rtol=0, atol=1e-6)


def test_colours_that_srgb_lacks_are_clamped() -> None:
    x = lab_to_rgb(planes([[50.0, 110.0, -110.0], [5.0, -110.0, 110.0], [0.0, 0.0, 110.0], [100.0, -50.0, 0.0]]))
    assert x.isfinite().all()
    assert float(x.min()) == 0.0
    assert float(x.max()) == 1.0


def test_gray_keeps_l_and_has_no_colour() -> None:
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    without = gray(x)
    assert torch.equal(without[:, 0], without[:, 1])
    assert torch.equal(without[:, 0], without[:, 2])
    lab = rgb_to_lab(without)
    torch.testing.assert_close(lab[:, 0], rgb_to_lab(x)[:, 0], rtol=0, atol=1e-9)
    assert float(lab[:, 1:].abs().max()) < 0.005  # white's own, as in scikit-image
    torch.testing.assert_close(gray(without), without, rtol=0, atol=1e-12)


def test_precision_and_gradients_hold_where_networks_are_in_bfloat16() -> None:
    x = torch.rand(2, 3, 8, 8)
    expected = rgb_to_lab(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rgb_to_lab(x), expected)
        assert rgb_to_lab(x.bfloat16()).dtype == torch.float32
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    lab_to_rgb(rgb_to_lab(black)).sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()
