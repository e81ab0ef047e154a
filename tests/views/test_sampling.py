"""Random numbers of one batch, whichever process handles which rows."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from selfsup.views import sampling
from selfsup.views.crops import MultiCrop, TwoCrops
from selfsup.views.sampling import chance, integers, normal, permutations, uniform

Draw = Callable[[int, torch.Generator], Tensor]
DRAWS: list[Draw] = [
    lambda rows, g: uniform(rows, g, -1.0, 3.0, 2, 5),
    lambda rows, g: normal(rows, g, 3),
    lambda rows, g: chance(rows, g, 0.5),
    lambda rows, g: integers(rows, g, 7),
    lambda rows, g: permutations(rows, g, 4),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("draw", DRAWS)
def test_two_processes_draw_what_one_draws(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = seeded()
    whole = [draw(6, alone), draw(6, alone)]
    halves = []
    for mine in (0, 1):
        monkeypatch.setattr(sampling, "rank", lambda mine=mine: mine)
        monkeypatch.setattr(sampling, "world_size", lambda: 2)
        generator = seeded()
        halves.append([draw(3, generator), draw(3, generator)])
    for i in range(2):  # the second draw too: both generators must have moved as far as the single one
        torch.testing.assert_close(torch.cat([halves[0][i], halves[1][i]]), whole[i], rtol=0, atol=0)


def test_two_processes_see_the_views_that_one_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (6, 3, 20, 20), dtype=torch.uint8, generator=seeded(1))
    for views in (TwoCrops(16, blur=0.5, solarize=0.3), MultiCrop(16, 8, 1)):
        monkeypatch.undo()
        whole = views({"image": images}, seeded())
        monkeypatch.setattr(sampling, "world_size", lambda: 2)
        for mine in (0, 1):
            monkeypatch.setattr(sampling, "rank", lambda mine=mine: mine)
            rows = slice(3 * mine, 3 * mine + 3)
            for name, view in views({"image": images[rows]}, seeded()).items():
                torch.testing.assert_close(view, whole[name][rows], rtol=0, atol=1e-6)


def test_uniform_fills_its_range_evenly() -> None:
    x = uniform(20_000, seeded(), -2.0, 4.0)
    assert x.min() >= -2
    assert x.max() < 4
    expected = torch.full((6,), 1 / 6)
    torch.testing.assert_close(x.histc(6, -2, 4) / len(x), expected, rtol=0, atol=0.01)
    assert (uniform(3, seeded(), 0.5, 0.5) == 0.5).all()


def test_chance_is_exact_at_its_ends() -> None:
    assert chance(1000, seeded(), 1.0).all()
    assert not chance(1000, seeded(), 0.0).any()
    assert chance(20_000, seeded(), 0.3).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_every_order_is_as_likely() -> None:
    orders = permutations(24_000, seeded(), 3)
    assert (orders.sort(dim=1).values == torch.arange(3)).all()
    counts = (orders @ torch.tensor([9, 3, 1])).unique(return_counts=True)[1]
    assert len(counts) == 6
    torch.testing.assert_close(counts / 24_000, torch.full((6,), 1 / 6), rtol=0, atol=0.01)
    assert integers(1000, seeded(), 4).unique().tolist() == [0, 1, 2, 3]
