"""The small net: its size, the sizes of image it takes, and that its shortcuts carry a gradient."""

import pytest
import torch

from selfsup.models import build_encoder
from selfsup.models.small import Small


def test_it_has_the_parameters_that_its_docstring_says() -> None:
    assert sum(p.numel() for p in Small().parameters()) == 1_225_024


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 28), (3, 33), (5, 64)])
def test_it_takes_any_size_and_channels(channels: int, side: int) -> None:
    encoder = build_encoder("small", channels=channels, image_size=side)
    assert encoder(torch.rand(2, channels, side, side)).shape == (2, encoder.width)


def test_standardising_is_its_first_layer() -> None:
    shifted = build_encoder("small", channels=1, image_size=8, mean=[0.5], std=[0.1])
    plain = build_encoder("small", channels=1, image_size=8, mean=[0.0], std=[1.0])
    plain.load_state_dict({**shifted.state_dict(), "normalize.mean": torch.zeros(1), "normalize.std": torch.ones(1)})
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(shifted.eval()(x), plain.eval()((x - 0.5) / 0.1))


def test_a_block_is_its_shortcut_when_its_branch_is_silent() -> None:
    encoder = Small()
    block = encoder.blocks[0]
    torch.nn.init.zeros_(block.norm2.weight)
    x = torch.rand(2, 64, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_gradients_are_finite_down_to_one_pixel() -> None:
    """Maps of 1 x 1 before a stride, in bfloat16, where torch's own kernel returns uninitialised memory."""
    for side in (1, 2, 4):
        network = Small(channels=3)
        with torch.autocast("cpu", torch.bfloat16):
            network(torch.rand(64, 3, side, side)).float().square().mean().backward()
        assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
