"""Colorization against equations 1 to 5 written naively, the running distribution of colours, and colours that it must learn."""

import math

import pytest
import torch

from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.colorization import (
    Colorization,
    annealed_mean,
    rebalanced_cross_entropy,
    rebalancing,
    soft_encode,
    squared_error,
)
from selfsup.models import build_encoder
from selfsup.views.ab_bins import ab_bins
from selfsup.views.lab import gray, rgb_to_lab


def colorization(image_size: int = 16, **options: float | str) -> Colorization:
    torch.manual_seed(1)
    return Colorization(build_encoder("small", channels=3, image_size=image_size), image_size=image_size, **options)


def views_of(method: Colorization, images: torch.Tensor) -> Batch:
    return method.views({"image": images.mul(255).round().byte()}, torch.Generator().manual_seed(0))


def test_the_loss_is_equation_2_with_the_soft_encoding() -> None:
    bins = ab_bins().double()
    ab, logits = 30 * torch.randn(6, 2, dtype=torch.float64), torch.randn(6, len(bins), dtype=torch.float64)
    v = torch.rand(6, dtype=torch.float64)
    total = 0.0
    for i in range(6):
        distance = [math.dist(ab[i].tolist(), b) for b in bins.tolist()]
        nearest = sorted(range(len(bins)), key=distance.__getitem__)[:5]
        gaussian = {q: math.exp(-(distance[q] ** 2) / (2 * 5**2)) for q in nearest}
        log_sum = math.log(sum(math.exp(float(x)) for x in logits[i]))
        for q in nearest:
            total -= float(v[i]) * gaussian[q] / sum(gaussian.values()) * (float(logits[i, q]) - log_sum)
    z, which = soft_encode(ab, bins)
    torch.testing.assert_close(float(rebalanced_cross_entropy(logits, z, which, v)), total / 6, rtol=1e-9, atol=0)
    flat = rebalanced_cross_entropy(torch.zeros(6, len(bins)), z.float(), which, torch.ones(6))
    torch.testing.assert_close(flat, torch.tensor(math.log(261)))


def test_weights_are_equation_4() -> None:
    bins = ab_bins().double()
    counts = torch.randint(1000, (len(bins),))
    share = [int(n) / int(counts.sum()) for n in counts]
    p = [0.0] * len(bins)
    for r, source in enumerate(bins.tolist()):
        spread = [math.exp(-(math.dist(source, b) ** 2) / (2 * 5**2)) for b in bins.tolist()]
        for q in range(len(bins)):
            p[q] += share[r] * spread[q] / sum(spread)
    w = [1 / (0.7 * x + 0.3 / len(bins)) for x in p]
    scale = sum(a * b for a, b in zip(p, w, strict=True))
    expected = torch.tensor(w, dtype=torch.float64) / scale
    torch.testing.assert_close(rebalancing(counts, bins, 0.3), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(sum(p), 1.0)
    torch.testing.assert_close(rebalancing(counts, bins, 1.0), torch.ones(len(bins), dtype=torch.float64))


def test_a_rare_colour_weighs_more() -> None:
    bins = ab_bins()
    counts = torch.zeros(len(bins), dtype=torch.int64)
    gray_bin, red = (int((bins == torch.tensor(b)).all(dim=1).nonzero()) for b in ([0.0, 0.0], [80.0, 70.0]))
    counts[gray_bin], counts[red] = 990, 10
    w = rebalancing(counts, bins, 0.5)
    assert float(w[red]) > 20 * float(w[gray_bin])
    assert float(w[red]) < float(w[(bins == torch.tensor([-80.0, 80.0])).all(dim=1)])  # which was never seen


def test_the_annealed_mean_is_equation_5_between_mean_and_mode() -> None:
    bins = ab_bins().double()
    logits = torch.randn(2, len(bins), 2, 3, dtype=torch.float64)
    p = logits.softmax(dim=1)
    sharpened = [[float(x) ** (1 / 0.38) for x in p[1, :, 0, 2]], bins[:, 0].tolist()]
    by_hand = sum(a * b for a, b in zip(*sharpened, strict=True)) / sum(sharpened[0])
    torch.testing.assert_close(float(annealed_mean(logits, bins, 0.38)[1, 0, 0, 2]), by_hand, rtol=1e-9, atol=0)
    torch.testing.assert_close(annealed_mean(logits, bins, 1.0), torch.einsum("bqhw,qc->bchw", p, bins))
    torch.testing.assert_close(annealed_mean(logits, bins, 1e-4), bins[logits.argmax(dim=1)].permute(0, 3, 1, 2))


def test_regression_is_equation_1() -> None:
    predicted, ab = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64)
    total = sum(float(((predicted[i, :, y, x] - ab[i, :, y, x]) ** 2).sum()) / 2 for i in range(3) for y in range(2) for x in range(2))
    torch.testing.assert_close(float(squared_error(predicted, ab)), total / 12, rtol=1e-9, atol=0)
    method = colorization(target="regression")
    views = views_of(method, torch.rand(4, 3, 16, 16))
    method.eval()
    out = method.head(method.encoder.feature_map(views["gray"]), (4, 4))
    torch.testing.assert_close(method.loss(views), squared_error(out, views["ab"] / 110))


def test_views_hide_the_colours_and_keep_the_lightness() -> None:
    method = colorization(image_size=18, smallest_crop=1.0)
    images = torch.rand(5, 3, 18, 18).mul(255).round().div(255)
    views = views_of(method, images)
    assert set(views) == {"gray", "ab"}
    assert torch.equal(views["gray"], views["gray"][:, :1].expand(-1, 3, -1, -1))
    lab = rgb_to_lab(images)
    light = rgb_to_lab(views["gray"])[:, :1]
    mirrored = (light - lab[:, :1]).flatten(1).abs().amax(dim=1) > 0.01
    lab[mirrored] = lab[mirrored].flip(3)
    torch.testing.assert_close(light, lab[:, :1], rtol=0, atol=1e-3)
    assert views["ab"].shape == (5, 2, 5, 5)
    torch.testing.assert_close(views["ab"].mean(), torch.nn.functional.adaptive_avg_pool2d(lab[:, 1:], 5).mean())
    torch.testing.assert_close(views["ab"], torch.nn.functional.adaptive_avg_pool2d(lab[:, 1:], 5), rtol=0, atol=1e-3)


def test_the_encoder_never_sees_a_colour_and_everything_is_trained() -> None:
    method, seen = colorization(), []
    method.encoder.encoder.normalize.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    method.loss(views_of(method, torch.rand(4, 3, 16, 16))).backward()
    method.embed(torch.rand(4, 3, 16, 16))
    for x in seen:
        assert torch.equal(x[:, 0], x[:, 1])
        assert torch.equal(x[:, 0], x[:, 2])
    assert len(seen) == 2
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.parameters())
    x = torch.rand(4, 3, 16, 16)
    method.eval()
    torch.testing.assert_close(method.embed(x), method.embed(gray(x)), rtol=1e-4, atol=1e-5)


def test_colours_are_counted_after_the_step_over_micro_batches_and_in_training_only() -> None:
    method, views = colorization(), {}
    start = method.counts.clone()
    views = views_of(method, torch.rand(4, 3, 16, 16))
    method.loss(views)
    method.loss(views)
    assert torch.equal(method.counts, start), "not before the step"
    method.after_step(0.5)
    which = torch.cdist(views["ab"].permute(0, 2, 3, 1).flatten(0, 2).double(), method.bins.double()).argmin(dim=1)
    assert torch.equal(method.counts - start, 2 * which.bincount(minlength=261))
    method.after_step(0.5)
    method.eval()
    method.loss(views)
    method.after_step(0.5)
    assert int((method.counts - start).sum()) == 2 * 4 * 16


def test_the_weights_are_used() -> None:
    method = colorization()
    method.eval()
    views = views_of(method, torch.rand(4, 3, 16, 16))
    z, which = soft_encode(views["ab"].permute(0, 2, 3, 1).flatten(0, 2), method.bins)
    method.counts[which[:, 0]] += 1000
    logits = method.head(method.encoder.feature_map(views["gray"]), (4, 4)).permute(0, 2, 3, 1).flatten(0, 2)
    v = rebalancing(method.counts, method.bins, 0.5)[which[:, 0]]
    torch.testing.assert_close(method.loss(views), rebalanced_cross_entropy(logits, z, which, v))
    method.uniform_share = 1.0
    torch.testing.assert_close(method.loss(views), rebalanced_cross_entropy(logits, z, which, torch.ones(64)))


def two_coloured(n: int, generator: torch.Generator) -> torch.Tensor:
    """Light images with a dark side, left or right: the dark side is blue, the light one orange, at any lightness of the whole."""
    images = torch.empty(n, 3, 16, 16)
    images[:, :, :, :8] = torch.tensor([0.2, 0.3, 0.6])[:, None, None]
    images[:, :, :, 8:] = torch.tensor([0.9, 0.6, 0.3])[:, None, None]
    turned = torch.rand(n, generator=generator) < 0.5
    images[turned] = images[turned].flip(3)
    return (images + 0.1 * torch.rand(n, 1, 1, 1, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("target", ["classification", "regression"])
def test_it_learns_which_side_has_which_colour(target: str) -> None:
    method, generator = colorization(target=target, smallest_crop=0.9), torch.Generator().manual_seed(0)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=3e-3)}
    for _ in range(30):
        batch = {"image": two_coloured(16, generator).mul(255).round().byte()}
        train_step(method, [method.views(batch, generator)], optimizers)
        method.after_step(0.5)
    method.eval()
    true = two_coloured(40, generator)
    made = method.colorize(gray(true)[:, :1])
    assert made.shape == true.shape
    error = (rgb_to_lab(made) - rgb_to_lab(true))[:, 1:].square().sum(dim=1).mean().sqrt()
    of_gray = rgb_to_lab(true)[:, 1:].square().sum(dim=1).mean().sqrt()
    assert float(error) < 0.5 * float(of_gray), f"{float(error):.1f} from the true colours; gray is {float(of_gray):.1f} away"


def test_colorize_keeps_the_lightness_of_images_of_any_size() -> None:
    method = colorization().eval()
    shades = 0.2 + 0.6 * torch.rand(2, 1, 21, 34)
    with torch.no_grad():
        method.head.outputs.weight.zero_()
        method.head.outputs.bias.copy_(-method.bins.square().sum(dim=1))
    made = method.colorize(shades)
    assert made.shape == (2, 3, 21, 34)
    torch.testing.assert_close(gray(made)[:, :1], shades, rtol=0, atol=5e-3)
    torch.testing.assert_close(made, shades.expand(-1, 3, -1, -1), rtol=0, atol=5e-3)  # all say gray
    with torch.no_grad():
        method.head.outputs.bias.copy_(-(method.bins - torch.tensor([0.0, -30.0])).square().sum(dim=1))
    blue = method.colorize(shades)
    assert (blue[:, 2] > blue[:, 0] + 0.1).all()
    torch.testing.assert_close(gray(blue)[:, :1], shades, rtol=0, atol=5e-3)


def test_mistakes_are_named() -> None:
    for options, message in [
        ({"uniform_share": 1.5}, "uniform_share must be between 0 and 1, got 1.5"),
        ({"temperature": 0.0}, "temperature must be above 0 and at most 1, got 0.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            colorization(**options)
    with pytest.raises((ValueError, TypeError), match="blur"):
        colorization(target="blur")
    with pytest.raises(ValueError, match="3 channels, got images of 1"):
        Colorization(build_encoder("small", channels=1, image_size=16), image_size=16)
    with pytest.raises(ValueError, match="feature_map"):
        Colorization(build_encoder("vit_tiny", channels=3, image_size=16), image_size=16)
