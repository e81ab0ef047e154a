"""Jigsaw puzzles: distances of the permutations, which tile goes where, and whether puzzles of new images are solved."""

import math
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from selfsup.engine.optim import make_optimizers
from selfsup.engine.step import chunk_views, train_step
from selfsup.method import Encoder, Recipe
from selfsup.methods.jigsaw import Jigsaw, Puzzles, permutation_set, standardised
from selfsup.models.patch_grid import mosaic, pieces


class TinyEncoder(Encoder):
    width = 8

    def __init__(self, channels: int = 3, side: int = 4) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, self.width), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def jigsaw(**options: float) -> Jigsaw:
    torch.manual_seed(1)
    given = {"permutations": 10, "puzzles": 2, "tile_size": 4, "feature_size": 6, "hidden_size": 16} | options
    return Jigsaw(TinyEncoder(), image_size=16, **given)


def cut(x: dict[str, torch.Tensor], **options: Any) -> dict[str, torch.Tensor]:
    given = {"image_size": 8, "grid": 3, "tile_size": 4, "permutations": 10, "puzzles": 2, "smallest_crop": 0.5}
    given |= {"gray": 0.0, "channel_shift": 0, "normalise": True} | options
    return Puzzles(**given)(x, torch.Generator().manual_seed(0))


def raw(batch: int, channels: int = 3, height: int = 16, width: int = 16) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {"image": torch.randint(0, 256, (batch, channels, height, width), dtype=torch.uint8, generator=g)}


# --- the permutations ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "nearest", "mean"), [(9, 9, 9.0), (24, 7, 8.3043), (100, 6, 8.08)])
def test_permutations_are_as_far_from_each_other_as_stated(n: int, nearest: int, mean: float) -> None:
    chosen = permutation_set(n)
    assert all(sorted(row) == list(range(9)) for row in chosen.tolist())
    distances = [int((a != b).sum()) for a, b in combinations(chosen, 2)]
    assert min(distances) == nearest
    assert sum(distances) / len(distances) == pytest.approx(mean, abs=5e-4)


def test_permutations_are_chosen_greedily_and_never_change() -> None:
    every = np.array(list(permutations(range(9))))
    chosen = permutation_set(10).numpy()
    for i in range(1, 6):  # of all 9!, none is farther from those before, in its nearest and then in the sum
        distances = np.stack([(every != before).sum(axis=1) for before in chosen[:i]])
        best = max(zip(distances.min(axis=0).tolist(), distances.sum(axis=0).tolist(), strict=True))
        mine = [int((chosen[i] != before).sum()) for before in chosen[:i]]
        assert (min(mine), sum(mine)) == best
    assert torch.equal(permutation_set(100)[:10], torch.from_numpy(chosen))
    assert torch.equal(permutation_set.__wrapped__(30), permutation_set(100)[:30])
    assert permutation_set(100)[[0, 1, 99]].tolist() == [list(range(9)), [1, 0, 3, 2, 5, 4, 7, 8, 6], [7, 0, 6, 1, 5, 2, 3, 4, 8]]


def test_the_set_of_a_checkpoint_is_its_own() -> None:
    method = jigsaw()
    assert torch.equal(method.state_dict()["permutations"], permutation_set(10))
    method.permutations.zero_()
    assert torch.equal(permutation_set(10)[0], torch.arange(9))


# --- the network -----------------------------------------------------------------------------------------------------------------------


def test_loss_is_the_cross_entropy_of_tiles_that_are_put_in_order_one_by_one() -> None:
    method = jigsaw().double().eval()
    tiles = torch.rand(3, 3, 3, 3, 4, 4, dtype=torch.float64)  # image, row, column, channel and pixels
    puzzles = torch.tensor([[1, 7], [0, 3], [9, 2]])
    by_hand, right = 0.0, 0
    for i in range(3):
        for k in range(2):
            shown = [tiles[i, t // 3, t % 3] for t in permutation_set(10)[puzzles[i, k]].tolist()]
            features = torch.cat([method.tile(method.encoder(tile[None])) for tile in shown], dim=1)
            chance = method.classifier(features).softmax(dim=1)[0].detach()
            by_hand -= math.log(float(chance[puzzles[i, k]])) / 6
            right += int(chance.argmax() == puzzles[i, k])
    views = {"image": torch.zeros(3, 3, 16, 16), "tiles": mosaic(tiles), "puzzles": puzzles}
    [update] = method.updates(views)
    # Logits are made float32 in the loss.
    assert float(update.loss.detach()) == pytest.approx(by_hand, rel=1e-6)
    assert float(update.metrics["accuracy"]) == pytest.approx(right / 6)
    assert float(method.loss(views).detach()) == pytest.approx(by_hand, rel=1e-6)


def test_an_undecided_classifier_is_at_chance_level() -> None:
    method = jigsaw()
    nn.init.zeros_(method.classifier[-1].weight)
    nn.init.zeros_(method.classifier[-1].bias)
    assert float(method.loss(method.views(raw(4), torch.Generator())).detach()) == pytest.approx(math.log(10))


def test_gradient_reaches_every_part() -> None:
    method = jigsaw()
    method.loss(method.views(raw(8), torch.Generator().manual_seed(0))).backward()
    for name, p in method.named_parameters():
        assert p.grad is not None, name
        assert float(p.grad.abs().sum()) > 0, name


# --- the views -------------------------------------------------------------------------------------------------------------------------


def test_tiles_say_nothing_by_their_mean_and_contrast() -> None:
    tiles = torch.rand(5, 3, 4, 4, dtype=torch.float64)
    plain = standardised(tiles)
    torch.testing.assert_close(plain.mean(dim=(2, 3)), torch.zeros(5, 3, dtype=torch.float64), rtol=0.0, atol=1e-12)
    torch.testing.assert_close(plain.std(dim=(2, 3), correction=0), torch.ones(5, 3, dtype=torch.float64), rtol=0.0, atol=1e-3)
    factor, shift = torch.rand(2, 5, 3, 1, 1, dtype=torch.float64) + 0.5
    torch.testing.assert_close(standardised(factor * tiles + shift), plain, rtol=0.0, atol=1e-3)
    assert torch.equal(standardised(torch.full((1, 3, 4, 4), 0.3)), torch.zeros(1, 3, 4, 4))


def test_each_tile_is_normalised_alone_to_the_mean_and_deviation_of_the_data() -> None:
    mean, std = torch.tensor([0.2, 0.5, 0.6]), torch.tensor([0.1, 0.2, 0.3])
    views = cut(raw(20), mean=mean, std=std)
    tiles = pieces(views["tiles"], 3)
    torch.testing.assert_close(tiles.mean(dim=(4, 5)), mean.expand(20, 3, 3, 3), rtol=0.0, atol=1e-4)
    torch.testing.assert_close(tiles.std(dim=(4, 5), correction=0), std.expand(20, 3, 3, 3), rtol=0.01, atol=0.0)


def test_puzzles_of_an_image_are_different_and_all_equally_likely() -> None:
    views = cut(raw(4000), puzzles=3)
    assert views["puzzles"].shape == (4000, 3)
    assert all(len(set(row)) == 3 for row in views["puzzles"].tolist())
    torch.testing.assert_close(views["puzzles"].flatten().bincount() / 12000, torch.full((10,), 0.1), rtol=0.0, atol=0.012)


def test_colours_go_and_channels_move_as_often_and_as_far_as_said() -> None:
    def gray_share(gray: float, channel_shift: int) -> float:
        tiles = pieces(cut(raw(400), gray=gray, channel_shift=channel_shift)["tiles"], 3)
        return float((tiles - tiles[:, :, :, :1]).abs().flatten(1).amax(dim=1).lt(1e-4).float().mean())

    assert gray_share(0.3, 0) == pytest.approx(0.3, abs=0.06)
    assert gray_share(1.0, 0) == 1.0
    assert gray_share(1.0, 2) == 0.0  # a shift parts the channels of a gray image, as it does in the paper's


def test_four_tiles_of_an_image_as_it_is() -> None:
    """As the method's text has it for small JPEGs: no pixel is made up, and a tile lies in its own quarter."""
    x = raw(50, height=32, width=32)
    image = x["image"].float() / 255
    views = cut(x, image_size=32, grid=2, tile_size=14, permutations=24, puzzles=24, smallest_crop=1.0, normalise=False)
    tiles = pieces(views["tiles"], 2)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        quarter = image[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        mirrored = image.flip(3)[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        windows = torch.cat([whole.unfold(2, 14, 1).unfold(3, 14, 1).flatten(2, 3) for whole in (quarter, mirrored)], dim=2)
        assert ((windows - tiles[:, row, column, :, None]).abs().amax(dim=(1, 3, 4)).amin(dim=1) < 1e-6).all()
    assert views["puzzles"].sort(dim=1).values.equal(torch.arange(24).expand(50, 24))
    assert sorted(permutation_set(24, 4).tolist()) == sorted(map(list, permutations(range(4))))


def test_four_tiles_make_puzzles_of_four() -> None:
    method = jigsaw(grid=2, permutations=24)
    [update] = method.updates(method.views(raw(6), torch.Generator().manual_seed(0)))
    update.loss.backward()
    assert method.classifier[0].weight.grad.shape == (16, 4 * 6)
    assert method.classifier[-1].weight.grad.shape == (24, 16)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_images_of_other_channels_and_sizes(channels: int) -> None:
    method = Jigsaw(TinyEncoder(channels, side=16), image_size=33, permutations=5, feature_size=4, hidden_size=8)
    views = method.views(raw(4, channels, 33, 47), torch.Generator().manual_seed(0))
    assert views["tiles"].shape == (4, channels, 48, 48)
    parts = chunk_views(views, 2)
    assert math.isfinite(float(method.loss(parts[0]).detach()))


def test_it_solves_puzzles_of_new_images() -> None:
    """Nine places of all images have stripes of their own direction and width, under noise and with any contrast."""
    method = jigsaw(tile_size=8)
    method.encoder = TinyEncoder(side=8)
    method.views.image = type(method.views.image)(method.views.image.size, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    x, y = torch.meshgrid(*[torch.arange(27.0)] * 2, indexing="xy")
    cell = (y // 9 * 3 + x // 9).long()
    stripes = torch.sin(x * torch.linspace(0, 2, 9)[cell] + y * torch.linspace(2, 0, 9)[cell])
    g = torch.Generator().manual_seed(0)

    def photos(n: int) -> dict[str, torch.Tensor]:
        noisy = 128 + 40 * stripes + 20 * torch.randn(n, 3, 27, 27, generator=g)
        return {"image": noisy.clamp(0, 255).to(torch.uint8)}

    optimizers = make_optimizers(method, Recipe(lr=3e-3, weight_decay=0.0))
    for _ in range(60):
        train_step(method, [method.views(photos(32), g)], optimizers)
    method.eval()
    accuracy = float(next(method.updates(method.views(photos(200), g))).metrics["accuracy"])
    assert accuracy > 0.8, f"{accuracy:.2f} of the puzzles of new images solved; chance is 0.1"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="9 tiles have 2 to 362880 permutations, got permutations=1"):
        jigsaw(permutations=1, puzzles=1)
    with pytest.raises(ValueError, match="expected 1 to 10 puzzles of an image, as many as there are permutations, got 11"):
        jigsaw(puzzles=11)
    with pytest.raises(ValueError, match="4 tiles have 2 to 24 permutations, got permutations=25"):
        jigsaw(grid=2, permutations=25)
    with pytest.raises(ValueError, match="grid of 2 or 3 tiles in a row, whose permutations can be counted, got 4"):
        jigsaw(grid=4)
    with pytest.raises(ValueError, match="tile_size=-1, channel_shift=1, feature_size=6"):
        jigsaw(tile_size=-1)
    with pytest.raises(ValueError, match="smallest <= largest"):
        jigsaw(smallest_crop=0.0)
