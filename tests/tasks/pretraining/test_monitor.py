"""What is watched: the loss's own vectors and views, with nothing of the run disturbed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.data import open_data
from selfsup.evaluation.knn import knn_top1
from selfsup.evaluation.measures import rankme
from selfsup.method import Batch, Method
from selfsup.methods import METHODS, method_class
from selfsup.models import build_encoder
from selfsup.tasks.pretraining.monitor import loss_alone, make_monitor, seen_by_loss

SIZE = 16
COMPARING = ("simclr", "moco", "byol", "simsiam", "barlow_twins", "vicreg", "swav", "dino", "supcon", "instance_discrimination")


def made(name: str, **options: object) -> Method:
    torch.manual_seed(0)
    cls = method_class(name)
    encoder = build_encoder("small", channels=3, image_size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return cls(encoder, image_size=SIZE, **options)  # type: ignore[call-arg]


def images(count: int) -> Batch:
    """Plain colours that differ, with a little noise: views of one are alike."""
    g = torch.Generator().manual_seed(1)
    colours = torch.randint(0, 256, (count, 3, 1, 1), generator=g) + torch.randint(0, 40, (count, 3, SIZE, SIZE), generator=g)
    return {"image": colours.clamp(0, 255).to(torch.uint8), "index": torch.arange(count)}


def trained(name: str, steps: int, batch: Batch, **options: object) -> Method:
    method = made(name, **options)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    for step in range(steps):
        optimizer.zero_grad()
        method.loss(method.views(batch, torch.Generator().manual_seed(step))).backward()
        optimizer.step()
        method.after_step(step / steps)
    return method.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", COMPARING)
def test_watching_changes_nothing_and_names_the_loss(name: str) -> None:
    method, batch = made(name).eval(), images(32)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    found = seen_by_loss(method, batch, SIZE, seed=3)
    assert found is not None
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert not any(getattr(method, name, None) for name in ("_new", "_new_keys", "_new_features", "_new_centres"))
    views = method.views(batch, torch.Generator().manual_seed(3))
    assert found.matched == pytest.approx(loss_alone(method, views, 3))
    assert found.mismatched != found.matched
    z = method.compared(batch["image"] / 255)
    assert z is not None
    assert (found.width, found.size) == (z.shape[1], pytest.approx(float(z.std(dim=0, unbiased=False).mean()), rel=1e-4))


def test_every_method_that_compares_views_is_here() -> None:
    assert {name for name in METHODS if method_class(name).compared is not Method.compared} == set(COMPARING)


@torch.no_grad()
def test_one_view_or_few_items_are_not_put_together_wrongly() -> None:
    bank = made("instance_discrimination", dictionary="bank", items=32).eval()
    found = seen_by_loss(bank, images(32), SIZE, seed=0)
    assert found is not None
    assert found.matched is None
    few = seen_by_loss(made("simclr", crops=3).eval(), images(3), SIZE, seed=0)
    assert few is not None
    assert few.mismatched is None


def test_the_right_partner_counts_once_something_is_learned() -> None:
    batch = images(64)
    found = seen_by_loss(trained("simclr", 20, batch, crops=2).eval(), batch, SIZE, seed=0)
    flat = seen_by_loss(trained("simclr", 20, batch, crops=2, temperature=1000.0), batch, SIZE, seed=0)
    assert found is not None
    assert flat is not None
    assert found.matched is not None
    assert found.mismatched is not None
    assert found.mismatched - found.matched > 0.5
    assert flat.matched == pytest.approx(flat.mismatched, rel=1e-3)


@torch.no_grad()
def test_a_projector_that_has_collapsed_is_seen() -> None:
    method = made("simsiam").eval()
    healthy = seen_by_loss(method, images(64), SIZE, seed=0)
    last = method.projector[-1]  # type: ignore[index]
    assert isinstance(last, nn.BatchNorm1d)
    assert last.running_mean is not None
    last.running_mean.fill_(-100.0)  # one large constant vector is added to all
    found = seen_by_loss(method, images(64), SIZE, seed=0)
    assert healthy is not None
    assert found is not None
    assert healthy.deviation > 0.1 > 0.02 > found.deviation


def test_online_knn_is_of_the_labelled_items_only() -> None:
    found = images(1500)
    x = found["image"].permute(0, 2, 3, 1).numpy()
    labels = np.arange(1500) % 3
    x[labels == 1] //= 2  # something to learn
    labels[::4] = -1
    items = replace(open_data(x, cache=False), labels=labels, classes=("a", "b", "c"))
    method = made("simclr").eval()
    figures = make_monitor(items, SIZE, torch.device("cpu"), seed=5)(method)
    order = np.random.default_rng(5).permutation(1500)
    known = order[labels[order] >= 0]
    z = F.normalize(method.embed(items.batch(known)["image"] / 255), dim=1)
    y = torch.from_numpy(labels[known])
    split = len(known) * 4 // 5
    assert figures["knn_top1"] == pytest.approx(knn_top1(z[:split], y[:split], z[split:], y[split:]), abs=1e-9)
    assert figures["rankme"] == pytest.approx(rankme(method.embed(items.batch(np.sort(order[:1024]))["image"] / 255)), rel=1e-4)
