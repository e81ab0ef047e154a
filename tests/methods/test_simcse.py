"""SimCSE: equations 4 and 5, dropout as the only augmentation, and texts that belong together."""

import math

import pytest
import torch
import torch.nn.functional as F

from selfsup.engine.micro import MicroBatches
from selfsup.method import Vocabulary
from selfsup.methods.simcse import SimCSE, contrast, take_apart
from selfsup.models import build_encoder

V = 60
VOCABULARY = Vocabulary(V, 0, 1, 2, 3, 4, torch.arange(V) < 5, torch.zeros(V, dtype=torch.bool))
TEXT = {"length": 16, "pad": 0, "start": 2, "end": 3}


def method(**options: object) -> SimCSE:
    return SimCSE(build_encoder("bert_tiny", channels=V, image_size=0, text=TEXT), vocabulary=VOCABULARY, **options)


def sentences(n: int, t: int = 8, seed: int = 0) -> torch.Tensor:
    ids = torch.randint(5, V, (n, t), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], ids[:, -1] = 2, 3
    return ids


def equation_5(h: torch.Tensor, plus: torch.Tensor, minus: torch.Tensor | None, temperature: float) -> float:
    """As it is printed; equation 4 without the second sum."""

    def sim(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()))

    total = 0.0
    for i in range(len(h)):
        below = sum(math.exp(sim(h[i], other) / temperature) for other in plus)
        if minus is not None:
            below += sum(math.exp(sim(h[i], other) / temperature) for other in minus)
        total -= math.log(math.exp(sim(h[i], plus[i]) / temperature) / below)
    return total / len(h)


def test_the_loss_is_equations_4_and_5() -> None:
    h, plus, minus = torch.randn(3, 5, 4, dtype=torch.float64)
    assert float(contrast(h, plus, None, 0.3)) == pytest.approx(equation_5(h, plus, None, 0.3), abs=1e-9)
    assert float(contrast(h, plus, minus, 0.3)) == pytest.approx(equation_5(h, plus, minus, 0.3), abs=1e-9)
    same = torch.ones(5, 4)
    assert float(contrast(same, same, None, 0.05)) == pytest.approx(math.log(5), abs=1e-5)
    assert float(contrast(same, same, same, 0.05)) == pytest.approx(math.log(10), abs=1e-5)


def test_the_views_differ_in_dropout_and_in_nothing_else() -> None:
    ids = sentences(6)
    views = method().views({"text": ids}, torch.Generator())
    assert views.keys() == {"text"}
    torch.testing.assert_close(views["text"], ids)
    without, seen = method(dropout=0.0), []
    without.head.register_forward_hook(lambda *call: seen.append(call[2]))
    without.loss(views)
    torch.testing.assert_close(seen[0][:6], seen[0][6:])
    trained, seen = method(), []
    trained.head.register_forward_hook(lambda *call: seen.append(call[2]))
    trained.loss(views)
    first, second = seen[0].chunk(2)
    assert bool(((first - second).norm(dim=1) > 0.01 * first.norm(dim=1)).all())
    trained.eval()
    trained.loss(views)
    torch.testing.assert_close(seen[1][:6], seen[1][6:])


def test_information_is_log_of_the_candidates_less_the_loss() -> None:
    rows = {"premise": sentences(4), "entailed": sentences(4, seed=1), "contradicting": sentences(4, seed=2)}
    for simcse, views, candidates in [(method(), {"text": sentences(6)}, 6), (method(supervised=True), rows, 2 * 4)]:
        [update] = simcse.updates(views)
        assert float(update.metrics["information"]) == pytest.approx(math.log(candidates) - float(update.loss.detach()))


def test_the_loss_is_that_of_the_heads_vectors_and_everything_learns_from_it() -> None:
    simcse = method(dropout=0.0)
    ids = sentences(5)
    h = simcse.head(simcse.encoder.hidden(ids)[:, 0]).detach()
    loss = simcse.loss({"text": ids})
    assert float(loss.detach()) == pytest.approx(equation_5(h, h, None, 0.05), rel=1e-4)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in simcse.parameters())
    torch.testing.assert_close(simcse.embed(ids), simcse.encoder.hidden(ids)[:, 0])  # no head


def test_parts_of_a_batch_lose_the_same_units_when_they_run_again() -> None:
    ids = sentences(6)
    whole, parts = method(), method()
    parts.load_state_dict(whole.state_dict())
    MicroBatches(parts, 4)
    seen = []
    original = vars(parts.encoder)["forward"]
    vars(parts.encoder)["forward"] = lambda x: seen.append(original(x)) or seen[-1]
    torch.manual_seed(5)
    parts.loss({"text": ids}).backward()
    # The gradient belongs to exactly the vectors that the loss has seen: move the weights along it and they do what it says.
    torch.manual_seed(5)
    with torch.no_grad():
        again = torch.cat([parts.encoder.vector(part) for part in torch.cat([ids, ids]).split(4)])
    torch.testing.assert_close(again, seen[0].detach())
    z = parts.head(torch.cat([parts.encoder.vector(part) for part in _seeded(torch.cat([ids, ids]))])).chunk(2)
    expected = torch.autograd.grad(contrast(*z, None, 0.05), list(parts.parameters()))
    for p, g in zip(parts.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)


def _seeded(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(5)
    return x.split(4)


def test_texts_that_belong_together_are_taken_apart() -> None:
    rows = torch.tensor([[2, 10, 3, 2, 11, 12, 13, 3, 2, 14, 3], [2, 20, 21, 3, 2, 22, 3, 2, 3, 0, 0]])
    first, second, third = take_apart(rows, VOCABULARY)
    assert first.tolist() == [[2, 10, 3, 0, 0], [2, 20, 21, 3, 0]]
    assert second.tolist() == [[2, 11, 12, 13, 3], [2, 22, 3, 0, 0]]
    assert third.tolist() == [[2, 14, 3, 0, 0], [2, 3, 0, 0, 0]]


@pytest.mark.parametrize("n", [2, 3])
def test_supervised_compares_premises_with_what_follows_and_what_contradicts(n: int) -> None:
    simcse = method(supervised=True, dropout=0.0)
    texts = [sentences(4, 6 + i, i) for i in range(n)]
    views = simcse.views({"text": torch.cat(texts, dim=1)}, torch.Generator())
    assert list(views) == ["premise", "entailed", "contradicting"][:n]
    h = [simcse.head(simcse.encoder(x)).detach() for x in texts]
    expected = equation_5(h[0], h[1], h[2] if n == 3 else None, 0.05)
    assert float(simcse.loss(views).detach()) == pytest.approx(expected, rel=1e-4)
    assert SimCSE.layout({"supervised": True}) == "related"
    assert SimCSE.layout({}) == "sentences"


def test_it_learns_to_tell_sentences_apart_from_dropout_alone() -> None:
    torch.manual_seed(0)
    simcse = method()
    optimizer = torch.optim.AdamW(simcse.parameters(), 2e-3)

    def topics(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:  # 5 topics of ten words each, and a sentence is of one of them
        draw = torch.Generator().manual_seed(seed)
        topic = torch.randint(5, (n,), generator=draw)
        ids = 5 + 10 * topic[:, None] + torch.randint(10, (n, 8), generator=draw)
        return torch.cat([torch.full((n, 1), 2), ids, torch.full((n, 1), 3)], dim=1), topic

    def spread(seed: int) -> float:
        ids, _ = topics(100, seed)
        with torch.no_grad():
            z = F.normalize(simcse.eval().embed(ids), dim=1)
        simcse.train()
        return float((z @ z.T).mean())

    before = spread(999)
    for step in range(15):
        loss = simcse.loss({"text": topics(24, step)[0]})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert spread(999) < before - 0.3  # new sentences no longer crowd in a cone
    assert float(loss.detach()) < 0.5 * math.log(24)


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match=r"temperature must be positive, got 0\.0"):
        method(temperature=0.0)
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1"):
        method(dropout=1.0)
    with pytest.raises(ValueError, match="with a BERT, got encoder gpt_nano"):
        SimCSE(build_encoder("gpt_nano", channels=V, image_size=0, text=TEXT), vocabulary=VOCABULARY)
