"""Bag of words: what counting tokens alone is worth, the first thing that an encoder of text has to beat.

TF-IDF (Salton and Buckley 1988) along its principal directions: latent semantic analysis (Deerwester et al. 1990), by the randomised SVD of
Halko, Martinsson and Tropp. https://arxiv.org/abs/0909.4061

Axes: N texts, V tokens of the vocabulary, K directions.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from selfsup.data import Items, sequential

WIDTH = 1024
"""Directions; as good as all counts for a linear probe, and small enough to solve it exactly."""
POWER = 4


def bag_of_words(train: Items, test: Items, *, width: int = WIDTH, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Vectors of (train, test), each (texts, K), from how often each token occurs in them; labels are not looked at.

    A token counts 1 + log(times) in a text, times log((1 + N) / (1 + texts that have it)) + 1, and every text has length 1; special tokens
    and those of a single training text do not count.

    Args:
        width: K; fewer where there are fewer texts or tokens.
        seed: of the SVD's random directions.

    Raises:
        ValueError: items that are no text.
    """
    if train.tokenizer is None:
        raise ValueError(f"a bag of words needs text, got {train.source}")
    counts = [_counts(items, train.tokenizer.special) for items in (train, test)]
    texts = torch.zeros(train.tokenizer.size).index_add_(0, counts[0].indices()[1], torch.ones(counts[0].values().shape))
    idf = torch.where(texts >= 2, ((1 + len(train)) / (1 + texts)).log() + 1, torch.zeros(()))
    x_train, x_test = (_weighted(x, idf) for x in counts)
    directions = _directions(x_train, min(width, len(train), int((texts >= 2).sum())), seed)
    return torch.sparse.mm(x_train, directions), torch.sparse.mm(x_test, directions)


def _counts(items: Items, special: np.ndarray) -> Tensor:
    """(N, V) sparse: how often each token occurs in each text."""
    rows, columns, done = [], [], 0
    left_out = torch.from_numpy(special)
    for batch in sequential(items, 2048):
        ids = batch["text"]
        row, at = (~left_out[ids]).nonzero(as_tuple=True)
        rows.append(row + done)
        columns.append(ids[row, at])
        done += len(ids)
    index = torch.stack([torch.cat(rows), torch.cat(columns)])
    return torch.sparse_coo_tensor(index, torch.ones(index.shape[1]), (len(items), len(special)), check_invariants=False).coalesce()


def _weighted(counts: Tensor, idf: Tensor) -> Tensor:
    row, token = counts.indices()
    values = (1 + counts.values().log()) * idf[token]
    length = torch.zeros(len(counts)).index_add_(0, row, values.square()).sqrt()
    values = values / length.clamp(min=1e-12)[row]
    return torch.sparse_coo_tensor(counts.indices(), values, counts.shape, is_coalesced=True, check_invariants=False)


def _directions(x: Tensor, width: int, seed: int) -> Float[Tensor, "V K"]:
    """The right singular vectors of the largest singular values, as columns."""
    sketch = min(width + 16, *x.shape)
    basis = torch.randn(x.shape[1], sketch, generator=torch.Generator().manual_seed(seed))
    turned = x.t().coalesce()
    for _ in range(POWER):
        basis = torch.linalg.qr(torch.sparse.mm(turned, torch.sparse.mm(x, basis))).Q  # orthonormal between passes
    left = torch.linalg.qr(torch.sparse.mm(x, basis)).Q
    small = torch.sparse.mm(turned, left).T
    return torch.linalg.svd(small, full_matrices=False).Vh[:width].T.contiguous()
