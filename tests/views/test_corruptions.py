"""Corruptions: exactly what is hidden is changed, in the share that is asked for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from selfsup.views.corruptions import gaussian, masking, salt_and_pepper


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(*shape: int) -> Tensor:
    return 0.1 + 0.8 * torch.rand(*shape, generator=seeded(5))


@pytest.mark.parametrize("shape", [(7, 40), (7, 3, 5, 4), (2, 1, 1, 1)])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
def test_masking_hides_exactly_its_fraction_of_every_row(shape: tuple[int, ...], fraction: float) -> None:
    x = inputs(*shape)
    kept = x.clone()
    corrupted, hidden = masking(x, seeded(), fraction)
    count = round(fraction * x[0].numel())
    assert (hidden.flatten(1).sum(1) == count).all()
    assert (corrupted[hidden] == 0).all()
    assert torch.equal(corrupted[~hidden], x[~hidden])
    assert torch.equal(x, kept)


def test_whole_pixels_hide_all_channels_together() -> None:
    x = inputs(6, 3, 8, 8)
    for corrupt in (masking, salt_and_pepper):
        corrupted, hidden = corrupt(x, seeded(), 0.25, whole_pixels=True)
        assert (hidden == hidden[:, :1]).all()
        assert (hidden[:, 0].flatten(1).sum(1) == 16).all()
        values = corrupted[hidden.expand_as(x)]
        assert set(values.tolist()) <= {0.0, 1.0}
    _, hidden = masking(x, seeded(), 0.25)
    assert not (hidden == hidden[:, :1]).all()


def test_salt_and_pepper_is_half_and_half() -> None:
    x = inputs(50, 200)
    corrupted, hidden = salt_and_pepper(x, seeded(), 0.4, low=-1.0, high=2.0)
    assert (hidden.sum(1) == 80).all()
    assert torch.equal(corrupted[~hidden], x[~hidden])
    changed = corrupted[hidden]
    assert set(changed.tolist()) == {-1.0, 2.0}
    assert (changed == 2).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_every_value_is_as_likely_to_be_hidden() -> None:
    _, hidden = masking(inputs(4000, 10), seeded(), 0.3)
    torch.testing.assert_close(hidden.float().mean(0), torch.full((10,), 0.3), rtol=0, atol=0.03)
    _, first = masking(inputs(4, 100), seeded(), 0.5)
    assert len({tuple(row.tolist()) for row in first}) == 4


def test_gaussian_noise_has_its_deviation_and_hides_everything() -> None:
    x = inputs(20, 3, 16, 16)
    corrupted, hidden = gaussian(x, seeded(), 0.3)
    noise = corrupted - x
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert hidden.all()
    assert hidden.shape == x.shape
    unchanged, hidden = gaussian(x, seeded(), 0.0)
    assert torch.equal(unchanged, x)
    assert not hidden.any()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\], got 1.1"):
        masking(inputs(2, 3), seeded(), 1.1)
    with pytest.raises(ValueError, match="sigma must be at least 0"):
        gaussian(inputs(2, 3), seeded(), -0.1)
    with pytest.raises(ValueError, match=r"needs images \(B, C, H, W\), got inputs of shape \(2, 3\)"):
        salt_and_pepper(inputs(2, 3), seeded(), 0.5, whole_pixels=True)


@pytest.mark.parametrize("corrupt", [masking, salt_and_pepper])
def test_the_places_of_a_column_go_together(corrupt: Callable[..., tuple[Tensor, Tensor]]) -> None:
    columns = torch.tensor([0, 1, 1, 1, 2, 3, 3])
    x = torch.randn(500, 7)
    x[:, 4] = torch.nan
    shown, hidden = corrupt(x, torch.Generator().manual_seed(0), 0.5, columns=columns)
    by_column = hidden[:, [0, 1, 4, 5]]
    assert torch.equal(by_column[:, columns], hidden)
    assert by_column.sum(dim=1).tolist() == [2] * 500, "half of four columns, whatever their widths"
    assert float(by_column.float().mean(dim=0).min()) > 0.4
    torch.testing.assert_close(shown[~hidden], x[~hidden], equal_nan=True)
    assert not shown[hidden].isnan().any(), "masking on top of what is missing"
    both = shown[hidden[:, 5]]
    assert torch.equal(both[:, 5], both[:, 6]), "one coin for a column"
    with pytest.raises(ValueError, match="each of the 7 places"):
        corrupt(x, torch.Generator(), 0.5, columns=columns[:6])


def test_noise_leaves_what_is_missing() -> None:
    x = torch.tensor([[1.0, torch.nan]])
    noisy, _ = gaussian(x, torch.Generator().manual_seed(0), 0.1)
    assert noisy.isnan().tolist() == [[False, True]]
