"""What MAE and I-JEPA hide: how much, where, how often, and the same whatever the number of processes."""

import pytest
import torch

from selfsup.method import Batch
from selfsup.views import patches, sampling
from selfsup.views.patches import BlocksOfPatches, RandomPatches


def images(n: int) -> Batch:
    raw = torch.randint(0, 256, (n, 3, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    return {"image": raw, "index": torch.arange(n)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_random_patches_hide_exactly_so_many_and_each_equally_often() -> None:
    views = RandomPatches(8, 4, 12, 0.2)(images(4000), seeded())
    assert views["image"].shape == (4000, 3, 8, 8)
    assert torch.equal(views["index"], torch.arange(4000))
    hidden = views["hidden"]
    assert (hidden.sum(dim=1) == 12).all()
    torch.testing.assert_close(hidden.float().mean(dim=0), torch.full((16,), 0.75), rtol=0, atol=0.03)
    together = (hidden[:, 0] & hidden[:, 1]).float().mean().item()
    assert together == pytest.approx(12 / 16 * 11 / 15, abs=0.03)  # neighbours are hidden independently


def box(mask: torch.Tensor, grid: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of what must be a full rectangle."""
    rows, columns = mask.view(grid, grid).nonzero().T
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    assert int(mask.sum()) == height * width
    return top, left, height, width


@pytest.mark.parametrize("grid", [2, 4, 8, 14])
def test_blocks_are_rectangles_of_the_papers_sizes(grid: int) -> None:
    views = BlocksOfPatches(8, grid)
    sizes = set()
    for seed in range(40):
        made = views(images(3), seeded(seed))
        hidden, targets = made["hidden"], made["targets"]
        assert (hidden.shape, targets.shape) == ((3, grid**2), (3, 4, grid**2))
        boxes = [box(block, grid) for image in targets for block in image]
        assert len({b[2:] for b in boxes}) == 1  # one size a batch
        sizes.add(boxes[0][2:])
        assert (~hidden).sum(dim=1).min() >= max(1, grid**2 // 20)
        if grid == 14:
            height, width = boxes[0][2:]
            assert 0.15 * 196 * 0.85 < height * width < 0.2 * 196 * 1.15  # to the rounding of the sides
            assert 0.65 < height / width < 1.7
            assert not (~hidden[:, None] & targets).any()  # no target shines through
    assert len(sizes) > 1 or grid < 4


def test_a_context_is_a_large_square_without_the_targets() -> None:
    views, sides = BlocksOfPatches(8, 14, 1, target_scale=(0.02, 0.02)), set()
    for seed in range(40):
        made = views(images(2), seeded(seed))
        for hidden, target in zip(made["hidden"], made["targets"][:, 0], strict=True):
            rows, columns = (~hidden).view(14, 14).nonzero().T
            whole = torch.zeros(14, 14, dtype=torch.bool)
            whole[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
            assert torch.equal(~hidden, whole.flatten() & ~target)
            sides.add(box(whole.flatten(), 14)[2:])
    assert sides == {(13, 13), (14, 14)}  # 0.85 to 1 of 196 patches


def test_blocks_lie_everywhere_with_equal_probability() -> None:
    views = BlocksOfPatches(8, 8, 1, target_scale=(0.2, 0.2), target_ratio=(1.0, 1.0))
    made = views(images(5000), seeded())
    tops = torch.tensor([int(block.nonzero()[0]) for block in made["targets"][:, 0]])
    counts = torch.bincount(tops, minlength=64).view(8, 8)[:5, :5]  # 4 x 4 blocks have 5 x 5 places
    assert counts.sum() == 5000
    torch.testing.assert_close(counts / 5000, torch.full((5, 5), 1 / 25), rtol=0, atol=0.012)


def test_a_crowded_context_keeps_what_its_last_targets_take() -> None:
    views = BlocksOfPatches(8, 4, 30, target_scale=(0.25, 0.25), target_ratio=(1.0, 1.0))
    made = views(images(50), seeded())
    assert (~made["hidden"]).any(dim=1).all()  # 30 blocks of 4 in 16 patches leave nothing
    assert (made["hidden"] | ~made["targets"][:, 0]).all()  # but the first target is never shown


@pytest.mark.parametrize("views", [RandomPatches(8, 4, 12, 0.2), BlocksOfPatches(8, 4)])
def test_two_processes_hide_what_one_does(views: RandomPatches | BlocksOfPatches, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = images(6)
    whole = views(batch, seeded())
    again = views(batch, seeded())
    other = views(batch, seeded(1))
    for name, value in whole.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)
    assert not torch.equal(other["hidden"], whole["hidden"])
    monkeypatch.setattr(sampling, "world_size", lambda: 2)
    for number in range(2):
        monkeypatch.setattr(sampling, "rank", lambda number=number: number)
        half = views({name: value[3 * number : 3 * number + 3] for name, value in batch.items()}, seeded())
        for name, value in whole.items():
            torch.testing.assert_close(half[name], value[3 * number : 3 * number + 3], rtol=0, atol=0)


def test_views_draw_from_their_generator_only() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    patches.BlocksOfPatches(8, 4)(images(3), seeded())
    patches.RandomPatches(8, 4, 12, 0.2)(images(3), seeded())
    assert torch.equal(torch.get_rng_state(), state)
