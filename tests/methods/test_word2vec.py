"""word2vec: what the engine feeds and logs, what is repeatable, and analogies that it must solve. Its kernel has tests of its own."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup.engine.optim import make_optimizers
from selfsup.engine.step import train_step
from selfsup.method import Batch, Vocabulary
from selfsup.methods.word2vec import Word2Vec
from selfsup.models import build_encoder

PAIRS, TOPIC = 8, 3
V = 5 + 2 * PAIRS + 8 + TOPIC * PAIRS  # special tokens; countries, capitals; words of either kind; words of each pair's own
VOCABULARY = Vocabulary(V, 0, 1, 2, 3, 4, torch.arange(V) < 5, torch.zeros(V, dtype=torch.bool))
END = 3


def word2vec(*, counts: torch.Tensor | None = None, width: int = 20, **options: object) -> Word2Vec:
    torch.manual_seed(0)
    encoder = build_encoder(f"words_{width}", channels=V, image_size=0, text={"length": 30, "pad": 0, "start": 2, "end": END})
    if counts is None:
        counts = torch.bincount(rows(200).flatten(), minlength=V)
    settings: dict = {"threads": 1, "sample": 0.0, **options}
    return Word2Vec(encoder, vocabulary=VOCABULARY, counts=counts, **settings)


def rows(n: int, seed: int = 0) -> torch.Tensor:
    """Sentences about a country or its capital: its name, two words of its kind, two of its pair's own; five sentences a row."""
    draw = np.random.default_rng(seed)
    m = 5 * n
    pair, capital = draw.integers(PAIRS, size=(m, 1)), draw.integers(2, size=(m, 1))
    kind = 5 + 2 * PAIRS + 4 * capital + draw.integers(4, size=(m, 2))
    own = 5 + 2 * PAIRS + 8 + TOPIC * pair + draw.integers(TOPIC, size=(m, 2))
    made = draw.permuted(np.hstack([5 + pair + PAIRS * capital, kind, own]), axis=1)
    return torch.from_numpy(np.hstack([made, np.full((m, 1), END)]).reshape(n, 30))


def views(text: torch.Tensor, seed: int = 0) -> Batch:
    return {"text": text, "seed": torch.arange(len(text)) + 1000 * seed}


def solved(vectors: torch.Tensor) -> float:
    """Fraction of capital_a - country_a + country_b = capital_b, by the largest cosine of all words but the three."""
    z = F.normalize(vectors, dim=1)
    right = []
    for a in range(5, 5 + PAIRS):
        for b in set(range(5, 5 + PAIRS)) - {a}:
            score = z @ (z[a + PAIRS] - z[a] + z[b])
            score[[0, 1, 2, 3, 4, a, b, a + PAIRS]] = -2
            right.append(int(score.argmax()) == b + PAIRS)
    return sum(right) / len(right)


@pytest.mark.parametrize("model", ["skip_gram", "cbow"])
@pytest.mark.parametrize("objective", ["negative_sampling", "hierarchical_softmax"])
def test_it_learns_capitals_of_countries(model: str, objective: str) -> None:
    method = word2vec(model=model, objective=objective)
    assert solved(method.table.vectors.detach()) < 0.15
    steps = 30
    for step in range(steps):
        method.learning_rate = 0.05 * (1 - step / steps)
        train_step(method, [views(rows(400, step), step)], {})
    assert solved(method.table.vectors.detach()) > 0.8


def test_the_first_loss_is_that_of_chance() -> None:
    method = word2vec(objective="hierarchical_softmax", counts=torch.ones(V, dtype=torch.int64) * (torch.arange(V) < 5 + 32), width=3)
    text = torch.tensor([[5, 6, 7, END, 0, 0, 0, 0]])
    assert float(train_step(method, [views(text)], {})["loss"]) == pytest.approx(5 * math.log(2))  # 32 equal words: five turns each
    method = word2vec(negatives=3)
    before = method.table.vectors.clone()
    loss = float(train_step(method, [views(rows(50))], {})["loss"])
    assert 3.7 * math.log(2) < loss < 4 * math.log(2)  # a noise word that is the hidden one does not count
    assert torch.equal(method.table.vectors, before)  # the learning rate is 0 until the engine sets it


def test_it_has_no_optimiser_and_special_tokens_stay_zero() -> None:
    method = word2vec()
    assert make_optimizers(method, method.recipe) == {}
    method.learning_rate = 0.1
    train_step(method, [views(rows(20))], {})
    assert bool((method.table.vectors[:5] == 0).all())
    assert bool((method.outputs[:5] == 0).all())
    used = rows(20).unique()
    assert bool((method.table.vectors[used[used > 4]] != word2vec().table.vectors[used[used > 4]]).any(dim=1).all())


def test_one_thread_repeats_itself_and_a_batch_is_its_rows() -> None:
    text = rows(24)
    whole, parts, others = word2vec(), word2vec(), word2vec()
    for method in (whole, parts, others):
        method.learning_rate = 0.05
    loss = train_step(whole, [views(text)], {})["loss"]
    batch = views(text)
    halves = train_step(parts, [{key: x[:12] for key, x in batch.items()}, {key: x[12:] for key, x in batch.items()}], {})["loss"]
    assert torch.equal(whole.table.vectors, parts.table.vectors)
    assert torch.equal(whole.outputs, parts.outputs)
    assert float(loss) == pytest.approx(float(halves), rel=1e-3)  # halves differ a little in their number of examples
    train_step(others, [views(text, 1)], {})
    assert not torch.equal(whole.table.vectors, others.table.vectors)


def test_several_threads_learn_the_same_within_their_races() -> None:
    one, two = word2vec(), word2vec(threads=2)
    for step in range(10):
        for method in (one, two):
            method.learning_rate = 0.05
            loss = train_step(method, [views(rows(50, step), step)], {})["loss"]
            assert 0 < float(loss) < 6 * math.log(2)
    agree = F.cosine_similarity(one.table.vectors[5:].detach(), two.table.vectors[5:].detach())
    assert float(agree.mean()) > 0.9


def test_what_is_drawn_comes_from_the_seeds_alone() -> None:
    method = word2vec()
    made = [method.views({"text": rows(6)}, torch.Generator().manual_seed(seed))["seed"] for seed in (1, 1, 2)]
    assert torch.equal(made[0], made[1])
    assert not bool((made[0] == made[2]).any())
    assert len(set(made[0].tolist())) == 6


def test_words_that_are_met_too_often_are_left_out() -> None:
    counts = torch.bincount(rows(200).flatten(), minlength=V)
    often, seldom = word2vec(sample=0.0, counts=counts), word2vec(sample=1e-9, counts=counts)
    for method in (often, seldom):
        method.learning_rate = 0.1
        train_step(method, [views(rows(10))], {})
    assert bool((seldom.outputs == 0).all())
    assert not bool((often.outputs == 0).all())


def test_noise_words_are_drawn_by_counts_to_the_power() -> None:
    counts = torch.randint(1000, (V,), generator=torch.Generator().manual_seed(1))
    for power in (0.75, 0.0):
        method = word2vec(counts=counts, noise_power=power)
        train_step(method, [views(rows(1))], {})
        assert method._tables is not None
        own, other = method._tables.noise.astype(np.float64).T
        share = own / 2**32 + np.bincount(other.astype(int), 1 - own / 2**32, minlength=V)
        weights = counts.double().numpy() ** power * (np.arange(V) >= 5) * (counts > 0).numpy()  # no special tokens, none that never occurs
        np.testing.assert_allclose(share / V, weights / weights.sum(), atol=1e-8)


def test_mistakes_are_named() -> None:
    for options, message in [
        ({"window": 0}, "window=0"),
        ({"negatives": 0}, "negatives=0"),
        ({"threads": -1}, "threads=-1"),
        ({"sample": -1.0}, "sample=-1.0"),
        ({"noise_power": -0.5}, "noise_power=-0.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            word2vec(**options)
    bert = build_encoder("bert_tiny", channels=V, image_size=0, text={"length": 16, "pad": 0, "start": 2, "end": 3})
    with pytest.raises(ValueError, match="choose words_100"):
        Word2Vec(bert, vocabulary=VOCABULARY)
    with pytest.raises(ValueError, match="none of the vocabulary's words"):
        train_step(word2vec(counts=torch.zeros(V, dtype=torch.int64)), [views(rows(2))], {})
