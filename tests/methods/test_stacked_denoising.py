"""Stacked denoising: which layer learns when, from what, and what the whole stack gives back."""

import pytest
import torch
from torch import Tensor

from selfsup.abilities import Decodes, Denoises, Reconstructs
from selfsup.engine.optim import make_optimizers
from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.stacked_denoising import StackedDenoising
from selfsup.models import build_encoder, wrap
from selfsup.models.stack import Stack

WIDTH = 32


def of_images(channels: int = 2, size: int = 9, **options: float | str | bool) -> StackedDenoising:
    torch.manual_seed(0)
    stack = Stack(channels=channels, image_size=size, width=8, depth=3, mean=[0.3] * channels, std=[0.2] * channels)
    return StackedDenoising(wrap(stack, channels, size), image_size=size, **options)


def of_vectors(columns: int = 6, depth: int = 2, **options: float | str | bool) -> StackedDenoising:
    torch.manual_seed(0)
    stack = Stack(channels=columns, width=WIDTH, depth=depth, mean=[1.0] * columns, std=[2.0] * columns)
    return StackedDenoising(wrap(stack, columns, 0), image_size=0, **options)


def images(n: int = 4, channels: int = 2, size: int = 9) -> Batch:
    return {"image": torch.randint(1, 256, (n, channels, size, size), dtype=torch.uint8)}


def state(method: StackedDenoising) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


@pytest.mark.parametrize("tied", [False, True])
def test_only_the_layer_whose_turn_it_is_moves(tied: bool) -> None:
    """Also not by momentum or decay that is left of its own turn."""
    method = of_images(tied=tied, level=0.5)
    generator = torch.Generator().manual_seed(0)
    optimizers = make_optimizers(method, method.recipe)
    optimizers["main"].param_groups[0]["weight_decay"] = 0.1
    for step in range(6):
        before = state(method)
        values = train_step(method, [method.views(images(), generator)], optimizers)
        assert float(values["layer"]) == step // 2 + 1
        moved = {name for name, tensor in state(method).items() if not torch.equal(tensor, before[name])}
        k = step // 2
        expected = {f"encoder.layers.{k}.{what}" for what in ("weight", "bias")}
        if tied:
            expected |= {f"decoders.{k}.decoder.layers.0.{what}" for what in ("weight", "bias")} | {f"decoders.{k}.decoder.biases.0"}
        else:
            expected |= {f"decoders.{k}.decoder.0.{what}" for what in ("weight", "bias")}
        assert moved == expected
        # Where several processes train, a weight that may learn gets a gradient of 0 and moves on by its momentum.
        assert [layer.weight.requires_grad for layer in method.encoder.linears] == [i == k for i in range(3)]
        assert [all(p.requires_grad for p in decoder.parameters()) for decoder in method.decoders] == [i == k for i in range(3)]
        method.after_step((step + 1) / 6)


def test_every_layer_has_an_equal_share_of_the_run() -> None:
    method, turns = of_images(), []
    for step in range(90):
        turns.append(int(method.layer))
        method.after_step((step + 1) / 90)
    assert turns == [0] * 30 + [1] * 30 + [2] * 30
    assert int(method.layer) == 2
    assert "layer" in method.state_dict()  # a run that goes on knows whose turn it is


def test_embeddings_are_of_the_layers_that_have_learned() -> None:
    """What monitors watch: layers that are as they began give all inputs nearly the same, and that is no collapse."""
    method = of_images()
    x = images()["image"].float() / 255
    for k in range(3):
        method.layer.fill_(k)
        torch.testing.assert_close(method.embed(x), method.encoder.below(k + 1, x), rtol=0.0, atol=0.0)
        torch.testing.assert_close(method.code(x), method.encoder(x), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("corruption", ["masking", "gaussian", "salt_and_pepper"])
def test_a_layer_denoises_the_clean_output_of_the_one_below(corruption: str) -> None:
    """Section 3.4, by hand for the second layer: cross entropy of s(W' y + b') with f_1 of the clean input."""
    method = of_images(corruption=corruption, level=0.5, alpha=0.7, beta=0.2)
    method.layer.fill_(1)
    views = method.views(images(16), torch.Generator().manual_seed(0))
    w, b = method.encoder.linears[0].weight, method.encoder.linears[0].bias
    h = (((views["clean"] - 0.3) / 0.2).flatten(1) @ w.T + b).sigmoid()
    noise, noised = views["noise"], views["noised"]
    if corruption == "gaussian":
        assert noised.all()
        assert float(noise.std()) == pytest.approx(0.5, rel=0.15)
        shown = h + noise
    else:
        assert noised.sum(dim=1).tolist() == [4] * 16  # half of 8 units
        extremes = {"masking": {0.0}, "salt_and_pepper": {0.0, 1.0}}[corruption]
        assert set(noise[noised].tolist()) == extremes
        shown = torch.where(noised, noise, h)
    y = (shown @ method.encoder.linears[1].weight.T + method.encoder.linears[1].bias).sigmoid()
    down = method.decoders[1].decoder[0]
    z = (y @ down.weight.T + down.bias).sigmoid()
    error = -h * z.log() - (1 - h) * (1 - z).log()
    expected = torch.where(noised, 0.7 * error, 0.2 * error).mean()
    torch.testing.assert_close(method.loss(views), expected)


def test_the_first_layer_sees_corrupted_inputs() -> None:
    method = of_images(corruption="masking", level=0.25, reconstruction="squared_error")
    views = method.views(images(6), torch.Generator().manual_seed(0))
    assert views["hidden"].flatten(1).sum(dim=1).tolist() == [2 * round(81 / 4)] * 6
    assert not views["shown"][views["hidden"]].any()
    y = method.encoder.up(0, views["shown"])
    z = method.decoders[0].decoder(y)
    torch.testing.assert_close(method.loss(views), (z - views["clean"]).square().mean())


def test_images_are_shown_as_they_are() -> None:
    method, raw = of_images(), images()
    clean = method.views(raw, torch.Generator().manual_seed(0))["clean"]
    torch.testing.assert_close(clean, raw["image"].float() / 255)  # neither cropped nor mirrored


def test_the_stack_takes_noise_away() -> None:
    """Vectors that one number tells: after both layers had their turn, what is hidden of fresh ones comes back from the highest code."""
    method = of_vectors(depth=2, level=0.25)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=5e-2)}
    generator = torch.Generator().manual_seed(0)

    def vectors(n: int) -> Tensor:
        return 1 + 2 * torch.randn(n, 1) * torch.tensor([1.0, -1, 1, -1, 1, -1])

    for step in range(300):
        train_step(method, [method.views({"vector": vectors(64)}, generator)], optimizers)
        method.after_step((step + 1) / 300)
    method.eval().requires_grad_(False)
    x = vectors(500)
    shown = method.views({"vector": x}, generator)["shown"]
    noisy, denoised = (float((y - x).square().mean()) for y in (shown, method.denoise(shown)))
    assert denoised < 0.3 * noisy, f"squared error {denoised:.3f} after denoising, {noisy:.3f} before"


def test_abilities() -> None:
    method, x = of_vectors(), torch.randn(5, 6)
    assert isinstance(method, Reconstructs)
    assert isinstance(method, Denoises)
    assert isinstance(method, Decodes)
    assert torch.equal(method.code(x), method.encoder(x))
    assert torch.equal(method.reconstruct(x), method.decode(method.code(x)))
    top, bottom = (method.decoders[k].decoder for k in (1, 0))
    torch.testing.assert_close(method.decode(method.code(x)), bottom(top(method.code(x)).sigmoid()) * 2 + 1)


@pytest.mark.parametrize("tied", [False, True])
def test_shapes(tied: bool) -> None:
    for channels, size in ((1, 9), (6, 11)):
        method = of_images(channels, size, tied=tied)
        x = torch.rand(3, channels, size, size)
        assert method.reconstruct(x).shape == x.shape
        assert bool(((method.reconstruct(x) >= 0) & (method.reconstruct(x) <= 1)).all())
    assert of_vectors(tied=tied).reconstruct(torch.randn(3, 6)).shape == (3, 6)


def test_mistakes_are_named() -> None:
    small = build_encoder("small", channels=3, image_size=16)
    with pytest.raises(
        ValueError, match="stacked_denoising trains fully connected sigmoid layers, got encoder small; choose --encoder stack"
    ):
        StackedDenoising(small, image_size=16)
    with pytest.raises(ValueError, match="level of masking must be positive and at most 1, got 2"):
        of_images(level=2.0)
    with pytest.raises(ValueError, match="not both 0"):
        of_images(alpha=0.0, beta=0.0)
    method = of_vectors(reconstruction="cross_entropy")
    views = method.views({"vector": torch.full((2, 6), 3.0)}, torch.Generator())
    with pytest.raises(ValueError, match=r"cross_entropy needs values in \[0, 1\]"):
        method.loss(views)
