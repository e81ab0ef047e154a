"""Commands that hand encoders to other libraries and take them from there."""

from pathlib import Path
from typing import Literal


def export(
    encoder: Path,
    /,
    *,
    out: Path,
    format: Literal["huggingface", "sentence-transformers"] = "huggingface",
    best: bool = False,
) -> None:
    """Write a transformer of text as a folder that transformers or sentence-transformers opens.

    Args:
        encoder: a run's folder, or an encoder folder; of a run of bert or gpt the whole model is written.
        out: an empty or new folder.
        format: huggingface, for AutoModel and AutoTokenizer; sentence-transformers, for SentenceTransformer.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
    """
    import selfsup

    print(selfsup.export(encoder, out=out, format=format, best=best))


def import_(folder: Path, /, *, out: Path) -> None:
    """Make an encoder folder of a BERT or a GPT-2 of transformers.

    Args:
        folder: with config.json, the tokenizer, and model.safetensors or pytorch_model.bin.
        out: an empty or new folder, which embed, evaluate, finetune and verify take.
    """
    import selfsup

    made = selfsup.import_encoder(folder, out=out)
    about = made.config["imported"]
    print(f"{out}: {about['architecture']} as {made.config['encoder']['name']}, vectors of {made.width}")


VERBS = (export, import_)
"""In the order of `selfsup --help`."""
