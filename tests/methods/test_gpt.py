"""GPT: nothing leaks from what comes later, the cache changes nothing, and drawing keeps to what was asked."""

import math

import pytest
import torch

from selfsup.method import Vocabulary
from selfsup.methods.gpt import GPT, draw, kept, next_token_loss
from selfsup.models import build_encoder

V = 50
VOCABULARY = Vocabulary(V, 0, 1, 2, 3, 4, torch.arange(V) < 5, torch.zeros(V, dtype=torch.bool))


def gpt(length: int = 16) -> GPT:
    torch.manual_seed(0)
    encoder = build_encoder("gpt_nano", channels=V, image_size=0, text={"length": length, "pad": 0, "start": 3, "end": 3})
    return GPT(encoder, vocabulary=VOCABULARY)


def ids(n: int, t: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(5, V, (n, t), generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_the_mean_over_all_places() -> None:
    scores, following = torch.randn(2, 3, V, dtype=torch.float64), torch.randint(V, (2, 3))
    naive = sum(-(scores[b, t].exp() / scores[b, t].exp().sum()).log()[following[b, t]] for b in range(2) for t in range(3)) / 6
    assert float(next_token_loss(scores, following)) == pytest.approx(float(naive), abs=1e-9)
    assert float(next_token_loss(torch.zeros(1, 4, V), following[:1, :1].expand(1, 4))) == pytest.approx(math.log(V), abs=1e-6)


def test_what_is_shown_is_the_row_and_what_is_next_is_one_further() -> None:
    row = ids(2, 9)
    views = gpt().views({"text": row}, torch.Generator())
    assert torch.equal(views["shown"], row[:, :8])
    assert torch.equal(views["next"], row[:, 1:])
    assert GPT.layout({}) == "stream"


def test_no_token_sees_a_later_one() -> None:
    method, row = gpt().eval(), ids(1, 12)
    changed = row.clone()
    changed[0, 7] = 5 + (row[0, 7] - 4) % 40
    with torch.no_grad():
        a, b = method.transformer.hidden(row), method.transformer.hidden(changed)
    assert torch.equal(a[:, :7], b[:, :7])
    assert bool(((a - b).abs().amax(dim=2)[0, 7:] > 1e-6).all())


def test_the_cache_changes_nothing() -> None:
    method, row = gpt().eval(), ids(3, 12)
    with torch.no_grad():
        whole = method.transformer.hidden(row)
        cache = method.transformer.new_cache(3, 12)
        parts = []
        for a, b in ((0, 5), (5, 6), (6, 9), (9, 12)):
            parts.append(method.transformer.hidden(row[:, a:b], cache))
            cache = cache.moved(b - a)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
    for settings in ({"temperature": 0.0}, {"temperature": 0.8, "top_k": 7}, {"top_p": 0.5}):
        drawn = []
        for cached in (True, False):
            torch.manual_seed(3)
            drawn.append(method.go_on(row[:, :4], 20, cached=cached, **settings))  # type: ignore[arg-type]
        assert torch.equal(*drawn), settings  # beyond the 16 positions too
        assert drawn[0].shape == (3, 24)
        assert torch.equal(drawn[0][:, :4], row[:, :4])


def test_drawing_keeps_to_the_likeliest() -> None:
    scores = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    assert kept(scores, 2, 1.0).isfinite().tolist() == [[True, True, False, False]]
    assert kept(scores, 0, 0.6).isfinite().tolist() == [[True, True, False, False]]
    assert kept(scores, 0, 0.71).isfinite().tolist() == [[True, True, True, False]]
    assert kept(scores, 0, 0.01).isfinite().tolist() == [[True, False, False, False]]
    assert kept(scores.flip(1), 3, 0.75).isfinite().tolist() == [[False, False, True, True]]
    assert int(draw(scores, 0.0, 0, 1.0)) == 0
    torch.manual_seed(0)
    n = 20_000
    counts = torch.bincount(draw(scores.expand(n, -1), 0.5, 0, 1.0)[:, 0], minlength=4) / n
    expected = torch.tensor([16.0, 9.0, 4.0, 1.0]) / 30  # the square of each, as the temperature is a half
    assert float((counts - expected).abs().max()) < 4 * math.sqrt(0.25 / n)


def test_the_likelihood_of_a_text_is_that_of_its_tokens() -> None:
    method, row = gpt().eval(), ids(2, 10)
    with torch.no_grad():
        logs = method.log_likelihood(row)
        for t in range(1, 10):
            alone = method.scores(method.transformer.hidden(row[:, :t]))[:, -1].log_softmax(dim=1)
            torch.testing.assert_close(logs[:, t - 1], alone.gather(1, row[:, t : t + 1])[:, 0], atol=1e-5, rtol=1e-5)


def test_it_learns_to_count_on() -> None:
    method = gpt()
    optimizer = torch.optim.AdamW(method.parameters(), 3e-3)
    for step in range(60):
        first = torch.randint(5, 30, (32, 1), generator=torch.Generator().manual_seed(step))
        (update,) = method.updates(method.views({"text": first + torch.arange(12)}, torch.Generator()))
        optimizer.zero_grad()
        update.loss.backward()
        optimizer.step()
    method.eval()
    made = method.go_on(torch.tensor([[7, 8, 9], [20, 21, 22]]), 6, temperature=0.0)
    assert float((made == torch.tensor([[7], [20]]) + torch.arange(9)).float().mean()) > 0.9


def test_wrong_use_is_named() -> None:
    method = gpt()
    with pytest.raises(ValueError, match="at least 1 token"):
        method.go_on(ids(1, 3)[:, :0], 2)
    with pytest.raises(ValueError, match="top_p"):
        method.go_on(ids(1, 3), 2, top_p=0.0)
    bert = build_encoder("bert_tiny", channels=V, image_size=0, text={"length": 16, "pad": 0, "start": 2, "end": 3})
    with pytest.raises(ValueError, match="choose one of gpt_nano"):
        GPT(bert, vocabulary=VOCABULARY)
