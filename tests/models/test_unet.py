"""The U-Net: the papers' sizes, any size of image, and tiles that change nothing."""

import pytest
import torch

from selfsup.models import build_encoder, unet
from selfsup.models.unet import REACH, STRIDE, Expanding, UNet, in_tiles


class Whole(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.contract, self.expand = UNet(channels=channels), Expanding(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.expand(self.contract.maps(x))


def test_it_has_the_papers_parameters() -> None:
    """Counted layer by layer from the papers' tables, with three 1x1 convolutions and transposed convolutions of 2x2 to go up."""

    def convolution(inputs: int, outputs: int, side: int = 3) -> int:
        return inputs * outputs * side**2 + outputs

    down = convolution(3, 48) + 6 * convolution(48, 48)
    up = convolution(48, 48, 2) + 4 * convolution(96, 96, 2)
    merge = convolution(96, 96) + 3 * convolution(144, 96) + convolution(99, 96) + 5 * convolution(96, 96)
    pointwise = 2 * convolution(96, 96, 1) + convolution(96, 3, 1)
    assert sum(p.numel() for p in UNet().parameters()) == down
    assert sum(p.numel() for p in Expanding(3).parameters()) == up + merge + pointwise


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 1, 1), (3, 32, 32), (2, 33, 47), (6, 5, 64)])
def test_any_size_comes_out_as_it_went_in(channels: int, height: int, width: int) -> None:
    encoder = build_encoder("unet", channels=channels, image_size=32)
    x = torch.rand(2, channels, height, width)
    assert Expanding(channels)(encoder.maps(x)).shape == x.shape
    assert encoder(x).shape == (2, encoder.width)


def test_vectors_are_the_mean_of_the_smallest_map_however_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = UNet(channels=1)
    x = torch.rand(3, 1, 64, 96)
    smallest = encoder.maps(x)[-1]
    assert smallest.shape == (3, 48, 2, 3)
    torch.testing.assert_close(encoder(x), smallest.mean(dim=(2, 3)))
    for pixels in (1, 2 * 64 * 96):
        monkeypatch.setattr(unet, "PIXELS", pixels)
        torch.testing.assert_close(encoder(x), smallest.mean(dim=(2, 3)))


def test_outputs_keep_the_scale_of_their_inputs() -> None:
    with torch.no_grad():
        y = Whole(3)(torch.rand(4, 3, 64, 64))
    assert 0.1 < float(y.std()) < 10


def test_gradients_are_finite_down_to_one_pixel_in_bfloat16() -> None:
    for side in (1, 2, 3, 8):
        net = Whole(3)
        with torch.autocast("cpu", torch.bfloat16):
            net(torch.rand(16, 3, side, side)).float().square().mean().backward()
        assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


def test_a_pixel_knows_nothing_from_farther_than_its_reach() -> None:
    net, side = Whole(1), 2 * REACH + 64
    x = torch.rand(1, 1, STRIDE, side, requires_grad=True)
    column = side // 2 + STRIDE // 2  # the middle of the widest pooling is the farthest from its ends
    [gradient] = torch.autograd.grad(net(x)[0, 0, :, column].sum(), x)
    seen = gradient.abs().amax(dim=2)[0, 0].nonzero()
    assert REACH - STRIDE < int((seen - column).abs().max()) < REACH


def test_tiles_are_the_whole_image() -> None:
    net = Whole(1)
    x = torch.rand(1, 1, 20, 2 * REACH + 150)
    seen = []

    def network(piece: torch.Tensor) -> torch.Tensor:
        seen.append(piece.shape[3])
        return net(piece)

    with torch.no_grad():
        torch.testing.assert_close(in_tiles(network, x, tile=128), net(x), rtol=1e-4, atol=1e-5)
        assert seen == [288, 416, 374, 246]
        upright = x[..., : 2 * REACH + 130].transpose(2, 3)
        torch.testing.assert_close(in_tiles(network, upright, tile=128), net(upright), rtol=1e-4, atol=1e-5)
        assert len(seen) == 4 + 4
        in_tiles(network, x[..., : 2 * REACH + 128], tile=128)
    assert seen[8:] == [2 * REACH + 128]  # in one piece
