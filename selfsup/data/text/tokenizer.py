"""Text -> token numbers and back, with a vocabulary learned from the user's text by the `tokenizers` library."""

import hashlib
import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from selfsup.data.errors import BadDataError
from selfsup.method import Vocabulary

PAD, UNKNOWN, START, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
Kind = Literal["wordpiece", "bpe", "character", "word"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_AFTER = re.compile(r"(?<=\S)\S")
# What other people's tokenizers call the same; the first that is there is taken.
_ALSO = {
    PAD: (PAD, "<pad>", "<|pad|>", "<|endoftext|>"),
    UNKNOWN: (UNKNOWN, "<unk>", "<|endoftext|>"),
    START: (START, "<s>", "<|endoftext|>"),
    END: (END, "</s>", "<|endoftext|>"),
    MASK: (MASK, "<mask>", "<|mask|>"),
}


class Tokenizer:
    """A vocabulary and how text is cut into it; kept as one JSON text, the `tokenizer.json` of the ecosystem.

    Args:
        document: that text.

    Attributes:
        size: V, tokens in the vocabulary.
        pad, unknown, start, end: numbers of the special tokens; `mask` is -1 where there is none.
        special: (V,) bool, tokens that stand for no text.
        continues: (V,) bool, tokens that go on with a word that has begun, for masking whole words.

    Raises:
        ValueError: it is no such document, or has neither padding nor an end of text.
    """

    def __init__(self, document: str) -> None:
        try:
            self._inner = tokenizers_library().Tokenizer.from_str(document)
        except Exception as error:  # the library raises bare Exceptions
            raise ValueError(f"expected the JSON of a tokenizer: {error}") from None
        self.document = document
        self._inner.no_padding()
        self._inner.no_truncation()
        self._inner.encode_special_tokens = True  # "[SEP]" in somebody's text is text
        vocabulary: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        self.size: int = max(vocabulary.values(), default=-1) + 1  # where a text has a special token's name as a word, a number is unused

        def number(token: str) -> int:
            return next((vocabulary[name] for name in _ALSO[token] if name in vocabulary), -1)

        self.pad, self.unknown, self.start, self.end, self.mask = map(number, SPECIAL)
        if min(self.pad, self.end) < 0:
            raise ValueError(
                f"the tokenizer has no token for padding or for the end of a text; expected one of {_ALSO[PAD]} and {_ALSO[END]}"
            )
        self.special = np.ones(self.size, dtype=bool)
        self.special[list(vocabulary.values())] = False
        added = [i for i, token in self._inner.get_added_tokens_decoder().items() if token.special]
        self.special[[i for i in (*added, self.pad, self.unknown, self.start, self.end, self.mask) if i >= 0]] = True
        self.continues = np.zeros(self.size, dtype=bool)
        kind = type(self._inner.model).__name__
        for token, i in vocabulary.items():
            # WordPiece marks what goes on, byte-level BPE what begins.
            self.continues[i] = token.startswith("##") if kind == "WordPiece" else kind == "BPE" and not token.startswith(("Ġ", "Ċ"))
        self.continues &= ~self.special

    @property
    def vocabulary(self) -> Vocabulary:
        """What methods know of it."""
        numbers = (self.size, self.pad, self.unknown, self.start, self.end, self.mask)
        return Vocabulary(*numbers, torch.from_numpy(self.special.copy()), torch.from_numpy(self.continues.copy()))

    @property
    def fingerprint(self) -> str:
        """Hex digest of the document."""
        return hashlib.blake2b(self.document.encode(), digest_size=16).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token numbers of each text, int64, without special tokens but the unknown one, even where a text has the name of one."""
        return [self._of_text(found) for found in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """Token numbers of each word of a sentence that is cut into words already; every word gets one at least."""
        return [ids if len(ids) else np.array([max(self.unknown, 0)]) for ids in self.encode(words)]

    def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Token numbers (n,) and, for each, the characters of the text that it stands for: (n, 2), from and to."""
        found = self._inner.encode(text, add_special_tokens=False)
        return self._of_text(found), np.array(found.offsets, np.int64).reshape(-1, 2)

    def _of_text(self, found: Any) -> np.ndarray:
        ids = np.array(found.ids, np.int64)
        if self.unknown >= 0:
            ids[self.special[ids]] = self.unknown  # a vocabulary of words finds special tokens by their names
        return ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token numbers; special tokens are left out."""
        return self._inner.decode([int(i) for i in ids], skip_special_tokens=True)

    def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The tokens as the vocabulary spells them."""
        return [self._inner.id_to_token(int(i)) for i in ids]

    def number(self, token: str) -> int | None:
        """The number of a token of the vocabulary, None where it has no such."""
        return self._inner.token_to_id(token)

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`."""
        path.write_text(self.document, encoding="utf-8")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A `tokenizer.json`, or the one in a folder.

    Raises:
        ValueError: it is not there, or no tokenizer.
    """
    path = Path(path).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"there is no tokenizer {path}; expected a tokenizer.json, or one of wordpiece, bpe, character and word to train one"
        )
    return Tokenizer(path.read_text(encoding="utf-8"))


def train_tokenizer(
    texts: Iterable[str], kind: Kind, *, vocabulary_size: int, lowercase: bool | None = None, min_count: int = 2
) -> Tokenizer:
    """Learn a vocabulary.

    Args:
        texts: any cut of the corpus, read once (of wordpiece, twice).
        kind: wordpiece as in BERT, byte-level bpe as in GPT-2, character, or word (whatever stands between spaces).
        vocabulary_size: most tokens, special ones included.
        lowercase: fold case, and of wordpiece take accents off, as BERT's uncased models do; wordpiece does when not given, others do not.
        min_count: a token that occurs less often is left out (of wordpiece and bpe: is not joined).

    Raises:
        ValueError: no such kind, or a vocabulary too small.
        BadDataError: there is nothing in the texts.
    """
    if kind not in KINDS:
        raise ValueError(f'tokenizer must be "wordpiece", "bpe", "character", "word" or a path, got "{kind}"')
    least = 300 if kind == "bpe" else len(SPECIAL) + 1
    if vocabulary_size < least:
        raise ValueError(f"vocabulary_size of {kind} must be at least {least}, got {vocabulary_size}")
    t = tokenizers_library()
    inner, options = _untrained(t, kind)
    if kind == "wordpiece":
        inner.normalizer = t.normalizers.BertNormalizer(lowercase=lowercase is not False)
    elif lowercase:
        inner.normalizer = t.normalizers.Lowercase()
    begins, goes_on = _letters(inner, texts, vocabulary_size) if kind == "wordpiece" else ([], [])
    options |= {"special_tokens": [*SPECIAL, *goes_on], "show_progress": False, "min_frequency": 1 if kind == "character" else min_count}
    if kind == "wordpiece":
        options |= {"initial_alphabet": begins, "limit_alphabet": len(begins)}
    inner.train_from_iterator(texts, inner.model.get_trainer().__class__(vocab_size=vocabulary_size, **options))
    made = json.loads(inner.to_str())
    if inner.get_vocab_size() <= len(SPECIAL):
        raise BadDataError("the text holds no words to learn a vocabulary from")
    made["added_tokens"] = made["added_tokens"][: len(SPECIAL)]
    return Tokenizer(json.dumps(made, ensure_ascii=False))


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """A tokenizer that cuts at spaces and knows these words, numbered in their order after the special tokens.

    Raises:
        ValueError: a word comes twice, or is the name of a special token.
    """
    numbers = {word: i for i, word in enumerate((*SPECIAL, *words))}
    if len(numbers) != len(SPECIAL) + len(words):
        raise ValueError(f"expected different words, none of them {', '.join(SPECIAL)}")
    t = tokenizers_library()
    inner = t.Tokenizer(t.models.WordLevel(numbers, unk_token=UNKNOWN))
    inner.pre_tokenizer = t.pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(list(SPECIAL))
    return Tokenizer(inner.to_str())


def _untrained(t: Any, kind: Kind) -> tuple[Any, dict[str, Any]]:
    """A tokenizer without vocabulary, and options of its training."""
    if kind == "wordpiece":
        inner = t.Tokenizer(t.models.WordPiece(unk_token=UNKNOWN))
        inner.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
        inner.decoder = t.decoders.WordPiece()
        return inner, {}
    if kind == "bpe":
        inner = t.Tokenizer(t.models.BPE())
        inner.pre_tokenizer = t.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = t.decoders.ByteLevel()
        return inner, {"initial_alphabet": sorted(t.pre_tokenizers.ByteLevel.alphabet())}
    inner = t.Tokenizer(t.models.WordLevel(unk_token=UNKNOWN))
    whole = t.pre_tokenizers.WhitespaceSplit()
    inner.pre_tokenizer = whole if kind == "word" else t.pre_tokenizers.Split(t.Regex(r"[\s\S]"), "isolated")
    if kind == "character":
        inner.decoder = t.decoders.Fuse()
    return inner, {}


def _letters(inner: Any, texts: Iterable[str], vocabulary_size: int) -> tuple[list[str], list[str]]:
    """Letters of the text, and those that go on with a word, as "##a"; the most frequent where there are too many.

    The library numbers the second kind in the order of a hash table, which is another one each time, and breaks ties between joins by these
    numbers: the same text would give another vocabulary every time. Given in advance, their order is ours.
    """
    every: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for text in texts:
        normal = inner.normalizer.normalize_str(text)
        every.update(normal)
        after.update(_AFTER.findall(normal))
    # A text in Chinese or Japanese has thousands of letters; a vocabulary of letters only would have no words.
    ranked = sorted((c for c in every if not c.isspace()), key=lambda c: (-every[c], c))[: vocabulary_size // 2]
    inside = [c for c in ranked if c in after and not _is_punctuation(c)]
    return sorted(ranked), [f"##{c}" for c in sorted(inside)][: max(vocabulary_size - len(SPECIAL) - len(ranked), 0)]


def _is_punctuation(character: str) -> bool:
    """As BERT has it: a character that is always a word of its own."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def tokenizers_library() -> Any:
    """The `tokenizers` library with its parts.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise ValueError("text needs the tokenizers library; install selfsup[text]") from None
    return tokenizers


def describe(document: str) -> str:
    """The kind of a tokenizer, in a word."""
    return str(json.loads(document)["model"]["type"]).lower()
