"""How a transformer of text makes one vector of a row."""

import pytest
import torch

from selfsup.models import build_encoder
from selfsup.models.text import TextTransformer

TEXT = {"length": 16, "pad": 0, "start": 2, "end": 3}


def test_a_rows_vector_is_the_mean_the_first_token_or_the_mean_of_two_layers() -> None:
    made = {pool: build_encoder("bert_tiny", channels=30, image_size=0, text=TEXT, pool=pool) for pool in (None, "class", "last_two")}
    ids = torch.tensor([[2, 7, 8, 3, 0, 0], [2, 9, 10, 11, 12, 3]])
    for pool, network in made.items():
        assert isinstance(network, TextTransformer)
        network.load_state_dict(made[None].state_dict())
        assert network.spec.get("pool") == pool
        again = build_encoder(**network.spec)
        again.load_state_dict(network.state_dict())
        torch.testing.assert_close(again(ids), network(ids))
    last, before = made[None].hidden(ids), made[None].embed_tokens(ids)
    before = made[None].layers[0](before, made[None].may_see(ids))
    torch.testing.assert_close(made[None](ids), torch.stack([last[0, :4].mean(dim=0), last[1].mean(dim=0)]))
    torch.testing.assert_close(made["class"](ids), last[:, 0])
    both = (last + before) / 2
    torch.testing.assert_close(made["last_two"](ids), torch.stack([both[0, :4].mean(dim=0), both[1].mean(dim=0)]))
    made["class"].set_pool("mean")
    assert "pool" not in made["class"].spec
    torch.testing.assert_close(made["class"](ids), made[None](ids))


def test_positions_can_be_given() -> None:
    network = build_encoder("bert_tiny", channels=30, image_size=0, text=TEXT)
    ids = torch.tensor([[2, 7, 8, 3]])
    torch.testing.assert_close(network.embed_tokens(ids, places=torch.arange(4)[None]), network.embed_tokens(ids))
    moved = network.embed_tokens(ids, places=torch.tensor([[0, 2, 1, 3]]))
    assert not torch.isclose(moved, network.embed_tokens(ids)).all(dim=2)[0, 1:3].any()


def test_wrong_pools_are_named() -> None:
    with pytest.raises(ValueError, match=r"mean of its tokens, got pool='class'"):
        build_encoder("gpt_nano", channels=30, image_size=0, text=TEXT, pool="class")
    with pytest.raises(ValueError, match=r"pool='last_two' is a choice of BERTs only, got encoder \"small\""):
        build_encoder("small", channels=3, image_size=16, pool="last_two")
