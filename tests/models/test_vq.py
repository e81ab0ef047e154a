"""The two networks of VQ-VAE: sides, the paper's layers, and that no position knows more than its neighbourhood."""

import pytest
import torch

from selfsup.models import build_encoder
from selfsup.models.maps import downsampling, feature_map
from selfsup.models.vq import VQDecoder, VQEncoder


@pytest.mark.parametrize("downsample", [2, 4, 8, 16])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 32, 32), (6, 33, 47), (3, 1, 1)])
def test_maps_of_any_image_and_back(downsample: int, channels: int, height: int, width: int) -> None:
    encoder = build_encoder(f"vq_{downsample}", channels=channels, image_size=32)
    assert downsampling(encoder)
    x = torch.rand(2, channels, height, width)
    h, w = -(-height // downsample), -(-width // downsample)
    found = feature_map(encoder, x)
    assert found.shape == (2, encoder.width, h, w)
    torch.testing.assert_close(encoder(x), found.flatten(2).mean(dim=2))
    assert VQDecoder(5, downsample, channels)(torch.rand(2, 5, h, w)).shape == (2, channels, downsample * h, downsample * w)


def test_small_has_a_map_too() -> None:
    encoder = build_encoder("small", channels=3, image_size=33).eval()
    assert downsampling(encoder)
    x = torch.rand(2, 3, 33, 47)
    assert feature_map(encoder, x).shape == (2, 256, 5, 6)
    torch.testing.assert_close(encoder(x), feature_map(encoder, x).mean(dim=(2, 3)))


def test_the_layers_are_those_of_section_4_1() -> None:
    """At the paper's 256 planes everywhere: two 4x4 convolutions of stride 2, then blocks of 3x3 and 1x1; the decoder in reverse."""
    encoder = VQEncoder(4, planes=256, bottleneck=256)
    shapes = [(*m.kernel_size, *m.stride) for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert shapes == [(4, 4, 2, 2)] * 2 + [(3, 3, 1, 1)] + [(3, 3, 1, 1), (1, 1, 1, 1)] * 2
    decoder = VQDecoder(64, 4, 3, planes=256, bottleneck=256)
    transposed = [(*m.kernel_size, *m.stride, m.out_channels) for m in decoder.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    assert transposed == [(4, 4, 2, 2, 128), (4, 4, 2, 2, 3)]


def test_sides_that_do_not_divide_repeat_the_border() -> None:
    encoder = VQEncoder(4)
    x = torch.rand(1, 3, 6, 7)
    filled = torch.cat([x, x[..., -1:]], dim=3)
    filled = torch.cat([filled, filled[:, :, -1:], filled[:, :, -1:]], dim=2)
    torch.testing.assert_close(feature_map(encoder, x), feature_map(encoder, filled))


def test_a_wrong_factor_is_named() -> None:
    with pytest.raises(ValueError, match="downsample must be 2, 4, 8 or 16, got 3"):
        VQEncoder(3)
