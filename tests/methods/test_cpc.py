"""CPC against equation 4 of the paper: who may be seen for a prediction, what is predicted, and whether the encoder learns from it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import selfsup
from selfsup.engine.optim import make_optimizers
from selfsup.engine.step import train_step
from selfsup.method import Encoder, Recipe
from selfsup.methods.cpc import CPC, Context, inner, kept_channels
from selfsup.models.patch_grid import cut, mosaic, pieces

EXACT = {"rtol": 1e-9, "atol": 1e-12}


class TinyEncoder(Encoder):
    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, self.width), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def cpc(version: int, **options: float) -> CPC:
    torch.manual_seed(1)
    given = {"grid": 4, "nearest": 1, "farthest": 2, "context_size": 5, "target_size": 3} | options
    return CPC(TinyEncoder(), image_size=10, version=version, **given)


def views_of(batch: int, grid: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    return {"patches": torch.rand(batch, 3, 4 * grid, 4 * grid, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))}


def equation_4(method: CPC, views: dict[str, torch.Tensor]) -> float:
    """-log f_k(z_{i+k}, c_i) / sum over all targets of this k, with loops over directions, k, images, rows and columns."""
    z = method.encoder.each(pieces(views["patches"], 4)).detach()
    total, count = 0.0, 0
    for turns, direction in enumerate(method.directions):
        # Downwards; then what was the right column comes first, so leftwards; upwards; rightwards.
        grid = [z, z.flip(2).transpose(1, 2), z.flip(1, 2), z.transpose(1, 2).flip(2)][turns]
        c, t = direction.context(grid).detach(), method.target(grid).detach()
        for k, w in zip((1, 2), direction.w, strict=True):
            places = [(b, i, j) for b in range(len(z)) for i in range(4 - k) for j in range(4)]
            for b, i, j in places:
                ahead = w(c[b, i, j]).detach() * method.scale
                scores = {(b2, i2, j2): math.exp(float(ahead @ t[b2, i2 + k, j2])) for b2, i2, j2 in places}
                total -= math.log(scores[b, i, j] / sum(scores.values())) / len(places)
            count += 1
    return total / count


@pytest.mark.parametrize(("version", "directions"), [(1, 1), (2, 1), (2, 4)])
def test_loss_is_equation_4(version: int, directions: int) -> None:
    method, views = cpc(version, directions=directions).double(), views_of(2)
    torch.testing.assert_close(method.loss(views).detach(), torch.tensor(equation_4(method, views), dtype=torch.float64), **EXACT)
    assert len(method.directions) == directions
    assert isinstance(method.target, nn.Identity) == (version == 1)


def test_information_is_log_n_less_the_loss_of_each_step() -> None:
    method, views = cpc(1).double(), views_of(3)
    [update] = method.updates(views)
    assert set(update.metrics) == {"information/1", "information/2"}
    candidates = {"information/1": 3 * 3 * 4, "information/2": 3 * 2 * 4}
    losses = [math.log(n) - float(update.metrics[name]) for name, n in candidates.items()]
    assert float(update.loss.detach()) == pytest.approx(sum(losses) / 2)
    same = {"patches": torch.full_like(views["patches"], 0.5)}
    [update] = method.updates(same)
    for name in candidates:  # patches that are all the same say nothing of each other, but where the edge is
        assert float(update.metrics[name]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("row", [0, 2, 4])
def test_a_context_knows_its_rows_and_those_above_only(row: int) -> None:
    torch.manual_seed(0)
    context = Context(6, 8, 3)
    z = torch.randn(2, 5, 5, 6, requires_grad=True)
    context(z)[0, row].sum().backward()
    assert z.grad is not None
    seen = z.grad.abs().sum(dim=(2, 3)) > 0
    assert seen[0].tolist() == [row - 3 <= i <= row for i in range(5)]  # each block looks one row further up
    assert not seen[1].any()


def test_the_context_is_the_pseudo_code_of_version_2() -> None:
    """With sums of products: 1 x 1, ReLU, 1 x 3, a row of zeros above and 2 x 1, ReLU, 1 x 1, added; a ReLU at the end."""
    torch.manual_seed(0)
    context, z = Context(6, 8, 2).double(), torch.randn(2, 5, 5, 6, dtype=torch.float64)
    x = z
    for block in context.blocks:
        (w1, b1), (w2, b2), (w3, b3), (w4, b4) = ((m.weight, m.bias) for m in block if isinstance(m, nn.Conv2d))
        c = torch.relu(x @ w1[:, :, 0, 0].T + b1)
        wide = F.pad(c, (0, 0, 1, 1))  # a column of zeros to the left and the right
        c = sum(wide[:, :, j : j + 5] @ w2[:, :, 0, j].T for j in range(3)) + b2
        tall = F.pad(c, (0, 0, 0, 0, 1, 0))  # a row of zeros above
        c = torch.relu(tall[:, :-1] @ w3[:, :, 0, 0].T + tall[:, 1:] @ w3[:, :, 1, 0].T + b3)
        x = x + c @ w4[:, :, 0, 0].T + b4
    torch.testing.assert_close(context(z), torch.relu(x), **EXACT)


@pytest.mark.parametrize(("direction", "source", "target"), [(0, 0, 3), (2, 3, 0)])
def test_directions_predict_from_one_side_of_the_image_to_the_other(direction: int, source: int, target: int) -> None:
    """The prediction across the image: which row of patches does the gradient of the context come from, and whose encoding is predicted?"""
    method = cpc(2, nearest=3, farthest=3, directions=4)
    z = torch.randn(1, 4, 4, 6, requires_grad=True)
    turned = z.rot90(direction, dims=(1, 2))
    method.directions[direction].context(turned)[:, :-3].sum().backward()
    assert z.grad is not None
    assert (z.grad.abs().sum(dim=(0, 2, 3)) > 0).nonzero().flatten().tolist() == [source]
    assert torch.equal(turned[:, 3:], z[:, target : target + 1] if direction == 0 else z[:, target : target + 1].flip(2))


def test_gradient_reaches_every_part() -> None:
    for version in (1, 2):
        method = cpc(version)
        method.loss({name: x.float() for name, x in views_of(2).items()}).backward()
        for name, p in method.named_parameters():
            assert p.grad is not None, name
            assert float(p.grad.abs().sum()) > 0, name


# --- the views -------------------------------------------------------------------------------------------------------------------------


def raw(batch: int) -> dict[str, torch.Tensor]:
    images = torch.randint(0, 256, (batch, 3, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"image": images, "index": torch.arange(batch)}


def test_version_1_blackens_the_border_of_each_patch_for_itself() -> None:
    method = cpc(1, gray=0.0, smallest_crop=1.0)
    assert method.views.patch.size == 4
    patches = pieces(method.views(raw(30), torch.Generator().manual_seed(0))["patches"], 4)
    black = (patches == 0).all(dim=3)  # (30, 4, 4, 4, 4)
    assert (black.flatten(3).sum(dim=3) == 4 * 4 - 3 * 3).all()  # 3 of 4 pixels are left in each direction
    assert len({tuple(b.flatten().tolist()) for b in black.flatten(0, 2)}) == 4  # four places for it
    assert inner(5, 64, torch.Generator().manual_seed(0)).sum(dim=(1, 2, 3)).tolist() == [60.0**2] * 5


def test_version_1_may_show_no_colour() -> None:
    picture = cpc(1, gray=1.0).views(raw(4), torch.Generator().manual_seed(0))["patches"]
    torch.testing.assert_close(picture[:, :1].expand_as(picture), picture)


def test_version_2_alters_each_patch_alone() -> None:
    images = {"image": torch.full((2, 3, 10, 10), 128, dtype=torch.uint8)}
    images["image"][:, 0] = 30
    patches = pieces(cpc(2, gray=0.0, colour_drop=0.0).views(images, torch.Generator().manual_seed(0))["patches"], 4)
    colours = patches.mean(dim=(4, 5)).flatten(0, 2)
    assert len({tuple(c.tolist()) for c in colours}) > 20  # of 32; a fifth is not recoloured
    plain = pieces(cpc(2, gray=0.0, colour_drop=0.0, colour_strength=0.0).views(images, torch.Generator().manual_seed(0))["patches"], 4)
    torch.testing.assert_close(plain, cut(images["image"] / 255, 4), rtol=0.0, atol=3e-3)


def test_version_2_shears_a_fifth_of_the_patches_and_deforms_a_fifth() -> None:
    one, other = (cpc(2, warped=w).views(raw(64), torch.Generator().manual_seed(0))["patches"] for w in (0.2, 0.0))
    changed = (pieces(one, 4) != pieces(other, 4)).flatten(3).any(dim=3)
    assert float(changed.float().mean()) == pytest.approx(1 - 0.8**2, abs=0.06)


def test_colour_dropping_keeps_one_channel() -> None:
    kept = kept_channels(3000, 3, torch.Generator().manual_seed(0), 0.25).flatten(1)
    one = kept.sum(dim=1) == 1
    assert bool((one | (kept.sum(dim=1) == 3)).all())
    assert float(one.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert kept[one].mean(dim=0).tolist() == pytest.approx([1 / 3] * 3, abs=0.06)


# --- what comes out --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_the_encoder_of_a_run_gives_the_methods_vectors(version: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    options = {"version": version, "context_size": 8, "grid": 3, "nearest": 1, "farthest": 1, "directions": 1}
    run = selfsup.pretrain(pixels, "cpc", steps=2, batch_size=8, out=tmp_path / "run", quiet=True, precision="fp32", **options)
    norm = "none" if version == 1 else "layer"
    assert run.config["encoder"] == {"name": "small", "channels": 3, "image_size": 16, "patches": {"grid": 3, "norm": norm}}
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    for loaded in (selfsup.load(run.path), selfsup.load(run.path, best=True), selfsup.load(run.path / "encoder")):
        vectors = loaded(x)
        by_hand = loaded.network.encoder(cut(x, 3).flatten(0, 2)).unflatten(0, (16, 9)).mean(dim=1)
        torch.testing.assert_close(vectors, by_hand)
        np.testing.assert_allclose(loaded.embed(pixels), vectors.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("version", [1, 2])
def test_it_learns_what_goes_on_over_the_image(version: int) -> None:
    """Each image is woven from one of many threads, under noise that differs from patch to patch: only the thread can be predicted."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    method = CPC(TinyEncoder(), image_size=10, version=version, grid=4, nearest=1, farthest=2, directions=1, context_size=16, target_size=6)
    threads = torch.tensordot(torch.randn(40, 4, generator=g), torch.randn(4, 3, 4, 4, generator=g), 1)  # four patterns, mixed

    def woven() -> torch.Tensor:
        return threads[:, None, None] + 1.5 * torch.randn(40, 4, 4, 3, 4, 4, generator=g)

    def found() -> float:
        a, b = (F.normalize(method.encoder.each(woven())[:, 0, 0], dim=1) for _ in range(2))
        return float(((a @ b.T).argmax(dim=1) == torch.arange(40)).float().mean())

    before = sum(found() for _ in range(20)) / 20
    optimizers = make_optimizers(method, Recipe(lr=1e-2, weight_decay=0.0))
    for _ in range(50):
        train_step(method, [{"patches": mosaic(woven())}], optimizers)
    after = sum(found() for _ in range(20)) / 20
    assert after > 1.5 * before, f"{after:.3f} of threads found in a single patch, {before:.3f} before training; chance is 0.025"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="1 <= nearest <= farthest < grid rows ahead, got nearest=2, farthest=4, grid=4"):
        cpc(1, nearest=2, farthest=4)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], got colour_drop=1.5, warped=0.2"):
        cpc(2, colour_drop=1.5)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], got colour_drop=0.2, warped=-0.1"):
        cpc(2, warped=-0.1)
