"""BYOL against algorithm 1 of the paper: loss, target, its schedule; and one toy problem it must solve."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.byol import BYOL, regression, tau_at
from selfsup.models import Encoder


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.width), nn.BatchNorm1d(self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def byol(**options: float) -> BYOL:
    torch.manual_seed(1)
    return BYOL(TinyEncoder(), image_size=8, **{"hidden_size": 12, "projection_size": 6} | options)


def two_views(batch: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return {"first": torch.rand(batch, 3, 8, 8, generator=g), "second": 2 * torch.rand(batch, 3, 8, 8, generator=g) ** 2}


def test_the_heads_are_those_of_section_3_and_begin_centred() -> None:
    method = byol()
    for head in (method.projector, method.predictor):
        assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        assert (head[0].out_features, head[-1].out_features) == (12, 6)
        torch.testing.assert_close(head[-1].weight.sum(dim=1), torch.zeros(6), rtol=0.0, atol=1e-6)


def test_regression_is_equation_2() -> None:
    q, z = torch.randn(2, 7, 5, dtype=torch.float64)
    expected = sum(float(((a / a.norm() - b / b.norm()) ** 2).sum()) for a, b in zip(q, z, strict=True)) / 7
    torch.testing.assert_close(regression(q, z), torch.tensor(expected, dtype=torch.float64), rtol=0.0, atol=1e-9)
    torch.testing.assert_close(regression(3 * q, z / 2), regression(q, z))


def test_regression_by_numbers() -> None:
    x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    for z, expected in [(x, 0.0), (y, 2.0), (-x, 4.0), (x + 6 * y, 2 - math.sqrt(2))]:
        torch.testing.assert_close(regression(x, z), torch.tensor(expected))


def test_tau_rises_by_a_cosine_from_its_base_to_1() -> None:
    for progress, expected in [(0.0, 0.9), (1 / 3, 1 - 0.1 * 0.75), (0.5, 0.95), (1.0, 1.0)]:
        assert tau_at(progress, 0.9) == pytest.approx(expected, abs=1e-12)


def test_training_is_algorithm_1() -> None:
    """Line by line: both views through both networks, the loss both ways, a step of theta, then xi follows with this step's tau."""
    method = byol(tau_base=0.8)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.3)
    theta = copy.deepcopy(nn.Sequential(method.encoder, method.projector))
    predictor = copy.deepcopy(method.predictor)
    xi = copy.deepcopy(theta)
    steps = 3
    for k in range(steps):
        views = two_views(5, k)
        t, t_prime = views["first"], views["second"]
        z_1, z_2 = predictor(theta(t)), predictor(theta(t_prime))
        z_2_prime, z_1_prime = xi(t).detach(), xi(t_prime).detach()
        loss = torch.tensor(0.0)
        for z, z_prime in [(z_1, z_1_prime), (z_2, z_2_prime)]:
            loss = loss - 2 * ((z * z_prime).sum(dim=1) / (z.norm(dim=1) * z_prime.norm(dim=1))).mean()
        weights = [*theta.parameters(), *predictor.parameters()]
        gradients = torch.autograd.grad(loss, weights)
        tau = 1 - (1 - 0.8) * (math.cos(math.pi * (k + 1) / steps) + 1) / 2
        with torch.no_grad():
            for p, g in zip(weights, gradients, strict=True):
                p -= 0.3 * g
            for p_xi, p_theta in zip(xi.parameters(), theta.parameters(), strict=True):
                p_xi.copy_(tau * p_xi + (1 - tau) * p_theta)

        logged = train_step(method, [views], {"main": optimizer})
        method.after_step((k + 1) / steps)
        torch.testing.assert_close(logged["loss"], 4 + loss.detach())  # equation 2 keeps the constant, 2 for each way
        online, target = nn.Sequential(method.encoder, method.projector), nn.Sequential(method.target_encoder, method.target_projector)
        for mine, by_hand in [(online, theta), (method.predictor, predictor), (target, xi)]:
            for (name, value), expected in zip(mine.state_dict().items(), by_hand.state_dict().values(), strict=True):
                torch.testing.assert_close(value, expected, msg=lambda text, at=f"step {k}, {name}": f"{at}: {text}")  # statistics too
    before = copy.deepcopy(method.target_encoder.state_dict())
    method.after_step(1.0)
    for name, value in method.target_encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_target_follows_by_numbers() -> None:
    method = byol(tau_base=0.75)
    targets = [*method.target_encoder.parameters(), *method.target_projector.parameters()]
    with torch.no_grad():
        for p in method.parameters():
            p.fill_(1.0 if any(p is t for t in targets) else 2.0)
    method.after_step(0.0)
    for p in targets:
        torch.testing.assert_close(p, torch.full_like(p, 0.75 * 1 + 0.25 * 2))
    assert all(bool((p == 2).all()) for p in [*method.encoder.parameters(), *method.projector.parameters(), *method.predictor.parameters()])


def test_the_gradient_reaches_the_online_network_only() -> None:
    method = byol()
    method.loss(two_views(4)).backward()
    for name, p in method.named_parameters():
        assert p.requires_grad == (not name.startswith("target_")), name
        assert (p.grad is not None and bool(p.grad.abs().sum() > 0)) == p.requires_grad, name


def test_the_loss_does_not_care_which_view_is_first() -> None:
    views, method = two_views(6), byol()
    torch.testing.assert_close(method.loss({"first": views["second"], "second": views["first"]}), method.loss(views))


def test_views_are_those_of_appendix_b() -> None:
    views = BYOL(TinyEncoder(), image_size=64, smallest_crop=0.08).views
    for look, blur, solarize in [(views.first, 1.0, 0.0), (views.second, 0.1, 0.2)]:
        assert (look.scale, look.flip, look.jitter, look.colours, look.gray) == ((0.08, 1.0), 0.5, 0.8, (0.4, 0.4, 0.2, 0.1), 0.2)
        assert (look.blur, look.sigma, look.solarize) == (blur, (0.1, 2.0), solarize)
    small = BYOL(TinyEncoder(), image_size=32).views
    assert (small.first.blur, small.second.blur, small.second.solarize) == (0.0, 0.0, 0.2)


def test_it_learns_to_find_the_partner(find_partners: Callable[..., tuple[float, float, Callable[[], float]]]) -> None:
    before, after, _ = find_partners(
        lambda: BYOL(TinyEncoder(), image_size=8, hidden_size=32, projection_size=16, tau_base=0.9), lr=3e-3, steps=300
    )
    assert after > 2 * before + 0.1, f"{after:.2f} of partners found, {before:.2f} before training; chance is 0.03"


def test_what_is_kept_is_the_online_encoder() -> None:
    method, x = byol().eval(), torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        method.encoder.net[1].weight.mul_(2)
    torch.testing.assert_close(method.embed(x), method.encoder(x))


def test_bfloat16_projections_are_compared_in_float32() -> None:
    q, z = torch.randn(2, 8, 4, dtype=torch.bfloat16)
    wide = regression(q.float(), z.float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(regression(q, z), wide, rtol=0.0, atol=0.0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"tau_base must be between 0 and 1, got 1.1"):
        byol(tau_base=1.1)
