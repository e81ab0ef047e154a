"""Every encoder by its name: widths, standardised inputs, the spec that builds it again, and a user's own network."""

import json

import pytest
import torch
from torch import nn

from selfsup.models import ENCODERS, Encoder, build_encoder, input_channels, wrap
from selfsup.models.build import TEXT
from selfsup.models.normalize import Normalize

WIDTHS = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "vit_tiny": 192, "vit_small": 384, "dcgan": 4096, "unet": 48, "stack": 1000}
WIDTHS |= dict.fromkeys(("vq_2", "vq_4", "vq_8", "vq_16"), 128)


# Without vit_base, a slow one and the same code as vit_tiny; encoders of text and tables have files of their own.
@pytest.mark.parametrize("name", [name for name in ENCODERS if name not in ("vit_base", "table", *TEXT)])
def test_the_spec_builds_the_same_network_again(name: str) -> None:
    channels, size = (5, 0) if name == "mlp" else (2, 32)
    encoder = build_encoder(name, channels=channels, image_size=size, mean=[0.1] * channels, std=[0.2] * channels).eval()
    again = build_encoder(**json.loads(json.dumps(encoder.spec))).eval()
    again.load_state_dict(encoder.state_dict(), strict=True)  # the statistics are among the buffers
    x = torch.rand(2, channels) if name == "mlp" else torch.rand(2, channels, size, size)
    with torch.no_grad():
        vectors = encoder(x)
        assert torch.equal(vectors, again(x))
    assert vectors.shape == (2, encoder.width)
    assert encoder.width == WIDTHS.get(name, 256)
    assert input_channels(encoder) == channels


@pytest.mark.parametrize("name", ["small", "resnet18", "vit_tiny", "dcgan", "unet", "mlp", "stack"])
def test_inputs_are_standardised_by_the_encoder(name: str) -> None:
    size = 0 if name == "mlp" else 32
    mean, std = [0.3, 0.6], [0.5, 2.0]
    encoder = build_encoder(name, channels=2, image_size=size, mean=torch.tensor(mean), std=std).eval()
    plain = build_encoder(name, channels=2, image_size=size, mean=[0.0, 0.0], std=[1.0, 1.0]).eval()
    plain.load_state_dict({**encoder.state_dict(), "normalize.mean": torch.zeros(2), "normalize.std": torch.ones(2)})
    x = torch.rand(3, 2) if name == "mlp" else torch.rand(3, 2, size, size)
    shape = (1, 2) + (1,) * (x.ndim - 2)
    by_hand = (x - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), plain(by_hand), rtol=1e-4, atol=1e-5)


def test_normalize_gives_mean_0_and_deviation_1() -> None:
    x = torch.rand(50, 3, 4, 4) * torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1) + 2
    layer = Normalize(3, x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3)))
    y = layer(x)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0.0, atol=1e-4)
    torch.testing.assert_close(y.std(dim=(0, 2, 3)), torch.ones(3))
    torch.testing.assert_close(Normalize(1)(torch.tensor([[0.0, 0.5, 1.0]]).T), torch.tensor([[-2.0, 0.0, 2.0]]).T)


class Maps(nn.Module):
    """A user's network: maps, dropout and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_wrap_pools_maps_and_leaves_the_network_as_it_was() -> None:
    net = Maps()
    net.net[1].eval()  # a mode of its own, which must come back
    before = {k: v.clone() for k, v in net.state_dict().items()}
    encoder = wrap(net, 3, 16)
    assert isinstance(encoder, Encoder)
    assert encoder.width == 7
    assert encoder.spec == {"name": "own", "channels": 3, "image_size": 16}
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert (net.training, net.net[1].training) == (True, False)
    x = torch.rand(4, 3, 16, 16)
    encoder.eval()
    torch.testing.assert_close(encoder(x), net(x).flatten(2).mean(dim=2))
    assert wrap(nn.Linear(6, 4), 6, 0).width == 4


def test_wrap_keeps_an_encoder_and_gives_it_a_spec() -> None:
    built = build_encoder("small", channels=1, image_size=28)
    assert wrap(built, 1, 28) is built
    assert built.spec["name"] == "small"

    class Own(Encoder):
        width = 3

    own = Own()
    with pytest.raises(ValueError, match=r"Own has no `spec`.*wrap"):
        input_channels(own)
    assert input_channels(wrap(own, 2, 8)) == 2


def test_mistakes_are_named() -> None:
    def build(name: str, channels: int = 3, image_size: int = 32, mean: list[float] | None = None, std: list[float] | None = None) -> None:
        build_encoder(name, channels=channels, image_size=image_size, mean=mean, std=std)

    with pytest.raises(ValueError, match=r'no encoder "resnet15"; did you mean "resnet'):
        build("resnet15")
    with pytest.raises(ValueError, match="there are small, resnet18"):
        build("qqqq")
    with pytest.raises(ValueError, match=r'"mlp" takes vectors.*got image_size=32'):
        build("mlp")
    with pytest.raises(ValueError, match=r"got image_size=0; for vectors choose mlp"):
        build("small", image_size=0)
    with pytest.raises(ValueError, match="channels=0"):
        build("small", channels=0)
    with pytest.raises(ValueError, match=r"image_size that is a multiple.*got 45; choose --image-size 40 or 48"):
        build("vit_tiny", image_size=45)
    with pytest.raises(ValueError, match="at least 8 pixels wide here, got image_size=7"):
        build("dcgan", image_size=7)
    with pytest.raises(ValueError, match="mean must have one number for each of the 3 channels"):
        build("small", mean=[0.5])
    with pytest.raises(ValueError, match=r"std must be positive in every channel, got 0.0 in channel 1"):
        build("small", std=[1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="mean must be finite"):
        build("small", mean=[0.0, float("nan"), 0.0])
    with pytest.raises(ValueError, match="3 channels on axis 1, got \\(2, 1, 32, 32\\)"):
        build_encoder("resnet18", channels=3, image_size=32)(torch.rand(2, 1, 32, 32))


def test_mistakes_of_a_users_network_are_named() -> None:
    with pytest.raises(ValueError, match=r"Linear must take \(2, 3, 16, 16\).*fails on one"):
        wrap(nn.Linear(4, 4), 3, 16)
    with pytest.raises(ValueError, match=r"Flatten must give.*got torch.float32 \(2, 3, 16\)"):
        wrap(nn.Flatten(2), 3, 4)
    with pytest.raises(ValueError, match="got tuple"):
        wrap(nn.LSTM(5, 5), 5, 0)
    with pytest.raises(ValueError, match="channels >= 1"):
        wrap(nn.Identity(), 0, 4)
