"""Denoising: the emphasised errors by hand, the three corruptions, images and vectors, and noise that it must remove."""

import math

import pytest
import torch

from selfsup.abilities import Decodes, Denoises, Reconstructs
from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.denoising import Corrupted, Denoising, emphasised
from selfsup.models import Encoder, build_encoder, wrap
from selfsup.models.reconstruction import cross_entropy, squared_error
from selfsup.models.stack import Stack


def of_images(**options: float | str) -> Denoising:
    torch.manual_seed(0)
    return Denoising(build_encoder("dcgan", channels=2, image_size=8), image_size=8, **options)


def of_vectors(columns: int = 6, **options: float | str) -> Denoising:
    torch.manual_seed(0)
    mean, std = [float(i) for i in range(columns)], [1.0 + 10 * i for i in range(columns)]
    return Denoising(build_encoder("mlp", channels=columns, image_size=0, mean=mean, std=std), image_size=0, **options)


@pytest.mark.parametrize("kind", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (1.0, 0.0), (0.0, 2.0), (0.7, 0.2)])
def test_emphasis_is_section_3_6(kind: str, alpha: float, beta: float) -> None:
    torch.manual_seed(0)
    predicted, clean = torch.randn(3, 5, dtype=torch.float64), torch.rand(3, 5, dtype=torch.float64)
    hidden, total = torch.rand(3, 5) < 0.4, 0.0
    for i in range(3):
        for j in range(5):
            x, out = float(clean[i, j]), float(predicted[i, j])
            z = 1 / (1 + math.exp(-out))
            error = (x - out) ** 2 if kind == "squared_error" else -x * math.log(z) - (1 - x) * math.log(1 - z)
            total += (alpha if bool(hidden[i, j]) else beta) * error
    error = squared_error if kind == "squared_error" else cross_entropy
    assert float(emphasised(error(predicted, clean), hidden, alpha, beta)) == pytest.approx(total / 15, rel=1e-12)


def test_the_plain_loss_is_alpha_and_beta_1() -> None:
    method, x = of_images(), torch.rand(4, 2, 8, 8)
    views = {"shown": torch.rand(4, 2, 8, 8), "clean": x, "hidden": torch.rand(4, 2, 8, 8) < 0.5}
    predicted = method.decoder(method.encoder(views["shown"]))
    torch.testing.assert_close(method.loss(views), torch.nn.functional.mse_loss(predicted, x))
    method.alpha, method.beta = 1.0, 0.0
    torch.testing.assert_close(method.loss(views), ((predicted - x) ** 2)[views["hidden"]].sum() / x.numel())


def test_the_encoder_sees_the_corrupted_input_only() -> None:
    method, seen = of_images(), []
    method.encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    views = method.views({"image": torch.randint(256, (4, 2, 8, 8), dtype=torch.uint8)}, torch.Generator().manual_seed(0))
    method.loss(views)
    assert len(seen) == 1
    assert torch.equal(seen[0], views["shown"])
    assert not torch.equal(views["shown"], views["clean"])


@pytest.mark.parametrize("corruption", ["gaussian", "masking", "salt_and_pepper"])
def test_corruptions_of_images(corruption: str) -> None:
    raw = {"image": torch.randint(60, 200, (6, 2, 16, 16), dtype=torch.uint8)}
    views = Corrupted(8, corruption, 0.25)(raw, torch.Generator().manual_seed(0))
    shown, clean, hidden = views["shown"], views["clean"], views["hidden"]
    assert shown.shape == clean.shape == hidden.shape == (6, 2, 8, 8)
    assert torch.equal(shown[~hidden], clean[~hidden])
    if corruption == "gaussian":
        assert hidden.all()
        assert float((shown - clean).std()) == pytest.approx(0.25, rel=0.1)
    else:
        assert hidden.flatten(1).float().mean(dim=1).tolist() == [0.25] * 6
        assert torch.equal(hidden[:, 0], hidden[:, 1])  # a pixel's other channel would give it away
        expected = {0.0} if corruption == "masking" else {0.0, 1.0}
        assert set(shown[hidden].tolist()) == expected


def test_vectors_are_corrupted_and_scored_in_standard_deviations() -> None:
    method = of_vectors(level=0.5)
    mean, std = torch.arange(6.0), 1.0 + 10 * torch.arange(6.0)
    x = mean + std * torch.randn(50, 6)
    views = method.views({"vector": x}, torch.Generator().manual_seed(0))
    assert torch.equal(views["clean"], x)
    assert torch.equal(views["shown"][~views["hidden"]], x[~views["hidden"]])
    torch.testing.assert_close(views["shown"][views["hidden"]], mean.expand(50, 6)[views["hidden"]])  # what is masked becomes the mean
    predicted = method.decoder(method.encoder(views["shown"]))
    torch.testing.assert_close(method.loss(views), (predicted - (x - mean) / std).square().mean())
    torch.testing.assert_close(method.decoder.in_units(predicted), predicted * std + mean)
    noisy = of_vectors(level=0.3, corruption="gaussian").views({"vector": x}, torch.Generator().manual_seed(0))
    assert ((noisy["shown"] - x) / std).std(dim=0).tolist() == pytest.approx([0.3] * 6, rel=0.3)


def test_vectors_stay_as_they_are_for_cross_entropy() -> None:
    method, x = of_vectors(reconstruction="cross_entropy"), torch.rand(8, 6)
    views = method.views({"vector": x}, torch.Generator().manual_seed(0))
    assert torch.equal(views["clean"], x)
    assert not views["shown"][views["hidden"]].any()
    assert method.loss(views).isfinite()


@pytest.mark.parametrize("reconstruction", ["squared_error", "cross_entropy"])
def test_it_learns_to_fill_in_what_is_hidden_in_images(reconstruction: str) -> None:
    """Images of one of four stripes: what is hidden follows from what is shown, also in images that were not trained on."""
    method = of_images(reconstruction=reconstruction, level=0.5, alpha=1.0, beta=0.5, smallest_crop=1.0)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=3e-3)}
    generator = torch.Generator().manual_seed(0)

    def stripes(n: int) -> Batch:
        images = torch.zeros(n, 2, 8, 8, dtype=torch.uint8)
        for image, place in zip(images, torch.randint(4, (n,)), strict=True):
            image[:, 2 * place : 2 * place + 2] = 200
        return {"image": images}

    for _ in range(60):
        train_step(method, [method.views(stripes(16), generator)], optimizers)
    method.eval()
    views = method.views(stripes(100), generator)
    filled, hidden = method.denoise(views["shown"]).detach(), views["hidden"]
    assert 0 <= float(filled.min()) <= float(filled.max()) <= 1
    error = float(((filled - views["clean"])[hidden] ** 2).mean())
    guess = float(views["clean"][hidden].var())
    assert error < 0.2 * guess, f"squared error {error:.4f} of hidden pixels; {guess:.4f} for the mean"


def test_it_learns_to_fill_in_what_is_hidden_in_vectors() -> None:
    """Columns are multiples of one number, in very different units: any of them tells the others."""
    torch.manual_seed(0)
    unit = torch.tensor([1.0, -1e3, 1e-3, 20.0])
    method = Denoising(build_encoder("mlp", channels=4, image_size=0, mean=[0.0] * 4, std=unit.abs()), image_size=0, level=0.5)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=3e-3)}
    generator = torch.Generator().manual_seed(0)

    def table(n: int) -> Batch:
        return {"vector": torch.randn(n, 1) * unit}

    for _ in range(150):
        train_step(method, [method.views(table(64), generator)], optimizers)
    method.eval()
    views = method.views(table(500), generator)
    error = ((method.denoise(views["shown"]).detach() - views["clean"]) / unit) ** 2
    for column in range(4):
        hidden = views["hidden"][:, column]
        assert float(error[hidden, column].mean()) < 0.15, f"column {column}; 1 for the mean"


def test_tied_weights_are_the_encoders_transposed() -> None:
    """g(y) = s(W^T y + b') under cross entropy, through two layers; W learns from both of its uses."""
    torch.manual_seed(0)
    stack = Stack(channels=6, width=5, depth=2)
    method = Denoising(wrap(stack, 6, 0), image_size=0, reconstruction="cross_entropy", tied=True)
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in stack.linears)
    c1, c2 = method.decoder.decoder.biases
    with torch.no_grad():
        c1.copy_(torch.randn(6)), c2.copy_(torch.randn(5))
    x = torch.rand(4, 6)
    y = ((x @ w1.T + b1).sigmoid() @ w2.T + b2).sigmoid()
    expected = ((y @ w2 + c2).sigmoid() @ w1 + c1).sigmoid()
    torch.testing.assert_close(method.reconstruct(x), expected)
    assert sum(p.numel() for p in method.parameters()) == 6 * 5 + 5 * 5 + 5 + 5 + 5 + 6
    hidden = torch.zeros(4, 6, dtype=torch.bool)
    method.loss({"shown": x, "clean": x, "hidden": hidden}).backward()
    both = w1.grad.clone()
    method.zero_grad()
    method.decoder.errors(method.decoder(method.encoder(x).detach()), x).mean().backward()
    assert not torch.allclose(both, w1.grad)
    assert w1.grad.abs().max() > 0


def test_images_come_back_through_tied_weights() -> None:
    stack = Stack(channels=2, image_size=9, width=4, depth=1)
    method = Denoising(wrap(stack, 2, 9), image_size=9, tied=True)
    assert method.reconstruct(torch.rand(3, 2, 9, 9)).shape == (3, 2, 9, 9)
    with pytest.raises(ValueError, match=r"tied weights need fully connected sigmoid layers, got encoder dcgan; choose --encoder stack"):
        of_images(tied=True)


def test_abilities() -> None:
    images, vectors = of_images(), of_vectors()
    assert isinstance(images, Reconstructs)
    assert isinstance(images, Denoises)
    assert isinstance(images, Decodes)
    x = torch.rand(4, 2, 8, 8)
    assert torch.equal(images.decode(images.code(x)), images.reconstruct(x))
    assert bool((images.reconstruct(x) >= 0).all())
    assert vectors.reconstruct(torch.rand(4, 6)).shape == (4, 6)


def of_tables(**options: float | str) -> Denoising:
    """A number, and a category of three levels, "other" and "missing"."""
    torch.manual_seed(0)
    encoder = build_encoder("table", channels=6, image_size=0, mean=[3.0] + [0.0] * 5, std=[10.0] + [1.0] * 5)
    return Denoising(encoder, image_size=0, categories=((1, 6),), **options)


def rows_of_a_table(n: int) -> Batch:
    """The number says the level, but for a tenth of the values, which are missing."""
    level = torch.randint(3, (n,))
    number = torch.where(torch.rand(n) < 0.1, torch.nan, 3 + 10 * (level - 1) + torch.randn(n))
    told = torch.where(torch.rand(n) < 0.1, 4, level)
    return {"vector": torch.cat([number[:, None], torch.nn.functional.one_hot(told, 5)], dim=1)}


def test_the_error_of_a_row_is_a_mean_over_what_is_known() -> None:
    method, nan = of_tables(), torch.nan
    x = torch.tensor([[13.0, 1, 0, 0, 0, 0], [nan, 0, 1, 0, 0, 0], [-7.0, 0, 0, 0, 0, 1]])
    views = method.views({"vector": x}, torch.Generator().manual_seed(0))
    assert set(views["hidden"].sum(dim=1).tolist()) <= {1, 5}, "one of the two columns of each row, all of its places"
    out = method.decoder(method.encoder(views["shown"]))
    log_p = out[:, 1:].log_softmax(dim=1)
    expected = ((out[0, 0] - 1) ** 2 + (out[2, 0] + 1) ** 2 - log_p[0, 0] - log_p[1, 1]) / 4
    torch.testing.assert_close(method.loss(views), expected)


def test_it_learns_to_fill_in_what_is_hidden_in_tables() -> None:
    method, generator = of_tables(), torch.Generator().manual_seed(0)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=3e-3)}
    for _ in range(100):
        train_step(method, [method.views(rows_of_a_table(64), generator)], optimizers)
    method.eval()
    x = torch.tensor([[-7.0, 0, 0, 0, 0, 1], [3, 0, 0, 0, 0, 1], [13, 0, 0, 0, 0, 1], [torch.nan, 0, 0, 1, 0, 0]])
    filled = method.reconstruct(x).detach()
    assert filled[:3, 1:].argmax(dim=1).tolist() == [0, 1, 2]
    torch.testing.assert_close(filled[:, 1:].sum(dim=1), torch.ones(4))
    assert float(filled[3, 0]) == pytest.approx(13, abs=4), "in the units of the data"


def test_mistakes_are_named() -> None:
    for options, message in [
        ({"level": 1.5}, "level of masking must be positive and at most 1, got 1.5"),
        ({"level": 0.0, "corruption": "gaussian"}, "level of gaussian must be positive, got 0.0"),
        ({"alpha": 0.0, "beta": 0.0}, "not both 0"),
        ({"alpha": 0.0, "corruption": "gaussian"}, "gaussian noise changes every value"),
    ]:
        with pytest.raises(ValueError, match=message):
            of_images(**options)
    for wrong in ({"corruption": "blur"}, {"reconstruction": "blur"}):
        with pytest.raises((ValueError, TypeError), match="blur"):  # by its type where types are checked, by its value elsewhere
            of_images(**wrong)
    with pytest.raises(ValueError, match="rows of tables need reconstruction squared_error"):
        of_tables(reconstruction="cross_entropy")
    with pytest.raises(ValueError, match=r"cross_entropy needs values in \[0, 1\], got -1 to 2"):
        cross_entropy(torch.zeros(1, 2), torch.tensor([[-1.0, 2.0]]))

    class Own(Encoder):
        width = 3

    with pytest.raises(ValueError, match="Own has no `spec`"):
        Denoising(Own(), image_size=8)
    assert Denoising(wrap(Own(), 1, 8), image_size=8).decoder(torch.rand(2, 3)).shape == (2, 1, 8, 8)
