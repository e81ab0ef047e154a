"""BERT: what is hidden, what a wrong guess costs, and that packing changes nothing."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup.method import Vocabulary
from selfsup.methods.bert import BERT, Holes, cut, exchange, masked_loss
from selfsup.models import build_encoder
from selfsup.models.text import TextTransformer
from selfsup.views.token_masks import mask_tokens

V = 100
SPECIAL = torch.arange(V) < 5
CONTINUES = (torch.arange(V) >= 60) & (torch.arange(V) < 90)
VOCABULARY = Vocabulary(V, 0, 1, 2, 3, 4, SPECIAL, CONTINUES)
TEXT = {"length": 32, "pad": 0, "start": 2, "end": 3}


def encoder() -> TextTransformer:
    made = build_encoder("bert_tiny", channels=V, image_size=0, text=TEXT)
    assert isinstance(made, TextTransformer)
    return made


def rows(n: int, t: int, seed: int = 0) -> torch.Tensor:
    ids = torch.from_numpy(np.random.default_rng(seed).integers(5, V, (n, t)))
    ids[:, 0], ids[:, -1] = 2, 3
    return ids


def test_masking_rates_are_the_papers_within_4_standard_errors() -> None:
    ids = rows(4000, 256)
    found = mask_tokens(ids, torch.Generator().manual_seed(1), fraction=0.15, mask=4, special=SPECIAL)
    n = int((~SPECIAL[ids]).sum())
    assert n > 1_000_000

    def near(count: int, of: int, p: float) -> bool:
        return abs(count - of * p) < 4 * math.sqrt(of * p * (1 - p))

    hidden = int(found.hidden.sum())
    assert near(hidden, n, 0.15)
    masked = int((found.shown == 4)[found.hidden].sum())
    same = int((found.shown == ids)[found.hidden].sum())
    assert near(masked, hidden, 0.8)
    assert near(same, hidden, 0.1 + 0.1 / 95)  # one in 95 of the random ones is the token itself
    assert not bool(found.hidden[SPECIAL[ids]].any())
    assert bool((found.shown == ids)[~found.hidden].all())
    put_in = found.shown[found.hidden & (found.shown != 4)]
    assert not bool(SPECIAL[put_in].any())
    counts = torch.bincount(put_in[put_in != ids[found.hidden & (found.shown != 4)]], minlength=V)[5:]
    assert counts.min() > 0.7 * counts.float().mean()  # any ordinary token, equally likely


def test_whole_words_are_hidden_or_shown_together() -> None:
    ids = rows(500, 64)
    found = mask_tokens(ids, torch.Generator().manual_seed(1), fraction=0.3, mask=4, special=SPECIAL, continues=CONTINUES)
    inside = CONTINUES[ids[:, 1:]] & ~SPECIAL[ids[:, :-1]]
    assert bool((found.hidden[:, 1:] == found.hidden[:, :-1])[inside].all())
    assert not bool((found.hidden[:, 1:] == found.hidden[:, :-1])[~inside].all())


def test_the_loss_is_the_mean_over_hidden_tokens_only() -> None:
    scores, missing = torch.randn(7, V, dtype=torch.float64), torch.randint(V, (7,))
    naive = sum(-(scores[i].exp() / scores[i].exp().sum()).log()[missing[i]] for i in range(7)) / 7
    assert float(masked_loss(scores, missing)) == pytest.approx(float(naive), abs=1e-9)
    assert float(masked_loss(torch.zeros(3, V), torch.arange(3))) == pytest.approx(math.log(V), abs=1e-6)
    assert float(masked_loss(torch.zeros(0, V), torch.zeros(0, dtype=torch.long))) == 0.0


def test_packed_documents_have_the_vectors_of_documents_alone() -> None:
    network = encoder().eval()
    first, second = rows(1, 9, 1), rows(1, 14, 2)
    packed = torch.cat([first, second, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    with torch.no_grad():
        together = network.hidden(packed)
        torch.testing.assert_close(together[:, :9], network.hidden(first), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together[:, 9:23], network.hidden(second), atol=1e-5, rtol=1e-5)
        padded = F.pad(first, (0, 7))
        torch.testing.assert_close(network(padded), network(first), atol=1e-5, rtol=1e-5)


def test_a_token_sees_both_sides_and_no_other_document() -> None:
    network = encoder().eval()
    ids = torch.cat([rows(1, 8, 1), rows(1, 8, 2)], dim=1)
    changed = ids.clone()
    changed[0, 4] = 5 + (changed[0, 4] - 4) % 90
    with torch.no_grad():
        moved = (network.hidden(ids) - network.hidden(changed)).abs().amax(dim=2)[0] > 1e-7
    assert bool(moved[:8].all())
    assert not bool(moved[8:].any())


def test_rows_are_cut_into_quarters_that_begin_with_start() -> None:
    ids = rows(3, 150)
    short = cut(ids, 2, 0)
    assert short.shape == (12, 38)  # 150 / 4, rounded up
    together = short.reshape(3, -1)
    inside = torch.arange(150) % 38 != 0
    assert torch.equal(together[:, :150][:, inside], ids[:, inside])
    assert bool((short[:, 0] == 2).all())
    assert bool((together[:, 150:] == 0).all())
    assert cut(rows(3, 64), 2, 0).shape == (6, 32)
    assert torch.equal(cut(rows(3, 32), 2, 0), rows(3, 32))


def test_the_first_part_of_the_training_has_short_rows() -> None:
    torch.manual_seed(0)
    long = build_encoder("bert_tiny", channels=V, image_size=0, text={**TEXT, "length": 128})
    method = BERT(long, vocabulary=VOCABULARY, short=0.5)
    ids = rows(4, 128)
    ids[1, 40:] = 0  # its last two quarters are nothing but padding
    views = method.views({"text": ids}, torch.Generator().manual_seed(0))
    whole = next(iter(method.eval().updates(views))).loss

    def by_hand() -> torch.Tensor:
        """Each quarter as a row of its own."""
        total, count = torch.zeros(()), 0
        for i in range(4):
            for part in range(4):
                here = slice(32 * part, 32 * part + 32)
                shown, where = views["shown"][i, here].clone(), views["hidden"][i, here].clone()
                shown[0], where[0] = 2, False
                hidden = method.transformer.hidden(shown[None])[0]
                total = total + F.cross_entropy(method.scores(hidden[where]), ids[i, here][where], reduction="sum")
                count += int(where.sum())
        return total / count

    method.train()
    method.progress = 0.49
    found = next(iter(method.updates(views))).loss
    found.backward()
    assert all(bool(p.grad.isfinite().all()) for p in method.parameters() if p.grad is not None)
    torch.testing.assert_close(found, by_hand(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, whole, atol=1e-4)
    method.progress = 0.5
    torch.testing.assert_close(next(iter(method.updates(views))).loss, whole)
    assert BERT(encoder(), vocabulary=VOCABULARY, next_sentence=True).short == 0


def test_second_texts_are_exchanged_for_half_of_the_rows() -> None:
    ids = torch.full((400, 12), 0)
    for i in range(400):
        a, b = 1 + i % 4, 1 + (i // 4) % 4
        row = [2, *[5 + i % 90] * a, 3, *[5 + i % 90] * b, 3]
        ids[i, : len(row)] = torch.tensor(row)
    mixed, follows = exchange(ids, torch.Generator().manual_seed(0), VOCABULARY)
    assert 0.4 < float(follows.float().mean()) < 0.6
    assert torch.equal(mixed[follows], ids[follows])
    for i in (~follows).nonzero()[:, 0].tolist():
        row = mixed[i][mixed[i] != 0].tolist()
        own, other = 5 + i % 90, 5 + (i - 1) % 400 % 90
        first = row.index(3)
        assert set(row[1:first]) == {own}
        assert set(row[first + 1 : -1]) == {other}
        assert row[-1] == 3
        assert row.count(3) == 2


def test_next_sentence_learns_from_the_first_token_and_only_there() -> None:
    method = BERT(encoder(), vocabulary=VOCABULARY, next_sentence=True)
    assert BERT.layout({"next_sentence": True}) == "pairs"
    assert BERT.layout({}) == "packed"
    views = method.views({"text": rows(8, 16)}, torch.Generator().manual_seed(0))
    (update,) = method.updates(views)
    assert set(update.metrics) == {"nats a token", "next sentence"}
    update.loss.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_the_last_layer_is_the_table_of_tokens() -> None:
    method = BERT(encoder(), vocabulary=VOCABULARY)
    names = [name for name, p in method.named_parameters() if p.shape == (V, 128)]
    assert names == ["encoder.tokens.weight"]
    x = torch.randn(3, 128)
    expected = method.transform(x) @ method.transformer.tokens.weight.T + method.bias
    torch.testing.assert_close(method.scores(x), expected)


def test_it_learns_to_fill_a_hole_in_new_texts() -> None:
    torch.manual_seed(0)
    method = BERT(encoder(), vocabulary=VOCABULARY)
    optimizer = torch.optim.AdamW(method.parameters(), 3e-3)

    def counting(n: int, seed: int) -> torch.Tensor:  # each token is the one before plus one: a hole is told by its neighbours
        first = torch.randint(5, 15, (n, 1), generator=torch.Generator().manual_seed(seed))
        return torch.cat([torch.full((n, 1), 2), first + torch.arange(14), torch.full((n, 1), 3)], dim=1)

    for step in range(120):
        views = method.views({"text": counting(64, step)}, torch.Generator().manual_seed(step))
        (update,) = method.updates(views)
        optimizer.zero_grad()
        update.loss.backward()
        optimizer.step()
    method.eval()
    ids = counting(100, 9999)
    shown = ids.clone()
    shown[:, 7] = 4
    with torch.no_grad():
        named = method.scores(method.transformer.hidden(shown)[:, 7]).argmax(dim=1)
    assert float((named == ids[:, 7]).float().mean()) > 0.6


def test_wrong_use_is_named() -> None:
    without = VOCABULARY._replace(mask=-1)
    with pytest.raises(ValueError, match=r"\[MASK\]"):
        BERT(encoder(), vocabulary=without)
    with pytest.raises(ValueError, match="choose one of bert_tiny"):
        BERT(build_encoder("gpt_nano", channels=V, image_size=0, text=TEXT), vocabulary=VOCABULARY)
    with pytest.raises(ValueError, match="knows 32 positions"):
        encoder()(rows(1, 40))
    with pytest.raises(ValueError, match="fraction"):
        BERT(encoder(), vocabulary=VOCABULARY, fraction=1.0)
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        BERT(encoder(), vocabulary=VOCABULARY, short=1.5)
    with pytest.raises(ValueError, match=r"must be 0 with next_sentence, got 0\.5"):
        BERT(encoder(), vocabulary=VOCABULARY, next_sentence=True, short=0.5)
    assert isinstance(Holes(VOCABULARY, 0.15, whole_words=True, pairs=False)({"text": rows(2, 8)}, torch.Generator()), dict)
