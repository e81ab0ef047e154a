"""VAE against equation 10 written naively, its closed form against samples, and data whose true likelihood is known."""

import math

import pytest
import torch

from selfsup.abilities import Decodes, Explains, Reconstructs, Samples
from selfsup.engine.step import train_step
from selfsup.evaluation.evidence import evidence_bound, importance_nll
from selfsup.methods.vae import VAE, charged, gaussian_kl
from selfsup.models import build_encoder


def of_images(channels: int = 2, image_size: int = 8, **options: float | str | bool) -> VAE:
    torch.manual_seed(0)
    return VAE(build_encoder("dcgan", channels=channels, image_size=image_size), image_size=image_size, latent_size=4, **options)


def of_vectors(columns: int = 5, **options: float | str | bool) -> VAE:
    torch.manual_seed(0)
    return VAE(build_encoder("mlp", channels=columns, image_size=0), image_size=0, latent_size=3, hidden_size=16, **options)


def test_divergence_is_its_closed_form_and_what_samples_say() -> None:
    mu, log_var = torch.randn(2, 6, 3, dtype=torch.float64)
    q, prior = torch.distributions.Normal(mu, (log_var / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    kl = gaussian_kl(mu, log_var)
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(q, prior), rtol=1e-9, atol=1e-9)
    z = q.sample((100_000,))
    torch.testing.assert_close((q.log_prob(z) - prior.log_prob(z)).mean(dim=0), kl, rtol=0.02, atol=0.02)
    assert not gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).any()
    naive = [
        [(float(m) ** 2 + math.exp(v) - 1 - float(v)) / 2 for m, v in zip(a, b, strict=True)] for a, b in zip(mu, log_var, strict=True)
    ]
    torch.testing.assert_close(kl, torch.tensor(naive, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_loss_is_equation_10_in_nats(likelihood: str) -> None:
    sigma = {"sigma": 1.0} if likelihood == "gaussian" else {}
    method = of_vectors(likelihood=likelihood, beta=0.3, **sigma).double().eval()
    x, noise = torch.rand(4, 5, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    h = (method.encoder(x) @ method.heads.weight.T + method.heads.bias).detach()
    parts = [0.0, 0.0]
    for i in range(4):
        mu, log_var = h[i, :3], h[i, 3:]
        out = method.decoder((mu + log_var.exp().sqrt() * noise[i])[None])[0].detach()
        for j in range(5):
            value, o = float(x[i, j]), float(out[j])
            if likelihood == "bernoulli":
                chance = 1 / (1 + math.exp(-o))
                parts[0] -= value * math.log(chance) + (1 - value) * math.log(1 - chance)
            else:
                parts[0] += 0.5 * (value - o) ** 2 + 0.5 * math.log(2 * math.pi)
        parts[1] += sum(0.5 * (math.exp(v) + m**2 - 1 - v) for m, v in zip(mu.tolist(), log_var.tolist(), strict=True))
    total = (parts[0] + 0.3 * parts[1]) / 4
    update = next(method.updates({"clean": x, "noise": noise}))
    assert float(update.loss.detach()) == pytest.approx(total, rel=1e-9)
    assert float(method.loss({"clean": x, "noise": noise}).detach()) == float(update.loss.detach())
    assert float(update.metrics["reconstruction_nats"].detach()) == pytest.approx(parts[0] / 4, rel=1e-9)
    assert float(update.metrics["kl_nats"].detach()) == pytest.approx(parts[1] / 4, rel=1e-9)
    assert int(update.metrics["active_units"]) == int((method.code(x).var(dim=0, correction=0) > 0.01).sum())


def test_free_bits_are_a_floor_of_each_unit_of_the_batch() -> None:
    kl = torch.tensor([[0.1, 2.0, 0.0], [0.5, 4.0, 0.2]], dtype=torch.float64, requires_grad=True)
    assert float(charged(kl.detach(), 0.0)) == pytest.approx(0.3 + 3.0 + 0.1)
    loss = charged(kl, 0.25)
    assert float(loss.detach()) == pytest.approx(0.3 + 3.0 + 0.25)
    (gradient,) = torch.autograd.grad(loss, kl)
    assert gradient.tolist() == [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]


def test_views_are_the_input_and_noise() -> None:
    raw = torch.randint(256, (4000, 1, 8, 8), dtype=torch.uint8)
    views = of_images(channels=1).views({"image": raw}, torch.Generator().manual_seed(0))
    torch.testing.assert_close(views["clean"], raw.float() / 255)
    assert views["noise"].shape == (4000, 4)
    assert float(views["noise"].mean()) == pytest.approx(0.0, abs=0.03)
    assert float(views["noise"].std()) == pytest.approx(1.0, abs=0.03)
    level = torch.full((4000, 1, 8, 8), 51, dtype=torch.uint8)
    drawn = of_images(channels=1, binarise=True).views({"image": level}, torch.Generator().manual_seed(0))["clean"]
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert float(drawn.mean()) == pytest.approx(0.2, abs=0.005)
    assert float(drawn.mean(dim=0).std()) < 0.01  # each value for itself
    extremes = of_images(channels=1, binarise=True).views({"image": 255 * (raw > 99).byte()}, torch.Generator())["clean"]
    assert torch.equal(extremes, (raw > 99).float())


def test_every_part_is_trained_and_noise_matters() -> None:
    for method, x in ((of_images(likelihood="gaussian"), torch.rand(6, 2, 8, 8)), (of_vectors(), torch.randn(6, 5))):
        views = {"clean": x, "noise": torch.randn(6, method.latent_size)}
        loss = method.loss(views)
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in method.parameters())
        assert float(method.loss({**views, "noise": -views["noise"]}).detach()) != float(loss.detach())


def test_beta_and_free_bits_leave_the_metrics_alone() -> None:
    views = {"clean": torch.rand(6, 2, 8, 8), "noise": torch.randn(6, 4)}
    plain, changed = (next(of_images(**options).updates(views)) for options in ({}, {"beta": 3.0, "free_bits": 0.5}))
    assert {name: float(value) for name, value in plain.metrics.items()} == {name: float(value) for name, value in changed.metrics.items()}
    assert float(plain.loss.detach()) == pytest.approx(float(plain.metrics["reconstruction_nats"] + plain.metrics["kl_nats"]), rel=1e-6)


@pytest.mark.parametrize(("channels", "size", "likelihood"), [(1, 9, "bernoulli"), (3, 33, "gaussian"), (6, 16, "bernoulli")])
def test_what_a_trained_one_can_do(channels: int, size: int, likelihood: str) -> None:
    method = of_images(channels, size, likelihood=likelihood).eval()
    assert all(isinstance(method, ability) for ability in (Reconstructs, Decodes, Samples, Explains))
    x = torch.rand(7, channels, size, size)
    with torch.no_grad():
        made = method.sample(3), method.reconstruct(x), method.decode(torch.zeros(2, 4))
        assert [tuple(m.shape) for m in made] == [(n, channels, size, size) for n in (3, 7, 2)]
        assert all(float(m.min()) >= 0 and float(m.max()) <= 1 for m in made)
        torch.testing.assert_close(made[1], method.decode(method.code(x)))
        mu, log_var = method.posterior(x)
        explained = method.explain(x)
    assert torch.equal(method.code(x), mu)
    torch.testing.assert_close(explained["KL of each dimension, nats"], gaussian_kl(mu, log_var).mean(dim=0))
    torch.testing.assert_close(explained["Variance of each dimension's mean"], mu.var(dim=0, correction=0))
    assert method.embed(x).shape == (7, method.encoder.width)


def test_vectors_come_back_in_their_units() -> None:
    torch.manual_seed(0)
    mean, std = torch.tensor([1e3, -5.0]), torch.tensor([10.0, 0.1])
    method = VAE(build_encoder("mlp", channels=2, image_size=0, mean=mean, std=std), image_size=0, latent_size=1).eval()
    with torch.no_grad():
        made = method.sample(50)
    assert float(((made - mean) / std).abs().max()) < 3
    assert method.likelihood.units[0] is method.encoder.normalize  # type: ignore[union-attr]
    assert len([name for name in method.state_dict() if name.endswith(".mean")]) == 1


def test_it_finds_the_factors_of_the_data_and_their_noise() -> None:
    """Two factors in six columns of different units: two units stay active, and fresh items are nearly as likely as in truth."""
    torch.manual_seed(0)
    unit = torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0, 5.0])
    w = torch.linalg.qr(torch.randn(6, 2))[0] * 1.7
    truth = torch.distributions.MultivariateNormal(torch.zeros(6), torch.diag(unit) @ (w @ w.T + 0.09 * torch.eye(6)) @ torch.diag(unit))
    std = truth.variance.sqrt()
    method = VAE(build_encoder("mlp", channels=6, image_size=0, mean=[0.0] * 6, std=std), image_size=0, latent_size=4, hidden_size=32)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=4e-3)}
    generator = torch.Generator().manual_seed(0)
    for step in range(350):
        optimizers["main"].param_groups[0]["lr"] = 4e-3 * (1 - step / 350)
        train_step(method, [method.views({"vector": truth.sample((128,))}, generator)], optimizers)
    method.eval()
    fresh = truth.sample((1000,))
    true_nll = -float(truth.log_prob(fresh).mean())
    bound = evidence_bound(method, [fresh])
    assert bound.active_units() == 2, bound.variance
    assert true_nll - 0.1 < -bound.elbo < true_nll + 0.6, f"bound {bound.elbo:.2f}, truth {-true_nll:.2f}"
    nll = float(importance_nll(method, fresh, samples=50).mean())
    assert true_nll - 0.1 < nll < -bound.elbo + 0.05
    spread = torch.cov(method.sample(2000).detach().T)
    explained = torch.diag(unit) @ w @ w.T @ torch.diag(unit)  # means of p(x|z) leave the noise out
    torch.testing.assert_close(spread / std.outer(std), explained / std.outer(std), rtol=0.0, atol=0.25)


def test_mistakes_are_named() -> None:
    for options, message in [
        ({"beta": -1.0}, "beta and free_bits must be at least 0, got beta=-1.0"),
        ({"binarise": True}, "a gaussian cannot describe; choose likelihood bernoulli"),
        ({"likelihood": "bernoulli", "sigma": 0.1}, "bernoulli likelihood has no sigma"),
    ]:
        with pytest.raises(ValueError, match=message):
            of_vectors(**options)
    with pytest.raises(ValueError, match="latent_size and hidden_size must be at least 1, got 0"):
        VAE(build_encoder("mlp", channels=2, image_size=0), image_size=0, latent_size=0)
    with pytest.raises(ValueError, match=r"needs values in \[0, 1\], got .* choose likelihood gaussian"):
        of_vectors(likelihood="bernoulli").loss({"clean": 3 * torch.ones(4, 5), "noise": torch.zeros(4, 3)})
    with pytest.raises(ValueError, match="at least 8 pixels wide here, got image_size=4"):
        VAE(build_encoder("small", channels=1, image_size=4), image_size=4)
