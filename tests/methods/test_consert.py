"""ConSERT: what each change does to the embeddings of tokens, and the loss of two changed views."""

import math

import pytest
import torch

from selfsup.losses import nt_xent
from selfsup.method import Vocabulary
from selfsup.methods.consert import Change, ConSERT
from selfsup.models import build_encoder

V = 60
VOCABULARY = Vocabulary(V, 0, 1, 2, 3, 4, torch.arange(V) < 5, torch.zeros(V, dtype=torch.bool))
TEXT = {"length": 16, "pad": 0, "start": 2, "end": 3}


def method(first: Change = "none", second: Change = "none", **options: object) -> ConSERT:
    encoder = build_encoder("bert_tiny", channels=V, image_size=0, text=TEXT)
    return ConSERT(encoder, vocabulary=VOCABULARY, first=first, second=second, **options)


def sentences(n: int, longest: int = 10) -> torch.Tensor:
    """Rows of 4 tokens and more, filled up with padding."""
    draw = torch.Generator().manual_seed(n)
    ids = torch.randint(5, V, (n, longest), generator=draw)
    lengths = torch.randint(4, longest + 1, (n,), generator=draw)
    lengths[0] = longest
    at = torch.arange(longest)
    ids = torch.where(at < lengths[:, None] - 1, ids, torch.where(at == lengths[:, None] - 1, 3, 0))
    ids[:, 0] = 2
    return ids


def changed(consert: ConSERT, ids: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings as they are, and those of the first view."""
    views = consert.views({"text": ids}, torch.Generator().manual_seed(seed))
    return consert.transformer.embed_tokens(ids), consert._changed(views, "first", consert.chosen[0])


def test_shuffling_moves_positions_of_a_sentences_own_tokens() -> None:
    ids = sentences(200)
    places = method("shuffle").views({"text": ids}, torch.Generator().manual_seed(0))["first_places"]
    for row, at in zip(ids, places, strict=True):
        n = int((row != 0).sum())
        assert sorted(at[:n].tolist()) == list(range(n))
    moved = (places != torch.arange(10))[ids != 0].float().mean()
    assert 0.75 < float(moved) < 0.95  # of n tokens (n - 1) / n move on average
    consert = method("shuffle")
    before, after = changed(consert, ids)
    same = places == torch.arange(10)
    torch.testing.assert_close(after[same], before[same])
    assert not bool(torch.isclose(after, before).all(dim=2)[(ids != 0) & ~same].any())


def test_cutoff_takes_whole_tokens_or_whole_features() -> None:
    ids = sentences(300)
    before, after = changed(method("token_cutoff"), ids)
    gone = (after == 0).all(dim=2)
    torch.testing.assert_close(after[~gone], before[~gone])
    assert float(gone.float().mean()) == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / 3000) ** 0.5)
    before, after = changed(method("feature_cutoff"), ids)
    lost = (after == 0).all(dim=1)
    torch.testing.assert_close(after, before * ~lost[:, None])
    assert float(lost.float().mean()) == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / (300 * 128)) ** 0.5)
    assert not torch.equal(lost[0], lost[1])


def test_dropout_takes_single_elements() -> None:
    before, after = changed(method("dropout"), sentences(100))
    gone = after == 0
    assert float(gone.float().mean()) == pytest.approx(0.2, abs=0.01)
    assert not bool(gone.all(dim=1).any())
    torch.testing.assert_close(after[~gone], before[~gone] / 0.8)
    before, after = changed(method("dropout").eval(), sentences(5))
    torch.testing.assert_close(after, before)


def test_draws_do_not_depend_on_the_longest_sentence() -> None:
    ids = sentences(7, 8)
    wider = torch.nn.functional.pad(ids, (0, 4))
    consert = method("shuffle", "token_cutoff")
    short, long = (consert.views({"text": x}, torch.Generator().manual_seed(3)) for x in (ids, wider))
    assert torch.equal(short["first_places"], long["first_places"][:, :8])
    assert torch.equal(short["second_kept"], long["second_kept"][:, :8])


def test_an_attack_goes_where_the_loss_is_larger_and_as_far_as_asked() -> None:
    consert = method("adversarial", "feature_cutoff", attack=0.02)
    ids = sentences(6)
    views = consert.views({"text": ids}, torch.Generator().manual_seed(0))
    e, partner = (consert._changed(views, side, change) for side, change in zip(("first", "second"), consert.chosen, strict=True))
    pushed = consert._attacked(ids, e, partner)
    there = (ids != 0)[:, :, None]
    share = ((pushed - e).flatten(1).norm(dim=1) / (e * there).flatten(1).norm(dim=1)).detach()
    torch.testing.assert_close(share, torch.full((6,), 0.02))
    assert not bool(((pushed - e) * ~there).any())  # padding is nowhere

    def loss(x: torch.Tensor) -> float:
        vector = consert.transformer.vector
        return float(nt_xent(vector(ids, embedded=x), vector(ids, embedded=partner), 0.1).detach())

    assert loss(pushed) > loss(e)
    assert loss(e) > loss(2 * e - pushed)
    consert.loss(views).backward()
    assert all(p.grad is not None for p in consert.parameters())


def test_the_loss_is_nt_xent_of_the_mean_over_two_layers() -> None:
    consert = method("feature_cutoff", "shuffle", temperature=0.3)
    ids = sentences(5)
    views = consert.views({"text": ids}, torch.Generator().manual_seed(1))
    both = []
    for side, change in zip(("first", "second"), consert.chosen, strict=True):
        x = consert._changed(views, side, change)
        states = []
        for layer in consert.transformer.layers:
            x = layer(x, consert.transformer.may_see(ids))
            states.append(x)
        tokens = (states[-1] + states[-2]) / 2
        both.append(torch.stack([row[i != 0].mean(dim=0) for row, i in zip(tokens, ids, strict=True)]))
    torch.testing.assert_close(consert.loss(views), nt_xent(*both, 0.3))
    torch.testing.assert_close(consert.embed(ids), method_embedding(consert, ids))
    assert consert.encoder.spec["pool"] == "last_two"


def test_information_is_log_of_the_candidates_less_the_loss() -> None:
    consert = method("feature_cutoff", "shuffle")
    [update] = consert.updates(consert.views({"text": sentences(5)}, torch.Generator().manual_seed(1)))
    assert float(update.metrics["information"]) == pytest.approx(math.log(2 * 5 - 1) - float(update.loss.detach()))


def method_embedding(consert: ConSERT, ids: torch.Tensor) -> torch.Tensor:
    x, states = consert.transformer.embed_tokens(ids), []
    for layer in consert.transformer.layers:
        x = layer(x, consert.transformer.may_see(ids))
        states.append(x)
    return torch.stack([((a + b) / 2)[i != 0].mean(dim=0) for a, b, i in zip(*states[-2:], ids, strict=True)])


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match=r"token_cutoff must be at least 0 and below 1, got 1\.0"):
        method(token_cutoff=1.0)
    with pytest.raises(ValueError, match=r"attack must be positive, got 0\.0"):
        method(attack=0.0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        method(temperature=-1.0)
