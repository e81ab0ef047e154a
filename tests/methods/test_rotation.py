"""Rotation: the turns of every image, the losses by hand, and orientations that it must learn to tell."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from selfsup.engine.step import chunk_views, train_step
from selfsup.methods.rotation import Rotation, Rotations, circle_error, degrees_off
from selfsup.models import Encoder
from selfsup.views import rotations


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8, self.width), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_views_are_every_image_at_all_four_angles() -> None:
    raw = {"image": torch.randint(256, (5, 2, 9, 9), dtype=torch.uint8)}
    views = Rotations(6, 0.5)(raw, torch.Generator().manual_seed(0))
    assert views["image"].shape == (20, 2, 6, 6)
    upright = views["image"][::4]
    for row in range(20):
        image, turns = row // 4, int(views["turns"][row])
        assert turns == row % 4
        torch.testing.assert_close(views["image"][row], upright[image].rot90(turns, (1, 2)))
    assert not torch.equal(upright[0], upright[1])


@pytest.mark.parametrize(("angles", "copies"), [(2, 4), (4, 3), (15, 4), (5, 9)])
def test_turns_are_equal_parts_of_a_circle_and_none_is_shown_twice(angles: int, copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ramp keeps its slope where it is interpolated: the direction in which images grow brighter is the angle."""
    monkeypatch.setattr(rotations, "NOISE", 0.0)
    slope = torch.arange(12).expand(12, 12) * 15 + 40  # brighter to the right
    raw = {"image": slope.expand(200, 1, 12, 12).to(torch.uint8)}
    views = Rotations(6, 1.0, angles, copies)
    views.crop.look = replace(views.crop.look, flip=0.0)
    shown = views(raw, torch.Generator().manual_seed(0))
    shown_copies = min(angles, copies)
    assert shown["image"].shape == (200 * shown_copies, 1, 6, 6)
    turns = shown["turns"].view(200, shown_copies)
    assert all(len(set(row.tolist())) == shown_copies for row in turns)
    assert sorted(set(turns.flatten().tolist())) == list(range(angles))
    torch.testing.assert_close(direction(shown["image"]), turns.flatten() * (360 / angles), rtol=0.0, atol=0.3)


def test_any_angle_is_a_random_one_and_equal_steps_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotations, "NOISE", 0.0)
    slope = torch.arange(12).expand(12, 12) * 15 + 40
    views = Rotations(6, 1.0, 0, 3)
    views.crop.look = replace(views.crop.look, flip=0.0)
    shown = views({"image": slope.expand(200, 1, 12, 12).to(torch.uint8)}, torch.Generator().manual_seed(0))
    degrees = shown["angle"].rad2deg().view(200, 3)
    torch.testing.assert_close(degrees - degrees[:, :1], torch.tensor([0.0, 120.0, 240.0]).expand(200, 3), rtol=0.0, atol=1e-3)
    assert 0 <= float(degrees[:, 0].amin()) < 10
    assert 350 < float(degrees[:, 0].amax()) < 360
    off = (direction(shown["image"]) - degrees.flatten() + 180) % 360 - 180
    assert float(off.abs().max()) < 0.3


def direction(images: torch.Tensor) -> torch.Tensor:
    """Where images (N, 1, S, S) grow brighter, in degrees against the clock from the right, -0.5 to 359.5."""
    to_right, down = (images.diff(dim=d).mean(dim=(1, 2, 3)) for d in (3, 2))
    return (torch.atan2(-down, to_right).rad2deg() + 0.5) % 360 - 0.5


def test_each_part_of_an_accumulated_batch_has_all_four_angles() -> None:
    raw = {"image": torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)}
    for part in chunk_views(Rotations(8, 1.0)(raw, torch.Generator()), 3):
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


def test_loss_of_15_angles_and_of_the_circle_are_their_equations() -> None:
    torch.manual_seed(0)
    image, turns, angle = torch.rand(6, 1, 8, 8), torch.tensor([0, 14, 7, 3, 3, 1]), torch.rand(6).double() * 7
    method = Rotation(TinyEncoder(), image_size=8, angles=15)
    chance = method.classifier(method.encoder(image)).softmax(dim=1)
    by_hand = -sum(math.log(float(chance[i, turns[i]].detach())) for i in range(6)) / 6
    torch.testing.assert_close(float(method.loss({"image": image, "turns": turns}).detach()), by_hand, rtol=1e-5, atol=0.0)
    point = torch.randn(6, 2, dtype=torch.float64)
    pairs = zip(point.tolist(), angle.tolist(), strict=True)
    by_hand = sum((x - math.cos(a)) ** 2 + (y - math.sin(a)) ** 2 for (x, y), a in pairs) / 6
    torch.testing.assert_close(float(circle_error(point, angle)), by_hand, rtol=1e-9, atol=0.0)
    method = Rotation(TinyEncoder(), image_size=8, target="circle")
    update = next(method.updates({"image": image, "angle": angle.float()}))
    predicted = method.classifier(method.encoder(image)).detach()
    torch.testing.assert_close(update.loss.detach(), circle_error(predicted, angle.float()))
    torch.testing.assert_close(update.metrics["degrees"], degrees_off(predicted, angle.float()))


def test_degrees_go_around_the_circle() -> None:
    point = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    torch.testing.assert_close(degrees_off(point, torch.tensor([350.0, 80.0, 200.0]).deg2rad()), torch.tensor((10 + 10 + 20) / 3))
    torch.testing.assert_close(circle_error(torch.zeros(3, 2), torch.rand(3)), torch.tensor(1.0))


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


@pytest.mark.parametrize("options", [{"angles": 15}, {"target": "circle"}])
def test_it_learns_angles_that_are_no_quarter_turns(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    method = Rotation(TinyEncoder(), image_size=8, hidden_size=32, smallest_crop=1.0, **options)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=1e-2)}
    generator = torch.Generator().manual_seed(0)

    def photos(n: int) -> dict[str, torch.Tensor]:
        sky = torch.linspace(200, 60, 12).view(1, 1, 12, 1)
        return {"image": (sky + 10 * torch.randn(n, 1, 12, 12)).clamp(0, 255).to(torch.uint8)}

    for _ in range(60):
        train_step(method, [method.views(photos(32), generator)], optimizers)
    method.eval()
    metrics = next(method.updates(method.views(photos(200), generator))).metrics
    if "degrees" in metrics:
        assert float(metrics["degrees"]) < 25, f"{metrics}; chance is 90"
    else:
        assert float(metrics["accuracy"]) > 0.25, f"{metrics}; chance is 1/15"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="hidden_size must be positive, or 0 for a linear classifier, got -1"):
        Rotation(TinyEncoder(), image_size=8, hidden_size=-1)
    with pytest.raises(ValueError, match=r"at least 2 angles and at least 1 copy of an image, got angles=1, copies=4"):
        Rotation(TinyEncoder(), image_size=8, angles=1)
    with pytest.raises(ValueError, match="scale must be two fractions"):
        Rotation(TinyEncoder(), image_size=8, smallest_crop=0.0)
