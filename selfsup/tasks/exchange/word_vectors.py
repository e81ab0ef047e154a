"""Vectors of words out of a run and into one: the formats of word2vec, which gensim and others share."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch

import selfsup
from selfsup.data.text.tokenizer import SPECIAL, word_tokenizer
from selfsup.data.text.vector_files import WordVectors, can_hold, read_word_vectors, write_word_vectors
from selfsup.models import build_encoder
from selfsup.models.word_table import only_words
from selfsup.tasks.pretraining.run_folders import empty_folder
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load, save_encoder

LENGTH = 1000  # words of a text that an imported encoder looks at


class Written(NamedTuple):
    """What a file of word vectors holds.

    Attributes:
        path: the file.
        words: how many are in it.
        left_out: words of the run that the format cannot hold, as they have a space or a line's end in them.
    """

    path: Path
    words: int
    left_out: int


def word_vectors(trained: TrainedEncoder) -> WordVectors:
    """The words of an encoder and their vectors, those that occurred most often first.

    Raises:
        ValueError: its network is no table of words.
    """
    table = only_words(trained.network, "a list of word vectors")
    assert trained.tokenizer is not None
    known = table.known.nonzero()[:, 0]
    return WordVectors(trained.tokenizer.tokens(known.tolist()), table.vectors.detach()[known].numpy())


def export_word_vectors(run: str | Path, path: str | Path, *, binary: bool = False, best: bool = False) -> Written:
    """Write the vectors of a run of word2vec for other programs, such as gensim's `KeyedVectors.load_word2vec_format`.

    Args:
        run: a run, or an encoder folder.
        path: of the file; compressed if it ends in .gz.
        binary: float32, a fifth of the size; otherwise text.
        best: of a run, the best checkpoint by the label-free measure instead of the last.

    Raises:
        ValueError: it has no table of words.
        OSError: the file cannot be written.
    """
    found = word_vectors(load(run, best=best))
    kept = [i for i, word in enumerate(found.words) if can_hold(word)]
    write_word_vectors(path, WordVectors([found.words[i] for i in kept], found.vectors[kept]), binary=binary)
    return Written(Path(path), len(kept), len(found.words) - len(kept))


@torch.no_grad()
def import_word_vectors(path: str | Path, out: str | Path, *, binary: bool | None = None) -> TrainedEncoder:
    """Make an encoder folder of a file of word vectors, so that it can embed texts and be evaluated like one of a run.

    Args:
        path: in one of the formats of word2vec, perhaps compressed (.gz).
        out: the folder, which is made or empty.
        binary: the format; None to find out.

    Raises:
        ValueError: the file is damaged or of another kind, or the folder is not empty.
    """
    found = read_word_vectors(path, binary=binary)
    kept = [i for i, word in enumerate(found.words) if word not in SPECIAL]  # words of that name would be taken for special tokens
    tokenizer = word_tokenizer([found.words[i] for i in kept])
    t, width = tokenizer, found.vectors.shape[1]
    text = {"length": LENGTH, "pad": t.pad, "start": t.start, "end": t.end}
    table = only_words(build_encoder(f"words_{width}", channels=t.size, image_size=0, text=text), "an import")
    table.leave_out(t.vocabulary.special)
    table.vectors[table.known] = torch.from_numpy(found.vectors[kept])
    digest = hashlib.blake2b(found.vectors.tobytes() + "\n".join(found.words).encode(), digest_size=16).hexdigest()
    config: dict[str, Any] = {
        "method": "word2vec",
        "options": {},
        "encoder": table.spec,
        "data": {"source": str(Path(path).resolve()), "items": len(kept), "fingerprint": digest, "value_range": None},
        "training": {"steps": 0, "minutes": None, "batch_size": 0, "seed": 0},
        "versions": {"selfsup": selfsup.__version__},
    }
    folder = empty_folder(out)
    folder.rmdir()  # what is written takes its place in one step
    save_encoder(folder, table, config, tokenizer)
    return load(folder)
