"""Maps of encoders and what is predicted from them; encoders that see part of an image."""

import json

import pytest
import torch
from torch import nn

from selfsup.models import build_encoder, dress, wrap
from selfsup.models.lightness import Lightness, seeing
from selfsup.models.maps import feature_map, map_shape, per_place
from selfsup.models.split import split_channels, split_encoder
from selfsup.views.lab import gray, rgb_to_lab


@pytest.mark.parametrize(("name", "size", "shape"), [("small", 33, (256, 5, 5)), ("resnet18", 32, (512, 4, 4)), ("dcgan", 32, (256, 4, 4))])
def test_the_vector_comes_from_the_map(name: str, size: int, shape: tuple[int, int, int]) -> None:
    encoder = build_encoder(name, channels=2, image_size=size).eval()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert map_shape(encoder.train(), size) == shape
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    x = torch.rand(3, 2, size, size)
    with torch.no_grad():
        maps, vector = feature_map(encoder.eval(), x), encoder(x)
    torch.testing.assert_close(vector, maps.flatten(1) if name == "dcgan" else maps.mean(dim=(2, 3)))


def test_encoders_without_maps_are_refused() -> None:
    for encoder in (
        build_encoder("vit_tiny", channels=3, image_size=16),
        wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 5)), 3, 16),
        seeing(build_encoder("vit_tiny", channels=3, image_size=16)),
    ):
        assert map_shape(encoder, 16) is None
        with pytest.raises(ValueError, match=r"need an encoder with a feature_map .* choose --encoder small, resnet18"):
            per_place(encoder, 2, 16, 4)
    assert map_shape(wrap(nn.Conv2d(3, 5, 3, 2), 3, 16), 16) == (5, 7, 7)


@pytest.mark.parametrize(("size", "doublings"), [(8, 1), (32, 1), (33, 1), (16, 1)])
def test_the_head_reaches_a_quarter_of_any_image(size: int, doublings: int) -> None:
    encoder, t = build_encoder("small", channels=1, image_size=size), -(-size // 4)
    head = per_place(encoder, 7, size, t)
    assert len(head.blocks) == doublings
    assert head(feature_map(encoder, torch.rand(2, 1, size, size)), (t, t)).shape == (2, 7, t, t)
    assert head(torch.rand(2, 256, 3, 4), (5, 8)).shape == (2, 7, 5, 8)
    assert len(per_place(build_encoder("resnet18", channels=1, image_size=128), 7, 128, 32).blocks) == 3  # from 4 to 32


def test_a_prediction_knows_its_place() -> None:
    head = per_place(build_encoder("small", channels=1, image_size=64), 2, 64, 16).eval()
    maps = torch.zeros(1, 256, 8, 8)
    maps[:, :, 1, 6] = 1.0
    change = (head(maps, (16, 16)) - head(torch.zeros(1, 256, 8, 8), (16, 16))).abs().sum(dim=1)[0]
    rows, columns = change.gt(1e-7).nonzero().unbind(1)
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (1, 4, 11, 14)  # 2 to 3 and 12 to 13, and around


def test_lightness_sees_no_colour() -> None:
    plain = build_encoder("small", channels=3, image_size=16, mean=[0.2, 0.5, 0.7], std=[0.2, 0.3, 0.4]).eval()
    encoder = seeing(plain)
    x = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(encoder(x), plain(gray(x)))
    torch.testing.assert_close(encoder(gray(x)), encoder(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(encoder(x), plain(x), atol=1e-3)
    torch.testing.assert_close(feature_map(encoder, x).mean(dim=(2, 3)), encoder(x))
    assert seeing(encoder) is encoder
    again = build_encoder(**json.loads(json.dumps(encoder.spec))).eval()
    assert isinstance(again, Lightness)
    assert again.spec == encoder.spec == {"name": "small", "channels": 3, "image_size": 16, "sees": "lightness"}
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(x), encoder(x))
    own = dress(wrap(nn.Conv2d(3, 7, 3), 3, 16), sees="lightness")
    assert own.spec["name"] == "own"
    assert own(x).shape == (4, 7)


@pytest.mark.parametrize(("name", "split", "channels"), [("small", "lab", 3), ("resnet18", "3+1", 4), ("dcgan", "1+4", 5)])
def test_each_half_sees_its_channels_only(name: str, split: str, channels: int) -> None:
    whole = build_encoder(name, channels=channels, image_size=16, mean=[0.4] * channels, std=[0.1] * channels)
    encoder = split_encoder(whole, split).eval()
    assert encoder.width == whole.width
    assert encoder.first.width == encoder.second.width == whole.width // 2
    x = torch.rand(3, channels, 16, 16)
    other = x.clone()
    if split == "lab":
        other = gray(x)
    else:
        other[:, int(split[0]) :] = torch.rand_like(other[:, int(split[0]) :])
    half = whole.width // 2
    torch.testing.assert_close(encoder(other)[:, :half], encoder(x)[:, :half], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(encoder(other)[:, half:], encoder(x)[:, half:], atol=1e-3)
    again = build_encoder(**json.loads(json.dumps(encoder.spec))).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(x), encoder(x))
    assert again.spec == encoder.spec == {"name": name, "channels": channels, "image_size": 16, "split": split}
    assert split_encoder(encoder, split) is encoder
    parameters = sum(p.numel() for p in encoder.parameters()) / sum(p.numel() for p in whole.parameters())
    assert 0.45 < parameters < 0.6  # two networks of a quarter of the weights each


def test_the_second_half_does_not_see_the_first_part() -> None:
    encoder = split_encoder(build_encoder("small", channels=4, image_size=16), "3+1").eval()
    x = torch.rand(2, 4, 16, 16)
    other = torch.cat([torch.rand(2, 3, 16, 16), x[:, 3:]], dim=1)
    assert torch.equal(encoder(other)[:, 128:], encoder(x)[:, 128:])
    light, ab = split_encoder(build_encoder("small", channels=3, image_size=16)).parts(x[:, :3])
    torch.testing.assert_close(torch.cat([light, ab], dim=1), rgb_to_lab(x[:, :3]))


def test_mistakes_are_named() -> None:
    gray_images = build_encoder("small", channels=1, image_size=16)
    with pytest.raises(ValueError, match="red, green and blue images, 3 channels, got images of 1"):
        seeing(gray_images)
    with pytest.raises(ValueError, match=r'sees "lightness" .* got "depth"'):
        seeing(gray_images, "depth")
    for split, message in [
        ("lab", 'split="lab" is for red, green and blue'),
        ("3+2", "that make 4"),
        ("4+0", "that make 4"),
        ("a", "make 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            split_channels(split, 4)
    with pytest.raises(ValueError, match=r'half the width of small, .* got encoder "vit_tiny"'):
        split_encoder(build_encoder("vit_tiny", channels=3, image_size=16))
    halves = split_encoder(build_encoder("small", channels=3, image_size=16))
    with pytest.raises(ValueError, match=r'expected an encoder with split="1\+2", .* split="lab"'):
        split_encoder(halves, "1+2")
