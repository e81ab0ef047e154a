"""Tokenizers as other libraries have left them in a folder: `tokenizer.json`, BERT's vocab.txt, GPT-2's vocab.json and merges.txt."""

import json
from pathlib import Path
from typing import Any

from selfsup.data.text.tokenizer import SPECIAL, UNKNOWN, Tokenizer, load_tokenizer, tokenizers_library

LARGEST = 1 << 26  # bytes of a file; the largest vocabularies in use have a quarter of it


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, whichever files it is in.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
    there = {name for name in names if (folder / name).is_file()}
    for name in there:
        if (folder / name).stat().st_size > LARGEST:
            raise ValueError(f"{folder / name}: larger than {LARGEST >> 20} MiB; is it a vocabulary?")
    if "tokenizer.json" in there:
        return load_tokenizer(folder)
    if "vocab.txt" in there:
        return _wordpiece(folder)
    if {"vocab.json", "merges.txt"} <= there:
        return _byte_level(folder)
    raise ValueError(f"{folder}: no tokenizer in it; expected tokenizer.json, vocab.txt, or vocab.json with merges.txt")


def _wordpiece(folder: Path) -> Tokenizer:
    t = tokenizers_library()
    said = _settings(folder)
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary = {line.removesuffix("\r"): i for i, line in enumerate(lines)}
    inner = t.Tokenizer(t.models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=100))
    inner.normalizer = t.normalizers.BertNormalizer(
        lowercase=said.get("do_lower_case", True),
        strip_accents=said.get("strip_accents"),
        handle_chinese_chars=said.get("tokenize_chinese_chars", True),
    )
    inner.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
    inner.decoder = t.decoders.WordPiece()
    inner.add_special_tokens([token for token in SPECIAL if token in vocabulary])
    return Tokenizer(inner.to_str())


def _byte_level(folder: Path) -> Tokenizer:
    t = tokenizers_library()
    try:
        model = t.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(f"{folder}: vocab.json and merges.txt are no byte-level vocabulary ({error})") from None
    inner = t.Tokenizer(model)
    inner.pre_tokenizer = t.pre_tokenizers.ByteLevel(add_prefix_space=_settings(folder).get("add_prefix_space", False))
    inner.decoder = t.decoders.ByteLevel()
    inner.add_special_tokens([token for token in ("<|endoftext|>",) if inner.token_to_id(token) is not None])
    return Tokenizer(inner.to_str())


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    if not path.is_file() or path.stat().st_size > LARGEST:
        return {}
    said = json.loads(path.read_text(encoding="utf-8"))
    return said if isinstance(said, dict) else {}
