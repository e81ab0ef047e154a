"""Rotation: all four turns of every image, the loss by hand, and orientations that it must learn to tell."""

import math

import pytest
import torch
from torch import nn

from selfsup.engine.train import chunk_views, train_step
from selfsup.methods.rotation import FourRotations, Rotation
from selfsup.models import Encoder


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8, self.width), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_views_are_every_image_at_all_four_angles() -> None:
    raw = {"image": torch.randint(256, (5, 2, 9, 9), dtype=torch.uint8)}
    views = FourRotations(6, 0.5)(raw, torch.Generator().manual_seed(0))
    assert views["image"].shape == (20, 2, 6, 6)
    upright = views["image"][::4]
    for row in range(20):
        image, turns = row // 4, int(views["turns"][row])
        assert turns == row % 4
        torch.testing.assert_close(views["image"][row], upright[image].rot90(turns, (1, 2)))
    assert not torch.equal(upright[0], upright[1])


def test_each_part_of_an_accumulated_batch_has_all_four_angles() -> None:
    raw = {"image": torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)}
    for part in chunk_views(FourRotations(8, 1.0)(raw, torch.Generator()), 3):
        assert torch.bincount(part["turns"]).tolist() == [2, 2, 2, 2]


def test_loss_and_accuracy_are_the_papers() -> None:
    torch.manual_seed(0)
    method = Rotation(TinyEncoder(), image_size=8)
    views = {"image": torch.rand(8, 1, 8, 8), "turns": torch.arange(4).repeat(2)}
    probabilities = method.classifier(method.encoder(views["image"])).softmax(dim=1)
    by_hand, right = 0.0, 0
    for i in range(2):  # equations 2 and 3: mean over images, mean over their K = 4 rotations
        for y in range(4):
            by_hand -= math.log(float(probabilities[4 * i + y, y].detach())) / 4 / 2
            right += int(probabilities[4 * i + y].argmax()) == y
    update = next(method.updates(views))
    torch.testing.assert_close(update.loss.detach(), torch.tensor(by_hand))
    torch.testing.assert_close(update.metrics["accuracy"], torch.tensor(right / 8))
    torch.testing.assert_close(method.loss(views), update.loss)


def test_an_undecided_classifier_is_at_chance_level() -> None:
    method = Rotation(TinyEncoder(), image_size=8)
    nn.init.zeros_(method.classifier[-1].weight)
    nn.init.zeros_(method.classifier[-1].bias)
    views = {"image": torch.rand(8, 1, 8, 8), "turns": torch.arange(4).repeat(2)}
    torch.testing.assert_close(method.loss(views).detach(), torch.tensor(math.log(4)))


@pytest.mark.parametrize("hidden_size", [0, 32])
def test_it_learns_which_way_is_up(hidden_size: int) -> None:
    """Images are brighter towards the top, under noise; the paper's claim is that angles of unseen images are then recognised."""
    torch.manual_seed(0)
    method = Rotation(TinyEncoder(), image_size=8, hidden_size=hidden_size)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=3e-3)}
    generator = torch.Generator().manual_seed(0)

    def photos(n: int) -> dict[str, torch.Tensor]:
        sky = torch.linspace(180, 80, 12).view(1, 1, 12, 1)
        return {"image": (sky + 40 * torch.randn(n, 1, 12, 12)).clamp(0, 255).to(torch.uint8)}

    for _ in range(80):
        train_step(method, [method.views(photos(16), generator)], optimizers)
    accuracy = float(next(method.updates(method.views(photos(200), generator))).metrics["accuracy"])
    assert accuracy > 0.85, f"{accuracy:.2f} of the rotations of new images recognised; chance is 0.25"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="hidden_size must be positive, or 0 for a linear classifier, got -1"):
        Rotation(TinyEncoder(), image_size=8, hidden_size=-1)
    with pytest.raises(ValueError, match="scale must be two fractions"):
        Rotation(TinyEncoder(), image_size=8, smallest_crop=0.0)
