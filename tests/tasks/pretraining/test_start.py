"""A run that starts from a trained encoder takes over all of it, and says what does not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfsup.tasks.pretraining.pretrain import pretrain
from selfsup.tasks.pretraining.start import started
from selfsup.tasks.saved.trained_encoder import load
from selfsup.tasks.saved.trained_method import load_method

SMALL = {"batch_size": 16, "steps": 2, "quiet": True}


@pytest.fixture(scope="module")
def bert(material: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, settings = material("bert")
    return pretrain(data, "bert", out=tmp_path_factory.mktemp("start") / "bert", **SMALL, **settings).path


@pytest.fixture(scope="module")
def simclr(material: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(material("simclr")[0], "simclr", out=tmp_path_factory.mktemp("start") / "simclr", **SMALL).path


def test_text_takes_over_weights_tokenizer_and_positions(bert: Path, material: Any, tmp_path: Path) -> None:
    data = material("bert")[0]
    run = pretrain(data, "simcse", start=bert, sequence_length=10, lr=1e-30, out=tmp_path / "run", **SMALL)
    before, after = load(bert), load(run.path)
    assert after.tokenizer is not None
    assert before.tokenizer is not None
    assert after.tokenizer.document == before.tokenizer.document
    assert after.config["encoder"] == {**before.config["encoder"], "pool": "class"}
    assert after.config["data"]["settings"]["length"] == 10
    for name, tensor in before.network.state_dict().items():
        torch.testing.assert_close(after.network.state_dict()[name], tensor)
    assert load_method(run.path).method.encoder.spec["pool"] == "class"
    again = pretrain(data, "consert", start=run.path / "encoder", out=tmp_path / "again", **{**SMALL, "steps": 3})
    assert load(again.path).config["encoder"]["pool"] == "last_two"


def test_killed_before_its_first_checkpoint_it_starts_there_again(bert: Path, material: Any, tmp_path: Path) -> None:
    import shutil

    data = material("bert")[0]
    whole = pretrain(data, "simcse", start=bert, out=tmp_path / "whole", **SMALL)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    for gone in ("checkpoints", "encoder", "page"):
        shutil.rmtree(tmp_path / "broken" / gone, ignore_errors=True)
    (tmp_path / "broken" / "checkpoints").mkdir()
    (tmp_path / "broken" / "metrics.jsonl").unlink()
    broken = pretrain(resume=tmp_path / "broken", quiet=True)
    assert (whole.path / "encoder/model.safetensors").read_bytes() == (broken.path / "encoder/model.safetensors").read_bytes()


def test_images_take_over_size_and_statistics_and_layers_of_a_head(simclr: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    other = np.concatenate([rng.integers(0, 80, (40, 24, 24, 3), dtype=np.uint8)])
    run = pretrain(other, "byol", start=simclr, lr=1e-30, out=tmp_path / "run", **SMALL)
    before, after = load(simclr), load(run.path)
    assert (after.image_size, after.config["encoder"]) == (16, before.config["encoder"])
    torch.testing.assert_close(after.network.normalize.mean, before.network.normalize.mean)
    kept = pretrain(other, "simclr", start=simclr, version=2, out=tmp_path / "kept", **SMALL)
    assert load(kept.path).config["encoder"]["head"]["layers"] == 1
    assert pretrain(other, "simclr", start=simclr, dry_run=True, out=tmp_path / "dry", **SMALL).path.is_dir()


def test_what_does_not_fit_is_named(bert: Path, simclr: Path, material: Any, tmp_path: Path) -> None:
    text, images = material("bert")[0], material("simclr")[0]
    small: Any = {**SMALL, "out": tmp_path / "run"}
    with pytest.raises(ValueError, match=r"simclr learns from images, but the encoder to start from, .*bert, takes text"):
        pretrain(images, "simclr", start=bert, **small)
    with pytest.raises(ValueError, match=r"simcse learns from text, but .* takes other data"):
        pretrain(text, "simcse", start=simclr, **small)
    with pytest.raises(ValueError, match="leave out --tokenizer"):
        pretrain(text, "simcse", start=bert, tokenizer="bpe", **small)
    with pytest.raises(
        ValueError, match=r"--min-count, --lowercase: for a tokenizer that is learned from the text, but --start brings its own"
    ):
        pretrain(text, "simcse", start=bert, min_count=3, lowercase=True, **small)
    with pytest.raises(ValueError, match=r"--vocabulary-size: .*tokenizer.json is one already; leave out one or the other"):
        pretrain(text, "bert", tokenizer=str(bert / "tokenizer.json"), vocabulary_size=500, **small)
    with pytest.raises(ValueError, match="knows texts of up to 16 tokens, got --sequence-length 99"):
        pretrain(text, "simcse", start=bert, sequence_length=99, **small)
    with pytest.raises(ValueError, match="has encoder bert_tiny, got --encoder bert_mini; leave it out"):
        pretrain(text, "simcse", start=bert, encoder="bert_mini", **small)
    with pytest.raises(ValueError, match="has image size 16, got --image-size 32"):
        pretrain(images, "simclr", start=simclr, image_size=32, **small)
    with pytest.raises(ValueError, match="no such folder"):
        pretrain(images, "simclr", start=tmp_path / "nowhere", **small)
    with pytest.raises(ValueError, match="with a GPT, got encoder bert_tiny"):
        pretrain(text, "gpt", start=bert, **small)
    with pytest.raises(ValueError, match="takes 3 and 16"):
        pretrain(np.zeros((40, 7), np.float32), "autoencoder", start=simclr, **small)
    with pytest.raises(ValueError, match="has changed since; begin a new run"):
        started({"start": {"path": str(bert), "fingerprint": "another"}})
