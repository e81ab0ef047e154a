"""Quarter turns are torch.rot90, sample by sample."""

import pytest
import torch

from selfsup.views.rotations import random_turns, rotate


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("side", [1, 4, 5])
def test_every_image_gets_its_own_rot90(dtype: torch.dtype, side: int) -> None:
    images = torch.randint(0, 256, (9, 2, side, side), generator=torch.Generator().manual_seed(0)).to(dtype)
    turns = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 1])
    turned = rotate(images, turns)
    for image, k, got in zip(images, turns.tolist(), turned, strict=True):
        assert torch.equal(got, image.rot90(k, (1, 2)))
    assert torch.equal(rotate(turned, (4 - turns) % 4), images)


def test_turns_are_uniform() -> None:
    counts = random_turns(8000, torch.Generator().manual_seed(0)).bincount(minlength=4)
    torch.testing.assert_close(counts / 8000, torch.full((4,), 0.25), rtol=0, atol=0.02)


def test_oblong_images_are_refused() -> None:
    with pytest.raises(ValueError, match="square images, got 4 x 5 pixels"):
        rotate(torch.rand(1, 1, 4, 5), torch.tensor([1]))
