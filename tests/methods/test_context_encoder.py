"""Context encoder: equation 1 by hand, a step against a hand-written loop, what each player sees, and regions that it must fill."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.engine.step import train_step
from selfsup.methods.context_encoder import (
    ChannelwiseLinear,
    ContextEncoder,
    discriminator_loss,
    generator_loss,
    hidden_side,
    reconstruction_loss,
)
from selfsup.models import build_encoder

MASKS = ["centre", "random_blocks", "random_regions"]


def context_encoder(image_size: int = 16, channels: int = 2, encoder: str = "small", **options: float | str) -> ContextEncoder:
    torch.manual_seed(1)
    network = build_encoder(encoder, channels=channels, image_size=image_size, mean=[0.3] * channels, std=[0.2] * channels)
    return ContextEncoder(network, image_size=image_size, **options)


def views_of(method: ContextEncoder, n: int = 6, channels: int = 2) -> dict[str, torch.Tensor]:
    raw = torch.randint(256, (n, channels, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return method.views({"image": raw}, torch.Generator().manual_seed(0))


def test_the_squared_error_is_equation_1_in_the_authors_units() -> None:
    predicted, true = torch.rand(2, 3, 2, 4, 4, dtype=torch.float64)
    weight = torch.randint(0, 3, (3, 1, 4, 4)).double() * 5
    total = 0.0
    for i in range(3):
        error, values = 0.0, 0
        for c in range(2):
            for y in range(4):
                for x in range(4):
                    in_range = 2 * float(true[i, c, y, x]) - 1, 2 * float(predicted[i, c, y, x]) - 1  # -1 to 1
                    error += float(weight[i, 0, y, x]) * (in_range[0] - in_range[1]) ** 2
                    values += float(weight[i, 0, y, x]) > 0
        total += error / values
    torch.testing.assert_close(float(reconstruction_loss(predicted, true, weight)), total / 3, rtol=1e-9, atol=0)


def test_adversarial_losses_are_equation_2() -> None:
    real, made = torch.randn(2, 7, 1, dtype=torch.float64)
    d_real, d_made = torch.sigmoid(real), torch.sigmoid(made)
    torch.testing.assert_close(discriminator_loss(real, made), -(d_real.log().mean() + (1 - d_made).log().mean()), rtol=1e-9, atol=0)
    torch.testing.assert_close(generator_loss(made), -d_made.log().mean(), rtol=1e-9, atol=0)
    torch.testing.assert_close(discriminator_loss(torch.zeros(3, 1), torch.zeros(3, 1)), torch.tensor(2 * math.log(2)))


def test_the_channelwise_layer_connects_places_and_not_planes() -> None:
    layer = ChannelwiseLinear(3, 4, 5)
    x = torch.randn(2, 3, 4)
    for d in range(3):
        torch.testing.assert_close(layer(x)[:, d], x[:, d] @ layer.weight[d] + layer.bias[d])
    assert sum(p.numel() for p in layer.parameters()) == 3 * (4 * 5 + 5)


@pytest.mark.parametrize("mask", MASKS)
def test_what_is_hidden_is_the_mean_colour_and_the_rest_is_shown(mask: str) -> None:
    method = context_encoder(mask=mask)
    views = views_of(method)
    hidden = views["hidden"].expand(-1, 2, -1, -1)
    assert views["image"].shape == views["shown"].shape == (6, 2, 16, 16)
    assert torch.equal(views["shown"][~hidden], views["image"][~hidden])
    torch.testing.assert_close(views["shown"][hidden], torch.full_like(views["shown"][hidden], 0.3))
    assert 0 < float(hidden.float().mean()) <= 0.25
    if mask == "centre":
        assert torch.equal(views["hidden"][0, 0].nonzero().aminmax().max, torch.tensor(10))
        assert int(views["hidden"][0].sum()) == 6 * 6  # of 8 x 8 that are predicted


def test_the_border_of_the_centre_is_that_of_the_authors_code() -> None:
    assert hidden_side(128) == 64 - 2 * 4
    assert [hidden_side(s) for s in (16, 32, 33, 64)] == [6, 14, 14, 28]


def test_the_shown_border_weighs_ten_times_and_other_pixels_nothing() -> None:
    method = context_encoder()
    method.mask = "centre"
    hidden = torch.eye(2, dtype=torch.bool)[None, None]
    assert method._weight(hidden).flatten().tolist() == [1.0, 10.0, 10.0, 1.0]
    method.mask = "random_blocks"
    assert method._weight(hidden).flatten().tolist() == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("mask", MASKS)
def test_a_step_equals_a_hand_written_loop(mask: str) -> None:
    method, by_hand = (context_encoder(mask=mask, adversarial_weight=0.2) for _ in range(2))
    for m in (method, by_hand):
        m.double()
    views = {key: x.double() if x.is_floating_point() else x for key, x in views_of(method).items()}
    optimizers = {name: torch.optim.SGD(net.parameters(), lr=0.01) for name, net in method.players().items()}
    values = train_step(method, [views], optimizers)

    d = by_hand.discriminator
    g = [*by_hand.encoder.parameters(), *by_hand.decoder.parameters()]
    region = slice(4, 12) if mask == "centre" else slice(0, 16)
    crop = {key: x[:, :, region, region] for key, x in views.items()}
    weight = torch.where(crop["hidden"], 1.0, 10.0 if mask == "centre" else 0.0)
    predicted = by_hand.decoder(by_hand.encoder.feature_map(views["shown"])).tanh() / 2 + 0.5

    def judged(x: torch.Tensor) -> torch.Tensor:
        return d(x if mask == "centre" else torch.where(crop["hidden"], x, torch.tensor(0.3, dtype=x.dtype)))

    loss_d = F.softplus(-judged(crop["image"])).mean() + F.softplus(judged(predicted.detach())).mean()
    gradients = torch.autograd.grad(loss_d, list(d.parameters()))
    with torch.no_grad():
        for p, gradient in zip(d.parameters(), gradients, strict=True):
            p -= 0.01 * gradient
    rec = reconstruction_loss(predicted, crop["image"], weight)
    loss_g = 0.8 * rec + 0.2 * F.softplus(-judged(predicted)).mean()
    for p, gradient in zip(g, torch.autograd.grad(loss_g, g), strict=True):
        p.data -= 0.01 * gradient
    for name, expected in {"loss/discriminator": loss_d, "loss/generator": loss_g, "loss": loss_g}.items():
        torch.testing.assert_close(values[name].double(), expected.detach(), rtol=1e-6, atol=0)
    for (name, p), expected in zip(method.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-5, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("mask", ["centre", "random_blocks"])
def test_each_player_learns_from_its_own_loss(mask: str) -> None:
    method = context_encoder(mask=mask)
    players = {name: list(net.parameters()) for name, net in method.players().items()}
    assert list(players) == ["generator", "discriminator"]
    assert {id(p) for ps in players.values() for p in ps} == {id(p) for p in method.parameters()}
    for update in method.updates(views_of(method)):
        other = players["generator" if update.player == "discriminator" else "discriminator"]
        gradients = torch.autograd.grad(update.loss, players[update.player], retain_graph=True)
        assert all(bool(g.any()) for g in gradients)
        if update.player == "discriminator":
            assert all(g is None for g in torch.autograd.grad(update.loss, other, allow_unused=True, retain_graph=True))


def test_without_a_discriminator_there_is_one_player_and_the_squared_error() -> None:
    method = context_encoder(adversarial_weight=0.0)
    assert list(method.players()) == ["generator"]
    assert not hasattr(method, "discriminator")
    (update,) = method.updates(views_of(method))
    assert update.player == "generator"
    torch.testing.assert_close(update.loss, update.metrics["reconstruction"])


def test_the_discriminator_sees_regions_only() -> None:
    method, seen = context_encoder(mask="random_regions"), []
    method.discriminator.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    views = views_of(method)
    for _ in method.updates(views):
        pass
    real, made, again = seen
    around = ~views["hidden"].expand(-1, 2, -1, -1)
    for x in seen:
        torch.testing.assert_close(x[around], torch.full_like(x[around], 0.3))
    assert torch.equal(real[~around], views["image"][~around])
    assert torch.equal(made, again)


@pytest.mark.parametrize(("size", "channels", "encoder"), [(16, 1, "small"), (33, 6, "small"), (16, 3, "vit_tiny"), (17, 3, "dcgan")])
@pytest.mark.parametrize("mask", ["centre", "random_blocks"])
def test_any_encoder_size_and_channels(size: int, channels: int, encoder: str, mask: str) -> None:
    method = context_encoder(size, channels, encoder, mask=mask)
    for update in method.updates(views_of(method, 2, channels)):
        assert update.loss.isfinite()
    x = torch.rand(2, channels, size, size)
    hidden = torch.zeros(2, 1, size, size, dtype=torch.bool)
    hidden[:, :, size // 2 - 1 : size // 2 + 2, size // 2 - 1 : size // 2 + 1] = True
    filled = method.eval().inpaint(x, hidden)
    everywhere = hidden.expand(-1, channels, -1, -1)
    assert torch.equal(filled[~everywhere], x[~everywhere])
    assert not torch.equal(filled[everywhere], x[everywhere])
    torch.testing.assert_close(method.inpaint(torch.where(hidden, 0.9, x), hidden), filled)  # it does not know what it fills


@pytest.mark.parametrize("mask", MASKS)
def test_it_learns_to_fill_regions(mask: str) -> None:
    """Images are one shade all over: the region follows from what is around it."""
    method, generator = context_encoder(channels=1, encoder="dcgan", mask=mask), torch.Generator().manual_seed(0)
    optimizers = {name: torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.5, 0.999)) for name, net in method.players().items()}

    def shades(n: int) -> torch.Tensor:
        return (0.1 + 0.8 * torch.rand(n, 1, 1, 1, generator=generator)).expand(-1, 1, 16, 16).mul(255).byte()

    for _ in range(60):
        train_step(method, [method.views({"image": shades(16)}, generator)], optimizers)
    method.eval()
    views = method.views({"image": shades(100)}, generator)
    filled = method.inpaint(views["shown"], views["hidden"])
    error = float((filled - views["image"])[views["hidden"]].square().mean())
    guess = float(views["image"][views["hidden"]].var())
    assert error < 0.5 * guess, f"squared error {error:.4f} of hidden pixels; {guess:.4f} for the mean shade"


def test_a_reloaded_run_fills_with_the_colour_it_was_trained_with() -> None:
    method, again = context_encoder(), ContextEncoder(build_encoder("small", channels=2, image_size=16), image_size=16)
    again.load_state_dict(method.state_dict())
    torch.testing.assert_close(again.fill, torch.tensor([0.3, 0.3]))
    hidden = torch.rand(2, 1, 16, 16) < 0.3
    x = torch.rand(2, 2, 16, 16)
    assert torch.equal(again.eval().inpaint(x, hidden), method.eval().inpaint(x, hidden))


def test_mistakes_are_named() -> None:
    method, corner = context_encoder(mask="centre").eval(), torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    corner[..., 0, 0] = True
    with pytest.raises(ValueError, match=r"fills the central 6 x 6 pixels of 16 x 16, .* train with mask=random_blocks"):
        method.inpaint(torch.rand(1, 2, 16, 16), corner)
    with pytest.raises(ValueError, match=r"expected images of 16 x 16 pixels, as trained, got \(1, 2, 20, 20\); resize them"):
        method.inpaint(torch.rand(1, 2, 20, 20), torch.zeros(1, 1, 20, 20, dtype=torch.bool))
    for options, message in [
        ({"adversarial_weight": 1.5}, "adversarial_weight must be between 0 and 1"),
        ({"overlap_weight": -1.0}, "overlap_weight at least 0"),
        ({"blocks": 0}, None),
        ({"mask": "centre", "image_size": 8}, 'mask="centre" needs images of at least 16 pixels, got image_size=8'),
    ]:
        if message is None:
            with pytest.raises(ValueError, match="blocks must be between 1 and 64 for images of 16 pixels, got 0"):
                views_of(context_encoder(**options))
        else:
            with pytest.raises(ValueError, match=message):
                context_encoder(**options)
    with pytest.raises((ValueError, TypeError), match="blur"):
        context_encoder(mask="blur")


def test_an_own_network_without_normalisation_is_filled_with_black() -> None:
    from selfsup.models import wrap

    method = ContextEncoder(wrap(nn.Conv2d(1, 4, 3, 2), 1, 16), image_size=16)
    assert method.fill.tolist() == [0.0]
