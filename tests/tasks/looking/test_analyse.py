"""What layers hold: against what is computed by hand, and a model of two languages whose difference is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import selfsup
from selfsup.cli import run as command
from selfsup.data.text.tokenizer import train_tokenizer
from selfsup.method import Method
from selfsup.models.text import TextTransformer
from selfsup.tasks.looking import analyse
from selfsup.tasks.looking.analyse import contextual, contextual_picture, language_difference, layers_of
from selfsup.tasks.saved.trained_encoder import TrainedEncoder
from selfsup.tasks.saved.trained_method import TrainedMethod

PAIRS = [("one", "ichi"), ("two", "ni"), ("three", "san"), ("four", "yon"), ("five", "go")]
WORDS = train_tokenizer([" ".join(f"{a} {b}" for a, b in PAIRS) + " riverbank bank the ."] * 2, "word", vocabulary_size=30)
RNG = np.random.default_rng(0)
ENGLISH = [" ".join(RNG.choice([a for a, _ in PAIRS], 6)) for _ in range(12)]
JAPANESE = [" ".join(dict(PAIRS)[word] for word in text.split()) for text in ENGLISH]


@pytest.fixture
def network() -> TextTransformer:
    torch.manual_seed(0)
    v = WORDS
    return TextTransformer("bert_tiny", vocabulary_size=v.size, length=16, pad=v.pad, start=v.start, end=v.end).eval()


@pytest.fixture
def encoder(network: TextTransformer, monkeypatch: pytest.MonkeyPatch) -> str:
    said = {"method": "bert", "encoder": {"image_size": 0, "channels": WORDS.size}, "data": {}}
    monkeypatch.setattr(analyse, "load", lambda *_, **__: TrainedEncoder(network, said, WORDS))
    return "run"


def test_the_last_layer_is_what_the_network_gives(network: TextTransformer) -> None:
    ids = torch.tensor([[2, 7, 9, 3, 0], [2, 8, 8, 8, 3]])
    layers = layers_of(network, ids)
    assert len(layers) == 3
    torch.testing.assert_close(layers[0], network.embed_tokens(ids))
    torch.testing.assert_close(layers[-1], network.hidden(ids))
    assert all(not layer._forward_hooks for layer in network.layers)


@pytest.mark.parametrize("layer", [1, 2])
def test_a_vector_is_added_to_that_layer_only(network: TextTransformer, layer: int) -> None:
    ids, vector = torch.tensor([[2, 7, 9, 3]]), torch.randn(128)
    plain = layers_of(network, ids)
    with analyse.added(network, layer, vector):
        moved = layers_of(network, ids)
    torch.testing.assert_close(moved[layer], plain[layer] + vector)
    for before in range(layer):
        torch.testing.assert_close(moved[before], plain[before])


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_word_is_compared_in_its_contexts(network: TextTransformer, encoder: str, layer: int) -> None:
    sentences = ["the bank two", "one Bank two".lower(), "three four", "the bank two", "two the riverbank"]
    found = contextual(encoder, "bank", sentences, layer=layer)
    assert found.sentences == ("the bank two", "one bank two", "the bank two", "two the riverbank")
    assert found.without == 1
    vectors = []
    for sentence, place in zip(found.sentences, (2, 2, 2, 3), strict=True):
        ids = torch.tensor([[WORDS.start, *WORDS.encode([sentence])[0].tolist(), WORDS.end]])
        vectors.append(layers_of(network, ids)[layer][0, place])
    z = F.normalize(torch.stack(vectors), dim=1)
    np.testing.assert_allclose(found.similarity, (z @ z.T).detach().numpy(), atol=1e-6)
    assert found.similarity[0, 2] == pytest.approx(1.0, abs=1e-6)
    assert (found.similarity[0, 1] == pytest.approx(1.0, abs=1e-6)) == (layer == 0)  # the same place, another context


def test_a_word_of_several_tokens_has_their_mean(network: TextTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = train_tokenizer(["abcdefgh "] * 2, "character", vocabulary_size=30)
    trained = TrainedEncoder(network, {"encoder": {"image_size": 0, "channels": 30}}, letters)
    monkeypatch.setattr(analyse, "load", lambda *_, **__: trained)
    found = contextual("run", "bcd", ["abcd", "ee bcd"], layer=2)
    vectors = []
    for sentence, place in zip(found.sentences, (slice(2, 5), slice(4, 7)), strict=True):
        ids = torch.tensor([[letters.start, *letters.encode([sentence])[0].tolist(), letters.end]])
        vectors.append(layers_of(network, ids)[2][0, place].mean(dim=0))
    assert found.similarity[0, 1] == pytest.approx(float(F.cosine_similarity(vectors[0], vectors[1], dim=0)), abs=1e-6)


class Namer(Method):
    """A transformer that hands its embeddings on, and names the token whose embedding fits best."""

    def __init__(self, network: TextTransformer) -> None:
        super().__init__()
        self.encoder = network
        network.norm = nn.Identity()
        for layer in network.layers:
            layer.norm1 = layer.norm2 = nn.Identity()  # type: ignore[union-attr]
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            for i, pair in enumerate(PAIRS):
                for word, second in zip(pair, (0.0, 3.0), strict=True):
                    number = WORDS.number(word)
                    network.tokens.weight[number, i] = 4.0
                    network.tokens.weight[number, 100] = second
        self.bias = torch.tensor([-4.5 if WORDS.tokens([i])[0] in dict(PAIRS).values() else 0.0 for i in range(WORDS.size)])

    def scores(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.encoder.tokens.weight, self.bias)


def trained(method: Method) -> TrainedMethod:
    return TrainedMethod(method, {"method": "bert", "encoder": {"image_size": 0, "channels": WORDS.size}}, WORDS)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_difference_of_two_languages_leads_from_one_to_the_other(
    network: TextTransformer, monkeypatch: pytest.MonkeyPatch, layer: int
) -> None:
    monkeypatch.setattr(analyse, "load_method", lambda *_, **__: trained(Namer(network)))
    found = language_difference("run", ENGLISH, JAPANESE, layer=layer, alphas=(0.0, 1.0), shown=2)
    assert [row.share for row in found] == [0.0, 1.0]
    assert found[0].texts == tuple(ENGLISH[:2])
    assert found[1].texts == tuple(JAPANESE[:2])
    assert found[1].matched == 1.0
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in network.layers)
    back = language_difference("run", JAPANESE, ENGLISH[:-1], layer=layer, alphas=(1.0,), shown=1)
    assert back[0].matched is None  # not equally many
    assert back[0].texts == (ENGLISH[0],)


def test_faults_are_told(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'"zebra" is in 0 of 2 sentences'):
        contextual(encoder, "zebra", ["one", "two"])
    with pytest.raises(ValueError, match=r"layer must be 0 \(the embeddings\) to 2 \(the last\), got 5"):
        contextual(encoder, "bank", ["one"], layer=5)
    with pytest.raises(ValueError, match=r"there is no file .*nowhere"):
        contextual(encoder, "bank", tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match="there is no text to look at"):
        contextual(encoder, "bank", [" "])


def test_the_commands(tmp_path: Path, material: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data, settings = material("bert")
    run = selfsup.pretrain(data, "bert", steps=2, batch_size=4, out=tmp_path / "run", quiet=True, **settings)
    lines = [line for line in Path(data).read_text().splitlines() if line.strip()][:12]
    word = lines[0].split()[0]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    look = ["analyse", "contextual", str(run.path), str(tmp_path / "a.txt"), "--word", word]
    assert command([*look, "--layer", "1", "--out", str(tmp_path / "a.svg")]) == 0
    assert f'the vectors of "{word}", layer 1' in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert command([*look, "--json"]) == 0
    assert np.array(json.loads(capsys.readouterr().out)["similarity"]).ndim == 2
    paths = ["--source", str(tmp_path / "a.txt"), "--target", str(tmp_path / "a.txt")]
    assert command(["analyse", "languages", str(run.path), *paths, "--alphas", "0,1", "--json"]) == 0
    same, moved = json.loads(capsys.readouterr().out)
    assert same["texts"] == moved["texts"]  # a language does not differ from itself
    assert same["matched"] == 1.0
    assert command(["analyse", "languages", str(run.path), *paths, "--alphas", "x"]) == 2
    assert "--alphas takes numbers with commas" in " ".join(capsys.readouterr().err.split())


def test_the_picture_is_whole(encoder: str) -> None:
    from xml.etree import ElementTree

    picture = contextual_picture(contextual(encoder, "bank", ["the bank two & <one>", "one bank", "riverbank"]))
    root = ElementTree.fromstring(picture)
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 1 + 9
