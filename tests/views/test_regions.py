"""Hidden regions: how much of an image they hide, where, and that images differ."""

import pytest
import torch

from selfsup.views.regions import central, random_blocks, random_regions


def test_the_centre_is_in_the_middle() -> None:
    hidden = central(2, 8, 4)
    assert hidden.shape == (2, 1, 8, 8)
    assert hidden[0, 0].nonzero().min() == 2
    assert hidden[0, 0].nonzero().max() == 5
    assert int(hidden.sum()) == 2 * 16


@pytest.mark.parametrize("size", [9, 32, 33])
@pytest.mark.parametrize("blocks", [1, 4, 7])
def test_blocks_hide_up_to_a_quarter_everywhere(size: int, blocks: int) -> None:
    hidden = random_blocks(3000, torch.Generator().manual_seed(0), size, blocks)
    assert hidden.shape == (3000, 1, size, size)
    share = hidden.flatten(1).float().mean(dim=1)
    assert 0 < float(share.min()) < float(share.max()) <= 0.25
    often = hidden.float().mean(dim=0)[0]
    assert float(often.min()) > 0  # no pixel is always shown, not even in a corner
    torch.testing.assert_close(often.mean(dim=0), often.mean(dim=1), rtol=0, atol=0.03)  # rows and columns alike
    torch.testing.assert_close(often, often.flip(0, 1), rtol=0, atol=0.05)
    if blocks == 1 and size == 32:  # a rectangle of 8 to 16 pixels on each side
        sides = hidden.any(dim=2).sum(dim=2).flatten()
        assert (int(sides.min()), int(sides.max())) == (8, 16)
        assert torch.equal(share * size**2, (sides * hidden.any(dim=3).sum(dim=2).flatten()).float())


def test_regions_hide_a_quarter_in_blobs() -> None:
    hidden = random_regions(200, torch.Generator().manual_seed(0), 32)
    assert hidden.flatten(1).sum(dim=1).tolist() == [256] * 200
    same = (hidden[..., 1:] == hidden[..., :-1]).float().mean()
    assert float(same) > 0.85, "single pixels would have 0.63 neighbours alike"
    assert not torch.equal(hidden[0], hidden[1])


def test_too_many_blocks_are_named() -> None:
    for blocks in (0, 17):
        with pytest.raises(ValueError, match=f"blocks must be between 1 and 16 for images of 8 pixels, got {blocks}"):
            random_blocks(2, torch.Generator(), 8, blocks)
