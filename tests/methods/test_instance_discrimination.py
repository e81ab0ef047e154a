"""Instance discrimination against equations 4 to 10 of the paper; what its three dictionaries hold, when, and who gets gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.engine.optim import make_optimizers
from selfsup.engine.step import train_step
from selfsup.method import Batch, Encoder, Recipe
from selfsup.methods.instance_discrimination import InstanceDiscrimination

EXACT = {"rtol": 1e-9, "atol": 1e-12}


class TinyEncoder(Encoder):
    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def method(dictionary: str, **options: float) -> InstanceDiscrimination:
    torch.manual_seed(1)
    given = {"items": 9, "projection_size": 5, "hidden_size": 0, "noise": 7, "queue_size": 6, "temperature": 0.2} | options
    return InstanceDiscrimination(TinyEncoder(), image_size=4, dictionary=dictionary, **given)


def two_views(batch: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    first, second = torch.rand(2, batch, 3, 4, 4, generator=g)
    return {"first": first, "second": second, "index": torch.arange(batch)}


def one_view(index: list[int], seed: int = 0, noise: int = 7) -> Batch:
    g = torch.Generator().manual_seed(seed)
    b = len(index)
    drawn = torch.randint(9, (b, noise), generator=g)
    return {"image": torch.rand(b, 3, 4, 4, generator=g), "noise": drawn, "index": torch.tensor(index)}


def vectors(m: InstanceDiscrimination, x: torch.Tensor) -> torch.Tensor:
    return F.normalize(m.projector(m.encoder(x)), dim=1).detach()


@pytest.mark.parametrize(("dictionary", "candidates"), [("batch", 3), ("queue", 6 + 1)])
def test_information_is_log_of_the_candidates_less_the_loss(dictionary: str, candidates: int) -> None:
    [update] = method(dictionary).updates(two_views(3))
    assert float(update.metrics["information"]) == pytest.approx(math.log(candidates) - float(update.loss.detach()))


def test_a_bank_asks_of_each_entry_by_itself_and_reports_no_information() -> None:
    [update] = method("bank").updates(one_view([1, 4]))
    assert update.metrics == {}


# --- the bank ------------------------------------------------------------------------------------------------------------------------


def equation_10(f: torch.Tensor, bank: torch.Tensor, views: Batch, log_z: float, tau: float, proximal: float) -> float:
    """-log h(i, f) - m E log(1 - h(i, v')) + lambda |f - v|^2 with loops, h = P / (P + m / n) and P = exp(v . f / tau) / Z."""
    n, m, total = len(bank), views["noise"].shape[1], 0.0

    def h(i: int, j: int) -> float:
        p = math.exp(float(bank[j] @ f[i]) / tau) / math.exp(log_z)
        return p / (p + m / n)

    for i, own in enumerate(views["index"].tolist()):
        total -= math.log(h(i, own)) + sum(math.log(1 - h(i, j)) for j in views["noise"][i].tolist())
        total += proximal * float((f[i] - bank[own]).square().sum())
    return total / len(f)


@pytest.mark.parametrize("proximal", [0.0, 3.0])
def test_the_loss_is_equation_10(proximal: float) -> None:
    m = method("bank", proximal=proximal)
    m.double()
    views = one_view([4, 0, 8])
    views["image"] = views["image"].double()
    f = vectors(m, views["image"])
    # Equation 8: n times the mean over all draws of the first batch.
    draws = [math.exp(float(m.bank[j] @ f[i]) / 0.2) for i in range(3) for j in views["noise"][i].tolist()]
    log_z = math.log(9 * sum(draws) / len(draws))
    expected = equation_10(f, m.bank, views, log_z, 0.2, proximal)
    torch.testing.assert_close(m.loss(views).detach(), torch.tensor(expected, dtype=torch.float64), **EXACT)
    assert float(m.log_z) == pytest.approx(log_z, rel=1e-9)


def test_z_is_estimated_once() -> None:
    m = method("bank")
    m.eval().loss(one_view([1, 2]))
    assert m.log_z.isinf()  # looking at the loss sets nothing
    m.train().loss(one_view([1, 2]))
    first = m.log_z.clone()
    m.loss(one_view([3, 4], seed=1))
    assert torch.equal(m.log_z, first)
    assert first.isfinite()
    assert {"bank", "log_z"} <= set(m.state_dict())


def test_the_bank_starts_as_random_unit_vectors() -> None:
    bank = method("bank", items=500).bank
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(500))
    assert float(bank.mean(dim=0).norm()) < 0.2


def test_entries_move_after_the_step_and_stay_unit_vectors() -> None:
    m, views = method("bank", bank_momentum=0.75), one_view([4, 0, 8])
    before, f = m.bank.clone(), vectors(m, views["image"])
    for part in range(3):  # micro-batches
        m.loss({name: x[part : part + 1] for name, x in views.items()})
    assert torch.equal(m.bank, before)
    m.after_step(0.5)
    expected = before.clone()
    expected[[4, 0, 8]] = F.normalize(0.75 * before[[4, 0, 8]] + 0.25 * f, dim=1)
    torch.testing.assert_close(m.bank, expected)
    m.after_step(0.6)  # nothing new
    m.eval().loss(one_view([1, 2]))
    m.after_step(0.7)  # looking at the loss moves nothing
    torch.testing.assert_close(m.bank, expected)


def test_noise_is_drawn_from_all_items_and_is_the_generators() -> None:
    m = method("bank", noise=400)
    raw = {"image": torch.randint(0, 256, (3, 3, 6, 6), dtype=torch.uint8), "index": torch.tensor([8, 1, 5])}
    views = m.views(raw, torch.Generator().manual_seed(0))
    assert views["noise"].shape == (3, 400)
    assert views["noise"].unique().tolist() == list(range(9))
    assert torch.equal(views["index"], raw["index"])
    assert torch.equal(m.views(raw, torch.Generator().manual_seed(0))["noise"], views["noise"])


# --- the batch and the queue -----------------------------------------------------------------------------------------------------------


def softmax_loss(queries: torch.Tensor, keys: torch.Tensor, negatives: torch.Tensor | None, tau: float) -> torch.Tensor:
    if negatives is None:
        return F.cross_entropy(queries @ keys.T / tau, torch.arange(len(keys)))
    logits = torch.cat([(queries * keys).sum(dim=1, keepdim=True), queries @ negatives.T], dim=1)
    return F.cross_entropy(logits / tau, torch.zeros(len(keys), dtype=torch.int64))


def test_end_to_end_contrasts_with_the_keys_of_the_batch_and_trains_both_sides() -> None:
    m, views = method("batch"), two_views(5)
    for x in ("first", "second"):
        views[x].requires_grad_()
    loss = m.loss(views)
    q, k = (F.normalize(m.projector(m.encoder(views[x])), dim=1) for x in ("first", "second"))
    torch.testing.assert_close(loss, softmax_loss(q, k, None, 0.2))
    loss.backward()
    for x in ("first", "second"):
        assert views[x].grad is not None
        assert float(views[x].grad.abs().sum()) > 0
    assert not [name for name, _ in m.named_buffers()]  # no dictionary but the batch


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_queue_holds_the_keys_of_the_batches_before(momentum: float) -> None:
    m = method("queue", key_momentum=momentum, queue_size=9)
    optimizers = {"main": torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.5)}
    queue = list(m.queue.clone())
    for step in range(3):  # 4 keys a step, 9 places: the queue goes round
        views = two_views(4, step)
        slow = [p.clone() for p in (*m.key_encoder.parameters(), *m.key_projector.parameters())]
        keys = F.normalize(m.key_projector(m.key_encoder(views["second"])), dim=1)
        expected = softmax_loss(vectors(m, views["first"]), keys, torch.stack(queue), 0.2)
        logged = train_step(m, [views], optimizers)
        torch.testing.assert_close(logged["loss"], expected)
        m.after_step(0.5)
        queue = (queue + list(keys))[-9:]
        oldest = int(m.oldest)
        torch.testing.assert_close(torch.cat([m.queue[oldest:], m.queue[:oldest]]), torch.stack(queue))
        fast = [*m.encoder.parameters(), *m.projector.parameters()]
        for was, p, q in zip(slow, [*m.key_encoder.parameters(), *m.key_projector.parameters()], fast, strict=True):
            torch.testing.assert_close(p, momentum * was + (1 - momentum) * q)
            assert p.grad is None
    m.eval().loss(two_views(4))
    m.after_step(0.6)
    assert int(m.oldest) == oldest


@pytest.mark.parametrize("dictionary", ["batch", "bank", "queue"])
def test_it_learns_to_find_the_image(dictionary: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(32, 3, 4, 4)
    given = {"items": 32, "projection_size": 16, "noise": 16, "queue_size": 64, "temperature": 0.1, "key_momentum": 0.9}
    m = method(dictionary, **given)
    optimizers = make_optimizers(m, Recipe(lr=1e-2, weight_decay=0.0))

    def noisy() -> torch.Tensor:
        return images + 1.5 * torch.randn_like(images)

    def found() -> float:
        a, b = (F.normalize(m.embed(noisy()), dim=1) for _ in range(2))
        return float(((a @ b.T).argmax(dim=1) == torch.arange(32)).float().mean())

    before = sum(found() for _ in range(10)) / 10
    for _ in range(150):
        views = {"image": noisy(), "first": noisy(), "second": noisy(), "index": torch.arange(32), "noise": torch.randint(32, (32, 16))}
        train_step(m, [views], optimizers)
        m.after_step(0.5)
    after = sum(found() for _ in range(10)) / 10
    assert after > 1.5 * before + 0.05, f"{after:.2f} of images found, {before:.2f} before training; chance is 0.03"


def test_mistakes_are_named() -> None:
    for options, message in [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"bank_momentum": 1.5}, "got bank_momentum=1.5"),
        ({"noise": 0}, "at least 1.*got noise=0"),
        ({"items": 0}, "items must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            method("bank", **options)
