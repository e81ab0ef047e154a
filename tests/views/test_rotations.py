"""Quarter turns are torch.rot90, sample by sample; other angles are what they say, and nothing but what is in the image tells them."""

import math

import pytest
import torch
import torch.nn.functional as F

from selfsup.evaluation.linear import linear_probe
from selfsup.methods.rotation import Rotations
from selfsup.views import rotations
from selfsup.views.rotations import canvas_side, random_turns, rotate, rotate_any


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("side", [1, 4, 5])
def test_every_image_gets_its_own_rot90(dtype: torch.dtype, side: int) -> None:
    images = torch.randint(0, 256, (9, 2, side, side), generator=torch.Generator().manual_seed(0)).to(dtype)
    turns = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 1])
    turned = rotate(images, turns)
    for image, k, got in zip(images, turns.tolist(), turned, strict=True):
        assert torch.equal(got, image.rot90(k, (1, 2)))
    assert torch.equal(rotate(turned, (4 - turns) % 4), images)


def test_turns_are_uniform() -> None:
    counts = random_turns(8000, torch.Generator().manual_seed(0)).bincount(minlength=4)
    torch.testing.assert_close(counts / 8000, torch.full((4,), 0.25), rtol=0, atol=0.02)


def test_oblong_images_are_refused() -> None:
    with pytest.raises(ValueError, match="square images, got 4 x 5 pixels"):
        rotate(torch.rand(1, 1, 4, 5), torch.tensor([1]))


def test_any_angle_turns_against_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpolation and a round blur keep a ramp as it is, but for its height: slopes of the turned one are those of the turned plane."""
    monkeypatch.setattr(rotations, "NOISE", 0.0)
    side = 9
    y, x = torch.meshgrid(*[torch.arange(float(canvas_side(side)))] * 2, indexing="ij")
    radians = torch.tensor([[0.0, 0.3, math.pi / 2, 4.0], [5.0, 3.0, 2.0, 1.0]])
    ramps = torch.stack([x * 0.02 + y * 0.03, -x * 0.01 + y * 0.04])[:, None]
    turned = rotate_any(ramps, radians, side, torch.Generator().manual_seed(0))
    assert turned.shape == (2, 4, 1, side, side)
    for i, (right, up) in enumerate([(0.02, -0.03), (-0.01, -0.04)]):
        for j, a in enumerate(radians[i].tolist()):
            slope_right, slope_up = right * math.cos(a) - up * math.sin(a), right * math.sin(a) + up * math.cos(a)
            torch.testing.assert_close(turned[i, j, 0].diff(dim=1), torch.full((side, side - 1), slope_right), rtol=0, atol=1e-4)
            torch.testing.assert_close(turned[i, j, 0].diff(dim=0), torch.full((side - 1, side), -slope_up), rtol=0, atol=1e-4)
            middle = float(ramps[i].mean())
            assert abs(float(turned[i, j].mean()) - middle) < 0.5 * (abs(right) + abs(up)) + 1e-5  # moved by half a pixel at most
    quarter = rotate_any(ramps, torch.full((2, 1), math.pi / 2), side, torch.Generator()).squeeze(1)
    torch.testing.assert_close(quarter.diff(dim=3), ramps[..., :side, :side].rot90(1, (2, 3)).diff(dim=3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", [1, 5, 32])
def test_no_corner_is_empty(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotations, "NOISE", 0.0)
    canvas = canvas_side(side)
    plain = torch.full((2, 3, canvas, canvas), 0.7)
    turned = rotate_any(plain, torch.linspace(0, 6.3, 40).expand(2, 40), side, torch.Generator())
    torch.testing.assert_close(turned, torch.full_like(turned, 0.7))


def undirected(n: int, side: int, g: torch.Generator) -> torch.Tensor:
    """(n, 1, side, side) noise of deviation 1 with the spectrum of photographs."""
    frequency = torch.fft.fftfreq(side)[:, None].square() + torch.fft.rfftfreq(side).square()
    spectrum = torch.fft.rfft2(torch.randn(n, 1, side, side, generator=g)) / frequency.clamp(min=side**-2.0).sqrt()
    noise = torch.fft.irfft2(spectrum, s=(side, side))
    return noise / noise.std()


def test_noise_without_directions_does_not_tell_its_angle() -> None:
    """Autocovariances and variances by place of noise that is turned by eighths say nothing of the angle."""
    g, n, side = torch.Generator().manual_seed(0), 4500, 16
    angle = torch.randint(8, (n,), generator=g)
    turned = rotate_any(undirected(n, canvas_side(side), g), angle[:, None] * math.pi / 4, side, g)[:, 0, 0]
    turned = turned - turned.mean(dim=(1, 2), keepdim=True)
    core, w = turned[:, 2:-2, 2:-2], side - 4
    lags = [(i, j) for i in range(3) for j in range(-2, 3)]
    cov = torch.stack([(core * turned[:, 2 + i : 2 + i + w, 2 + j : 2 + j + w]).mean(dim=(1, 2)) for i, j in lags], dim=1)
    places = F.adaptive_avg_pool2d(turned.square()[:, None], 4).flatten(1)
    found = torch.cat([cov, cov / cov[:, 2:3], places], dim=1)
    found = (found - found.mean(dim=0)) / found.std(dim=0).clamp(min=1e-6)
    accuracy = linear_probe(found[:3000], angle[:3000], found[3000:], angle[3000:], grid=(1e-3,)).top1
    assert accuracy < 0.15, f"{accuracy:.3f} of the angles told; chance is 0.125, less than 0.15 in 999 of 1000 draws"


@pytest.mark.parametrize("raw", [32, 64])
def test_the_pixel_grid_hardly_tells_an_angle(raw: int) -> None:
    """Second differences along rows and columns, over those along diagonals: their logarithm at odd and at even eighths."""
    g = torch.Generator().manual_seed(0)
    images = (128 + 40 * undirected(1000, raw, g)).clamp(0, 255).to(torch.uint8)
    views = Rotations(32, 0.5, 8, 1)({"image": images}, g)
    x, (h, w) = views["image"][:, 0], (slice(1, -1), slice(1, -1))

    def second(down: int, right: int) -> torch.Tensor:
        ahead, behind = (x.roll((s * down, s * right), (1, 2))[:, h, w] for s in (-1, 1))
        return (ahead + behind - 2 * x[:, h, w]).square().mean(dim=(1, 2))

    shape = ((second(0, 1) + second(1, 0)) / (second(1, 1) + second(1, -1))).log()
    odd = views["turns"] % 2 == 1
    apart = float((shape[odd].mean() - shape[~odd].mean()).abs() / shape.std())
    assert apart < 0.35, f"{apart:.2f} standard deviations apart; 0.9 (32 pixels) and 1.2 (64) by interpolation alone"


def test_a_canvas_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="squares of 8 pixels need images of 18 x 18 pixels, got 16 x 16"):
        rotate_any(torch.rand(1, 1, 16, 16), torch.zeros(1, 1), 8, torch.Generator())
