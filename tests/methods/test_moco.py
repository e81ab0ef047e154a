"""MoCo against algorithm 1 of the paper: loss, momentum, queue, shuffling; and one toy problem it must solve."""

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
from selfsup.methods.moco import MoCo
from selfsup.models import Encoder


class TinyEncoder(Encoder):
    width = 16

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.width), nn.BatchNorm1d(self.width) if norm else nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def moco(norm: bool = True, **options: float) -> MoCo:
    torch.manual_seed(1)
    small = {"queue_size": 10, "hidden_size": 12, "projection_size": 6, "momentum": 0.9, "symmetric": False}
    return MoCo(TinyEncoder(norm), image_size=8, **small | options)


def two_views(batch: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return {"first": torch.rand(batch, 3, 8, 8, generator=g), "second": torch.rand(batch, 3, 8, 8, generator=g)}


def test_information_is_log_of_queue_and_partner_less_the_loss() -> None:
    [update] = moco().updates(two_views(3))
    assert float(update.metrics["information"]) == pytest.approx(math.log(10 + 1) - float(update.loss.detach()))


@pytest.mark.parametrize("symmetric", [False, True])
def test_training_is_algorithm_1(symmetric: bool) -> None:
    """The order of the authors' code: f_k is moved, keys are made, f_q is stepped, keys replace the oldest of the queue."""
    method = moco(symmetric=symmetric)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    f_q = copy.deepcopy(nn.Sequential(method.encoder, method.projector))
    f_k = copy.deepcopy(f_q)
    queue = list(method.queue.clone())
    m, t = 0.9, method.temperature
    for step in range(4):  # 4 keys a step (8 where symmetric) and 10 places: the queue goes round
        views = two_views(4, step)
        with torch.no_grad():
            for p_k, p_q in zip(f_k.parameters(), f_q.parameters(), strict=True):
                p_k.copy_(m * p_k + (1 - m) * p_q)
        ways = [("first", "second"), ("second", "first")][: 1 + symmetric]
        losses, made = [], []
        for a, b in ways:
            q = F.normalize(f_q(views[a]), dim=1)
            k = F.normalize(f_k(views[b]), dim=1).detach()
            positive = torch.einsum("nc,nc->n", q, k)[:, None]
            negative = torch.einsum("nc,kc->nk", q, torch.stack(queue))
            losses.append(F.cross_entropy(torch.cat([positive, negative], dim=1) / t, torch.zeros(4, dtype=torch.int64)))
            made += list(k)
        loss = sum(losses) / len(losses)
        gradients = torch.autograd.grad(loss, list(f_q.parameters()))
        with torch.no_grad():
            for p, g in zip(f_q.parameters(), gradients, strict=True):
                p -= 0.5 * g
        queue = (queue + made)[-10:]

        logged = train_step(method, [views], {"main": optimizer})
        method.after_step(0.5)
        torch.testing.assert_close(logged["loss"], loss.detach())
        oldest = int(method.oldest)
        torch.testing.assert_close(torch.cat([method.queue[oldest:], method.queue[:oldest]]), torch.stack(queue))
        for mine, by_hand in [
            (nn.Sequential(method.encoder, method.projector), f_q),
            (nn.Sequential(method.key_encoder, method.key_projector), f_k),
        ]:
            for p, expected in zip(mine.buffers(), by_hand.buffers(), strict=True):  # statistics of queries and of keys, each their own
                torch.testing.assert_close(p, expected)
        for p, expected in zip(method.encoder.parameters(), f_q[0].parameters(), strict=True):
            torch.testing.assert_close(p, expected)


def test_equation_2_by_numbers() -> None:
    method = moco(momentum=0.75)
    with torch.no_grad():
        for p in [*method.key_encoder.parameters(), *method.key_projector.parameters()]:
            p.fill_(1.0)
        for p in [*method.encoder.parameters(), *method.projector.parameters()]:
            p.fill_(2.0)
    method.after_step(0.0)
    for p in [*method.key_encoder.parameters(), *method.key_projector.parameters()]:
        torch.testing.assert_close(p, torch.full_like(p, 0.75 * 1 + 0.25 * 2))
    assert all(bool((p == 2).all()) for p in method.encoder.parameters())


def test_the_key_encoder_is_never_optimised() -> None:
    method = moco()
    method.loss(two_views(4)).backward()
    for name, p in method.named_parameters():
        assert p.requires_grad == (not name.startswith("key_")), name
        assert (p.grad is not None) == p.requires_grad, name


def test_the_queue_starts_random_normalised_and_from_the_seed() -> None:
    method = moco(queue_size=500)
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(500))
    assert float(method.queue.mean(dim=0).norm()) < 0.2
    assert torch.equal(method.queue, moco(queue_size=500).queue)
    assert {"queue", "oldest"} <= set(method.state_dict())  # what a checkpoint needs to go on exactly


def test_the_queue_moves_once_a_step_however_the_batch_is_split() -> None:
    views, whole, split = two_views(6), moco(norm=False), moco(norm=False)
    whole.loss(views)
    for i in range(3):
        before = split.queue.clone()
        split.loss({key: value[2 * i : 2 * i + 2] for key, value in views.items()})
        assert torch.equal(split.queue, before)  # not within the step: a micro-batch would meet its own keys
    for method in (whole, split):
        method.after_step(0.1)
        assert int(method.oldest) == 6
    torch.testing.assert_close(split.queue, whole.queue)
    split.after_step(0.2)  # no new keys
    assert int(split.oldest) == 6
    split.eval().loss(views)
    split.after_step(0.3)  # looking at the loss moves nothing
    assert int(split.oldest) == 6


def test_a_queue_shorter_than_the_batch_keeps_the_newest() -> None:
    method, views = moco(queue_size=3), two_views(7)
    keys = F.normalize(copy.deepcopy(nn.Sequential(method.key_encoder, method.key_projector))(views["second"]), dim=1)
    method.loss(views)
    method.after_step(0.1)
    oldest = int(method.oldest)
    torch.testing.assert_close(torch.cat([method.queue[oldest:], method.queue[:oldest]]), keys[-3:])


def test_each_split_has_its_own_statistics_and_keys_are_shuffled() -> None:
    method, views = moco(bn_splits=2), two_views(8)
    groups: dict[str, list[torch.Tensor]] = {"query": [], "key": []}
    method.encoder.register_forward_pre_hook(lambda _m, args: groups["query"].append(args[0]))
    method.key_encoder.register_forward_pre_hook(lambda _m, args: groups["key"].append(args[0]))
    method.loss(views)
    assert [len(g) for g in groups["query"] + groups["key"]] == [4, 4, 4, 4]
    torch.testing.assert_close(torch.cat(groups["query"]), views["first"])

    def numbers(group: torch.Tensor) -> list[int]:
        return [int((views["second"] == image).flatten(1).all(dim=1).nonzero()) for image in group]

    companies = [numbers(g) for g in groups["key"]]
    assert sorted(companies[0] + companies[1]) == list(range(8))
    assert sorted(companies[0]) not in ([0, 1, 2, 3], [4, 5, 6, 7])  # with this seed; the queries' groups are these
    # Keys come back in the order of the images, each normalised with its own company.
    f_k = copy.deepcopy(nn.Sequential(method.key_encoder, method.key_projector))
    for company in companies:
        expected = F.normalize(f_k(views["second"][company]), dim=1)
        torch.testing.assert_close(method._new_keys[0][company], expected)


def test_shuffling_changes_nothing_without_batch_norm() -> None:
    views = two_views(9)
    torch.testing.assert_close(moco(norm=False, bn_splits=4).loss(views), moco(norm=False).loss(views))


def test_views_are_those_of_each_version() -> None:
    first, second = moco(version=1), moco(version=2)
    assert [type(m).__name__ for m in first.projector] == ["Linear"]
    assert [type(m).__name__ for m in second.projector] == ["Linear", "ReLU", "Linear"]
    big = MoCo(TinyEncoder(), image_size=64).views.first
    assert (big.scale, big.blur, big.jitter, big.gray) == ((0.2, 1.0), 0.5, 0.8, 0.2)
    assert big.colours == (0.4, 0.4, 0.4, 0.1)
    assert MoCo(TinyEncoder(), image_size=64, version=1).views.first.blur == 0


def test_it_learns_to_find_the_partner(find_partners: Callable[..., tuple[float, float, Callable[[], float]]]) -> None:
    before, after, _ = find_partners(
        lambda: MoCo(
            TinyEncoder(norm=False), image_size=8, queue_size=64, hidden_size=32, projection_size=16, momentum=0.9, symmetric=False
        ),
        lr=1e-2,
        steps=150,
    )
    assert after > 2 * before + 0.1, f"{after:.2f} of partners found, {before:.2f} before training; chance is 0.03"


def test_mistakes_are_named() -> None:
    for options, message in [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"momentum": 1.5}, "momentum must be between 0 and 1, got 1.5"),
        ({"queue_size": 0}, "at least 1, got queue_size=0"),
        ({"bn_splits": 0}, "bn_splits=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            moco(**options)
    with pytest.raises(ValueError, match=r"bn_splits=4 needs at least 8 images.*got 7"):
        moco(bn_splits=4).loss(two_views(7))


def two_steps(views: Batch, seed: int = 0, spy: Callable[[torch.Tensor], object] = lambda _: None) -> dict[str, torch.Tensor]:
    method = moco(norm=False, queue_size=11)
    torch.manual_seed(seed)  # the method's own randomness differs from process to process
    method.key_encoder.register_forward_pre_hook(lambda _m, args: spy(args[0]))
    out: dict[str, torch.Tensor] = {}
    for i in range(2):  # the second step meets the first one's keys
        loss = method.loss(views)
        method.zero_grad()
        loss.backward()
        average_gradients(method.parameters())
        method.after_step(0.5)
        out[f"loss{i}"] = loss.detach()
    out |= {f"gradient.{name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
    return out | {"queue": method.queue, "oldest": method.oldest}


def one_of_two_processes(number: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    views = two_views(8)
    mine = {key: value[4 * number : 4 * number + 4] for key, value in views.items()}
    seen: list[torch.Tensor] = []
    out = two_steps(mine, number, seen.append)
    dist.all_reduce(out["loss0"]), dist.all_reduce(out["loss1"])
    out["loss0"], out["loss1"] = out["loss0"] / 2, out["loss1"] / 2
    out["of_first_half"] = torch.stack([(views["second"][:4] == image).flatten(1).all(dim=1).any() for image in seen[0]])
    torch.save(out, folder / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_moco as t; from pathlib import Path; "
    runs = [subprocess.Popen([sys.executable, "-c", code + f"t.one_of_two_processes({i}, Path({str(tmp_path)!r}))"]) for i in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    expected = two_steps(two_views(8))
    for i in range(2):
        out = torch.load(tmp_path / f"{i}.pt")
        of_first_half = out.pop("of_first_half")
        assert of_first_half.any()  # keys are shuffled across processes, so each makes some of its own images' keys and some of the other's
        assert not of_first_half.all()
        assert out.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(out[name], value, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
