"""Encoders of text for other libraries and from them: folders that `transformers` and `sentence-transformers` open.

Neither library is needed. Nothing that is read can execute: names of files are fixed or checked, tensors come from safetensors, or from a
.bin file of tensors only.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import selfsup
from selfsup.data.foreign_tokenizer import read_tokenizer
from selfsup.data.tokenizer import Tokenizer
from selfsup.engine.checkpoint import load_tensors, read_json, save_tensors
from selfsup.engine.state import copy_state
from selfsup.models import build_encoder
from selfsup.models.hugging_face import (
    MASKED_HEAD,
    NEXT_HEAD,
    Shape,
    check_names,
    our_shape,
    pairs,
    their_config,
    to_ours,
    to_theirs,
)
from selfsup.models.text import TextTransformer
from selfsup.tasks.encoder import FORMAT, TrainedEncoder, checkpoint_tensors, load
from selfsup.tasks.plan import empty_folder
from selfsup.tasks.word_vectors import export_word_vectors, import_word_vectors

FOLDERS = ("huggingface", "sentence-transformers")
WORDS = ("word2vec", "word2vec-text")
POOLING = {"mean": "mean", "class": "cls"}
"""How an encoder makes one vector, and what `sentence-transformers` calls it."""


def export(encoder: str | Path, *, out: str | Path, format: str = "huggingface", best: bool = False) -> Path:
    """Write a transformer of text as a folder, or vectors of words as a file, that another library opens.

    Args:
        encoder: a run's folder, or an encoder folder; of a run of bert or gpt the whole model is written, so that
            `AutoModelForMaskedLM` and `AutoModelForCausalLM` open it too.
        out: an empty or new folder; of vectors of words, a file.
        format: huggingface, for `AutoModel` and `AutoTokenizer`; sentence-transformers, which adds how the tokens' vectors become one;
            word2vec or word2vec-text, the binary and the text format of word vectors, compressed where the file's name ends in .gz.
        best: of a run, the best checkpoint by the label-free measure instead of the last.

    Returns:
        `out`.

    Raises:
        ValueError: it is no transformer of text, makes its vector in a way that the format lacks, or `out` is not empty.
        DamagedError: it is not what was written.
    """
    if format in WORDS:
        return export_word_vectors(encoder, out, binary=format == "word2vec", best=best).path
    if format not in FOLDERS:
        raise ValueError(f'format must be one of {", ".join((*FOLDERS, *WORDS))}, got "{format}"')
    source, one_vector = Path(encoder), format == "sentence-transformers"
    trained = load(source, best=best)
    network, tokenizer = trained.network, trained.tokenizer
    if not isinstance(network, TextTransformer) or tokenizer is None:
        name = trained.config["encoder"]["name"]
        raise ValueError(f"{source}: only transformers of text can be exported, its encoder is {name}")
    network.set_dropout(trained.config["options"].get("dropout", network.dropout))
    encoder_tensors, head = _stored(source, trained, best=best)
    tensors, architecture = _tensors(encoder_tensors, head, trained.config["method"], network)
    documents = {"config": their_config(network, architecture), **_tokenizer_files(tokenizer, network, one_vector=one_vector)}
    loose = {"README.md": _card(trained, architecture, format)}
    if one_vector:
        loose |= _sentence_files(trained, network)
    folder = empty_folder(out)
    folder.rmdir()  # what follows is written beside and renamed
    save_tensors(folder, {"model": tensors}, documents, loose)
    return folder


def _stored(source: Path, trained: TrainedEncoder, *, best: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoder's tensors, and those of its head where it was trained with bert's."""
    encoder = trained.network.state_dict()
    if (source / "head.safetensors").is_file():
        return encoder, load_tensors(source, "head")
    if trained.config["method"] != "bert" or not (source / "checkpoints").is_dir():
        return encoder, {}
    whole = checkpoint_tensors(source, best=best)  # both from one checkpoint: the run may have gone on since encoder/ was written
    encoder = {name.removeprefix("encoder."): t for name, t in whole.items() if name.startswith("encoder.")}
    return encoder, {name: t for name, t in whole.items() if not name.startswith("encoder.")}


def _tensors(
    encoder: Mapping[str, Tensor], head: Mapping[str, Tensor], method: str, network: TextTransformer
) -> tuple[dict[str, Tensor], str]:
    """Tensors under their names, and the architecture that has them."""
    wanted = pairs(len(network.layers), causal=network.causal)
    if network.causal and method == "gpt":  # its last layer is the table of tokens
        return to_theirs(encoder, wanted, "transformer."), "GPT2LMHeadModel"
    if network.causal or "bias" not in head:
        return to_theirs(encoder, wanted), "GPT2Model" if network.causal else "BertModel"
    asks_next = "follows.weight" in head
    own = to_theirs(head, MASKED_HEAD + (NEXT_HEAD if asks_next else []))
    return {**to_theirs(encoder, wanted, "bert."), **own}, "BertForPreTraining" if asks_next else "BertForMaskedLM"


def _tokenizer_files(tokenizer: Tokenizer, network: TextTransformer, *, one_vector: bool) -> dict[str, Any]:
    """`tokenizer.json` that puts the special tokens where the network wants them, and what the library asks for beside it."""
    document = json.loads(tokenizer.document)
    document["truncation"] = document["padding"] = None
    pad, unknown, start, end, mask = (
        tokenizer.tokens([i])[0] if i >= 0 else None for i in (network.pad, tokenizer.unknown, network.start, network.end, tokenizer.mask)
    )
    if one_vector or not network.causal:  # a text that is to go on has no end
        document["post_processor"] = _framed(str(start), network.start, str(end), network.end)
    if network.causal:
        special = {"bos_token": end, "eos_token": end, "unk_token": unknown, "pad_token": pad}
    else:
        special = {"cls_token": start, "sep_token": end, "unk_token": unknown, "pad_token": pad, "mask_token": mask}
    special = {name: token for name, token in special.items() if token is not None}
    inputs = ["input_ids", *([] if network.causal else ["token_type_ids"]), "attention_mask"]
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": network.length,
        "model_input_names": inputs,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        **special,
    }
    return {"tokenizer": document, "tokenizer_config": about, "special_tokens_map": special}


def _framed(start: str, start_id: int, end: str, end_id: int) -> dict[str, Any]:
    """START text END, and START first END second END, as the `tokenizers` library writes it."""

    def token(name: str, text: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": text}}

    def sequence(name: str, text: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": text}}

    single = [token(start, 0), sequence("A", 0), token(end, 0)]
    numbers = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in ((start, start_id), (end, end_id))}
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, sequence("B", 1), token(end, 1)],
        "special_tokens": numbers,
    }


def _sentence_files(trained: TrainedEncoder, network: TextTransformer) -> dict[str, str]:
    pool = trained.config["encoder"].get("pool", "mean")
    if pool not in POOLING:
        raise ValueError(f'sentence-transformers has no pooling like "{pool}" of this encoder; export with --format huggingface')
    if network.pad in (network.start, network.end):
        raise ValueError(
            "this encoder's tokenizer pads with the token that begins and ends a text, which sentence-transformers would count as a word; "
            "export with --format huggingface"
        )
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    listed = [{"idx": int(i), "name": i, "path": path, "type": f"sentence_transformers.models.{kind}"} for i, path, kind in modules]
    ways = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
    pooling = {"word_embedding_dimension": network.width, **{key: POOLING[pool] == way for way, key in ways.items()}}
    pooling |= {f"pooling_mode_{key}": False for key in ("max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")}
    files = {
        "modules.json": listed,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": network.length, "do_lower_case": False},
        "config_sentence_transformers.json": {"__version__": {"selfsup": selfsup.__version__}, "similarity_fn_name": "cosine"},
    }
    return {name: json.dumps(document, indent=1) + "\n" for name, document in files.items()}


TASKS = {
    "BertForMaskedLM": ("fill-mask", "AutoModelForMaskedLM"),
    "BertForPreTraining": ("fill-mask", "AutoModelForMaskedLM"),
    "GPT2LMHeadModel": ("text-generation", "AutoModelForCausalLM"),
}
"""What model hubs call the task of an architecture, and what opens it."""


def _card(trained: TrainedEncoder, architecture: str, format: str) -> str:
    config = trained.config
    if format == "sentence-transformers":
        library, tags, task = format, [format, "feature-extraction"], "sentence-similarity"
        code = 'from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer("FOLDER")'
    else:
        library, tags = "transformers", ["self-supervised", config["method"]]
        task, auto = TASKS.get(architecture, ("feature-extraction", "AutoModel"))
        code = f'from transformers import AutoTokenizer, {auto}\n\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        code += f'model = {auto}.from_pretrained("FOLDER")'
    data, training = config["data"], config["training"]
    steps = training.get("steps")
    how = f"{steps} steps of {training['batch_size']}, seed {training['seed']}" if steps else "see where it comes from"
    return f"""---
library_name: {library}
pipeline_tag: {task}
tags: [{", ".join(tags)}]
---
# {config["encoder"]["name"]} trained with {config["method"]}, as {architecture}

```python
{code}
```

| | |
|---|---|
| data | {data["items"]} items, fingerprint {data["fingerprint"]} |
| method | {config["method"]} {json.dumps(config["options"])} |
| training | {how} |
| selfsup | {selfsup.__version__} |
"""


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
