"""Items to vectors: order, modes, and faults that name the item."""

import numpy as np
import pytest
import torch
from torch import nn

from selfsup.data import Items
from selfsup.evaluation.features import embed_items


class Norm(nn.Module):
    """A batch norm in training mode would let other images of the batch change a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.net[2].running_mean.fill_(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return self(x)


def test_vectors_come_in_order_whatever_the_batch(digits: tuple[Items, Items]) -> None:
    items, network = digits[1], Norm()
    whole = embed_items(network, items, 8)
    assert whole.shape == (500, 6)
    torch.testing.assert_close(embed_items(network, items, 8, batch_size=7), whole)
    some = np.array([400, 3, 77])
    torch.testing.assert_close(embed_items(network.embed, items.subset(some), 8), whole[some])
    expected = network.eval()(items.batch(some)["image"].float() / 255)
    torch.testing.assert_close(whole[some], expected)


def test_modes_are_put_back_and_no_gradient_is_kept(digits: tuple[Items, Items]) -> None:
    network = Norm().train()
    network.net[3].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    z = embed_items(network.embed, digits[1], 8, precision="bf16")
    assert z.dtype == torch.float32
    assert not z.requires_grad
    assert network.training
    assert not network.net[3].training
    for name, value in network.state_dict().items():
        assert value.equal(before[name]), name


def test_progress_ends_at_the_number_of_items(digits: tuple[Items, Items]) -> None:
    said: list[tuple[int, int]] = []
    embed_items(nn.Flatten(), digits[1], 8, batch_size=200, progress=lambda done, total: said.append((done, total)))
    assert said == [(200, 500), (400, 500), (500, 500)]


def test_a_broken_vector_names_its_item(digits: tuple[Items, Items]) -> None:
    items = digits[1].subset(np.arange(10))
    worst = int(items.batch(np.arange(10))["image"].flatten(1).sum(dim=1).argmax())
    limit = items.batch(np.array([worst]))["image"].sum() / 255 - 0.5

    def explode(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.flatten(1).sum(dim=1, keepdim=True) > limit, torch.inf, x.flatten(1))

    with pytest.raises(ValueError, match=f"the vector of {items.names[worst]} holds NaN or infinity"):
        embed_items(explode, items, 8)
    with pytest.raises(ValueError, match="holds no items"):
        embed_items(nn.Flatten(), items.subset(np.arange(0)), 8)
