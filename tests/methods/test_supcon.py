"""SupCon against equation 2 of the paper, with all, some and no labels; and a toy problem in which the labels must be used."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.engine.optim import make_optimizers
from selfsup.engine.step import train_step
from selfsup.losses import nt_xent
from selfsup.method import Batch, Encoder, Recipe
from selfsup.methods.supcon import SupCon, groups


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def method(**options: float) -> SupCon:
    torch.manual_seed(0)
    return SupCon(TinyEncoder(), image_size=4, **{"hidden_size": 12, "projection_size": 6} | options)


def test_the_head_is_that_of_section_3() -> None:
    head = method().projector
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Linear"]  # no batch normalisation
    assert (head[0].out_features, head[-1].out_features) == (12, 6)


def two_views(batch: int, label: list[int] | None = None) -> Batch:
    g = torch.Generator().manual_seed(0)
    views = {name: torch.rand(batch, 3, 4, 4, generator=g, dtype=torch.float64) for name in ("first", "second")}
    views["index"] = torch.arange(batch).flip(0)  # the numbers of items are among those of classes
    return views | ({} if label is None else {"label": torch.tensor(label)})


def single(views: Batch) -> Batch:
    return {name: x.float() if x.is_floating_point() else x for name, x in views.items()}


def equation_2(z: torch.Tensor, partners: list[list[int]], tau: float) -> float:
    """L_out as it is printed, a mean instead of the sum over I: two loops, A(i) is everyone but i, P(i) are the partners."""
    z, total = F.normalize(z.detach(), dim=1), 0.0
    for i in range(len(z)):
        everyone = sum(math.exp(float(z[i] @ z[a]) / tau) for a in range(len(z)) if a != i)
        total -= sum(math.log(math.exp(float(z[i] @ z[p]) / tau) / everyone) for p in partners[i]) / len(partners[i])
    return total / len(z)


@pytest.mark.parametrize(
    ("label", "same"),
    [
        ([1, 0, 1, 1, 0], [{0, 2, 3}, {1, 4}]),
        ([1, -1, 1, -1, 0], [{0, 2}, {1}, {3}, {4}]),  # the two unknown ones are strangers to each other
        (None, [{0}, {1}, {2}, {3}, {4}]),
    ],
)
def test_loss_is_equation_2(label: list[int] | None, same: list[set[int]]) -> None:
    supcon, views = method(temperature=0.3).double(), two_views(5, label)
    group = [next(k for k, images in enumerate(same) if i % 5 in images) for i in range(10)]
    partners = [[p for p in range(10) if p != i and group[p] == group[i]] for i in range(10)]
    z = supcon.projector(supcon.encoder(torch.cat([views["first"], views["second"]])))
    torch.testing.assert_close(supcon.loss(views), torch.tensor(equation_2(z, partners, 0.3), dtype=torch.float64), rtol=1e-9, atol=0.0)


def test_without_labels_it_is_simclr() -> None:
    supcon, views = method(), single(two_views(6))
    z = supcon.projector(supcon.encoder(torch.cat([views["first"], views["second"]])))
    torch.testing.assert_close(supcon.loss(views), nt_xent(*z.chunk(2), 0.1))
    unknown = views | {"label": torch.full((6,), -1)}
    torch.testing.assert_close(supcon.loss(unknown), supcon.loss(views))


def test_views_keep_the_labels_and_unlabelled_images_are_strangers() -> None:
    raw = {
        "image": torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8),
        "label": torch.tensor([2, -1, 2, -1]),
        "index": torch.tensor([7, 2, 9, 0]),
    }
    views = method().views(raw, torch.Generator().manual_seed(0))
    assert groups(views).tolist() == [2, -3, 2, -1]


def test_the_projection_is_normalised_and_dropped_after_training() -> None:
    supcon, x = method(), torch.rand(4, 3, 4, 4)
    torch.testing.assert_close(supcon.embed(x), supcon.encoder(x))
    views = single(two_views(4, [0, 0, 1, 1]))
    before = supcon.loss(views)
    with torch.no_grad():
        for p in supcon.projector[-1].parameters():
            p *= 3
    torch.testing.assert_close(supcon.loss(views), before)


def found_classes(labelled: int) -> float:
    """Fresh items whose nearest item of a reference set has their class, when the first `labelled` of 128 had labels in the training."""
    torch.manual_seed(0)
    supcon = method()
    optimizers = make_optimizers(supcon, Recipe(lr=1e-2, weight_decay=0.0))
    g = torch.Generator().manual_seed(1)
    classes = torch.randn(4, 1, 4, 4, generator=g)

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.arange(n) % 4
        own = 4 * torch.randn(n, 2, 4, 4, generator=g)  # two channels tell images apart, loudly; the third tells classes apart
        return torch.cat([own, classes[y] + 0.7 * torch.randn(n, 1, 4, 4, generator=g)], dim=1), y

    x, y = draw(128)
    label = torch.where(torch.arange(128) < labelled, y, -1)
    for _ in range(40):
        first, second = x + 0.3 * torch.randn(2, *x.shape, generator=g)
        train_step(supcon, [{"first": first, "second": second, "label": label, "index": torch.arange(128)}], optimizers)
    (a, y_a), (b, y_b) = draw(400), draw(400)
    a, b = (F.normalize(supcon.embed(x), dim=1) for x in (a, b))
    return float((y_a[(b @ a.T).argmax(dim=1)] == y_b).float().mean())


def test_it_learns_the_classes_from_the_labels_that_there_are() -> None:
    none, half, every = found_classes(0), found_classes(64), found_classes(128)
    assert none + 0.15 < half, f"{none:.2f} without labels, {half:.2f} with half of them; chance is 0.25"
    assert half + 0.1 < every, f"{half:.2f} with half of the labels, {every:.2f} with all"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, got -1"):
        method(temperature=-1.0)
