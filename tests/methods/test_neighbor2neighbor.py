"""Neighbor2Neighbor: its pairs and both terms by hand, one noisy version for each image, and noise that it must remove unseen."""

import pytest
import torch

from selfsup.abilities import Denoises
from selfsup.engine.step import train_step
from selfsup.evaluation.image_quality import psnr
from selfsup.method import Batch
from selfsup.methods.neighbor2neighbor import PAIRS, Neighbor2Neighbor, subsample, terms
from selfsup.models import build_encoder


def method(channels: int = 1, image_size: int = 16, **options: float | str) -> Neighbor2Neighbor:
    torch.manual_seed(0)
    return Neighbor2Neighbor(build_encoder("unet", channels=channels, image_size=image_size), image_size=image_size, **options)


def raw(n: int = 4, channels: int = 1, side: int = 16) -> Batch:
    return {"image": torch.randint(256, (n, channels, side, side), dtype=torch.uint8), "index": torch.arange(n)}


def test_pairs_are_the_papers_eight_neighbours() -> None:
    neighbours = [(a, b) for a in range(4) for b in range(4) if abs(a // 2 - b // 2) + abs(a % 2 - b % 2) == 1]
    assert sorted(PAIRS) == neighbours


def test_subsampling_by_hand() -> None:
    torch.manual_seed(0)
    x, pair = torch.rand(2, 3, 7, 4), torch.randint(8, (2, 3, 2))  # the seventh row has no cell
    first, second = subsample(x, pair)
    for b in range(2):
        for i in range(3):
            for j in range(2):
                places = PAIRS[int(pair[b, i, j])]
                for got, place in zip((first, second), places, strict=True):
                    assert torch.equal(got[b, :, i, j], x[b, :, 2 * i + place // 2, 2 * j + place % 2])


@pytest.mark.parametrize(("channels", "side", "size"), [(1, 16, 16), (3, 33, 15), (6, 9, 2), (2, 5, 16)])
def test_views_are_a_window_and_its_two_subsamples(channels: int, side: int, size: int) -> None:
    views = method(channels, size).views(raw(8, channels, side), torch.Generator().manual_seed(0))
    assert views["noisy"].shape == (8, channels, size, size)
    assert views["first"].shape == views["second"].shape == (8, channels, size // 2, size // 2)
    first, second = subsample(views["noisy"], views["pair"])
    assert torch.equal(first, views["first"])
    assert torch.equal(second, views["second"])
    assert views["noisy"].min() >= 0  # nothing is added where nothing is asked for
    assert method(channels, size).loss(views).isfinite()


def test_every_pair_is_as_likely() -> None:
    pair = method(image_size=64).views(raw(20, 1, 64), torch.Generator().manual_seed(0))["pair"]
    share = pair.flatten().bincount(minlength=8) / pair.numel()
    assert share.tolist() == pytest.approx([1 / 8] * 8, abs=0.01)


def test_loss_is_the_papers() -> None:
    """Section 4.2, value by value in double precision: |d|^2 + gamma |d - (g1(f(y)) - g2(f(y)))|^2, d = f(g1(y)) - g2(y)."""
    torch.manual_seed(0)
    predicted, second, clean_first, clean_second = torch.rand(4, 2, 1, 3, 3, dtype=torch.float64)
    rec = reg = 0.0
    for a, b, c, d in zip(*(x.flatten().tolist() for x in (predicted, second, clean_first, clean_second)), strict=True):
        rec += (a - b) ** 2 / 18
        reg += (a - b - (c - d)) ** 2 / 18
    found = terms(predicted, second, clean_first, clean_second)
    assert [float(x) for x in found] == pytest.approx([rec, reg], abs=1e-12)


def test_the_regulariser_grows_with_the_training_and_its_denoised_image_has_no_gradient() -> None:
    net, views = method(gamma=3.0), method().views(raw(), torch.Generator().manual_seed(0))
    error = net.f(views["first"]) - views["second"]
    with torch.no_grad():
        first, second = subsample(net.f(views["noisy"]), views["pair"])
    rec, reg = terms(error + views["second"], views["second"], first, second)
    net.progress = 0.0
    torch.testing.assert_close(net.loss(views), rec)
    net.progress = 0.5
    torch.testing.assert_close(net.loss(views), rec + 1.5 * reg)
    net.loss(views).backward()
    parameters = list(net.parameters())
    expected = torch.autograd.grad(rec + 1.5 * reg, parameters)
    for p, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)
        assert bool(p.grad.any())


def test_an_image_has_one_noisy_version() -> None:
    """Whatever the batch, its order, the window and the epoch; and another for each image and run."""
    net, images = method(noise="gaussian", level=25.0), raw(6)
    noise = net.views(images, torch.Generator().manual_seed(1))["noisy"] - images["image"] / 255
    order = torch.tensor([3, 0, 5])
    again = net.views({name: x[order] for name, x in images.items()}, torch.Generator().manual_seed(2))
    torch.testing.assert_close(again["noisy"] - images["image"][order] / 255, noise[order])
    assert float(noise.std()) == pytest.approx(25 / 255, rel=0.05)
    assert float((noise[0] * noise[1]).mean()) == pytest.approx(0.0, abs=0.002)
    torch.testing.assert_close(method(noise="gaussian").views.noise.seed, net.views.noise.seed)  # of the run's seed
    torch.manual_seed(1)
    other = Neighbor2Neighbor(build_encoder("unet", channels=1, image_size=16), image_size=16, noise="gaussian")
    assert other.views.noise.seed != net.views.noise.seed


def test_it_denoises_without_having_seen_a_clean_image() -> None:
    """Smooth shapes under noise; new images, of another size than the trained ones and not square."""
    net = method(noise="gaussian", level=40.0)
    optimizers = {"main": torch.optim.Adam(net.parameters(), lr=2e-3)}
    generator = torch.Generator().manual_seed(0)

    def photos(n: int, height: int, width: int) -> torch.Tensor:
        rows, columns = torch.arange(height)[:, None] / 16, torch.arange(width) / 16
        phase = 6.3 * torch.rand(n, 2, 1, 1)
        return (127.5 + 100 * torch.sin(3 * rows + phase[:, 0]) * torch.sin(3 * columns + phase[:, 1]))[:, None].to(torch.uint8)

    images = photos(64, 16, 16)
    for step in range(40):
        index = torch.arange(16) + 16 * (step % 4)
        net.progress = step / 40
        train_step(net, [net.views({"image": images[index], "index": index}, generator)], optimizers)
    net.eval().requires_grad_(False)
    assert isinstance(net, Denoises)
    clean = photos(8, 45, 30) / 255
    noisy = clean + 40 / 255 * torch.randn(clean.shape)
    denoised = net.denoise(noisy)
    assert denoised.shape == clean.shape
    assert denoised.min() >= 0
    assert denoised.max() <= 1
    gain = float((psnr(denoised, clean) - psnr(noisy, clean)).mean())
    assert gain > 5, f"gain of {gain:.1f} dB"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r'needs the encoder "unet".*got "small"'):
        Neighbor2Neighbor(build_encoder("small", channels=1, image_size=16), image_size=16)
    with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
        method(gamma=-1.0)
    with pytest.raises(ValueError, match="level of gaussian noise must be positive and finite, got 0"):
        method(noise="gaussian", level=0.0)
    with pytest.raises(ValueError, match="at least 2 wide, got image_size=1"):
        method(image_size=1)
    with pytest.raises((ValueError, TypeError), match="salt"):
        method(noise="salt")
