"""What a language model is asked for: against sums by hand, models whose answers are known, and a trained one."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import selfsup
from selfsup.cli import run as command
from selfsup.data.text.tokenizer import train_tokenizer
from selfsup.method import Encoder, Method
from selfsup.tasks.labels.few_shot import in_context
from selfsup.tasks.make.language import continue_texts, log_likelihoods, perplexity, windows
from selfsup.tasks.saved.trained_method import TrainedMethod

LETTERS = train_tokenizer(["abcdefghijklmnopqrstuvwxyz =>\n:.ABT"] * 2, "character", vocabulary_size=60)
CPU = torch.device("cpu")


class Bigrams(Method):
    """p(next | last) from a table; counts what it is shown."""

    def __init__(self, log_p: Tensor, end: int = LETTERS.end) -> None:
        super().__init__()
        self.encoder, self.end = Encoder(), end
        self.log_p = nn.Parameter(log_p)
        self.shown = 0

    def log_likelihood(self, ids: Tensor) -> Tensor:
        self.shown += int((ids != self.end).sum())
        return self.log_p[ids[:, :-1], ids[:, 1:]]

    def go_on(self, prompt: Tensor, n: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
        for _ in range(n):
            p = (self.log_p[prompt[:, -1]] / max(temperature, 1e-4)).softmax(dim=1)
            prompt = torch.cat([prompt, torch.multinomial(p, 1)], dim=1)
        return prompt


class LastLetter(Bigrams):
    """Expects after "=>" a word that begins with the first letter of the last line."""

    def log_likelihood(self, ids: Tensor) -> Tensor:
        out = torch.full((len(ids), ids.shape[1] - 1), -1.0)
        for row, said in zip(ids.tolist(), out, strict=True):
            text = LETTERS.decode(row)
            line = text.split("\n")[-1]
            word = line.split("=> ")[-1]
            at = (row.index(self.end, 1) if self.end in row[1:] else len(row)) - 1 - len(word)
            said[at:] = 0.0 if word[:1].lower() == line[:1].lower() else -5.0
        return out


def trained(method: Method, length: int = 32) -> TrainedMethod:
    said = {"method": "gpt", "encoder": {"image_size": 0, "channels": 60, "text": {"length": length}}, "data": {"value_range": None}}
    return TrainedMethod(method, said, LETTERS)


def random_table() -> Tensor:
    return torch.randn(60, 60, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("n", [2, 5, 8, 9, 10, 30])
def test_windows_count_every_token_but_the_first_once(n: int, stride: int) -> None:
    ids = np.arange(n)
    counted = []
    for part in windows(ids, 8, stride):
        assert 2 <= len(part.ids) <= 9
        assert 1 <= part.first < len(part.ids)
        counted += part.ids[part.first :].tolist()
        if part.ids[0] > 0:  # a later part sees as much as it can
            assert part.first >= min(8 - stride + 1, 8)
    assert counted == list(range(1, n))


def test_sums_are_those_of_the_rows_alone() -> None:
    table, rng = random_table(), np.random.default_rng(0)
    method = Bigrams(table).requires_grad_(False)
    texts = [rng.integers(5, 40, rng.integers(2, 30)) for _ in range(70)]
    parts = [part for text in texts for part in windows(text, 8, 4)]
    sums = log_likelihoods(method, parts, CPU)
    np.testing.assert_allclose(sums.sum(), sum(float(table[t[:-1], t[1:]].double().sum()) for t in texts), rtol=1e-5)
    for part, found in zip(parts, sums, strict=True):
        expected = sum(float(table[a, b]) for a, b in zip(part.ids[part.first - 1 : -1], part.ids[part.first :], strict=True))
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc\n\ndefgh\n\né")
    found = perplexity(trained(Bigrams(torch.full((60, 60), -math.log(16.0)))), tmp_path / "a.txt", device="cpu")
    assert (found.documents, found.tokens, found.bytes, found.unknown) == (3, 9, 10, 1)
    assert found.perplexity == pytest.approx(16.0, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(9 * 4 / 10, rel=1e-5)
    with pytest.raises(ValueError, match="stride must be 1 to the model's 32 positions, got 40"):
        perplexity(trained(Bigrams(random_table())), tmp_path / "a.txt", stride=40, device="cpu")


def test_bits_a_byte_do_not_depend_on_how_much_is_seen_where_only_the_last_token_matters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join("".join(np.random.default_rng(i).choice(list("abcdef "), 90)) for i in range(5)))
    found = [perplexity(trained(Bigrams(random_table())), tmp_path / "a.txt", stride=s, device="cpu").nats for s in (1, 7, 16, 32)]
    np.testing.assert_allclose(found, found[0], rtol=1e-5)


def chain(text: str, ends: bool = True) -> Bigrams:
    """A model that spells one text letter by letter, and then ends it."""
    ids = [LETTERS.end, *LETTERS.encode([text])[0].tolist(), *([LETTERS.end] if ends else [])]
    table = torch.full((60, 60), -50.0)
    table[ids[:-1], ids[1:]] = 0.0
    return Bigrams(table.log_softmax(dim=1))


def test_a_text_goes_on_from_its_prompt_until_it_ends() -> None:
    model = trained(chain("abcdef"))
    (whole,) = continue_texts(model, tokens=20, device="cpu")
    assert whole == ("", "abcdef", 6, True)
    found = continue_texts(model, ["cd", "e"], count=2, tokens=20, device="cpu")
    assert [c.text for c in found] == ["cdef", "cdef", "ef", "ef"]
    assert [c.tokens for c in found] == [2, 2, 1, 1]
    (cut,) = continue_texts(model, "a", tokens=3, device="cpu")
    assert cut == ("a", "abcd", 3, False)


def test_draws_follow_the_seed() -> None:
    model = trained(Bigrams(random_table()))
    a, b, c = (continue_texts(model, "a", count=40, tokens=12, seed=seed, device="cpu") for seed in (1, 1, 2))
    assert a == b != c
    assert len({x.text for x in a}) > 30


def test_the_class_whose_word_is_likelier_after_the_text_wins() -> None:
    texts = [("alpha", "A"), ("beta", "B"), ("atom", "A"), ("bone", "B"), ("bat", "B"), ("ash", "A")]
    found = in_context(trained(LastLetter(random_table()), 200), texts, texts, shots=(0, 2, 4), describe="letters:", seeds=2, device="cpu")
    assert {k: a.mean for k, a in found.accuracy.items()} == {0: 1.0, 2: 1.0, 4: 1.0}
    assert found.predicted[0].tolist() == [0, 1, 0, 1, 1, 0]
    assert found.about["examples_left_out"] == found.about["cut"] == 0
    words = {"A": "bad", "B": "an"}  # the words say the contrary
    found = in_context(trained(LastLetter(random_table()), 200), texts, texts, shots=(0,), words=words, device="cpu")
    assert found.accuracy[0].mean == 0.0


def test_what_does_not_fit_is_left_out_and_counted() -> None:
    texts = [("alpha", "A"), ("beta", "B")]
    model = LastLetter(random_table())
    found = in_context(trained(model, 24), texts, texts, shots=(2,), seeds=1, device="cpu")
    assert found.about["examples_left_out"] == 2 * 2 * 1  # of two examples one, for each text and class
    assert found.about["cut"] == 0
    assert found.accuracy[2].mean == 1.0
    found = in_context(trained(model, 8), texts, texts, shots=(0,), seeds=1, device="cpu")
    assert found.about["cut"] == 4


class Recorder(Bigrams):
    """Keeps what it is shown; expects long words a little more than short ones, and prompts more than any word."""

    def log_likelihood(self, ids: Tensor) -> Tensor:
        self.texts = [LETTERS.decode(row) for row in ids.tolist()]
        out = torch.full((len(ids), ids.shape[1] - 1), -0.1)
        for row, said, text in zip(ids.tolist(), out, self.texts, strict=True):
            word = text.split("=> ")[-1]
            at = (row.index(self.end, 1) if self.end in row[1:] else len(row)) - 2 - len(word)
            said[at:] = -0.9 if len(word) > 2 else -1.0
        return out


def test_the_last_examples_stay_and_words_are_scored_by_the_token() -> None:
    texts = [("alpha", "A"), ("beta", "B"), ("atom", "A")]
    model = Recorder(random_table())
    found = in_context(trained(model, 38), texts, texts, shots=(3,), seeds=1, words={"B": "long"}, device="cpu")
    assert {text.count("=>") for text in model.texts} == {3}  # two examples and the question
    assert len({text.split("\n")[1] for text in model.texts}) == 1
    assert found.predicted[3].tolist() == [1, 1, 1]


class OneWord(Bigrams):
    """Likes the second class's word by much, and the right one a little."""

    def log_likelihood(self, ids: Tensor) -> Tensor:
        out = torch.zeros(len(ids), ids.shape[1] - 1)
        for row, said in zip(ids.tolist(), out, strict=True):
            text = LETTERS.decode(row).split("\n")[-1]
            bias = 3.0 if text.endswith("B") else 0.0
            said[:] = bias + (1.0 if text[0] == text[-1].lower() else 0.0) - 10.0
        return out


def test_calibration_takes_a_bias_away() -> None:
    texts = [("alpha", "A"), ("beta", "B"), ("atom", "A")]
    plain, calibrated = (
        in_context(trained(OneWord(random_table()), 200), texts, texts, shots=(0,), calibrate=c, device="cpu") for c in (False, True)
    )
    assert plain.predicted[0].tolist() == [1, 1, 1]
    assert calibrated.predicted[0].tolist() == [0, 1, 0]


def test_faults_are_told() -> None:
    model, texts = trained(Bigrams(random_table())), [("a", "A"), ("b", "B")]
    with pytest.raises(ValueError, match=r"must have one \{text\} and end with \{label\}"):
        in_context(model, texts, texts, template="{label}: {text}", device="cpu")
    with pytest.raises(ValueError, match="9 examples are to be shown, but there are 2 labelled texts"):
        in_context(model, texts, texts, shots=(9,), device="cpu")
    with pytest.raises(ValueError, match='have a class "C" that the training texts lack'):
        in_context(model, texts, [("x", "C")], device="cpu")
    with pytest.raises(ValueError, match="no text has a label"):
        in_context(model, ["a", "b"], texts, device="cpu")


def test_a_trained_model_is_better_than_chance_and_others_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    documents = ["".join(rng.choice(["ab", "cd", "ef"], 60)) for _ in range(60)]
    (tmp_path / "a.txt").write_text("\n\n".join(documents[:50]))
    (tmp_path / "test.txt").write_text("\n\n".join(documents[50:]))
    settings: dict[str, Any] = {"tokenizer": "character", "sequence_length": 24, "batch_size": 16, "quiet": True, "device": "cpu"}
    run = selfsup.pretrain(str(tmp_path / "a.txt"), "gpt", encoder="gpt_nano", steps=40, out=tmp_path / "run", **settings)
    assert not any("warning" in line for line in (run.path / "metrics.jsonl").read_text().splitlines())  # of rows of running text
    found = perplexity(run.path, tmp_path / "test.txt", device="cpu")
    assert 0.5 * math.log2(3) < found.bits_per_byte < 1.3  # a letter in two is one of three, the other follows
    (made,) = continue_texts(run.path, "ab", tokens=40, top_k=3, seed=1, device="cpu")
    pairs = [made.text[i : i + 2] for i in range(0, len(made.text) - 1, 2)]
    assert sum(pair in ("ab", "cd", "ef") for pair in pairs) > 0.7 * len(pairs)
    other = selfsup.pretrain(str(tmp_path / "a.txt"), "bert", encoder="bert_tiny", steps=2, out=tmp_path / "other", **settings)
    with pytest.raises(ValueError, match="a run of bert cannot go on with a text; runs of these methods can: gpt"):
        continue_texts(other.path)
    capsys.readouterr()
    a_run = str(run.path)
    assert command(["generate", a_run, "--prompt", "ab", "--tokens", "5", "--count", "2", "--temperature", "0", "--device", "cpu"]) == 0
    texts = capsys.readouterr().out.strip().split("\n\n")
    assert len(texts) == 2
    assert texts[0] == texts[1]
    assert texts[0].startswith("ab")
    (tmp_path / "prompts.txt").write_text("ab\n\ncd\n")
    assert command(["generate", a_run, str(tmp_path / "prompts.txt"), "--tokens", "4", "--out", str(tmp_path / "made.jsonl")]) == 0
    assert [json.loads(line)["prompt"] for line in (tmp_path / "made.jsonl").read_text().splitlines()] == ["ab", "cd"]
    assert command(["generate", a_run, "--what", "samples"]) == 2
    assert "--what is for runs on images and vectors" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "few.tsv").write_text("abab\tone\ncdcd\ttwo\nabcd\tone\n")
    few = ["few-shot", a_run, "--train", str(tmp_path / "few.tsv"), "--test", str(tmp_path / "few.tsv"), "--seeds", "2"]
    assert command([*few, "--shots", "0,1", "--words", "one=ab,two=cd"]) == 0
    assert "the most frequent alone: 66.7%" in " ".join(capsys.readouterr().out.split())
    assert command([*few, "--words", "one"]) == 2
    assert "--words takes NAME=WORD" in capsys.readouterr().err
    assert command(["perplexity", a_run, str(tmp_path / "test.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 10
