"""Encoders of text for other libraries: folders that `transformers` and `sentence-transformers` open. Neither library is needed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import selfsup
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.engine.checkpoint import load_tensors, save_tensors
from selfsup.models.hugging_face import MASKED_HEAD, NEXT_HEAD, pairs, their_config, to_theirs
from selfsup.models.text import TextTransformer
from selfsup.tasks.exchange.word_vectors import export_word_vectors
from selfsup.tasks.pretraining.run_folders import empty_folder
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, checkpoint_tensors, load

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
