"""Discrete autoencoder: the Gumbel-softmax written naively, draws against their probabilities, and clusters it must find."""

import math

import numpy as np
import pytest
import torch

from selfsup.abilities import Decodes, Explains, Reconstructs, Samples
from selfsup.engine.step import train_step
from selfsup.evaluation.clusters import cluster_scores
from selfsup.methods.discrete_autoencoder import CleanAndGumbel, DiscreteAutoencoder, divergence, hardest, perplexity, relax
from selfsup.models import build_encoder

ONE_HOT = {"code": "one_hot", "code_size": 4, "variables": 3}
BINARY = {"code": "binary", "code_size": 5}


def of_images(channels: int = 2, image_size: int = 8, **options: float | str) -> DiscreteAutoencoder:
    torch.manual_seed(0)
    return DiscreteAutoencoder(build_encoder("dcgan", channels=channels, image_size=image_size), image_size=image_size, **options)


def of_vectors(columns: int = 5, **options: float | str) -> DiscreteAutoencoder:
    torch.manual_seed(0)
    return DiscreteAutoencoder(build_encoder("mlp", channels=columns, image_size=0), image_size=0, hidden_size=16, **options)


def test_relaxation_is_equation_2() -> None:
    logits, noise = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    y = relax(logits, noise, 0.7, hard=False)
    for b in range(3):
        for v in range(2):
            scores = [math.exp((float(logits[b, v, s]) + float(noise[b, v, s])) / 0.7) for s in range(4)]
            expected = torch.tensor([score / sum(scores) for score in scores], dtype=torch.float64)
            torch.testing.assert_close(y[b, v], expected, rtol=1e-9, atol=1e-9)
    bits = relax(logits[..., :1], noise[..., :1], 0.7, hard=False)
    naive = 1 / (1 + torch.exp(-(logits[..., :1] + noise[..., :1]) / 0.7))
    torch.testing.assert_close(bits, naive, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("symbols", [1, 4])
def test_straight_through_is_hard_with_the_gradient_of_soft(symbols: int) -> None:
    logits = torch.randn(6, 2, symbols, dtype=torch.float64, requires_grad=True)
    noise, weight = torch.randn(2, 6, 2, symbols, dtype=torch.float64)
    soft, hard = (relax(logits, noise, 0.5, hard=hard) for hard in (False, True))
    torch.testing.assert_close(hard, hardest(soft - 0.5 if symbols == 1 else soft))
    assert set(hard.detach().round(decimals=9).unique().tolist()) == {0.0, 1.0}
    gradients = [torch.autograd.grad((y * weight).sum(), logits)[0] for y in (soft, hard)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)
    assert gradients[0].any()


def test_draws_have_the_probabilities_of_q() -> None:
    n = 40_000
    logits = torch.tensor([[2.0, 0.0, -1.0, 0.5]]).expand(n, 1, 4)
    noise = CleanAndGumbel(0, 1, 4)({"vector": torch.zeros(n, 1)}, torch.Generator().manual_seed(0))["noise"]
    drawn = relax(logits, noise, 1.0, hard=True).mean(dim=(0, 1))
    torch.testing.assert_close(drawn, logits[0, 0].softmax(dim=0), rtol=0.0, atol=0.01)
    noise = CleanAndGumbel(0, 1, 1)({"vector": torch.zeros(n, 1)}, torch.Generator().manual_seed(0))["noise"]
    bit = relax(torch.full((n, 1, 1), -1.2), noise, 1.0, hard=True).mean()
    assert float(bit) == pytest.approx(1 / (1 + math.exp(1.2)), abs=0.01)


def test_divergence_from_uniform() -> None:
    logits = torch.randn(3, 2, 4, dtype=torch.float64)
    q = logits.softmax(dim=2)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(q), torch.distributions.Categorical(torch.full((4,), 0.25, dtype=torch.float64))
    )
    torch.testing.assert_close(divergence(logits), expected, rtol=1e-9, atol=1e-9)
    chance = logits[..., :1].sigmoid()
    bits = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(chance), torch.distributions.Bernoulli(torch.full_like(chance, 0.5))
    )
    torch.testing.assert_close(divergence(logits[..., :1]), bits[..., 0], rtol=1e-9, atol=1e-9)
    sure = torch.tensor([[[200.0, 0.0, 0.0, 0.0]]])
    assert float(divergence(sure)) == pytest.approx(math.log(4))
    assert float(divergence(0 * sure)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("code", [ONE_HOT, BINARY])
def test_the_loss_is_the_negative_bound(code: dict[str, str | int]) -> None:
    method = of_vectors(likelihood="bernoulli", beta=0.3, temperature=0.8, **code).double().eval()
    x = torch.rand(4, 5, dtype=torch.float64)
    noise = method.views({"vector": x}, torch.Generator().manual_seed(0))["noise"].double()
    with torch.no_grad():
        logits = (method.encoder(x) @ method.head.weight.T + method.head.bias).view(4, *method.shape)
        scores = (logits + noise) / float(method.temperature)
        y = scores.softmax(dim=2) if code is ONE_HOT else scores.sigmoid()
        out = method.decoder(y.reshape(4, -1))
        reconstruction = -(x * out.sigmoid().log() + (1 - x) * (-out).sigmoid().log()).sum(dim=1)
        kl = divergence(logits).sum(dim=1)
        update = next(method.updates({"clean": x, "noise": noise}))
    assert float(update.loss) == pytest.approx(float((reconstruction + 0.3 * kl).mean()), rel=1e-9)
    assert float(update.metrics["reconstruction_nats"]) == pytest.approx(float(reconstruction.mean()), rel=1e-9)
    assert float(update.metrics["kl_nats"]) == pytest.approx(float(kl.mean()), rel=1e-9)
    assert float(update.metrics["symbols_used"]) == pytest.approx(float(perplexity(hardest(logits)).mean()))


def test_use_of_symbols_by_hand() -> None:
    hard = torch.tensor([[[1.0, 0, 0], [1, 0, 0]], [[0, 1, 0], [1, 0, 0]]])
    assert perplexity(hard).tolist() == pytest.approx([2.0, 1.0])
    assert perplexity(torch.tensor([[[1.0], [1.0]], [[0.0], [1.0]]])).tolist() == pytest.approx([2.0, 1.0])


def test_temperature_falls_exponentially_with_progress() -> None:
    method = of_vectors(temperature=2.0, last_temperature=0.5)
    seen = [float(method.temperature)]
    for progress in (0.5, 1.0):
        method.after_step(progress)
        seen.append(float(method.temperature))
    assert seen == pytest.approx([2.0, 1.0, 0.5])
    assert "temperature" in method.state_dict()
    x, noise = torch.rand(4, 5), torch.randn(4, 64, 1)
    cold = float(method.loss({"clean": x, "noise": noise}).detach())
    method.after_step(0.0)
    assert float(method.loss({"clean": x, "noise": noise}).detach()) != cold


@pytest.mark.parametrize("estimator", ["gumbel_softmax", "straight_through"])
@pytest.mark.parametrize("code", [ONE_HOT, BINARY])
def test_every_part_is_trained(code: dict[str, str | int], estimator: str) -> None:
    for method, raw in (
        (of_images(estimator=estimator, **code), {"image": torch.randint(256, (6, 2, 8, 8), dtype=torch.uint8)}),
        (of_vectors(estimator=estimator, **code), {"vector": torch.randn(6, 5)}),
    ):
        method.loss(method.views(raw, torch.Generator().manual_seed(0))).backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in method.parameters())


@pytest.mark.parametrize(("channels", "size", "code"), [(1, 9, ONE_HOT), (3, 33, BINARY), (6, 16, {"code": "one_hot", "code_size": 7})])
def test_what_a_trained_one_can_do(channels: int, size: int, code: dict[str, str | int]) -> None:
    method = of_images(channels, size, **code).eval()
    assert all(isinstance(method, ability) for ability in (Reconstructs, Decodes, Samples, Explains))
    x = torch.rand(7, channels, size, size)
    with torch.no_grad():
        z, symbols, logits = method.code(x), method.symbols(x), method.logits(x)
        made = method.sample(3), method.reconstruct(x), method.decode(z)
        (explained,) = method.explain(x).values()
    assert [tuple(m.shape) for m in made] == [(n, channels, size, size) for n in (3, 7, 7)]
    assert all(float(m.min()) >= 0 and float(m.max()) <= 1 for m in made)
    assert torch.equal(made[1], made[2])
    assert set(z.unique().tolist()) <= {0.0, 1.0}
    if code is BINARY:
        assert torch.equal(symbols, (logits[..., 0] > 0).long())
        assert torch.equal(z, symbols.float())
        torch.testing.assert_close(explained, z.mean(dim=0))
    else:
        assert torch.equal(symbols, logits.argmax(dim=2))
        assert z.view(7, *method.shape).argmax(dim=2).equal(symbols)
        assert z.sum(dim=1).tolist() == [float(method.shape[0])] * 7
        torch.testing.assert_close(explained, z.mean(dim=0) if code is not ONE_HOT else perplexity(z.view(7, 3, 4)))
    assert method.embed(x).shape == (7, method.encoder.width)


@pytest.mark.parametrize("estimator", ["gumbel_softmax", "straight_through"])
def test_symbols_find_the_clusters_of_fresh_items(estimator: str) -> None:
    torch.manual_seed(3)
    centres = 3 * torch.randn(4, 6)
    method = of_vectors(6, code="one_hot", code_size=16, sigma=0.5, estimator=estimator)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=5e-3)}
    generator = torch.Generator().manual_seed(0)

    def items(n: int) -> tuple[torch.Tensor, np.ndarray]:
        y = torch.randint(4, (n,))
        return centres[y] + 0.5 * torch.randn(n, 6), y.numpy()

    for step in range(80):
        train_step(method, [method.views({"vector": items(64)[0]}, generator)], optimizers)
        method.after_step((step + 1) / 80)
    x, y = items(500)
    with torch.no_grad():
        scores = cluster_scores(method.eval().symbols(x)[:, 0].numpy(), y)
    assert scores.many_to_one > 0.9, scores


@pytest.mark.parametrize("estimator", ["gumbel_softmax", "straight_through"])
def test_bits_tell_independent_factors(estimator: str) -> None:
    """Three coins decide the item; ten bits must keep them all, so that items come back from their hard codes."""
    torch.manual_seed(0)
    basis = 2 * torch.linalg.qr(torch.randn(6, 3))[0]
    method = of_vectors(6, code="binary", code_size=10, sigma=0.3, estimator=estimator)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=5e-3)}
    generator = torch.Generator().manual_seed(0)

    def items(n: int) -> torch.Tensor:
        return (2.0 * torch.randint(2, (n, 3)) - 1) @ basis.T + 0.1 * torch.randn(n, 6)

    for step in range(100):
        train_step(method, [method.views({"vector": items(64)}, generator)], optimizers)
        method.after_step((step + 1) / 100)
    x = items(500)
    with torch.no_grad():
        error = float(((method.eval().reconstruct(x) - x) ** 2).mean())
    assert error < 0.06 * float(x.var()), f"{error:.3f} of {float(x.var()):.3f}"


def test_mistakes_are_named() -> None:
    for options, message in [
        ({"code": "one_hot", "code_size": 1}, "code_size 2 or more and variables 1 or more, got 1 and 1"),
        ({"code": "binary", "variables": 2}, "variables 1, got 64 and 2"),
        ({"temperature": 0.0}, r"temperature and last_temperature must be positive, got 0\.0"),
        ({"beta": -1.0}, r"beta must be at least 0, got -1\.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            of_vectors(**options)
    for wrong in ({"code": "ternary"}, {"estimator": "ternary"}):
        with pytest.raises((ValueError, TypeError), match="ternary"):
            of_vectors(**wrong)
    with pytest.raises(ValueError, match="choose likelihood gaussian"):
        of_vectors(likelihood="bernoulli").loss({"clean": 3 * torch.ones(4, 5), "noise": torch.zeros(4, 64, 1)})
