"""SimSiam against equations 1 to 4 and algorithm 1, and the stop-gradient that keeps it from collapsing."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.simsiam import SimSiam, distance
from selfsup.models import Encoder


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.width), nn.BatchNorm1d(self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def simsiam() -> SimSiam:
    torch.manual_seed(1)
    return SimSiam(TinyEncoder(), image_size=8, projection_size=12, bottleneck=4)


def two_views(batch: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return {"first": torch.rand(batch, 3, 8, 8, generator=g), "second": 2 * torch.rand(batch, 3, 8, 8, generator=g) ** 2}


def test_distance_is_equation_1() -> None:
    p, z = torch.randn(2, 7, 5, dtype=torch.float64)
    naive = -sum(float((a / a.norm()) @ (b / b.norm())) for a, b in zip(p, z, strict=True)) / 7
    torch.testing.assert_close(distance(p, z), torch.tensor(naive, dtype=torch.float64), rtol=0.0, atol=1e-9)
    torch.testing.assert_close(distance(3 * p, z / 2), distance(p, z))


def test_distance_by_numbers() -> None:
    x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    for z, expected in [(x, -1.0), (y, 0.0), (-x, 1.0), (x + 6 * y, -(2**-0.5))]:
        torch.testing.assert_close(distance(x, z), torch.tensor(expected))


def test_no_gradient_flows_into_the_target() -> None:
    p, z = (x.requires_grad_() for x in torch.randn(2, 5, 3))
    distance(p, z).backward()
    assert p.grad is not None
    assert p.grad.abs().sum() > 0
    assert z.grad is None


def test_training_is_algorithm_1() -> None:
    method = simsiam()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.3)
    f, h = copy.deepcopy(nn.Sequential(method.encoder, method.projector)), copy.deepcopy(method.predictor)
    for step in range(3):
        views = two_views(5, step)
        z1, z2 = f(views["first"]), f(views["second"])
        p1, p2 = h(z1), h(z2)
        z1, z2 = z1.detach(), z2.detach()
        loss = torch.tensor(0.0)
        for p, z in [(p1, z2), (p2, z1)]:
            loss = loss - ((p / p.norm(dim=1, keepdim=True)) * (z / z.norm(dim=1, keepdim=True))).sum(dim=1).mean() / 2
        weights = [*f.parameters(), *h.parameters()]
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for w, g in zip(weights, gradients, strict=True):
                w -= 0.3 * g

        logged = train_step(method, [views], {"main": optimizer})
        torch.testing.assert_close(logged["loss"], loss.detach())
        for mine, by_hand in [(nn.Sequential(method.encoder, method.projector), f), (method.predictor, h)]:
            for (name, value), expected in zip(mine.state_dict().items(), by_hand.state_dict().values(), strict=True):
                torch.testing.assert_close(value, expected, msg=lambda text, at=f"step {step}, {name}": f"{at}: {text}")  # statistics too


def test_both_views_predict_each_other() -> None:
    views, method = two_views(6), simsiam()
    torch.testing.assert_close(method.loss({"first": views["second"], "second": views["first"]}), method.loss(views))


def test_the_heads_are_those_of_section_3() -> None:
    method = simsiam()
    kinds = [type(layer).__name__ for layer in method.projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert [type(layer).__name__ for layer in method.predictor] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert (method.predictor[0].in_features, method.predictor[0].out_features, method.predictor[-1].out_features) == (12, 4, 12)
    assert all(p.requires_grad for p in method.parameters())


def test_views_are_those_of_section_3() -> None:
    views = SimSiam(TinyEncoder(), image_size=64).views
    for look in (views.first, views.second):
        assert (look.scale, look.flip, look.jitter, look.colours, look.gray) == ((0.2, 1.0), 0.5, 0.8, (0.4, 0.4, 0.4, 0.1), 0.2)
        assert (look.blur, look.sigma, look.solarize) == (0.5, (0.1, 2.0), 0.0)
    assert SimSiam(TinyEncoder(), image_size=32).views.first.blur == 0


def test_it_learns_to_find_the_partner(find_partners: Callable[..., tuple[float, float, Callable[[], float]]]) -> None:
    before, after, _ = find_partners(lambda: SimSiam(TinyEncoder(), image_size=8, projection_size=32, bottleneck=8), lr=3e-3, steps=300)
    assert after > 2 * before + 0.1, f"{after:.2f} of partners found, {before:.2f} before training; chance is 0.03"


def test_bfloat16_projections_are_compared_in_float32() -> None:
    p, z = torch.randn(2, 8, 4, dtype=torch.bfloat16)
    wide = distance(p.float(), z.float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(distance(p, z), wide, rtol=0.0, atol=0.0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="all of them positive"):
        SimSiam(TinyEncoder(), bottleneck=0)
