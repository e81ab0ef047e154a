"""Warps: a shear by hand, how often and how far, and what they leave alone."""

import math

import pytest
import torch

from selfsup.views.warps import warp


def test_nothing_is_warped_where_nothing_is_asked_for() -> None:
    x = torch.rand(5, 3, 9, 9)
    g = torch.Generator().manual_seed(0)
    assert warp(x, g, 0.0, 0.3, 0.1).equal(x)
    torch.testing.assert_close(warp(x, g, 1.0, 0.0, 0.0), x)


def test_a_shear_moves_lines_in_proportion_to_their_distance_from_the_middle() -> None:
    side, n = 32, 400
    ramp = torch.arange(side).float().expand(n, 1, side, side)  # a pixel's value is its column
    out = warp(torch.cat([ramp, ramp.transpose(2, 3)], dim=1), torch.Generator().manual_seed(0), 1.0, 0.3, 0.0)
    middle = torch.arange(side) - (side - 1) / 2
    shears = []
    for image in out:
        columns, rows = image[0] - ramp[0, 0], image[1] - ramp[0, 0].T
        inside = slice(8, 24)  # the border repeats outside
        by_column, by_row = columns[inside, inside], rows[inside, inside]
        a = float((by_column / middle[inside, None]).mean())
        b = float((by_row / middle[None, inside]).mean())
        torch.testing.assert_close(by_column, a * middle[inside, None].expand(-1, 16), atol=1e-4, rtol=0)
        torch.testing.assert_close(by_row, b * middle[None, inside].expand(16, -1), atol=1e-4, rtol=0)
        assert min(abs(a), abs(b)) < 1e-5 < 0.3001 - max(abs(a), abs(b))  # one of both directions
        shears.append(a if abs(a) > abs(b) else b)
    both = sum(abs(float((image[0] - ramp[0, 0]).abs().sum())) > 0.1 for image in out)
    assert abs(both / n - 0.5) < 4 * math.sqrt(0.25 / n)
    found = torch.tensor(shears)
    assert abs(float(found.mean())) < 4 * 0.3 / math.sqrt(3 * n)
    assert float(found.square().mean()) == pytest.approx(0.03, rel=0.2)  # uniform in -0.3 to 0.3


def test_deformations_are_as_large_as_said_smooth_and_for_a_share_of_images() -> None:
    side, n = 32, 1000
    ramp = torch.arange(side).float().expand(n, 1, side, side)
    out = warp(ramp, torch.Generator().manual_seed(0), 0.2, 0.0, 0.02)
    moved = (out - ramp)[:, 0, 8:24, 8:24]
    some = moved.abs().amax(dim=(1, 2)) > 1e-3
    assert abs(float(some.float().mean()) - 0.2) < 4 * math.sqrt(0.16 / n)
    assert out[~some].equal(ramp[~some])
    # Cubic interpolation keeps between half and all of a knot's variance, (0.02 x 32)^2.
    assert 0.5 < float(moved[some].square().mean()) / 0.64**2 < 1.0
    assert float(moved[some].diff(dim=2).abs().max()) < 0.6  # neighbours go together
