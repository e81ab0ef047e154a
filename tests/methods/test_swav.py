"""SwAV against its equations and algorithm: codes, swapped prediction, prototypes, queue; and one toy problem it must solve."""

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from selfsup.distributed import average_gradients
from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.swav import SwAV, sinkhorn, swapped_prediction
from selfsup.models import Encoder, build_encoder


class TinyEncoder(Encoder):
    width = 16

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(self.width) if norm else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def swav(norm: bool = True, **options: float) -> SwAV:
    torch.manual_seed(1)
    small = {"prototypes": 7, "epsilon": 0.05, "hidden_size": 12, "projection_size": 6, "local_views": 1}
    method = SwAV(TinyEncoder(norm), image_size=8, **small | options)
    if not norm:
        method.projector = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, int(method.prototypes.shape[1])))
    return method


def crops(batch: int, seed: int = 0, local: int = 1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    large = {f"global_{i}": torch.rand(batch, 3, 8, 8, generator=g) for i in range(2)}
    return large | {f"local_{i}": torch.rand(batch, 3, 4, 4, generator=g) for i in range(local)}


def codes_by_hand(scores: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """Equation 5 with both vectors, value by value: Q's columns are images and sum to 1 / N, its rows prototypes and sum to 1 / K."""
    n, k = scores.shape
    q = [[math.exp(float(scores[i, j]) / epsilon) for i in range(n)] for j in range(k)]
    for _ in range(iterations):
        for j in range(k):
            total = sum(q[j])
            q[j] = [value / total / k for value in q[j]]
        for i in range(n):
            total = sum(q[j][i] for j in range(k))
            for j in range(k):
                q[j][i] /= total * n
    return n * torch.tensor(q, dtype=torch.float64).T


@pytest.mark.parametrize(("n", "k", "epsilon", "iterations"), [(1, 3, 0.05, 3), (6, 4, 0.05, 3), (5, 9, 0.03, 1), (4, 2, 0.5, 10)])
def test_codes_are_equation_5(n: int, k: int, epsilon: float, iterations: int) -> None:
    scores = 2 * torch.rand(n, k, dtype=torch.float64) - 1
    expected = codes_by_hand(scores, epsilon, iterations)
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), expected, rtol=1e-9, atol=1e-12)


def test_codes_share_the_images_out_among_the_prototypes() -> None:
    """Even where every image likes the same prototype best, which without balance is the collapse."""
    scores = torch.tensor([[0.9, 0.1], [0.9, 0.2], [0.8, 0.3], [0.7, 0.3]])
    codes = sinkhorn(scores, 0.05, 200)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(codes.sum(dim=0), torch.tensor([2.0, 2.0]))
    assert codes.argmax(dim=1).tolist() == [0, 0, 1, 1]  # by how much the first is liked more: 0.8, 0.7, 0.5, 0.4
    torch.testing.assert_close(sinkhorn(torch.zeros(3, 5), 0.05, 3), torch.full((3, 5), 0.2))


def test_codes_survive_the_sharpest_epsilon_and_bfloat16() -> None:
    scores = torch.where(torch.rand(6, 40) > 0.5, 1.0, -1.0)
    codes = sinkhorn(scores.bfloat16(), 0.01, 3)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(6))


@pytest.mark.parametrize("views", [2, 4])
def test_loss_is_equation_6(views: int) -> None:
    scores, codes = torch.randn(views, 3, 5, dtype=torch.float64), torch.rand(2, 3, 5, dtype=torch.float64)
    total, pairs = 0.0, 0
    for i in range(2):
        for v in range(views):
            if v == i:
                continue
            pairs += 1
            for b in range(3):
                p = (scores[v, b] / 0.1).softmax(dim=0)
                total -= sum(float(codes[i, b, k]) * math.log(p[k]) for k in range(5)) / 3
    torch.testing.assert_close(swapped_prediction(scores, codes, 0.1), torch.tensor(total / pairs, dtype=torch.float64), rtol=1e-9, atol=0)
    assert pairs == 2 * (views - 1)
    uniform = torch.full((2, 3, 5), 0.2)
    torch.testing.assert_close(swapped_prediction(torch.ones(views, 3, 5), uniform, 0.1), torch.tensor(math.log(5)))


def test_training_is_the_algorithm() -> None:
    """Four steps beside the algorithm: prototypes frozen in the first, the queue filled from the second and used once it is full."""
    method = swav(queue_size=6, queue_from=0.25, freeze_prototypes=0.25)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5, weight_decay=0.1)
    f, g, c = copy.deepcopy(method.encoder), copy.deepcopy(method.projector), method.prototypes.detach().clone()
    queue: list[list[torch.Tensor]] = [[], []]
    used = []
    for step in range(4):  # 4 features a step and 6 places: full after the third
        views = crops(4, step, local=1)
        c.requires_grad_(step >= 1)
        h = torch.cat([f(torch.cat([views["global_0"], views["global_1"]])), f(views["local_0"])])
        z = F.normalize(g(h), dim=1).view(3, 4, 6)
        codes = []
        for i in range(2):
            with torch.no_grad():
                rows = torch.cat([z[i], torch.stack(queue[i])]) if len(queue[i]) == 6 else z[i]
                used.append(len(rows))
                codes.append(codes_by_hand(rows @ c.T, 0.05, 3)[:4].float())
        pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
        loss = sum(-(codes[i] * ((z[v] @ c.T) / 0.1).log_softmax(dim=1)).sum(dim=1).mean() for i, v in pairs) / 4
        trained = [*f.parameters(), *g.parameters(), *([c] if step >= 1 else [])]
        gradients = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            for p, grad in zip(trained, gradients, strict=True):
                p -= 0.5 * (grad + 0.1 * p)
            c = F.normalize(c, dim=1)
            if step >= 1:
                queue = [(list(z[i]) + queue[i])[:6] for i in range(2)]

        method.progress = step / 4
        logged = train_step(method, [views], {"main": optimizer})
        method.after_step((step + 1) / 4)
        torch.testing.assert_close(logged["loss"], loss.detach())
        torch.testing.assert_close(method.prototypes.detach(), c, rtol=1e-5, atol=1e-6)
        for i in range(2):
            filled = torch.stack([*queue[i], *torch.zeros(6 - len(queue[i]), 6)])
            torch.testing.assert_close(method.queue[i], filled, rtol=1e-4, atol=1e-5)
        for mine, by_hand in zip([*method.encoder.parameters(), *method.encoder.buffers()], [*f.parameters(), *f.buffers()], strict=True):
            torch.testing.assert_close(mine, by_hand, rtol=1e-4, atol=1e-5)
    assert used == [4, 4, 4, 4, 4, 4, 10, 10]


def test_frozen_prototypes_get_no_gradient_and_no_decay() -> None:
    method = swav(freeze_prototypes=0.5)
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1, weight_decay=0.5)
    for progress in (0.0, 0.25):
        method.progress = progress
        before = method.prototypes.detach().clone()
        train_step(method, [crops(4)], {"main": optimizer})
        assert torch.equal(method.prototypes, before)
        method.after_step(progress + 0.25)
    method.progress = 0.5
    assert method.prototypes not in optimizer.state  # so that its moments start when it does
    before = method.prototypes.detach().clone()
    train_step(method, [crops(4)], {"main": optimizer})
    assert float((method.prototypes.detach() - before).abs().amin(dim=1).max()) > 0.01
    method.after_step(0.75)
    torch.testing.assert_close(method.prototypes.norm(dim=1), torch.ones(7))


def test_no_gradient_flows_through_the_codes() -> None:
    """The gradient is that of the cross entropy with codes that are constants."""
    method, views = swav(norm=False), crops(5)
    method.loss(views).backward()
    z = F.normalize(method.projector(torch.cat([method.encoder(views[name]) for name in views])), dim=1).view(3, 5, 6)
    scores = z @ method.prototypes.T
    codes = torch.stack([codes_by_hand(s, 0.05, 3).float() for s in scores[:2].detach()])
    expected = torch.autograd.grad(swapped_prediction(scores, codes, 0.1), list(method.parameters()))
    for p, gradient in zip(method.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)
        assert gradient.abs().sum() > 0


def test_the_queue_moves_once_a_step_however_the_batch_is_split() -> None:
    views, whole, split = crops(6), swav(norm=False, queue_size=9, queue_from=0.0), swav(norm=False, queue_size=9, queue_from=0.0)
    whole.loss(views)
    for i in range(3):
        split.loss({key: value[2 * i : 2 * i + 2] for key, value in views.items()})
        assert not split.queue.any()
    for method in (whole, split):
        method.after_step(0.1)
    torch.testing.assert_close(split.queue, whole.queue)
    before = whole.queue.clone()
    whole.eval().loss(views)
    whole.after_step(0.2)  # looking at the loss moves nothing
    assert torch.equal(whole.queue, before)
    assert {"queue", "prototypes"} <= set(whole.state_dict())  # what a checkpoint needs to go on exactly


def test_crops_of_one_size_share_their_statistics() -> None:
    method, seen = swav(local_views=2), []
    method.encoder.register_forward_pre_hook(lambda _m, args: seen.append(tuple(args[0].shape)))
    method.loss(crops(3, local=2))
    assert seen == [(6, 3, 8, 8), (6, 3, 4, 4)]


def test_views_are_those_of_the_paper() -> None:
    paper = {"crop_split": 0.14, "smallest_crop": 0.05, "local_size": 96, "local_views": 6, "colour_strength": 1.0}
    views = SwAV(TinyEncoder(), image_size=224, **paper).views
    assert list(views.looks) == ["global_0", "global_1", *(f"local_{i}" for i in range(6))]
    for name, look in views.looks.items():
        assert (look.size, look.scale) == ((224, (0.14, 1.0)) if name.startswith("global") else (96, (0.05, 0.14)))
        assert (look.colours, look.jitter, look.gray, look.blur, look.solarize) == ((0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5, 0.0)
    assert SwAV(TinyEncoder(), image_size=32, local_views=1).views.looks["local_0"].size == 16
    vit = build_encoder("vit_tiny", channels=3, image_size=28)
    assert SwAV(vit, image_size=28, local_views=1).views.looks["local_0"].size == 12  # three patches of 4


def test_it_learns_to_find_the_partner(find_partners: Callable[..., tuple[float, float, Callable[[], float]]]) -> None:
    before, after, loss_of_more = find_partners(lambda: swav(norm=False, prototypes=20, projection_size=16), lr=1e-2, steps=100, crops=True)
    assert after > 2.5 * before, f"{after:.2f} of partners found, {before:.2f} before training; chance is 0.03"
    loss = loss_of_more()
    assert loss < 0.8 * math.log(20), f"{loss:.2f} nats; {math.log(20):.2f} by chance"


def test_mistakes_are_named() -> None:
    for options, message in [
        ({"prototypes": 1}, "prototypes must be at least 2.*got prototypes=1"),
        ({"queue_size": -1}, "queue_size=-1"),
        ({"temperature": 0.0}, "temperature must be positive.*got temperature=0.0"),
        ({"epsilon": 0.001}, "epsilon at least 0.01.*epsilon=0.001"),
        ({"queue_from": 1.5}, "queue_from is a part of the training and must be between 0 and 1, got 1.5"),
        ({"freeze_prototypes": -0.1}, "freeze_prototypes is a part of the training.*got -0.1"),
    ]:
        with pytest.raises(ValueError, match=message):
            swav(**options)


def three_steps(parts: list[Batch]) -> dict[str, torch.Tensor]:
    method = swav(norm=False, queue_size=12, queue_from=0.0, freeze_prototypes=0.3)
    out: dict[str, torch.Tensor] = {}
    for i, views in enumerate(parts):
        method.progress = i / 3
        loss = method.loss(views)
        method.zero_grad()
        loss.backward()
        average_gradients(method.parameters())
        method.after_step((i + 1) / 3)
        out[f"loss{i}"] = loss.detach()
    out |= {f"gradient.{name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
    return out | {"queue": method.queue}


def one_of_two_processes(number: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    out = three_steps([{key: value[4 * number : 4 * number + 4] for key, value in crops(8, i).items()} for i in range(3)])
    for i in range(3):
        dist.all_reduce(out[f"loss{i}"])
        out[f"loss{i}"] /= 2
    torch.save(out, folder / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_swav as t; from pathlib import Path; "
    runs = [subprocess.Popen([sys.executable, "-c", code + f"t.one_of_two_processes({i}, Path({str(tmp_path)!r}))"]) for i in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    expected = three_steps([crops(8, i) for i in range(3)])
    assert expected["queue"].all(dim=2).sum() == 24  # full
    for i in range(2):
        out = torch.load(tmp_path / f"{i}.pt")
        assert out.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(out[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
