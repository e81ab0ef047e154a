"""Split-brain: each half against its error written naively, what it must not see, any split of the channels, and colours it must learn."""

import math

import pytest
import torch
import torch.nn.functional as F

from selfsup.engine.step import train_step
from selfsup.methods.split_brain import SplitBrain, ab_classes, cross_entropy, levels, squared_error
from selfsup.models import build_encoder
from selfsup.models.maps import feature_map
from selfsup.views.ab_bins import ab_bins
from selfsup.views.lab import gray, rgb_to_lab


def split_brain(channels: int = 3, image_size: int = 16, **options: str | float) -> SplitBrain:
    torch.manual_seed(1)
    return SplitBrain(build_encoder("small", channels=channels, image_size=image_size), image_size=image_size, **options)


def test_errors_are_sums_over_channels_and_means_over_places() -> None:
    logits, classes = torch.randn(2, 3 * 50, 2, 2, dtype=torch.float64), torch.randint(50, (2, 3, 2, 2))
    total = 0.0
    for i in range(2):
        for g in range(3):
            for y in range(2):
                for x in range(2):
                    scores = logits[i, 50 * g : 50 * (g + 1), y, x].tolist()
                    total += math.log(sum(map(math.exp, scores))) - scores[int(classes[i, g, y, x])]
    torch.testing.assert_close(float(cross_entropy(logits, classes)), total / 8, rtol=1e-9, atol=0)
    torch.testing.assert_close(cross_entropy(torch.zeros(1, 150, 2, 2), classes[:1]), torch.tensor(3 * math.log(50)))
    predicted, x = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(float(squared_error(predicted, x)), float(((predicted - x) ** 2).sum()) / 8 / 2, rtol=1e-9, atol=0)


def test_classes_by_hand() -> None:
    light = torch.tensor([0.0, 1.99, 2.0, 50.0, 99.9, 100.0]).view(1, 1, 2, 3)
    assert levels(light, 100.0).flatten().tolist() == [0, 0, 1, 25, 49, 49]
    ab = torch.tensor([[1.0, -9.0], [0.0, 12.0]]).view(1, 2, 1, 2)
    assert ab_bins()[ab_classes(ab, ab_bins())[0, 0, 0]].tolist() == [[0, 0], [-10, 10]]


@pytest.mark.parametrize(
    ("channels", "split", "target"), [(3, "lab", "classification"), (3, "lab", "regression"), (4, "3+1", "classification")]
)
def test_the_loss_is_both_halves_errors(channels: int, split: str, target: str) -> None:
    method = split_brain(channels, split=split, target=target).eval()
    x = torch.rand(4, channels, 16, 16)
    (update,) = method.updates({"image": x})
    x_1, x_2 = rgb_to_lab(x).split([1, 2], dim=1) if split == "lab" else x.split([3, 1], dim=1)
    p_2 = method.predict_second(feature_map(method.encoder.first, x_1), (4, 4))
    p_1 = method.predict_first(feature_map(method.encoder.second, x_2), (4, 4))
    t_1, t_2 = F.avg_pool2d(x_1, 4), F.avg_pool2d(x_2, 4)
    if target == "regression":
        expected = [squared_error(p_2, t_2 / 100), squared_error(p_1, t_1 / 100)]
    elif split == "lab":
        nearest = torch.cdist(t_2.permute(0, 2, 3, 1), ab_bins()).argmin(dim=3)
        expected = [F.cross_entropy(p_2, nearest), F.cross_entropy(p_1, (t_1[:, 0] / 2).long())]
    else:
        each = [F.cross_entropy(p_1[:, 50 * g : 50 * g + 50], (t_1[:, g] * 50).long()) for g in range(3)]
        expected = [F.cross_entropy(p_2, (t_2[:, 0] * 50).long()), sum(each)]
    torch.testing.assert_close(update.metrics["second from first"], expected[0])
    torch.testing.assert_close(update.metrics["first from second"], expected[1])
    torch.testing.assert_close(update.loss, expected[0] + expected[1])
    torch.testing.assert_close(method.loss({"image": x}), update.loss)


def test_no_half_learns_from_what_it_predicts() -> None:
    method = split_brain()
    update = next(method.updates({"image": torch.rand(4, 3, 16, 16)}))
    update.loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.parameters())
    method.zero_grad()
    method.eval()
    x = torch.rand(4, 3, 16, 16)
    x_1, x_2 = method.encoder.parts(x)
    of_2 = method.error(method.predict_second(feature_map(method.encoder.first, x_1), (4, 4)), F.avg_pool2d(x_2, 4))
    of_2.backward()
    assert all(p.grad is None for half in (method.encoder.second, method.predict_first) for p in half.parameters())
    assert all(p.grad is not None for half in (method.encoder.first, method.predict_second) for p in half.parameters())
    torch.testing.assert_close(x_1, rgb_to_lab(gray(x))[:, :1], rtol=0, atol=1e-3)


def test_the_vector_is_that_of_both_halves() -> None:
    method = split_brain(4, split="1+3").eval()
    x = torch.rand(2, 4, 16, 16)
    expected = torch.cat([method.encoder.first(x[:, :1]), method.encoder.second(x[:, 1:])], dim=1)
    assert torch.equal(method.embed(x), expected)
    assert method.encoder.width == 256
    assert method.encoder.spec["split"] == "1+3"


def test_it_learns_each_part_from_the_other() -> None:
    """Half of the images are dark and blue, half light and orange; nothing else tells the colour, or the lightness."""
    method, generator = split_brain(smallest_crop=1.0), torch.Generator().manual_seed(0)
    optimizers = {"main": torch.optim.Adam(method.parameters(), lr=3e-3)}

    def images(n: int) -> torch.Tensor:
        kind = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
        colour = torch.where(kind, torch.tensor([0.2, 0.3, 0.6])[:, None, None], torch.tensor([0.9, 0.6, 0.3])[:, None, None])
        return (colour.expand(-1, -1, 16, 16) * (0.95 + 0.05 * torch.rand(n, 1, 16, 16, generator=generator))).mul(255).byte()

    for _ in range(20):
        train_step(method, [method.views({"image": images(16)}, generator)], optimizers)
    method.eval()
    metrics = next(method.updates(method.views({"image": images(64)}, generator))).metrics
    assert float(metrics["second from first"]) < 1.5, "log 2 = 0.7 is what a coin would cost, log 261 = 5.6 ignorance"
    assert float(metrics["first from second"]) < 1.5, "log 50 = 3.9 for ignorance"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r'split="lab" is for red, green and blue images, 3 channels, got 4; choose --split "1\+3"'):
        split_brain(4)
    with pytest.raises(ValueError, match=r'two numbers of channels that make 4, such as "1.3", got "2.3"'):
        split_brain(4, split="2+3")
    with pytest.raises((ValueError, TypeError), match="blur"):
        split_brain(target="blur")
    with pytest.raises(ValueError, match="half the width"):
        SplitBrain(build_encoder("vit_tiny", channels=3, image_size=16), image_size=16)
