"""Rows, costs and answers of the tasks of text: nothing is lost, nothing is seen that must not be, and spans are those of brute force."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.data.text.labelled import Questions, Tagged, Texts, open_labelled
from selfsup.data.text.tokenizer import Tokenizer, train_tokenizer
from selfsup.models import build_encoder
from selfsup.models.text import TextTransformer
from selfsup.tasks.labels.answers import Spans, best_span, spans_for, window_starts
from selfsup.tasks.labels.text_tasks import Classes, Said, Scores, Tags, task_for, task_from
from selfsup.tasks.labels.text_training import TextNetwork, batches, collate, outputs_of, rates, train_text

WORDS = "alpha beta gamma delta epsilon zeta eta theta 3 7 , ? ann has a cat who"
PASSAGE = "Alpha beta, gamma delta ? Epsilon zeta eta theta 7 ann has a cat"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([WORDS] * 3, "wordpiece", vocabulary_size=400)


def texts(*rows: tuple[Any, ...]) -> Texts:
    found = open_labelled(list(rows))
    assert isinstance(found, Texts)
    return found


def questions(*asked: tuple[str, int], passage: str = PASSAGE) -> Questions:
    qas = [{"id": i, "question": "who has", "answers": [{"text": t, "answer_start": at}] if t else []} for i, (t, at) in enumerate(asked)]
    found = open_labelled({"data": [{"paragraphs": [{"context": passage, "qas": qas}]}]})
    assert isinstance(found, Questions)
    return found


def test_pairs_have_two_texts_and_the_longer_one_is_cut(tokenizer: Tokenizer) -> None:
    long, short = "alpha beta gamma delta epsilon zeta eta theta alpha beta", "ann has a cat"
    data = texts((long, short, "x"), (short, long, "y"), (long, long, "x"), (short, "", "x"))
    rows = Classes(("x", "y")).rows(data, tokenizer, 15)
    encoder = build_encoder("bert_tiny", channels=tokenizer.size, image_size=0, text=spec(tokenizer, 15))
    assert isinstance(encoder, TextTransformer)
    ids = collate(rows, range(4), tokenizer.pad)["text"]
    second = (encoder.which_text(ids) == 1) & (ids != tokenizer.pad)
    assert second.sum(dim=1).tolist() == [5, 9, 7, 1]  # with END; of 12 tokens 4 and 8, or 6 and 6
    assert [len(row) for row in rows.ids] == [15, 15, 15, 7]
    assert tokenizer.decode(rows.ids[0]) == "alpha beta gamma delta epsilon zeta eta theta ann has a cat"
    assert rows.notes == {"cut": 3}
    assert [int(t[0]) for t in rows.targets] == [0, 1, 0, 0]


def spec(tokenizer: Tokenizer, length: int = 32) -> dict[str, int]:
    return {"length": length, "pad": tokenizer.pad, "start": tokenizer.start, "end": tokenizer.end}


def test_every_word_has_a_tag_however_long_the_sentence_and_the_word(tokenizer: Tokenizer) -> None:
    long = "alpha" * 9  # more pieces than a row has
    words = tuple(["ann", "has", "a", "cat", ",", "gamma", "alphabeta"] * 3 + [long, "cat", long])
    data = Tagged("list", (words, ("cat",)), (tuple("XY"[i % 2] for i in range(len(words))), (None,)))
    task = Tags(("X", "Y"))
    rows = task.rows(data, tokenizer, 10)
    assert max(map(len, rows.ids)) <= 10
    assert rows.notes == {"split": 1}
    assert sum(len(p) for p in rows.places) == len(words) + 1
    begins = [int(row[p]) for row, places in zip(rows.ids, rows.places, strict=True) for p in places]
    assert begins == [int(tokenizer.encode_words([w])[0][0]) for w in (*words, "cat")]
    labelled = [int(t) for target in rows.targets for t in target if t >= 0]
    assert labelled == [i % 2 for i in range(len(words))]
    for row, places, target in zip(rows.ids, rows.places, rows.targets, strict=True):
        assert set(np.flatnonzero(target >= 0)) <= set(places)
        assert (row[0], row[-1]) == (tokenizer.start, tokenizer.end)
    said = task.read([np.eye(2)[np.maximum(t, 0)] for t in rows.targets], rows, data)
    assert said.values[0] == [("X", "Y")[i % 2] for i in range(len(words))]
    assert len(said.values[1]) == 1
    assert task.score(said, data) == {"accuracy": 1.0, "macro_f1": 1.0}  # the word without a tag does not count


def test_the_cost_of_tags_is_the_mean_over_words() -> None:
    scores, target = torch.randn(2, 5, 3, dtype=torch.float64), torch.tensor([[-1, 2, -1, 0, -1], [-1, 1, -1, -1, -1]])
    expected = -sum(scores[i, j].log_softmax(0)[target[i, j]] for i, j in [(0, 1), (0, 3), (1, 1)]) / 3
    torch.testing.assert_close(Tags(("a", "b", "c")).loss(scores.float(), target), expected.float())


@settings(deadline=None)  # machines are noisy
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=9), st.integers(1, 12))
def test_the_best_span_is_that_of_brute_force(scores: list[tuple[int, int]], longest: int) -> None:
    begins, ends = np.array(scores, np.float64).T
    legal = [(i, j) for i, j in itertools.product(range(len(begins)), repeat=2) if i <= j < i + longest]
    value, i, j = max((begins[i] + ends[j], -i, -j) for i, j in legal)
    assert best_span(begins, ends, longest) == (-i, -j, value)


@pytest.mark.parametrize("n", range(0, 40))
def test_windows_cover_a_passage_and_overlap(n: int) -> None:
    starts = window_starts(n, 10)
    assert sorted(set(itertools.chain(*(range(s, min(s + 10, n)) for s in starts)))) == list(range(n))
    assert all(0 < b - a <= 5 for a, b in itertools.pairwise(starts))
    assert all(s + 10 <= n for s in starts) or starts == [0]


def test_answers_stand_where_the_targets_say(tokenizer: Tokenizer) -> None:
    asked = [(word, PASSAGE.index(word)) for word in ("Alpha", "gamma delta", "cat", "beta,")]
    data = questions(*asked, ("delta", 3), ("nowhere", 0), ("", 0))
    rows = Spans("en").rows(data, tokenizer, 14)
    hits = [0] * len(data)
    for row, target, offsets, n in zip(rows.ids, rows.targets, rows.places, rows.owner, strict=True):
        first, last, begin, end = target.tolist()
        assert len(row) <= 14
        assert len(offsets) == end - begin
        assert tokenizer.decode(row[:begin]) == "who has"
        if first:
            hits[n] += 1
            assert begin <= first <= last < end
            text = PASSAGE[offsets[first - begin, 0] : offsets[last - begin, 1]]
            assert text == data.asked[n].answers[0][0]
            assert tokenizer.decode(row[first : last + 1]).replace(" ", "") == text.lower().replace(" ", "")
    assert min(hits[:5]) >= 1  # the fifth is not where the data say, but in the passage
    assert hits[5:] == [0, 0]
    assert rows.notes == {"split": 7, "misplaced": 1}


def test_the_answer_is_the_best_of_all_windows_and_within_the_passage(tokenizer: Tokenizer) -> None:
    data = questions(("cat", PASSAGE.index("cat")), ("cat", PASSAGE.index("cat")))
    task = Spans("en", longest=4)
    rows = task.rows(data, tokenizer, 14)
    draw = np.random.default_rng(0)
    outputs = [draw.normal(size=(len(row), 2)) for row in rows.ids]
    for scores, target in zip(outputs, rows.targets, strict=True):
        scores[: target[2]] += 20  # the question, START and END would win
        scores[target[3] :] += 20
    said = task.read(outputs, rows, data)
    for n in range(2):
        found = []
        for scores, target, offsets, owner in zip(outputs, rows.targets, rows.places, rows.owner, strict=True):
            for i, j in itertools.product(range(target[2], target[3]), repeat=2):
                if owner == n and i <= j < i + 4:
                    text = PASSAGE[offsets[i - target[2], 0] : offsets[j - target[2], 1]]
                    found.append((scores[i, 0] + scores[j, 1], text))
        assert said.values[n] == max(found)[1]
    assert all(0 < p < 1 for p in said.probabilities)


def test_no_answer_wins_only_where_it_may(tokenizer: Tokenizer) -> None:
    data = questions(("cat", PASSAGE.index("cat")), ("", 0))
    rows = Spans("en").rows(data, tokenizer, 64)
    outputs = [np.zeros((len(row), 2)) for row in rows.ids]
    outputs[1][0] = 3.0
    assert Spans("en", none=True).read(outputs, rows, data).values == ["Alpha", ""]
    assert Spans("en").read(outputs, rows, data).values == ["Alpha", "Alpha"]
    assert spans_for(data).none
    assert not spans_for(data.subset([0])).none
    assert Spans("en", none=True).score(Said(["CAT!", ""], [1, 1]), data) == {"exact_match": 1.0, "f1": 1.0}


def test_the_cost_of_a_span_is_over_start_and_the_passage() -> None:
    scores = torch.randn(2, 7, 2)
    target = torch.tensor([[3, 4, 2, 6], [0, 0, 3, 5]])
    expected = []
    for i, legal in enumerate(([0, 2, 3, 4, 5], [0, 3, 4])):
        for end in range(2):
            expected.append(-scores[i, legal, end].log_softmax(0)[legal.index(int(target[i, end]))])
    torch.testing.assert_close(Spans("en").loss(scores, target), torch.stack(expected).mean())


def test_the_data_say_what_is_asked() -> None:
    assert task_for(texts(("a", "1"), ("b", "0"))) == Classes(("0", "1"))
    assert task_for(texts(("a", "b", 1.0), ("b", "c", 2.5))) == Scores(1.75, 0.75)
    assert task_for(texts(("a", "1.0"), ("b", "0.0"))) == Classes(("0.0", "1.0"))  # whole numbers are names
    chinese = questions(("猫", 2), passage="安有猫。")
    for task in (Classes(("x", "y")), Scores(1.5, 2.0), Tags(("x", "y")), spans_for(chinese)):
        assert task_from(task.config()) == task
    assert spans_for(chinese) == Spans("zh")


def test_scores_are_in_the_units_of_the_data(tokenizer: Tokenizer) -> None:
    data = texts(("a", "cat", 1.0), ("has", "a", 2.5), ("cat", "a", 4.5))
    task = task_for(data)
    rows = task.rows(data, tokenizer, 16)
    values = np.array([float(t[0]) for t in rows.targets])
    assert (values.mean(), values.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1))
    said = task.read(rows.targets, rows, data)
    assert said.values == pytest.approx([1.0, 2.5, 4.5])
    assert task.score(said, data) == {"spearman": pytest.approx(1.0), "pearson": pytest.approx(1.0)}
    assert task.score(Said([1.0] * 3, []), data) == {"spearman": 0.0, "pearson": 0.0}
    assert task.loss(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])) == pytest.approx(2.5)


def test_batches_have_each_row_once_a_pass_and_little_padding() -> None:
    long = np.random.default_rng(0).lognormal(3, 0.6, 5000).astype(int).clip(3, 128)
    steps = math.ceil(5000 / 32)
    feed = batches(long.tolist(), 32, seed=1)
    first, second = ([next(feed) for _ in range(steps)] for _ in range(2))
    for one in (first, second):
        assert sorted(np.concatenate(one).tolist()) == list(range(5000))
        assert max(map(len, one)) == 32
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    again = batches(long.tolist(), 32, seed=1)
    assert all(np.array_equal(a, next(again)) for a in first)
    padded = sum(len(b) * long[b].max() for b in first)
    assert long.sum() / padded > 0.93, "of random batches, less than half is text"
    order = [long[b].mean() for b in first]
    assert abs(np.corrcoef(order, range(steps))[0, 1]) < 0.3  # short ones do not come first


@pytest.mark.parametrize("per_token", [False, True])
def test_neither_padding_nor_the_batch_changes_what_is_said(tokenizer: Tokenizer, per_token: bool) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("bert_tiny", channels=tokenizer.size, image_size=0, text=spec(tokenizer))
    network = TextNetwork(encoder, 3, per_token=per_token)
    data = texts(("ann has a cat", "x"), ("alpha", "y"), ("alpha beta gamma delta epsilon", "x"))
    rows = Classes(("x", "y")).rows(data, tokenizer, 32)
    found = outputs_of(network, rows, np.array([1, 2, 0]), tokenizer.pad)
    for scores, i in zip(found, (1, 2, 0), strict=True):
        alone = network.eval()(torch.from_numpy(rows.ids[i])[None])[0]
        np.testing.assert_allclose(scores, alone.detach().numpy(), atol=1e-5)


def test_rates_fall_from_the_last_layer_to_the_tokens(tokenizer: Tokenizer) -> None:
    for name in ("bert_tiny", "gpt_nano"):
        encoder = build_encoder(name, channels=tokenizer.size, image_size=0, text=spec(tokenizer))
        assert isinstance(encoder, TextTransformer)
        found, layers = rates(encoder, 0.5), len(encoder.layers)
        assert set(found) == set(encoder.parameters())
        assert {found[p] for p in encoder.layers[layers - 1].parameters()} == {0.5}
        assert {found[p] for p in encoder.layers[0].parameters()} == {0.5**layers}
        assert found[encoder.tokens.weight] == found[encoder.positions.weight] == 0.5 ** (layers + 1)
        assert found[encoder.norm.weight] == (0.5 if encoder.causal else 0.5 ** (layers + 1))


def test_a_frozen_encoder_stays_and_its_equal_vectors_are_told_apart(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("bert_tiny", channels=tokenizer.size, image_size=0, text=spec(tokenizer))
    with torch.no_grad():
        for p in encoder.layers[-1].norm2.parameters():  # type: ignore[union-attr]
            p.mul_(0.01)
        encoder.layers[-1].norm2.bias.add_(1.0)  # type: ignore[union-attr]
    before = {name: t.clone() for name, t in encoder.state_dict().items()}
    data = texts(*((f"{a} {b}", "x" if a == "ann" else "y") for a in ("ann", "cat") for b in WORDS.split()))
    task = Classes(("x", "y"))
    rows = task.rows(data, tokenizer, 32)
    state = torch.get_rng_state()
    seen: list[int] = []
    network = train_text(
        lambda: encoder, task, rows, np.arange(len(data)), pad=tokenizer.pad, seed=0, steps=30, lr=1e-2, frozen=True,
        watch=lambda step, net: seen.append(step if not net.training else -1), every=20,
    )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state)
    assert seen == [0, 20, 30]
    assert all(torch.equal(before[name], t) for name, t in encoder.state_dict().items())
    said = task.read(outputs_of(network, rows, np.arange(len(data)), tokenizer.pad), rows, data)
    assert task.score(said, data)["accuracy"] > 0.95
    with torch.no_grad():
        x = network.vectors(collate(rows, range(len(data)), tokenizer.pad)["text"])
    z = (x - network.shift) * network.scale  # type: ignore[operator]
    assert float(z.square().mean()) == pytest.approx(1.0, rel=1e-3)
    assert float(z.mean(dim=0).abs().max()) < 1e-3


def test_training_is_the_same_for_a_seed(tokenizer: Tokenizer) -> None:
    data = texts(("ann has a cat", "x"), ("alpha", "y"), ("alpha beta", "x"))
    task = Classes(("x", "y"))
    rows = task.rows(data, tokenizer, 32)

    def heads(seed: int) -> torch.Tensor:
        network = train_text(
            lambda: build_encoder("bert_tiny", channels=tokenizer.size, image_size=0, text=spec(tokenizer)),
            task, rows, np.arange(3), pad=tokenizer.pad, seed=seed, steps=2, lr=1e-3,
        )  # fmt: skip
        return network.head.weight

    assert torch.equal(heads(0), heads(0))
    assert not torch.equal(heads(0), heads(1))


def test_a_class_costs_its_cross_entropy() -> None:
    scores, target = torch.randn(4, 3), torch.tensor([[0], [2], [1], [1]])
    torch.testing.assert_close(Classes(("a", "b", "c")).loss(scores, target), F.cross_entropy(scores, target[:, 0]))
