"""SimCLR against equation 1 of the paper, its invariances, and one toy problem it must solve."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.engine.optim import make_optimizers
from selfsup.engine.train import train_step
from selfsup.method import Encoder, Recipe
from selfsup.methods.simclr import SimCLR, nt_xent


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def equation_1(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """The paper's formula, written as it is printed: two loops and no tricks."""
    z = [v / v.norm() for v in torch.cat([first, second])]
    n, total = len(first), 0.0
    for i in range(2 * n):
        similarity = [math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * n)]
        partner = (i + n) % (2 * n)
        total -= math.log(similarity[partner] / (sum(similarity) - similarity[i]))
    return total / (2 * n)


@pytest.mark.parametrize(("images", "temperature"), [(2, 0.1), (3, 0.5), (7, 1.0)])
def test_loss_is_equation_1(images: int, temperature: float) -> None:
    first, second = torch.randn(2, images, 5)
    expected = torch.tensor(equation_1(first, second, temperature))
    torch.testing.assert_close(nt_xent(first, second, temperature), expected)


def test_equal_projections_give_chance_level() -> None:
    same = torch.ones(6, 4)
    torch.testing.assert_close(nt_xent(same, same, 0.5), torch.tensor(math.log(2 * 6 - 1)))


def test_loss_ignores_length_order_and_side() -> None:
    first, second = torch.randn(2, 6, 4)
    loss, order = nt_xent(first, second, 0.2), torch.randperm(6)
    for a, b in [(second, first), (3 * first, second), (first[order], second[order])]:
        torch.testing.assert_close(nt_xent(a, b, 0.2), loss)


def test_it_learns_to_find_the_partner() -> None:
    torch.manual_seed(0)
    images = torch.randn(32, 3, 8, 8)
    method = SimCLR(TinyEncoder(), image_size=8, temperature=0.1, hidden_size=32, projection_size=16)
    optimizers = make_optimizers(method, Recipe(lr=1e-2, weight_decay=0.0))

    def two_views() -> dict[str, torch.Tensor]:
        first, second = images + 2 * torch.randn(2, *images.shape)  # noise twice as loud as the image
        return {"first": first, "second": second}

    for _ in range(100):
        train_step(method, [two_views()], optimizers)
    fresh = two_views()
    a, b = (F.normalize(method.embed(fresh[view]), dim=-1) for view in ("first", "second"))
    found = ((a @ b.T).argmax(dim=1) == torch.arange(32)).float().mean()
    assert found > 0.4, f"{found:.2f} of partners found; 0.12 before training, chance is 0.03"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        nt_xent(torch.randn(1, 4), torch.randn(1, 4), 0.5)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        SimCLR(TinyEncoder(), temperature=0.0)


def test_bfloat16_projections_are_compared_in_float32() -> None:
    first, second = torch.randn(2, 8, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(nt_xent(first, second, 0.1), nt_xent(first.float(), second.float(), 0.1), rtol=0.0, atol=0.0)


def test_the_head_is_dropped_after_training() -> None:
    method = SimCLR(TinyEncoder(), image_size=8)
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(method.embed(x), method.encoder(x))


def test_views_are_two_different_crops_of_the_same_images() -> None:
    method = SimCLR(TinyEncoder(), image_size=8)
    images = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8)
    views = method.views({"image": images}, torch.Generator().manual_seed(0))
    assert views["first"].shape == views["second"].shape == (6, 3, 8, 8)
    assert not torch.allclose(views["first"], views["second"])
