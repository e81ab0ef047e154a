"""Commands that hand encoders to other libraries and take them from there."""

from pathlib import Path
from typing import Literal


def export(
    encoder: Path,
    /,
    *,
    out: Path,
    format: Literal["huggingface", "sentence-transformers", "word2vec", "word2vec-text"] = "huggingface",
    best: bool = False,
) -> None:
    """Write an encoder of text so that transformers, sentence-transformers or gensim opens it.

    Args:
        encoder: a run's folder, or an encoder folder; of a run of bert or gpt the whole model is written.
        out: an empty or new folder; of the formats of word2vec a file, compressed if its name ends in .gz.
        format: huggingface, for AutoModel and AutoTokenizer; sentence-transformers, for SentenceTransformer; word2vec (binary) or
            word2vec-text, for KeyedVectors.load_word2vec_format of gensim and others.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
    """
    import selfsup

    if format in ("huggingface", "sentence-transformers"):
        print(selfsup.export(encoder, out=out, format=format, best=best))
        return
    from selfsup.tasks.exchange.word_vectors import export_word_vectors

    written = export_word_vectors(encoder, out, binary=format == "word2vec", best=best)
    print(f"{written.words:,} words in {written.path}")
    if written.left_out:
        print(f"{written.left_out:,} words with a space or a line's end in them cannot be held by the format and were left out")


def import_(source: Path, /, *, out: Path) -> None:
    """Make an encoder folder of a BERT or a GPT-2 of transformers, or of word vectors.

    Args:
        source: a folder with config.json, the tokenizer, and model.safetensors or pytorch_model.bin; or a file in a format of word2vec.
        out: an empty or new folder, which embed, evaluate, similar, finetune and verify take.
    """
    import selfsup

    made = selfsup.import_encoder(source, out=out)
    about = made.config.get("imported")
    what = f"{about['architecture']} as {made.config['encoder']['name']}" if about else f"{made.config['data']['items']:,} words"
    print(f"{out}: {what}, vectors of {made.width}")


VERBS = (export, import_)
"""In the order of `selfsup --help`."""
