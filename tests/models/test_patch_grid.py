"""Encoders of patches: where patches lie, that each is seen alone, and that the spec builds the same network again."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.models import build_encoder, dress, wrap
from selfsup.models.patch_grid import PatchGrid, cut, mosaic, patch_grid, patch_side, pieces


def test_patches_overlap_by_half_as_in_the_paper() -> None:
    assert patch_side(256, 7) == 64
    x = torch.arange(32 * 32, dtype=torch.float32).view(1, 1, 32, 32)
    patches = cut(x, 7)
    assert patches.shape == (1, 7, 7, 1, 8, 8)
    for i, j in [(0, 0), (6, 6), (2, 5)]:
        assert torch.equal(patches[0, i, j], x[0, :, 4 * i : 4 * i + 8, 4 * j : 4 * j + 8])
    assert torch.equal(cut(x[..., :29, :29], 3)[0, 0, 0, 0], x[0, 0, :14, :14])  # patches of 14 reach 28 of 29 pixels
    assert torch.equal(cut(x[..., :30, :30], 7)[0, 0, 0, 0], x[0, 0, 3:9, 3:9])  # patches of 6 reach 24 of 30, the middle ones


def test_a_mosaic_comes_apart_again() -> None:
    patches = torch.rand(2, 3, 3, 4, 5, 5)
    picture = mosaic(patches)
    assert picture.shape == (2, 4, 15, 15)
    assert torch.equal(picture[1, 2, 5:10, 10:15], patches[1, 1, 2, 2])
    assert torch.equal(pieces(picture, 3), patches)


def test_the_vector_is_the_mean_over_patches_seen_one_by_one() -> None:
    encoder = PatchGrid(wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5), nn.Tanh()), 3, 8), grid=3)
    x = torch.rand(2, 3, 16, 16)
    by_hand = torch.stack([encoder.encoder(x[:, :, 4 * i : 4 * i + 8, 4 * j : 4 * j + 8]) for i in range(3) for j in range(3)]).mean(dim=0)
    torch.testing.assert_close(encoder(x), by_hand)
    assert encoder.width == 5


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_patches_know_nothing_of_each_other(norm: str) -> None:
    alone = PatchGrid(build_encoder("small", channels=3, image_size=32), grid=7, norm=norm).train()
    assert not [m for m in alone.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    patches = torch.rand(2, 2, 2, 3, 8, 8)
    torch.testing.assert_close(alone.each(patches)[:1], alone.each(patches[:1]))
    together = PatchGrid(build_encoder("small", channels=3, image_size=32), grid=7).train()
    assert not torch.allclose(together.each(patches)[:1], together.each(patches[:1]))


def test_layer_norm_is_over_channels_and_positions_of_one_patch() -> None:
    net = PatchGrid(wrap(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), 3, 8), norm="layer").encoder.module
    maps = net[0](torch.rand(5, 3, 8, 8))
    torch.testing.assert_close(net[1](maps), F.layer_norm(maps, maps.shape[1:]))
    bare = PatchGrid(wrap(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), 3, 8), norm="none").encoder.module
    assert [name for name, _ in bare.named_parameters()] == ["0.weight", "1.bias"]
    torch.nn.init.constant_(bare[1].bias, 2.0)
    torch.testing.assert_close(bare[1](maps), maps + 2)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_the_spec_builds_the_same_network_again(norm: str) -> None:
    encoder = patch_grid(build_encoder("small", channels=3, image_size=32, mean=[0.1] * 3), grid=3, norm=norm).eval()
    again = build_encoder(**json.loads(json.dumps(encoder.spec))).eval()
    again.load_state_dict(encoder.state_dict())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(x), encoder(x))
    assert again.spec == encoder.spec
    assert patch_grid(again, grid=3, norm=norm) is again  # a run that goes on builds it from its spec
    own = dress(wrap(nn.Conv2d(3, 7, 3), 3, 16), patches={"grid": 3, "norm": norm})
    assert own.spec == {"name": "own", "channels": 3, "image_size": 16, "patches": {"grid": 3, "norm": norm}}


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="at least 8 pixels, got 7"):
        cut(torch.zeros(1, 3, 7, 7), 7)
    encoder = build_encoder("small", channels=3, image_size=32)
    with pytest.raises(ValueError, match="at least 1 patch in a row, got 0"):
        PatchGrid(encoder, grid=0)
    with pytest.raises(ValueError, match=r"expected an encoder of patches with grid=7, norm='none'.*got one with grid=3, norm='batch'"):
        patch_grid(PatchGrid(encoder, grid=3), grid=7, norm="none")
