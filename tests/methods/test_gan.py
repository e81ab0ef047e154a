"""GAN against a hand-written loop of algorithm 1, the losses' values, and a distribution that it must learn."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.gan import GAN, discriminator_loss, generator_loss
from selfsup.models import build_encoder


def gan(image_size: int = 8, channels: int = 1) -> GAN:
    torch.manual_seed(1)
    return GAN(build_encoder("dcgan", channels=channels, image_size=image_size), image_size=image_size, latent_size=5)


def adams(method: GAN, lr: float = 2e-4) -> dict[str, torch.optim.Optimizer]:
    return {
        name: torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.5, 0.999), weight_decay=0.0) for name, net in method.players().items()
    }


def test_losses_are_those_of_the_paper() -> None:
    real, made = torch.randn(2, 7, 1)
    d_real, d_made = torch.sigmoid(real), torch.sigmoid(made)
    torch.testing.assert_close(discriminator_loss(real, made), -(d_real.log().mean() + (1 - d_made).log().mean()))
    torch.testing.assert_close(generator_loss(made), -d_made.log().mean())
    undecided = torch.zeros(3, 1)
    torch.testing.assert_close(discriminator_loss(undecided, undecided), torch.tensor(2 * math.log(2)))
    torch.testing.assert_close(generator_loss(undecided), torch.tensor(math.log(2)))
    sure = torch.full((3, 1), 200.0)
    assert torch.isfinite(discriminator_loss(-sure, sure))  # where sigmoid and logarithm overflow
    torch.testing.assert_close(generator_loss(-sure), torch.tensor(200.0))


def test_steps_equal_a_hand_written_loop_exactly() -> None:
    method, by_hand = gan(), gan()
    optimizers, (opt_d, opt_g) = adams(method), adams(by_hand).values()
    d, g = by_hand.discriminator, by_hand.generator
    for step in range(3):
        real = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        torch.manual_seed(100 + step)
        values = train_step(method, [{"image": real}], optimizers)

        torch.manual_seed(100 + step)
        opt_d.zero_grad()
        fake = g(torch.randn(6, 5)).detach()
        ones, zeros = torch.ones(6, 1), torch.zeros(6, 1)
        logits_real, logits_fake = d(real), d(fake)
        loss_d = F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()
        torch.testing.assert_close(
            loss_d, F.binary_cross_entropy_with_logits(logits_real, ones) + F.binary_cross_entropy_with_logits(logits_fake, zeros)
        )
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        loss_g = F.softplus(-d(g(torch.randn(6, 5)))).mean()
        loss_g.backward()
        opt_g.step()

        assert float(values["loss/discriminator"]) == float(loss_d.detach())
        assert float(values["loss/generator"]) == float(loss_g.detach())
        assert float(values["D(x)"]) == float(logits_real.detach().sigmoid().mean())
        assert float(values["D(G(z))"]) == float(logits_fake.detach().sigmoid().mean())
        for (name, value), expected in zip(method.state_dict().items(), by_hand.state_dict().values(), strict=True):
            assert torch.equal(value, expected), f"{name} after step {step + 1}"


def test_each_player_moves_only_itself() -> None:
    method = gan()
    updates = method.updates({"image": torch.rand(4, 1, 8, 8)})
    seen = {}
    for update in updates:
        gradients = torch.autograd.grad(update.loss, list(method.players()[update.player].parameters()), allow_unused=True)
        seen[update.player] = all(g is not None and bool(g.any()) for g in gradients if g is not None) and None not in gradients
        if update.player == "discriminator":
            for p in method.generator.parameters():
                assert p.grad is None
    assert seen == {"discriminator": True, "generator": True}
    players = method.players()
    assert list(players) == ["discriminator", "generator"]
    d, g = (set(map(id, net.parameters())) for net in players.values())
    assert not d & g
    assert d | g == set(map(id, method.parameters()))
    assert set(map(id, method.encoder.parameters())) < d


def test_the_discriminator_gets_no_gradient_into_the_generator() -> None:
    method = gan()
    update = next(method.updates({"image": torch.rand(4, 1, 8, 8)}))
    assert update.player == "discriminator"
    gradients = torch.autograd.grad(update.loss, list(method.generator.parameters()), allow_unused=True)
    assert all(g is None for g in gradients)


def test_samples_fill_zero_to_one_and_leave_the_mode() -> None:
    method = gan(image_size=9, channels=2)
    before = copy.deepcopy(method.generator.state_dict())
    torch.manual_seed(3)
    images = method.sample(5)
    torch.manual_seed(3)
    assert torch.equal(method.sample(5), images)
    assert images.shape == (5, 2, 9, 9)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert method.generator.training
    assert all(torch.equal(v, before[k]) for k, v in method.generator.state_dict().items())


def test_views_are_the_images_as_they_are() -> None:
    raw = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    views = gan().views({"image": raw, "index": torch.arange(3)}, torch.Generator())
    torch.testing.assert_close(views["image"], raw.float() / 255)


def test_it_learns_the_distribution_of_the_data() -> None:
    """Images are constant, 0.2 or 0.8 with equal chance: the generator must make both, from other noise than it trained on."""
    method = gan()
    optimizers = adams(method, lr=1e-3)
    for _ in range(240):
        level = 0.2 + 0.6 * torch.randint(2, (32, 1, 1, 1))
        train_step(method, [{"image": level + 0.02 * torch.randn(32, 1, 8, 8)}], optimizers)
    made = method.sample(400)
    level, within = made.mean(dim=(1, 2, 3)), made.std(dim=(1, 2, 3))
    low, high = (float(((level - c).abs() < 0.15).float().mean()) for c in (0.2, 0.8))
    assert min(low, high) > 0.15, f"{low:.2f} of samples near 0.2, {high:.2f} near 0.8; 0 before training"
    assert float(within.mean()) < 0.1


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="latent_size must be at least 1, got 0"):
        GAN(build_encoder("dcgan", channels=1, image_size=8), image_size=8, latent_size=0)
    with pytest.raises(ValueError, match="at least 8 pixels wide here, got image_size=4"):
        GAN(build_encoder("small", channels=1, image_size=4), image_size=4)
    batch: Batch = {"image": torch.rand(2, 3, 8, 8)}
    with pytest.raises(ValueError, match="1 channels on axis 1, got"):
        next(gan().updates(batch))
