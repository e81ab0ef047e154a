"""Small data of the kind that a method learns from."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from selfsup.methods import describe


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, dict[str, Any]]]:
    """A function of a method: the path of data that it learns from, and the settings of `pretrain` that suit so little of it.

    Its other argument is the number of images; there are 60 texts.
    """
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    words = [f"{a}{b}" for a in ("ba", "de", "ki", "lo", "mu") for b in ("n", "r", "s", "t", "x", "")]
    documents = ["\n".join(" ".join(rng.choice(words, rng.integers(4, 9))) + " ." for _ in range(6)) for _ in range(60)]
    (folder / "text.txt").write_text("\n\n".join(documents))

    def of(method: str, items: int = 64) -> tuple[str, dict[str, Any]]:
        if method == "word2vec":  # one thread: several do not wait for each other, and no run is like another
            own = {"threads": 1, "min_count": 1, "optimizer": None}
            return str(folder / "text.txt"), {"sequence_length": 16, "encoder": "words_20", **own}
        if describe(method).modality == "text":
            encoder = "gpt_nano" if method == "gpt" else "bert_tiny"
            return str(folder / "text.txt"), {"vocabulary_size": 300, "sequence_length": 16, "encoder": encoder}
        np.save(folder / f"{items}.npy", images[:items])
        return str(folder / f"{items}.npy"), {"crops": 3} if method == "simclr" else {}

    return of
