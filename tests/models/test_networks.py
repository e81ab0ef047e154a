"""Heads, decoders, DCGAN's two networks and the encoder for vectors."""

import itertools

import pytest
import torch
from torch import nn

from selfsup.models.dcgan import Discriminator, Generator
from selfsup.models.decoders import ImageDecoder, decoder, halvings
from selfsup.models.heads import mlp
from selfsup.models.mlp import MLP

SIZES = [8, 9, 15, 27, 28, 31, 32, 33, 48, 64, 65]


@pytest.mark.parametrize("size", SIZES)
def test_decoder_and_dcgan_fit_any_size(size: int) -> None:
    with torch.no_grad():
        x = decoder(10, channels=2, image_size=size)(torch.randn(3, 10))
        assert x.shape == (3, 2, size, size)
        trunk = Discriminator(channels=2, image_size=size)
        assert trunk(x).shape == (3, trunk.width)
        made = Generator(7, 2, size)(torch.randn(3, 7))
    assert made.shape == (3, 2, size, size)
    assert made.min() >= 0
    assert made.max() <= 1


def test_halvings_round_down_and_end_between_2_and_4() -> None:
    assert halvings(28) == [3, 7, 14, 28]
    assert halvings(64) == [4, 8, 16, 32, 64]
    for size in range(8, 300):
        sides = halvings(size)
        assert 2 <= sides[0] <= 4
        assert all(big // 2 == small for small, big in itertools.pairwise(sides))


@pytest.mark.parametrize("size", [9, 28, 32])
def test_every_pixel_of_a_decoded_image_depends_on_the_vector(size: int) -> None:
    torch.manual_seed(0)
    net = ImageDecoder(5, 1, size).eval()
    h = torch.randn(1, 5)
    with torch.no_grad():
        assert bool((net(h) != net(-h)).all())


def test_dcgan_is_the_papers_at_64_pixels() -> None:
    """Figure 1 and section 3: 100 -> 4x4 -> ... -> 64x64, no pooling, batch normalisation but at D's input and G's output."""
    g, d = Generator(100, 3, 64), Discriminator(channels=3, image_size=64)
    up = [m for m in g.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.in_channels for m in up] == [512, 256, 128, 64]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in g.modules()) == 4  # after the projection and after all but the last
    down = [m for m in d.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in down] == [64, 128, 256, 512]
    assert isinstance(d.shrink[1], nn.LeakyReLU)  # straight after the first convolution
    assert sum(isinstance(m, nn.BatchNorm2d) for m in d.modules()) == 3
    assert {m.negative_slope for m in d.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert not any(isinstance(m, (nn.MaxPool2d, nn.AvgPool2d)) for m in [*d.modules(), *g.modules()])
    # torch's DCGAN example counts 3,576,704 with a 4x4 convolution for the projection, which has as many weights.
    assert sum(p.numel() for p in g.parameters()) == 3_576_704 + 3  # and one bias for each channel of the image
    for m in (up[0], down[-1], g.decoder.project):
        weight = m.weight.detach()
        assert abs(float(weight.mean())) < 1e-3
        assert float(weight.std()) == pytest.approx(0.02, rel=0.02)


def test_generators_outputs_fill_zero_to_one() -> None:
    torch.manual_seed(0)
    net = Generator(4, 1, 8)
    with torch.no_grad():
        for value, expected in [(0.0, 0.5), (20.0, 1.0), (-20.0, 0.0)]:
            last = net.decoder.grow[-1]
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, value)
            torch.testing.assert_close(net(torch.randn(2, 4)), torch.full((2, 1, 8, 8), expected))


def test_vectors_are_decoded_to_vectors() -> None:
    net = decoder(6, channels=11, image_size=0)
    assert net(torch.randn(4, 6)).shape == (4, 11)
    assert float(net(torch.randn(400, 6)).detach().min()) < 0  # unbounded below


def test_mlp_has_the_layers_that_were_asked_for() -> None:
    assert [type(m).__name__ for m in mlp(4, 8, 2)] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [type(m).__name__ for m in mlp(4, 8, 2, norm=False)] == ["Linear", "ReLU", "Linear"]
    assert [type(m).__name__ for m in mlp(4, 2, last_norm=True)] == ["Linear", "BatchNorm1d"]
    normed = mlp(4, 8, 8, 3, last_norm=True)(torch.randn(64, 4))
    torch.testing.assert_close(normed.mean(dim=0), torch.zeros(3), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(normed.var(dim=0, correction=0), torch.ones(3), rtol=1e-2, atol=1e-2)
    # A bias before batch normalisation does nothing; without normalisation it is needed.
    assert [m.bias is None for m in mlp(4, 8, 2) if isinstance(m, nn.Linear)] == [True, False]
    assert [m.bias is None for m in mlp(4, 8, 2, norm=False) if isinstance(m, nn.Linear)] == [False, False]


def test_a_centred_mlp_tells_its_inputs_apart_from_the_start() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 64)
    alike = {}
    for centred in (False, True):
        y = torch.nn.functional.normalize(mlp(64, 512, 64, centred=centred)(x).detach(), dim=1)
        alike[centred] = float((y @ y.T).fill_diagonal_(0).sum() / (256 * 255))
    assert alike[False] > 0.35
    assert abs(alike[True]) < 0.02


def test_the_mlp_encoder_takes_any_number_of_columns() -> None:
    assert MLP(channels=1)(torch.randn(4, 1)).shape == (4, 256)
    assert MLP(channels=9, width=5)(torch.randn(4, 9)).shape == (4, 5)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"at least 2 widths, all of them positive, got \(4,\)"):
        mlp(4)
    with pytest.raises(ValueError, match="at least 8 pixels"):
        decoder(4, channels=3, image_size=5)
    with pytest.raises(ValueError, match=r"expected \(B, C, 32, 32\), got \(1, 3, 28, 28\)"):
        Discriminator(image_size=32)(torch.rand(1, 3, 28, 28))
