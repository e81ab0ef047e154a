"""The table: four rows by one protocol, classes matched by name, everything that decides a figure written down."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from selfsup.data import Items
from selfsup.evaluation.features import embed_items
from selfsup.evaluation.four_rows import evaluate, evaluate_table
from selfsup.evaluation.protocol import Protocol, matched
from selfsup.method import Encoder


class Plain(Encoder):
    """One convolution: untrained it is a poor encoder, trained a fair one."""

    width = 24

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 16, 24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def perfect(items: Items) -> torch.Tensor:
    """An encoder that knows the class and adds noise that it takes from the item's number."""
    names = [items.classes[label] for label in items.labels]
    z = torch.tensor([[float(name == str(c)) for c in range(10)] for name in names])
    return z + 0.05 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))


def blind(items: Items) -> torch.Tensor:
    return torch.randn(len(items), 10, generator=torch.Generator().manual_seed(len(items)))


def test_rows_and_keys_are_those_of_the_contract_and_rows_differ_as_they_should(digits: tuple[Items, Items]) -> None:
    train, test = digits
    said: list[str] = []
    protocol = Protocol(counts=(2, 20, 5000), seeds=2, flip=False, scratch_images=1280, scratch_few_images=640)
    found = evaluate(perfect, blind, Plain, train, test, image_size=8, protocol=protocol, progress=lambda what, *_: said.append(what))
    assert list(found) == ["encoder", "pixels_pca", "untrained", "scratch", "protocol"]
    for row in ("encoder", "pixels_pca", "untrained", "scratch"):
        assert set(found[row]) == {"knn_top1", "linear_top1", "few_label"}
        assert list(found[row]["few_label"]) == ["2", "20"]
        assert set(found[row]["few_label"]["2"]) == {"mean", "low", "high"}
    assert json.loads(json.dumps(found)) == found
    assert found["encoder"]["knn_top1"] == found["encoder"]["linear_top1"] == 1
    assert 0.03 < found["untrained"]["linear_top1"] < 0.2
    assert found["pixels_pca"]["linear_top1"] > 0.85
    assert found["scratch"]["linear_top1"] > 0.85
    assert found["scratch"]["few_label"]["20"]["mean"] > 0.5
    assert found["protocol"]["pixels_pca_width"] == 10
    assert found["protocol"]["few_label_left_out"].startswith("5000: class ")
    assert (found["protocol"]["train_items"], found["protocol"]["test_items"], found["protocol"]["classes"]) == (1297, 500, 10)
    assert any(what.startswith("scratch: 2 labels a class, draw 2 of 2") for what in said)


def test_only_what_the_protocol_asks_for_is_measured(digits: tuple[Items, Items]) -> None:
    train, test = digits
    rows = {"a": lambda: (perfect(train), perfect(test))}
    labels = [torch.from_numpy(items.labels) for items in (train, test)]
    assert evaluate_table(rows, *labels, Protocol(measures=("knn",))) == {"a": {"knn_top1": 1.0}}
    few = evaluate(perfect, blind, Plain, train, test, image_size=8, protocol=Protocol(("few-label",), (1,), 2, scratch_few_images=64))
    assert all(set(few[row]) == {"few_label"} for row in ("encoder", "pixels_pca", "untrained", "scratch"))


def test_classes_are_matched_by_name_and_not_by_number(digits: tuple[Items, Items]) -> None:
    train, test = digits
    order = np.random.default_rng(0).permutation(10)
    shuffled = replace(test, labels=np.argsort(order)[test.labels], classes=tuple(test.classes[c] for c in order))
    labels = matched(train, test)[1].labels
    assert np.array_equal(matched(train, shuffled)[1].labels, labels)
    assert np.array_equal(labels, test.labels)


def test_unknown_labels_are_left_out_and_strange_classes_are_wrong(digits: tuple[Items, Items]) -> None:
    train, test = digits
    train = replace(train, labels=np.where(train.labels == 4, -1, train.labels))
    part, everything, notes = matched(train, replace(test, labels=np.where(test.labels == 7, -1, test.labels)))
    assert notes == {
        "classes": 9,
        "train_items": len(part),
        "train_items_without_class": 1297 - len(part),
        "test_items": len(everything),
        "test_items_without_class": 500 - len(everything),
        "test_items_of_classes_not_in_train": int((test.labels == 4).sum()),
    }
    assert part.classes == (*"012356789", "4")
    assert [part.names[i] for i in (0, -1)] == [train.names[int(i)] for i in np.flatnonzero(train.labels >= 0)[[0, -1]]]
    rows = {"a": lambda: (perfect(part), perfect(everything))}
    found = evaluate_table(rows, torch.from_numpy(part.labels), torch.from_numpy(everything.labels), Protocol(("knn", "linear")))
    assert (
        found["a"]["linear_top1"]
        == found["a"]["knn_top1"]
        == pytest.approx(1 - notes["test_items_of_classes_not_in_train"] / len(everything))
    )


def test_data_without_common_classes_are_refused(digits: tuple[Items, Items]) -> None:
    train, test = digits
    with pytest.raises(ValueError, match="has no labels; classes are needed"):
        matched(train, replace(test, labels=None))
    with pytest.raises(ValueError, match="has no labels; classes are needed"):
        matched(replace(train, labels=np.full(1297, -1)), test)
    with pytest.raises(ValueError, match=r"no class of .* is one of"):
        matched(train, replace(test, classes=tuple("abcdefghij")))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"measures": ("knn", "kmeans")}, "a protocol is made of knn, linear, few-label; got kmeans"),
        ({"measures": ()}, "got nothing"),
        ({"seeds": 1}, "at least 2 seeds"),
        ({"counts": (0,)}, "1 or more"),
        ({"scratch_images": 0}, "at least 1 image, got 0"),
    ],
)
def test_mistakes_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol(**wrong)


def test_budgets_of_training_from_scratch() -> None:
    protocol = Protocol(scratch_few_images=640)
    assert protocol.images_for(10, few=True) == 640
    assert protocol.images_for(1000, few=True) == 10_000  # 10 epochs
    assert protocol.images_for(50_000, few=False) == 500_000
    assert Protocol(scratch_images=77).images_for(50_000, few=False) == 77


def test_draws_of_the_scratch_row_are_those_of_the_others(digits: tuple[Items, Items], monkeypatch: pytest.MonkeyPatch) -> None:
    from selfsup.evaluation import few_label, four_rows

    drawn: dict[str, list[list[int]]] = {"few_label": [], "four_rows": []}
    real = few_label.labelled_rows
    for module in (few_label, four_rows):
        name = module.__name__.rsplit(".", 1)[1]
        monkeypatch.setattr(module, "labelled_rows", lambda *a, name=name: drawn[name].append(real(*a).tolist()) or real(*a))
    train, test = digits
    evaluate(perfect, blind, Plain, train, test, image_size=8, protocol=Protocol(("few-label",), (3,), 2, scratch_few_images=64))
    assert drawn["four_rows"] == drawn["few_label"][:2] == drawn["few_label"][2:4]


def test_untrained_network_embeds_as_it_was_built(digits: tuple[Items, Items]) -> None:
    _, test = digits
    torch.manual_seed(0)
    network = Plain()
    before = embed_items(network, test, 8)
    assert before.equal(embed_items(network, test, 8))
