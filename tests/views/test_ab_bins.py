"""The bins of colours: which there are, and which are near."""

import torch

from selfsup.views.ab_bins import GRID, ab_bins, nearest
from selfsup.views.lab import rgb_to_lab


def test_every_colour_of_srgb_has_its_bin_and_every_bin_a_colour() -> None:
    level = torch.linspace(0, 1, 52, dtype=torch.float64)
    x = torch.stack(torch.meshgrid(level, level, level, indexing="ij"))[None].flatten(3)
    ab = rgb_to_lab(x)[0, 1:].flatten(1).T
    inside = {(int(a), int(b)) for a, b in (ab / GRID).round().unique(dim=0).mul(GRID).tolist()}
    bins = {(int(a), int(b)) for a, b in ab_bins().tolist()}
    assert inside <= bins
    assert len(bins) == len(ab_bins()) == 261
    assert len(bins - inside) < 10  # at the edge, where the faces here are finer
    assert {(0, 0), (80, 70), (-90, 80), (80, -110)} <= bins  # gray, red, green, blue
    assert not bins & {(-90, -110), (100, 90), (0, -110)}


def test_the_nearest_come_first() -> None:
    bins, ab = ab_bins(), torch.tensor([[1.0, 0.0], [-9.0, 12.0], [75.2, 69.0]])
    distance, which = nearest(ab, bins, 5)
    assert bins[which[:, 0]].tolist() == [[0, 0], [-10, 10], [80, 70]]
    assert distance[:2, 0].tolist() == [1.0, 5.0]
    assert {tuple(b) for b in bins[which[0]].tolist()} == {(0, 0), (10, 0), (0, 10), (0, -10), (-10, 0)}
    everything = torch.cdist(ab.double(), bins.double())
    torch.testing.assert_close(distance.double(), everything.sort(dim=1).values[:, :5] ** 2, rtol=1e-4, atol=1e-3)
