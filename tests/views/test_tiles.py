"""Tiles: where they are cut, how far they move, and what is left between them."""

import pytest
import torch

from selfsup.views.tiles import Tiles


def places(tiles: Tiles, images: int, shift: int = 0, channels: int = 1) -> torch.Tensor:
    """(images, G, G, channels, 2): row and column of each tile's first pixel, read from pixels that say where they are."""
    side = tiles.canvas
    where = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side).expand(images, channels, -1, -1)
    cut = tiles.cut(where, torch.Generator().manual_seed(0), shift)
    assert cut.shape == (images, tiles.grid, tiles.grid, channels, tiles.side, tiles.side)
    first = cut[..., :1, :1]
    inside = torch.arange(tiles.side)
    assert torch.equal(cut, first + inside[:, None] * side + inside)  # every tile is one square of the image
    return torch.cat([first[..., 0] // side, first[..., 0] % side], dim=-1)


def test_each_tile_moves_in_its_cell_and_all_places_are_equally_likely() -> None:
    tiles = Tiles(3, 4, 7, 2)
    assert tiles.canvas == 2 * 7 + 4 + 2
    moved = places(tiles, 1500)[:, :, :, 0] - 7 * torch.stack(torch.meshgrid(*[torch.arange(3)] * 2, indexing="ij"), dim=2)
    share = torch.stack([(moved == k).float().mean(dim=0) for k in range(3)])
    torch.testing.assert_close(share, torch.full((3, 3, 3, 2), 1 / 3), rtol=0, atol=0.06)
    for a, b in [(moved[:, 0, 0], moved[:, 2, 1]), (moved[..., 0], moved[..., 1])]:  # tiles, rows and columns move each for itself
        assert float((a == b).float().mean()) == pytest.approx(1 / 3, abs=0.04)


def test_sizes_of_the_papers() -> None:
    assert Tiles(3, 64, 75, 11).canvas == 225  # jigsaw puzzles
    assert Tiles(2, 96, 144, 14).canvas == 254  # context prediction


def test_channels_move_against_each_other_where_there_is_room() -> None:
    tiles = Tiles(2, 4, 8, 0)
    found = places(tiles, 2000, shift=2, channels=3)
    assert not torch.equal(found[..., 0, :], found[..., 1, :])
    for r in range(2):  # at the border half of the shifts have no room
        values = found[:, r, :, :, 0]
        assert set(values.unique().tolist()) == ({0, 1, 2} if r == 0 else {6, 7, 8})
    assert len(places(tiles, 50, shift=2, channels=1)[:, 0, 0].unique()) == 1  # one channel alone cannot


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="grid of at least 2 and a side of at least 1 pixel, got 1 and 4"):
        Tiles(1, 4, 4, 0)
    with pytest.raises(ValueError, match="tiles of 4 pixels that move by 0 to 2 overlap at a pitch of 5 pixels"):
        Tiles(2, 4, 5, 2)
    with pytest.raises(ValueError, match="expected images of 9 x 9 pixels for these tiles, got 8 x 8"):
        Tiles(2, 4, 5, 0).cut(torch.rand(1, 1, 8, 8), torch.Generator())
