"""Training from scratch: it learns what the labels say and nothing else, and repeats itself exactly."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from selfsup.data import Items, open_data
from selfsup.evaluation.features import embed_items
from selfsup.evaluation.few_label import labelled_rows
from selfsup.evaluation.scratch import Classifier, settle_statistics, train_from_scratch
from selfsup.method import Encoder


class Tiny(Encoder):
    width = 32

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.out = nn.Linear(32 * 16, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.net(x).flatten(1)).relu()


def accuracy(train: Items, test: Items, index: np.ndarray, *, labels: np.ndarray | None = None, images: int = 3200, seed: int = 0) -> float:
    network = train_from_scratch(Tiny, train, index, 10, image_size=8, seed=seed, images=images, flip=False)
    scores = embed_items(network.predict, test, 8)
    return float((scores.argmax(dim=1).numpy() == (test.labels if labels is None else labels)).mean())


def test_it_learns_digits_from_twenty_labels_each(digits: tuple[Items, Items]) -> None:
    train, test = digits
    index = labelled_rows(torch.from_numpy(train.labels), 20, 0).numpy()
    assert accuracy(train, test, index) > 0.85


def test_it_sees_only_the_items_of_the_index(digits: tuple[Items, Items]) -> None:
    train, test = digits
    kept = np.flatnonzero(train.labels < 2)
    network = train_from_scratch(Tiny, train, kept, 10, image_size=8, seed=0, images=1280, flip=False)
    predicted = embed_items(network.predict, test, 8).argmax(dim=1)
    assert set(predicted.tolist()) <= {0, 1}
    seen = test.labels < 2
    assert (predicted.numpy()[seen] == test.labels[seen]).mean() > 0.95


def test_a_seed_decides_everything_and_nothing_outside_is_touched(digits: tuple[Items, Items]) -> None:
    train, test = digits
    index, few = np.arange(40), test.subset(np.arange(20))
    found = []
    for global_seed, seed in ((1, 5), (2, 5), (3, 6)):
        torch.manual_seed(global_seed)
        expected = torch.rand(3, generator=torch.Generator().manual_seed(global_seed))
        network = train_from_scratch(Tiny, train, index, 10, image_size=8, seed=seed, images=300)
        assert torch.rand(3).equal(expected)
        assert not network.embed.training
        found.append(embed_items(network.embed, few, 8))
    assert found[0].equal(found[1])
    assert not found[0].equal(found[2])


def test_flip_is_an_option_that_does_something(digits: tuple[Items, Items]) -> None:
    train, test = digits
    few = test.subset(np.arange(20))
    with_flip, without = (
        embed_items(train_from_scratch(Tiny, train, np.arange(40), 10, image_size=8, seed=0, images=300, flip=flip).embed, few, 8)
        for flip in (True, False)
    )
    assert not with_flip.equal(without)


def test_without_augmentation_the_whole_image_is_seen(digits: tuple[Items, Items]) -> None:
    train, _ = digits
    batch, generator = train.batch(np.arange(5)), torch.Generator().manual_seed(0)
    for augment in (True, False):
        method = Classifier(Tiny(), 10, 8, flip=True, augment=augment)
        views = method.views(batch, generator)
        assert views["label"].equal(batch["label"])
        assert views["image"].equal(batch["image"] / 255) != augment


def test_decay_holds_the_lower_layers_back(digits: tuple[Items, Items]) -> None:
    train, _ = digits
    torch.manual_seed(0)
    start = Tiny()
    moved = []
    for decay in (1.0, 0.1):
        found = train_from_scratch(
            lambda: copy.deepcopy(start), train, np.arange(40), 10, image_size=8, seed=0, images=128, lr=1e-3, layer_decay=decay
        )
        pairs = zip(start.parameters(), found.embed.parameters(), strict=True)
        moved.append([float((a - b).detach().abs().mean()) for a, b in pairs])
    lowest, highest = moved[1][0] / moved[0][0], moved[1][-2] / moved[0][-2]  # kernels: the first, and the last layer's
    assert 3e-4 < lowest < 3e-3 < 0.05 < highest < 0.2


def test_two_labels_fill_a_batch_and_progress_is_told(digits: tuple[Items, Items]) -> None:
    train, _ = digits
    index = np.array([np.flatnonzero(train.labels == c)[0] for c in (0, 1)])
    said: list[tuple[int, int]] = []
    train_from_scratch(Tiny, train, index, 2, image_size=8, seed=0, images=100, progress=lambda *at: said.append(at))
    assert said == [(64, 100), (100, 100)]


def test_vectors_need_no_crops() -> None:
    class Line(Encoder):
        width = 32

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 32), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 80)
    vectors = (random.normal(size=(80, 3)) + 3 * labels[:, None]).astype(np.float32)
    items = replace(open_data(vectors, cache=False), labels=labels.astype(np.int64), classes=("a", "b"))
    network = train_from_scratch(Line, items, np.arange(80), 2, image_size=0, seed=0, images=12_800)
    assert (embed_items(network.predict, items, 0).argmax(dim=1).numpy() == labels).mean() > 0.95


def test_statistics_settle_on_the_plain_mean() -> None:
    norm = nn.BatchNorm1d(2)
    batches = [torch.randn(50, 2) + 5 for _ in range(4)]
    settle_statistics(norm, batches)
    torch.testing.assert_close(norm.running_mean, torch.cat(batches).mean(dim=0))
    assert norm.momentum == 0.1


def test_mistakes_are_named(digits: tuple[Items, Items]) -> None:
    train, _ = digits
    for index, classes, images, message in (
        (np.arange(0), 10, 100, "needs labelled items, got 0"),
        (np.arange(20), 10, 0, "at least 1 image, got 0"),
        (np.arange(20), 3, 100, "labels must be 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            train_from_scratch(Tiny, train, index, classes, image_size=8, seed=0, images=images)
    with pytest.raises(ValueError, match=r"positive and finite, got -1\.0"):
        train_from_scratch(Tiny, train, np.arange(20), 10, image_size=8, seed=0, images=64, lr=-1.0)
