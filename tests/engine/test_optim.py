"""Learning rates that fall towards the input: which block a parameter is in, by hand, and what a step makes of it."""

import sys
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from selfsup.engine.optim import layerwise_rates, make_optimizers, set_learning_rate
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models import build_encoder, wrap


def depths(encoder: nn.Module) -> dict[str, int]:
    """With a decay of a half the rates are powers of two, exactly."""
    rates = layerwise_rates(encoder, 0.5)
    return {name: round(-torch.tensor(rates[p]).log2().item()) for name, p in encoder.named_parameters()}


def test_blocks_are_those_of_each_network() -> None:
    small = depths(build_encoder("small", channels=1, image_size=8))
    assert {name.rsplit(".", 2)[0] for name, depth in small.items() if depth == 4} == {"stem"}
    assert small["blocks.0.conv1.weight"] == 3
    assert small["blocks.1.shortcut.1.weight"] == 2
    assert small["blocks.2.norm2.bias"] == 1
    assert max(depths(build_encoder("resnet18", channels=3, image_size=32)).values()) == 9
    vit = depths(build_encoder("vit_tiny", channels=3, image_size=8))
    assert vit["class_token"] == vit["positions"] == vit["embed_patch.weight"] == max(vit.values()) == 13
    assert vit["norm.weight"] == vit["blocks.11.norm1.weight"] == 1
    assert sorted(set(depths(build_encoder("mlp", channels=5, image_size=0)).values())) == [1, 2, 3]
    headed = depths(build_encoder("small", channels=1, image_size=8, head={"hidden_size": 4, "layers": 1}))
    assert headed["head.0.weight"] == headed["head.1.weight"] == 1
    assert headed["encoder.blocks.2.conv1.weight"] == 2
    own = depths(wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 7)), 3, 8))
    assert {name: depth for name, depth in own.items() if "weight" in name} == {
        "module.0.weight": 2,
        "module.1.weight": 2,
        "module.3.weight": 1,
    }
    assert set(depths(nn.Linear(2, 2)).values()) == {1}


class Two(Encoder):
    width = 2

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.high(self.low(x))


class Sum(Method):
    """Every gradient is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Two(), nn.Linear(2, 2)

    def loss(self, views: Batch) -> Tensor:
        return sum((p.sum() for p in self.parameters()), torch.zeros(()))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_moves_each_block_by_its_own_rate(optimizer: str) -> None:
    method = Sum()
    before = [p.detach().clone() for p in method.parameters()]
    recipe = Recipe(optimizer=optimizer, lr=7.0, momentum=0.9, weight_decay=0.0)
    optimizers = make_optimizers(method, recipe, layerwise_rates(method.encoder, 0.5))
    set_learning_rate(optimizers, 0.1)
    method.loss({}).backward()
    optimizers["main"].step()
    moved = [float((b - p.detach()).mean()) for b, p in zip(before, method.parameters(), strict=True)]
    assert moved == pytest.approx([0.025, 0.025, 0.05, 0.05, 0.1, 0.1], rel=1e-4)


def test_without_rates_there_are_two_groups_and_without_decay_one_rate() -> None:
    method = Sum()
    for rates in (None, layerwise_rates(method.encoder, 1.0)):
        groups = make_optimizers(method, Recipe(weight_decay=0.1), rates)["main"].param_groups
        assert [(len(g["params"]), g["weight_decay"], g["rate"]) for g in groups] == [(3, 0.1, 1.0), (3, 0.0, 1.0)]
    for decay in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            layerwise_rates(method.encoder, decay)


class One(Method):
    recipe = Recipe(optimizer="adamw", lr=0.1, weight_decay=0.5, batch_size=2)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = wrap(nn.Linear(3, 2), 3, 0)

    def loss(self, views: Batch) -> Tensor:
        return self.encoder(views["x"]).square().sum()


def three_steps(optimizer: Optimizer, method: One, again: Optimizer) -> list[Tensor]:
    """The weights after them; the third is made by another optimiser, which takes over the state."""
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        if step == 2:
            again.load_state_dict(optimizer.state_dict())
            optimizer = again
        optimizer.zero_grad()
        method.loss({"x": x}).backward()
        optimizer.step()
    return list(method.parameters())


def made(name: Literal["adamw", "sgd", "lars"], method: One) -> Optimizer:
    [optimizer] = make_optimizers(method, replace(One.recipe, optimizer=name)).values()
    return optimizer


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_steps_and_what_is_restored_are_torchs(name: Literal["adamw", "sgd"]) -> None:
    ours, theirs = One(), One()
    theirs.load_state_dict(ours.state_dict())
    settings = {"momentum": 0.9} if name == "sgd" else {}

    def of_torch() -> Optimizer:
        groups = [{"params": [p], "weight_decay": 0.5 if p.ndim > 1 else 0.0} for p in theirs.parameters()]
        return (torch.optim.AdamW if name == "adamw" else torch.optim.SGD)(groups, lr=0.1, fused=True, **settings)

    found = three_steps(made(name, ours), ours, made(name, ours))
    for mine, other in zip(found, three_steps(of_torch(), theirs, of_torch()), strict=True):
        assert mine.equal(other)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_training_does_without_torchs_compiler(name: Literal["adamw", "sgd", "lars"], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which every optimiser of torch imports, for two seconds, as soon as it is made."""
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it is an error now
    method = One()
    before = [p.clone() for p in method.parameters()]
    assert not any(a.equal(b) for a, b in zip(three_steps(made(name, method), method, made(name, method)), before, strict=True))
