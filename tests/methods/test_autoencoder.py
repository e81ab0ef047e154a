"""The autoencoder: its error by hand, codes that stay with the encoder, images and vectors, and less error than principal components."""

import json

import pytest
import torch

from selfsup.abilities import Decodes, Reconstructs
from selfsup.engine.step import train_step
from selfsup.methods.autoencoder import Autoencoder
from selfsup.models import Encoder, build_encoder
from selfsup.models.kept_head import EncoderAndHead, with_head


def of_images(channels: int = 2, size: int = 8, **options: float | str) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(build_encoder("dcgan", channels=channels, image_size=size), image_size=size, **options)


def of_vectors(columns: int = 6, **options: float | str) -> Autoencoder:
    torch.manual_seed(0)
    mean, std = [float(i) for i in range(columns)], [1.0 + 10 * i for i in range(columns)]
    return Autoencoder(build_encoder("mlp", channels=columns, image_size=0, mean=mean, std=std), image_size=0, **options)


@pytest.mark.parametrize("reconstruction", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("code_size", [0, 3])
def test_the_loss_is_the_error_of_the_input(reconstruction: str, code_size: int) -> None:
    method = of_images(reconstruction=reconstruction, code_size=code_size)
    raw = {"image": torch.randint(256, (4, 2, 8, 8), dtype=torch.uint8)}
    views = method.views(raw, torch.Generator())
    x = raw["image"].float() / 255
    torch.testing.assert_close(views["input"], x)
    out = method.decoder.decoder(method.encoder(x))
    z = out.sigmoid()
    expected = (x - out) ** 2 if reconstruction == "squared_error" else -(x * z.log() + (1 - x) * (1 - z).log())
    torch.testing.assert_close(method.loss(views), expected.mean(), rtol=1e-4, atol=1e-5)


def test_vectors_are_scored_in_standard_deviations_and_made_in_their_units() -> None:
    method, x = of_vectors(code_size=2), torch.randn(8, 6) * 5
    mean, std = torch.arange(6.0), 1.0 + 10 * torch.arange(6.0)
    out = method.decoder.decoder(method.encoder(x))
    views = method.views({"vector": x}, torch.Generator())
    torch.testing.assert_close(method.loss(views), (out - (x - mean) / std).square().mean())
    method.eval()
    torch.testing.assert_close(method.reconstruct(x), method.decoder.decoder(method.encoder(x)) * std + mean)


def test_a_code_stays_with_the_encoder() -> None:
    """A user's vectors are the code, and the same network comes of its spec."""
    method = of_images(code_size=5).eval()
    x = torch.rand(3, 2, 8, 8)
    assert method.encoder.width == 5
    assert torch.equal(method.code(x), method.encoder(x))
    inner = method.encoder.encoder
    linear = method.encoder.head[0]
    torch.testing.assert_close(method.code(x), inner(x) @ linear.weight.T + linear.bias)  # linear: nothing follows it
    assert len(method.encoder.head) == 1
    again = build_encoder(**json.loads(json.dumps(method.encoder.spec))).eval()
    assert isinstance(again, EncoderAndHead)
    again.load_state_dict(method.encoder.state_dict())
    assert torch.equal(again(x), method.code(x))
    assert with_head(again, code_size=5) is again  # a run that goes on builds it from its spec
    with pytest.raises(ValueError, match="expected an encoder with a code of 4 on it, or one with none, got one with a code of 5"):
        with_head(again, code_size=4)
    plain = build_encoder("dcgan", channels=2, image_size=8)
    assert Autoencoder(plain, image_size=8).encoder is plain


def test_abilities() -> None:
    for method, x in ((of_images(code_size=3), torch.rand(4, 2, 8, 8)), (of_vectors(), torch.rand(4, 6))):
        assert isinstance(method, Reconstructs)
        assert isinstance(method, Decodes)
        made = method.eval().reconstruct(x)
        assert made.shape == x.shape
        assert torch.equal(made, method.decode(method.code(x)))
    assert bool((of_images().reconstruct(torch.rand(4, 2, 8, 8)) >= 0).all())
    assert of_images(6, 33).reconstruct(torch.rand(2, 6, 33, 33)).shape == (2, 6, 33, 33)


def test_all_weights_learn() -> None:
    method = of_images(code_size=3)
    method.loss({"input": torch.rand(4, 2, 8, 8)}).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.parameters() if p.ndim > 1)


def curve(n: int) -> torch.Tensor:
    """Points on a curve in 4 dimensions: one number says where, but no line comes near all of them."""
    t = 2 * torch.rand(n, 1) - 1
    return torch.cat([t, (5 * t).tanh(), t.abs(), t**2], dim=1)


def test_one_number_is_worth_more_than_a_principal_component() -> None:
    torch.manual_seed(0)
    x, fresh = curve(2000), curve(500)
    statistics = {"mean": x.mean(0).tolist(), "std": x.std(0).tolist()}
    method = Autoencoder(build_encoder("mlp", channels=4, image_size=0, **statistics), image_size=0, code_size=1)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 100)
        train_step(method, [{"input": x[torch.arange(64) + 64 * (step % 30)]}], {"main": optimizer})
    method.eval().requires_grad_(False)
    own = ((method.reconstruct(fresh) - fresh) / x.std(0)).square().mean()
    train, test = ((rows - x.mean(0)) / x.std(0) for rows in (x, fresh))
    direction = torch.linalg.svd(train, full_matrices=False).Vh[:1]
    rival = (test - test @ direction.T @ direction).square().mean()
    assert float(own) < 0.6 * float(rival), f"squared error {float(own):.3f}; {float(rival):.3f} of one principal component, 1 of the mean"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="code_size must be positive, or 0 for the encoder's own vector, got -1"):
        of_images(code_size=-1)
    with pytest.raises((ValueError, TypeError), match="blur"):
        of_images(reconstruction="blur")
    with pytest.raises(ValueError, match="at least 8 pixels"):
        Autoencoder(build_encoder("small", channels=3, image_size=7), image_size=7)

    class Own(Encoder):
        width = 3

    with pytest.raises(ValueError, match="Own has no `spec`"):
        Autoencoder(Own(), image_size=8)
