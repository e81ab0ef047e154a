"""Gradient caching against the plain gradient of the whole batch, for losses that compare every row with every other."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.engine.micro import MicroBatches
from selfsup.engine.step import train_step
from selfsup.method import Batch, Encoder, Method
from selfsup.methods import METHODS, method_class
from selfsup.models import build_encoder
from selfsup.models.batch_norm import statistics_of
from selfsup.tasks.pretraining.pretrain import pretrain


class Net(Encoder):
    """Without batch statistics, so that a part of a batch gives the vectors that the whole gives; with dropout where asked."""

    width = 6

    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.first, self.drop, self.second = nn.Linear(3 * 8 * 8, 16), nn.Dropout(dropout), nn.Linear(16, self.width)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.sizes: list[int] = []
        vars(self)["spec"] = {"name": "own", "channels": 3, "image_size": 8}

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.second(self.drop(F.gelu(self.norm(self.first(x.flatten(1))))))


def two_views(batch: int) -> Batch:
    first, second = torch.rand(2, batch, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return {"first": first, "second": second, "index": torch.arange(batch)}


def gradients(method: Method, views: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    method.zero_grad()
    loss = method.loss(views)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


CONTRASTIVE = [name for name in ("simclr", "moco", "byol", "simsiam", "barlow_twins", "vicreg", "supcon") if name in METHODS]


@pytest.mark.parametrize("rows", [1, 3, 4, 100])
@pytest.mark.parametrize("name", CONTRASTIVE)
def test_the_gradient_is_that_of_the_whole_batch(name: str, rows: int) -> None:
    torch.manual_seed(0)
    plain = method_class(name)(Net(), image_size=8).double()
    cached = copy.deepcopy(plain)
    MicroBatches(cached, rows)
    views = two_views(6)
    (loss, expected), (same, found) = gradients(plain, views), gradients(cached, views)
    torch.testing.assert_close(same, loss, rtol=1e-9, atol=0.0)
    assert found.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())  # some gradients are zero but for rounding
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-9 * largest)


def test_each_part_runs_once_forward_and_once_more_for_its_gradient() -> None:
    method = method_class("simclr")(Net(), image_size=8).double()
    MicroBatches(method, 5)
    method.loss(two_views(6)).backward()
    assert method.encoder.sizes == [5, 5, 2, 2, 5, 5]  # type: ignore[attr-defined]
    method.encoder.sizes.clear()  # type: ignore[attr-defined]
    with torch.no_grad():
        method.loss(two_views(6))
    method.eval()
    method.embed(torch.rand(12, 3, 8, 8, dtype=torch.float64))
    assert method.encoder.sizes == [5, 5, 2, 12]  # type: ignore[attr-defined]


def test_dropout_is_the_same_the_second_time() -> None:
    """Else the gradient would be that of another network; each row's own is compared with finite differences under the same masks."""
    method = method_class("simclr")(Net(dropout=0.5), image_size=8).double()
    MicroBatches(method, 4)
    views, weight = two_views(4), method.encoder.second.weight  # type: ignore[attr-defined]

    def loss() -> Tensor:
        torch.manual_seed(3)
        return method.loss(views)

    loss().backward()
    for i, j in [(0, 0), (3, 7), (5, 15)]:
        with torch.no_grad():
            weight[i, j] += 1e-6
            up = loss()
            weight[i, j] -= 2e-6
            down = loss()
            weight[i, j] += 1e-6
        torch.testing.assert_close(weight.grad[i, j], (up - down) / 2e-6, rtol=1e-5, atol=1e-8)


def test_batch_statistics_are_recorded_once() -> None:
    method = method_class("simclr")(Net(norm=True), image_size=8).double()
    by_hand = copy.deepcopy(method.encoder)
    MicroBatches(method, 4)
    views = two_views(6)
    method.loss(views).backward()
    for part in torch.cat([views["first"], views["second"]]).split(4):
        by_hand(part)
    for (name, a), b in zip(method.encoder.named_buffers(), by_hand.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")
    assert int(method.encoder.norm.num_batches_tracked) == 3  # type: ignore[attr-defined]


def test_batch_statistics_that_are_not_recorded_stay_so_the_second_time() -> None:
    """As jigsaw and relative_position have it, whose encoder learns from tiles and keeps the statistics of whole images."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Net(norm=True)

    by_hand = Pair().double()
    cached = copy.deepcopy(by_hand)
    MicroBatches(cached, 4)
    pieces, whole = two_views(8)["first"], two_views(5)["second"][:4]
    gradients = []
    for network, parts in ((cached, [pieces]), (by_hand, pieces.split(4))):
        with statistics_of(network.encoder, whole):
            z = torch.cat([network.encoder(part) for part in parts])
        z.square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-12, rtol=0)
    for name, buffer in by_hand.named_buffers():
        torch.testing.assert_close(dict(cached.named_buffers())[name], buffer)
    assert cached.encoder.norm.num_batches_tracked == 1


def test_it_works_under_autocast_and_in_the_training_step() -> None:
    torch.manual_seed(0)
    method = method_class("simclr")(build_encoder("small", channels=3, image_size=8), image_size=8)
    MicroBatches(method, 6)
    optimizers = {"main": torch.optim.SGD(method.parameters(), lr=0.01)}
    views = {key: value.float() for key, value in two_views(8).items() if key != "index"}
    before = train_step(method, [views], optimizers, autocast=torch.autocast("cpu", torch.bfloat16))["loss"]
    for _ in range(5):
        after = train_step(method, [views], optimizers, autocast=torch.autocast("cpu", torch.bfloat16))["loss"]
    assert after < before


class Aside(Method):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Net()

    def loss(self, views: Batch) -> Tensor:
        return self.encoder.second(views["x"]).square().mean()


def test_a_method_that_passes_the_encoder_by_is_told() -> None:
    method = Aside()
    micro = MicroBatches(method, 2)
    method.loss({"x": torch.rand(4, 16)})
    with pytest.raises(ValueError, match=r"--micro-batch cannot serve Aside.* --accumulate is exact where a loss is of single items"):
        micro.check()
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        MicroBatches(method, 0)


@pytest.mark.parametrize("name", ["jigsaw", "relative_position"])
def test_a_method_on_maps_of_tiles_is_told_though_whole_images_pass_the_encoder(name: str) -> None:
    method = method_class(name)(build_encoder("small", channels=3, image_size=16), image_size=16)
    micro = MicroBatches(method, 2)
    views = method.views({"image": torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)}, torch.Generator().manual_seed(0))
    method.loss(views)
    with pytest.raises(ValueError, match="--micro-batch cannot serve"):
        micro.check()


def test_what_it_changed_is_undone_after_training(tmp_path: Path) -> None:
    """Else a copy of the user's network would run the network that it was copied from, and a teacher would be its student."""
    network = build_encoder("small", channels=3, image_size=16)
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    pretrain(images, "simclr", encoder=network, micro_batch=8, batch_size=8, steps=1, out=tmp_path / "run", quiet=True)
    assert "forward" not in vars(network)
    other = copy.deepcopy(network).eval()
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert float(other(torch.rand(2, 3, 16, 16)).detach().abs().max()) == 0.0


def test_the_option_reaches_the_encoder_and_a_refused_run_has_failed(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="--micro-batch cannot serve MAE"):
        pretrain(images, "mae", micro_batch=4, batch_size=8, steps=1, out=tmp_path / "run", quiet=True)
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status["state"] == "failed"
    assert "cannot serve MAE" in status["message"]
