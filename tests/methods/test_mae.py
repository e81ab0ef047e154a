"""MAE against section 3: what the encoder sees, what is predicted, the error on hidden patches only; and one toy problem it must solve."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import selfsup
from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.mae import MAE, error, normalise, split
from selfsup.models import build_encoder
from selfsup.models.vit import ViT, places, sincos_positions


def mae(image_size: int = 16, **options: float | str) -> MAE:
    torch.manual_seed(1)
    encoder = build_encoder("vit_tiny", channels=3, image_size=image_size)
    assert isinstance(encoder, ViT)
    encoder.blocks = encoder.blocks[:1]
    return MAE(encoder, **{"decoder_width": 32, "decoder_depth": 1} | options)


def shown(method: MAE, batch: int, seed: int = 0) -> Batch:
    raw = torch.randint(0, 256, (batch, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return method.views({"image": raw}, torch.Generator().manual_seed(seed))


def test_the_loss_is_that_of_section_3() -> None:
    """Pixel by pixel: each hidden patch minus its mean over its deviation, against what the decoder says of it."""
    method, side = mae().double(), 4
    views = shown(method, 3)
    image, hidden = views["image"].double(), views["hidden"]
    predicted = []
    method.decoder.predict.register_forward_hook(lambda _m, _a, out: predicted.append(out.detach()))
    loss = method.loss({"image": image, "hidden": hidden})
    standard = (image - 0.5) / 0.25
    total, count = 0.0, 0
    for b in range(3):
        for patch in range(16):
            if not hidden[b, patch]:
                continue
            row, column = patch // 4 * side, patch % 4 * side
            pixels = [float(standard[b, c, row + i, column + j]) for i in range(side) for j in range(side) for c in range(3)]
            mean = sum(pixels) / 48
            deviation = math.sqrt(sum((p - mean) ** 2 for p in pixels) / 47 + 1e-6)
            for value, pixel in zip(predicted[0][b, patch].tolist(), pixels, strict=True):
                total += (value - (pixel - mean) / deviation) ** 2
                count += 1
    assert count == 3 * 12 * 48
    torch.testing.assert_close(loss.detach(), torch.tensor(total / count, dtype=torch.float64), rtol=1e-9, atol=0)


def test_pieces_by_numbers() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert split(image, 2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]
    torch.testing.assert_close(normalise(torch.tensor([[[1.0, 3.0]]])), torch.tensor([[[-1.0, 1.0]]]) / math.sqrt(2), rtol=1e-5, atol=0)
    flat = normalise(torch.full((1, 1, 48), 0.3))
    torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-3)  # a patch of one colour, divided by almost nothing
    predicted = torch.tensor([[[1.0, 1.0], [5.0, 5.0]]])
    assert float(error(predicted, torch.zeros(1, 2, 2), torch.tensor([[True, False]]))) == 1
    assert float(error(predicted, torch.zeros(1, 2, 2), torch.tensor([[True, True]]))) == 13


def test_only_hidden_patches_are_scored_and_only_visible_ones_are_seen() -> None:
    method = mae().eval()
    views = shown(method, 2)
    hidden = views["hidden"]
    pixels = hidden.view(2, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    image = views["image"].clone().requires_grad_()
    method.loss({"image": image, "hidden": hidden}).backward()
    assert image.grad is not None
    loss = method.loss(views)
    seen: list[torch.Tensor] = []
    method.encoder.blocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    other = torch.rand_like(views["image"])
    for change_hidden in (True, False):
        changed = torch.where(pixels == change_hidden, other, views["image"])
        method.loss({"image": changed, "hidden": hidden})
        assert seen[-1].shape == (2, 4, 192)  # a quarter of 16, and no more
    method.loss(views)
    assert torch.equal(seen[0], seen[2])  # what is hidden changes nothing in the encoder
    assert not torch.allclose(seen[1], seen[2])
    # Had visible patches been scored, a changed target of theirs would change the loss: their target is cut out here.
    target = split(views["image"], 4)
    predicted = torch.rand_like(target)
    with_others = torch.where(hidden[:, :, None], target, torch.rand_like(target))
    torch.testing.assert_close(error(predicted, with_others, hidden), error(predicted, target, hidden))
    assert loss > 0


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_the_decoder_puts_every_patch_in_its_place(pool: str) -> None:
    """With no attention in the decoder, a patch's prediction is its own token, or the mask token, at its own position."""
    method = mae(pool=pool).eval()
    decoder = method.decoder
    for block in decoder.blocks:
        for layer in (block.out, block.down):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    extra = int(pool == "class")
    visible = torch.tensor([[1, 7, 8], [0, 2, 15]])
    tokens = torch.randn(2, 3 + extra, 192)
    out = decoder(tokens, visible)
    assert out.shape == (2, 16, 48)
    place = sincos_positions(4, 32)
    for b in range(2):
        for patch in range(16):
            known = visible[b].tolist().index(patch) if patch in visible[b] else None
            x = decoder.mask_token[0, 0] if known is None else decoder.embed(tokens[b, known + extra])
            torch.testing.assert_close(out[b, patch], decoder.predict(decoder.norm(x + place[patch])), rtol=1e-4, atol=1e-5)


def test_gradient_reaches_everything_but_the_positions() -> None:
    method = mae(pool="class")
    method.loss(shown(method, 3)).backward()
    for name, p in method.named_parameters():
        assert p.requires_grad == (name != "encoder.positions"), name
        assert (p.grad is not None and bool(p.grad.any())) == p.requires_grad, name
    torch.testing.assert_close(method.encoder.positions[0, 1:], sincos_positions(4, 192))
    assert not method.encoder.positions[0, 0].any()


def test_pixels_are_the_target_where_nothing_is_normalised() -> None:
    method = mae(normalised_target=False).eval()
    views = shown(method, 2)
    method.decoder.predict.weight.data.zero_()
    standard = (views["image"] - 0.5) / 0.25
    expected = split(standard, 4)[views["hidden"]].square().mean()
    torch.testing.assert_close(method.loss(views).detach(), expected)


def test_two_halves_are_the_whole() -> None:
    method = mae().eval()
    views = shown(method, 6)
    halves = [method.loss({name: value[3 * i : 3 * i + 3] for name, value in views.items()}) for i in range(2)]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, method.loss(views))


def test_the_vector_is_the_mean_of_the_patches_or_the_class_token() -> None:
    x = torch.rand(2, 3, 16, 16)
    for pool in ("mean", "class"):
        method = mae(pool=pool).eval()
        tokens = method.encoder.forward_tokens(method.encoder.patches(x))
        expected = tokens.mean(dim=1) if pool == "mean" else tokens[:, 0]
        assert tokens.shape[1] == (16 if pool == "mean" else 17)
        torch.testing.assert_close(method.embed(x), expected)
        assert method.encoder.spec.get("pool", "class") == pool


def test_a_run_gives_back_the_same_encoder(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    run = selfsup.pretrain(images, "mae", out=tmp_path / "run", steps=1, batch_size=6, precision="fp32", quiet=True, decoder_depth=1)
    assert run.config["encoder"] == {"name": "vit_tiny", "channels": 3, "image_size": 8, "pool": "mean"}
    vectors = run.encoder.embed(images)
    kept = np.load(run.path / "page" / "sample.npz")  # what the method itself said at the end
    np.testing.assert_allclose(vectors, kept[next(k for k in kept if kept[k].shape == (12, 192))], rtol=1e-4, atol=1e-4)
    (run.path / "encoder").rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(selfsup.load(run.path).embed(images), vectors)  # from the checkpoint


def test_it_learns_to_fill_in() -> None:
    """Images that repeat one patch, a mixture of three: what is hidden follows from what is seen."""
    torch.manual_seed(0)
    method = mae(decoder_width=64)
    optimizers = {"main": torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=2e-3)}
    patterns = torch.randn(3, 3, 4, 4)

    def batch() -> Batch:
        patch = torch.einsum("bk,kchw->bchw", torch.randn(32, 3), patterns)
        raw = (127 + 30 * patch.repeat(1, 1, 4, 4)).round().clamp(0, 255).byte()
        views = method.views({"image": raw}, torch.Generator().manual_seed(int(torch.randint(10**6, ()))))
        return {**views, "image": raw.float() / 255}  # without the crop, which would move the patches

    before = float(method.loss(batch()).detach())
    for _ in range(60):
        train_step(method, [batch()], optimizers)
    after = float(method.loss(batch()).detach())
    assert before > 0.9
    assert after < 0.5, f"{after:.2f} after, {before:.2f} before training; the mean of each patch has 1"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"mae hides patches.*so its encoder must be a ViT, got small; choose --encoder vit_tiny"):
        MAE(build_encoder("small", channels=3, image_size=16))
    for options, message in [
        ({"hidden_share": 1.0}, "hidden_share must leave patches to see and to predict, got 1.0, which hides 16 of 16"),
        ({"hidden_share": 0.01}, "which hides 0 of 16"),
        ({"decoder_width": 40}, "decoder_width must be a multiple of 32"),
        ({"decoder_depth": 0}, "decoder_depth at least 1, got 32 and 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            mae(**options)
    assert places(torch.tensor([[True, False, True]])).tolist() == [[0, 2]]
