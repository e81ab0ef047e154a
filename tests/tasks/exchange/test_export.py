"""Exchange with transformers: every tensor bit for bit there and back, what the files say, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import selfsup
from selfsup.data.text.tokenizer import train_tokenizer
from selfsup.models import build_encoder
from selfsup.models.hugging_face import NEXT_HEAD, our_shape, pairs, their_config, to_ours, to_theirs
from selfsup.models.text import TextTransformer
from selfsup.tasks.exchange.import_encoder import read_tensors
from selfsup.tasks.saved.trained_method import load_method

TEXTS = [f"the {a} cat saw {b} dogs and a {c}" for a in ("old", "new") for b in ("two", "three") for c in ("bird", "fish", "tree")]


def network(name: str = "bert_tiny", **text: Any) -> TextTransformer:
    made = build_encoder(name, channels=70, image_size=0, text={"length": 24, "pad": 0, "start": 2, "end": 3, **text})
    assert isinstance(made, TextTransformer)
    torch.manual_seed(1)
    for p in made.parameters():
        p.data.normal_()
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two steps: bert, bert that asks for the next sentence, and gpt."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    documents = ["\n".join(TEXTS[i:] + TEXTS[:i]) for i in range(12)]
    common: dict[str, Any] = {"steps": 2, "batch_size": 4, "vocabulary_size": 300, "sequence_length": 24, "quiet": True}
    for name, encoder, options in (("bert", "bert_tiny", {}), ("next", "bert_tiny", {"next_sentence": True}), ("gpt", "gpt_nano", {})):
        method = "bert" if name == "next" else name
        found[name] = selfsup.pretrain(documents, method, encoder=encoder, out=folder / name, **common, **options).path
    return found


@pytest.mark.parametrize(("name", "causal"), [("bert_tiny", False), ("gpt_nano", True)])
def test_every_tensor_of_an_encoder_comes_back_bit_for_bit(name: str, causal: bool) -> None:
    state = network(name).state_dict()
    wanted = pairs(4 if causal else 2, causal=causal)
    assert {pair.ours for pair in wanted} == set(state)
    back = to_ours(to_theirs(state, wanted, "x."), wanted, "x.")
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_the_layout_of_bert() -> None:
    state = network().state_dict()
    theirs = to_theirs(state, pairs(2, causal=False))
    q, k, v = (theirs[f"encoder.layer.1.attention.self.{x}.weight"] for x in ("query", "key", "value"))
    x = torch.randn(3, 128)
    ours = x @ state["layers.1.qkv.weight"].T
    torch.testing.assert_close(torch.cat([x @ q.T, x @ k.T, x @ v.T], dim=1), ours)
    assert torch.equal(theirs["embeddings.LayerNorm.weight"], state["norm.weight"])  # before the first layer
    assert torch.equal(theirs["encoder.layer.0.attention.output.LayerNorm.bias"], state["layers.0.norm1.bias"])
    assert torch.equal(theirs["encoder.layer.0.intermediate.dense.weight"], state["layers.0.up.weight"])


def test_the_layout_of_gpt2() -> None:
    state = network("gpt_nano").state_dict()
    theirs = to_theirs(state, pairs(4, causal=True), "transformer.")
    x = torch.randn(3, 128)
    torch.testing.assert_close(
        x @ theirs["transformer.h.3.attn.c_attn.weight"], x @ state["layers.3.qkv.weight"].T
    )  # its matrices are (in, out)
    assert theirs["transformer.h.0.mlp.c_fc.weight"].shape == (128, 512)
    assert torch.equal(theirs["transformer.ln_f.weight"], state["norm.weight"])
    assert all(t.is_contiguous() for t in theirs.values())


def test_the_first_answer_there_is_that_the_second_text_follows() -> None:
    weight = torch.arange(8.0).view(2, 4)  # here, row 1 says that it follows
    bias = torch.tensor([1.0, 2.0])
    head = {
        "pooler.0.weight": torch.zeros(4, 4),
        "pooler.0.bias": torch.zeros(4),
        "follows.weight": weight,
        "follows.bias": bias,
    }
    theirs = to_theirs(head, NEXT_HEAD)
    assert torch.equal(theirs["cls.seq_relationship.weight"], weight[[1, 0]])
    assert theirs["cls.seq_relationship.bias"].tolist() == [2.0, 1.0]
    assert torch.equal(to_ours(theirs, NEXT_HEAD)["follows.weight"], weight)


@pytest.mark.parametrize("name", ["bert_tiny", "bert_mini", "gpt_nano", "gpt"])
def test_settings_come_back(name: str) -> None:
    made = network(name, **({"shape": [32, 3, 2]} if name == "gpt" else {}))
    config = their_config(made, "GPT2Model" if made.causal else "BertModel")
    shape = our_shape(config)
    assert (shape.name, shape.causal, shape.width, shape.layers) == (name, made.causal, made.width, len(made.layers))
    assert (shape.heads, shape.vocabulary_size, shape.length) == (made.heads, 70, 24)
    if made.causal:
        assert (config["n_inner"], config["activation_function"], config["layer_norm_epsilon"]) == (None, "gelu_new", 1e-5)
    else:
        assert (config["intermediate_size"], config["hidden_act"], config["layer_norm_eps"]) == (4 * made.width, "gelu", 1e-12)


@pytest.mark.parametrize(("run", "architecture"), [("bert", "BertForMaskedLM"), ("next", "BertForPreTraining"), ("gpt", "GPT2LMHeadModel")])
def test_a_run_comes_back_whole(runs: dict[str, Path], run: str, architecture: str, tmp_path: Path) -> None:
    selfsup.export(runs[run], out=tmp_path / "there")
    assert json.loads((tmp_path / "there/config.json").read_text())["architectures"] == [architecture]
    encoder = selfsup.import_encoder(tmp_path / "there", out=tmp_path / "back")
    was, now = load_method(runs[run]), load_method(tmp_path / "back")
    assert encoder.config["encoder"] == was.config["encoder"]
    before, after = was.method.state_dict(), now.method.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert np.array_equal(selfsup.embed(tmp_path / "back", TEXTS), selfsup.embed(runs[run], TEXTS))
    assert encoder.tokenizer is not None
    assert [x.tolist() for x in encoder.tokenizer.encode(TEXTS)] == [x.tolist() for x in selfsup.load(runs[run]).tokenizer.encode(TEXTS)]
    if run == "gpt":
        ends = [selfsup.continue_texts(x, "the old cat", tokens=4, temperature=0.0) for x in (runs[run], tmp_path / "back")]
        assert ends[0] == ends[1]
    selfsup.export(tmp_path / "back", out=tmp_path / "again")
    first, second = (load_file(tmp_path / x / "model.safetensors") for x in ("there", "again"))
    assert all(torch.equal(first[name], second[name]) for name in {**first, **second})


def test_an_encoder_folder_has_no_head(runs: dict[str, Path], tmp_path: Path) -> None:
    selfsup.export(runs["bert"] / "encoder", out=tmp_path / "there")
    names = set(load_file(tmp_path / "there/model.safetensors"))
    assert "embeddings.word_embeddings.weight" in names
    assert not any(name.startswith("cls.") for name in names)
    selfsup.import_encoder(tmp_path / "there", out=tmp_path / "back")
    assert np.array_equal(selfsup.embed(tmp_path / "back", TEXTS), selfsup.embed(runs["bert"], TEXTS))
    with pytest.raises(ValueError, match="checkpoints"):
        load_method(tmp_path / "back")


def test_special_tokens_stand_where_the_network_wants_them(runs: dict[str, Path], tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    def numbers(run: str, form: Any, second: str | None = None) -> Any:
        out = selfsup.export(runs[run], out=tmp_path / f"{run}-{form}-{second}", format=form)
        return Tokenizer.from_file(str(out / "tokenizer.json")).encode(TEXTS[0], second)

    own = selfsup.load(runs["bert"]).tokenizer
    assert own is not None
    plain, other = (ids.tolist() for ids in own.encode(TEXTS[:2]))
    assert numbers("bert", "huggingface").ids == [2, *plain, 3]
    pair = numbers("bert", "huggingface", TEXTS[1])
    assert pair.ids == [2, *plain, 3, *other, 3]
    which = selfsup.load(runs["bert"]).network.which_text(torch.tensor([pair.ids]))[0]
    assert pair.type_ids == which.tolist()
    gpt = selfsup.load(runs["gpt"]).tokenizer
    assert gpt is not None
    assert numbers("gpt", "huggingface").ids == gpt.encode(TEXTS[:1])[0].tolist()  # a text that is to go on
    assert numbers("gpt", "sentence-transformers").ids == [2, *gpt.encode(TEXTS[:1])[0].tolist(), 3]


def test_sentence_transformers_are_told_the_mean(runs: dict[str, Path], tmp_path: Path) -> None:
    out = selfsup.export(runs["bert"], out=tmp_path / "st", format="sentence-transformers")
    modules = json.loads((out / "modules.json").read_text())
    assert [(m["path"], m["type"].rsplit(".", 1)[1]) for m in modules] == [("", "Transformer"), ("1_Pooling", "Pooling")]
    pooling = json.loads((out / "1_Pooling/config.json").read_text())
    assert pooling["word_embedding_dimension"] == 128
    assert [key for key, value in pooling.items() if value is True] == ["pooling_mode_mean_tokens"]
    assert "library_name: sentence-transformers" in (out / "README.md").read_text()
    assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 24


def hub_folder(folder: Path, name: str = "bert_tiny", **config: Any) -> tuple[Path, TextTransformer]:
    """What a hub has: tensors, settings and no tokenizer.json."""
    made = network(name)
    folder.mkdir()
    tensors = to_theirs(made.state_dict(), pairs(len(made.layers), causal=made.causal))
    save_file(tensors, folder / "model.safetensors")
    settings = {**their_config(made, "GPT2Model" if made.causal else "BertModel"), **config}
    (folder / "config.json").write_text(json.dumps(settings))
    if name.startswith("bert"):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", ".", "é"]
        (folder / "vocab.txt").write_text("\n".join([*words, *(f"w{i}" for i in range(60))]) + "\n", encoding="utf-8")
    else:
        vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", *"abcdef", "Ġ", "ab", "Ġab"])}
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\na b\nĠ ab\n", encoding="utf-8")
    return folder, made


def test_vocab_txt_becomes_the_tokenizer_of_bert(tmp_path: Path) -> None:
    encoder = selfsup.import_encoder(hub_folder(tmp_path / "a")[0], out=tmp_path / "b")
    assert encoder.tokenizer is not None
    assert encoder.tokenizer.encode(["The CATS.", "a [MASK] cat"])[0].tolist() == [5, 6, 7, 8]
    assert encoder.tokenizer.encode(["the [MASK] cat"])[0].tolist() == [5, 1, 1, 1, 6]
    assert bool(encoder.tokenizer.special[:5].all())
    cased, _ = hub_folder(tmp_path / "c")
    (cased / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    found = selfsup.import_encoder(cased, out=tmp_path / "d").tokenizer
    assert found is not None
    assert found.encode(["The cat"])[0].tolist() == [1, 6]


def test_vocab_json_and_merges_become_the_tokenizer_of_gpt2(tmp_path: Path) -> None:
    encoder = selfsup.import_encoder(hub_folder(tmp_path / "a", "gpt_nano")[0], out=tmp_path / "b")
    assert encoder.tokenizer is not None
    found = encoder.tokenizer.encode(["abc ab<|endoftext|>"])[0].tolist()
    assert (found[:3], 0 in found) == ([8, 3, 9], False)
    assert encoder.tokenizer.decode([8, 3, 9]) == "abc ab"
    assert (encoder.tokenizer.start, encoder.tokenizer.end, encoder.tokenizer.pad) == (0, 0, 0)
    assert encoder.embed(["abc", "ab ab abc"]).shape == (2, 128)
    with pytest.raises(ValueError, match="pads with the token"):
        selfsup.export(tmp_path / "b", out=tmp_path / "c", format="sentence-transformers")


def test_weights_are_found_in_every_form(tmp_path: Path) -> None:
    folder, made = hub_folder(tmp_path / "a")
    want = made.state_dict()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()

    def check(name: str) -> None:
        network = selfsup.import_encoder(folder, out=tmp_path / name).network
        assert all(torch.equal(t, want[key]) for key, t in network.state_dict().items())

    names = sorted(tensors)
    halves = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, part in halves.items() for name in part}}))
    check("sharded")
    index.write_text(json.dumps({"weight_map": {"x": "../a/model-1.safetensors"}}))
    with pytest.raises(ValueError, match="file of this folder"):
        read_tensors(folder)
    index.unlink()
    old = {f"bert.{name}": t for name, t in tensors.items()}
    for new, was in (("weight", "gamma"), ("bias", "beta")):
        old = {name.replace(f"LayerNorm.{new}", f"LayerNorm.{was}"): t for name, t in old.items()}
    extra = {"bert.embeddings.position_ids": torch.arange(24), "bert.pooler.dense.weight": torch.zeros(2, 2)}
    torch.save({**old, **extra}, folder / "pytorch_model.bin")
    check("of 2018")


class Hostile:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


def test_a_file_that_executes_is_refused(tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    torch.save({"x": Hostile(tmp_path / "trace")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="tensors only"):
        selfsup.import_encoder(folder, out=tmp_path / "b")
    assert not (tmp_path / "trace").exists()
    torch.save([torch.zeros(2)], folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="expected tensors by name"):
        selfsup.import_encoder(folder, out=tmp_path / "b")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "roberta"}, 'type "roberta"'),
        ({"architectures": ["BertForSequenceClassification"]}, "cannot read a BertForSequenceClassification"),
        ({"architectures": ["GPT2Model"]}, "cannot read a GPT2Model"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"is_decoder": True}, "is_decoder"),
        ({"intermediate_size": 100}, "intermediate_size"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps"),
        ({"num_attention_heads": 3}, "does not divide"),
        ({"hidden_size": None}, "positive whole number"),
        ({"vocab_size": 10**12}, "has shape"),
        ({"num_hidden_layers": 3}, "encoder.layer.2"),
        ({"num_hidden_layers": 1}, "does not have"),
        ({"max_position_embeddings": 25}, "positions.weight"),
    ],
)
def test_what_another_network_would_compute_is_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "a", **config)
    with pytest.raises(ValueError, match=message):
        selfsup.import_encoder(folder, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_wrong_use_is_named(runs: dict[str, Path], tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "a")
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    with pytest.raises(ValueError, match="not empty"):
        selfsup.export(runs["bert"], out=full)
    with pytest.raises(ValueError, match="format must be"):
        selfsup.export(runs["bert"], out=tmp_path / "b", format="onnx")
    (folder / "vocab.txt").unlink()
    with pytest.raises(ValueError, match="no tokenizer in it"):
        selfsup.import_encoder(folder, out=tmp_path / "b")
    train_tokenizer([" ".join(f"word{i}" for i in range(400))] * 2, "word", vocabulary_size=300).save(folder / "tokenizer.json")
    with pytest.raises(ValueError, match="its tokenizer has 300 tokens"):
        selfsup.import_encoder(folder, out=tmp_path / "b")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json"):
        selfsup.import_encoder(folder, out=tmp_path / "b")
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    run = selfsup.pretrain(images, "rotation", steps=1, batch_size=4, out=tmp_path / "images", quiet=True)
    with pytest.raises(ValueError, match="its encoder is small"):
        selfsup.export(run.path, out=tmp_path / "b")


def test_the_commands(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from selfsup.cli import run

    assert run(["export", str(runs["bert"]), "--format", "huggingface", "--out", str(tmp_path / "there")]) == 0
    assert run(["import", str(tmp_path / "there"), "--out", str(tmp_path / "back")]) == 0
    assert "BertForMaskedLM as bert_tiny, vectors of 128" in capsys.readouterr().out
    assert run(["verify", str(tmp_path / "back")]) == 0
    assert run(["verify", str(tmp_path / "there")]) == 0
    assert run(["import", str(tmp_path / "nothing"), "--out", str(tmp_path / "no")]) == 2
