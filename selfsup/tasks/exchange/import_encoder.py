"""Encoders of text from other libraries: folders of `transformers` with a BERT or a GPT-2, and files of word vectors.

Nothing that is read can execute: names of files are fixed or checked, tensors come from safetensors, or from a .bin file of tensors only.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import selfsup
from selfsup.data.text.foreign_tokenizer import read_tokenizer
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.engine.checkpoint import read_json, save_tensors
from selfsup.engine.state import copy_state
from selfsup.models import build_encoder
from selfsup.models.hugging_face import MASKED_HEAD, NEXT_HEAD, Shape, check_names, our_shape, pairs, to_ours
from selfsup.models.text import TextTransformer
from selfsup.tasks.exchange.word_vectors import import_word_vectors
from selfsup.tasks.pretraining.run_folders import empty_folder
from selfsup.tasks.saved.trained_encoder import FORMAT, TrainedEncoder, load


def import_encoder(folder: str | Path, *, out: str | Path) -> TrainedEncoder:
    """Make an encoder folder of a BERT or a GPT-2 of `transformers`: weights, settings and tokenizer; or of a file of word vectors.

    Args:
        folder: a file in word2vec's formats; or a folder with config.json, the tokenizer, and the weights in model.safetensors or
            pytorch_model.bin, in one piece or several.
        out: an empty or new folder, which `selfsup.load` then opens. The head of a masked language model is kept beside the encoder.

    Returns:
        The encoder.

    Raises:
        ValueError: another architecture or setting than BERT's and GPT-2's own, a tensor that is missing or of another shape, or no
            tokenizer; says which.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        return import_word_vectors(folder, out)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json in it; expected a folder that `save_pretrained` of transformers has written")
    shape = our_shape(read_json(folder / "config.json"))
    tokenizer = read_tokenizer(folder)
    if tokenizer.size > shape.vocabulary_size:
        raise ValueError(f"{folder}: its tokenizer has {tokenizer.size} tokens, its network {shape.vocabulary_size} only")
    if min(tokenizer.start, tokenizer.pad) < 0:
        raise ValueError(f"{folder}: its tokenizer has no token that begins a text")
    theirs = {_todays_name(name): tensor for name, tensor in read_tensors(folder).items()}
    network, head = _rebuilt(theirs, shape, tokenizer, folder)
    config = _imported_config(network, shape, folder, head)
    documents = {"config": config, "tokenizer": json.loads(tokenizer.document)}
    target = empty_folder(out)
    target.rmdir()
    weights = {"model": dict(network.state_dict()), **({"head": head} if head or shape.causal else {})}
    save_tensors(target, weights, documents, {"README.md": _imported_card(config)})
    return load(target)


def _rebuilt(theirs: Mapping[str, Tensor], shape: Shape, tokenizer: Tokenizer, folder: Path) -> tuple[TextTransformer, dict[str, Tensor]]:
    family = "transformer." if shape.causal else "bert."
    prefix = family if any(name.startswith(family) for name in theirs) else ""
    wanted = pairs(shape.layers, causal=shape.causal)
    check_names(theirs, wanted, prefix)
    table = prefix + ("wte.weight" if shape.causal else "embeddings.word_embeddings.weight")
    if table in theirs and tuple(theirs[table].shape) != (shape.vocabulary_size, shape.width):
        said = (shape.vocabulary_size, shape.width)
        raise ValueError(f'{folder}: "{table}" has shape {tuple(theirs[table].shape)}, and config.json says {said}')
    text: dict[str, Any] = {"length": shape.length, "pad": tokenizer.pad, "start": tokenizer.start, "end": tokenizer.end}
    if shape.name in ("bert", "gpt"):
        text["shape"] = [shape.width, shape.layers, shape.heads]
    try:
        tensors = to_ours(theirs, wanted, prefix)
        head = to_ours(theirs, MASKED_HEAD) if "cls.predictions.bias" in theirs else {}
        if "cls.seq_relationship.weight" in theirs:
            head |= to_ours(theirs, NEXT_HEAD)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    network = build_encoder(shape.name, channels=shape.vocabulary_size, image_size=0, text=text)
    assert isinstance(network, TextTransformer)
    with torch.no_grad():
        copy_state(network, tensors, folder)
    return network, head


def _todays_name(name: str) -> str:
    """Names in files from before 2019 are those of TensorFlow."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder: model.safetensors or pytorch_model.bin, in one file or in several that an index names.

    Raises:
        ValueError: there are no weights, an index names something that is no file of this folder, or a file holds more than tensors.
    """
    for name, read in (("model.safetensors", _safetensors), ("pytorch_model.bin", _tensors_of_bin)):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return read(folder / name)
        if index.is_file():
            named = read_json(index).get("weight_map", {})
            ending, files = Path(name).suffix, sorted({str(file) for file in named.values()})
            for file in files:
                if Path(file).name != file or not file.endswith(ending) or not (folder / file).is_file():
                    raise ValueError(f'{index}: names "{file}", which is no {ending} file of this folder')
            return {key: tensor for file in files for key, tensor in read(folder / file).items()}
    raise ValueError(f"{folder}: neither model.safetensors nor pytorch_model.bin in it")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: no safetensors file ({error})") from None


def _tensors_of_bin(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever a hostile or damaged file makes it meet
        raise ValueError(f"{path}: no file of tensors only ({str(error).splitlines()[0]})") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) and isinstance(t, Tensor) for name, t in found.items()):
        raise ValueError(f"{path}: expected tensors by name")
    return found


def _imported_config(network: TextTransformer, shape: Shape, folder: Path, head: Mapping[str, Tensor]) -> dict[str, Any]:
    asks_next = "follows.weight" in head
    return {
        "format": FORMAT,
        "width": network.width,
        "method": "gpt" if shape.causal else "bert",
        "options": {"next_sentence": True} if asks_next else {},
        "encoder": network.spec,
        "data": {"items": 0, "fingerprint": "unknown", "classes": [], "value_range": None, "table": None},
        "training": {"steps": None, "minutes": None, "batch_size": 0, "seed": 0, "precision": "fp32"},
        "imported": {"from": folder.resolve().name, "architecture": shape.architecture},
        "versions": {"selfsup": selfsup.__version__, "torch": torch.__version__},
    }


def _imported_card(config: Mapping[str, Any]) -> str:
    about = config["imported"]
    return f"""---
library_name: selfsup
tags: [{config["method"]}, feature-extraction]
---
# {about["architecture"]} from "{about["from"]}"

Maps texts to vectors of {config["width"]}.

```python
import selfsup
encoder = selfsup.load("path/to/this/folder")
vectors = encoder.embed("texts.txt")      # (N, {config["width"]}) float32
```

Where it was trained, on what and under which licence is for its source to say. `selfsup verify FOLDER` checks `checksums.json`.
"""
