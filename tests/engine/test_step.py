"""The training step against loops written by hand, and what it must refuse."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.engine.optim import LARS, learning_rate, make_optimizers, scaled_lr
from selfsup.engine.step import NotFiniteError, chunk_views, train_step
from selfsup.method import Batch, Method, Recipe, Update


class Regression(Method):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 1)

    def loss(self, views: Batch) -> Tensor:
        return (self.net(views["x"]) - views["y"]).square().mean()


class ToyGAN(Method):
    recipe = Recipe(optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.0)

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = nn.Linear(2, 3), nn.Linear(3, 1)

    def players(self) -> dict[str, nn.Module]:
        return {"discriminator": self.discriminator, "generator": self.generator}

    def updates(self, views: Batch) -> Iterator[Update]:
        real, fake = self.discriminator(views["x"]), self.discriminator(self.generator(views["z"]).detach())
        yield Update(F.softplus(-real).mean() + F.softplus(fake).mean(), "discriminator")
        yield Update(F.softplus(-self.discriminator(self.generator(views["z"]))).mean(), "generator", {"score": fake.mean().detach()})


def test_a_gan_steps_exactly_as_the_loop_written_by_hand() -> None:
    method, x, z = ToyGAN(), torch.randn(8, 3), torch.randn(8, 2)
    byhand = copy.deepcopy(method)
    d, g = (torch.optim.SGD(part.parameters(), lr=0.1) for part in (byhand.discriminator, byhand.generator))
    optimizers = make_optimizers(method, ToyGAN.recipe)
    for _ in range(3):
        values = train_step(method, [{"x": x, "z": z}], optimizers)
        d.zero_grad()
        real, fake = byhand.discriminator(x), byhand.discriminator(byhand.generator(z).detach())
        (F.softplus(-real).mean() + F.softplus(fake).mean()).backward()
        d.step()
        g.zero_grad()
        loss = F.softplus(-byhand.discriminator(byhand.generator(z))).mean()
        loss.backward()
        g.step()
    torch.testing.assert_close(values["loss/generator"], loss.detach(), rtol=0, atol=0)
    for a, b in zip(method.parameters(), byhand.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("method", [Regression(), ToyGAN()])
def test_micro_batches_equal_one_batch(method: Method) -> None:
    views = {"x": torch.randn(12, 3), "y": torch.randn(12, 1), "z": torch.randn(12, 2)}
    other = copy.deepcopy(method)
    whole = train_step(method, [views], make_optimizers(method, Recipe()))
    parts = train_step(other, chunk_views(views, 3), make_optimizers(other, Recipe()))
    torch.testing.assert_close(parts["loss"], whole["loss"])
    for a, b in zip(method.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_frozen_teacher_is_in_no_optimizer_and_never_moves() -> None:
    method = Regression()
    method.teacher = copy.deepcopy(method.net).requires_grad_(False)
    before = method.teacher.weight.clone()
    optimizers = make_optimizers(method, Recipe(weight_decay=0.5))
    held = {id(p) for group in optimizers["main"].param_groups for p in group["params"]}
    assert held == {id(p) for p in method.net.parameters()}
    train_step(method, [{"x": torch.randn(4, 3), "y": torch.randn(4, 1)}], optimizers)
    assert torch.equal(method.teacher.weight, before)


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_a_weight_that_is_frozen_for_a_while_stays_and_then_starts_afresh(optimizer: str) -> None:
    method, views = Regression(), {"x": torch.randn(4, 3), "y": torch.randn(4, 1)}
    optimizers = make_optimizers(method, Recipe(optimizer=optimizer, lr=0.1, weight_decay=0.5))
    before = method.net.bias.detach().clone()
    for frozen in (True, True, False):
        assert torch.equal(method.net.bias, before)  # neither gradient nor decay nor momentum
        method.net.bias.requires_grad_(not frozen)
        other = copy.deepcopy(method)
        train_step(method, [views], optimizers)
    assert not torch.equal(method.net.bias, before)
    train_step(other, [views], make_optimizers(other, Recipe(optimizer=optimizer, lr=0.1, weight_decay=0.5)))
    torch.testing.assert_close(method.net.bias, other.net.bias)  # as the first step of a weight that had never waited


def test_a_loss_that_is_not_finite_touches_no_weight() -> None:
    method = Regression()
    before = [p.clone() for p in method.parameters()]
    with pytest.raises(NotFiniteError, match='player "main" is nan'):
        train_step(method, [{"x": torch.full((2, 3), math.nan), "y": torch.zeros(2, 1)}], make_optimizers(method, Recipe()))
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), before, strict=True))


class OwnSteps(Regression):
    """Makes its steps itself: half of the way to the answer."""

    def updates(self, views: Batch) -> Iterator[Update]:
        loss = self.loss(views).detach()
        self.net.weight.data *= 0.5
        yield Update(loss, player=None, metrics={"size": self.net.weight.norm()})

    def players(self) -> dict[str, nn.Module]:
        return {}


def test_a_method_may_make_its_steps_itself() -> None:
    method = OwnSteps()
    views = {"x": torch.randn(4, 3), "y": torch.randn(4, 1)}
    expected, before = float(method.loss(views).detach()), method.net.weight.detach().clone()
    optimizers = make_optimizers(method, Recipe(optimizer="own"))
    assert optimizers == {}
    values = train_step(method, [views], optimizers)
    assert float(values["loss"]) == pytest.approx(expected)
    assert float(values["size"].detach()) == pytest.approx(float(before.norm()) / 2)
    assert torch.equal(method.net.weight, before / 2)
    assert method.net.weight.grad is None
    with pytest.raises(NotFiniteError, match="the loss is nan"):
        train_step(method, [{"x": views["x"] * math.nan, "y": views["y"]}], optimizers)


def test_clipping_bounds_the_norm_of_a_step() -> None:
    method = Regression()
    recipe = Recipe(optimizer="sgd", lr=1.0, momentum=0.0, weight_decay=0.0)
    before = torch.cat([p.detach().reshape(-1).clone() for p in method.parameters()])
    views = {"x": 100 * torch.randn(8, 3), "y": torch.zeros(8, 1)}
    values = train_step(method, [views], make_optimizers(method, recipe), clip=0.5)
    after = torch.cat([p.detach().reshape(-1) for p in method.parameters()])
    assert values["gradient_norm"] > 0.5
    torch.testing.assert_close((after - before).norm(), torch.tensor(0.5), rtol=1e-4, atol=0)


def test_lars_is_algorithm_1() -> None:
    w = nn.Parameter(torch.tensor([[3.0, 4.0]]))  # norm 5
    optimizer = LARS([w], lr=0.1, momentum=0.9, weight_decay=0.01, trust=0.001)
    velocity = torch.zeros(1, 2)
    for _ in range(2):
        w.grad = torch.tensor([[0.6, 0.8]])  # norm 1
        before = w.detach().clone()
        optimizer.step()
        norm = before.norm()
        local = 0.001 * norm / (1.0 + 0.01 * norm)
        velocity = 0.1 * local * (w.grad + 0.01 * before) + 0.9 * velocity
        torch.testing.assert_close(w.detach(), before - velocity)


def test_the_rate_climbs_then_falls_to_zero() -> None:
    recipe = Recipe(lr=2.0, warmup=0.1)
    rates = [learning_rate(recipe, p) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([0.0, 1.0, 2.0, 1.0, 0.0])
    assert learning_rate(Recipe(lr=2.0, warmup=0.0, schedule="constant"), 0.9) == 2.0
    line = Recipe(lr=2.0, warmup=0.2, schedule="linear")
    assert [learning_rate(line, p) for p in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([1.0, 2.0, 1.0, 0.0])
    assert scaled_lr(Recipe(lr=1.0, batch_size=256), 1024) == 2.0
    assert scaled_lr(Recipe(optimizer="own", lr=1.0, batch_size=256), 1024) == 1.0
    assert scaled_lr(Recipe(optimizer="sgd", lr=1.0, batch_size=256), 1024) == 4.0


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="cannot be split into 3 equal parts"):
        chunk_views({"x": torch.zeros(8, 2)}, 3)

    class Wrong(ToyGAN):
        def updates(self, views: Batch) -> Iterator[Update]:
            yield Update(self.generator(views["z"]).mean(), "genrator")

    method = Wrong()
    with pytest.raises(ValueError, match='names the player "genrator"; `players` has discriminator, generator'):
        train_step(method, [{"z": torch.zeros(2, 2)}], make_optimizers(method, Recipe()))

    class Shared(ToyGAN):
        def players(self) -> dict[str, nn.Module]:
            return {"a": self.generator, "b": self}

    with pytest.raises(ValueError, match='belongs to the players "a" and "b"'):
        make_optimizers(Shared(), Recipe())
