"""VQ-VAE against equations 1 to 3 and appendix A.1, who gets which gradient, restarts, and images that it must give back and make."""

import math

import pytest
import torch
from torch import nn

from selfsup.engine.optim import make_optimizers, set_learning_rate
from selfsup.engine.step import train_step
from selfsup.method import Encoder
from selfsup.methods.vqvae import VQVAE, Whole, equation_3, nearest, perplexity
from selfsup.models import build_encoder


class TinyEncoder(Encoder):
    """2x2 pixels become one vector."""

    width, downsample = 6, 2

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.net = nn.Conv2d(channels, self.width, 2, 2)
        self.spec = {"name": "own", "channels": channels, "image_size": 8}

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(nn.functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.feature_map(x).mean(dim=(2, 3))


def tiny(image_size: int = 8, channels: int = 1, **options: object) -> VQVAE:
    torch.manual_seed(1)
    settings = {"codebook_size": 5, "code_size": 3, "prior_planes": 8, "prior_layers": 2} | options
    method = VQVAE(TinyEncoder(channels), image_size=image_size, **settings)  # type: ignore[arg-type]
    nn.init.normal_(method.codebook.weight)
    return method


def vectors(method: VQVAE, x: torch.Tensor) -> torch.Tensor:
    """z_e of every position, (N, D)."""
    return method.projection(method.encoder.feature_map(x)).permute(0, 2, 3, 1).flatten(0, 2)  # type: ignore[operator]


def test_the_nearest_is_found() -> None:
    z, codebook = torch.randn(3, 4, 5, 6, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    codes = nearest(z, codebook)
    for b in range(3):
        for i in range(5):
            for j in range(6):
                distances = [float(((z[b, :, i, j] - e) ** 2).sum()) for e in codebook]
                assert distances.index(min(distances)) == codes[b, i, j]


def test_the_loss_is_equation_3() -> None:
    x, x_hat = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    z_e, e = torch.randn(2, 2, 5, 2, 2, dtype=torch.float64)

    def mean_square(a: torch.Tensor, b: torch.Tensor) -> float:
        return sum((float(p) - float(q)) ** 2 for p, q in zip(a.flatten(), b.flatten(), strict=True)) / a.numel()

    by_hand = mean_square(x, x_hat) + 0.25 * mean_square(z_e, e)
    assert abs(float(equation_3(x, x_hat, z_e, e, 0.25, codebook_loss=False)) - by_hand) < 1e-9
    assert abs(float(equation_3(x, x_hat, z_e, e, 0.25, codebook_loss=True)) - by_hand - mean_square(z_e, e)) < 1e-9


@pytest.mark.parametrize("codebook", ["loss", "ema"])
def test_each_part_gets_the_gradient_of_its_own_terms(codebook: str) -> None:
    """The decoder of the error; the encoder of the error, straight through, and of the commitment; codes of the second term, or of none."""
    method, x = tiny(codebook=codebook, beta=0.5), torch.rand(3, 1, 8, 8)
    method.loss({"image": x}).backward()
    z = vectors(method, x).detach().requires_grad_()
    codes = torch.cdist(z, method.codebook.weight).argmin(dim=1)
    z_q = method.codebook.weight[codes].detach().requires_grad_()
    error = ((method.decoder(z_q.view(3, 4, 4, 3).permute(0, 3, 1, 2)) - x) ** 2).mean()
    to_decoder = torch.autograd.grad(error, [z_q, *method.decoder.parameters()])
    for p, expected in zip(method.decoder.parameters(), to_decoder[1:], strict=True):
        torch.testing.assert_close(p.grad, expected)
    difference = (z - z_q).detach()
    at_z = to_decoder[0] + 0.5 * 2 * difference / difference.numel()
    for part in (method.encoder, method.projection):
        expected = torch.autograd.grad((vectors(method, x) * at_z).sum(), list(part.parameters()))
        for p, gradient in zip(part.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, gradient)
    if codebook == "ema":
        assert method.codebook.weight.grad is None
    else:
        expected = torch.zeros(5, 3).index_add_(0, codes, -2 * difference / difference.numel())
        torch.testing.assert_close(method.codebook.weight.grad, expected)
    assert all(p.grad is None for p in method.prior.parameters())


def test_running_means_are_appendix_a_1() -> None:
    method = tiny(codebook="ema", gamma=0.9, restart=0.0)
    e = [row.tolist() for row in method.codebook.weight]
    counts, sums = [0.0] * 5, [[0.0] * 3 for _ in range(5)]
    for _ in range(3):
        x = torch.rand(2, 1, 8, 8)
        z = vectors(method, x).tolist()
        method.loss({"image": x})
        method.after_step(0.0)
        groups: list[list[list[float]]] = [[] for _ in range(5)]
        for row in z:
            distances = [math.dist(row, code) for code in e]
            groups[distances.index(min(distances))].append(row)
        for k in range(5):  # equations 6 to 8
            counts[k] = 0.9 * counts[k] + 0.1 * len(groups[k])
            sums[k] = [0.9 * m + 0.1 * sum(row[d] for row in groups[k]) for d, m in enumerate(sums[k])]
            e[k] = [m / counts[k] for m in sums[k]] if counts[k] else e[k]
        torch.testing.assert_close(method.codebook.weight, torch.tensor(e))
    torch.testing.assert_close(method.usage, torch.tensor(counts))


def test_micro_batches_are_counted_together_and_evaluation_is_not() -> None:
    whole, parts, x = tiny(restart=0.0), tiny(restart=0.0), torch.rand(4, 1, 8, 8)
    whole.loss({"image": x})
    for part in x.chunk(2):
        parts.loss({"image": part})
    parts.eval().loss({"image": torch.rand(2, 1, 8, 8)})
    for method in (whole, parts):
        method.after_step(0.1)
    torch.testing.assert_close(parts.codebook.weight, whole.codebook.weight)
    torch.testing.assert_close(parts.usage, whole.usage)
    before = parts.usage.clone()
    parts.after_step(0.2)
    assert torch.equal(parts.usage, before)


@pytest.mark.parametrize("codebook", ["loss", "ema"])
def test_dead_codes_begin_again_at_vectors_of_the_batch(codebook: str) -> None:
    method, x = tiny(codebook=codebook, restart=0.1), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        method.codebook.weight[3:] = 1e3  # nothing is near these two
    z = vectors(method, x)
    alive = torch.cdist(z, method.codebook.weight).argmin(dim=1).bincount(minlength=5) > 0
    codes = method.codebook.weight.clone()
    method.loss({"image": x})
    method.after_step(0.0)
    for k in (3, 4):
        assert float(torch.cdist(method.codebook.weight[k : k + 1], z).min().detach()) < 1e-5
    assert not torch.equal(method.codebook.weight[3], method.codebook.weight[4])
    torch.testing.assert_close(method.usage[3], torch.tensor(0.01 * 64 / 5))  # as if it had been used like the average
    if codebook == "loss":
        assert torch.equal(method.codebook.weight[alive], codes[alive])
    moved = method.codebook.weight.clone()
    method.loss({"image": x})
    method.after_step(0.0)
    if codebook == "loss":
        assert torch.equal(method.codebook.weight, moved), "a code that was put on a vector is not dead in the next step"


def test_perplexity_by_numbers() -> None:
    assert float(perplexity(torch.tensor([4.0, 0.0, 0.0]))) == 1.0
    torch.testing.assert_close(perplexity(torch.full((7,), 3.0)), torch.tensor(7.0))
    torch.testing.assert_close(perplexity(torch.tensor([2.0, 1.0, 1.0])), torch.tensor(2**1.5))


def test_the_prior_is_a_player_of_its_own_that_begins_later() -> None:
    method, views = tiny(prior_from=0.5), {"image": torch.rand(2, 1, 8, 8)}
    method.progress = 0.49
    assert [update.player for update in method.updates(views)] == ["main"]
    method.progress = 0.5
    main, prior = method.updates(views)
    assert (main.player, prior.player) == ("main", "prior")
    prior.loss.backward()
    trained = {name for name, p in method.named_parameters() if p.grad is not None}
    assert trained == {f"prior.{name}" for name, _ in method.prior.named_parameters()}
    logits = method.prior(method.quantise(views["image"]))
    chances = logits.softmax(dim=1).gather(1, method.quantise(views["image"])[:, None])
    torch.testing.assert_close(prior.loss.detach(), -chances.log2().mean().detach())
    owned = {id(p) for player in method.players().values() for p in player.parameters()}
    assert owned == {id(p) for p in method.parameters()}


@pytest.mark.parametrize(("encoder", "channels", "size"), [("vq_2", 2, 9), ("vq_4", 1, 33), ("vq_8", 6, 20), ("small", 3, 17)])
def test_images_of_any_size_and_channels(encoder: str, channels: int, size: int) -> None:
    method = VQVAE(build_encoder(encoder, channels=channels, image_size=size), image_size=size, prior_planes=4, prior_layers=1)
    raw = {"image": torch.randint(256, (3, channels, 33, 47), dtype=torch.uint8)}
    method.loss(method.views(raw, torch.Generator())).backward()
    method.after_step(0.1)
    method.eval()
    h, w = -(-33 // method.downsample), -(-47 // method.downsample)
    x = raw["image"] / 255
    codes = method.quantise(x)
    assert codes.shape == (3, h, w)
    assert method.from_codes(codes).shape == (3, channels, h * method.downsample, w * method.downsample)
    images = method.reconstruct(x)
    assert images.shape == x.shape
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert torch.equal(method.reconstruct(x[1:2])[0], images[1]), "an image must not depend on those beside it"
    assert method.sample(2).shape == (2, channels, size, size)
    [share] = method.explain(x).values()
    torch.testing.assert_close(share, codes.flatten().bincount(minlength=512) / codes.numel())
    assert method.embed(x).shape == (3, method.encoder.width)


def test_the_view_is_the_image() -> None:
    raw = {"image": torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)}
    torch.testing.assert_close(Whole(8)(raw, torch.Generator())["image"], raw["image"] / 255)


@pytest.mark.parametrize("codebook", ["loss", "ema"])
def test_it_gives_images_back_and_makes_such(codebook: str) -> None:
    """Images are a column of blocks, all of one of four grays: one code a block is enough, and the first tells all others."""
    torch.manual_seed(0)
    method = tiny(codebook=codebook, codebook_size=4, gamma=0.9, prior_from=0.3, prior_planes=32)

    def images(n: int) -> torch.Tensor:
        grays = torch.tensor([0.1, 0.4, 0.6, 0.9])[torch.randint(4, (n, 1, 1, 1))]
        return (grays + 0.02 * torch.randn(n, 1, 8, 8)).clamp(0, 1)

    optimizers, values = make_optimizers(method, method.recipe), {}
    for step in range(150):
        set_learning_rate(optimizers, 1e-2 * (1 - step / 150))
        method.progress = step / 150
        values = train_step(method, [{"image": images(16)}], optimizers)
        method.after_step((step + 1) / 150)
    method.eval()
    x = images(200)
    error = float((method.reconstruct(x) - x).square().mean() / x.var())
    assert error < 0.05, f"{error:.2f} of the variance lost; with one code for all it would be 1"
    made = method.sample(200)
    within, between = float(made.var(dim=(1, 2, 3)).mean()), float(made.mean(dim=(1, 2, 3)).var())
    assert between > 0.05, f"samples have the variance {between:.3f} among them, images 0.08"
    assert within < 0.1 * between, "a sample is of one gray, as its codes know of each other"
    bits = float(values["bits of a code"])
    assert bits < 0.3, f"{bits:.2f} bits of a code; 2 without the others, 2 / 16 is all that is new in one"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r'needs an encoder with a map of vectors: vq_2, .* got "resnet18"'):
        VQVAE(build_encoder("resnet18", channels=3, image_size=32))
    for options, message in [
        ({"codebook_size": 1}, "codebook_size must be 2 to 16384.*got codebook_size=1"),
        ({"prior_layers": 0}, "prior_layers=0"),
        ({"beta": -1.0}, "beta and restart must be at least 0"),
        ({"gamma": 1.5}, "gamma=1.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            tiny(**options)
    with pytest.raises((ValueError, TypeError), match="mean"):
        tiny(codebook="mean")
    with pytest.raises(ValueError, match="codes must be 0 to 4, got 0 to 5"):
        tiny().from_codes(torch.tensor([[[0, 5]]]))
