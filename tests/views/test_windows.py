"""Windows: pixels as they are, every place as likely, and mirrors where an image is too small."""

import torch

from selfsup.views.windows import random_windows


def coordinates(n: int, height: int, width: int) -> torch.Tensor:
    """Images whose two channels are row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).to(torch.uint8).expand(n, -1, -1, -1)


def test_pixels_are_those_of_the_place_that_is_said() -> None:
    found = random_windows({"image": coordinates(50, 20, 30)}, torch.Generator().manual_seed(0), 7)
    assert found.image.shape == (50, 2, 7, 7)
    assert torch.equal(found.image[:, 0].long(), found.rows[:, :, None].expand(-1, -1, 7))
    assert torch.equal(found.image[:, 1].long(), found.columns[:, None].expand(-1, 7, -1))
    assert bool((found.rows.diff(dim=1) == 1).all())
    assert bool((found.columns.diff(dim=1) == 1).all())


def test_every_place_is_as_likely_and_inside_of_the_image() -> None:
    sizes = torch.tensor([[9, 12]]).expand(4000, 2)
    found = random_windows({"image": coordinates(4000, 20, 30), "size": sizes}, torch.Generator().manual_seed(0), 8)
    assert found.rows[:, 0].bincount().tolist()[1] > 1800
    starts = found.columns[:, 0].bincount()
    assert len(starts) == 5
    assert starts.min() > 650
    assert found.rows.max() == 8
    assert found.columns.max() == 11


def test_a_small_image_is_mirrored_and_its_canvas_never_seen() -> None:
    sizes = torch.tensor([[3, 1], [5, 2]])
    found = random_windows({"image": coordinates(2, 6, 6), "size": sizes}, torch.Generator().manual_seed(0), 8)
    assert found.rows.tolist() == [[0, 1, 2, 1, 0, 1, 2, 1], [0, 1, 2, 3, 4, 3, 2, 1]]
    assert found.columns.tolist() == [[0] * 8, [0, 1] * 4]
