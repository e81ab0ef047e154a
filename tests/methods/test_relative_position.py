"""Relative position: which patch is whose neighbour and where, what is done to colours, and whether places in new images are told."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.engine.optim import make_optimizers
from selfsup.engine.step import chunk_views, train_step
from selfsup.method import Encoder, Recipe
from selfsup.methods.relative_position import PLACES, GridOfPatches, RelativePosition, dropped, neighbours, pixelate, projected
from selfsup.models.patch_grid import mosaic, pieces


class TinyEncoder(Encoder):
    width = 8

    def __init__(self, channels: int = 3, side: int = 4) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, self.width), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def relative(**options: float | str) -> RelativePosition:
    torch.manual_seed(1)
    given = {"patch_size": 4, "hidden_size": 16} | options
    return RelativePosition(TinyEncoder(), image_size=16, **given)


def raw(batch: int, channels: int = 3, height: int = 16, width: int = 16) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {"image": torch.randint(0, 256, (batch, channels, height, width), dtype=torch.uint8, generator=g)}


def pairs_by_hand(grid: int) -> list[tuple[int, int, int]]:
    cells = [(r, c) for r in range(grid) for c in range(grid)]
    return [
        (r * grid + c, r2 * grid + c2, PLACES.index((r2 - r, c2 - c))) for r, c in cells for r2, c2 in cells if (r2 - r, c2 - c) in PLACES
    ]


# --- pairs and the network -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "pairs"), [(2, 12), (3, 40), (4, 84)])
def test_every_patch_is_paired_with_each_of_its_neighbours(grid: int, pairs: int) -> None:
    found = {tuple(pair) for pair in neighbours(grid).T.tolist()}
    assert found == set(pairs_by_hand(grid))
    assert neighbours(grid).shape == (3, pairs)
    middle = sorted(place for first, _, place in found if grid == 3 and first == 4)
    assert middle == (list(range(8)) if grid == 3 else [])


def test_loss_is_the_mean_over_eight_places_of_what_pairs_cost() -> None:
    method = relative().double().eval()
    patches = torch.rand(2, 3, 3, 3, 4, 4, dtype=torch.float64)
    fusion = torch.cat([method.first.weight, method.second.weight], dim=1)  # one layer on both encodings, as the paper has it
    cost, right = [[] for _ in PLACES], [[] for _ in PLACES]
    for i in range(2):
        for first, second, place in pairs_by_hand(3):
            z = [method.fc6(method.encoder(patches[i, k // 3, k % 3][None])) for k in (first, second)]
            chance = method.classifier(torch.cat(z, dim=1) @ fusion.T).softmax(dim=1)[0].detach()
            cost[place].append(-math.log(float(chance[place])))
            right[place].append(float(chance.argmax() == place))
    views = {"image": torch.zeros(2, 3, 16, 16), "patches": mosaic(patches)}
    [update] = method.updates(views)
    assert float(update.loss.detach()) == pytest.approx(sum(sum(c) / len(c) for c in cost) / 8, rel=1e-6)
    assert float(update.metrics["accuracy"]) == pytest.approx(sum(sum(c) / len(c) for c in right) / 8, rel=1e-6)
    assert float(method.loss(views).detach()) == pytest.approx(float(update.loss.detach()))


def test_an_undecided_classifier_is_at_chance_level() -> None:
    method = relative()
    nn.init.zeros_(method.classifier[-1].weight)
    nn.init.zeros_(method.classifier[-1].bias)
    assert float(method.loss(method.views(raw(4), torch.Generator())).detach()) == pytest.approx(math.log(8))


def test_batch_normalisation_has_no_scale_and_shift_and_gradient_reaches_all_else() -> None:
    method = relative()
    norms = [m for m in method.modules() if isinstance(m, nn.BatchNorm1d)]
    assert [m.affine for m in norms] == [False, False, False]
    method.loss(method.views(raw(8), torch.Generator().manual_seed(0))).backward()
    for name, p in method.named_parameters():
        assert p.grad is not None, name
        assert float(p.grad.abs().sum()) > 0, name


# --- the views -------------------------------------------------------------------------------------------------------------------------


def test_gap_and_jitter_are_the_papers_at_its_patch_size() -> None:
    views = RelativePosition(TinyEncoder(), image_size=256, patch_size=96).views
    assert (views.cells.side, views.cells.pitch, views.cells.play) == (96, 144, 14)
    assert RelativePosition(TinyEncoder(), image_size=398).views.cells == views.cells  # the largest that fit into so many pixels
    assert views.cells.canvas == 398


def test_projection_removes_green_against_magenta_and_nothing_else() -> None:
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    a = torch.tensor([[-1.0, 2.0, -1.0]], dtype=torch.float64)
    b = torch.eye(3, dtype=torch.float64) - a.T @ a / (a @ a.T)
    torch.testing.assert_close(projected(x), torch.einsum("nchw,cd->ndhw", x, b), rtol=1e-9, atol=1e-12)
    green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(projected(green), torch.full((1, 3, 1, 1), 1 / 3))
    gray, blue_less_red = torch.full((1, 3, 1, 1), 0.4), torch.tensor([-0.2, 0.0, 0.2]).view(1, 3, 1, 1)
    torch.testing.assert_close(projected(gray + blue_less_red), gray + blue_less_red)


def test_two_of_three_channels_become_faint_noise() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(900, 3, 8, 8, generator=g) * torch.rand(900, 1, 1, 1, generator=g)
    mean = torch.tensor([0.1, 0.5, 0.9])
    out = dropped(x, g, mean)
    kept = (out == x).all(dim=3).all(dim=2)
    assert (kept.sum(dim=1) == 1).all()
    torch.testing.assert_close(kept.float().mean(dim=0), torch.full((3,), 1 / 3), rtol=0.0, atol=0.06)
    sigma = x.std(dim=(2, 3), correction=0)[kept][:, None] / 100
    noise = (out - mean.view(3, 1, 1)) / sigma[:, :, None, None]
    noise = noise[~kept]
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(dropped(x[:, :1], g, mean[:1]), x[:, :1])


def test_pixelated_patches_went_through_fewer_pixels() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(300, 2, 13, 13, generator=g)
    out = pixelate(x, g, 0.5)

    def through(i: int, side: int) -> torch.Tensor:
        small = F.interpolate(x[i : i + 1], size=(side, side), mode="bilinear", antialias=True)
        return F.interpolate(small, size=(13, 13), mode="bilinear", antialias=True)[0]

    found = [[s for s in range(10, 14) if torch.allclose(out[i], through(i, s), atol=1e-5)] for i in range(300)]
    assert all(len(sides) == 1 for sides in found)
    share = [sum(sides == [s] for sides in found) / 300 for s in range(10, 14)]
    assert share == pytest.approx([0.125, 0.125, 0.125, 0.625], abs=0.07)
    assert torch.equal(pixelate(x, g, 0.0), x)
    assert torch.equal(pixelate(x[:, :, :10, :10], g, 1.0), x[:, :, :10, :10])


@pytest.mark.parametrize("colour", ["drop", "projection", "keep"])
def test_views_do_to_colours_what_is_said(colour: str) -> None:
    views = GridOfPatches(8, 2, 4, 0.5, 0.0, 1.0, colour, 0.0, torch.tensor([0.3]))
    patches = pieces(views(raw(40), torch.Generator().manual_seed(0))["patches"], 2).flatten(0, 2)
    plain = GridOfPatches(8, 2, 4, 0.5, 0.0, 1.0, "keep", 0.0)(raw(40), torch.Generator().manual_seed(0))["patches"]
    plain = pieces(plain, 2).flatten(0, 2)
    assert patches.shape == (160, 3, 4, 4)
    if colour == "drop":
        assert ((patches == plain).flatten(2).all(dim=2).sum(dim=1) == 1).all()
        assert float((patches - 0.3)[patches != plain].abs().max()) < 0.03
    else:
        torch.testing.assert_close(patches, plain if colour == "keep" else projected(plain))


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_images_of_other_channels_and_sizes(channels: int) -> None:
    method = RelativePosition(TinyEncoder(channels, side=16), image_size=33, hidden_size=8, pixelated=0.5)
    views = method.views(raw(4, channels, 33, 47), torch.Generator().manual_seed(0))
    assert views["patches"].shape == (4, channels, 48, 48)
    assert math.isfinite(float(method.loss(chunk_views(views, 2)[0]).detach()))


def test_it_tells_places_in_new_images() -> None:
    """Images grow brighter along a line, each by its own amount; the lines go on from patch to patch, under noise."""
    method = relative(colour="keep")
    g = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.arange(20.0)] * 2, indexing="ij")

    def photos(n: int) -> dict[str, torch.Tensor]:
        slope = torch.rand(2, n, 1, 1, 1, generator=g) * 5 + 3
        plain = 40 + slope[0] * x * 0.8 + slope[1] * y * 0.8
        bands = torch.stack([plain.squeeze(1), 255 - plain.squeeze(1), 0.5 * plain.squeeze(1) + 3 * y], dim=1)
        return {"image": (bands + 3 * torch.randn(n, 3, 20, 20, generator=g)).clamp(0, 255).to(torch.uint8)}

    method.views.image = type(method.views.image)(method.views.image.size, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    optimizers = make_optimizers(method, Recipe(lr=1e-2, weight_decay=0.0))
    for _ in range(60):
        train_step(method, [method.views(photos(32), g)], optimizers)
    method.eval()
    accuracy = float(next(method.updates(method.views(photos(200), g))).metrics["accuracy"])
    assert accuracy > 0.6, f"{accuracy:.2f} of the places in new images told; chance is 0.125"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r'colour "projection" needs red, green and blue, got 1 channels; choose "drop" or "keep"'):
        projected(torch.rand(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"pixelated is a probability and must be in \[0, 1\], got 1.5"):
        relative(pixelated=1.5)
    with pytest.raises(ValueError, match=r"grid=1, patch_size=4, jitter=0\.07"):
        relative(grid=1)
    with pytest.raises(ValueError, match="tiles of 10 pixels that move by 0 to 4 overlap at a pitch of 11 pixels"):
        relative(patch_size=10, gap=0.1, jitter=0.2)
